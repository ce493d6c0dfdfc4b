//! Hostile and unlucky clients against a real server: what they send, how they leave, how many they are. After each the
//! server is well, its books are right, and its neighbours have noticed nothing.
//!
//! Deadlines (a line or a value that trickles in, a peer that never reads, idleness), fairness and who has to give way when
//! connections hold too much are shown in virtual time in `src/server/connection/tests.rs`; keepalive in `src/server/listener.rs`.
//! What clients do to managed keys is in `managed.rs`, `meta.rs` and `aliases.rs`; to logins and TLS, in `access.rs` and
//! `tls.rs`; how requests may be cut into packets, in `fragmentation.rs`.

use std::net::TcpStream;
use std::sync::Barrier;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::support::{APPID, Client, Node, SECRET, Wechat, as_root, wait_for};

/// A neighbour that is connected before and served after whatever happens.
struct Neighbour {
    client: Client,
    connections: u64,
}

fn figure(client: &mut Client, name: &str) -> u64 {
    client.stat("", name).unwrap().parse().unwrap()
}

impl Neighbour {
    fn of(node: &Node) -> Neighbour {
        let mut client = node.connect();
        client.expect("set neighbour 0 0 5\r\nhello\r\n", "STORED\r\n");
        let connections = figure(&mut client, "curr_connections");
        Neighbour { client, connections }
    }

    /// It is served, all others are gone, and nothing is stored but what it has stored.
    #[track_caller]
    fn is_well_and_alone(&mut self) {
        self.client.expect("get neighbour\r\n", "VALUE neighbour 0 5\r\nhello\r\nEND\r\n");
        let (client, connections) = (&mut self.client, self.connections);
        wait_for("the others to be gone", || (figure(client, "curr_connections") == connections).then_some(()));
        assert_eq!(figure(client, "curr_items"), 1);
    }
}

