//! Which connections there are, and which one goes when there are too many.
//!
//! A connection that has sent no whole request holds its place only while nobody else needs it. One that is being
//! answered is never cut off. When all places are taken by such, a few more are there for health and for short calls, so
//! that a server which is busy does not look dead.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::options::{Options, RESERVED_CONNECTIONS as RESERVED};
use crate::address_group::address_group;
use crate::clock::{self, BootMs, Spacing};
use crate::network::Network;

/// Of those, as many as requests for something else than health may have.
const RESERVED_FOR_SHORT_CALLS: usize = RESERVED / 2;
/// A connection may be this young and have sent nothing for no fault of its own.
const YOUNG_MS: u64 = 100;
const LOG_SPACING_MS: u64 = 60_000;

/// All connections of the port.
pub struct Connections {
    max: usize,
    max_per_peer: usize,
    /// Proxies stand for many clients, so no more than all connections are too many from one.
    proxies: Vec<Network>,
    open: Mutex<Open>,
    pub current: AtomicU64,
    pub total: AtomicU64,
    /// Refused, because all places were taken by such as were being answered.
    pub rejected: AtomicU64,
    /// Closed before they had sent a request, because somebody else needed the place.
    pub evicted: AtomicU64,
    short_calls: AtomicUsize,
    crowd_logged: Spacing,
    pub accept_failure_logged: Spacing,
}

#[derive(Default)]
struct Open {
    last_id: u64,
    by_id: HashMap<u64, Arc<Connection>>,
    by_peer: HashMap<IpAddr, usize>,
    reserved: usize,
}

/// One connection, as the others see it.
pub struct Connection {
    /// The network it comes from.
    peer: IpAddr,
    /// It is a trusted proxy's, which may have those of many clients.
    is_proxy: bool,
    /// In a place besides `max_connections`.
    is_reserved: AtomicBool,
    /// Since when a request is waited for; 0 while one is being answered.
    waiting_since_ms: AtomicU64,
    has_asked: AtomicBool,
    /// An answer is not yet taken by the other side.
    pub is_writing: AtomicBool,
    /// Fires when it must go.
    pub evicted: CancellationToken,
}

impl Connection {
    pub fn is_reserved(&self) -> bool {
        self.is_reserved.load(Relaxed)
    }

    /// Whether it may be closed in favour of another.
    fn is_waiting(&self) -> bool {
        self.waiting_since_ms.load(Relaxed) != 0 && !self.is_writing.load(Relaxed)
    }

    /// Those that have never asked anything go first, then those that have been silent longest.
    fn rank(&self) -> (bool, u64) {
        (self.has_asked.load(Relaxed), self.waiting_since_ms.load(Relaxed))
    }
}

impl Open {
    fn insert(&mut self, connection: Arc<Connection>) -> u64 {
        self.last_id += 1;
        if connection.is_reserved() {
            self.reserved += 1;
        } else {
            *self.by_peer.entry(connection.peer).or_default() += 1;
        }
        self.by_id.insert(self.last_id, connection);
        self.last_id
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Connection>> {
        let connection = self.by_id.remove(&id)?;
        if connection.is_reserved() {
            self.reserved -= 1;
        } else if let Some(number) = self.by_peer.get_mut(&connection.peer) {
            *number -= 1;
            if *number == 0 {
                self.by_peer.remove(&connection.peer);
            }
        }
        Some(connection)
    }

    /// Closes the waiting connection of these that goes first; false if there is none.
    fn evict(&mut self, of: impl Fn(&Connection) -> bool) -> bool {
        let waiting = self.by_id.iter().filter(|(_, connection)| connection.is_waiting() && of(connection));
        let first = waiting.min_by_key(|(_, connection)| connection.rank()).map(|(id, _)| *id);
        let Some(connection) = first.and_then(|id| self.remove(id)) else { return false };
        connection.evicted.cancel();
        true
    }
}

impl Connections {
    pub fn new(side: &Options) -> Connections {
        Connections {
            max: side.max_connections,
            max_per_peer: side.max_connections_per_peer,
            proxies: side.trusted_proxies.clone(),
            open: Mutex::default(),
            current: AtomicU64::new(0),
            total: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            short_calls: AtomicUsize::new(0),
            crowd_logged: Spacing::default(),
            accept_failure_logged: Spacing::default(),
        }
    }

