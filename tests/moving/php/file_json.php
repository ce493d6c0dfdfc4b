<?php
// A JSON file with the time of the fetch, which the script takes for good for an hour.
declare(strict_types=1);

return new class {
    public function token(WeChat $wechat): string
    {
        $file = store_file('access_token.json');
        $kept = is_file($file) ? json_decode(file_get_contents($file), true) : null;
        if ($kept === null || time() > $kept['expires_time'] + 3600) {
            $kept = ['access_token' => $wechat->fetch()['access_token'], 'expires_time' => $wechat->fetched_at(3600)];
            file_put_contents($file, json_encode($kept));
        }
        return $kept['access_token'];
    }
};
