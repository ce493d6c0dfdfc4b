//! The stream of events (`GET /v1/events`): figures every second, credentials and the journal as they change.
//!
//! One task looks for changes and writes each of them once, however many listeners there are. A listener that is too slow
//! misses events and is told so; it delays nobody.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc};
use tokio::time::{Instant, MissedTickBehavior};

use super::access_control::Caller;
use super::apps;
use super::context::ApiContext;
use super::old_fields::with_old_fields;
use super::problem::Problem;
use super::status::{self, Figures, History, SAMPLE_EVERY_S};
use crate::clock::{BootMs, Now};
use crate::credential::table::Credential;

/// The most events that wait for a listener; enough for a thousand apps that are renewed at once.
const EVENTS_MAX: usize = 4096;
/// The most events that wait for a listener's connection.
const QUEUE_MAX: usize = 64;
const STREAMS_MAX: usize = 64;
/// A stream ends after this time; browsers begin another one by themselves.
const STREAM_LIFE: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);
/// Changes within this time are sent together.
const GATHER: Duration = Duration::from_millis(50);

/// The events for listeners, and the samples for the charts.
pub struct EventFeed {
    sender: broadcast::Sender<Bytes>,
    slots: Arc<Semaphore>,
    pub history: Mutex<History>,
}

impl EventFeed {
    pub fn new() -> EventFeed {
        let (sender, _) = broadcast::channel(EVENTS_MAX);
        EventFeed { sender, slots: Arc::new(Semaphore::new(STREAMS_MAX)), history: Mutex::new(History::default()) }
    }
}

/// One event in the format of server-sent events.
fn event(name: &str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

pub async fn watch(context: Arc<ApiContext>) {
    let mut seconds = tokio::time::interval(SECOND);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changes = context.table().changes();
    let mut watcher = FeedWatcher::new(&context);
    loop {
        tokio::select! {
            biased;
            () = context.shutdown.cancelled() => return,
            _ = seconds.tick() => watcher.on_second(&context),
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(GATHER).await;
                watcher.send_changes(&context, *changes.borrow_and_update());
            }
        }
    }
}

/// Brings the counts of refused writes in the journal up to date, also at the end of a flood.
pub fn flush_refused_writes(context: &ApiContext, now: Now) {
    let table = context.table();
    let refused = table.credentials_that(|credential| credential.refused_writes.load(Relaxed) > 0);
    refused.iter().for_each(|credential| credential.flush_refused_writes(&table.journal, now));
}

/// What has been sent already.
struct FeedWatcher {
    figures: Figures,
    sinks: Value,
    cluster: Value,
    seconds: u64,
    sampled: Instant,
    version: u64,
    journal: u64,
    looked_ms: BootMs,
}

impl FeedWatcher {
    fn new(context: &ApiContext) -> FeedWatcher {
        FeedWatcher {
            figures: Vec::new(),
            sinks: Value::Null,
            cluster: Value::Null,
            seconds: 0,
            sampled: Instant::now(),
            version: *context.table().changes().borrow(),
            journal: context.table().journal.version(),
            looked_ms: Now::read().boot_ms,
        }
    }

    fn on_second(&mut self, context: &ApiContext) {
        let (now, figures) = (Now::read(), status::read_figures(context));
        flush_refused_writes(context, now);
        let sampled = self.seconds.is_multiple_of(SAMPLE_EVERY_S);
        self.seconds += 1;
        if sampled {
            let interval_s = self.sampled.elapsed().as_secs_f64();
            self.sampled = Instant::now();
            context.feed.history.lock().sample(figures.clone(), interval_s, now);
        }
        if context.feed.sender.receiver_count() > 0 {
            let changed = figures.iter().filter(|figure| !self.figures.contains(figure)).copied();
            let mut event = json!({ "now_ms": now.unix_ms, "figures": status::figures_json(changed) });
            if sampled && let Some(sample) = context.feed.history.lock().latest() {
                event["sample"] = sample;
            }
            let mut cluster = status::cluster_json(context, now);
            let whole = cluster.clone();
            // The age changes all the time.
            cluster.as_object_mut().map(|fields| fields.remove("age_ms"));
            if cluster != self.cluster {
                event["cluster"] = whole;
                self.cluster = cluster;
            }
            self.send(context, "server", &with_old_fields(event, &["shared_state"]));
            self.send_expired(context, now);
            let sinks = status::sinks_json(context);
            if sinks != self.sinks {
                self.send(context, "sinks", &sinks);
                self.sinks = sinks;
            }
        }
        self.figures = figures;
        self.looked_ms = now.boot_ms;
    }

    /// The expiry of a value is no change in the table, so it has to be looked for.
    fn send_expired(&self, context: &ApiContext, now: Now) {
        let ended = |end| self.looked_ms < end && end <= now.boot_ms;
        let is_over =
            |credential: &Credential| credential.published().is_some_and(|published| ended(published.expires_boot_ms));
        for credential in context.table().credentials_that(is_over) {
            self.send(context, "credential", &apps::credential_json(&credential, now));
        }
    }

    fn send_changes(&mut self, context: &ApiContext, version: u64) {
        let (now, table) = (Now::read(), context.table());
        let journal = table.journal.version();
        if context.feed.sender.receiver_count() > 0 {
            for credential in table.credentials_that(|credential| credential.version() > self.version) {
                self.send(context, "credential", &apps::credential_json(&credential, now));
            }
            let entries = table.journal.since(self.journal, now, EVENTS_MAX);
            entries.iter().for_each(|entry| self.send(context, "journal", &apps::entry_json(entry, context)));
        }
        (self.version, self.journal) = (version, journal);
    }

    fn send(&self, context: &ApiContext, name: &str, data: &Value) {
        // An error means that nobody listens.
        let _ = context.feed.sender.send(event(name, data));
    }
}

pub fn listen(context: &Arc<ApiContext>, caller: Arc<Caller>) -> Result<Response, Problem> {
    caller.require_status()?;
    let Ok(slot) = context.feed.slots.clone().try_acquire_owned() else {
        let detail = "there are as many event streams as there may be";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-streams", detail));
    };
    let (sender, mut receiver) = mpsc::channel(QUEUE_MAX);
    let events = context.feed.sender.subscribe();
    tokio::spawn(forward_events(context.clone(), caller, events, sender, slot));
    let events = stream::poll_fn(move |cx| receiver.poll_recv(cx)).map(Ok::<_, Infallible>);
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response())
}

/// Sends events until the listener goes, its key is gone, the server ends or the hour is over.
async fn forward_events(
    context: Arc<ApiContext>,
    caller: Arc<Caller>,
    mut events: broadcast::Receiver<Bytes>,
    listener: mpsc::Sender<Bytes>,
    _slot: OwnedSemaphorePermit,
) {
    let end = Instant::now() + STREAM_LIFE;
    let mut next = Some(event("hello", &status::status_json(&context, Now::read())));
    loop {
        if let Some(event) = next.take()
            && listener.send(event).await.is_err()
        {
            return;
        }
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = listener.closed() => return,
            () = tokio::time::sleep_until(end) => return,
            event = events.recv() => match event {
                Ok(event) => next = Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => next = Some(self::event("lagged", &json!({}))),
                Err(broadcast::error::RecvError::Closed) => return,
            },
        }
        if !context.reload_handle.access_control.is_still_valid(&caller) {
            return;
        }
    }
}
