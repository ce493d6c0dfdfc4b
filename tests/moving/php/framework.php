<?php
// What the scripts of frameworks share: a cache in memcached that gives a value back as it was put in, and the flow
// around it: look there, else fetch and put it there.
declare(strict_types=1);

abstract class Framework
{
    protected const LIFETIME_S = 7000;

    public function token(WeChat $wechat): string
    {
        $memcached = new Memcached();
        $memcached->addServer(...store_address());
        $token = $this->get($memcached, $wechat);
        if (!is_string($token) || $token === '') {
            $token = $wechat->fetch()['access_token'];
            $this->put($memcached, $wechat, $token, $wechat->ttl(static::LIFETIME_S));
        }
        return $token;
    }

    /** The token, or anything else if there is none. */
    abstract protected function get(Memcached $memcached, WeChat $wechat): mixed;

    abstract protected function put(Memcached $memcached, WeChat $wechat, string $token, int $seconds): void;
}
