// The apps and their credentials. The first of them are drawn, and more as somebody scrolls to the end: ten thousand
// apps cost little more than fifty do.

import { $, h, mark, say, shape, throttled } from "./dom.js";
import { faultOf, troubles } from "./faults.js";
import { line } from "./timeline.js";
import { adviceOf, clock, meaningOf, num, sentence, span, t, when } from "./words.js";

/** Worst first. A renewal under way is no trouble, and must not make rows jump. */
export const STATES = ["dead", "blocked", "stale", "waiting", "renewing", "fresh"];
const rankOf = (credential) => {
  if (!credential.live && credential.state !== "renewing") return 0;
  return Math.min(4, STATES.indexOf(credential.state));
};
const NAMES_MAX = 3;
/** Apps drawn at first, and once more each time somebody comes near the end of the list. */
const STEP = 40;

export class List {
  constructor({ clockNow, ask, history }) {
    this.now = clockNow;
    this.ask = ask;
    this.history = history;
    this.apps = new Map();
    this.arrange = throttled(() => this.reallyArrange());
    this.limit = STEP;
    this.wanted = [];
    this.shown = new Set();
    /** Faults that several apps have: those are explained once, above. */
    this.folded = new Set();
    this.near = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && this.more(), { rootMargin: "900px 0px" });
    this.near.observe($("rest"));
    $("rest").addEventListener("click", () => this.more());
    for (const [id, event] of [["search", "input"], ["filter", "change"], ["sort", "change"]]) {
      $(id).addEventListener(event, () => this.choose());
    }
  }

  /** All apps anew, as `/v1/apps` has them. Rows that stay keep their place and focus. */
  set(apps) {
    const before = this.apps;
    this.apps = new Map();
    for (const app of apps) {
      const item = before.get(app.id) ?? this.item(app);
      item.app = app;
      item.credentials = new Map(app.credentials.map((credential) => [credential.type, credential]));
      this.judge(item);
      this.apps.set(app.id, item);
      if (item.view) this.draw(item);
    }
    for (const [id, item] of before) if (!this.apps.has(id)) this.drop(item);
    this.arrange();
  }

  credential(credential) {
    const item = this.apps.get(credential.app);
    if (!item) return;
    item.credentials.set(credential.type, credential);
    const before = item.order;
    this.judge(item);
    item.view?.rows.get(credential.type)?.update(credential, item.app);
    // Ten thousand renewals an hour must not sort ten thousand apps each time.
    if (before !== item.order) this.arrange();
  }

  all() {
    return [...this.apps.values()].flatMap((item) => [...item.credentials.values()]);
  }

  item(app) {
    const place = h("li", { class: "app", "data-app": app.id });
    return { app, place, view: null, open: new Set() };
  }

  drop(item) {
    item.view = null;
    this.shown.delete(item);
    item.place.remove();
    item.place.replaceChildren();
  }

  judge(item) {
    item.rank = 5;
    item.expires = Infinity;
    for (const one of item.credentials.values()) {
      item.rank = Math.min(item.rank, rankOf(one));
      item.expires = Math.min(item.expires, one.live ? (one.expires_at_ms ?? 0) : 0);
    }
    item.words = null;
    item.order = [item.rank, ...this.looksAt(item)].join(" ");
  }

  /** What a search looks through. Put together when somebody searches: of ten thousand apps that takes a while. */
  wordsOf(item) {
    if (item.words === null) {
      const { id, name, platform } = item.app;
      const of = (one) => [one.type, one.endpoint, ...one.names, one.last_error?.errcode, one.last_error?.seen_ip, ...one.writers.map((w) => w.peer)];
      item.words = [id, name, platform, t(`platform_${platform}`), ...[...item.credentials.values()].flatMap(of)].join(" ").toLowerCase();
    }
    return item.words;
  }

  /** What an app's place in the list depends on beside its trouble, as things are chosen now. */
  looksAt(item) {
    const by_state = !["all", "trouble"].includes($("filter").value);
    return [$("sort").value === "expiry" ? item.expires : "", by_state ? [...item.credentials.values()].map((one) => one.state) : "", $("search").value ? this.wordsOf(item) : ""];
  }

  /** Another choice of apps begins at its top. */
  choose() {
    this.limit = STEP;
    this.arrange();
  }

  /** More of those that fit. */
  more() {
    if (this.limit >= this.wanted.length) return;
    this.limit += STEP;
    this.lay();
    // It is told of a change only: whoever is at the very end already, and stays there, would get no more.
    this.near.unobserve($("rest"));
    this.near.observe($("rest"));
  }

  /** Which apps fit, in which order. */
  reallyArrange() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const state = $("filter").value;
    const fits = (item) => words.every((word) => this.wordsOf(item).includes(word)) &&
      (state === "all" || (state === "trouble" ? item.rank < 4 : [...item.credentials.values()].some((one) => one.state === state)));
    const by = { trouble: (a, b) => a.rank - b.rank, expiry: (a, b) => a.expires - b.expires, name: () => 0 }[$("sort").value];
    const name = (a, b) => (a.app.id < b.app.id ? -1 : 1);
    this.wanted = [...this.apps.values()].filter(fits).sort((a, b) => by(a, b) || name(a, b));
    this.lay();
    say($("found"), t("found", this.wanted.length, this.apps.size));
    $("nothing").hidden = this.wanted.length > 0 || this.apps.size === 0;
  }

  /** The first of them are in the list, in this order; moves only what must be moved. */
  lay() {
    const list = $("list");
    const focused = document.activeElement;
    const items = this.wanted.slice(0, this.limit);
    const stays = new Set(items);
    for (const item of [...this.shown]) if (!stays.has(item)) this.drop(item);
    let next = list.firstElementChild;
    for (const item of items) {
      if (!item.view) this.draw(item);
      if (item.place === next) next = next.nextElementSibling;
      else list.insertBefore(item.place, next);
    }
    // What is moved loses the focus.
    if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
    const rest = this.wanted.length - items.length;
    $("rest").hidden = rest === 0;
    say($("rest"), t("rest", rest));
  }

  /** Which faults several apps have. */
  fold(keys) {
    const same = keys.size === this.folded.size && [...keys].every((key) => this.folded.has(key));
    this.folded = keys;
    if (!same) for (const item of this.shown) for (const row of item.view.rows.values()) row.complain();
  }

  /** Only this app, as if it had been searched for. */
  search(words) {
    $("search").value = words;
    $("filter").value = "all";
    this.choose();
    $("apps").scrollIntoView();
    $("search").focus({ preventScroll: true });
  }

  draw(item) {
    const { app, place } = item;
    const types = app.credentials.map((one) => one.type).join();
    const same = item.view && item.view.types === types && item.view.may === app.may.refresh && item.view.name === app.name;
    if (!same) {
      const rows = new Map(app.credentials.map((one) => [one.type, new Row(this, item, one)]));
      place.replaceChildren(
        h("div", { class: "head" }, app.name ? h("span", { class: "called" }, app.name) : null,
          h("h3", { class: "mono" }, app.id), h("span", { class: "muted" }, t(`platform_${app.platform}`)), also(app)),
        h("div", { class: "rows" }, ...[...rows.values()].map((row) => row.element)));
      item.view = { rows, types, may: app.may.refresh, name: app.name };
      this.shown.add(item);
    }
    for (const [type, row] of item.view.rows) row.update(item.credentials.get(type), app);
  }

  /** Another language: all words anew. */
  redraw() {
    for (const item of this.apps.values()) {
      this.judge(item);
      if (!item.view) continue;
      item.view = null;
      this.draw(item);
    }
    this.arrange();
  }

  /** A second has passed. */
  tick() {
    for (const item of this.shown) for (const row of item.view.rows.values()) row.tick();
  }

  /** Something has been written into the journal. */
  happened(entry) {
    const row = this.apps.get(entry.app)?.view?.rows.get(entry.type);
    if (row?.opened) row.more();
  }
}

