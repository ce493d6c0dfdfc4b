<?php
// ext-memcached's session handler with its default, the binary protocol: session_start fails at once and says so.
declare(strict_types=1);
require __DIR__ . '/lib.php';

try {
    hold(!session_start(), 'session_start');
} catch (Throwable $warning) {
    hold(str_contains($warning->getMessage(), 'session'), $warning->getMessage());
}
echo "ok\n";
