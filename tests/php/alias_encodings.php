<?php
// Aliases with an encoding: the extension itself unserializes, and PHP has the value a client would have stored.
// Argument: the extension.
declare(strict_types=1);
require __DIR__ . '/lib.php';

$mem = $argv[1] === 'memcache' ? memcache() : memcached();
$token = $mem->get('access_token:' . appid());
hold(is_token($token), 'the token by its own name');
/** A time that far from now, give or take a pause of the machine. */
$near = static function (mixed $time, int $expected, string $what): void {
    hold(is_int($time) && abs($time - $expected) <= 120, "$what is " . var_export($time, true));
};

same($mem->get('php_string'), $token, 'a serialized string');
$array = $mem->get('php_array');
same(array_keys($array), ['access_token', 'expires_at', 'expires_in'], 'the keys of an array');
same($array['access_token'], $token, 'the token in an array');
$near($array['expires_in'], 7200, 'expires_in');
$near($array['expires_at'], time() + 7200, 'expires_at');

// Discuz: its own names.
$discuz = $mem->get('wechatat_' . appid());
same($discuz['token'], $token, 'the token for Discuz');
$near($discuz['expiration'], time() + 7200, 'the expiration for Discuz');

// CodeIgniter: [value, time, ttl], written by add().
$ci = $mem->get('ci');
same($ci[0], $token, 'the token for CodeIgniter');
$near($ci[1], time(), 'the time for CodeIgniter');
$near($ci[2], 7200, 'the ttl for CodeIgniter');
same(array_keys($ci), [0, 1, 2], 'a list');
same($mem->add('ci', ['other', time(), 7000]), false, 'add, as CodeIgniter does');
same($mem->get('ci')[0], $token, 'the token after add');

$object = json_decode($mem->get('json_object'), true, 4, JSON_THROW_ON_ERROR);
same($object['access_token'], $token, 'the token in an object');
$near($object['expires_in'], 7200, 'expires_in in an object');

// A long of the extension's own.
$near($mem->get('long'), time() + 7200, 'a long');
same(ctype_digit($mem->get('digits')), true, 'digits');
still_good($mem, 'everything');
echo "ok\n";