/** A cell with its caption, which stands in the table's head where there is room for one. */
const cell = (name, caption, ...content) => h("div", { class: `cell ${name}` }, h("span", { class: "cap" }, caption), ...content);

/** The other names of an app's values: what people look for. */
function also(app) {
  const names = app.credentials.flatMap((one) => one.names.slice(1));
  const shown = names.slice(0, NAMES_MAX).join(", ");
  const rest = names.length - NAMES_MAX;
  return names.length ? h("span", { class: "mono muted also" }, rest > 0 ? `${shown} +${num(rest)}` : shown) : null;
}

/** A long name breaks after a `_`, if it must. */
const breakable = (name) => name.split(/(?<=_)/).flatMap((part, at) => (at ? [h("wbr"), part] : [part]));

let rows = 0;

class Row {
  constructor(list, item, credential) {
    Object.assign(this, { list, item });
    const { type } = credential;
    const id = `more-${(rows += 1)}`;
    this.toggle = h("button", { type: "button", class: "toggle", "aria-controls": id, onclick: () => this.flip() },
      shape("chevron"), h("span", { class: "mono" }, ...breakable(type)), h("span", { class: "vh" }, ` – ${item.app.id}`));
    this.state = h("span", { class: "state" });
    this.fill = h("i", { class: "fill" });
    this.notch = h("i", { class: "notch" });
    this.life = h("div", { class: "life" }, this.fill, this.notch);
    this.left = h("span", { class: "mono" });
    this.nextWord = h("span", { class: "muted" });
    this.next = h("span", { class: "mono" });
    this.generation = h("span", { class: "mono generation" });
    this.calls = h("span", { class: "mono" });
    this.probes = h("span", { class: "muted", title: t("probes_means") });
    this.quota = h("span", { class: "mono muted" });
    this.meter = h("i", { class: "fill" });
    this.meterBox = h("div", { class: "meter" }, this.meter);
    this.badge = h("button", { type: "button", class: "badge", onclick: () => this.flip(true) });
    const act = (action) => h("button", { type: "button", class: `quiet ${action}`, onclick: (event) => list.ask.put(action, this.credential, event.currentTarget) }, t(action), h("span", { class: "vh" }, ` ${type} – ${item.app.id}`));
    this.probe = act("probe");
    this.refresh = act("refresh");
    this.trouble = h("div", { class: "trouble" });
    this.panel = h("div", { class: "more", id });
    this.element = h("div", { class: "cred", "data-type": type },
      h("div", { class: "cells" },
        h("div", { class: "cell type" }, this.toggle, this.badge),
        cell("condition", t("col_state"), this.state),
        cell("remaining", t("col_life"), this.life, this.left),
        cell("next", t("col_next"), h("span", {}, this.nextWord, " ", this.next)),
        cell("gen", t("col_generation"), this.generation),
        cell("calls", t("col_calls"), h("span", {}, this.calls, " ", this.quota), this.probes, this.meterBox),
        h("div", { class: "cell acts" }, item.app.may.refresh ? this.probe : null, item.app.may.refresh ? this.refresh : null)),
      this.trouble, this.panel);
    this.panel.hidden = true;
    this.opened = false;
    if (item.open.has(type)) this.flip(true);
  }

