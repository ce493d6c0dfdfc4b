// The status page in a real browser: `node page.js SCENARIO`. The server and the sandbox are there already; see
// tests/it/http_api/page.rs. Waits for what should come and never just for time to pass.
'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');
const { assert, calls, inBrowser, leave, memcached, PAGE, reads, row, sandbox, value, visit } = require('./lib.js');

const [APP, OTHER, BARRED] = ['wx0123456789abcdef', 'wx7c20d94be1a35f68', 'wx90ab34cd56ef7812'];
const KEYS = { ops: 'ops-0123456789abcdef0123456789', viewer: 'viewer-0123456789abcdef012345', half: 'half-0123456789abcdef01234567', reader: 'reader-0123456789abcdef012345' };
const { SHOTS, PICTURE } = process.env;

/** Everything the page holds and was told, for what must not be in there. */
async function everything({ page, seen }) {
  const fields = await page.evaluate(() => [...document.querySelectorAll('input')].map((input) => input.value).join('\n'));
  const kept = await page.evaluate(() => JSON.stringify({ ...localStorage }) + JSON.stringify({ ...sessionStorage }));
  return [await page.content(), fields, kept, page.url(), ...(await Promise.all(seen))].join('\n');
}

/** The generation that a row shows, once it shows one. */
async function generationOf(page, app) {
  await reads(page, `${row(app)} .generation`, /^\d[\d,]*$/);
  const text = await page.locator(`${row(app)} .generation`).first().innerText();
  return Number(text.replaceAll(',', ''));
}

/** A number as a page may show it: with or without commas. */
const shown = (number) => String(number).split('').join(',?');

