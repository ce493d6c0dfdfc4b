//! The rules of one credential: an event and the time go in, what is to be done comes out.
//!
//! An actor knows its value, its plan and what goes on, and decides alone. It never waits, calls, sleeps, writes or
//! publishes: the scheduler does what its effects say and hands in what comes of it. Its tests run in no time.
//!
//! - here: what an actor knows, its events and effects, and what all of its parts use
//! - `fetching`: the way of a renewal, from the timer to the published value or the next try
//! - `verification`: reports, probes, refused values. `quota`: counted calls
//! - `inputs`: new secrets and tickets, the token that it is fetched with, the state of an earlier process
//! - `shown`: status, journal and log lines
//! - `cluster`: what the other nodes have. A single node's actor never enters it

mod cluster;
mod fetching;
mod inputs;
mod quota;
mod shown;
#[cfg(test)]
mod tests;
mod verification;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use self::cluster::Share;
pub(super) use self::cluster::{ClusterNews, StoreOrder};
use self::fetching::Activity;
use self::verification::{Probes, VerificationTimes};
use super::adopt::{self, TokenSource};
use super::facts::{CallOutcome, CredentialInfo};
use super::fetch_task::{FetchOrder, FetchPurpose, FetchReport};
use super::grants::Grant;
use super::plan::Plan;
use super::quota_usage::QuotaUsage;
use super::schedule::RenewalState;
use super::state::{CredentialIdentity, StateEntry};
use super::table::{Credential, CredentialStatus, Event as JournalEvent, Published, TableChange, VerificationRequest};
use super::verification_budget::VerificationBudget;
use crate::clock::{BootMs, Now, RepeatThrottle};
use crate::cluster::record_handle::RecordHandle;
use crate::platform::{CredentialType, Renewal};
use crate::secret::Secret;

/// What an actor is told.
pub(super) enum Event {
    /// The refresher begins. The first fetch is planned for that time, or later.
    Started {
        first_try_ms: BootMs,
    },
    /// [`Event::Started`] follows when an earlier call for an app of the same name has ended.
    StartsLater,
    Due(Timer),
    /// The probe queue has picked it, and expects to pick it again at that time.
    ProbePicked {
        again_ms: BootMs,
    },
    Fetched(Box<FetchReport>),
    /// The task of the fetch, or the one that waited for the disk, has panicked.
    Crashed,
    /// The entry of [`Effect::AwaitSave`] is on disk, or the longest wait for the disk is over.
    Saved,
    /// Somebody doubts its value.
    Verify(VerificationRequest),
    /// Its secret file has this content now.
    SecretRead {
        secret: Secret,
        at_start: bool,
    },
    /// A new verify ticket was taken in; its fingerprint.
    TicketTaken {
        ticket: String,
    },
    /// The token that it is fetched with has a new value, of that generation.
    ParentRenewed {
        generation: u64,
        poll_ms: u64,
    },
    /// Another process has counted these calls until now.
    CountedElsewhere(QuotaUsage),
    /// The machine was suspended, or a clock jumped.
    ClockJumped,
    /// The same credential is configured otherwise.
    Changed(Arc<Plan>),
    /// It is not configured any more.
    Removed,
    Cluster(ClusterNews),
}

/// What the scheduler is to do, in this order.
pub(super) enum Effect {
    /// Readers are to see this.
    Show(TableChange),
    Journal(JournalEvent),
    /// The end of a call is to be counted in the server's histogram.
    Measured {
        endpoint: &'static str,
        ended: CallOutcome,
        took_ms: u64,
    },
    /// [`Event::Fetched`] follows, or [`Event::Crashed`].
    Fetch(Box<FetchOrder>),
    /// Replaces what was set; none: no timer.
    SetTimer(Timer, Option<BootMs>),
    Save(Option<Box<StateEntry>>),
    /// [`Event::Saved`] follows when the last entry is on disk, or after that time. `is_urgent`: without the pause
    /// between two writes.
    AwaitSave {
        wait_ms: u64,
        is_urgent: bool,
    },
    /// The end of the noted call is known: its note is removed.
    ClearIntent,
    SaveUsage(Box<QuotaUsage>),
    Reply(oneshot::Sender<()>),
    /// Those that are fetched with this value are to know that it is new.
    TellDependents {
        generation: u64,
        poll_ms: u64,
    },
    /// The token that it is fetched with was refused.
    DoubtParent {
        generation: u64,
    },
    /// Another node has renewed with this refresh token.
    AdoptRefreshToken(String),
    /// A verification that a client causes was charged, or there were too many.
    ClientCharged {
        is_taken: bool,
    },
    /// The client was right.
    RefundClient,
    ProbeAnswered {
        is_withheld: bool,
    },
    QueuedProbeEnded,
    Store(StoreOrder),
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    Renewal,
    Probe,
}

