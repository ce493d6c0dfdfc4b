// What co-wechat-api and wechat-api do with a token that the site keeps in memcached: they fetch where there is none or
// its time has come. Over several renewals they never do.
//
// Arguments: `text` if the site stores JSON by itself, `object` if it leaves that to the package memcached; how many
// different tokens to see. Prints what it did.
"use strict";

const Memcached = require("memcached");

const [, , stores, wanted] = process.argv;
const appid = process.env.APPID;
const memcached = new Memcached(`${process.env.MC_HOST}:${process.env.MC_PORT}`, { retries: 0, timeout: 30000 });
const promised = (name) => (...args) =>
  new Promise((resolve, reject) => memcached[name](...args, (error, value) => (error ? reject(error) : resolve(value))));
const [get, set] = ["get", "set"].map(promised);

const read = async (key) => {
  const found = await get(key);
  return found === undefined || stores === "object" ? found : JSON.parse(found);
};
// A refusal is an error there; the sites' examples do not wait for it.
const write = (key, value) => set(key, stores === "object" ? value : JSON.stringify(value), 7200).catch(() => undefined);

let fetched = 0;

async function ask(path) {
  const answer = await fetch(process.env.WECHAT + path);
  return answer.json();
}

async function token(key) {
  const kept = await read(key);
  if (kept && kept.accessToken && Date.now() < kept.expireTime) return kept.accessToken;
  fetched += 1;
  const path = `/cgi-bin/token?grant_type=client_credential&appid=${appid}&secret=${process.env.SECRET}`;
  const { access_token: accessToken, expires_in: life } = await ask(path);
  await write(key, { accessToken, expireTime: Date.now() + (life - 10) * 1000 });
  return accessToken;
}

async function ticket(key, type, accessToken) {
  const kept = await read(key);
  if (kept && kept.ticket && Date.now() < kept.expireTime) return kept.ticket;
  fetched += 1;
  const { ticket, expires_in: life } = await ask(`/cgi-bin/ticket/getticket?access_token=${accessToken}&type=${type}`);
  await write(key, { ticket, expireTime: Date.now() + (life - 10) * 1000 });
  return ticket;
}

async function main() {
  const seen = new Set();
  let [used, refused] = [0, 0];
  while (seen.size < Number(wanted)) {
    for (const key of ["access_token", appid, `access_token_${appid}`, `${appid}_access_token`]) {
      const accessToken = await token(key);
      seen.add(accessToken);
      const { ip_list: accepted } = await ask(`/cgi-bin/get_api_domain_ip?access_token=${accessToken}`);
      used += 1;
      refused += accepted ? 0 : 1;
      await ticket(`jsapi_ticket_${appid}`, "jsapi", accessToken);
      await ticket(`wx_card_ticket_${appid}`, "wx_card", accessToken);
    }
    await write("access_token", { accessToken: "another", expireTime: 0 });
    // A request now and then, not a load test.
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  console.log(JSON.stringify({ tokens: seen.size, used, refused, fetched, forced: 0 }));
  memcached.end();
}

main();
