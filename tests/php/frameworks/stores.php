<?php
// How frameworks keep a value in memcached: each class does what the framework's own driver does with the extension.
// `get` gives null where the framework would say that nothing is there.
declare(strict_types=1);

/** What the classes below share: the extension, and a key's name. */
abstract class Store
{
    public function __construct(protected readonly Memcache|Memcached $mem, protected readonly string $prefix = '')
    {
    }

    protected function key(string $name): string
    {
        return $this->prefix . $name;
    }

    protected function put(string $key, mixed $value, int $seconds): bool
    {
        return $this->mem instanceof Memcache
            ? $this->mem->set($key, $value, 0, $seconds)
            : $this->mem->set($key, $value, $seconds);
    }

    abstract public function get(string $name): mixed;

    abstract public function set(string $name, mixed $value, int $seconds): bool;

    public function has(string $name): bool
    {
        return $this->get($name) !== null;
    }

    public function delete(string $name): bool
    {
        return $this->mem->delete($this->key($name));
    }
}

/** ThinkPHP 5.0 and 5.1: strings as they are, everything else serialized behind a mark. */
final class ThinkPhp5 extends Store
{
    private const MARK = 'think_serialize:';

    public function get(string $name): mixed
    {
        $found = $this->mem->get($this->key($name));
        if ($found === false) {
            return null;
        }
        return str_starts_with($found, self::MARK) ? unserialize(substr($found, strlen(self::MARK))) : $found;
    }

    public function set(string $name, mixed $value, int $seconds): bool
    {
        $stored = is_scalar($value) ? $value : self::MARK . serialize($value);
        return $this->put($this->key($name), $stored, $seconds);
    }
}

/** ThinkPHP 6 and 8: everything but numbers is serialized, and what cannot be unserialized counts as missing. */
final class ThinkPhp6 extends Store
{
    public function get(string $name): mixed
    {
        $found = $this->mem->get($this->key($name));
        if ($found === false || is_numeric($found)) {
            return $found === false ? null : $found;
        }
        try {
            return unserialize($found);
        } catch (ErrorException) {
            return null;
        }
    }

    public function set(string $name, mixed $value, int $seconds): bool
    {
        return $this->put($this->key($name), is_numeric($value) ? (string) $value : serialize($value), $seconds);
    }
}

/** Yii 2: the value beside what it depends on; a key that is not short and plain becomes its digest. */
final class Yii2 extends Store
{
    protected function key(string $name): string
    {
        return $this->prefix . (ctype_alnum($name) && strlen($name) <= 32 ? $name : md5($name));
    }

    public function get(string $name): mixed
    {
        $found = $this->mem->get($this->key($name));
        $found = $found === false ? null : unserialize($found);
        return is_array($found) && !is_object($found[1]) ? $found[0] : null;
    }

    public function set(string $name, mixed $value, int $seconds): bool
    {
        // An absolute time, as Yii gives it.
        return $this->put($this->key($name), serialize([$value, null]), time() + $seconds);
    }
}

/** CodeIgniter 2 and 3: an array of the value, when it was stored, and for how long. */
final class CodeIgniter extends Store
{
    public function __construct(Memcache|Memcached $mem, string $prefix, private readonly bool $takesStrings)
    {
        parent::__construct($mem, $prefix);
    }

    public function get(string $name): mixed
    {
        $found = $this->mem->get($this->key($name));
        if (is_array($found)) {
            return $found[0];
        }
        return $found !== false && $this->takesStrings ? $found : null;
    }

    public function set(string $name, mixed $value, int $seconds): bool
    {
        return $this->put($this->key($name), [$value, time(), $seconds], $seconds);
    }

    /** What `get_metadata` tells. */
    public function end(string $name): int
    {
        [, $stored, $seconds] = $this->mem->get($this->key($name));
        return $stored + $seconds;
    }
}

/** Laravel's strings and Discuz's arrays: whatever it is goes to the extension. Discuz asks for many keys at once. */
final class Plain extends Store
{
    public function get(string $name): mixed
    {
        $keys = [$this->key($name), $this->key('setting')];
        $found = $this->mem instanceof Memcache ? $this->mem->get($keys) : $this->mem->getMulti($keys);
        return $found[$keys[0]] ?? null;
    }

    public function set(string $name, mixed $value, int $seconds): bool
    {
        return $this->put($this->key($name), $value, $seconds);
    }
}

/** Anything with PSR-16: Symfony's own classes, and Laravel's repository. */
final class Psr16 extends Store
{
    public function __construct(private readonly \Psr\SimpleCache\CacheInterface $cache)
    {
    }

    public function get(string $name): mixed
    {
        return $this->cache->get($name);
    }

    public function set(string $name, mixed $value, int $seconds): bool
    {
        return $this->cache->set($name, $value, $seconds);
    }

    public function has(string $name): bool
    {
        return $this->cache->has($name);
    }

    public function delete(string $name): bool
    {
        return $this->cache->delete($name);
    }

    public function clear(): bool
    {
        return $this->cache->clear();
    }
}

/** WordPress's transients over a drop-in. */
final class Transients extends Store
{
    public function __construct()
    {
    }

    public function get(string $name): mixed
    {
        $found = get_transient($name);
        return $found === false ? null : $found;
    }

    public function set(string $name, mixed $value, int $seconds): bool
    {
        return set_transient($name, $value, $seconds);
    }

    public function delete(string $name): bool
    {
        return delete_transient($name);
    }

    public function clear(): bool
    {
        return wp_cache_flush();
    }
}
