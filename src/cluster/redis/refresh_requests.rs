//! Refresh requests: a node that cannot call the platform publishes one, another node claims it, and says when it has
//! finished.
//!
//! Nothing is stored. A request that no node claims at once has failed, and is made again if it is still needed.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Pipeline, Value};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::RedisStore;
use crate::cluster::{ClusterEvent, NodeId, RefreshReason, Unreachable};
use crate::redis_client::RedisFault;

const CLAIMED_WITHIN: Duration = Duration::from_millis(500);
/// How long the requesting node waits for the end.
const FINISHED_WITHIN: Duration = Duration::from_secs(10);
const CLAIM_MS: u64 = 15_000;
/// A node whose event queue is full for longer leaves the request to others.
const QUEUED_WITHIN: Duration = Duration::from_millis(200);

/// The requests of this node that are under way, by their ids.
#[derive(Default)]
pub(super) struct RefreshRequests {
    /// The channel of finished requests is subscribed to.
    is_subscribed: watch::Sender<bool>,
    waiting: Mutex<HashMap<String, oneshot::Sender<()>>>,
}

impl RefreshRequests {
    /// Notes whether the end of a request would be heard. If not, those that wait for one are told so.
    pub fn set_subscribed(&self, is_subscribed: bool) {
        self.is_subscribed.send_replace(is_subscribed);
        if !is_subscribed {
            self.waiting.lock().clear();
        }
    }

    pub fn finish(&self, id: &str) {
        if let Some(waiting) = self.waiting.lock().remove(id) {
            let _ = waiting.send(());
        }
    }

    /// Waits for the subscription, which takes a moment on a new connection, and adds a request.
    async fn begin(&self, id: &str) -> Option<oneshot::Receiver<()>> {
        let mut is_subscribed = self.is_subscribed.subscribe();
        timeout(CLAIMED_WITHIN, is_subscribed.wait_for(|is_subscribed| *is_subscribed)).await.ok()?.ok()?;
        let (finish, finished) = oneshot::channel();
        self.waiting.lock().insert(id.to_owned(), finish);
        // The subscription may have ended in between.
        is_subscribed.borrow().then_some(finished)
    }
}

/// Removes a request when its task is gone.
struct RemoveOnDrop<'a>(&'a RefreshRequests, &'a str);

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        self.0.waiting.lock().remove(self.1);
    }
}

/// A request as it is published, in JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RefreshRequest {
    id: String,
    node: NodeId,
    pub tag: String,
    generation: Option<u64>,
    why: RefreshReason,
}

impl RefreshRequest {
    /// Parses a message; none if no node has sent it.
    pub fn parse(payload: &[u8]) -> Option<RefreshRequest> {
        let request: RefreshRequest = serde_json::from_slice(payload).ok()?;
        // The id becomes part of a key.
        (request.id.len() == 32 && request.id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(request)
    }
}

impl RedisStore {
    /// Publishes a request and waits until it is finished.
    pub(super) async fn send_refresh_request(
        &self,
        tag: &str,
        generation: Option<u64>,
        why: RefreshReason,
    ) -> Result<(), Unreachable> {
        let id = format!("{:032x}", fastrand::u128(..));
        let _remove = RemoveOnDrop(&self.refresh_requests, &id);
        let request = RefreshRequest { id: id.clone(), node: self.node, tag: tag.to_owned(), generation, why };
        let payload = serde_json::to_string(&request).unwrap_or_default();
        let begun = self.refresh_requests.begin(&id).await;
        let mut finished = begun.ok_or(RedisFault::Unreachable)?;
        let begun = Instant::now();
        if self.run_command("PUBLISH", &[&self.key("wishes"), &payload]).await? == Value::Int(0) {
            return Err(no_node_calls());
        }
        let finished = match timeout_at(begun + CLAIMED_WITHIN, &mut finished).await {
            Ok(finished) => Ok(finished),
            Err(_) if self.run_command("EXISTS", &[&self.claim_key(&id)]).await? == Value::Int(0) => {
                return Err(no_node_calls());
            }
            Err(_) => timeout_at(begun + FINISHED_WITHIN, finished).await,
        };
        let finished = finished.map_err(|_| RedisFault::Timeout).and_then(|sent| sent.map_err(|_| RedisFault::Dropped));
        finished.map_err(|fault| Unreachable { unknown: true, ..fault.into() })
    }

    /// Claims a request unless another node has, passes it on, and says when it is finished.
    pub(super) async fn claim_refresh_request(
        &self,
        index: usize,
        request: RefreshRequest,
        events: mpsc::Sender<ClusterEvent>,
    ) {
        // First a place in the queue: a node that could not pass the request on must not claim it.
        let Ok(Ok(permit)) = timeout(QUEUED_WITHIN, events.reserve()).await else { return };
        let (key, node) = (self.claim_key(&request.id), self.node.to_string());
        let claimed = self.run_command("SET", &[&key, &node, "NX", "PX", &CLAIM_MS.to_string()]).await;
        if claimed != Ok(Value::Okay) {
            return;
        }
        let (done, finished) = oneshot::channel();
        let RefreshRequest { generation, why, .. } = request;
        permit.send(ClusterEvent::RefreshRequested { index, generation, why, done });
        let _ = timeout(Duration::from_millis(CLAIM_MS), finished).await;
        // If this is lost, the requesting node stops waiting by itself.
        let _ = self.run_command("PUBLISH", &[&self.finished_channel(request.node), &request.id]).await;
    }

    pub(super) fn claim_key(&self, id: &str) -> String {
        self.key(&format!("wish:{id}"))
    }

    pub(super) fn finished_channel(&self, node: NodeId) -> String {
        self.key(&format!("ends:{node}"))
    }

    async fn run_command(&self, command: &str, arguments: &[&str]) -> Result<Value, Unreachable> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.ignore_errors().cmd(command).arg(arguments);
        let answers = self.connection.ask(&pipeline).await?;
        let answer = answers.values.into_iter().next().unwrap_or(Value::Nil);
        self.connection.client.record_refusal(&answer).map_or(Ok(answer), |fault| Err(fault.into()))
    }
}

fn no_node_calls() -> Unreachable {
    Unreachable::new(
        "the cluster store is used by no node that may call WeChat",
        "see that a node which has the secrets and may call WeChat runs, and shares this Redis and prefix",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_and_nothing_else_passes_for_one() {
        let id = "0123456789abcdef0123456789abcdef";
        let request = |id: &str, why: &str| {
            let request = serde_json::json!({ "id": id, "node": u64::MAX, "tag": "t", "generation": null, "why": why });
            request.to_string()
        };
        let known = RefreshRequest::parse(request(id, "refused").as_bytes()).unwrap();
        assert_eq!((known.node, known.why), (u64::MAX, RefreshReason::Report));
        for why in ["refused", "rival", "asked", "tried"] {
            let known = RefreshRequest::parse(request(id, why).as_bytes()).unwrap();
            assert!(serde_json::to_string(&known).unwrap().ends_with(&format!("\"why\":\"{why}\"}}")), "{why}");
        }
        for (id, why) in [(id, "whim"), ("short", "refused"), ("0123456789abcdef0123456789abcde:", "refused")] {
            assert!(RefreshRequest::parse(request(id, why).as_bytes()).is_none());
        }
        for payload in ["", "{}", "[]", "\u{0}"] {
            assert!(RefreshRequest::parse(payload.as_bytes()).is_none());
        }
    }
}
