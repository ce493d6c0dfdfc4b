<?php
// EasyWeChat 4 and 5 in Laravel: an array under a key with a digest of what is asked with, through Laravel's real store.
declare(strict_types=1);
require_once __DIR__ . '/framework.php';
require_once 'Illuminate/Cache/autoload.php';

return new class extends Framework {
    protected const LIFETIME_S = 7200;

    protected function get(Memcached $memcached, WeChat $wechat): mixed
    {
        return $this->store($memcached)->get($this->key($wechat))['access_token'] ?? null;
    }

    protected function put(Memcached $memcached, WeChat $wechat, string $token, int $seconds): void
    {
        $this->store($memcached)->put($this->key($wechat), ['access_token' => $token, 'expires_in' => 7200], $seconds);
    }

    private function store(Memcached $memcached): Illuminate\Cache\MemcachedStore
    {
        return new Illuminate\Cache\MemcachedStore($memcached, 'laravel_cache');
    }

    private function key(WeChat $wechat): string
    {
        $asked = ['grant_type' => 'client_credential', 'appid' => $wechat->appid, 'secret' => $wechat->secret];
        return 'easywechat.kernel.access_token.' . md5(json_encode($asked));
    }
};
