//! `stats` in all forms, maintenance commands and the words of `-o`, held against a real memcached: the same names in the
//! same order, the same answers where nothing depends on them, and lists of what is deliberately otherwise.

use crate::differential::Memcached;
use crate::support::{Client, Node, program, run, tokencached, wait_for};

/// The names in an answer to `stats ...`, in order.
fn names(client: &mut Client, argument: &str) -> Vec<String> {
    let answer = String::from_utf8(client.ask(format!("stats {argument}\r\n"))).unwrap();
    assert!(answer.ends_with("END\r\n"), "{answer}");
    let names = answer.lines().filter_map(|line| line.strip_prefix("STAT ")?.split(' ').next());
    names.map(str::to_owned).collect()
}

/// Compares names: `lacking` are memcached's alone, `added` ours alone, all others are in the same order.
#[track_caller]
fn compare(argument: &str, lacking: &[&str], added: &[&str]) {
    let (memcached, node) = (Memcached::with(&[]), Node::plain(&[]));
    let (mut theirs, mut ours) = (Client::connect(memcached.address), node.connect());
    let session = "set a 0 0 1\r\nx\r\nget a b\r\ndelete b\r\n";
    assert_eq!(ours.ask(session), theirs.ask(session));
    let (theirs, ours) = (names(&mut theirs, argument), names(&mut ours, argument));
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|name| !those.contains(name)).cloned().collect()
    };
    assert_eq!(only(&theirs, &ours), lacking, "lacking in stats {argument}");
    assert_eq!(only(&ours, &theirs), added, "added to stats {argument}");
    let common = |names: &[String]| -> Vec<String> {
        names
            .iter()
            .filter(|name| !lacking.contains(&name.as_str()) && !added.contains(&name.as_str()))
            .cloned()
            .collect()
    };
    assert_eq!(common(&ours), common(&theirs), "the order of stats {argument}");
}

/// Figures of `stats` that a plain cache has and memcached has not.
pub const OWN: &[&str] = &[
    "idle_kicks",
    "tokencached_version",
    "managed_credentials",
    "managed_hits",
    "managed_misses",
    "managed_refused_writes",
    "managed_reports",
    "client_checks",
    "client_checks_refused",
    "access_denied",
    "log_lines_dropped",
    "auth_delays",
    "ssl_handshake_errors",
    "foreign_protocols",
    "request_timeouts",
    "write_timeouts",
    "in_flight_refusals",
    "connection_memory_bytes",
    "connection_memory_bytes_max",
];

/// Whether a figure of ours is one that memcached has too: those come before our own, in memcached's order.
pub fn is_memcacheds(name: &str) -> bool {
    let begins = ["managed_", "state_file_", "shared_state_", "sink_", "connection_memory_"];
    !OWN.contains(&name) && !begins.iter().any(|beginning| name.starts_with(beginning))
}

#[test]
#[ignore = "needs memcached"]
fn general_names_are_memcacheds_and_a_few_of_our_own() {
    compare("", &[], OWN);
}

#[test]
#[ignore = "needs memcached"]
fn names_of_items_and_slabs_are_memcacheds() {
    compare("items", &[], &[]);
    // memcached told it in the days from which many dashboards are.
    compare("slabs", &[], &["1:mem_requested"]);
    compare("sizes", &[], &[]);
}

#[test]
#[ignore = "needs memcached"]
fn settings_are_those_that_exist_here() {
    let lacking = [
        "growth_factor",
        "chunk_size",
        "num_threads_per_udp",
        "hashpower_init",
        "slab_reassign",
        "slab_automove",
        "slab_automove_ratio",
        "slab_automove_window",
        "slab_chunk_max",
        "lru_crawler",
        "lru_crawler_sleep",
        "lru_crawler_tocrawl",
        "tail_repair_time",
        "hash_algorithm",
        "lru_maintainer_thread",
        "lru_segmented",
        "hot_lru_pct",
        "warm_lru_pct",
        "hot_max_factor",
        "warm_max_factor",
        "temp_lru",
        "temporary_ttl",
        "watcher_logbuf_size",
        "worker_logbuf_size",
        "read_buf_mem_limit",
        "track_sizes",
        "inline_ascii_response",
        "ext_item_size",
        "ext_item_age",
        "ext_low_ttl",
        "ext_recache_rate",
        "ext_wbuf_size",
        "ext_compact_under",
        "ext_drop_under",
        "ext_max_sleep",
        "ext_max_frag",
        "slab_automove_freeratio",
        "ext_drop_unread",
        "ssl_chain_cert",
        "ssl_key",
        "ssl_verify_mode",
        "ssl_keyformat",
        "ssl_ciphers",
        "ssl_ca_cert",
        "ssl_wbuf_size",
        "ssl_session_cache",
        "ssl_kernel_tls",
        "ssl_min_version",
        "num_napi_ids",
        "memory_file",
    ];
    compare("settings", &lacking, &["refuse_with", "first_get_wait_ms"]);
}

