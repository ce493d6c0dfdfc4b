//! An app as configured: which of its credentials are kept current, and under which keys.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::encoding::key_words::fits_in_a_key;
use crate::encoding::request::form_as_toml;
use crate::encoding::toml_text::toml_text;
use crate::encoding::{Form, View};
use crate::invalid_value::{InvalidValue, Judgement, quoted, quoted_name, wrong};
use crate::platform::{ClientOptions, CredentialName, CredentialType, Platform, Renewal, component, mp};
use crate::raw_value::{Fields, Given, PartsResult, RawValue, text};
use crate::secret_source::{SecretSource, surplus};

#[derive(Clone, Debug)]
pub struct App {
    pub appid: String,
    pub name: Option<String>,
    pub platform: &'static Platform,
    pub token: &'static CredentialType,
    /// What else is kept current; fetched with the access token.
    pub tickets: Vec<&'static CredentialType>,
    /// Which of a corporation's apps this is (WeCom's agent id).
    pub agent: Option<String>,
    pub secret: SecretSource,
    /// Overrides [`ClientOptions::base_url`] for this app.
    pub base_url: Option<String>,
    /// Other keys for what is kept of this app.
    pub aliases: Vec<Alias>,
    /// Overrides the published quota of calls a day for the access token.
    pub daily_quota: Option<u64>,
    /// The same for each of the tickets.
    pub daily_ticket_quota: Option<u64>,
    /// Fetched instead for the rest of a day whose quota is used up.
    pub fallback: Option<&'static CredentialType>,
    /// How often the access token is probed; 0 for only after a report. None: every five minutes as long as there are
    /// few apps.
    pub probe_every_ms: Option<u64>,
    /// Where the site keeps a token that it has fetched itself. It is served until it expires; then this server
    /// fetches.
    pub adopt: Option<Adopt>,
    /// Overrides how many forced refreshes a day are allowed.
    pub forced_per_day: Option<u64>,
    /// For a component: the file into which the receiver of WeChat's pushes writes the verify ticket.
    pub verify_ticket_file: Option<PathBuf>,
    /// For an authorizer: its component's appid. Then `secret` is its configured refresh token.
    pub component: Option<String>,
}

/// Where a site keeps a token that it has fetched itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adopt {
    Sink,
    /// Under a key of the memcached that it has used so far. An address that begins with `/` is a Unix socket.
    Memcached {
        address: String,
        key: String,
    },
    File(PathBuf),
}

impl App {
    /// An app of WeChat's own platform with only an access token, of this type.
    pub fn mp(appid: &str, secret: SecretSource, token: &'static CredentialType) -> App {
        App {
            appid: appid.to_owned(),
            name: None,
            platform: &mp::PLATFORM,
            token,
            tickets: Vec::new(),
            agent: None,
            secret,
            base_url: None,
            aliases: Vec::new(),
            daily_quota: None,
            daily_ticket_quota: None,
            fallback: None,
            probe_every_ms: None,
            adopt: None,
            forced_per_day: None,
            verify_ticket_file: None,
            component: None,
        }
    }

    /// Names the app in keys, logs and the state: the appid, and `:<agent>` if it has one.
    pub fn id(&self) -> String {
        match &self.agent {
            Some(agent) => format!("{}:{agent}", self.appid),
            None => self.appid.clone(),
        }
    }

    /// For people: the id, and the name behind it if there is one.
    pub fn display_name(&self) -> String {
        match &self.name {
            Some(name) => format!("{} ({name})", self.id()),
            None => self.id(),
        }
    }

    /// The base URL of its API: its own setting, otherwise the one for all, otherwise its platform's.
    pub fn base_url<'a>(&'a self, upstream: &'a ClientOptions) -> &'a str {
        match &self.base_url {
            Some(base_url) => base_url,
            None if upstream.base_url == mp::PLATFORM.base_url => self.platform.base_url,
            None => &upstream.base_url,
        }
    }

