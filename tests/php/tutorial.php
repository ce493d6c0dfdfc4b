<?php
// The flow of the tutorials, unchanged: get; on a miss fetch from WeChat and set; then a business call.
// Arguments: the extension, how many different tokens to see. Prints how often it went to WeChat for a token itself.
declare(strict_types=1);
require __DIR__ . '/lib.php';

[, $extension, $wanted] = $argv;

function fetch_from_wechat(): string
{
    $query = ['grant_type' => 'client_credential', 'appid' => appid(), 'secret' => setting('SECRET')];
    return wechat('/cgi-bin/token', $query)['access_token'];
}

$fetched = 0;
$mem = $extension === 'memcache' ? new Memcache() : new Memcached();
$extension === 'memcache' ? $mem->connect(host(), port()) : $mem->addServer(host(), port());
$get_access_token = match ($extension) {
    'memcache' => static function () use ($mem, &$fetched): string {
        $token = $mem->get(appid());
        if (empty($token)) {
            $fetched++;
            $token = fetch_from_wechat();
            $mem->set(appid(), $token, 0, 3600);
        }
        return $token;
    },
    'memcached' => static function () use ($mem, &$fetched): string {
        $token = $mem->get('access_token');
        if (empty($token)) {
            $fetched++;
            $token = fetch_from_wechat();
            $mem->set('access_token', $token, 7200);
        }
        return $token;
    },
};

$seen = [];
$used = 0;
$refused = [];
while (count($seen) < (int) $wanted) {
    $token = $get_access_token();
    $seen[$token] = true;
    $answer = wechat('/cgi-bin/get_api_domain_ip', ['access_token' => $token]);
    $used++;
    // A page view now and then, not a load test.
    usleep(10000);
    if (!isset($answer['ip_list'])) {
        $refused[] = $answer['errcode'] ?? 'no errcode';
    }
}
echo json_encode(['tokens' => count($seen), 'used' => $used, 'fetched' => $fetched, 'refused' => $refused]), "\n";
