"""A client with a lifetime of its own, whatever WeChat says: 7000 s from the fetch, both in a JSON file."""

import json
import os
import random
import time
import urllib.parse
import urllib.request
from pathlib import Path

LIFETIME_S = 7000
KEPT = Path(os.environ["STORE"]) / "wechat.json"
AGENT = {"User-Agent": os.environ["AGENT"] + "/1"}


def call(base, path, fields, body=False):
    query = "" if body else "?" + urllib.parse.urlencode(fields)
    data = json.dumps(fields).encode() if body else None
    with urllib.request.urlopen(urllib.request.Request(base + path + query, data, AGENT), timeout=20) as answer:
        return json.load(answer)


def fetch():
    fields = {"grant_type": "client_credential", "appid": os.environ["APPID"], "secret": os.environ["SECRET"]}
    stable = os.environ["ENDPOINT"] == "stable_token"
    return call(os.environ["TOKENS"], "/cgi-bin/" + os.environ["ENDPOINT"], fields, stable)["access_token"]


def token():
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {"time": 0}
    if kept["time"] + LIFETIME_S < time.time():
        # Its own lifetime is in proportion to the tokens' here.
        age = LIFETIME_S - LIFETIME_S * int(os.environ["LIFE_S"]) / 7200
        kept = {"token": fetch(), "time": int(time.time() - age)}
        KEPT.write_text(json.dumps(kept))
    return kept["token"]


while True:
    value = token()
    errcode = call(os.environ["WECHAT"], "/cgi-bin/menu/get", {"access_token": value}).get("errcode", 0)
    print(int(time.time() * 1000), errcode, value[-12:], flush=True)
    time.sleep(random.uniform(0.5, 1.5) / int(os.environ["VIEWS_PER_S"]))