/// Closes with a reset in place of a farewell, as a crashed or impatient peer does.
fn reset(client: Client) {
    socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Sends what the server may not want to read to the end, and gives what it said before hanging up.
fn farewell(node: &Node, bytes: &[u8]) -> String {
    let mut client = node.connect();
    // It may hang up in the middle.
    let _ = std::io::Write::write_all(&mut client.stream, bytes);
    client.rest().escape_ascii().to_string()
}

// Rows 4 and 5: keys and values that are too long.

#[test]
fn a_key_too_long_or_with_control_bytes_costs_its_block_and_nothing_else() {
    let node = Node::plain(&[]);
    let mut neighbour = Neighbour::of(&node);
    let mut client = node.connect();
    let long = "k".repeat(251);
    let error = "CLIENT_ERROR bad command line format\r\n";
    for verb in ["set", "add", "replace", "append", "prepend"] {
        // The block holds a command, which must stay data.
        let bomb = format!("{verb} {long} 0 0 24\r\nset neighbour 0 0 1\r\nx\r\n\r\nmn\r\n");
        client.expect(bomb, format!("{error}MN\r\n"));
    }
    client.expect(format!("ms {long} 6 \r\nmn\r\nmn\r\nmn\r\n"), format!("{error}MN\r\n"));
    // Control bytes are letters like others, to memcached too.
    client.expect(
        "set a\x01\x7f 0 0 1\r\nx\r\nget a\x01\x7f\r\ndelete a\x01\x7f\r\n",
        "STORED\r\nVALUE a\x01\x7f 0 1\r\nx\r\nEND\r\nDELETED\r\n",
    );
    drop(client);
    neighbour.is_well_and_alone();
}

// Row 6: lengths made to overflow.

#[test]
fn length_bombs_are_refused_before_any_memory_is_taken() {
    let node = Node::plain(&["-c", "200"]);
    let mut neighbour = Neighbour::of(&node);
    let before = node.memory_bytes();
    let bad = "CLIENT_ERROR bad command line format\r\n";
    for length in [
        "-1",
        "-2147483648",
        "2147483646",
        "2147483647",
        "2147483648",
        "4294967294",
        "4294967295",
        "4294967296",
        "9223372036854775807",
        "18446744073709551615",
        "99999999999999999999",
        "0x10",
        "1e3",
        "1.5",
        "ten",
        "--1",
    ] {
        let mut client = node.connect();
        for verb in
            ["set a 0 0 LENGTH\r\n", "cas a 0 0 LENGTH 1\r\n", "append a 0 0 LENGTH noreply\r\n", "ms a LENGTH\r\n"]
        {
            let said = if verb.contains("noreply") { "" } else { bad };
            client.expect(format!("{}mn\r\n", verb.replace("LENGTH", length)), format!("{said}MN\r\n"));
        }
    }
    // A plus is a number to memcached, and a block follows.
    node.connect().expect("set a 0 0 +1\r\nx\r\ndelete a\r\n", "STORED\r\nDELETED\r\n");
    // The largest length there is, a hundred times over: announced, not sent.
    let mut boasters: Vec<Client> = (0..100).map(|_| node.connect()).collect();
    boasters.iter_mut().for_each(|client| client.send("set a 0 0 2147483645\r\n0123456789"));
    neighbour.client.expect("mn\r\n", "MN\r\n");
    assert!(node.memory_bytes() < before + (16 << 20), "{before} bytes before, {} after", node.memory_bytes());
    drop(boasters);
    neighbour.is_well_and_alone();
}

// Row 8: lines without an end.

#[test]
fn an_endless_line_is_given_up_and_a_long_get_is_not() {
    let node = Node::plain(&[]);
    let mut neighbour = Neighbour::of(&node);
    for start in ["", "set ", "incr ", "mg ", "gat 0 ", " get"] {
        assert_eq!(farewell(&node, &[start.as_bytes(), &vec![b'x'; 1 << 20]].concat()), "", "{start:?}");
    }
    for start in ["get ", "gets "] {
        assert_eq!(farewell(&node, &[start.as_bytes(), &b"key ".repeat(1 << 19)].concat()), "", "{start:?}");
    }
    // Hundreds of keys, as frameworks send them.
    let mut client = node.connect();
    let keys: String = (0..800).map(|index| format!(" {index:0>60}")).collect();
    client.expect(format!("gets{keys} neighbour\r\nmn\r\n"), {
        let cas = String::from_utf8(neighbour.client.ask("gets neighbour\r\n")).unwrap();
        format!("{cas}MN\r\n")
    });
    drop(client);
    neighbour.is_well_and_alone();
}

// Row 9: a block that does not end where it should.

#[test]
fn a_bad_end_of_a_block_stores_nothing_and_the_rest_are_commands() {
    let node = Node::plain(&[]);
    let mut neighbour = Neighbour::of(&node);
    let mut client = node.connect();
    for verb in ["set a 0 0 3", "ms a 3", "cas a 0 0 3 1", "append neighbour 0 0 3"] {
        client.expect(format!("{verb}\r\nabcdef\r\nmn\r\n"), "CLIENT_ERROR bad data chunk\r\nERROR\r\nMN\r\n");
        client.expect(format!("{verb}\r\nabc\n\nmn\r\n"), "CLIENT_ERROR bad data chunk\r\nMN\r\n");
    }
    drop(client);
    neighbour.is_well_and_alone();
}

// Rows 10 and 11: other protocols.

#[test]
fn a_tls_hello_on_a_plain_port_is_hung_up_on_wherever_its_newlines_are() {
    let node = Node::plain(&[]);
    let mut neighbour = Neighbour::of(&node);
    // The head of a ClientHello, then "random" bytes with and without a line end, then what could be a command.
    for random in ["\u{1}\u{2}\u{3}", "\u{1}\nset x 0 0 1\r\nx\r\n", "\r\nget neighbour\r\n"] {
        let hello = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), random.as_bytes()].concat();
        assert_eq!(farewell(&node, &hello), "", "{random:?}");
    }
    neighbour.is_well_and_alone();
    assert!(figure(&mut neighbour.client, "foreign_protocols") >= 3);
    node.await_log("connection closed");
    let log = node.log();
    assert_eq!(log.matches("connection closed").count(), 1, "one line a minute, not one a client: {log}");
    assert!(log.contains("TLS") && log.contains("127.0.0.1:"), "{log}");
}

