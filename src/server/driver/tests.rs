//! What tokio adds to a connection: turns between tasks, TLS that keeps what it is to send, and what a batch costs.

use std::sync::atomic::Ordering::Relaxed;

use tokio::io::{AsyncReadExt, DuplexStream, ReadBuf, duplex, join};
use tokio::time::{Sleep, sleep};

use super::*;
use crate::cache;
use crate::server::Limits;
use crate::server::connection::input::READ_BYTES_MAX;
use crate::server::connection::tests::world::{limits, origin, policy, seconds, server_state_with_token};

/// A server without sockets.
struct Server {
    worker: WorkerContext,
}

impl Server {
    fn new(limits: Limits) -> Server {
        let shared = server_state_with_token(limits);
        let stats = shared.service.stats.register_worker();
        Server { worker: WorkerContext { shared, stats, busy: TaskTracker::new() } }
    }

    fn connection<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, tls: bool) -> ConnectionDriver<S> {
        self.worker.shared.service.stats.curr_connections.fetch_add(1, Relaxed);
        let policy = ListenerPolicy { tls, ..policy() };
        ConnectionDriver::new(stream, origin(), &policy, policy.rights.clone(), self.worker.clone())
    }

    /// Serves a client with so much room in each direction; gives the client's end.
    fn connect(&self, room: usize) -> DuplexStream {
        let (client, server) = duplex(room);
        tokio::spawn(self.connection(server, false).run());
        client
    }
}

async fn expect(client: &mut DuplexStream, send: &str, expected: &str) {
    client.write_all(send.as_bytes()).await.unwrap();
    let mut answer = vec![0; expected.len()];
    // In virtual time a bound costs nothing, and an answer that never comes is a failure and not a standstill.
    let read = timeout(seconds(1000), client.read_exact(&mut answer)).await;
    read.unwrap_or_else(|_| panic!("no answer to {send:.50?}")).unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), expected, "to {send:.50?}");
}

