<?php
// Two keys in Redis: the token, and the time it ends. Whoever finds that over fetches.
declare(strict_types=1);

return new class {
    public function token(WeChat $wechat): string
    {
        $redis = new Redis();
        $redis->connect(...store_address());
        $token = $redis->get('WCH_access_token');
        if ($token === false || (int) $redis->get('WCH_expires_in') < time()) {
            $token = $wechat->fetch()['access_token'];
            $redis->set('WCH_access_token', $token);
            $redis->set('WCH_expires_in', (string) (time() + $wechat->scaled(7000)));
        }
        return $token;
    }
};
