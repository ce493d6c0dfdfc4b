//! Who may connect and what they may do: logging in beside a real memcached, rights per user and per listener, the
//! Unix socket. TLS is in `tls.rs`.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokencached::sandbox::{AppOptions, Options};

use crate::binary::Packet;
use crate::differential::Memcached;
use crate::support::{
    APPID, Client, Node, SECRET, TIMEOUT, Wechat, as_root, program, run, signal, tokencached, wait_for, write,
};

const USERS: &str = "alice:secret\nbob:pa:ss\ncarol:\n";
const OTHER: &str = "wxfedcba9876543210";
const LOGIN: &str = "set x 0 0 12\r\nalice secret\r\n";

/// A plain cache whose clients log in.
fn guarded() -> Node {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "users", USERS);
    Node::start_in(folder, "[server]\nauth_file = \"users\"\n[state]\npath = \"none\"\n", &[])
}

/// Everything a server answers to these bytes on a connection of their own.
fn all_answers(address: SocketAddr, bytes: &[u8]) -> String {
    let mut client = Client::connect(address);
    client.send(bytes);
    client.stream.shutdown(Shutdown::Write).unwrap();
    client.rest().escape_ascii().to_string()
}

/// The answer to each of these, one after the other on one connection.
fn one_by_one(address: SocketAddr, lines: &[&str]) -> Vec<String> {
    let mut client = Client::connect(address);
    let mut ask = |line: &&str| {
        client.send(line);
        client.read_until(b"\r\n").escape_ascii().to_string()
    };
    lines.iter().map(&mut ask).collect()
}

#[test]
#[ignore = "needs memcached"]
fn logging_in_is_as_with_memcached() {
    let node = guarded();
    let memcached = Memcached::with(&["-Y", node.path("users").to_str().unwrap()]);
    let long = format!("set {} 0 0 12\r\nalice secret\r\nmn\r\n", "k".repeat(300));
    let wide = format!("set x 0 0 16000\r\n{}\r\n", "a".repeat(16000));
    let endless = "x".repeat(2048);
    for bytes in [
        "get a\r\n",
        "version\r\n",
        "quit\r\n",
        "stats\r\n",
        "mn\r\n",
        "mg\r\n",
        "\r\n",
        "a\r\n",
        LOGIN,
        "set x 0 0 12\r\nalice secret\r\nget a\r\nmn\r\n",
        "set x 0 0 12 noreply\r\nalice secret\r\nget a\r\n",
        "set x 0 0 12\r\nalice secreX\r\n",
        "set x 0 0 13\r\nalice secret1\r\n",
        "set x 0 0 5\r\nalice\r\n",
        "set x 0 0 6\r\ncarol \r\n",
        "set x 0 0 9\r\nbob pa:ss\r\n",
        "set x 0 0 6\r\nbob pa\r\n",
        "set x 0 0 14\r\nalice secret x\r\n",
        "set x 0 0 13\r\n alice secret\r\n",
        "set x 0 0 13\r\nalice  secret\r\n",
        "set x 0 0 12\r\nalice secretXX",
        "set x 0 0 12\r\nalice secret\n\n",
        "set x 0 0 12\r\nalice\tsecret\r\n",
        "set x 0 0 12\r\nalice\0secret\r\n",
        "set x 0 0 14\r\nalice secret\0x\r\n",
        "set x 0 0 0\r\n\r\n",
        "set x 0 0 2\r\n  \r\n",
        "set x 0 0 -1\r\n",
        "set x 0 0\r\n",
        "set x 0 0 12x\r\n",
        "set x 0 0 0x12\r\n",
        "set x 0 0 +12\r\nalice secret\r\n",
        "set x 0 0 12 \r\nalice secret\r\n",
        "set x 0 0 12 a b c d e f g h i j k l m n o p\r\nalice secret\r\n",
        " set x 0 0 12\r\nalice secret\r\n",
        "SET x 0 0 12\r\n",
        "add x 0 0 12\r\n",
        "set x y z 12\r\nalice secret\r\n",
        "set x 0 0 12\nalice secret\r\n",
        "set x\0 0 0 12\r\n",
        "set x 0 0 12\r\nalice secret\r\nset x 0 0 12\r\nalice secreX\r\nget x\r\n",
        "set x 0 0 12\r\nalice sec",
        &long,
        &wide,
        &endless,
    ] {
        let ours = all_answers(node.address, bytes.as_bytes());
        assert_eq!(ours, all_answers(memcached.address, bytes.as_bytes()), "to {:?}", bytes.get(..80).unwrap_or(bytes));
    }
    let lines = ["get a\r\n", "set x 0 0 4\r\na b \r\n", "set x 0 0 5\r\nalice\r\n", LOGIN, "get a\r\n"];
    assert_eq!(one_by_one(node.address, &lines), one_by_one(memcached.address, &lines));
}

