"""A Python client library on ordinary keys, and on a managed one.

Arguments: the library; `ordinary` or `managed`. Ordinary: every command, large and odd values, many keys; the same passes
against memcached. Managed: prints as JSON what the library gives back or raises for each command. Any fault is an
exception.
"""

import json
import os
import re
import sys
import time
import urllib.request

HOST, PORT = os.environ["MC_HOST"], int(os.environ["MC_PORT"])
ODD = [b"", b"\r\n", b"END\r\n", b"a\x00b\xff", bytes(range(256)) * 4]
MANY = 700


class Pymemcache:
    """pymemcache's plain client; the others of the package have the same methods."""

    def __init__(self):
        self.client = self.connect()

    def connect(self):
        from pymemcache.client.base import Client

        return Client((HOST, PORT), default_noreply=False, timeout=30)

    def gets(self, key):
        return self.client.gets(key)

    def cas(self, key, value, cas):
        return self.client.cas(key, value, cas)

    def get_many(self, keys):
        return self.client.get_many(keys)

    def set_many(self, values):
        return self.client.set_many(values)

    def gat(self, key, expire):
        # The library has no method for it.
        return self.client.raw_command("gat %d %s" % (expire, key), end_tokens=b"END\r\n")

    def flush(self):
        assert self.client.flush_all()

    def silent_set(self, key, value):
        self.client.set(key, value, noreply=True)

    def silent_delete(self, key):
        self.client.delete(key, noreply=True)

    def __getattr__(self, name):
        return getattr(self.client, name)


class PymemcacheHash(Pymemcache):
    """Keys spread over servers by their hash; here over one."""

    def connect(self):
        from pymemcache.client.hash import HashClient

        # It counts a server that fails as dead; one refusal must not make it that.
        return HashClient([(HOST, PORT)], default_noreply=False, retry_attempts=0, use_pooling=True, timeout=30)

    def gat(self, key, expire):
        return None

    def flush(self):
        self.client.flush_all()


class PymemcachePooled(Pymemcache):
    def connect(self):
        from pymemcache.client.base import PooledClient

        return PooledClient((HOST, PORT), default_noreply=False, max_pool_size=2, timeout=30)

    def gat(self, key, expire):
        return None


class Wrapped:
    """Whose client's methods have these names; others are passed on as they are."""

    def gets(self, key):
        return self.client.gets(key)

    def cas(self, key, value, cas):
        return self.client.cas(key, value, cas)

    def get_many(self, keys):
        return self.client.get_multi(keys)

    def set_many(self, values):
        return self.client.set_multi(values)

    def gat(self, key, expire):
        return None

    def __getattr__(self, name):
        return getattr(self.client, name)


class PythonMemcached(Wrapped):
    """python-memcached: the oldest of them."""

    def __init__(self):
        from memcache import Client

        self.client = Client(["%s:%d" % (HOST, PORT)], cache_cas=True, socket_timeout=30)

    def gets(self, key):
        value = self.client.gets(key)
        return value, self.client.cas_ids.get(key)

    def cas(self, key, value, cas):
        self.client.cas_ids[key] = cas
        return self.client.cas(key, value)

    def flush(self):
        self.client.flush_all()

    def silent_set(self, key, value):
        self.client.set(key, value, noreply=True)

    def silent_delete(self, key):
        self.client.delete(key, noreply=True)


class Pylibmc(Wrapped):
    """pylibmc, which is libmemcached; the behaviours that applications set."""

    behaviors = {"tcp_nodelay": True, "cas": True, "ketama": True}
    binary = False

    def __init__(self):
        self.client = self.connect(self.behaviors)
        self.silent = self.connect({**self.behaviors, "_noreply": True})

    def connect(self, behaviors):
        import pylibmc

        return pylibmc.Client(["%s:%d" % (HOST, PORT)], binary=self.binary, behaviors=behaviors)

    def set(self, key, value, expire=0):
        return self.client.set(key, value, time=expire)

    def flush(self):
        assert self.client.flush_all()

    def silent_set(self, key, value):
        self.silent.set(key, value)

    def silent_delete(self, key):
        self.silent.delete(key)


class PylibmcNoBlock(Pylibmc):
    """Does not wait for the answers to what it stores; they are read with the next get."""

    behaviors = {"tcp_nodelay": True, "cas": True, "no_block": True}


class PylibmcBinary(Pylibmc):
    binary = True


class Binary(Wrapped):
    """python-binary-memcached."""

    def __init__(self):
        from bmemcached import Client

        self.client = Client(("%s:%d" % (HOST, PORT),), socket_timeout=30)

    def touch(self, key, expire):
        return None

    def append(self, key, value):
        return None

    def prepend(self, key, value):
        return None

    def flush(self):
        assert self.client.flush_all()

    def silent_set(self, key, value):
        # It has no quiet form but in this.
        self.client.set_multi({key: value})

    def silent_delete(self, key):
        self.client.delete(key)


LIBRARIES = {
    "pymemcache": Pymemcache,
    "pymemcache-hash": PymemcacheHash,
    "pymemcache-pooled": PymemcachePooled,
    "python-memcached": PythonMemcached,
    "pylibmc": Pylibmc,
    "pylibmc-no-block": PylibmcNoBlock,
    "pylibmc-binary": PylibmcBinary,
    "python-binary-memcached": Binary,
}


def same(actual, expected, what):
    assert actual == expected, "%s: %r instead of %r" % (what, actual, expected)


def fails(command):
    """Some give back False, some raise."""
    try:
        return not command()
    except Exception:
        return True


