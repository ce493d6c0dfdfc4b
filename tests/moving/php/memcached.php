<?php
// The token as a plain string in memcache, by pecl memcached.
declare(strict_types=1);

return new class {
    public function token(WeChat $wechat): string
    {
        $memcached = new Memcached();
        $memcached->addServer(...store_address());
        $token = $memcached->get($wechat->appid);
        if (!$token) {
            $token = $wechat->fetch()['access_token'];
            $memcached->set($wechat->appid, $token, $wechat->ttl(7000));
        }
        return $token;
    }
};
