//! What a credential is fetched with, and what it begins with: a secret or ticket that was replaced, the token that it
//! needs, the state of an earlier process, and the wait before the first fetch.
//!
//! Without the token that it is fetched with, a ticket or an authorizer's token cannot be fetched. It has no fault then;
//! it waits and is fetched as soon as that is there. If WeChat refuses the token in its call, the token is verified. Only
//! if it is good, the fault is this credential's own.

use std::sync::Arc;

use bytes::Bytes;

use super::fetching::Activity;
use super::{Actor, Effect, Timer};
use crate::clock::{BootMs, Now};
use crate::credential::adopt;
use crate::credential::facts::VerificationResult;
use crate::credential::fetch_task::FetchPurpose;
use crate::credential::generation;
use crate::credential::grants::Grant;
use crate::credential::plan::Plan;
use crate::credential::quota_usage::QuotaUsage;
use crate::credential::schedule::{BACKOFF_FLOOR_MS, POLL_MS};
use crate::credential::state::{RemainingLife, StateEntry, StoredUsage};
use crate::credential::table::{Credential, CredentialState, Reading, TableChange, log_credential};
use crate::platform::Failure;
use crate::secret::Secret;
use crate::secret_source::SecretSource;

/// How often a waiting credential is tried again, although a new access token starts it at once.
const LOOK_AGAIN_MS: u64 = 60_000;
/// How long a first fetch waits for what it needs. That usually comes sooner, and then the fetch starts at once.
const TICKET_FIRST_MS: u64 = 2_000;
const PARENT_FIRST_MS: u64 = 4_000;

/// When a credential wants its first fetch.
pub struct FirstTry {
    pub at_ms: BootMs,
    /// At once. If very many want that, some of them later.
    pub is_urgent: bool,
}

impl Actor {
    /// Takes over the counts of an earlier process, if any. Returns what is to be written.
    pub(in crate::credential) fn restore_usage(&mut self, calls: Option<&QuotaUsage>) -> StoredUsage {
        if let Some(calls) = calls {
            self.usage.clone_from(calls);
        }
        self.show_usage(0);
        StoredUsage { name: self.name.clone(), calls: self.usage.clone() }
    }

    /// Takes over what an earlier process has written, and publishes the value if it is live.
    pub(in crate::credential) fn restore(&mut self, entry: &StateEntry, worth: RemainingLife, now: Now) {
        self.turn.now = now;
        self.restore_origin(entry.ours);
        // A lifetime from another node may have been wrong.
        let life_ms_max = self.plan.credential_type.life_ms_max;
        self.renewal_state.longest_ms = entry.longest_ms.min(life_ms_max);
        self.renewal_state.learned_ms = entry.learned_ms;
        self.renewal_state.life_ms = entry.life_ms.min(life_ms_max);
        self.renewal_state.reliable_lead_ms = entry.reliable_lead_ms;
        self.renewal_state.adopted = entry.adopted;
        let RemainingLife { left_ms, suspicious } = worth;
        let left_ms = left_ms.min(life_ms_max);
        self.renewal_state.expires_ms = Some(now.boot_ms + left_ms);
        if let Some(intent) = entry.intent_unix_ms {
            // A classic call was started and its end is unknown: it may have ended this value.
            let since = u64::try_from(now.unix_ms.saturating_sub(intent)).unwrap_or(0);
            self.renewal_state.record_lost_call(now.boot_ms.saturating_sub(since));
            // A probe cannot tell: the old value works until the overlap ends.
            self.urgent = Some(FetchPurpose::Renew);
        } else if suspicious {
            self.urgent = Some(FetchPurpose::Verify);
        }
        if entry.withdrawn {
            self.renewal_state.withdraw(now.boot_ms);
        }
        self.fetched = Some(Now { boot_ms: entry.fetched_boot_ms, unix_ms: entry.fetched_unix_ms });
        let expires_boot_ms = self.renewal_state.expires_ms.unwrap_or(now.boot_ms);
        let value = Bytes::copy_from_slice(entry.value.as_bytes());
        let generation = generation::restored(entry.generation, now.unix_ms);
        let life_ms = self.renewal_state.life_ms;
        self.update_status(|status| {
            status.generation = generation;
            status.expires_boot_ms = expires_boot_ms;
            status.life_ms = life_ms;
            status.fetched_unix_ms = Some(entry.fetched_unix_ms);
            status.state = CredentialState::Fresh;
        });
        let published = self.published(value, generation, expires_boot_ms);
        if self.is_live(now.boot_ms) {
            self.publish(published);
        } else {
            // Not served, but kept: the next answer may be the same value, and generations go on from it.
            self.held = Some(published.clone());
            self.show(TableChange::Remember(published));
        }
    }

