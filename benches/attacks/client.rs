//! Clients of the memcached port: one that asks and waits so long, one that asks and never reads, and a neighbour who
//! only wants its own key and whose waiting is measured.
//!
//! An answer that does not come is a result here, never a panic.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// For whoever is not attacked: far longer than any answer takes.
pub const TIMEOUT: Duration = Duration::from_secs(20);
/// After this a neighbour gives up.
const NEIGHBOUR_TIMEOUT: Duration = Duration::from_secs(5);

pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(port: u16, patience: Duration) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&local(port), patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// From another address of this machine.
    pub fn connect_from(from: Ipv4Addr, port: u16, patience: Duration) -> io::Result<Client> {
        Ok(Client { stream: BufReader::new(stream_from(from, local(port), patience)?) })
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// The next line, with its end.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        if self.stream.read_until(b'\n', &mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Sends, and reads the line that answers.
    pub fn ask(&mut self, send: impl AsRef<[u8]>) -> io::Result<String> {
        self.send(send)?;
        self.line()
    }

    pub fn set(&mut self, key: &str, value: &[u8]) -> io::Result<String> {
        self.send(format!("set {key} 0 0 {}\r\n", value.len()))?;
        self.send(value)?;
        self.ask("\r\n")
    }

    /// The value, none if it is a miss.
    pub fn get(&mut self, key: &str) -> io::Result<Option<Vec<u8>>> {
        let head = self.ask(format!("get {key}\r\n"))?;
        if head == "END\r\n" {
            return Ok(None);
        }
        let length = head.trim_end().rsplit(' ').next().and_then(|length| length.parse::<usize>().ok());
        let length = length.filter(|_| head.starts_with("VALUE ")).ok_or(ErrorKind::InvalidData)?;
        let mut body = vec![0; length + "\r\nEND\r\n".len()];
        self.stream.read_exact(&mut body)?;
        body.truncate(length);
        Ok(Some(body))
    }

    /// So many bytes, or what comes before the end.
    pub fn read(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.stream.by_ref().take(count as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// A connection from this address of the machine.
pub fn stream_from(from: Ipv4Addr, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&to.into(), patience)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

/// Asks and reads nothing. With a small buffer here and small segments the kernel keeps little of the answer, on this
/// side and on the server's, which goes by the size of segments; the rest is the server's to hold.
pub fn asker_that_does_not_read(port: u16, ask: &str) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(4096)?;
    socket.set_tcp_mss(1000)?;
    socket.connect_timeout(&local(port).into(), TIMEOUT)?;
    let mut stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(ask.as_bytes())?;
    Ok(stream)
}

/// Reads its own small key again and again, on a thread of its own, until it is asked for what it has seen.
pub struct Neighbour {
    stop: std::sync::Arc<AtomicBool>,
    thread: JoinHandle<Waits>,
}

impl Neighbour {
    pub fn start(port: u16, every: Duration) -> Neighbour {
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut waits = Waits::default();
            let mut client = Client::connect(port, NEIGHBOUR_TIMEOUT).ok();
            while !stopped.load(Relaxed) {
                client = waits.read(port, client, every);
                sleep(every);
            }
            waits
        });
        Neighbour { stop, thread }
    }

    pub fn stop(self) -> Waits {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

/// How long each read took. While one waits the next ones are due already, and their waiting counts too: otherwise a
/// server that stands still for seconds would have a handful of slow reads among thousands of fast ones.
#[derive(Default)]
pub struct Waits {
    ms: Vec<f64>,
    /// Reads that were given up.
    pub given_up: u64,
}

impl Waits {
    /// The key that a neighbour reads.
    pub const KEY: &str = "neighbour";

    fn read(&mut self, port: u16, client: Option<Client>, every: Duration) -> Option<Client> {
        let begun = Instant::now();
        let answered = client.or_else(|| Client::connect(port, NEIGHBOUR_TIMEOUT).ok()).and_then(|mut client| {
            let value = client.get(Waits::KEY).ok()?;
            value.is_some().then_some(client)
        });
        let mut waited = begun.elapsed();
        self.ms.push(waited.as_secs_f64() * 1e3);
        while waited > 2 * every {
            waited -= every;
            self.ms.push(waited.as_secs_f64() * 1e3);
        }
        self.given_up += u64::from(answered.is_none());
        answered
    }

    /// The time that this share of all stays below, ms.
    pub fn at(&self, share: f64) -> Value {
        let mut sorted = self.ms.clone();
        sorted.sort_by(f64::total_cmp);
        let place = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
        sorted.get(place).map_or(Value::Null, |ms| json!(ms))
    }

    pub fn longest(&self) -> Value {
        self.at(1.0)
    }
}
