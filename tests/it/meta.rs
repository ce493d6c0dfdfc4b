//! Meta commands: a table of what memcached 1.6.18 answers on ordinary keys, what later versions' flags do, and what
//! each command means on managed keys, in whatever writing their names come.

use proptest::prelude::*;
use tokencached::protocol::base64;
use tokencached::sandbox::{Endpoint, FaultKind, InjectedFault};

use crate::support::{APPID, Client, Node, Wechat, wait_for};

#[track_caller]
fn check(exchanges: &[(&str, &str)]) {
    let node = Node::plain(&["-m", "64"]);
    let mut client = node.connect();
    for (send, expected) in exchanges {
        client.expect(send, expected);
        client.expect("mn\r\n", "MN\r\n");
    }
}

fn encoded(key: &str) -> String {
    let mut text = Vec::new();
    base64::encode(&mut text, key.as_bytes());
    String::from_utf8(text).unwrap()
}

#[test]
fn get_tells_what_it_is_asked() {
    check(&[
        ("mg a\r\n", "EN\r\n"),
        ("mg a v q\r\n", ""),
        ("mg a k O1 v\r\n", "EN ka O1\r\n"),
        ("ms a 2 F7\r\nxy\r\n", "HD\r\n"),
        ("mg a\r\n", "HD\r\n"),
        ("mg a v\r\n", "VA 2\r\nxy\r\n"),
        ("mg a s t k f O-9 q v\r\n", "VA 2 s2 t-1 ka f7 O-9\r\nxy\r\n"),
        ("ms b 1\r\nx\r\nmg b h u\r\nmg b h\r\nmg b h\r\n", "HD\r\nHD h0\r\nHD h0\r\nHD h1\r\n"),
    ]);
}

#[test]
fn one_reader_is_told_to_recache() {
    check(&[
        ("mg a N0 v\r\n", "VA 0 W\r\n\r\n"),
        ("mg a N0 v\r\n", "VA 0 Z\r\n\r\n"),
        ("ms a 1\r\nx\r\nmg a v\r\n", "HD\r\nVA 1\r\nx\r\n"),
        ("md a I\r\n", "HD\r\n"),
        ("mg a v\r\n", "VA 1 X W\r\nx\r\n"),
        ("mg a v\r\n", "VA 1 Z X\r\nx\r\n"),
        // An older cas with I: stored, and as stale as before.
        ("ms a 1 C1 I\r\ny\r\n", "HD\r\n"),
        ("mg a v\r\n", "VA 1 Z X\r\ny\r\n"),
        ("ms a 1 T1000\r\nz\r\nmg a R30\r\nmg a R2000\r\nmg a R2000\r\n", "HD\r\nHD\r\nHD W\r\nHD Z\r\n"),
    ]);
}

#[test]
fn set_has_every_mode() {
    check(&[
        ("ms a 1 MA\r\nx\r\n", "NS\r\n"),
        ("ms a 1 MP\r\nx\r\n", "NS\r\n"),
        ("ms a 1 MR\r\nx\r\n", "NS\r\n"),
        ("ms a 1 ME c\r\nx\r\n", "HD c1\r\n"),
        ("ms a 1 ME c k Oo\r\nx\r\n", "NS c0 ka Oo\r\n"),
        ("ms a 1 MA\r\ny\r\nms a 1 MP\r\nw\r\nmg a v\r\n", "HD\r\nHD\r\nVA 3\r\nwxy\r\n"),
        ("ms a 1 C1\r\nz\r\n", "EX\r\n"),
        ("ms a 1 C3 q\r\nz\r\nmg a v\r\n", "VA 1\r\nz\r\n"),
        ("ms b 1 C3 q\r\nz\r\n", "NF\r\n"),
        ("ms a 1 Ms\r\nz\r\n", "CLIENT_ERROR invalid mode for ms M token\r\n"),
        ("ms a 1 Mset\r\nz\r\n", "CLIENT_ERROR incorrect length for M token\r\n"),
    ]);
}

