//! The driver's part in keeping credentials together with other nodes: what a flight takes along, what the store tells,
//! what is told to the store, and nodes that only follow.
//!
//! Followers go by the generation alone. Nothing here decides who may call: that is the lease's part.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::{debug, info, warn};

use super::{Driver, Home};
use crate::clock::{BootMs, Now};
use crate::credential::flight::Purpose;
use crate::credential::policy::BACKOFF_FLOOR_MS;
use crate::credential::slot::{Share, Slot};
use crate::credential::table::{CredentialId, Doubt, Event, Published, Report, State};
use crate::credential::turn::{Alone, Sharing, value_of};
use crate::credential::verify_ticket::Arrival;
use crate::kind::Renewal;
use crate::nodes::seal::Value;
use crate::nodes::turn::{self, Asking, Next};
use crate::nodes::{Answer, Moment, News, Op, Record, Unreachable, Why};
use crate::secret::fingerprint;
use crate::upstream::Failure;

/// The lease of a value that can be had only when its predecessor is dead: readers wait.
const LEASE_AT_END_MS: u64 = 2_000;
/// Offers of many nodes after a flush are spread over this.
const OFFER_SPREAD_MS: u64 = 1_000;
const LOG_AGAIN_MS: u64 = 60_000;
/// A doubt is repeated until the store has heard it, for five minutes.
const DOUBTS_MAX: usize = 300;
const DOUBT_AGAIN: Duration = Duration::from_secs(1);
/// How often a follower looks whether all is well, if nothing happens.
const FOLLOW_MS: u64 = 60_000;
/// The part of a life before its end in which the last one to renew goes alone, if the store is out of reach.
const ALONE_PART: u64 = 12;

impl Slot {
    /// What asking twice does.
    pub(super) fn asking(&self, purpose: Purpose) -> Asking {
        match self.kind.renewal {
            Renewal::Mint => Asking::Mints,
            _ if purpose == Purpose::Force => Asking::Mints,
            _ => Asking::Repeats,
        }
    }

    /// True while the present value is of use.
    fn is_live(&self, now_ms: BootMs) -> bool {
        self.standing.left_ms(now_ms) > 0
    }

    fn generation(&self) -> u64 {
        self.credential.published().map_or(0, |published| published.generation)
    }

    /// What a flight takes along; none without other nodes.
    pub(super) fn sharing(&mut self, purpose: Purpose, total_timeout_ms: u64, now_ms: BootMs) -> Option<Box<Sharing>> {
        let (live, held, asking) = (self.is_live(now_ms), self.generation(), self.asking(purpose));
        let charged_as = self.charged_as(purpose, now_ms);
        let mends_with = self.mends_with(purpose, now_ms);
        let spacing_ms = self.spacing_ms(purpose, live);
        let keep_ms = match self.kind.renewal {
            Renewal::Window { .. } if live => self.standing.ask_gap_ms(now_ms) * 5 / 4 + BACKOFF_FLOOR_MS,
            _ => 0,
        };
        let lease_ms = match self.kind.renewal {
            Renewal::AtEnd => LEASE_AT_END_MS,
            _ => turn::lease_ms(total_timeout_ms, if live { self.standing.overlap_ms() } else { 0 }),
        };
        let alone = self.alone(asking, now_ms);
        let share = self.share.as_ref()?;
        // A withdrawn value is of no use, but its like is: only what is later can replace it.
        let knows = if live || self.standing.is_withdrawn() { held } else { 0 };
        Some(Box::new(Sharing {
            lane: share.lane.clone(),
            asking,
            knows: knows.max(share.useless),
            held,
            spacing_ms,
            lease_ms,
            keep_ms,
            alone,
            mends_with,
            ledger: self.ledger.clone(),
            quota: self.quota,
            charged_as,
        }))
    }

    fn spacing_ms(&self, purpose: Purpose, live: bool) -> u64 {
        match self.kind.renewal {
            _ if self.share.as_ref().is_some_and(|share| share.broken.is_some()) => 0,
            _ if !live || matches!(purpose, Purpose::Replace | Purpose::Force | Purpose::Check) => 0,
            Renewal::Mint => turn::spacing_ms(self.standing.overlap_ms()),
            Renewal::Poll => self.standing.poll_ms / 4 * 3,
            Renewal::Window { .. } | Renewal::AtEnd => 1,
        }
    }

