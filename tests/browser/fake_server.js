// A server made up of data: what no real one can be brought to in a test, like ten thousand apps, hostile names or a
// store that is gone. The page's files and their headers are the real server's (PAGE); only /v1 is answered here.
'use strict';

const http = require('node:http');

const HOUR_MS = 3_600_000;
const OUTCOMES = { new: 1, same: 0, retry: 0, wait: 0, operator: 0, internal: 0 };

/** A credential with everything that the API gives; `more` in place of the usual. */
function credential(app, type = 'access_token', more = {}) {
  const now = Date.now();
  return {
    app, type, platform: 'mp', endpoint: 'stable_token', names: [`${type}:${app}`], state: 'fresh', live: true, generation: 7, renewed_by: null,
    expires_at_ms: now + HOUR_MS, seconds_left: 3600, lifetime_s: 7200, fetched_at_ms: now - HOUR_MS, next_action: 'renew',
    next_try_at_ms: now + HOUR_MS / 2, next_try_in_ms: HOUR_MS / 2, next_probe_at_ms: null, calls_today: 3, calls_quota: 500_000,
    day_ends_at_ms: now + HOUR_MS, calls_denied: 0, probes: 0, probes_today: 0, calls: 3, outcomes: OUTCOMES, failures: 0, early_deaths: 0,
    forced: 0, verifications: 0, reports: 0, last_verification: null, last_error: null, refused_writes: 0, foreign_writes: 0, writers: [],
    token: { last4: 'abcd', sha256_8: '0123abcd' }, can_probe: true, ...more,
  };
}

/** One that has no value, for this reason. */
const failing = (app, error, more = {}) => credential(app, more.type, {
  state: error.class === 'operator' ? 'blocked' : 'dead', live: false, generation: 0, expires_at_ms: null, seconds_left: 0, lifetime_s: null,
  fetched_at_ms: null, next_action: 'try', token: null, failures: 3,
  last_error: { errcode: null, class: 'retry', rid: null, meaning: null, text: 'no answer', advice: 'look', network: null, seen_ip: null, at_ms: Date.now(), ...error },
  ...more,
});

/** An app with its access token, or with these credentials. */
const app = (id, credentials = [credential(id)], more = {}) => ({
  id, appid: id, platform: credentials[0].platform, may: { read: true, refresh: true }, credentials, ...more,
});

const FIGURES = {
  curr_connections: 1, total_connections: 1, rejected_connections: 0, http_connections: 1, cmd_get: 1, cmd_set: 1, get_hits: 1, get_misses: 1,
  managed_hits: 1, managed_misses: 0, refused_writes: 0, access_denied: 0, auth_errors: 0, bytes_read: 1, bytes_written: 1, curr_items: 1,
  total_items: 1, bytes: 100, limit_maxbytes: 67_108_864, evictions: 0, reclaimed: 0, expired_unfetched: 0,
};
const SAMPLES = ['gets_per_s', 'hits_per_s', 'misses_per_s', 'sets_per_s', 'bytes_read_per_s', 'bytes_written_per_s', 'evictions_per_s', 'connections', 'items', 'bytes'];

class FakeServer {
  constructor({ apps = [], journal = [], status = {} } = {}) {
    Object.assign(this, { apps, journal, status, hangs: false, streams: new Set(), beats: null });
  }

  /** Listens on a free port; `url` is its page. */
  async start() {
    this.server = http.createServer((request, response) => this.answer(request, response).catch((error) => response.destroy(error)));
    await new Promise((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${this.server.address().port}/`;
    this.beats = setInterval(() => this.hangs || this.tell('server', { now_ms: Date.now(), figures: {} }), 500);
    return this;
  }

  stop() {
    clearInterval(this.beats);
    this.server.closeAllConnections();
    this.server.close();
  }

  tell(name, data) {
    for (const stream of this.streams) stream.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  /** An app's credential is like that from now on. */
  change(id, changed) {
    const found = this.apps.find((one) => one.id === id).credentials.find((one) => one.type === changed.type);
    Object.assign(found, changed);
    this.tell('credential', found);
  }

  hello() {
    const samples = Object.fromEntries(SAMPLES.map((name) => [name, [0, 1, 2]]));
    return {
      version: '0.1.0', started_at_ms: Date.now() - HOUR_MS, now_ms: Date.now(), uptime_s: 3600, max_connections: 1024, apps: this.apps.length,
      state_file: { enabled: true, healthy: true, failures: 0 }, cluster: null, sinks: [], figures: FIGURES,
      history: { interval_s: 2, last_at_ms: Date.now(), samples }, ...this.status,
    };
  }

  async answer(request, response) {
    const { pathname } = new URL(request.url, this.url);
    if (!pathname.startsWith('/v1/')) {
      const file = await fetch(new URL(pathname, process.env.PAGE), { headers: { 'Accept-Language': request.headers['accept-language'] ?? 'en' } });
      const kept = [...file.headers].filter(([name]) => !['connection', 'transfer-encoding', 'content-length', 'etag', 'date'].includes(name));
      response.writeHead(file.status, Object.fromEntries(kept)).end(Buffer.from(await file.arrayBuffer()));
      return;
    }
    if (this.hangs) return;
    const json = (value) => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value));
    if (pathname === '/v1/session') json({ login: false, known: false, name: null, rights: ['status', 'refresh'] });
    else if (pathname === '/v1/apps') json({ now_ms: Date.now(), apps: this.apps });
    else if (pathname === '/v1/journal') json({ now_ms: Date.now(), entries: this.journal });
    else if (pathname === '/v1/events') {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(`event: hello\ndata: ${JSON.stringify(this.hello())}\n\n`);
      this.streams.add(response);
      response.on('close', () => this.streams.delete(response));
    } else response.writeHead(404).end();
  }
}

module.exports = { app, credential, failing, FakeServer };
