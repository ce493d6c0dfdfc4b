//! What the handlers share: the service, the apps as configured, the gate, the feed of events.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Keeper;
use super::events::Feed;
use super::server::Count;
use super::wechat::HandedOut;
use crate::config::{self, SecretSource};
use crate::credential::table::{Credential, Table};
use crate::service::Service;

/// Everything a request may need.
pub struct Parts {
    pub settings: config::Side,
    pub service: Arc<Service>,
    pub keeper: Arc<Keeper>,
    pub apps: Vec<App>,
    by_id: HashMap<String, usize>,
    pub feed: Feed,
    /// Drawn at each start: marks what can be compared within one life of the process only.
    pub run: u64,
    /// Of the side port itself.
    pub connections: Count,
    pub handed_out: HandedOut,
    pub shutdown: CancellationToken,
}

/// An app, with what is kept of it.
pub struct App {
    /// As the configuration names it: the appid, and the agent if there is one.
    pub id: String,
    pub appid: String,
    pub platform: &'static str,
    /// Its app secret; none for an authorizer, which has a refresh token in its place.
    pub secret: Option<SecretSource>,
    /// Its access token first, then its tickets.
    pub credentials: Vec<Arc<Credential>>,
}

impl App {
    /// What is kept under a kind: `access_token`, `jsapi_ticket` and so on.
    pub fn credential(&self, kind: &str) -> Option<&Arc<Credential>> {
        self.credentials.iter().find(|credential| credential.about().kind == kind)
    }

    /// Its access token.
    pub fn token(&self) -> Option<&Arc<Credential>> {
        self.credentials.first()
    }
}

impl Parts {
    pub fn new(
        side: &config::Side,
        configured: &[config::App],
        service: Arc<Service>,
        keeper: Arc<Keeper>,
        shutdown: CancellationToken,
    ) -> Parts {
        let mut of: HashMap<&str, Vec<Arc<Credential>>> = HashMap::new();
        for credential in service.table.credentials() {
            of.entry(credential.app()).or_default().push(credential.clone());
        }
        let apps: Vec<App> = configured
            .iter()
            .map(|app| App {
                id: app.id(),
                appid: app.appid.clone(),
                platform: app.platform.name,
                secret: (app.component.is_none() && !app.secret.is_absent()).then(|| app.secret.clone()),
                credentials: of.remove(app.id().as_str()).unwrap_or_default(),
            })
            .collect();
        let by_id = apps.iter().enumerate().map(|(at, app)| (app.id.clone(), at)).collect();
        let feed = Feed::new();
        Parts {
            settings: side.clone(),
            service,
            keeper,
            apps,
            by_id,
            feed,
            run: fastrand::u64(..),
            connections: Count::default(),
            handed_out: HandedOut::default(),
            shutdown,
        }
    }

    pub fn table(&self) -> &Table {
        &self.service.table
    }

    /// The app of that id.
    pub fn app(&self, id: &str) -> Option<&App> {
        self.by_id.get(id).and_then(|at| self.apps.get(*at))
    }
}