/// What holds for all credentials of this process.
#[derive(Clone, Copy)]
pub(super) struct ActorLimits {
    pub total_timeout_ms: u64,
    /// There is a state file.
    pub keeps_state: bool,
}

/// One credential's rules and what they know.
pub(super) struct Actor {
    // What it is.
    pub(super) name: CredentialIdentity,
    /// As it is configured now. The table has the keys.
    pub(super) plan: Arc<Plan>,
    /// What is sent besides the secret, for types that need more.
    pub(super) grant: Option<Grant>,
    /// There is nothing to call WeChat with: another node does.
    pub(super) follows: bool,
    about: CredentialInfo,
    /// The credential whose value this is fetched with.
    pub(super) parent: Option<Arc<Credential>>,
    limits: ActorLimits,

    // What it knows.
    pub(super) renewal_state: RenewalState,
    /// The last value, as readers were given it.
    held: Option<Published>,
    fetched: Option<Now>,
    usage: QuotaUsage,
    status: CredentialStatus,
    /// What is known of its record in the cluster store; none on a single node.
    share: Option<Share>,
    /// The secret of the last refused call, while an operator has to act; `Some(None)` if it could not be read.
    blocked_with: Option<Option<Secret>>,
    /// The generation of the access token that was refused in the call, and when it first was.
    refused_with: Option<(u64, BootMs)>,
    /// A new secret in its file that the running fetch does not know, and whether it was there at the start.
    replaced_secret: Option<(Secret, bool)>,

    // What goes on and what is planned.
    activity: Activity,
    waiters: Vec<oneshot::Sender<()>>,
    next_try_ms: BootMs,
    /// The renewal timer was due while something else went on. It is set again when that is over.
    is_renewal_overdue: bool,
    /// When the last wait for a quota ends that was used up by our own count.
    quota_wait_until_ms: Option<BootMs>,
    /// What to do at once after a restart if the restored value is doubtful.
    urgent: Option<FetchPurpose>,
    checks: VerificationTimes,
    probes: Probes,
    /// What is fetched now: the configured type or its fallback.
    pub(super) credential_type: &'static CredentialType,
    /// When the fallback ends, wall time; or when it was no longer configured.
    fallback_until_unix_ms: Option<i64>,
    /// What the site's own value is read from, until this server has fetched one.
    adopts_from: Option<Arc<dyn TokenSource>>,
    /// Logged failures: errcode, class, and the text if there is no errcode.
    log: RepeatThrottle<(Option<i64>, &'static str, String)>,

    /// The event that is being handled.
    turn: Turn,
}

/// When an event is handled, and what has come of it so far.
struct Turn {
    now: Now,
    effects: Vec<Effect>,
    is_status_changed: bool,
}

impl Actor {
    pub(super) fn new(plan: Plan, parent: Option<Arc<Credential>>, limits: ActorLimits) -> Actor {
        let about = plan.credential().about;
        let status = CredentialStatus {
            calls_quota: plan.quota.per_day,
            endpoint: plan.credential_type.id,
            ..CredentialStatus::default()
        };
        Actor {
            name: plan.identity(),
            about,
            credential_type: plan.credential_type,
            adopts_from: plan.adopt.as_ref().and_then(adopt::source),
            fallback_until_unix_ms: None,
            parent,
            grant: None,
            follows: plan.follows,
            limits,
            renewal_state: RenewalState::new(plan.credential_type.renewal),
            held: None,
            fetched: None,
            usage: QuotaUsage::default(),
            status,
            share: None,
            blocked_with: None,
            refused_with: None,
            replaced_secret: None,
            activity: Activity::Idle,
            waiters: Vec::new(),
            next_try_ms: 0,
            is_renewal_overdue: false,
            quota_wait_until_ms: None,
            urgent: None,
            checks: VerificationTimes::default(),
            probes: Probes::new(plan.probe_every_ms),
            plan: Arc::new(Plan { keys: Vec::new(), ..plan }),
            log: RepeatThrottle::default(),
            turn: Turn { now: Now { boot_ms: 0, unix_ms: 0 }, effects: Vec::new(), is_status_changed: true },
        }
    }