#[test]
fn http_is_hung_up_on_and_nothing_behind_it_is_executed() {
    let node = Node::plain(&[]);
    let mut neighbour = Neighbour::of(&node);
    let smuggled = "set smuggled 0 0 1\r\nx\r\nflush_all\r\n";
    for (request, said) in [
        (format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n{smuggled}"), ""),
        (format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n{smuggled}"), ""),
        (format!("PUT / HTTP/1.0\r\n\r\n{smuggled}"), ""),
        (format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{smuggled}"), ""),
        // A request line that is not recognized by its end is by its headers.
        (format!("GET /\r\nHost: a\r\n\r\n{smuggled}"), "ERROR\\r\\n"),
        (format!("POST /\r\nhost\r\nHost: a\r\n{smuggled}"), "ERROR\\r\\nERROR\\r\\n"),
        // In the middle of a stream, where an attacker has put what looks like the end of something else.
        (
            format!("mn\r\nget neighbour\r\nHost: a\r\n{smuggled}"),
            "MN\\r\\nVALUE neighbour 0 5\\r\\nhello\\r\\nEND\\r\\n",
        ),
        (format!("  Host: a\r\n{smuggled}"), ""),
    ] {
        assert_eq!(farewell(&node, request.as_bytes()), said, "{request:?}");
    }
    // As data and as a key it is nothing special.
    let mut client = node.connect();
    client.expect(
        "set Host: 0 0 9\r\nHost: a\r\n\r\nget Host:\r\ndelete Host:\r\n",
        "STORED\r\nVALUE Host: 0 9\r\nHost: a\r\n\r\nEND\r\nDELETED\r\n",
    );
    drop(client);
    neighbour.is_well_and_alone();
    node.await_log("connection closed");
    let log = node.log();
    assert_eq!(log.matches("connection closed").count(), 1, "{log}");
    assert!(log.contains("the client speaks HTTP") && !log.contains("smuggled"), "{log}");
}

#[test]
fn binary_junk_never_stops_the_server() {
    let node = Node::plain(&[]);
    let mut neighbour = Neighbour::of(&node);
    let mut rng = fastrand::Rng::with_seed(11);
    for _ in 0..200 {
        let mut junk = vec![0; rng.usize(1..3000)];
        rng.fill(&mut junk);
        let mut client = node.connect();
        let _ = std::io::Write::write_all(&mut client.stream, &junk);
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        // It answers or hangs up; either way it comes to an end.
        client.rest();
    }
    neighbour.client.expect("flush_all\r\nset neighbour 0 0 5\r\nhello\r\n", "OK\r\nSTORED\r\n");
    neighbour.client.expect("get neighbour\r\n", "VALUE neighbour 0 5\r\nhello\r\nEND\r\n");
    assert!(!node.log().contains("panic: this is a bug"), "{}", node.log());
}

// Rows 13 and 14: peers that leave in the middle.

#[test]
fn who_leaves_in_mid_value_has_stored_nothing() {
    let node = Node::plain(&[]);
    let mut neighbour = Neighbour::of(&node);
    let whole = b"set neighbour 0 0 20\r\n01234567890123456789\r\n";
    let bytes = figure(&mut neighbour.client, "bytes");
    for cut in 1..whole.len() {
        for leave in [drop::<Client>, reset] {
            let mut client = node.connect();
            client.send(&whole[..cut]);
            leave(client);
        }
        // The same without an answer to wait for.
        let mut client = node.connect();
        client.send(&b"set neighbour 0 0 9 noreply\r\n012345678"[..cut.min(38)]);
        leave_either_way(client, cut);
    }
    // A large one, of which much has arrived.
    let mut client = node.connect();
    client.send([b"set large 0 0 1000000\r\n".as_slice(), &vec![b'v'; 900_000]].concat());
    reset(client);
    neighbour.is_well_and_alone();
    assert_eq!(figure(&mut neighbour.client, "bytes"), bytes);
}

fn leave_either_way(client: Client, turn: usize) {
    if turn.is_multiple_of(2) { drop(client) } else { reset(client) }
}

#[test]
fn who_leaves_after_a_whole_request_has_stored_it_without_reading_the_answer() {
    let node = Node::plain(&[]);
    let mut neighbour = Neighbour::of(&node);
    let mut client = node.connect();
    client.send("set gone 0 0 1 noreply\r\nx\r\n");
    drop(client);
    wait_for("the item", || neighbour.client.get("gone"));
    neighbour.client.expect("delete gone\r\n", "DELETED\r\n");
    neighbour.is_well_and_alone();
}

// Row 12, over a real socket: the end of it, the write timeout, is in `src/server/connection/tests.rs`.

#[test]
fn clients_that_never_read_cost_a_bounded_memory() {
    let node = Node::plain(&[]);
    let mut neighbour = Neighbour::of(&node);
    let value = vec![b'v'; 1_000_000];
    neighbour.client.expect([b"set large 0 0 1000000\r\n".as_slice(), &value, b"\r\n"].concat(), "STORED\r\n");
    let before = node.memory_bytes();
    // Sixteen ask for two gigabytes.
    let greedy: Vec<Client> = (0..16)
        .map(|_| {
            let mut client = node.connect();
            client.send("get large\r\n".repeat(128));
            client
        })
        .collect();
    for mut client in greedy.iter().map(|client| client.stream.try_clone().unwrap()) {
        // The first bytes are there, so the server is at it.
        std::io::Read::read_exact(&mut client, &mut [0; 1000]).unwrap();
    }
    neighbour.client.expect("mn\r\n", "MN\r\n");
    let grown = node.memory_bytes().saturating_sub(before);
    assert!(grown < 16 * (3 << 20), "{grown} bytes for sixteen clients");
    drop(greedy);
    neighbour.client.expect("delete large\r\n", "DELETED\r\n");
    neighbour.is_well_and_alone();
}

// Row 15: a long pipeline.

#[test]
fn a_hundred_thousand_commands_at_once_are_answered_in_turns() {
    let node = Node::plain(&["-t", "1", "-R", "20"]);
    let mut neighbour = Neighbour::of(&node);
    let mut client = node.connect();
    let mut sender = client.stream.try_clone().unwrap();
    let sent =
        std::thread::spawn(move || std::io::Write::write_all(&mut sender, "get n\r\n".repeat(100_000).as_bytes()));
    for _ in 0..100 {
        neighbour.client.expect("get neighbour\r\n", "VALUE neighbour 0 5\r\nhello\r\nEND\r\n");
    }
    assert!(client.read(500_000) == "END\r\n".repeat(100_000).as_bytes());
    sent.join().unwrap().unwrap();
    assert!(figure(&mut neighbour.client, "conn_yields") > 1000);
    drop(client);
    neighbour.is_well_and_alone();
}

// Rows 16 and 17: no room.

const FULL: &[u8] = b"ERROR Too many open connections\r\n";

fn file_limit(node: &Node, files: u64) {
    as_root();
    let pid = Pid::from_raw(i32::try_from(node.pid()).unwrap());
    let limit = Rlimit { current: Some(files), maximum: Some(getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 16)) };
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

#[test]
#[ignore = "needs root"]
fn without_file_descriptors_clients_are_told_so_and_others_are_served() {
    let node = Node::plain(&[]);
    let mut neighbour = Neighbour::of(&node);
    let open = std::fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count() as u64;
    file_limit(&node, open + 3);
    let mut let_in = Vec::new();
    let mut refused = 0;
    // Numbers may have gaps, so how many fit is not exact; that all others are told is.
    for _ in 0..40 {
        let mut client = node.connect();
        client.send("mn\r\n");
        match client.read(FULL.len().min(4)).as_slice() {
            b"MN\r\n" => let_in.push(client),
            b"ERRO" => refused += 1,
            // The reset that follows unread bytes may overtake the words.
            b"" => refused += 1,
            other => panic!("{}", other.escape_ascii()),
        }
    }
    assert!(let_in.len() <= 6 && refused >= 34, "{} in, {refused} refused", let_in.len());
    assert_eq!(node.connect().rest(), FULL);
    neighbour.client.expect("mn\r\n", "MN\r\n");
    assert!(figure(&mut neighbour.client, "rejected_connections") > 34);
    node.await_log("cannot accept a connection");
    let log = node.log();
    assert_eq!(log.matches("cannot accept a connection").count(), 1, "{log}");
    assert!(log.contains("raise LimitNOFILE"), "{log}");
    // Room again: nothing is left behind.
    drop(let_in);
    wait_for("a free descriptor", || {
        let mut client = node.connect();
        client.send("mn\r\n");
        (client.read(4) == b"MN\r\n").then_some(())
    });
    neighbour.is_well_and_alone();
}

#[test]
#[ignore = "waits for real time"]
fn clients_never_take_the_descriptors_that_renewal_needs() {
    let wechat = Wechat::short_lived(4);
    let node = Node::start_below(200, &wechat.config("", ""), &["-c", "1024"]);
    let mut neighbour = node.connect();
    let token = format!("access_token:{APPID}");
    wait_for("a token", || neighbour.get(&token));
    let fit = figure(&mut neighbour, "max_connections");
    assert!((16..180).contains(&fit), "{fit}");
    assert_eq!(neighbour.stat("settings", "maxconns"), Some(fit.to_string()));
    let log = node.log();
    assert_eq!(log.matches("the limit on open files is too low").count(), 1, "{log}");
    assert!(log.contains("limit=200") && log.contains(&format!("max_connections={fit} instead_of=1024")), "{log}");
    assert!(log.contains("raise LimitNOFILE"), "{log}");

    // All there is room for, and many more that are told so and try again.
    let mut let_in: Vec<Client> = (1..fit).map(|_| node.connect()).collect();
    let_in.iter_mut().for_each(|client| client.expect("mn\r\n", "MN\r\n"));
    let generation = |client: &mut Client| -> u64 {
        client.stat("tokens", &format!("{APPID}:generation")).unwrap().parse().unwrap()
    };
    let before = generation(&mut neighbour);
    wait_for("three renewals while clients have everything they can", || {
        assert_eq!(node.connect().rest(), FULL);
        (generation(&mut neighbour) >= before + 3).then_some(())
    });
    assert_eq!(neighbour.stat("tokens", &format!("{APPID}:failures")).as_deref(), Some("0"), "{}", node.log());
    assert!(!node.log().contains("cannot accept a connection"), "{}", node.log());
    drop(let_in);
    wait_for("a place", || {
        let mut client = node.connect();
        client.send("mn\r\n");
        (client.read(4) == b"MN\r\n").then_some(())
    });
}

#[test]
#[ignore = "needs root"]
fn a_renewal_without_a_descriptor_is_made_when_there_is_one_and_nobody_else_is_blamed() {
    let wechat = Wechat::short_lived(8);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), SECRET).unwrap();
    let config = wechat.config("", "").replace(&format!("secret = \"{SECRET}\""), "secret_file = \"{folder}/secret\"");
    let node = Node::start_in(folder, &config, &[]);
    let mut client = node.connect();
    let token = format!("access_token:{APPID}");
    wait_for("a token", || client.get(&token));
    // Not a single one is free any more.
    let open = std::fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap();
    let highest = open.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u64>().ok()).max().unwrap();
    file_limit(&node, highest.min(8));
    wait_for("a renewal that finds none", || node.log().contains("renewal failed").then_some(()));
    node.await_log("advice=\"raise LimitNOFILE");
    let log = node.log();
    assert!(log.contains("no file descriptor") || log.contains("Too many open files"), "{log}");
    assert!(log.contains("advice=\"raise LimitNOFILE"), "{log}");
    file_limit(&node, 1024);
    wait_for("a token again", || client.get(&token));
    wait_for("the next renewal", || node.log().contains("recovered").then_some(()));
    assert!(!node.log().contains("secret in place"), "{}", node.log());
}

