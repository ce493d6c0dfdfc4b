//! The keys that well-known clients read, by the client's name. Data only.
//!
//! Taken from the sources of those clients. Beside each stands why a client that finds our value never fetches one by
//! itself.

use crate::encoding::{ANY, ClientLibrary, Constant, Fact, Field, Form, NOMINAL_LIFE_S, View};
use crate::platform::CredentialName;

/// The keys of one client.
pub struct Preset {
    pub name: &'static str,
    store: Store,
    /// How the [`USUAL`] keys are stored, if the client's code may have chosen any of them.
    usual: Option<Shape>,
    keys: &'static [Key],
}

/// What lies between the client and memcached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    /// Nothing that matters here.
    Plain,
    /// A framework's cache, under keys of the site's own choosing.
    Framework,
    /// Laravel's cache, which puts its prefix before every key, and up to version 10 a colon between the two. What it
    /// keeps in a Redis is serialized.
    Laravel,
}

impl Preset {
    /// Every key with what is under it, as PHP's extension memcached reads it. A corporation with many agents has keys
    /// of its own.
    pub fn keys_for(
        &self,
        agents: bool,
        client: ClientLibrary,
    ) -> impl Iterator<Item = (CredentialName, &'static str, View)> + use<> {
        let stored = |shape: Shape| USUAL.iter().map(move |key| Key { shape, ..*key });
        let keys = self.usual.into_iter().flat_map(stored).chain(self.keys.iter().copied());
        keys.filter(move |key| key.agents == agents).map(move |key| (key.of, key.template, key.shape.view(client)))
    }

    /// Every key with what is under it in a Redis, where nothing has flags and no version is put before keys.
    pub fn keys(&self, agents: bool) -> impl Iterator<Item = (CredentialName, &'static str, View)> {
        self.keys_for(agents, ClientLibrary::default()).map(|(of, template, view)| {
            let template = template.strip_prefix(ANY).map_or(template, |end| end.trim_start_matches(':'));
            let form = match view.form {
                Form::Raw(Fact::Value) if self.store == Store::Laravel => Form::PHP_STRING,
                form => form,
            };
            (of, template, View { form, ..view })
        })
    }

    /// What may stand before the keys, given what the site has configured there. With and without Laravel's colon:
    /// whichever version reads, it finds its key.
    pub fn prefixes(&self, prefix: &str) -> Vec<String> {
        match self.store {
            Store::Laravel if !prefix.is_empty() => vec![prefix.to_owned(), format!("{prefix}:")],
            Store::Laravel | Store::Framework | Store::Plain => vec![prefix.to_owned()],
        }
    }

    /// Whether the preset only guesses that the site has this key: it does not say whose it is, and sites with several
    /// apps have others.
    pub fn guesses(&self, template: &str) -> bool {
        self.store != Store::Plain && !["{appid}", "{secret", "{agent}"].iter().any(|word| template.contains(word))
    }
}

#[derive(Clone, Copy)]
struct Key {
    /// For WeCom, where an id has many secrets.
    agents: bool,
    of: CredentialName,
    template: &'static str,
    shape: Shape,
}

