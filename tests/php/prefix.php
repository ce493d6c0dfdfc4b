<?php
// One line of php.ini, memcache.prefix_static_key=access_token:, and a script that asks for the bare appid is served.
declare(strict_types=1);
require __DIR__ . '/lib.php';

same(ini_get('memcache.prefix_static_key'), 'access_token:', 'the setting');
$mem = memcache();
$token = $mem->get(appid());
hold(is_token($token), 'get');
// The extension answers with the name it sent.
same($mem->get([appid()]), ['access_token:' . appid() => $token], 'multi get');
same($mem->set(appid(), 'other', 0, 3600), false, 'set');
same($mem->get(appid()), $token, 'get after set');
still_good($mem, 'set');
echo "ok\n";