#[test]
fn a_value_for_which_the_system_has_no_memory_is_refused_and_the_server_goes_on() {
    let node = Node::plain(&["-m", "1024", "-I", "512m", "-t", "1"]);
    let mut neighbour = Neighbour::of(&node);
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let size: u64 = size.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024;
    let pid = Pid::from_raw(i32::try_from(node.pid()).unwrap());
    let all = Rlimit { current: Some(size + (96 << 20)), maximum: getrlimit(Resource::As).maximum };
    prlimit(pid, Resource::As, all).unwrap();
    let mut client = node.connect();
    let part = vec![b'v'; 1 << 20];
    for head in ["set big 0 0 209715200\r\n".to_owned(), "ms big 209715200\r\n".to_owned()] {
        client.send(head);
        (0..200).for_each(|_| client.send(&part));
        client.expect("\r\nmn\r\n", "SERVER_ERROR out of memory storing object\r\nMN\r\n");
    }
    drop(client);
    neighbour.is_well_and_alone();
}

#[test]
fn above_the_connection_limit_clients_are_told_and_counted() {
    let node = Node::plain(&["-c", "3"]);
    let mut neighbour = Neighbour::of(&node);
    let mut others: Vec<Client> = (0..2).map(|_| node.connect()).collect();
    others.iter_mut().for_each(|client| client.expect("mn\r\n", "MN\r\n"));
    for _ in 0..20 {
        assert_eq!(node.connect().rest(), FULL);
    }
    assert_eq!(figure(&mut neighbour.client, "rejected_connections"), 20);
    assert_eq!(figure(&mut neighbour.client, "curr_connections"), 3);
    drop(others);
    neighbour.is_well_and_alone();
}