    /// Gives it a record in the cluster store.
    pub(super) fn join(&mut self, handle: RecordHandle) {
        self.share = Some(Share::new(handle));
    }

    /// Sets the place the first value is read from.
    pub(super) fn adopt_from(&mut self, source: Arc<dyn TokenSource>) {
        self.adopts_from = Some(source);
    }

    /// Handles an event. `budget`: how many verifications clients may still cause, of all credentials.
    pub(super) fn on(&mut self, event: Event, now: Now, budget: &mut VerificationBudget) -> Vec<Effect> {
        self.turn.now = now;
        match event {
            Event::Started { first_try_ms } => self.start(first_try_ms),
            Event::StartsLater => self.activity = Activity::AwaitingEarlierCall,
            Event::Due(Timer::Renewal) => self.on_renewal_timer(),
            Event::Due(Timer::Probe) => self.on_probe_timer(),
            Event::ProbePicked { again_ms } => self.on_probe_picked(again_ms),
            Event::Fetched(report) => self.on_fetch_done(*report),
            Event::Crashed => self.on_crash(),
            Event::Saved => self.publish_saved(),
            Event::Verify(request) => self.on_doubt(request, budget),
            Event::SecretRead { secret, at_start } => self.on_secret_read(secret, at_start),
            Event::TicketTaken { ticket } => self.on_ticket(&ticket),
            Event::ParentRenewed { generation, poll_ms } => self.on_parent_renewed(generation, poll_ms),
            Event::CountedElsewhere(calls) => self.usage.merge(&calls),
            Event::ClockJumped => self.reset_timers(),
            Event::Changed(plan) => self.on_changed(plan),
            Event::Removed => self.on_removed(),
            Event::Cluster(news) => self.on_cluster_news(news),
        }
        self.take_effects()
    }

    /// What is to be done because of what was called since the last time.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        self.show_status();
        std::mem::take(&mut self.turn.effects)
    }

    fn push(&mut self, effect: Effect) {
        self.turn.effects.push(effect);
    }

    fn now_ms(&self) -> BootMs {
        self.turn.now.boot_ms
    }

    /// True while the present value is live.
    pub(super) fn is_live(&self, now_ms: BootMs) -> bool {
        self.renewal_state.left_ms(now_ms) > 0
    }

    /// The generation of the present value; 0 without one.
    fn generation(&self) -> u64 {
        self.held.as_ref().map_or(0, |held| held.generation)
    }

    fn holds(&self, value: &[u8]) -> bool {
        self.held.as_ref().is_some_and(|held| *held.value == *value)
    }

    /// True on a single node, and in a cluster on the node that has fetched the present value.
    fn is_renewed_here(&self) -> bool {
        self.share.as_ref().is_none_or(Share::is_ours)
    }

    fn set_renewal_timer(&mut self, at_ms: BootMs) {
        (self.next_try_ms, self.is_renewal_overdue) = (at_ms, false);
        self.update_status(|status| status.next_try_boot_ms = at_ms);
        self.push(Effect::SetTimer(Timer::Renewal, Some(at_ms)));
    }

