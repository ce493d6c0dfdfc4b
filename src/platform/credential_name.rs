//! The names that keys, sinks and the configuration have for what is kept of an app. Pure.

use serde::Deserialize;

use super::CredentialType;

/// Which of an app's credentials a key shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialName {
    AccessToken,
    JsapiTicket,
    WxCardTicket,
    /// WeCom's, for `wx.agentConfig`.
    AgentTicket,
    /// A component's own.
    #[serde(rename = "component_access_token")]
    ComponentToken,
}

impl CredentialName {
    pub const ALL: [CredentialName; 5] =
        [Self::AccessToken, Self::JsapiTicket, Self::WxCardTicket, Self::AgentTicket, Self::ComponentToken];

    /// Each with its word in the configuration.
    pub fn words() -> [(&'static str, CredentialName); 5] {
        CredentialName::ALL.map(|of| (of.word(), of))
    }

    /// The usual name of its value among fields.
    pub fn value_name(self) -> &'static str {
        match self {
            CredentialName::AccessToken | CredentialName::ComponentToken => self.word(),
            _ => "ticket",
        }
    }

    pub fn of(credential_type: &CredentialType) -> Option<CredentialName> {
        CredentialName::ALL.into_iter().find(|of| of.is(credential_type))
    }

    pub fn is(self, credential_type: &CredentialType) -> bool {
        self.word() == credential_type.key
    }

    /// The word in the configuration, which is also the type's `key`.
    pub fn word(self) -> &'static str {
        match self {
            CredentialName::AccessToken => "access_token",
            CredentialName::JsapiTicket => "jsapi_ticket",
            CredentialName::WxCardTicket => "wx_card_ticket",
            CredentialName::AgentTicket => "agent_ticket",
            CredentialName::ComponentToken => "component_access_token",
        }
    }
}