    /// A place for a new connection, if need be that of another; `None` if all others are being answered.
    pub fn take(self: &Arc<Connections>, peer: IpAddr, now_ms: BootMs) -> Option<Place> {
        let network = address_group(peer);
        let mut open = self.open.lock();
        let is_proxy = self.proxies.iter().any(|proxy| proxy.contains(peer));
        let (is_full, peer_is_full) = self.is_full(&open, network, is_proxy);
        let is_reserved = is_full && {
            self.log_crowd(peer, peer_is_full, now_ms);
            let in_the_way = |of: &Connection| !of.is_reserved() && (!peer_is_full || of.peer == network);
            let is_old = |of: &Connection| of.waiting_since_ms.load(Relaxed).saturating_add(YOUNG_MS) <= now_ms;
            let no_reserve = open.reserved >= RESERVED;
            let has_place = open.evict(|of| in_the_way(of) && is_old(of)) || (no_reserve && open.evict(in_the_way));
            let has_reserved = !has_place && no_reserve && open.evict(|of| of.is_reserved());
            if has_place || has_reserved {
                self.evicted.fetch_add(1, Relaxed);
            } else if no_reserve {
                self.rejected.fetch_add(1, Relaxed);
                return None;
            }
            !has_place
        };
        let connection = Arc::new(Connection {
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
        Some(Place { connections: self.clone(), connection, id })
    }

    /// Whether a connection of that network has no place without taking another's, and whether that is because the network
    /// has as many as one may.
    fn is_full(&self, open: &Open, network: IpAddr, is_proxy: bool) -> (bool, bool) {
        let of_peer = open.by_peer.get(&network).copied().unwrap_or(0);
        let peer_is_full = !is_proxy && of_peer >= self.max_per_peer;
        (peer_is_full || open.by_id.len() - open.reserved >= self.max, peer_is_full)
    }

    /// Moves a connection that has sent a whole request out of the reserve, if need be into the place of one that has
    /// not, however young that is. False if all others are being answered.
    fn leave_reserve(&self, connection: &Connection, id: u64) -> bool {
        let mut open = self.open.lock();
        if !open.by_id.contains_key(&id) {
            return false;
        }
        let (is_full, peer_is_full) = self.is_full(&open, connection.peer, connection.is_proxy);
        if is_full {
            let in_the_way = |of: &Connection| !of.is_reserved() && (!peer_is_full || of.peer == connection.peer);
            if !open.evict(in_the_way) {
                return false;
            }
            self.evicted.fetch_add(1, Relaxed);
        }
        connection.is_reserved.store(false, Relaxed);
        open.reserved -= 1;
        *open.by_peer.entry(connection.peer).or_default() += 1;
        true
    }

    fn log_crowd(&self, peer: IpAddr, peer_is_full: bool, now_ms: BootMs) {
        if !self.crowd_logged.due(now_ms, LOG_SPACING_MS) {
            return;
        }
        let what = "connections that have sent no whole request are closed to make room";
        if peer_is_full {
            let max_connections_per_peer = self.max_per_peer;
            tracing::warn!(%peer, max_connections_per_peer, "too many HTTP connections from one address: {what}");
        } else {
            tracing::warn!(%peer, max_connections = self.max, "too many HTTP connections: {what}");
        }
    }
}

/// A connection's place; given back when dropped.
pub struct Place {
    connections: Arc<Connections>,
    pub connection: Arc<Connection>,
    id: u64,
}

impl Place {
    /// Marks the connection as being answered; `None` if it may not be, because the place is kept for others.
    pub fn begin_answer(&self, cost: Cost) -> Option<Answering> {
        let is_counted = self.connection.is_reserved()
            && cost != Cost::Health
            && !self.connections.leave_reserve(&self.connection, self.id);
        if is_counted {
            let one_more = |number| (cost == Cost::Short && number < RESERVED_FOR_SHORT_CALLS).then_some(number + 1);
            self.connections.short_calls.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        }
        self.connection.waiting_since_ms.store(0, Relaxed);
        self.connection.has_asked.store(true, Relaxed);
        Some(Answering { connections: self.connections.clone(), connection: self.connection.clone(), is_counted })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        open.remove(self.id);
        self.connections.current.store(open.by_id.len() as u64, Relaxed);
    }
}

/// What a request costs the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    Health,
    /// Answered at once as a rule.
    Short,
    Other,
}

/// While it lives, the connection is being answered.
pub struct Answering {
    connections: Arc<Connections>,
    connection: Arc<Connection>,
    is_counted: bool,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.connection.waiting_since_ms.store(clock::boot_ms().max(1), Relaxed);
        if self.is_counted {
            self.connections.short_calls.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(max: usize, max_per_peer: usize) -> Arc<Connections> {
        let side = Options { max_connections: max, max_connections_per_peer: max_per_peer, ..Options::at(vec![]) };
        Arc::new(Connections::new(&side))
    }

    fn from(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    fn is_evicted(place: &Place) -> bool {
        place.connection.evicted.is_cancelled()
    }

    #[test]
    fn whoever_has_sent_nothing_for_longest_goes_first_and_whoever_is_answered_never() {
        let connections = connections(3, 3);
        let places: Vec<Place> = (0..3).map(|n| connections.take(from(n), 1_000 + u64::from(n)).unwrap()).collect();
        let _answering = places[0].begin_answer(Cost::Other).unwrap();
        let one = connections.take(from(9), 2_000).unwrap();
        assert!(!one.connection.is_reserved());
        assert_eq!(places.iter().map(is_evicted).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(connections.current.load(Relaxed), 3);
        drop(places);
        assert_eq!(connections.current.load(Relaxed), 1);
    }

    #[test]
    fn an_address_takes_places_from_itself_only() {
        let connections = connections(100, 2);
        let other = connections.take(from(1), 0).unwrap();
        let mut own: Vec<Place> = (0..50).map(|n| connections.take(from(2), 1_000 * n).unwrap()).collect();
        assert!(!is_evicted(&other));
        assert_eq!(own.iter().filter(|place| !is_evicted(place)).count(), 2);
        assert_eq!(own.drain(..).filter(is_evicted).count(), 48);
    }

    #[test]
    fn a_trusted_proxy_may_have_the_connections_of_many_clients() {
        let proxies = vec!["10.0.0.0/8".parse().unwrap()];
        let side = Options { trusted_proxies: proxies, max_connections_per_peer: 2, ..Options::at(vec![]) };
        let connections = Arc::new(Connections::new(&side));
        let take = |peer: &str| connections.take(peer.parse().unwrap(), 1_000).unwrap();
        let reserved = |peer| (0..3).map(|_| take(peer)).map(|place| (place.connection.is_reserved(), place)).collect();
        let (proxy, client): (Vec<_>, Vec<_>) = (reserved("10.0.0.9"), reserved("11.0.0.9"));
        assert_eq!(proxy.iter().filter(|(is_reserved, _)| *is_reserved).count(), 0);
        assert_eq!(client.iter().filter(|(is_reserved, _)| *is_reserved).count(), 1);
    }

    #[test]
    fn a_burst_of_young_connections_uses_the_reserve_before_anybody_goes() {
        let connections = connections(4, 4);
        let burst: Vec<Place> = (0..4 + RESERVED).map(|_| connections.take(from(1), 1_000).unwrap()).collect();
        assert!(!burst.iter().any(is_evicted));
        assert_eq!(burst.iter().filter(|place| place.connection.is_reserved()).count(), RESERVED);
        assert!(connections.take(from(1), 1_000).is_some(), "and then the first of them goes");
        assert_eq!(burst.iter().filter(|place| is_evicted(place)).count(), 1);
    }

    #[test]
    fn a_whole_request_gets_the_place_of_a_half_sent_one_however_young() {
        let connections = connections(4, 4);
        let half: Vec<Place> = (0..4).map(|_| connections.take(from(1), 1_000).unwrap()).collect();
        let whole = connections.take(from(1), 1_000).unwrap();
        assert!(whole.connection.is_reserved() && !half.iter().any(is_evicted));
        let _answering = whole.begin_answer(Cost::Other).unwrap();
        assert!(!whole.connection.is_reserved());
        assert_eq!(half.iter().filter(|place| is_evicted(place)).count(), 1);
        drop(half);
        drop((_answering, whole));
        let open = connections.open.lock();
        assert!(open.by_peer.is_empty() && open.by_id.is_empty() && open.reserved == 0);
    }

    #[test]
    fn when_all_are_being_answered_health_still_finds_a_place() {
        let connections = connections(2, 2);
        let busy = |kind| {
            let place = connections.take(from(1), 1_000)?;
            place.begin_answer(kind).map(|answering| (place, answering))
        };
        let _long: Vec<_> = (0..2).map(|_| busy(Cost::Other).unwrap()).collect();
        assert!(busy(Cost::Other).is_none(), "the reserve is not for long ones");
        let mut short: Vec<_> = (0..RESERVED_FOR_SHORT_CALLS).map(|_| busy(Cost::Short).unwrap()).collect();
        assert!(busy(Cost::Short).is_none(), "nor only for short ones");
        assert!(busy(Cost::Health).is_some());
        short.pop();
        assert!(busy(Cost::Short).is_some());
    }

    #[test]
    fn two_thousand_half_sent_requests_leave_health_its_place() {
        let connections = connections(256, 64);
        for crowd in [1, 2_000] {
            let half: Vec<Place> = (0..2_000).map(|n| connections.take(from(n % crowd), 1_000).unwrap()).collect();
            for now_ms in [1_000, 2_000] {
                let place = connections.take(from(0), now_ms).unwrap();
                assert!(place.begin_answer(Cost::Health).is_some());
            }
            assert!(connections.current.load(Relaxed) as usize <= 256 + RESERVED);
            drop(half);
        }
        assert_eq!(connections.current.load(Relaxed), 0);
        assert!(connections.open.lock().by_peer.is_empty());
    }
}
