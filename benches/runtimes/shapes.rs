//! The shapes: who accepts, on which runtime a connection lives, and when that runtime looks for more.
//!
//! Each answers a constant for each newline it reads. Takes the answer from its standard input and says its port on its
//! standard output, as a process of its own.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, mpsc as std_mpsc};
use std::task::ready;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

pub const FLAG: &str = "--serve";

const BACKLOG: i32 = 1024;
const READ_BYTES: usize = 64 * 1024;
/// More requests than the generator ever has on one connection.
const REQUESTS_MAX: usize = 64;
/// tokio's own choice.
const EVENTS: u32 = 61;

pub struct Shape {
    pub name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// An epoll loop on each thread, sockets dealt out: what no runtime can go below.
    Floor,
    /// A current-thread runtime on each thread, sockets dealt out.
    Dealt(Tuning),
    /// The same, and each thread has a listening socket of its own: the kernel deals, by a hash of the addresses.
    ReusePort,
    /// One runtime of so many threads, which take each other's work.
    MultiThread(Tuning),
}

#[derive(Clone, Copy)]
struct Tuning {
    /// Tasks run before the runtime looks for readiness again.
    event_interval: u32,
    /// Tasks run before it looks for work from other threads.
    global_queue_interval: Option<u32>,
    /// Lets others run before it goes to sleep, so that more is ready when it wakes.
    yields: bool,
}

const PLAIN: Tuning = Tuning { event_interval: EVENTS, global_queue_interval: None, yields: false };

pub const SHAPES: &[Shape] = &[
    Shape { name: "dealt", kind: Kind::Dealt(PLAIN) },
    Shape { name: "floor", kind: Kind::Floor },
    Shape { name: "reuseport", kind: Kind::ReusePort },
    Shape { name: "multi", kind: Kind::MultiThread(PLAIN) },
    Shape { name: "multi-1024", kind: Kind::MultiThread(Tuning { event_interval: 1024, ..PLAIN }) },
    Shape { name: "dealt-256", kind: Kind::Dealt(Tuning { event_interval: 256, ..PLAIN }) },
    Shape { name: "dealt-1024", kind: Kind::Dealt(Tuning { event_interval: 1024, ..PLAIN }) },
    Shape {
        name: "dealt-1024-queue",
        kind: Kind::Dealt(Tuning { event_interval: 1024, global_queue_interval: Some(1024), ..PLAIN }),
    },
    Shape { name: "dealt-yield", kind: Kind::Dealt(Tuning { yields: true, ..PLAIN }) },
];

impl Tuning {
    fn build(self, mut builder: Builder) -> Runtime {
        builder.enable_all().event_interval(self.event_interval);
        if let Some(interval) = self.global_queue_interval {
            builder.global_queue_interval(interval);
        }
        if self.yields {
            builder.on_thread_park(std::thread::yield_now);
        }
        builder.build().unwrap()
    }
}

/// Serves until the process is killed.
pub fn serve(name: &str, threads: usize) {
    let mut answer = Vec::new();
    io::stdin().read_to_end(&mut answer).unwrap();
    let answers = Arc::new(Answers { each_bytes: answer.len(), many: answer.repeat(REQUESTS_MAX) });
    let shape = SHAPES.iter().find(|shape| shape.name == name).unwrap_or_else(|| panic!("no shape {name}"));
    match shape.kind {
        Kind::Floor => serve_floor(threads, &answers),
        Kind::Dealt(tuning) => serve_dealt(threads, tuning, &answers),
        Kind::ReusePort => serve_reuseport(threads, &answers),
        Kind::MultiThread(tuning) => serve_multi_thread(threads, tuning, answers),
    }
}

struct Answers {
    each_bytes: usize,
    many: Vec<u8>,
}

impl Answers {
    fn to(&self, requests: &[u8]) -> &[u8] {
        &self.many[..memchr::memchr_iter(b'\n', requests).count() * self.each_bytes]
    }
}

fn listen(port: u16, shared: bool) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(shared).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    socket.listen(BACKLOG).unwrap();
    socket.into()
}

fn say_port(listener: &TcpListener) {
    println!("{}", listener.local_addr().unwrap().port());
}

/// Accepts and deals out for ever.
fn deal<S>(listener: &TcpListener, workers: &[S], give: impl Fn(&S, TcpStream)) -> ! {
    say_port(listener);
    for worker in workers.iter().cycle() {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        give(worker, stream);
    }
    unreachable!("there is at least one worker")
}

