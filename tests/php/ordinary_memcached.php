<?php
// pecl memcached on ordinary keys: a plain cache.
declare(strict_types=1);
require __DIR__ . '/lib.php';

$mem = memcached();
$object = new ArrayObject(['a' => 1, 'b' => [2, 3]]);
$values = [
    'string' => 'text', 'empty' => '', 'zero' => '0', 'binary' => "\0\r\nEND\r\n\xff", 'utf8' => '微信',
    'int' => 42, 'negative' => -7, 'float' => 1.5, 'true' => true, 'false' => false, 'null' => null,
    'list' => [1, 'two', [3.5, null]], 'object' => $object,
    'large' => str_repeat('compressible ', 50000), 'dense' => random_bytes(400000),
];
$serializers = [Memcached::SERIALIZER_PHP, Memcached::SERIALIZER_IGBINARY, Memcached::SERIALIZER_JSON];
foreach ($serializers as $serializer) {
    if (!$mem->setOption(Memcached::OPT_SERIALIZER, $serializer)) {
        continue;
    }
    foreach ($values as $key => $value) {
        if ($serializer === Memcached::SERIALIZER_JSON && $key === 'object') {
            continue;
        }
        hold($mem->set($key, $value, 600), "set $key: " . $mem->getResultMessage());
        $back = $mem->get($key);
        same($mem->getResultCode(), Memcached::RES_SUCCESS, "get $key");
        is_object($value) ? hold($back == $value, "get $key") : same($back, $value, "get $key");
    }
}
$mem->setOption(Memcached::OPT_SERIALIZER, Memcached::SERIALIZER_PHP);
hold($mem->setMulti($values, 600), 'setMulti');
$many = $mem->getMulti(array_keys($values), Memcached::GET_PRESERVE_ORDER);
hold($many['object'] == $object, 'getMulti, the object');
unset($many['object']);
same($many, array_diff_key($values, ['object' => 0]), 'getMulti');
$mem->getDelayed(['string', 'int'], true);
same(array_column($mem->fetchAll(), 'value', 'key'), ['string' => 'text', 'int' => 42], 'getDelayed');

$code = static fn (mixed $answer, int $code, string $what) => same([$answer, $mem->getResultCode()], [false, $code], $what);
$code($mem->get('nothing'), Memcached::RES_NOTFOUND, 'a miss');
$code($mem->add('string', 'x', 60), Memcached::RES_NOTSTORED, 'add of what is there');
hold($mem->add('added', 'x', 60), 'add');
$code($mem->replace('nothing', 'x', 60), Memcached::RES_NOTSTORED, 'replace of nothing');
hold($mem->replace('added', 'y', 60), 'replace');
$mem->setOption(Memcached::OPT_COMPRESSION, false);
hold($mem->append('added', 'z'), 'append');
hold($mem->prepend('added', 'x'), 'prepend');
same($mem->get('added'), 'xyz', 'get after append and prepend');
$code($mem->append('nothing', 'x'), Memcached::RES_NOTSTORED, 'append to nothing');
$code($mem->set('huge', random_bytes(2 << 20), 60), Memcached::RES_E2BIG, 'set over the size limit');
$mem->setOption(Memcached::OPT_COMPRESSION, true);
still_good($mem, 'a value over the size limit');

hold($mem->set('count', 10, 60), 'set of a number');
same($mem->increment('count', 5), 15, 'increment');
same($mem->decrement('count', 6), 9, 'decrement');
same($mem->decrement('count', 100), 0, 'decrement stops at 0');
$code($mem->increment('nothing'), Memcached::RES_NOTFOUND, 'increment of nothing');

hold($mem->set('cas', 'one', 60), 'set');
$cas = $mem->get('cas', null, Memcached::GET_EXTENDED)['cas'];
hold($mem->cas($cas, 'cas', 'two', 60), 'cas');
$code($mem->cas($cas, 'cas', 'three', 60), Memcached::RES_DATA_EXISTS, 'cas with an old number');
$code($mem->cas($cas, 'nothing', 'x', 60), Memcached::RES_NOTFOUND, 'cas of nothing');
same($mem->get('cas'), 'two', 'get after cas');

hold($mem->touch('cas', 100), 'touch');
$code($mem->touch('nothing', 100), Memcached::RES_NOTFOUND, 'touch of nothing');
hold($mem->touch('cas', -1), 'touch with the past');
$code($mem->get('cas'), Memcached::RES_NOTFOUND, 'get after a touch with the past');
hold($mem->set('gone', 'x', 60), 'set');
hold($mem->delete('gone'), 'delete');
$code($mem->delete('gone'), Memcached::RES_NOTFOUND, 'delete of nothing');
hold($mem->setMulti(['m1' => 'a', 'm2' => 'b'], time() + 100), 'setMulti with an absolute time');
same($mem->deleteMulti(['m1', 'm2', 'm3']), ['m1' => true, 'm2' => true, 'm3' => Memcached::RES_NOTFOUND], 'deleteMulti');
hold($mem->set(str_repeat('k', 250), 'long', 60), 'set with the longest key');
same($mem->get(str_repeat('k', 250)), 'long', 'get with the longest key');

// Laravel's and Symfony's habit: a connection kept over requests, and a prefix.
$kept = new Memcached('kept');
$kept->setOption(Memcached::OPT_PREFIX_KEY, 'app:');
$kept->addServer(host(), port());
hold($kept->set('k', 'v', 60), 'set with a prefix');
same($mem->get('app:k'), 'v', 'get of the prefixed key');

hold($mem->flush(), 'flush');
same($mem->getMulti(['string', 'int']), [], 'getMulti after flush');
still_good($mem, 'flush');
echo "ok\n";
