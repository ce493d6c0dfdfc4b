// The page: who is looking, what the server says, and where it is shown.

import { Ask } from "./ask.js";
import { Charts } from "./charts.js";
import { $, h, keep, kept, mark, say, shape, throttled } from "./dom.js";
import { Faults } from "./faults.js";
import { List, STATES } from "./list.js";
import { get, post, SILENCE_MS, Stream } from "./net.js";
import { Nodes } from "./nodes.js";
import { Sinks } from "./sinks.js";
import { Timeline } from "./timeline.js";
import { chinese, clock, num, span, t, translate } from "./words.js";

/** Without the right to the whole server's figures there is no stream; the apps are asked for now and then. */
const POLL_MS = 5_000;

/** The headline and the faults are counted anew at most so often. */
const SUMMARY_MS = 250;

const here = { status: null, figures: {}, offset_ms: 0, session: null, poll: null, snapshot: null, polled_ms: 0, head: "", title: "tokencached" };
/** The language that the page can be switched to. */
const otherLanguage = () => (chinese() ? "en" : "zh-CN");
/** The server's time. */
const clockNow = () => Date.now() + here.offset_ms;

const ask = new Ask({ done: (answer) => answer.credential && changed(answer.credential), over: () => begin() });
const timeline = new Timeline(clockNow);
const list = new List({ clockNow, ask, history: (app, type) => timeline.of(app, type) });
const faults = new Faults({ find: (id) => list.search(id) });
const nodes = new Nodes(clockNow);
const charts = new Charts($("charts"));
const sinks = new Sinks();
const stream = new Stream({ heard, changed: showLink, refused: () => begin() });

const drawTimeline = throttled(() => timeline.draw());
const drawSummary = throttled(summary, SUMMARY_MS);
const drawCharts = throttled(() => here.status && charts.draw({ ...here.figures, max_connections: here.status.max_connections }));

function at(now_ms) {
  here.offset_ms = now_ms - Date.now();
}

/** An event of the stream. */
function heard(name, data) {
  if (name === "hello") hello(data);
  else if (name === "server") {
    at(data.now_ms);
    Object.assign(here.figures, data.figures);
    if (data.sample) charts.add(data.sample);
    if (data.cluster !== undefined) {
      nodes.set(data.cluster);
      drawSummary();
    }
    if (data.sample || Object.keys(data.figures).length > 0) drawCharts();
  } else if (name === "credential") changed(data);
  else if (name === "journal") happened(data);
  else if (name === "sinks") sinksChanged(data);
  else if (name === "lagged") fetchAll();
}

function hello(status) {
  at(status.now_ms);
  here.status = status;
  here.figures = status.figures;
  showVersion();
  charts.begin(status.history);
  timeline.suit(status.uptime_s * 1000);
  sinks.set(status.sinks);
  nodes.set(status.cluster);
  tick();
  drawCharts();
  fetchAll();
}

/** Everything there is. What the stream says meanwhile comes after it, so that nothing is lost. */
async function fetchAll() {
  const meanwhile = { credentials: [], entries: [] };
  here.snapshot = meanwhile;
  try {
    const [apps, journal] = await Promise.all([get("/v1/apps"), get("/v1/journal")]);
    if (here.snapshot !== meanwhile) return;
    here.snapshot = null;
    timeline.set(journal.entries);
    meanwhile.entries.forEach((entry) => timeline.add(entry));
    list.set(apps.apps);
    meanwhile.credentials.forEach((credential) => list.credential(credential));
    drawTimeline();
    drawSummary();
    mark(document.documentElement, "data-ready", true);
  } catch (error) {
    if (error.status === 401) begin();
    else stream.fail();
  }
}

function changed(credential) {
  here.snapshot?.credentials.push(credential);
  list.credential(credential);
  drawSummary();
}

function happened(entry) {
  here.snapshot?.entries.push(entry);
  timeline.add(entry);
  list.happened(entry);
  drawTimeline();
}

function sinksChanged(all) {
  sinks.set(all);
  drawSummary();
}

