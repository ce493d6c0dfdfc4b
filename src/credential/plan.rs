//! Which credentials are kept current: from the configured apps to one plan per credential.
//!
//! Pure. Never reads a secret and never looks at the state file.

use std::collections::HashMap;
use std::path::PathBuf;

use super::facts::CredentialInfo;
use super::grants::{GrantName, GrantType};
use super::state::CredentialIdentity;
use super::table::{CredentialConfig, CredentialId, KeyConfig};
use super::{Adopt, App};
use crate::encoding::View;
use crate::platform::{ClientOptions, CredentialType, Quota, component};
use crate::secret_source::SecretSource;

/// A credential as configured.
pub(super) struct Plan {
    pub credential_type: &'static CredentialType,
    /// The platform's name.
    pub platform: &'static str,
    pub appid: String,
    pub agent: Option<String>,
    /// What people call the app.
    pub name: Option<String>,
    /// The appid, with the agent if there is one. Names the credential in keys and in the state file.
    pub id: String,
    pub base_url: String,
    pub secret: SecretSource,
    /// The credential whose value it is fetched with.
    pub parent: Option<CredentialId>,
    pub keys: Vec<KeyConfig>,
    pub quota: Quota,
    /// Fetched instead for the rest of a day whose quota is used up.
    pub fallback: Option<&'static CredentialType>,
    /// How often to probe the value; 0 for never, none for the order of the probe queue.
    pub probe_every_ms: Option<u64>,
    /// Where the site keeps a value that it has fetched itself.
    pub adopt: Option<Adopt>,
    /// What is sent besides its secret.
    pub grant: Option<GrantName>,
    pub ticket_file: Option<PathBuf>,
    /// There is no secret: another node fetches it.
    pub follows: bool,
}

impl Plan {
    /// What readers are to know of it.
    pub fn credential(&self) -> CredentialConfig {
        let about = CredentialInfo {
            platform: self.platform,
            appid: self.appid.clone(),
            agent: self.agent.clone(),
            name: self.name.clone(),
            credential_type: self.credential_type.key,
            can_probe: self.credential_type.probe.is_some(),
        };
        let (label, app, keys) = (self.label(), self.id.clone(), self.keys.clone());
        CredentialConfig { label, app, parent: self.parent, about, keys }
    }

    /// What names it in the state file.
    pub fn identity(&self) -> CredentialIdentity {
        CredentialIdentity::of(self.credential_type, &self.id, &self.base_url)
    }

    /// Its name in logs and statistics: the app for an access token, otherwise its key.
    pub fn label(&self) -> String {
        if self.parent.is_none() || self.grant.is_some() {
            self.id.clone()
        } else {
            format!("{}:{}", self.credential_type.key, self.id)
        }
    }
}

/// The components, which take verify tickets.
pub(super) fn components(plans: &[Plan]) -> HashMap<String, CredentialId> {
    let takes = |plan: &Plan| plan.grant.as_ref().is_some_and(|name| name.what == GrantType::VerifyTicket);
    let components = plans.iter().enumerate().filter(|(_, plan)| takes(plan));
    components.map(|(id, plan)| (plan.appid.clone(), id)).collect()
}

/// What is sent for an app's access token besides its secret.
fn grant_of(app: &App, base_url: &str) -> Option<GrantName> {
    let (what, component, authorizer) = match &app.component {
        Some(component) => (GrantType::RefreshToken, component.clone(), app.appid.clone()),
        None if app.token == &component::COMPONENT => (GrantType::VerifyTicket, app.appid.clone(), String::new()),
        None => return None,
    };
    Some(GrantName { what, component, authorizer, base: CredentialIdentity::of(app.token, "", base_url).base })
}

/// A plan for each credential: for each app its access token, then what is fetched with that. An authorizer's token is
/// fetched with its component's, which is before it in the list.
pub(super) fn plans(upstream: &ClientOptions, apps: &[App]) -> Vec<Plan> {
    let mut plans: Vec<Plan> = Vec::new();
    let mut components: HashMap<&str, CredentialId> = HashMap::new();
    for app in apps {
        let component = app.component.as_deref().and_then(|component| components.get(component).copied());
        let plan = |credential_type: &'static CredentialType, parent, keys| Plan {
            credential_type,
            platform: app.platform.name,
            grant: grant_of(app, app.base_url(upstream)).filter(|_| credential_type == app.token),
            ticket_file: app.verify_ticket_file.clone().filter(|_| credential_type == app.token),
            follows: app.secret.is_absent(),
            appid: app.appid.clone(),
            agent: app.agent.clone(),
            name: app.name.clone(),
            id: app.id(),
            base_url: app.base_url(upstream).to_owned(),
            secret: app.secret.clone(),
            parent,
            keys,
            quota: quota(app, credential_type),
            fallback: app.fallback.filter(|_| credential_type == app.token),
            probe_every_ms: app.probe_every_ms.filter(|_| credential_type == app.token),
            adopt: app.adopt.clone().filter(|_| credential_type == app.token),
        };
        let parent = plans.len();
        components.insert(&app.appid, parent);
        plans.push(plan(app.token, component, keys(app, app.token)));
        plans.extend(
            app.tickets.iter().map(|credential_type| plan(credential_type, Some(parent), keys(app, credential_type))),
        );
    }
    plans
}

/// The app's quota for a credential type.
fn quota(app: &App, credential_type: &CredentialType) -> Quota {
    let quota = match (app.daily_quota, app.daily_ticket_quota) {
        (Some(per_day), _) if credential_type == app.token => credential_type.quota.with_daily(per_day),
        // If the day's quota is configured, the hourly one does not apply.
        (_, Some(per_day)) if credential_type != app.token => Quota::daily(per_day),
        _ => credential_type.quota,
    };
    match app.forced_per_day {
        Some(forced_per_day) if credential_type.can_force => Quota { forced_per_day, ..quota },
        _ => quota,
    }
}

/// Every key of one of the app's credentials.
fn keys(app: &App, credential_type: &CredentialType) -> Vec<KeyConfig> {
    let built_in = app.built_in_names(credential_type).into_iter();
    let mut keys: Vec<KeyConfig> =
        built_in.map(|name| KeyConfig { name, redacted_name: None, view: View::RAW }).collect();
    keys.extend(app.aliases.iter().filter(|alias| alias.of.is(credential_type)).map(|alias| KeyConfig {
        name: alias.name.clone(),
        redacted_name: alias.redacted_name.clone(),
        view: alias.view.clone(),
    }));
    keys
}