/// `stats conns` without what differs from run to run.
fn connections(client: &mut Client, port: u16) -> Vec<String> {
    let answer = String::from_utf8(client.ask("stats conns\r\n")).unwrap();
    let own = client.stream.local_addr().unwrap().to_string();
    let lines = answer.lines().map(|line| {
        let line = line.replace(&own, "OWN").replace(&format!(":{port}"), ":PORT");
        match line.strip_prefix("STAT ").and_then(|line| line.split_once(':')) {
            Some((descriptor, rest)) if descriptor.parse::<u32>().is_ok() => format!("STAT N:{rest}"),
            _ => line,
        }
    });
    lines.filter(|line| !line.contains("secs_since_last_cmd")).collect()
}

#[test]
#[ignore = "needs memcached"]
fn connections_are_shown_as_memcached_shows_them() {
    let (memcached, node) = (Memcached::with(&[]), Node::plain(&[]));
    let (mut theirs, mut ours) = (Client::connect(memcached.address), node.connect());
    let mut expected = Vec::new();
    // The connection by which the other test code found out that memcached listens may not be gone yet.
    wait_for("memcached to be alone with us", || {
        expected = connections(&mut theirs, memcached.address.port());
        (expected.iter().filter(|line| line.contains(":addr")).count() == 2).then_some(())
    });
    assert_eq!(connections(&mut ours, node.address.port()), expected);
    assert_eq!(names(&mut ours, "conns").len(), 3 + 4);

    // A connection in the middle of a value, one in the middle of a line, one being thrown away, and one that has gone.
    let mut half: Vec<Client> = (0..4).map(|_| node.connect()).collect();
    half.iter_mut().for_each(|client| client.expect("mn\r\n", "MN\r\n"));
    for (client, bytes) in half.iter_mut().zip(["set k 0 0 5\r\n12", "get", "set k 0 0 99999999\r\n1"]) {
        client.send(bytes);
    }
    drop(half.pop());
    let states = wait_for("the states", || {
        let all = connections(&mut ours, node.address.port()).join("\n");
        let found = |state: &str| all.matches(state).count();
        (found(":addr") == 5 && found("conn_nread") == 1 && found("conn_swallow") == 1).then_some(all)
    });
    assert_eq!((states.matches("conn_read").count(), states.matches("conn_parse_cmd").count()), (1, 1), "{states}");
}

