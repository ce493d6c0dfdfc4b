//! An app as configured: which of its credentials are kept current, and under which keys.

use std::fmt;
use std::path::PathBuf;

use crate::encoding::View;
use crate::platform::{ClientOptions, CredentialName, CredentialType, Platform, component, mp};
use crate::secret_source::SecretSource;

/// One app of WeChat or another platform.
#[derive(Clone, Debug)]
pub struct App {
    pub appid: String,
    /// What people call it.
    pub name: Option<String>,
    pub platform: &'static Platform,
    /// The type of its access token.
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
    /// In what the app's sink writes.
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

    /// The key that exists without configuration: `access_token:<id>`, `jsapi_ticket:<id>` and so on.
    pub fn built_in_name(&self, credential_type: &CredentialType) -> String {
        format!("{}:{}", credential_type.key, self.id())
    }

    /// The same, and `authorizer_access_token:<id>` for an authorizer's.
    pub fn built_in_names(&self, credential_type: &CredentialType) -> Vec<String> {
        let mut names = vec![self.built_in_name(credential_type)];
        if credential_type == &component::AUTHORIZER {
            names.push(format!("{}:{}", component::AUTHORIZER_KEY, self.id()));
        }
        names
    }

    /// Every key of this app's access token or by configuration: `access_token:<id>`, then the aliases. One may hold
    /// the secret.
    pub fn names(&self) -> Vec<String> {
        let mut names = self.built_in_names(self.token);
        for alias in &self.aliases {
            if !names.contains(&alias.name) {
                names.push(alias.name.clone());
            }
        }
        names
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