const scenarios = {
  /** What is shown is what there is, and it changes by itself. */
  async shows(browser) {
    const tokens = [await value(`access_token:${APP}`), await value(`jsapi_ticket:${APP}`), await value(`access_token:${OTHER}`)];
    assert.ok(tokens.every((token) => token?.length > 60), 'the tokens are there');
    const window = await visit(browser);
    const { page } = window;
    let loads = 0;
    page.on('load', () => (loads += 1));
    await reads(page, '#headline', /^1 of 4 credentials is not live$/);
    await reads(page, '#link', /^Live$/);
    await reads(page, '#version', new RegExp(`^version ${process.env.VERSION.replaceAll('.', '\\.')}$`));
    await reads(page, '#uptime', /^up \d+ (s|min)/);
    assert.equal(await page.locator('#list > li').first().getAttribute('data-app'), BARRED, 'trouble comes first');
    await reads(page, `${row(BARRED)} .state`, /^Blocked$/);
    await reads(page, `${row(BARRED)} .trouble`, /40164[^]*127\.0\.0\.1 is not on the allow-list[^]*WeChat saw IP 127\.0\.0\.1[^]*rid [0-9a-f-]{20}/);
    await reads(page, `${row(APP)} .state`, /^Fresh$/);
    const next = (await generationOf(page, APP)) + 1;
    await reads(page, `${row(APP)} .next`, /renews in [\d:]+$/);
    await reads(page, `${row(APP)} .calls`, /^\D*1 \/ 500,000\D+\d+ probes?$/);
    await reads(page, `[data-app="${APP}"] .head`, /access_token, WCH_access_token/);
    const left = () => page.locator(`${row(APP)} .life .fill`).evaluate((fill) => fill.style.transform);
    const before = await left();
    await page.waitForFunction(([selector, before]) => document.querySelector(selector).style.transform !== before, [`${row(APP)} .life .fill`, before]);

    // A client writes, and fetches: both are seen while we look.
    await memcached(`set access_token 0 0 4\r\nmine\r\nget access_token`);
    await reads(page, `${row(APP)} .badge`, /^1 refused write$/);
    await page.click(`${row(APP)} .toggle`);
    await reads(page, `${row(APP)} .more`, /access_token:wx0123[^]*Refused writes since start\s+1[^]*Refused writes by\s+127\.0\.0\.1 · once/);
    await reads(page, '#moment', /refused a write by 127\.0\.0\.1/);
    await reads(page, '.chart.gets .foot', /· [1-9][\d,]* gets in all/);

    // The token dies, a client says so, and the next one is there without a reload.
    await sandbox('kill', { appid: APP });
    await memcached(`delete access_token:${APP}`);
    await reads(page, `${row(APP)} .generation`, new RegExp(`^${shown(next)}$`));
    await reads(page, '#moment', new RegExp(`renewed, generation ${shown(next)}`));
    await reads(page, `${row(APP)} .more`, new RegExp(`Reports by clients\\s+1[^]*What has happened[^]*renewed, generation ${shown(next)}`));
    tokens.push(await value(`access_token:${APP}`));
    assert.notEqual(tokens[0], tokens[3]);
    assert.equal(loads, 0);

    // The operator puts the address on the list: the server is tried again from here.
    await sandbox('allowlist', { appid: BARRED, ips: null });
    await page.click(`${row(BARRED)} .refresh`);
    await page.click('#ask-yes');
    await reads(page, '#ask-outcome', /^Renewed: a new value is served\.$/);
    await page.click('#ask-no');
    await reads(page, '#headline', /^All 4 credentials are live$/);
    await page.waitForFunction((selector) => document.querySelector(selector).hidden, `${row(BARRED)} .trouble`);
    tokens.push(await value(`access_token:${BARRED}`));
    const all = await everything(window);
    assert.ok(all.includes(tokens[3].slice(-4)) && all.includes(APP));
    for (const secret of [...tokens, process.env.APP_SECRET]) {
      for (const part of [secret, secret.slice(0, 16), secret.slice(-16)]) assert.ok(!all.includes(part), 'a token or secret is on the page');
    }
    await leave(window);
  },

  /** Keys, rights, and nothing done without being asked twice. */
  async rights(browser) {
    const window = await visit(browser, { ready: false, allowed: /status of 401/ });
    const { page } = window;
    const log_in = async (key) => {
      await page.fill('#key', key);
      await page.press('#key', 'Enter');
    };
    await reads(page, '#login h1', /^Log in$/);
    assert.ok(!(await page.content()).includes(APP), 'nothing is told before');
    await log_in('not-one-of-the-keys-at-all');
    await reads(page, '#login-fault', /^The server does not know this key\.$/);
    await log_in(KEYS.viewer);
    await reads(page, `${row(APP)} .state`, /^Fresh$/);
    await reads(page, '#who-name', /^viewer$/);
    assert.equal(await page.locator('.probe, .refresh').count(), 0, 'no buttons without the right');
    await page.reload();
    await reads(page, `${row(APP)} .state`, /^Fresh$/);
    assert.ok(!(await everything(window)).includes(KEYS.viewer), 'the key is kept nowhere');
    await page.click('#logout');
    await reads(page, '#login h1', /^Log in$/);
    assert.ok(!(await page.locator('#list').innerHTML()).includes(APP), 'nothing stays on the page');
    assert.equal(await page.evaluate(async () => (await fetch('/v1/status')).status), 401, 'the session is over');

    await log_in(KEYS.half);
    await reads(page, `${row(APP)} .refresh`, /^Refresh now/);
    assert.equal(await page.locator(`${row(OTHER)} .refresh`).count(), 0, 'the right to one app is not that to another');
    const asked = await calls(APP);
    assert.ok(asked > 0);
    await page.click(`${row(APP)} .refresh`);
    await reads(page, '#ask', /Refresh now\?[^]*wx0123456789abcdef · access_token[^]*Cancel/);
    await page.click('#ask-no');
    await page.click(`${row(APP)} .refresh`);
    await page.keyboard.press('Escape');
    assert.equal(await calls(APP), asked, 'nothing happens without a yes');
    await page.click(`${row(APP)} .probe`);
    await page.click('#ask-yes');
    await reads(page, '#ask-outcome', /^WeChat accepts the value/);
    await page.click('#ask-no');
    const next = (await generationOf(page, APP)) + 1;
    await sandbox('kill', { appid: APP });
    await page.click(`${row(APP)} .refresh`);
    await page.click('#ask-yes');
    await reads(page, `${row(APP)} .generation`, new RegExp(`^${shown(next)}$`));
    await reads(page, '#ask-outcome', /^Renewed/);
    await page.click('#ask-no');
    await page.click('#logout');

    // Without the right to the server's figures there are the apps of the key, now and then.
    await reads(page, '#login h1', /^Log in$/);
    await log_in(KEYS.reader);
    await reads(page, '#link', /^Every 5 s$/);
    await reads(page, `${row(OTHER)} .state`, /^Fresh$/);
    assert.equal(await page.locator('#list > li').count(), 1);
    assert.ok(await page.locator('#charts').isHidden());
    await leave(window);
  },

  /** Where values are also written to: what was written last, what fails and what to do, and that it is well again. */
  async sinks(browser) {
    const token = await value(`access_token:${APP}`);
    const [good, bad] = ['#sinks-list > li:nth-child(1)', '#sinks-list > li:nth-child(2)'];
    let window = await visit(browser, { locale: 'zh-CN' });
    await reads(window.page, '#sinks-title', /^同时写入$/);
    await reads(window.page, good, /^已写入\s+命令\s+\/bin\/true[^]*最近写入：\s*access_token · wx0123456789abcdef · \d\d:\d\d:\d\d[^]*写入 1 次$/);
    await reads(window.page, bad, /^写入失败[^]*尚未写入任何内容。[^]*命令以退出码 1 结束[^]*目标的问题[^]*请在日志中查看它的输出/);
    await contrasts(window.page);
    for (const width of [360, 820, 1280]) {
      await window.page.setViewportSize({ width, height: 760 });
      assert.ok(await window.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${width} scrolls sideways`);
    }
    await leave(window);
    window = await visit(browser);
    const { page } = window;
    await reads(page, good, /^Written\s+Command\s+\/bin\/true[^]*Last written:\s*access_token · wx0123456789abcdef · \d\d:\d\d:\d\d[^]*1 write$/);
    await reads(page, bad, /^Failing\s+Command\s+\/bin\/sh[^]*Nothing has been written yet\.[^]*\d+ failures?[^]*exit[^]*The command ended with code 1[^]*the place's fault[^]*See what it has said in the log/);
    await reads(page, '#sinks-found', /^1 of 2 places that are also written to fails$/);
    await reads(page, '#subline', /· 1 of 2 places that are also written to fails$/);
    const all = await everything(window);
    for (const part of [token, token.slice(0, 16), token.slice(-16)]) assert.ok(!all.includes(part), 'a token is on the page');
    // The next token is not put off until the last one is tried again.
    fs.writeFileSync(process.env.GO, '');
    await sandbox('kill', { appid: APP });
    await memcached(`delete access_token:${APP}`);
    await reads(page, bad, /^Written[^]*\d writes? · \d+ failures?$/);
    await reads(page, '#sinks-found', /^2 places$/);
    await leave(window);
  },

  /** Languages, colours, screens of every width. */
  async everybody(browser) {
    let window = await visit(browser, { locale: 'zh-CN' });
    let { page } = window;
    assert.match(await (await fetch(PAGE, { headers: { 'Accept-Language': 'zh-CN,zh;q=0.9,en;q=0.5' } })).text(), /<html lang="zh-CN">/);
    assert.match(await (await fetch(PAGE, { headers: { 'Accept-Language': 'de,en;q=0.5,zh;q=0.4' } })).text(), /<html lang="en">/);
    const language = () => page.evaluate(() => document.documentElement.lang);
    assert.equal(await language(), 'zh-CN');
    await reads(page, '#headline', /^4 个凭证中有 1 个不可用$/);
    await reads(page, `${row(BARRED)} .trouble`, /40164[^]*127\.0\.0\.1 不在 IP 白名单中[^]*微信看到的 IP 是 127\.0\.0\.1/);
    const names = await page.evaluate(async () => Object.values((await import('/page/words.js')).TEXTS).map((texts) => Object.keys(texts).sort()));
    assert.ok(names[0].length > 100);
    assert.deepEqual(names[0], names[1], 'a text is missing in one language');
    const english = await page.evaluate(() => {
      const hidden = (node) => node.parentElement.closest('.mono, code, svg, [hidden], #language, option, .raw, noscript');
      const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      const found = [];
      while (walker.nextNode()) if (/[a-z]{3,}/i.test(walker.currentNode.data) && !hidden(walker.currentNode)) found.push(walker.currentNode.data);
      return found.filter((text) => !/^[^a-z]*((tokencached|token|mp\.weixin\.qq\.com|[KM]iB|Home|End)[^a-z]*)+$/i.test(text) && !/wx[0-9a-f]{16}/.test(text));
    });
    assert.deepEqual(english, [], 'English is left in the Chinese page');
    await page.click('#language');
    await reads(page, '#headline', /^1 of 4 credentials is not live$/);
    await page.reload();
    await reads(page, '#headline', /^1 of 4 credentials is not live$/);
    assert.equal(await language(), 'en');
    await leave(window);

    const ground = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor.match(/\d+/g).reduce((sum, part) => sum + Number(part), 0));
    window = await visit(browser, { colorScheme: 'dark' });
    page = window.page;
    assert.ok((await ground()) < 150, 'dark where the system is dark');
    await page.selectOption('#theme', 'light');
    assert.ok((await ground()) > 600);
    await page.reload();
    assert.ok((await ground()) > 600, 'the choice is kept');
    await page.selectOption('#theme', 'auto');
    assert.ok((await ground()) < 150);
    await contrasts(page);
    await page.selectOption('#theme', 'light');
    await contrasts(page);
    await leave(window);

    for (const locale of ['en-GB', 'zh-CN']) {
      window = await visit(browser, { locale });
      page = window.page;
      await page.waitForSelector(`${row(BARRED)} .trouble`);
      for (const toggle of await page.locator('.toggle').all()) await toggle.click();
      await page.locator('.refresh').first().click();
      for (const width of [360, 700, 820, 1020, 1190, 1280]) {
        await page.setViewportSize({ width, height: 760 });
        const wide = await page.evaluate(() => [...document.querySelectorAll('body *')].filter((one) => {
          const room = one.closest('#list, .timeline, .charts, dialog, body').getBoundingClientRect().right;
          return one.getBoundingClientRect().right > room + 0.5 && !one.closest('svg, .vh, .cap, .shapes');
        }).map((one) => one.outerHTML.slice(0, 80)));
        assert.deepEqual(wide, [], `${locale} at ${width}`);
        assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${locale} at ${width} scrolls sideways`);
      }
      await leave(window);
    }
  },

  /** Somebody without a mouse. */
  keyboard: (browser) => withTheKeyboard(browser),

  /** A thousand apps are found, sorted and scrolled, and few of them drawn. */
  async thousand(browser) {
    const window = await visit(browser);
    const { page } = window;
    const drawn = () => page.locator('.cred').count();
    await reads(page, '#found', /^1,000 apps$/);
    await page.waitForSelector('.cred');
    assert.ok((await drawn()) < 100, `${await drawn()} rows are drawn`);
    await reads(page, '#headline', /^1 of 1,000 credentials is not live$/);
    assert.equal(await page.locator('#list > li').first().getAttribute('data-app'), BARRED);
    await page.fill('#search', 'wxbeef0000000007');
    await reads(page, '#found', /^100 of 1,000 apps$/);
    await page.fill('#search', 'wxbeef0000000007 WXBEEF000000000777');
    await reads(page, '#found', /^1 of 1,000 apps$/);
    await reads(page, '#list', /wxbeef000000000777/);
    await page.fill('#search', '40164');
    await reads(page, '#found', /^1 of 1,000 apps$/);
    await page.fill('#search', 'no such app');
    await reads(page, '#nothing', /^No app fits/);
    await page.fill('#search', '');
    await page.click('.count[data-state="blocked"]');
    await reads(page, '#found', /^1 of 1,000 apps$/);
    await page.selectOption('#filter', 'fresh');
    await reads(page, '#found', /^999 of 1,000 apps$/);
    await page.selectOption('#filter', 'all');
    await page.selectOption('#sort', 'name');
    await reads(page, '#found', /^1,000 apps$/);
    // The end of the list can be reached.
    await page.fill('#search', 'wxbeef0000000009');
    await reads(page, '#found', /^99 of 1,000 apps$/);
    await page.waitForFunction(() => {
      scrollTo(0, document.documentElement.scrollHeight);
      return document.querySelector('#rest').hidden;
    });
    await reads(page, '#list > li:last-child', /wxbeef000000000998[^]*Fresh/);
    assert.equal(await drawn(), 99);
    await page.fill('#search', '');
    // What is off the screen is kept current, too.
    await page.evaluate(() => scrollTo(0, 0));
    const read = async () => (await memcached('gets access_token:wxbeef000000000500')).split('\r\n')[0].split(' ').at(-1);
    const before = Number(await read());
    await sandbox('kill', { appid: 'wxbeef000000000500' });
    await memcached('delete access_token:wxbeef000000000500');
    await page.fill('#search', 'wxbeef000000000500');
    await reads(page, `${row('wxbeef000000000500')} .generation`, new RegExp(`^${shown(before + 1)}$`));
    await leave(window);
  },

  /** The server hangs, dies and comes back; the page says so, and comes back with it. */
  async away(browser) {
    const window = await visit(browser, { allowed: /ERR_CONNECTION|ERR_INCOMPLETE|ERR_EMPTY|Failed to load resource/ });
    const { page } = window;
    await reads(page, '#link', /^Live$/);
    const pid = Number(process.env.NODE_PID);
    process.kill(pid, 'SIGSTOP');
    await reads(page, '#link', /^No news\s*for \d+ s$/);
    await reads(page, '#headline', /^No contact for \d+ s, last seen: 1 of 4 credentials is not live$/);
    process.kill(pid, 'SIGCONT');
    await reads(page, '#link', /^Live$/);
    await reads(page, '#headline', /^1 of 4 credentials is not live$/);
    process.kill(pid, 'SIGKILL');
    await reads(page, '#link', /^Disconnected, trying again\s*· figures are \d+ s old$/);
    await reads(page, '#headline', /^No contact for \d+ s, last seen: /);
    assert.match(await page.title(), /^No contact for \d+ s – tokencached$/);
    const again = spawn(process.env.BINARY, ['--config', process.env.CONFIG, '-p', process.env.MC_PORT], { stdio: 'ignore' });
    try {
      await reads(page, '#link', /^Live$/);
      await reads(page, `${row(APP)} .state`, /^Fresh$/);
      await reads(page, '#headline', /^(?!No contact)/);
    } finally {
      again.kill('SIGKILL');
    }
    await leave(window);
  },

  /** Pictures for people to look at. */
  async pictures(browser) {
    await memcached('set access_token 0 0 4\r\nmine\r\nset k 0 0 9\r\nsomething\r\nget k');
    if (PICTURE) await somethingToSee();
    const views = {
      'wide-light': { viewport: { width: 1280, height: 1300 } },
      'wide-dark': { viewport: { width: 1280, height: 1120 }, colorScheme: 'dark' },
      'phone-light': { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 },
      'phone-dark-zh': { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, colorScheme: 'dark', locale: 'zh-CN' },
    };
    fs.mkdirSync(SHOTS, { recursive: true });
    for (const [name, options] of Object.entries(views)) {
      if (PICTURE && name !== 'wide-light') continue;
      const window = await visit(browser, options);
      await window.page.waitForSelector(`${row(BARRED)} .trouble`);
      await window.page.waitForFunction(() => document.querySelector('.chart.gets .line').getAttribute('d').length > 0);
      const file = path.join(SHOTS, `status-page-${name}.png`);
      await window.page.screenshot({ path: file });
      if (PICTURE) fs.copyFileSync(file, PICTURE);
      await leave(window);
    }
  },
};

