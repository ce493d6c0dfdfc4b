//! The keys that well-known clients read, by the client's name. Data only.
//!
//! Taken from the sources of those clients. Beside each stands why a client that finds our value never fetches one by
//! itself.

use self::Shape::{
    AlwaysFresh, FreshJson, FreshPhpArray, JsonString, Nothing, PhpArray, PhpString, PhpStringOf, PhpStringOfWithNull,
    PhpStringWithNull, PhpValueTimeLife, Raw, Time,
};
use crate::encoding::{ANY, ClientLibrary, Constant, Fact, Field, Form, NOMINAL_LIFE_S, View};
use crate::platform::CredentialName;

/// The keys of one client.
pub struct Preset {
    pub name: &'static str,
    store: Store,
    keys: &'static [KeyGroup],
}

/// What lies between the client and memcached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    /// Nothing that matters here.
    Plain,
    /// A framework's cache, under keys of the site's own choosing.
    Framework,
    /// A framework's cache that has the key digested, unless it is short and plain.
    Digesting,
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
    ) -> impl Iterator<Item = (CredentialName, String, View)> + use<> {
        let (groups, store) = (self.keys, self.store);
        let rows = groups.iter().flat_map(|group| group.keys.iter().map(move |row| (group, row)));
        let rows = rows.filter(move |(_, (owner, ..))| owner.agents == agents);
        let keys = rows.flat_map(|(group, row)| row.1.split(' ').map(move |key| (group, row, key)));
        keys.map(move |(group, (owner, _, own), key)| {
            let template = match store {
                Store::Digesting if key != SHORT => format!("{{md5:{key}}}"),
                _ => format!("{}{key}", group.before),
            };
            (owner.of, template, group.shape.unwrap_or(*own).view(owner.of, client))
        })
    }

    /// Every key with what is under it in a Redis, where nothing has flags and no version is put before keys.
    pub fn keys(&self, agents: bool) -> impl Iterator<Item = (CredentialName, String, View)> {
        self.keys_for(agents, ClientLibrary::default()).map(|(of, template, view)| {
            let template = match template.strip_prefix(ANY) {
                Some(end) => end.trim_start_matches(':').to_owned(),
                None => template,
            };
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
        let with_colon = (self.store == Store::Laravel && !prefix.is_empty()).then(|| format!("{prefix}:"));
        std::iter::once(prefix.to_owned()).chain(with_colon).collect()
    }

    /// Whether the preset only guesses that the site has this key: it does not say whose it is, and sites with several
    /// apps have others.
    pub fn guesses(&self, template: &str) -> bool {
        self.store != Store::Plain && !["{appid}", "{secret", "{agent}"].iter().any(|word| template.contains(word))
    }
}

struct KeyGroup {
    /// What stands before each.
    before: &'static str,
    /// In place of the keys' own.
    shape: Option<Shape>,
    keys: &'static [KeyRow],
}

/// Whose some keys are, the keys with blanks between them, and how they are stored.
type KeyRow = (KeyOwner, &'static str, Shape);

#[derive(Clone, Copy)]
struct KeyOwner {
    /// For WeCom, where an id has many secrets.
    agents: bool,
    of: CredentialName,
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
/// In an array: the usual name of the credential's value.
const USUAL_NAME: &str = "";
/// The one key that is short and plain.
const SHORT: &str = "{appid}";

impl Shape {
    fn view(self, of: CredentialName, client: ClientLibrary) -> View {
        let named = |facts: &[NamedFact]| {
            let name = |name| if name == USUAL_NAME { of.value_name() } else { name };
            let mut facts: Vec<NamedFact> = facts.iter().map(|(known, fact)| (name(*known), *fact)).collect();
            // As the fields of a TOML table come.
            facts.sort_unstable();
            Field::named(facts)
        };
        let with_null = |field| Form::Php(Field::Listed(vec![field, Field::Constant(Constant::Null)]));
        let (form, flags, at_least_s) = match self {
            Raw => (Form::Raw(Fact::Value), 0, 0),
            JsonString => (Form::JSON_STRING, 0, 0),
            FreshJson(facts) => (Form::Json(named(facts)), client.object_flags(), FRESH_S),
            PhpString => (Form::PHP_STRING, 0, 0),
            PhpStringOf(facts) => (Form::Php(named(facts)), 0, 0),
            PhpStringWithNull => (with_null(Field::Fact(Fact::Value)), 0, 0),
            PhpStringOfWithNull(facts) => (with_null(named(facts)), 0, 0),
            PhpArray(facts) => (Form::Php(named(facts)), client.serialized_flags(), 0),
            FreshPhpArray(facts) => (Form::Php(named(facts)), client.serialized_flags(), FRESH_S),
            PhpValueTimeLife => {
                let life = Field::Constant(Constant::Number(NOMINAL_LIFE_S));
                let fields = vec![Field::Fact(Fact::Value), Field::Fact(Fact::FetchedAt), life];
                (Form::Php(Field::Listed(fields)), client.serialized_flags(), 0)
            }
            Time(fact) => (Form::Raw(fact), 0, 0),
            AlwaysFresh(fact) => (Form::Raw(fact), 0, FRESH_S),
            Nothing => (Form::Nothing, 0, 0),
            Shape::Constant(number) => (Form::Constant(number.to_string()), 0, 0),
        };
        View { form, flags, at_least_s }
    }
}

const fn preset(name: &'static str, store: Store, keys: &'static [KeyGroup]) -> Preset {
    Preset { name, store, keys }
}

/// KeyRow with shapes of their own.
const fn own(before: &'static str, keys: &'static [KeyRow]) -> KeyGroup {
    KeyGroup { before, shape: None, keys }
}

/// KeyRow that all have this shape.
const fn all(before: &'static str, shape: Shape, keys: &'static [KeyRow]) -> KeyGroup {
    KeyGroup { before, shape: Some(shape), keys }
}

const TOKEN: KeyOwner = KeyOwner { agents: false, of: CredentialName::AccessToken };
const JSAPI: KeyOwner = KeyOwner { agents: false, of: CredentialName::JsapiTicket };
const WX_CARD: KeyOwner = KeyOwner { agents: false, of: CredentialName::WxCardTicket };
const COMPONENT: KeyOwner = KeyOwner { agents: false, of: CredentialName::ComponentToken };
const WECOM_TOKEN: KeyOwner = KeyOwner { agents: true, of: CredentialName::AccessToken };
const WECOM_JSAPI: KeyOwner = KeyOwner { agents: true, of: CredentialName::JsapiTicket };
const WECOM_AGENT: KeyOwner = KeyOwner { agents: true, of: CredentialName::AgentTicket };

/// EasyWeChat 4 and 5: the array that their PSR-16 cache is given.
const EASYWECHAT_ARRAY: &[NamedFact] = &[(USUAL_NAME, Fact::Value), ("expires_in", Fact::ExpiresIn)];
/// yii2-wechat-sdk keeps WeChat's answer and the end beside it.
const YII2_SDK_ARRAY: &[NamedFact] =
    &[(USUAL_NAME, Fact::Value), ("expires_in", Fact::ExpiresIn), ("expire", Fact::ExpiresAt)];
/// Discuz's own WeChat plug-in asks whether this time lies ahead.
const DISCUZ_TOKEN: Shape = FreshPhpArray(&[("token", Fact::Value), ("expiration", Fact::ExpiresAt)]);
const DISCUZ_TICKET: Shape = FreshPhpArray(&[("ticket", Fact::Value), ("expiration", Fact::ExpiresAt)]);
/// co-wechat-api and wechat-api ask whether this time, milliseconds, lies ahead.
const NODE_TOKEN: Shape = FreshJson(&[("accessToken", Fact::Value), ("expireTime", Fact::ExpiresAtMs)]);
const NODE_TICKET: Shape = FreshJson(&[("ticket", Fact::Value), ("expireTime", Fact::ExpiresAtMs)]);

/// The keys that a site's own code chooses, in a framework's cache too.
const USUAL: &[KeyRow] = &[
    (TOKEN, "access_token {appid} access_token_{appid} wechat_access_token wechat_access_token{appid}", Raw),
    (TOKEN, "{appid}_access_token", Raw),
    (JSAPI, "jsapi_ticket jsapi_ticket_{appid} wechat_jsapi_ticket{appid} {appid}_ticket_jsapi", Raw),
    (WX_CARD, "wechat_api_ticket_wxcard{appid} {appid}_ticket_wx_card", Raw),
    (WECOM_TOKEN, "access_token {appid} access_token_{appid} qywechat_access_token{appid}", Raw),
    (WECOM_JSAPI, "qywechat_jsapi_ticket{appid}", Raw),
];

/// What EasyWeChat 4 and 5 read; a token's key ends in a digest of what is sent to WeChat.
const EASYWECHAT_4: &[KeyRow] = &[
    (
        TOKEN,
        r#"easywechat.kernel.access_token.{md5:{"grant_type":"client_credential","appid":"{appid}","secret":"{secret}"}}"#,
        Raw,
    ),
    (JSAPI, "easywechat.basic_service.jssdk.ticket.jsapi.{appid}", Raw),
    (WX_CARD, "easywechat.basic_service.jssdk.ticket.wx_card.{appid}", Raw),
    (WECOM_TOKEN, r#"easywechat.kernel.access_token.{md5:{"corpid":"{appid}","corpsecret":"{secret}"}}"#, Raw),
    (WECOM_JSAPI, "easywechat.work.jssdk.ticket.config.{appid}", Raw),
];
/// The two differ in the key of an agent's ticket.
const AGENT_OF_EASYWECHAT_4: &[KeyRow] =
    &[(WECOM_AGENT, "easywechat.work.jssdk.ticket.agent_config.{appid}.{agent}", Raw)];
const AGENT_OF_EASYWECHAT_5: &[KeyRow] =
    &[(WECOM_AGENT, "easywechat.work.jssdk.ticket.{agent}.agent_config.{appid}", Raw)];

/// The last part of a token's key is 1 where EasyWeChat is told to use stable tokens.
const EASYWECHAT_6: &[KeyRow] = &[
    (TOKEN, "official_account.access_token.{appid}.{secret}.0 official_account.access_token.{appid}.{secret}.1", Raw),
    (TOKEN, "mini_app.access_token.{appid}.{secret}.0 mini_app.access_token.{appid}.{secret}.1", Raw),
    (JSAPI, "official_account.jsapi_ticket.{appid}", Raw),
    (WECOM_TOKEN, "work.access_token.{appid}.{secret}", Raw),
    (WECOM_JSAPI, "work.jsapi_ticket.{appid}", Raw),
    (WECOM_AGENT, "work.jsapi_ticket.{appid}.{agent}", Raw),
    (COMPONENT, "open_platform.component_access_token.{appid}", Raw),
];

const TUTORIAL: &[KeyRow] = &[
    (TOKEN, "access_token {appid} access_token_{appid}", Raw),
    (JSAPI, "jsapi_ticket", Raw),
    // "Fetched more than 7000 seconds ago?": it never was.
    (JSAPI, "jsapi_last_time", AlwaysFresh(Fact::FetchedAt)),
    (WECOM_TOKEN, "access_token {appid} access_token_{appid}", Raw),
];

const DODGEPUDDING: &[KeyRow] = &[
    (TOKEN, "wechat_access_token{appid}", Raw),
    (JSAPI, "wechat_jsapi_ticket{appid}", Raw),
    (WX_CARD, "wechat_api_ticket_wxcard{appid}", Raw),
    (WECOM_TOKEN, "qywechat_access_token{appid}", Raw),
    (WECOM_JSAPI, "qywechat_jsapi_ticket{appid}", Raw),
];

const ZOUJINGLI: &[KeyRow] = &[
    (TOKEN, "{appid}_access_token", Raw),
    (JSAPI, "{appid}_ticket_jsapi", Raw),
    (WX_CARD, "{appid}_ticket_wx_card", Raw),
];

const EASYWECHAT_3: &[KeyRow] = &[
    // Doctrine puts the version of its namespace into every key. Kept at 1, the keys below stay right.
    (TOKEN, "DoctrineNamespaceCacheKey[]", Shape::Constant(1)),
    (TOKEN, "[easywechat.common.access_token.{appid}][1]", Raw),
    (JSAPI, "[overtrue.wechat.jsapi_ticket.{appid}][1]", Raw),
];

const WECHATPY: &[KeyRow] = &[
    (TOKEN, "access_token", JsonString),
    // Version 2 fetches 60 s before this time, and uses the token as it is where there is no time. Left to the clients,
    // one that fetched by itself would plant a time for all the others.
    (TOKEN, "access_token_expires_at", Nothing),
    (JSAPI, "jsapi_ticket", JsonString),
    // Tickets are the other way round: without a time they are fetched again.
    (JSAPI, "jsapi_ticket_expires_at", AlwaysFresh(Fact::ExpiresAt)),
    (WX_CARD, "jsapi_card_ticket", JsonString),
    (WX_CARD, "jsapi_card_ticket_expires_at", AlwaysFresh(Fact::ExpiresAt)),
    (COMPONENT, "component_access_token", JsonString),
    (WECOM_TOKEN, "{secret10}_access_token", JsonString),
    (WECOM_TOKEN, "access_token_expires_at", Nothing),
    (WECOM_JSAPI, "jsapi_ticket", JsonString),
    (WECOM_JSAPI, "jsapi_ticket_expires_at", AlwaysFresh(Fact::ExpiresAt)),
    (WECOM_AGENT, "agent_jsapi_ticket", JsonString),
    (WECOM_AGENT, "agent_jsapi_ticket_expires_at", AlwaysFresh(Fact::ExpiresAt)),
];

/// Its leads of 300 and 1500 s are in the TTL it writes; it reads no time.
const SILENCEPER: &[KeyRow] = &[
    (TOKEN, "officialaccount__access_token_{appid} officialaccount__stable_access_token_{appid}", JsonString),
    (TOKEN, "miniprogram__access_token_{appid} miniprogram__stable_access_token_{appid}", JsonString),
    (JSAPI, "officialaccount__jsapi_ticket_{appid}", JsonString),
    (WECOM_TOKEN, "work__access_token_{appid}", JsonString),
];

const WORKERMAN: &[KeyRow] = &[
    (TOKEN, "access_token", Raw),
    // "Is it later than now?": it always is while there is a token. Despite its name a time, not a duration.
    (TOKEN, "expires_in", AlwaysFresh(Fact::ExpiresAt)),
];

const YII2_SDK: &[KeyRow] = &[
    (TOKEN, "cache_wechat_sdk_mp_{appid}_access_token", Raw),
    (JSAPI, "cache_wechat_sdk_mp_{appid}_js_api_ticket", Raw),
];

const NODE_WECHAT_API: &[KeyRow] = &[
    (TOKEN, "access_token {appid} access_token_{appid} wechat_access_token {appid}_access_token", NODE_TOKEN),
    (JSAPI, "jsapi_ticket jsapi_ticket_{appid} {appid}_jsapi_ticket", NODE_TICKET),
    (WX_CARD, "wx_card_ticket_{appid}", NODE_TICKET),
];

const SYMFONY: &[KeyRow] =
    &[(TOKEN, "access_token_{appid} wechat_access_token", PhpString), (JSAPI, "jsapi_ticket_{appid}", PhpString)];

const WORDPRESS: &[KeyRow] = &[
    (TOKEN, "weixin_access_token weixin_robot_access_token wechat_access_token wx_access_token", Raw),
    (TOKEN, "access_token_{appid} {appid}_access_token", Raw),
    (TOKEN, "weixin_access_token_expires", Time(Fact::ExpiresAt)),
    (JSAPI, "weixin_js_api_ticket", Raw),
    (JSAPI, "weixin_js_api_ticket_expires", Time(Fact::ExpiresAt)),
    (JSAPI, "wechat_jsapi_ticket jsapi_ticket_{appid}", Raw),
];

/// All of them. Clients that look at nothing but the value need no reason: they take what is there.
pub const PRESETS: &[Preset] = &[
    preset("tutorial", Store::Plain, &[own("", TUTORIAL)]),
    preset("dodgepudding", Store::Plain, &[own("", DODGEPUDDING)]),
    preset("zoujingli", Store::Plain, &[own("", ZOUJINGLI)]),
    preset("fastwego", Store::Plain, &[own("", &[(TOKEN, "{appid}", Raw)])]),
    preset("easywechat3", Store::Plain, &[own("", EASYWECHAT_3)]),
    preset("easywechat6-laravel", Store::Laravel, &[own("", EASYWECHAT_6)]),
    preset("wechatpy", Store::Plain, &[own("wechatpy:{appid}_", WECHATPY)]),
    preset("silenceper", Store::Plain, &[own("gowechat_", SILENCEPER)]),
    preset("workerman", Store::Plain, &[own("WCH_", WORKERMAN)]),
    // ThinkPHP 5 hands strings to memcached as they are.
    preset("thinkphp5", Store::Framework, &[own("", USUAL)]),
    // ThinkPHP 6 and 8 serialize by themselves; what cannot be unserialized counts as missing.
    preset(
        "thinkphp6",
        Store::Framework,
        &[
            all("", PhpString, USUAL),
            all("", PhpStringOf(EASYWECHAT_ARRAY), EASYWECHAT_4),
            all("", PhpStringOf(EASYWECHAT_ARRAY), AGENT_OF_EASYWECHAT_5),
            all("", PhpString, EASYWECHAT_6),
        ],
    ),
    // Strings are handed to memcached as they are.
    preset("laravel", Store::Laravel, &[own("", USUAL)]),
    // Whatever the array says of its time is not looked at.
    preset(
        "easywechat4-laravel",
        Store::Laravel,
        &[
            all("", PhpArray(EASYWECHAT_ARRAY), EASYWECHAT_4),
            all("", PhpArray(EASYWECHAT_ARRAY), AGENT_OF_EASYWECHAT_4),
        ],
    ),
    preset(
        "easywechat5-laravel",
        Store::Laravel,
        &[
            all("", PhpArray(EASYWECHAT_ARRAY), EASYWECHAT_4),
            all("", PhpArray(EASYWECHAT_ARRAY), AGENT_OF_EASYWECHAT_5),
        ],
    ),
    // Yii 2 keeps the value beside what it depends on.
    preset(
        "yii2",
        Store::Digesting,
        &[all("", PhpStringWithNull, USUAL), all("", PhpStringOfWithNull(YII2_SDK_ARRAY), YII2_SDK)],
    ),
    preset("codeigniter2", Store::Framework, &[all("", PhpValueTimeLife, USUAL)]),
    preset("codeigniter3", Store::Framework, &[all("", PhpValueTimeLife, USUAL)]),
    preset(
        "discuz",
        Store::Plain,
        &[own("", &[(TOKEN, "wechatat_{appid}", DISCUZ_TOKEN), (JSAPI, "wechatjs_{appid}", DISCUZ_TICKET)])],
    ),
    preset("node-wechat-api", Store::Framework, &[own("", NODE_WECHAT_API)]),
    // MemcachedAdapter puts a version before every key; it serializes by itself.
    preset(
        "symfony",
        Store::Framework,
        &[
            own("{any}:", SYMFONY),
            all("{any}:", PhpStringOf(EASYWECHAT_ARRAY), EASYWECHAT_4),
            all("{any}:", PhpStringOf(EASYWECHAT_ARRAY), AGENT_OF_EASYWECHAT_4),
            all("{any}:", PhpStringOf(EASYWECHAT_ARRAY), AGENT_OF_EASYWECHAT_5),
            all("{any}:", PhpString, EASYWECHAT_6),
        ],
    ),
    // With a drop-in for memcached, transients are objects of a group, behind a salt, a version and a blog's prefix.
    preset("wordpress", Store::Framework, &[own("{any}transient:", WORDPRESS)]),
];

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// What is under each key of a preset.
    fn keys(preset: &Preset) -> HashMap<(bool, String), (CredentialName, View)> {
        let mut keys = HashMap::new();
        for agents in [false, true] {
            for (of, template, view) in preset.keys_for(agents, ClientLibrary::default()) {
                let first = keys.insert((agents, template.clone()), (of, view));
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
                assert_eq!(*seen.entry(key.clone()).or_insert(of), of, "{}: {}", preset.name, key.1);
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
