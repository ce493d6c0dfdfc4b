//! Looks up host names with the system's resolver, each at most once at a time.
//!
//! The system's look-up blocks a thread, for half a minute when no name server answers. Everybody who asks for the same
//! name meanwhile waits for that one thread, so that threads are not used up.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::watch;

/// No address was found for a name.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct LookUpFailed(Arc<io::Error>);

type LookUpResult = Result<Vec<SocketAddr>, LookUpFailed>;
/// Nothing until the look-up is over.
type PendingLookUp = watch::Receiver<Option<LookUpResult>>;
type LookUp = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

#[derive(Clone)]
pub struct NameResolver {
    under_way: Arc<Mutex<HashMap<String, PendingLookUp>>>,
    look_up: Arc<LookUp>,
}

impl NameResolver {
    /// Those of the system.
    pub fn of_system() -> NameResolver {
        NameResolver::by(|name| Ok((name, 0).to_socket_addrs()?.collect()))
    }

    fn by(look_up: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> NameResolver {
        NameResolver { under_way: Arc::default(), look_up: Arc::new(look_up) }
    }

    fn begin_or_join(&self, name: &str) -> PendingLookUp {
        let mut under_way = self.under_way.lock();
        // One without a sender has crashed.
        if let Some(pending) = under_way.get(name).filter(|pending| pending.has_changed().is_ok()) {
            return pending.clone();
        }
        let (sender, pending) = watch::channel(None);
        under_way.insert(name.to_owned(), pending.clone());
        let (names, name) = (self.clone(), name.to_owned());
        tokio::task::spawn_blocking(move || {
            let found = (names.look_up)(&name).map_err(|error| LookUpFailed(Arc::new(error)));
            names.under_way.lock().remove(&name);
            sender.send_replace(Some(found));
        });
        pending
    }

    async fn find(&self, name: &str) -> LookUpResult {
        let mut pending = self.begin_or_join(name);
        let found = pending.wait_for(Option::is_some).await;
        let crashed = || Err(LookUpFailed(Arc::new(io::Error::other("the look-up of the name crashed"))));
        found.ok().and_then(|found| found.clone()).unwrap_or_else(crashed)
    }
}

impl Resolve for NameResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        Box::pin(async move {
            let found = names.find(name.as_str()).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[tokio::test]
    async fn a_thousand_calls_that_wait_for_a_name_server_hold_one_thread_a_name() {
        let (answer, waiting) = std::sync::mpsc::channel::<()>();
        let waiting = Mutex::new(waiting);
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let names = NameResolver::by(move |name| {
            counted.fetch_add(1, SeqCst);
            if name == "silent" {
                waiting.lock().recv().map_err(io::Error::other)?;
            }
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0))])
        });
        let calls: Vec<PendingLookUp> = (0..1000).map(|_| names.begin_or_join("silent")).collect();
        assert!(names.find("other").await.is_ok(), "a name whose server answers is found meanwhile");
        answer.send(()).unwrap();
        for mut call in calls {
            assert!(call.wait_for(Option::is_some).await.unwrap().as_ref().unwrap().is_ok());
        }
        assert_eq!(asked.load(SeqCst), 2);
        drop(answer);
        assert!(names.find("silent").await.is_err(), "the next one asks again");
        assert_eq!(asked.load(SeqCst), 3);
    }

    #[tokio::test]
    async fn a_look_up_that_crashes_is_a_failure_and_the_next_one_is_made() {
        let asked = AtomicUsize::new(0);
        let names = NameResolver::by(move |_| {
            assert!(asked.fetch_add(1, SeqCst) > 0, "as a bug would");
            Ok(Vec::new())
        });
        assert!(names.find("name").await.is_err());
        assert!(names.find("name").await.is_ok());
    }
}
