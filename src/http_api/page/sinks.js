// Where values are written to beside the cache, and how that goes. Not shown where nothing is configured.

import { $, h, mark, say, shape } from "./dom.js";
import { adviceOf, num, sentence, t, textOf, when } from "./words.js";

export class Sinks {
  constructor() {
    this.all = [];
  }

  /** All of them anew, as `/v1/status` has them. */
  set(all) {
    this.all = all;
    this.draw();
  }

  draw() {
    $("sinks").hidden = this.all.length === 0;
    $("sinks-list").replaceChildren(...this.all.map(row));
    const failing = this.all.filter((sink) => sink.last_error).length;
    say($("sinks-found"), failing ? t("sinks_failing", failing, this.all.length) : t("sinks_well", this.all.length));
  }

  /** How many are not written as they should be. */
  failing() {
    return this.all.filter((sink) => sink.last_error).length;
  }
}

function row(sink) {
  const { last_error: error, last_write: write } = sink;
  const tone = error ? "stale" : sink.waiting > 0 ? "renewing" : "fresh";
  const failures = Object.values(sink.failures).reduce((sum, n) => sum + n, 0);
  const figures = [
    t("sink_writes", sink.writes),
    sink.deletes > 0 ? t("sink_deletes", sink.deletes) : null,
    failures > 0 ? t("sink_failures", failures) : null,
    sink.foreign_writes > 0 ? t("sink_foreign", sink.foreign_writes) : null,
  ];
  const element = h("li", { class: "sink" },
    h("div", { class: "line" },
      h("span", { class: "state" }, shape(tone), h("b", { class: tone }, stateOf(sink))),
      h("span", { class: "tag" }, t(`sink_${sink.type}`)),
      h("span", { class: "mono target" }, sink.target)),
    h("p", { class: "muted last" },
      write ? h("span", {}, t("sink_last"), " ", h("span", { class: "mono" }, `${write.type} · ${write.app}`), ` · ${when(write.at_ms)}`) : h("span", {}, t("sink_never")),
      write ? h("span", { class: "mono entry" }, write.entry) : null),
    h("p", { class: "muted counts-of-sink" }, figures.filter((text) => text !== null).join(" · ")),
    error ? h("div", { class: "trouble" },
      h("p", { class: "meaning" }, h("b", { class: "mono" }, error.class), h("span", {}, sentence(textOf(error))), h("span", { class: "tag" }, t(`whose_${error.whose}`))),
      h("p", { class: "advice" }, h("span", { class: "vh" }, `${t("what_to_do")}: `), sentence(adviceOf(error))),
      h("p", { class: "trace mono muted" }, when(error.at_ms))) : null);
  mark(element, "data-state", tone);
  return element;
}

function stateOf(sink) {
  if (sink.last_error) return t("sink_failing");
  return sink.waiting > 0 ? t("sink_waiting", sink.waiting) : t("sink_written");
}
