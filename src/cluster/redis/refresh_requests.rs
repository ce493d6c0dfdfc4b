//! How a node that cannot call WeChat has another look: a wish is published, one node takes it, and says when it is
//! over.
//!
//! Nothing is kept: a wish that nobody takes at once has failed, and whoever made it makes another if need be.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Pipeline, Value};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::RedisStore;
use super::connection::StoreFault;
use crate::cluster::{ClusterEvent, NodeId, RefreshReason, Unreachable};
use crate::redis_client::RedisFault;

/// Within this somebody has to take it.
const TAKEN_WITHIN: Duration = Duration::from_millis(500);
/// Longest wait for the end of it.
const OVER_WITHIN: Duration = Duration::from_secs(10);
/// It is remembered for so long who has taken it.
const TAKEN_MS: u64 = 15_000;
/// A node that is so far behind leaves wishes to others.
const ROOM_WITHIN: Duration = Duration::from_millis(200);

const NOBODY: &str = "see that a node which has the secrets and may call WeChat runs, and shares this Redis and prefix";

/// Those of this node that are under way, by their ids.
#[derive(Default)]
pub(super) struct RefreshRequests {
    /// The ends are being listened to.
    heard: watch::Sender<bool>,
    over: Mutex<HashMap<String, oneshot::Sender<()>>>,
}

impl RefreshRequests {
    /// Ends are heard from now on. When they no longer are, nobody waits in vain.
    pub fn set_heard(&self, heard: bool) {
        self.heard.send_replace(heard);
        if !heard {
            self.over.lock().clear();
        }
    }

    /// That one is over.
    pub fn end(&self, id: &str) {
        if let Some(over) = self.over.lock().remove(id) {
            let _ = over.send(());
        }
    }

    /// Waits until the end of a wish would be heard, which takes a moment when a connection is new.
    async fn begin(&self, id: &str) -> Option<oneshot::Receiver<()>> {
        let mut heard = self.heard.subscribe();
        timeout(TAKEN_WITHIN, heard.wait_for(|heard| *heard)).await.ok()?.ok()?;
        let (over, end) = oneshot::channel();
        self.over.lock().insert(id.to_owned(), over);
        // Perhaps it has just ended.
        heard.borrow().then_some(end)
    }
}

/// Forgets a wish when whoever made it is gone.
struct ForgetOnDrop<'a>(&'a RefreshRequests, &'a str);

impl Drop for ForgetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.over.lock().remove(self.1);
    }
}

/// A wish as it is published.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RefreshRequest {
    id: String,
    /// Who made it.
    node: NodeId,
    pub tag: String,
    generation: Option<u64>,
    why: String,
}

impl RefreshRequest {
    /// Reads one; none if it is none of ours.
    pub fn read(payload: &[u8]) -> Option<RefreshRequest> {
        let wish: RefreshRequest = serde_json::from_slice(payload).ok()?;
        // It becomes part of a key.
        let plain = wish.id.len() == 32 && wish.id.bytes().all(|byte| byte.is_ascii_hexdigit());
        (plain && why(&wish.why).is_some()).then_some(wish)
    }
}

fn why(word: &str) -> Option<RefreshReason> {
    [RefreshReason::Report, RefreshReason::ForeignWriter, RefreshReason::Renew, RefreshReason::Probe]
        .into_iter()
        .find(|why| word_of(*why) == word)
}

fn word_of(why: RefreshReason) -> &'static str {
    match why {
        RefreshReason::Report => "refused",
        RefreshReason::ForeignWriter => "rival",
        RefreshReason::Renew => "asked",
        RefreshReason::Probe => "tried",
    }
}

