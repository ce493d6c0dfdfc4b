//! Every setting there is: one table, a row a setting.
//!
//! The file, the environment, the flags, `check --print`, the reference in docs and the JSON schema for editors are all driven
//! by it. A new setting is a row here, and a line where the options of its part are read. Plain data; reads nothing.

/// A table of the file: `[server]`, or one of a list such as `[[app]]`.
#[derive(Debug)]
pub struct Section {
    pub name: &'static str,
    /// The name it had before, which is still read.
    pub old_name: &'static str,
    /// One table of several: it has no variables and no flags.
    pub is_list: bool,
    rows: &'static [&'static [Setting]],
    /// What it is about, in English and Chinese.
    pub says: [&'static str; 2],
}

/// A key of a table, with its value's type, range and default.
#[derive(Debug)]
pub struct Setting {
    /// As the file has it: `memory`, `tls.cert`.
    pub key: &'static str,
    pub takes: Takes,
    /// What holds without it, in words, where that is no constant.
    pub default_words: [&'static str; 2],
    /// memcached's flag for it; empty: none.
    pub flag: &'static str,
    pub change: Change,
    /// The key it had before, which is still read; empty: none.
    pub old_key: &'static str,
    /// Of a sink: the types that have it, in words; empty: all.
    pub types: &'static str,
    /// What it does, in English and Chinese.
    pub says: [&'static str; 2],
}

/// What a change of it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The next start.
    Restart,
    /// SIGHUP or a reload.
    Reload,
    /// What is in the file is followed; another file needs a restart.
    Followed,
}

/// The type of a value, with range and default.
#[derive(Debug)]
pub enum Takes {
    Switch(Option<bool>),
    Number {
        low: u64,
        high: u64,
        default: Option<u64>,
        unit: &'static str,
    },
    /// A number of bytes.
    Size {
        low: u64,
        high: u64,
        default: u64,
    },
    /// An access mask in octal.
    Mode(Option<u32>),
    Word(&'static [&'static str], &'static str),
    Text(TextForm, &'static str),
    /// A list of texts; one text with commas too. The default is TOML; empty: none.
    List(TextForm, &'static str),
    /// A list of these words.
    Words(&'static [&'static str]),
    /// Something of its own: what, in English and Chinese, and as a JSON schema. The default is TOML; empty: none.
    Other {
        what: [&'static str; 2],
        json: &'static str,
        default: &'static str,
    },
}

/// What kind of text it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextForm {
    Text,
    Path,
    /// The path of a PEM file with certificates.
    Pem,
    /// The path of a PEM file with a private key.
    PemKey,
    Url,
    Address,
    Host,
    /// Never shown.
    Secret,
    /// The name of a variable that has a secret.
    Variable,
    /// The name of a credential of systemd's.
    Credential,
}

impl Section {
    /// Its settings, in the order of the table.
    pub fn settings(&self) -> impl Iterator<Item = &'static Setting> + use<> {
        self.rows.iter().copied().flatten()
    }

    /// Their keys.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.settings().map(|setting| setting.key)
    }

    /// The setting with that key.
    pub fn find(&self, key: &str) -> Option<&'static Setting> {
        self.settings().find(|setting| setting.key == key)
    }

    /// The setting that had that key before.
    pub fn find_old(&self, key: &str) -> Option<&'static Setting> {
        self.settings().find(|setting| setting.old_key == key && !key.is_empty())
    }

    /// The environment variable of one of its settings; none for a list of tables.
    pub fn variable(&self, setting: &Setting) -> Option<String> {
        (!self.is_list).then(|| variable(self.name, setting.key))
    }

    /// The same under the names that the section or the setting had before.
    pub fn old_variable(&self, setting: &Setting) -> Option<String> {
        match (self.is_list, self.old_name, setting.old_key) {
            (true, ..) | (false, "", "") => None,
            (false, "", key) => Some(variable(self.name, key)),
            (false, name, _) => Some(variable(name, setting.key)),
        }
    }
}

fn variable(section: &str, key: &str) -> String {
    format!("TOKENCACHED_{section}_{}", key.replace('.', "_")).to_uppercase()
}

/// The line that a table of it begins with.
pub fn header(section: &Section) -> String {
    if section.is_list { format!("[[{}]]", section.name) } else { format!("[{}]", section.name) }
}

/// The section of that name, if there is one.
pub fn find_section(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.name == name)
}

/// The section of a name that the table has.
pub fn section(name: &str) -> &'static Section {
    find_section(name).unwrap_or(&SECTIONS[0])
}

/// The section and the setting that a flag is for. An empty one is none.
pub fn of_flag(flag: &str) -> Option<(&'static Section, &'static Setting)> {
    let mut all = SECTIONS.iter().flat_map(|section| section.settings().map(move |setting| (section, setting)));
    all.find(|(_, setting)| !flag.is_empty() && setting.flag == flag)
}

// Constructors: what a row does not say is empty.

const fn row(key: &'static str, takes: Takes, en: &'static str, zh: &'static str) -> Setting {
    let (none, change) = (["", ""], Change::Restart);
    Setting { key, takes, default_words: none, flag: "", change, old_key: "", types: "", says: [en, zh] }
}

const fn switch(key: &'static str, default: bool, en: &'static str, zh: &'static str) -> Setting {
    row(key, Takes::Switch(Some(default)), en, zh)
}

