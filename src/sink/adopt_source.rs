//! Reads what the site's stores have before a sink's first write, for `adopt`. Never writes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, join_all};

use super::SinkRunner;
use super::backend::SinkBackend;
use super::options::SinkEntry;
use crate::credential::adopt::{StoredBytes, TokenSource};
use crate::credential::table::CredentialId;

/// How long each store gets. The caller waits a little longer for all of them: a store that hangs must not cost what the
/// others have.
const WAIT: Duration = Duration::from_millis(1500);

/// The stores of the sinks that write this credential; none if no such sink can be read.
pub fn source(sinks: &[SinkRunner], id: CredentialId) -> Option<Arc<dyn TokenSource>> {
    let source = |sink: &SinkRunner| {
        let item = sink.items.iter().find(|item| item.credential.id == id)?;
        Some(SinkSource {
            redacted_name: sink.options.to_string(),
            backend: sink.backend.clone(),
            entries: item.entries.clone(),
        })
    };
    let readable = sinks.iter().filter(|sink| sink.options.is_readable());
    let sources: Vec<SinkSource> = readable.filter_map(source).collect();
    (!sources.is_empty()).then(|| Arc::new(SinkSources(sources)) as Arc<dyn TokenSource>)
}

/// The store of one sink, and a credential's entries there.
struct SinkSource {
    redacted_name: String,
    backend: Arc<dyn SinkBackend>,
    entries: Arc<[SinkEntry]>,
}

impl SinkSource {
    async fn read(&self) -> Result<Vec<StoredBytes>, String> {
        let reading = async {
            let fault = match self.backend.read_with_times(&self.entries).await {
                // The sink may not have connected yet, or no longer.
                Err(fault) if fault.is_about_the_connection() => fault,
                read => return read,
            };
            self.backend.open().await.map_err(|again| if again == fault { fault } else { again })?;
            self.backend.read_with_times(&self.entries).await
        };
        let reason = match tokio::time::timeout(WAIT, reading).await {
            Ok(Ok(Some(stored))) => return Ok(stored),
            Ok(Ok(None)) => "it cannot be read".to_owned(),
            Ok(Err(fault)) => fault.to_string(),
            Err(_) => "it does not answer".to_owned(),
        };
        Err(format!("{}: {reason}", self.redacted_name))
    }
}

struct SinkSources(Vec<SinkSource>);

impl TokenSource for SinkSources {
    fn place(&self) -> String {
        let places: Vec<String> = self.0.iter().map(|source| format!("the sink {}", source.redacted_name)).collect();
        places.join(", ")
    }

    /// What the stores have that can be read; an error only if none can.
    fn read(&self) -> BoxFuture<'_, Result<Vec<StoredBytes>, String>> {
        async {
            let (mut stored, mut reasons) = (Vec::new(), Vec::new());
            for read in join_all(self.0.iter().map(SinkSource::read)).await {
                match read {
                    Ok(found) => stored.extend(found),
                    Err(reason) => reasons.push(reason),
                }
            }
            if stored.is_empty() && !reasons.is_empty() {
                return Err(reasons.join("; "));
            }
            Ok(stored)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::super::backend::{Contents, CredentialWrite, Retraction};
    use super::*;
    use crate::store_fault::{StoreFault, StoreFaultScope};

    /// What it answers.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum FakeBackend {
        Answers(&'static str),
        Unreadable,
        Refuses,
        Hangs,
    }

    impl SinkBackend for FakeBackend {
        fn open(&self) -> BoxFuture<'_, Result<(), StoreFault>> {
            std::future::ready(Ok(())).boxed()
        }

        fn write<'a>(&'a self, _: &'a CredentialWrite) -> BoxFuture<'a, Result<Contents, StoreFault>> {
            unreachable!("nothing is written")
        }

        fn read<'a>(&'a self, _: &'a [SinkEntry]) -> BoxFuture<'a, Result<Option<Contents>, StoreFault>> {
            async move {
                match *self {
                    FakeBackend::Answers(text) => Ok(Some(vec![Some(text.as_bytes().to_vec()), None])),
                    FakeBackend::Unreadable => Ok(None),
                    FakeBackend::Refuses => {
                        let (what, advice) = ("it is down".into(), "wait".into());
                        Err(StoreFault { class: "unreachable", what, advice, scope: StoreFaultScope::Backend })
                    }
                    FakeBackend::Hangs => std::future::pending().await,
                }
            }
            .boxed()
        }

        fn retract<'a>(&'a self, _: &'a Retraction) -> BoxFuture<'a, Result<u64, StoreFault>> {
            unreachable!("nothing is taken back")
        }
    }

    async fn read(backends: &[FakeBackend]) -> Result<Vec<String>, String> {
        let origin = |(at, backend): (usize, &FakeBackend)| SinkSource {
            redacted_name: format!("sink {at}"),
            backend: Arc::new(*backend),
            entries: Arc::new([]),
        };
        let origins = SinkSources(backends.iter().enumerate().map(origin).collect());
        let stored = origins.read().await?;
        Ok(stored.into_iter().map(|stored| String::from_utf8(stored.bytes).unwrap()).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_sink_has_is_found_whatever_becomes_of_the_others() {
        let all = [
            FakeBackend::Hangs,
            FakeBackend::Refuses,
            FakeBackend::Unreadable,
            FakeBackend::Answers("a token"),
            FakeBackend::Hangs,
        ];
        assert_eq!(read(&all).await, Ok(vec!["a token".to_owned()]));
    }

    #[tokio::test(start_paused = true)]
    async fn several_that_hang_cost_no_more_time_than_one() {
        let begun = tokio::time::Instant::now();
        let said = read(&[FakeBackend::Hangs, FakeBackend::Hangs, FakeBackend::Refuses]).await.unwrap_err();
        assert_eq!(said, "sink 0: it does not answer; sink 1: it does not answer; sink 2: it is down");
        assert_eq!(begun.elapsed(), WAIT);
    }
}
