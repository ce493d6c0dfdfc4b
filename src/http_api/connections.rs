//! The open connections, and which one is closed when there are too many.
//!
//! A connection that has sent no whole request may be closed when another one needs its slot. A connection whose request
//! is being answered is never closed. When all slots are busy, a small reserve is left for health checks and short
//! calls, so that a busy server does not look dead.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::options::{Options, RESERVED_CONNECTIONS as RESERVED};
use crate::address_group::address_group;
use crate::clock::{self, BootMs, LogThrottle};

/// The part of the reserve that other short calls than health checks may use.
const RESERVED_FOR_SHORT_CALLS: usize = RESERVED / 2;
/// A connection this young may have sent nothing yet through no fault of its own.
const YOUNG_MS: u64 = 100;
const LOG_SPACING_MS: u64 = 60_000;

pub struct HttpConnections {
    options: Arc<Options>,
    open: Mutex<OpenConnections>,
    pub current: AtomicU64,
    pub total: AtomicU64,
    /// Refused because all slots were busy.
    pub rejected: AtomicU64,
    /// Closed before they had sent a request, because another connection needed the slot.
    pub evicted: AtomicU64,
    /// For short calls other than health checks that are answered in the reserve.
    short_calls: Arc<Semaphore>,
    too_many_logged: LogThrottle,
    pub accept_failure_logged: LogThrottle,
}

#[derive(Default)]
struct OpenConnections {
    last_id: u64,
    by_id: HashMap<u64, Arc<HttpConnection>>,
    /// How many are in the reserve.
    reserved: usize,
    /// How many outside the reserve each address group has. Counted, because each accept asks.
    by_peer: HashMap<IpAddr, usize>,
}

pub struct HttpConnection {
    /// The address group that it comes from.
    peer: IpAddr,
    is_proxy: bool,
    /// It has a slot of the reserve, beyond `max_connections`.
    is_reserved: AtomicBool,
    /// When it began to wait for a request; 0 while a request is being answered.
    waiting_since_ms: AtomicU64,
    has_asked: AtomicBool,
    /// The peer has not yet read all of an answer.
    pub is_writing: AtomicBool,
    /// Fires when the connection must be closed.
    pub evicted: CancellationToken,
}

impl HttpConnection {
    pub fn is_reserved(&self) -> bool {
        self.is_reserved.load(Relaxed)
    }

    /// Whether it may be closed to make room for another one.
    fn is_waiting(&self) -> bool {
        self.waiting_since_ms.load(Relaxed) != 0 && !self.is_writing.load(Relaxed)
    }

    /// Connections without a request so far are closed first, then those that have been silent longest.
    fn rank(&self) -> (bool, u64) {
        (self.has_asked.load(Relaxed), self.waiting_since_ms.load(Relaxed))
    }
}

impl OpenConnections {
    fn insert(&mut self, connection: Arc<HttpConnection>) -> u64 {
        self.last_id += 1;
        if connection.is_reserved() {
            self.reserved += 1;
        } else {
            *self.by_peer.entry(connection.peer).or_default() += 1;
        }
        self.by_id.insert(self.last_id, connection);
        self.last_id
    }

    fn remove(&mut self, id: u64) -> Option<Arc<HttpConnection>> {
        let connection = self.by_id.remove(&id)?;
        if connection.is_reserved() {
            self.reserved -= 1;
        } else if let Entry::Occupied(mut number) = self.by_peer.entry(connection.peer) {
            *number.get_mut() -= 1;
            if *number.get() == 0 {
                number.remove();
            }
        }
        Some(connection)
    }

    /// Closes the first one of these that are waiting; false if none is.
    fn evict(&mut self, of: impl Fn(&HttpConnection) -> bool) -> bool {
        let waiting = self.by_id.iter().filter(|(_, connection)| connection.is_waiting() && of(connection));
        let first = waiting.min_by_key(|(_, connection)| connection.rank()).map(|(id, _)| *id);
        let Some(connection) = first.and_then(|id| self.remove(id)) else { return false };
        connection.evicted.cancel();
        true
    }

