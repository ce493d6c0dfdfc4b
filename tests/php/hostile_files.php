<?php
// Reads each file of a list the way its readers do, and has PHP's own parser say that the value is one string.
declare(strict_types=1);

function fail(string $what): never
{
    echo $what, "\n";
    exit(1);
}

/** What is behind the first line of PHP; nothing of it may be PHP again. */
function behind_the_exit(string $file): string
{
    $tokens = token_get_all(file_get_contents($file));
    $tags = array_filter($tokens, fn($token) => is_array($token) && $token[0] === T_OPEN_TAG);
    count($tags) === 1 || fail("$file opens PHP again");
    $last = end($tokens);
    $last[0] === T_INLINE_HTML || fail("$file ends in something else");
    return substr(file_get_contents($file), 15);
}

foreach (file($argv[1], FILE_IGNORE_NEW_LINES) as $line) {
    [$way, $file, $value] = explode(' ', $line);
    $value = base64_decode($value);
    $text = file_get_contents($file);
    if ($way !== 'access_token.php' && $way !== 'own' && $way !== 'jssdk') {
        str_contains($text, '<') && fail("$file could open PHP");
    }
    $data = match ($way) {
        'access_token.php', 'own' => include $file,
        'jssdk' => json_decode(behind_the_exit($file), true, 4, JSON_THROW_ON_ERROR),
        'zoujingli' => unserialize($text),
        default => json_decode($text, true, 4, JSON_THROW_ON_ERROR),
    };
    $found = $data['access_token'] ?? $data['token'] ?? $data['value'] ?? null;
    $found === $value || fail("$file: " . var_export($found, true) . ' instead of ' . var_export($value, true));
    count($data) <= 3 || fail("$file has more in it");
}
echo "ok\n";