  flip(open = !this.opened) {
    this.opened = open;
    if (open) this.item.open.add(this.credential?.type ?? this.element.dataset.type);
    else this.item.open.delete(this.credential.type);
    mark(this.toggle, "aria-expanded", String(open));
    this.panel.hidden = !open;
    if (open && this.credential) this.more();
  }

  update(credential, app) {
    const before = this.credential;
    this.credential = credential;
    mark(this.toggle, "aria-expanded", String(this.opened));
    mark(this.element, "data-state", credential.state);
    if (before?.state !== credential.state) {
      this.state.replaceChildren(shape(credential.state), h("b", { class: credential.state }, t(credential.state)));
      mark(this.state, "title", t(`${credential.state}_means`));
    }
    say(this.generation, credential.generation ? String(credential.generation) : "–");
    if (before && before.generation !== credential.generation) this.flash();
    say(this.calls, num(credential.calls_today));
    say(this.probes, credential.can_probe ? t("probes_today", credential.probes_today) : "");
    say(this.quota, credential.calls_quota === null ? t("no_quota") : `/ ${num(credential.calls_quota)}`);
    const used = credential.calls_quota ? credential.calls_today / credential.calls_quota : 0;
    this.meterBox.hidden = !credential.calls_quota;
    this.meter.style.transform = `scaleX(${Math.min(1, used)})`;
    mark(this.meterBox, "class", used > 0.9 ? "meter full" : "meter");
    this.badge.hidden = credential.refused_writes === 0;
    if (credential.refused_writes > 0) {
      const words = t("refused", credential.refused_writes);
      if (this.badge.textContent !== words) this.badge.replaceChildren(shape("refused"), words);
    }
    this.probe.hidden = !credential.can_probe;
    if (app) this.app = app;
    this.complain();
    if (this.opened) this.more();
    this.tick();
  }

  /** A new generation is worth a glance. */
  flash() {
    this.generation.classList.remove("new");
    void this.generation.offsetWidth;
    this.generation.classList.add("new");
  }

  /** What is wrong and what to do stands in the open; an old error of a healthy credential is a detail. */
  complain() {
    const { credential } = this;
    const now = troubles(credential);
    this.trouble.hidden = !now;
    if (!now) this.trouble.replaceChildren();
    else this.trouble.replaceChildren(...this.error(credential.last_error, this.list.folded.has(faultOf(credential))));
  }

  /** What is wrong; what to do about it too, unless that stands above for all apps that have it. */
  error(error, brief = false) {
    return [
      h("p", { class: "meaning" },
        error.errcode === null ? null : h("b", { class: "mono" }, String(error.errcode)),
        h("span", {}, sentence(meaningOf(error))),
        h("span", { class: "tag" }, t(`class_${error.class}`))),
      brief ? "" : h("p", { class: "advice" }, h("span", { class: "vh" }, `${t("what_to_do")}: `), sentence(adviceOf(error))),
      h("p", { class: "trace mono muted" }, `${when(error.at_ms)}${error.rid ? ` · rid ${error.rid}` : ""}`),
    ];
  }