    /// Closes one of these outside the reserve; one from this address group, if there is one named.
    fn make_room(&mut self, peer: Option<IpAddr>, of: impl Fn(&HttpConnection) -> bool) -> bool {
        self.evict(|other| !other.is_reserved() && peer.is_none_or(|peer| other.peer == peer) && of(other))
    }
}

impl HttpConnections {
    pub fn new(options: Arc<Options>) -> HttpConnections {
        HttpConnections {
            options,
            open: Mutex::default(),
            current: AtomicU64::new(0),
            total: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            short_calls: Arc::new(Semaphore::new(RESERVED_FOR_SHORT_CALLS)),
            too_many_logged: LogThrottle::default(),
            accept_failure_logged: LogThrottle::default(),
        }
    }

    /// A slot for a new connection, if need be that of another one; `None` if all of them are busy.
    pub fn acquire(self: &Arc<HttpConnections>, peer: IpAddr, now_ms: BootMs) -> Option<ConnectionSlot> {
        let network = address_group(peer);
        let mut open = self.open.lock();
        let is_proxy = self.options.is_trusted(peer);
        let (is_full, peer_is_full) = self.is_full(&open, network, is_proxy);
        let is_reserved = is_full && {
            self.log_too_many(peer, peer_is_full, now_ms);
            let peer_only = peer_is_full.then_some(network);
            let is_old = |of: &HttpConnection| of.waiting_since_ms.load(Relaxed).saturating_add(YOUNG_MS) <= now_ms;
            let no_reserve = open.reserved >= RESERVED;
            let has_place = open.make_room(peer_only, is_old) || (no_reserve && open.make_room(peer_only, |_| true));
            let has_reserved = !has_place && no_reserve && open.evict(HttpConnection::is_reserved);
            if has_place || has_reserved {
                self.evicted.fetch_add(1, Relaxed);
            } else if no_reserve {
                self.rejected.fetch_add(1, Relaxed);
                return None;
            }
            !has_place
        };
        let connection = Arc::new(HttpConnection {
            peer: network,
            is_proxy,
            is_reserved: AtomicBool::new(is_reserved),
            waiting_since_ms: AtomicU64::new(now_ms.max(1)),
            has_asked: AtomicBool::new(false),
            is_writing: AtomicBool::new(false),
            evicted: CancellationToken::new(),
        });
        let id = open.insert(connection.clone());
        self.total.fetch_add(1, Relaxed);
        self.current.store(open.by_id.len() as u64, Relaxed);
        Some(ConnectionSlot { connections: self.clone(), connection, id })
    }

    /// Whether there is no free slot for a connection from this address group, and whether that is because the group has
    /// as many connections as it may have.
    fn is_full(&self, open: &OpenConnections, network: IpAddr, is_proxy: bool) -> (bool, bool) {
        let of_peer = open.by_peer.get(&network).copied().unwrap_or(0);
        // A proxy stands for many clients.
        let peer_is_full = !is_proxy && of_peer >= self.options.max_connections_per_peer;
        (peer_is_full || open.by_id.len() - open.reserved >= self.options.max_connections, peer_is_full)
    }

    /// Moves a connection that has sent a whole request out of the reserve, if need be into the slot of one that has
    /// not. False if all of them are busy.
    fn leave_reserve(&self, connection: &HttpConnection, id: u64) -> bool {
        let mut open = self.open.lock();
        if !open.by_id.contains_key(&id) {
            return false;
        }
        let (is_full, peer_is_full) = self.is_full(&open, connection.peer, connection.is_proxy);
        if is_full {
            if !open.make_room(peer_is_full.then_some(connection.peer), |_| true) {
                return false;
            }
            self.evicted.fetch_add(1, Relaxed);
        }
        connection.is_reserved.store(false, Relaxed);
        open.reserved -= 1;
        *open.by_peer.entry(connection.peer).or_default() += 1;
        true
    }