    fn alone(&self, asking: Asking, now_ms: BootMs) -> Alone {
        let left_ms = self.standing.left_ms(now_ms);
        let may = left_ms > 0 && self.alone_from_ms().is_some_and(|from_ms| now_ms >= from_ms);
        match (asking, self.kind.renewal) {
            (Asking::Mints, _) if may => Alone::IfAlive,
            (Asking::Mints, _) => Alone::Never,
            // The lease is somebody's who gets nowhere, and the value is running out.
            (Asking::Repeats, Renewal::Window { window_ms })
                if left_ms > 0 && left_ms <= window_ms.min(self.standing.longest_ms / 2) / 2 =>
            {
                Alone::AtOnce
            }
            (Asking::Repeats, _) => Alone::Always,
        }
    }

    /// When this node may go alone; none if others may have renewed.
    fn alone_from_ms(&self) -> Option<BootMs> {
        let ours = self.share.as_ref().is_some_and(|share| share.ours) && self.kind.renewal == Renewal::Mint;
        let expires_ms = self.standing.expires_ms.filter(|_| ours)?;
        Some(expires_ms.saturating_sub(self.standing.life_ms / ALONE_PART))
    }

    /// The present value once more, for a store whose own cannot be opened.
    fn mends_with(&mut self, purpose: Purpose, now_ms: BootMs) -> Option<Value> {
        let sound = purpose == Purpose::Renew && self.is_live(now_ms) && !self.standing.has_lost();
        self.share.as_ref()?.broken.filter(|_| sound)?;
        self.value(now_ms)
    }

    /// The present value as all nodes may have it, if it is of use.
    fn value(&self, now_ms: BootMs) -> Option<Value> {
        let (share, published) = (self.share.as_ref()?, self.credential.published()?);
        let moment = share.moment.filter(|_| self.is_live(now_ms))?;
        let fetched_ms = self.fetched.map_or(now_ms, |at| at.boot_ms);
        let refresh = self.grant.as_ref().and_then(crate::credential::grants::Grant::refresh_token);
        let generation = published.generation;
        let to_store_ms = |ms| moment.to_store_ms(ms);
        value_of(&published.value, generation, &self.standing, fetched_ms, to_store_ms, &share.lane, refresh)
    }
}

impl Driver {
    /// What the store has told by itself.
    pub(super) fn heard(&mut self, news: News) {
        match news {
            News::Seen { index, record, moment } if index < self.refresher.slots.len() => {
                self.seen(index, &record, moment);
                let now_ms = self.refresher.clock.boot_ms();
                self.refresher.table.sharing.heard(now_ms);
                let slot = &self.refresher.slots[index];
                // Somebody may be making the first one; a record without a value says that nobody has yet.
                if slot.follows && !slot.is_live(now_ms) {
                    slot.credential.settle();
                }
            }
            News::Seen { index, record, .. } => self.ticket_seen(index, &record),
            News::Wish { index, generation, why, done } => {
                let why = match why {
                    Why::Refused => Doubt::Refused,
                    Why::Rival => Doubt::Rival,
                    Why::Asked => Doubt::Asked,
                    Why::Tried => Doubt::Tried,
                };
                self.reported(Report { id: index, generation, why, done });
            }
            News::Reachable(reachable) => self.reachable(reachable),
        }
    }

    fn reachable(&mut self, reachable: Result<(), Unreachable>) {
        let now_ms = self.refresher.clock.boot_ms();
        let before = self.refresher.table.sharing.set(reachable.is_ok(), now_ms);
        match reachable {
            Err(unreachable) => {
                if before != Some(false) {
                    let advice = unreachable.advice;
                    warn!(
                        advice,
                        "{unreachable}; tokens are served from memory, and only those whose renewal cannot \
                                   harm other nodes are renewed"
                    );
                }
                let slots = self.refresher.slots.iter();
                slots.filter(|slot| slot.follows && !slot.is_live(now_ms)).for_each(|slot| slot.credential.settle());
            }
            Ok(()) if before == Some(false) => {
                info!("the shared state answers again");
                for id in 0..self.refresher.slots.len() {
                    let slot = &self.refresher.slots[id];
                    let waits = slot.standing.failures > 0 || !slot.is_live(now_ms);
                    if !slot.flying && slot.share.is_some() && !slot.follows && waits {
                        self.arm(id, now_ms + fastrand::u64(0..=OFFER_SPREAD_MS));
                    }
                }
            }
            Ok(()) => {}
        }
    }

