//! Follows the changes of records: by messages, which may be lost, and by polls, which find what was lost.
//!
//! Reads all records at the start, on a new connection, and when the Redis has another sequence of changes than before.
//! Never waits for a slow receiver or for a message.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::OptionFuture;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use redis::{Msg, Pipeline, Value};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::change_queue::ChangeQueue;
use super::refresh_requests::RefreshRequest;
use super::{RedisStore, connection, script};
use crate::clock::{self, BootMs, RepeatThrottle};
use crate::cluster::record::StoreMs;
use crate::cluster::{ClusterEvent, StoreClockReading, Unreachable, WatchedRecord};
use crate::redis_client::RedisFault;

/// How many records are read at once: few at first, more while the Redis is fast. When thousands of nodes read all records,
/// a renewal must still get through before its deadline.
const BATCH: (usize, usize) = (16, 256);
/// A read that takes longer is slow.
const FAST_MS: u64 = 20;
/// How far the time in a message may be ahead of the store's clock, as known from the last poll.
const AHEAD_MS_MAX: u64 = 5_000;
const REQUESTS_MAX: usize = 64;
/// The time between two attempts to subscribe, at first and at most.
const RETRY_MS: (u64, u64) = (100, 5_000);
/// The least time between two log lines about a refused subscription.
const LOG_UNSUBSCRIBED_EVERY_MS: u64 = 3_600_000;

pub(super) struct ChangeWatcher {
    store: Arc<RedisStore>,
    watched: Arc<[WatchedRecord]>,
    index_of: HashMap<Arc<str>, usize>,
    events: mpsc::Sender<ClusterEvent>,
    change_queue: ChangeQueue,
    /// The reading of the store's clock by the last poll.
    clock: StoreClockReading,
    /// The number of the connection that all records were read by; 0: none works.
    connection_number: u64,
    poll_at: Instant,
    batch: usize,
    read_at: Instant,
    /// The messages, after none when the subscription has begun; none without one.
    subscription: Option<BoxStream<'static, Result<Option<Msg>, RedisFault>>>,
    subscribe_at: Instant,
    subscribe_delay_ms: u64,
    unsubscribed_throttle: RepeatThrottle<RedisFault>,
    last_reachable: Option<Result<(), Unreachable>>,
    next_reachable: Option<Result<(), Unreachable>>,
    /// Requests of this node that are finished once all records before are sent.
    finished_requests: Vec<String>,
    claimed_requests: JoinSet<()>,
}

impl ChangeWatcher {
    pub fn new(
        store: Arc<RedisStore>,
        watched: Arc<[WatchedRecord]>,
        events: mpsc::Sender<ClusterEvent>,
    ) -> ChangeWatcher {
        let now = Instant::now();
        ChangeWatcher {
            index_of: watched.iter().enumerate().map(|(index, known)| (known.tag.clone(), index)).collect(),
            change_queue: ChangeQueue::new(watched.len()),
            store,
            watched,
            events,
            clock: StoreClockReading { store_ms: 0, sent_ms: 0, received_ms: 0 },
            connection_number: 0,
            poll_at: now,
            batch: BATCH.0,
            read_at: now,
            subscription: None,
            subscribe_at: now,
            subscribe_delay_ms: RETRY_MS.0,
            unsubscribed_throttle: RepeatThrottle::default(),
            last_reachable: None,
            next_reachable: None,
            finished_requests: Vec::new(),
            claimed_requests: JoinSet::new(),
        }
    }

