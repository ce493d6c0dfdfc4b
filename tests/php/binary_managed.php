<?php
// pecl memcached in binary mode on managed keys: refusals are plain, the connection and every other key stay.
declare(strict_types=1);
require __DIR__ . '/lib.php';

$mem = binary();
foreach (['access_token', appid(), 'access_token:' . appid()] as $key) {
    $token = $mem->get($key);
    hold(is_token($token), "get $key");
    stores_are_refused($mem, $key, $token);
    foreach (['increment', 'decrement'] as $count) {
        same($mem->$count($key), false, $count);
        hold($mem->getResultCode() !== Memcached::RES_SUCCESS, "$count fails");
        same($mem->$count($key, 1, 5, 60), false, "$count with a beginning");
        same($mem->get($key), $token, "$key after $count");
        still_good($mem, $count);
    }

    same($mem->touch($key, 1), true, 'touch');
    same($mem->get($key), $token, 'get after touch');
    same($mem->delete($key), true, 'delete');
    same($mem->get($key), $token, 'get after delete');

    $mem->setMulti(['first' => '1', $key => 'other', 'last' => '2'], 60);
    same($mem->getMulti(['first', $key, 'last', 'nothing']), ['first' => '1', $key => $token, 'last' => '2'], 'getMulti');
    still_good($mem, 'setMulti');

    // Quiet packets: refusals without an answer leave the conversation in step.
    foreach ([Memcached::OPT_NOREPLY, Memcached::OPT_BUFFER_WRITES] as $quiet) {
        $mem->setOption($quiet, true);
        $mem->set($key, 'other', 3600);
        $mem->set('quiet', 'yes', 60);
        $mem->add($key, 'other', 3600);
        $mem->setOption($quiet, false);
        $mem->flushBuffers();
        same($mem->get($key), $token, 'get after a set without reply');
        same($mem->get('quiet'), 'yes', 'the others were stored');
        still_good($mem, 'set without reply');
    }

    hold($mem->flush(), 'flush');
    same($mem->get($key), $token, 'get after flush');
    same($mem->get('first'), false, 'an ordinary key after flush');
}
echo "ok\n";