def until(what, ready):
    """Asks until there is something; the test that runs this has the patience."""
    begun = time.monotonic()
    while time.monotonic() - begun < 30:
        found = ready()
        if found:
            return found
    raise AssertionError("waited in vain for " + what)


def storage(it):
    same(it.get("absent"), None, "a miss")
    it.set("k", b"one")
    same(it.get("k"), b"one", "get")
    # Who does not wait for answers believes in success.
    if type(it) is not PylibmcNoBlock:
        assert fails(lambda: it.add("k", b"two")), "add of what is there"
        assert fails(lambda: it.replace("absent", b"two")), "replace of what is not"
        assert it.add("added", b"two") and it.replace("added", b"three")
        same(it.get("added"), b"three", "replace")
        assert it.delete("added")
        # This one calls a miss success.
        assert fails(lambda: it.delete("absent")) or type(it) is Binary
    same(it.get("added"), None, "delete")
    if it.append("k", b"!") is not None:
        it.prepend("k", b"?")
        same(it.get("k"), b"?one!", "append and prepend")
    it.set("n", 9)
    same(int(it.incr("n", 3)), 12, "incr")
    same(int(it.decr("n", 100)), 0, "decr")
    if it.touch("k", 100) is not None:
        assert it.get("k"), "touch"
        it.touch("k", 1)
    it.gat("k", 0)


def compare_and_swap(it):
    it.set("c", b"1")
    value, cas = it.gets("c")
    same(value, b"1", "gets")
    assert it.cas("c", b"2", cas), "cas"
    assert fails(lambda: it.cas("c", b"3", cas)), "an old cas"
    same(it.get("c"), b"2", "after cas")


def values(it):
    for number, value in enumerate(ODD):
        it.set("odd%d" % number, value)
        same(it.get("odd%d" % number), value, "an odd value")
    large = os.urandom(900 * 1024)
    it.set("large", large)
    same(it.get("large"), large, "a large value")
    many = {"many%d" % number: b"v%d" % number for number in range(MANY)}
    it.set_many(many)
    same(it.get_many(list(many)), many, "many keys")
    same(it.get_many(["none1", "many5", "none2"]), {"many5": b"v5"}, "some of many keys")


def times_and_silence(it):
    # In the binary protocol there are no times below zero.
    if type(it) not in (Binary, PylibmcBinary):
        it.set("gone", b"x", -1)
        same(it.get("gone"), None, "an item that is over at once")
    it.set("brief", b"x", 1)
    until("an item to end", lambda: it.get("brief") is None)
    it.set("long", b"x", 3600)
    same(it.get("long"), b"x", "an item of an hour")
    it.silent_set("quiet", b"q")
    same(until("a silent set", lambda: it.get("quiet")), b"q", "a silent set")
    it.silent_delete("quiet")
    until("a silent delete", lambda: it.get("quiet") is None)
    it.flush()
    same(it.get("long"), None, "flush")


def version(it):
    """Applications compare it, number by number."""
    if isinstance(it, Pymemcache) and not isinstance(it, PymemcacheHash):
        numbers = tuple(int(number) for number in it.version().decode().split("."))
        assert (1, 6, 0) <= numbers < (2, 0, 0), numbers
    elif isinstance(it, (PythonMemcached, Pylibmc)):
        figures = {text(name): text(value) for name, value in it.get_stats()[0][1].items()}
        assert re.fullmatch(r"1\.6\.[0-9]+", figures["version"]), figures["version"]


def ordinary(it):
    it.flush()
    version(it)
    storage(it)
    compare_and_swap(it)
    values(it)
    times_and_silence(it)
    print("ok")


def sandbox(path, **kwargs):
    request = urllib.request.Request(os.environ["WECHAT"] + path, **kwargs)
    urllib.request.urlopen(request, timeout=30).close()


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def managed(it):
    key = "access_token:" + os.environ["APPID"]
    token = text(it.get(key))
    same(token, os.environ["TOKEN"], "the token")
    seen = {}

    def refused(what, command):
        """Does it, and sees whether the connection goes on and nothing has changed."""
        try:
            answer = command()
            # Not known to the library.
            if answer is None:
                return
            seen[what] = repr(answer)
        except Exception as error:
            seen[what] = "raises " + type(error).__name__
        same(text(it.get(key)), token, "the token after " + what)
        it.set("bystander", b"well")
        same(it.get("bystander"), b"well", "another key after " + what)

    refused("set", lambda: it.set(key, b"other", 7200))
    refused("add", lambda: it.add(key, b"other"))
    refused("replace", lambda: it.replace(key, b"other"))
    refused("append", lambda: it.append(key, b"other"))
    refused("prepend", lambda: it.prepend(key, b"other"))
    refused("cas", lambda: it.cas(key, b"other", it.gets(key)[1]))
    refused("incr", lambda: it.incr(key, 1))
    refused("touch", lambda: it.touch(key, 1))
    it.gat(key, 1)
    it.silent_set(key, b"other")
    found = it.get_many(["bystander", key, "absent"])
    same({name: text(value) for name, value in found.items()}, {"bystander": "well", key: token}, "many")
    it.flush()
    same(text(it.get(key)), token, "the token after flush")

    sandbox("/sandbox/kill", data=json.dumps({"appid": os.environ["APPID"]}).encode())
    seen["delete"] = repr(it.delete(key))
    fresh = until("a new token", lambda: (found := text(it.get(key))) != token and found)
    seen["fresh"] = fresh
    it.silent_delete(key)
    same(text(it.get(key)), fresh, "the token after a silent delete")
    print(json.dumps(seen))


def main():
    it = LIBRARIES[sys.argv[1]]()
    {"ordinary": ordinary, "managed": managed}[sys.argv[2]](it)


main()