const fn number(key: &'static str, range: [u64; 2], default: u64, en: &'static str, zh: &'static str) -> Setting {
    row(key, Takes::Number { low: range[0], high: range[1], default: Some(default), unit: "" }, en, zh)
}

/// A number without a constant default.
const fn open(key: &'static str, low: u64, high: u64, en: &'static str, zh: &'static str) -> Setting {
    row(key, Takes::Number { low, high, default: None, unit: "" }, en, zh)
}

const fn text(key: &'static str, form: TextForm, en: &'static str, zh: &'static str) -> Setting {
    row(key, Takes::Text(form, ""), en, zh)
}

const fn list(key: &'static str, form: TextForm, default: &'static str, en: &'static str, zh: &'static str) -> Setting {
    row(key, Takes::List(form, default), en, zh)
}

const fn other(what: [&'static str; 2], json: &'static str, default: &'static str) -> Takes {
    Takes::Other { what, json, default }
}

/// What the key before it takes, handed over by systemd.
const fn credential(key: &'static str) -> Setting {
    let says = ["the same, as the name of a systemd credential", "同上，改用 systemd 凭据：填凭据名"];
    text(key, TextForm::Credential, says[0], says[1])
}

/// A key that its table must have.
const fn needed(setting: Setting) -> Setting {
    setting.or("needed", "必填")
}

impl Setting {
    const fn flag(mut self, flag: &'static str) -> Setting {
        self.flag = flag;
        self
    }

    const fn unit(mut self, name: &'static str) -> Setting {
        if let Takes::Number { unit, .. } = &mut self.takes {
            *unit = name;
        }
        self
    }

    const fn change(mut self, change: Change) -> Setting {
        self.change = change;
        self
    }

    const fn was(mut self, old_key: &'static str) -> Setting {
        self.old_key = old_key;
        self
    }

    const fn of(mut self, types: &'static str) -> Setting {
        self.types = types;
        self
    }

    const fn or(mut self, en: &'static str, zh: &'static str) -> Setting {
        self.default_words = [en, zh];
        self
    }
}

/// The four ways to give a secret. `$old` is the key before, `$change` what a change of the file needs. `$old` is a `tt`: as a
/// `literal` it would no longer match `""` below.
macro_rules! secret {
    ($key:literal, $old:tt, $types:literal, $change:expr, $en:literal, $zh:literal) => {
        [
            secret!(@one $key, $old, "_file", $types, Path, $change, concat!("a file that contains only this: ", $en, "; mode 0600, otherwise a warning"), concat!("文件，内容只有：", $zh, "；权限须为 0600，否则警告")),
            secret!(@one $key, $old, "_credential", $types, Credential, Change::Restart, "the same, as the name of a systemd credential", "同上，改用 systemd 凭据：填凭据名"),
            secret!(@one $key, $old, "_env", $types, Variable, Change::Restart, "the same, as the name of an environment variable", "同上，改用环境变量：填变量名"),
            secret!(@one $key, $old, "", $types, Secret, Change::Restart, concat!($en, ", written here; allowed, but in the configuration file it is warned about"), concat!("直接写出", $zh, "；可用，但写在配置文件里会警告")),
        ]
    };
    (@one $key:literal, "", $end:literal, $types:literal, $form:ident, $change:expr, $en:expr, $zh:expr) => {
        text(concat!($key, $end), TextForm::$form, $en, $zh).change($change).of($types)
    };
    (@one $key:literal, $old:literal, $end:literal, $types:literal, $form:ident, $change:expr, $en:expr, $zh:expr) => {
        text(concat!($key, $end), TextForm::$form, $en, $zh).change($change).of($types).was(concat!($old, $end))
    };
}

/// A certificate of one of our ports and its key, each as a file or as a credential.
#[rustfmt::skip]
macro_rules! identity {
    ($whose_en:literal, $whose_zh:literal, $flag_cert:literal, $flag_key:literal) => {
        [
            text("tls.cert", TextForm::Pem, concat!($whose_en, " certificate and the chain above it; TCP then uses TLS"), concat!($whose_zh, "的证书及上级证书；设置后 TCP 使用 TLS")).change(Followed).flag($flag_cert),
            credential("tls.cert_credential"),
            text("tls.key", TextForm::PemKey, "the certificate's private key", "该证书的私钥").or("the file of `tls.cert`", "与 `tls.cert` 同一文件").change(Followed).flag($flag_key),
            credential("tls.key_credential"),
        ]
    };
}

use Change::{Followed, Reload, Restart};

const MIB: u64 = 1 << 20;
const MEMORY_MAX: u64 = if usize::BITS >= 64 { 1 << 44 } else { 1 << 31 };
const A_DAY_S: u64 = 86_400;
const CALLS_MAX: u64 = 1_000_000_000;
const TIMEOUT_MS: [u64; 2] = [100, 60_000];
const TLS_VERSIONS: &[&str] = &["1.2", "1.3"];
const CREDENTIALS: &[&str] =
    &["access_token", "jsapi_ticket", "wx_card_ticket", "agent_ticket", "component_access_token"];
const ENDPOINTS: &[&str] =
    &["stable_token", "token", "gettoken", "getToken", "tenant_access_token", "api_component_token"];
const FORMS: &[&str] = &["raw", "json", "json_string", "json_number", "json_object", "php", "php_string", "php_array"];
const SHOWN: &[&str] =
    &["value", "expires_at", "expires_in", "fetched_at", "expires_at_ms", "expires_in_ms", "fetched_at_ms"];

const fn rights(default: &'static str) -> Takes {
    let what = [
        "`\"all\"`, `\"ordinary\"`, `\"managed\"`, `\"app:<appid>\"`, `\"read_only\"`, or a list of them",
        "`\"all\"`、`\"ordinary\"`、`\"managed\"`、`\"app:<appid>\"`、`\"read_only\"`，或它们的列表",
    ];
    other(what, r#"{"type":["string","array"],"items":{"type":"string"}}"#, default)
}

#[rustfmt::skip]
const KEYS: Takes = other(["a list of keys and tables", "键和表的列表"], r#"{"type":"array","items":{"type":["string","object"]}}"#, "[]");

/// All tables of the file, in the order in which they are printed.
#[rustfmt::skip]
pub const SECTIONS: &[Section] = &[
    Section { name: "server", old_name: "", is_list: false, says: ["The port of memcached clients.", "memcached 客户端的端口。"], rows: &[&[
        list("listen", TextForm::Address, "[\"127.0.0.1:11211\"]", "addresses, with or without a port; port 0 takes any free one", "监听地址，端口可省略；端口 0 表示任选一个空闲端口").flag("-l"),
        text("unix_socket", TextForm::Path, "a Unix socket; TCP is then off unless `listen` is given too (with `-s` always)", "Unix socket；此时不监听 TCP，除非同时设置了 `listen`（用 `-s` 时一律不监听 TCP）").flag("-s"),
        row("unix_mode", Takes::Mode(None), "access mask of the Unix socket", "Unix socket的权限").or("`\"0700\"`, with a group `\"0770\"`", "`\"0700\"`，设置了组时为 `\"0770\"`").flag("-a"),
        text("unix_group", TextForm::Text, "the group of the Unix socket; the server must be in it", "Unix socket的组；服务器进程须属于该组").or("the process's own", "进程自己的组"),
        row("rights", rights("\"all\""), "the most that clients may do on `listen` and `unix_socket`", "经 `listen` 和 `unix_socket` 接入的客户端的权限上限"),
        text("auth_file", TextForm::Path, "users, a line `user:password` each; clients must log in then", "用户文件，每行一个 `user:password`；设置后客户端必须登录").change(Followed).flag("-Y"),
        credential("auth_credential"),
    ], &identity!("the server's", "服务器", "-o ssl_chain_cert", "-o ssl_key"), &[
        text("tls.client_ca", TextForm::Pem, "the authorities whose certificates clients may show", "信任的 CA：客户端可凭其签发的证书接入").change(Followed).flag("-o ssl_ca_cert"),
        row("tls.client_certificates", Takes::Word(&["none", "optional", "required"], ""), "whether clients must show a certificate", "是否要求客户端出示证书").or("`\"required\"` if there is a `client_ca`", "设置了 `client_ca` 时为 `\"required\"`").flag("-o ssl_verify_mode"),
        row("tls.min_version", Takes::Word(TLS_VERSIONS, "1.2"), "the lowest version of TLS", "TLS 的最低版本").flag("-o ssl_min_version"),
        switch("allow_unauthenticated", false, "other machines may connect without any authentication", "允许其他机器接入，不做任何身份验证").flag("--allow-unauthenticated"),
        row("memory", Takes::Size { low: MIB, high: MEMORY_MAX, default: 64 * MIB }, "memory for ordinary keys; a plain number is bytes, with `-m` mebibytes", "普通键的内存；不带单位的数字为字节，用 `-m` 时为 MiB").flag("-m"),
        row("item_size_max", Takes::Size { low: 1024, high: 1024 * MIB, default: MIB }, "largest item, at most half of `memory`", "单个条目的大小上限，不能超过 `memory` 的一半").flag("-I"),
        switch("evict", true, "`false`: stores fail when memory is full (`-M`)", "`false`：内存满时写入失败（`-M`）").flag("-M"),
        number("max_connections", [1, 1_000_000], 1024, "the most connections at once", "同时连接数的上限").flag("-c"),
        open("threads", 1, 1024, "worker threads", "工作线程数").or("one per core", "每个 CPU 核一个").flag("-t"),
        number("backlog", [1, 65_535], 1024, "the most connections that wait to be accepted", "等待接受的连接数上限").flag("-b"),
        number("requests_per_turn", [1, 1_000_000], 256, "how many requests of one connection are answered in a row before others get a turn", "一个连接最多连续处理多少个请求，然后轮到其他连接").flag("-R"),
        number("idle_timeout_s", [0, 31_536_000], 0, "close a connection that has been idle this long; 0: never", "连接空闲超过此时间即关闭；0：不关闭").unit("s").flag("-o idle_timeout"),
        number("first_get_wait_ms", [0, 900], 700, "how long a `get` waits for a first fetch, and a `delete` for its verification; pecl memcache gives up after 1000 ms", "`get` 等待首次获取、`delete` 等待验证的最长时间；pecl memcache 在 1000 毫秒后放弃").unit("ms"),
        row("refuse_with", Takes::Word(&["not_stored", "client_error"], "not_stored"), "how a client's write to a managed key is refused", "拒绝客户端写入托管键时的应答"),
        row("protocol", Takes::Word(&["auto", "ascii", "binary"], "auto"), "which protocol of memcached is spoken; `auto`: each client chooses. `-S` is `-B binary` and needs users", "使用哪种 memcached 协议；`auto`：由客户端选择。`-S` 等于 `-B binary`，且必须配置用户").flag("-B"),
        switch("shutdown_command", false, "clients may stop the server by the command `shutdown`", "允许客户端用 `shutdown` 命令停止服务器").flag("-A"),
        text("user", TextForm::Text, "switch to this user when started as root; it must be able to write in the state file's folder", "以 root 启动时切换到该用户；该用户须能写状态文件所在的目录").flag("-u"),
        text("pid_file", TextForm::Path, "write the process id there", "把进程号写入此文件").flag("-P"),
        switch("daemonize", false, "go to the background", "转入后台运行").flag("-d"),
        switch("lock_memory", false, "keep all memory resident; a warning if the system refuses", "锁定全部内存，不换出；系统不允许时警告").flag("-k"),
    ]] },
    Section { name: "server.listener", old_name: "", is_list: true, says: ["A further address, with rules of its own.", "另一个监听地址，规则单独设置。"], rows: &[&[
        needed(text("address", TextForm::Text, "an address, or `\"unix:\"` and a path", "地址，或 `\"unix:\"` 加路径")),
        row("rights", rights("\"all\""), "the most that clients may do there", "从该地址接入的客户端的权限上限"),
        row("auth", Takes::Switch(None), "clients must log in", "客户端必须登录").or("`true` if there is an `auth_file`", "有 `auth_file` 时为 `true`"),
        row("tls", Takes::Switch(None), "TLS; TCP only", "使用 TLS；仅限 TCP").or("`true` if there is a certificate", "有证书时为 `true`"),
        row("mode", Takes::Mode(None), "access mask of a Unix socket", "Unix socket的权限").or("`\"0700\"`, with a group `\"0770\"`", "`\"0700\"`，设置了组时为 `\"0770\"`"),
        text("group", TextForm::Text, "the group of a Unix socket", "Unix socket的组").or("the process's own", "进程自己的组"),
    ]] },
    Section { name: "state", old_name: "", is_list: false, says: ["The state file, and what several nodes share.", "状态文件，以及多节点共享状态的设置。"], rows: &[&[
        text("path", TextForm::Path, "the state file, or `\"none\"`: tokens are kept in memory only", "状态文件；`\"none\"`：token 只保存在内存中").or("depends on the system, see the manual", "因系统而异，见手册"),
        text("url", TextForm::Url, URL_REDIS, URL_REDIS_ZH).or("none: this node is alone", "没有：单节点"),
        number("db", [0, 65_535], 0, "the number of the database, if `url` has none", "数据库编号，`url` 中没有时使用"),
        text("user", TextForm::Text, "a user, for a Redis with ACLs", "用户名，用于启用了 ACL 的 Redis"),
    ], &secret!("password", "", "", Followed, "the password of the Redis", "该 Redis 的密码"), &[
        text("ca_file", TextForm::Pem, "with TLS: the authorities to trust", "使用 TLS 时信任的 CA").or("the public ones", "公共 CA"),
        text("cert_file", TextForm::Pem, "with TLS: this server's certificate, if the Redis asks for one", "使用 TLS 时本服务器的证书，Redis 要求时才需要"),
        text("key_file", TextForm::PemKey, "the certificate's private key", "该证书的私钥"),
        credential("key_credential"),
        list("trusted_hosts", TextForm::Host, "", "where the password may go when a sentinel or a cluster names the master, besides the hosts of `url`: addresses, networks, names, `*.domain`", "哨兵或集群返回主节点时，除 `url` 中的主机外，密码还可以发给哪些主机：地址、网段、主机名、`*.domain`").or("with `ca_file`: any host with a certificate of it; otherwise private networks, names without a dot, and the domain or /16 network (IPv6: /48) of a host of `url`", "有 `ca_file` 时：持有其签发证书的任何主机；否则：私有网段、不含点的主机名，以及与 `url` 中主机同域名或同 /16（IPv6 为 /48）网段的主机"),
        number("timeout_ms", TIMEOUT_MS, 1000, "longest wait for a connection and for an answer", "建立连接和等待应答的最长时间").unit("ms"),
    ], &secret!("secret", "", "", Restart, "the secret that encrypts what is in the Redis (at least 16 characters, the same on all nodes)", "用于 Redis 中数据的加密密钥（至少 16 个字符，各节点相同）"), &[
        row("prefix", Takes::Text(TextForm::Text, "tokencached"), "begins every key in the Redis; 1 to 64 bytes without braces, blanks and control characters", "Redis 中每个键的前缀；1 至 64 字节，不能含花括号、空白和控制字符"),
        number("poll_every_ms", TIMEOUT_MS, 2000, "how often to check for changes whose message was lost", "多久检查一次变更（以防变更消息丢失）").unit("ms"),
        text("node", TextForm::Text, "a name for this node that people read; at most 64 of `A-Za-z0-9._-`", "本节点的名字，供人识别；最多 64 个字符，只能用 `A-Za-z0-9._-`").or("the host's name", "主机名"),
        list("leader_urls", TextForm::Url, "", "the HTTP API of the nodes to follow, such as `\"http://other-node:2130\"`, the preferred one first", "所跟随节点的 HTTP 端口，如 `\"http://other-node:2130\"`，首选的写在最前").was("upstream"),
    ], &secret!("leader_key", "upstream_key", "", Followed, "an API key of the leader's `keys_file` that may read the apps", "所跟随节点的 `keys_file` 中可读各应用的 API 密钥"), &[
        text("leader_ca_file", TextForm::Pem, "with `https`: the authorities to trust", "使用 `https` 时信任的 CA").or("the public ones", "公共 CA").was("upstream_ca_file"),
    ]] },
    Section { name: "upstream", old_name: "", is_list: false, says: ["How the platforms' HTTPS APIs are reached.", "如何访问各平台的 HTTPS 接口。"], rows: &[&[
        row("base_url", Takes::Text(TextForm::Url, "https://api.weixin.qq.com"), "the address of WeChat's API; the secret is in the request, so `http://` is allowed only for this machine", "微信接口的地址；请求中含有 AppSecret，所以 `http://` 只允许用于本机"),
        list("hosts", TextForm::Url, "", "addresses that are called instead of `base_url`, the preferred one first", "代替 `base_url` 的地址，首选的写在最前").or("WeChat's five; none if `base_url` is another address", "微信的五个地址；改了 `base_url` 时没有"),
        text("ca_file", TextForm::Pem, "further root certificates to trust", "额外信任的根证书"),
        number("connect_timeout_ms", TIMEOUT_MS, 3000, "longest wait for a connection, at most `total_timeout_ms`", "建立连接的最长时间，不能超过 `total_timeout_ms`").unit("ms"),
        number("total_timeout_ms", [100, 120_000], 8000, "longest wait for a whole call", "一次调用的最长时间").unit("ms"),
        number("concurrency", [1, 1000], 16, "the most calls at once, all apps together", "同时进行的调用数上限，所有应用合计"),
        text("proxy", TextForm::Url, "an HTTP proxy, `http://[user:password@]host:port`; `HTTPS_PROXY` and its like are not used", "HTTP 代理，`http://[user:password@]host:port`；不使用 `HTTPS_PROXY` 等环境变量"),
    ]] },
    Section { name: "http", old_name: "side", is_list: false, says: ["The HTTP API: status page, metrics, JSON. Off without `listen`.", "HTTP 端口：状态页、指标、JSON。没有 `listen` 时关闭。"], rows: &[&[
        list("listen", TextForm::Address, "", "addresses, port 2130 unless given; other machines need `keys_file`", "监听地址，默认端口 2130；要让其他机器访问，须设置 `keys_file`").or("none: off", "没有：关闭"),
        text("keys_file", TextForm::Path, "API keys, a line `name key right...` each", "API 密钥文件，每行一个 `name key right...`").change(Followed),
        credential("keys_credential"),
        list("allowed_hosts", TextForm::Host, "[]", "host names that clients may use for the server, besides `localhost` and the address that they connect to", "除 `localhost` 和所连的地址外，客户端还可以用哪些主机名访问"),
        list("trusted_proxies", TextForm::Host, "[]", "addresses or networks of proxies whose `X-Forwarded-For` (or `Forwarded`) and `X-Forwarded-Proto` are trusted", "代理的地址或网段，其 `X-Forwarded-For`（或 `Forwarded`）和 `X-Forwarded-Proto` 可信"),
    ], &identity!("the HTTP API's", "HTTP 端口", "", ""), &[
        row("tls.min_version", Takes::Word(TLS_VERSIONS, "1.2"), "the lowest version of TLS", "TLS 的最低版本"),
        number("max_connections", [1, 100_000], 256, "the most connections at once; memcached clients, and 64 that are kept for health checks and short calls, are not counted", "同时连接数的上限，不含 memcached 客户端，也不含为健康检查等短请求保留的 64 个"),
        number("max_connections_per_peer", [1, 100_000], 64, "the same from one address (IPv6: one /64); `trusted_proxies` are not counted", "每个地址（IPv6 按 /64）同时连接数的上限；`trusted_proxies` 不计"),
        number("requests_per_s", [1, 1_000_000], 50, "requests a second of each address without a key, and of each key at each address; a burst of four seconds' worth is allowed", "不带 API 密钥时每个地址、带 API 密钥时每个密钥在每个地址上的每秒请求数；允许四秒的突发").unit("1/s"),
        row("metrics_per_credential", Takes::Word(&["auto", "all", "troubled"], "auto"), "which credentials have series of their own in `/metrics`; `auto`: all up to 1,000 apps, above that those in trouble", "哪些凭证在 `/metrics` 中有单独的时间序列；`auto`：应用不超过 1,000 个时为全部，超过时只有出问题的"),
        open("wechat_expires_in_min_s", 0, 7000, "the least `expires_in` in answers to calls in WeChat's form", "以微信接口的形式调用时，所返回 `expires_in` 的下限").unit("s").or("depends on the call and the client", "因调用和客户端而异"),
        switch("old_metric_names", false, "`/metrics` has the names that it had before; for old dashboards", "`/metrics` 使用以前的指标名，供旧仪表盘使用"),
    ]] },
    Section { name: "log", old_name: "", is_list: false, says: ["The log, on standard error.", "日志，写到标准错误。"], rows: &[&[
        switch("json", false, "JSON lines instead of text", "每行输出 JSON，而不是文本"),
        row("advice_language", Takes::Word(&["en", "zh"], "en"), "language of a line's `advice`, whatever the locale; the rest of the line is English", "日志行中 `advice` 所用的语言，与系统区域设置无关；行的其余部分是英文"),
        number("verbosity", [0, 3], 0, "0 and 1: what an operator should know; 2: also each connection and renewal; 3: everything", "0 和 1：运维人员需要知道的；2：还有每个连接和每次续期；3：全部").flag("-v"),
    ]] },
    Section { name: "user", old_name: "", is_list: true, says: ["What a user may do.", "各用户的权限。"], rows: &[&[
        needed(text("name", TextForm::Text, "a user of `auth_file`; `\"*\"`: every user without such a table", "`auth_file` 中的用户；`\"*\"` 指没有单独列出的所有用户")).change(Reload),
        needed(row("rights", rights(""), "what that user may do; `[]`: nothing", "该用户的权限；`[]`：没有任何权限")).change(Reload),
    ]] },
    Section { name: "certificate", old_name: "", is_list: true, says: ["What a client with a certificate may do.", "各证书持有者的权限。"], rows: &[&[
        needed(text("name", TextForm::Text, "`\"cn:NAME\"`, `\"dns:HOST\"` or `\"uri:URI\"`; `\"*\"`: every certificate without such a table", "`\"cn:NAME\"`、`\"dns:HOST\"` 或 `\"uri:URI\"`；`\"*\"` 指没有单独列出的所有证书")).change(Reload),
        needed(row("rights", rights(""), "what that client may do; `[]`: nothing", "持有者的权限；`[]`：没有任何权限")).change(Reload),
    ]] },
    Section { name: "app", old_name: "", is_list: true, says: ["An app whose credentials are kept current.", "由本服务器保持凭证有效的应用。"], rows: &[&[
        needed(text("appid", TextForm::Text, "as the platform shows it; an unusual form is warned about", "平台上显示的 appid；格式异常时会警告")),
        text("name", TextForm::Text, "what people call the app, 1 to 64 characters; shown beside the appid, part of no key", "应用的名称，供人识别，1 至 64 个字符；显示在 appid 旁边，不是键的一部分"),
    ], &secret!("secret", "", "", Followed, "the app's secret", "应用的 AppSecret"), &[
        row("platform", Takes::Word(&["mp", "wecom", "qq", "feishu", "component"], "mp"), "`mp` official accounts and mini programs, `wecom` 企业微信, `qq` QQ mini programs, `feishu`, `component` a third-party platform of the open platform", "`mp` 公众号和小程序，`wecom` 企业微信，`qq` QQ 小程序，`feishu` 飞书，`component` 开放平台第三方平台").was("kind"),
        row("endpoint", Takes::Word(ENDPOINTS, ""), "the call that fetches the token: `mp` has `stable_token`, and `token`, where each fetch makes a new one; the other platforms have one each", "获取 token 所用的接口：`mp` 有 `stable_token` 和 `token`（每次获取都产生新 token）；其他平台各只有一个").or("the platform's first: `\"stable_token\"`", "平台的第一个：`\"stable_token\"`"),
        text("base_url", TextForm::Url, "the address of the API, for this app alone", "接口的地址，只用于本应用").or("`upstream.base_url`", "`upstream.base_url`"),
        list("tickets", TextForm::Text, "[]", "fetched with the access token: `jsapi`, `wx_card` for `mp`; `jsapi`, `agent` for `wecom`", "随 access token 一起获取的 ticket：`mp` 为 `jsapi`、`wx_card`；`wecom` 为 `jsapi`、`agent`"),
        text("agent", TextForm::Text, "`wecom` only: which of the corporation's apps; its keys then end in `:<corpid>:<agent>`", "仅 `wecom`：企业内的哪个应用；设置后键以 `:<corpid>:<agent>` 结尾"),
        text("verify_ticket_file", TextForm::Path, "`component` only: where the receiver of WeChat's pushes writes the verify ticket", "仅 `component`：存放 verify ticket 的文件，由接收微信推送的程序写入").change(Followed),
    ], APP_KEYS, APP_QUOTAS, &[
        row("fallback", Takes::Word(&["stable_token"], ""), "for `endpoint = \"token\"`: the call to use for the rest of the day when the quota is used up", "仅用于 `endpoint = \"token\"`：额度用完后，当天改用的接口"),
        open("forced_per_day", 0, 20, "how often a day WeChat may be forced to replace a token that it refuses but still returns", "微信拒绝某个 token 却仍返回它时，每天最多强制更换几次").or("10", "10"),
        open("probe_every_s", 0, A_DAY_S, "probe the token every so many seconds (10 or more); 0: only after a report", "每隔多少秒用一次轻量调用验证 token，至少 10 秒；0：只在有人上报后验证").unit("s").or("300 for up to 600 apps", "应用不超过 600 个时为 300"),
        row("adopt", other(["`\"sink\"`, `{ memcached = \"HOST:PORT\", key = \"KEY\" }` or `{ file = \"/path\" }`", "`\"sink\"`、`{ memcached = \"HOST:PORT\", key = \"KEY\" }` 或 `{ file = \"/path\" }`"], r#"{"anyOf":[{"enum":["sink"]},{"type":"object","properties":{"memcached":{"type":"string"},"key":{"type":"string"},"file":{"type":"string"}},"additionalProperties":false}]}"#, ""), "for `endpoint = \"token\"`: where the site keeps the token that it has fetched itself; that token is served until it expires", "仅用于 `endpoint = \"token\"`：站点自己获取的 token 存放在哪里；该 token 一直提供到过期为止"),
    ]] },
    Section { name: "app.authorizer", old_name: "", is_list: true, says: ["An account that has authorised a component, below its `[[app]]`.", "授权给第三方平台的账号，写在该平台的 `[[app]]` 之下。"], rows: &[&[
        needed(text("appid", TextForm::Text, "the account's; no other app may have it", "该账号的 appid，不能与其他应用重复")),
        text("name", TextForm::Text, "what people call the account, as for any app", "账号的名称，写法同应用的 `name`"),
    ], &secret!("refresh_token", "", "", Followed, "the refresh token of the account's authorisation", "该账号授权的 refresh token"), &[
        list("tickets", TextForm::Text, "[]", "fetched with the access token: `jsapi`, `wx_card`", "随 access token 一起获取的 ticket：`jsapi`、`wx_card`"),
    ], APP_KEYS, APP_QUOTAS] },
    Section { name: "sink", old_name: "", is_list: true, says: ["A store of the site's own that is kept current: a Redis (`url`), a database (`url`), files (`file`) or a command (`command`).", "站点自己的存储，由本服务器保持更新：Redis（`url`）、数据库（`url`）、文件（`file`）或命令（`command`）。"], rows: &[&[
        text("url", TextForm::Url, "a Redis as in `[state]`; or a database: `mysql://user@host[:port]/database`, `mariadb://...`, `postgres://...`, `sqlite:/path`; without a password", "Redis，同 `[state]`；或数据库：`mysql://user@host[:port]/database`、`mariadb://...`、`postgres://...`、`sqlite:/path`；不含密码").of("redis, sql"),
        text("file", TextForm::Path, "a file's path; `{appid}`, `{id}`, `{type}` and `{name}` are filled in", "文件路径；可用占位符 `{appid}`、`{id}`、`{type}` 和 `{name}`").of("file"),
        row("command", other(["a list: program, arguments", "列表：程序和参数"], r#"{"type":"array","items":{"type":"string"},"minItems":1}"#, ""), "a program that is run for each value that is written, with the value on its standard input; `{appid}`, `{id}`, `{type}`, `{expires_at}` and `{expires_in}` are filled in", "每次写入一个值时运行的程序，值从标准输入传入；可用占位符 `{appid}`、`{id}`、`{type}`、`{expires_at}` 和 `{expires_in}`").of("command"),
        list("apps", TextForm::Text, "", "the apps that are written, by appid; with an agent `\"<corpid>:<agent>\"`", "写入哪些应用的凭证：填 appid；有 agent 时填 `\"<corpid>:<agent>\"`").or("all", "全部"),
        row("types", Takes::Words(CREDENTIALS), "the types of credentials that are written", "写入哪些类型的凭证").or("all", "全部").was("kinds"),
        list("presets", TextForm::Text, "[]", "the keys, tables or files that a well-known SDK reads, by the SDK's name", "常用 SDK 所读取的键、表或文件；填 SDK 的名字").of("redis, sql, file"),
        row("prefix", Takes::Text(TextForm::Text, ""), "stands before every key, or table's name, of `presets`", "加在 `presets` 的每个键名或表名前面").or("`\"\"`", "`\"\"`").of("redis, sql"),
        number("check_every_s", [1, 3600], 5, "how often to check that entries are still there, as this server wrote them", "多久检查一次所写的内容是否还在、有没有被改动").unit("s").of("redis, sql, file"),
        number("rewrite_every_s", [0, A_DAY_S], 300, "how often everything is written again; 0: only when something changes", "多久全部重写一次；0：只在有变化时写入").unit("s").or("300; for a command 0", "300；命令为 0"),
        number("timeout_ms", TIMEOUT_MS, 2000, "longest wait for a connection and for an answer", "建立连接和等待应答的最长时间").unit("ms").of("redis, sql"),
        number("db", [0, 65_535], 0, "the number of the database, if `url` has none", "数据库编号，`url` 中没有时使用").of("redis"),
        text("user", TextForm::Text, "the user who logs in", "登录用的用户名").of("redis, sql"),
        text("ca_file", TextForm::Pem, "the authorities to trust: for a Redis instead of the public ones, for a database besides them", "信任的 CA：对 Redis 取代公共 CA，对数据库则是在公共 CA 之外增加").or("the public ones", "公共 CA").of("redis, sql"),
        text("cert_file", TextForm::Pem, "with TLS: this server's certificate, if the Redis asks for one", "使用 TLS 时本服务器的证书，Redis 要求时才需要").of("redis"),
        text("key_file", TextForm::PemKey, "the certificate's private key", "该证书的私钥").of("redis"),
        credential("key_credential").of("redis"),
        list("trusted_hosts", TextForm::Host, "", "as in `[state]`", "同 `[state]`").or("as in `[state]`", "同 `[state]`").of("redis"),
    ], &secret!("password", "", "redis, sql", Followed, "the password of the Redis or the database", "该 Redis 或数据库的密码"), &[
        row("keys", KEYS, "the keys to write; `{type}`, `{id}`, `{appid}`, `{agent}`, `{secret}`, `{secret10}` and `{md5:...}` are filled in", "要写的键；可用占位符 `{type}`、`{id}`、`{appid}`、`{agent}`、`{secret}`、`{secret10}` 和 `{md5:...}`").or("`[\"{type}:{id}\"]`; with `presets` none", "`[\"{type}:{id}\"]`；有 `presets` 时没有").of("redis"),
        row("ttl", Takes::Word(&["left", "none"], "left"), "`left`: keys expire with the token; `none`: they stay until the server deletes them", "`left`：键随 token 到期；`none`：不设过期，由本服务器删除").of("redis"),
        number("ttl_margin_s", [0, A_DAY_S], 0, "keys expire this long before the token does", "键比 token 提前多久到期").unit("s").of("redis"),
        text("socket", TextForm::Path, "the Unix socket of MySQL, or the folder of PostgreSQL's socket; the host in `url` is then `localhost`", "MySQL 的 Unix socket，或 PostgreSQL 的 socket所在的目录；此时 `url` 中的主机写 `localhost`").of("sql"),
        row("tls", Takes::Word(&["verify", "encrypt", "off"], ""), "`verify`: a certificate that names the host of `url`; `encrypt`: any certificate", "`verify`：证书须与 `url` 中的主机相符；`encrypt`：接受任何证书").or("`\"verify\"`; on this machine: TLS only if the database offers it", "`\"verify\"`；数据库在本机时，对方支持才使用 TLS").of("sql"),
        row("statement", other(["a text, or a list of texts", "文本，或文本的列表"], r#"{"type":["string","array"],"items":{"type":"string"}}"#, ""), "the statement that writes a value; of a list all are run or none. Needed without `presets`", "写入值的语句；写成列表时，要么全部执行，要么都不执行。没有 `presets` 时必填").of("sql"),
        text("insert", TextForm::Text, "the statement that is run when the first one has changed no row", "第一条语句没有改动任何行时执行的语句").of("sql"),
        text("read", TextForm::Text, "a `SELECT` of the value that is stored there, with its time if wanted", "读出现有值的 `SELECT`，可同时读出其时间").of("sql"),
        text("retract", TextForm::Text, "the statement that is run when there is no valid value any more", "不再有有效值时执行的语句").or("with `read`: `statement` with times that are past", "有 `read` 时：时间写成过去的 `statement`").of("sql"),
        text("template", TextForm::Text, "the file's text, with `{value}`, `{expires_at}`, `{expires_in}`, `{fetched_at}`, also with `_ms`, and times with a number added or taken off", "文件的内容，可用占位符 `{value}`、`{expires_at}`、`{expires_in}`、`{fetched_at}`；时间可加后缀 `_ms`，也可加减一个数").of("file"),
        row("escape", Takes::Word(&["php", "json", "none"], "none"), "how `{value}` is escaped in a `template`", "`template` 中 `{value}` 的转义方式").of("file"),
        row("encoding", Takes::Word(FORMS, "raw"), "as for an alias, instead of `presets` and `template`", "写法同别名，用来代替 `presets` 和 `template`").of("file"),
        row("fields", other(["a table, or a list without names", "表，或不带名字的列表"], r#"{"type":["object","array"]}"#, ""), "as for an alias", "写法同别名").of("file"),
        row("shows", Takes::Word(SHOWN, "value"), "as for an alias", "写法同别名").of("file"),
        open("at_least", 0, A_DAY_S, "written times show at least this much life left", "写出的时间至少显示还剩这么久").unit("s").or("three times `rewrite_every_s`", "`rewrite_every_s` 的三倍").of("file"),
        row("mode", Takes::Mode(Some(0o660)), "the file's access mask; the group is the folder's, if that has the setgid bit", "文件的权限；目录有 setgid 位时，文件的组随目录").of("file"),
        text("mtime", TextForm::Text, "the modification time that the file is given, such as `\"{expires_at-7200}\"`", "给文件设置的修改时间，如 `\"{expires_at-7200}\"`").or("when it was written", "实际写入的时间").of("file"),
        number("timeout_s", [1, 300], 10, "the program is killed after this long", "程序运行超过此时间即被强行结束").unit("s").of("command"),
    ]] },
];

const URL_REDIS: &str = "a Redis: `redis://host[:port][/db]`, `rediss://...` for TLS, `unix:/path`, or sentinels: \
    `redis+sentinel://host[:port],host.../master[/db]`, `rediss+sentinel://...`; without user and password";
const URL_REDIS_ZH: &str = "Redis：`redis://host[:port][/db]`，TLS 为 `rediss://...`，`unix:/path`，或哨兵：\
    `redis+sentinel://host[:port],host.../master[/db]`、`rediss+sentinel://...`；不含用户和密码";

#[rustfmt::skip]
const APP_KEYS: &[Setting] = &[
    row("aliases", KEYS, "other keys that answer with its credentials, 1 to 250 bytes without blanks", "还可以用哪些键读取它的凭证，1 至 250 字节，不能含空白"),
    list("presets", TextForm::Text, "[]", "the keys that well-known SDKs read, by the SDK's name", "常用 SDK 所读取的键；填 SDK 的名字"),
    row("prefix", Takes::Text(TextForm::Text, ""), "stands before every key of `presets`, not of `aliases`", "加在 `presets` 的每个键前面；对 `aliases` 无效").or("`\"\"`", "`\"\"`"),
    row("client", Takes::Word(&["memcached", "memcache", "node-memcached"], "memcached"), "the library that reads serialized values: PHP's extension memcached or memcache, or the package memcached of Node.js", "读取序列化值的库：PHP 扩展 memcached 或 memcache，或 Node.js 的 memcached 包"),
];

#[rustfmt::skip]
const APP_QUOTAS: &[Setting] = &[
    open("daily_quota", 1, CALLS_MAX, "how many calls a day may fetch the access token", "每天最多调用多少次接口来获取 access token").or("the quota that the platform publishes", "平台公布的额度"),
    open("daily_ticket_quota", 1, CALLS_MAX, "the same for each of the `tickets`", "同上，每种 `tickets` 各自的次数").or("the quota that the platform publishes", "平台公布的额度"),
];
