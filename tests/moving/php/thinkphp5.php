<?php
// ThinkPHP 5.1's memcached driver: text as it is, all else serialized behind a word.
declare(strict_types=1);
require_once __DIR__ . '/framework.php';

return new class extends Framework {
    protected function get(Memcached $memcached, WeChat $wechat): mixed
    {
        $value = $memcached->get('access_token');
        return is_string($value) && str_starts_with($value, 'think_serialize:') ? unserialize(substr($value, 16)) : $value;
    }

    protected function put(Memcached $memcached, WeChat $wechat, string $token, int $seconds): void
    {
        $memcached->set('access_token', $token, $seconds);
    }
};