/** The answer to "is all well?", and how many are in which state. */
function summary() {
  const all = list.all();
  const counts = Object.fromEntries(STATES.map((state) => [state, 0]));
  for (const one of all) counts[one.state] += 1;
  const down = all.filter((one) => !one.live && one.state !== "renewing").length;
  const troubled = counts.stale + counts.waiting;
  const head = all.length === 0 ? t("head_none")
    : down ? t("head_down", down, all.length)
    : counts.blocked ? t("head_blocked", counts.blocked)
    : troubled ? t("head_trouble", troubled) : t("head_well", all.length);
  here.tone = down ? "dead" : counts.blocked ? "blocked" : troubled ? "stale" : "fresh";
  here.head = head;
  here.title = down + counts.blocked > 0 ? t("title_trouble", Math.max(down, counts.blocked)) : "tokencached";
  showHead();
  soonest(all);
  nodes.draw(all);
  list.fold(faults.draw(list.apps.values()));
  const share = STATES.toReversed().filter((state) => counts[state] > 0);
  $("share").replaceChildren(...share.map((state) => {
    const part = h("i", { class: state });
    part.style.flexGrow = counts[state];
    return part;
  }));
  countButtons(counts);
}

/** When the server was heard last, however it is asked. */
const heardMs = () => (here.poll ? here.polled_ms : stream.last_ms);

/** For how long nothing has been heard, if that is longer than it may be. */
function awayMs() {
  const away_ms = Date.now() - heardMs();
  return away_ms > (here.poll ? POLL_MS + SILENCE_MS : SILENCE_MS) ? away_ms : null;
}

/** The headline and the title: what is known, and whether that is still so. */
function showHead() {
  if (!here.head) return;
  const away_ms = awayMs();
  const away = away_ms === null ? "" : span(away_ms / 1000);
  const head = away ? t("head_away", away, here.head) : here.head;
  const tone = away ? "unknown" : here.tone;
  if (mark($("headline"), "data-tone", tone) || $("headline").textContent !== head) {
    $("headline").replaceChildren(shape(tone), h("span", {}, head));
  }
  const title = away ? t("title_away", away) : here.title;
  if (document.title !== title) document.title = title;
  mark($("board"), "data-contact", away ? "none" : null);
}

function soonest(all) {
  let next = Infinity;
  for (const one of all) if (one.next_action === "renew") next = Math.min(next, one.next_try_at_ms);
  const parts = [t("sub_apps", list.apps.size)];
  if (Number.isFinite(next)) parts.push(t("sub_soonest", clock(Math.ceil(Math.max(1_000, next - clockNow()) / 1000))));
  const file = here.status?.state_file;
  if (file?.enabled && !file.healthy) parts.push(t("sub_state_bad"));
  else if (file && !file.enabled) parts.push(t("sub_state_off"));
  if (nodes.isCutOff()) parts.push(t("sub_cluster_down"));
  if (sinks.failing()) parts.push(t("sinks_failing", sinks.failing(), sinks.all.length));
  say($("subline"), parts.join(" · "));
}

function countButtons(counts) {
  const place = $("counts");
  if (!place.children.length) {
    for (const state of STATES.toReversed()) {
      const choose = () => {
        $("filter").value = $("filter").value === state ? "all" : state;
        list.choose();
        drawSummary();
      };
      place.append(h("button", { type: "button", class: "count", "data-state": state, onclick: choose }, shape(state), h("b"), h("span", { class: "word" })));
    }
  }
  for (const button of place.children) {
    const { state } = button.dataset;
    say(button.querySelector("b"), num(counts[state]));
    say(button.querySelector(".word"), t(state));
    mark(button, "title", t(`${state}_means`));
    mark(button, "aria-pressed", $("filter").value === state);
    button.classList.toggle("none", counts[state] === 0);
  }
}

function showVersion() {
  say($("version"), here.status ? t("version", here.status.version.split("tokencached-").pop()) : "");
}

/** How the stream is doing. Its age is beside what is read out, or that would be each second. */
function showLink(state = stream.state) {
  const shown = here.poll ? "polling" : state;
  const away = span(Math.max(0, Date.now() - stream.last_ms) / 1000);
  mark($("link"), "data-state", shown);
  mark($("board"), "data-link", shown);
  say($("link-text"), t(`link_${shown}`));
  say($("link-age"), shown === "stale" || shown === "lost" ? t(`link_${shown}_age`, away) : "");
}

