<?php
// Reads the token as a site does. Every node has it, so the first one that answers will do; a pool with consistent hashing is
// for ordinary keys. Shows that there is a token; never shows it.
$key = 'access_token:' . getenv('APPID');
$token = false;
foreach (explode(',', getenv('MEMCACHED')) as $node) {
    [$host, $port] = explode(':', $node);
    $mem = new Memcached();
    $mem->setOption(Memcached::OPT_CONNECT_TIMEOUT, 1000);
    $mem->addServer($host, (int) $port);
    $token = $mem->get($key);
    if ($token !== false) {
        break;
    }
}
header('Content-Type: text/plain; charset=utf-8');
if ($token === false) {
    http_response_code(503);
    echo 'no token: ', $mem->getResultMessage(), "\n";
} else {
    echo 'a token of ', strlen($token), " bytes\n";
}
