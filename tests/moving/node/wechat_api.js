// The real wechat-api, its token kept where the owner's two functions say: as JSON in memcached.
'use strict';

const Memcached = require('memcached');
const API = require('wechat-api');

const { AGENT, APPID, SECRET, STORE, VIEWS_PER_S, WECHAT } = process.env;
const memcached = new Memcached(STORE);
const key = `access_token_${APPID}`;

const api = new API(
  APPID,
  SECRET,
  (callback) => memcached.get(key, (error, text) => callback(error, text ? JSON.parse(text) : null)),
  (token, callback) => memcached.set(key, JSON.stringify(token), 7200, callback),
);
api.endpoint = WECHAT;
api.setOpts({ headers: { 'User-Agent': `${AGENT}/1` } });

function view() {
  api.getMenu((error) => {
    // Without a code it is none of WeChat's: the page has no token.
    const [errcode, token] = error && error.code === undefined ? [-1, '-'] : [error ? error.code : 0, api.token.accessToken];
    console.log(`${Date.now()} ${errcode} ${token.slice(-12)}`);
    setTimeout(view, (1000 / VIEWS_PER_S) * (0.5 + Math.random()));
  });
}

view();
