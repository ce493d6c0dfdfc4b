<?php
// pecl memcached on managed keys: refusals are plain, the connection and every other key stay.
declare(strict_types=1);
require __DIR__ . '/lib.php';

$mem = memcached();
foreach (['access_token', appid(), 'access_token:' . appid()] as $key) {
    $token = $mem->get($key);
    hold(is_token($token), "get $key");
    $refused = static function (bool $answer, int $code, string $what) use ($mem, $key, $token): void {
        same($mem->getResultCode(), $code, "$what: " . $mem->getResultMessage());
        same($answer, false, $what);
        same($mem->get($key), $token, "$key after $what");
        still_good($mem, $what);
    };
    $refused($mem->set($key, 'other', 3600), Memcached::RES_NOTSTORED, 'set');
    $refused($mem->set($key, ['an' => 'array'], 0), Memcached::RES_NOTSTORED, 'set of an array');
    $refused($mem->set($key, str_repeat('x', 100000), 0), Memcached::RES_NOTSTORED, 'set of a compressed value');
    $refused($mem->add($key, 'other', 3600), Memcached::RES_NOTSTORED, 'add');
    $refused($mem->replace($key, 'other', 3600), Memcached::RES_NOTSTORED, 'replace');
    $cas = $mem->get($key, null, Memcached::GET_EXTENDED)['cas'];
    $refused($mem->cas($cas, $key, 'other', 3600), Memcached::RES_DATA_EXISTS, 'cas with the current number');
    $mem->setOption(Memcached::OPT_COMPRESSION, false);
    $refused($mem->append($key, 'other'), Memcached::RES_NOTSTORED, 'append');
    $refused($mem->prepend($key, 'other'), Memcached::RES_NOTSTORED, 'prepend');
    $refused($mem->set($key, str_repeat('x', 3 << 20), 0), Memcached::RES_NOTSTORED, 'set over the size limit');
    $mem->setOption(Memcached::OPT_COMPRESSION, true);
    $refused($mem->increment($key), Memcached::RES_CLIENT_ERROR, 'increment');
    $refused($mem->decrement($key), Memcached::RES_CLIENT_ERROR, 'decrement');

    same($mem->touch($key, 1), true, 'touch');
    same($mem->get($key), $token, 'get after touch');
    same($mem->delete($key), true, 'delete');
    same($mem->get($key), $token, 'get after delete');

    $mem->setMulti(['first' => '1', $key => 'other', 'last' => '2'], 60);
    same($mem->getMulti(['first', $key, 'last']), ['first' => '1', $key => $token, 'last' => '2'], 'getMulti after setMulti');
    still_good($mem, 'setMulti');

    // Refusals without an answer leave the conversation in step.
    $mem->setOption(Memcached::OPT_NOREPLY, true);
    $mem->set($key, 'other', 3600);
    $mem->add($key, 'other', 3600);
    $mem->setOption(Memcached::OPT_NOREPLY, false);
    same($mem->get($key), $token, 'get after a set without reply');
    still_good($mem, 'set without reply');

    hold($mem->flush(), 'flush');
    same($mem->get($key), $token, 'get after flush');
    same($mem->get('first'), false, 'an ordinary key after flush');
}
echo "ok\n";
