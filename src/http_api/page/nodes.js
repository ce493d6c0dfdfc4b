// Among several nodes: which one this is, who the others are, who renews, and whether what they share is in reach. Not
// shown where there is one node.

import { $, h, shape } from "./dom.js";
import { span, t, when } from "./words.js";

export class Nodes {
  constructor(clockNow) {
    this.now = clockNow;
    this.shared = null;
    this.heard_ms = null;
  }

  /** As `shared_state` of `/v1/status` has it; null where there is one node. */
  set(shared) {
    this.shared = shared;
    this.heard_ms = shared?.age_ms === null || !shared ? null : this.now() - shared.age_ms;
  }

  /** Whether what the nodes share is out of reach. */
  isCutOff() {
    return this.shared?.up === false;
  }

  draw(credentials) {
    const { shared } = this;
    $("nodes").hidden = !shared;
    if (!shared) return;
    const by = new Map();
    for (const { renewed_by: name } of credentials) if (name) by.set(name, (by.get(name) ?? 0) + 1);
    const names = [...new Set([shared.node, ...shared.others.map((one) => one.node)])];
    const last = new Map(shared.others.map((one) => [one.node, one.last_fetch_at_ms]));
    $("nodes").replaceChildren(
      ...names.map((name) => h("li", { class: "node", "data-node": name },
        h("b", { class: "mono" }, name),
        name === shared.node ? h("span", { class: "tag" }, t("node_this")) : null,
        h("span", { class: "muted" }, by.has(name) ? t("node_renews", by.get(name)) : t("node_renews_nothing")),
        last.has(name) ? h("span", { class: "muted" }, t("node_last", when(last.get(name)))) : null)),
      names.length === 1 ? h("li", { class: "muted" }, t("nodes_none")) : "",
      h("li", { class: "store" }, shape(shared.up ? "fresh" : "stale"), this.store()));
  }

  store() {
    const { store, up } = this.shared;
    if (up) return t(`store_${store}_up`);
    const gone = this.heard_ms === null ? null : span((this.now() - this.heard_ms) / 1000);
    return gone === null ? t(`store_${store}_never`) : t(`store_${store}_down`, gone);
  }
}
