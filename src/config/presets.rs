//! The keys that well-known clients read, by the client's name.
//!
//! Taken from those clients' sources. Each says beside it why a client that finds our value never decides by itself
//! that it needs another.

use super::{AliasOf, View};
use crate::credential::encoding::{Fact, Form};

/// The keys of one client.
pub(super) struct Preset {
    pub name: &'static str,
    keys: &'static [Key],
}

impl Preset {
    /// Every key with what is under it. A corporation with many agents has keys of its own.
    pub fn keys(&self, agents: bool) -> impl Iterator<Item = (AliasOf, &'static str, View)> {
        let keys = self.keys.iter().filter(move |key| key.agents == agents);
        keys.map(|key| (key.of, key.template, key.shape.view()))
    }
}

struct Key {
    /// For WeCom, where an id has many secrets.
    agents: bool,
    of: AliasOf,
    template: &'static str,
    shape: Shape,
}

#[derive(Clone, Copy)]
enum Shape {
    Raw,
    JsonString,
    /// A time that is always a whole lifetime away, flags 0: what the reader looks at on each page view.
    AlwaysFresh(Fact),
    Nothing,
    Constant(u64),
}

/// A lifetime, seconds: longer than any client's lead.
const FRESH_S: u32 = 7200;

impl Shape {
    fn view(self) -> View {
        let (form, at_least_s) = match self {
            Shape::Raw => (Form::Raw(Fact::Value), 0),
            Shape::JsonString => (Form::JsonString, 0),
            Shape::AlwaysFresh(fact) => (Form::Raw(fact), FRESH_S),
            Shape::Nothing => (Form::Nothing, 0),
            Shape::Constant(number) => (Form::Constant(number), 0),
        };
        View { form, flags: 0, at_least_s }
    }
}

const fn token(template: &'static str, shape: Shape) -> Key {
    Key { agents: false, of: AliasOf::AccessToken, template, shape }
}

const fn jsapi(template: &'static str, shape: Shape) -> Key {
    Key { agents: false, of: AliasOf::JsapiTicket, template, shape }
}

const fn wx_card(template: &'static str, shape: Shape) -> Key {
    Key { agents: false, of: AliasOf::WxCardTicket, template, shape }
}

const fn component(template: &'static str, shape: Shape) -> Key {
    Key { agents: false, of: AliasOf::ComponentToken, template, shape }
}

const fn wecom(of: AliasOf, template: &'static str, shape: Shape) -> Key {
    Key { agents: true, of, template, shape }
}

