//! Deadlines, back-pressure and fairness in virtual time, over streams in memory.

use std::sync::atomic::AtomicI32;

use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::cache::{self, Cache};
use crate::config::Access;
use crate::credential::encoding::View;
use crate::credential::table::{Key, Published, Table};
use crate::net::Guard;
use crate::service::{Service, Settings};
use crate::stats::Stats;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn limits() -> Limits {
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

/// A server without sockets.
struct Server {
    lot: Lot,
}

impl Server {
    fn new(limits: Limits) -> Server {
        let options = cache::Options { budget_bytes: 64 << 20, item_size_max_bytes: 1 << 20, evict: true, shards: 4 };
        let token = Key { name: "access_token:wx1".into(), spoken: None, view: View::RAW };
        let (table, _reports) = Table::new([("wx1", vec![token])]);
        let value = "a token".repeat(70).into();
        table.credentials()[0].publish(Published { value, generation: 1, expires_boot_ms: u64::MAX });
        let service =
            Service::new(Cache::new(&options), Arc::new(table), Arc::new(Stats::default()), Settings::default());
        let service = Arc::new(service);
        let guard = Arc::new(Guard::new(&Access::default()).unwrap());
        let stats = service.stats.register_worker();
        let shared = Arc::new(Shared::new(service, guard, limits, CancellationToken::new()));
        Server { lot: Lot { shared, stats, busy: Arc::new(Busy::new(TaskTracker::new())) } }
    }

    fn connection<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Connection<S> {
        static DESCRIPTORS: AtomicI32 = AtomicI32::new(0);
        let descriptor = DESCRIPTORS.fetch_add(1, Relaxed);
        let origin = Origin { peer: Peer::Unix, listen_addr: "unix:test".into(), descriptor };
        let terms =
            Terms { rights: Arc::new(Rights::ALL), login: false, tls: false, protocol: crate::config::Protocol::Auto };
        self.lot.shared.service.stats.curr_connections.fetch_add(1, Relaxed);
        Connection::new(stream, origin, &terms, terms.rights.clone(), self.lot.clone())
    }

    /// Serves a client with so much room in each direction; gives the client's end.
    fn connect(&self, room: usize) -> DuplexStream {
        let (client, server) = duplex(room);
        tokio::spawn(self.connection(server).run());
        client
    }

    fn in_flight(&self) -> u64 {
        let mut share = 0;
        let max = self.lot.shared.limits.in_flight_bytes_max;
        // The most that can still be had says what is taken.
        let free = (0..=max).rev().step_by(1 << 10).find(|bytes| {
            self.lot.shared.in_flight.resize(&mut share, usize::try_from(*bytes).unwrap() + BUFFER_BYTES)
        });
        self.lot.shared.in_flight.resize(&mut share, 0);
        max - free.unwrap_or(0)
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

/// Sends these bytes one a second until the server hangs up; the seconds that took.
async fn trickle(client: &mut DuplexStream, byte: &[u8]) -> u64 {
    let begun = Instant::now();
    while client.write_all(byte).await.is_ok() {
        sleep(seconds(1)).await;
        assert!(begun.elapsed() < seconds(10_000), "it is never given up");
    }
    begun.elapsed().as_secs()
}

/// More than three quarters of the connections there may be.
fn crowd(server: &Server) -> Vec<DuplexStream> {
    (0..=server.lot.shared.limits.max_connections * 3 / 4).map(|_| server.connect(64)).collect()
}

#[tokio::test(start_paused = true)]
async fn under_pressure_a_line_that_trickles_in_is_given_up_ten_seconds_after_its_first_byte() {
    let server = Server::new(limits());
    let _crowd = crowd(&server);
    let mut client = server.connect(1024);
    sleep(seconds(3600)).await;
    expect(&mut client, "mn\r\n", "MN\r\n").await;
    assert!((10..=12).contains(&trickle(&mut client, b"g").await));
    assert_eq!(server.lot.stats.request_timeouts.get(), 1);
    assert_eq!(server.lot.stats.idle_kicks.get(), 0, "this is not idleness");
}

/// Types these bytes one by one, each after a pause.
async fn type_slowly(client: &mut DuplexStream, text: &str, pause: Duration) {
    for byte in text.as_bytes() {
        client.write_all(&[*byte]).await.unwrap();
        sleep(pause).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_person_may_type_slowly_while_nothing_is_scarce() {
    let server = Server::new(limits());
    let mut client = server.connect(1024);
    type_slowly(&mut client, "get access_token:wx1\r", seconds(3)).await;
    let token = "a token".repeat(70);
    expect(&mut client, "\n", &format!("VALUE access_token:wx1 0 {}\r\n{token}\r\nEND\r\n", token.len())).await;
    type_slowly(&mut client, "set k 0 0 26\r\nwhat a person has to say!!\r", seconds(5)).await;
    expect(&mut client, "\n", "STORED\r\n").await;
    // One pause to look something up.
    type_slowly(&mut client, "get ", seconds(50)).await;
    expect(&mut client, "nothing\r\n", "END\r\n").await;
    assert_eq!(server.lot.stats.request_timeouts.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_stops_typing_is_given_up_after_a_minute_and_who_never_ends_after_ten() {
    let server = Server::new(limits());
    let mut client = server.connect(1024);
    type_slowly(&mut client, "get acc", seconds(3)).await;
    let begun = Instant::now();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(begun.elapsed().as_secs(), 57, "a minute after the last byte, of which three seconds are over");
    assert_eq!(server.lot.stats.request_timeouts.get(), 1);

    assert!((600..=602).contains(&trickle(&mut server.connect(1024), b"g").await));
    // What is too long to have been typed keeps its old deadline.
    let mut client = server.connect(8192);
    client.write_all(format!("get {}", "k".repeat(2100)).as_bytes()).await.unwrap();
    assert!((10..=12).contains(&trickle(&mut client, b"g").await));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_half_typed_lines_are_all_gone_once_there_is_pressure() {
    let server = Server::new(Limits { max_connections: 14_000, in_flight_bytes_max: 2 << 20, ..limits() });
    let open = || server.lot.shared.service.stats.curr_connections.load(Relaxed);
    let mut slow = Vec::new();
    for _ in 0..10_000 {
        let mut client = server.connect(64);
        client.write_all(b"g").await.unwrap();
        slow.push(client);
    }
    sleep(seconds(50)).await;
    assert_eq!(open(), 10_000, "nobody is in need of what they have");
    // Places get scarce...
    let others: Vec<DuplexStream> = (0..600).map(|_| server.connect(64)).collect();
    sleep(seconds(3)).await;
    assert_eq!(open(), 600);
    let mut client = server.connect(1024);
    expect(&mut client, "mn\r\n", "MN\r\n").await;
    drop((slow, others));
    // ...or memory.
    let mut slow = server.connect(64);
    slow.write_all(b"g").await.unwrap();
    sleep(seconds(50)).await;
    let mut half = server.connect(2 << 20);
    half.write_all(b"set k 0 0 1040000\r\n").await.unwrap();
    for _ in 0..2 {
        let mut other = server.connect(2 << 20);
        other.write_all(b"set k 0 0 1040000\r\n").await.unwrap();
        other.write_all(&[b'v'; 700_000]).await.unwrap();
        sleep(seconds(1)).await;
        if server.lot.shared.is_under_pressure() {
            sleep(seconds(3)).await;
            assert_eq!(slow.read(&mut [0; 8]).await.unwrap(), 0, "it has had its time");
            return;
        }
        half = other;
    }
    drop(half);
    panic!("there is never any pressure");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_trickles_in_is_given_up_and_never_seen() {
    let server = Server::new(limits());
    for (head, allowed) in [("set k 0 0 100000\r\n", 66), ("set k 0 0 9000000\r\n", 60 + 549), ("ms k 100000\r\n", 66)]
    {
        let mut client = server.connect(1 << 20);
        client.write_all(head.as_bytes()).await.unwrap();
        let took = trickle(&mut client, b"v").await;
        assert!((allowed..allowed + 3).contains(&took), "{head}: {took} s");
    }
    expect(&mut server.connect(1024), "get k\r\n", "END\r\n").await;
    assert_eq!(server.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_but_steady_value_arrives() {
    let server = Server::new(limits());
    let mut client = server.connect(1 << 20);
    // Refused ones must be thrown away as patiently as others are received.
    for (bytes, answer) in [(1_000_000, "STORED\r\n"), (8_000_000, "SERVER_ERROR object too large for cache\r\n")] {
        client.write_all(format!("set k 0 0 {bytes}\r\n").as_bytes()).await.unwrap();
        for _ in 0..bytes / 20_000 {
            client.write_all(&[b'v'; 20_000]).await.unwrap();
            sleep(seconds(1)).await;
        }
        expect(&mut client, "\r\n", answer).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_always_ends_in_mid_request_has_all_the_time_it_needs() {
    let server = Server::new(limits());
    let mut client = server.connect(1024);
    expect(&mut client, "mn\r\nm", "MN\r\n").await;
    for _ in 0..600 {
        sleep(seconds(1)).await;
        expect(&mut client, "n\r\nm", "MN\r\n").await;
    }
    for _ in 0..60 {
        expect(&mut client, "n\r\nset k 0 0 5\r\n12", "MN\r\n").await;
        sleep(seconds(9)).await;
        expect(&mut client, "345\r\nm", "STORED\r\n").await;
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_silent_client_is_idle() {
    let server = Server::new(Limits { idle_timeout: Some(seconds(5)), ..limits() });
    let mut client = server.connect(1024);
    for _ in 0..10 {
        sleep(seconds(4)).await;
        expect(&mut client, "mn\r\n", "MN\r\n").await;
    }
    let begun = Instant::now();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert_eq!(server.lot.stats.idle_kicks.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_costs_little_and_is_given_up() {
    let server = Server::new(limits());
    let value = "v".repeat(1_000_000);
    expect(&mut server.connect(2 << 20), &format!("set k 0 0 1000000\r\n{value}\r\n"), "STORED\r\n").await;

    let (mut client, stream) = duplex(8192);
    let mut connection = server.connection(stream);
    let asks = tokio::spawn(async move {
        let begun = Instant::now();
        // Each asks for a megabyte.
        while client.write_all(b"get k\r\n").await.is_ok() {}
        begun.elapsed().as_secs()
    });
    let error = timeout(seconds(1000), connection.serve()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(connection.output.len() <= OUTPUT_BYTES_MAX + value.len() + 100, "{}", connection.output.len());
    assert!(connection.input.len() <= 2 * BUFFER_BYTES, "it read on while nobody took its answers");
    drop(connection);
    assert_eq!(asks.await.unwrap(), 30);
    assert_eq!(server.lot.stats.write_timeouts.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_gets_everything() {
    let server = Server::new(limits());
    let mut client = server.connect(4096);
    let value = "v".repeat(500_000);
    expect(&mut client, &format!("set k 0 0 500000\r\n{value}\r\n"), "STORED\r\n").await;
    client.write_all(b"get k\r\n").await.unwrap();
    let whole = format!("VALUE k 0 500000\r\n{value}\r\nEND\r\n");
    let mut answer = Vec::new();
    while answer.len() < whole.len() {
        sleep(seconds(20)).await;
        let mut part = vec![0; 4096];
        let read = client.read(&mut part).await.unwrap();
        answer.extend_from_slice(&part[..read]);
    }
    assert!(answer == whole.as_bytes());
}

#[tokio::test(start_paused = true)]
async fn half_received_values_share_a_bounded_memory() {
    let server = Server::new(Limits { in_flight_bytes_max: 2 << 20, ..limits() });
    let mut small = server.connect(1024);
    expect(&mut small, "set d 0 0 1\r\nx\r\n", "STORED\r\n").await;
    // Announcing costs nothing.
    let mut boasters = Vec::new();
    for _ in 0..50 {
        let mut client = server.connect(1 << 20);
        client.write_all(b"set a 0 0 1000000\r\n0123456789").await.unwrap();
        boasters.push(client);
    }
    expect(&mut small, "set b 0 0 3\r\nabc\r\nget b\r\n", "STORED\r\nVALUE b 0 3\r\nabc\r\nEND\r\n").await;

    let mut halves = Vec::new();
    for _ in 0..3 {
        let mut client = server.connect(1 << 20);
        client.write_all(b"set c 0 0 900000\r\n").await.unwrap();
        client.write_all(&[b'v'; 600_000]).await.unwrap();
        halves.push(client);
    }
    let block = "v".repeat(900_000);
    let mut late = server.connect(1 << 20);
    for (store, answer) in [
        ("set d 0 0 900000\r\n", "SERVER_ERROR out of memory storing object\r\n"),
        ("ms e 900000\r\n", "SERVER_ERROR out of memory storing object\r\n"),
        ("set d 0 0 900000 noreply\r\n", ""),
    ] {
        expect(&mut late, &format!("{store}{block}\r\nmn\r\n"), &format!("{answer}MN\r\n")).await;
    }
    assert!(server.lot.stats.in_flight_refusals.get() >= 3);
    // As with any store that fails, nobody reads what was to be replaced; and small ones go on.
    expect(&mut late, "get d\r\nset f 0 0 1\r\nx\r\n", "END\r\nSTORED\r\n").await;
    drop(halves);
    drop(boasters);
    tokio::task::yield_now().await;
    expect(&mut late, &format!("set d 0 0 900000\r\n{block}\r\n"), "STORED\r\n").await;
    assert_eq!(server.in_flight(), 0, "every share came back");
}

#[tokio::test(start_paused = true)]
async fn a_value_the_system_has_no_memory_for_is_refused_in_step() {
    let server = Server::new(limits());
    let (client, stream) = duplex(1 << 20);
    let mut client = client;
    let mut connection = server.connection(stream);
    let store = tokio::spawn(async move {
        client.write_all(b"set k 0 0 500000\r\n").await.unwrap();
        client.write_all(&[b'v'; 100_000]).await.unwrap();
        client
    });
    assert!(timeout(seconds(1), connection.serve()).await.is_err(), "it waits for the rest");
    // As the reader finds it out when its buffer cannot grow.
    connection.no_room = true;
    let serving = tokio::spawn(async move { connection.serve().await });
    let mut client = store.await.unwrap();
    client.write_all(&[b'v'; 1_000]).await.unwrap();
    sleep(seconds(1)).await;
    client.write_all(&[b'v'; 399_000]).await.unwrap();
    expect(&mut client, "\r\nmn\r\n", "SERVER_ERROR out of memory storing object\r\nMN\r\n").await;
    assert_eq!(server.lot.stats.in_flight_refusals.get(), 1);
    drop(client);
    serving.await.unwrap().unwrap();
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
        turns.push(server.lot.stats.conn_yields.get());
    }
    assert!(turns[0] <= 3, "the first answer came after {} turns of the neighbour", turns[0]);
    assert!(turns[19] <= 100, "the twentieth came after {}", turns[19]);
    assert!(answers.await.unwrap() == "MN\r\n".repeat(100_000).as_bytes());
    assert!(server.lot.stats.conn_yields.get() > 4000);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_holds_no_buffer_and_is_small() {
    let server = Server::new(limits());
    let (mut client, stream) = duplex(1024);
    let mut connection = server.connection(stream);
    client.write_all(b"get a\r\n").await.unwrap();
    assert!(timeout(seconds(100), connection.serve()).await.is_err(), "it is still there");
    assert_eq!((connection.input.capacity(), connection.output.capacity()), (0, 0));
    let task = std::mem::size_of_val(&connection.run());
    assert!(task < 2048, "{task} bytes");
}

/// A peer that sends the same batch so many times, each time after a pause, takes every answer at once, and then goes
/// away.
struct Script {
    batch: Vec<u8>,
    times: usize,
    paused: bool,
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.paused = !self.paused;
        if self.paused {
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

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut std::task::Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Serves a batch so many times, and says how often memory was allocated meanwhile.
fn allocations(server: &Server, batch: &str, times: usize) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut script = Some(Script { batch: batch.into(), times, paused: false });
    let mut serve = || runtime.block_on(server.connection(script.take().unwrap()).run());
    allocation_counter::measure(&mut serve).count_total
}

#[test]
fn a_hit_allocates_nothing() {
    let server = Server::new(limits());
    let value = "x".repeat(10_000);
    let set = format!("set large 0 0 10000\r\n{value}\r\nset small 7 0 5\r\nvalue\r\n");
    allocations(&server, &set, 1);
    let batches = [
        "get large\r\n",
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
