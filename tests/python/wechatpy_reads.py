"""The real wechatpy, its session in memcached: it reads tokens and tickets and never fetches one.

Arguments: pymemcache or memcache, the client library of the session; how many different tokens to see; perhaps the
prefix of the keys. Prints what it did.
"""

import json
import os
import sys
import time

from requests.adapters import HTTPAdapter
from wechatpy import WeChatClient
from wechatpy.session.memcachedstorage import MemcachedStorage

REAL = "https://api.weixin.qq.com"
ADDRESS = (os.environ["MC_HOST"], int(os.environ["MC_PORT"]))
SANDBOX = os.environ["WECHAT"]
APPID = os.environ["APPID"]


class ToSandbox(HTTPAdapter):
    """Takes what is meant for WeChat to the sandbox, so that wechatpy itself stays as it was installed."""

    fetches = 0

    def send(self, request, **kwargs):
        path = request.url.removeprefix(REAL)
        if path.startswith(("/cgi-bin/token", "/cgi-bin/stable_token", "/cgi-bin/ticket")):
            ToSandbox.fetches += 1
        request.url = SANDBOX + path
        return super().send(request, **{**kwargs, "proxies": {}})


def memcached():
    if sys.argv[1] == "pymemcache":
        from pymemcache.client.base import Client

        return Client(ADDRESS)
    from memcache import Client

    return Client(["%s:%d" % ADDRESS])


def new_client(session):
    client = WeChatClient(APPID, os.environ["SECRET"], session=session)
    client._http.mount(REAL, ToSandbox())
    return client


def main():
    wanted = int(sys.argv[2])
    session = MemcachedStorage(memcached(), *sys.argv[3:4])
    long_lived = new_client(session)
    seen, used = set(), 0
    # What a wechatpy that has fetched by itself would leave behind for all the others.
    session.set(APPID + "_access_token_expires_at", int(time.time()), 7200)
    while len(seen) < wanted:
        for client in (long_lived, new_client(session)):
            seen.add(client.access_token)
            assert client.get("get_api_domain_ip")["ip_list"], "refused"
            tickets = {client.jsapi.get_jsapi_ticket(), client.jsapi.get_jsapi_card_ticket()}
            assert len(tickets) == 2 and None not in tickets, tickets
            used += 1
        # A page view now and then, not a load test.
        time.sleep(0.01)
    print(json.dumps({"tokens": len(seen), "used": used, "fetched": ToSandbox.fetches}))


main()
