<?php
// Reads the token as a site does, from whichever node answers. Shows that there is one; never shows it.
$mem = new Memcached();
$mem->setOptions([
    Memcached::OPT_CONNECT_TIMEOUT => 1000,
    // A node that does not answer is left out at once, and tried again after a second.
    Memcached::OPT_SERVER_FAILURE_LIMIT => 1,
    Memcached::OPT_REMOVE_FAILED_SERVERS => true,
    Memcached::OPT_RETRY_TIMEOUT => 1,
    Memcached::OPT_DISTRIBUTION => Memcached::DISTRIBUTION_CONSISTENT,
]);
foreach (explode(',', getenv('MEMCACHED')) as $server) {
    [$host, $port] = explode(':', $server);
    $mem->addServer($host, (int) $port);
}
$key = 'access_token:' . getenv('APPID');
$token = $mem->get($key);
if ($token === false && $mem->getResultCode() !== Memcached::RES_NOTFOUND) {
    $token = $mem->get($key);  // now from the other node
}
header('Content-Type: text/plain; charset=utf-8');
if ($token === false) {
    http_response_code(503);
    echo 'no token: ', $mem->getResultMessage(), "\n";
} else {
    echo 'a token of ', strlen($token), " bytes\n";
}
