// The cluster: which node this is, which others there are, which one renews, and whether the cluster store or the leader
// can be reached. Not shown where there is one node.

import { $, h, shape } from "./dom.js";
import { span, t, when } from "./words.js";

export class Nodes {
  constructor(clockNow) {
    this.now = clockNow;
    this.cluster = null;
    this.heard_ms = null;
  }

  /** As `cluster` of `/v1/status` has it; null where there is one node. */
  set(cluster) {
    this.cluster = cluster;
    this.heard_ms = cluster?.age_ms === null || !cluster ? null : this.now() - cluster.age_ms;
  }

  /** Whether the cluster store or the leader cannot be reached. */
  isCutOff() {
    return this.cluster?.up === false;
  }

  draw(credentials) {
    const { cluster } = this;
    $("nodes").hidden = !cluster;
    if (!cluster) return;
    const by = new Map();
    for (const { renewed_by: name } of credentials) if (name) by.set(name, (by.get(name) ?? 0) + 1);
    const names = [...new Set([cluster.node, ...cluster.others.map((one) => one.node)])];
    const last = new Map(cluster.others.map((one) => [one.node, one.last_fetch_at_ms]));
    $("nodes").replaceChildren(
      ...names.map((name) => h("li", { class: "node", "data-node": name },
        h("b", { class: "mono" }, name),
        name === cluster.node ? h("span", { class: "tag" }, t("node_this")) : null,
        h("span", { class: "muted" }, by.has(name) ? t("node_renews", by.get(name)) : t("node_renews_nothing")),
        last.has(name) ? h("span", { class: "muted" }, t("node_last", when(last.get(name)))) : null)),
      names.length === 1 ? h("li", { class: "muted" }, t("nodes_none")) : "",
      h("li", { class: "store" }, shape(cluster.up ? "fresh" : "stale"), this.store()));
  }

  store() {
    const { store, up } = this.cluster;
    if (up) return t(`store_${store}_up`);
    const gone = this.heard_ms === null ? null : span((this.now() - this.heard_ms) / 1000);
    return gone === null ? t(`store_${store}_never`) : t(`store_${store}_down`, gone);
  }
}
