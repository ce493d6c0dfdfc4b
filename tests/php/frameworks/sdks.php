<?php
// What the SDKs do with a framework's cache: read, and fetch from WeChat only if they think they must.
declare(strict_types=1);

final class Site
{
    /** Calls to WeChat for a token or a ticket. */
    public int $fetched = 0;

    public function __construct(private readonly string $wechat)
    {
    }

    private function call(string $path): array
    {
        $curl = curl_init($this->wechat . $path);
        curl_setopt_array($curl, [CURLOPT_RETURNTRANSFER => true, CURLOPT_TIMEOUT => 10]);
        $answer = curl_exec($curl);
        hold(is_string($answer), "no answer from $path");
        return json_decode($answer, true, 8, JSON_THROW_ON_ERROR);
    }

    public function fetchToken(): array
    {
        $this->fetched++;
        return $this->call('/cgi-bin/token?' . http_build_query([
            'grant_type' => 'client_credential', 'appid' => appid(), 'secret' => setting('SECRET'),
        ]));
    }

    public function fetchTicket(string $type, string $token): array
    {
        $this->fetched++;
        return $this->call("/cgi-bin/ticket/getticket?access_token=$token&type=$type");
    }

    /** A business call. */
    public function isAccepted(string $token): bool
    {
        return isset($this->call("/cgi-bin/get_api_domain_ip?access_token=$token")['ip_list']);
    }

    /** As tutorials and plain SDKs do. */
    public function plain(Store $store, string $key): string
    {
        $token = $store->get($key);
        if (!is_string($token) || $token === '') {
            $answer = $this->fetchToken();
            $token = $answer['access_token'];
            $store->set($key, $token, $answer['expires_in'] - 200);
        }
        return $token;
    }

    public function plainTicket(Store $store, string $key, string $type, string $token): string
    {
        $ticket = $store->get($key);
        if (!is_string($ticket) || $ticket === '') {
            $ticket = $this->fetchTicket($type, $token)['ticket'];
            $store->set($key, $ticket, 7000);
        }
        return $ticket;
    }

    private static function easyWeChatKey(): string
    {
        return 'easywechat.kernel.access_token.' . md5(json_encode([
            'grant_type' => 'client_credential', 'appid' => appid(), 'secret' => setting('SECRET'),
        ]));
    }

    /** EasyWeChat 4 and 5: what it cannot find after storing it is an exception. */
    private function keep(Store $store, string $key, array $value): array
    {
        $store->set($key, $value, $value['expires_in']);
        if (!$store->has($key)) {
            throw new RuntimeException("$key is not there after it was stored");
        }
        return $value;
    }

    public function easyWeChat(Store $store, bool $refresh = false): string
    {
        $key = self::easyWeChatKey();
        if (!$refresh && $store->has($key) && $found = $store->get($key)) {
            return $found['access_token'];
        }
        $answer = $this->fetchToken();
        return $this->keep($store, $key, $answer)['access_token'];
    }

    public function easyWeChatTicket(Store $store, string $type, string $token): string
    {
        $key = "easywechat.basic_service.jssdk.ticket.$type." . appid();
        if ($store->has($key)) {
            return $store->get($key)['ticket'];
        }
        return $this->keep($store, $key, $this->fetchTicket($type, $token))['ticket'];
    }

    /** EasyWeChat 6: strings. */
    public function easyWeChat6(Store $store, string $kind, int $stable): string
    {
        return $this->plain($store, sprintf('%s.access_token.%s.%s.%d', $kind, appid(), setting('SECRET'), $stable));
    }

    /** An array with the time of its end: Discuz's plug-in looks at that, yii2-wechat-sdk only keeps it. */
    public function withEnd(Store $store, string $key, string $value, string $end, bool $looks): string
    {
        $found = $store->get($key);
        if (!is_array($found) || $looks && $found[$end] <= time()) {
            $answer = $this->fetchToken();
            $found = [$value => $answer['access_token'], $end => time() + $answer['expires_in']];
            $store->set($key, $found, $answer['expires_in']);
        }
        hold(is_int($found[$end]), "the end of $key");
        return $found[$value];
    }
}
