<?php
// pecl memcached on managed keys: refusals are plain, the connection and every other key stay.
declare(strict_types=1);
require __DIR__ . '/lib.php';

$mem = memcached();
foreach (['access_token', appid(), 'access_token:' . appid()] as $key) {
    $token = $mem->get($key);
    hold(is_token($token), "get $key");
    stores_are_refused($mem, $key, $token);
    refused($mem, $key, $token, $mem->increment($key), Memcached::RES_CLIENT_ERROR, 'increment');
    refused($mem, $key, $token, $mem->decrement($key), Memcached::RES_CLIENT_ERROR, 'decrement');

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
