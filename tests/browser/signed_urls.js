// What a real browser makes of an address beside what the server signs for it: `node signed_urls.js`. The server is there
// already; see tests/it/http_api/jssdk.rs. No address is really called: every request is answered here.
'use strict';

const crypto = require('node:crypto');
const { assert, inBrowser, PAGE } = require('./lib.js');

const { APP, TICKET } = process.env;
const PRINTABLE = Array.from({ length: 95 }, (_, at) => String.fromCharCode(32 + at));
const without = (...left) => PRINTABLE.filter((c) => !left.includes(c)).join('');

const ADDRESSES = [
  'https://shop.example',
  'https://shop.example?a=1',
  'https://shop.example/?',
  'https://shop.example/a?#',
  'HTTPS://Shop.Example:443/A?B=C#d',
  'http://shop.example:80/',
  'http://shop.example:8080/index.php?m=a/b&u=https://b.example/?x=1#top',
  'https://shop.example/商品/列表?名称=值&b=é#评论',
  'https://商城.example/',
  'https://ＳＨＯＰ.example/',
  'https://shop.example/😀?😀',
  'https://shop.example/a%2fb/%E5%95%86%zz%?c=%e5+%20%zz%',
  'https://shop.example/a/../b/./c/%2e%2E/d/..?e=/../f',
  'https://shop.example//a///b/',
  'https://shop.example\\a\\b?c\\d',
  'https://shop.example/ a b ?c d ',
  'http://127.1/',
  'http://[2001:DB8:0:0::1]:81/?a',
  'https://xn--czru2d.example/;v=1/=',
  // Chromium encodes ^ and | in a path, other browsers do not: as they are given, they are signed.
  `https://shop.example/a${without('?', '#', '/', '\\', '%', '^', '|')}b%5E%7C`,
  `https://shop.example/?a${without('#', '%')}b`,
  `https://shop.example/a#${without('#', '%')}`,
];

/** The address that the page at `address` finds itself at, up to the fragment. */
async function shown(page, address) {
  await page.goto('about:blank');
  // Not by goto, which would have Node.js read the address first.
  const arrived = page.waitForURL((url) => url.href !== 'about:blank');
  await page.evaluate((to) => { window.location.href = to; }, address);
  await arrived;
  return page.evaluate(() => window.location.href.split('#')[0]);
}

async function signed(address) {
  const url = new URL(`v1/apps/${APP}/jssdk`, PAGE);
  url.searchParams.set('url', address);
  const answer = await fetch(url, { headers: { 'X-Tokencached': '1' } });
  const text = await answer.text();
  assert.equal(answer.status, 200, `${address}: ${text}`);
  return JSON.parse(text);
}

inBrowser(async (browser) => {
  const context = await browser.newContext();
  await context.route('**/*', (route) => route.fulfill({ contentType: 'text/html', body: '<title>a page</title>' }));
  const page = await context.newPage();
  for (const address of ADDRESSES) {
    const href = await shown(page, address);
    // What the page itself sends, and what code on the server makes of it.
    for (const given of [href, address]) {
      const { url, nonceStr, timestamp, signature } = await signed(given);
      assert.equal(url, href, `for ${given}`);
      const text = `jsapi_ticket=${TICKET}&noncestr=${nonceStr}&timestamp=${timestamp}&url=${href}`;
      assert.equal(signature, crypto.createHash('sha1').update(text).digest('hex'), given);
    }
  }
}).then(() => console.log('ok'), (error) => {
  console.error(error.stack);
  process.exitCode = 1;
});
