//! The load: one thread, one epoll loop, tens of connections that each send a batch, take all its answers, and go on.
//!
//! Requests and answers are written down beforehand, so nothing in the loop formats, parses or allocates. The length of
//! every answer is checked, and the bytes of every sixteenth batch.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustls::{ClientConnection, StreamOwned};

use crate::latency::Latencies;
use crate::servers::Server;

const CHECKED_EVERY: u64 = 16;
const READ_BYTES: usize = 256 * 1024;
/// An answer that takes longer never comes.
const TIMEOUT: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Requests that go out in one write, and what must come back.
#[derive(Default)]
pub struct Batch {
    pub requests: u64,
    pub send: Vec<u8>,
    pub expected: Vec<u8>,
}

impl Batch {
    pub fn push(&mut self, send: &[u8], expected: &[u8]) {
        self.requests += 1;
        self.send.extend_from_slice(send);
        self.expected.extend_from_slice(expected);
    }
}

pub struct Load {
    pub batches: Vec<Batch>,
}

impl Load {
    /// The answer to one request, for a loop that knows no other.
    pub fn first_answer(&self) -> &[u8] {
        let batch = &self.batches[0];
        &batch.expected[..batch.expected.len() / batch.requests as usize]
    }
}

/// What a server did in one measurement.
pub struct Measured {
    pub requests_per_s: f64,
    pub cpu_us_per_request: f64,
    /// Microseconds, of a whole batch: median, 99 %, 99.9 %.
    pub latency: [f64; 3],
}

/// A connection as bytes.
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    fn socket(&self) -> &TcpStream {
        match self {
            Wire::Plain(stream) => stream,
            Wire::Tls(stream) => &stream.sock,
        }
    }

    /// Sends and reads as long an answer as is expected; blocks.
    pub fn exchange(&mut self, send: &[u8], answer_bytes: usize) -> Vec<u8> {
        let mut answer = vec![0; answer_bytes];
        self.write_all(send).unwrap();
        self.read_exact(&mut answer).unwrap();
        answer
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.read(buffer),
            Wire::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.write(bytes),
            Wire::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Wire::Plain(_) => Ok(()),
            Wire::Tls(stream) => stream.flush(),
        }
    }
}

struct Connection {
    wire: Wire,
    /// Index of the batch under way.
    batch: usize,
    sent: usize,
    received: usize,
    begun: Instant,
    /// Batches done.
    done: u64,
    /// The loop that answers a constant gives everybody the first key's value.
    is_floor: bool,
}

impl Connection {
    /// Sends what of the batch is still to be sent.
    fn send(&mut self, load: &Load) {
        let bytes = &load.batches[self.batch].send;
        while self.sent < bytes.len() {
            match self.wire.write(&bytes[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("cannot send: {error}"),
            }
        }
    }

    /// Takes what has come; true once the batch is answered.
    fn receive(&mut self, load: &Load, buffer: &mut [u8]) -> bool {
        let batch = &load.batches[self.batch];
        if let Wire::Tls(stream) = &mut self.wire
            && stream.conn.wants_write()
        {
            let _ = stream.flush();
        }
        loop {
            let read = match self.wire.read(buffer) {
                Ok(0) => panic!("the server has closed a connection"),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("cannot receive: {error}"),
            };
            let place = self.received..self.received + read;
            self.received = place.end;
            assert!(place.end <= batch.expected.len(), "a longer answer than expected to {}", text(&batch.send));
            let checked = self.done.is_multiple_of(CHECKED_EVERY) && !self.is_floor;
            if checked && buffer[..read] != batch.expected[place] {
                panic!("expected {}\nfound {}", text(&batch.expected), text(&buffer[..read]));
            }
            if self.received == batch.expected.len() {
                return true;
            }
            if matches!(self.wire, Wire::Plain(_)) && read < buffer.len() {
                return false;
            }
        }
    }

    fn next(&mut self, load: &Load, now: Instant) {
        self.batch = (self.batch + 1) % load.batches.len();
        (self.sent, self.received, self.begun) = (0, 0, now);
        self.done += 1;
        self.send(load);
    }
}

fn text(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(300)].escape_ascii().to_string()
}

/// Puts a server under load: first for `warm_up`, then for as long as is measured.
pub fn run(load: &Load, server: &Server, connections: usize, warm_up: Duration, measured: Duration) -> Measured {
    let mut generator = Generator::new(load, server, connections);
    generator.run_for(warm_up);
    generator.latencies.clear();
    let (cpu, begun) = (server.cpu_ns(), Instant::now());
    let requests = generator.run_for(measured);
    let (took, cpu) = (begun.elapsed(), server.cpu_ns() - cpu);
    Measured {
        requests_per_s: requests as f64 / took.as_secs_f64(),
        cpu_us_per_request: cpu as f64 / 1e3 / requests as f64,
        latency: [0.5, 0.99, 0.999].map(|share| generator.latencies.at(share)),
    }
}

struct Generator<'a> {
    load: &'a Load,
    connections: Vec<Connection>,
    epoll: rustix::fd::OwnedFd,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
    latencies: Latencies,
}

impl<'a> Generator<'a> {
    /// Opens the connections and sends the first batch on each.
    fn new(load: &'a Load, server: &Server, count: usize) -> Generator<'a> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let open = |index: usize| {
            let wire = server.connect();
            wire.socket().set_nonblocking(true).unwrap();
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&epoll, wire.socket(), epoll::EventData::new_u64(index as u64), flags).unwrap();
            let batch = index * load.batches.len() / count;
            Connection { wire, batch, sent: 0, received: 0, begun: Instant::now(), done: 0, is_floor: server.is_floor }
        };
        let mut connections: Vec<Connection> = (0..count).map(open).collect();
        connections.iter_mut().for_each(|connection| connection.send(load));
        let (events, buffer) = (Vec::with_capacity(256), vec![0; READ_BYTES]);
        Generator { load, connections, epoll, events, buffer, latencies: Latencies::new() }
    }

    /// Answers to how many requests came in that time.
    fn run_for(&mut self, duration: Duration) -> u64 {
        let end = Instant::now() + duration;
        let mut requests = 0;
        loop {
            self.events.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&TIMEOUT)).unwrap();
            assert!(
                !self.events.is_empty(),
                "no answer to {}",
                text(&self.load.batches[self.connections[0].batch].send)
            );
            let mut now = None;
            for event in &self.events {
                let connection = &mut self.connections[event.data.u64() as usize];
                connection.send(self.load);
                if connection.receive(self.load, &mut self.buffer) {
                    let at = Instant::now();
                    self.latencies.record((at - connection.begun).as_nanos() as u64);
                    requests += self.load.batches[connection.batch].requests;
                    connection.next(self.load, at);
                    now = Some(at);
                }
            }
            if now.is_some_and(|now| now >= end) {
                return requests;
            }
        }
    }
}
