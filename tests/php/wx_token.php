<?php
// A class as sites have it: token and ticket are rows of a table `wx_token`, `expire` is when each was fetched. It reads
// its row, and fetches by itself and writes where that was more than an hour ago. What it does is counted and told.
// Its argument is how many different tokens it is to see.
declare(strict_types=1);
require __DIR__ . '/lib.php';

class WeixinOfTheTable
{
    public int $fetched = 0;

    public function __construct(private PDO $pdo, private string $table)
    {
    }

    private function row(string $type, callable $fetch): string
    {
        $query = $this->pdo->query("SELECT * FROM {$this->table} WHERE type = '$type'");
        $row = $query->fetch(PDO::FETCH_ASSOC);
        if (time() > (int) ($row['expire'] ?? 0) + 3600) {
            $this->fetched++;
            $row['value'] = $fetch();
            $now = time();
            $this->pdo->exec("UPDATE {$this->table} SET expire = '$now', value = '{$row['value']}' WHERE type = '$type'");
        }
        return $row['value'];
    }

    public function accessToken(): string
    {
        return $this->row('access_token', function (): string {
            $app = ['grant_type' => 'client_credential', 'appid' => setting('APPID'), 'secret' => setting('SECRET')];
            return wechat('/cgi-bin/token', $app)['access_token'];
        });
    }

    public function jsapiTicket(): string
    {
        return $this->row('jsapi_ticket', function (): string {
            $ask = ['type' => 'jsapi', 'access_token' => $this->accessToken()];
            return wechat('/cgi-bin/ticket/getticket', $ask)['ticket'];
        });
    }
}

$pdo = new PDO(setting('DSN'), setting('USER'), setting('PASSWORD'), [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
$refused = $fetched = 0;
$seen = [];
for ($until = microtime(true) + 50; count($seen) < (int) $argv[1]; usleep(20000)) {
    hold(microtime(true) < $until, "$argv[1] tokens in time");
    // One request of a site: the class is made anew.
    $weixin = new WeixinOfTheTable($pdo, setting('TABLE'));
    $token = $weixin->accessToken();
    $code = wechat('/cgi-bin/get_api_domain_ip', ['access_token' => $token])['errcode'] ?? 0;
    $refused += $code === 0 ? 0 : 1;
    hold($weixin->jsapiTicket() !== '', 'a ticket');
    $fetched += $weixin->fetched;
    $seen[$token] = true;
}
echo "fetched $fetched refused $refused\n";
