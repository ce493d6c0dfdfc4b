<?php
// A PHP file that returns an array, read by include, with the time at which the token is over.
declare(strict_types=1);

return new class {
    public function token(WeChat $wechat): string
    {
        $file = store_file('access_token.php');
        $kept = is_file($file) ? include $file : null;
        if (!is_array($kept) || $kept['expire_time'] < time()) {
            $kept = ['access_token' => $wechat->fetch()['access_token'], 'expire_time' => time() + $wechat->scaled(7000)];
            file_put_contents($file, '<?php return ' . var_export($kept, true) . ';');
        }
        return $kept['access_token'];
    }
};