fn serve_dealt(threads: usize, tuning: Tuning, answers: &Arc<Answers>) -> ! {
    let worker = |_| {
        let (accepted, mut receiver) = mpsc::unbounded_channel::<TcpStream>();
        let answers = answers.clone();
        std::thread::spawn(move || {
            tuning.build(Builder::new_current_thread()).block_on(async move {
                while let Some(stream) = receiver.recv().await {
                    tokio::spawn(converse(tokio::net::TcpStream::from_std(stream).unwrap(), answers.clone()));
                }
            });
        });
        accepted
    };
    let workers: Vec<_> = (0..threads).map(worker).collect();
    deal(&listen(0, false), &workers, |worker, stream| worker.send(stream).unwrap())
}

fn serve_reuseport(threads: usize, answers: &Arc<Answers>) {
    let first = listen(0, true);
    let port = first.local_addr().unwrap().port();
    let mut listeners = vec![first];
    listeners.extend((1..threads).map(|_| listen(port, true)));
    say_port(&listeners[0]);
    let worker = |listener: TcpListener| {
        let answers = answers.clone();
        std::thread::spawn(move || PLAIN.build(Builder::new_current_thread()).block_on(accept(listener, answers)))
    };
    let workers: Vec<_> = listeners.into_iter().map(worker).collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
}

fn serve_multi_thread(threads: usize, tuning: Tuning, answers: Arc<Answers>) {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads);
    let listener = listen(0, false);
    say_port(&listener);
    tuning.build(builder).block_on(async { tokio::spawn(accept(listener, answers)).await.unwrap() });
}

async fn accept(listener: TcpListener, answers: Arc<Answers>) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(converse(stream, answers.clone()));
    }
}

thread_local! {
    /// Busy connections take turns with it.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

async fn converse(mut stream: tokio::net::TcpStream, answers: Arc<Answers>) {
    loop {
        let read = poll_fn(|cx| {
            BUFFER.with_borrow_mut(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(&mut stream).poll_read(cx, &mut buffer))?;
                let answer = answers.to(buffer.filled());
                io::Result::Ok((!buffer.filled().is_empty()).then_some(answer)).into()
            })
        });
        let Ok(Some(answer)) = read.await else { return };
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

fn serve_floor(threads: usize, answers: &Arc<Answers>) -> ! {
    let worker = |_| {
        let (accepted, receiver) = std_mpsc::channel();
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        let (woken, answers) = (wake.clone(), answers.clone());
        std::thread::spawn(move || floor(&receiver, &woken, &answers));
        (accepted, wake)
    };
    let workers: Vec<_> = (0..threads).map(worker).collect();
    deal(&listen(0, false), &workers, |(accepted, wake), stream| {
        accepted.send(stream).unwrap();
        rustix::io::write(wake, &1_u64.to_ne_bytes()).unwrap();
    })
}

fn floor(accepted: &std_mpsc::Receiver<TcpStream>, wake: &rustix::fd::OwnedFd, answers: &Answers) {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let add = |socket: &dyn std::os::fd::AsFd, index: usize| {
        epoll::add(&epoll, socket.as_fd(), epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN).unwrap();
    };
    let mut connections: Vec<Option<TcpStream>> = Vec::new();
    let (mut events, mut buffer) = (Vec::with_capacity(1024), vec![0; READ_BYTES]);
    add(wake, usize::MAX);
    loop {
        epoll::wait(&epoll, spare_capacity(&mut events), None).unwrap();
        for event in events.drain(..) {
            let Some(place) = connections.get_mut(event.data.u64() as usize) else {
                rustix::io::read(wake, &mut [0; 8]).unwrap();
                for stream in accepted.try_iter() {
                    add(&stream, connections.len());
                    connections.push(Some(stream));
                }
                continue;
            };
            let Some(stream) = place else { continue };
            let answered = match stream.read(&mut buffer) {
                Ok(0) | Err(_) => false,
                Ok(read) => write_all(stream, answers.to(&buffer[..read])),
            };
            if !answered {
                *place = None;
            }
        }
    }
}

/// Sockets do not block; the load always reads, so this hardly ever tries again.
fn write_all(stream: &mut TcpStream, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(_) => return false,
        }
    }
    true
}
