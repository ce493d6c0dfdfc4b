//! Deadlines, back-pressure and fairness in virtual time, over streams in memory.

use std::sync::atomic::AtomicI32;

use tokio::io::{AsyncReadExt, DuplexStream, ReadBuf, duplex};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::cache::{self, Cache};
use crate::credential::table::{CredentialWriter, KeyConfig, Published, Table, TableConfig};
use crate::encoding::View;
use crate::server::Access;
use crate::server::Authenticator;
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
    worker: WorkerContext,
}

impl Server {
    fn new(limits: Limits) -> Server {
        let (server, writers) = Server::with_writers(limits);
        let value = "a token".repeat(70).into();
        writers[0].publish(Published::to_the_end(value, 1, u64::MAX));
        server
    }

    /// One whose first fetches are all under way.
    fn with_first_fetch(limits: Limits) -> Server {
        Server::with_writers(limits).0
    }

    fn with_writers(limits: Limits) -> (Server, Vec<CredentialWriter>) {
        let options = cache::Options { budget_bytes: 64 << 20, item_size_max_bytes: 1 << 20, evict: true, shards: 4 };
        let token = |name: &str| vec![KeyConfig { name: name.into(), redacted_name: None, view: View::RAW }];
        let apps = [("wx1", token("access_token:wx1")), ("wx2", token("access_token:wx2"))];
        let (table, writers, _requests) = Table::new(TableConfig::of(apps));
        let service =
            Service::new(Cache::new(&options), Arc::new(table), Arc::new(Stats::default()), Settings::default());
        let service = Arc::new(service);
        let authenticator = Arc::new(Authenticator::new(&Access::default()).unwrap());
        let stats = service.stats.register_worker();
        let shared = Arc::new(ServerState::new(service, authenticator, limits, CancellationToken::new()));
        let busy = Arc::new(BusyConnections::new(TaskTracker::new()));
        (Server { worker: WorkerContext { shared, stats, busy } }, writers)
    }

    fn connection<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Connection<S> {
        static DESCRIPTORS: AtomicI32 = AtomicI32::new(0);
        let descriptor = DESCRIPTORS.fetch_add(1, Relaxed);
        let origin = ConnectionOrigin { peer: Peer::Unix, listen_addr: "unix:test".into(), descriptor };
        let policy = ListenerPolicy {
            rights: Arc::new(Rights::ALL),
            login: false,
            tls: false,
            protocol: crate::server::Protocol::Auto,
        };
        self.worker.shared.service.stats.curr_connections.fetch_add(1, Relaxed);
        Connection::new(stream, origin, &policy, policy.rights.clone(), self.worker.clone())
    }

    /// Serves a client with so much room in each direction; gives the client's end.
    fn connect(&self, room: usize) -> DuplexStream {
        let (client, server) = duplex(room);
        tokio::spawn(self.connection(server).run());
        client
    }

