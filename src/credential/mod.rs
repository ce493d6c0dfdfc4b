//! Managed keys: credentials that the server keeps current. Readers never wait for a renewal and never call a platform.
//!
//! - `app`, `options`: what is configured, and `collisions` between apps. `plan`: which credentials that makes.
//! - `table`: what readers see, and the writers of it. `value_cell` is one value in it, `reliable_until` how long a
//!   client can rely on it, `wildcards` the keys that are known by their end. `facts` and `journal` are what is told
//!   besides the values.
//! - `refresher`: keeps the values current. `actor` has the rules of one credential, `fetch_task` is one fetch,
//!   `cluster_fetch` what a fetch does in a cluster.
//! - `schedule`: when to fetch next, as pure functions. `probe_queue`: which value is probed next. `quota_usage`:
//!   counts calls and says which quota forbids one. `verification_budget`: limits verifications that clients cause.
//!   `shared_counts`: counts as nodes share them. `generation`: how values are numbered.
//! - `state`: what is kept over a restart. `state_writer` writes it, under the lock of `state_lock`; `restore` takes it
//!   over at the start.
//! - `grants`: verify tickets and refresh tokens, which some fetches need besides the secret. `verify_ticket` reads
//!   tickets that were pushed, `ticket_files` the files they are in. `adopt`: reads a value that the site has fetched.

mod actor;
pub mod adopt;
pub mod alias_templates;
mod app;
mod app_name;
mod cluster_fetch;
pub mod collisions;
pub mod facts;
mod fetch_task;
pub mod generation;
pub mod grants;
mod id;
pub mod journal;
mod options;
mod plan;
pub mod probe_queue;
pub mod quota_usage;
pub mod refresher;
mod reliable_until;
mod restore;
pub mod schedule;
mod shared_counts;
pub mod state;
pub mod state_lock;
mod state_writer;
pub mod table;
mod ticket_files;
mod value_cell;
mod verification_budget;
pub mod verify_ticket;
mod wildcards;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::warn;

use refresher::{ClusterLayer, Member, Members, SharedTicket};

pub use app::{Adopt, Alias, App, judge_agent, judge_appid, judge_fallback, judge_keys, judge_probe_every};
pub use app_name::{app_name, warn_of_duplicates};
pub use options::{Options, default_state_path};
pub use refresher::{AppControl, ChangeRefused, Refresher};
pub use table::Table;

use crate::clock::{self, Clock};
use crate::cluster::http::HttpStore;
use crate::cluster::record_handle::{RecordHandle, SecretCheck};
use crate::cluster::seal::Seal;
use crate::cluster::{self, ClusterStore, NodeId, WatchedRecord};
use crate::platform::{Client, ClientOptions, Renewal, Upstream};
use crate::secret::Secret;
use actor::{Actor, ActorLimits};
use facts::ClusterStatus;
use grants::{Grant, GrantName, GrantType, Grants};
use plan::Plan;
use state::{CredentialIdentity, FileStore, StateStore};
use table::{CredentialId, TableConfig};
use ticket_files::ticket_file;

/// Builds the table and the refresher. Loads the state and publishes live values. Calls no platform.
pub fn build(config: &Options) -> Result<(Arc<Table>, Refresher), String> {
    // Without an app there is no state and no lock.
    let path = config.state_path.as_deref().filter(|_| !config.apps.is_empty());
    let store = path.map(|path| Arc::new(FileStore::open(path)));
    let other = store.as_ref().zip(path).and_then(|(store, path)| Some((path, store.other()?)));
    if let Some((path, holder)) = other.as_ref().filter(|_| needs_state_lock(config)) {
        return Err(in_use(path, holder));
    }
    let env = Env {
        cluster: config.cluster.as_ref().map(join).transpose()?,
        store: store.map(|store| store as Arc<dyn StateStore>),
        ..Env::real(&config.upstream)?
    };
    let (table, refresher) = build_in(env, &config.upstream, &config.apps);
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

/// Waits until no other process has the state file, if this process cannot run without it: the process that it replaces
/// may be ending. Call it before anything is served, so that no client waits meanwhile. [`build`] takes the lock.
/// Blocks, at most until `is_given_up`; calls `waiting` with a text for the operator.
pub fn await_state(config: &Options, is_given_up: impl Fn() -> bool, waiting: impl FnOnce(&str)) -> Result<(), String> {
    let Some(path) = config.state_path.as_deref().filter(|_| needs_state_lock(config)) else { return Ok(()) };
    let say = |holder: &str| {
        let patience_s = state_lock::PATIENCE.as_secs();
        waiting(&format!(
            "the state file {} is in use by {holder}; waiting {patience_s} s at most for that to end",
            path.display()
        ));
    };
    state_lock::wait_until_free(path, is_given_up, say).map_err(|holder| in_use(path, &holder))
}

/// A text for the operator if another process has the state file: which, and what a second server would do now.
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

/// True if the server must not run without its state file: each call of some endpoint ends the token before it or
/// replaces a refresh token, and there is no cluster store that knows of it.
fn needs_state_lock(config: &Options) -> bool {
    let mints = |app: &App| {
        !app.secret.is_absent()
            && app.credential_types().any(|credential_type| credential_type.renewal == Renewal::Mint)
    };
    config.cluster.is_none() && config.apps.iter().any(mints)
}

fn in_use(path: &Path, holder: &str) -> String {
    format!(
        "the state file {} is in use by {holder}, and two servers on one state file lose each other's tokens and refresh \
         tokens; stop that one, or give this one a file of its own (path under [state], TOKENCACHED_STATE_PATH)",
        path.display()
    )
}

/// Prepares the membership in a cluster. Reads secrets; does not connect yet.
fn join(nodes: &cluster::Options) -> Result<ClusterMembership, String> {
    // 0 and the last number have special meanings.
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
            // Values from the leader are sealed again, for this process only.
            let secret = Secret::new(std::iter::repeat_with(fastrand::alphanumeric).take(32).collect());
            let shared = HttpStore::new(leader, secret.clone())?;
            Ok(ClusterMembership { shared, secret, name: leader.node.clone(), node })
        }
    }
}