    /// A credential's record, as it is now or was a moment ago.
    pub(super) fn seen(&mut self, id: CredentialId, record: &Record, moment: Moment) {
        let now_ms = self.refresher.clock.boot_ms();
        let Some(slot) = self.refresher.slots.get_mut(id) else { return };
        if let Some(calls) = record.calls.as_deref() {
            slot.count_others(calls);
        }
        let live = slot.is_live(now_ms);
        let held = slot.generation();
        let Some(share) = slot.share.as_mut() else { return };
        share.moment = Some(moment);
        let known = share.sealed == record.value && record.value.is_some();
        if !known {
            share.sealed.clone_from(&record.value);
            match share.lane.open(record) {
                None if live => self.offer(id),
                None => {}
                // Our own word, faster than the answer to it: the flight brings it home.
                Some(Ok(value)) if slot.flying && value.node == share.lane.node => share.sealed = None,
                Some(Ok(value)) => {
                    (share.broken, share.mended_ms) = (None, None);
                    self.compare(id, value, moment);
                }
                Some(Err(unsealable)) => {
                    if share.log.say("broken", now_ms, LOG_AGAIN_MS).is_some() {
                        let appid = &slot.credential.appid;
                        let advice = "see that all nodes have the same state secret, and who else can write to that \
                                      Redis; the nodes put a good value there";
                        warn!(appid, advice, "what the shared state has cannot be opened: {unsealable}");
                    }
                    self.mend(id, record.generation);
                }
            }
        } else if record.generation < held && live {
            self.offer(id);
        }
        self.note_open(id, record, moment);
    }

