<?php
// A worker as sites have it: it reads the token and its time from Redis, and would fetch by itself only if it must.
declare(strict_types=1);
require __DIR__ . '/lib.php';

$redis = new Redis();
hold($redis->connect(setting('REDIS')), 'connect');

/** The token by the book of such sites; it throws where their code would call WeChat. */
function worker_token(Redis $redis): string
{
    $token = $redis->get('WCH_access_token');
    if ($token === false || (int) $redis->get('WCH_expires_in') < time()) {
        throw new RuntimeException('a worker would fetch by itself');
    }
    return $token;
}

$seen = [];
for ($until = microtime(true) + 20; count($seen) < 3; usleep(20000)) {
    hold(microtime(true) < $until, 'three tokens in time');
    $token = worker_token($redis);
    hold(is_token($token), 'a token');
    // Two reads of Redis and a call lie between; a token lives on for a while after its successor has come.
    same(wechat('/cgi-bin/get_api_domain_ip', ['access_token' => $token])['errcode'] ?? 0, 0, 'WeChat accepts it');
    $seen[$token] = true;
}
hold($redis->ttl('WCH_access_token') >= 0, 'a time to live');
echo "ok\n";
