// The small charts of the last ten minutes. One line, one number, one sentence each.

import { h, mark, s, say } from "./dom.js";
import { brief, bytes, clock, num, percent, t } from "./words.js";

const WIDTH = 300;
const HEIGHT = 64;
const SAMPLES_MAX = 300;
/** A chart that has just begun is as wide as a minute. */
const SAMPLES_MIN = 30;

const ratio = (hits, misses) => (hits + misses > 0 ? hits / (hits + misses) : null);

// What is drawn: a value per sample (null leaves a gap), how it is written, the top of the scale.
const CHARTS = [
  {
    name: "gets",
    value: (x, i) => x.gets_per_s[i],
    second: (x, i) => x.sets_per_s[i],
    write: brief,
    foot: (f) => t("gets_foot", f.sets_now, f.cmd_get),
  },
  {
    name: "ratio",
    value: (x, i) => ratio(x.hits_per_s[i], x.misses_per_s[i]),
    all: (f) => ratio(f.get_hits, f.get_misses),
    write: (share) => (share === null ? "–" : percent(share)),
    top: () => 1,
    foot: (f) => t("ratio_foot", f.get_hits, f.get_misses),
  },
  {
    name: "memory",
    value: (x, i) => x.bytes[i],
    now: (f) => f.bytes,
    write: bytes,
    top: (f) => f.limit_maxbytes,
    limit: true,
    foot: (f) => t("memory_foot", bytes(f.limit_maxbytes), f.curr_items),
  },
  {
    name: "connections",
    value: (x, i) => x.connections[i],
    now: (f) => f.curr_connections,
    write: num,
    foot: (f) => t("connections_foot", f.max_connections, f.rejected_connections),
  },
  {
    name: "evictions",
    value: (x, i) => x.evictions_per_s[i],
    write: brief,
    foot: (f) => t("evictions_foot", f.evictions),
  },
];

/** A round number at or above the largest value, so that the scale does not jump with each sample. */
function roundUp(value) {
  const step = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((n) => n * step).find((top) => top >= value) ?? value;
}

const reach = (values) => Math.max(SAMPLES_MIN, values.length) - 1;

/** The path through the values; null lifts the pen. `x` counts from the right: the newest is now. */
function path(values, top) {
  const step = WIDTH / reach(values);
  const from = reach(values) + 1 - values.length;
  let [drawn, pen] = ["", "M"];
  values.forEach((value, at) => {
    if (value === null) {
      pen = "M";
      return;
    }
    const y = HEIGHT - 1 - Math.min(1, value / top) * (HEIGHT - 4);
    drawn += `${pen}${((from + at) * step).toFixed(1)} ${y.toFixed(1)}`;
    pen = "L";
  });
  return drawn;
}

function area(values, top) {
  const step = WIDTH / reach(values);
  const from = reach(values) + 1 - values.length;
  const whole = values.every((value) => value !== null);
  if (!whole || values.length < 2) return "";
  return `${path(values, top)}L${WIDTH} ${HEIGHT}L${(from * step).toFixed(1)} ${HEIGHT}Z`;
}

class Chart {
  constructor(about) {
    this.about = about;
    this.area = s("path", { class: "area" });
    this.second = s("path", { class: "line second" });
    this.line = s("path", { class: "line" });
    this.cursor = s("path", { class: "cursor" });
    this.limit = s("path", { class: "limit", d: about.limit ? `M0 4H${WIDTH}` : "" });
    this.svg = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
      this.area, this.limit, this.second, this.line, this.cursor);
    this.label = h("figcaption", { class: "label" });
    this.big = h("span", { class: "big" });
    this.foot = h("span", { class: "foot muted" });
    this.figure = h("figure", { class: `chart ${about.name}` }, this.label, this.big, this.svg, this.foot);
    this.pointed = null;
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.point(null));
    this.values = [];
  }

  point(event) {
    if (event === null) {
      this.pointed = null;
    } else {
      const box = this.svg.getBoundingClientRect();
      this.pointed = Math.round((1 - (event.clientX - box.left) / box.width) * reach(this.values));
    }
    this.write();
  }

  draw(samples, figures, interval_s) {
    const { about } = this;
    const length = samples.gets_per_s.length;
    this.values = Array.from({ length }, (_, i) => about.value(samples, i) ?? null);
    const second = about.second ? Array.from({ length }, (_, i) => about.second(samples, i)) : [];
    const most = Math.max(0, ...this.values.filter((value) => value !== null), ...second);
    const top = about.top ? about.top(figures) || 1 : roundUp(most);
    this.figures = { ...figures, sets_now: samples.sets_per_s[length - 1] ?? 0 };
    this.interval_s = interval_s;
    this.line.setAttribute("d", path(this.values, top));
    this.area.setAttribute("d", area(this.values, top));
    this.second.setAttribute("d", second.length ? path(second, top) : "");
    this.most = most;
    this.write();
  }

  write() {
    if (!this.figures) return;
    const { about, figures, values } = this;
    const last = values.length - 1;
    const newest = about.now ? about.now(figures) : (values[last] ?? (about.all ? about.all(figures) : 0));
    const at = this.pointed === null ? -1 : last - this.pointed;
    const pointed = at >= 0 && at <= last;
    say(this.label, t(about.name));
    say(this.big, about.write(pointed ? values[at] ?? (about.all ? null : 0) : newest));
    say(this.foot, pointed ? t("ago", clock(this.pointed * this.interval_s)) : about.foot(figures));
    this.cursor.setAttribute("d", pointed ? `M${WIDTH - (this.pointed * WIDTH) / reach(values)} 0V${HEIGHT}` : "");
    mark(this.svg, "aria-label", t("chart_label", t(about.name), about.write(newest), about.write(this.most)));
  }
}

/** All charts; `samples` are columns, the newest last. */
export class Charts {
  constructor(place) {
    this.charts = CHARTS.map((about) => new Chart(about));
    place.append(...this.charts.map((chart) => chart.figure));
  }

  /** All anew, from `/v1/status`. */
  begin(history) {
    this.samples = history.samples;
    this.interval_s = history.interval_s;
  }

  add(sample) {
    for (const [name, column] of Object.entries(this.samples)) {
      column.push(sample[name] ?? 0);
      if (column.length > SAMPLES_MAX) column.shift();
    }
  }

  draw(figures) {
    if (this.samples) this.charts.forEach((chart) => chart.draw(this.samples, figures, this.interval_s));
  }
}