#[test]
fn arithmetic_counts_and_creates() {
    check(&[
        ("ma n\r\n", "NF\r\n"),
        ("ma n N0 J5 v\r\n", "VA 1\r\n5\r\n"),
        ("ma n D10 v\r\n", "VA 2\r\n15\r\n"),
        ("ma n MD D6 v\r\n", "VA 1\r\n9\r\n"),
        ("ma n M- D60 v t k\r\n", "VA 1 t-1 kn\r\n0\r\n"),
        ("ma n q\r\nma n q v\r\nma n C1\r\n", "EX\r\n"),
        ("ms n 1\r\nx\r\nma n\r\n", "HD\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
        // Here memcached forgets the time to live.
        ("ms n 1\r\n9\r\nma n T1000\r\nmg n v\r\n", "HD\r\nHD\r\nVA 2\r\n10\r\n"),
    ]);
    let node = Node::plain(&[]);
    let mut client = node.connect();
    client.expect("ms n 1\r\n9\r\nma n T1000\r\n", "HD\r\nHD\r\n");
    let left = String::from_utf8(client.ask("mg n t\r\n")).unwrap();
    assert!(left.starts_with("HD t9") || left == "HD t1000\r\n", "{left}");
}

#[test]
fn keys_in_base64_are_the_keys_they_stand_for() {
    check(&[
        ("ms YWJj 1 b k\r\nx\r\n", "HD kYWJj b\r\n"),
        ("get abc\r\n", "VALUE abc 0 1\r\nx\r\nEND\r\n"),
        ("mg abc k v\r\n", "VA 1 kYWJj b\r\nx\r\n"),
        ("mg Y-W-J-j k b\r\n", "HD kYWJj b\r\n"),
        ("me YWJj b\r\n", "ME YWJj exp=-1 la=0 cas=1 fetch=yes cls=1 size=63\r\n"),
        ("ms YWI 1 b\r\nx\r\n", "CLIENT_ERROR error decoding key\r\n"),
        ("md YWI b\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n"),
        ("me YWI b\r\n", "CLIENT_ERROR bad command line format\r\n"),
        ("md YWJj b q k\r\nmd YWJj b q k\r\n", "NF kYWJj b\r\n"),
    ]);
}

#[test]
fn faults_are_told_whole_and_change_nothing() {
    let long = "k".repeat(251);
    check(&[
        ("mg\r\nms\r\nmd\r\nma\r\n", "ERROR\r\nERROR\r\nERROR\r\nERROR\r\n"),
        ("me\r\nms a\r\n", "CLIENT_ERROR bad command line format\r\nCLIENT_ERROR bad command line format\r\n"),
        ("mg a v v\r\n", "CLIENT_ERROR duplicate flag\r\n"),
        ("mg a q !\r\n", "CLIENT_ERROR invalid flag\r\n"),
        ("mg a Tx Nx\r\n", "CLIENT_ERROR bad token in command line format\r\n"),
        // What memcached 1.6.18 would take for commands is still data here.
        (&format!("ms {long} 3\r\nmn \r\n"), "CLIENT_ERROR bad command line format\r\n"),
        (&format!("ms a 3{}\r\nmn \r\n", " k".repeat(17)), "CLIENT_ERROR options flags too long\r\n"),
        ("ms a 3 F4294967296\r\nmn \r\n", "CLIENT_ERROR bad command line format\r\n"),
        (&format!("mg a N0 O{}\r\nmg a\r\n", "o".repeat(32)), "CLIENT_ERROR opaque token too long\r\nEN\r\n"),
        (&format!("mg a O{}\r\n", "o".repeat(31)), &format!("EN O{}\r\n", "o".repeat(31))),
        ("ms n 1\r\n1\r\n", "HD\r\n"),
        (&format!("ma n O{}\r\nmg n v\r\n", "o".repeat(32)), "CLIENT_ERROR opaque token too long\r\nVA 1\r\n1\r\n"),
    ]);
}

#[test]
fn a_cas_of_the_clients_choice() {
    check(&[
        ("ms a 1 E77 c\r\nx\r\n", "HD c77\r\n"),
        ("ms a 1 C77 E78 c\r\ny\r\n", "HD c78\r\n"),
        ("md a I E80\r\nmg a c v\r\n", "HD\r\nVA 1 c80 X W\r\ny\r\n"),
        ("ma n N0 E5 c\r\nma n E6 c\r\n", "HD c5\r\nHD c6\r\n"),
        ("ms a 1 Ex\r\nx\r\n", "CLIENT_ERROR bad token in command line format\r\n"),
    ]);
}

#[test]
fn what_is_too_large_leaves_nothing_behind() {
    let node = Node::plain(&["-I", "1k", "-m", "8"]);
    let mut client = node.connect();
    for mode in ["", " ME", " MA", " q"] {
        for length in [1000, 3_000_000] {
            client.expect("ms a 1\r\nx\r\n", "HD\r\n");
            let head = format!("ms a {length}{mode}\r\n");
            let set = [head.as_bytes(), &vec![b'v'; length], b"\r\nmg a\r\n"].concat();
            client.expect(set, "SERVER_ERROR object too large for cache\r\nEN\r\n");
        }
    }
}

fn start(wechat: &Wechat, server: &str) -> (Node, Client, String) {
    let node = Node::start(&wechat.config(server, "aliases = [\"access_token\"]"), &["-vvv"]);
    let mut client = node.connect();
    let token = wait_for("a token", || client.get("access_token"));
    (node, client, String::from_utf8(token).unwrap())
}

fn generation(client: &mut Client) -> u64 {
    client.stat("tokens", &format!("{APPID}:generation")).unwrap().parse().unwrap()
}

/// Every writing of every name of the token, with the flag it needs.
fn writings() -> Vec<(String, &'static str)> {
    let names = ["access_token".to_owned(), format!("access_token:{APPID}")];
    let mut all: Vec<_> = names.iter().map(|name| (encoded(name), " b")).collect();
    all.push((encoded("access_token").replace('c', "-c%"), " b"));
    all.extend(names.into_iter().map(|name| (name, "")));
    all
}

/// Sends each line about each writing of each name, expects the answer, and the value unharmed. `{key}` stands for the
/// name, `{b}` for the flag it needs, `{k}` for what `k` answers, `{cas}` for the token's generation.
#[track_caller]
fn check_managed(server: &str, exchanges: &[(&str, &str)]) {
    let wechat = Wechat::start();
    let (_node, mut client, token) = start(&wechat, server);
    let cas = generation(&mut client).to_string();
    for (key, flag) in writings() {
        let clean = key.replace(['-', '%'], "");
        for (send, expected) in exchanges {
            let send = send.replace("{key}", &key).replace("{b}", flag).replace("{cas}", &cas);
            let expected = expected.replace("{k}", &format!("k{clean}{flag}")).replace("{token}", &token);
            let expected = expected.replace("{cas}", &cas);
            client.expect(&send, expected);
            client.expect("mn\r\n", "MN\r\n");
            assert_eq!(client.get("access_token").unwrap(), token.as_bytes(), "after {send}");
        }
    }
    assert_eq!(wechat.calls(APPID).of(Endpoint::StableToken), 1, "no command made the server fetch");
    assert_eq!(wechat.calls(APPID).of(Endpoint::GetApiDomainIp), 0, "none made it check");
}

#[test]
fn a_managed_get_answers_the_token_and_changes_nothing() {
    check_managed(
        "",
        &[
            ("mg {key}{b}\r\n", "HD\r\n"),
            ("mg {key}{b} v\r\n", "VA 136\r\n{token}\r\n"),
            ("mg {key}{b} f c s h l k O1 v q\r\n", "VA 136 f0 c{cas} s136 h1 l0 {k} O1\r\n{token}\r\n"),
            // Neither touched, nor vivified, nor to be recached by anybody but the refresher.
            ("mg {key}{b} T-1 N0 R2147483647 u s\r\n", "HD s136\r\n"),
            ("mg {key}{b} T0 c\r\n", "HD c{cas}\r\n"),
        ],
    );
}

#[test]
fn a_managed_get_tells_the_true_seconds_left() {
    let wechat = Wechat::start();
    let (_node, mut client, _) = start(&wechat, "");
    for flags in ["t", "T2000000 t", "T0 t", "T-1 t"] {
        let answer = String::from_utf8(client.ask(format!("mg access_token {flags}\r\n"))).unwrap();
        let left: u64 = answer.trim_end().strip_prefix("HD t").unwrap().parse().unwrap();
        assert!((1..=7200).contains(&left), "{answer}");
    }
}

#[test]
fn what_has_no_end_says_so() {
    let wechat = Wechat::start();
    let app = r#"aliases = ["access_token", { key = "one", constant = 1 }, { key = "long", shows = "expires_in", at_least = 86400 }]"#;
    let node = Node::start(&wechat.config("", app), &[]);
    let mut client = node.connect();
    wait_for("a token", || client.get("access_token"));
    client.expect("mg one t c s v\r\nmd one C1\r\nmd one C2\r\n", "VA 1 t-1 c1 s1\r\n1\r\nHD\r\nEX\r\n");
    // However long a view says it is good for.
    let answer = String::from_utf8(client.ask("mg long t\r\n")).unwrap();
    let left: u64 = answer.trim_end().strip_prefix("HD t").unwrap().parse().unwrap();
    assert!((1..=7200).contains(&left), "{answer}");
}

#[test]
fn managed_writes_are_refused_in_every_mode() {
    check_managed(
        "",
        &[
            ("ms {key} 5{b}\r\nother\r\n", "NS\r\n"),
            ("ms {key} 5 T0 F5 c k Oo{b}\r\nother\r\n", "NS c0 {k} Oo\r\n"),
            ("ms {key} 5 ME{b}\r\nother\r\n", "NS\r\n"),
            ("ms {key} 5 MA{b}\r\nother\r\n", "NS\r\n"),
            ("ms {key} 5 MP{b}\r\nother\r\n", "NS\r\n"),
            ("ms {key} 5 MR{b}\r\nother\r\n", "NS\r\n"),
            ("ms {key} 5 MS E9{b}\r\nother\r\n", "NS\r\n"),
            ("ms {key} 5 C{cas}{b}\r\nother\r\n", "EX\r\n"),
            ("ms {key} 5 C0 I{b}\r\nother\r\n", "EX\r\n"),
            ("ms {key} 5 MA C9{b}\r\nother\r\n", "EX\r\n"),
            ("ms {key} 5 q{b}\r\nother\r\n", ""),
            ("ms {key} 5 C{cas} q{b}\r\nother\r\n", ""),
            // A data block that looks like commands is still data.
            ("ms {key} 10{b}\r\nget a\r\nEND\r\n", "NS\r\n"),
            ("ma {key}{b}\r\n", "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
            ("ma {key} N0 J1 MD T0 v{b}\r\n", "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
            ("ma {key} q{b}\r\n", ""),
        ],
    );
    check_managed(
        "refuse_with = \"client_error\"",
        &[
            ("ms {key} 5 k{b}\r\nother\r\n", "CLIENT_ERROR managed key\r\n"),
            ("ms {key} 5 C{cas}{b}\r\nother\r\n", "CLIENT_ERROR managed key\r\n"),
            ("ms {key} 5 q{b}\r\nother\r\n", ""),
        ],
    );
}

#[test]
fn managed_writes_are_counted_and_may_be_large() {
    let wechat = Wechat::start();
    let (node, mut client, token) = start(&wechat, "");
    let value = vec![b'v'; 3 << 20];
    let head = format!("ms {} {} b k\r\n", encoded("access_token"), value.len());
    client.expect([head.as_bytes(), &value, b"\r\n"].concat(), format!("NS k{} b\r\n", encoded("access_token")));
    client.expect("ms access_token 14 q\r\nFOREIGN-SECRET\r\n", "");
    assert_eq!(client.stat("tokens", &format!("{APPID}:refused_writes")).unwrap(), "2");
    assert_eq!(client.get("access_token").unwrap(), token.as_bytes());
    let rivals = |client: &mut Client| client.stat("tokens", &format!("{APPID}:rival_writes")).unwrap();
    assert_eq!(rivals(&mut client), "0");
    client.expect(format!("ms {} 20 b C1 MA\r\nANOTHER-ONES-SECRET!\r\n", encoded("access_token")), "EX\r\n");
    assert_eq!(rivals(&mut client), "1", "who brings another token has fetched it");
    node.await_log("refused a client's write");
    let log = node.log();
    assert_eq!(log.matches("refused a client's write").count(), 1, "{log}");
    assert!(
        log.contains("key=access_token ") && !log.contains("FOREIGN-SECRET") && !log.contains("ANOTHER-ONES"),
        "{log}"
    );
}

#[test]
fn a_managed_debug_line_shows_no_value() {
    let wechat = Wechat::start();
    let (_node, mut client, token) = start(&wechat, "");
    let cas = generation(&mut client);
    for (key, flag) in writings() {
        let answer = String::from_utf8(client.ask(format!("me {key}{flag}\r\n"))).unwrap();
        let head = format!("ME {} exp=-", key.replace(['-', '%'], ""));
        assert!(
            answer.starts_with(&head)
                && answer.ends_with(" fetch=yes cls=0 size=136\r\n")
                && answer.contains(&format!(" la=0 cas={cas} ")),
            "{answer}"
        );
        assert!(!answer.contains(&token));
    }
}

#[test]
fn a_managed_delete_checks_and_keeps_a_good_token() {
    let wechat = Wechat::start();
    let (_node, mut client, token) = start(&wechat, "");
    let cas_flag = format!(" C{}", generation(&mut client));
    let mut reports = 0;
    for (key, flag) in writings() {
        let shown = key.replace(['-', '%'], "");
        for (flags, answer) in [
            ("", "HD\r\n".to_owned()),
            (" k Oo", format!("HD k{shown}{flag} Oo\r\n")),
            (" I T0", "HD\r\n".to_owned()),
            (cas_flag.as_str(), "HD\r\n".to_owned()),
            (" q", String::new()),
        ] {
            client.expect(format!("md {key}{flag}{flags}\r\nmn\r\n"), format!("{answer}MN\r\n"));
            reports += 1;
            // Neither stale nor shorter lived.
            client.expect("mg access_token v s\r\n", format!("VA 136 s136\r\n{token}\r\n"));
        }
    }
    assert_eq!(client.stat("tokens", &format!("{APPID}:reports")).unwrap(), reports.to_string());
    assert_eq!(wechat.calls(APPID).of(Endpoint::StableTokenForced), 0);
}

#[test]
fn a_managed_delete_of_another_generation_asks_nobody() {
    let wechat = Wechat::start();
    let (_node, mut client, _) = start(&wechat, "");
    let later = generation(&mut client) + 1;
    wechat.kill_tokens(APPID);
    for (key, flag) in writings() {
        client.expect(format!("md {key}{flag} C{later}\r\n"), "EX\r\n");
        client.expect(format!("md {key}{flag} C0 q O1\r\n"), "EX O1\r\n");
    }
    assert_eq!(client.stat("tokens", &format!("{APPID}:reports")).unwrap(), "0");
    assert_eq!(wechat.calls(APPID).of(Endpoint::GetApiDomainIp), 0);
}

#[test]
fn a_managed_delete_of_a_dead_token_brings_a_new_one() {
    let wechat = Wechat::start();
    let (_node, mut client, dead) = start(&wechat, "first_get_wait_ms = 900");
    let first = generation(&mut client);
    wechat.kill_tokens(APPID);
    client.expect(format!("md access_token C{first} k\r\n"), "HD kaccess_token\r\n");
    let alive = wait_for("a new token", || client.get("access_token").filter(|token| *token != dead.as_bytes()));
    let alive = String::from_utf8(alive).unwrap();
    assert_eq!(wechat.judge(&alive), tokencached::sandbox::Verdict::Accepted);
    client.expect("mg access_token c v\r\n", format!("VA 136 c{}\r\n{alive}\r\n", first + 1));
    // The word about the first value comes too late.
    client.expect(format!("md access_token C{first}\r\n"), "EX\r\n");
}

#[test]
fn a_first_managed_get_is_held_like_any_other() {
    let wechat = Wechat::start();
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Delay { ms: 250 }));
    let node = Node::start(&wechat.config("first_get_wait_ms = 900", "aliases = [\"access_token\"]"), &[]);
    let mut client = node.connect();
    client.send(format!("mg {} b s k\r\nmg access_token s\r\nmn\r\n", encoded("access_token")));
    let answer = String::from_utf8(client.read_until(b"MN\r\n")).unwrap();
    assert_eq!(answer, format!("HD s136 k{} b\r\nHD s136\r\nMN\r\n", encoded("access_token")));
}

#[test]
fn a_managed_key_without_a_value_is_a_miss_and_never_created() {
    let wechat = Wechat::start();
    wechat.set_secret(APPID, "another");
    let node = Node::start(&wechat.config("", "aliases = [\"access_token\"]"), &["-vvv"]);
    let mut client = node.connect();
    wait_for("the refusal", || node.log().contains("40125").then_some(()));
    for (key, flag) in writings() {
        client.expect(format!("mg {key}{flag} v N0 T0 O1\r\n"), "EN O1\r\n");
        client.expect(format!("mg {key}{flag} v q\r\nms {key} 1{flag}\r\nx\r\n"), "NS\r\n");
        client.expect(format!("ma {key}{flag} N0 q\r\nme {key}{flag}\r\n"), "EN\r\n");
        client.expect(format!("get access_token access_token:{APPID}\r\n"), "END\r\n");
    }
    assert_eq!(client.stat("", "curr_items").unwrap(), "0");
}

#[test]
fn no_write_changes_a_managed_key() {
    let wechat = Wechat::start();
    let (_node, client, token) = start(&wechat, "");
    let client = std::cell::RefCell::new(client);
    let name = encoded("access_token");
    // Base64 with foreign bytes anywhere.
    let junk = prop::sample::select(b"-_%!*~.\t\x01\xff".to_vec());
    let junk = prop::collection::vec((any::<prop::sample::Index>(), junk), 0..20);
    let writing = junk.prop_map(move |junk| {
        let mut text = name.clone().into_bytes();
        for (place, byte) in junk {
            text.insert(place.index(text.len() + 1), byte);
        }
        text
    });
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..Default::default()
    });
    runner
        .run(&writing, |text| {
            let mut client = client.borrow_mut();
            let line = |head: &str, tail: &str| [head.as_bytes(), b" ", &text, tail.as_bytes()].concat();
            prop_assert_eq!(client.ask(line("ms", " 1 b\r\nx\r\n")), b"NS\r\n");
            prop_assert_eq!(client.ask(line("ms", " 1 b q C1\r\nx\r\n")), b"");
            prop_assert!(client.ask(line("ma", " b N0\r\n")).starts_with(b"CLIENT_ERROR cannot"));
            prop_assert_eq!(client.ask(line("mg", " b v N0 T-1\r\n")), format!("VA 136\r\n{token}\r\n").into_bytes());
            Ok(())
        })
        .unwrap();
    assert_eq!(client.borrow_mut().stat("", "curr_items").unwrap(), "0");
}