impl RedisStore {
    /// Makes a wish, and waits until it is over.
    pub(super) async fn send_refresh_request(
        &self,
        tag: &str,
        generation: Option<u64>,
        why: RefreshReason,
    ) -> Result<(), Unreachable> {
        let id = format!("{:032x}", fastrand::u128(..));
        let _forget = ForgetOnDrop(&self.wishes, &id);
        let wish = RefreshRequest {
            id: id.clone(),
            node: self.node,
            tag: tag.to_owned(),
            generation,
            why: word_of(why).to_owned(),
        };
        let payload = serde_json::to_string(&wish).unwrap_or_default();
        let Some(mut over) = self.wishes.begin(&id).await else {
            return Err(StoreFault { fault: RedisFault::Unreachable, unknown: false }.into());
        };
        let begun = Instant::now();
        if self.one("PUBLISH", &[&self.keys.wishes, &payload]).await? == Value::Int(0) {
            return Err(nobody("is used by no node that may call WeChat"));
        }
        let over = match timeout_at(begun + TAKEN_WITHIN, &mut over).await {
            Ok(over) => Ok(over),
            Err(_) if self.one("EXISTS", &[&self.keys.wish(&id)]).await? == Value::Int(0) => {
                return Err(nobody("is used by no node that may call WeChat"));
            }
            Err(_) => timeout_at(begun + OVER_WITHIN, over).await,
        };
        match over {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(StoreFault { fault: RedisFault::Dropped, unknown: true }.into()),
            Err(_) => Err(StoreFault { fault: RedisFault::Timeout, unknown: true }.into()),
        }
    }

    /// Takes a wish unless another does, has it granted, and says when that is over.
    pub(super) async fn claim_refresh_request(
        &self,
        index: usize,
        wish: RefreshRequest,
        news: mpsc::Sender<ClusterEvent>,
    ) {
        let Some(why) = why(&wish.why) else { return };
        // Only who can pass it on takes it.
        let Ok(Ok(room)) = timeout(ROOM_WITHIN, news.reserve()).await else { return };
        let (key, node) = (self.keys.wish(&wish.id), self.node.to_string());
        let taken = self.one("SET", &[&key, &node, "NX", "PX", &TAKEN_MS.to_string()]).await;
        if taken != Ok(Value::Okay) {
            return;
        }
        let (done, over) = oneshot::channel();
        room.send(ClusterEvent::RefreshRequested { index, generation: wish.generation, why, done });
        let _ = timeout(Duration::from_millis(TAKEN_MS), over).await;
        // Who waits for it gives up by itself.
        let _ = self.one("PUBLISH", &[&self.keys.ends(wish.node), &wish.id]).await;
    }

    async fn one(&self, command: &str, arguments: &[&str]) -> Result<Value, StoreFault> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.ignore_errors().cmd(command).arg(arguments);
        let answers = self.connection.ask(&pipeline).await?;
        let answer = answers.values.into_iter().next().unwrap_or(Value::Nil);
        match self.connection.client.record_refusal(&answer) {
            Some(fault) => Err(StoreFault { fault, unknown: false }),
            None => Ok(answer),
        }
    }
}

fn nobody(text: &str) -> Unreachable {
    Unreachable { text: text.to_owned(), advice: NOBODY, unknown: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_reads_back_and_nothing_else_passes_for_one() {
        let id = "0123456789abcdef0123456789abcdef";
        let wish = |id: &str, why: &str| {
            let wish =
                RefreshRequest { id: id.into(), node: u64::MAX, tag: "t".into(), generation: None, why: why.into() };
            serde_json::to_vec(&wish).unwrap()
        };
        assert!(RefreshRequest::read(&wish(id, "refused")).is_some_and(|wish| wish.node == u64::MAX));
        for (id, why) in [(id, "whim"), ("short", "refused"), ("0123456789abcdef0123456789abcde:", "refused")] {
            assert!(RefreshRequest::read(&wish(id, why)).is_none());
        }
        for payload in ["", "{}", "[]", "\u{0}"] {
            assert!(RefreshRequest::read(payload.as_bytes()).is_none());
        }
    }
}
