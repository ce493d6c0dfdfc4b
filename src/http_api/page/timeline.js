// Renewals above the line, faults and refused writes below it. The pointer or the arrow keys pick a moment; what
// happened then stands underneath.

import { $, h, mark, s, say, shape } from "./dom.js";
import { hour, num, second, t, when } from "./words.js";

const MINUTE = 60_000;
// How far back, and how long one column is.
const RANGES = {
  "15m": { back: 15 * MINUTE, column: 10_000 },
  "3h": { back: 180 * MINUTE, column: 2 * MINUTE },
  "24h": { back: 1440 * MINUTE, column: 15 * MINUTE },
};
const LISTED_MAX = 4;
const MIDDLE = 58;
const HEIGHT = 100;

const laneOf = (event) => {
  if (event === "refused_write") return "refused";
  return event === "failed" || event === "died_early" || event === "fallback" ? "fault" : "renewed";
};
const shapeOf = { renewed: "fresh", fault: "dead", refused: "refused" };

/** When it happened; from when to when, if it has happened again and again. */
function lasted({ times, first_at_ms, last_at_ms }) {
  const [from, to] = [when(first_at_ms), when(last_at_ms)];
  return times > 1 && from !== to ? `${from} – ${to}` : to;
}

/** What happened, in words. */
export function told(entry) {
  const words = t(`ev_${entry.event}`, entry);
  return entry.times > 1 ? `${words} (${t("times", entry.times)})` : words;
}

/** A fault goes on until something else happens; whoever else repeats something did it at its moments only. */
const lasts = (entry) => laneOf(entry.event) === "fault" && entry.last_at_ms > entry.first_at_ms;

/** How much of what an entry tells is in the time from `from` to `to`: of what began before, its share. */
function timesIn(entry, from, to) {
  if (entry.last_at_ms < from || entry.first_at_ms >= to) return 0;
  const whole = entry.last_at_ms - entry.first_at_ms;
  if (whole <= 0 || (entry.first_at_ms >= from && entry.last_at_ms < to)) return entry.times;
  const part = Math.min(entry.last_at_ms, to) - Math.max(entry.first_at_ms, from);
  return Math.max(1, Math.round((entry.times * part) / whole));
}

/** The columns of a range, the newest last, and the stretches of faults that lasted: first and last column. */
export function gather(entries, { back, column }, now) {
  const last = Math.floor(now / column);
  const count = Math.round(back / column);
  const first = last - count + 1;
  const columns = Array.from({ length: count }, (_, at) => ({ from: (first + at) * column, renewed: 0, fault: 0, refused: 0, entries: [] }));
  const sums = { renewed: 0, fault: 0, refused: 0 };
  const stretches = [];
  for (const entry of entries) {
    const lane = laneOf(entry.event);
    const [begin, end] = [Math.floor(entry.first_at_ms / column) - first, Math.floor(entry.last_at_ms / column) - first];
    if (end < 0 || begin >= count) continue;
    sums[lane] += timesIn(entry, first * column, (last + 1) * column);
    const to = Math.min(end, count - 1);
    // It began when it began, not when it was last seen.
    for (let at = Math.max(0, begin); at <= to; at += 1) {
      columns[at][lane] += begin === end ? entry.times : Math.max(1, entry.times / (end - begin + 1));
      columns[at].entries.push(entry);
    }
    if (lasts(entry) && end > begin) stretches.push([Math.max(0, begin), to]);
  }
  return { columns, sums, stretches };
}

/** A line of the list of what happened. */
export function line(entry, withCredential) {
  const lane = laneOf(entry.event);
  return h("li", {},
    shape(shapeOf[lane]),
    h("time", { class: "mono muted", datetime: new Date(entry.last_at_ms).toISOString() }, lasted(entry)),
    withCredential ? h("span", { class: "mono where" }, `${entry.app} ${entry.type}`) : null,
    h("span", { class: "what" }, told(entry)));
}

export class Timeline {
  constructor(clockNow) {
    this.now = clockNow;
    this.entries = new Map();
    this.range = null;
    this.picked = null;
    this.columns = [];
    const lanes = $("lanes");
    lanes.addEventListener("pointermove", (event) => this.point(event));
    lanes.addEventListener("pointerdown", (event) => this.point(event));
    lanes.addEventListener("pointerleave", () => document.activeElement !== lanes && this.pick(null));
    lanes.addEventListener("keydown", (event) => this.key(event));
    lanes.addEventListener("focus", () => {
      mark($("moment"), "aria-live", "polite");
      if (this.picked === null && lanes.matches(":focus-visible")) this.step(0, "last");
    });
    lanes.addEventListener("blur", () => {
      mark($("moment"), "aria-live", null);
      this.pick(null);
    });
    for (const name of Object.keys(RANGES)) {
      $("ranges").append(h("button", { type: "button", class: "quiet", "data-range": name, onclick: () => this.choose(name) }));
    }
  }

  /** The shortest range that holds all that has happened, unless somebody has chosen. */
  suit(uptime_ms) {
    if (this.chosen) return;
    this.range = Object.keys(RANGES).find((name) => RANGES[name].back >= uptime_ms) ?? "24h";
  }

  choose(name) {
    this.chosen = true;
    this.range = name;
    this.picked = null;
    this.draw();
  }

  set(entries) {
    this.entries = new Map(entries.map((entry) => [entry.seq, entry]));
  }

  add(entry) {
    this.entries.set(entry.seq, entry);
    // As many as the server keeps, and some.
    if (this.entries.size > 5000) this.entries.delete(this.entries.keys().next().value);
  }

