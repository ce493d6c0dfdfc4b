//! Managed keys: what the server keeps current by itself.
//!
//! `table` is what readers see, in the bytes that `encoding` makes; `policy` says when to renew, as a pure function;
//! `reliable` how long a client can rely on a value, and
//! `refresher` is the one writer and sends out `fetch`s; `state` survives a restart and `state_writer` writes it, under
//! the lock of `state_lock`. Readers never wait for a renewal and never call WeChat. `usage` counts calls before they
//! are sent and holds back what a quota forbids. `probing` says whose value is tried next, if nobody doubts any. `adopt` takes over a value that the
//! site has fetched itself. `generation` says how values are counted. `grants` are what a component
//! and its authorizers ask with besides a secret; `verify_ticket` says what a pushed ticket is and takes it in,
//! `ticket_files` are where one is written. `facts` and `journal` are what is told about credentials besides their
//! values.

pub mod adopt;
mod app;
mod cluster_fetch;
pub mod facts;
mod fetch_task;
pub mod generation;
pub mod grants;
pub mod journal;
mod options;
pub mod probe_queue;
pub mod quota_usage;
pub mod refresher;
mod reliable_until;
mod restore_log;
pub mod schedule;
mod shared_counts;
mod slot;
pub mod state;
pub mod state_lock;
mod state_writer;
pub mod table;
mod ticket_files;
mod value_cell;
mod verification_budget;
pub mod verify_ticket;
mod wildcards;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{error, warn};

use refresher::{ClusterWatch, SharedTicket};

pub use app::{Adopt, Alias, App};
pub use options::Options;
pub use refresher::Refresher;
pub use table::Table;

use crate::clock::{self, Clock, Now};
use crate::cluster::http::HttpStore;
use crate::cluster::record_handle::{RecordHandle, SecretCheck};
use crate::cluster::seal::Seal;
use crate::cluster::{self, ClusterStore, NodeId, WatchedRecord};
use crate::encoding::View;
use crate::platform::{Client, ClientBuildError, ClientOptions, Upstream};
use crate::platform::{CredentialType, Quota, Renewal, component};
use crate::secret::Secret;
use facts::CredentialInfo;
use grants::{Grant, GrantName, GrantType, Grants};
use slot::{ClusterShare, CredentialSlot, Plan};
use state::{CredentialName, LoadedState, Snapshot, StateEntry, StateStore, StoredUsage};
use state_lock::{LockHolder, LockedStore};
use state_writer::StateWriter;
use table::{CredentialId, KeyConfig};
use ticket_files::TicketFile;
use verify_ticket::TicketInbox;

/// Builds the table and its writer. Loads the state and publishes what still lives; calls nobody.
pub fn build(config: &Options) -> Result<(Arc<Table>, Refresher), String> {
    // Without an app there is nothing to keep, and nothing to lock.
    let path = config.state_path.as_deref().filter(|_| !config.apps.is_empty());
    let store = path.map(|path| Arc::new(LockedStore::open(path)));
    let other = store.as_ref().zip(path).and_then(|(store, path)| Some((path, store.other()?)));
    if let Some((path, holder)) = other.as_ref().filter(|_| needs_state_lock(config)) {
        return Err(in_use(path, holder));
    }
    let joined = config.cluster.as_ref().map(join).transpose()?;
    let env = Env::real(&config.upstream).map_err(|error| error.to_string())?;
    let store = store.map(|store| store as Arc<dyn StateStore>);
    let (table, refresher) = build_in_cluster(&env, &config.upstream, &config.apps, store, joined);
    if let Some(((path, holder), state_writer)) = other.zip(refresher.state_writer.as_ref()) {
        warn!(
            path = %path.display(),
            %holder,
            advice = "if that process is not about to end, give each server a state file of its own ([state] path)",
            "the state file is in use by another process; running from memory until that has ended"
        );
        table.state_saved.store(false, Ordering::Relaxed);
        state_writer.request_write();
    }
    Ok((table, refresher))
}

/// Waits for the process that has the state file to end, where this one cannot do without: one that is being replaced
/// may be ending. To be called before anything is served, so that nobody waits for an answer meanwhile; [`build`] takes
/// the lock. Blocks, but no longer than until `is_given_up`; `waiting` is to say so.
pub fn await_state(config: &Options, is_given_up: impl Fn() -> bool, waiting: impl FnOnce(&str)) -> Result<(), String> {
    let Some(path) = config.state_path.as_deref().filter(|_| needs_state_lock(config)) else { return Ok(()) };
    let say = |holder: &LockHolder| {
        let patience_s = state_lock::PATIENCE.as_secs();
        waiting(&format!(
            "the state file {} is in use by {holder}; waiting {patience_s} s at most for that to end",
            path.display()
        ));
    };
    state_lock::wait_until_free(path, is_given_up, say).map_err(|holder| in_use(path, &holder))
}

