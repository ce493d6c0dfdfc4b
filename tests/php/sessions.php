<?php
// A session is written by one process and read by the next. Argument: write or read.
declare(strict_types=1);
require __DIR__ . '/lib.php';

session_id('0123456789abcdef0123456789');
hold(session_start(), 'session_start');
if ($argv[1] === 'write') {
    $_SESSION = ['user' => 'li', 'cart' => ['a' => 1], 'text' => str_repeat('x', 50000)];
    hold(session_write_close(), 'session_write_close');
} else {
    same($_SESSION['user'] ?? null, 'li', 'what the other process wrote');
    same(strlen($_SESSION['text']), 50000, 'a long value');
    hold(session_destroy(), 'session_destroy');
    hold(session_start(), 'session_start after session_destroy');
    same($_SESSION, [], 'a new session');
    session_write_close();
}
echo "ok\n";