  of(app, type) {
    return [...this.entries.values()].filter((entry) => entry.app === app && entry.type === type).slice(-6).reverse();
  }

  draw() {
    if (!this.range) return;
    const { columns, sums, stretches } = gather(this.entries.values(), RANGES[this.range], this.now());
    this.columns = columns;
    const sum = (name) => sums[name];
    const tops = [Math.max(1, ...this.columns.map((column) => column.renewed)), Math.max(1, ...this.columns.map((column) => column.fault + column.refused))];
    const bars = [];
    this.columns.forEach((column, at) => {
      const bar = (name, n, top, room, y) => {
        if (n === 0) return 0;
        const height = room * (0.22 + 0.78 * Math.sqrt(n / top));
        bars.push(s("rect", { class: name, x: at * 10 + 1.5, width: 7, y: y(height), height, rx: 1.5 }));
        return height;
      };
      bar("renewed", column.renewed, tops[0], MIDDLE - 6, (height) => MIDDLE - 2 - height);
      const room = HEIGHT - MIDDLE - 4;
      const both = column.fault > 0 && column.refused > 0;
      const below = bar("fault", column.fault, tops[1], both ? room / 2 : room, () => MIDDLE + 2);
      bar("refused", column.refused, tops[1], both ? room / 2 : room, () => MIDDLE + 2 + below + (below ? 2 : 0));
    });
    for (const [from, to] of stretches) {
      bars.push(s("rect", { class: "fault stretch", x: from * 10 + 1.5, width: (to - from) * 10 + 7, y: MIDDLE + 2, height: 5, rx: 1.5 }));
    }
    const width = this.columns.length * 10;
    const svg = $("lanes-svg");
    mark(svg, "viewBox", `0 0 ${width} ${HEIGHT}`);
    mark(svg, "preserveAspectRatio", "none");
    const cursor = s("rect", { class: "cursor", y: 0, width: 10, height: HEIGHT, x: -20 });
    svg.replaceChildren(cursor, s("path", { class: "middle", d: `M0 ${MIDDLE}H${width}` }), ...bars);
    this.cursor = cursor;
    mark($("lanes"), "aria-label", `${t("timeline")}: ${t("timeline_label", sum("renewed"), sum("fault"), sum("refused"))}`);
    this.write(sum);
    this.show();
  }

  write(sum) {
    const { back } = RANGES[this.range];
    const now = this.now();
    $("axis").replaceChildren(...[1, 0.75, 0.5, 0.25].map((part) => h("span", {}, hour(now - back * part))), h("span", {}, t("now")));
    $("timeline-legend").replaceChildren(...["renewed", "fault", "refused"].map((lane) =>
      h("li", {}, shape(shapeOf[lane]), ` ${t(`lane_${lane}`)} `, h("b", { class: "mono" }, num(sum(lane))))));
    for (const button of $("ranges").children) {
      say(button, t(`range_${button.dataset.range}`));
      mark(button, "aria-pressed", button.dataset.range === this.range);
    }
  }

  point(event) {
    const box = $("lanes-svg").getBoundingClientRect();
    const exact = ((event.clientX - box.left) / box.width) * this.columns.length - 0.5;
    // The nearest moment within a finger's width.
    const near = this.columns.map((column, at) => [Math.abs(at - exact), at]).filter(([, at]) => this.columns[at].entries.length > 0);
    near.sort(([a], [b]) => a - b);
    const [distance, at] = near[0] ?? [];
    const reach = (16 / box.width) * this.columns.length;
    this.pick(at !== undefined && distance <= reach ? this.columns[at].from : null);
  }

  key(event) {
    const how = { ArrowLeft: [-1], ArrowRight: [1], Home: [0, "first"], End: [0, "last"] }[event.key];
    if (event.key === "Escape") this.pick(null);
    if (!how) return;
    event.preventDefault();
    this.step(...how);
  }

  step(by, end) {
    const full = this.columns.filter((column) => column.entries.length > 0);
    if (full.length === 0) return;
    const at = full.findIndex((column) => column.from === this.picked);
    let next = by > 0 ? at + 1 : at < 0 ? full.length - 1 : at - 1;
    if (end) next = end === "first" ? 0 : full.length - 1;
    this.pick(full[Math.min(full.length - 1, Math.max(0, next))].from);
  }

  pick(from) {
    if (this.picked === from) return;
    this.picked = from;
    this.show();
  }

  show() {
    const at = this.columns.findIndex((column) => column.from === this.picked);
    mark(this.cursor, "x", at < 0 ? -20 : at * 10);
    const found = at < 0 ? new Set(this.columns.flatMap((column) => column.entries)) : this.columns[at].entries;
    const entries = [...found].sort((a, b) => b.last_at_ms - a.last_at_ms || b.seq - a.seq);
    const from = at < 0 ? null : this.columns[at].from;
    const write = RANGES[this.range].column < MINUTE ? second : hour;
    const title = from === null ? t("latest") : `${write(from)} – ${write(from + RANGES[this.range].column)}`;
    const listed = entries.slice(0, LISTED_MAX);
    const rest = entries.length - listed.length;
    $("moment").replaceChildren(
      h("h3", {}, title, rest > 0 && from !== null ? h("span", { class: "muted" }, ` ${t("more", rest)}`) : null),
      entries.length === 0 ? h("p", { class: "muted" }, t("nothing_happened")) : h("ul", { class: "events" }, ...listed.map((entry) => line(entry, true))));
  }
}
