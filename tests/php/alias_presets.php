<?php
// Each preset's keys as its client reads them: the extension itself turns the answer into the PHP value, and what the
// client then does with that never ends in "fetch another". Arguments: the extension, `preset:prefix`.
declare(strict_types=1);
require __DIR__ . '/lib.php';

[, $extension, $prefix] = $argv;
$mem = $extension === 'memcache' ? memcache() : memcached();
$token = $mem->get('access_token:' . appid());
hold(is_token($token), 'the token by its own name');
$get = static fn (string $key): mixed => $mem->get($prefix . $key);
$set = static fn (string $key, mixed $value): bool => $extension === 'memcache'
    ? $mem->set($prefix . $key, $value, 0, 60)
    : $mem->set($prefix . $key, $value, 60);

// Clients that take the string that is there.
$raw = [
    'access_token', appid(), 'access_token_' . appid(),                 // tutorial; fastwego has the second
    'wechat_access_token' . appid(),                                    // dodgepudding
    appid() . '_access_token',                                          // zoujingli
    'official_account.access_token.' . appid() . '.' . setting('SECRET') . '.0', // easywechat6-laravel
    'official_account.access_token.' . appid() . '.' . setting('SECRET') . '.1',
    'mini_app.access_token.' . appid() . '.' . setting('SECRET') . '.0',
    'mini_app.access_token.' . appid() . '.' . setting('SECRET') . '.1',
];
foreach ($raw as $key) {
    same($get($key), $token, $key);
    same($set($key, 'other'), false, "set $key");
    same($get($key), $token, "$key after set");
    still_good($mem, $key);
}

// easywechat3: Doctrine asks for the version of its namespace first; 1 where there is none.
$doctrine = static function (string $id) use ($get, $set): mixed {
    $version = $get('DoctrineNamespaceCacheKey[]');
    if ($version === false) {
        $version = 1;
        $set('DoctrineNamespaceCacheKey[]', $version);
    }
    return $get(sprintf('%s[%s][%s]', '', $id, $version));
};
same($doctrine('easywechat.common.access_token.' . appid()), $token, 'Doctrine');
same($set('DoctrineNamespaceCacheKey[]', 2), false, 'another version of the namespace');
same($doctrine('easywechat.common.access_token.' . appid()), $token, 'Doctrine, after deleteAll');
same((int) $get('DoctrineNamespaceCacheKey[]') ?: 1, 1, 'the version as newer Doctrine reads it');

// wechatpy and silenceper: JSON.
$json = [
    'wechatpy:' . appid() . '_access_token',
    'gowechat_officialaccount__access_token_' . appid(),
    'gowechat_officialaccount__stable_access_token_' . appid(),
    'gowechat_miniprogram__access_token_' . appid(),
    'gowechat_miniprogram__stable_access_token_' . appid(),
];
foreach ($json as $key) {
    same(json_decode($get($key), false, 2, JSON_THROW_ON_ERROR), $token, $key);
}
$end = 'wechatpy:' . appid() . '_access_token_expires_at';
same($get($end), false, 'no time for wechatpy');
same($set($end, '1'), false, 'set of a time for wechatpy');
same($get($end), false, 'no time for wechatpy, still');

// Tickets.
$jsapi = $mem->get('jsapi_ticket:' . appid());
$card = $mem->get('wx_card_ticket:' . appid());
hold(is_string($jsapi) && is_string($card) && $jsapi !== $card, 'two tickets');
foreach (['jsapi_ticket', 'wechat_jsapi_ticket' . appid(), appid() . '_ticket_jsapi', 'official_account.jsapi_ticket.' . appid()] as $key) {
    same($get($key), $jsapi, $key);
}
foreach (['wechat_api_ticket_wxcard' . appid(), appid() . '_ticket_wx_card'] as $key) {
    same($get($key), $card, $key);
}
same($doctrine('overtrue.wechat.jsapi_ticket.' . appid()), $jsapi, 'a ticket through Doctrine');
hold($get('jsapi_last_time') + 7000 > time(), 'a tutorial finds its ticket old');
foreach (['wechatpy:' . appid() . '_jsapi_ticket', 'gowechat_officialaccount__jsapi_ticket_' . appid()] as $key) {
    same(json_decode($get($key), false, 2, JSON_THROW_ON_ERROR), $jsapi, $key);
}
same(json_decode($get('wechatpy:' . appid() . '_jsapi_card_ticket')), $card, 'a card ticket for wechatpy');
foreach (['jsapi_ticket', 'jsapi_card_ticket'] as $key) {
    hold(json_decode($get('wechatpy:' . appid() . "_{$key}_expires_at")) > time() + 7000, "the time of $key for wechatpy");
}

// workerman: "is it later than now?"
same($get('WCH_access_token'), $token, 'WCH_access_token');
hold($get('WCH_expires_in') > time() + 7000, 'WCH_expires_in');
hold($mem->delete($prefix . 'WCH_expires_in'), 'delete of a key with a time');
hold($get('WCH_expires_in') > time(), 'WCH_expires_in after delete');
still_good($mem, 'everything');
echo "ok\n";