#[test]
#[ignore = "waits for real time"]
fn three_wrong_passwords_end_the_connection_and_are_counted() {
    let node = guarded();
    let mut client = node.connect();
    let wrong = "set x 0 0 13\r\nalice wrong12\r\n";
    client.send(format!("{}{LOGIN}get a\r\n", wrong.repeat(3)));
    assert_eq!(client.rest(), "CLIENT_ERROR authentication failure\r\n".repeat(3).into_bytes());

    // Twice is forgiven, and counts.
    let mut client = node.connect();
    client.expect(wrong.repeat(2), "CLIENT_ERROR authentication failure\r\n".repeat(2));
    client.expect(LOGIN, "STORED\r\n");
    assert_eq!(client.stat("", "auth_cmds").as_deref(), Some("6"));
    assert_eq!(client.stat("", "auth_errors").as_deref(), Some("5"));
    node.await_log("authentication failed: wrong");
    let log = node.log();
    assert_eq!(log.matches("authentication failed: wrong").count(), 1, "once a minute at most\n{log}");
    assert!(!log.contains("wrong12") && !log.contains("secret") && !log.contains("alice"), "{log}");
}

#[test]
fn http_before_the_login_is_hung_up_on_and_nothing_behind_it_is_read() {
    let node = guarded();
    for (request, said) in [
        (format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n{LOGIN}mn\r\n"), ""),
        (format!("POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n{LOGIN}mn\r\n"), ""),
        (format!("POST /\r\nHost: a\r\n{LOGIN}mn\r\n"), "CLIENT_ERROR unauthenticated\\r\\n"),
    ] {
        assert_eq!(all_answers(node.address, request.as_bytes()), said, "{request:?}");
    }
    node.await_log("the client speaks HTTP");
    let mut client = node.connect();
    client.expect(LOGIN, "STORED\r\n");
    assert_eq!(client.stat("", "foreign_protocols").as_deref(), Some("3"));
    assert_eq!(client.stat("", "auth_cmds").as_deref(), Some("1"), "no password behind it was looked at");
}

/// A login by SASL, and the status it is answered with.
fn sasl(node: &Node, user: &str, password: &str) -> u16 {
    let packet = Packet::new(0x21).key("PLAIN").value(format!("\0{user}\0{password}"));
    let mut client = node.connect();
    client.send(packet.bytes());
    let head = client.read(24);
    assert_eq!(head.len(), 24);
    u16::from_be_bytes([head[6], head[7]])
}

#[test]
fn guesses_count_over_all_connections_of_an_address_and_a_right_password_still_passes() {
    let node = guarded();
    node.connect().expect(LOGIN, "STORED\r\n");
    // Each on a connection of its own, all at once, half of them in each protocol.
    std::thread::scope(|scope| {
        for guess in 10..22 {
            let node = &node;
            scope.spawn(move || {
                if guess % 2 == 0 {
                    let failure = "CLIENT_ERROR authentication failure\r\n";
                    node.connect().expect(format!("set x 0 0 13\r\nalice guess{guess}\r\n"), failure);
                } else {
                    assert_eq!(sasl(node, "alice", &format!("guess{guess}")), 0x20);
                }
            });
        }
    });
    let delays = |client: &mut Client| client.stat("", "auth_delays").unwrap().parse::<u32>().unwrap();
    // Known to be right there: it does not even wait.
    let mut client = node.connect();
    client.expect(LOGIN, "STORED\r\n");
    let before = delays(&mut client);
    assert_eq!(sasl(&node, "alice", "secret"), 0);
    assert_eq!(delays(&mut client), before);
    // Right, though never heard from there: it waits its turn, in either protocol, and passes.
    assert_eq!(sasl(&node, "bob", "pa:ss"), 0);
    assert_eq!(delays(&mut client), before + 1);
    node.connect().expect("set x 0 0 11\r\ncarol2 pa:s\r\n", "CLIENT_ERROR authentication failure\r\n");
    assert_eq!(delays(&mut client), before + 2, "a new connection begins no new count");
    node.await_log("its further logins are delayed");
    assert_eq!(node.log().matches("its further logins are delayed").count(), 1, "{}", node.log());
    assert!(!node.log().contains("guess1") && !node.log().contains("pa:s"), "{}", node.log());
}

#[test]
fn a_client_before_its_login_makes_nobody_read_much() {
    let node = guarded();
    for bytes in [
        format!("set x 0 0 100000\r\n{}\r\n", "a".repeat(100_000)),
        "set x 0 0 4294967295\r\n".to_owned(),
        "x".repeat(3000),
        format!("get {}", "x".repeat(3000)),
        "\u{16}\u{3}\u{1}".to_owned(),
    ] {
        let mut stream = TcpStream::connect(node.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        // What is not read when the server closes may come back as a reset, also while we still send.
        let _ = stream.write_all(bytes.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        assert!(["", "CLIENT_ERROR auth token too long\r\n"].contains(&answer.as_str()), "{answer}");
    }
    // The binary protocol's `set` of four gibibytes: refused by its head.
    let mut client = node.connect();
    client.send(b"\x80\x01\0\x01\x08\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\0\0\0");
    assert!(client.rest().ends_with(b"Auth failure."));
    node.connect().expect(LOGIN, "STORED\r\n");
}

/// Sends SIGHUP and waits until the server has said what came of it.
fn reload(node: &Node, word: &str) {
    let before = node.log().matches(word).count();
    node.signal("HUP");
    wait_for(word, || (node.log().matches(word).count() > before).then_some(()));
}

#[test]
fn sighup_reads_users_again_and_drops_nobody() {
    let node = guarded();
    let mut there = node.connect();
    there.expect(LOGIN, "STORED\r\n");
    let mut halfway = node.connect();
    halfway.send("set x 0 0 8\r\ndave");

    write(node.folder.path(), "users", "dave:new\n");
    reload(&node, "users and passwords reloaded");
    halfway.expect(" new\r\n", "STORED\r\n");
    there.expect("get a\r\n", "END\r\n");
    node.connect().expect(LOGIN, "CLIENT_ERROR authentication failure\r\n");

    // What cannot be used changes nothing.
    for bad in ["no colon here\n", ""] {
        write(node.folder.path(), "users", bad);
        reload(&node, "stay as they were");
        node.connect().expect("set x 0 0 8\r\ndave new\r\n", "STORED\r\n");
    }
    fs::remove_file(node.path("users")).unwrap();
    reload(&node, "stay as they were");
    node.connect().expect("set x 0 0 8\r\ndave new\r\n", "STORED\r\n");
    assert!(!node.log().contains("no colon here"), "{}", node.log());
}

/// Two apps, and users with all kinds of rights.
struct TwoApps {
    wechat: Wechat,
    node: Node,
}

const RIGHTS: &str = "
[[user]]
name = \"all\"
rights = \"all\"
[[user]]
name = \"plain\"
rights = \"ordinary\"
[[user]]
name = \"tokens\"
rights = [\"managed\"]
[[user]]
name = \"one\"
rights = [\"ordinary\", \"app:wx0123456789abcdef\"]
[[user]]
name = \"reader\"
rights = [\"all\", \"read_only\"]
";

impl TwoApps {
    fn open(server: &str) -> TwoApps {
        let second = AppOptions { appid: OTHER.into(), secret: SECRET.into(), ..AppOptions::default() };
        let wechat = Wechat::with(Options { apps: vec![second], ..Options::default() });
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "users", "all:p\nplain:p\ntokens:p\none:p\nreader:p\nnobody:p\n");
        let second = format!("tickets = [\"jsapi\"]\n[[app]]\nappid = \"{OTHER}\"\nsecret = \"{SECRET}\"\n{RIGHTS}");
        let server = format!("auth_file = \"users\"\n{server}");
        let node = Node::start_in(folder, &wechat.config(&server, &second), &[]);
        let fixture = TwoApps { wechat, node };
        let mut client = fixture.client("all");
        for key in [format!("access_token:{APPID}"), format!("jsapi_ticket:{APPID}"), format!("access_token:{OTHER}")] {
            wait_for("a token", || client.get(&key));
        }
        client.expect("set k 0 0 1\r\n1\r\n", "STORED\r\n");
        fixture
    }

    fn client(&self, user: &str) -> Client {
        let mut client = self.node.connect();
        let token = format!("{user} p");
        client.expect(format!("set x 0 0 {}\r\n{token}\r\n", token.len()), "STORED\r\n");
        client
    }
}

#[test]
fn each_user_sees_what_it_may_and_nothing_else() {
    let fixture = TwoApps::open("");
    let keys = [
        "k".to_owned(),
        format!("access_token:{APPID}"),
        format!("jsapi_ticket:{APPID}"),
        format!("access_token:{OTHER}"),
    ];
    for (user, seen) in [
        ("all", [true, true, true, true]),
        ("plain", [true, false, false, false]),
        ("tokens", [false, true, true, true]),
        ("one", [true, true, true, false]),
        ("reader", [true, true, true, true]),
    ] {
        let mut client = fixture.client(user);
        for (key, seen) in keys.iter().zip(seen) {
            assert_eq!(client.get(key).is_some(), seen, "{user} get {key}");
            // All in one get, with the others around it.
            let answer = String::from_utf8(client.ask(format!("gets {}\r\n", keys.join(" ")))).unwrap();
            assert_eq!(answer.contains(&format!("VALUE {key} ")), seen, "{user} gets {key}");
            let gat = client.ask(format!("gat 0 {key}\r\n"));
            assert_eq!(gat != b"END\r\n", seen && user != "reader", "{user} gat {key}");
        }
        let apps = [APPID, OTHER].map(|app| client.stat("tokens", &format!("{app}:state")).is_some());
        assert_eq!(apps, [seen[1], seen[3]], "{user} stats tokens");
        assert_eq!(client.stat("tokens", &format!("jsapi_ticket:{APPID}:state")).is_some(), seen[2], "{user}");
        let count = seen[1..].iter().filter(|seen| **seen).count();
        assert_eq!(client.stat("", "managed_credentials"), Some(count.to_string()), "{user}");
    }
    // Nobody has written a table for it.
    fixture.node.connect().expect("set x 0 0 8\r\nnobody p\r\n", "CLIENT_ERROR authentication failure\r\n");
    assert_eq!(fixture.wechat.calls(OTHER).total(), 1);
}

fn base64(key: &str) -> String {
    let mut text = Vec::new();
    tokencached::protocol::base64::encode(&mut text, key.as_bytes());
    String::from_utf8(text).unwrap()
}

#[test]
fn what_a_user_may_not_see_it_can_neither_change_nor_find() {
    let fixture = TwoApps::open("");
    let token = format!("access_token:{APPID}");
    let calls = fixture.wechat.calls(APPID).total();
    for (user, key) in [("plain", token.as_str()), ("tokens", "k"), ("reader", "k"), ("reader", token.as_str())] {
        let mut client = fixture.client(user);
        for word in ["set", "add", "replace", "append", "prepend"] {
            client.expect(format!("{word} {key} 0 0 20\r\n{}\r\n", "9".repeat(20)), "NOT_STORED\r\n");
        }
        client.expect(format!("cas {key} 0 0 1 1\r\n9\r\n"), "EXISTS\r\n");
        client.expect(format!("set {key} 0 0 2000000\r\n{}\r\n", "9".repeat(2_000_000)), "NOT_STORED\r\n");
        for line in
            [format!("delete {key}"), format!("incr {key} 1"), format!("decr {key} 1"), format!("touch {key} 0")]
        {
            client.expect(format!("{line}\r\n"), "NOT_FOUND\r\n");
        }
        let encoded = base64(key);
        for (name, flag) in [(key, ""), (encoded.as_str(), " b")] {
            client.expect(format!("ms {name} 1{flag}\r\n9\r\n"), "NS\r\n");
            client.expect(format!("ms {name} 1{flag} C1\r\n9\r\n"), "EX\r\n");
            for line in [format!("md {name}{flag}"), format!("ma {name}{flag} N0")] {
                client.expect(format!("{line}\r\n"), "NF\r\n");
            }
            client.expect(format!("mg {name}{flag} v T60\r\n"), "EN\r\n");
            assert_eq!(client.ask(format!("mg {name}{flag} v\r\n")) != b"EN\r\n", user == "reader", "{user} {name}");
            assert_eq!(client.ask(format!("me {name}{flag}\r\n")) != b"EN\r\n", user == "reader", "{user} {name}");
            // As if it were not there: memcached tells NF to quiet ones, too.
            assert_eq!(client.ask(format!("ms {name} 1{flag} q\r\n9\r\nmd {name}{flag} q\r\n")), b"NF\r\n");
        }
        assert_eq!(client.ask(format!("set {key} 0 0 1 noreply\r\n9\r\ndelete {key} noreply\r\n")), b"");
        for line in ["cache_memlimit 64", "verbosity 1", "stats reset", "refresh_certs", "shutdown"] {
            client.expect(format!("{line}\r\n"), "CLIENT_ERROR permission denied\r\n");
        }
    }
    for user in ["tokens", "reader"] {
        fixture.client(user).expect("flush_all\r\n", "CLIENT_ERROR permission denied\r\n");
    }
    let mut client = fixture.client("all");
    assert_eq!(client.get("k").as_deref(), Some(&b"1"[..]));
    assert_eq!(client.stat("tokens", &format!("{APPID}:reports")).as_deref(), Some("0"), "no check was asked for");
    assert_eq!(client.stat("tokens", &format!("{APPID}:rival_writes")).as_deref(), Some("0"));
    assert_eq!(fixture.wechat.calls(APPID).total(), calls);
    assert!(client.stat("", "access_denied").unwrap().parse::<u32>().unwrap() > 50);
    fixture.node.await_log("has no right to");
    assert_eq!(fixture.node.log().matches("has no right to").count(), 1, "{}", fixture.node.log());
    // Those who may, can.
    fixture.client("plain").expect("set k 0 0 1\r\n2\r\nincr k 1\r\nflush_all\r\n", "STORED\r\n3\r\nOK\r\n");
    fixture.client("tokens").expect(format!("delete {token}\r\n"), "DELETED\r\n");
}

/// A command in each of the three forms, and what it needs to find something.
struct CommandForms {
    text: String,
    meta: Option<String>,
    packet: Packet,
    before: &'static str,
}

/// Everything that a client may or may not do, as it is said in each protocol.
fn all_commands() -> Vec<CommandForms> {
    let (there, gone) = ("set k 0 0 1\r\n1\r\n", "delete k\r\n");
    let token = format!("access_token:{APPID}");
    let forms = |text: &str, meta: &str, packet: Packet, before| {
        let meta = (!meta.is_empty()).then(|| format!("{meta}\r\n"));
        CommandForms { text: format!("{text}\r\n"), meta, packet, before }
    };
    let store = |opcode: u8, extras: usize| Packet::new(opcode).extras(vec![0; extras]).key("k").value("2");
    let exptime = |opcode: u8, key: &str| Packet::new(opcode).extras([0, 0, 0, 60]).key(key);
    let count = |opcode: u8| {
        let mut extras = vec![0; 20];
        extras[7] = 1;
        extras[16..].fill(0xff);
        Packet::new(opcode).extras(extras).key("k")
    };
    let mut all = vec![
        forms("get k", "mg k v", Packet::new(0x00).key("k"), there),
        forms("gets k", "mg k v c", Packet::new(0x0c).key("k"), there),
        forms("gat 60 k", "mg k v T60", exptime(0x1d, "k"), there),
        forms("gats 60 k", "mg k v c T60", exptime(0x23, "k"), there),
        forms("touch k 60", "mg k T60", exptime(0x1c, "k"), there),
        forms("set k 0 0 1\r\n2", "ms k 1\r\n2", store(0x01, 8), there),
        forms("add k 0 0 1\r\n2", "ms k 1 ME\r\n2", store(0x02, 8), gone),
        forms("replace k 0 0 1\r\n2", "ms k 1 MR\r\n2", store(0x03, 8), there),
        forms("append k 0 0 1\r\n2", "ms k 1 MA\r\n2", store(0x0e, 0), there),
        forms("prepend k 0 0 1\r\n2", "ms k 1 MP\r\n2", store(0x0f, 0), there),
        forms("incr k 1", "ma k", count(0x05), there),
        forms("decr k 1", "ma k MD", count(0x06), there),
        forms("delete k", "md k", Packet::new(0x04).key("k"), there),
        forms(&format!("get {token}"), &format!("mg {token} v"), Packet::new(0x00).key(&token), ""),
        forms(&format!("gat 60 {token}"), &format!("mg {token} v T60"), exptime(0x1d, &token), ""),
        forms(&format!("touch {token} 60"), &format!("mg {token} T60"), exptime(0x1c, &token), ""),
        forms(&format!("delete {token}"), &format!("md {token}"), Packet::new(0x04).key(&token), ""),
        forms("flush_all", "", Packet::new(0x08), there),
        forms("version", "", Packet::new(0x0b), ""),
        forms("stats", "", Packet::new(0x10), ""),
    ];
    for word in ["settings", "items", "slabs", "sizes", "tokens", "conns", "reset"] {
        all.push(forms(&format!("stats {word}"), "", Packet::new(0x10).key(word), there));
    }
    all
}

/// Whether the answer of a text or meta command says that something was done or shown, and the names of figures in it.
fn text_allows(client: &mut Client, command: &str) -> (bool, Vec<String>) {
    let answer = String::from_utf8(client.ask(command)).unwrap();
    let done = ["STORED", "DELETED", "TOUCHED", "VALUE ", "OK", "RESET", "HD", "VA ", "VERSION", "STAT "];
    let done = done.iter().any(|word| answer.starts_with(word)) || answer.starts_with(|c: char| c.is_ascii_digit());
    (done, figures(answer.lines().filter_map(|line| line.strip_prefix("STAT ")?.split(' ').next().map(str::to_owned))))
}

/// The same of a packet.
fn packet_allows(client: &mut Client, packet: &Packet) -> (bool, Vec<String>) {
    client.send([packet.bytes(), Packet::new(0x0a).bytes()].concat());
    let (mut done, mut names) = (false, Vec::new());
    loop {
        let head = client.read(24);
        assert_eq!((head.len(), head[0]), (24, 0x81), "{}", head.escape_ascii());
        let length = u32::from_be_bytes(head[8..12].try_into().unwrap()) as usize;
        let body = client.read(length);
        if head[1] == 0x0a {
            return (done, figures(names.into_iter()));
        }
        let key = usize::from(u16::from_be_bytes([head[2], head[3]]));
        // An empty figure only ends the others.
        done |= head[6..8] == [0, 0] && (!packet.is(0x10) || key > 0 || packet.has_key("reset"));
        if packet.is(0x10) && key > 0 {
            names.push(String::from_utf8_lossy(&body[..key]).into_owned());
        }
    }
}

/// Names of figures, without the descriptors of whoever happens to be connected.
fn figures(names: impl Iterator<Item = String>) -> Vec<String> {
    names.map(|name| name.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned()).collect()
}

#[test]
fn both_protocols_decide_alike_on_every_command_whatever_the_rights() {
    let fixture = TwoApps::open("");
    let mut owner = fixture.client("all");
    let (mut asked, mut wrong) = (0, Vec::new());
    for user in ["all", "plain", "tokens", "one", "reader"] {
        let (mut text, mut binary) = (fixture.client(user), fixture.node.connect());
        binary.send(Packet::new(0x21).key("PLAIN").value(format!("\0{user}\0p")).bytes());
        assert_eq!(binary.read(24 + 13)[6..8], [0, 0]);
        for CommandForms { text: line, meta, packet, before } in all_commands() {
            owner.ask(before);
            let by_text = text_allows(&mut text, &line);
            owner.ask(before);
            let by_packet = packet_allows(&mut binary, &packet);
            asked += 1;
            let conns = line == "stats conns\r\n";
            // Who is connected may change from one to the next.
            if by_text.0 != by_packet.0 || by_text.1 != by_packet.1 && !conns {
                wrong.push(format!("{user}: {line:?}: {by_text:?}, as a packet {by_packet:?}"));
            }
            if let Some(meta) = meta {
                owner.ask(before);
                let by_meta = text_allows(&mut text, &meta);
                if by_text.0 != by_meta.0 {
                    wrong.push(format!("{user}: {line:?}: {by_text:?}, {meta:?} {by_meta:?}"));
                }
            }
            let for_all_only = conns || line == "stats reset\r\n";
            if for_all_only && by_text.0 != (user == "all") {
                wrong.push(format!("{user}: {line:?} is for those who may do everything"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(asked, 5 * 27);
}

#[test]
fn meta_commands_lead_no_further() {
    let fixture = TwoApps::open("");
    let token = format!("access_token:{APPID}");
    // The same key, in base64.
    let hidden = "YWNjZXNzX3Rva2VuOnd4MDEyMzQ1Njc4OWFiY2RlZg==";
    let mut client = fixture.client("all");
    assert!(client.ask(format!("mg {hidden} b v\r\n")).starts_with(b"VA "), "it is the same key");
    for (user, key, b) in [("plain", token.as_str(), ""), ("plain", hidden, " b"), ("tokens", "k", "")] {
        let mut client = fixture.client(user);
        client.expect(format!("mg {key} v{b}\r\n"), "EN\r\n");
        client.expect(format!("mg {key} v N0 T0 R9 Ox{b}\r\n"), "EN Ox\r\n");
        client.expect(format!("ms {key} 2{b}\r\n99\r\n"), "NS\r\n");
        client.expect(format!("ms {key} 2 MA{b}\r\n99\r\n"), "NS\r\n");
        client.expect(format!("ms {key} 2 C1{b}\r\n99\r\n"), "EX\r\n");
        client.expect(format!("md {key} Ox{b}\r\n"), "NF Ox\r\n");
        client.expect(format!("md {key} I T9{b}\r\n"), "NF\r\n");
        client.expect(format!("ma {key} N0{b}\r\n"), "NF\r\n");
        client.expect(format!("me {key}{b}\r\n"), "EN\r\n");
        assert_eq!(client.ask(format!("mg {key} q{b}\r\nms {key} 2 q{b}\r\n99\r\n")), b"");
    }
    let mut reader = fixture.client("reader");
    reader.expect("mg k v\r\nmg k v T9\r\nms k 2\r\n99\r\nmd k\r\n", "VA 1\r\n1\r\nEN\r\nNS\r\nNF\r\n");
    client.expect("mg k v t\r\n", "VA 1 t-1\r\n1\r\n");
    assert_eq!(client.stat("tokens", &format!("{APPID}:reports")).as_deref(), Some("0"), "no check was asked for");
    // Those who may, can.
    fixture.client("one").expect(format!("mg {hidden} b s k\r\nms k 1\r\n2\r\n"), "HD s");
}

#[test]
fn a_refusal_can_be_said_aloud() {
    let fixture = TwoApps::open("refuse_with = \"client_error\"");
    fixture.client("tokens").expect("ms k 1\r\n9\r\n", "CLIENT_ERROR permission denied\r\n");
    fixture.client("tokens").expect("set k 0 0 1\r\n9\r\n", "CLIENT_ERROR permission denied\r\n");
}

#[test]
fn sighup_reads_rights_again() {
    let fixture = TwoApps::open("");
    let node = &fixture.node;
    let mut there = fixture.client("plain");
    let file = node.path("tokencached.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        text.replace("rights = \"ordinary\"", "rights = \"managed\"") + "[[user]]\nname = \"*\"\nrights = []\n",
    )
    .unwrap();
    reload(node, "users and passwords reloaded");
    assert_eq!(fixture.client("plain").get("k"), None);
    assert!(there.get("k").is_some(), "who is there keeps its rights");
    assert_eq!(fixture.client("nobody").get("k"), None);
    fs::write(&file, text.replace("rights = \"ordinary\"", "rights = \"odd\"")).unwrap();
    reload(node, "stay as they were");
    assert!(fixture.client("plain").get(&format!("access_token:{APPID}")).is_some());
}

/// The ports of a node, in the order of its listeners.
fn ports(node: &Node) -> Vec<SocketAddr> {
    let text = fs::read_to_string(node.path("port")).unwrap();
    let port = |line: &str| line.strip_prefix("TCP INET: ").unwrap().parse().unwrap();
    text.lines().map(|line| SocketAddr::from(([127, 0, 0, 1], port(line)))).collect()
}

/// Sends over a Unix socket, and reads until the answer is as long as expected.
#[track_caller]
fn expect_over(socket: &Path, send: &str, expected: &str) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(send.as_bytes()).unwrap();
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), expected);
}

#[test]
fn each_listener_has_its_own_terms() {
    let listeners = "
[[server.listener]]
address = \"127.0.0.1:0\"
rights = \"ordinary\"
auth = false
[[server.listener]]
address = \"127.0.0.1:0\"
rights = [\"app:wx0123456789abcdef\"]
[[server.listener]]
address = \"unix:tokens.sock\"
rights = \"managed\"
auth = false
";
    let fixture = TwoApps::open(listeners);
    let ports = ports(&fixture.node);
    assert_eq!((ports.len(), ports[0]), (3, fixture.node.address));
    let token = format!("access_token:{APPID}");

    fixture.node.connect().expect("get k\r\n", "CLIENT_ERROR unauthenticated\r\n");
    let mut ordinary = Client::connect(ports[1]);
    assert_eq!((ordinary.get("k").is_some(), ordinary.get(&token)), (true, None));

    // The user may do more than the listener allows, or less.
    for (user, k, one, other) in [("all", false, true, false), ("plain", false, false, false)] {
        let mut client = Client::connect(ports[2]);
        let login = format!("{user} p");
        client.expect(format!("set x 0 0 {}\r\n{login}\r\n", login.len()), "STORED\r\n");
        let seen = ["k", &token, &format!("access_token:{OTHER}")].map(|key| client.get(key).is_some());
        assert_eq!(seen, [k, one, other], "{user}");
    }
    let socket = fixture.node.path("tokens.sock");
    expect_over(&socket, "get k\r\n", "END\r\n");
    expect_over(&socket, &format!("get {token}\r\n"), &format!("VALUE {token} 0 "));
}

#[test]
fn a_unix_socket_has_its_mask_and_goes_with_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("x.sock");
    // A server that was killed leaves its socket behind.
    drop(UnixListener::bind(&socket).unwrap());
    assert!(fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
    // -s switches the plain address off; the listener is there so that the test sees when the server is ready.
    let config = "[server]\n[[server.listener]]\naddress = \"127.0.0.1:0\"\n[state]\npath = \"none\"\n";
    let name = socket.display().to_string();
    let node = Node::start_in(folder, config, &["-s", &name, "-a", "0666"]);
    assert_eq!(ports(&node).len(), 1);
    expect_over(&socket, "set k 0 0 1\r\nx\r\nget k\r\n", "STORED\r\nVALUE k 0 1\r\nx\r\nEND\r\n");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o666);
    assert!(node.connect().stat("settings", "domain_socket").unwrap().ends_with("x.sock"));

    // A second server does not take it away, neither at its start nor at its end.
    let (status, said) = run(tokencached().args(["-s", &name]));
    assert_eq!(status.code(), Some(69), "{said}");
    assert!(said.contains("another server answers there"), "{said}");
    expect_over(&socket, "get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n");
    let folder = node.stop();
    assert!(!socket.exists());
    drop(folder);
}

#[test]
fn only_a_stale_socket_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "precious", "data");
    let (status, said) = run(tokencached().arg("-s").arg(&file));
    assert_eq!(status.code(), Some(69), "{said}");
    assert!(said.contains("a file that is not a socket is in the way"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "data");
}

#[test]
fn a_socket_that_another_server_has_put_there_stays() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("x.sock");
    let node = Node::start_in(folder, "[server]\nunix_socket = \"x.sock\"\n[state]\npath = \"none\"\n", &[]);
    fs::remove_file(&socket).unwrap();
    let _another = UnixListener::bind(&socket).unwrap();
    let _folder = node.stop();
    assert!(socket.exists());
}

#[test]
fn a_socket_can_belong_to_a_group() {
    let folder = tempfile::tempdir().unwrap();
    let own = fs::metadata(folder.path()).unwrap().gid();
    // One that this process may give files to: any for root, its own for others.
    let group = program("id").arg("-gn").output().unwrap();
    let group =
        if own == 0 { "www-data".to_owned() } else { String::from_utf8(group.stdout).unwrap().trim().to_owned() };
    let config = format!("[server]\nunix_socket = \"x.sock\"\nunix_group = \"{group}\"\n[state]\npath = \"none\"\n");
    let node = Node::start_in(folder, &config, &[]);
    let found = fs::metadata(node.path("x.sock")).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o770, "a group that cannot use it would be of no use");
    assert_eq!(found.gid() != own, own == 0);

    let (status, said) =
        run(tokencached().args(["-s", "/nonexistent/x"]).env("TOKENCACHED_SERVER_UNIX_GROUP", "no-such"));
    assert_eq!(status.code(), Some(69), "{said}");
    assert!(said.contains("there is no group \"no-such\""), "{said}");
}

#[test]
#[ignore = "needs root"]
fn a_socket_belongs_to_the_user_that_the_server_becomes() {
    as_root();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    write(folder.path(), "users", USERS);
    let config = "[server]\nunix_socket = \"x.sock\"\nauth_file = \"users\"\n[state]\npath = \"none\"\n";
    let node = Node::start_in(folder, config, &["-u", "nobody"]);
    let nobody = program("id").args(["-u", "nobody"]).output().unwrap();
    let nobody: u32 = String::from_utf8(nobody.stdout).unwrap().trim().parse().unwrap();
    let socket = node.path("x.sock");
    assert_eq!(fs::metadata(&socket).unwrap().uid(), nobody);
    // What that user cannot read is said, and changes nothing.
    fs::set_permissions(node.path("users"), fs::Permissions::from_mode(0o600)).unwrap();
    reload(&node, "stay as they were");
    expect_over(&socket, LOGIN, "STORED\r\n");
    let _folder = node.stop();
    assert!(!socket.exists());
}

/// A process that is no child of ours; ended with the test.
struct Daemon(u32);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_raw(self.0 as i32).unwrap(), Signal::TERM);
    }
}

