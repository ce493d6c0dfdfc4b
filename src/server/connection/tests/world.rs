//! A driver without sockets, tasks or a clock: peers in memory, and time that passes when a test says so.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::task::{Wake, Waker};
use std::time::Duration;

use bytes::BufMut;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::super::{Connection, ConnectionWait, Next};
use crate::access::Rights;
use crate::cache::{self, Cache};
use crate::clock::{BootMs, Now};
use crate::credential::table::{CredentialWriter, KeyConfig, Published, Table, TableConfig};
use crate::encoding::View;
use crate::server::worker::{ConnectionOrigin, Peer};
use crate::server::{Access, Authenticator, Limits, ListenerPolicy, Protocol, ServerState};
use crate::service::{Service, Settings};
use crate::stats::{Stats, WorkerStats};

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn limits() -> Limits {
    Limits {
        max_connections: 100,
        requests_per_turn: 20,
        value_bytes_max: 1 << 20,
        idle_timeout: None,
        line_timeout: seconds(10),
        typing_pause: seconds(60),
        typing_max: seconds(600),
        block_timeout: seconds(60),
        in_flight_bytes_max: 8 << 20,
        write_timeout: seconds(30),
        login_timeout: seconds(60),
        login_failure_delay: Duration::from_millis(500),
        handshake_timeout: seconds(10),
        hold: Duration::from_millis(700),
    }
}

/// What connections belong to, with two credentials: `access_token:wx1` and `access_token:wx2`.
pub fn server_state(limits: Limits) -> (Arc<ServerState>, Vec<CredentialWriter>) {
    let options = cache::Options { budget_bytes: 64 << 20, item_size_max_bytes: 1 << 20, evict: true, shards: 4 };
    let token = |name: &str| vec![KeyConfig { name: name.into(), redacted_name: None, view: View::RAW }];
    let apps = [("wx1", token("access_token:wx1")), ("wx2", token("access_token:wx2"))];
    let (table, writers, _requests) = Table::new(TableConfig::of(apps));
    let service = Service::new(Cache::new(&options), Arc::new(table), Arc::new(Stats::default()), Settings::default());
    let authenticator = Arc::new(Authenticator::new(&Access::default()).unwrap());
    let shared = ServerState::new(Arc::new(service), authenticator, limits, CancellationToken::new());
    (Arc::new(shared), writers)
}

/// The first of them has a token.
pub fn server_state_with_token(limits: Limits) -> Arc<ServerState> {
    let (shared, writers) = server_state(limits);
    writers[0].publish(Published::to_the_end("a token".repeat(70).into(), 1, u64::MAX));
    shared
}

pub fn policy() -> ListenerPolicy {
    ListenerPolicy { rights: Arc::new(Rights::ALL), login: false, tls: false, protocol: Protocol::Auto }
}

pub fn origin() -> ConnectionOrigin {
    static DESCRIPTORS: AtomicI32 = AtomicI32::new(0);
    let descriptor = DESCRIPTORS.fetch_add(1, Relaxed);
    ConnectionOrigin { peer: Peer::Unix, listen_addr: "unix:test".into(), descriptor }
}

/// Connections in virtual time.
pub struct World {
    pub shared: Arc<ServerState>,
    pub stats: Arc<WorkerStats>,
    now_ms: Cell<BootMs>,
    peers: RefCell<Vec<DrivenPeer>>,
    /// Those with something to do, by number.
    ready: ReadyPeers,
    timers: RefCell<BTreeSet<(BootMs, usize)>>,
}

type ReadyPeers = Arc<Mutex<VecDeque<usize>>>;

/// A connection, none once it has ended, and what is between it and its peer.
pub struct DrivenPeer {
    served: Option<Served>,
    stream: MemoryStream,
}

/// What the peer has sent and what it has yet to take, with the room in each direction.
struct MemoryStream {
    sent: Vec<u8>,
    answers: Vec<u8>,
    room: usize,
    peer_is_gone: bool,
}

struct Served {
    connection: Connection,
    doing: Doing,
}

/// What is done next, and until when it may take.
enum Doing {
    BeginReading,
    Reading(Option<BootMs>),
    BeginWriting(Next),
    Writing(Next, BootMs),
    Waiting(BootMs),
    Turn,
}

/// Puts a connection among those with something to do.
struct PeerWaker(usize, ReadyPeers);

