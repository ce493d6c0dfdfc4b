//! Parts that must run for as long as the server does: one that ends before ends the server, with an error.
//!
//! A server without its refresher or a listener looks alive and serves stale tokens, or nobody. If it ends instead,
//! systemd or a container can start it again. Starts nothing and restarts nothing.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Knows which parts must not end yet.
#[derive(Clone, Debug)]
pub struct Supervisor {
    shutdown: CancellationToken,
    /// The first part that ended too early.
    failed: Arc<OnceLock<String>>,
}

impl Supervisor {
    /// Until `shutdown` fires, no part may end; when one does, it fires.
    pub fn new(shutdown: CancellationToken) -> Supervisor {
        Supervisor { shutdown, failed: Arc::default() }
    }

    /// The part holds the guard; it counts as alive until the guard is dropped, by a return, a panic or a cancelled task.
    pub fn watch(&self, part: impl Into<String>) -> AliveGuard {
        AliveGuard { part: part.into(), supervisor: self.clone() }
    }

    /// Fires when the server ends, for whatever reason.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// The part that has ended the server, if one has.
    pub fn failed_part(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }
}

/// Held by a part for as long as it runs.
#[derive(Debug)]
pub struct AliveGuard {
    part: String,
    supervisor: Supervisor,
}

impl AliveGuard {
    /// Holds it for as long as this work runs.
    pub async fn during(self, work: impl Future<Output = ()>) {
        let _alive = self;
        work.await;
    }
}

impl Drop for AliveGuard {
    fn drop(&mut self) {
        let Supervisor { shutdown, failed } = &self.supervisor;
        if shutdown.is_cancelled() {
            return;
        }
        let panicked = std::thread::panicking();
        tracing::error!(part = self.part, panicked, "a part of the server ended unexpectedly; shutting down");
        // Another one may have come first; the log has both.
        let _ = failed.set(std::mem::take(&mut self.part));
        shutdown.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor() -> Supervisor {
        Supervisor::new(CancellationToken::new())
    }

    #[test]
    fn a_part_that_ends_too_early_ends_the_server() {
        let supervisor = supervisor();
        let (first, second) = (supervisor.watch("first"), supervisor.watch("second"));
        drop(second);
        assert!(supervisor.shutdown().is_cancelled());
        assert_eq!(supervisor.failed_part(), Some("second"));
        drop(first);
        assert_eq!(supervisor.failed_part(), Some("second"), "it ended because the server does");
    }

    #[tokio::test]
    async fn so_does_a_task_or_a_thread_that_panics() {
        let one = supervisor();
        let alive = one.watch("a task");
        let task = tokio::spawn(async move {
            let _alive = alive;
            panic!("as a bug would");
        });
        assert!(task.await.is_err());
        assert_eq!(one.failed_part(), Some("a task"));
        let other = supervisor();
        let alive = other.watch("a thread");
        let thread = std::thread::spawn(move || {
            let _alive = alive;
            panic!("as a bug would");
        });
        assert!(thread.join().is_err());
        assert_eq!(other.failed_part(), Some("a thread"));
    }

    #[test]
    fn at_the_end_parts_may_end() {
        let supervisor = supervisor();
        let alive = supervisor.watch("a part");
        supervisor.shutdown().cancel();
        drop(alive);
        assert_eq!(supervisor.failed_part(), None);
    }
}