#[test]
#[ignore = "needs memcached"]
fn other_forms_are_answered_as_memcached_answers() {
    // As with -X and -W, which is how this server always is.
    let (memcached, node) = (Memcached::with(&["-X", "-W"]), Node::plain(&[]));
    let (mut theirs, mut ours) = (Client::connect(memcached.address), node.connect());
    let mut wrong = Vec::new();
    for line in [
        "stats sizes",
        "stats sizes x",
        "stats reset",
        "stats reset x",
        "stats detail on",
        "stats detail off",
        "stats detail",
        "stats detail x",
        "stats detail dump",
        "stats extstore",
        "stats bogus",
        "verbosity",
        "verbosity 1",
        "verbosity 0",
        "verbosity x",
        "verbosity 1 2 3",
        "verbosity 1 noreply",
        "cache_memlimit",
        "cache_memlimit 64",
        "cache_memlimit 7",
        "cache_memlimit x",
        "cache_memlimit 64 noreply",
        "shutdown",
        "shutdown graceful",
        "watch",
        "watch fetchers",
        "watch x",
        "lru_crawler",
        "lru_crawler sleep 100",
        "lru_crawler sleep x",
        "lru_crawler sleep 10000000",
        "lru_crawler tocrawl 5",
        "lru_crawler tocrawl x",
        "lru_crawler crawl",
        "lru_crawler crawl 99",
        "lru_crawler crawl x",
        "lru_crawler bogus",
        "lru_crawler bogus x",
        "lru_crawler metadump",
        "lru_crawler metadump all",
        "lru_crawler metadump 1",
        "lru",
        "lru mode",
        "lru mode flat",
        "lru mode segmented",
        "lru mode x",
        "lru tune",
        "lru tune 10 25 0.1 2.0",
        "lru tune 10 25 0.1",
        "lru tune x y z w",
        "lru temp_ttl",
        "lru temp_ttl 10",
        "lru temp_ttl -1",
        "lru temp_ttl x",
        "lru mode flat noreply",
        "slabs",
        "slabs x",
        "slabs automove",
        "slabs automove 0",
        "slabs automove 1",
        "slabs automove 2",
        "slabs automove x",
        "slabs automove 1 noreply",
        "slabs reassign",
        "slabs reassign x y",
        "extstore",
        "extstore x 1",
        "extstore free_memchunks 1 1",
        "extstore recache_rate 1",
        "extstore max_frag 1",
        "debugtime p",
        "misbehave",
        "lru_crawlers enable",
        "pid",
    ] {
        let send = format!("{line}\r\n");
        let (our, their) = (ours.ask(&send), theirs.ask(&send));
        if our != their {
            wrong.push(format!("{line}: {} for {}", our.escape_ascii(), their.escape_ascii()));
        }
    }
    assert_eq!(wrong, [] as [&str; 0]);
    // Ours on purpose: nothing that makes pecl memcache leave the server, and nothing listed.
    for (send, answer) in [
        ("stats malloc\r\n", "END\r\n"),
        ("stats maps\r\n", "END\r\n"),
        ("stats cachedump 1 0\r\n", "END\r\n"),
        ("stats cachedump\r\n", "CLIENT_ERROR bad command line\r\n"),
        // memcached's may fail for a moment, while its crawler starts.
        ("lru_crawler enable\r\n", "OK\r\n"),
        ("lru_crawler disable\r\n", "OK\r\n"),
        ("lru_crawler crawl all\r\n", "OK\r\n"),
        ("lru_crawler mgdump all\r\n", "ERROR mgdump not allowed\r\n"),
        ("slabs reassign 1 2\r\n", "CLIENT_ERROR slab reassignment disabled\r\n"),
    ] {
        ours.expect(send, answer);
    }
}

/// The words of `-o` that `memcached -h` knows.
fn documented_words() -> Vec<String> {
    let help = program("memcached").arg("-h").output().expect("memcached is not installed; tests/run installs it");
    let help = String::from_utf8(help.stdout).unwrap();
    let words = help.lines().filter_map(|line| line.strip_prefix("   - ")?.split_once(':'));
    let words: Vec<String> = words.map(|(word, _)| word.to_owned()).collect();
    words.into_iter().filter(|word| !word.contains(' ')).collect()
}

#[test]
#[ignore = "needs memcached"]
fn every_word_of_o_works_is_ignored_with_a_reason_or_refused_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let check = |words: &str| run(tokencached().args(["check", "-o", words]).env("HOME", folder.path()));
    let (mut works, mut refused) = (Vec::new(), Vec::new());
    let words = documented_words();
    assert!(words.len() > 40, "{words:?}");
    for word in &words {
        let (status, said) = check(&format!("{word}=1"));
        assert!(!said.contains("is unknown"), "{word}: {said}");
        let ignored = said.contains(&format!("the word \"{word}\" is ignored: "));
        match (status.success(), ignored) {
            (true, true) => {}
            (true, false) => works.push(word.as_str()),
            (false, _) => {
                assert!(said.contains(&format!("flag -o: the word \"{word}\": ")), "{word}: {said}");
                refused.push(word.as_str());
            }
        }
    }
    assert_eq!(works, ["maxconns_fast", "idle_timeout"]);
    assert_eq!(refused, ["sock_cookie_id", "ext_path"]);
    let (status, said) = check("idle_timout=5");
    assert!(!status.success() && said.contains("Did you mean idle_timeout?"), "{said}");
}
