<?php
// A page view of a site that keeps its token in a file, after the ways such scripts are written: take what is there
// until its time has come, else fetch and write. Prints the token, and "fetched" behind it if it had to fetch.
declare(strict_types=1);
require __DIR__ . '/lib.php';

function fetched(): array
{
    $query = ['grant_type' => 'client_credential', 'appid' => setting('APPID'), 'secret' => setting('SECRET')];
    return wechat('/cgi-bin/token', $query);
}

/** WeChat's sample: JSON behind a first line of PHP, or without one; `expire_time` is when to fetch again. */
function jssdk(string $file, int $skip): array
{
    $data = json_decode(trim(substr((string) @file_get_contents($file), $skip))) ?? new stdClass();
    if (($data->expire_time ?? 0) >= time()) {
        return [$data->access_token, false];
    }
    $data->expire_time = time() + 7000;
    $data->access_token = fetched()['access_token'];
    file_put_contents($file, substr('<?php exit();?>', 0, $skip) . json_encode($data));
    return [$data->access_token, true];
}

/** `expires_time` is when it was fetched, and 3600 s are enough. */
function an_hour_after_the_fetch(string $file): array
{
    $data = json_decode((string) @file_get_contents($file), true) ?? [];
    if (time() <= ($data['expires_time'] ?? 0) + 3600) {
        return [$data['access_token'], false];
    }
    $token = fetched()['access_token'];
    file_put_contents($file, '{"access_token": "' . $token . '", "expires_time": ' . time() . '}');
    return [$token, true];
}

/** A file of PHP that returns an array. */
function included(string $file): array
{
    $data = is_file($file) ? include $file : [];
    if (($data['expire_time'] ?? 0) >= time()) {
        return [$data['access_token'], false];
    }
    $data = ['access_token' => fetched()['access_token'], 'expire_time' => time() + 7000];
    file_put_contents($file, '<?php return ' . var_export($data, true) . ';');
    return [$data['access_token'], true];
}

/** The file's own time is that of the fetch. */
function by_the_files_time(string $file): array
{
    clearstatcache();
    if (is_file($file) && time() - filemtime($file) < 7200) {
        return [trim(file_get_contents($file)), false];
    }
    $token = fetched()['access_token'];
    file_put_contents($file, $token);
    return [$token, true];
}

/** A serialized array with a name; what is over is deleted. */
function serialized(string $file): array
{
    $data = is_file($file) ? unserialize((string) file_get_contents($file)) : [];
    if (isset($data['expired']) && ($data['expired'] === 0 || $data['expired'] >= time())) {
        same($data['name'], basename($file), 'the name inside');
        return [$data['value'], false];
    }
    @unlink($file);
    $token = fetched()['access_token'];
    file_put_contents($file, serialize(['name' => basename($file), 'value' => $token, 'expired' => time() + 7000]));
    return [$token, true];
}

$file = setting('FILE');
[$token, $fetched] = match (setting('WAY')) {
    'jssdk' => jssdk($file, 15),
    'jssdk-json', 'access_token.txt' => jssdk($file, 0),
    'access_token.json' => an_hour_after_the_fetch($file),
    'access_token.php' => included($file),
    'mtime' => by_the_files_time($file),
    'zoujingli' => serialized($file),
};
echo $token, $fetched ? ' fetched' : '', "\n";
