//! Something between a client and its server that a test can hold, cut and lead elsewhere.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::netns::Namespace;
use super::wait_for;

/// Where it leads.
#[derive(Clone)]
pub enum To {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What is kept back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Requests,
    Answers,
}

/// One that listens until it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    to: To,
    /// The next connection whose request has that word in it is held.
    armed: Option<(Direction, String)>,
    /// Nothing passes in either direction.
    all: bool,
    /// Counts releases: who is held waits for the next one.
    released: u64,
    /// How many are held right now.
    held: usize,
    open: Vec<File>,
    ended: bool,
}

/// What becomes of one connection's bytes.
type Hold = Arc<Mutex<Option<(Direction, u64)>>>;

impl Proxy {
    pub fn to_tcp(to: SocketAddr) -> Proxy {
        Proxy::start(TcpListener::bind(("127.0.0.1", 0)).unwrap(), To::Tcp(to), None)
    }

    pub fn to_unix(path: &Path) -> Proxy {
        Proxy::start(TcpListener::bind(("127.0.0.1", 0)).unwrap(), To::Unix(path.to_owned()), None)
    }

    /// Connects from that network.
    pub fn start(listener: TcpListener, to: To, from: Option<Namespace>) -> Proxy {
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let open = Vec::new();
        let state = State { to, armed: None, all: false, released: 0, held: 0, open, ended: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let accepts = shared.clone();
        std::thread::spawn(move || {
            if let Some(network) = from {
                network.enter();
            }
            accepts.accept(&listener);
        });
        Proxy { address, shared }
    }

    /// The next request with that word in it reaches its server when it is released. The server gets all before.
    pub fn hold_request(&self, word: &str) {
        self.shared.lock().armed = Some((Direction::Requests, word.to_owned()));
    }

    /// The next request with that word in it is answered, and the answer kept back until it is released.
    pub fn hold_answer(&self, word: &str) {
        self.shared.lock().armed = Some((Direction::Answers, word.to_owned()));
    }

    /// Nothing passes until it is released; new connections are made and carry nothing.
    pub fn hold_all(&self) {
        self.shared.lock().all = true;
    }

    /// Waits until something is held.
    pub fn wait_until_held(&self) {
        wait_for("something to be held", || (self.shared.lock().held > 0).then_some(()));
    }

    pub fn release(&self) {
        let mut state = self.shared.lock();
        (state.all, state.released) = (false, state.released + 1);
        self.shared.changed.notify_all();
    }

    /// Ends all connections and leads new ones there.
    pub fn lead(&self, to: To) {
        let mut state = self.shared.lock();
        state.to = to;
        state.cut();
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.ended = true;
        state.cut();
        self.shared.changed.notify_all();
    }
}

impl State {
    fn cut(&mut self) {
        for socket in self.open.drain(..) {
            let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn accept(self: Arc<Shared>, listener: &TcpListener) {
        while !self.lock().ended {
            match listener.accept() {
                Ok((client, _)) => self.clone().pass(client),
                Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
            }
        }
    }

    fn pass(self: Arc<Shared>, client: TcpStream) {
        client.set_nonblocking(false).unwrap();
        client.set_nodelay(true).unwrap();
        let to = self.lock().to.clone();
        let server: OwnedFd = match to {
            To::Tcp(address) => match TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
                Ok(server) => server.into(),
                Err(_) => return,
            },
            To::Unix(path) => match UnixStream::connect(path) {
                Ok(server) => server.into(),
                Err(_) => return,
            },
        };
        let (client, server) = (File::from(OwnedFd::from(client)), File::from(server));
        let both = |file: &File| (file.try_clone().unwrap(), file.try_clone().unwrap());
        self.lock().open.extend([both(&client).0, both(&server).0]);
        let hold = Hold::default();
        for (from, to, way) in [
            (both(&client).0, both(&server).1, Direction::Requests),
            (both(&server).0, both(&client).1, Direction::Answers),
        ] {
            let (shared, hold) = (self.clone(), hold.clone());
            std::thread::spawn(move || shared.pump(from, to, way, &hold));
        }
    }

    fn pump(&self, mut from: File, mut to: File, way: Direction, hold: &Hold) {
        let mut part = vec![0; 65536];
        while let Ok(length @ 1..) = from.read(&mut part) {
            if way == Direction::Requests {
                self.arm(&part[..length], hold);
            }
            if !self.wait(way, hold) || to.write_all(&part[..length]).is_err() {
                break;
            }
        }
        for socket in [from, to] {
            let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both);
        }
    }

    fn arm(&self, request: &[u8], hold: &Hold) {
        let mut state = self.lock();
        let asked = |(_, word): &(Direction, String)| request.windows(word.len()).any(|part| part == word.as_bytes());
        if state.armed.as_ref().is_some_and(asked) {
            let back = state.armed.take().map(|(back, _)| back);
            *hold.lock().unwrap() = back.map(|back| (back, state.released));
        }
    }

    /// False if it has ended meanwhile.
    fn wait(&self, way: Direction, hold: &Hold) -> bool {
        let held = *hold.lock().unwrap();
        let mut state = self.lock();
        let is_held = |state: &State| {
            let here = held.is_some_and(|(back, released)| back == way && released == state.released);
            !state.ended && (state.all || here)
        };
        if is_held(&state) {
            state.held += 1;
            while is_held(&state) {
                state = self.changed.wait(state).unwrap();
            }
            state.held -= 1;
        }
        !state.ended
    }
}