    fn reset_timers(&mut self) {
        if !self.is_busy() {
            self.set_renewal_timer(self.next_try_ms);
            self.plan_probe();
        }
    }

    /// Readers do not wait for the next value any more.
    fn end_wait(&mut self) {
        self.show(TableChange::EndWait);
    }

    /// The present value as readers will see it.
    fn published(&self, value: Bytes, generation: u64, expires_boot_ms: BootMs) -> Published {
        Published { value, generation, expires_boot_ms, reliable: self.renewal_state.reliable() }
    }

    /// Publishes a value, its statistics first.
    fn publish_with_status(&mut self, published: Published) {
        let Published { generation, expires_boot_ms, .. } = published;
        // First, so that a client that has read the value finds it in the statistics too.
        let (life_ms, fetched) = (self.renewal_state.life_ms, self.fetched);
        self.update_status(|status| {
            status.generation = generation;
            status.expires_boot_ms = expires_boot_ms;
            status.life_ms = life_ms;
            status.fetched_unix_ms = fetched.map(|at| at.unix_ms);
        });
        self.publish(published);
    }

    fn publish(&mut self, published: Published) {
        self.held = Some(published.clone());
        self.show(match self.credential_type.renewal {
            Renewal::AtEnd => TableChange::PublishUntilNext(published),
            _ => TableChange::Publish(published),
        });
    }

    /// Takes the value from the readers, who wait for the next. Returns what they are shown now, if there was a value.
    fn withdraw_held(&mut self) -> Option<Published> {
        let now_ms = self.now_ms();
        let old = self.held.as_ref()?;
        let expires_boot_ms = old.expires_boot_ms.min(now_ms);
        let published = Published::to_the_end(old.value.clone(), old.generation, expires_boot_ms);
        self.held = Some(published.clone());
        self.update_status(|status| status.expires_boot_ms = expires_boot_ms);
        self.show(TableChange::Withdraw { now_ms });
        Some(published)
    }

    /// Sets the published expiry to that of the schedule. Returns what is published now if it has changed.
    fn adjust_expiry(&mut self) -> Option<Published> {
        let old = self.held.as_ref()?;
        let expires_boot_ms = self.renewal_state.expires_ms.filter(|expires| *expires != old.expires_boot_ms)?;
        let published = self.published(old.value.clone(), old.generation, expires_boot_ms);
        self.publish_with_status(published.clone());
        Some(published)
    }

    /// Writes the value into the state.
    fn save(&mut self, published: &Published) {
        if self.limits.keeps_state {
            let entry = self.state_entry(published);
            self.push(Effect::Save(entry.map(Box::new)));
        }
    }

    fn save_usage(&mut self) {
        if self.limits.keeps_state {
            self.push(Effect::SaveUsage(Box::new(self.usage.clone())));
        }
    }

    fn state_entry(&self, published: &Published) -> Option<StateEntry> {
        let now = self.turn.now;
        let fetched = self.fetched.unwrap_or(now);
        // A withdrawn value is written with its real expiry: the refusal may be a false alarm.
        let withdrawn_ms = self.renewal_state.withdrawn_end_ms();
        let expires_boot_ms = withdrawn_ms.unwrap_or(published.expires_boot_ms);
        let left = i64::try_from(expires_boot_ms).ok()? - i64::try_from(now.boot_ms).ok()?;
        Some(StateEntry {
            name: self.name.clone(),
            value: String::from_utf8(published.value.to_vec()).ok()?,
            generation: published.generation,
            expires_unix_ms: now.unix_ms + left,
            expires_boot_ms,
            fetched_unix_ms: fetched.unix_ms,
            fetched_boot_ms: fetched.boot_ms,
            life_ms: self.renewal_state.life_ms,
            longest_ms: self.renewal_state.longest_ms,
            learned_ms: self.renewal_state.learned_so_far_ms(),
            intent_unix_ms: None,
            withdrawn: withdrawn_ms.is_some(),
            reliable_lead_ms: self.renewal_state.reliable_lead_ms,
            adopted: self.renewal_state.adopted,
            ours: self.is_renewed_here(),
        })
    }
}
