<?php
// EasyWeChat 6 on Symfony's real memcached adapter, which puts a version that it keeps in memcached before every key.
declare(strict_types=1);
require_once __DIR__ . '/framework.php';
require_once 'Symfony/Component/Cache/autoload.php';

return new class extends Framework {
    protected const LIFETIME_S = 7200;

    protected function get(Memcached $memcached, WeChat $wechat): mixed
    {
        return $this->cache()->getItem($this->key($wechat))->get();
    }

    protected function put(Memcached $memcached, WeChat $wechat, string $token, int $seconds): void
    {
        $cache = $this->cache();
        $cache->save($cache->getItem($this->key($wechat))->set($token)->expiresAfter($seconds));
    }

    private function cache(): Symfony\Component\Cache\Adapter\MemcachedAdapter
    {
        [$host, $port] = store_address();
        $client = Symfony\Component\Cache\Adapter\MemcachedAdapter::createConnection("memcached://$host:$port");
        return new Symfony\Component\Cache\Adapter\MemcachedAdapter($client);
    }

    private function key(WeChat $wechat): string
    {
        $stable = getenv('ENDPOINT') === 'stable_token' ? 1 : 0;
        return "official_account.access_token.{$wechat->appid}.{$wechat->secret}.$stable";
    }
};
