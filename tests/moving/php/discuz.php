<?php
// A Discuz plug-in: an array in the site's cache with the time at which the token is over, by pecl memcache.
declare(strict_types=1);

return new class {
    public function token(WeChat $wechat): string
    {
        $memcache = new Memcache();
        $memcache->connect(...store_address());
        $kept = $memcache->get('wechatat_' . $wechat->appid);
        if (!is_array($kept) || $kept['expiration'] < time()) {
            $kept = ['token' => $wechat->fetch()['access_token'], 'expiration' => time() + $wechat->scaled(6200)];
            $memcache->set('wechatat_' . $wechat->appid, $kept, 0, 0);
        }
        $memcache->close();
        return $kept['token'];
    }
};
