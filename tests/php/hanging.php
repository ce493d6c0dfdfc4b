<?php
// WeChat does not answer and there is no token yet: a plain miss within pecl memcache's second, and a good server.
declare(strict_types=1);
require __DIR__ . '/lib.php';

$mem = memcache();
same($mem->get('access_token'), false, 'get');
still_good($mem, 'the first miss');
same($mem->get(['access_token', 'still_good', appid()]), ['still_good' => 'yes'], 'multi get');
same($mem->set('access_token', 'other', 0, 3600), false, 'set');
still_good($mem, 'set');

$mem = memcached();
same($mem->get('access_token'), false, 'get');
same($mem->getResultCode(), Memcached::RES_NOTFOUND, $mem->getResultMessage());
still_good($mem, 'the first miss');
echo "ok\n";