impl Wake for PeerWaker {
    fn wake(self: Arc<Self>) {
        self.1.lock().push_back(self.0);
    }
}

impl World {
    pub fn new(limits: Limits) -> Rc<World> {
        World::of(server_state_with_token(limits))
    }

    /// One whose first fetches are all under way.
    pub fn with_first_fetch(limits: Limits) -> Rc<World> {
        World::of(server_state(limits).0)
    }

    fn of(shared: Arc<ServerState>) -> Rc<World> {
        let stats = shared.service.stats.register_worker();
        let now_ms = Cell::new(shared.service.started().boot_ms);
        let (peers, timers) = (RefCell::default(), RefCell::default());
        Rc::new(World { shared, stats, now_ms, peers, ready: ReadyPeers::default(), timers })
    }

    pub fn now_ms(&self) -> BootMs {
        self.now_ms.get()
    }

    /// Whole seconds since then.
    pub fn seconds_since(&self, begun_ms: BootMs) -> u64 {
        (self.now_ms() - begun_ms) / 1000
    }

    pub fn in_flight(&self) -> u64 {
        self.shared.in_flight.bytes()
    }

    pub fn connection(&self) -> Connection {
        self.shared.service.stats.curr_connections.fetch_add(1, Relaxed);
        let policy = policy();
        let rights = policy.rights.clone();
        Connection::new(origin(), &policy, rights, self.shared.clone(), self.stats.clone(), self.now_ms())
    }

    /// Serves a client with so much room in each direction; gives the client's end.
    pub fn connect(self: &Rc<World>, room: usize) -> Client {
        let served = Served { connection: self.connection(), doing: Doing::BeginReading };
        let stream = MemoryStream { sent: Vec::new(), answers: Vec::new(), room, peer_is_gone: false };
        let id = self.peers.borrow().len();
        self.peers.borrow_mut().push(DrivenPeer { served: Some(served), stream });
        self.ready.lock().push_back(id);
        Client { world: self.clone(), id }
    }

    /// Time passes.
    pub fn sleep(&self, duration: Duration) {
        let ends_ms = self.now_ms() + u64::try_from(duration.as_millis()).unwrap();
        self.run();
        while self.wait_for_timer(ends_ms) {
            self.run();
        }
        self.now_ms.set(ends_ms);
    }

    /// Everybody has turns until nobody has anything to do.
    pub fn run(&self) {
        while self.turn() {}
    }

    /// Serves until this is so. In virtual time a bound costs nothing, and what never comes is no standstill.
    pub fn run_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let ends_ms = self.now_ms() + 1_000_000;
        while !is_so() {
            assert!(self.turn() || self.wait_for_timer(ends_ms), "never: {what}");
        }
    }

    /// Goes to the next deadline; false if there is none until then.
    fn wait_for_timer(&self, ends_ms: BootMs) -> bool {
        let first = self.timers.borrow().first().copied().filter(|(at_ms, _)| *at_ms <= ends_ms);
        let Some((at_ms, id)) = first else { return false };
        self.now_ms.set(at_ms.max(self.now_ms()));
        self.ready.lock().push_back(id);
        true
    }

    /// The next connection has its turn; false if none has anything to do.
    pub fn turn(&self) -> bool {
        let Some(id) = self.ready.lock().pop_front() else { return false };
        let DrivenPeer { served: place, stream } = &mut self.peers.borrow_mut()[id];
        let Some(served) = place else { return true };
        if let Some(deadline_ms) = served.doing.deadline_ms() {
            self.timers.borrow_mut().remove(&(deadline_ms, id));
        }
        let waker = Waker::from(Arc::new(PeerWaker(id, self.ready.clone())));
        let now = Now { boot_ms: self.now_ms(), unix_ms: 1_700_000_000_000 };
        if !served.serve(stream, now, &waker) {
            *place = None;
        } else if let Some(deadline_ms) = served.doing.deadline_ms() {
            self.timers.borrow_mut().insert((deadline_ms, id));
        }
        true
    }
}

impl Doing {
    fn deadline_ms(&self) -> Option<BootMs> {
        match self {
            Doing::Reading(deadline_ms) => *deadline_ms,
            Doing::Writing(_, deadline_ms) | Doing::Waiting(deadline_ms) => Some(*deadline_ms),
            Doing::BeginReading | Doing::BeginWriting(_) | Doing::Turn => None,
        }
    }
}

