<?php
// zoujingli/WeChatDeveloper with its own cache: a serialized array in a file named after the key. When WeChat refuses the
// token the file is deleted and the call made once more.
declare(strict_types=1);

return new class {
    public function token(WeChat $wechat): string
    {
        $file = $this->file($wechat);
        $kept = is_file($file) ? unserialize(file_get_contents($file)) : false;
        if (is_array($kept) && ($kept['expired'] === 0 || $kept['expired'] >= time())) {
            return $kept['value'];
        }
        $token = $wechat->fetch()['access_token'];
        $kept = ['name' => basename($file), 'value' => $token, 'expired' => time() + $wechat->scaled(7000)];
        file_put_contents($file, serialize($kept));
        return $token;
    }

    public function refused(WeChat $wechat, string $token): void
    {
        if (is_file($this->file($wechat))) {
            unlink($this->file($wechat));
        }
        $wechat->use($this->token($wechat));
    }

    private function file(WeChat $wechat): string
    {
        return store_file($wechat->appid . '_access_token');
    }
};
