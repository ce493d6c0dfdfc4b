<?php
// pecl memcached in binary mode on ordinary keys: a plain cache.
declare(strict_types=1);
require __DIR__ . '/lib.php';

$mem = binary();
$values = [
    'string' => 'text', 'empty' => '', 'zero' => '0', 'binary' => "\0\r\nEND\r\n\xff", 'utf8' => '微信',
    'int' => 42, 'float' => 1.5, 'true' => true, 'false' => false, 'null' => null, 'list' => [1, 'two', [3.5, null]],
    'large' => str_repeat('compressible ', 50000), 'dense' => random_bytes(400000),
];
foreach ($values as $key => $value) {
    hold($mem->set($key, $value, 600), "set $key: " . $mem->getResultMessage());
    same($mem->get($key), $value, "get $key");
    same($mem->getResultCode(), Memcached::RES_SUCCESS, "get $key");
}
hold($mem->setMulti($values, 600), 'setMulti');
same($mem->getMulti(array_keys($values), Memcached::GET_PRESERVE_ORDER), $values, 'getMulti');
$mem->getDelayed(['string', 'int'], true);
same(array_column($mem->fetchAll(), 'value', 'key'), ['string' => 'text', 'int' => 42], 'getDelayed');
// One cache, whichever protocol.
same(memcached()->get('utf8'), '微信', 'get in text');

$code = static fn (mixed $answer, int $code, string $what) => same([$answer, $mem->getResultCode()], [false, $code], $what);
$code($mem->get('nothing'), Memcached::RES_NOTFOUND, 'a miss');
hold(!$mem->add('string', 'x', 60), 'add of what is there');
hold($mem->add('added', 'x', 60), 'add');
$code($mem->replace('nothing', 'x', 60), Memcached::RES_NOTFOUND, 'replace of nothing');
hold($mem->replace('added', 'y', 60), 'replace');
$mem->setOption(Memcached::OPT_COMPRESSION, false);
hold($mem->append('added', 'z'), 'append');
hold($mem->prepend('added', 'x'), 'prepend');
same($mem->get('added'), 'xyz', 'get after append and prepend');
$code($mem->append('nothing', 'x'), Memcached::RES_NOTSTORED, 'append to nothing');
$code($mem->set('huge', random_bytes(2 << 20), 60), Memcached::RES_E2BIG, 'set over the size limit');
$mem->setOption(Memcached::OPT_COMPRESSION, true);
still_good($mem, 'a value over the size limit');

same($mem->increment('count', 5, 10, 60), 10, 'increment begins a counter');
same($mem->increment('count', 5, 10, 60), 15, 'increment');
same($mem->decrement('count', 6), 9, 'decrement');
same($mem->decrement('count', 100), 0, 'decrement stops at 0');
$code($mem->increment('nothing'), Memcached::RES_NOTFOUND, 'increment of nothing');

hold($mem->set('cas', 'one', 60), 'set');
$cas = $mem->get('cas', null, Memcached::GET_EXTENDED)['cas'];
hold($mem->cas($cas, 'cas', 'two', 60), 'cas');
$code($mem->cas($cas, 'cas', 'three', 60), Memcached::RES_DATA_EXISTS, 'cas with an old number');
same($mem->get('cas'), 'two', 'get after cas');
hold($mem->touch('cas', 100), 'touch');
$code($mem->touch('nothing', 100), Memcached::RES_NOTFOUND, 'touch of nothing');
hold($mem->delete('cas'), 'delete');
$code($mem->delete('cas'), Memcached::RES_NOTFOUND, 'delete of nothing');
same($mem->deleteMulti(['string', 'none']), ['string' => true, 'none' => Memcached::RES_NOTFOUND], 'deleteMulti');
hold($mem->set(str_repeat('k', 250), 'long', 60), 'set with the longest key');
same($mem->get(str_repeat('k', 250)), 'long', 'get with the longest key');
hold(version_compare(current($mem->getVersion()), '1.6.18', '>='), 'getVersion');
hold((int) current($mem->getStats())['pid'] > 0, 'getStats');

// Symfony's habit: nothing waits, writes are gathered.
$symfony = binary();
$symfony->setOptions([Memcached::OPT_NO_BLOCK => true, Memcached::OPT_TCP_NODELAY => true]);
hold($symfony->setMulti(array_map('strval', range(0, 999)), 60), 'setMulti of a thousand');
same(count($symfony->getMulti(array_map('strval', range(0, 999)))), 1000, 'getMulti of a thousand');

hold($mem->flush(), 'flush');
same($mem->getMulti(['int', 'utf8']), [], 'getMulti after flush');
still_good($mem, 'flush');
echo "ok\n";
