<?php
// A site on a framework, its cache in the server: it reads tokens and tickets over several renewals and never fetches.
// Arguments: the framework, the extension, the prefix, how many different tokens to see. In place of the last `views`:
// one key on three page views, and nothing else.
declare(strict_types=1);
require __DIR__ . '/lib.php';
require __DIR__ . '/frameworks/stores.php';
require __DIR__ . '/frameworks/sdks.php';

[, $framework, $extension, $prefix, $wanted] = $argv;
if (str_starts_with($framework, 'laravel')) {
    require '/usr/share/php/Illuminate/Cache/autoload.php';
} elseif ($framework === 'symfony') {
    require '/usr/share/php/Psr/SimpleCache/autoload.php';
    require '/usr/share/php/Symfony/Component/Cache/autoload.php';
} elseif ($framework === 'wordpress') {
    require __DIR__ . '/frameworks/wordpress.php';
}

function extension(string $name): Memcache|Memcached
{
    return $name === 'memcache' ? memcache() : memcached();
}

/** Laravel's own repository; from version 11 on its store puts no colon behind the prefix. */
function laravel(Memcached $mem, string $prefix, bool $hasColon): Psr16
{
    $store = $hasColon
        ? new \Illuminate\Cache\MemcachedStore($mem, $prefix)
        : new class ($mem, $prefix) extends \Illuminate\Cache\MemcachedStore {
            public function setPrefix($prefix)
            {
                $this->prefix = $prefix;
            }
        };
    return new Psr16(new \Illuminate\Cache\Repository($store));
}

/** Symfony's own adapter, which turns the binary protocol on. */
function symfony(string $namespace): Psr16
{
    $dsn = 'memcached://' . host() . ':' . port();
    $client = \Symfony\Component\Cache\Adapter\MemcachedAdapter::createConnection($dsn);
    $adapter = new \Symfony\Component\Cache\Adapter\MemcachedAdapter($client, $namespace);
    return new Psr16(new \Symfony\Component\Cache\Psr16Cache($adapter));
}

function wordpress(Memcache|Memcached $mem, string $salt): Transients
{
    $GLOBALS['wp_object_cache'] = new ObjectCache($mem, $salt);
    return new Transients();
}

/** As a new request finds it: nothing is in the process. */
$open = static fn (): Store => match ($framework) {
    'thinkphp5' => new ThinkPhp5(extension($extension), $prefix),
    'thinkphp6' => new ThinkPhp6(extension($extension), $prefix),
    'yii2' => new Yii2(extension($extension), $prefix),
    'codeigniter2' => new CodeIgniter(extension($extension), $prefix, false),
    'codeigniter3' => new CodeIgniter(extension($extension), $prefix, true),
    'discuz' => new Plain(extension($extension), $prefix),
    'laravel10' => laravel(extension($extension), $prefix, true),
    'laravel11' => laravel(extension($extension), $prefix, false),
    'symfony' => symfony($prefix),
    'wordpress' => wordpress(extension($extension), $prefix),
};

$site = new Site(setting('WECHAT'));
$id = appid();
if ($wanted === 'views') {
    for ($views = 0; $views < 3; $views++) {
        hold($site->isAccepted($site->plain($open(), 'access_token')), 'a token of its own');
    }
    echo json_encode(['fetched' => $site->fetched]), "\n";
    exit;
}
$plain = ['access_token', $id, "access_token_$id", 'wechat_access_token', "wechat_access_token$id", "{$id}_access_token"];
$plainTickets = ['jsapi_ticket' => 'jsapi', "wechat_jsapi_ticket$id" => 'jsapi', "{$id}_ticket_wx_card" => 'wx_card'];
$names = match ($framework) {
    'discuz' => [],
    'symfony' => ["access_token_$id", 'wechat_access_token'],
    'wordpress' => ['weixin_access_token', 'weixin_robot_access_token', 'wechat_access_token', "access_token_$id"],
    default => $plain,
};
$tickets = match ($framework) {
    'discuz' => [],
    'symfony' => ["jsapi_ticket_$id" => 'jsapi'],
    'wordpress' => ['weixin_js_api_ticket' => 'jsapi'],
    default => $plainTickets,
};
$hasEasyWeChat = in_array($framework, ['thinkphp6', 'laravel10', 'laravel11', 'symfony'], true);

/** Every token of one request. */
$request = static function (Store $store) use ($site, $framework, $names, $tickets, $hasEasyWeChat, $id): array {
    $tokens = array_map(static fn (string $key): string => $site->plain($store, $key), $names);
    if ($hasEasyWeChat) {
        $tokens[] = $site->easyWeChat($store);
        foreach (['official_account', 'mini_app'] as $kind) {
            array_push($tokens, $site->easyWeChat6($store, $kind, 0), $site->easyWeChat6($store, $kind, 1));
        }
    }
    if ($framework === 'discuz') {
        $tokens[] = $site->withEnd($store, "wechatat_$id", 'token', 'expiration', true);
    }
    if ($framework === 'yii2') {
        $tokens[] = $site->withEnd($store, "cache_wechat_sdk_mp_{$id}_access_token", 'access_token', 'expire', false);
    }
    foreach ($tickets as $key => $type) {
        hold($site->plainTicket($store, $key, $type, $tokens[0]) !== '', "the ticket $key");
    }
    if ($hasEasyWeChat) {
        hold($site->easyWeChatTicket($store, 'jsapi', $tokens[0]) !== '', 'a ticket of EasyWeChat');
        hold($site->easyWeChatTicket($store, 'wx_card', $tokens[0]) !== '', 'a card ticket of EasyWeChat');
    }
    return $tokens;
};

$seen = [];
[$used, $refused, $rounds] = [0, 0, 0];
while (count($seen) < (int) $wanted) {
    $store = $open();
    foreach (array_unique($request($store)) as $token) {
        $seen[$token] = true;
        $used++;
        $refused += $site->isAccepted($token) ? 0 : 1;
    }
    // Ordinary keys are as in memcached.
    hold($store->set('ordinary', "round $rounds", 60), 'set of an ordinary key');
    same($open()->get('ordinary'), "round $rounds", 'an ordinary key');
    // A new version of all keys, as `cache:clear` and `wp_cache_flush` make it.
    if ($framework === 'symfony' || $framework === 'wordpress') {
        if ($rounds % 10 === 9) {
            hold($store->clear(), 'clear');
            same($open()->get('ordinary'), null, 'an ordinary key after clear');
        }
    }
    $rounds++;
    // A page view now and then, not a load test.
    usleep(10000);
}

// What the framework sees of a refused write: false, and our value is there.
$store = $open();
foreach (array_slice($names, 0, 2) as $key) {
    same($store->set($key, 'another-token-0123456789', 60), false, "set of $key");
    hold(is_token($open()->get($key)), "$key after set");
    hold($open()->has($key), "has of $key after set");
}
if ($framework === 'codeigniter3' && $extension === 'memcached') {
    hold($store->end('access_token') > time(), 'the end of the metadata');
}
$before = $site->fetched;
if ($hasEasyWeChat) {
    // Told to fetch, EasyWeChat 4 and 5 store what they get and look for it: ours is there, so nothing is thrown.
    hold(is_token($site->easyWeChat($open(), true)), 'a forced fetch of EasyWeChat');
    hold(is_token($site->easyWeChat($open())), 'EasyWeChat after a forced fetch');
}
echo json_encode([
    'tokens' => count($seen), 'used' => $used, 'refused' => $refused, 'fetched' => $before,
    'forced' => $site->fetched - $before,
]), "\n";
