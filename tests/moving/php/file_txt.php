<?php
// JSON in a text file, with the time at which the token is over.
declare(strict_types=1);

return new class {
    public function token(WeChat $wechat): string
    {
        $file = store_file('access_token.txt');
        $kept = is_file($file) ? json_decode(file_get_contents($file)) : null;
        if ($kept === null || $kept->expire_time < time()) {
            $kept = (object) ['access_token' => $wechat->fetch()['access_token'], 'expire_time' => time() + $wechat->scaled(7000)];
            file_put_contents($file, json_encode($kept));
        }
        return $kept->access_token;
    }
};
