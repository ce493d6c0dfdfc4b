//! What the handlers share: the service, the configured apps, access control, the feed of events.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::ReloadHandle;
use super::app_secret::AppSecret;
use super::connections::HttpConnections;
use super::events::EventFeed;
use super::health::Readiness;
use super::issued_tokens::IssuedTokens;
use super::metrics::SCRAPES_MAX;
use super::options::Options;
use crate::clock;
use crate::credential;
use crate::credential::table::{Credential, Table};
use crate::service::Service;

pub struct ApiContext {
    pub settings: Arc<Options>,
    pub service: Arc<Service>,
    pub reload_handle: Arc<ReloadHandle>,
    pub apps: Vec<ApiApp>,
    by_id: HashMap<String, usize>,
    by_appid: HashMap<String, Vec<usize>>,
    pub feed: EventFeed,
    /// A random number of this process. Cursors hold it, because versions mean nothing to another process.
    pub run: u64,
    pub connections: Arc<HttpConnections>,
    /// Permits to write a scrape of `/metrics`.
    pub scrapes: Arc<Semaphore>,
    pub readiness: Readiness,
    pub issued_tokens: Mutex<IssuedTokens>,
    pub shutdown: CancellationToken,
}

pub struct ApiApp {
    /// The appid, with `:agent` if there is an agent.
    pub id: String,
    pub appid: String,
    /// Its name in the configuration.
    pub name: Option<String>,
    pub platform: &'static str,
    /// The app secret. An authorizer has none but a refresh token.
    pub secret: Option<AppSecret>,
    /// The access token first, then the tickets.
    pub credentials: Vec<Arc<Credential>>,
}

impl ApiApp {
    /// The credential of a type: `access_token`, `jsapi_ticket` and so on.
    pub fn credential(&self, credential_type: &str) -> Option<&Arc<Credential>> {
        self.credentials.iter().find(|credential| credential.about().credential_type == credential_type)
    }

    pub fn token(&self) -> Option<&Arc<Credential>> {
        self.credentials.first()
    }
}

impl ApiContext {
    pub fn new(
        configured: &[credential::App],
        service: Arc<Service>,
        reload_handle: Arc<ReloadHandle>,
        shutdown: CancellationToken,
    ) -> ApiContext {
        let mut of: HashMap<&str, Vec<Arc<Credential>>> = HashMap::new();
        let all = service.table.credentials();
        for credential in &all {
            of.entry(credential.app()).or_default().push(credential.clone());
        }
        let apps: Vec<ApiApp> = configured
            .iter()
            .map(|app| ApiApp {
                id: app.id(),
                appid: app.appid.clone(),
                name: app.name.clone(),
                platform: app.platform.name,
                secret: (app.component.is_none() && !app.secret.is_absent())
                    .then(|| AppSecret::new(app.secret.clone())),
                credentials: of.remove(app.id().as_str()).unwrap_or_default(),
            })
            .collect();
        let by_id = apps.iter().enumerate().map(|(at, app)| (app.id.clone(), at)).collect();
        let mut by_appid: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, app) in apps.iter().enumerate() {
            by_appid.entry(app.appid.clone()).or_default().push(at);
        }
        let issued_tokens = Mutex::new(IssuedTokens::new(all.len()));
        ApiContext {
            connections: Arc::new(HttpConnections::new(reload_handle.options.clone())),
            settings: reload_handle.options.clone(),
            service,
            reload_handle,
            apps,
            by_id,
            by_appid,
            feed: EventFeed::new(),
            run: fastrand::u64(..),
            scrapes: Arc::new(Semaphore::new(SCRAPES_MAX)),
            readiness: Readiness::new(clock::boot_ms()),
            issued_tokens,
            shutdown,
        }
    }

    pub fn table(&self) -> &Table {
        &self.service.table
    }

    /// The apps with this appid, with their positions. Several agents of a corporation share an appid.
    pub fn of_appid(&self, appid: &str) -> impl Iterator<Item = (usize, &ApiApp)> {
        let numbers = self.by_appid.get(appid).into_iter().flatten();
        numbers.filter_map(|at| Some((*at, self.apps.get(*at)?)))
    }

    pub fn app(&self, id: &str) -> Option<&ApiApp> {
        // Not by the appid in the id: an appid may have a colon, too.
        self.by_id.get(id).and_then(|at| self.apps.get(*at))
    }
}