  tick() {
    const c = this.credential;
    const now = this.list.now();
    const left_ms = c.live && c.expires_at_ms !== null ? Math.max(0, c.expires_at_ms - now) : 0;
    const whole_ms = (c.lifetime_s ?? 0) * 1000;
    this.fill.style.transform = `scaleX(${whole_ms ? Math.min(1, left_ms / whole_ms).toFixed(4) : 0})`;
    say(this.left, left_ms > 0 ? clock(left_ms / 1000) : c.generation ? t("expired") : t("never"));
    const notch = c.next_action === "renew" && whole_ms && left_ms ? (c.expires_at_ms - c.next_try_at_ms) / whole_ms : -1;
    this.notch.hidden = !(notch > 0 && notch < 1);
    if (notch > 0 && notch < 1) this.notch.style.left = `${(notch * 100).toFixed(2)}%`;
    const next_ms = c.next_try_at_ms - now;
    const under = c.next_action === "under way";
    say(this.nextWord, under ? t("next_now") : next_ms <= 0 ? t("next_due") : t(c.next_action === "renew" ? "next_renew" : "next_try"));
    say(this.next, under || next_ms <= 0 ? "" : clock(Math.ceil(next_ms / 1000)));
  }

  /** The details: everything else that is known. */
  more() {
    const c = this.credential;
    const pair = (name, ...value) => [h("dt", {}, t(name)), h("dd", {}, ...value)];
    const outcomes = Object.entries(c.outcomes).filter(([, n]) => n > 0).map(([name, n]) => `${t(`out_${name}`)} ${num(n)}`).join(" · ");
    const verified = c.last_verification && `${t(`verdict_${c.last_verification.verdict}`)} · ${when(c.last_verification.at_ms)}`;
    const number = (name, n) => (n > 0 ? pair(name, h("span", { class: "mono" }, num(n))) : []);
    const history = this.list.history(c.app, c.type);
    const quiet = this.trouble.hidden;
    this.panel.replaceChildren(
      h("p", { class: `means ${c.state}` }, shape(c.state), h("span", {}, t(`${c.state}_means`))),
      h("dl", {},
        ...pair("d_names", ...c.names.map((name) => h("code", {}, name))),
        ...pair("d_endpoint", h("span", { class: "mono" }, c.endpoint)),
        ...(c.token ? pair("d_token", h("span", { class: "mono" }, t("d_token_is", c.token.last4, c.token.sha256_8))) : []),
        ...(c.fetched_at_ms ? pair("d_fetched", when(c.fetched_at_ms)) : []),
        ...(c.renewed_by ? pair("d_renewed_by", h("span", { class: "mono" }, c.renewed_by)) : []),
        ...(c.expires_at_ms ? pair("d_expires", when(c.expires_at_ms)) : []),
        ...(c.lifetime_s ? pair("d_lifetime", span(c.lifetime_s)) : []),
        ...pair("d_calls", `${num(c.calls)}${outcomes ? ` (${outcomes})` : ""}${c.calls_denied ? ` · ${t("denied", c.calls_denied)}` : ""}`),
        ...pair("d_quota_day", when(c.day_ends_at_ms)),
        ...pair("d_reports", h("span", { class: "mono" }, num(c.reports))),
        ...pair("d_writes", h("span", { class: "mono" }, num(c.refused_writes)), c.foreign_writes ? ` · ${t("d_foreign_writes")} ${num(c.foreign_writes)}` : ""),
        ...number("d_failures", c.failures), ...number("d_early", c.early_deaths), ...number("d_forced", c.forced), ...number("d_verifications", c.verifications),
        ...(verified ? pair("d_verified", verified) : []),
        ...(c.next_probe_at_ms ? pair("d_probe", when(c.next_probe_at_ms)) : [])),
      c.writers.length ? h("div", { class: "part" }, h("h4", {}, t("d_writers")), h("ul", { class: "plain" }, ...c.writers.map((writer) =>
        h("li", {}, h("span", { class: "mono" }, t("d_writer", writer)), writer.foreign ? h("b", { class: "stale" }, ` ${t("d_foreign")}`) : null)))) : "",
      c.last_error ? h("div", { class: "part" }, h("h4", {}, t("last_error")), ...(quiet ? this.error(c.last_error) : []), h("p", { class: "mono muted raw" }, c.last_error.text)) : "",
      history.length ? h("div", { class: "part" }, h("h4", {}, t("d_history")), h("ul", { class: "events" }, ...history.map((entry) => line(entry, false)))) : "");
  }
}