#[tokio::test(start_paused = true)]
async fn a_long_pipeline_gives_its_neighbours_a_turn() {
    let server = Server::new(limits());
    let (mut greedy, mut modest) = (server.connect(1 << 20), server.connect(1024));
    greedy.write_all("mn\r\n".repeat(100_000).as_bytes()).await.unwrap();
    let answers = tokio::spawn(async move {
        let mut answer = vec![0; 400_000];
        greedy.read_exact(&mut answer).await.unwrap();
        answer
    });
    let mut turns = Vec::new();
    for _ in 0..20 {
        expect(&mut modest, "mn\r\n", "MN\r\n").await;
        turns.push(server.worker.stats.conn_yields.get());
    }
    assert!(turns[0] <= 3, "the first answer came after {} turns of the neighbour", turns[0]);
    assert!(turns[19] <= 100, "the twentieth came after {}", turns[19]);
    assert!(answers.await.unwrap() == "MN\r\n".repeat(100_000).as_bytes());
    assert!(server.worker.stats.conn_yields.get() > 4000);
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_over_after_so_many_keys_or_requests_however_the_bytes_arrive() {
    let server = Server::new(limits());
    // Each batch is whole and there is always another one: the connection never waits by itself.
    for (batch, turns) in
        [("mn\r\n".repeat(15), 60), (format!("get{}\r\n", " k".repeat(900)), 70), ("stats\r\n".into(), 99)]
    {
        let before = server.worker.stats.conn_yields.get();
        let stream = Script { batch: batch.clone().into(), times: 100, paused: true, never_waits: true };
        server.connection(join(stream, TakesAll), false).run().await;
        let yields = server.worker.stats.conn_yields.get() - before;
        assert!(yields >= turns, "{batch:.10}: {yields}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_large_values_gives_its_neighbours_a_turn_for_every_so_many_bytes() {
    let server = Server::new(limits());
    let batch = [b"set k 0 0 200000\r\n".as_slice(), &[b'v'; 200_000], b"\r\n"].concat();
    server.connection(join(&batch.repeat(100)[..], TakesAll), false).run().await;
    assert_eq!(server.worker.stats.bytes_read.get(), 100 * 200_020);
    let yields = server.worker.stats.conn_yields.get();
    assert!(yields >= 100 * 200_020 / (2 * READ_BYTES_MAX as u64), "{yields} turns");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_small() {
    let server = Server::new(limits());
    let (mut client, stream) = duplex(1024);
    let mut connection = server.connection(stream, false);
    client.write_all(b"get a\r\n").await.unwrap();
    assert!(timeout(seconds(100), connection.serve()).await.is_err(), "it is still there");
    let task = std::mem::size_of_val(&connection.run());
    assert!(task < 2048, "{task} bytes");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_closed_at_its_deadline() {
    let server = Server::new(Limits { idle_timeout: Some(seconds(5)), ..limits() });
    let mut client = server.connect(1024);
    expect(&mut client, "mn\r\n", "MN\r\n").await;
    let begun = Instant::now();
    assert_eq!(timeout(seconds(1000), client.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert_eq!(server.worker.stats.idle_kicks.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_given_up_at_its_deadline() {
    let server = Server::new(limits());
    let (mut client, stream) = duplex(1024);
    let mut connection = server.connection(stream, false);
    client.write_all("get access_token:wx1\r\n".repeat(8).as_bytes()).await.unwrap();
    let ended = timeout(seconds(1000), connection.serve()).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(server.worker.stats.write_timeouts.get(), 1);
}

/// To it nothing more can be written, nor can it be closed.
struct Stuck;

impl AsyncWrite for Stuck {
    fn poll_write(self: Pin<&mut Self>, _: &mut std::task::Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_to_give_way_on_tls_lets_go_at_once() {
    let server = Server::new(Limits { in_flight_bytes_max: 3 << 20, ..limits() });
    let mut readers = Vec::new();
    let mut writer = server.connect(2 << 20);
    for _ in 0..20 {
        let set = format!("set k 0 0 1000000\r\n{}\r\n", "v".repeat(1_000_000));
        expect(&mut writer, &set, "STORED\r\n").await;
        let (mut client, stream) = duplex(1024);
        tokio::spawn(server.connection(join(stream, Stuck), true).run());
        client.write_all(b"get k\r\n").await.unwrap();
        readers.push(client);
        sleep(Duration::from_millis(10)).await;
    }
    let detached = server.worker.shared.service.cache.detached().bytes();
    assert!(detached <= 3 << 20, "{detached} bytes");
    let open = server.worker.shared.service.stats.curr_connections.load(Relaxed);
    assert!(open <= 5, "{open}: nobody waits for a peer that takes nothing to close");
}

/// A peer that asks once, takes each thing only after a while, and then goes away.
struct Hesitates {
    asked: bool,
    written: bool,
    takes: Pin<Box<Sleep>>,
    pause: Duration,
}

impl AsyncRead for Hesitates {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.asked, true) {
            buffer.put_slice(b"mn\r\n");
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Hesitates {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.takes.as_mut().poll(cx));
        let next = Instant::now() + self.pause;
        self.takes.as_mut().reset(next);
        self.written = true;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.takes.as_mut().poll(cx));
        if self.written { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn what_tls_keeps_back_has_as_much_time_to_be_taken_as_any_step() {
    let server = Server::new(limits());
    let pause = server.worker.shared.limits.write_timeout - seconds(1);
    let stream = Hesitates { asked: false, written: false, takes: Box::pin(sleep(pause)), pause };
    server.connection(stream, true).run().await;
    assert_eq!(server.worker.stats.write_timeouts.get(), 0);
    assert_eq!(server.worker.stats.bytes_written.get(), 4);
}

/// A peer that sends the same batch so many times, each time after a pause, and then goes away.
struct Script {
    batch: Vec<u8>,
    times: usize,
    paused: bool,
    /// There is no pause.
    never_waits: bool,
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.paused = !self.paused;
        if self.paused && !self.never_waits {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(left) = self.times.checked_sub(1) {
            buffer.put_slice(&self.batch);
            self.times = left;
        }
        Poll::Ready(Ok(()))
    }
}

/// Takes every answer at once. `tokio::io::sink` does not: it yields when its task has had its turn.
struct TakesAll;

impl AsyncWrite for TakesAll {
    fn poll_write(self: Pin<&mut Self>, _: &mut task::Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Serves a batch so many times, and says how often memory was allocated meanwhile.
fn allocations(server: &Server, batch: &str, times: usize) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut script = Some(Script { batch: batch.into(), times, paused: false, never_waits: false });
    let mut serve = || runtime.block_on(server.connection(join(script.take().unwrap(), TakesAll), false).run());
    allocation_counter::measure(&mut serve).count_total
}

#[test]
fn a_hit_allocates_nothing() {
    let server = Server::new(limits());
    let value = "x".repeat(10_000);
    let huge = "x".repeat(100_000);
    let cache = &server.worker.shared.service.cache;
    cache.store(cache::Mode::Set, b"huge", 0, 0, huge.as_bytes(), 1);
    let set = format!("set large 0 0 10000\r\n{value}\r\nset small 7 0 5\r\nvalue\r\n");
    allocations(&server, &set, 1);
    let batches = [
        "get large\r\n",
        "get huge small huge\r\nmg huge v\r\n",
        "get small absent large small\r\n",
        "gets small\r\n",
        "mg large v\r\n",
        "mg small v f t c k Oopaque\r\n",
        "mg absent v\r\n",
        "get access_token:wx1\r\ngets access_token:wx1\r\nmg access_token:wx1 v t\r\n",
        "incr absent 1\r\ndelete absent\r\ntouch small 0\r\n",
    ];
    for batch in batches.map(str::to_owned).into_iter().chain([batches[1].repeat(10)]) {
        // The first time the buffers are made, and the connection's own things each time.
        allocations(&server, &batch, 3);
        let (few, many) = (allocations(&server, &batch, 3), allocations(&server, &batch, 303));
        assert_eq!(few, many, "300 times {batch:?}");
    }
}

/// What panics when it is read from, as a bug would.
struct Panics;

impl AsyncRead for Panics {
    fn poll_read(self: Pin<&mut Self>, _: &mut task::Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        panic!("as a bug would");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_one_connection_ends_that_one_alone_and_gives_back_what_it_held() {
    let server = Server::new(limits());
    let mut other = server.connect(1 << 16);
    expect(&mut other, "set k 0 0 1\r\nv\r\n", "STORED\r\n").await;
    let (mut client, end) = duplex(1 << 16);
    let ended = tokio::spawn(server.connection(join(Panics, end), false).run()).await;
    assert!(ended.is_err_and(|error| error.is_panic()));
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "it is hung up on");
    assert_eq!(server.worker.shared.service.stats.curr_connections.load(Relaxed), 1);
    assert_eq!(server.worker.shared.in_flight.bytes(), 0);
    expect(&mut other, "get k\r\n", "VALUE k 0 1\r\nv\r\nEND\r\n").await;
}
