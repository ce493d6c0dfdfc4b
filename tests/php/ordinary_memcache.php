<?php
// pecl memcache on ordinary keys: a plain cache.
declare(strict_types=1);
require __DIR__ . '/lib.php';

$mem = memcache();
$object = new ArrayObject(['a' => 1, 'b' => [2, 3]]);
$values = [
    'string' => 'text', 'empty' => '', 'zero' => '0', 'binary' => "\0\r\nEND\r\n\xff", 'utf8' => '微信',
    'int' => 42, 'negative' => -7, 'float' => 1.5, 'true' => true, 'false' => false,
    'list' => [1, 'two', [3.5, null]], 'object' => $object,
    'large' => str_repeat('compressible ', 50000), 'dense' => random_bytes(400000),
];
foreach ($values as $key => $value) {
    foreach ([0, MEMCACHE_COMPRESSED] as $flag) {
        hold($mem->set($key, $value, $flag, 600), "set $key");
        $back = $mem->get($key);
        is_object($value) ? hold($back == $value, "get $key") : same($back, $value, "get $key");
    }
}
$many = $mem->get(array_keys($values));
same(count($many), count($values), 'multi get');
unset($many['object']);
same(array_intersect_key($many, $values), array_diff_key($values, ['object' => 0]), 'multi get, values');

same($mem->get('nothing'), false, 'a miss');
same($mem->get(['nothing', 'string']), ['string' => 'text'], 'a miss among hits');
same($mem->add('string', 'x', 0, 60), false, 'add of what is there');
hold($mem->add('added', 'x', 0, 60), 'add');
same($mem->replace('nothing', 'x', 0, 60), false, 'replace of nothing');
hold($mem->replace('added', 'y', 0, 60), 'replace');
hold($mem->append('added', 'z'), 'append');
hold($mem->prepend('added', 'x'), 'prepend');
same($mem->get('added'), 'xyz', 'get after append and prepend');
same($mem->append('nothing', 'x'), false, 'append to nothing');

hold($mem->set('count', 10, 0, 60), 'set of a number');
same($mem->increment('count', 5), 15, 'increment');
same($mem->decrement('count', 6), 9, 'decrement');
same($mem->decrement('count', 100), 0, 'decrement stops at 0');
same((int) $mem->get('count'), 0, 'get of a number');
same($mem->increment('nothing'), false, 'increment of nothing');

$flags = $cas = null;
hold($mem->set('cas', 'one', 0, 60), 'set');
same($mem->get('cas', $flags, $cas), 'one', 'get with cas');
hold($mem->cas('cas', 'two', 0, 60, $cas), 'cas');
same($mem->cas('cas', 'three', 0, 60, $cas), false, 'cas with an old number');
same($mem->get('cas'), 'two', 'get after cas');

hold($mem->set('gone', 'x', 0, 60), 'set');
hold($mem->delete('gone'), 'delete');
same($mem->delete('gone'), false, 'delete of nothing');
hold($mem->set('past', 'x', 0, time() - 100), 'set with a time in the past');
same($mem->get('past'), false, 'get of the past');
hold($mem->set('future', 'x', 0, time() + 100), 'set with an absolute time');
same($mem->get('future'), 'x', 'get of the future');
hold($mem->set(['m1' => 'a', 'm2' => 'b'], null, 0, 60), 'multi set');
same($mem->get(['m1', 'm2']), ['m1' => 'a', 'm2' => 'b'], 'multi get');

hold($mem->set(str_repeat('k', 250), 'long', 0, 60), 'set with the longest key');
same($mem->get(str_repeat('k', 250)), 'long', 'get with the longest key');
try {
    hold(!$mem->set('huge', random_bytes(2 << 20), 0, 60), 'set over the size limit');
} catch (ErrorException $notice) {
    hold(str_contains($notice->getMessage(), 'object too large for cache'), $notice->getMessage());
}
still_good($mem, 'a value over the size limit');

hold($mem->flush(), 'flush');
same($mem->get(['string', 'm1', 'm2']), [], 'get after flush');
still_good($mem, 'flush');
echo "ok\n";