// Row 3: many that say nothing.

#[test]
fn ten_thousand_idle_connections_cost_under_four_kibibytes_each() {
    const WANTED: u64 = 10_000;
    let limit = getrlimit(Resource::Nofile);
    let maximum = limit.maximum.map(|maximum| maximum.max(limit.current.unwrap_or(maximum)));
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    // Other tests of this process need some as well.
    let fit = getrlimit(Resource::Nofile).current.map_or(WANTED, |files| WANTED.min(files.saturating_sub(1000)));
    assert!(fit >= 1000, "the limit on open files is too low to try");
    let node = Node::plain(&["-c", "10100"]);
    let mut neighbour = Neighbour::of(&node);
    let before = node.memory_bytes();
    let idle: Vec<TcpStream> = (0..fit)
        .map(|_| {
            let mut client = node.connect();
            // Each has been of use once.
            client.expect("get neighbour\r\n", "VALUE neighbour 0 5\r\nhello\r\nEND\r\n");
            client.stream
        })
        .collect();
    let each = node.memory_bytes().saturating_sub(before) / fit;
    println!("{fit} idle connections, {each} bytes each");
    assert_eq!(figure(&mut neighbour.client, "curr_connections"), fit + 1);
    assert!(each < 4096, "{each} bytes for each of {fit}");
    neighbour.client.expect("get neighbour\r\n", "VALUE neighbour 0 5\r\nhello\r\nEND\r\n");
    drop(idle);
    neighbour.is_well_and_alone();
}

// Row 18: memory.

#[test]
fn memory_under_churn_of_small_and_large_items_stays_within_bounds() {
    const MEMORY: u64 = 48 << 20;
    let node = Node::plain(&["-m", "48", "-t", "2"]);
    let mut client = node.connect();
    let mut peak = 0;
    let (small, large) = (vec![b's'; 100], vec![b'l'; 900_000]);
    let mut rng = fastrand::Rng::with_seed(18);
    for round in 0..300 {
        let mut batch = Vec::new();
        for _ in 0..200 {
            batch.extend([format!("set s{} 0 0 100\r\n", rng.u32(..200_000)).as_bytes(), &small, b"\r\n"].concat());
        }
        batch.extend([format!("set l{} 0 0 900000\r\n", rng.u32(..200)).as_bytes(), &large, b"\r\n"].concat());
        client.expect(&batch, "STORED\r\n".repeat(201));
        peak = peak.max(node.memory_bytes());
        if round % 50 == 49 {
            assert!(figure(&mut client, "bytes") <= MEMORY);
        }
    }
    assert!(figure(&mut client, "evictions") > 100);
    assert_eq!(figure(&mut client, "store_no_memory"), 0);
    assert!(peak <= MEMORY * 11 / 10 + (8 << 20), "{peak} bytes at the peak");
}

// Row 19: many writers of one key.

const WRITERS: usize = 64;