    /// Runs until the receiver is gone.
    pub async fn run(mut self) {
        let events = self.events.clone();
        let store = self.store.clone();
        loop {
            self.read().await;
            if self.change_queue.is_empty() && self.next_reachable.is_none() {
                self.finished_requests.drain(..).for_each(|id| store.refresh_requests.finish(&id));
            }
            let has_event = self.next_reachable.is_some() || self.change_queue.is_ready();
            tokio::select! {
                permit = events.reserve(), if has_event => {
                    let Ok(permit) = permit else { return };
                    if let Some(event) = self.next_event() {
                        permit.send(event);
                    }
                }
                () = events.closed() => return,
                Some(Some(message)) = OptionFuture::from(self.subscription.as_mut().map(StreamExt::next)) => match message {
                    Ok(Some(message)) => self.on_message(&message),
                    Ok(None) => self.on_subscribed(),
                    Err(fault) => self.on_unsubscribed(fault),
                },
                () = store.connection.lost.notified() => self.poll().await,
                () = sleep_until(self.poll_at) => self.poll().await,
                // The loop begins with the read.
                () = sleep_until(self.read_at), if self.connection_number > 0 && self.change_queue.needs_reading() => {}
                () = sleep_until(self.subscribe_at), if self.connection_number > 0 && self.subscription.is_none() => self.subscribe(),
                Some(_) = self.claimed_requests.join_next() => {}
            }
        }
    }

    fn next_event(&mut self) -> Option<ClusterEvent> {
        if let Some(reachable) = self.next_reachable.take() {
            self.last_reachable = Some(reachable.clone());
            return Some(ClusterEvent::Reachable(reachable));
        }
        let (index, record, clock_reading) = self.change_queue.pop()?;
        Some(ClusterEvent::RecordChanged { index, record, clock_reading })
    }

    /// One round trip: checks that the Redis takes writes, reads its clock, and finds what has changed since the last poll.
    async fn poll(&mut self) {
        let store = &self.store;
        let mut pipeline = Pipeline::with_capacity(4);
        // A replica refuses only this.
        pipeline.ignore_errors().cmd("DEL").arg(store.claim_key("none"));
        pipeline.cmd("TIME");
        pipeline.cmd("HMGET").arg(store.key("seq")).arg("n").arg("born");
        let after = format!("({}", self.change_queue.last());
        pipeline.cmd("ZRANGEBYSCORE").arg(store.key("changes")).arg(after).arg("+inf").arg("WITHSCORES");
        let answers = match self.store.connection.ask(&pipeline).await {
            Ok(answers) => answers,
            Err(unreachable) => return self.fail(unreachable),
        };
        if let Some(fault) = answers.values.iter().find_map(|answer| self.refusal(answer)) {
            return self.fail(fault.into());
        }
        let Some(clock_reading) = answers.clock_reading_at(1) else {
            return self.fail(RedisFault::Protocol.into());
        };
        self.clock = clock_reading;
        let is_same_sequence = self.follow_sequence(answers.values.get(2));
        if self.connection_number != answers.connection_number || !is_same_sequence {
            self.change_queue.read_all();
        }
        if self.connection_number != answers.connection_number {
            // The present subscription may be at another server.
            self.connection_number = answers.connection_number;
            self.unsubscribe();
            self.subscribe_at = Instant::now();
        }
        self.note_changes(answers.values.get(3));
        self.set_reachable(Ok(()));
        let every_ms = self.store.poll_every_ms;
        self.poll_in(every_ms * 9 / 10 + fastrand::u64(0..=every_ms / 5));
    }

    /// The refusal in an answer. A key of a wrong type is none: the next write replaces it.
    fn refusal(&self, answer: &Value) -> Option<RedisFault> {
        match answer {
            Value::ServerError(error) if error.code() == "WRONGTYPE" => None,
            answer => self.store.connection.client.record_refusal(answer),
        }
    }

    fn follow_sequence(&mut self, answer: Option<&Value>) -> bool {
        let empty = Vec::new();
        let parts = if let Some(Value::Array(parts)) = answer { parts } else { &empty };
        let last = parts.first().and_then(script::text).and_then(|text| script::number(&text)).unwrap_or(0);
        self.change_queue.follow(parts.get(1).and_then(script::text), last)
    }