/// Who has the state file that this configuration names, and what a server would do that is started with it now.
pub fn state_in_use(config: &Options) -> Option<String> {
    let path = config.state_path.as_deref().filter(|_| !config.apps.is_empty())?;
    let holder = state_lock::holder(path)?;
    let patience_s = state_lock::PATIENCE.as_secs();
    let then = match needs_state_lock(config) {
        true => format!("waits {patience_s} s for that to end, and does not start if it has not"),
        false => "runs from memory until that has ended".to_owned(),
    };
    Some(format!("the state file {} is in use by {holder}; a second server on it {then}", path.display()))
}

/// True if a lost state costs more than a call: each call of some endpoint ends the token before it or replaces a
/// refresh token, and there is no shared store that knows of it.
fn needs_state_lock(config: &Options) -> bool {
    let mints = |app: &App| {
        let kinds = std::iter::once(&app.token).chain(&app.tickets);
        !app.secret.is_absent() && kinds.into_iter().any(|credential_type| credential_type.renewal == Renewal::Mint)
    };
    config.cluster.is_none() && config.apps.iter().any(mints)
}

fn in_use(path: &Path, holder: &LockHolder) -> String {
    format!(
        "the state file {} is in use by {holder}, and two servers on one state file lose each other's tokens and refresh \
         tokens; stop that one, or give this one a file of its own (path under [state], TOKENCACHED_STATE_PATH)",
        path.display()
    )
}

/// The other nodes. Reads secrets; connects nowhere yet.
fn join(nodes: &cluster::Options) -> Result<ClusterMembership, String> {
    // 0 and the last one have a meaning of their own.
    let node = fastrand::u64(1..NodeId::MAX);
    match nodes {
        #[cfg(feature = "redis")]
        cluster::Options::Redis(state) => {
            let secret = state.sealing.read().map_err(|fault| format!("the secret of [state] {fault}"))?;
            let shared = crate::cluster::redis::RedisStore::new(state, node);
            Ok(ClusterMembership { shared, secret, name: state.node.clone(), node })
        }
        #[cfg(not(feature = "redis"))]
        cluster::Options::Redis(_) => Err("this build cannot share its state in a Redis".to_owned()),
        cluster::Options::Leader(leader) => {
            // What came from there is sealed again for nobody but this process.
            let secret = Secret::new(std::iter::repeat_with(fastrand::alphanumeric).take(32).collect());
            let shared = HttpStore::new(leader, secret.clone()).map_err(|error| error.to_string())?;
            Ok(ClusterMembership { shared, secret, name: leader.node.clone(), node })
        }
    }
}

/// As [`build`], from the parts that matter and with any store.
pub fn build_with(
    upstream: &ClientOptions,
    apps: &[App],
    store: Option<Arc<dyn StateStore>>,
) -> Result<(Arc<Table>, Refresher), ClientBuildError> {
    Ok(build_in(&Env::real(upstream)?, upstream, apps, store))
}

/// What the refresher stands on: the machine and the network, or a simulation of both.
#[derive(Clone)]
pub struct Env {
    pub upstream: Arc<dyn Upstream>,
    pub clock: Arc<dyn Clock>,
    /// Names the boot that the boot clock counts from; empty if unknown.
    pub boot_id: String,
}

impl Env {
    /// The machine and the network.
    pub fn real(upstream: &ClientOptions) -> Result<Env, ClientBuildError> {
        Ok(Env {
            upstream: Arc::new(Client::new(upstream)?),
            clock: Arc::new(clock::SystemClock),
            boot_id: state::boot_id(),
        })
    }
}

/// What several nodes share, and who this one is among them.
#[derive(Clone)]
pub struct ClusterMembership {
    pub shared: Arc<dyn ClusterStore>,
    /// What is published is sealed with this.
    pub secret: Secret,
    /// For people.
    pub name: String,
    pub node: NodeId,
}

/// As [`build_with`], on any env, alone.
pub fn build_in(
    env: &Env,
    upstream: &ClientOptions,
    apps: &[App],
    store: Option<Arc<dyn StateStore>>,
) -> (Arc<Table>, Refresher) {
    build_in_cluster(env, upstream, apps, store, None)
}

