<?php
// pecl memcached in binary mode on managed keys: refusals are plain, the connection and every other key stay.
declare(strict_types=1);
require __DIR__ . '/lib.php';

$mem = binary();
foreach (['access_token', appid(), 'access_token:' . appid()] as $key) {
    $token = $mem->get($key);
    hold(is_token($token), "get $key");
    $refused = static function (mixed $answer, int $code, string $what) use ($mem, $key, $token): void {
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
    hold($cas > 0, 'a cas number');
    $refused($mem->cas($cas, $key, 'other', 3600), Memcached::RES_DATA_EXISTS, 'cas with the current number');
    $mem->setOption(Memcached::OPT_COMPRESSION, false);
    $refused($mem->append($key, 'other'), Memcached::RES_NOTSTORED, 'append');
    $refused($mem->prepend($key, 'other'), Memcached::RES_NOTSTORED, 'prepend');
    $refused($mem->set($key, str_repeat('x', 3 << 20), 0), Memcached::RES_NOTSTORED, 'set over the size limit');
    $mem->setOption(Memcached::OPT_COMPRESSION, true);
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