/// A place in an array: its name, and what is there.
type NamedFact = (&'static str, Fact);

#[derive(Clone, Copy)]
enum Shape {
    Raw,
    JsonString,
    /// An object of JSON whose times are always a whole lifetime away.
    FreshJson(&'static [NamedFact]),
    /// `serialize($value)`, handed to the library as a string: for it there is nothing special about that.
    PhpString,
    /// The same of an array.
    PhpStringOf(&'static [NamedFact]),
    /// The same of `[$value, null]`.
    PhpStringWithNull,
    /// The same of `[[...], null]`.
    PhpStringOfWithNull(&'static [NamedFact]),
    /// An array, handed to the library, which serializes and marks it.
    PhpArray(&'static [NamedFact]),
    /// The same, its times always a whole lifetime away.
    FreshPhpArray(&'static [NamedFact]),
    /// The value, when it was fetched, and for how long it was good then.
    PhpValueTimeLife,
    /// A time as it is.
    Time(Fact),
    /// A time that is always a whole lifetime away, flags 0: what the reader looks at on each page view.
    AlwaysFresh(Fact),
    Nothing,
    Constant(u64),
}

/// A lifetime, seconds: longer than any client's lead.
const FRESH_S: u32 = 7200;

impl Shape {
    fn view(self, client: ClientLibrary) -> View {
        let named = |entries: &[NamedFact]| {
            let mut entries = entries.to_vec();
            // As the fields of a TOML table come.
            entries.sort_unstable();
            Field::named(entries)
        };
        let with_null = |field| Form::Php(Field::Listed(vec![field, Field::Constant(Constant::Null)]));
        let form = match self {
            Shape::Raw => Form::Raw(Fact::Value),
            Shape::JsonString => Form::JSON_STRING,
            Shape::FreshJson(entries) => Form::Json(named(entries)),
            Shape::PhpString => Form::PHP_STRING,
            Shape::PhpStringOf(entries) | Shape::PhpArray(entries) | Shape::FreshPhpArray(entries) => {
                Form::Php(named(entries))
            }
            Shape::PhpStringWithNull => with_null(Field::Fact(Fact::Value)),
            Shape::PhpStringOfWithNull(entries) => with_null(named(entries)),
            Shape::PhpValueTimeLife => Form::Php(Field::Listed(vec![
                Field::Fact(Fact::Value),
                Field::Fact(Fact::FetchedAt),
                Field::Constant(Constant::Number(NOMINAL_LIFE_S)),
            ])),
            Shape::Time(fact) | Shape::AlwaysFresh(fact) => Form::Raw(fact),
            Shape::Nothing => Form::Nothing,
            Shape::Constant(number) => Form::Constant(number.to_string()),
        };
        let flags = match self {
            Shape::PhpArray(_) | Shape::FreshPhpArray(_) | Shape::PhpValueTimeLife => client.serialized_flags(),
            Shape::FreshJson(_) => client.object_flags(),
            _ => 0,
        };
        let at_least_s = match self {
            Shape::AlwaysFresh(_) | Shape::FreshJson(_) | Shape::FreshPhpArray(_) => FRESH_S,
            _ => 0,
        };
        View { form, flags, at_least_s }
    }
}

const fn token(template: &'static str, shape: Shape) -> Key {
    Key { agents: false, of: CredentialName::AccessToken, template, shape }
}

const fn jsapi(template: &'static str, shape: Shape) -> Key {
    Key { agents: false, of: CredentialName::JsapiTicket, template, shape }
}

const fn wx_card(template: &'static str, shape: Shape) -> Key {
    Key { agents: false, of: CredentialName::WxCardTicket, template, shape }
}

const fn component(template: &'static str, shape: Shape) -> Key {
    Key { agents: false, of: CredentialName::ComponentToken, template, shape }
}

const fn wecom(of: CredentialName, template: &'static str, shape: Shape) -> Key {
    Key { agents: true, of, template, shape }
}

/// EasyWeChat 4 and 5: the array that their PSR-16 cache is given.
const EASYWECHAT_TOKEN: &[NamedFact] = &[("access_token", Fact::Value), ("expires_in", Fact::ExpiresIn)];
const EASYWECHAT_TICKET: &[NamedFact] = &[("ticket", Fact::Value), ("expires_in", Fact::ExpiresIn)];
/// Discuz's own WeChat plug-in asks whether this time lies ahead.
const DISCUZ_TOKEN: Shape = Shape::FreshPhpArray(&[("token", Fact::Value), ("expiration", Fact::ExpiresAt)]);
const DISCUZ_TICKET: Shape = Shape::FreshPhpArray(&[("ticket", Fact::Value), ("expiration", Fact::ExpiresAt)]);
/// co-wechat-api and wechat-api ask whether this time, milliseconds, lies ahead.
const NODE_TOKEN: Shape = Shape::FreshJson(&[("accessToken", Fact::Value), ("expireTime", Fact::ExpiresAtMs)]);
const NODE_TICKET: Shape = Shape::FreshJson(&[("ticket", Fact::Value), ("expireTime", Fact::ExpiresAtMs)]);
/// yii2-wechat-sdk keeps WeChat's answer and the end beside it.
const YII2_SDK_TOKEN: Shape = Shape::PhpStringOfWithNull(&[
    ("access_token", Fact::Value),
    ("expires_in", Fact::ExpiresIn),
    ("expire", Fact::ExpiresAt),
]);
const YII2_SDK_TICKET: Shape = Shape::PhpStringOfWithNull(&[
    ("ticket", Fact::Value),
    ("expires_in", Fact::ExpiresIn),
    ("expire", Fact::ExpiresAt),
]);

/// The key of EasyWeChat 4 and 5 is a digest of what is sent to WeChat.
macro_rules! easywechat_token {
    ($before:literal) => {
        concat!(
            $before,
            "easywechat.kernel.access_token.",
            r#"{md5:{"grant_type":"client_credential","appid":"{appid}","secret":"{secret}"}}"#
        )
    };
}

macro_rules! easywechat_wecom_token {
    ($before:literal) => {
        concat!($before, "easywechat.kernel.access_token.", r#"{md5:{"corpid":"{appid}","corpsecret":"{secret}"}}"#)
    };
}

/// The keys that a site's own code chooses, in a framework's cache too. The shape is that of the preset.
const USUAL: &[Key] = &[
    token("access_token", Shape::Raw),
    token("{appid}", Shape::Raw),
    token("access_token_{appid}", Shape::Raw),
    token("wechat_access_token", Shape::Raw),
    token("wechat_access_token{appid}", Shape::Raw),
    token("{appid}_access_token", Shape::Raw),
    jsapi("jsapi_ticket", Shape::Raw),
    jsapi("jsapi_ticket_{appid}", Shape::Raw),
    jsapi("wechat_jsapi_ticket{appid}", Shape::Raw),
    jsapi("{appid}_ticket_jsapi", Shape::Raw),
    wx_card("wechat_api_ticket_wxcard{appid}", Shape::Raw),
    wx_card("{appid}_ticket_wx_card", Shape::Raw),
    wecom(CredentialName::AccessToken, "access_token", Shape::Raw),
    wecom(CredentialName::AccessToken, "{appid}", Shape::Raw),
    wecom(CredentialName::AccessToken, "access_token_{appid}", Shape::Raw),
    wecom(CredentialName::AccessToken, "qywechat_access_token{appid}", Shape::Raw),
    wecom(CredentialName::JsapiTicket, "qywechat_jsapi_ticket{appid}", Shape::Raw),
];

/// All of them. Clients that look at nothing but the value need no reason: they take what is there.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "tutorial",
        store: Store::Plain,
        usual: None,
        keys: &[
            token("access_token", Shape::Raw),
            token("{appid}", Shape::Raw),
            token("access_token_{appid}", Shape::Raw),
            jsapi("jsapi_ticket", Shape::Raw),
            // "Fetched more than 7000 seconds ago?": it never was.
            jsapi("jsapi_last_time", Shape::AlwaysFresh(Fact::FetchedAt)),
            wecom(CredentialName::AccessToken, "access_token", Shape::Raw),
            wecom(CredentialName::AccessToken, "{appid}", Shape::Raw),
            wecom(CredentialName::AccessToken, "access_token_{appid}", Shape::Raw),
        ],
    },
    Preset {
        name: "dodgepudding",
        store: Store::Plain,
        usual: None,
        keys: &[
            token("wechat_access_token{appid}", Shape::Raw),
            jsapi("wechat_jsapi_ticket{appid}", Shape::Raw),
            wx_card("wechat_api_ticket_wxcard{appid}", Shape::Raw),
            wecom(CredentialName::AccessToken, "qywechat_access_token{appid}", Shape::Raw),
            wecom(CredentialName::JsapiTicket, "qywechat_jsapi_ticket{appid}", Shape::Raw),
        ],
    },
    Preset {
        name: "zoujingli",
        store: Store::Plain,
        usual: None,
        keys: &[
            token("{appid}_access_token", Shape::Raw),
            jsapi("{appid}_ticket_jsapi", Shape::Raw),
            wx_card("{appid}_ticket_wx_card", Shape::Raw),
        ],
    },
    Preset { name: "fastwego", store: Store::Plain, usual: None, keys: &[token("{appid}", Shape::Raw)] },
    Preset {
        name: "easywechat3",
        store: Store::Plain,
        usual: None,
        keys: &[
            // Doctrine puts the version of its namespace into every key. Kept at 1, the keys below stay right.
            token("DoctrineNamespaceCacheKey[]", Shape::Constant(1)),
            token("[easywechat.common.access_token.{appid}][1]", Shape::Raw),
            jsapi("[overtrue.wechat.jsapi_ticket.{appid}][1]", Shape::Raw),
        ],
    },
    Preset {
        name: "easywechat6-laravel",
        store: Store::Laravel,
        usual: None,
        // The last part is 1 where EasyWeChat is told to use stable tokens.
        keys: &[
            token("official_account.access_token.{appid}.{secret}.0", Shape::Raw),
            token("official_account.access_token.{appid}.{secret}.1", Shape::Raw),
            token("mini_app.access_token.{appid}.{secret}.0", Shape::Raw),
            token("mini_app.access_token.{appid}.{secret}.1", Shape::Raw),
            jsapi("official_account.jsapi_ticket.{appid}", Shape::Raw),
            wecom(CredentialName::AccessToken, "work.access_token.{appid}.{secret}", Shape::Raw),
            wecom(CredentialName::JsapiTicket, "work.jsapi_ticket.{appid}", Shape::Raw),
            wecom(CredentialName::AgentTicket, "work.jsapi_ticket.{appid}.{agent}", Shape::Raw),
            component("open_platform.component_access_token.{appid}", Shape::Raw),
        ],
    },
    Preset {
        name: "wechatpy",
        store: Store::Plain,
        usual: None,
        keys: &[
            token("wechatpy:{appid}_access_token", Shape::JsonString),
            // Version 2 fetches 60 s before this time, and uses the token as it is where there is no time. Left to
            // the clients, one that fetched by itself would plant a time for all the others.
            token("wechatpy:{appid}_access_token_expires_at", Shape::Nothing),
            jsapi("wechatpy:{appid}_jsapi_ticket", Shape::JsonString),
            // Tickets are the other way round: without a time they are fetched again.
            jsapi("wechatpy:{appid}_jsapi_ticket_expires_at", Shape::AlwaysFresh(Fact::ExpiresAt)),
            wx_card("wechatpy:{appid}_jsapi_card_ticket", Shape::JsonString),
            wx_card("wechatpy:{appid}_jsapi_card_ticket_expires_at", Shape::AlwaysFresh(Fact::ExpiresAt)),
            component("wechatpy:{appid}_component_access_token", Shape::JsonString),
            wecom(CredentialName::AccessToken, "wechatpy:{appid}_{secret10}_access_token", Shape::JsonString),
            wecom(CredentialName::AccessToken, "wechatpy:{appid}_access_token_expires_at", Shape::Nothing),
            wecom(CredentialName::JsapiTicket, "wechatpy:{appid}_jsapi_ticket", Shape::JsonString),
            wecom(
                CredentialName::JsapiTicket,
                "wechatpy:{appid}_jsapi_ticket_expires_at",
                Shape::AlwaysFresh(Fact::ExpiresAt),
            ),
            wecom(CredentialName::AgentTicket, "wechatpy:{appid}_agent_jsapi_ticket", Shape::JsonString),
            wecom(
                CredentialName::AgentTicket,
                "wechatpy:{appid}_agent_jsapi_ticket_expires_at",
                Shape::AlwaysFresh(Fact::ExpiresAt),
            ),
        ],
    },
    Preset {
        name: "silenceper",
        store: Store::Plain,
        usual: None,
        // Its leads of 300 and 1500 s are in the TTL it writes; it reads no time.
        keys: &[
            token("gowechat_officialaccount__access_token_{appid}", Shape::JsonString),
            token("gowechat_officialaccount__stable_access_token_{appid}", Shape::JsonString),
            token("gowechat_miniprogram__access_token_{appid}", Shape::JsonString),
            token("gowechat_miniprogram__stable_access_token_{appid}", Shape::JsonString),
            jsapi("gowechat_officialaccount__jsapi_ticket_{appid}", Shape::JsonString),
            wecom(CredentialName::AccessToken, "gowechat_work__access_token_{appid}", Shape::JsonString),
        ],
    },
    Preset {
        name: "workerman",
        store: Store::Plain,
        usual: None,
        keys: &[
            token("WCH_access_token", Shape::Raw),
            // "Is it later than now?": it always is while there is a token. Despite its name a time, not a duration.
            token("WCH_expires_in", Shape::AlwaysFresh(Fact::ExpiresAt)),
        ],
    },
    Preset {
        name: "thinkphp5",
        store: Store::Framework,
        usual: Some(Shape::Raw),
        keys: &[
            // ThinkPHP 5 hands strings to memcached as they are.
        ],
    },
    Preset {
        name: "thinkphp6",
        store: Store::Framework,
        usual: Some(Shape::PhpString),
        keys: &[
            // ThinkPHP 6 and 8 serialize by themselves; what cannot be unserialized counts as missing.
            token(easywechat_token!(""), Shape::PhpStringOf(EASYWECHAT_TOKEN)),
            jsapi("easywechat.basic_service.jssdk.ticket.jsapi.{appid}", Shape::PhpStringOf(EASYWECHAT_TICKET)),
            wx_card("easywechat.basic_service.jssdk.ticket.wx_card.{appid}", Shape::PhpStringOf(EASYWECHAT_TICKET)),
            wecom(CredentialName::AccessToken, easywechat_wecom_token!(""), Shape::PhpStringOf(EASYWECHAT_TOKEN)),
            wecom(
                CredentialName::JsapiTicket,
                "easywechat.work.jssdk.ticket.config.{appid}",
                Shape::PhpStringOf(EASYWECHAT_TICKET),
            ),
            wecom(
                CredentialName::AgentTicket,
                "easywechat.work.jssdk.ticket.{agent}.agent_config.{appid}",
                Shape::PhpStringOf(EASYWECHAT_TICKET),
            ),
            token("official_account.access_token.{appid}.{secret}.0", Shape::PhpString),
            token("official_account.access_token.{appid}.{secret}.1", Shape::PhpString),
            token("mini_app.access_token.{appid}.{secret}.0", Shape::PhpString),
            token("mini_app.access_token.{appid}.{secret}.1", Shape::PhpString),
            jsapi("official_account.jsapi_ticket.{appid}", Shape::PhpString),
            wecom(CredentialName::AccessToken, "work.access_token.{appid}.{secret}", Shape::PhpString),
            wecom(CredentialName::JsapiTicket, "work.jsapi_ticket.{appid}", Shape::PhpString),
            wecom(CredentialName::AgentTicket, "work.jsapi_ticket.{appid}.{agent}", Shape::PhpString),
            component("open_platform.component_access_token.{appid}", Shape::PhpString),
        ],
    },
    Preset {
        name: "laravel",
        store: Store::Laravel,
        usual: Some(Shape::Raw),
        keys: &[
            // Strings are handed to memcached as they are.
        ],
    },
    Preset {
        name: "easywechat4-laravel",
        store: Store::Laravel,
        usual: None,
        keys: &[
            // Whatever the array says of its time is not looked at.
            token(easywechat_token!(""), Shape::PhpArray(EASYWECHAT_TOKEN)),
            jsapi("easywechat.basic_service.jssdk.ticket.jsapi.{appid}", Shape::PhpArray(EASYWECHAT_TICKET)),
            wx_card("easywechat.basic_service.jssdk.ticket.wx_card.{appid}", Shape::PhpArray(EASYWECHAT_TICKET)),
            wecom(CredentialName::AccessToken, easywechat_wecom_token!(""), Shape::PhpArray(EASYWECHAT_TOKEN)),
            wecom(
                CredentialName::JsapiTicket,
                "easywechat.work.jssdk.ticket.config.{appid}",
                Shape::PhpArray(EASYWECHAT_TICKET),
            ),
            wecom(
                CredentialName::AgentTicket,
                "easywechat.work.jssdk.ticket.agent_config.{appid}.{agent}",
                Shape::PhpArray(EASYWECHAT_TICKET),
            ),
        ],
    },
    Preset {
        name: "easywechat5-laravel",
        store: Store::Laravel,
        usual: None,
        keys: &[
            // As 4, but for the key of an agent's ticket.
            token(easywechat_token!(""), Shape::PhpArray(EASYWECHAT_TOKEN)),
            jsapi("easywechat.basic_service.jssdk.ticket.jsapi.{appid}", Shape::PhpArray(EASYWECHAT_TICKET)),
            wx_card("easywechat.basic_service.jssdk.ticket.wx_card.{appid}", Shape::PhpArray(EASYWECHAT_TICKET)),
            wecom(CredentialName::AccessToken, easywechat_wecom_token!(""), Shape::PhpArray(EASYWECHAT_TOKEN)),
            wecom(
                CredentialName::JsapiTicket,
                "easywechat.work.jssdk.ticket.config.{appid}",
                Shape::PhpArray(EASYWECHAT_TICKET),
            ),
            wecom(
                CredentialName::AgentTicket,
                "easywechat.work.jssdk.ticket.{agent}.agent_config.{appid}",
                Shape::PhpArray(EASYWECHAT_TICKET),
            ),
        ],
    },
    Preset {
        name: "yii2",
        store: Store::Framework,
        usual: None,
        keys: &[
            // Yii 2 keeps the value beside what it depends on, under a digest of the key unless that is short and plain.
            token("{md5:access_token}", Shape::PhpStringWithNull),
            token("{appid}", Shape::PhpStringWithNull),
            token("{md5:access_token_{appid}}", Shape::PhpStringWithNull),
            token("{md5:wechat_access_token}", Shape::PhpStringWithNull),
            token("{md5:wechat_access_token{appid}}", Shape::PhpStringWithNull),
            token("{md5:{appid}_access_token}", Shape::PhpStringWithNull),
            jsapi("{md5:jsapi_ticket}", Shape::PhpStringWithNull),
            jsapi("{md5:jsapi_ticket_{appid}}", Shape::PhpStringWithNull),
            jsapi("{md5:wechat_jsapi_ticket{appid}}", Shape::PhpStringWithNull),
            jsapi("{md5:{appid}_ticket_jsapi}", Shape::PhpStringWithNull),
            wx_card("{md5:wechat_api_ticket_wxcard{appid}}", Shape::PhpStringWithNull),
            wx_card("{md5:{appid}_ticket_wx_card}", Shape::PhpStringWithNull),
            wecom(CredentialName::AccessToken, "{md5:access_token}", Shape::PhpStringWithNull),
            wecom(CredentialName::AccessToken, "{appid}", Shape::PhpStringWithNull),
            wecom(CredentialName::AccessToken, "{md5:access_token_{appid}}", Shape::PhpStringWithNull),
            wecom(CredentialName::AccessToken, "{md5:qywechat_access_token{appid}}", Shape::PhpStringWithNull),
            wecom(CredentialName::JsapiTicket, "{md5:qywechat_jsapi_ticket{appid}}", Shape::PhpStringWithNull),
            token("{md5:cache_wechat_sdk_mp_{appid}_access_token}", YII2_SDK_TOKEN),
            jsapi("{md5:cache_wechat_sdk_mp_{appid}_js_api_ticket}", YII2_SDK_TICKET),
        ],
    },
    Preset { name: "codeigniter2", store: Store::Framework, usual: Some(Shape::PhpValueTimeLife), keys: &[] },
    Preset { name: "codeigniter3", store: Store::Framework, usual: Some(Shape::PhpValueTimeLife), keys: &[] },
    Preset {
        name: "discuz",
        store: Store::Plain,
        usual: None,
        keys: &[token("wechatat_{appid}", DISCUZ_TOKEN), jsapi("wechatjs_{appid}", DISCUZ_TICKET)],
    },
    Preset {
        name: "node-wechat-api",
        store: Store::Framework,
        usual: None,
        keys: &[
            token("access_token", NODE_TOKEN),
            token("{appid}", NODE_TOKEN),
            token("access_token_{appid}", NODE_TOKEN),
            token("wechat_access_token", NODE_TOKEN),
            token("{appid}_access_token", NODE_TOKEN),
            jsapi("jsapi_ticket", NODE_TICKET),
            jsapi("jsapi_ticket_{appid}", NODE_TICKET),
            jsapi("{appid}_jsapi_ticket", NODE_TICKET),
            wx_card("wx_card_ticket_{appid}", NODE_TICKET),
        ],
    },
    Preset {
        name: "symfony",
        store: Store::Framework,
        usual: None,
        keys: &[
            // MemcachedAdapter puts a version before every key; it serializes by itself.
            token("{any}:access_token_{appid}", Shape::PhpString),
            token("{any}:wechat_access_token", Shape::PhpString),
            jsapi("{any}:jsapi_ticket_{appid}", Shape::PhpString),
            token(easywechat_token!("{any}:"), Shape::PhpStringOf(EASYWECHAT_TOKEN)),
            jsapi("{any}:easywechat.basic_service.jssdk.ticket.jsapi.{appid}", Shape::PhpStringOf(EASYWECHAT_TICKET)),
            wx_card(
                "{any}:easywechat.basic_service.jssdk.ticket.wx_card.{appid}",
                Shape::PhpStringOf(EASYWECHAT_TICKET),
            ),
            wecom(CredentialName::AccessToken, easywechat_wecom_token!("{any}:"), Shape::PhpStringOf(EASYWECHAT_TOKEN)),
            wecom(
                CredentialName::JsapiTicket,
                "{any}:easywechat.work.jssdk.ticket.config.{appid}",
                Shape::PhpStringOf(EASYWECHAT_TICKET),
            ),
            wecom(
                CredentialName::AgentTicket,
                "{any}:easywechat.work.jssdk.ticket.agent_config.{appid}.{agent}",
                Shape::PhpStringOf(EASYWECHAT_TICKET),
            ),
            wecom(
                CredentialName::AgentTicket,
                "{any}:easywechat.work.jssdk.ticket.{agent}.agent_config.{appid}",
                Shape::PhpStringOf(EASYWECHAT_TICKET),
            ),
            token("{any}:official_account.access_token.{appid}.{secret}.0", Shape::PhpString),
            token("{any}:official_account.access_token.{appid}.{secret}.1", Shape::PhpString),
            token("{any}:mini_app.access_token.{appid}.{secret}.0", Shape::PhpString),
            token("{any}:mini_app.access_token.{appid}.{secret}.1", Shape::PhpString),
            jsapi("{any}:official_account.jsapi_ticket.{appid}", Shape::PhpString),
            wecom(CredentialName::AccessToken, "{any}:work.access_token.{appid}.{secret}", Shape::PhpString),
            wecom(CredentialName::JsapiTicket, "{any}:work.jsapi_ticket.{appid}", Shape::PhpString),
            wecom(CredentialName::AgentTicket, "{any}:work.jsapi_ticket.{appid}.{agent}", Shape::PhpString),
            component("{any}:open_platform.component_access_token.{appid}", Shape::PhpString),
        ],
    },
    Preset {
        name: "wordpress",
        store: Store::Framework,
        usual: None,
        keys: &[
            // With a drop-in for memcached, transients are objects of a group, behind a salt, a version and a blog's prefix.
            token("{any}transient:weixin_access_token", Shape::Raw),
            token("{any}transient:weixin_robot_access_token", Shape::Raw),
            token("{any}transient:wechat_access_token", Shape::Raw),
            token("{any}transient:wx_access_token", Shape::Raw),
            token("{any}transient:access_token_{appid}", Shape::Raw),
            token("{any}transient:{appid}_access_token", Shape::Raw),
            token("{any}transient:weixin_access_token_expires", Shape::Time(Fact::ExpiresAt)),
            jsapi("{any}transient:weixin_js_api_ticket", Shape::Raw),
            jsapi("{any}transient:weixin_js_api_ticket_expires", Shape::Time(Fact::ExpiresAt)),
            jsapi("{any}transient:wechat_jsapi_ticket", Shape::Raw),
            jsapi("{any}transient:jsapi_ticket_{appid}", Shape::Raw),
        ],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// What is under each key of a preset.
    fn keys(preset: &Preset) -> HashMap<(bool, &'static str), (CredentialName, View)> {
        let mut keys = HashMap::new();
        for agents in [false, true] {
            for (of, template, view) in preset.keys_for(agents, ClientLibrary::default()) {
                let first = keys.insert((agents, template), (of, view));
                assert!(first.is_none(), "{}: {template} is there twice", preset.name);
            }
        }
        keys
    }

    #[test]
    fn presets_that_agree_on_a_key_agree_on_whose_it_is() {
        let mut seen = HashMap::new();
        for preset in PRESETS {
            for (key, (of, _)) in keys(preset) {
                assert_eq!(*seen.entry(key).or_insert(of), of, "{}: {}", preset.name, key.1);
            }
        }
    }

    #[test]
    fn names_are_given_once() {
        let names: std::collections::HashSet<_> = PRESETS.iter().map(|preset| preset.name).collect();
        assert_eq!(names.len(), PRESETS.len());
    }

    #[test]
    fn laravel_finds_its_key_with_its_colon_and_without() {
        let preset = |name| PRESETS.iter().find(|preset| preset.name == name).unwrap();
        assert_eq!(preset("laravel").prefixes("laravel_cache"), ["laravel_cache", "laravel_cache:"]);
        assert_eq!(preset("laravel").prefixes(""), [""]);
        assert_eq!(preset("tutorial").prefixes("shop_"), ["shop_"]);
    }

    #[test]
    fn a_redis_gets_no_wildcard_and_what_laravel_reads_there() {
        for preset in PRESETS {
            for (_, template, view) in preset.keys(false).chain(preset.keys(true)) {
                assert!(!template.contains(ANY), "{}: {template}", preset.name);
                assert!(preset.store != Store::Laravel || view.form != Form::Raw(Fact::Value), "{template}");
            }
        }
    }
}
