<?php
// WordPress's own functions for transients over a drop-in of our own, which names and versions its keys as the
// well-known ones do. Needs WordPress's files in the folder WORDPRESS.
declare(strict_types=1);

// What the files below ask for at load; no plug-in and no database is there.
define('ABSPATH', setting('WORDPRESS') . '/');
define('WPINC', 'wp-includes');

/** With a salt and versions through pecl memcache, or without versions through pecl memcached. */
final class ObjectCache
{
    private array $local = [];
    /** Group of versions -> number. */
    private array $versions = [];

    public function __construct(
        private readonly Memcache|Memcached $mem,
        private readonly string $salt,
        private readonly string $blog = 'wp_',
    ) {
    }

    private function isVersioned(): bool
    {
        return $this->mem instanceof Memcache;
    }

    private function store(string $key, mixed $value, int $seconds): bool
    {
        return $this->mem instanceof Memcache
            ? $this->mem->set($key, $value, 0, $seconds)
            : $this->mem->set($key, $value, $seconds);
    }

    private function versionKey(): string
    {
        return "{$this->salt}_:{$this->blog}:WP_Object_Cache:flush_number_v4";
    }

    private function version(): int
    {
        if (!isset($this->versions[$this->blog])) {
            $found = $this->mem->get($this->versionKey());
            if (empty($found)) {
                $found = (int) (microtime(true) * 1e6);
                hold($this->store($this->versionKey(), $found, 0), 'a new version was not stored');
            }
            $this->versions[$this->blog] = (int) $found;
        }
        return $this->versions[$this->blog];
    }

    public function key(string $name, string $group): string
    {
        $group = $group === '' ? 'default' : $group;
        $key = $this->isVersioned()
            ? "{$this->salt}{$this->version()}:{$this->blog}:$group:$name"
            : "{$this->salt}{$this->blog}$group:$name";
        return preg_replace('/\s+/', '', $key);
    }

    public function get(string $name, string $group): mixed
    {
        $key = $this->key($name, $group);
        return $this->local[$key] ??= $this->mem->get($key);
    }

    public function set(string $name, mixed $value, string $group, int $seconds): bool
    {
        $key = $this->key($name, $group);
        $this->local[$key] = $value;
        return $this->store($key, $value, $seconds);
    }

    public function delete(string $name, string $group): bool
    {
        $key = $this->key($name, $group);
        unset($this->local[$key]);
        return $this->mem->delete($key);
    }

    public function flush(): bool
    {
        $this->local = [];
        if (!$this->isVersioned()) {
            return $this->mem->flush();
        }
        $next = (int) (microtime(true) * 1e6);
        $this->versions[$this->blog] = $next;
        return $this->store($this->versionKey(), $next, 0);
    }
}

function wp_cache_get($key, $group = '', $force = false, &$found = null)
{
    $value = $GLOBALS['wp_object_cache']->get((string) $key, $group);
    $found = $value !== false;
    return $value;
}

function wp_cache_set($key, $data, $group = '', $expire = 0)
{
    return $GLOBALS['wp_object_cache']->set((string) $key, $data, $group, (int) $expire);
}

function wp_cache_delete($key, $group = '')
{
    return $GLOBALS['wp_object_cache']->delete((string) $key, $group);
}

function wp_cache_flush()
{
    return $GLOBALS['wp_object_cache']->flush();
}

require ABSPATH . WPINC . '/load.php';
require ABSPATH . WPINC . '/plugin.php';
require ABSPATH . WPINC . '/option.php';
wp_using_ext_object_cache(true);
