// Every text of the page, in both languages, and how numbers and times are written.

/** A number and its noun. */
const count = (n, one, many = `${one}s`) => `${num(n)} ${n === 1 ? one : many}`;
/** The same for a number that may have a fraction and is written short. */
const rate = (n, one, many = `${one}s`) => `${brief(n)} ${brief(n) === "1" ? one : many}`;

const en = {
  skip: "Skip to the apps",
  theme: "Colours", theme_auto: "Auto colours", theme_light: "Light", theme_dark: "Dark",
  other_language: "中文", other_language_label: "切换到中文",
  logout: "Log out", login: "Log in", key: "Key",
  login_title: "Log in",
  login_text: "This page needs a key from the server's keys file. It stays out of the address and is not kept by the page.",
  login_wrong: "The server does not know this key.",
  login_often: "This key is not accepted. Too many wrong keys have come from this address; the right one is taken at once.",
  login_failed: "The server did not answer. Try again.",
  closed_title: "Nothing to see from here",
  closed_text: "Without keys this page answers only to the machine it runs on. Set keys_file in [http] to reach it from elsewhere.",
  uptime: (t) => `up ${t}`, version: (v) => `version ${v}`,
  link_connecting: "Connecting", link_live: "Live", link_polling: "Every 5 s",
  link_stale: "No news", link_stale_age: (t) => `for ${t}`,
  link_lost: "Disconnected, trying again", link_lost_age: (t) => `· figures are ${t} old`,
  head_away: (t, head) => `No contact for ${t}, last seen: ${head}`, title_away: (t) => `No contact for ${t} – tokencached`,
  head_none: "No apps are configured",
  head_well: (n) => (n === 1 ? "The one credential is live" : `All ${num(n)} credentials are live`),
  head_trouble: (n) => (n === 1 ? "All live, but one could not be renewed" : `All live, but ${num(n)} could not be renewed`),
  head_blocked: (n) => (n === 1 ? "All live, but one needs you" : `All live, but ${num(n)} need you`),
  head_down: (n, of) => (of === 1 ? "The one credential is not live" : `${num(n)} of ${num(of)} credentials ${n === 1 ? "is" : "are"} not live`),
  sub_apps: (n) => count(n, "app"),
  sub_soonest: (t) => `next renewal in ${t}`,
  sub_state_off: "tokens are not kept on disk",
  sub_state_bad: "the state file cannot be written: a restart would lose tokens",
  sub_cluster_down: "the cluster store or the leader is out of reach: tokens are served from memory",
  by_state: "Credentials by state; choose one to see only those",
  fresh: "Fresh", renewing: "Renewing", stale: "Stale", waiting: "Waiting", blocked: "Blocked", dead: "Dead",
  fresh_means: "A live value, and no trouble.", renewing_means: "A call to WeChat is under way.",
  stale_means: "The last call failed.", waiting_means: "WeChat named a time before which asking is useless.",
  blocked_means: "Somebody has to change something before WeChat gives a value.", dead_means: "No live value.",
  faults: "What is wrong", fault_apps: (n) => `${count(n, "app")}:`, fault_which: (n) => (n === 1 ? "Show the app" : `Which ${num(n)} apps`),
  faults_rest: (n) => (n === 1 ? "1 more fault" : `${num(n)} more faults`),
  fault_ip: (ip) => `${ip} is not on the allow-list`,
  copy: (text) => `Copy ${text}`, copied: "Copied", copy_failed: (text) => `Copy it by hand: ${text}`, open_console: (where) => `Open ${where}`,
  net_dns: "the name cannot be looked up (DNS)", net_refused: "the connection is refused: nothing listens there", net_unreachable: "there is no way to the address",
  net_timeout: "no answer came in time", net_certificate: "the TLS certificate is not one to trust", net_tls: "no TLS connection comes about",
  net_reset: "the connection was closed before the answer was complete", net_answer: "something answers, but not as the platform does", net_other: "the network fails",
  nodes: "Nodes", node_this: "this node", node_renews: (n) => `has fetched the values of ${count(n, "credential")}`, node_renews_nothing: "has fetched none of the present values",
  node_last: (at) => `last fetch ${at}`, nodes_none: "no other node has been seen yet",
  store_redis_up: "the cluster store (Redis) is in reach", store_redis_down: (t) => `the cluster store (Redis) has been out of reach for ${t}`,
  store_redis_never: "the cluster store (Redis) has not been reached yet", store_leader_up: "the leader is in reach",
  store_leader_down: (t) => `the leader has been out of reach for ${t}`, store_leader_never: "the leader has not been reached yet",
  d_renewed_by: "Fetched by node",
  charts: "Traffic, ten minutes at most",
  gets: "Gets per second", gets_foot: (sets, all) => `${rate(sets, "set")}/s · ${count(all, "get")} in all`,
  ratio: "Hit ratio", ratio_foot: (hits, misses) => `${count(hits, "hit")} · ${count(misses, "miss", "misses")}`,
  memory: "Memory", memory_foot: (limit, items) => `of ${limit} · ${count(items, "item")}`,
  connections: "Connections", connections_foot: (max, refused) => `of ${num(max)} · ${num(refused)} refused`,
  evictions: "Evictions per second", evictions_foot: (all) => `${num(all)} in all`,
  ago: (t) => `${t} ago`, chart_label: (name, now, most) => `${name}: now ${now}, at most ${most} of late`,
  timeline: "Renewals and faults", range: "How far back",
  range_15m: "15 min", range_3h: "3 h", range_24h: "24 h", now: "now",
  lane_renewed: "renewed", lane_fault: "fault", lane_refused: "refused write",
  timeline_help: "Left and right move between moments at which something happened; Home and End go to the first and the last.",
  timeline_label: (renewed, faults, refused) => `${count(renewed, "renewal")}, ${count(faults, "fault")} and ${count(refused, "refused write")}`,
  latest: "Latest", nothing_happened: "Nothing has happened in this time.", more: (n) => `and ${num(n)} more`,
  ev_renewed: (e) => `renewed${e.from ? ` by ${e.from}` : ""}, generation ${e.generation}, good for ${span(e.expires_in_s)}`,
  ev_failed: (e) => `failed: ${e.errcode !== null && e.errcode !== undefined ? `${e.errcode}, ` : ""}${meaningOf(e)}`,
  ev_recovered: () => "well again", ev_died_early: (e) => `died early${e.errcode ? ` (${e.errcode})` : ""}`,
  ev_accepted_again: () => "accepted again", ev_fallback: (e) => `asks ${e.endpoint} for the rest of the day`,
  ev_refused_write: (e) => `${e.times > 1 ? "refused writes, the last" : "refused a write"} by ${e.peer}${e.foreign ? ", which had another token" : ""}`,
  times: (n) => (n === 1 ? "once" : `${num(n)} times`),
  sinks: "Also written to",
  sinks_well: (n) => count(n, "place"),
  sinks_failing: (n, of) => (of === 1 ? "the place that is also written to fails" : `${num(n)} of ${num(of)} places that are also written to ${n === 1 ? "fails" : "fail"}`),
  sink_redis: "Redis", sink_sql: "Database", sink_file: "File", sink_command: "Command",
  sink_written: "Written", sink_failing: "Failing", sink_waiting: (n) => `${num(n)} to be written`,
  sink_last: "Last written:", sink_never: "Nothing has been written yet.",
  sink_writes: (n) => count(n, "write"), sink_deletes: (n) => `${count(n, "entry", "entries")} withdrawn`,
  sink_failures: (n) => count(n, "failure"),
  sink_foreign: (n) => `${count(n, "token")} of another program found there`,
  whose_configuration: "set up wrongly", whose_target: "the place's fault", whose_network: "the network's fault", whose_upstream: "the platform's fault", whose_server: "this server's fault",
  apps: "Apps", search: "Search: app, name, key, errcode, address", filter: "State", sort: "Order",
  filter_all: "All states", filter_trouble: "In trouble",
  sort_trouble: "Trouble first", sort_expiry: "Soonest to expire", sort_name: "By name",
  found: (n, of) => (n === of ? count(of, "app") : `${num(n)} of ${count(of, "app")}`), rest: (n) => (n === 1 ? "Show the last one" : `Show more of ${num(n)}`),
  nothing: "No app fits. Clear the search or choose another state.",
  col_app: "App", col_type: "Credential", col_state: "State", col_life: "Life left", col_next: "Next",
  col_generation: "Generation", col_calls: "Calls today",
  expired: "not live", never: "none yet",
  next_renew: "renews in", next_try: "tries again in", next_now: "under way", next_due: "due now",
  platform_mp: "Official account", platform_wecom: "WeCom", platform_qq: "QQ mini program", platform_feishu: "Feishu",
  platform_component: "Open platform", platform_authorizer: "Authorised account",
  refresh: "Refresh now", probe: "Probe",
  refused: (n) => count(n, "refused write"),
  probes_today: (n) => `+ ${count(n, "probe")}`, probes_means: "The token is tried on another call, which has a quota of its own",
  no_quota: "no quota", denied: (n) => `${num(n)} held back`,
  what_to_do: "What to do",
  class_retry: "passes by itself", class_wait: "WeChat wants us to wait", class_operator: "needs you", class_internal: "our mistake",
  d_names: "Read it as", d_endpoint: "Endpoint", d_token: "Value", d_token_is: (end, hash) => `${end ? `ends in ${end}, ` : ""}SHA-256 ${hash}…`,
  d_fetched: "Fetched", d_expires: "Expires", d_lifetime: "Lifetime", d_calls: "Calls since start",
  d_verifications: "Verifications", d_reports: "Reports by clients", d_early: "Died early", d_forced: "Forced refreshes",
  d_failures: "Failures in a row", d_verified: "Last verification", d_probe: "Next probe", d_quota_day: "Quota day ends",
  d_writers: "Refused writes by", d_writer: (w) => `${w.peer} · ${en.times(w.noted)} · last ${when(w.last_at_ms)}`, d_foreign: "had another token: it fetches by itself",
  last_error: "Last error", d_writes: "Refused writes since start", d_foreign_writes: "with another token", d_history: "What has happened",
  out_new: "new", out_same: "same", out_retry: "retry", out_wait: "wait", out_operator: "operator", out_internal: "internal",
  verdict_accepted: "accepted", verdict_refused: "refused", verdict_replaced: "replaced", verdict_handed_out: "handed out", verdict_unknown: "unknown",
  ask_refresh: "Refresh now?", ask_probe: "Probe?",
  ask_refresh_text: "WeChat is asked whether it still accepts this value. A new one is fetched only if it does not, so no token that works elsewhere is ended for nothing.",
  ask_refresh_ticket: "WeChat is asked for the ticket once more. It changes only if WeChat hands out another one. The call counts against the day's quota.",
  ask_probe_text: "The value is tried on a cheap call of WeChat's. Nothing is fetched and nothing changes.",
  cancel: "Cancel", close: "Close", asking: "Asking WeChat…",
  did_renewed: "Renewed: a new value is served.", did_accepted: "WeChat accepts the value. Nothing has changed.",
  did_refused: "WeChat refuses the value.", did_handed_out: "WeChat hands out the same ticket. Nothing has changed.",
  did_overtaken: "There is another generation by now. Nothing was done.", did_not_checked: "It was verified a moment ago. Nothing was done.",
  did_waiting: "WeChat has named a time before which asking is useless. Nothing was done.",
  did_failed: "WeChat gave no new value.", did_unknown: "WeChat's answer tells nothing.",
  did_error: (detail) => `That did not work: ${detail}`, did_network: "The server did not answer.", did_often: (s) => `Too often. Try again in ${s} s.`,
  footer: "Tokens and secrets are never shown here.",
  title_trouble: (n) => `(${num(n)}) tokencached`,
};

