<?php
// CodeIgniter 3's memcached driver: an array of the value, the time and the lifetime.
declare(strict_types=1);
require_once __DIR__ . '/framework.php';

return new class extends Framework {
    protected function get(Memcached $memcached, WeChat $wechat): mixed
    {
        $value = $memcached->get('access_token');
        return is_array($value) ? $value[0] : false;
    }

    protected function put(Memcached $memcached, WeChat $wechat, string $token, int $seconds): void
    {
        $memcached->set('access_token', [$token, time(), $seconds], $seconds);
    }
};