    /// Everything that is kept of it: its access token, then its tickets.
    pub fn credential_types(&self) -> impl Iterator<Item = &'static CredentialType> {
        std::iter::once(self.token).chain(self.tickets.iter().copied())
    }

    /// The keys that exist without configuration: `access_token:<id>`, `jsapi_ticket:<id>` and so on, and beside the first
    /// `authorizer_access_token:<id>` for an authorizer's token.
    pub fn built_in_names(&self, credential_type: &CredentialType) -> Vec<String> {
        let second = (credential_type == &component::AUTHORIZER).then_some(component::AUTHORIZER_KEY);
        std::iter::once(credential_type.key).chain(second).map(|key| format!("{key}:{}", self.id())).collect()
    }

    /// Refresh tokens that live in memory only are lost with the process.
    pub fn judge_without_state(&self) -> Result<(), InvalidValue> {
        if self.component.is_none() || self.secret.is_absent() {
            return Ok(());
        }
        let what = format!(
            "the authorizer {} has a refresh token that WeChat may replace at any renewal, and there is no state file to \
             keep the new one in",
            quoted(&self.appid)
        );
        wrong(what, "Set state.path in [state] to a file that survives a restart.")
    }

    /// Whether its first token can be read where it is to be; `is_in_a_sink`: a sink writes it and can read it.
    pub fn judge_adopt(&self, is_in_a_sink: bool) -> Result<(), InvalidValue> {
        if self.adopt != Some(Adopt::Sink) || is_in_a_sink {
            return Ok(());
        }
        let what = format!("{}: adopt = \"sink\", but no sink has a token of this app that can be read", self.id());
        let remedy = "Add a [[sink]] of a Redis, a file, or a database with read; or name the place itself, as \
                      adopt = { file = \"/path\" }.";
        wrong(what, remedy)
    }
}

/// Another key for a credential. `Debug` never shows a secret in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Alias {
    pub name: String,
    /// What stands for the name wherever people read it, if the name holds the secret.
    pub redacted_name: Option<String>,
    pub of: CredentialName,
    pub view: View,
}

impl Alias {
    /// A key that answers with the access token itself.
    pub fn raw(name: impl Into<String>) -> Alias {
        Alias { name: name.into(), redacted_name: None, of: CredentialName::AccessToken, view: View::RAW }
    }

    /// The name as people may read it.
    pub fn redacted_name(&self) -> &str {
        self.redacted_name.as_deref().unwrap_or(&self.name)
    }

    /// As the file could have it.
    pub fn as_toml(&self) -> String {
        let key = toml_text(self.redacted_name());
        let usual = matches!(self.of, CredentialName::AccessToken | CredentialName::ComponentToken);
        if usual && self.view == View::RAW {
            return key;
        }
        let View { form, flags, at_least_s, .. } = &self.view;
        let mut fields = vec![format!("key = {key}"), form_as_toml(form)];
        fields.extend((!usual).then(|| format!("of = \"{}\"", self.of.word())));
        fields.extend((*flags != 0 || matches!(form, Form::Php(_))).then(|| format!("flags = {flags}")));
        fields.extend((*at_least_s != 0).then(|| format!("at_least = {at_least_s}")));
        format!("{{ {} }}", fields.join(", "))
    }
}

impl fmt::Debug for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alias")
            .field("name", &self.redacted_name())
            .field("of", &self.of)
            .field("view", &self.view)
            .finish()
    }
}

const APPID_BYTES_MAX: usize = 128;
const AGENT_BYTES_MAX: usize = 64;
const KEY_BYTES_MAX: usize = 250;
const PROBE_EVERY_S_MIN: u64 = 10;

/// Whether keys can be made with that appid.
pub fn judge_appid(appid: &str) -> Result<(), InvalidValue> {
    let what = if appid.len() > APPID_BYTES_MAX {
        format!("{} is longer than {APPID_BYTES_MAX} bytes", quoted(appid))
    } else if !fits_in_a_key(appid) {
        format!("{} {}", quoted_name(appid), surplus(appid).unwrap_or("has a blank or a control character"))
    } else if appid.contains(['{', '}']) {
        // A key with this appid in it could not be written down again: braces stand for something there.
        format!("{} has a brace", quoted(appid))
    } else {
        return Ok(());
    };
    wrong(what, "Write the appid as WeChat's platform shows it: wx and 16 digits or letters a to f.")
}

/// Whether apps of that platform can have that agent.
pub fn judge_agent(agent: &str, platform: &Platform) -> Result<(), InvalidValue> {
    if !platform.has_agents {
        return wrong(format!("apps of platform {} have no agents", quoted(platform.name)), "Remove the key.");
    }
    if agent.is_empty() || agent.len() > AGENT_BYTES_MAX || !fits_in_a_key(agent) {
        let remedy = "Write agent = \"1000002\", as the platform shows it.";
        return wrong(format!("{} cannot be part of a key", quoted(agent)), remedy);
    }
    Ok(())
}

