//! Who is connected, for `stats conns`.
//!
//! Opening and closing a connection takes a lock; serving one is two plain stores a batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

/// What a connection is doing, in memcached's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ConnectionState {
    Listening,
    /// Waits for a request, or for the rest of its line.
    Read,
    Nread,
    /// Throws a data block away.
    Swallow,
    ParseCmd,
    Mwrite,
}

/// All, in order, with memcached's names for them.
const STATES: [(ConnectionState, &str); 6] = [
    (ConnectionState::Listening, "conn_listening"),
    (ConnectionState::Read, "conn_read"),
    (ConnectionState::Nread, "conn_nread"),
    (ConnectionState::Swallow, "conn_swallow"),
    (ConnectionState::ParseCmd, "conn_parse_cmd"),
    (ConnectionState::Mwrite, "conn_mwrite"),
];

#[derive(Debug)]
pub struct ConnectionInfo {
    /// `tcp:127.0.0.1:40000`, `unix:/run/a.sock`.
    pub addr: Box<str>,
    /// Where it came in; none for a listening socket itself.
    pub listen_addr: Option<Arc<str>>,
    state: AtomicU8,
    /// When it sent a command last.
    pub last_command_boot_ms: AtomicU64,
}

impl ConnectionInfo {
    pub fn new(addr: &str, listen_addr: Option<Arc<str>>, boot_ms: u64) -> ConnectionInfo {
        let state = if listen_addr.is_some() { ConnectionState::Read } else { ConnectionState::Listening };
        ConnectionInfo {
            addr: addr.into(),
            listen_addr,
            state: AtomicU8::new(state as u8),
            last_command_boot_ms: AtomicU64::new(boot_ms),
        }
    }

    pub fn set_state(&self, state: ConnectionState) {
        self.state.store(state as u8, Relaxed);
    }

    pub fn state_name(&self) -> &'static str {
        STATES.get(usize::from(self.state.load(Relaxed))).map_or("conn_read", |(_, name)| name)
    }
}

/// All of them, by file descriptor as memcached numbers them.
#[derive(Debug, Default)]
pub struct ConnectionTable(Mutex<BTreeMap<i32, Arc<ConnectionInfo>>>);

impl ConnectionTable {
    pub fn add(&self, descriptor: i32, info: ConnectionInfo) -> Arc<ConnectionInfo> {
        let info = Arc::new(info);
        self.0.lock().insert(descriptor, info.clone());
        info
    }

    /// To be called while the descriptor is still open: a number means one connection at a time.
    pub fn remove(&self, descriptor: i32) {
        self.0.lock().remove(&descriptor);
    }

    pub fn all(&self) -> Vec<(i32, Arc<ConnectionInfo>)> {
        self.0.lock().iter().map(|(descriptor, info)| (*descriptor, info.clone())).collect()
    }
}