    /// A value of another node's, or our own.
    fn compare(&mut self, id: CredentialId, value: Value, moment: Moment) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        let published = slot.credential.published();
        let held = published.as_ref().map_or(0, |published| published.generation);
        let same = published.is_some_and(|published| *published.value == *value.value.as_bytes());
        let live = slot.is_live(now_ms);
        let theirs_ms = moment.to_boot_ms(value.expires_ms);
        let leases = slot.share.as_ref().is_some_and(|share| share.lane.shared.leases());
        if theirs_ms <= now_ms {
            if let Some(share) = &mut slot.share {
                share.useless = value.generation;
            }
            if live {
                self.offer(id);
            }
        } else if value.generation < held && live && !same && !leases {
            // A node that is followed may count otherwise after a restart; of two values the one that ends later is later.
            if slot.standing.expires_ms.is_some_and(|ours_ms| theirs_ms > ours_ms) {
                self.adopt(id, value, moment);
            }
        } else if value.generation < held && live && !same {
            self.offer(id);
        } else if value.withdrawn {
            if same && live {
                info!(appid = slot.credential.appid, "another node has found that WeChat refuses the token");
                slot.standing.withdraw(now_ms);
                slot.credential.withdraw(now_ms);
                slot.credential.settle();
            }
        } else if same && (live || slot.standing.is_withdrawn()) {
            self.agree(id, value.generation, theirs_ms);
        } else if slot.standing.is_withdrawn() && value.generation <= held {
            debug!(
                appid = slot.credential.appid,
                "the shared state has the token that WeChat refuses, or one before it"
            );
        } else if value.generation == held && live {
            self.conflict(id, value, moment);
        } else {
            self.adopt(id, value, moment);
        }
    }

    /// The same value. Its number is the store's, and of a polled kind its end may be later.
    fn agree(&mut self, id: CredentialId, generation: u64, expires_ms: BootMs) {
        let slot = &mut self.refresher.slots[id];
        slot.standing.prolong(expires_ms);
        let Some(old) = slot.credential.published() else { return };
        let expires_boot_ms = slot.standing.expires_ms.unwrap_or(old.expires_boot_ms);
        if let Some(share) = &mut slot.share {
            share.unpublished = false;
        }
        if (old.generation, old.expires_boot_ms) != (generation, expires_boot_ms) {
            let published = Published { value: old.value.clone(), generation, expires_boot_ms };
            self.persist(id, &published);
            self.refresher.slots[id].put(published);
        }
        let slot = &self.refresher.slots[id];
        if slot.kind.renewal == Renewal::Poll && !slot.flying {
            let now_ms = self.refresher.clock.boot_ms();
            let next_ms = slot.standing.due_after_others_ms(now_ms, fastrand::f64());
            self.arm(id, next_ms);
        }
    }

    /// Two values of one generation: which is the later one is not known, and one more fetch will tell.
    fn conflict(&mut self, id: CredentialId, value: Value, moment: Moment) {
        let slot = &self.refresher.slots[id];
        let (appid, generation, by) = (&slot.credential.appid, value.generation, &value.by);
        warn!(appid, generation, by, "two nodes have renewed beside each other; one more fetch settles which is later");
        self.doubt_shared(id, generation);
        self.adopt(id, value, moment);
    }

    /// Says so until it is heard, or for as long as it can matter.
    fn doubt_shared(&mut self, id: CredentialId, generation: u64) {
        let slot = &self.refresher.slots[id];
        if slot.asking(Purpose::Renew) != Asking::Mints {
            return;
        }
        let Some(lane) = slot.share.as_ref().map(|share| share.lane.clone()) else { return };
        self.refresher.spawn_aside(async move {
            for _ in 0..DOUBTS_MAX {
                if lane.ask(Op::Doubt { generation }).await.is_ok() {
                    return;
                }
                tokio::time::sleep(DOUBT_AGAIN).await;
            }
        });
    }

    /// While our value was on its way, another one has been taken over that is as late or later. True if ours is the
    /// one to drop.
    pub(super) fn is_overtaken(&mut self, id: CredentialId, generation: u64, value: &[u8]) -> bool {
        let slot = &self.refresher.slots[id];
        let current = slot.credential.published().filter(|_| slot.share.is_some());
        let Some(current) = current.filter(|current| current.generation >= generation && *current.value != *value)
        else {
            return false;
        };
        if current.generation == generation {
            self.doubt_shared(id, generation);
        }
        self.uncover(id);
        self.resume(id);
        true
    }

    /// Takes over what another node has fetched.
    fn adopt(&mut self, id: CredentialId, value: Value, moment: Moment) {
        let now = self.refresher.clock.now();
        let slot = &mut self.refresher.slots[id];
        let expires_boot_ms = moment.to_boot_ms(value.expires_ms);
        let fetched_ms = moment.to_boot_ms(value.fetched_ms).min(now.boot_ms);
        slot.standing.adopt(expires_boot_ms, value.life_ms, value.longest_ms, value.learned_ms);
        let age_ms = i64::try_from(now.boot_ms - fetched_ms).unwrap_or(0);
        slot.fetched = Some(Now { boot_ms: fetched_ms, unix_ms: now.unix_ms.saturating_sub(age_ms) });
        slot.probes.wanted_ms = None;
        slot.blocked_with = None;
        if let Some(share) = &mut slot.share {
            (share.ours, share.unpublished) = (share.lane.node == value.node, false);
        }
        if let (Some(grant), Some(token)) = (&slot.grant, &value.refresh) {
            grant.adopt_refresh_token(token);
        }
        let (appid, token) = (&slot.credential.appid, fingerprint(value.value.as_bytes()));
        let expires_in_s = expires_boot_ms.saturating_sub(now.boot_ms) / 1000;
        info!(appid, token, generation = value.generation, expires_in_s, by = value.by, "new token from another node");
        let (generation, from) = (value.generation, Some(value.by));
        self.note_event(id, Event::Renewed { generation, expires_in_s, from });
        let published = Published { value: Bytes::from(value.value), generation, expires_boot_ms };
        self.persist(id, &published);
        self.calm(id);
        self.refresher.slots[id].put(published);
        self.serve_children(id);
        if !self.refresher.slots[id].flying {
            let slot = &self.refresher.slots[id];
            let next_ms = slot.standing.due_after_others_ms(now.boot_ms, fastrand::f64());
            self.arm(id, next_ms);
            self.set_next_probe(id);
            self.finish(id);
        }
    }

    /// The store lacks what we have: it was emptied, or a replica that was behind has been promoted.
    pub(super) fn offer(&mut self, id: CredentialId) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        if slot.flying || slot.standing.is_withdrawn() {
            return;
        }
        let Some(value) = slot.value(now_ms) else { return };
        let Some(share) = &mut slot.share else { return };
        if !share.lane.shared.leases() {
            return;
        }
        // Whatever comes of it is to be looked at again.
        share.sealed = None;
        let lane = share.lane.clone();
        let wait = Duration::from_millis(fastrand::u64(0..=OFFER_SPREAD_MS.min(slot.standing.overlap_ms() / 4)));
        debug!(appid = slot.credential.appid, generation = value.generation, "offering our value to the shared state");
        self.refresher.spawn_aside(async move {
            tokio::time::sleep(wait).await;
            lane.offer(&value).await;
        });
    }

    /// The store has what nobody can open: a good value is put there, ours or a new one.
    fn mend(&mut self, id: CredentialId, generation: u64) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        let spacing_ms = slot.standing.check_spacing_ms();
        let Some(share) = slot.share.as_mut() else { return };
        (share.broken, share.useless) = (Some(generation), generation);
        let at_ms = share.mended_ms.map_or(now_ms, |mended| (mended + spacing_ms).max(now_ms));
        share.mended_ms = Some(at_ms);
        if !slot.flying && !slot.follows && at_ms < slot.next_try_ms {
            self.arm(id, at_ms + fastrand::u64(0..=OFFER_SPREAD_MS));
        }
    }

    /// A call that is not accounted for may have doomed the present value. Whoever has announced it gets the time of
    /// its lease; then somebody settles it.
    fn note_open(&mut self, id: CredentialId, record: &Record, moment: Moment) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        let Some(open) = record.open.filter(|_| !slot.flying && slot.kind.renewal == Renewal::Mint) else { return };
        let lease_left_ms = record.lease_left_ms(moment.store_ms);
        if lease_left_ms == 0 && slot.is_live(now_ms) {
            slot.standing.lost(moment.to_boot_ms(open.at_ms));
            if let Some(published) = slot.adjust_end() {
                self.persist(id, &published);
            }
        }
        let slot = &self.refresher.slots[id];
        let overlap_ms = slot.standing.overlap_ms();
        let patience_ms = fastrand::u64(0..=overlap_ms / 8);
        let at_ms = now_ms + lease_left_ms + patience_ms;
        if !slot.follows && at_ms < slot.next_try_ms {
            self.arm(id, at_ms);
        }
    }

    /// A flight came home because it was not its turn.
    pub(super) fn told(&mut self, id: CredentialId, answer: &Answer, next: Next) {
        let now_ms = self.refresher.clock.boot_ms();
        self.refresher.slots[id].flying = false;
        let before = self.refresher.slots[id].next_try_ms;
        let useless = |slot: &Slot| slot.share.as_ref().map_or(0, |share| share.useless);
        let known = useless(&self.refresher.slots[id]);
        self.seen(id, &answer.record, answer.moment);
        let slot = &self.refresher.slots[id];
        let at_ms = match next {
            Next::Wait { ms } => {
                let held = answer.record.lease_left_ms(answer.moment.store_ms) > 0;
                if !held && !slot.is_live(now_ms) {
                    slot.credential.settle();
                }
                // Those who wait for the same instant do not come all at once.
                let most_ms = (ms / 2).clamp(BACKOFF_FLOOR_MS, 5_000);
                now_ms + ms + fastrand::u64(0..=most_ms)
            }
            // What is there is of no use, and now that is known.
            Next::Adopt if useless(slot) > known => now_ms + BACKOFF_FLOOR_MS,
            Next::Adopt | Next::Call { .. } if slot.next_try_ms == before => now_ms + slot.standing.check_spacing_ms(),
            Next::Adopt | Next::Call { .. } => return self.finish(id),
        };
        let slot = &self.refresher.slots[id];
        if slot.next_try_ms == before || at_ms < slot.next_try_ms {
            self.arm(id, at_ms);
        }
        self.uncover(id);
        self.finish(id);
    }

    /// The state as it is when no flight is under way.
    fn uncover(&mut self, id: CredentialId) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &self.refresher.slots[id];
        let live = slot.is_live(now_ms);
        slot.credential.update_status(|status| {
            if status.state == State::Renewing {
                status.state = if live { State::Fresh } else { State::Dead };
            }
        });
    }

    /// The lease ran out on the way to the call: this machine or the store is slow.
    pub(super) fn late(&mut self, id: CredentialId) {
        let now_ms = self.refresher.clock.boot_ms();
        debug!(appid = self.refresher.slots[id].credential.appid, "the lease ran out before the call was sent");
        self.uncover(id);
        self.arm(id, now_ms + BACKOFF_FLOOR_MS + fastrand::u64(0..=1_000));
    }

    /// Nothing could be asked, because the store is out of reach.
    pub(super) fn out_of_reach(&mut self, id: CredentialId, purpose: Purpose, unreachable: &Unreachable) -> bool {
        let now_ms = self.refresher.clock.boot_ms();
        let appid = &self.refresher.slots[id].appid;
        let failure = Failure::no_shared_state(appid, format!("{unreachable}: {}", unreachable.advice));
        let goes_on = self.failed(id, purpose, None, &failure, now_ms);
        let slot = &self.refresher.slots[id];
        if let Some(from_ms) = slot.alone_from_ms().filter(|from_ms| (now_ms..slot.next_try_ms).contains(from_ms)) {
            self.arm(id, from_ms);
        }
        goes_on
    }

    /// The store has our value again, under another number.
    pub(super) fn mended(&mut self, id: CredentialId, generation: u64) {
        let slot = &mut self.refresher.slots[id];
        if let Some(share) = &mut slot.share {
            (share.broken, share.ours) = (None, true);
        }
        info!(appid = slot.credential.appid, generation, "the shared state has a good value again");
        self.agree(id, generation, 0);
        self.calm(id);
        self.resume(id);
    }

    /// The call's value was refused by the store, because somebody has published beside us: theirs is served, ours is
    /// dropped, and since nobody knows which is the later one, one more fetch follows.
    pub(super) fn beaten(&mut self, id: CredentialId, answer: &Answer, sent_ms: BootMs) {
        let appid = &self.refresher.slots[id].credential.appid;
        warn!(appid, "another node has renewed beside us; its token is served, and one more fetch settles it");
        self.refresher.slots[id].flying = false;
        self.seen(id, &answer.record, answer.moment);
        let slot = &mut self.refresher.slots[id];
        slot.standing.lost(sent_ms);
        if let Some(published) = slot.adjust_end() {
            self.persist(id, &published);
        }
        self.uncover(id);
        let (now_ms, slot) = (self.refresher.clock.boot_ms(), &self.refresher.slots[id]);
        let at_ms = now_ms + fastrand::u64(0..=slot.standing.overlap_ms() / 8);
        self.arm(id, at_ms);
        self.finish(id);
    }

    /// Notes how a new value of ours was shared.
    pub(super) fn note_shown(&mut self, id: CredentialId, unreachable: Option<&Unreachable>) {
        let slot = &mut self.refresher.slots[id];
        let Some(share) = &mut slot.share else { return };
        (share.ours, share.unpublished) = (true, unreachable.is_some());
        if let Some(unreachable) = unreachable {
            let appid = &slot.credential.appid;
            warn!(appid, "a new token could not be given to the other nodes yet: {unreachable}");
        }
    }

    /// A node that cannot call has nothing to do but look whether all is well.
    pub(super) fn follow_on(&mut self, id: CredentialId) {
        let now_ms = self.refresher.clock.boot_ms();
        let slot = &mut self.refresher.slots[id];
        let left_ms = slot.standing.left_ms(now_ms);
        let at_ms = now_ms + if left_ms > 0 { left_ms.clamp(BACKOFF_FLOOR_MS, FOLLOW_MS) } else { FOLLOW_MS };
        if left_ms == 0 {
            let failure = Failure::followed(&slot.appid);
            slot.note_failure(&failure, now_ms, at_ms);
            slot.credential.settle();
            self.note_failed(id, &failure);
        }
        self.arm(id, at_ms);
        self.finish(id);
    }

    /// Has a node that can call look into the value. Whoever waits for it gets their answer when that is over.
    pub(super) fn wish(&mut self, id: CredentialId, purpose: Purpose) {
        let slot = &mut self.refresher.slots[id];
        let Some(share) = &slot.share else { return self.follow_on(id) };
        slot.flying = true;
        let generation = slot.credential.published().map(|published| published.generation);
        let why = match purpose {
            Purpose::Probe => Why::Tried,
            Purpose::Renew => Why::Asked,
            Purpose::Check | Purpose::Replace | Purpose::Force => Why::Refused,
        };
        let lane: crate::nodes::lane::Lane = share.lane.clone();
        let task = self.tasks.spawn(async move { Home::Wished(lane.shared.wish(&lane.tag, generation, why).await) });
        self.owners.insert(task.id(), id);
    }

    pub(super) fn wished(&mut self, id: CredentialId, came: Result<(), Unreachable>) {
        if let Err(unreachable) = came {
            let now_ms = self.refresher.clock.boot_ms();
            let slot = &mut self.refresher.slots[id];
            let share: Option<&mut Share> = slot.share.as_mut();
            if share.is_some_and(|share| share.log.say("wish", now_ms, LOG_AGAIN_MS).is_some()) {
                let (appid, advice) = (&slot.credential.appid, unreachable.advice);
                warn!(appid, advice, "no other node looks into the token: {unreachable}");
            }
        }
        self.finish(id);
    }
}