const zh = {
  skip: "跳到应用列表",
  theme: "配色", theme_auto: "跟随系统", theme_light: "浅色", theme_dark: "深色",
  other_language: "English", other_language_label: "Switch to English",
  logout: "退出", login: "登录", key: "密钥",
  login_title: "登录",
  login_text: "请输入服务器密钥文件中的密钥。密钥不会出现在网址里，页面也不会保存它。",
  login_wrong: "服务器没有这个密钥。",
  login_often: "密钥不正确。这个地址上错误的密钥太多；输入正确的密钥可以立即登录。",
  login_failed: "服务器没有响应，请重试。",
  closed_title: "从这里无法查看",
  closed_text: "没有配置密钥时，此页面只对本机开放。要从其他机器访问，请在 [http] 中设置 keys_file。",
  uptime: (t) => `已运行 ${t}`, version: (v) => `版本 ${v}`,
  link_connecting: "连接中", link_live: "实时", link_polling: "每 5 秒更新",
  link_stale: "没有更新", link_stale_age: (t) => `已 ${t}`,
  link_lost: "连接已断开，正在重连", link_lost_age: (t) => `· 数据是 ${t}前的`,
  head_away: (t, head) => `已失去联系 ${t}，最后所见：${head}`, title_away: (t) => `失去联系 ${t} – tokencached`,
  head_none: "还没有配置应用",
  head_well: (n) => (n === 1 ? "唯一的凭证有效" : `全部 ${num(n)} 个凭证均有效`),
  head_trouble: (n) => `凭证全部有效，但有 ${num(n)} 个续期失败`,
  head_blocked: (n) => `凭证全部有效，但有 ${num(n)} 个需要您处理`,
  head_down: (n, of) => (of === 1 ? "唯一的凭证当前不可用" : `${num(of)} 个凭证中有 ${num(n)} 个不可用`),
  sub_apps: (n) => `${num(n)} 个应用`,
  sub_soonest: (t) => `${t} 后进行下一次续期`,
  sub_state_off: "凭证不写入磁盘",
  sub_state_bad: "状态文件无法写入：重启后凭证会丢失",
  sub_cluster_down: "集群存储或上级节点无法访问：凭证由内存提供",
  by_state: "按状态统计的凭证；点选后只看该状态",
  fresh: "正常", renewing: "续期中", stale: "续期失败", waiting: "等待中", blocked: "待处理", dead: "已失效",
  fresh_means: "凭证有效，一切正常。", renewing_means: "正在请求微信。",
  stale_means: "上一次请求失败。", waiting_means: "微信给出了时间，在此之前请求没有意义。",
  blocked_means: "需要有人处理，微信才会给出凭证。", dead_means: "没有可用的凭证。",
  faults: "当前故障", fault_apps: (n) => `${num(n)} 个应用：`, fault_which: (n) => (n === 1 ? "查看该应用" : `查看这 ${num(n)} 个应用`),
  faults_rest: (n) => `另有 ${num(n)} 种故障`,
  fault_ip: (ip) => `${ip} 不在 IP 白名单中`,
  copy: (text) => `复制 ${text}`, copied: "已复制", copy_failed: (text) => `请手动复制：${text}`, open_console: (where) => `打开 ${where}`,
  net_dns: "域名解析失败（DNS）", net_refused: "连接被拒绝：对方端口没有程序监听", net_unreachable: "网络不可达",
  net_timeout: "超时，没有收到响应", net_certificate: "TLS 证书不受信任", net_tls: "TLS 连接失败",
  net_reset: "连接在收到完整响应之前被断开", net_answer: "收到了响应，但不是平台的响应", net_other: "网络故障",
  nodes: "节点", node_this: "本节点", node_renews: (n) => `当前有 ${num(n)} 个凭证由它获取`, node_renews_nothing: "当前凭证都不是由它获取的",
  node_last: (at) => `最近获取 ${at}`, nodes_none: "尚未见到其他节点",
  store_redis_up: "集群存储（Redis）可访问", store_redis_down: (t) => `集群存储（Redis）已 ${t}无法访问`,
  store_redis_never: "尚未连上集群存储（Redis）", store_leader_up: "上级节点可访问",
  store_leader_down: (t) => `上级节点已 ${t}无法访问`, store_leader_never: "尚未连上上级节点",
  d_renewed_by: "获取它的节点",
  charts: "流量，最多十分钟",
  gets: "每秒读取", gets_foot: (sets, all) => `每秒写入 ${brief(sets)} · 累计读取 ${num(all)}`,
  ratio: "命中率", ratio_foot: (hits, misses) => `命中 ${num(hits)} · 未命中 ${num(misses)}`,
  memory: "内存", memory_foot: (limit, items) => `上限 ${limit} · ${num(items)} 个条目`,
  connections: "连接数", connections_foot: (max, refused) => `上限 ${num(max)} · 拒绝 ${num(refused)}`,
  evictions: "每秒淘汰", evictions_foot: (all) => `累计 ${num(all)}`,
  ago: (t) => `${t}前`, chart_label: (name, now, most) => `${name}：当前 ${now}，近期最高 ${most}`,
  timeline: "续期与故障", range: "时间范围",
  range_15m: "15 分钟", range_3h: "3 小时", range_24h: "24 小时", now: "现在",
  lane_renewed: "续期", lane_fault: "故障", lane_refused: "拒绝写入",
  timeline_help: "用左右方向键在有事件的时刻之间移动；Home 和 End 跳到最早和最近的时刻。",
  timeline_label: (renewed, faults, refused) => `续期 ${num(renewed)} 次，故障 ${num(faults)} 次，拒绝写入 ${num(refused)} 次`,
  latest: "最近", nothing_happened: "这段时间没有事件。", more: (n) => `另有 ${num(n)} 条`,
  ev_renewed: (e) => `${e.from ? `已由 ${e.from} 续期` : "已续期"}，第 ${e.generation} 代，有效期 ${span(e.expires_in_s)}`,
  ev_failed: (e) => `失败：${e.errcode !== null && e.errcode !== undefined ? `${e.errcode}，` : ""}${meaningOf(e)}`,
  ev_recovered: () => "已恢复正常", ev_died_early: (e) => `提前失效${e.errcode ? `（${e.errcode}）` : ""}`,
  ev_accepted_again: () => "微信重新接受", ev_fallback: (e) => `当天余下时间改用 ${e.endpoint}`,
  ev_refused_write: (e) => `拒绝了${e.times > 1 ? "写入，最近一次来自 " : " "}${e.peer}${e.times > 1 ? "" : " 的写入"}${e.foreign ? "，它带来的是另一个 token" : ""}`,
  times: (n) => `${num(n)} 次`,
  sinks: "同时写入",
  sinks_well: (n) => `${num(n)} 处`,
  sinks_failing: (n, of) => (of === 1 ? "同时写入失败" : `${num(of)} 处同时写入中有 ${num(n)} 处失败`),
  sink_redis: "Redis", sink_sql: "数据库", sink_file: "文件", sink_command: "命令",
  sink_written: "已写入", sink_failing: "写入失败", sink_waiting: (n) => `待写入 ${num(n)} 个`,
  sink_last: "最近写入：", sink_never: "尚未写入任何内容。",
  sink_writes: (n) => `写入 ${num(n)} 次`, sink_deletes: (n) => `撤回 ${num(n)} 项`,
  sink_failures: (n) => `失败 ${num(n)} 次`,
  sink_foreign: (n) => `发现其他程序的 token ${num(n)} 次`,
  whose_configuration: "设置有误", whose_target: "目标的问题", whose_network: "网络的问题", whose_upstream: "平台的问题", whose_server: "本服务器的问题",
  apps: "应用", search: "搜索：应用、名称、键名、错误码、地址", filter: "状态", sort: "排序",
  filter_all: "全部状态", filter_trouble: "有问题的",
  sort_trouble: "有问题的在前", sort_expiry: "即将到期的在前", sort_name: "按名称",
  found: (n, of) => (n === of ? `共 ${num(of)} 个应用` : `${num(of)} 个应用中的 ${num(n)} 个`), rest: (n) => `继续显示其余 ${num(n)} 个`,
  nothing: "没有符合条件的应用。请清空搜索，或选择其他状态。",
  col_app: "应用", col_type: "凭证", col_state: "状态", col_life: "剩余有效期", col_next: "下一步",
  col_generation: "代次", col_calls: "今日调用",
  expired: "不可用", never: "尚未获取",
  next_renew: "续期倒计时", next_try: "重试倒计时", next_now: "进行中", next_due: "即将进行",
  platform_mp: "公众号/小程序", platform_wecom: "企业微信", platform_qq: "QQ 小程序", platform_feishu: "飞书",
  platform_component: "第三方平台", platform_authorizer: "授权账号",
  refresh: "立即刷新", probe: "探测",
  refused: (n) => `拒绝写入 ${num(n)} 次`,
  probes_today: (n) => `+ 探测 ${num(n)} 次`, probes_means: "在另一个接口上试用 token，该接口有自己的配额",
  no_quota: "无限额", denied: (n) => `${num(n)} 次被暂缓`,
  what_to_do: "处理办法",
  class_retry: "会自行恢复", class_wait: "微信要求等待", class_operator: "需要您处理", class_internal: "程序的问题",
  d_names: "读取键名", d_endpoint: "接口", d_token: "内容", d_token_is: (end, hash) => `${end ? `末四位 ${end}，` : ""}SHA-256 ${hash}…`,
  d_fetched: "获取时间", d_expires: "到期时间", d_lifetime: "有效期", d_calls: "启动以来的调用",
  d_verifications: "验证次数", d_reports: "客户端报告", d_early: "提前失效", d_forced: "强制刷新",
  d_failures: "连续失败", d_verified: "上次验证", d_probe: "下次探测", d_quota_day: "配额重置",
  d_writers: "被拒绝的写入方", d_writer: (w) => `${w.peer} · ${num(w.noted)} 次 · 最近 ${when(w.last_at_ms)}`, d_foreign: "带来的是另一个 token：它在自行获取",
  last_error: "最近的错误", d_writes: "启动以来拒绝写入", d_foreign_writes: "其中带有另一个 token 的", d_history: "历史记录",
  out_new: "新值", out_same: "未变", out_retry: "重试", out_wait: "等待", out_operator: "待处理", out_internal: "程序错误",
  verdict_accepted: "微信接受", verdict_refused: "微信拒绝", verdict_replaced: "已被替换", verdict_handed_out: "微信仍在下发", verdict_unknown: "无法判断",
  ask_refresh: "立即刷新？", ask_probe: "进行探测？",
  ask_refresh_text: "先询问微信是否仍接受当前值，只有不被接受时才获取新的，因此不会无故使别处的 token 失效。",
  ask_refresh_ticket: "再向微信请求一次票据。只有微信给出不同的票据时才会变化。这次调用计入当日配额。",
  ask_probe_text: "用微信的一个轻量接口试一下当前值。不会获取新值，也不会改变任何东西。",
  cancel: "取消", close: "关闭", asking: "正在询问微信…",
  did_renewed: "已刷新，现在提供的是新值。", did_accepted: "微信接受当前值，没有任何变化。",
  did_refused: "微信拒绝了当前值。", did_handed_out: "微信下发的仍是同一张票据，没有任何变化。",
  did_overtaken: "凭证已更新到另一代，未执行操作。", did_not_checked: "刚刚验证过，未执行操作。",
  did_waiting: "微信给出了时间，在此之前请求没有意义，未执行操作。",
  did_failed: "微信没有给出新值。", did_unknown: "从微信的回答无法判断。",
  did_error: (detail) => `操作失败：${detail}`, did_network: "服务器没有响应。", did_often: (s) => `操作过于频繁，请 ${s} 秒后再试。`,
  footer: "此页面从不显示 token 和密钥。",
  title_trouble: (n) => `(${num(n)}) tokencached`,
};

