//! The driver's part in trying values that nobody doubts: one after the other, see [`probing`](super::super::probing).
//!
//! A try says that a value is dead, or nothing: whatever else becomes of the call changes no schedule and no value.

use super::{Alarm, Driver, Refresher, delay};
use crate::clock::{BootMs, Now};
use crate::credential::flight::Purpose;
use crate::credential::probing::{PER_DAY_MAX, Turn, UNDER_WAY_MAX};
use crate::credential::slot::Slot;
use crate::credential::table::{CredentialId, log_credential};
use crate::platform::codes;

/// A try is made only where a renewal is not due for at least this long: one call at a time, and that one comes first.
const RENEWAL_AWAY_MS: u64 = 2_000;
/// The same for the end of a value that has lived so long already; there is nothing to win any more.
const END_AWAY_MS: u64 = 10_000;
const LOG_AGAIN_MS: u64 = 86_400_000;

impl Refresher {
    /// Whose values are tried when their turn comes.
    pub(super) fn turn_takers(&self) -> Vec<CredentialId> {
        let takes_turns = |slot: &Slot| slot.probes.takes_turns && slot.own_kind.probe.is_some() && !slot.follows;
        let slots = self.slots.iter().enumerate().filter(|(_, slot)| takes_turns(slot));
        slots.map(|(id, _)| id).collect()
    }
}

impl Slot {
    /// Whether the value may be tried now.
    fn turn(&self, now: Now) -> Turn {
        // Of several nodes the one that has renewed is the one to look.
        let looks = self.share.as_ref().is_none_or(|share| share.ours);
        let left_ms = self.standing.left_ms(now.boot_ms);
        let tries = if now.unix_ms < self.ledger.day_ends_unix_ms() { self.ledger.probes_today() } else { 0 };
        if !looks || left_ms < END_AWAY_MS || self.kind.probe.is_none() || tries >= PER_DAY_MAX {
            return Turn::Later;
        }
        let free = !self.flying && self.next_try_ms >= now.boot_ms + RENEWAL_AWAY_MS;
        if free { Turn::Now } else { Turn::Soon }
    }
}

impl Driver {
    pub(super) fn plan_round(&mut self) {
        if let Some(timer) = self.round_timer.take() {
            self.queue.try_remove(&timer);
        }
        // The end of one under way plans the next.
        if self.turns_under_way >= UNDER_WAY_MAX {
            return;
        }
        let now_ms = self.refresher.clock.boot_ms();
        self.round_timer = self.rounds.next_ms().map(|at_ms| self.queue.insert(Alarm::Round, delay(at_ms, now_ms)));
    }

    pub(super) fn round_due(&mut self) {
        self.round_timer = None;
        let now = self.refresher.clock.now();
        let slots = &self.refresher.slots;
        // What goes to other nodes is read there.
        let was_read = |id: CredentialId| slots[id].share.is_some() || slots[id].credential.take_read();
        self.rounds.look(now.boot_ms, was_read);
        if let Some(id) = self.rounds.pick(now.boot_ms, |id| slots[id].turn(now)) {
            self.try_in_turn(id, now.boot_ms);
        }
        self.plan_round();
    }

    fn try_in_turn(&mut self, id: CredentialId, now_ms: BootMs) {
        self.turns_under_way += 1;
        let turn_ms = now_ms + self.rounds.round_ms();
        let probes = &mut self.refresher.slots[id].probes;
        (probes.is_turn, probes.turn_ms) = (true, Some(turn_ms));
        self.start(id, Purpose::Probe);
    }

    /// A flight is over, or has crashed. If it was such a try, the next one may be made.
    pub(super) fn end_turn(&mut self, id: CredentialId) {
        if std::mem::take(&mut self.refresher.slots[id].probes.is_turn) {
            self.turns_under_way -= 1;
            self.plan_round();
        }
    }

    /// Counts what a flight has tried; written with the next change of the state.
    pub(super) fn count_probes(&mut self, id: CredentialId, probes: u64) {
        if probes > 0 {
            let unix_ms = self.refresher.clock.unix_ms();
            let slot = &mut self.refresher.slots[id];
            slot.ledger.count_probes(unix_ms, probes);
            slot.credential.update_status(|status| status.probes += probes);
            slot.show_ledger(0);
        }
    }

    /// The platform does not answer the call on which tokens are tried.
    pub(super) fn say_withheld(&mut self, id: CredentialId, errcode: i64) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        if slot.probes.withheld.say(errcode, now_ms, LOG_AGAIN_MS).is_none() {
            return;
        }
        let row = slot.kind.probe.and_then(|call| codes::find(call.api(), errcode));
        let advice = row.map_or(codes::PROBE_RIGHT, |row| row.advice).en;
        log_credential!(
            info,
            slot.credential,
            errcode,
            advice,
            "a try of the token was not answered, which says nothing of it; it is tried less often"
        );
    }
}
