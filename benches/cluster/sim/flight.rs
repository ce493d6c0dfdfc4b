//! A node's fetch: the lease, the call to WeChat, and what happens with the answer.

use std::net::{IpAddr, Ipv4Addr};

use tokencached::cluster::node_rules::{self, FetchEffect, NextStep, StoreClockReading};
use tokencached::cluster::record::{CallEnd, Op, OpOutcome};
use tokencached::credential::schedule::cluster::{WithoutStore, others_wait_ms, retry_denied_ms};
use tokencached::credential::schedule::{BACKOFF_FLOOR_MS, RenewalAnswer};
use tokencached::platform::mp;
use tokencached::platform::{Class, Delivery, LifetimeSource};
use tokencached::sandbox::rules;

use super::{Came, Event, Flight, HOUR_US, Said, Sealed, Sim, Step, TOTAL_TIMEOUT_MS};

impl Sim {
    pub(super) fn due(&mut self, node: usize, serial: u32) {
        let slot = &self.nodes[node];
        if slot.up && slot.serial == serial && slot.flight.is_none() {
            self.start(node, true);
        }
    }

    pub(super) fn start(&mut self, node: usize, scheduled: bool) {
        let (now_ms, fetch_effect) = (self.now_ms(), self.fetch_effect());
        let slot = &mut self.nodes[node];
        slot.flights += 1;
        slot.adopted = false;
        let renewal_state = &slot.renewal_state;
        let flight = Flight {
            step: Step::Taking,
            alone: renewal_state.without_store(fetch_effect, slot.ours, now_ms),
            lease_ms: renewal_state.lease_ms(TOTAL_TIMEOUT_MS, now_ms),
            spacing_ms: renewal_state.others_spacing_ms(scheduled, now_ms),
            keep_ms: renewal_state.keep_ms(now_ms),
            lease: None,
            sent_ms: now_ms,
            came: None,
        };
        let (alone, lease_ms, spacing_ms) = (flight.alone, flight.lease_ms, flight.spacing_ms);
        let of_use = renewal_state.left_ms(now_ms) > 0 || renewal_state.is_withdrawn();
        let known_generation = slot.useless.max(if of_use { slot.generation } else { 0 });
        slot.flight = Some(flight);
        if !slot.cut {
            return self.ask(node, Op::Take { node: node as u64 + 1, lease_ms, known_generation, spacing_ms });
        }
        match alone {
            WithoutStore::Always => self.call(node, u64::MAX),
            WithoutStore::IfAlive => {
                self.books.probes += 1;
                self.step(node, Step::Probing);
                let (there_us, back_us) = self.call_us();
                let token = self.nodes[node].token;
                self.after(there_us + back_us, Event::Probed(node as u32, token, true));
            }
            WithoutStore::Never => self.out_of_reach(node),
        }
    }

    pub(super) fn out_of_reach(&mut self, node: usize) {
        let (now, random) = (self.now(), self.rng.f64());
        let slot = &mut self.nodes[node];
        slot.flight = None;
        let mut next_ms = slot.renewal_state.record_failure(Class::Retry, Delivery::NotSent, now.boot_ms, now, random);
        if let Some(from_ms) = slot.renewal_state.alone_from_ms(slot.ours)
            && (now.boot_ms..next_ms).contains(&from_ms)
        {
            next_ms = from_ms;
        }
        self.arm(node, next_ms);
    }

    /// The store's answer to a flight's question does not come.
    pub(super) fn unheard(&mut self, node: usize) {
        let Some(flight) = &self.nodes[node].flight else { return };
        match flight.step {
            Step::Taking if flight.alone == WithoutStore::Always => self.call(node, u64::MAX),
            Step::Taking | Step::Announcing => self.out_of_reach(node),
            Step::Telling => self.land(node),
            Step::Calling | Step::Probing => {}
        }
    }

    /// The store has answered one of a flight's questions.
    pub(super) fn told(&mut self, node: usize, said: &Said) {
        if self.nodes[node].cut {
            return self.unheard(node);
        }
        let clock_reading =
            StoreClockReading { store_ms: said.store_ms, sent_ms: said.sent_ms, received_ms: self.now_ms() };
        let Some(flight) = self.nodes[node].flight.as_mut() else { return };
        match flight.step {
            Step::Taking => match node_rules::after_take(said.outcome) {
                NextStep::Call => {
                    flight.lease = Some((said.record.clone(), clock_reading));
                    let (epoch, need_ms) = (said.record.epoch, node_rules::need_ms(flight.lease_ms));
                    if self.fetch_effect() == FetchEffect::SameToken {
                        return self.call(node, u64::MAX);
                    }
                    self.step(node, Step::Announcing);
                    self.ask(node, Op::Announce { node: node as u64 + 1, epoch, need_ms });
                }
                next => self.not_our_turn(node, said, next),
            },
            Step::Announcing => {
                let left_ms = said.record.lease_left_ms(said.store_ms);
                let call_ms =
                    node_rules::call_ms(left_ms).saturating_sub(clock_reading.received_ms - clock_reading.sent_ms);
                if said.outcome == OpOutcome::Done && call_ms > 0 {
                    return self.call(node, call_ms);
                }
                self.nodes[node].flight = None;
                let wait_ms = 100 + self.rng.u64(0..=1_000);
                self.arm(node, self.now_ms() + wait_ms);
            }
            Step::Telling => self.landed(node, said),
            Step::Calling | Step::Probing => {}
        }
    }

