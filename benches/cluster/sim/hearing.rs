//! What a node does with the records that the store sends.

use tokencached::cluster::node_rules::{FetchEffect, StoreClockReading};
use tokencached::cluster::record::Op;
use tokencached::credential::schedule::cluster::{RecordComparison, RecordMeaning};
use tokencached::platform::mp;

use super::{Event, Rec, Said, Sealed, Sim};

impl Sim {
    pub(super) fn heard(&mut self, node: usize, said: &Said) {
        if self.nodes[node].up && !self.nodes[node].cut {
            self.seen(node, said);
        }
    }

    pub(super) fn seen(&mut self, node: usize, said: &Said) {
        let clock_reading =
            StoreClockReading { store_ms: said.store_ms, sent_ms: said.sent_ms, received_ms: self.now_ms() };
        let now_ms = self.now_ms();
        let slot = &mut self.nodes[node];
        let live = slot.renewal_state.left_ms(now_ms) > 0;
        let record = &said.record;
        if slot.sealed != record.value || record.value.is_none() {
            slot.sealed = record.value;
            match record.value {
                None if live => self.offer(node),
                None => {}
                Some(value) if slot.flight.is_some() && value.node == node as u64 + 1 => slot.sealed = None,
                Some(value) => self.compare(node, value, clock_reading),
            }
        } else if record.generation < slot.generation && live {
            self.offer(node);
        } else if record.generation == slot.generation && !live {
            slot.useless = record.generation;
        }
        self.note_open(node, record, clock_reading);
    }

    pub(super) fn compare(&mut self, node: usize, value: Sealed, clock_reading: StoreClockReading) {
        let now_ms = self.now_ms();
        let slot = &mut self.nodes[node];
        let theirs_ms = clock_reading.to_boot_ms(value.expires_ms);
        let same = slot.token != 0 && slot.token == value.token;
        let (held, theirs, older) = (slot.generation, value.generation, false);
        match slot
            .renewal_state
            .compare(&RecordComparison { held, theirs, same, theirs_ms, older, withdrawn: false }, now_ms)
        {
            RecordMeaning::Over => {
                slot.useless = value.generation;
                if slot.renewal_state.left_ms(now_ms) > 0 {
                    self.offer(node);
                }
            }
            RecordMeaning::Offer => self.offer(node),
            RecordMeaning::Nothing | RecordMeaning::Withdraw => {}
            RecordMeaning::Agree => {
                slot.renewal_state.prolong(theirs_ms);
                slot.generation = value.generation;
                slot.offers += 1;
                (slot.unpublished, slot.told) = (false, 0);
                slot.adopted = slot.flight.is_some();
                if self.setup.credential_type == &mp::JSAPI && slot.flight.is_none() {
                    let at_ms = slot.renewal_state.due_after_others_ms(now_ms, self.rng.f64());
                    self.arm(node, at_ms);
                }
            }
            RecordMeaning::Conflict => {
                if self.fetch_effect() == FetchEffect::NewToken {
                    self.ask(node, Op::Doubt { generation: value.generation });
                }
                self.adopt(node, value, theirs_ms);
            }
            RecordMeaning::TakeOver => self.adopt(node, value, theirs_ms),
        }
    }

    pub(super) fn adopt(&mut self, node: usize, value: Sealed, theirs_ms: u64) {
        let (now_ms, random) = (self.now_ms(), self.rng.f64());
        let slot = &mut self.nodes[node];
        slot.renewal_state.adopt(theirs_ms, value.life_ms, value.longest_ms, value.learned_ms);
        slot.ours = value.node == node as u64 + 1;
        slot.offers += 1;
        let at_ms = slot.renewal_state.due_after_others_ms(now_ms, random);
        let flying = slot.flight.is_some();
        (slot.adopted, slot.unpublished, slot.told) = (flying, false, 0);
        self.put(node, value.token, value.generation);
        if !flying {
            self.arm(node, at_ms);
        }
    }

    /// Serves a token from now on.
    pub(super) fn put(&mut self, node: usize, token: u32, generation: u64) {
        let slot = &mut self.nodes[node];
        if token != slot.token {
            slot.reported = false;
            let born_us = self.books.born_us[token as usize - 1];
            if born_us > 0 {
                self.books.spread_us[token as usize - 1].push(self.now_us - born_us);
            }
        }
        (slot.token, slot.generation) = (token, generation);
    }

    pub(super) fn note_open(&mut self, node: usize, record: &Rec, clock_reading: StoreClockReading) {
        let now_ms = self.now_ms();
        let random = self.rng.f64();
        let slot = &mut self.nodes[node];
        let Some(open) =
            record.unsettled.filter(|_| slot.flight.is_none() && self.setup.credential_type == &mp::CLASSIC)
        else {
            return;
        };
        let left_ms = record.lease_left_ms(clock_reading.store_ms);
        if left_ms == 0 && slot.renewal_state.left_ms(now_ms) > 0 {
            slot.renewal_state.record_lost_call(clock_reading.to_boot_ms(open.at_ms));
        }
        let at_ms = now_ms + slot.renewal_state.settle_ms(left_ms, random);
        if at_ms < slot.due_ms {
            self.arm(node, at_ms);
        }
    }

    pub(super) fn offer(&mut self, node: usize) {
        let slot = &mut self.nodes[node];
        if slot.flight.is_some() || slot.renewal_state.is_withdrawn() {
            return;
        }
        slot.sealed = None;
        slot.offers += 1;
        let serial = slot.offers;
        let wait_ms = slot.renewal_state.offer_ms(slot.ours, self.rng.f64());
        self.after(wait_ms * 1000, Event::Offer(node as u32, serial));
    }

    pub(super) fn make_offer(&mut self, node: usize, serial: u32) {
        let slot = &self.nodes[node];
        if slot.cut || !slot.up || slot.offers != serial {
            return;
        }
        let generation = slot.generation;
        let value = self.seal(node, slot.token, generation, slot.renewal_state.expires_ms.unwrap_or(0));
        self.ask(node, Op::Offer { generation, value });
    }

    pub(super) fn seal(&self, node: usize, token: u32, generation: u64, expires_ms: u64) -> Sealed {
        let renewal_state = &self.nodes[node].renewal_state;
        Sealed {
            token,
            generation,
            expires_ms,
            life_ms: renewal_state.life_ms,
            longest_ms: renewal_state.longest_ms,
            learned_ms: renewal_state.learned_so_far_ms(),
            node: node as u64 + 1,
            nonce: self.count,
        }
    }
}
