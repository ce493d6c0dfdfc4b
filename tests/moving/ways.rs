//! The ways in which sites keep a WeChat token, each with what its owner pastes to move.

/// Which call of WeChat's the site uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Stable,
    Classic,
}

impl Endpoint {
    pub fn other(self) -> Endpoint {
        match self {
            Endpoint::Stable => Endpoint::Classic,
            Endpoint::Classic => Endpoint::Stable,
        }
    }

    /// The end of its path, which the setting `endpoint` takes as well.
    pub fn path(self) -> &'static str {
        match self {
            Endpoint::Stable => "stable_token",
            Endpoint::Classic => "token",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Endpoint::Stable => "stable",
            Endpoint::Classic => "classic",
        }
    }
}

/// What shows the pages: a file below `tests/moving`.
#[derive(Clone, Copy, Debug)]
pub enum Script {
    Php(&'static str),
    Node(&'static str),
    /// With the packages in that folder below `target/python`.
    Python(&'static str, &'static str),
    /// The one in C#.
    Mono,
}

/// Where the token is before the move.
#[derive(Clone, Copy, Debug)]
pub enum Store {
    Memcached,
    Redis,
    /// A database with what this makes in it, of the `{appid}` and `{secret}`.
    Table(&'static str),
    /// A folder of each web server's own.
    Files,
}

impl Store {
    /// Both web servers see the same.
    pub fn is_shared(self) -> bool {
        matches!(self, Store::Memcached | Store::Redis | Store::Table(_))
    }
}

/// What is changed to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// The site is given the node's address in place of memcached's.
    Address,
    /// The site is given the node's HTTP address in place of WeChat's, for the calls that fetch.
    Host,
    /// Nothing on the site: the node writes into its store.
    Sink,
}

pub struct Way {
    /// For `--only`.
    pub name: &'static str,
    pub title: &'static str,
    pub script: Script,
    /// The calls that such sites use.
    pub endpoints: &'static [Endpoint],
    pub store: Store,
    pub moves: Move,
    /// What is pasted: lines of `[http]`, of `[[app]]`, and of a `[[sink]]` with `{store}` for where the site's own is.
    pub http: &'static str,
    pub app: &'static str,
    pub sink: &'static str,
}

const BOTH: &[Endpoint] = &[Endpoint::Stable, Endpoint::Classic];
const CLASSIC: &[Endpoint] = &[Endpoint::Classic];

const fn way(name: &'static str, title: &'static str, script: Script, store: Store, moves: Move) -> Way {
    Way { name, title, script, endpoints: BOTH, store, moves, http: "", app: "", sink: "" }
}

/// In PHP with a memcached that both web servers use.
const fn cached(name: &'static str, title: &'static str, script: &'static str, app: &'static str) -> Way {
    Way { app, ..way(name, title, Script::Php(script), Store::Memcached, Move::Address) }
}

/// In PHP with a file on each web server.
const fn filed(name: &'static str, title: &'static str, script: &'static str, sink: &'static str) -> Way {
    Way { sink, ..way(name, title, Script::Php(script), Store::Files, Move::Sink) }
}

const TABLE: &str = "CREATE TABLE wx_token (id int NOT NULL PRIMARY KEY, type varchar(20) NOT NULL, \
    expire varchar(16) NOT NULL, value varchar(600) NOT NULL); \
    INSERT INTO wx_token VALUES (1, 'access_token', '0', ''), (2, 'jsapi_ticket', '0', '')";

const SWX_CONFIG: &str = "CREATE TABLE SWX_Config (UserName varchar(50) NOT NULL PRIMARY KEY, AppID varchar(50), \
    AppSecret varchar(50), access_token varchar(600)); \
    INSERT INTO SWX_Config VALUES ('admin', '{appid}', '{secret}', '')";

pub const WAYS: &[Way] = &[
    cached("memcache", "memcache, raw (pecl memcache)", "memcache.php", "presets = [\"tutorial\"]"),
    cached("memcached", "memcache, raw (pecl memcached)", "memcached.php", "presets = [\"tutorial\"]"),
    filed(
        "file-php",
        "file `access_token.php`, by include",
        "file_php.php",
        "file = \"{store}/access_token.php\"\npresets = [\"access_token.php\"]",
    ),
    filed(
        "file-json",
        "file `access_token.json`",
        "file_json.php",
        "file = \"{store}/access_token.json\"\npresets = [\"access_token.json\"]",
    ),
    filed(
        "file-txt",
        "file `access_token.txt`",
        "file_txt.php",
        "file = \"{store}/access_token.txt\"\npresets = [\"access_token.txt\"]",
    ),
    Way {
        app: "tickets = [\"jsapi\"]",
        ..filed(
            "jssdk",
            "WeChat's JS-SDK sample, token and ticket",
            "jssdk.php",
            "file = \"{store}/{type}.php\"\npresets = [\"jssdk\"]",
        )
    },
    filed(
        "zoujingli",
        "zoujingli/WeChatDeveloper, serialized file",
        "zoujingli.php",
        "file = \"{store}/{appid}_access_token\"\npresets = [\"zoujingli\"]",
    ),
    Way {
        sink: "url = \"{store}\"\npassword = \"site\"\npresets = [\"wx_token\"]",
        ..way("sql", "MySQL table `wx_token`", Script::Php("wx_token.php"), Store::Table(TABLE), Move::Sink)
    },
    Way {
        endpoints: CLASSIC,
        sink: "url = \"{store}\"\npassword = \"site\"\npresets = [\"SWX_Config\"]",
        ..way("csharp", "C# class with table `SWX_Config`", Script::Mono, Store::Table(SWX_CONFIG), Move::Sink)
    },
    Way {
        sink: "url = \"redis://{store}\"\npresets = [\"workerman\"]",
        ..way("redis", "Redis, a Workerman site's two keys", Script::Php("workerman.php"), Store::Redis, Move::Sink)
    },
    cached("thinkphp5", "ThinkPHP 5, memcached", "thinkphp5.php", "presets = [\"thinkphp5\"]"),
    cached("thinkphp6", "ThinkPHP 6 and 8, memcached", "thinkphp6.php", "presets = [\"thinkphp6\"]"),
    cached(
        "easywechat4",
        "EasyWeChat 4 and 5 in Laravel",
        "laravel_easywechat4.php",
        "presets = [\"easywechat4-laravel\"]\nprefix = \"laravel_cache\"",
    ),
    cached(
        "easywechat6",
        "EasyWeChat 6 in Laravel",
        "laravel_easywechat6.php",
        "presets = [\"easywechat6-laravel\"]\nprefix = \"laravel_cache\"",
    ),
    cached("symfony", "EasyWeChat 6 in Symfony", "symfony_easywechat6.php", "presets = [\"symfony\"]"),
    cached("wordpress", "WordPress, object cache in memcached", "wordpress.php", "presets = [\"wordpress\"]"),
    cached("discuz", "Discuz plug-in", "discuz.php", "presets = [\"discuz\"]\nclient = \"memcache\""),
    cached("yii2", "Yii 2, MemCache", "yii2.php", "presets = [\"yii2\"]"),
    cached("codeigniter2", "CodeIgniter 2", "codeigniter2.php", "presets = [\"codeigniter2\"]"),
    cached("codeigniter3", "CodeIgniter 3", "codeigniter3.php", "presets = [\"codeigniter3\"]"),
    Way {
        endpoints: CLASSIC,
        app: "presets = [\"node-wechat-api\"]",
        ..way("node", "node, wechat-api with memcached", Script::Node("wechat_api.js"), Store::Memcached, Move::Address)
    },
    Way {
        endpoints: CLASSIC,
        app: "presets = [\"wechatpy\"]",
        ..way(
            "wechatpy",
            "Python, wechatpy with memcached",
            Script::Python("wechatpy_site.py", "wechatpy-2"),
            Store::Memcached,
            Move::Address,
        )
    },
    Way {
        // The least that is told is in proportion too.
        http: "wechat_expires_in_min_s = {least_s}",
        ..way(
            "http",
            "HTTP client that believes `expires_in`",
            Script::Php("http_expires_in.php"),
            Store::Files,
            Move::Host,
        )
    },
    Way {
        sink: "file = \"{store}/wechat.json\"\ntemplate = '{\"token\": \"{value}\", \"time\": {expires_at-7000}}'\nescape = \"json\"",
        ..way(
            "constant",
            "HTTP client with 7000 s of its own",
            Script::Python("constant.py", "wechatpy-2"),
            Store::Files,
            Move::Sink,
        )
    },
];
