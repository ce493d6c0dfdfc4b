//! A subscription to channels. Notices a connection that has silently broken.

use std::future::ready;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use redis::aio::PubSub;
use redis::{Msg, Value};

use super::client::within;
use super::fault::RedisFault;

/// How often to ping. A silent break is noticed after this and the deadline for an answer.
const PING_EVERY: Duration = Duration::from_secs(3);

/// The messages of a subscribed connection, up to the fault that ends it. Those that are published while there is no
/// connection are lost.
pub type Subscription = BoxStream<'static, Result<Msg, RedisFault>>;

/// Takes over a connection that is subscribed.
pub(super) fn messages(pubsub: PubSub, deadline: Duration) -> Subscription {
    let (sink, stream) = pubsub.split();
    let messages = stream.map(Ok).chain(stream::once(ready(Err(RedisFault::Dropped))));
    let pings = stream::unfold(sink, move |mut sink| async move {
        tokio::time::sleep(PING_EVERY).await;
        let answered = within(deadline, sink.ping::<Value>()).await;
        Some((answered.and_then(|answered| answered.map_err(|_| RedisFault::Dropped)).err(), sink))
    });
    stream::select(messages, pings.filter_map(|fault| ready(fault.map(Err)))).boxed()
}
