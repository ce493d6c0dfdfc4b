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