/// As [`build_in`], perhaps together with other nodes.
pub fn build_in_cluster(
    env: &Env,
    upstream: &ClientOptions,
    apps: &[App],
    store: Option<Arc<dyn StateStore>>,
    joined: Option<ClusterMembership>,
) -> (Arc<Table>, Refresher) {
    let plans = plans(upstream, apps);
    let (mut table, reports) = Table::new(plans.iter().map(|plan| (plan.label(), plan.keys.clone())));
    table.set_apps(plans.iter().map(|plan| plan.id.as_str()));
    table.set_infos(plans.iter().map(Plan::about));
    let (inbox, received_tickets) = TicketInbox::new(components(&plans));
    table.set_ticket_inbox(inbox);
    for (credential, plan) in table.credentials().iter().zip(&plans) {
        if let Some(parent) = plan.parent.and_then(|parent| table.credentials().get(parent)) {
            credential.set_parent(parent);
        }
    }
    let table = Arc::new(table);
    let ticket_file = |plan: &Plan| Some(TicketFile::new(&plan.appid, plan.ticket_file.as_ref()?, &table));
    let ticket_files = plans.iter().filter_map(ticket_file);
    let ticket_files = ticket_files.collect();
    let names: Vec<Option<GrantName>> = plans.iter().map(|plan| plan.grant.clone()).collect();
    let mut dependents: HashMap<CredentialId, Vec<CredentialId>> = HashMap::new();
    for (id, plan) in plans.iter().enumerate() {
        if let Some(parent) = plan.parent {
            dependents.entry(parent).or_default().push(id);
        }
    }
    let mut slots: Vec<CredentialSlot> = plans
        .into_iter()
        .zip(table.credentials())
        .map(|(plan, credential)| CredentialSlot::new(credential, plan))
        .collect();
    if let Some(joined) = &joined {
        table.sharing.join(&joined.name, joined.shared.has_leases());
    }
    let (watch, tickets) = joined.map(|joined| joined.join(&mut slots, &names)).unwrap_or_default();
    let Env { clock, boot_id, .. } = env;
    let wanted = || names.iter().flatten().cloned();
    let mut grants = Arc::new(Grants::new(&[], wanted()));
    let state_writer = store.map(|store| {
        let authorizers = wanted().filter(|name| name.what == GrantType::RefreshToken).count();
        let (loaded, now) = (store.load(), clock.now());
        log_lost_refresh_tokens(&loaded, authorizers);
        let empty = Snapshot::default();
        let snapshot = if let LoadedState::Found(snapshot) = &loaded { snapshot } else { &empty };
        let (entries, ledgers) = restore(&mut slots, snapshot, now, boot_id);
        restore_log::log_restored(&slots, &loaded, store.path(), now.boot_ms);
        grants = Arc::new(Grants::new(&snapshot.grants, wanted()));
        StateWriter::new(store, entries, ledgers, clock.clone(), boot_id).with_grants(grants.clone())
    });
    for (slot, name) in slots.iter_mut().zip(names) {
        slot.grant = name.map(|name| Grant { grants: grants.clone(), name, state_writer: state_writer.clone() });
    }
    table.keeps_state.store(state_writer.is_some(), Ordering::Relaxed);
    let refresher = Refresher {
        table: table.clone(),
        reports,
        received_tickets,
        ticket_files,
        slots,
        dependents,
        upstream: env.upstream.clone(),
        clock: clock.clone(),
        state_writer,
        watch,
        tickets,
        concurrency: upstream.concurrency,
        total_timeout_ms: upstream.total_timeout_ms,
        supervisor: None,
        watchdog: None,
    };
    (table, refresher)
}

impl ClusterMembership {
    /// Gives every slot its way to the store.
    fn join(
        self,
        slots: &mut [CredentialSlot],
        grants: &[Option<GrantName>],
    ) -> (Option<ClusterWatch>, Vec<SharedTicket>) {
        let name: Arc<str> = self.name.as_str().into();
        let secret = Arc::new(SecretCheck::new(&self.secret));
        let handle = |tag: &str| RecordHandle {
            store: self.shared.clone(),
            tag: tag.into(),
            seal: Arc::new(Seal::new(&self.secret, tag)),
            node: self.node,
            name: name.clone(),
            secret: secret.clone(),
        };
        let mut watched = Vec::with_capacity(slots.len());
        for slot in slots.iter_mut() {
            slot.follows |= !self.shared.has_leases();
            let CredentialName { appid, endpoint, base, .. } = slot.name();
            let handle = handle(&format!("{endpoint}:{appid}:{base}"));
            let (tag, app, kind) = (handle.tag.clone(), appid.clone(), slot.credential_type.key);
            watched.push(WatchedRecord { tag, app, kind, renews: !slot.follows });
            slot.share = Some(ClusterShare::new(handle));
        }
        let mut tickets = Vec::new();
        for (id, grant) in grants.iter().enumerate() {
            let Some(grant) = grant.as_ref().filter(|grant| grant.what == GrantType::VerifyTicket) else { continue };
            let handle = handle(&format!("verify_ticket:{}:{}", grant.component, grant.base));
            let (tag, app) = (handle.tag.clone(), grant.component.clone());
            watched.push(WatchedRecord { tag, app, kind: "component_verify_ticket", renews: false });
            tickets.push(SharedTicket { id, handle, generation: 0 });
        }
        (Some(ClusterWatch { shared: self.shared, watched: watched.into() }), tickets)
    }
}