    fn log_too_many(&self, peer: IpAddr, peer_is_full: bool, now_ms: BootMs) {
        if !self.too_many_logged.allow(now_ms, LOG_SPACING_MS) {
            return;
        }
        let what = "connections that have sent no whole request are closed to make room";
        if peer_is_full {
            let max_connections_per_peer = self.options.max_connections_per_peer;
            tracing::warn!(%peer, max_connections_per_peer, "too many HTTP connections from one address: {what}");
        } else {
            tracing::warn!(%peer, max_connections = self.options.max_connections, "too many HTTP connections: {what}");
        }
    }
}

/// The slot of a connection; it is free again when this is dropped.
pub struct ConnectionSlot {
    connections: Arc<HttpConnections>,
    pub connection: Arc<HttpConnection>,
    id: u64,
}

impl ConnectionSlot {
    /// Marks the connection as busy; `None` if its slot is kept for other requests.
    pub fn begin_answer(&self, cost: RequestCost) -> Option<AnswerGuard> {
        let stays_in_reserve = self.connection.is_reserved()
            && cost != RequestCost::Health
            && !self.connections.leave_reserve(&self.connection, self.id);
        let permit = match cost {
            _ if !stays_in_reserve => None,
            RequestCost::Short => Some(self.connections.short_calls.clone().try_acquire_owned().ok()?),
            _ => return None,
        };
        self.connection.waiting_since_ms.store(0, Relaxed);
        self.connection.has_asked.store(true, Relaxed);
        Some(AnswerGuard { connection: self.connection.clone(), _permit: permit })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        open.remove(self.id);
        self.connections.current.store(open.by_id.len() as u64, Relaxed);
    }
}

/// How long a request may keep its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestCost {
    Health,
    /// It is usually answered at once.
    Short,
    Other,
}

