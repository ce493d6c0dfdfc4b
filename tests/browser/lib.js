// What the scenarios share: a browser that reports whatever it should not do, memcached's protocol, the sandbox.
'use strict';

const assert = require('node:assert/strict');
const net = require('node:net');
const { chromium } = require('playwright-core');

// As long as all other tests wait: a browser that starts while much else runs takes half a minute.
const PATIENCE_MS = 90_000;
const { PAGE, WECHAT, MC_PORT } = process.env;
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const ARGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];

/** Runs a scenario in a browser of its own, with an empty profile. */
async function inBrowser(scenario) {
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ARGS, timeout: PATIENCE_MS });
  try {
    await scenario(browser);
  } finally {
    await browser.close();
  }
}

/** A visitor's window. `faults` gathers what no page of ours may do; `seen` every answer it got. */
async function visit(browser, options = {}) {
  const { path = '/', url = PAGE, allowed = null, ready = true, ...more } = options;
  const context = await browser.newContext({ viewport: { width: 1360, height: 900 }, locale: 'en-GB', ...more });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const faults = [];
  const seen = [];
  await page.addInitScript(() => document.addEventListener('securitypolicyviolation',
    (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`)));
  page.on('console', (message) => {
    const bad = ['error', 'warning'].includes(message.type());
    if (bad && !allowed?.test(message.text())) faults.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => faults.push(`uncaught: ${error.stack}`));
  page.on('request', (request) => new URL(request.url()).origin !== new URL(url).origin && faults.push(`asks ${request.url()}`));
  page.on('response', (response) => {
    if (/json/.test(response.headers()['content-type'] ?? '')) seen.push(response.text().catch(() => ''));
  });
  await page.goto(new URL(path, url).href);
  if (ready) await page.waitForSelector('html[data-ready]');
  return { context, page, faults, seen };
}

/** The window is closed, and nothing was wrong with it. */
async function leave({ context, faults }) {
  await context.close();
  assert.deepEqual(faults, []);
}

/** Waits until an element is to be seen and its text is as expected. */
async function reads(page, selector, expected) {
  const fits = ({ selector, source, flags }) => {
    const element = document.querySelector(selector);
    return element?.checkVisibility() && new RegExp(source, flags).test(element.innerText.trim());
  };
  const { source, flags } = expected;
  try {
    await page.waitForFunction(fits, { selector, source, flags }, { polling: 50 });
  } catch (error) {
    const found = await page.locator(selector).first().innerText({ timeout: 1000 }).catch(() => 'nothing');
    throw new Error(`${selector} should read ${expected} and reads: ${found}`, { cause: error });
  }
}

const row = (app, type = 'access_token') => `[data-app="${app}"] [data-type="${type}"]`;

/** Sends lines to the memcached port; resolves with all of the answer. */
function memcached(lines) {
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = net.connect(Number(MC_PORT), '127.0.0.1', () => socket.write(`${lines}\r\nquit\r\n`));
    socket.setTimeout(PATIENCE_MS, () => socket.destroy(new Error(`no answer to ${lines}`)));
    socket.on('data', (data) => (answer += data));
    socket.on('error', reject);
    socket.on('close', () => resolve(answer));
  });
}

async function value(key) {
  return (await memcached(`get ${key}`)).split('\r\n')[1];
}

async function sandbox(order, body) {
  const response = await fetch(`${WECHAT}/sandbox/${order}`, { method: 'POST', body: JSON.stringify(body) });
  assert.equal(response.status, 200, await response.text());
}

/** How many calls for a token or ticket WeChat has seen of that app; no scenario makes a hundred. */
async function calls(appid) {
  return (await (await fetch(`${WECHAT}/sandbox/calls?appid=${appid}`)).json()).recent.length;
}

module.exports = { assert, calls, inBrowser, leave, memcached, PAGE, PATIENCE_MS, reads, row, sandbox, value, visit };
