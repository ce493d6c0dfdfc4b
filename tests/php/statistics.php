<?php
// What admin tools ask: no answer makes an extension give the server up.
declare(strict_types=1);
require __DIR__ . '/lib.php';

// Frameworks ask whether the server is new enough for what they use.
function is_memcached_1_6(string $version): bool
{
    return version_compare($version, '1.6.18', '>=') && version_compare($version, '1.7', '<');
}

$mem = memcache();
$token = $mem->get('access_token');
hold(is_token($token), 'get');
hold(is_memcached_1_6($mem->getVersion()), 'getVersion');
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
hold(is_memcached_1_6(current($mem->getVersion())), 'getVersion');
hold(is_memcached_1_6(current($mem->getStats())['version']), 'the version in the statistics');
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
