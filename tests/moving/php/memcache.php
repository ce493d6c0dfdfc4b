<?php
// The token as a plain string in memcache, by pecl memcache.
declare(strict_types=1);

return new class {
    public function token(WeChat $wechat): string
    {
        $memcache = new Memcache();
        $memcache->connect(...store_address());
        $token = $memcache->get('access_token');
        if (!$token) {
            $token = $wechat->fetch()['access_token'];
            $memcache->set('access_token', $token, 0, $wechat->ttl(7000));
        }
        $memcache->close();
        return $token;
    }
};
