// The status page on data that no real server can be brought to in a test: `node cases.js SCENARIO`, with PAGE the
// address of a real server, which gives the page's files and their headers. Waits for what should come and never just
// for time to pass.
'use strict';

const { assert, inBrowser, leave, reads, row, visit } = require('./lib.js');
const { app, credential, failing, FakeServer } = require('./fake_server.js');

const MINUTE_MS = 60_000;
const IP = '203.0.113.7';
const NOT_LISTED = {
  errcode: 40164, class: 'operator', meaning: 'our IP is not on the allow-list', seen_ip: IP,
  advice: "add this machine's outgoing IP to the app's allow-list at mp.weixin.qq.com (takes 5-10 min)",
};
const named = (n) => `wxbeef${String(n).padStart(12, '0')}`;

/** Runs with a server of that data, and sees that the page does nothing that it may not. */
async function on(data, browser, options, act) {
  const fake = await new FakeServer(data).start();
  try {
    const window = await visit(browser, { url: fake.url, ...options });
    await act(window.page, fake, window);
    await leave(window);
  } finally {
    fake.stop();
  }
}

const rows = (page) => page.locator('#list > li').count();
const texts = (page, expression) => page.evaluate(`import('/page/words.js').then((words) => (${expression})(words))`);

const scenarios = {
  /** A fault that went on for an hour is drawn from its first to its last moment, and counted once. */
  async lasting(browser) {
    const now = Date.now();
    const fault = {
      seq: 1, app: named(1), type: 'access_token', event: 'failed', class: 'retry', errcode: -1, rid: null, network: null, text: 'busy',
      meaning: 'WeChat is busy', times: 60, first_at_ms: now - 100 * MINUTE_MS, last_at_ms: now - 40 * MINUTE_MS,
    };
    const data = { apps: [app(named(1))], journal: [fault], status: { uptime_s: 3 * 3600 } };
    await on(data, browser, {}, async (page) => {
      await reads(page, '#timeline-legend', /fault 60\b/);
      const drawn = await page.evaluate(() => [...document.querySelectorAll('#lanes-svg rect.fault:not(.stretch)')].map((one) => Number(one.getAttribute('x'))));
      assert.ok(drawn.length >= 30 && drawn.length <= 31, `an hour is thirty columns of two minutes, and not ${drawn.length}`);
      const right = await page.evaluate(() => document.querySelector('#lanes-svg').viewBox.baseVal.width);
      assert.ok(Math.max(...drawn) < right - 150, 'it ends where it last happened');
      assert.equal(await page.locator('#lanes-svg rect.stretch').count(), 1);
      await reads(page, '#moment', /\d\d:\d\d:\d\d – [^–\n]*\d\d:\d\d:\d\d[^]*failed: -1, WeChat is busy \(60 times\)/);
      // The column in the middle of it tells of it, too.
      const box = await page.locator('#lanes-svg').boundingBox();
      await page.mouse.move(box.x + (box.width * (drawn[15] + 5)) / right, box.y + box.height * 0.8);
      await reads(page, '#moment', /^[^–\n]*\d\d:\d\d – [^–\n]*\d\d:\d\d[^]*WeChat is busy/);
      // In the last quarter of an hour it was over.
      await page.click('#ranges [data-range="15m"]');
      await reads(page, '#timeline-legend', /fault 0/);
    });
    // What had begun before counts for its part in this time only.
    const older = { ...fault, first_at_ms: now - 600 * MINUTE_MS, last_at_ms: now, times: 600 };
    await on({ ...data, journal: [older] }, browser, {}, async (page) => {
      await reads(page, '#timeline-legend', /fault 1[78]\d\b/);
    });
  },

  /** Without contact nothing is green; it comes back by itself. */
  async contact(browser) {
    const allowed = /ERR_CONNECTION|ERR_INCOMPLETE|Failed to load resource/;
    for (const [locale, well, away, title] of [
      ['en-GB', /^All 2 credentials are live$/, /^No contact for \d+ s, last seen: All 2 credentials are live$/, /^No contact for \d+ s – tokencached$/],
      ['zh-CN', /^全部 2 个凭证均有效$/, /^已失去联系 \d+秒，最后所见：全部 2 个凭证均有效$/, /^失去联系 \d+秒 – tokencached$/],
    ]) {
      await on({ apps: [app(named(1)), app(named(2))] }, browser, { locale, allowed }, async (page, fake) => {
        const look = () => page.evaluate(() => ({
          title: document.title, headline: document.querySelector('#headline .shape').getAttribute('class'),
          green: [...document.querySelectorAll('.share, .life, .counts, .charts')].filter((one) => !getComputedStyle(one).filter.includes('grayscale(1)')).length,
          tone: getComputedStyle(document.querySelector('.cred .state b')).color, muted: getComputedStyle(document.querySelector('#subline')).color,
        }));
        await reads(page, '#headline', well);
        const before = await look();
        assert.equal(before.headline, 'shape fresh');
        assert.equal(before.title, 'tokencached');
        assert.notEqual(before.tone, before.muted);
        fake.hangs = true;
        await reads(page, '#headline', away);
        const silent = await look();
        assert.equal(silent.headline, 'shape unknown', 'the headline has no colour');
        assert.match(silent.title, title);
        assert.equal(silent.green, 0, 'all figures are grey');
        assert.equal(silent.tone, silent.muted);
        // What is left is not counted down by a page that does not know.
        const left = () => page.locator('.remaining .mono').first().innerText();
        const [seen, at] = [await left(), await page.locator('#headline').innerText()];
        await page.waitForFunction((at) => document.querySelector('#headline').innerText !== at, at);
        assert.equal(await left(), seen);
        fake.hangs = false;
        await reads(page, '#headline', well);
        await page.waitForFunction(() => document.title === 'tokencached' && !document.querySelector('[data-contact]'));
        assert.equal((await look()).headline, 'shape fresh');
      });
    }
  },

  /** Many apps with one fault are one line, with what is needed to mend it. */
  async folded(browser) {
    const apps = [];
    for (let n = 1; n <= 37; n += 1) apps.push(app(named(n), [failing(named(n), NOT_LISTED)], { name: n === 3 ? '商城小程序' : null }));
    apps.push(app('ww1', [failing('ww1', { ...NOT_LISTED, errcode: 60020, seen_ip: '203.0.113.9' }, { platform: 'wecom' })]));
    apps.push(app('cli1', [failing('cli1', { network: 'timeout' }, { platform: 'feishu' })]), app(named(50)));
    const data = { apps };
    const permissions = ['clipboard-read', 'clipboard-write'];
    await on(data, browser, { permissions }, async (page) => {
      const [first, second] = ['#faults-list > li:nth-child(1)', '#faults-list > li:nth-child(2)'];
      await reads(page, first, /^37 apps:\s*203\.0\.113\.7 is not on the allow-list\s*40164\s*needs you\s*What to do:\s*Add this machine/);
      assert.equal(await page.locator('#faults-list > li').count(), 3);
      await page.click(`${first} .copy`);
      await reads(page, `${first} .copy`, /^Copied$/);
      assert.equal(await page.evaluate(() => navigator.clipboard.readText()), IP);
      const link = await page.locator(`${first} a`).evaluate((a) => [a.href, a.rel, a.target]);
      assert.deepEqual(link, ['https://mp.weixin.qq.com/', 'noopener noreferrer', '_blank']);
      const texts = await page.locator('#faults-list > li').allInnerTexts();
      const wecom = texts.findIndex((text) => text.startsWith('ww1'));
      assert.match(texts[wecom], /203\.0\.113\.9 is not on the allow-list/);
      assert.match(await page.locator(`#faults-list > li:nth-child(${wecom + 1}) a`).getAttribute('href'), /^https:\/\/work\.weixin\.qq\.com\//);
      assert.equal(await page.locator('#faults-list a').count(), 2, 'a network that fails is nothing for a console');
      // Which apps these are.
      assert.equal(await page.locator('.which').count(), 0);
      await page.click(`${first} .toggle-apps`);
      await page.waitForSelector(`${first} .which`);
      assert.equal(await page.locator(`${first} .which li`).count(), 37);
      await page.click(`${first} .which li:nth-child(3) button`);
      await reads(page, '#found', /^1 of 40 apps$/);
      await reads(page, `[data-app="${named(3)}"] .head`, /商城小程序\s+wxbeef000000000003/);
      // In the rows it is said briefly, and what only one app has in full.
      assert.equal(await page.locator(`${row(named(3))} .advice`).count(), 0);
      await page.fill('#search', 'cli1');
      await page.waitForSelector(`${row('cli1')} .advice`);
      // By name, too.
      await page.fill('#search', '商城');
      await reads(page, '#found', /^1 of 40 apps$/);
    });
    // One mends itself, and the fold says so.
    await on(data, browser, {}, async (page, fake) => {
      await reads(page, '#faults-list > li:nth-child(1)', /^37 apps:/);
      fake.change(named(1), { ...credential(named(1)) });
      await reads(page, '#faults-list > li:nth-child(1)', /^36 apps:/);
    });
    await on({ apps: [app(named(1))] }, browser, {}, async (page) => {
      await reads(page, '#headline', /^The one credential is live$/);
      assert.ok(await page.locator('#faults').isHidden(), 'nothing is wrong');
    });
  },

  /** Network trouble is named by its kind, in the reader's language, whatever the text says. */
  async network(browser) {
    const kinds = await (await fetch(new URL('/v1/openapi.json', process.env.PAGE))).json();
    const known = kinds.components.schemas.Error.properties.network.enum.filter(Boolean);
    const apps = known.map((kind, n) => app(named(n), [failing(named(n), { network: kind, text: 'error sending request: some English words' })]));
    for (const locale of ['en-GB', 'zh-CN']) {
      await on({ apps }, browser, { locale }, async (page) => {
        await reads(page, '#found', new RegExp(String(known.length)));
        const said = await page.locator('.cred .trouble .meaning > span:first-of-type').allInnerTexts();
        assert.equal(said.length, known.length);
        assert.equal(new Set(said).size, known.length, `each has its own words: ${said}`);
        for (const words of said) {
          assert.doesNotMatch(words, /error sending|some English/);
          assert.match(words, locale === 'zh-CN' ? /[\u4e00-\u9fff]/ : /^[A-Z][a-zA-Z ,:()]+$/);
        }
      });
    }
  },

  /** Which node this is, who the others are, who has renewed, and how it goes with what they share. */
  async nodes(browser) {
    const apps = [1, 2, 3].map((n) => app(named(n), [credential(named(n), 'access_token', { renewed_by: n === 1 ? 'shop-a' : 'shop-b' })]));
    const cluster = {
      node: 'shop-a', store: 'redis', up: true, age_ms: 100, others: [{ node: 'shop-b', last_fetch_at_ms: Date.now() - MINUTE_MS }], forged_values: 0, forged_counts: 0,
    };
    await on({ apps, status: { cluster } }, browser, {}, async (page, fake) => {
      await reads(page, '[data-node="shop-a"]', /^shop-a\s*this node\s*has fetched the values of 1 credential$/);
      await reads(page, '[data-node="shop-b"]', /^shop-b\s*has fetched the values of 2 credentials\s*last fetch \d\d:\d\d:\d\d$/);
      await reads(page, '#nodes .store', /^the cluster store \(Redis\) is in reach$/);
      await page.click(`${row(named(2))} .toggle`);
      await reads(page, `${row(named(2))} .more`, /Fetched by node\s+shop-b/);
      fake.tell('server', { now_ms: Date.now(), figures: {}, cluster: { ...cluster, up: false, age_ms: 65_000 } });
      await reads(page, '#nodes .store', /^the cluster store \(Redis\) has been out of reach for 1 min \d+ s$/);
      await reads(page, '#subline', /out of reach/);
      // A node that had never been seen.
      fake.tell('server', { now_ms: Date.now(), figures: {}, cluster: { ...cluster, others: [...cluster.others, { node: 'shop-c', last_fetch_at_ms: Date.now() }] } });
      await reads(page, '[data-node="shop-c"]', /^shop-c\s*has fetched none of the present values/);
      await page.click('#language');
      await reads(page, '[data-node="shop-a"]', /^shop-a\s*本节点\s*当前有 1 个凭证由它获取$/);
    });
    const alone = { ...cluster, store: 'leader', up: false, age_ms: null, others: [] };
    await on({ apps, status: { cluster: alone } }, browser, {}, async (page) => {
      await reads(page, '#nodes', /no other node has been seen yet\s*the leader has not been reached yet/);
    });
    await on({ apps }, browser, {}, async (page) => {
      await reads(page, '#headline', /live$/);
      assert.ok(await page.locator('#nodes').isHidden(), 'nothing of the kind where there is one node');
    });
  },

  /** Names and errors are text, whatever is in them. */
  async hostile(browser) {
    const bad = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>';
    const apps = [
      app('wx1', [failing('wx1', { text: bad, meaning: bad, advice: bad, rid: bad, class: 'operator', seen_ip: bad, errcode: 40164 })], { name: bad }),
      app('wx2', [failing('wx2', { text: bad, meaning: null, advice: bad, class: 'retry' })], { name: bad }),
      app('wx3', [credential('wx3', 'access_token', { names: [bad, bad], endpoint: bad, renewed_by: bad, writers: [{ peer: bad, noted: 2, last_at_ms: Date.now(), foreign: true }], refused_writes: 2 })]),
    ];
    const now = Date.now();
    const journal = [{ seq: 1, app: bad, type: bad, event: 'failed', class: 'retry', errcode: null, rid: bad, network: null, text: bad, meaning: null, times: 2, first_at_ms: now, last_at_ms: now }];
    const cluster = { node: bad, store: 'redis', up: true, age_ms: 0, others: [{ node: bad + 1, last_fetch_at_ms: now }], forged_values: 0, forged_counts: 0 };
    const sinks = [{ type: 'file', target: bad, connected: true, waiting: 0, writes: 1, deletes: 0, foreign_writes: 0, failures: {}, last_write: { app: bad, type: bad, entry: bad, at_ms: now }, last_error: { class: bad, whose: 'target', text: bad, advice: bad, about: null, at_ms: now } }];
    await on({ apps, journal, status: { cluster, sinks } }, browser, {}, async (page) => {
      await reads(page, '#faults', /<img src=x onerror=/);
      for (const toggle of await page.locator('.toggle, .toggle-apps').all()) await toggle.click();
      await reads(page, '[data-app="wx1"] .called', /^<img src=x onerror=/);
      assert.equal(await page.locator('main img, main script').count(), 0, 'no markup has come of it');
      assert.doesNotMatch(await page.title(), /owned/);
      for (const width of [360, 1280]) {
        await page.setViewportSize({ width, height: 760 });
        assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${width} scrolls sideways`);
      }
    });
  },

  /** Ten thousand apps: few are drawn, and a renewal moves nothing. */
  async many(browser) {
    const apps = [];
    for (let n = 0; n < 10_000; n += 1) apps.push(app(named(n), n % 1000 === 7 ? [failing(named(n), NOT_LISTED)] : [credential(named(n)), credential(named(n), 'jsapi_ticket')]));
    await on({ apps }, browser, {}, async (page, fake) => {
      await reads(page, '#found', /^10,000 apps$/);
      await reads(page, '#faults-list', /^10 apps:/);
      const elements = () => page.evaluate(() => document.querySelectorAll('*').length);
      assert.ok((await rows(page)) <= 100, `${await rows(page)} apps are drawn`);
      assert.ok((await elements()) < 12_000, `${await elements()} elements`);
      assert.equal(await page.locator('#list > li').first().getAttribute('data-app'), named(7));
      // A renewal far down changes no element of the list; that of the last one is seen all the same.
      await page.evaluate(() => {
        window.moved = 0;
        new MutationObserver((changes) => (window.moved += changes.length)).observe(document.querySelector('#list'), { childList: true });
      });
      for (let n = 5000; n < 6000; n += 1) fake.change(named(n), { type: 'access_token', generation: 8, next_try_at_ms: Date.now() + 3_000_000 });
      fake.change(named(9999), { type: 'access_token', generation: 77 });
      fake.change(named(8), { type: 'access_token', generation: 9 });
      await reads(page, `${row(named(8))} .generation`, /^9$/);
      assert.equal(await page.evaluate(() => window.moved), 0);
      await page.fill('#search', named(9999));
      await reads(page, `${row(named(9999))} .generation`, /^77$/);
      assert.equal(await rows(page), 1);
      await page.fill('#search', '');
      await reads(page, '#found', /^10,000 apps$/);
      // More of them come as somebody scrolls, or asks.
      const before = await rows(page);
      await page.locator('#rest').scrollIntoViewIfNeeded();
      await page.waitForFunction((before) => document.querySelectorAll('#list > li').length > before, before);
      // A new trouble goes to the top.
      fake.change(named(4444), failing(named(4444), { ...NOT_LISTED, errcode: 40001, meaning: 'wrong app secret' }));
      await reads(page, '#faults-list', /wxbeef000000004444\s*Wrong app secret/);
    });
  },

  /** On a phone trouble is what one sees first, and below the list there is nothing. */
  async phone(browser) {
    const apps = [];
    for (let n = 0; n < 12; n += 1) apps.push(app(named(n), n < 3 ? [failing(named(n), NOT_LISTED)] : [credential(named(n)), credential(named(n), 'jsapi_ticket')]));
    for (const [height, some] of [[844, apps], [844, apps.slice(2, 4)]]) {
      await on({ apps: some }, browser, { viewport: { width: 390, height } }, async (page) => {
        await reads(page, '#found', /apps$/);
        const places = await page.evaluate(() => Object.fromEntries(['faults', 'share', 'counts', 'charts', 'timeline', 'apps'].map((id) => [id, document.getElementById(id).getBoundingClientRect().top])));
        const first = places.faults;
        for (const [name, top] of Object.entries(places)) assert.ok(name === 'faults' || top > first, `${name} comes before the trouble`);
        assert.ok(first < 320, `the trouble is on the first screen: ${first}`);
        // To the end: every app is drawn, and as high as what is in it.
        const empty = () => page.evaluate(() => [...document.querySelectorAll('#list > li')].filter((one) => one.childElementCount === 0 || one.getBoundingClientRect().bottom - one.lastElementChild.getBoundingClientRect().bottom > 12).length);
        assert.equal(await empty(), 0, 'no empty space in the list');
        const below = await page.evaluate(() => document.documentElement.scrollHeight - document.querySelector('#list').getBoundingClientRect().bottom - scrollY);
        assert.ok(below < 140, `${below} pixels below the list`);
        const gap = await page.evaluate(() => {
          const box = document.querySelector('#moment').getBoundingClientRect();
          return box.bottom - document.querySelector('#moment').lastElementChild.getBoundingClientRect().bottom;
        });
        assert.ok(gap < 30, `${gap} pixels below what has happened`);
      });
    }
  },

  /** A generation has thirteen digits where it begins with the time; it and all else has room at every width. */
  async room(browser) {
    const long = { generation: 1_796_042_573_884, refused_writes: 1234 };
    const apps = [app(named(1), [credential(named(1), 'access_token', long), credential(named(1), 'jsapi_ticket', long)]), app(named(2), [failing(named(2), NOT_LISTED)])];
    for (const locale of ['en-GB', 'zh-CN']) {
      await on({ apps }, browser, { locale }, async (page) => {
        await page.waitForSelector('.cred');
        for (const width of [360, 700, 820, 1020, 1190, 1280]) {
          await page.setViewportSize({ width, height: 760 });
          const tight = await page.evaluate(() => [...document.querySelectorAll('.cell')].filter((cell) => cell.scrollWidth > cell.clientWidth + 1).map((cell) => cell.className));
          assert.deepEqual(tight, [], `${locale} at ${width}`);
        }
      });
    }
  },

  /** Words: both languages have all of them, those of states differ, and one is one. */
  async words(browser) {
    const described = await (await fetch(new URL('/v1/openapi.json', process.env.PAGE))).json();
    const { Credential, Entry, Error: error, Status } = described.components.schemas;
    await on({ apps: [app(named(1))] }, browser, {}, async (page) => {
      const all = await texts(page, '({ TEXTS }) => Object.fromEntries(Object.entries(TEXTS).map(([l, words]) => [l, Object.fromEntries(Object.entries(words).map(([k, v]) => [k, typeof v === "string" ? v : null]))]))');
      const states = Credential.properties.state.enum;
      const alike = [[...states, 'expired', 'never', 'sink_failing'], ['link_connecting', 'link_live', 'link_polling', 'link_stale', 'link_lost'],
        error.properties.network.enum.filter(Boolean).map((kind) => `net_${kind}`), error.properties.class.enum.map((name) => `class_${name}`)];
      for (const [language, words] of Object.entries(all)) {
        for (const names of alike) {
          const said = names.map((name) => words[name]);
          assert.ok(said.every(Boolean), `${language} lacks one of ${names}: ${said}`);
          assert.equal(new Set(said).size, said.length, `${language}: one word for two states: ${said}`);
        }
        for (const name of [...states.map((state) => `${state}_means`), ...Entry.properties.event.enum.map((event) => `ev_${event}`)]) {
          assert.ok(name in words, `${language} lacks ${name}`);
        }
        for (const store of Status.properties.cluster.properties.store.enum) for (const how of ['up', 'down', 'never']) assert.ok(`store_${store}_${how}` in words);
      }
      assert.deepEqual(Object.keys(all.en).sort(), Object.keys(all.zh).sort());
      // Each text with 0, 1 and 2 in all its places.
      const entry = 'new Proxy({}, { get: (_, name) => ["peer", "text", "meaning", "endpoint", "from"].includes(name) ? "x" : name === "last_at_ms" ? 0 : n })';
      const counted = await texts(page, `({ TEXTS }) => [0, 1, 2].flatMap((n) => Object.entries(TEXTS.en).filter(([, text]) => typeof text === 'function').map(([name, text]) => [n, name, text(...(name.startsWith('ev_') || name === 'd_writer' ? [${entry}] : [n, n, n]))]))`);
      assert.ok(counted.length > 90, `${counted.length} texts`);
      for (const [n, name, text] of counted) {
        if (n === 1) assert.doesNotMatch(text, /\b1 (?!miss\b)[a-z]{2,}s\b/, `${name}: ${text}`);
        if (n === 1) assert.doesNotMatch(text, /\b1 (refused |more )[a-z]+s\b/, `${name}: ${text}`);
        else assert.doesNotMatch(text, /\b[02] (app|credential|get|set|hit|miss|item|place|write|entry|failure|token|renewal|fault|probe|refused write)\b/, `${name}: ${text}`);
      }
    });
    await on({ apps: [app(named(1))] }, browser, {}, async (page) => {
      await reads(page, '#found', /^1 app$/);
      await page.fill('#search', 'nothing like it');
      await reads(page, '#found', /^0 of 1 app$/);
    });
  },
};

const scenario = scenarios[process.argv[2]];
if (!scenario) throw new Error(`scenarios: ${Object.keys(scenarios)}`);
inBrowser(scenario).then(() => console.log('ok'), (error) => {
  console.error(error.stack, error.cause ? `\n${error.cause.message}` : '');
  process.exitCode = 1;
});
