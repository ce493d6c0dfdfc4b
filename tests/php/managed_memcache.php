<?php
// pecl memcache on managed keys: no refusal is a notice, and none makes it give the server up.
declare(strict_types=1);
require __DIR__ . '/lib.php';

$mem = memcache();
foreach (['access_token', appid(), 'access_token:' . appid()] as $key) {
    $token = $mem->get($key);
    hold(is_token($token), "get $key");
    $still = static function (string $after) use ($mem, $key, $token): void {
        same($mem->get($key), $token, "$key after $after");
        still_good($mem, $after);
    };
    same($mem->set($key, 'other', 0, 3600), false, 'set');
    $still('set');
    same($mem->set($key, ['an' => 'array'], MEMCACHE_COMPRESSED, 0), false, 'set of an array');
    $still('set of an array');
    same($mem->set($key, str_repeat('x', 3 << 20), 0, 0), false, 'set over the size limit');
    $still('set over the size limit');
    same($mem->add($key, 'other', 0, 3600), false, 'add');
    $still('add');
    same($mem->replace($key, 'other', 0, 3600), false, 'replace');
    $still('replace');
    same($mem->append($key, 'other'), false, 'append');
    $still('append');
    same($mem->prepend($key, 'other'), false, 'prepend');
    $still('prepend');
    $cas = $flags = null;
    same($mem->get($key, $flags, $cas), $token, 'get with cas');
    same($mem->cas($key, 'other', 0, 3600, $cas), false, 'cas with the current number');
    $still('cas');
    same($mem->delete($key), true, 'delete');
    $still('delete');

    // Several at once: the managed one is refused, the others are stored.
    $mem->set(['first' => '1', $key => 'other', 'last' => '2'], null, 0, 60);
    same($mem->get(['first', $key, 'last']), ['first' => '1', $key => $token, 'last' => '2'], 'multi get after multi set');
    $still('multi set');

    // A token is no number: the one answer that memcached itself gives with a notice.
    foreach (['increment', 'decrement'] as $count) {
        try {
            $mem->$count($key);
            hold(false, "$count on a token gives no notice");
        } catch (ErrorException $notice) {
            hold(str_contains($notice->getMessage(), 'cannot increment or decrement non-numeric value'), $notice->getMessage());
        }
        $still($count);
    }
    hold($mem->flush(), 'flush');
    $still('flush');
}
echo "ok\n";