/// All of them. Clients that look at nothing but the value need no reason: they take what is there.
pub(super) const PRESETS: &[Preset] = &[
    Preset {
        name: "tutorial",
        keys: &[
            token("access_token", Shape::Raw),
            token("{appid}", Shape::Raw),
            token("access_token_{appid}", Shape::Raw),
            jsapi("jsapi_ticket", Shape::Raw),
            // "Fetched more than 7000 seconds ago?": it never was.
            jsapi("jsapi_last_time", Shape::AlwaysFresh(Fact::FetchedAt)),
            wecom(AliasOf::AccessToken, "access_token", Shape::Raw),
            wecom(AliasOf::AccessToken, "{appid}", Shape::Raw),
            wecom(AliasOf::AccessToken, "access_token_{appid}", Shape::Raw),
        ],
    },
    Preset {
        name: "dodgepudding",
        keys: &[
            token("wechat_access_token{appid}", Shape::Raw),
            jsapi("wechat_jsapi_ticket{appid}", Shape::Raw),
            wx_card("wechat_api_ticket_wxcard{appid}", Shape::Raw),
            wecom(AliasOf::AccessToken, "qywechat_access_token{appid}", Shape::Raw),
            wecom(AliasOf::JsapiTicket, "qywechat_jsapi_ticket{appid}", Shape::Raw),
        ],
    },
    Preset {
        name: "zoujingli",
        keys: &[
            token("{appid}_access_token", Shape::Raw),
            jsapi("{appid}_ticket_jsapi", Shape::Raw),
            wx_card("{appid}_ticket_wx_card", Shape::Raw),
        ],
    },
    Preset { name: "fastwego", keys: &[token("{appid}", Shape::Raw)] },
    Preset {
        name: "easywechat3",
        keys: &[
            // Doctrine puts the version of its namespace into every key. Kept at 1, the keys below stay right.
            token("DoctrineNamespaceCacheKey[]", Shape::Constant(1)),
            token("[easywechat.common.access_token.{appid}][1]", Shape::Raw),
            jsapi("[overtrue.wechat.jsapi_ticket.{appid}][1]", Shape::Raw),
        ],
    },
    Preset {
        name: "easywechat6-laravel",
        // The last part is 1 where EasyWeChat is told to use stable tokens.
        keys: &[
            token("official_account.access_token.{appid}.{secret}.0", Shape::Raw),
            token("official_account.access_token.{appid}.{secret}.1", Shape::Raw),
            token("mini_app.access_token.{appid}.{secret}.0", Shape::Raw),
            token("mini_app.access_token.{appid}.{secret}.1", Shape::Raw),
            jsapi("official_account.jsapi_ticket.{appid}", Shape::Raw),
            wecom(AliasOf::AccessToken, "work.access_token.{appid}.{secret}", Shape::Raw),
            component("open_platform.component_access_token.{appid}", Shape::Raw),
        ],
    },
    Preset {
        name: "wechatpy",
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
            wecom(AliasOf::AccessToken, "wechatpy:{appid}_{secret10}_access_token", Shape::JsonString),
            wecom(AliasOf::AccessToken, "wechatpy:{appid}_access_token_expires_at", Shape::Nothing),
            wecom(AliasOf::JsapiTicket, "wechatpy:{appid}_jsapi_ticket", Shape::JsonString),
            wecom(
                AliasOf::JsapiTicket,
                "wechatpy:{appid}_jsapi_ticket_expires_at",
                Shape::AlwaysFresh(Fact::ExpiresAt),
            ),
            wecom(AliasOf::AgentTicket, "wechatpy:{appid}_agent_jsapi_ticket", Shape::JsonString),
            wecom(
                AliasOf::AgentTicket,
                "wechatpy:{appid}_agent_jsapi_ticket_expires_at",
                Shape::AlwaysFresh(Fact::ExpiresAt),
            ),
        ],
    },
    Preset {
        name: "silenceper",
        // Its leads of 300 and 1500 s are in the TTL it writes; it reads no time.
        keys: &[
            token("gowechat_officialaccount__access_token_{appid}", Shape::JsonString),
            token("gowechat_officialaccount__stable_access_token_{appid}", Shape::JsonString),
            token("gowechat_miniprogram__access_token_{appid}", Shape::JsonString),
            token("gowechat_miniprogram__stable_access_token_{appid}", Shape::JsonString),
            jsapi("gowechat_officialaccount__jsapi_ticket_{appid}", Shape::JsonString),
            wecom(AliasOf::AccessToken, "gowechat_work__access_token_{appid}", Shape::JsonString),
        ],
    },
    Preset {
        name: "workerman",
        keys: &[
            token("WCH_access_token", Shape::Raw),
            // "Is it later than now?": it always is while there is a token. Despite its name a time, not a duration.
            token("WCH_expires_in", Shape::AlwaysFresh(Fact::ExpiresAt)),
        ],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn no_two_presets_disagree_about_a_key() {
        let mut seen = HashMap::new();
        for preset in PRESETS {
            for (of, template, view) in preset.keys(false).chain(preset.keys(true)) {
                let first = seen.entry(template).or_insert_with(|| (of, view.clone()));
                assert_eq!(*first, (of, view), "{}: {template}", preset.name);
            }
        }
    }
}
