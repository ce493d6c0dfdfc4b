<?php
// The table wx_token: a row a type, with the value and the time of the fetch, which the class takes for good for an hour.
declare(strict_types=1);

return new class {
    public function token(WeChat $wechat): string
    {
        $at = parse_url(store());
        $database = new mysqli($at['host'], $at['user'], 'site', ltrim($at['path'], '/'), $at['port']);
        $row = $database->query("SELECT * FROM wx_token WHERE type = 'access_token'")->fetch_assoc();
        if (time() > (int) $row['expire'] + 3600) {
            $row['value'] = $wechat->fetch()['access_token'];
            $expire = $wechat->fetched_at(3600);
            $database->query("UPDATE wx_token SET expire = '$expire', value = '{$row['value']}' WHERE type = 'access_token'");
        }
        $database->close();
        return $row['value'];
    }
};