/// Whether apps of that platform, with a token of that type, have what these keys are about.
pub fn judge_keys(platform: &Platform, token: &CredentialType, given: &[&'static str]) -> Judgement {
    let mut judgement = Judgement::default();
    let has_not = |noun: &str| format!("apps of platform {} have no {noun}", quoted(platform.name));
    let can_force = token.can_force || platform.tokens.iter().any(|(_, of)| of.can_force);
    for key in given {
        let (is_wrong, what) = match *key {
            "verify_ticket_file" => (platform.name != component::PLATFORM.name, has_not("verify ticket")),
            "forced_per_day" => (!can_force, has_not("forced refresh")),
            "probe_every_s" => {
                let what = format!("no read is known that tries a token of platform {}", quoted(platform.name));
                (token.probe.is_none(), what)
            }
            "adopt" => {
                let what = "it is of use with endpoint = \"token\" alone: no other fetch ends a token that others hold";
                (token.renewal != Renewal::Mint || token.probe.is_none(), what.to_owned())
            }
            _ => continue,
        };
        judgement.fault_if(is_wrong, key, what, "Remove the key.");
    }
    judgement
}

/// Whether that endpoint is asked when the quota of the app's own is used up: only one that leaves the other's tokens
/// alone, and has a quota of its own that outlasts it.
pub fn judge_fallback(fallback: &CredentialType, token: &CredentialType) -> Result<(), InvalidValue> {
    if fallback == token || fallback.quota.per_day <= token.quota.per_day {
        let what = "it is no way out when the quota of endpoint is used up";
        return wrong(what, "Write endpoint = \"token\" and fallback = \"stable_token\".");
    }
    Ok(())
}

pub fn judge_probe_every(seconds: u64) -> Result<(), InvalidValue> {
    if (1..PROBE_EVERY_S_MIN).contains(&seconds) {
        let what = "the token would be tried more often than its call has a quota for";
        return wrong(what, "Write 0 for never, or 10 to 86400.");
    }
    Ok(())
}

impl Adopt {
    pub const REMEDY: &str = "Write adopt = \"sink\", adopt = { memcached = \"127.0.0.1:11212\", key = \"access_token\" } or \
                              adopt = { file = \"/path\" }.";

    /// A word, or a table that names a place. A relative path counts from that folder.
    pub fn read(given: &Given, folder: &Path) -> PartsResult<Adopt> {
        let fields = match &given.value {
            RawValue::Text(word) if word == "sink" => return Ok(Adopt::Sink),
            RawValue::Table(fields) => Fields::of(fields, &["memcached", "key", "file"], "adopt")?,
            RawValue::Text(word) => wrong(format!("{} is not known", quoted(word)), Adopt::REMEDY)?,
            _ => wrong("it says nothing of a place", Adopt::REMEDY)?,
        };
        let file = fields.read("file", text)?.map(|file| folder.join(file));
        Ok(match (file, fields.read("memcached", text)?, fields.read("key", text)?) {
            (Some(file), None, None) => Adopt::File(file),
            (None, Some(_), Some(key)) if key.len() > KEY_BYTES_MAX || !fits_in_a_key(key) => {
                wrong("key: memcached has no such keys", "Give 1 to 250 bytes without blanks.")?
            }
            (None, Some(address), Some(key)) if address.starts_with('/') || address.contains(':') => {
                Adopt::Memcached { address: address.to_owned(), key: key.to_owned() }
            }
            (None, Some(address), Some(_)) => {
                let what = format!("memcached: {} has no port", quoted(address));
                wrong(what, "Write \"127.0.0.1:11212\", or the path of a Unix socket.")?
            }
            _ => wrong("it names no place, or half of one", Adopt::REMEDY)?,
        })
    }

    /// As the file could have it.
    pub fn as_toml(&self) -> String {
        match self {
            Adopt::Sink => toml_text("sink"),
            Adopt::Memcached { address, key } => {
                format!("{{ memcached = {}, key = {} }}", toml_text(address), toml_text(key))
            }
            Adopt::File(path) => format!("{{ file = {} }}", toml_text(&path.to_string_lossy())),
        }
    }
}
