// What is wrong now, each fault once however many apps have it: what it is, what to do, where to do it, and which apps.

import { $, copy, h, mark, say, shape } from "./dom.js";
import { adviceOf, meaningOf, sentence, t } from "./words.js";

/** Where a platform's settings are. */
const CONSOLES = {
  mp: "https://mp.weixin.qq.com/",
  wecom: "https://work.weixin.qq.com/wework_admin/frame",
  qq: "https://q.qq.com/",
  feishu: "https://open.feishu.cn/app",
  component: "https://open.weixin.qq.com/",
  authorizer: "https://open.weixin.qq.com/",
};
/** Faults shown at once; the others after a click. */
const FAULTS_MAX = 6;
/** Apps that are listed of a fault; the list below finds all of them. */
const APPS_MAX = 100;

/** Whether a credential's last error is the state of affairs; an old one of a healthy credential is a detail. */
export function troubles(credential) {
  const { last_error: error, live, state, failures } = credential;
  return Boolean(error) && !(live && (state === "fresh" || (state === "renewing" && failures === 0)));
}

/** Equal for faults that are the same to somebody who has to mend them. The text has ids in it that differ each time. */
export function faultOf(credential) {
  const error = credential.last_error;
  const what = error.errcode ?? error.network ?? error.text;
  return JSON.stringify([CONSOLES[credential.platform] ?? "", error.class, what, error.seen_ip ?? null]);
}

/** The faults of all credentials, the one that most apps have first. */
function gather(items) {
  const faults = new Map();
  for (const item of items) {
    for (const credential of item.credentials.values()) {
      if (!troubles(credential)) continue;
      const key = faultOf(credential);
      if (!faults.has(key)) faults.set(key, { key, credential, apps: new Map(), down: 0 });
      const fault = faults.get(key);
      fault.apps.set(item.app.id, item.app);
      if (!credential.live) fault.down += 1;
    }
  }
  return [...faults.values()].sort((a, b) => (b.down > 0) - (a.down > 0) || b.apps.size - a.apps.size || (a.key < b.key ? -1 : 1));
}

export class Faults {
  /** `find(id)` shows an app in the list. */
  constructor({ find }) {
    this.find = find;
    this.open = new Set();
    this.all = false;
    this.drawn = "";
  }

  /** Draws what is wrong with these apps; gives the faults that several have. */
  draw(items) {
    this.faults = gather(items);
    const language = document.documentElement.lang;
    const drawn = JSON.stringify([language, this.all, [...this.open], this.faults.map((fault) => [fault.key, [...fault.apps.keys()]])]);
    if (drawn !== this.drawn) {
      this.drawn = drawn;
      this.put();
    }
    return new Set(this.faults.filter((fault) => fault.apps.size > 1).map((fault) => fault.key));
  }

  put() {
    const focused = document.activeElement?.closest?.("#faults [data-key]")?.dataset.key;
    const shown = this.all ? this.faults : this.faults.slice(0, FAULTS_MAX);
    $("faults").hidden = this.faults.length === 0;
    const rest = this.faults.length - shown.length;
    const more = h("button", { type: "button", class: "quiet", onclick: () => this.again(() => (this.all = true)) }, t("faults_rest", rest));
    $("faults-list").replaceChildren(...shown.map((fault) => this.row(fault)), rest > 0 ? h("li", {}, more) : "");
    // What is drawn anew loses the focus.
    if (focused) [...document.querySelectorAll("#faults [data-key]")].find((one) => one.dataset.key === focused)?.focus();
  }

  again(change) {
    change();
    this.drawn = "";
    this.put();
  }

  row(fault) {
    const { credential, key, apps } = fault;
    const error = credential.last_error;
    const [first] = apps.values();
    const who = apps.size === 1 ? first.name || first.id : t("fault_apps", apps.size);
    const is_open = apps.size > 1 && this.open.has(key);
    const tone = fault.down > 0 ? credential.state : "stale";
    const element = h("li", { class: "problem" },
      h("p", { class: "meaning" }, shape(tone), h("span", { class: apps.size === 1 && !first.name ? "mono" : "" }, who), h("span", {}, sentence(meaningOf(error))),
        error.errcode === null ? null : h("b", { class: "mono muted" }, String(error.errcode)),
        h("span", { class: "tag" }, t(`class_${error.class}`))),
      h("p", { class: "advice" }, h("span", { class: "vh" }, `${t("what_to_do")}: `), sentence(adviceOf(error))),
      h("div", { class: "means-of" }, error.seen_ip ? this.copier(error.seen_ip) : null, consoleLink(credential, error), this.toggle(fault, is_open)),
      is_open ? this.which(fault) : null);
    mark(element, "data-state", tone);
    return element;
  }

  /** Shows the app, or which apps these are. */
  toggle({ key, apps }, is_open) {
    if (apps.size === 1) return h("button", { type: "button", class: "quiet", "data-key": key, onclick: () => this.find([...apps.keys()][0]) }, t("fault_which", 1));
    const flip = () => this.again(() => (is_open ? this.open.delete(key) : this.open.add(key)));
    return h("button", { type: "button", class: "quiet toggle-apps", "data-key": key, onclick: flip, "aria-expanded": String(is_open) },
      shape("chevron"), t("fault_which", apps.size));
  }

  copier(text) {
    const button = h("button", { type: "button", class: "quiet copy", onclick: async () => say(button, (await copy(text)) ? t("copied") : t("copy_failed", text)) }, t("copy", text));
    return button;
  }

  which({ apps }) {
    const listed = [...apps.values()].slice(0, APPS_MAX);
    const rest = apps.size - listed.length;
    return h("ul", { class: "which" }, ...listed.map((app) => h("li", {},
      h("button", { type: "button", class: "plain-link", onclick: () => this.find(app.id) }, app.name ? h("span", {}, `${app.name} `) : null, h("span", { class: "mono" }, app.id)))),
      rest > 0 ? h("li", { class: "muted" }, t("more", rest)) : null);
  }
}

/** The way to the platform's console, for what can be mended there only. */
function consoleLink(credential, error) {
  const url = CONSOLES[credential.platform];
  if (!url || error.class !== "operator" || error.errcode === null) return null;
  const where = new URL(url).host;
  return h("a", { class: "quiet", href: url, target: "_blank", rel: "noopener noreferrer" }, t("open_console", where), h("span", { "aria-hidden": "true" }, " ↗"));
}