/** Codes that say that our address is not on the app's list. */
const NOT_ON_THE_LIST = new Set([40164, 61004, 45035, 60020]);

export const TEXTS = { en, zh };

export const chinese = () => document.documentElement.lang.startsWith("zh");
export const language = () => (chinese() ? "zh-CN" : "en");

/** The text of that name; arguments go to those that need them. */
export function t(name, ...given) {
  const text = (chinese() ? zh : en)[name] ?? en[name] ?? name;
  return typeof text === "function" ? text(...given) : text;
}

/** What the server says of an error in the reader's language; in English where it has no other. */
const told = (error, name) => (chinese() ? error[`${name}_zh`] : null) ?? error[name];

/** What an error is, in the server's words. */
export const textOf = (error) => told(error, "text") ?? "";

/** What an error is, in the reader's words: by its code or its kind, and by its text only where it has neither. */
export function meaningOf(error) {
  if (error.seen_ip && NOT_ON_THE_LIST.has(error.errcode)) return t("fault_ip", error.seen_ip);
  if (error.network) return t(`net_${error.network}`);
  return told(error, "meaning") ?? textOf(error);
}

/** What to do about it. */
export const adviceOf = (error) => told(error, "advice") ?? "";

/** The server begins in the middle of a line; here it stands alone. */
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Puts the texts of the markup in place. */
export function translate(root = document) {
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of root.querySelectorAll("[data-label]")) element.setAttribute("aria-label", t(element.dataset.label));
  for (const element of root.querySelectorAll("[data-placeholder]")) element.placeholder = t(element.dataset.placeholder);
}

