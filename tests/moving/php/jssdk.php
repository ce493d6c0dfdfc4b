<?php
// WeChat's own JS-SDK sample: a file for the token and one for the ticket, JSON behind a line that ends PHP.
declare(strict_types=1);

return new class {
    private const GUARD = '<?php exit();?>';

    public function token(WeChat $wechat): string
    {
        // The page is signed with the ticket.
        $this->kept($wechat, 'jsapi_ticket', fn (): string => $wechat->ticket($this->access_token($wechat))['ticket'] ?? '');
        return $this->access_token($wechat);
    }

    private function access_token(WeChat $wechat): string
    {
        return $this->kept($wechat, 'access_token', static fn (): string => $wechat->fetch()['access_token']);
    }

    private function kept(WeChat $wechat, string $name, Closure $fetch): string
    {
        $file = store_file($name . '.php');
        $data = is_file($file) ? json_decode(trim(substr(file_get_contents($file), strlen(self::GUARD)))) : null;
        if ($data === null || $data->expire_time < time()) {
            $value = $fetch();
            if ($value === '') {
                return $value;
            }
            $data = (object) ['expire_time' => time() + $wechat->scaled(7000), $name => $value];
            file_put_contents($file, self::GUARD . json_encode($data));
        }
        return $data->$name;
    }
};
