//! Driver: probes values that nobody has reported, one after the other, in the order of the
//! [`probe_queue`](super::super::probe_queue).
//!
//! Such a probe can only show that a value is refused. Any other result changes neither a schedule nor a value.

use super::{Driver, Refresher, Timer, delay};
use crate::clock::{BootMs, Now};
use crate::credential::fetch_task::FetchPurpose;
use crate::credential::probe_queue::{PER_DAY_MAX, PROBES_RUNNING_MAX, ProbeReadiness};
use crate::credential::slot::CredentialSlot;
use crate::credential::table::{CredentialId, log_credential};
use crate::platform::errcodes;

/// A value is probed only if its renewal is at least this far away: one call at a time, and the renewal comes first.
const RENEWAL_AWAY_MS: u64 = 2_000;
/// A value that ends within this time is not probed any more.
const END_AWAY_MS: u64 = 10_000;
const LOG_AGAIN_MS: u64 = 86_400_000;

impl Refresher {
    /// The credentials whose values are probed by the queue.
    pub(super) fn queued_credentials(&self) -> Vec<CredentialId> {
        let is_queued =
            |slot: &CredentialSlot| slot.probes.is_queued && slot.configured_type.probe.is_some() && !slot.follows;
        let slots = self.slots.iter().enumerate().filter(|(_, slot)| is_queued(slot));
        slots.map(|(id, _)| id).collect()
    }
}

impl CredentialSlot {
    /// Whether the value may be probed now.
    fn probe_readiness(&self, now: Now) -> ProbeReadiness {
        let left_ms = self.renewal_state.left_ms(now.boot_ms);
        let tries = if now.unix_ms < self.usage.day_ends_unix_ms() { self.usage.probes_today() } else { 0 };
        // In a cluster the node that has renewed the value probes it.
        if !self.is_renewed_here()
            || left_ms < END_AWAY_MS
            || self.credential_type.probe.is_none()
            || tries >= PER_DAY_MAX
        {
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
        // The end of a running probe plans the next.
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
        // Values of a cluster are read on other nodes.
        let was_read = |id: CredentialId| slots[id].share.is_some() || slots[id].credential.take_read();
        self.probe_queue.record_reads(now.boot_ms, was_read);
        if let Some(id) = self.probe_queue.pick(now.boot_ms, |id| slots[id].probe_readiness(now)) {
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

    /// A fetch has ended or has panicked. If it was a queued probe, the next one may start.
    pub(super) fn end_queued_probe(&mut self, id: CredentialId) {
        if std::mem::take(&mut self.refresher.slots[id].probes.is_queued_probe) {
            self.queued_probes_running -= 1;
            self.plan_queued_probe();
        }
    }

    /// Counts probes. The count is written with the next change of the state.
    pub(super) fn count_probes(&mut self, id: CredentialId, probes: u64) {
        if probes > 0 {
            let unix_ms = self.refresher.clock.unix_ms();
            let slot = &mut self.refresher.slots[id];
            slot.usage.count_probes(unix_ms, probes);
            slot.credential.update_status(|status| status.probes += probes);
            slot.show_usage(0);
        }
    }

    /// Logs that the platform does not answer the probe call.
    pub(super) fn log_probe_withheld(&mut self, id: CredentialId, errcode: i64) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        if slot.probes.withheld.allow(errcode, now_ms, LOG_AGAIN_MS).is_none() {
            return;
        }
        let row = slot.credential_type.probe.and_then(|call| errcodes::find(call.api(), errcode));
        let advice = row.map_or(errcodes::PROBE_RIGHT, |row| row.advice).en;
        log_credential!(
            info,
            slot.credential,
            errcode,
            advice,
            "the probe call was not answered, which says nothing about the token; probing less often"
        );
    }
}
