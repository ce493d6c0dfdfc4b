//! Apps that are added, changed and removed while the refresher runs.
//!
//! An app that is put again keeps the credentials that are still the same ones, with their values, counts and times; the
//! others are removed or begin anew. No other app notices. Keys that are taken away refuse clients' writes for a while
//! longer, so that a client's own token does not take the place of ours unseen.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::scheduler::Scheduler;
use super::{Member, Refresher};
use crate::credential::actor::{Actor, ActorLimits, Event};
use crate::credential::app::{Adopt, App};
use crate::credential::grants::Grant;
use crate::credential::plan::{self, Plan};
use crate::credential::table::{Credential, CredentialId};
use crate::platform::component;

/// How many changes may wait.
pub(super) const CHANGES_MAX: usize = 64;

/// Changes the apps of a running refresher.
#[derive(Clone)]
pub struct AppControl {
    changes: mpsc::Sender<AppChange>,
}

/// A change, and who is told when it is made.
pub(in crate::credential) enum AppChange {
    Put { app: Box<App>, done: oneshot::Sender<Result<Vec<Arc<Credential>>, ChangeRefused>> },
    Remove { app: String, done: oneshot::Sender<Result<usize, ChangeRefused>> },
}

/// Why apps are not changed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    #[error(
        "nodes of a cluster watch the records of the apps they have started with: restart with the new configuration"
    )]
    InCluster,
    #[error("its component is not there: add that first")]
    NoComponent,
    #[error("a component is added by a restart, because its verify tickets have to be received")]
    IsComponent,
    #[error("authorizers are fetched with it: remove those first")]
    HasAuthorizers,
    #[error(
        "its first token is to be read from a sink, and a sink is read only for an app that was there at the start"
    )]
    AdoptsFromSink,
    #[error("the server is ending")]
    Ending,
}

impl AppControl {
    /// Adds an app, or changes the one of this id. Returns its credentials: the access token, then what is fetched with
    /// that. The first values are fetched afterwards.
    pub async fn put(&self, app: App) -> Result<Vec<Arc<Credential>>, ChangeRefused> {
        self.ask(|done| AppChange::Put { app: Box::new(app), done }).await
    }

    /// Removes the app of this id. Its values are not renewed any more, and whoever waits for one gets an answer.
    /// Returns how many credentials it had.
    pub async fn remove(&self, app: &str) -> Result<usize, ChangeRefused> {
        self.ask(|done| AppChange::Remove { app: app.to_owned(), done }).await
    }

    async fn ask<T>(
        &self,
        change: impl FnOnce(oneshot::Sender<Result<T, ChangeRefused>>) -> AppChange,
    ) -> Result<T, ChangeRefused> {
        let (done, answer) = oneshot::channel();
        self.changes.send(change(done)).await.map_err(|_| ChangeRefused::Ending)?;
        answer.await.unwrap_or(Err(ChangeRefused::Ending))
    }
}

impl Refresher {
    /// What changes its apps while it runs.
    pub fn app_control(&self) -> AppControl {
        AppControl { changes: self.changes.0.clone() }
    }
}

impl Scheduler {
    pub(super) fn on_app_change(&mut self, change: AppChange) {
        // Whoever has asked may be gone.
        match change {
            AppChange::Put { app, done } => drop(done.send(self.put_app(&app))),
            AppChange::Remove { app, done } => drop(done.send(self.remove_app(&app))),
        }
    }

    fn put_app(&mut self, app: &App) -> Result<Vec<Arc<Credential>>, ChangeRefused> {
        let known = self.refresher.members.of_app(&app.id());
        if self.refresher.cluster.is_some() {
            return Err(ChangeRefused::InCluster);
        }
        let component = app.component.as_deref().map(|component| self.refresher.members.of_app(component));
        let component = component.map(|ids| ids.first().copied().ok_or(ChangeRefused::NoComponent)).transpose()?;
        let plans = plan::plans(&self.refresher.options, std::slice::from_ref(app));
        let token = known.first().copied().filter(|id| plans.iter().any(|plan| self.is_same(*id, plan, component)));
        let adopts_from_sink = |member: &Member| member.actor.plan.adopt == Some(Adopt::Sink);
        if token.is_none() && app.token == &component::COMPONENT {
            return Err(ChangeRefused::IsComponent);
        } else if token.is_none() && self.has_authorizers(&known) {
            return Err(ChangeRefused::HasAuthorizers);
        } else if app.adopt == Some(Adopt::Sink)
            && !token.and_then(|id| self.refresher.members.get(id)).is_some_and(adopts_from_sink)
        {
            return Err(ChangeRefused::AdoptsFromSink);
        }
        let mut ids: Vec<CredentialId> = Vec::new();
        for plan in plans {
            let parent = plan.parent.map_or(component, |at| ids.get(at).copied());
            let same = known.iter().copied().find(|id| self.is_same(*id, &plan, parent));
            ids.push(match same {
                Some(id) => self.change_credential(id, plan),
                None => self.add_credential(plan, parent),
            });
        }
        known.iter().filter(|id| !ids.contains(id)).for_each(|id| self.remove_credential(*id));
        let members = ids.iter().filter_map(|id| self.refresher.members.get(*id));
        Ok(members.map(|member| member.writer.reader().clone()).collect())
    }