    fn in_flight(&self) -> u64 {
        self.worker.shared.in_flight.bytes()
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
    (0..=server.worker.shared.limits.max_connections * 3 / 4).map(|_| server.connect(64)).collect()
}

#[tokio::test(start_paused = true)]
async fn under_pressure_a_line_that_trickles_in_is_given_up_ten_seconds_after_its_first_byte() {
    let server = Server::new(limits());
    let _crowd = crowd(&server);
    let mut client = server.connect(1024);
    sleep(seconds(3600)).await;
    expect(&mut client, "mn\r\n", "MN\r\n").await;
    assert!((10..=12).contains(&trickle(&mut client, b"g").await));
    assert_eq!(server.worker.stats.request_timeouts.get(), 1);
    assert_eq!(server.worker.stats.idle_kicks.get(), 0, "this is not idleness");
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
    assert_eq!(server.worker.stats.request_timeouts.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_stops_typing_is_given_up_after_a_minute_and_who_never_ends_after_ten() {
    let server = Server::new(limits());
    let mut client = server.connect(1024);
    type_slowly(&mut client, "get acc", seconds(3)).await;
    let begun = Instant::now();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(begun.elapsed().as_secs(), 57, "a minute after the last byte, of which three seconds are over");
    assert_eq!(server.worker.stats.request_timeouts.get(), 1);

    assert!((600..=602).contains(&trickle(&mut server.connect(1024), b"g").await));
    // What is too long to have been typed keeps its old deadline.
    let mut client = server.connect(8192);
    client.write_all(format!("get {}", "k".repeat(2100)).as_bytes()).await.unwrap();
    assert!((10..=12).contains(&trickle(&mut client, b"g").await));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_half_typed_lines_are_all_gone_once_there_is_pressure() {
    let server = Server::new(Limits { max_connections: 14_000, in_flight_bytes_max: 2 << 20, ..limits() });
    let open = || server.worker.shared.service.stats.curr_connections.load(Relaxed);
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
        if server.worker.shared.is_under_pressure() {
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
    assert_eq!(server.worker.stats.idle_kicks.get(), 1);
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
    assert_eq!(server.worker.stats.write_timeouts.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_behind_a_modem_gets_everything() {
    let server = Server::new(limits());
    let mut client = server.connect(4096);
    let value = "v".repeat(1_000_000);
    expect(&mut client, &format!("set k 0 0 1000000\r\n{value}\r\n"), "STORED\r\n").await;
    client.write_all(b"get k\r\n").await.unwrap();
    let whole = format!("VALUE k 0 1000000\r\n{value}\r\nEND\r\n");
    let mut answer = Vec::new();
    while answer.len() < whole.len() {
        // 14,400 baud, in bursts.
        sleep(seconds(20)).await;
        let mut part = vec![0; 36_000];
        let until = part.len().min(whole.len() - answer.len());
        client.read_exact(&mut part[..until]).await.unwrap();
        answer.extend_from_slice(&part[..until]);
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
        sleep(seconds(1)).await;
        assert!(server.in_flight() <= 2 << 20);
        halves.push(client);
    }
    let block = "v".repeat(900_000);
    let mut late = server.connect(1 << 20);
    expect(&mut late, &format!("set d 0 0 900000\r\n{block}\r\n"), "STORED\r\n").await;
    // Those who had to give way are told so, and stay in step. As with any store that fails, nobody reads what was to be
    // replaced.
    let rest = "v".repeat(300_000);
    for client in &mut halves[..2] {
        let answer = "SERVER_ERROR out of memory storing object\r\nMN\r\n";
        expect(client, &format!("{rest}\r\nmn\r\n"), answer).await;
    }
    expect(&mut late, "get c\r\n", "END\r\n").await;
    expect(&mut halves[2], &format!("{rest}\r\nmn\r\n"), "STORED\r\nMN\r\n").await;
    assert_eq!(server.worker.stats.in_flight_refusals.get(), 2);
    drop(halves);
    drop(boasters);
    tokio::task::yield_now().await;
    expect(&mut late, &format!("ms d 900000\r\n{block}\r\n"), "HD\r\n").await;
    assert_eq!(server.in_flight(), 0, "every share came back");
}

/// Begins a value of a megabyte and stops.
async fn half_send(server: &Server) -> DuplexStream {
    let mut client = server.connect(1 << 20);
    client.write_all(b"set half 0 0 1040000\r\n").await.unwrap();
    client.write_all(&[b'v'; 1_030_000]).await.unwrap();
    client
}

#[tokio::test(start_paused = true)]
async fn sixty_six_half_sent_values_keep_nobody_from_storing() {
    let server = Server::new(Limits { in_flight_bytes_max: 64 << 20, ..limits() });
    let mut halves = Vec::new();
    for _ in 0..66 {
        halves.push(half_send(&server).await);
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    let block = "v".repeat(100_000);
    for _ in 0..20 {
        expect(&mut server.connect(1 << 20), &format!("set new 0 0 100000\r\n{block}\r\n"), "STORED\r\n").await;
    }
    assert_eq!(begun.elapsed(), Duration::ZERO, "nobody waits for a deadline");
    assert!(server.in_flight() <= 64 << 20);
    // Not one more than must has to give way: each new value needs a tenth of what that frees.
    assert!((1..=5).contains(&server.worker.stats.in_flight_refusals.get()));
}

#[tokio::test(start_paused = true)]
async fn a_steady_sender_is_not_pushed_out_by_those_who_stop() {
    let server = Server::new(Limits { in_flight_bytes_max: 4 << 20, ..limits() });
    let mut steady = server.connect(1 << 20);
    let mut halves = Vec::new();
    steady.write_all(b"set steady 0 0 1000000\r\n").await.unwrap();
    for _ in 0..10 {
        steady.write_all(&[b'v'; 100_000]).await.unwrap();
        halves.push(half_send(&server).await);
        sleep(seconds(1)).await;
        assert!(server.in_flight() <= 4 << 20);
    }
    expect(&mut steady, "\r\n", "STORED\r\n").await;
    assert!(server.worker.stats.in_flight_refusals.get() >= 5);
}

#[tokio::test(start_paused = true)]
async fn a_half_sent_get_line_that_has_to_give_way_is_closed() {
    let server = Server::new(Limits { in_flight_bytes_max: 2 << 20, ..limits() });
    let mut line = server.connect(1 << 20);
    line.write_all(format!("get{}", " k".repeat(400_000)).as_bytes()).await.unwrap();
    sleep(seconds(1)).await;
    let _halves = [half_send(&server).await, half_send(&server).await];
    assert_eq!(timeout(seconds(1), line.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
}

/// Asks for a key and reads nothing.
async fn ask_and_read_nothing(server: &Server, key: &str) -> DuplexStream {
    let mut client = server.connect(1024);
    client.write_all(format!("get {key}\r\n").as_bytes()).await.unwrap();
    sleep(Duration::from_millis(10)).await;
    client
}

async fn store(server: &Server, key: &str, length: usize) {
    let block = "v".repeat(length);
    let mut client = server.connect(2 << 20);
    expect(&mut client, &format!("set {key} 0 0 {length}\r\n{block}\r\n"), "STORED\r\n").await;
}

async fn expect_value(client: &mut DuplexStream, key: &str, length: usize) {
    let value = format!("VALUE {key} 0 {length}\r\n{}\r\nEND\r\n", "v".repeat(length));
    expect(client, &format!("get {key}\r\n"), &value).await;
}

#[tokio::test(start_paused = true)]
async fn readers_that_read_nothing_cost_one_value_between_them() {
    let server = Server::new(limits());
    store(&server, "k", 1_000_000).await;
    let mut readers = Vec::new();
    for _ in 0..60 {
        readers.push(ask_and_read_nothing(&server, "k").await);
    }
    assert_eq!(server.in_flight(), 0, "the value is in the cache and nowhere else");
    store(&server, "k", 999_999).await;
    assert!((1_000_000..1_001_000).contains(&server.in_flight()), "{}: once, not for each", server.in_flight());
    expect_value(&mut server.connect(1024), "k", 999_999).await;
    // Those who begin to read get the value they asked for, whole.
    let value = format!("VALUE k 0 1000000\r\n{}\r\nEND\r\n", "v".repeat(1_000_000));
    expect(&mut readers[0], "", &value).await;
    drop(readers);
    sleep(seconds(1)).await;
    assert_eq!(server.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_readers_hold_of_values_that_are_gone_is_bounded() {
    let server = Server::new(Limits { in_flight_bytes_max: 4 << 20, ..limits() });
    let mut readers = Vec::new();
    let (mut most, mut steady) = (0, server.connect(1024));
    for _ in 0..20 {
        store(&server, "k", 1_000_000).await;
        for _ in 0..3 {
            readers.push(ask_and_read_nothing(&server, "k").await);
        }
        expect_value(&mut steady, "k", 1_000_000).await;
        most = most.max(server.in_flight());
    }
    assert!((3 << 20..=5 << 20).contains(&most), "{most}");
    // The oldest had to give way, and no more of them than must: three hold each value.
    let closed = server.worker.stats.answer_refusals.get();
    assert!((45..=51).contains(&closed), "{closed}");
    assert!(server.in_flight() <= 4 << 20);
}

#[tokio::test(start_paused = true)]
async fn answers_of_many_small_values_are_bounded_over_all_connections_and_all_are_served() {
    let server = Server::new(Limits { in_flight_bytes_max: 2 << 20, ..limits() });
    store(&server, "k", 2000).await;
    let many = "k ".repeat(500);
    let mut readers = Vec::new();
    for _ in 0..50 {
        readers.push(ask_and_read_nothing(&server, &many).await);
        assert!(server.in_flight() <= 2 << 20, "{}", server.in_flight());
    }
    assert!(server.in_flight() > 1 << 20);
    assert_eq!(server.worker.stats.answer_refusals.get(), 0, "they queue less, and nobody is closed");
    let whole = format!("VALUE k 0 2000\r\n{}\r\n", "v".repeat(2000)).repeat(500) + "END\r\n";
    expect(&mut server.connect(1024), &format!("get {many}\r\n"), &whole).await;
    expect(&mut readers[0], "", &whole).await;
    expect(&mut readers[49], "", &whole).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_a_few_bytes_now_and_then_is_given_up() {
    let server = Server::new(limits());
    store(&server, "k", 1_000_000).await;
    let mut client = ask_and_read_nothing(&server, "k").await;
    let begun = Instant::now();
    while client.read(&mut [0; 10]).await.unwrap() > 0 {
        sleep(seconds(25)).await;
        assert!(begun.elapsed() < seconds(10_000), "it holds memory for ever");
        if server.worker.stats.write_timeouts.get() > 0 {
            break;
        }
    }
    assert!((60..=90).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(server.worker.stats.write_timeouts.get(), 1);
}

#[test]
fn what_waits_is_counted_beyond_the_first_buffers_and_tls_keeps_some_too() {
    let mut output = Output::default();
    output.extend_from_slice(&[b'x'; 100]);
    assert_eq!(waiting(BUFFER_BYTES, &output, false, 7), MemoryUse { bytes: 0, shared_bytes: 0, moved_bytes: 7 });
    *output = Vec::with_capacity(3 * BUFFER_BYTES);
    let bytes = |tls| waiting(2 * BUFFER_BYTES, &output, tls, 0).bytes;
    assert_eq!((bytes(false), bytes(true)), (3 * 16_384, 3 * 16_384 + TLS_BUFFER_BYTES as u64));
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
    assert_eq!(server.worker.stats.in_flight_refusals.get(), 1);
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
        turns.push(server.worker.stats.conn_yields.get());
    }
    assert!(turns[0] <= 3, "the first answer came after {} turns of the neighbour", turns[0]);
    assert!(turns[19] <= 100, "the twentieth came after {}", turns[19]);
    assert!(answers.await.unwrap() == "MN\r\n".repeat(100_000).as_bytes());
    assert!(server.worker.stats.conn_yields.get() > 4000);
}

/// Sends a request whose answer may be large, and gives the answer once it ends so.
async fn ask(mut client: DuplexStream, request: String, end: &str) -> String {
    let (mut answers, mut requests) = tokio::io::split(&mut client);
    let mut answer = Vec::new();
    let send = async { requests.write_all(request.as_bytes()).await.unwrap() };
    let receive = async {
        while !answer.ends_with(end.as_bytes()) {
            let read = timeout(seconds(1000), answers.read_buf(&mut answer)).await;
            assert!(read.expect("an answer that never ends").unwrap() > 0, "closed in mid-answer");
        }
    };
    tokio::join!(send, receive);
    String::from_utf8(answer).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_get_of_half_a_million_keys_is_walked_once_and_gives_its_neighbours_turns() {
    for (command, hit) in [("get", true), ("gets", true), ("get", false)] {
        let server = Server::new(limits());
        let (greedy, mut modest) = (server.connect(1 << 20), server.connect(1024));
        if hit {
            expect(&mut modest, "set k 0 0 1\r\nx\r\n", "STORED\r\n").await;
        }
        let (keys_before, words_before) = (server.worker.stats.cmd_get.get(), crate::protocol::walked::words());
        let request = format!("{command}{}\r\n", " k".repeat(500_000));
        let answer = tokio::spawn(async move { ask(greedy, request, "END\r\n").await });
        while server.worker.stats.cmd_get.get() == keys_before {
            tokio::task::yield_now().await;
        }
        let mut keys = server.worker.stats.cmd_get.get();
        for _ in 0..20 {
            expect(&mut modest, "mn\r\n", "MN\r\n").await;
            let now = server.worker.stats.cmd_get.get();
            // The neighbour needs three turns: to send, to be served and to see the answer.
            assert!(now - keys <= 4 * KEYS_PER_TURN as u64, "{command}: {} keys before a neighbour's turn", now - keys);
            keys = now;
        }
        let (whole, value) =
            (answer.await.unwrap(), if command == "gets" { "VALUE k 0 1 1\r\nx\r\n" } else { "VALUE k 0 1\r\nx\r\n" });
        assert!(whole == if hit { value.repeat(500_000) + "END\r\n" } else { "END\r\n".into() });
        assert_eq!(server.worker.stats.cmd_get.get() - keys_before, 500_000);
        let walked = crate::protocol::walked::words() - words_before;
        assert!(walked <= 500_000 + 1000, "{command}: {walked} words");
    }
}

#[tokio::test(start_paused = true)]
async fn a_get_that_touches_and_is_broken_off_goes_on_touching() {
    let server = Server::new(limits());
    expect(&mut server.connect(1024), "set k 0 0 1\r\nx\r\n", "STORED\r\n").await;
    // All of it comes at once: a longer `gat` line without its end is given up.
    let request = format!("gat 100{}\r\nmn\r\n", " k".repeat(7000));
    let answer = ask(server.connect(1 << 20), request, "MN\r\n").await;
    assert!(answer == "VALUE k 0 1\r\nx\r\n".repeat(7000) + "END\r\nMN\r\n");
    assert_eq!(server.worker.stats.touch_hits.get(), 7000);
}

#[tokio::test(start_paused = true)]
async fn a_get_that_is_held_in_its_midst_goes_on_where_it_was_and_is_held_once() {
    let server = Server::with_first_fetch(limits());
    expect(&mut server.connect(1024), "set k 0 0 1\r\nx\r\n", "STORED\r\n").await;
    let many = " k".repeat(20_000);
    let request = format!("get{many} access_token:wx2{many} access_token:wx2{many}\r\n");
    let (words_before, begun) = (crate::protocol::walked::words(), Instant::now());
    let answer = ask(server.connect(1 << 20), request, "END\r\n").await;
    assert!(answer == "VALUE k 0 1\r\nx\r\n".repeat(60_000) + "END\r\n");
    assert_eq!(begun.elapsed(), server.worker.shared.limits.hold, "one request is held once");
    let walked = crate::protocol::walked::words() - words_before;
    assert!(walked <= 60_002 + 200, "{walked} words");
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
        server.connection(stream).run().await;
        let yields = server.worker.stats.conn_yields.get() - before;
        assert!(yields >= turns, "{batch:.10}: {yields}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_large_values_gives_its_neighbours_a_turn_for_every_so_many_bytes() {
    let server = Server::new(limits());
    let batch = [b"set k 0 0 200000\r\n".as_slice(), &[b'v'; 200_000], b"\r\n"].concat();
    let stream = Large { batch, at: 0, times: 100 };
    server.connection(stream).run().await;
    assert_eq!(server.worker.stats.bytes_read.get(), 100 * 200_020);
    let yields = server.worker.stats.conn_yields.get();
    assert!(yields >= 100 * 200_020 / (2 * READ_BYTES_MAX as u64), "{yields} turns");
}

#[tokio::test(start_paused = true)]
async fn a_turn_does_not_move_what_is_left_for_the_next() {
    let server = Server::new(limits());
    let mut connection = server.connection(duplex(64).1);
    connection.input = b"mn\r\n".repeat(50_000);
    let shared = server.worker.shared.clone();
    for turn in 1..=3 {
        assert!(matches!(connection.execute_batch(&shared, Now::read(), true), Batch::Turn));
        assert_eq!((connection.input.len(), connection.start), (200_000, turn * 20 * 4));
        connection.begin_turn();
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_not_parsed_again_before_it_is_whole() {
    let server = Server::new(limits());
    let mut client = server.connect(1 << 20);
    let block = "v".repeat(1000);
    client.write_all(format!("set{}k 0 0 100000\r\n", " ".repeat(1000)).as_bytes()).await.unwrap();
    tokio::task::yield_now().await;
    let before = crate::protocol::walked::words();
    for _ in 0..100 {
        client.write_all(block.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    expect(&mut client, "\r\n", "STORED\r\n").await;
    assert!(crate::protocol::walked::words() - before <= 10);
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

#[tokio::test(start_paused = true)]
async fn a_half_sent_request_does_not_keep_a_buffer_that_grew_for_an_earlier_one() {
    let server = Server::new(limits());
    let large = format!("set k 0 0 1000000\r\n{}\r\n", "v".repeat(1_000_000));
    // In its own connection, before or in the same read...
    for tail in ["", "g"] {
        let (mut client, stream) = duplex(2 << 20);
        let mut connection = server.connection(stream);
        client.write_all(format!("{large}{tail}").as_bytes()).await.unwrap();
        assert!(timeout(seconds(1), connection.serve()).await.is_err());
        client.write_all(b"et").await.unwrap();
        assert!(timeout(seconds(1), connection.serve()).await.is_err());
        assert_eq!(connection.input, format!("{tail}et").as_bytes());
        assert!(connection.input.capacity() <= 2 * BUFFER_BYTES, "{} bytes", connection.input.capacity());
    }
    // ...or in another, whose buffer the worker has kept.
    for part in ["g".into(), format!("set k 0 0 90000\r\n{}", "v".repeat(20_000))] {
        let (mut client, stream) = duplex(2 << 20);
        let mut connection = server.connection(stream);
        client.write_all(part.as_bytes()).await.unwrap();
        assert!(timeout(seconds(1), connection.serve()).await.is_err());
        assert!(connection.input.capacity() < 200_000, "{} bytes", connection.input.capacity());
    }
}

/// A peer to whom nothing more can be written, nor can the connection be closed.
struct Stuck(DuplexStream);

impl AsyncRead for Stuck {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

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
        let mut connection = server.connection(Stuck(stream));
        connection.tls = true;
        tokio::spawn(connection.run());
        client.write_all(b"get k\r\n").await.unwrap();
        readers.push(client);
        sleep(Duration::from_millis(10)).await;
    }
    let detached = server.worker.shared.service.cache.detached().bytes();
    assert!(detached <= 3 << 20, "{detached} bytes");
    let open = server.worker.shared.service.stats.curr_connections.load(Relaxed);
    assert!(open <= 5, "{open}: nobody waits for a peer that takes nothing to close");
}

/// A peer that sends the same batch so many times, each time after a pause, takes every answer at once, and then goes
/// away.
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

/// A peer that sends the same batch so many times, as fast as it is read.
struct Large {
    batch: Vec<u8>,
    at: usize,
    times: usize,
}

impl AsyncRead for Large {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.times > 0 {
            let end = self.batch.len().min(self.at + buffer.remaining());
            buffer.put_slice(&self.batch[self.at..end]);
            self.at = end % self.batch.len();
            self.times -= usize::from(self.at == 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Large {
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
    let mut script = Some(Script { batch: batch.into(), times, paused: false, never_waits: false });
    let mut serve = || runtime.block_on(server.connection(script.take().unwrap()).run());
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

/// A stream that panics when it is read from, as a bug would.
struct Panics(DuplexStream);

impl AsyncRead for Panics {
    fn poll_read(self: Pin<&mut Self>, _: &mut task::Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        panic!("as a bug would");
    }
}

impl AsyncWrite for Panics {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_one_connection_ends_that_one_alone_and_gives_back_what_it_held() {
    let server = Server::new(limits());
    let mut other = server.connect(1 << 16);
    expect(&mut other, "set k 0 0 1\r\nv\r\n", "STORED\r\n").await;
    let (mut client, end) = duplex(1 << 16);
    let ended = tokio::spawn(server.connection(Panics(end)).run()).await;
    assert!(ended.is_err_and(|error| error.is_panic()));
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "it is hung up on");
    assert_eq!(server.worker.shared.service.stats.curr_connections.load(Relaxed), 1);
    assert_eq!(server.in_flight(), 0);
    expect(&mut other, "get k\r\n", "VALUE k 0 1\r\nv\r\nEND\r\n").await;
}
