//! The cluster store: applies the operations of nodes, and sends all nodes what has changed.

use std::rc::Rc;

use tokencached::cluster::record::{Op, OpOutcome};
use tokencached::credential::schedule::cluster::OFFER_SPREAD_MS;

use super::{Event, POLL_EVERY_MS, SECOND_US, Said, Sealed, Sim};
use crate::record_rules::RecordRules;

impl Sim {
    pub(super) fn ask(&mut self, node: usize, op: Op<Sealed>) {
        let flight = self.nodes[node].flights;
        let (way_us, sent_ms) = (self.way_us(), self.now_ms());
        self.after(way_us, Event::AtStore(node as u32, flight, Rc::new(op), sent_ms));
    }

    pub(super) fn at_store(&mut self, node: u32, flight: u32, op: &Op<Sealed>, sent_ms: u64) {
        if self.nodes[node as usize].cut {
            return self.after(SECOND_US, Event::Unheard(node, flight));
        }
        let before = (self.record.unsettled, self.record.value);
        let store_ms = self.now_ms();
        let outcome = self.record.apply(op, store_ms);
        self.books.scripts += 1;
        self.books.takes += u64::from(matches!(op, Op::Take { .. }));
        self.books.offers += u64::from(matches!(op, Op::Offer { .. }));
        let changed = before != (self.record.unsettled, self.record.value);
        if let (Op::Publish { .. }, OpOutcome::Done, Some(killed_us)) = (op, outcome, self.killed_us) {
            self.renewed_us.get_or_insert(self.now_us - killed_us);
        }
        let served_us = self.serve_us(self.setup.script_us);
        let said = Rc::new(Said { outcome, record: self.record.clone(), store_ms, sent_ms });
        let heard = if changed { self.publish(served_us, &said) } else { 0 };
        self.note_busy(1, heard, 0);
        let back_us = self.way_us();
        if !matches!(op, Op::Offer { .. } | Op::Doubt { .. }) {
            let at_us = self.free_us + back_us;
            self.push(at_us, Event::Told(node, flight, said));
        }
    }

    /// When the store is done with something that takes it so long.
    pub(super) fn serve_us(&mut self, cost_us: f64) -> u64 {
        let others_us = match self.rng.f64() < self.setup.busy {
            true => self.rng.f64() * (self.setup.script_us + self.setup.message_us * self.setup.nodes as f64),
            false => 0.0,
        };
        self.free_us = self.free_us.max(self.now_us) + (cost_us + others_us) as u64;
        self.free_us
    }

    /// A message to all who listen. How many there were.
    pub(super) fn publish(&mut self, from_us: u64, said: &Rc<Said>) -> u32 {
        let mut heard = 0;
        for node in 0..self.nodes.len() {
            if !self.nodes[node].up || self.nodes[node].cut {
                continue;
            }
            if !self.setup.pushes {
                self.poll_soon(node);
                continue;
            }
            heard += 1;
            if self.rng.f64() < self.setup.lost {
                self.poll_soon(node);
                continue;
            }
            let at_us = from_us + (f64::from(heard) * self.setup.message_us) as u64 + self.way_us();
            self.push(at_us, Event::Heard(node as u32, said.clone()));
        }
        self.books.messages += u64::from(heard);
        self.free_us = from_us + (f64::from(heard) * self.setup.message_us) as u64;
        heard
    }

    /// The next poll finds the change, and reads the record.
    pub(super) fn poll_soon(&mut self, node: usize) {
        if std::mem::replace(&mut self.nodes[node].reading, true) {
            return;
        }
        let every_us = (POLL_EVERY_MS * 9 / 10 + self.rng.u64(0..=POLL_EVERY_MS / 5)) * 1000;
        let wait_us = self.rng.u64(0..=every_us) + 2 * self.way_us();
        self.after(wait_us, Event::PollRead(node as u32));
    }

    pub(super) fn poll_read(&mut self, node: usize) {
        self.nodes[node].reading = false;
        if self.nodes[node].cut || !self.nodes[node].up {
            return;
        }
        self.books.reads += 1;
        self.note_busy(0, 0, 1);
        let done_us = self.serve_us(self.setup.read_us);
        let (store_ms, way_us) = (self.now_ms(), self.way_us());
        let said = Said { outcome: OpOutcome::Done, record: self.record.clone(), store_ms, sent_ms: store_ms };
        self.push(done_us + way_us, Event::Heard(node as u32, Rc::new(said)));
    }

    pub(super) fn rejoin(&mut self, node: usize) {
        self.nodes[node].cut = false;
        self.poll_read(node);
        let slot = &self.nodes[node];
        if slot.flight.is_none() && (slot.renewal_state.failures > 0 || slot.renewal_state.left_ms(self.now_ms()) == 0)
        {
            let wait_ms = self.rng.u64(0..=OFFER_SPREAD_MS);
            self.arm(node, self.now_ms() + wait_ms);
        }
    }
}