/// While this lives, the connection counts as busy.
pub struct AnswerGuard {
    connection: Arc<HttpConnection>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for AnswerGuard {
    fn drop(&mut self) {
        self.connection.waiting_since_ms.store(clock::boot_ms().max(1), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(max: usize, max_per_peer: usize) -> Arc<HttpConnections> {
        let options = Options { max_connections: max, max_connections_per_peer: max_per_peer, ..Options::at(vec![]) };
        Arc::new(HttpConnections::new(Arc::new(options)))
    }

    fn from(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    fn is_evicted(slot: &ConnectionSlot) -> bool {
        slot.connection.evicted.is_cancelled()
    }

    #[test]
    fn whoever_has_sent_nothing_for_longest_goes_first_and_whoever_is_answered_never() {
        let connections = connections(3, 3);
        let slots: Vec<ConnectionSlot> =
            (0..3).map(|n| connections.acquire(from(n), 1_000 + u64::from(n)).unwrap()).collect();
        let _answering = slots[0].begin_answer(RequestCost::Other).unwrap();
        let one = connections.acquire(from(9), 2_000).unwrap();
        assert!(!one.connection.is_reserved());
        assert_eq!(slots.iter().map(is_evicted).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(connections.current.load(Relaxed), 3);
        drop(slots);
        assert_eq!(connections.current.load(Relaxed), 1);
    }

    #[test]
    fn an_address_takes_places_from_itself_only() {
        let connections = connections(100, 2);
        let other = connections.acquire(from(1), 0).unwrap();
        let mut own: Vec<ConnectionSlot> = (0..50).map(|n| connections.acquire(from(2), 1_000 * n).unwrap()).collect();
        assert!(!is_evicted(&other));
        assert_eq!(own.iter().filter(|slot| !is_evicted(slot)).count(), 2);
        assert_eq!(own.drain(..).filter(is_evicted).count(), 48);
    }

    #[test]
    fn a_trusted_proxy_may_have_the_connections_of_many_clients() {
        let proxies = vec!["10.0.0.0/8".parse().unwrap()];
        let options = Options { trusted_proxies: proxies, max_connections_per_peer: 2, ..Options::at(vec![]) };
        let connections = Arc::new(HttpConnections::new(Arc::new(options)));
        let take = |peer: &str| connections.acquire(peer.parse().unwrap(), 1_000).unwrap();
        let reserved = |peer| (0..3).map(|_| take(peer)).map(|slot| (slot.connection.is_reserved(), slot)).collect();
        let (proxy, client): (Vec<_>, Vec<_>) = (reserved("10.0.0.9"), reserved("11.0.0.9"));
        assert_eq!(proxy.iter().filter(|(is_reserved, _)| *is_reserved).count(), 0);
        assert_eq!(client.iter().filter(|(is_reserved, _)| *is_reserved).count(), 1);
    }

    #[test]
    fn a_burst_of_young_connections_uses_the_reserve_before_anybody_goes() {
        let connections = connections(4, 4);
        let burst: Vec<ConnectionSlot> =
            (0..4 + RESERVED).map(|_| connections.acquire(from(1), 1_000).unwrap()).collect();
        assert!(!burst.iter().any(is_evicted));
        assert_eq!(burst.iter().filter(|slot| slot.connection.is_reserved()).count(), RESERVED);
        assert!(connections.acquire(from(1), 1_000).is_some(), "and then the first of them goes");
        assert_eq!(burst.iter().filter(|slot| is_evicted(slot)).count(), 1);
    }

    #[test]
    fn a_whole_request_gets_the_place_of_a_half_sent_one_however_young() {
        let connections = connections(4, 4);
        let half: Vec<ConnectionSlot> = (0..4).map(|_| connections.acquire(from(1), 1_000).unwrap()).collect();
        let whole = connections.acquire(from(1), 1_000).unwrap();
        assert!(whole.connection.is_reserved() && !half.iter().any(is_evicted));
        let _answering = whole.begin_answer(RequestCost::Other).unwrap();
        assert!(!whole.connection.is_reserved());
        assert_eq!(half.iter().filter(|slot| is_evicted(slot)).count(), 1);
        drop(half);
        drop((_answering, whole));
        assert!(connections.open.lock().by_id.is_empty());
    }

    #[test]
    fn when_all_are_being_answered_health_still_finds_a_place() {
        let connections = connections(2, 2);
        let busy = |cost| {
            let slot = connections.acquire(from(1), 1_000)?;
            slot.begin_answer(cost).map(|answering| (slot, answering))
        };
        let _long: Vec<_> = (0..2).map(|_| busy(RequestCost::Other).unwrap()).collect();
        assert!(busy(RequestCost::Other).is_none(), "the reserve is not for long ones");
        let mut short: Vec<_> = (0..RESERVED_FOR_SHORT_CALLS).map(|_| busy(RequestCost::Short).unwrap()).collect();
        assert!(busy(RequestCost::Short).is_none(), "nor only for short ones");
        assert!(busy(RequestCost::Health).is_some());
        short.pop();
        assert!(busy(RequestCost::Short).is_some());
    }

    #[test]
    fn two_thousand_half_sent_requests_leave_health_its_place() {
        let connections = connections(256, 64);
        for crowd in [1, 2_000] {
            let half: Vec<ConnectionSlot> =
                (0..2_000).map(|n| connections.acquire(from(n % crowd), 1_000).unwrap()).collect();
            for now_ms in [1_000, 2_000] {
                let slot = connections.acquire(from(0), now_ms).unwrap();
                assert!(slot.begin_answer(RequestCost::Health).is_some());
            }
            assert!(connections.current.load(Relaxed) as usize <= 256 + RESERVED);
            drop(half);
        }
        assert_eq!(connections.current.load(Relaxed), 0);
        assert!(connections.open.lock().by_id.is_empty());
    }
}