/// What the refresher runs on: the machine and the network, or a simulation of both.
#[derive(Clone)]
pub struct Env {
    pub upstream: Arc<dyn Upstream>,
    pub clock: Arc<dyn Clock>,
    /// The id of the boot that the boot clock counts from; empty if unknown.
    pub boot_id: String,
    /// Where the state is kept; none: in memory only.
    pub store: Option<Arc<dyn StateStore>>,
    /// None on a single node.
    pub cluster: Option<ClusterMembership>,
}

impl Env {
    /// The machine and the network, for a single node that keeps no state.
    pub fn real(upstream: &ClientOptions) -> Result<Env, String> {
        Ok(Env {
            upstream: Arc::new(Client::new(upstream)?),
            clock: Arc::new(clock::SystemClock),
            boot_id: state::boot_id(),
            store: None,
            cluster: None,
        })
    }
}

/// The cluster store, and which node this is.
#[derive(Clone)]
pub struct ClusterMembership {
    pub shared: Arc<dyn ClusterStore>,
    /// Published values are sealed with this.
    pub secret: Secret,
    /// For people.
    pub name: String,
    pub node: NodeId,
}

/// As [`build`], in any environment.
pub fn build_in(env: Env, upstream: &ClientOptions, apps: &[App]) -> (Arc<Table>, Refresher) {
    let plans = plan::plans(upstream, apps);
    let (table, writers, requests) = Table::new(table_config(&env, &plans));
    let table = Arc::new(table);
    let watched = |plan: &Plan| Some(ticket_file(&plan.appid, plan.ticket_file.as_ref()?, &table));
    let ticket_files = plans.iter().filter_map(watched).collect();
    let names: Vec<Option<GrantName>> = plans.iter().map(|plan| plan.grant.clone()).collect();
    let parents: Vec<Option<CredentialId>> = plans.iter().map(|plan| plan.parent).collect();
    let limits = ActorLimits { total_timeout_ms: upstream.total_timeout_ms, keeps_state: env.store.is_some() };
    let parent = |plan: &Plan| table.credential(plan.parent?);
    let mut actors: Vec<Actor> = plans
        .into_iter()
        .map(|plan| {
            let parent = parent(&plan);
            Actor::new(plan, parent, limits)
        })
        .collect();
    let Env { upstream: client, clock, boot_id, store, cluster } = env;
    let cluster = cluster.map(|cluster| cluster.join(&mut actors, &names));
    let wanted: Vec<GrantName> = names.iter().flatten().cloned().collect();
    let (state_writer, grants) = match store {
        Some(store) => {
            let (state_writer, grants) = restore::restore(store, &mut actors, &wanted, &clock, &boot_id);
            (Some(state_writer), grants)
        }
        None => (None, Arc::new(Grants::new(&[], wanted))),
    };
    for (actor, name) in actors.iter_mut().zip(names) {
        actor.grant = name.map(|name| Grant { grants: grants.clone(), name, state_writer: state_writer.clone() });
    }
    let mut members = Members::default();
    for ((actor, writer), parent) in actors.into_iter().zip(writers).zip(parents) {
        members.push(Member::new(actor, writer, parent));
    }
    let refresher = Refresher {
        table: table.clone(),
        requests,
        ticket_files,
        members,
        upstream: client,
        clock,
        state_writer,
        cluster,
        options: upstream.clone(),
        grants,
        ordinary: None,
        changes: refresher::changes(),
        supervisor: None,
        watchdog: None,
    };
    (table, refresher)
}

fn table_config(env: &Env, plans: &[Plan]) -> TableConfig {
    let status = |member: &ClusterMembership| ClusterStatus::new(&member.name, member.shared.has_leases());
    TableConfig {
        credentials: plans.iter().map(Plan::credential).collect(),
        components: plan::components(plans),
        keeps_state: env.store.is_some(),
        cluster: env.cluster.as_ref().map(status).unwrap_or_default(),
    }
}

impl ClusterMembership {
    /// Gives every actor its record in the store.
    fn join(self, actors: &mut [Actor], grants: &[Option<GrantName>]) -> ClusterLayer {
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
        let (mut watched, mut records) = (Vec::with_capacity(actors.len()), Vec::with_capacity(actors.len()));
        for actor in actors.iter_mut() {
            actor.follows |= !self.shared.has_leases();
            let CredentialIdentity { appid, endpoint, base, .. } = &actor.name;
            let handle = handle(&format!("{endpoint}:{appid}:{base}"));
            let (tag, app, kind) = (handle.tag.clone(), appid.clone(), actor.credential_type.key);
            watched.push(WatchedRecord { tag, app, kind, renews: !actor.follows });
            records.push(handle.clone());
            actor.join(handle);
        }
        let mut tickets = Vec::new();
        for (id, grant) in grants.iter().enumerate() {
            let Some(grant) = grant.as_ref().filter(|grant| grant.what == GrantType::VerifyTicket) else { continue };
            let handle = handle(&format!("verify_ticket:{}:{}", grant.component, grant.base));
            let (tag, app) = (handle.tag.clone(), grant.component.clone());
            watched.push(WatchedRecord { tag, app, kind: "component_verify_ticket", renews: false });
            tickets.push(SharedTicket { id, handle, generation: 0 });
        }
        ClusterLayer::new(self.shared, watched, records, tickets)
    }
}
