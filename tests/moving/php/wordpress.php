<?php
// A transient of WordPress with a memcached object cache.
declare(strict_types=1);
require_once __DIR__ . '/framework.php';

return new class extends Framework {
    protected function get(Memcached $memcached, WeChat $wechat): mixed
    {
        return $memcached->get($this->key($memcached));
    }

    protected function put(Memcached $memcached, WeChat $wechat, string $token, int $seconds): void
    {
        $memcached->set($this->key($memcached), $token, $seconds);
    }

    /** Flushing the cache means another number, as one memcached may serve several sites. */
    private function key(Memcached $memcached): string
    {
        $number = $memcached->get('wp_:flush_number');
        if ($number === false) {
            $number = (string) random_int(1, 1 << 30);
            $memcached->add('wp_:flush_number', $number);
        }
        return "$number:wp_:transient:wechat_access_token";
    }
};
