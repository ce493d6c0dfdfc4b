//! Brings what changes: by messages, which may be lost, and by polls, which find out what they were.
//!
//! Reads everything whenever that may not be enough: at the start, on a new connection, and when the sequence of
//! changes is not the one that was followed. Waits neither for a slow receiver nor for a message.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{Msg, Pipeline, Value};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::change_queue::ChangeQueue;
use super::connection::StoreFault;
use super::refresh_requests::RefreshRequest;
use super::{RedisStore, connection, moment, script};
use crate::clock::{self, BootMs, RepeatThrottle};
use crate::cluster::record::StoreMs;
use crate::cluster::{ClusterEvent, Moment, StoreFuture, Unreachable, WatchedRecord};
use crate::redis_client::{RedisFault, Subscriber};

/// Records read at once: few at first, more while that is quick. Thousands of nodes may be reading everything, and a
/// renewal must not wait for them until its deadline.
const BATCH: (usize, usize) = (16, 256);
/// What takes longer is not quick.
const QUICK_MS: u64 = 20;
/// A message is no further ahead of the store's clock, as known from the last poll.
const AHEAD_MS_MAX: u64 = 5_000;
/// RefreshRequests taken at once.
const TAKEN_MAX: usize = 64;
/// Between two attempts to listen, or two looks at whether one may be made.
const RETRY_MS: (u64, u64) = (100, 5_000);
/// Between two lines about nothing being heard.
const DEAF_SAID_EVERY_MS: u64 = 3_600_000;

pub(super) struct ChangeWatcher {
    store: Arc<RedisStore>,
    watched: Arc<[WatchedRecord]>,
    index_of: HashMap<Arc<str>, usize>,
    news: mpsc::Sender<ClusterEvent>,
    change_queue: ChangeQueue,
    /// The store's clock, as of the last poll.
    clock: Moment,
    /// The connection that all was read by; 0: none that works.
    serial: u64,
    poll_at: Instant,
    batch: usize,
    /// Nothing is read before.
    read_at: Instant,
    listening: Subscription,
    listen_at: Instant,
    listen_delay_ms: u64,
    deaf: RepeatThrottle<RedisFault>,
    told: Option<Result<(), Unreachable>>,
    /// Not yet handed on.
    telling: Option<Result<(), Unreachable>>,
    /// RefreshRequests of this node that are over once everything before is handed on.
    ends: Vec<String>,
    taken: JoinSet<()>,
}

/// Whether messages are heard.
enum Subscription {
    None,
    Starting(StoreFuture<'static, Result<Subscriber, RedisFault>>),
    Active(Subscriber),
}

enum PubSubEvent {
    Subscribed(Subscriber),
    Message(Msg),
}

enum WatchStep {
    Deliver,
    Poll,
    Listen,
    PubSubEvent(Result<PubSubEvent, RedisFault>),
    Read,
    Taken,
    End,
}

impl ChangeWatcher {
    pub fn new(
        store: Arc<RedisStore>,
        watched: Arc<[WatchedRecord]>,
        news: mpsc::Sender<ClusterEvent>,
    ) -> ChangeWatcher {
        let now = Instant::now();
        ChangeWatcher {
            index_of: watched.iter().enumerate().map(|(index, known)| (known.tag.clone(), index)).collect(),
            change_queue: ChangeQueue::new(watched.len()),
            store,
            watched,
            news,
            clock: Moment { store_ms: 0, sent_ms: 0, received_ms: 0 },
            serial: 0,
            poll_at: now,
            batch: BATCH.0,
            read_at: now,
            listening: Subscription::None,
            listen_at: now,
            listen_delay_ms: RETRY_MS.0,
            deaf: RepeatThrottle::default(),
            told: None,
            telling: None,
            ends: Vec::new(),
            taken: JoinSet::new(),
        }
    }