/// What is done beside the driver's own work and brings nothing home.
impl super::Refresher {
    fn spawn_aside(&self, work: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(work);
    }
}

/// What nodes with verify tickets share of them.
impl Driver {
    /// A verify ticket that another node has got.
    fn ticket_seen(&mut self, index: usize, record: &Record) {
        let Some(shared) = self.refresher.tickets.get_mut(index - self.refresher.slots.len()) else { return };
        let (id, lane) = (shared.id, shared.lane.clone());
        shared.generation = shared.generation.max(record.generation);
        match lane.open(record) {
            Some(Ok(value)) => {
                let ticket = crate::secret::Secret::new(value.value);
                self.take_ticket(&Arrival { id, ticket, from_file: false });
            }
            Some(Err(_)) => {}
            None => {
                let ticket = self.refresher.slots[id].grant.as_ref().and_then(|grant| grant.ticket());
                if let Some(ticket) = ticket {
                    self.share_ticket(id, ticket);
                }
            }
        }
    }

    /// Gives a verify ticket to the other nodes.
    pub(super) fn share_ticket(&mut self, id: CredentialId, ticket: String) {
        let Some(shared) = self.refresher.tickets.iter_mut().find(|shared| shared.id == id) else { return };
        shared.generation += 1;
        let (lane, generation): (_, u64) = (shared.lane.clone(), shared.generation);
        let value = Value {
            value: ticket,
            generation,
            expires_ms: 0,
            fetched_ms: 0,
            life_ms: 0,
            longest_ms: 0,
            learned_ms: None,
            withdrawn: false,
            refresh: None,
            by: lane.name.to_string(),
            node: lane.node,
        };
        self.refresher.spawn_aside(async move { lane.offer(&value).await });
    }
}

/// A component's verify ticket, which has a record of its own.
pub struct SharedTicket {
    pub(in crate::credential) id: CredentialId,
    pub(in crate::credential) lane: crate::nodes::lane::Lane,
    pub(in crate::credential) generation: u64,
}

/// A shared store, and how to listen to it.
pub struct Watch {
    pub(in crate::credential) shared: Arc<dyn crate::nodes::Shared>,
    pub(in crate::credential) watched: Arc<[crate::nodes::Watched]>,
}
