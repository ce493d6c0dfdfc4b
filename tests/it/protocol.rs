//! The classic text protocol on ordinary keys, as a table of what is sent and what memcached 1.6 answers.

use crate::support::{Client, Node};

#[track_caller]
fn check(exchanges: &[(&str, &str)]) {
    let node = Node::plain(&["-m", "64"]);
    let mut client = node.connect();
    for (send, expected) in exchanges {
        client.expect(send, expected);
    }
    client.expect("mn\r\n", "MN\r\n");
}

#[test]
fn storage_commands() {
    check(&[
        ("get a\r\n", "END\r\n"),
        ("set a 5 0 3\r\nabc\r\n", "STORED\r\n"),
        ("get a\r\n", "VALUE a 5 3\r\nabc\r\nEND\r\n"),
        ("add a 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
        ("add b 0 0 1\r\nx\r\n", "STORED\r\n"),
        ("replace c 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
        ("replace b 0 0 2\r\nyy\r\n", "STORED\r\n"),
        ("append b 7 7 1\r\nz\r\n", "STORED\r\n"),
        ("prepend b 7 7 1\r\nw\r\n", "STORED\r\n"),
        ("get b\r\n", "VALUE b 0 4\r\nwyyz\r\nEND\r\n"),
        ("append c 0 0 1\r\nz\r\n", "NOT_STORED\r\n"),
        ("prepend c 0 0 1\r\nz\r\n", "NOT_STORED\r\n"),
        ("get a b c a\r\n", "VALUE a 5 3\r\nabc\r\nVALUE b 0 4\r\nwyyz\r\nVALUE a 5 3\r\nabc\r\nEND\r\n"),
        ("set e 0 0 0\r\n\r\nget e\r\n", "STORED\r\nVALUE e 0 0\r\n\r\nEND\r\n"),
        ("set f 4294967295 0 1\r\n1\r\nget f\r\n", "STORED\r\nVALUE f 4294967295 1\r\n1\r\nEND\r\n"),
        ("set a 0 0 1 noreply\r\n9\r\nget a\r\n", "VALUE a 0 1\r\n9\r\nEND\r\n"),
        ("delete a\r\n", "DELETED\r\n"),
        ("delete a\r\n", "NOT_FOUND\r\n"),
    ]);
}

#[test]
fn values_are_binary_safe() {
    let node = Node::plain(&[]);
    let mut client = node.connect();
    let value: Vec<u8> = (0..=255).chain(*b"\r\nEND\r\nget x\r\n").collect();
    let set = [format!("set k 0 0 {}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat();
    client.expect(set, "STORED\r\n");
    assert_eq!(client.get("k").unwrap(), value);
}

#[test]
fn cas() {
    let node = Node::plain(&[]);
    let mut client = node.connect();
    client.expect("cas a 0 0 1 1\r\nx\r\n", "NOT_FOUND\r\n");
    client.expect("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    let answer = String::from_utf8(client.ask("gets a\r\n")).unwrap();
    let unique: u64 = answer.lines().next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    client.expect(format!("cas a 0 0 1 {}\r\ny\r\n", unique + 1), "EXISTS\r\n");
    client.expect(format!("cas a 0 0 1 {unique}\r\ny\r\n"), "STORED\r\n");
    client.expect(format!("cas a 0 0 1 {unique}\r\nz\r\n"), "EXISTS\r\n");
    client.expect("get a\r\n", "VALUE a 0 1\r\ny\r\nEND\r\n");
}

#[test]
fn arithmetic() {
    check(&[
        ("incr n 1\r\n", "NOT_FOUND\r\n"),
        ("set n 5 0 2\r\n10\r\n", "STORED\r\n"),
        ("incr n 5\r\n", "15\r\n"),
        ("decr n 10\r\n", "5\r\n"),
        ("get n\r\n", "VALUE n 5 2\r\n5 \r\nEND\r\n"),
        ("decr n 10\r\n", "0\r\n"),
        ("incr n 18446744073709551615\r\n", "18446744073709551615\r\n"),
        ("incr n 2\r\n", "1\r\n"),
        ("incr n x\r\n", "CLIENT_ERROR invalid numeric delta argument\r\n"),
        ("incr n -1\r\n", "CLIENT_ERROR invalid numeric delta argument\r\n"),
        (
            "set t 0 0 1\r\nx\r\nincr t 1\r\n",
            "STORED\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
        ),
        ("incr n 1 noreply\r\n", ""),
    ]);
}

#[test]
fn expiry_and_touch() {
    check(&[
        ("set a 0 -1 1\r\nx\r\nget a\r\n", "STORED\r\nEND\r\n"),
        ("set a 0 1000 1\r\nx\r\nget a\r\n", "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"),
        ("touch a 0\r\n", "TOUCHED\r\n"),
        ("touch zz 0\r\n", "NOT_FOUND\r\n"),
        ("touch a x\r\n", "CLIENT_ERROR invalid exptime argument\r\n"),
        ("gat 1000 a zz\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n"),
        ("touch a -1\r\nget a\r\n", "TOUCHED\r\nEND\r\n"),
        // Absolute times: long past, and far ahead.
        ("set a 0 2592001 1\r\nx\r\nget a\r\n", "STORED\r\nEND\r\n"),
        ("set a 0 2147483647 1\r\nx\r\nget a\r\n", "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"),
        // What pecl memcache sends for -1.
        ("set a 0 4294967295 1\r\nx\r\nget a\r\n", "STORED\r\nEND\r\n"),
    ]);
}

#[test]
fn flush_all() {
    check(&[
        ("set a 0 0 1\r\nx\r\nflush_all\r\nget a\r\n", "STORED\r\nOK\r\nEND\r\n"),
        ("set a 0 0 1\r\nx\r\nget a\r\n", "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"),
        ("flush_all 1000\r\nget a\r\n", "OK\r\nVALUE a 0 1\r\nx\r\nEND\r\n"),
        ("flush_all x\r\n", "CLIENT_ERROR invalid exptime argument\r\n"),
        ("flush_all noreply\r\nget a\r\n", "END\r\n"),
        ("flush_all 0\r\n", "OK\r\n"),
    ]);
}

#[test]
fn flush_all_with_a_delay_takes_effect_when_the_delay_is_over() {
    let node = Node::plain(&[]);
    let mut client = node.connect();
    client.expect("set a 0 0 1\r\nx\r\nflush_all 1\r\n", "STORED\r\nOK\r\n");
    crate::support::wait_for("the flush", || client.get("a").is_none().then_some(()));
    client.expect("set a 0 0 1\r\ny\r\nget a\r\n", "STORED\r\nVALUE a 0 1\r\ny\r\nEND\r\n");
}

#[test]
fn bad_input_gets_memcacheds_error_and_the_connection_stays_in_step() {
    let long = "k".repeat(251);
    check(&[
        ("\r\n", "ERROR\r\n"),
        ("bogus\r\n", "ERROR\r\n"),
        ("get\r\n", "ERROR\r\n"),
        ("set a 0 0\r\n", "ERROR\r\n"),
        ("set a 0 0 -1\r\n", "CLIENT_ERROR bad command line format\r\n"),
        ("set a 0 0 1x\r\n", "CLIENT_ERROR bad command line format\r\n"),
        ("set a 0 0 2147483647\r\n", "CLIENT_ERROR bad command line format\r\n"),
        ("set a 0 0 3\r\nabcdef\r\n", "CLIENT_ERROR bad data chunk\r\nERROR\r\n"),
        ("set a x 0 3\r\nabc\r\n", "CLIENT_ERROR bad command line format\r\n"),
        (&format!("set {long} 0 0 3\r\nabc\r\n"), "CLIENT_ERROR bad command line format\r\n"),
        (&format!("get a {long}\r\n"), "CLIENT_ERROR bad command line format\r\n"),
        ("delete a 1\r\n", "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"),
        ("delete a 0\r\n", "NOT_FOUND\r\n"),
        ("verbosity\r\n", "ERROR\r\n"),
        ("verbosity 1\r\n", "OK\r\n"),
        ("shutdown\r\n", "ERROR: shutdown not enabled\r\n"),
        ("cache_memlimit 1\r\n", "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n"),
        ("cache_memlimit 64\r\n", "OK\r\n"),
    ]);
}

#[test]
fn an_oversize_value_is_swallowed_the_old_one_dropped_and_the_connection_kept() {
    let node = Node::plain(&[]);
    let mut client = node.connect();
    client.expect("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    for length in [1_048_517, 3_000_000] {
        let set = [format!("set a 0 0 {length}\r\n").into_bytes(), vec![b'v'; length], b"\r\n".to_vec()].concat();
        client.expect(set, "SERVER_ERROR object too large for cache\r\n");
        client.expect("get a\r\n", "END\r\n");
    }
    let largest = [b"set k 0 0 1048516\r\n".to_vec(), vec![b'v'; 1_048_516], b"\r\n".to_vec()].concat();
    client.expect(largest, "STORED\r\n");
    assert_eq!(client.get("k").unwrap().len(), 1_048_516);
}

#[test]
fn many_large_values_in_one_get_arrive_whole() {
    let node = Node::plain(&["-m", "256"]);
    let mut client = node.connect();
    let mut expected = Vec::new();
    for index in 0..40 {
        let value = vec![b'a' + index % 26; 300_000];
        let head = format!("k{index} 0");
        client.expect([format!("set {head} 0 300000\r\n").as_bytes(), &value, b"\r\n"].concat(), "STORED\r\n");
        expected.extend([format!("VALUE {head} 300000\r\n").as_bytes(), &value, b"\r\n"].concat());
    }
    expected.extend(b"END\r\n");
    let keys: String = (0..40).map(|index| format!(" k{index}")).collect();
    client.send(format!("get{keys}\r\n"));
    assert!(client.read(expected.len()) == expected);
}

#[test]
fn memory_is_a_real_limit_and_never_an_error() {
    let node = Node::plain(&["-m", "16"]);
    let mut client = node.connect();
    let value = vec![b'v'; 40_000];
    for index in 0..2_000 {
        client.expect([format!("set k{index} 0 0 40000\r\n").as_bytes(), &value, b"\r\n"].concat(), "STORED\r\n");
    }
    let figure = |client: &mut Client, name| client.stat("", name).unwrap().parse::<u64>().unwrap();
    assert!(figure(&mut client, "bytes") <= 16 << 20);
    assert!(figure(&mut client, "evictions") > 1_000);
    assert!(client.get("k1999").is_some());
}

#[test]
fn without_eviction_a_full_cache_says_so() {
    let node = Node::plain(&["-m", "8", "-M"]);
    let mut client = node.connect();
    let value = vec![b'v'; 400_000];
    let answers: Vec<Vec<u8>> = (0..40)
        .map(|index| client.ask([format!("set k{index} 0 0 400000\r\n").as_bytes(), &value, b"\r\n"].concat()))
        .collect();
    assert_eq!(answers[0], b"STORED\r\n");
    assert_eq!(answers[39], b"SERVER_ERROR out of memory storing object\r\n");
    assert!(client.get("k0").is_some());
}

#[test]
fn foreign_protocols_are_hung_up_on() {
    let node = Node::plain(&[]);
    for hello in [
        &b"mn\r\n\x80\x0b\0\0\0\0\0\0"[..],
        b"\x16\x03\x01\x02\0",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nset x 0 0 1\r\n1\r\n",
    ] {
        let mut client = node.connect();
        client.send(hello);
        let answer = client.rest();
        assert!(answer.is_empty() || answer == b"MN\r\n" && hello.starts_with(b"mn"), "{}", hello.escape_ascii());
    }
    let mut client = node.connect();
    client.send(vec![b'x'; 4000]);
    assert_eq!(client.rest(), b"");
    assert!(node.connect().get("x").is_none());
}

#[test]
fn quit_closes_after_the_answers() {
    let node = Node::plain(&[]);
    let mut client = node.connect();
    client.send("set a 0 0 1\r\nx\r\nget a\r\nquit\r\nget a\r\n");
    assert_eq!(client.rest(), b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n");
}

#[test]
fn the_connection_limit_is_told_and_kept() {
    let node = Node::plain(&["-c", "3"]);
    let mut clients: Vec<Client> = (0..3).map(|_| node.connect()).collect();
    for client in &mut clients {
        client.expect("mn\r\n", "MN\r\n");
    }
    assert_eq!(node.connect().rest(), b"ERROR Too many open connections\r\n");
    drop(clients.pop());
    crate::support::wait_for("a free place", || {
        let mut client = node.connect();
        client.send("mn\r\n");
        (client.read(4) == b"MN\r\n").then_some(())
    });
}

#[test]
fn stats_name_what_the_exporter_reads() {
    let node = Node::plain(&[]);
    let mut client = node.connect();
    client.ask("set a 0 0 1\r\nx\r\nget a b\r\n");
    let general = String::from_utf8(client.ask("stats\r\n")).unwrap();
    // prometheus/memcached_exporter, pkg/exporter: the fields it parses.
    for name in [
        "pid",
        "uptime",
        "time",
        "version",
        "rusage_user",
        "rusage_system",
        "curr_connections",
        "max_connections",
        "total_connections",
        "rejected_connections",
        "connection_structures",
        "cmd_get",
        "cmd_set",
        "cmd_flush",
        "cmd_touch",
        "get_hits",
        "get_misses",
        "delete_misses",
        "delete_hits",
        "incr_misses",
        "incr_hits",
        "decr_misses",
        "decr_hits",
        "cas_misses",
        "cas_hits",
        "cas_badval",
        "touch_hits",
        "touch_misses",
        "bytes_read",
        "bytes_written",
        "limit_maxbytes",
        "accepting_conns",
        "listen_disabled_num",
        "time_in_listen_disabled_us",
        "threads",
        "conn_yields",
        "hash_power_level",
        "hash_bytes",
        "hash_is_expanding",
        "malloc_fails",
        "bytes",
        "curr_items",
        "total_items",
        "expired_unfetched",
        "evicted_unfetched",
        "evicted_active",
        "evictions",
        "reclaimed",
        "crawler_reclaimed",
        "crawler_items_checked",
        "lrutail_reflocked",
        "moves_to_cold",
        "moves_to_warm",
        "moves_within_lru",
        "direct_reclaims",
        "lru_crawler_running",
        "lru_crawler_starts",
        "store_too_large",
        "store_no_memory",
        "auth_cmds",
        "auth_errors",
    ] {
        assert!(general.contains(&format!("STAT {name} ")), "no {name}");
    }
    for (name, value) in
        [("get_hits", "1"), ("get_misses", "1"), ("cmd_get", "2"), ("cmd_set", "1"), ("curr_items", "1")]
    {
        assert!(general.contains(&format!("STAT {name} {value}\r\n")), "{name}");
    }
    assert_eq!(client.stat("items", "items:1:number").unwrap(), "1");
    assert_eq!(client.stat("slabs", "1:chunk_size").unwrap(), "96");
    assert_eq!(client.stat("slabs", "active_slabs").unwrap(), "1");
    assert_eq!(client.stat("settings", "maxconns").unwrap(), "1024");
    client.expect("stats sizes\r\n", "STAT sizes_status disabled\r\nEND\r\n");
    client.expect("stats reset\r\n", "RESET\r\n");
    assert_eq!(client.stat("", "get_hits").unwrap(), "0");
    client.expect("stats bogus\r\n", "ERROR\r\n");
}
