<?php
// What admin tools ask: no answer makes an extension give the server up.
declare(strict_types=1);
require __DIR__ . '/lib.php';

$mem = memcache();
$token = $mem->get('access_token');
hold(is_token($token), 'get');
hold(is_string($mem->getVersion()), 'getVersion');
still_good($mem, 'getVersion');
hold(isset($mem->getStats()['curr_items']), 'getStats');
still_good($mem, 'getStats');
hold(is_array($mem->getExtendedStats()), 'getExtendedStats');
// All that the extension lets through.
foreach (['reset', 'malloc', 'items', 'slabs', 'sizes'] as $kind) {
    $mem->getStats($kind);
    still_good($mem, "getStats $kind");
}
$mem->getStats('cachedump', 1, 10);
still_good($mem, 'getStats cachedump');
same($mem->get('access_token'), $token, 'the token after it all');

$mem = memcached();
hold(is_token($mem->get('access_token')), 'get');
hold(array_values($mem->getVersion()) !== [], 'getVersion');
still_good($mem, 'getVersion');
foreach ([null, 'items', 'slabs', 'settings', 'conns', 'tokens'] as $kind) {
    $stats = $kind === null ? $mem->getStats() : $mem->getStats($kind);
    hold(is_array($stats), 'getStats ' . $kind);
    still_good($mem, 'getStats ' . $kind);
}
$keys = $mem->getAllKeys();
hold(!is_array($keys) || !in_array('access_token', $keys, true), 'getAllKeys names no managed key');
still_good($mem, 'getAllKeys');
hold(is_token($mem->get('access_token')), 'the token after it all');
echo "ok\n";