let formats = {};
function format(kind, make) {
  const key = `${language()} ${kind}`;
  return (formats[key] ??= make(language()));
}

export const num = (n) => format("num", (l) => new Intl.NumberFormat(l)).format(n ?? 0);

/** A figure for a chart: short, at most three digits that count. */
export function brief(n) {
  if (n < 1000) return String(Math.round(n * 10) / 10);
  return format("brief", () => new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 })).format(n);
}

export function bytes(n) {
  let unit = 0;
  for (; n >= 1024 && unit < 4; unit += 1) n /= 1024;
  return `${n >= 100 || unit === 0 ? Math.round(n) : Math.round(n * 10) / 10} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

export const percent = (share) => `${Math.floor(share * 1000) / 10} %`;

/** Time left as on a clock; days in words. Seconds in. */
export function clock(seconds) {
  const total = Math.max(0, Math.floor(seconds));
  if (total >= 86400) return span(total);
  const two = (n) => String(n).padStart(2, "0");
  const [hours, minutes, rest] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** A length of time in words, the two largest units of it. Seconds in. */
export function span(seconds) {
  const total = Math.max(0, Math.floor(seconds));
  const units = chinese() ? [[86400, "天"], [3600, "小时"], [60, "分"], [1, "秒"]] : [[86400, " d"], [3600, " h"], [60, " min"], [1, " s"]];
  const first = units.findIndex(([size]) => total >= size);
  if (first < 0) return `0${units[3][1]}`;
  const parts = units.slice(first, first + 2).map(([size, name], at) => [Math.floor((at ? total % units[first][0] : total) / size), name]);
  return parts.filter(([n], at) => n > 0 || at === 0).map(([n, name]) => n + name).join(" ");
}

export const hour = (ms) => format("hour", (l) => new Intl.DateTimeFormat(l, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" })).format(ms);
export const second = (ms) => format("second", (l) => new Intl.DateTimeFormat(l, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" })).format(ms);
export function when(ms) {
  if (ms === null || ms === undefined) return "";
  const today = new Date(ms).toDateString() === new Date().toDateString();
  const full = () => format("when", (l) => new Intl.DateTimeFormat(l, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }));
  return today ? second(ms) : full().format(ms);
}