    /// When the first fetch is to be made, without the wait for what it needs.
    pub(in crate::credential) fn first_try(&self, now: Now) -> FirstTry {
        let at_ms = self.renewal_state.first_try_ms(now.boot_ms, fastrand::f64());
        FirstTry { at_ms, is_urgent: at_ms <= now.boot_ms || self.urgent.is_some() }
    }

    pub(super) fn start(&mut self, first_try_ms: BootMs) {
        self.activity = Activity::Idle;
        let now_ms = self.now_ms();
        self.set_renewal_timer(first_try_ms.max(now_ms + self.first_wait_ms()));
        if !self.is_live(now_ms) && self.lacks_parent_token() {
            self.set_waiting();
        }
        self.set_next_probe();
        self.plan_probe();
    }

    /// How long the first fetch waits for the ticket or token it needs. Without them it would only fail, end the wait
    /// of the first readers and raise an alarm.
    fn first_wait_ms(&self) -> u64 {
        // A live value keeps to its schedule: a new access token does not start its fetch.
        let orphaned = !self.is_live(self.now_ms()) && self.parent.is_some() && !self.is_parent_live();
        // Values of other nodes arrive within a moment.
        match self.follows || self.grant.as_ref().is_some_and(Grant::is_missing) {
            true => TICKET_FIRST_MS,
            false if orphaned => PARENT_FIRST_MS,
            false => 0,
        }
    }

    pub(super) fn is_parent_live(&self) -> bool {
        let live = |parent: &Credential| matches!(parent.read(self.now_ms()), Reading::Live(_));
        self.parent.as_deref().is_some_and(live)
    }

    /// True if the access token for the call is missing. In a cluster another node may have it, so there the fetch
    /// finds out.
    pub(super) fn lacks_parent_token(&self) -> bool {
        !self.follows && self.share.is_none() && self.parent.is_some() && !self.is_parent_live()
    }

    /// Waits until the access token is there.
    pub(super) fn wait_for_parent_token(&mut self) {
        log_credential!(debug, self, "waiting for the access token it is fetched with");
        self.blocked_with = None;
        self.set_waiting();
        self.end_wait();
        self.set_renewal_timer(self.now_ms() + LOOK_AGAIN_MS);
    }

    /// Starts the credentials that wait for this value. Tickets are polled in proportion to its lifetime.
    pub(super) fn tell_dependents(&mut self) {
        let poll_ms = (self.renewal_state.longest_ms / 12).clamp(BACKOFF_FLOOR_MS, POLL_MS);
        self.push(Effect::TellDependents { generation: self.generation(), poll_ms });
    }

    pub(super) fn on_parent_renewed(&mut self, generation: u64, poll_ms: u64) {
        let now_ms = self.now_ms();
        self.renewal_state.poll_ms = poll_ms;
        let was_refused = self.refused_with.is_some_and(|(refused, _)| refused != generation);
        let waits = !self.is_live(now_ms) || self.status.waits_for_parent;
        if !self.is_busy() && (waits || was_refused) {
            self.set_renewal_timer(now_ms);
        }
    }