function tick() {
  // The title is to be seen while the page is not.
  showHead();
  // Without contact nobody knows how much is left: the figures stand still, as they were seen last.
  if (document.hidden || awayMs() !== null) return;
  list.tick();
  if (nodes.isCutOff()) nodes.draw(list.all());
  if (here.status) say($("uptime"), t("uptime", span((clockNow() - here.status.started_at_ms) / 1000)));
  if (list.apps.size) soonest(list.all());
}

function words() {
  translate();
  const filter = $("filter");
  const chosen = filter.value || "all";
  const option = (value, text) => h("option", { value }, text);
  filter.replaceChildren(option("all", t("filter_all")), option("trouble", t("filter_trouble")), ...STATES.map((state) => option(state, t(state))));
  filter.value = chosen;
  say($("language"), t("other_language"));
  mark($("language"), "aria-label", t("other_language_label"));
  mark($("language"), "lang", otherLanguage());
}

function everything() {
  words();
  showVersion();
  showLink();
  tick();
  if (list.apps.size || here.status) {
    list.redraw();
    mark($("headline"), "data-tone", null);
    summary();
    timeline.draw();
    sinks.draw();
    drawCharts();
  }
}

function show(what) {
  for (const name of ["login", "closed", "board"]) $(name).hidden = name !== what;
}

/** Who is looking, and so what there is to be seen. */
async function begin() {
  stream.stop();
  clearInterval(here.poll);
  here.poll = null;
  try {
    here.session = await get("/v1/session");
  } catch {
    setTimeout(begin, 3_000);
    return;
  }
  const { login, known, name, rights } = here.session;
  $("who").hidden = !(login && known);
  say($("who-name"), name ?? "");
  $("link").hidden = false;
  if (login && !known) {
    forget();
    show("login");
    $("link").hidden = true;
    $("key").focus();
  } else if (rights.length === 0) {
    $("link").hidden = true;
    show("closed");
  } else if (rights.includes("status")) {
    show("board");
    $("timeline").hidden = false;
    $("charts").hidden = false;
    stream.start();
    showLink();
  } else {
    $("timeline").hidden = true;
    $("charts").hidden = true;
    sinks.set([]);
    nodes.set(null);
    here.polled_ms = Date.now();
    show("board");
    here.poll = setInterval(poll, POLL_MS);
    showLink();
    poll();
  }
}

/** Nothing of what the last visitor saw stays on the page. */
function forget() {
  here.status = null;
  here.head = "";
  nodes.set(null);
  nodes.draw([]);
  list.set([]);
  faults.draw([]);
  timeline.set([]);
  sinks.set([]);
  for (const id of ["headline", "subline", "share", "moment", "lanes-svg", "version", "uptime"]) $(id).replaceChildren();
  document.title = "tokencached";
  document.documentElement.removeAttribute("data-ready");
}

async function poll() {
  try {
    const apps = await get("/v1/apps");
    at(apps.now_ms);
    here.polled_ms = Date.now();
    list.set(apps.apps);
    drawSummary();
    mark(document.documentElement, "data-ready", true);
    showLink();
  } catch (error) {
    if (error.status === 401) begin();
    else {
      mark($("link"), "data-state", "lost");
      say($("link-text"), t("link_connecting"));
    }
  }
}

$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const fault = (text) => say($("login-fault"), text);
  fault("");
  try {
    await post("/login", { key: $("key").value.trim() });
    $("key").value = "";
    await begin();
    $("apps").focus();
  } catch (error) {
    fault(error.status === 429 ? t("login_often") : error.status === 401 ? t("login_wrong") : t("login_failed"));
    $("key").select();
  }
});

$("logout").addEventListener("click", async () => {
  await post("/logout").catch(() => null);
  begin();
});

$("language").addEventListener("click", () => {
  document.documentElement.lang = otherLanguage();
  keep("language", document.documentElement.lang);
  everything();
});

$("theme").addEventListener("change", () => {
  const theme = $("theme").value;
  keep("theme", theme);
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
});

$("filter").addEventListener("change", drawSummary);
document.addEventListener("visibilitychange", tick);
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea, dialog");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !$("board").hidden) {
    event.preventDefault();
    $("search").focus();
  }
});

words();
$("theme").value = kept("theme") ?? "auto";
setInterval(tick, 1_000);
setInterval(drawTimeline, 10_000);
begin();
