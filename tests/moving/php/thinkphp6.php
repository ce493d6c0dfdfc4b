<?php
// ThinkPHP 6 and 8: the memcached driver serializes everything but numbers.
declare(strict_types=1);
require_once __DIR__ . '/framework.php';

return new class extends Framework {
    protected function get(Memcached $memcached, WeChat $wechat): mixed
    {
        $value = $memcached->get('access_token');
        return $value === false || is_numeric($value) ? $value : unserialize($value);
    }

    protected function put(Memcached $memcached, WeChat $wechat, string $token, int $seconds): void
    {
        $memcached->set('access_token', serialize($token), $seconds);
    }
};