#[test]
fn of_sixty_four_who_compare_and_swap_one_wins_each_round() {
    const ROUNDS: usize = 20;
    let node = Node::plain(&[]);
    node.connect().expect("set k 0 0 1\r\n0\r\n", "STORED\r\n");
    let barrier = Barrier::new(WRITERS);
    let won: Vec<Vec<bool>> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (mut client, barrier) = (node.connect(), &barrier);
                scope.spawn(move || {
                    let mut won = Vec::new();
                    for round in 0..ROUNDS {
                        let answer = String::from_utf8(client.ask("gets k\r\n")).unwrap();
                        let cas = answer.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
                        // Everybody has read before anybody writes.
                        barrier.wait();
                        let value = format!("{round:03}-{writer:03}");
                        let answer = client.ask(format!("cas k 0 0 7 {cas}\r\n{value}\r\n"));
                        assert!(answer == b"STORED\r\n" || answer == b"EXISTS\r\n", "{}", answer.escape_ascii());
                        won.push(answer == b"STORED\r\n");
                        barrier.wait();
                        if won[round] {
                            assert_eq!(client.get("k").unwrap(), value.as_bytes());
                        }
                        barrier.wait();
                    }
                    won
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    for round in 0..ROUNDS {
        assert_eq!(won.iter().filter(|won| won[round]).count(), 1, "winners of round {round}");
    }
}

#[test]
fn a_hot_key_loses_no_update() {
    const EACH: usize = 200;
    let node = Node::plain(&[]);
    node.connect().expect("set n 0 0 1\r\n0\r\nset text 0 0 0\r\n\r\n", "STORED\r\nSTORED\r\n");
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            let mut client = node.connect();
            scope.spawn(move || {
                client.ask("incr n 1\r\nappend text 0 0 1\r\nx\r\nget n text\r\n".repeat(EACH));
            });
        }
    });
    let mut client = node.connect();
    assert_eq!(client.get("n").unwrap(), (WRITERS * EACH).to_string().as_bytes());
    assert_eq!(client.get("text").unwrap().len(), WRITERS * EACH);
}

// Row 7, over real sockets: the bound itself is in `src/server/connection/tests.rs`.

#[test]
fn a_hundred_half_sent_values_are_bounded_and_those_that_give_way_stay_in_step() {
    let node = Node::plain(&["-m", "64"]);
    let mut neighbour = Neighbour::of(&node);
    let before = node.memory_bytes();
    let part = [b"set half 0 0 1000000\r\n".as_slice(), &vec![b'v'; 900_000]].concat();
    let mut halves: Vec<Client> = (0..100)
        .map(|_| {
            let mut client = node.connect();
            client.send(&part);
            client
        })
        .collect();
    wait_for("refusals", || (figure(&mut neighbour.client, "in_flight_refusals") > 0).then_some(()));
    let grown = node.memory_bytes().saturating_sub(before);
    assert!(grown < 160 << 20, "{grown} bytes");
    let mut answers: Vec<String> = Vec::new();
    for client in &mut halves {
        client.send([vec![b'v'; 100_000].as_slice(), b"\r\nmn\r\n"].concat());
        answers.push(String::from_utf8(client.read_until(b"MN\r\n")).unwrap());
    }
    for answer in &answers {
        assert!(
            answer == "STORED\r\nMN\r\n" || answer == "SERVER_ERROR out of memory storing object\r\nMN\r\n",
            "{answer}"
        );
    }
    let stored = answers.iter().filter(|answer| answer.starts_with("STORED")).count();
    // Who gives way is whoever was behind when it was read, which is not always the first to send.
    assert!(stored >= 60, "{stored} of 100 had room");
    drop(halves);
    neighbour.client.ask("delete half\r\n");
    neighbour.is_well_and_alone();
}

// Row 66: what is half-sent keeps nobody from storing.

#[test]
fn while_sixty_six_values_are_half_sent_every_other_set_is_stored() {
    let node = Node::plain(&["-m", "64"]);
    let mut neighbour = Neighbour::of(&node);
    let part = [b"set half 0 0 1040000\r\n".as_slice(), &vec![b'v'; 1_030_000]].concat();
    let halves: Vec<Client> = (0..66)
        .map(|_| {
            let mut client = node.connect();
            client.send(&part);
            client
        })
        .collect();
    wait_for("the values", || (figure(&mut neighbour.client, "bytes_read") > 66 * 1_030_000).then_some(()));
    let new = format!("set new 0 0 100000\r\n{}\r\n", "v".repeat(100_000));
    (0..50).for_each(|_| node.connect().expect(&new, "STORED\r\n"));
    let [held, most] =
        ["connection_memory_bytes", "connection_memory_bytes_max"].map(|name| figure(&mut neighbour.client, name));
    assert!(most == 64 << 20 && held <= most, "{held} of {most}");
    drop(halves);
    neighbour.client.ask("delete new\r\ndelete half\r\n");
    neighbour.is_well_and_alone();
}

// Row 64: readers that take nothing of large answers.

