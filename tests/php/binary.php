<?php
// A client of the binary protocol, which the server does not speak: it is hung up on, not left waiting.
declare(strict_types=1);
require __DIR__ . '/lib.php';

$mem = new Memcached();
$mem->setOption(Memcached::OPT_BINARY_PROTOCOL, true);
// Far longer than the test's patience: if the client waits for an answer, the test fails.
foreach ([Memcached::OPT_POLL_TIMEOUT, Memcached::OPT_CONNECT_TIMEOUT] as $timeout) {
    $mem->setOption($timeout, 600000);
}
$mem->addServer(host(), port());
same($mem->get('access_token'), false, 'get');
hold(!in_array($mem->getResultCode(), [Memcached::RES_SUCCESS, Memcached::RES_TIMEOUT], true), $mem->getResultMessage());
same($mem->set('k', 'v', 60), false, 'set');

// The other client of the same process is not harmed.
$text = memcached();
hold(is_token($text->get('access_token')), 'get in text');
echo "ok\n";
