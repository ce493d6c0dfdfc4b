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
    /// The path of a PEM file.
    Pem,
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

impl Setting {
    /// Whether its value is a secret itself.
    pub fn is_secret(&self) -> bool {
        matches!(self.takes, Takes::Text(TextForm::Secret, _))
    }
}

fn variable(section: &str, key: &str) -> String {
    format!("TOKENCACHED_{section}_{}", key.replace('.', "_")).to_uppercase()
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

/// The four ways to give a secret. `$old` is the key before, `$change` what a change of the file needs.
macro_rules! secret {
    ($key:literal, $old:literal, $types:literal, $change:expr, $en:literal, $zh:literal) => {
        [
            secret!(@one $key, $old, "_file", $types, Path, $change, concat!("a file with ", $en, " and nothing else; mode 0600, else a warning"), concat!("只含", $zh, "的文件；权限 0600，否则警告")),
            secret!(@one $key, $old, "_credential", $types, Credential, Change::Restart, "the same as a credential of systemd, by its name", "同上，systemd 凭据的名字"),
            secret!(@one $key, $old, "_env", $types, Variable, Change::Restart, "the same in an environment variable, by its name", "同上，环境变量的名字"),
            secret!(@one $key, $old, "", $types, Secret, Change::Restart, concat!($en, " itself; works, and is warned about in a file"), concat!($zh, "本身；可用，写在文件里会警告")),
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
            text("tls.cert", TextForm::Pem, concat!($whose_en, " certificate and those above it; TCP speaks TLS then"), concat!($whose_zh, "的证书及其上级证书；TCP 由此使用 TLS")).change(Followed).flag($flag_cert),
            text("tls.cert_credential", TextForm::Credential, "the same as a credential of systemd, by its name", "同上，systemd 凭据的名字"),
            text("tls.key", TextForm::Pem, "its private key", "其私钥").or("the file of `tls.cert`", "`tls.cert` 的文件").change(Followed).flag($flag_key),
            text("tls.key_credential", TextForm::Credential, "the same as a credential of systemd, by its name", "同上，systemd 凭据的名字"),
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
const FORMS: &[&str] = &["raw", "json", "json_string", "json_number", "json_object", "php", "php_string", "php_array"];
const SHOWN: &[&str] =
    &["value", "expires_at", "expires_in", "fetched_at", "expires_at_ms", "expires_in_ms", "fetched_at_ms"];

const RIGHTS: Takes = Takes::Other {
    what: [
        "`\"all\"`, `\"ordinary\"`, `\"managed\"`, `\"app:<appid>\"`, `\"read_only\"`, or a list of them",
        "`\"all\"`、`\"ordinary\"`、`\"managed\"`、`\"app:<appid>\"`、`\"read_only\"`，或它们的列表",
    ],
    json: r#"{"type":["string","array"],"items":{"type":"string"}}"#,
    default: "\"all\"",
};
const KEYS: Takes = Takes::Other {
    what: ["a list of keys and tables", "键和表的列表"],
    json: r#"{"type":"array","items":{"type":["string","object"]}}"#,
    default: "[]",
};
const FIELDS: Takes = Takes::Other {
    what: ["a table, or a list without names", "表，或无名的列表"],
    json: r#"{"type":["object","array"]}"#,
    default: "",
};

const ADOPT: Takes = Takes::Other {
    what: [
        "`\"sink\"`, `{ memcached = \"HOST:PORT\", key = \"KEY\" }` or `{ file = \"/path\" }`",
        "`\"sink\"`、`{ memcached = \"HOST:PORT\", key = \"KEY\" }` 或 `{ file = \"/path\" }`",
    ],
    json: r#"{"anyOf":[{"enum":["sink"]},{"type":"object","properties":{"memcached":{"type":"string"},"key":{"type":"string"},"file":{"type":"string"}},"additionalProperties":false}]}"#,
    default: "",
};
const COMMAND: Takes = Takes::Other {
    what: ["a list: program, arguments", "列表：程序及参数"],
    json: r#"{"type":"array","items":{"type":"string"},"minItems":1}"#,
    default: "",
};
const STATEMENTS: Takes = Takes::Other {
    what: ["a text, or a list of texts", "文本，或文本的列表"],
    json: r#"{"type":["string","array"],"items":{"type":"string"}}"#,
    default: "",
};

/// All tables of the file, in the order in which they are printed.
#[rustfmt::skip]
pub const SECTIONS: &[Section] = &[
    Section { name: "server", old_name: "", is_list: false, rows: &[SERVER, &identity!("the server's", "服务器", "-o ssl_chain_cert", "-o ssl_key"), SERVER_TLS, SERVER_REST],
        says: ["The port of memcached clients.", "memcached 客户端的端口。"] },
    Section { name: "server.listener", old_name: "", is_list: true, rows: &[LISTENER],
        says: ["A further address, with terms of its own.", "另一个地址，有自己的规则。"] },
    Section { name: "state", old_name: "", is_list: false, rows: &[
        &[text("path", TextForm::Path, "the state file, or `\"none\"`: tokens are kept in memory only", "状态文件，或 `\"none\"`：token 只在内存里").or("by the system, see the manual", "由系统决定，见手册")],
        REDIS_ADDRESS, &secret!("password", "", "", Followed, "the password of the Redis", "该 Redis 的密码"), REDIS_TLS,
        &[number("timeout_ms", TIMEOUT_MS, 1000, "longest wait for a connection and for an answer", "连接和应答的最长等待").unit("ms")],
        &secret!("secret", "", "", Restart, "the secret that values in the Redis are sealed with, at least 16 characters, the same on all nodes", "封装 Redis 中数据的密钥，至少 16 个字符，各节点相同"),
        CLUSTER, &secret!("leader_key", "upstream_key", "", Followed, "a key of the leader's `keys_file` that may read the apps", "leader 的 `keys_file` 中可读各应用的密钥"), CLUSTER_REST],
        says: ["The state file, and what several nodes share.", "状态文件，以及多个节点共享的内容。"] },
    Section { name: "upstream", old_name: "", is_list: false, rows: &[UPSTREAM],
        says: ["How the platforms' HTTPS APIs are reached.", "如何访问各平台的 HTTPS 接口。"] },
    Section { name: "http", old_name: "side", is_list: false, rows: &[HTTP, &identity!("the HTTP API's", "HTTP 端口", "", ""), HTTP_REST],
        says: ["The HTTP API: status page, metrics, JSON. Off without `listen`.", "HTTP 端口：状态页、指标、JSON。没有 `listen` 时关闭。"] },
    Section { name: "log", old_name: "", is_list: false, rows: &[LOG],
        says: ["The log, on standard error.", "日志，写到标准错误。"] },
    Section { name: "user", old_name: "", is_list: true, rows: &[&[
        text("name", TextForm::Text, "needed: a user of `auth_file`; `\"*\"` is whoever has no table", "必填：`auth_file` 中的用户；`\"*\"` 指其余所有人").change(Reload),
        row("rights", RIGHTS, "needed: what that user may do; `[]` is nothing", "必填：该用户的权限；`[]` 为无").change(Reload)]],
        says: ["What a user may do.", "用户的权限。"] },
    Section { name: "certificate", old_name: "", is_list: true, rows: &[&[
        text("name", TextForm::Text, "needed: `\"cn:NAME\"`, `\"dns:HOST\"` or `\"uri:URI\"`; `\"*\"` is whoever has no table", "必填：`\"cn:NAME\"`、`\"dns:HOST\"` 或 `\"uri:URI\"`；`\"*\"` 指其余所有人").change(Reload),
        row("rights", RIGHTS, "needed: what its bearer may do; `[]` is nothing", "必填：持有者的权限；`[]` 为无").change(Reload)]],
        says: ["What the bearer of a certificate may do.", "证书持有者的权限。"] },
    Section { name: "app", old_name: "", is_list: true, rows: &[APP, &secret!("secret", "", "", Followed, "the app's secret", "应用的 secret"), APP_PLATFORM, APP_KEYS, APP_QUOTAS, APP_REST],
        says: ["An app whose credentials are kept current.", "要保持凭据有效的应用。"] },
    Section { name: "app.authorizer", old_name: "", is_list: true, rows: &[AUTHORIZER, &secret!("refresh_token", "", "", Followed, "the refresh token of the account's authorisation", "该账号授权的 refresh token"), AUTHORIZER_TICKETS, APP_KEYS, APP_QUOTAS],
        says: ["An account that has authorised a component, below its `[[app]]`.", "授权给第三方平台的账号，写在它的 `[[app]]` 之下。"] },
    Section { name: "sink", old_name: "", is_list: true, rows: &[SINK, SINK_COMMON, REDIS_SINK, &secret!("password", "", "redis, sql", Followed, "the password of the Redis or the database", "该 Redis 或数据库的密码"), SINK_REDIS, SINK_SQL, SINK_FILE, SINK_COMMAND],
        says: ["A store of the site's own that is kept current: a Redis (`url`), a database (`url`), files (`file`) or a command (`command`).", "本站自己的存储，随之更新：Redis（`url`）、数据库（`url`）、文件（`file`）或命令（`command`）。"] },
];

#[rustfmt::skip]
const SERVER: &[Setting] = &[
    list("listen", TextForm::Address, "[\"127.0.0.1:11211\"]", "addresses, with or without a port; port 0 takes any free one", "监听地址，可带端口；端口 0 取任一空闲端口").flag("-l"),
    text("unix_socket", TextForm::Path, "a Unix socket; TCP is then off unless `listen` is given too (with `-s` always)", "Unix 套接字；除非也给出 `listen`，TCP 关闭（用 `-s` 时总是关闭）").flag("-s"),
    row("unix_mode", Takes::Mode(None), "access mask of the Unix socket", "Unix 套接字的权限").or("`\"0700\"`, with a group `\"0770\"`", "`\"0700\"`，有组时 `\"0770\"`").flag("-a"),
    text("unix_group", TextForm::Text, "the group of the Unix socket; the server must be in it", "Unix 套接字的组；服务器须在该组内").or("the process's own", "进程自己的组"),
    row("rights", RIGHTS, "the most that clients may do on `listen` and `unix_socket`", "`listen` 和 `unix_socket` 上客户端权限的上限"),
    text("auth_file", TextForm::Path, "users, a line `user:password` each; clients must log in then", "用户文件，每行 `user:password`；客户端须登录").change(Followed).flag("-Y"),
    text("auth_credential", TextForm::Credential, "the same as a credential of systemd, by its name", "同上，systemd 凭据的名字"),
];

#[rustfmt::skip]
const SERVER_TLS: &[Setting] = &[
    text("tls.client_ca", TextForm::Pem, "the authorities whose clients are let in", "其签发的客户端证书可接入的 CA").change(Followed).flag("-o ssl_ca_cert"),
    row("tls.client_certificates", Takes::Word(&["none", "optional", "required"], ""), "whether clients must show a certificate", "是否要求客户端证书").or("`\"required\"` if there is a `client_ca`", "有 `client_ca` 时为 `\"required\"`").flag("-o ssl_verify_mode"),
    row("tls.min_version", Takes::Word(TLS_VERSIONS, "1.2"), "the least version of TLS", "TLS 最低版本").flag("-o ssl_min_version"),
];

#[rustfmt::skip]
const SERVER_REST: &[Setting] = &[
    switch("allow_unauthenticated", false, "other machines may connect although nothing here keeps strangers out", "允许其他机器在无认证时接入").flag("--allow-unauthenticated"),
    row("memory", Takes::Size { low: MIB, high: MEMORY_MAX, default: 64 * MIB }, "memory for ordinary keys; a plain number is bytes, with `-m` mebibytes", "普通键的内存；纯数字为字节，`-m` 为 MiB").flag("-m"),
    row("item_size_max", Takes::Size { low: 1024, high: 1024 * MIB, default: MIB }, "largest item, at most half of `memory`", "单项上限，不超过 `memory` 的一半").flag("-I"),
    switch("evict", true, "`false`: stores fail when memory is full (`-M`)", "`false`：内存满时写入失败（`-M`）").flag("-M"),
    number("max_connections", [1, 1_000_000], 1024, "connections at once", "同时的连接数").flag("-c"),
    open("threads", 1, 1024, "worker threads", "工作线程").or("one per core", "每核一个").flag("-t"),
    number("backlog", [1, 65_535], 1024, "connections not yet accepted", "尚未接受的连接数").flag("-b"),
    number("requests_per_turn", [1, 1_000_000], 256, "requests of one connection in a row before the others get a turn", "一个连接连续处理的请求数").flag("-R"),
    number("idle_timeout_s", [0, 31_536_000], 0, "close a connection that is quiet for so long; 0: never", "关闭静默这么久的连接；0：从不").unit("s").flag("-o idle_timeout"),
    number("first_get_wait_ms", [0, 900], 700, "how long a `get` waits for a first fetch, and a `delete` for its verification; pecl memcache gives up after 1000", "`get` 等待首次获取、`delete` 等待验证的时间；pecl memcache 在 1000 后放弃").unit("ms"),
    row("refuse_with", Takes::Word(&["not_stored", "client_error"], "not_stored"), "what a client's write to a managed key is answered with", "客户端写受管键时的应答"),
    row("protocol", Takes::Word(&["auto", "ascii", "binary"], "auto"), "memcached's protocols that are spoken; `auto`: each client chooses. `-S` is `-B binary`, and wants users", "使用的 memcached 协议；`auto`：由客户端选择。`-S` 即 `-B binary`，并需要用户").flag("-B"),
    switch("shutdown_command", false, "obey the command `shutdown`", "执行 `shutdown` 命令").flag("-A"),
    text("user", TextForm::Text, "switch to this user when started as root; it must be able to write in the state file's folder", "以 root 启动时切换到该用户；它须能写状态文件所在目录").flag("-u"),
    text("pid_file", TextForm::Path, "write the process id there", "写入进程号的文件").flag("-P"),
    switch("daemonize", false, "go to the background", "转入后台").flag("-d"),
    switch("lock_memory", false, "keep all memory resident; a warning if the system refuses", "锁定内存；系统拒绝时警告").flag("-k"),
];

#[rustfmt::skip]
const LISTENER: &[Setting] = &[
    text("address", TextForm::Text, "needed: an address, or `\"unix:\"` and a path", "必填：地址，或 `\"unix:\"` 加路径"),
    row("rights", RIGHTS, "the most that clients may do there", "该处客户端权限的上限"),
    row("auth", Takes::Switch(None), "clients must log in", "客户端须登录").or("`true` if there is an `auth_file`", "有 `auth_file` 时 `true`"),
    row("tls", Takes::Switch(None), "TLS; TCP only", "TLS；仅 TCP").or("`true` if there is a certificate", "有证书时 `true`"),
    row("mode", Takes::Mode(None), "access mask of a Unix socket", "Unix 套接字的权限").or("`\"0700\"`, with a group `\"0770\"`", "`\"0700\"`，有组时 `\"0770\"`"),
    text("group", TextForm::Text, "the group of a Unix socket", "Unix 套接字的组").or("the process's own", "进程自己的组"),
];

const URL_REDIS: &str = "a Redis: `redis://host[:port][/db]`, `rediss://...` for TLS, `unix:/path`, or sentinels: \
    `redis+sentinel://host[:port],host.../master[/db]`, `rediss+sentinel://...`; without user and password";
const URL_REDIS_ZH: &str = "Redis：`redis://host[:port][/db]`，TLS 为 `rediss://...`，`unix:/path`，或哨兵：\
    `redis+sentinel://host[:port],host.../master[/db]`、`rediss+sentinel://...`；不含用户和密码";

#[rustfmt::skip]
const REDIS_ADDRESS: &[Setting] = &[
    text("url", TextForm::Url, URL_REDIS, URL_REDIS_ZH).or("none: this node is alone", "无：单节点"),
    number("db", [0, 65_535], 0, "the number of the database, if `url` has none", "数据库编号，若 `url` 中没有"),
    text("user", TextForm::Text, "a user, for a Redis with ACLs", "用户，用于有 ACL 的 Redis"),
];

#[rustfmt::skip]
const REDIS_TLS: &[Setting] = &[
    text("ca_file", TextForm::Pem, "with TLS: the authorities to trust", "TLS：信任的 CA").or("the public ones", "公共 CA"),
    text("cert_file", TextForm::Pem, "with TLS: our certificate, if the Redis asks for one", "TLS：我方证书，若 Redis 要求"),
    text("key_file", TextForm::Pem, "its private key", "其私钥"),
    text("key_credential", TextForm::Credential, "the same as a credential of systemd, by its name", "同上，systemd 凭据的名字"),
    list("trusted_hosts", TextForm::Host, "", "where the password may go when a sentinel or a cluster names the master, besides the hosts of `url`: addresses, networks, names, `*.domain`", "哨兵或集群给出主节点时，除 `url` 的主机外密码可发往何处：地址、网段、名字、`*.domain`").or("what is near", "邻近的主机"),
];

#[rustfmt::skip]
const CLUSTER: &[Setting] = &[
    row("prefix", Takes::Text(TextForm::Text, "tokencached"), "begins every key in the Redis; 1 to 64 bytes without braces, blanks and control characters", "Redis 中每个键的前缀；1 至 64 字节，无花括号、空白和控制字符"),
    number("poll_every_ms", TIMEOUT_MS, 2000, "how often to look for what a lost message would have told", "多久查看一次可能漏掉的消息").unit("ms"),
    text("node", TextForm::Text, "names this node for people; at most 64 of `A-Za-z0-9._-`", "本节点的名字；最多 64 个 `A-Za-z0-9._-`").or("the host's name", "主机名"),
    list("leader_urls", TextForm::Url, "", "the HTTP API of the nodes to follow, `\"http://other-node:2130\"`, the preferred one first", "所跟随节点的 HTTP 端口，`\"http://other-node:2130\"`，首选在前").was("upstream"),
];

#[rustfmt::skip]
const CLUSTER_REST: &[Setting] = &[
    text("leader_ca_file", TextForm::Pem, "with `https`: the authorities to trust", "`https`：信任的 CA").or("the public ones", "公共 CA").was("upstream_ca_file"),
];

#[rustfmt::skip]
const UPSTREAM: &[Setting] = &[
    row("base_url", Takes::Text(TextForm::Url, "https://api.weixin.qq.com"), "the address of WeChat's API; plain http only to this machine, since the secret is in the request", "微信接口地址；因请求含 secret，http 只可用于本机"),
    list("hosts", TextForm::Url, "", "addresses called in place of `base_url`, the preferred one first", "代替 `base_url` 调用的地址，首选在前").or("WeChat's five, with another `base_url` none", "微信的五个；`base_url` 不同时无"),
    text("ca_file", TextForm::Pem, "further root certificates", "额外的根证书"),
    number("connect_timeout_ms", TIMEOUT_MS, 3000, "longest wait for a connection, at most `total_timeout_ms`", "连接的最长等待，不超过 `total_timeout_ms`").unit("ms"),
    number("total_timeout_ms", [100, 120_000], 8000, "longest wait for a whole call", "一次调用的最长等待").unit("ms"),
    number("concurrency", [1, 1000], 16, "calls at once, over all apps", "所有应用同时的调用数"),
    text("proxy", TextForm::Url, "an HTTP proxy, `http://[user:password@]host:port`; `HTTPS_PROXY` and its like are not used", "HTTP 代理，`http://[user:password@]host:port`；不使用 `HTTPS_PROXY` 等变量"),
];

#[rustfmt::skip]
const HTTP: &[Setting] = &[
    list("listen", TextForm::Address, "", "addresses, port 2130 unless given; other machines need `keys_file`", "监听地址，默认端口 2130；其他机器接入需要 `keys_file`").or("none: off", "无：关闭"),
    text("keys_file", TextForm::Path, "keys, a line `name key right...` each", "密钥文件，每行 `name key right...`").change(Followed),
    text("keys_credential", TextForm::Credential, "the same as a credential of systemd, by its name", "同上，systemd 凭据的名字"),
    list("allowed_hosts", TextForm::Host, "[]", "names that clients may call the server by, besides `localhost` and the address they have reached", "客户端可用的主机名，`localhost` 和所连地址之外"),
    list("trusted_proxies", TextForm::Host, "[]", "addresses or networks whose `X-Forwarded-For` (or `Forwarded`) and `X-Forwarded-Proto` are believed", "信任其 `X-Forwarded-For`（或 `Forwarded`）和 `X-Forwarded-Proto` 的地址或网段"),
];

#[rustfmt::skip]
const HTTP_REST: &[Setting] = &[
    row("tls.min_version", Takes::Word(TLS_VERSIONS, "1.2"), "the least version of TLS", "TLS 最低版本"),
    number("max_connections", [1, 100_000], 256, "connections at once, besides those of memcached clients and 64 kept for health and short calls", "同时的连接数，不含 memcached 客户端和为健康检查等短请求保留的 64 个"),
    number("max_connections_per_peer", [1, 100_000], 64, "the same from one address, of IPv6 from one /64; `trusted_proxies` are not counted", "同一地址（IPv6 同一 /64）的连接数；不计 `trusted_proxies`"),
    number("requests_per_s", [1, 1_000_000], 50, "requests of each address without a key, and of each key at each address; four seconds' worth may come at once", "每个无密钥地址、每个密钥在每个地址的请求数；可一次到达四秒的量").unit("1/s"),
    row("metrics_per_credential", Takes::Word(&["auto", "all", "troubled"], "auto"), "which credentials have series of their own in `/metrics`; `auto`: all up to 1,000 apps, above that those in trouble", "哪些凭据在 `/metrics` 中有自己的序列；`auto`：应用不超过 1,000 个时全部，否则只有出问题的"),
    open("wechat_expires_in_min_s", 0, 7000, "the least `expires_in` that WeChat's own calls are answered with", "微信接口形式的调用所答 `expires_in` 的下限").unit("s").or("by the call and the client", "依调用和客户端而定"),
    switch("old_metric_names", false, "give `/metrics` with the names that were used before; for old dashboards", "`/metrics` 使用以前的名字；供旧仪表盘使用"),
];

#[rustfmt::skip]
const LOG: &[Setting] = &[
    switch("json", false, "JSON lines in place of text", "用 JSON 行代替文本"),
    number("verbosity", [0, 3], 0, "0 and 1 what an operator should know, 2 what each connection and renewal does, 3 everything", "0 和 1：运维须知；2：每个连接和续期；3：全部").flag("-v"),
];

#[rustfmt::skip]
const APP: &[Setting] = &[
    text("appid", TextForm::Text, "needed: as the platform shows it; an unusual shape is warned about", "必填：平台所示的 appid；不寻常的写法会警告"),
    text("name", TextForm::Text, "what people call the app, 1 to 64 characters; shown beside the appid, part of no key", "应用的名称，1 至 64 个字符；显示在 appid 旁，不是键的一部分"),
];

#[rustfmt::skip]
const APP_PLATFORM: &[Setting] = &[
    row("platform", Takes::Word(&["mp", "wecom", "qq", "feishu", "component"], "mp"), "`mp` official accounts and mini programs, `wecom` 企业微信, `qq` QQ mini programs, `feishu`, `component` a third-party platform of the open platform", "`mp` 公众号和小程序，`wecom` 企业微信，`qq` QQ 小程序，`feishu` 飞书，`component` 开放平台第三方平台").was("kind"),
    row("endpoint", Takes::Text(TextForm::Text, ""), "the call that fetches the token: `mp` has `stable_token`, and `token`, where each fetch makes a new one; the other platforms have one each", "获取 token 的接口：`mp` 有 `stable_token` 和 `token`（每次获取都产生新 token）；其他平台各有一个").or("the platform's first: `\"stable_token\"`", "平台的第一个：`\"stable_token\"`"),
    text("base_url", TextForm::Url, "for this app alone", "只用于本应用").or("`upstream.base_url`", "`upstream.base_url`"),
    list("tickets", TextForm::Text, "[]", "fetched with the access token: `jsapi`, `wx_card` for `mp`; `jsapi`, `agent` for `wecom`", "随 access token 一起获取：`mp` 为 `jsapi`、`wx_card`；`wecom` 为 `jsapi`、`agent`"),
    text("agent", TextForm::Text, "`wecom` only: which of the corporation's apps; the keys end in `:<corpid>:<agent>` then", "仅 `wecom`：企业的哪个应用；键以 `:<corpid>:<agent>` 结尾"),
    text("verify_ticket_file", TextForm::Path, "`component` only: where the receiver of WeChat's pushes writes the verify ticket", "仅 `component`：接收微信推送的程序写入 verify ticket 的文件").change(Followed),
];

#[rustfmt::skip]
const APP_KEYS: &[Setting] = &[
    row("aliases", KEYS, "other keys that answer with its credentials, 1 to 250 bytes without blanks", "可读出其凭据的其他键，1 至 250 字节，无空白"),
    list("presets", TextForm::Text, "[]", "the keys that well-known SDKs read, by the SDK's name", "知名 SDK 所读的键，以 SDK 名表示"),
    row("prefix", Takes::Text(TextForm::Text, ""), "stands before every key of `presets`, not of `aliases`", "加在 `presets` 的每个键之前，不加在 `aliases` 前").or("`\"\"`", "`\"\"`"),
    row("client", Takes::Word(&["memcached", "memcache", "node-memcached"], "memcached"), "the library that reads serialized values: PHP's extension memcached or memcache, or the package memcached of Node.js", "读取序列化值的库：PHP 扩展 memcached 或 memcache，或 Node.js 的 memcached 包"),
];

#[rustfmt::skip]
const APP_QUOTAS: &[Setting] = &[
    open("daily_quota", 1, CALLS_MAX, "calls a day for the access token", "access token 每天的调用次数").or("as published", "按公布的额度"),
    open("daily_ticket_quota", 1, CALLS_MAX, "the same for each of the `tickets`", "每种 `tickets` 每天的调用次数").or("as published", "按公布的额度"),
];

#[rustfmt::skip]
const APP_REST: &[Setting] = &[
    text("fallback", TextForm::Text, "for `endpoint = \"token\"`: `stable_token` is asked for the rest of a day whose quota is used up", "用于 `endpoint = \"token\"`：额度用完的当天改用 `stable_token`"),
    open("forced_per_day", 0, 20, "how often a day WeChat may be told to replace a token that it refuses and hands out all the same", "每天最多几次要求微信更换它拒绝却仍发出的 token").or("10", "10"),
    open("probe_every_s", 0, A_DAY_S, "verify the token by a cheap call so often, from 10; 0: only when somebody doubts it", "多久用廉价调用验证一次 token，至少 10；0：只在有人怀疑时").unit("s").or("300 for up to 600 apps", "不超过 600 个应用时 300"),
    row("adopt", ADOPT, "for `endpoint = \"token\"`: where the site keeps the token that it has fetched itself, served to its end before one is fetched", "用于 `endpoint = \"token\"`：本站自己获取的 token 存放何处，用到期满后才获取"),
];

#[rustfmt::skip]
const AUTHORIZER: &[Setting] = &[
    text("appid", TextForm::Text, "needed: the account's, which no other app may have", "必填：该账号的 appid，不可与其他应用相同"),
    text("name", TextForm::Text, "what people call the account, as for any app", "账号的名称，同应用"),
];

#[rustfmt::skip]
const AUTHORIZER_TICKETS: &[Setting] = &[
    list("tickets", TextForm::Text, "[]", "fetched with the access token: `jsapi`, `wx_card`", "随 access token 一起获取：`jsapi`、`wx_card`"),
];

#[rustfmt::skip]
const SINK: &[Setting] = &[
    text("url", TextForm::Url, "a Redis as in `[state]`; or a database: `mysql://user@host[:port]/database`, `mariadb://...`, `postgres://...`, `sqlite:/path`; without a password", "Redis，同 `[state]`；或数据库：`mysql://user@host[:port]/database`、`mariadb://...`、`postgres://...`、`sqlite:/path`；不含密码").of("redis, sql"),
    text("file", TextForm::Path, "a file's path; `{appid}`, `{id}`, `{type}` and `{name}` are filled in", "文件路径；会填入 `{appid}`、`{id}`、`{type}` 和 `{name}`").of("file"),
    row("command", COMMAND, "a program that is run with each value on its standard input; `{appid}`, `{id}`, `{type}`, `{expires_at}` and `{expires_in}` are filled in", "每个值都运行的程序，值在其标准输入；会填入 `{appid}`、`{id}`、`{type}`、`{expires_at}` 和 `{expires_in}`").of("command"),
];

#[rustfmt::skip]
const SINK_COMMON: &[Setting] = &[
    list("apps", TextForm::Text, "", "appids; with an agent `\"<corpid>:<agent>\"`", "appid 列表；有 agent 时 `\"<corpid>:<agent>\"`").or("all", "全部"),
    row("types", Takes::Words(CREDENTIALS), "the types of credentials that are written", "写入的凭据类型").or("all", "全部").was("kinds"),
    list("presets", TextForm::Text, "[]", "the keys, tables or files that a well-known SDK reads, by its name", "知名 SDK 所读的键、表或文件，以 SDK 名表示").of("redis, sql, file"),
    row("prefix", Takes::Text(TextForm::Text, ""), "stands before every key, or table's name, of `presets`", "加在 `presets` 的每个键或表名之前").or("`\"\"`", "`\"\"`").of("redis, sql"),
    number("check_every_s", [1, 3600], 5, "how often to look whether entries are there and ours", "多久检查一次内容是否仍在且为我方所写").unit("s").of("redis, sql, file"),
    number("rewrite_every_s", [0, A_DAY_S], 300, "how often everything is written again; 0: on change only", "多久全部重写一次；0：仅在变化时").unit("s").or("300, of a command 0", "300，命令为 0"),
    number("timeout_ms", TIMEOUT_MS, 2000, "longest wait for a connection and for an answer", "连接和应答的最长等待").unit("ms").of("redis, sql"),
];

#[rustfmt::skip]
const REDIS_SINK: &[Setting] = &[
    number("db", [0, 65_535], 0, "the number of the database, if `url` has none", "数据库编号，若 `url` 中没有").of("redis"),
    text("user", TextForm::Text, "who logs in", "登录用户").of("redis, sql"),
    text("ca_file", TextForm::Pem, "the authorities to trust: of a Redis in place of the public ones, of a database beside them", "信任的 CA：Redis 为代替公共 CA，数据库为附加").or("the public ones", "公共 CA").of("redis, sql"),
    text("cert_file", TextForm::Pem, "with TLS: our certificate, if the Redis asks for one", "TLS：我方证书，若 Redis 要求").of("redis"),
    text("key_file", TextForm::Pem, "its private key", "其私钥").of("redis"),
    text("key_credential", TextForm::Credential, "the same as a credential of systemd, by its name", "同上，systemd 凭据的名字").of("redis"),
    list("trusted_hosts", TextForm::Host, "", "as in `[state]`", "同 `[state]`").or("what is near", "邻近的主机").of("redis"),
];

#[rustfmt::skip]
const SINK_REDIS: &[Setting] = &[
    row("keys", KEYS, "the keys to write; `{type}`, `{id}`, `{appid}`, `{agent}`, `{secret}`, `{secret10}` and `{md5:...}` are filled in", "要写的键；会填入 `{type}`、`{id}`、`{appid}`、`{agent}`、`{secret}`、`{secret10}` 和 `{md5:...}`").or("`[\"{type}:{id}\"]`, with `presets` none", "`[\"{type}:{id}\"]`，有 `presets` 时无").of("redis"),
    row("ttl", Takes::Word(&["left", "none"], "left"), "keys live as long as the token is good; or until this server deletes them", "键与 token 同寿；或直到本服务器删除").of("redis"),
    number("ttl_margin_s", [0, A_DAY_S], 0, "keys vanish so long ahead of the token's end", "键比 token 早多久消失").unit("s").of("redis"),
];

#[rustfmt::skip]
const SINK_SQL: &[Setting] = &[
    text("socket", TextForm::Path, "the Unix socket of MySQL, or the folder of PostgreSQL's; `url` then names `localhost`", "MySQL 的 Unix 套接字，或 PostgreSQL 套接字所在目录；`url` 写 `localhost`").of("sql"),
    row("tls", Takes::Word(&["verify", "encrypt", "off"], ""), "`verify`: a certificate that names the host of `url`; `encrypt`: whatever certificate", "`verify`：证书须与 `url` 的主机相符；`encrypt`：任何证书").or("`\"verify\"`; on this machine if it is offered", "`\"verify\"`；本机则在对方支持时使用").of("sql"),
    row("statement", STATEMENTS, "what writes a value; of a list all are run or none. Needed, or `presets`", "写入值的语句；列表则全部执行或全不执行。必填，或用 `presets`").of("sql"),
    text("insert", TextForm::Text, "what is run when the first statement has changed no row", "第一条语句没有改动任何行时执行").of("sql"),
    text("read", TextForm::Text, "a `SELECT` of the value that stands there, and perhaps its time", "读出现有值（及其时间）的 `SELECT`").of("sql"),
    text("retract", TextForm::Text, "what is run when there is no good value any more", "没有有效值时执行").or("with `read`: `statement` with times that are past", "有 `read` 时：时间已过的 `statement`").of("sql"),
];

#[rustfmt::skip]
const SINK_FILE: &[Setting] = &[
    text("template", TextForm::Text, "the file's text, with `{value}`, `{expires_at}`, `{expires_in}`, `{fetched_at}`, those with `_ms`, and with a number added", "文件的内容，含 `{value}`、`{expires_at}`、`{expires_in}`、`{fetched_at}`，可带 `_ms` 或加减数字").of("file"),
    row("escape", Takes::Word(&["php", "json", "none"], "none"), "how `{value}` is escaped in a `template`", "`template` 中 `{value}` 的转义方式").of("file"),
    row("encoding", Takes::Word(FORMS, "raw"), "as of an alias, in place of `presets` and `template`", "同别名，代替 `presets` 和 `template`").of("file"),
    row("fields", FIELDS, "as of an alias", "同别名").of("file"),
    row("shows", Takes::Word(SHOWN, "value"), "as of an alias", "同别名").of("file"),
    open("at_least", 0, A_DAY_S, "times are told as if at least so much were left", "时间按至少剩余这么久给出").unit("s").or("three times `rewrite_every_s`", "`rewrite_every_s` 的三倍").of("file"),
    row("mode", Takes::Mode(Some(0o660)), "the file's access mask; the group is the folder's, if that has the setgid bit", "文件权限；目录有 setgid 位时组随目录").of("file"),
    text("mtime", TextForm::Text, "when the file was changed last, as it is told, such as `\"{expires_at-7200}\"`", "文件的修改时间，如 `\"{expires_at-7200}\"`").or("when it was written", "写入的时间").of("file"),
];

#[rustfmt::skip]
const SINK_COMMAND: &[Setting] = &[
    number("timeout_s", [1, 300], 10, "the program is killed after so long", "程序运行超过此时间则杀死").unit("s").of("command"),
];