#[test]
fn a_daemon_finds_its_files_again() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "users", "alice:first\n");
    let config =
        "[server]\nauth_file = \"users\"\nunix_socket = \"x.sock\"\npid_file = \"pid\"\n[state]\npath = \"none\"\n";
    write(folder.path(), "c.toml", config);
    let status = tokencached()
        .args(["--config", "c.toml", "-d"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let pid = wait_for("the pid file", || fs::read_to_string(folder.path().join("pid")).ok());
    let daemon = Daemon(pid.trim().parse().unwrap());
    let socket = folder.path().join("x.sock");
    wait_for("the server to listen", || UnixStream::connect(&socket).ok());
    expect_over(&socket, "set x 0 0 11\r\nalice first\r\n", "STORED\r\n");
    write(folder.path(), "users", "alice:later\n");
    signal(daemon.0, "HUP");
    wait_for("the new password", || {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(b"set x 0 0 11\r\nalice later\r\n").unwrap();
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).unwrap();
        (&answer == b"STORED\r\n").then_some(())
    });
    signal(daemon.0, "TERM");
    wait_for("the socket to go", || (!socket.exists()).then_some(()));
    // Its number may be another's by now.
    std::mem::forget(daemon);
}

#[test]
fn no_password_is_shown_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "users", "alice:topsecretword\n");
    let config = "[server]\nauth_file = \"users\"\n[state]\npath = \"none\"\n";
    let node = Node::start_in(folder, config, &["-vvv"]);
    let mut client = node.connect();
    client.expect("set x 0 0 19\r\nalice topsecretword\r\n", "STORED\r\n");
    for words in ["", "settings"] {
        let answer = client.ask(format!("stats {words}\r\n"));
        assert!(!String::from_utf8(answer).unwrap().contains("topsecret"));
    }
    node.connect().expect("set x 0 0 20\r\nalice topsecretword1\r\n", "CLIENT_ERROR authentication failure\r\n");
    reload(&node, "reloaded");
    let (status, said) = run(tokencached().args(["check", "--config"]).arg(node.path("tokencached.toml")));
    assert!(status.success(), "{said}");
    assert!(said.contains("others can read the passwords"), "{said}");
    write(node.folder.path(), "users", "alice:topsecretword\ntopsecretword\n");
    let (status, bad) = run(tokencached().args(["check", "--config"]).arg(node.path("tokencached.toml")));
    assert_eq!(status.code(), Some(78), "{bad}");
    assert!(bad.contains("line 2 has no colon"), "{bad}");
    for text in [node.log(), said, bad] {
        assert!(!text.contains("topsecret"), "{text}");
    }
}