    /// Until nobody receives any more.
    pub async fn run(mut self) {
        let news = self.news.clone();
        let store = self.store.clone();
        loop {
            self.read().await;
            if self.change_queue.is_empty() && self.telling.is_none() {
                self.ends.drain(..).for_each(|id| store.wishes.end(&id));
            }
            let has_news = self.telling.is_some() || self.change_queue.is_ready();
            let mut room = None;
            let step = tokio::select! {
                permit = news.reserve(), if has_news => match permit {
                    Ok(permit) => {
                        room = Some(permit);
                        WatchStep::Deliver
                    }
                    Err(_) => WatchStep::End,
                },
                () = news.closed() => WatchStep::End,
                heard = heard(&mut self.listening) => WatchStep::PubSubEvent(heard),
                () = store.connection.lost.notified() => WatchStep::Poll,
                () = sleep_until(self.poll_at) => WatchStep::Poll,
                // `read` is at the top of this.
                () = sleep_until(self.read_at), if self.serial > 0 && self.change_queue.wants_reading() => WatchStep::Read,
                () = sleep_until(self.listen_at), if self.may_listen() => WatchStep::Listen,
                Some(_) = self.taken.join_next() => WatchStep::Taken,
            };
            match step {
                WatchStep::Deliver => {
                    if let (Some(room), Some(news)) = (room, self.next_news()) {
                        room.send(news);
                    }
                }
                WatchStep::Poll => self.poll().await,
                WatchStep::Listen => self.listen(),
                WatchStep::PubSubEvent(Ok(PubSubEvent::Subscribed(subscriber))) => self.begin(subscriber),
                WatchStep::PubSubEvent(Ok(PubSubEvent::Message(message))) => self.hear(&message),
                WatchStep::PubSubEvent(Err(fault)) => self.lose(fault),
                WatchStep::Read | WatchStep::Taken => {}
                WatchStep::End => return,
            }
        }
    }

    fn next_news(&mut self) -> Option<ClusterEvent> {
        if let Some(reachable) = self.telling.take() {
            self.told = Some(reachable.clone());
            return Some(ClusterEvent::Reachable(reachable));
        }
        let (index, record, moment) = self.change_queue.pop()?;
        Some(ClusterEvent::RecordChanged { index, record, moment })
    }

    /// One round trip: that it takes writes, its clock, how far the sequence is and what has changed since the last time.
    async fn poll(&mut self) {
        let keys = &self.store.keys;
        let mut pipeline = Pipeline::with_capacity(4);
        // A replica answers everything but this.
        pipeline.ignore_errors().cmd("DEL").arg(keys.wish("none"));
        pipeline.cmd("TIME");
        pipeline.cmd("HMGET").arg(&keys.seq).arg("n").arg("born");
        pipeline.cmd("ZRANGEBYSCORE").arg(&keys.changes).arg(format!("({}", self.change_queue.last())).arg("+inf");
        pipeline.arg("WITHSCORES");
        let answers = match self.store.connection.ask(&pipeline).await {
            Ok(answers) => answers,
            Err(failed) => return self.fail(failed),
        };
        if let Some(fault) = answers.values.iter().find_map(|answer| self.refusal(answer)) {
            return self.fail(StoreFault { fault, unknown: false });
        }
        let Some(moment) = moment(&answers, 1) else {
            return self.fail(StoreFault { fault: RedisFault::Protocol, unknown: false });
        };
        self.clock = moment;
        let same = self.follow(answers.values.get(2));
        if self.serial != answers.serial || !same {
            self.change_queue.read_all();
        }
        if self.serial != answers.serial {
            // Where it listens now may be another server than this.
            self.serial = answers.serial;
            self.deafen();
            self.listen_at = Instant::now();
        }
        self.note(answers.values.get(3));
        self.tell(Ok(()));
        let every_ms = self.store.poll_every_ms;
        self.poll_in(every_ms * 9 / 10 + fastrand::u64(0..=every_ms / 5));
    }

    /// Refusals that a poll cannot do with. What is not of the type that it should be will be replaced.
    fn refusal(&self, answer: &Value) -> Option<RedisFault> {
        match answer {
            Value::ServerError(error) if error.code() == "WRONGTYPE" => None,
            answer => self.store.connection.client.record_refusal(answer),
        }
    }

    fn follow(&mut self, answer: Option<&Value>) -> bool {
        let empty = Vec::new();
        let parts = if let Some(Value::Array(parts)) = answer { parts } else { &empty };
        let last = parts.first().and_then(script::text).and_then(|text| script::number(&text)).unwrap_or(0);
        self.change_queue.follow(parts.get(1).and_then(script::text), last)
    }

