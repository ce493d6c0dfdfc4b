//! A subscription to channels. Notices a connection that has silently broken.

use std::future::pending;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::StreamExt;
use redis::Msg;
use redis::aio::{PubSub, PubSubSink, PubSubStream};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::client::within;
use super::fault::RedisFault;

/// How often to ping. A silent break is noticed after this and the deadline for an answer.
const PING_EVERY: Duration = Duration::from_secs(3);

/// A subscribed connection. Messages that are published while there is none are lost.
pub struct Subscriber {
    sink: PubSubSink,
    stream: PubSubStream,
    deadline: Duration,
    ping: Interval,
    /// A ping that waits for its answer. Kept here, so that cancelling `next` does not cancel it.
    pinging: Option<BoxFuture<'static, Result<(), RedisFault>>>,
}

impl Subscriber {
    /// Takes over a connection that is subscribed.
    pub(super) fn new(pubsub: PubSub, deadline: Duration) -> Subscriber {
        let (sink, stream) = pubsub.split();
        let mut ping = tokio::time::interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Subscriber { sink, stream, deadline, ping, pinging: None }
    }

    /// The next message, or why there will be none. Cancel-safe.
    pub async fn next(&mut self) -> Result<Msg, RedisFault> {
        loop {
            let answer = async {
                match &mut self.pinging {
                    Some(answer) => answer.await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                message = self.stream.next() => return message.ok_or(RedisFault::Dropped),
                answered = answer => {
                    self.pinging = None;
                    answered?;
                }
                _ = self.ping.tick() => {
                    // A ping under way has a deadline of its own.
                    if self.pinging.is_none() {
                        self.pinging = Some(ping(self.sink.clone(), self.deadline));
                    }
                }
            }
        }
    }
}

fn ping(mut sink: PubSubSink, deadline: Duration) -> BoxFuture<'static, Result<(), RedisFault>> {
    async move { within(deadline, sink.ping::<redis::Value>()).await?.map(drop).map_err(|_| RedisFault::Dropped) }
        .boxed()
}