/// Who may be handed a verify ticket.
fn components(plans: &[Plan]) -> HashMap<String, CredentialId> {
    let takes = |plan: &Plan| plan.grant.as_ref().is_some_and(|name| name.what == GrantType::VerifyTicket);
    let components = plans.iter().enumerate().filter(|(_, plan)| takes(plan));
    components.map(|(id, plan)| (plan.appid.clone(), id)).collect()
}

/// What an app's access token is asked with besides its secret.
fn grant_of(app: &App, base_url: &str) -> Option<GrantName> {
    let (what, component, authorizer) = match &app.component {
        Some(component) => (GrantType::RefreshToken, component.clone(), app.appid.clone()),
        None if app.token == &component::COMPONENT => (GrantType::VerifyTicket, app.appid.clone(), String::new()),
        None => return None,
    };
    Some(GrantName { what, component, authorizer, base: CredentialName::of(app.token, "", base_url).base })
}

/// One plan a credential: for each app its access token, then what is fetched with it. An authorizer's token is fetched
/// with its component's, which stands before it.
fn plans(upstream: &ClientOptions, apps: &[App]) -> Vec<Plan> {
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

/// What the app may spend on a kind.
fn quota(app: &App, credential_type: &CredentialType) -> Quota {
    let quota = match (app.daily_quota, app.daily_ticket_quota) {
        (Some(per_day), _) if credential_type == app.token => credential_type.quota.with_daily(per_day),
        // Whoever knows the day's number has no use for one by the hour.
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

impl Plan {
    fn about(&self) -> CredentialInfo {
        CredentialInfo {
            platform: self.platform,
            appid: self.appid.clone(),
            agent: self.agent.clone(),
            name: self.name.clone(),
            credential_type: self.credential_type.key,
            is_token: !self.credential_type.needs_token,
            can_probe: self.credential_type.probe.is_some(),
        }
    }

    /// What logs and statistics call it: an access token by its app, anything else by its key.
    fn label(&self) -> String {
        if self.parent.is_none() || self.grant.is_some() {
            self.id.clone()
        } else {
            format!("{}:{}", self.credential_type.key, self.id)
        }
    }
}

/// The state could not be used, and with it the refresh tokens of so many accounts are gone.
fn log_lost_refresh_tokens(loaded: &LoadedState, authorizers: usize) {
    if let (LoadedState::Refused { reason: error, .. }, 1..) = (loaded, authorizers) {
        error!(
            error,
            authorizers,
            advice = "put the newest good copy of the state file in place and restart; a merchant whose account then \
                      shows errcode 61023 has to authorise again",
            "the state cannot be used, and it kept the authorizers' refresh tokens: those in the configuration are \
             tried, which WeChat may have replaced since"
        );
    }
}

/// Gives every slot what was kept for it. Entries of apps no longer configured are dropped with the next write;
/// refresh tokens are not, see [`Grants::kept`].
fn restore(
    slots: &mut [CredentialSlot],
    snapshot: &Snapshot,
    now: Now,
    boot_id: &str,
) -> (Vec<Option<StateEntry>>, Vec<StoredUsage>) {
    let kept = snapshot.by_name();
    let counted: HashMap<&CredentialName, &StoredUsage> =
        snapshot.ledgers.iter().map(|kept| (&kept.name, kept.as_ref())).collect();
    let mut entries = Vec::with_capacity(slots.len());
    let mut ledgers = Vec::with_capacity(slots.len());
    for slot in slots {
        ledgers.push(slot.restore_usage(counted.get(slot.name()).map(|kept| &kept.calls)));
        entries.push(kept.get(slot.name()).map(|entry| {
            let worth = snapshot.remaining_life(entry, now, boot_id);
            let entry = entry.rebased(worth, now);
            slot.restore(&entry, worth, now);
            entry
        }));
    }
    (entries, ledgers)
}