    fn note(&mut self, answer: Option<&Value>) {
        let Some(Value::Array(changes)) = answer else { return };
        for change in changes.chunks_exact(2) {
            let (tag, seq) = (script::text(&change[0]), script::text(&change[1]));
            if let Some(index) = tag.and_then(|tag| self.index_of.get(tag.as_str()))
                && let Some(seq) = seq.and_then(|seq| script::number(&seq))
            {
                self.change_queue.note_change(*index, seq);
            }
        }
    }

    /// Reads what is to be read next, if there is room for it.
    async fn read(&mut self) {
        if self.serial == 0 || Instant::now() < self.read_at {
            return;
        }
        let batch = self.change_queue.batch(self.batch);
        if batch.is_empty() {
            return;
        }
        let mut pipeline = Pipeline::with_capacity(batch.len() + 1);
        pipeline.ignore_errors().cmd("TIME");
        for index in &batch {
            pipeline.cmd("HMGET").arg(self.store.keys.record(&self.watched[*index].tag)).arg(&script::FIELDS);
        }
        let answers = match self.store.connection.ask(&pipeline).await {
            Ok(answers) => answers,
            Err(failed) => return self.fail(failed),
        };
        let Some(moment) = moment(&answers, 0) else {
            return self.fail(StoreFault { fault: RedisFault::Protocol, unknown: false });
        };
        self.pace(answers.received_ms.saturating_sub(answers.sent_ms));
        for (index, answer) in batch.into_iter().zip(&answers.values[1..]) {
            let stored = match answer {
                Value::Array(fields) => script::read(fields),
                Value::ServerError(error) if error.code() == "WRONGTYPE" => script::StoredRecord::of_another_type(),
                answer => {
                    let fault = self.store.connection.client.record_refusal(answer).unwrap_or(RedisFault::Protocol);
                    return self.fail(StoreFault { fault, unknown: false });
                }
            };
            self.store.look_for_rubbish(&self.watched[index].tag, &stored);
            self.change_queue.read(index, stored, moment);
        }
    }

    /// Leaves others room, the more the slower it goes.
    fn pace(&mut self, took_ms: u64) {
        let quick = took_ms <= QUICK_MS;
        self.batch = if quick { 2 * self.batch } else { self.batch / 2 }.clamp(BATCH.0, BATCH.1);
        let pause_ms = if quick { 0 } else { fastrand::u64(0..=4 * took_ms) };
        self.read_at = Instant::now() + Duration::from_millis(pause_ms);
    }

    /// It cannot be asked. All is read again when it can.
    fn fail(&mut self, failed: StoreFault) {
        (self.serial, self.batch) = (0, BATCH.0);
        self.tell(Err(StoreFault { unknown: false, ..failed }.into()));
        let attempt_ms = self.store.connection.attempt_ms();
        self.poll_in(match attempt_ms {
            0 => self.store.poll_every_ms,
            attempt_ms => attempt_ms.saturating_sub(clock::boot_ms()).max(RETRY_MS.0),
        });
    }

    fn poll_in(&mut self, wait_ms: u64) {
        self.poll_at = Instant::now() + Duration::from_millis(wait_ms);
    }

    fn tell(&mut self, reachable: Result<(), Unreachable>) {
        // Each good poll is told: it says how old the picture is.
        self.telling = (reachable.is_ok() || self.told.as_ref() != Some(&reachable)).then_some(reachable);
    }

    fn may_listen(&self) -> bool {
        self.serial > 0 && matches!(self.listening, Subscription::None)
    }

    fn listen(&mut self) {
        let store = self.store.clone();
        // Whoever wishes counts those who listen.
        let takes = self.watched.iter().any(|known| known.renews);
        self.listening = Subscription::Starting(Box::pin(async move {
            let ends = store.keys.ends(store.node);
            let mut channels = vec![store.keys.news.as_str(), ends.as_str()];
            if takes {
                channels.push(&store.keys.wishes);
            }
            store.connection.client.subscribe(&channels).await
        }));
    }

    fn begin(&mut self, subscriber: Subscriber) {
        self.listening = Subscription::Active(subscriber);
        self.listen_delay_ms = RETRY_MS.0;
        self.store.wishes.set_heard(true);
        self.deaf.end();
        // What has changed while nothing was heard.
        self.poll_at = Instant::now();
    }

