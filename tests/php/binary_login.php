<?php
// pecl memcached logging in by SASL: as the README's own lines do it.
declare(strict_types=1);
require __DIR__ . '/lib.php';

hold(Memcached::HAVE_SASL, 'the extension can log in');
$enter = static function (string $user, string $password): Memcached {
    $mem = new Memcached();
    hold($mem->setOption(Memcached::OPT_BINARY_PROTOCOL, true), 'OPT_BINARY_PROTOCOL');
    hold($mem->setSaslAuthData($user, $password), 'setSaslAuthData');
    hold($mem->addServer(host(), port()), 'addServer');
    return $mem;
};

same(binary()->get('access_token'), false, 'a stranger reads nothing');
$wrong = $enter('web', 'wrong');
same($wrong->get('k'), false, 'a wrong password');
hold(!in_array($wrong->getResultCode(), [Memcached::RES_SUCCESS, Memcached::RES_NOTFOUND], true), 'is not a miss');

$web = $enter('web', 'word1');
hold($web->set('k', 'v', 60), 'an ordinary key: ' . $web->getResultMessage());
same($web->get('k'), 'v', 'and back');
// What the user may not see is not there, and nothing breaks.
same($web->get('access_token'), false, 'no token for this user');
same($web->getResultCode(), Memcached::RES_NOTFOUND, 'a plain miss');
same($web->set('access_token', 'mine', 60), false, 'a refused write');
same($web->getResultCode(), Memcached::RES_NOTSTORED, 'silently');
same($web->delete('access_token'), false, 'nothing to delete');
same($web->getResultCode(), Memcached::RES_NOTFOUND, 'a plain miss again');
same($web->getMulti(['k', 'access_token']), ['k' => 'v'], 'many at once');
still_good($web, 'all that');

$reader = $enter('tokens', 'word2');
hold(is_token($reader->get('access_token')), 'a token');
same($reader->get('k'), false, 'no ordinary key for this user');
same($reader->set('k', 'mine', 60), false, 'nor may it write one');
echo "ok\n";
