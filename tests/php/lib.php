<?php
// What the scripts share. Every notice is a fault, as it is under the frameworks people use.
declare(strict_types=1);

// pecl memcache itself uses what newer PHP deprecates; that says nothing about the server.
error_reporting(E_ALL & ~E_DEPRECATED);
set_error_handler(static function (int $level, string $text, string $file, int $line): bool {
    if ((error_reporting() & $level) === 0) {
        return false;
    }
    throw new ErrorException($text, 0, $level, $file, $line);
});

function setting(string $name): string
{
    $value = getenv($name);
    if ($value === false) {
        throw new RuntimeException("$name is not set; tests/it/php.rs sets it");
    }
    return $value;
}

function host(): string
{
    return setting('MC_HOST');
}

function port(): int
{
    return (int) setting('MC_PORT');
}

function appid(): string
{
    return setting('APPID');
}

/** Fails the script unless both are identical. */
function same(mixed $actual, mixed $expected, string $what): void
{
    if ($actual !== $expected) {
        throw new RuntimeException("$what: " . var_export($actual, true) . ' instead of ' . var_export($expected, true));
    }
}

function hold(bool $true, string $what): void
{
    same($true, true, $what);
}

function memcache(): Memcache
{
    $memcache = new Memcache();
    // The tutorials' form; default timeouts (1 s) and default retry interval (15 s).
    hold($memcache->addServer(host(), port()), 'addServer');
    return $memcache;
}

function memcached(): Memcached
{
    $memcached = new Memcached();
    hold($memcached->addServer(host(), port()), 'addServer');
    return $memcached;
}

/** The same over the binary protocol. */
function binary(): Memcached
{
    $memcached = new Memcached();
    hold($memcached->setOption(Memcached::OPT_BINARY_PROTOCOL, true), 'OPT_BINARY_PROTOCOL');
    hold($memcached->addServer(host(), port()), 'addServer');
    return $memcached;
}

/** Neither extension has given the server up, and a read works. */
function still_good(Memcache|Memcached $client, string $after): void
{
    $key = 'still_good';
    hold($client instanceof Memcache ? $client->set($key, 'yes', 0, 60) : $client->set($key, 'yes', 60), "set after $after");
    same($client->get($key), 'yes', "get after $after");
    if ($client instanceof Memcache) {
        hold($client->getServerStatus(host(), port()) !== 0, "server marked failed after $after");
    }
}

/** A write of a managed key was refused with this code; the key keeps the token, and the connection goes on. */
function refused(Memcached $mem, string $key, string $token, mixed $answer, int $code, string $what): void
{
    same($mem->getResultCode(), $code, "$what: " . $mem->getResultMessage());
    same($answer, false, $what);
    same($mem->get($key), $token, "$key after $what");
    still_good($mem, $what);
}

/** Every way to store something on a managed key is refused, in text and in binary mode alike. */
function stores_are_refused(Memcached $mem, string $key, string $token): void
{
    $refused = static function (mixed $answer, int $code, string $what) use ($mem, $key, $token): void {
        refused($mem, $key, $token, $answer, $code, $what);
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
}

/** A token that WeChat accepts at this instant, as far as its shape tells. */
function is_token(mixed $value): bool
{
    return is_string($value) && preg_match('/^[A-Za-z0-9_-]{100,512}$/', $value) === 1;
}

/** GET, and the answer's JSON. */
function wechat(string $path, array $query): array
{
    $curl = curl_init(setting('WECHAT') . $path . '?' . http_build_query($query));
    curl_setopt_array($curl, [CURLOPT_RETURNTRANSFER => true, CURLOPT_TIMEOUT => 20, CURLOPT_PROXY => '']);
    $answer = curl_exec($curl);
    if ($answer === false) {
        throw new RuntimeException('curl: ' . curl_error($curl));
    }
    return json_decode($answer, true, 16, JSON_THROW_ON_ERROR);
}