impl Served {
    /// Goes on until its peer, the time or another connection is to do something; false once it has ended.
    fn serve(&mut self, stream: &mut MemoryStream, now: Now, waker: &Waker) -> bool {
        loop {
            self.doing = match std::mem::replace(&mut self.doing, Doing::BeginReading) {
                Doing::BeginReading => {
                    let deadline_ms = self.connection.begin_reading();
                    if self.connection.is_read_turn_over() {
                        self.connection.give_turn();
                        self.doing = Doing::Reading(deadline_ms);
                        waker.wake_by_ref();
                        return true;
                    }
                    Doing::Reading(deadline_ms)
                }
                Doing::Reading(deadline_ms) => match self.read(stream, waker) {
                    Some(0) if stream.peer_is_gone => return false,
                    Some(0) if deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now.boot_ms) => {
                        let Some(deadline_ms) = self.connection.record_late(now.boot_ms) else { return false };
                        Doing::Reading(Some(deadline_ms))
                    }
                    Some(0) => {
                        self.doing = Doing::Reading(deadline_ms);
                        return true;
                    }
                    _ => Doing::BeginWriting(self.connection.execute(now)),
                },
                Doing::BeginWriting(next) if self.connection.has_no_answer() => match self.do_next(next, now, waker) {
                    Some(true) => continue,
                    Some(false) => return true,
                    None => return false,
                },
                Doing::BeginWriting(next) => {
                    self.connection.begin_writing(now.boot_ms);
                    Doing::Writing(next, self.connection.write_deadline(now.boot_ms))
                }
                Doing::Writing(next, deadline_ms) => match self.write(stream, now, waker) {
                    Ok(0) if deadline_ms <= now.boot_ms => {
                        self.connection.write_timeout_error();
                        return false;
                    }
                    Ok(0) => {
                        self.doing = Doing::Writing(next, deadline_ms);
                        return true;
                    }
                    Ok(_) if self.connection.is_written() => {
                        self.connection.finish_writing(now.boot_ms);
                        Doing::BeginWriting(next)
                    }
                    Ok(_) => Doing::Writing(next, self.connection.write_deadline(now.boot_ms)),
                    Err(_) => return false,
                },
                Doing::Waiting(deadline_ms) if now.boot_ms < deadline_ms => {
                    self.doing = Doing::Waiting(deadline_ms);
                    return true;
                }
                Doing::Waiting(_) | Doing::Turn => Doing::BeginWriting(self.connection.resume(now)),
            };
        }
    }

    /// Does what is next once the answers are written: true to go on at once, false for later, none at the end.
    fn do_next(&mut self, next: Next, now: Now, waker: &Waker) -> Option<bool> {
        match next {
            Next::Read => return Some(true),
            Next::Turn => {
                self.connection.give_turn();
                self.doing = Doing::Turn;
                waker.wake_by_ref();
            }
            Next::Wait(wait) => {
                assert!(!matches!(wait, ConnectionWait::Verification(_)), "nobody verifies here");
                self.doing = Doing::Waiting(self.connection.wait_deadline(&wait, now.boot_ms));
            }
            Next::RefreshCertificates | Next::Close | Next::Shutdown => return None,
        }
        Some(false)
    }

    /// Reads what is there; none if there was no room.
    fn read(&mut self, stream: &mut MemoryStream, waker: &Waker) -> Option<usize> {
        let mut room = self.connection.read_room(waker)?;
        let bytes = room.chunk_mut().len().min(stream.sent.len());
        room.put_slice(&stream.sent[..bytes]);
        stream.sent.drain(..bytes);
        if bytes == 0 {
            self.connection.record_nothing_to_read();
        } else {
            self.connection.record_read(bytes);
        }
        Some(bytes)
    }

    /// Writes what there is room for.
    fn write(&mut self, stream: &mut MemoryStream, now: Now, waker: &Waker) -> io::Result<usize> {
        if stream.peer_is_gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut slices = [IoSlice::new(&[]); 16];
        let count = self.connection.unwritten_slices(&mut slices);
        let before = stream.answers.len();
        for slice in &slices[..count] {
            let room = stream.room - stream.answers.len();
            stream.answers.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let bytes = stream.answers.len() - before;
        if bytes == 0 {
            self.connection.record_write_blocked(now.boot_ms, waker)?;
        }
        self.connection.record_written(bytes);
        Ok(bytes)
    }
}

