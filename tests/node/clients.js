// A Node.js client library on ordinary keys, and on a managed one; as python/clients.py.
//
// Arguments: the library; `ordinary` or `managed`. Any fault is an exception.
"use strict";

const assert = require("node:assert");
const crypto = require("node:crypto");

const server = `${process.env.MC_HOST}:${process.env.MC_PORT}`;
const odd = ["", "\r\n", "END\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n"];

// What is called with a callback as its last argument, as a promise.
const promised = (client, name) => (...args) =>
  new Promise((resolve, reject) =>
    client[name](...args, (error, value) => (error ? reject(error) : resolve(value))));

// memcached: text.
class Memcached {
  constructor() {
    const Library = require("memcached");
    // A server that fails once is given up: a refusal must not be a failure.
    this.client = new Library(server, { retries: 0, failures: 0, remove: true, timeout: 30000, poolSize: 1 });
    this.client.on("failure", (details) => { throw new Error("given up: " + JSON.stringify(details)); });
    for (const name of ["get", "gets", "getMulti", "touch", "incr", "decr", "del", "flush", "version"]) {
      this[name] = promised(this.client, name);
    }
    for (const name of ["set", "add", "replace"]) {
      this[name] = (key, value, expires = 0) => promised(this.client, name)(key, value, expires);
    }
    this.append = promised(this.client, "append");
    this.prepend = promised(this.client, "prepend");
    this.cas = (key, value, cas) => promised(this.client, "cas")(key, value, cas, 0);
  }

  end() { this.client.end(); }
}

// memjs: binary.
class Memjs {
  constructor() {
    this.client = require("memjs").Client.create(server, { retries: 0, timeout: 30, failover: false });
    for (const name of ["incr", "decr"]) {
      this[name] = async (key, by) => (await this.client[name === "incr" ? "increment" : "decrement"](key, by, { initial: 0 })).value;
    }
  }

  async get(key) {
    const { value } = await this.client.get(key);
    return value === null ? undefined : value.toString("latin1");
  }

  async getMulti(keys) {
    const found = {};
    for (const key of keys) {
      const value = await this.get(key);
      if (value !== undefined) found[key] = value;
    }
    return found;
  }

  set(key, value, expires = 0) { return this.client.set(key, value, { expires }); }
  add(key, value, expires = 0) { return this.client.add(key, value, { expires }); }
  replace(key, value, expires = 0) { return this.client.replace(key, value, { expires }); }
  append(key, value) { return this.client.append(key, value); }
  prepend(key, value) { return this.client.prepend(key, value); }
  touch(key, expires) { return this.client.touch(key, expires); }
  del(key) { return this.client.delete(key); }
  flush() { return this.client.flush(); }
  end() { this.client.close(); }
}

const fails = (promise) => promise.then((value) => !value, () => true);

async function ordinary(it) {
  await it.flush();
  // The library makes numbers of the text's last three digits.
  if (it.version) {
    const [{ major, minor }] = await it.version();
    assert.deepStrictEqual([Number(major), Number(minor)], [1, 6]);
  }
  assert.strictEqual(await it.get("absent"), undefined);
  assert(await it.set("k", "one"));
  assert.strictEqual(await it.get("k"), "one");
  assert(await fails(it.add("k", "two")));
  assert(await fails(it.replace("absent", "two")));
  assert(await it.add("added", "two"));
  assert(await it.replace("added", "three"));
  assert.strictEqual(await it.get("added"), "three");
  assert(await it.append("k", "!"));
  assert(await it.prepend("k", "?"));
  // memjs 1.3.2 sends an append for a prepend.
  assert((await it.get("k")) === (it instanceof Memjs ? "one!?" : "?one!"));
  assert(await it.touch("k", 100));
  assert(await it.del("added"));
  assert(await fails(it.del("added")));
  assert(await it.set("n", "9"));
  assert.strictEqual(await it.incr("n", 3), 12);
  assert.strictEqual(await it.decr("n", 10), 2);
  if (it.gets) {
    const { cas } = await it.gets("k");
    assert(await it.cas("k", "again", cas));
    assert(await fails(it.cas("k", "too late", cas)));
    assert.strictEqual(await it.get("k"), "again");
  }
  await values(it);
  assert(await it.set("brief", "x", 1));
  const begun = Date.now();
  while ((await it.get("brief")) !== undefined) assert(Date.now() - begun < 30000, "an item that never ends");
  await it.flush();
  assert.strictEqual(await it.get("k"), undefined);
  console.log("ok");
}

async function values(it) {
  for (const value of odd) {
    assert(await it.set("odd", value));
    assert.strictEqual(await it.get("odd"), value);
  }
  const large = crypto.randomBytes(450 * 1024).toString("hex");
  assert(await it.set("large", large));
  assert.strictEqual(await it.get("large"), large);
  const many = Object.fromEntries(Array.from({ length: 500 }, (_, n) => [`many${n}`, `v${n}`]));
  await Promise.all(Object.entries(many).map(([key, value]) => it.set(key, value)));
  assert.deepStrictEqual({ ...(await it.getMulti([...Object.keys(many), "none"])) }, many);
}

async function managed(it) {
  const key = `access_token:${process.env.APPID}`;
  const token = await it.get(key);
  assert.strictEqual(token, process.env.TOKEN);
  const seen = {};
  const refused = async (what, command) => {
    try {
      seen[what] = JSON.stringify(await command());
    } catch (error) {
      seen[what] = `error ${JSON.stringify(error.message)}`;
    }
    assert.strictEqual(await it.get(key), token, what);
    assert(await it.set("bystander", "well"), what);
    assert.strictEqual(await it.get("bystander"), "well", what);
  };
  for (const what of ["set", "add", "replace", "append", "prepend"]) await refused(what, () => it[what](key, "other"));
  if (it.gets) await refused("cas", async () => it.cas(key, "other", (await it.gets(key)).cas));
  await refused("incr", () => it.incr(key, 1));
  await refused("touch", () => it.touch(key, 1));
  assert.deepStrictEqual({ ...(await it.getMulti(["bystander", key, "absent"])) }, { bystander: "well", [key]: token });
  await it.flush();
  assert.strictEqual(await it.get(key), token);
  const body = JSON.stringify({ appid: process.env.APPID });
  assert((await fetch(`${process.env.WECHAT}/sandbox/kill`, { method: "POST", body })).ok);
  seen.delete = JSON.stringify(await it.del(key));
  const begun = Date.now();
  while ((seen.fresh = await it.get(key)) === token) assert(Date.now() - begun < 30000, "no new token");
  console.log(JSON.stringify(seen));
}

const it = new { memcached: Memcached, memjs: Memjs }[process.argv[2]]();
({ ordinary, managed })[process.argv[3]](it).then(() => it.end(), (error) => {
  console.error(error);
  process.exit(1);
});
