<?php
// pecl memcached against a server whose clients log in: by a plain set, as memcached -Y has it.
declare(strict_types=1);
require __DIR__ . '/lib.php';

$stranger = memcached();
same($stranger->get('access_token'), false, 'a stranger reads nothing');
same($stranger->set('login', 'web wrong'), false, 'a wrong password');
hold(str_contains($stranger->getLastErrorMessage(), 'authentication failure'), 'the reason is said');
hold($stranger->set('login', 'web word1'), 'a second try');
hold($stranger->set('k', 'v', 60), 'an ordinary key');
same($stranger->get('k'), 'v', 'and back');

// What the user may not see is not there, and nothing breaks.
same($stranger->get('access_token'), false, 'no token for this user');
same($stranger->getResultCode(), Memcached::RES_NOTFOUND, 'a plain miss');
same($stranger->set('access_token', 'mine', 60), false, 'a refused write');
same($stranger->getResultCode(), Memcached::RES_NOTSTORED, 'silently');
same($stranger->delete('access_token'), false, 'nothing to delete');
same($stranger->getResultCode(), Memcached::RES_NOTFOUND, 'a plain miss again');
same($stranger->getMulti(['k', 'access_token']), ['k' => 'v'], 'many at once');
still_good($stranger, 'all that');

$reader = memcached();
hold($reader->set('login', 'tokens word2'), 'the other user');
hold(is_token($reader->get('access_token')), 'a token');
same($reader->get('k'), false, 'no ordinary key for this user');
same($reader->set('k', 'mine', 60), false, 'nor may it write one');
same($reader->getResultCode(), Memcached::RES_NOTSTORED, 'silently');

echo "ok\n";
