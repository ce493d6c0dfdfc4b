<?php
// One web server of a site: it shows page after page, and each needs the token. Argument: the way it is kept, a file
// that returns an object with token(WeChat): string and perhaps refused(WeChat, string): void, which is what this way
// does when WeChat refuses the token. Prints a line a page: the time, the errcode, the end of the token or `-` if it has none.
declare(strict_types=1);

error_reporting(E_ALL & ~E_DEPRECATED);
ini_set('display_errors', 'stderr');

final class WeChat
{
    public function __construct(public readonly string $appid, public readonly string $secret, private readonly float $scale)
    {
    }

    /** The site's own fetch; WeChat's answer as an array. */
    public function fetch(): array
    {
        $base = getenv('TOKENS') . '/cgi-bin/';
        $fields = ['grant_type' => 'client_credential', 'appid' => $this->appid, 'secret' => $this->secret];
        $answer = getenv('ENDPOINT') === 'token'
            ? $this->call($base . 'token?' . http_build_query($fields))
            : $this->call($base . 'stable_token', json_encode($fields));
        if (!isset($answer['access_token'])) {
            throw new RuntimeException('no token: ' . json_encode($answer));
        }
        return $answer;
    }

    public function ticket(string $token): array
    {
        return $this->call(getenv('TOKENS') . '/cgi-bin/ticket/getticket?' . http_build_query(['type' => 'jsapi', 'access_token' => $token]));
    }

    /** The call that the page is about; its errcode. */
    public function use(string $token): int
    {
        return $this->call(getenv('WECHAT') . '/cgi-bin/menu/get?' . http_build_query(['access_token' => $token]))['errcode'] ?? 0;
    }

    /**
     * A time that the site believes in, such as 7000 s, in proportion to the life of a token here. Whoever compares whole
     * seconds waits for up to one more, which is minutes in proportion: rounded so that it is never too late for that.
     */
    public function scaled(int $seconds): int
    {
        return max(1, (int) ceil($seconds * $this->scale) - 1);
    }

    /** The same for memcached, which may end an item up to a second too early, and is not to outlive a token by one. */
    public function ttl(int $seconds): int
    {
        return min($this->scaled($seconds) + 1, (int) getenv('LIFE_S') - 1);
    }

    /** What a site writes as the time of a fetch, to which it will add its own lifetime: that is in proportion too. */
    public function fetched_at(int $lifetime): int
    {
        return time() - $lifetime + $this->scaled($lifetime);
    }

    private function call(string $url, ?string $body = null): array
    {
        $curl = curl_init($url);
        curl_setopt_array($curl, [CURLOPT_RETURNTRANSFER => true, CURLOPT_TIMEOUT => 20, CURLOPT_PROXY => '', CURLOPT_USERAGENT => getenv('AGENT') . '/1']);
        if ($body !== null) {
            curl_setopt($curl, CURLOPT_POSTFIELDS, $body);
        }
        $answer = curl_exec($curl);
        if ($answer === false) {
            throw new RuntimeException('curl: ' . curl_error($curl));
        }
        return json_decode($answer, true, 16, JSON_THROW_ON_ERROR);
    }
}

/** Where the site keeps its token: an address or a folder. */
function store(): string
{
    return getenv('STORE');
}

/** A file in this web server's own folder. */
function store_file(string $name): string
{
    return store() . '/' . $name;
}

/** @return array{string, int} */
function store_address(): array
{
    [$host, $port] = explode(':', store());
    return [$host, (int) $port];
}

$wechat = new WeChat(getenv('APPID'), getenv('SECRET'), (int) getenv('LIFE_S') / 7200);
$way = require $argv[1];
$pause_us = intdiv(1_000_000, (int) getenv('VIEWS_PER_S'));
// Visitors do not come in step.
for (;; usleep(random_int(intdiv($pause_us, 2), intdiv($pause_us * 3, 2)))) {
    try {
        $token = $way->token($wechat);
        $errcode = $wechat->use($token);
        $at_ms = (int) (microtime(true) * 1000);
        if ($errcode !== 0 && method_exists($way, 'refused')) {
            $way->refused($wechat, $token);
        }
    } catch (RuntimeException $without) {
        // A page without a token.
        [$token, $errcode, $at_ms] = ['-', -1, (int) (microtime(true) * 1000)];
        fwrite(STDERR, $without->getMessage() . "\n");
    }
    // Nothing is under way after this, until the next page.
    printf("%d %d %s\n", $at_ms, $errcode, substr($token, -12));
}