#[test]
fn sixty_readers_that_take_nothing_cost_one_value_and_no_neighbour_waits() {
    let node = Node::plain(&["-m", "256", "-I", "64m", "-c", "200"]);
    let mut neighbour = Neighbour::of(&node);
    let length = 60 << 20;
    let set = [format!("set big 0 0 {length}\r\n").as_bytes(), &vec![b'v'; length], b"\r\n"].concat();
    node.connect().expect(set, "STORED\r\n");
    let before = node.memory_bytes();
    let readers: Vec<Client> = (0..60)
        .map(|_| {
            let mut client = node.connect();
            client.send("get big\r\n");
            client
        })
        .collect();
    wait_for("the readers", || (figure(&mut neighbour.client, "get_hits") >= 60).then_some(()));
    let grown = node.memory_bytes().saturating_sub(before);
    assert!(grown < length as u64 / 2, "{grown} bytes");
    // Nor do they hold on to more than the budget of what is replaced under them.
    let set = [format!("set big 0 0 {}\r\n", length - 1).as_bytes(), &vec![b'v'; length - 1], b"\r\n"].concat();
    node.connect().expect(set, "STORED\r\n");
    assert!(figure(&mut neighbour.client, "connection_memory_bytes") >= length as u64);
    drop(readers);
    let client = &mut neighbour.client;
    wait_for("the memory", || (figure(client, "connection_memory_bytes") == 0).then_some(()));
    neighbour.client.ask("delete big\r\n");
    neighbour.is_well_and_alone();
}

// Row 65: one line of half a million keys.

#[test]
fn a_line_of_half_a_million_keys_is_answered_whole_beside_a_neighbour() {
    let node = Node::plain(&["-t", "1"]);
    let mut neighbour = Neighbour::of(&node);
    let line = format!("get{}\r\n", " k".repeat(500_000));
    let mut client = node.connect();
    client.send(&line);
    wait_for("the first keys", || (figure(&mut neighbour.client, "cmd_get") > 0).then_some(()));
    neighbour.client.expect("get neighbour\r\n", "VALUE neighbour 0 5\r\nhello\r\nEND\r\n");
    client.expect("", "END\r\n");
    assert_eq!(figure(&mut neighbour.client, "get_misses"), 500_000);
    drop(client);
    neighbour.is_well_and_alone();
}

// Row 20: flush_all. What else touches managed keys is in `managed.rs` and `meta.rs`.

#[test]
fn flush_all_in_all_forms_leaves_managed_keys_alone() {
    let wechat = Wechat::start();
    let node = Node::start(&wechat.config("", "aliases = [\"access_token\"]"), &[]);
    let mut client = node.connect();
    let token = wait_for("the token", || client.get("access_token"));
    for flush in ["flush_all\r\n", "flush_all 0\r\n", "flush_all -1\r\n", "flush_all 2147483647\r\n", "flush_all 1\r\n"]
    {
        client.expect("set ordinary 0 0 1\r\nx\r\n", "STORED\r\n");
        client.expect(flush, "OK\r\n");
        assert_eq!(client.get("access_token").as_ref(), Some(&token), "{flush}");
    }
    wait_for("the delayed flush", || client.get("ordinary").is_none().then_some(()));
    assert_eq!(client.get(&format!("access_token:{APPID}")).as_ref(), Some(&token));
    assert_eq!(wechat.calls(APPID).total(), 1, "nothing had to be fetched again");
}

// Row 24: commands of an operator in the hands of a stranger.

#[test]
fn no_command_lists_keys_or_values() {
    let wechat = Wechat::start();
    let node = Node::start(&wechat.config("", "aliases = [\"access_token\"]"), &[]);
    let mut client = node.connect();
    let token = String::from_utf8(wait_for("the token", || client.get("access_token"))).unwrap();
    client.expect("set private 0 0 6\r\nsecret\r\n", "STORED\r\n");
    for command in [
        "stats",
        "stats items",
        "stats slabs",
        "stats sizes",
        "stats settings",
        "stats conns",
        "stats tokens",
        "stats detail on",
        "stats detail dump",
        "stats cachedump 1 0",
        "stats cachedump 63 100",
        "stats bogus",
        "lru_crawler metadump all",
        "lru_crawler metadump hash",
        "lru_crawler mgdump all",
        "lru_crawler mgdump 1",
        "watch",
        "watch fetchers",
        "watch mutations fetchers evictions",
        "me access_token",
        "verbosity 9",
        "cache_memlimit 64",
        "stats reset",
        "shutdown",
        "debugtime p",
        "misbehave",
    ] {
        let answer = String::from_utf8(client.ask(format!("{command}\r\n"))).unwrap();
        assert!(answer.ends_with("\r\n"), "{command}: {answer:?}");
        for hidden in [token.as_str(), "private", "secret"] {
            assert!(!answer.contains(hidden), "{command}: {answer}");
        }
    }
    assert_eq!(client.get("private").unwrap(), b"secret");
    assert!(!node.log().contains(&token) && !node.log().contains("private"), "{}", node.log());
}

