//! Hears what is published, and notices when nothing could be heard any more.

use std::future::pending;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::StreamExt;
use redis::Msg;
use redis::aio::{PubSub, PubSubSink, PubSubStream};
use tokio::time::{Instant, Interval, MissedTickBehavior, timeout};

use super::fault::RedisFault;

/// A peer that has gone without a word is noticed after this and the deadline for an answer.
const PING_EVERY: Duration = Duration::from_secs(3);

/// A connection that listens to channels. Messages may be lost all the same: when it is made, and while it is not.
pub struct Subscriber {
    sink: PubSubSink,
    stream: PubSubStream,
    deadline: Duration,
    ping: Interval,
    /// A ping whose answer is out. Kept here, so that whoever gives up `next` in between does not end it.
    pinging: Option<BoxFuture<'static, Result<(), RedisFault>>>,
}

impl Subscriber {
    /// A subscription that has been confirmed.
    pub(super) fn new(pubsub: PubSub, deadline: Duration) -> Subscriber {
        let (sink, stream) = pubsub.split();
        let mut ping = tokio::time::interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Subscriber { sink, stream, deadline, ping, pinging: None }
    }

    /// The next message, or why there will be none. May be given up and called again.
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
                    // One that is still out has a deadline of its own.
                    if self.pinging.is_none() {
                        self.pinging = Some(ping(self.sink.clone(), self.deadline));
                    }
                }
            }
        }
    }
}

fn ping(mut sink: PubSubSink, deadline: Duration) -> BoxFuture<'static, Result<(), RedisFault>> {
    async move {
        let answer = timeout(deadline, sink.ping::<redis::Value>()).await.map_err(|_| RedisFault::Timeout)?;
        answer.map(drop).map_err(|_| RedisFault::Dropped)
    }
    .boxed()
}