    pub(super) fn not_our_turn(&mut self, node: usize, said: &Said, next: NextStep) {
        self.nodes[node].flight = None;
        let (before, known) = (self.nodes[node].due_ms, self.nodes[node].useless);
        self.seen(node, said);
        let (now_ms, random) = (self.now_ms(), self.rng.f64());
        let slot = &mut self.nodes[node];
        let due_ms = slot.due_ms;
        let at_ms = match next {
            _ if std::mem::take(&mut slot.adopted) => slot.renewal_state.due_after_others_ms(now_ms, random),
            NextStep::Wait { ms } => {
                let live = slot.renewal_state.left_ms(now_ms) > 0;
                slot.told += 1;
                now_ms + retry_denied_ms(ms, slot.told - 1, live, random)
            }
            NextStep::TakeOver if slot.useless > known => now_ms + BACKOFF_FLOOR_MS,
            NextStep::TakeOver | NextStep::Call if due_ms == before => now_ms + slot.renewal_state.check_spacing_ms(),
            NextStep::TakeOver | NextStep::Call => return,
        };
        if due_ms == before || at_ms < due_ms {
            self.arm(node, at_ms);
        }
    }

    pub(super) fn call(&mut self, node: usize, at_most_ms: u64) {
        self.nodes[node].told = 0;
        self.step(node, Step::Calling);
        let now_ms = self.now_ms();
        self.books.calls += 1;
        let deadline_ms = self.nodes[node].renewal_state.call_deadline_ms(now_ms, TOTAL_TIMEOUT_MS).min(at_most_ms);
        if let Some(flight) = &mut self.nodes[node].flight {
            flight.sent_ms = now_ms;
        }
        let (there_us, back_us) = self.call_us();
        let flight = self.nodes[node].flights;
        self.after(there_us, Event::AtWechat(node as u32, flight, back_us));
        self.after(deadline_ms * 1000, Event::Lost(node as u32, flight));
        if std::mem::take(&mut self.kill_caller) {
            (self.nodes[node].up, self.killed_us) = (false, Some(self.now_us));
        }
    }

    pub(super) fn at_wechat(&mut self, node: u32, flight: u32, back_us: u64) {
        if !self.wechat {
            // Its system is busy, it says.
            return self.after(back_us, Event::Lost(node, flight));
        }
        let (value, expires_in_s) = match self.ask_wechat() {
            Some(answer) => answer,
            None => return,
        };
        let token = match self.tokens.iter().rposition(|known| *known == value) {
            Some(known) => known as u32,
            None => {
                self.tokens.push(value);
                self.books.tokens += 1;
                self.books.born_us.push(self.now_us);
                self.books.spread_us.push(Vec::new());
                self.books.first_token_us.get_or_insert(self.now_us);
                self.books.last_token_us = self.now_us;
                self.tokens.len() as u32 - 1
            }
        };
        self.after(back_us, Event::Answered(node, flight, token, expires_in_s));
    }

    pub(super) fn ask_wechat(&mut self) -> Option<(String, u64)> {
        let given = |text: &str| Some(text.to_owned());
        let (grant_type, appid, secret) = (given("client_credential"), given("wx"), given("s"));
        let ask = if self.setup.credential_type == &mp::CLASSIC {
            rules::ApiRequest::Classic { grant_type, appid, secret }
        } else if self.setup.credential_type == &mp::STABLE {
            rules::ApiRequest::Stable { grant_type, appid, secret, force: false }
        } else {
            // A ticket: the same for two hours, whatever is said of its life.
            return Some((format!("ticket-{}", self.now_us / (2 * HOUR_US)), 7200));
        };
        match self.world.ask(&ask, IpAddr::V4(Ipv4Addr::LOCALHOST), self.now()) {
            rules::ApiAnswer::Token { value, expires_in_s, .. } => Some((value, expires_in_s)),
            _ => None,
        }
    }

