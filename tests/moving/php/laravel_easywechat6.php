<?php
// EasyWeChat 6 in Laravel: the token as it is, through Laravel's real store.
declare(strict_types=1);
require_once __DIR__ . '/framework.php';
require_once 'Illuminate/Cache/autoload.php';

return new class extends Framework {
    protected const LIFETIME_S = 7200;

    protected function get(Memcached $memcached, WeChat $wechat): mixed
    {
        return $this->store($memcached)->get($this->key($wechat));
    }

    protected function put(Memcached $memcached, WeChat $wechat, string $token, int $seconds): void
    {
        $this->store($memcached)->put($this->key($wechat), $token, $seconds);
    }

    private function store(Memcached $memcached): Illuminate\Cache\MemcachedStore
    {
        return new Illuminate\Cache\MemcachedStore($memcached, 'laravel_cache');
    }

    private function key(WeChat $wechat): string
    {
        $stable = getenv('ENDPOINT') === 'stable_token' ? 1 : 0;
        return "official_account.access_token.{$wechat->appid}.{$wechat->secret}.$stable";
    }
};