#[test]
fn a_memory_limit_set_by_command_holds_at_once() {
    fn fill(client: &mut Client, name: &str, items: u32) {
        let value = "v".repeat(1000);
        for hundred in 0..items / 100 {
            let sets: String = (0..100).map(|n| format!("set {name}{hundred}.{n} 0 0 1000\r\n{value}\r\n")).collect();
            client.expect(sets, "STORED\r\n".repeat(100));
        }
    }
    let node = Node::plain(&["-m", "64"]);
    let mut client = node.connect();
    fill(&mut client, "first", 20_000);
    assert_eq!(figure(&mut client, "evictions"), 0);
    client.expect("cache_memlimit 8\r\n", "OK\r\n");
    assert_eq!(figure(&mut client, "limit_maxbytes"), 8 << 20);
    assert_eq!(client.stat("settings", "maxbytes").unwrap(), (8 << 20).to_string());
    fill(&mut client, "second", 2000);
    assert!(figure(&mut client, "bytes") <= 8 << 20);
    assert!(figure(&mut client, "evictions") > 10_000);
    client.expect("cache_memlimit 7\r\n", "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n");
    client.expect("cache_memlimit 64\r\n", "OK\r\n");
    fill(&mut client, "third", 20_000);
    assert!(figure(&mut client, "bytes") > 16 << 20, "there is room again");
}

#[test]
fn shutdown_ends_the_server_only_where_it_is_allowed() {
    let node = Node::plain(&[]);
    for word in ["shutdown", "shutdown graceful", "shutdown now"] {
        node.connect().expect(format!("{word}\r\nmn\r\n"), "ERROR: shutdown not enabled\r\nMN\r\n");
    }
    let mut node = Node::plain(&["-A"]);
    node.connect().expect("shutdown now\r\nmn\r\n", "CLIENT_ERROR invalid shutdown mode\r\nMN\r\n");
    let mut client = node.connect();
    client.send("shutdown\r\n");
    assert_eq!(client.rest(), b"");
    assert!(node.wait().success());
}

// A key that could pass for lines of an answer.

#[test]
fn a_key_with_line_ends_is_shown_in_base64_only() {
    let node = Node::plain(&[]);
    let mut client = node.connect();
    // "a\r\nHD" and "a b" and "a\0": keys that only base64 can bring.
    for key in ["YQ0KSEQ=", "YSBi", "YQA=", "YQ0="] {
        let shown = format!("k{key} b");
        client.expect(format!("mg {key} b N0 k s\r\n"), format!("HD {shown} s0 W\r\n"));
        client.expect(format!("mg {key} b k\r\n"), format!("HD {shown} Z\r\n"));
        let debug = String::from_utf8(client.ask(format!("me {key} b\r\n"))).unwrap();
        assert!(debug.starts_with(&format!("ME {key} exp=")) && debug.lines().count() == 1, "{debug:?}");
        client.expect(format!("ma {key} b k\r\n"), "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n");
        client.expect(format!("ms {key} 1 b k MA\r\n7\r\n"), format!("HD {shown}\r\n"));
        client.expect(format!("mg {key} b k v\r\n"), format!("VA 1 {shown}\r\n7\r\n"));
        client.expect(format!("ma {key} b k\r\n"), format!("HD {shown}\r\n"));
        client.expect(format!("md {key} b k\r\n"), format!("HD {shown}\r\n"));
        client.expect(format!("mg {key} b k\r\n"), format!("EN {shown}\r\n"));
    }
    // Others that came in base64 and are text are shown as memcached shows them.
    client.expect("mg YWJj b N0 k\r\n", "HD kabc W\r\n");
}

#[test]
fn verbosity_changes_the_log_and_never_brings_commands_or_values_into_it() {
    let node = Node::plain(&[]);
    let mut neighbour = Neighbour::of(&node);
    let departures = || node.log().matches(" disconnected").count();
    let mut visit = |verbosity: u32, logged: usize| {
        neighbour.client.expect(format!("verbosity {verbosity}\r\n"), "OK\r\n");
        assert_eq!(neighbour.client.stat("settings", "verbosity").unwrap(), verbosity.to_string());
        let before = departures();
        let mut client = node.connect();
        client.expect("set private 0 0 6\r\nsecret\r\ndelete private\r\n", "STORED\r\nDELETED\r\n");
        drop(client);
        neighbour.is_well_and_alone();
        // What should not have been logged and comes late spoils the next count.
        wait_for("the log", || (departures() - before == logged).then_some(()));
    };
    for (verbosity, logged) in [(0, 0), (2, 1), (9, 1), (1, 0), (4_294_967_295, 1)] {
        visit(verbosity, logged);
    }
    wait_for("four lines", || {
        (node.log().matches("a client has changed the log verbosity").count() >= 4).then_some(())
    });
    let log = node.log();
    assert!(!log.contains("private") && !log.contains("secret"), "{log}");
    assert_eq!(log.matches("a client has changed the log verbosity").count(), 4, "{log}");
}