    fn remove_app(&mut self, app: &str) -> Result<usize, ChangeRefused> {
        if self.refresher.cluster.is_some() {
            return Err(ChangeRefused::InCluster);
        }
        let ids = self.refresher.members.of_app(app);
        if self.has_authorizers(&ids) {
            return Err(ChangeRefused::HasAuthorizers);
        }
        ids.iter().for_each(|id| self.remove_credential(*id));
        Ok(ids.len())
    }

    /// True if other apps are fetched with the token of this one: it is a component.
    fn has_authorizers(&self, of_app: &[CredentialId]) -> bool {
        of_app.iter().flat_map(|id| self.refresher.members.dependents(*id)).any(|id| !of_app.contains(&id))
    }

    /// True if this is the planned credential, and not another of the same app.
    fn is_same(&self, id: CredentialId, plan: &Plan, parent: Option<CredentialId>) -> bool {
        let member = self.refresher.members.get(id);
        member.is_some_and(|member| member.actor.name == plan.identity() && member.parent == parent)
    }

    fn add_credential(&mut self, plan: Plan, parent: Option<CredentialId>) -> CredentialId {
        let Refresher { members, table, state_writer, options, grants, .. } = &mut self.refresher;
        let id = members.next_id;
        let parent_reader = parent.and_then(|parent| members.get(parent)).map(|member| member.writer.reader().clone());
        let writer = table.add(id, &plan.credential(), parent_reader.clone());
        let grant = plan.grant.clone();
        let limits = ActorLimits { total_timeout_ms: options.total_timeout_ms, keeps_state: state_writer.is_some() };
        let mut actor = Actor::new(plan, parent_reader, limits);
        if let Some(name) = grant {
            grants.want(name.clone());
            actor.grant = Some(Grant { grants: grants.clone(), name, state_writer: state_writer.clone() });
        }
        if let Some(state_writer) = state_writer {
            let calls = state_writer.add(id, actor.name.clone());
            actor.restore_usage(Some(&calls));
        }
        let is_queued = actor.is_probed_by_queue();
        self.secret_files.follow(id, &actor);
        members.push(Member::new(actor, writer, parent));
        self.set_queued(id, is_queued);
        self.start(id);
        id
    }

    fn change_credential(&mut self, id: CredentialId, plan: Plan) -> CredentialId {
        let Some(Member { actor, writer, .. }) = self.refresher.members.get_mut(id) else { return id };
        self.secret_files.unfollow(id, &actor.plan.secret);
        let ended = self.refresher.table.change_keys(writer, &plan.keys);
        self.end_keys(ended);
        self.tell(id, Event::Changed(Arc::new(plan)));
        if let Some(Member { actor, .. }) = self.refresher.members.get(id) {
            self.secret_files.follow(id, actor);
        }
        let is_queued = self.refresher.members.get(id).is_some_and(|member| member.actor.is_probed_by_queue());
        self.set_queued(id, is_queued);
        id
    }

    fn remove_credential(&mut self, id: CredentialId) {
        let now = self.refresher.clock.now();
        self.tell(id, Event::Removed);
        self.set_queued(id, false);
        let Some(member) = self.refresher.members.take(id) else { return };
        self.secret_files.unfollow(id, &member.actor.plan.secret);
        if let Some(grant) = &member.actor.grant {
            self.refresher.grants.unwant(&grant.name, now.unix_ms);
        }
        if let Some(state_writer) = &self.refresher.state_writer {
            state_writer.remove(id);
        }
        let ended = self.refresher.table.remove(&member.writer);
        self.end_keys(ended);
    }

    fn set_queued(&mut self, id: CredentialId, is_queued: bool) {
        match is_queued {
            true => self.probe_queue.insert(id, self.refresher.clock.boot_ms()),
            false => self.probe_queue.remove(id),
        }
        self.plan_queued_probe();
    }
}