    /// WeChat refused the access token of that generation in this call, so that is being verified. If it was found good
    /// since its first refusal, the failure is this credential's own and gets the class of its error code.
    pub(super) fn classify_refused_token(&mut self, generation: u64, failure: &mut Failure) {
        let now_ms = self.now_ms();
        let check = self.parent.as_ref().and_then(|parent| parent.status(now_ms).last_check);
        let since_ms = match self.refused_with {
            Some((refused, since_ms)) if refused == generation => since_ms,
            _ => {
                self.refused_with = Some((generation, now_ms));
                return;
            }
        };
        let is_good = check.is_some_and(|check| {
            let accepted = matches!(check.verdict, VerificationResult::Accepted | VerificationResult::HandedOut);
            accepted && check.generation == generation && check.at_boot_ms >= since_ms
        });
        if is_good {
            failure.class = failure.class_of_errcode();
        }
    }

    /// Takes what can change while the credential stays the same. Its value and its plan stay.
    pub(super) fn on_changed(&mut self, plan: Arc<Plan>) {
        let gets_secret = self.follows && !plan.follows;
        self.follows = plan.follows;
        let before = std::mem::replace(&mut self.plan, plan.clone());
        self.change_quota((before.quota, before.fallback) != (plan.quota, plan.fallback));
        if before.adopt != plan.adopt {
            self.adopts_from = plan.adopt.as_ref().and_then(adopt::source);
        }
        // The next probe stays planned, however often the app is put.
        if self.probes.set_interval(plan.probe_every_ms) {
            self.set_next_probe();
        }
        if gets_secret && !self.is_busy() {
            self.set_renewal_timer(self.now_ms());
        } else if let SecretSource::Fixed(secret) | SecretSource::Environment(secret) = &plan.secret {
            // One in a file is read by the watch on that file.
            self.on_secret_read(secret.clone(), false);
        }
        self.plan_probe();
    }

    /// Ends what goes on, and takes the value from the readers. The answer of a call that is under way is not waited for.
    pub(super) fn on_removed(&mut self) {
        let ended = std::mem::replace(&mut self.activity, Activity::Idle);
        self.end_queued_probe(&ended);
        self.withdraw_held();
        self.answer_waiters();
        self.end_wait();
        self.push(Effect::SetTimer(Timer::Renewal, None));
        self.push(Effect::SetTimer(Timer::Probe, None));
    }

    pub(super) fn on_secret_read(&mut self, secret: Secret, at_start: bool) {
        self.replaced_secret = Some((secret, at_start));
        if !self.is_busy() {
            self.try_replaced_secret();
        }
    }

    /// Uses a new secret: fetches at once if the last one was refused, and renews once with a new refresh token. If a
    /// fetch runs when the file changes, this is done when that has ended.
    pub(super) fn try_replaced_secret(&mut self) {
        let now_ms = self.now_ms();
        let Some((secret, at_start)) = self.replaced_secret.take() else { return };
        if self.blocked_with.as_ref().is_some_and(|used| used.as_ref() != Some(&secret)) {
            log_credential!(info, self, "secret file changed, fetching with the new secret");
            self.renewal_state.failures = 0;
            return self.set_renewal_timer(now_ms);
        }
        let is_news = |grant: &Grant| grant.is_configured_anew(&secret, at_start);
        let may_renew = !self.is_barred() && !self.is_just_renewed_elsewhere();
        if self.grant.as_ref().is_some_and(is_news) && may_renew {
            log_credential!(info, self, "refresh token in the configuration changed, renewing with it");
            self.set_renewal_timer(now_ms);
        }
    }

    /// A new verify ticket is kept already. Fetches with it at once if the credential waits for one.
    pub(super) fn on_ticket(&mut self, ticket: &str) {
        // A running fetch checks by itself whether a newer ticket has come.
        if self.is_busy() || !self.waits_for_a_ticket() {
            log_credential!(debug, self, ticket, "new verify ticket");
            return;
        }
        log_credential!(info, self, ticket, "new verify ticket, fetching with it");
        self.renewal_state.failures = 0;
        self.set_renewal_timer(self.now_ms());
    }

    fn waits_for_a_ticket(&self) -> bool {
        match &self.status.last_error {
            // Without an errcode nothing was sent: there was no ticket, or no secret.
            Some(error) => matches!(error.errcode, Some(61005 | 61006)) || error.is_operators_own(),
            None => !self.is_live(self.now_ms()),
        }
    }
}
