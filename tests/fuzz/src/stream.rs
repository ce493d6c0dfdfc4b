//! Any bytes through real connections: the answers are the same whether they come at once or in pieces.
//!
//! A stream that begins like a binary packet has a connection of its own, others follow on what is asked beforehand.
//! Two servers that have seen the same get the same bytes, one at once, one in pieces. What tells the time is compared
//! only if both were asked in the same second.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokencached::access::Rights;
use tokencached::clock::{Now, boot_ms};
use tokencached::server::{Authenticator, Limits, ListenerPolicy, Server, SocketOwner, bind};
use tokencached::server::{ListenAt, Protocol};
use tokencached::supervision::Supervisor;
use tokio_util::sync::CancellationToken;

/// Far beyond anything a sound server needs.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Shows that no earlier stream has changed the managed key, undoes what it may have left, and tells the last cas id.
const FRESH: &str = "mg access_token:wx1 v\r\nflush_all\r\ncache_memlimit 64\r\nms probe 0 c\r\n\r\nmd probe q\r\n";

pub fn run(data: &[u8]) {
    let Some((stream, pieces)) = super::pieces(data) else { return };
    // Statistics tell of the process and of all connections so far; in the binary protocol they are the command 0x10.
    let binary = stream.first() == Some(&0x80);
    if stream.windows(4).any(|word| word == b"stat") || binary && stream.contains(&0x10) {
        return;
    }
    thread_local!(static PAIR: [ServerUnderTest; 2] = [ServerUnderTest::start(), ServerUnderTest::start()]);
    PAIR.with(|[one, other]| {
        let before = [one.second(), other.second(), Now::read().unix_s() as u64];
        let (whole_cas, whole) = one.ask(&[stream]);
        let (split_cas, split) = other.ask(&pieces);
        if before != [one.second(), other.second(), Now::read().unix_s() as u64] || whole_cas != split_cas {
            one.level(other);
            return;
        }
        assert_eq!(split.escape_ascii().to_string(), whole.escape_ascii().to_string(), "pieces: {pieces:?}");
    });
}

/// A server on threads of its own; ended when dropped.
struct ServerUnderTest {
    folder: tempfile::TempDir,
    started_boot_ms: u64,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl ServerUnderTest {
    fn start() -> ServerUnderTest {
        let folder = super::folder();
        let policy =
            ListenerPolicy { rights: Arc::new(Rights::ALL), login: false, tls: false, protocol: Protocol::Auto };
        let at = ListenAt::Unix { path: folder.path().join("x"), mode: 0o700, group: None };
        let bound = bind(&at, SocketOwner::default(), policy, 64).unwrap_or_else(|error| panic!("{error}"));
        let authenticator = Authenticator::new(&Default::default()).unwrap_or_else(|error| panic!("{error}"));
        let service = super::service(64 << 20);
        // Its seconds begin with it.
        let started_boot_ms = service.started().boot_ms;
        let shutdown = CancellationToken::new();
        let supervisor = Supervisor::new(shutdown.clone());
        let server = Server::new(vec![bound], service.into(), authenticator.into(), limits(), 1, &supervisor);
        let server = server.unwrap_or_else(|error| panic!("{error}"));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap_or_else(|error| panic!("{error}")).block_on(server.run());
        });
        ServerUnderTest { folder, started_boot_ms, shutdown, thread: Some(thread) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("x")
    }

    /// The second of the server's own clock.
    fn second(&self) -> u64 {
        (boot_ms() - self.started_boot_ms) / 1000
    }

    /// The last cas id before the pieces, and all that is answered to them.
    fn ask(&self, pieces: &[&[u8]]) -> (u64, Vec<u8>) {
        let fresh = [FRESH.as_bytes()];
        let binary = pieces.concat().first() == Some(&0x80);
        let (answer, own) = match binary {
            true => (self.answer(&fresh), self.answer(pieces)),
            false => (self.answer(&[&fresh, pieces].concat()), Vec::new()),
        };
        let head = format!("VA {}\r\n{}\r\nOK\r\nOK\r\nHD c", super::TOKEN.len(), super::TOKEN);
        let Some(rest) = answer.strip_prefix(head.as_bytes()) else { panic!("{}", answer.escape_ascii()) };
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let cas = String::from_utf8_lossy(&rest[..digits]).parse().unwrap_or_default();
        (cas, [&rest[digits + 2..], &own].concat())
    }

    /// All that is answered on one connection.
    fn answer(&self, pieces: &[&[u8]]) -> Vec<u8> {
        let mut peer = UnixStream::connect(self.path()).unwrap_or_else(|error| panic!("{error}"));
        let _ = peer.set_read_timeout(Some(TIMEOUT));
        for piece in pieces {
            // A server that has hung up has given its answer.
            if peer.write_all(piece).is_err() {
                break;
            }
            std::thread::yield_now();
        }
        let _ = peer.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        match peer.read_to_end(&mut answer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no end of the answer after {}", answer.escape_ascii())
            }
            _ => {}
        }
        answer
    }

    /// Brings both to the same cas id: an item that ended between the two made them differ.
    fn level(&self, other: &ServerUnderTest) {
        let (ours, theirs) = (self.ask(&[]).0, other.ask(&[]).0);
        let behind = if ours < theirs { self } else { other };
        behind.ask(&[b"ms probe 0 q\r\n\r\n".repeat(ours.abs_diff(theirs) as usize).as_slice()]);
    }
}

impl Drop for ServerUnderTest {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn limits() -> Limits {
    Limits {
        max_connections: 1024,
        requests_per_turn: 3,
        value_bytes_max: super::ITEM_SIZE_MAX,
        idle_timeout: None,
        line_timeout: TIMEOUT,
        typing_pause: TIMEOUT,
        typing_max: TIMEOUT,
        block_timeout: TIMEOUT,
        in_flight_bytes_max: 1 << 30,
        write_timeout: TIMEOUT,
        login_timeout: TIMEOUT,
        login_failure_delay: Duration::ZERO,
        handshake_timeout: TIMEOUT,
        hold: Duration::ZERO,
    }
}
