//! The driver's part in trying values that nobody doubts: one after the other, see [`probing`](super::super::probe_queue).
//!
//! A try says that a value is dead, or nothing: whatever else becomes of the call changes no schedule and no value.

use super::{Driver, Refresher, Timer, delay};
use crate::clock::{BootMs, Now};
use crate::credential::fetch_task::FetchPurpose;
use crate::credential::probe_queue::{PER_DAY_MAX, PROBES_RUNNING_MAX, ProbeReadiness};
use crate::credential::slot::CredentialSlot;
use crate::credential::table::{CredentialId, log_credential};
use crate::platform::errcodes;

/// A try is made only where a renewal is not due for at least this long: one call at a time, and that one comes first.
const RENEWAL_AWAY_MS: u64 = 2_000;
/// The same for the end of a value that has lived so long already; there is nothing to win any more.
const END_AWAY_MS: u64 = 10_000;
const LOG_AGAIN_MS: u64 = 86_400_000;

impl Refresher {
    /// Whose values are tried when their turn comes.
    pub(super) fn queued_credentials(&self) -> Vec<CredentialId> {
        let is_queued =
            |slot: &CredentialSlot| slot.probes.is_queued && slot.configured_type.probe.is_some() && !slot.follows;
        let slots = self.slots.iter().enumerate().filter(|(_, slot)| is_queued(slot));
        slots.map(|(id, _)| id).collect()
    }
}

impl CredentialSlot {
    /// Whether the value may be tried now.
    fn turn(&self, now: Now) -> ProbeReadiness {
        // Of several nodes the one that has renewed is the one to look.
        let looks = self.share.as_ref().is_none_or(|share| share.ours);
        let left_ms = self.renewal_state.left_ms(now.boot_ms);
        let tries = if now.unix_ms < self.usage.day_ends_unix_ms() { self.usage.probes_today() } else { 0 };
        if !looks || left_ms < END_AWAY_MS || self.credential_type.probe.is_none() || tries >= PER_DAY_MAX {
            return ProbeReadiness::Later;
        }
        let free = !self.fetching && self.next_try_ms >= now.boot_ms + RENEWAL_AWAY_MS;
        if free { ProbeReadiness::Now } else { ProbeReadiness::Soon }
    }
}

impl Driver {
    pub(super) fn plan_queued_probe(&mut self) {
        if let Some(timer) = self.probe_queue_timer.take() {
            self.queue.try_remove(&timer);
        }
        // The end of one under way plans the next.
        if self.queued_probes_running >= PROBES_RUNNING_MAX {
            return;
        }
        let now_ms = self.refresher.clock.boot_ms();
        self.probe_queue_timer =
            self.probe_queue.next_ms().map(|at_ms| self.queue.insert(Timer::ProbeQueue, delay(at_ms, now_ms)));
    }

    pub(super) fn on_probe_queue_timer(&mut self) {
        self.probe_queue_timer = None;
        let now = self.refresher.clock.now();
        let slots = &self.refresher.slots;
        // What goes to other nodes is read there.
        let was_read = |id: CredentialId| slots[id].share.is_some() || slots[id].credential.take_read();
        self.probe_queue.record_reads(now.boot_ms, was_read);
        if let Some(id) = self.probe_queue.pick(now.boot_ms, |id| slots[id].turn(now)) {
            self.start_queued_probe(id, now.boot_ms);
        }
        self.plan_queued_probe();
    }

    fn start_queued_probe(&mut self, id: CredentialId, now_ms: BootMs) {
        self.queued_probes_running += 1;
        let queued_probe_ms = now_ms + self.probe_queue.round_ms();
        let probes = &mut self.refresher.slots[id].probes;
        (probes.is_queued_probe, probes.queued_probe_ms) = (true, Some(queued_probe_ms));
        self.start_fetch(id, FetchPurpose::Probe);
    }

    /// A fetch is over, or has crashed. If it was such a try, the next one may be made.
    pub(super) fn end_queued_probe(&mut self, id: CredentialId) {
        if std::mem::take(&mut self.refresher.slots[id].probes.is_queued_probe) {
            self.queued_probes_running -= 1;
            self.plan_queued_probe();
        }
    }

    /// Counts what a fetch has tried; written with the next change of the state.
    pub(super) fn count_probes(&mut self, id: CredentialId, probes: u64) {
        if probes > 0 {
            let unix_ms = self.refresher.clock.unix_ms();
            let slot = &mut self.refresher.slots[id];
            slot.usage.count_probes(unix_ms, probes);
            slot.credential.update_status(|status| status.probes += probes);
            slot.show_usage(0);
        }
    }

    /// The platform does not answer the call on which tokens are tried.
    pub(super) fn log_probe_withheld(&mut self, id: CredentialId, errcode: i64) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        if slot.probes.withheld.say(errcode, now_ms, LOG_AGAIN_MS).is_none() {
            return;
        }
        let row = slot.credential_type.probe.and_then(|call| errcodes::find(call.api(), errcode));
        let advice = row.map_or(errcodes::PROBE_RIGHT, |row| row.advice).en;
        log_credential!(
            info,
            slot.credential,
            errcode,
            advice,
            "a try of the token was not answered, which says nothing of it; it is tried less often"
        );
    }
}
