//! A client of all nodes: so many reads a second in turn, over connections that it keeps. A read that finds its node
//! gone is repeated on the next one at once, as a client with failover does it.
//!
//! Every value read is judged by the simulated WeChat there and then. What went wrong is counted, and never hidden.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokencached::sandbox::{Sandbox, Verdict};

/// A node that could not be reached is tried again after this.
const AGAIN: Duration = Duration::from_millis(100);
/// An answer that takes longer is none.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How many of the things that went wrong are told one by one.
const TOLD_MAX: usize = 20;

/// What came of the reads.
#[derive(Default)]
pub struct Tally {
    pub reads: u64,
    /// `END`, where there has to be a token.
    pub misses: u64,
    /// No node answered.
    pub unanswered: u64,
    /// Tokens that WeChat would have refused.
    pub refused: u64,
    /// Reads that met a closed or refused connection and were repeated on another node.
    pub switches: u64,
    /// Reads that went to another node because theirs was known to be gone.
    pub passed_over: u64,
    pub longest: Duration,
    /// What went wrong, in words.
    pub told: Vec<String>,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.reads += other.reads;
        self.misses += other.misses;
        self.unanswered += other.unanswered;
        self.refused += other.refused;
        self.switches += other.switches;
        self.passed_over += other.passed_over;
        self.longest = self.longest.max(other.longest);
        self.told.extend(other.told);
        self.told.truncate(TOLD_MAX);
    }
}

enum Link {
    Open(BufReader<TcpStream>),
    Gone { again: Instant },
}

pub struct Reader<'r> {
    pub sandbox: &'r Sandbox,
    pub key: &'r str,
    pub begun: Instant,
    nodes: Vec<(SocketAddr, Link)>,
    next: usize,
    tally: Tally,
}

impl<'r> Reader<'r> {
    pub fn new(sandbox: &'r Sandbox, key: &'r str, nodes: &[SocketAddr], first: usize, begun: Instant) -> Reader<'r> {
        let nodes = nodes.iter().map(|&address| (address, Link::Gone { again: begun })).collect();
        Reader { sandbox, key, begun, nodes, next: first, tally: Tally::default() }
    }

    /// One read each `every` until told to stop; what is late is made up for.
    pub fn run(mut self, every: Duration, stop: &AtomicBool) -> Tally {
        let mut due = Instant::now();
        while !stop.load(Relaxed) {
            self.read();
            due += every;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        self.tally
    }

    fn read(&mut self) {
        let began = Instant::now();
        let (mut switched, mut passed_over, mut answer) = (false, false, None);
        for _ in 0..self.nodes.len() {
            let at = self.next;
            self.next = (self.next + 1) % self.nodes.len();
            if matches!(self.nodes[at].1, Link::Gone { again } if began < again) {
                passed_over = true;
                continue;
            }
            match self.ask(at) {
                Ok(value) => {
                    answer = Some((at, value));
                    break;
                }
                Err(error) => {
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
                        self.tell(format_args!("no answer of node-{} in time", at + 1));
                        self.tally.unanswered += 1;
                    }
                    switched = true;
                    self.nodes[at].1 = Link::Gone { again: Instant::now() + AGAIN };
                }
            }
        }
        self.tally.reads += 1;
        self.tally.switches += u64::from(switched);
        self.tally.passed_over += u64::from(passed_over && !switched);
        self.judge(answer);
        self.tally.longest = self.tally.longest.max(began.elapsed());
    }

    fn judge(&mut self, answer: Option<(usize, Option<String>)>) {
        match answer {
            Some((at, Some(token))) => {
                let verdict = self.sandbox.judge(&token);
                if verdict != Verdict::Accepted {
                    self.tally.refused += 1;
                    self.tell(format_args!("node-{} gave a token that is {verdict:?}", at + 1));
                }
            }
            Some((at, None)) => {
                self.tally.misses += 1;
                self.tell(format_args!("node-{} gave no token", at + 1));
            }
            None => {
                self.tally.unanswered += 1;
                self.tell(format_args!("no node answered"));
            }
        }
    }

    fn tell(&mut self, what: std::fmt::Arguments<'_>) {
        if self.tally.told.len() < TOLD_MAX {
            self.tally.told.push(format!("{:.3} s: {what}", self.begun.elapsed().as_secs_f64()));
        }
    }

    /// The value, none if there is none.
    fn ask(&mut self, at: usize) -> std::io::Result<Option<String>> {
        let (address, link) = &mut self.nodes[at];
        if let Link::Gone { .. } = link {
            let stream = TcpStream::connect_timeout(address, ANSWER_MAX)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_MAX))?;
            *link = Link::Open(BufReader::new(stream));
        }
        let Link::Open(stream) = link else { return Err(ErrorKind::NotConnected.into()) };
        stream.get_mut().write_all(format!("get {}\r\n", self.key).as_bytes())?;
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if line == "END\r\n" {
            return Ok(None);
        }
        let length = line.trim_end().rsplit(' ').next().and_then(|length| length.parse::<usize>().ok());
        let length = length.filter(|_| line.starts_with("VALUE ") && line.ends_with("\r\n"));
        // A line cut off is a node that was killed in the middle of it.
        let length = length.ok_or(ErrorKind::UnexpectedEof)?;
        let mut body = vec![0; length + "\r\nEND\r\n".len()];
        stream.read_exact(&mut body)?;
        body.truncate(length);
        Ok(Some(String::from_utf8_lossy(&body).into_owned()))
    }
}