/// A client's end of a connection. Nothing is served until the test waits for something.
pub struct Client {
    world: Rc<World>,
    id: usize,
}

impl Client {
    fn with<R>(&self, look: impl FnOnce(&mut MemoryStream) -> R) -> R {
        look(&mut self.world.peers.borrow_mut()[self.id].stream)
    }

    /// Looks at a connection that has not ended.
    pub fn connection<R>(&self, look: impl FnOnce(&mut Connection) -> R) -> R {
        look(&mut self.world.peers.borrow_mut()[self.id].served.as_mut().unwrap().connection)
    }

    fn wake(&self) {
        self.world.ready.lock().push_back(self.id);
    }

    pub fn has_ended(&self) -> bool {
        self.world.peers.borrow()[self.id].served.is_none()
    }

    /// Sends all of this; false if the server has hung up.
    pub fn write(&self, bytes: impl AsRef<[u8]>) -> bool {
        let mut rest = bytes.as_ref();
        loop {
            if self.has_ended() {
                return false;
            }
            rest = self.write_some(rest);
            if rest.is_empty() {
                return true;
            }
            self.world.run_until("room", || self.has_ended() || self.with(|stream| stream.sent.len() < stream.room));
        }
    }

    /// Sends as much of this as there is room for, and gives the rest.
    pub fn write_some<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let (now, rest) = bytes.split_at(bytes.len().min(self.with(|stream| stream.room - stream.sent.len())));
        self.with(|stream| stream.sent.extend(now));
        self.wake();
        rest
    }

    /// What there is of the answers, at most so much.
    pub fn take(&self, bytes_max: usize) -> Vec<u8> {
        self.wake();
        self.with(|stream| {
            let bytes = bytes_max.min(stream.answers.len());
            stream.answers.drain(..bytes).collect()
        })
    }

    /// Reads some, at most so much; nothing at the end.
    pub fn read(&self, bytes_max: usize) -> Vec<u8> {
        self.world.run_until("an answer", || self.has_ended() || self.with(|stream| !stream.answers.is_empty()));
        self.take(bytes_max)
    }

    pub fn read_exactly(&self, bytes: usize) -> Vec<u8> {
        let mut answer = Vec::new();
        while answer.len() < bytes {
            let part = self.read(bytes - answer.len());
            assert!(!part.is_empty(), "the end after {:.100}", String::from_utf8_lossy(&answer));
            answer.extend(part);
        }
        answer
    }

    pub fn expect(&self, send: &str, expected: &str) {
        assert!(self.write(send), "the end before {send:.50?}");
        let answer = self.read_exactly(expected.len());
        assert!(answer == expected.as_bytes(), "{:.500} to {send:.50?}", String::from_utf8_lossy(&answer));
    }

    /// Sends a request whose answer may be large, and gives the answer once it ends so.
    pub fn ask(&self, request: &str, end: &str) -> String {
        let (mut rest, mut answer) = (request.as_bytes(), Vec::new());
        while !answer.ends_with(end.as_bytes()) {
            rest = self.write_some(rest);
            let is_moving = || {
                self.with(|stream| !stream.answers.is_empty() || !rest.is_empty() && stream.sent.len() < stream.room)
            };
            self.world.run_until("an answer that ends", || self.has_ended() || is_moving());
            answer.extend(self.take(usize::MAX));
            assert!(!self.has_ended(), "closed in mid-answer");
        }
        String::from_utf8(answer).unwrap()
    }

    /// Sends these bytes one a second until the server hangs up; the seconds that took.
    pub fn trickle(&self, byte: &[u8]) -> u64 {
        let begun_ms = self.world.now_ms();
        while self.write(byte) {
            self.world.sleep(seconds(1));
            assert!(self.world.seconds_since(begun_ms) < 10_000, "it is never given up");
        }
        self.world.seconds_since(begun_ms)
    }

    /// Types these bytes one by one, each after a pause.
    pub fn type_slowly(&self, text: &str, pause: Duration) {
        for byte in text.as_bytes() {
            assert!(self.write([*byte]));
            self.world.sleep(pause);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.with(|stream| stream.peer_is_gone = true);
        self.wake();
    }
}
