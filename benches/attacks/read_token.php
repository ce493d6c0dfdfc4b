<?php
// Reads the token every 50 ms with pecl memcache and its own timeout of a second. Each time on a connection of its own:
// on one that stays, a single failure would count for the 15 s in which the extension does not try again.
// Arguments: port, appid, seconds. Prints [missed, reads].
declare(strict_types=1);

error_reporting(0);
[, $port, $appid, $seconds] = $argv;
$end = microtime(true) + (float) $seconds;
$missed = $reads = 0;
while (microtime(true) < $end) {
    $memcache = new Memcache();
    $memcache->addServer('127.0.0.1', (int) $port, false);
    $reads++;
    if (!is_string($memcache->get("access_token:$appid"))) {
        $missed++;
    }
    $memcache->close();
    usleep(50000);
}
echo json_encode([$missed, $reads]), "\n";