    fn note_changes(&mut self, answer: Option<&Value>) {
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

    /// Reads the next batch of records, once the last one is sent.
    async fn read(&mut self) {
        if self.connection_number == 0 || Instant::now() < self.read_at {
            return;
        }
        let batch = self.change_queue.batch(self.batch);
        if batch.is_empty() {
            return;
        }
        let mut pipeline = Pipeline::with_capacity(batch.len() + 1);
        pipeline.ignore_errors().cmd("TIME");
        for index in &batch {
            pipeline.cmd("HMGET").arg(self.store.record_key(&self.watched[*index].tag)).arg(&script::FIELDS);
        }
        let answers = match self.store.connection.ask(&pipeline).await {
            Ok(answers) => answers,
            Err(unreachable) => return self.fail(unreachable),
        };
        let Some(clock_reading) = answers.clock_reading_at(0) else {
            return self.fail(RedisFault::Protocol.into());
        };
        self.adjust_batch(answers.received_ms.saturating_sub(answers.sent_ms));
        for (index, answer) in batch.into_iter().zip(&answers.values[1..]) {
            let stored = match answer {
                Value::Array(fields) => script::read(fields),
                Value::ServerError(error) if error.code() == "WRONGTYPE" => script::StoredRecord::of_another_type(),
                answer => {
                    let fault = self.store.connection.client.record_refusal(answer).unwrap_or(RedisFault::Protocol);
                    return self.fail(fault.into());
                }
            };
            self.store.warn_of_bad_field(&self.watched[index].tag, &stored);
            self.change_queue.read(index, stored, clock_reading);
        }
    }

    /// Reads less, and pauses, when the Redis is slow.
    fn adjust_batch(&mut self, took_ms: u64) {
        let is_fast = took_ms <= FAST_MS;
        self.batch = if is_fast { 2 * self.batch } else { self.batch / 2 }.clamp(BATCH.0, BATCH.1);
        let pause_ms = if is_fast { 0 } else { fastrand::u64(0..=4 * took_ms) };
        self.read_at = Instant::now() + Duration::from_millis(pause_ms);
    }

    /// The Redis cannot be used. All records are read again when it can.
    fn fail(&mut self, unreachable: Unreachable) {
        (self.connection_number, self.batch) = (0, BATCH.0);
        // Nothing was to be done.
        self.set_reachable(Err(Unreachable { unknown: false, ..unreachable }));
        self.poll_in(match self.store.connection.attempt_ms() {
            0 => self.store.poll_every_ms,
            attempt_ms => attempt_ms.saturating_sub(clock::boot_ms()).max(RETRY_MS.0),
        });
    }

    fn poll_in(&mut self, wait_ms: u64) {
        self.poll_at = Instant::now() + Duration::from_millis(wait_ms);
    }

    fn set_reachable(&mut self, reachable: Result<(), Unreachable>) {
        // Every good poll is sent: it says how old the records are.
        self.next_reachable =
            (reachable.is_ok() || self.last_reachable.as_ref() != Some(&reachable)).then_some(reachable);
    }

    fn subscribe(&mut self) {
        let store = self.store.clone();
        // A requesting node counts the subscribers: only nodes that renew may be among them.
        let renews = self.watched.iter().any(|known| known.renews);
        let subscribing = async move {
            let mut channels = vec![store.key("news"), store.finished_channel(store.node)];
            if renews {
                channels.push(store.key("wishes"));
            }
            let messages =
                store.connection.client.subscribe(&channels.iter().map(String::as_str).collect::<Vec<_>>()).await?;
            Ok(stream::once(ready(Ok(None))).chain(messages.map_ok(Some)))
        };
        self.subscription = Some(stream::once(subscribing).try_flatten().boxed());
    }

    fn on_subscribed(&mut self) {
        self.subscribe_delay_ms = RETRY_MS.0;
        self.store.refresh_requests.set_subscribed(true);
        self.unsubscribed_throttle.end();
        // Finds what changed before the subscription.
        self.poll_at = Instant::now();
    }

    /// Subscribes again later; polls go on.
    fn on_unsubscribed(&mut self, fault: RedisFault) {
        self.unsubscribe();
        self.subscribe_delay_ms = (2 * self.subscribe_delay_ms).min(RETRY_MS.1);
        let wait_ms = RETRY_MS.0 + fastrand::u64(0..=self.subscribe_delay_ms);
        self.subscribe_at = Instant::now() + Duration::from_millis(wait_ms);
        if fault == RedisFault::Permission
            && self.unsubscribed_throttle.allow(fault, clock::boot_ms(), LOG_UNSUBSCRIBED_EVERY_MS).is_some()
        {
            tracing::warn!(
                advice = connection::advice(fault),
                "cannot subscribe to changes in the cluster store, only polling: {fault}"
            );
        }
    }

    fn unsubscribe(&mut self) {
        self.subscription = None;
        self.store.refresh_requests.set_subscribed(false);
    }

    fn on_message(&mut self, message: &Msg) {
        let (store, received_ms) = (self.store.clone(), clock::boot_ms());
        let (channel, payload) = (message.get_channel_name(), message.get_payload_bytes());
        if channel == store.key("news") {
            self.on_change(payload, received_ms);
        } else if channel == store.key("wishes") {
            self.on_request(payload);
        } else if let Ok(id) = std::str::from_utf8(payload) {
            self.finished_requests.push(id.to_owned());
        }
    }

    fn on_change(&mut self, payload: &[u8], received_ms: BootMs) {
        let Some(change) = script::change(payload) else { return };
        let Some(index) = self.index_of.get(change.tag.as_str()).copied() else { return };
        self.store.warn_of_bad_field(&change.tag, &change.stored);
        // A time in the future would make values end early. The message is forged, or the store's clock was set back.
        if change.now_ms > self.clock.to_store_ms(received_ms).saturating_add(AHEAD_MS_MAX) {
            self.change_queue.note_change(index, u64::MAX);
            return;
        }
        let clock_reading = dated_by_poll(&self.clock, change.now_ms, received_ms);
        if !self.change_queue.push(index, &change.sequence_id, change.stored, clock_reading) {
            self.poll_at = Instant::now();
        }
    }

    fn on_request(&mut self, payload: &[u8]) {
        if self.claimed_requests.len() >= REQUESTS_MAX {
            return;
        }
        let Some(request) = RefreshRequest::parse(payload) else { return };
        if let Some(index) = self.index_of.get(request.tag.as_str()).copied().filter(|at| self.watched[*at].renews) {
            let (store, events) = (self.store.clone(), self.events.clone());
            self.claimed_requests.spawn(async move { store.claim_refresh_request(index, request, events).await });
        }
    }
}

impl Drop for ChangeWatcher {
    fn drop(&mut self) {
        self.unsubscribe();
    }
}

/// The clock reading for a message that has the store's time in it, by the last poll. If the store's clock was set since,
/// the reading counts that makes a value end earlier.
fn dated_by_poll(poll: &StoreClockReading, store_ms: StoreMs, received_ms: BootMs) -> StoreClockReading {
    let round_trip_ms = poll.received_ms.saturating_sub(poll.sent_ms);
    let sent_ms = poll.to_boot_ms(store_ms).min(received_ms.saturating_sub(round_trip_ms));
    StoreClockReading { store_ms, sent_ms, received_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_dated_by_the_poll_and_never_later_than_it_came() {
        let poll = StoreClockReading { store_ms: 1_000_000, sent_ms: 500, received_ms: 540 };
        let late = dated_by_poll(&poll, 1_000_100, 9_000);
        assert_eq!(late, StoreClockReading { store_ms: 1_000_100, sent_ms: 599, received_ms: 9_000 });
        let ahead = dated_by_poll(&poll, 4_600_000, 700);
        assert_eq!(ahead.sent_ms, 660, "the store's clock was put forward");
        let back = dated_by_poll(&poll, 600_000, 700);
        assert_eq!(back.sent_ms, 0, "it was put back");
    }
}
