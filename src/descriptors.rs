//! File descriptors: how many are needed, who gets them when there are too few, and which errors mean that none is left.
//!
//! Clients get what renewal, state and the ports themselves leave. Changes no limit.

use std::error::Error;
use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

/// What an operator can do when there are too few.
pub const REMEDY: &str = "raise LimitNOFILE= in the unit or ulimit -n, or lower -c";

/// How many descriptors are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorNeeds {
    /// Clients of the memcached port at once.
    pub clients: usize,
    /// The same of the HTTP port.
    pub http: usize,
    /// What the server itself needs.
    pub own: usize,
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    pub clients: usize,
    pub http: usize,
}

impl DescriptorNeeds {
    /// All of them together.
    pub fn total(&self) -> usize {
        self.clients.saturating_add(self.http).saturating_add(self.own)
    }

    /// How many connections fit below a limit beside what the server itself needs. At most a quarter of them is kept for
    /// the HTTP port; one of each kind there is always.
    pub fn limits_within(&self, limit: u64) -> ConnectionLimits {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let left = limit.saturating_sub(self.own);
        if self.clients.saturating_add(self.http) <= left {
            return ConnectionLimits { clients: self.clients, http: self.http };
        }
        let http = self.http.min((left / 4).max(1));
        let clients = self.clients.min(left.saturating_sub(http).max(1));
        ConnectionLimits { clients, http: self.http.min(left.saturating_sub(clients).max(http)) }
    }
}

/// Whether something failed because the process, or the whole system, has no file descriptor left. That passes. Also looks
/// into wrapped errors.
pub fn is_exhausted(error: &io::Error) -> bool {
    let itself = [Errno::MFILE, Errno::NFILE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
    itself || error.get_ref().is_some_and(|inner| is_caused_by_exhaustion(inner))
}

/// The same of any error.
pub fn is_caused_by_exhaustion(error: &(dyn Error + 'static)) -> bool {
    let shared = error.downcast_ref::<Arc<io::Error>>().map(AsRef::as_ref);
    match error.downcast_ref::<io::Error>().or(shared) {
        Some(io) => is_exhausted(io),
        None => error.source().is_some_and(is_caused_by_exhaustion),
    }
}

/// What to do about a failed accept. `when_exhausted` is what helps where descriptors are short.
pub fn accept_advice(error: &io::Error, when_exhausted: &'static str) -> &'static str {
    if is_exhausted(error) { when_exhausted } else { "it is tried again" }
}

/// Whether an accept failed because the peer went away before it, or was only interrupted.
pub fn is_peer_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Whether a listening socket will never accept anything any more.
pub fn is_dead_listener(error: &io::Error) -> bool {
    [Errno::BADF, Errno::INVAL, Errno::NOTSOCK, Errno::OPNOTSUPP]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Whether there is none left at this instant, for errors that do not say: the system's look-up of a name is such a one.
pub fn are_exhausted() -> bool {
    File::open("/dev/null").is_err_and(|error| is_exhausted(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(clients: usize, http: usize, limit: u64) -> (usize, usize) {
        let ConnectionLimits { clients, http } = DescriptorNeeds { clients, http, own: 100 }.limits_within(limit);
        (clients, http)
    }

    #[test]
    fn what_fits_is_as_asked_for() {
        assert_eq!(fit(1024, 256, 1380), (1024, 256));
        assert_eq!(fit(1024, 256, u64::MAX), (1024, 256));
        assert_eq!(fit(1024, 0, 1124), (1024, 0));
    }

    #[test]
    fn what_does_not_fit_leaves_the_server_its_own() {
        for limit in 102..1380 {
            let (clients, http) = fit(1024, 256, limit);
            assert!((clients + http) as u64 <= limit - 100, "{limit}: {clients} and {http}");
            assert!(clients >= 1 && http >= 1 && clients + http == limit as usize - 100, "{limit}: some are left over");
        }
        assert_eq!(fit(1024, 256, 500), (300, 100));
        assert_eq!(fit(1024, 8, 500), (392, 8));
        // The few clients of a small server do not take from the HTTP port what they do not need.
        assert_eq!(fit(10, 1024, 500), (10, 390));
        assert_eq!(fit(1024, 0, 500), (400, 0));
    }

    #[test]
    fn below_what_the_server_needs_one_of_each_is_tried() {
        assert_eq!((fit(1024, 256, 50), fit(1024, 0, 50)), ((1, 1), (1, 0)));
    }

    #[test]
    fn both_wants_of_descriptors_are_told_from_other_errors() {
        let exhausted = |errno: Errno| is_exhausted(&io::Error::from_raw_os_error(errno.raw_os_error()));
        assert!(
            exhausted(Errno::MFILE)
                && exhausted(Errno::NFILE)
                && !exhausted(Errno::NOMEM)
                && !exhausted(Errno::CONNREFUSED)
        );
        for around in
            [io::Error::other(io::Error::from(Errno::MFILE)), io::Error::other(Arc::new(io::Error::from(Errno::MFILE)))]
        {
            assert!(is_exhausted(&around), "with words around it: {around}");
        }
        assert!(!are_exhausted());
    }
}