    /// Nothing is heard any more; polls go on.
    fn lose(&mut self, fault: RedisFault) {
        self.deafen();
        self.listen_delay_ms = (2 * self.listen_delay_ms).min(RETRY_MS.1);
        let wait_ms = RETRY_MS.0 + fastrand::u64(0..=self.listen_delay_ms);
        self.listen_at = Instant::now() + Duration::from_millis(wait_ms);
        if fault == RedisFault::Permission && self.deaf.say(fault, clock::boot_ms(), DEAF_SAID_EVERY_MS).is_some() {
            tracing::warn!(
                advice = connection::advice(fault),
                "changes in the shared Redis cannot be listened to, only polled for: {fault}"
            );
        }
    }

    fn deafen(&mut self) {
        self.listening = Subscription::None;
        self.store.wishes.set_heard(false);
    }

    fn hear(&mut self, message: &Msg) {
        let (store, received_ms) = (self.store.clone(), clock::boot_ms());
        let (channel, payload) = (message.get_channel_name(), message.get_payload_bytes());
        if channel == store.keys.news {
            self.hear_change(payload, received_ms);
        } else if channel == store.keys.wishes {
            self.hear_wish(payload);
        } else if let Ok(id) = std::str::from_utf8(payload) {
            self.ends.push(id.to_owned());
        }
    }

    fn hear_change(&mut self, payload: &[u8], received_ms: BootMs) {
        let Some(change) = script::change(payload) else { return };
        let Some(index) = self.index_of.get(change.tag.as_str()).copied() else { return };
        self.store.look_for_rubbish(&change.tag, &change.stored);
        // Of a time to come: it would have values end early. Somebody else has sent it, or the clock was set.
        if change.now_ms > self.clock.to_store_ms(received_ms).saturating_add(AHEAD_MS_MAX) {
            self.change_queue.read_again(index);
            return;
        }
        let moment = heard_at(&self.clock, change.now_ms, received_ms);
        if !self.change_queue.push(index, &change.born, change.stored, moment) {
            self.poll_at = Instant::now();
        }
    }

    fn hear_wish(&mut self, payload: &[u8]) {
        let Some(wish) = RefreshRequest::read(payload).filter(|_| self.taken.len() < TAKEN_MAX) else { return };
        if let Some(index) = self.index_of.get(wish.tag.as_str()).copied().filter(|at| self.watched[*at].renews) {
            let (store, news) = (self.store.clone(), self.news.clone());
            self.taken.spawn(async move { store.claim_refresh_request(index, wish, news).await });
        }
    }
}

impl Drop for ChangeWatcher {
    fn drop(&mut self) {
        self.deafen();
    }
}

/// May be given up and called again.
async fn heard(listening: &mut Subscription) -> Result<PubSubEvent, RedisFault> {
    match listening {
        Subscription::None => std::future::pending().await,
        Subscription::Starting(subscriber) => subscriber.await.map(PubSubEvent::Subscribed),
        Subscription::Active(subscriber) => subscriber.next().await.map(PubSubEvent::Message),
    }
}

/// The instant of a message that has the store's time in it: that was before it came, and how long before is known from
/// the last poll. Where they differ, because the store's clock was set, what makes a value end earlier counts.
fn heard_at(poll: &Moment, store_ms: StoreMs, received_ms: BootMs) -> Moment {
    let round_trip_ms = poll.received_ms.saturating_sub(poll.sent_ms);
    let sent_ms = poll.to_boot_ms(store_ms).min(received_ms.saturating_sub(round_trip_ms));
    Moment { store_ms, sent_ms, received_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_dated_by_the_poll_and_never_later_than_it_came() {
        let poll = Moment { store_ms: 1_000_000, sent_ms: 500, received_ms: 540 };
        let late = heard_at(&poll, 1_000_100, 9_000);
        assert_eq!(late, Moment { store_ms: 1_000_100, sent_ms: 599, received_ms: 9_000 });
        let ahead = heard_at(&poll, 4_600_000, 700);
        assert_eq!(ahead.sent_ms, 660, "the store's clock was put forward");
        let back = heard_at(&poll, 600_000, 700);
        assert_eq!(back.sent_ms, 0, "it was put back");
    }
}
