"""One web server of a site with the real wechatpy, its session in memcached, its clock in proportion to the tokens' life."""

import json
import os
import random
import time
from types import SimpleNamespace

import wechatpy.client.base
from pymemcache.client.base import Client
from requests.adapters import HTTPAdapter
from wechatpy import WeChatClient
from wechatpy.exceptions import WeChatClientException
from wechatpy.session.memcachedstorage import MemcachedStorage

REAL = "https://api.weixin.qq.com"
FASTER = 7200 / int(os.environ["LIFE_S"])
HOST, PORT = os.environ["STORE"].split(":")


class ToSandbox(HTTPAdapter):
    """Takes what is meant for WeChat to the sandbox, and tells times as wechatpy would see them."""

    def send(self, request, **kwargs):
        request.url = os.environ["WECHAT"] + request.url.removeprefix(REAL)
        answer = super().send(request, **{**kwargs, "proxies": {}})
        fields = json.loads(answer.content)
        if "expires_in" in fields:
            fields["expires_in"] = int(fields["expires_in"] * FASTER)
            answer._content = json.dumps(fields).encode()
        return answer


class ShortLived(Client):
    """A memcached whose seconds are as short as the clock's."""

    def set(self, key, value, expire=0, *rest, **more):
        return super().set(key, value, max(1, round(expire / FASTER)) if expire else 0, *rest, **more)


wechatpy.client.base.time = SimpleNamespace(time=lambda: time.time() * FASTER)


def new_client():
    client = WeChatClient(os.environ["APPID"], os.environ["SECRET"], session=MemcachedStorage(ShortLived((HOST, int(PORT)))))
    client._http.mount(REAL, ToSandbox())
    client._http.headers["User-Agent"] = os.environ["AGENT"] + "/1"
    return client


def view(client):
    token, errcode = client.access_token or "-", -1
    if token != "-":
        try:
            client.menu.get()
            errcode = 0
        except WeChatClientException as error:
            errcode = error.errcode
    print(int(time.time() * 1000), errcode, token[-12:], flush=True)


def main():
    client = new_client()
    while True:
        view(client)
        time.sleep(random.uniform(0.5, 1.5) / int(os.environ["VIEWS_PER_S"]))


main()
