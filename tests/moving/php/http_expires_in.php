<?php
// A client that believes expires_in: it keeps the token in a file of its own until shortly before the time it was told.
declare(strict_types=1);

return new class {
    public function token(WeChat $wechat): string
    {
        $file = store_file('token');
        $kept = is_file($file) ? json_decode(file_get_contents($file), true) : null;
        if ($kept === null || $kept['until'] <= microtime(true)) {
            $answer = $wechat->fetch();
            $until = microtime(true) + $answer['expires_in'] - 200 * (int) getenv('LIFE_S') / 7200;
            $kept = ['token' => $answer['access_token'], 'until' => $until];
            file_put_contents($file, json_encode($kept));
        }
        return $kept['token'];
    }
};
