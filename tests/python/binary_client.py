"""The real python-binary-memcached: logs in by SASL, reads tokens, is refused their keys, and keeps its own.

Arguments: a key of the token, then perhaps a user and a password. Says `ok`.
"""

import os
import sys

import bmemcached
from bmemcached.exceptions import MemcachedException

key, *login = sys.argv[1:]
client = bmemcached.Client(("%s:%s" % (os.environ["MC_HOST"], os.environ["MC_PORT"]),), *login)

token = client.get(key)
assert isinstance(token, str) and len(token) > 100, "get"
value, cas = client.gets(key)
assert value == token and cas > 0, "gets"
for name in ("set", "add", "replace"):
    # This client makes an exception of every status but the two it expects.
    try:
        getattr(client, name)(key, "another token, fetched by itself")
        raise AssertionError(name)
    except MemcachedException as refusal:
        assert refusal.code == 5, (name, refusal)
assert not client.cas(key, "another", cas), "cas"
assert client.get_multi([key, "nothing"]) == {key: token}, "get_multi"
client.set_multi({"first": "1", key: "another", "last": "2"})
assert client.get_multi(["first", key, "last"]) == {"first": "1", key: token, "last": "2"}, "set_multi"
assert client.delete(key), "delete"
assert client.get(key) == token, "a delete has it checked, and it is good"

assert client.set("k", {"any": ["value", 1]}), "set"
assert client.get("k") == {"any": ["value", 1]}, "and back"
value, cas = client.gets("k")
assert client.cas("k", "next", cas) and not client.cas("k", "late", cas), "cas"
assert client.incr("n", 5, default=10) == 10 and client.incr("n", 5) == 15 and client.decr("n", 20) == 0, "counting"
assert client.delete("k") and client.get("k") is None, "delete"
assert client.flush_all() and client.get("first") is None and client.get(key) == token, "flush_all"
(figures,) = client.stats("tokens").values()
assert any(name.endswith(":generation") for name in figures), figures
client.disconnect_all()
print("ok")
