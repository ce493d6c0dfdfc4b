<?php
// Yii 2's MemCache: the value and its dependency, serialized, under a digest of a key that is not letters and digits.
declare(strict_types=1);
require_once __DIR__ . '/framework.php';

return new class extends Framework {
    protected function get(Memcached $memcached, WeChat $wechat): mixed
    {
        $value = $memcached->get(md5('access_token'));
        return $value === false ? false : unserialize($value)[0];
    }

    protected function put(Memcached $memcached, WeChat $wechat, string $token, int $seconds): void
    {
        $memcached->set(md5('access_token'), serialize([$token, null]), $seconds);
    }
};