    pub(super) fn call_lost(&mut self, node: usize) {
        let (now, random, fetch_effect) = (self.now(), self.rng.f64(), self.fetch_effect());
        let Some(flight) = self.nodes[node].flight.as_ref().filter(|flight| flight.step == Step::Calling) else {
            return;
        };
        let sent = if self.wechat { Delivery::Ambiguous } else { Delivery::Answered };
        let (sent_ms, lease) = (flight.sent_ms, flight.lease.clone());
        let lost = sent == Delivery::Ambiguous && fetch_effect == FetchEffect::NewToken;
        let ended = if lost { CallEnd::Lost } else { CallEnd::Answered };
        if let Some((record, _)) = lease {
            let live = self.nodes[node].renewal_state.left_ms(sent_ms) > 0;
            let wait_ms = others_wait_ms(Class::Retry, fetch_effect, record.failures, live);
            let wait_ms = if lost { wait_ms.min(flight.spacing_ms.max(1)) } else { wait_ms };
            let (id, epoch) = (node as u64 + 1, record.epoch);
            self.ask(node, Op::Close { node: id, epoch, ended, failed: true, wait_ms, keep_ms: 0, calls: None });
        }
        let slot = &mut self.nodes[node];
        slot.flight = None;
        let next_ms = slot.renewal_state.record_failure(Class::Retry, sent, sent_ms, now, random);
        self.arm(node, next_ms);
    }

    pub(super) fn answered(&mut self, node: usize, token: u32, expires_in_s: u64) {
        let received_ms = self.now_ms();
        let polled = self.setup.credential_type == &mp::JSAPI;
        let slot = &mut self.nodes[node];
        let (held, same) = (slot.generation, slot.token == token);
        let Some(flight) = slot.flight.as_mut() else { return };
        flight.step = Step::Telling;
        let mut came =
            Came { token, expires_in_s, same, received_ms, generation: held + u64::from(!same), published: same };
        let Some((record, clock_reading)) = flight.lease.clone() else {
            flight.came = Some(came);
            return self.land(node);
        };
        let (epoch, id, keep_ms, sent_ms) = (record.epoch, node as u64 + 1, flight.keep_ms, flight.sent_ms);
        if !same {
            came.generation = node_rules::next_generation(record.generation, held, 1);
        }
        flight.came = Some(came);
        if same && !polled && record.generation == held {
            let (ended, calls) = (CallEnd::Answered, None);
            return self.ask(node, Op::Close { node: id, epoch, ended, failed: false, wait_ms: 0, keep_ms, calls });
        }
        let life_ms = expires_in_s * 1000;
        let expires_ms = match (same, slot.renewal_state.expires_ms) {
            (true, Some(expires_ms)) if !polled => expires_ms,
            _ => sent_ms + life_ms,
        };
        let longest_ms = life_ms.max(slot.renewal_state.longest_ms / 2);
        let sealed = self.seal(node, token, came.generation, clock_reading.to_store_ms(expires_ms));
        let value = Sealed { life_ms, longest_ms, ..sealed };
        let (generation, minted) = (came.generation, self.fetch_effect() == FetchEffect::NewToken && !same);
        self.ask(node, Op::Publish { node: id, epoch, generation, value, calls: None, minted, keep_ms: 0 });
    }

    /// The store knows of the call's end.
    pub(super) fn landed(&mut self, node: usize, said: &Said) {
        let minted = self.fetch_effect() == FetchEffect::NewToken;
        let flight = self.nodes[node].flight.as_ref();
        let (sent_ms, same) =
            flight.map_or((0, true), |flight| (flight.sent_ms, flight.came.is_none_or(|came| came.same)));
        if said.outcome == OpOutcome::Done || !minted || same {
            if let Some(came) = self.nodes[node].flight.as_mut().and_then(|flight| flight.came.as_mut()) {
                came.published |= said.outcome == OpOutcome::Done;
            }
            return self.land(node);
        }
        // Beaten: theirs is served.
        self.nodes[node].flight = None;
        self.seen(node, said);
        let (now_ms, random) = (self.now_ms(), self.rng.f64());
        let slot = &mut self.nodes[node];
        slot.renewal_state.record_lost_call(sent_ms);
        let at_ms = now_ms + slot.renewal_state.settle_ms(0, random);
        self.arm(node, at_ms);
    }

    pub(super) fn land(&mut self, node: usize) {
        let random = self.rng.f64();
        let slot = &mut self.nodes[node];
        let Some(Flight { sent_ms, came: Some(came), .. }) = slot.flight.take() else { return };
        let Came { token, expires_in_s, same, received_ms, generation, published } = came;
        let answer =
            RenewalAnswer { sent_ms, received_ms, expires_in_s, lifetime_source: LifetimeSource::AsGiven, same };
        let next_ms = slot.renewal_state.record_answer(&answer, random);
        if !same {
            (slot.ours, slot.unpublished) = (true, !published);
        }
        self.put(node, token, generation);
        self.arm(node, next_ms);
        self.finish(node);
    }

    pub(super) fn finish(&mut self, node: usize) {
        if self.nodes[node].unpublished && self.nodes[node].renewal_state.left_ms(self.now_ms()) > 0 {
            self.offer(node);
        }
    }
}