/** Text is dark enough on its ground: 4.5 to 1 (WCAG 1.4.3). */
async function contrasts(page) {
  const poor = await page.evaluate(() => {
    const parts = (color) => color.match(/[\d.]+/g).map(Number);
    const light = (color) => {
      const [r, g, b] = parts(color).map((part) => (part / 255 <= 0.03928 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (one) => {
      for (let at = one; at; at = at.parentElement) {
        const color = getComputedStyle(at).backgroundColor;
        if ((parts(color)[3] ?? 1) === 1) return color;
      }
      return getComputedStyle(document.documentElement).backgroundColor;
    };
    const found = [];
    for (const one of document.querySelectorAll('body *')) {
      const own = [...one.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
      if (!own || one.closest('[hidden], .vh, .cap, svg, option, noscript, .generation') || one.offsetParent === null) continue;
      const [a, b] = [light(getComputedStyle(one).color), light(ground(one))].sort((x, y) => y - x);
      if ((a + 0.05) / (b + 0.05) < 4.5) found.push(`${one.className} ${one.textContent.slice(0, 30)}: ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
    }
    return found;
  });
  assert.deepEqual(poor, []);
}

/** Everything can be reached and done with keys, and one always sees where one is. */
async function withTheKeyboard(browser) {
  const window = await visit(browser, { reducedMotion: 'reduce' });
  const { page } = window;
  const here = () => page.evaluate(() => {
    const one = document.activeElement;
    const style = getComputedStyle(one);
    const seen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
    return { name: one.id || `${one.className}`.split(' ').pop(), seen, box: one.getBoundingClientRect().toJSON(), app: one.closest('.app')?.dataset.app };
  });
  await page.waitForSelector(`${row(APP)} .refresh`);
  // The apps are there before they are counted.
  await page.waitForSelector('.count:not(.none)');
  const reached = [];
  for (let at = 0; at < 60; at += 1) {
    await page.keyboard.press('Tab');
    const one = await here();
    if (one.name === '' || one.name === 'undefined') break;
    assert.ok(one.seen, `the focus is seen on ${one.name}`);
    assert.ok(one.box.width > 0 && one.box.bottom > 0, `${one.name} is on the screen`);
    reached.push(one.name);
  }
  assert.equal(reached[0], 'skip');
  for (const name of ['language', 'theme', 'count', 'lanes', 'search', 'filter', 'sort', 'toggle', 'probe', 'refresh']) {
    assert.ok(reached.includes(name), `${name} is reached; there were ${reached}`);
  }
  const rows = await page.locator('.toggle').count();
  assert.equal(reached.filter((name) => name === 'toggle').length, rows);

  await page.focus('.skip');
  await page.keyboard.press('Enter');
  await page.keyboard.press('Tab');
  assert.equal((await here()).name, 'search', 'the link skips to the apps');
  await page.locator(`${row(APP)} .toggle`).focus();
  await page.keyboard.press('Enter');
  assert.equal(await page.locator(`${row(APP)} .toggle`).getAttribute('aria-expanded'), 'true');
  await reads(page, `${row(APP)} .more`, /Endpoint\s+stable_token/);
  await page.locator(`${row(APP)} .probe`).focus();
  await page.keyboard.press('Enter');
  assert.equal((await here()).name, 'ask-no', 'the harmless answer comes first');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await reads(page, '#ask-outcome', /^WeChat accepts/);
  await page.keyboard.press('Enter');
  assert.deepEqual([(await here()).name, (await here()).app], ['probe', APP], 'the focus goes back to where it was');
  // The event that a dialog is closed comes a moment later: who has gone on by then is not called back.
  await page.keyboard.press('Enter');
  assert.equal((await here()).name, 'ask-no');
  const stays = await page.evaluate(() => new Promise((done) => {
    const dialog = document.querySelector('#ask');
    dialog.addEventListener('close', () => done(document.activeElement.id), { once: true });
    dialog.close();
    document.querySelector('#lanes').focus();
  }));
  assert.equal(stays, 'lanes', 'the focus stays where it has gone');
  await page.locator('#lanes').focus();
  await page.keyboard.press('Escape');
  await reads(page, '#moment h3', /^Latest$/);
  await page.keyboard.press('Home');
  await reads(page, '#moment h3', /\d\d:\d\d:\d\d – [^–\n]*\d\d:\d\d:\d\d/);
  await reads(page, '#moment', /failed: 40164/);
  assert.equal(await page.locator('#moment').getAttribute('aria-live'), 'polite');
  await page.keyboard.press('Escape');
  await reads(page, '#moment h3', /^Latest$/);
  const moving = await page.evaluate(() => [...document.querySelectorAll('*')].filter((one) => {
    const style = getComputedStyle(one);
    return style.transitionDuration.split(', ').some((time) => parseFloat(time) > 0) || style.animationName !== 'none';
  }).length);
  assert.equal(moving, 0, 'nothing moves for those who want no motion');
  for (const landmark of ['header', 'main', 'footer', 'h1', 'section[aria-labelledby]']) assert.ok(await page.locator(landmark).count());
  const nameless = await page.evaluate(() => [...document.querySelectorAll('button, input, select')]
    .filter((one) => !one.closest('[hidden]') && !one.innerText?.trim() && !one.labels?.length && !one.getAttribute('aria-label') && !one.closest('[aria-hidden]'))
    .map((one) => one.outerHTML.slice(0, 60)));
  assert.deepEqual(nameless, []);
  await leave(window);
}

/** Half a minute of traffic, and a day's worth of trouble in it. */
async function somethingToSee() {
  const begun = Date.now();
  const trouble = [
    [8, () => sandbox('kill', { appid: OTHER })],
    [8, () => memcached(`delete access_token:${OTHER}`)],
    [14, () => memcached('set access_token 0 0 4\r\nmine')],
    [26, () => sandbox('fault', { appid: APP, fault: { kind: 'errcode', errcode: -1, errmsg: 'system busy' } })],
  ];
  const clients = [];
  for (let at = 0; Date.now() - begun < 34_000; at += 1) {
    const gets = Array.from({ length: 24 + Math.round(14 * Math.sin(at / 50) + 6 * Math.random()) }, () => `get k${Math.floor(Math.random() ** 2 * 300)}`);
    const key = Math.floor(Math.random() ** 2 * 300);
    await memcached([...gets, `set k${key} 0 0 240000`, 'x'.repeat(240000), 'get access_token'].join('\r\n'));
    if (at % 9 === 0) clients.push(net.connect(Number(process.env.MC_PORT), '127.0.0.1'));
    if (at % 25 === 24) clients.shift().destroy();
    while (trouble.length > 0 && Date.now() - begun > trouble[0][0] * 1000) await trouble.shift()[1]();
    await new Promise((resolve) => setTimeout(resolve, 85));
  }
}

const scenario = scenarios[process.argv[2]];
if (!scenario) throw new Error(`scenarios: ${Object.keys(scenarios)}`);
inBrowser(scenario).then(() => console.log('ok'), (error) => {
  console.error(error.stack, error.cause ? `\n${error.cause.message}` : '');
  process.exitCode = 1;
});
