// Everything that is asked of the server: the session, the API, the stream of events. Never keeps a key.

/** An answer that is no success: its status, the server's words, seconds after which to try again. */
export class Refused extends Error {
  constructor(status, problem, retry_after_s) {
    super(problem?.detail ?? `HTTP ${status}`);
    this.status = status;
    this.retry_after_s = retry_after_s;
  }
}

async function answer(response) {
  const json = /json/.test(response.headers.get("content-type") ?? "");
  const body = json ? await response.json().catch(() => null) : null;
  if (!response.ok) throw new Refused(response.status, body, Number(response.headers.get("retry-after") ?? 0) || null);
  return body;
}

/** A server that hangs must not hang the page. A check may take 20 s. */
const PATIENCE_MS = { get: 15_000, post: 30_000 };

export async function get(path) {
  const signal = AbortSignal.timeout(PATIENCE_MS.get);
  return answer(await fetch(path, { headers: { Accept: "application/json" }, cache: "no-store", signal }));
}

export async function post(path, body) {
  // No page of another site can send this header.
  const headers = { "X-Tokencached": "1" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const signal = AbortSignal.timeout(PATIENCE_MS.post);
  return answer(await fetch(path, { method: "POST", headers, signal, body: body === undefined ? undefined : JSON.stringify(body) }));
}

export const act = (credential, action) => post(
  `/v1/apps/${encodeURIComponent(credential.app)}/credentials/${encodeURIComponent(credential.type)}/${action}`,
  action === "refresh" && credential.generation > 0 ? { generation: credential.generation } : undefined);

/** The server says something every second. */
export const SILENCE_MS = 4_000;
/** Then the connection is taken for dead and another is made. */
const DEAD_MS = 12_000;
const PAUSE_MS_MAX = 15_000;
const NAMES = ["hello", "server", "credential", "journal", "sinks", "lagged"];

/** The stream of events. Comes back by itself, and says how it is doing. */
export class Stream {
  /** `heard(name, data)`, `changed(state)` with `connecting`, `live`, `stale` or `lost`, `refused()` if we may not. */
  constructor({ heard, changed, refused }) {
    Object.assign(this, { heard, changed, refused });
    this.state = "connecting";
    this.last_ms = 0;
    this.pause_ms = 1_000;
    this.stopped = true;
  }

  start() {
    this.stopped = false;
    this.last_ms = Date.now();
    this.open();
    this.watch = setInterval(() => this.look(), 1_000);
    addEventListener("online", this.again);
  }

  stop() {
    this.stopped = true;
    this.source?.close();
    clearInterval(this.watch);
    clearTimeout(this.timer);
    removeEventListener("online", this.again);
  }

  again = () => {
    if (!this.stopped && this.state !== "live") this.open();
  };

  open() {
    clearTimeout(this.timer);
    this.source?.close();
    const source = new EventSource("/v1/events");
    this.source = source;
    this.opened_ms = Date.now();
    for (const name of NAMES) {
      source.addEventListener(name, (event) => {
        if (source !== this.source) return;
        this.last_ms = Date.now();
        this.pause_ms = 1_000;
        this.become("live");
        this.heard(name, JSON.parse(event.data));
      });
    }
    source.onerror = () => source === this.source && this.fail();
  }

  /** The browser would try again at its own pace, but not after a refusal; so this is done here. */
  async fail() {
    this.source.close();
    if (this.stopped) return;
    if (this.state !== "connecting") this.become("lost");
    const session = await get("/v1/session").catch(() => null);
    if (this.stopped) return;
    if (session && ((session.login && !session.known) || !session.rights.includes("status"))) {
      this.refused();
      return;
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), this.pause_ms * (0.75 + Math.random() / 2));
    this.pause_ms = Math.min(PAUSE_MS_MAX, this.pause_ms * 1.6);
  }

  look() {
    const silent_ms = Date.now() - this.last_ms;
    if (this.state === "live" && silent_ms > SILENCE_MS) this.become("stale");
    const waiting = this.source.readyState !== EventSource.CLOSED && Date.now() - this.opened_ms > DEAD_MS;
    if (this.state !== "live" && waiting && silent_ms > DEAD_MS) this.fail();
    if (this.state !== "live") this.changed(this.state);
  }

  become(state) {
    if (state === this.state) return;
    this.state = state;
    this.changed(state);
  }
}
