//! The binary protocol: what it means on managed keys, how clients log in with it, which protocol is spoken where.
//! What it does with ordinary keys is compared with memcached's in `binary_differential.rs`.

use std::path::Path;

use tokencached::sandbox::{AppOptions, Endpoint, FaultKind, InjectedFault, Options};

use crate::support::{APPID, Client, Node, SECRET, Wechat, program, run_checked, wait_for, write};

/// A request of the binary protocol, built piece by piece.
#[derive(Clone)]
pub struct Packet {
    opcode: u8,
    opaque: u32,
    cas: u64,
    extras: Vec<u8>,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Packet {
    pub fn new(opcode: u8) -> Packet {
        Packet { opcode, opaque: 0xdead_beef, cas: 0, extras: Vec::new(), key: Vec::new(), value: Vec::new() }
    }

    pub fn opaque(self, opaque: u32) -> Packet {
        Packet { opaque, ..self }
    }

    pub fn cas(self, cas: u64) -> Packet {
        Packet { cas, ..self }
    }

    pub fn extras(self, extras: impl AsRef<[u8]>) -> Packet {
        Packet { extras: extras.as_ref().to_vec(), ..self }
    }

    pub fn key(self, key: impl AsRef<[u8]>) -> Packet {
        Packet { key: key.as_ref().to_vec(), ..self }
    }

    pub fn value(self, value: impl AsRef<[u8]>) -> Packet {
        Packet { value: value.as_ref().to_vec(), ..self }
    }

    pub fn is(&self, opcode: u8) -> bool {
        self.opcode == opcode
    }

    pub fn has_key(&self, key: &str) -> bool {
        self.key == key.as_bytes()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let body = self.extras.len() + self.key.len() + self.value.len();
        let mut bytes = vec![0x80, self.opcode];
        bytes.extend((self.key.len() as u16).to_be_bytes());
        bytes.extend([self.extras.len() as u8, 0, 0, 0]);
        bytes.extend((body as u32).to_be_bytes());
        bytes.extend(self.opaque.to_be_bytes());
        bytes.extend(self.cas.to_be_bytes());
        [&bytes[..], &self.extras, &self.key, &self.value].concat()
    }
}

/// An answer, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answer {
    opcode: u8,
    status: u16,
    opaque: u32,
    cas: u64,
    extras: Vec<u8>,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Answer {
    fn read(client: &mut Client) -> Answer {
        let head = client.read(24);
        assert_eq!((head.len(), head[0]), (24, 0x81), "no answer: {}", head.escape_ascii());
        let number = |from: usize, to: usize| head[from..to].iter().fold(0, |n, &byte| n << 8 | u64::from(byte));
        let mut body = client.read(number(8, 12) as usize);
        let mut rest = body.split_off(usize::from(head[4]));
        let value = rest.split_off(number(2, 4) as usize);
        Answer {
            opcode: head[1],
            status: number(6, 8) as u16,
            opaque: number(12, 16) as u32,
            cas: number(16, 24),
            extras: body,
            key: rest,
            value,
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.value).into_owned()
    }
}

/// Sends a packet and reads its answer.
#[track_caller]
fn ask(client: &mut Client, packet: &Packet) -> Answer {
    client.send(packet.bytes());
    let answer = Answer::read(client);
    assert_eq!((answer.opcode, answer.opaque), (packet.opcode, packet.opaque));
    answer
}

/// Sends a packet that is not answered, and a no-op that is.
#[track_caller]
fn ask_in_vain(client: &mut Client, packet: &Packet) {
    client.send([packet.bytes(), Packet::new(0x0a).bytes()].concat());
    assert_eq!(Answer::read(client), Answer { opcode: 0x0a, opaque: 0xdead_beef, ..Answer::default() });
}

const STORES: &[u8] = &[0x01, 0x02, 0x03, 0x0e, 0x0f];
const QUIET_STORES: &[u8] = &[0x11, 0x12, 0x13, 0x19, 0x1a];

fn store(opcode: u8, key: &str, value: &str) -> Packet {
    let extras = if matches!(opcode, 0x0e | 0x0f | 0x19 | 0x1a) { 0 } else { 8 };
    Packet::new(opcode).key(key).extras(vec![0; extras]).value(value)
}

fn count(opcode: u8, key: &str) -> Packet {
    Packet::new(opcode).key(key).extras([0; 20])
}

fn get(opcode: u8, key: &str) -> Packet {
    let extras = if matches!(opcode, 0x1d | 0x1e | 0x23 | 0x24) { 4 } else { 0 };
    Packet::new(opcode).key(key).extras(vec![1; extras])
}

fn managed_key() -> String {
    format!("access_token:{APPID}")
}

/// A server with a token, a text client, a binary client, and the token.
fn start(wechat: &Wechat, server: &str) -> (Node, Client, Client, String) {
    let node = Node::start(&wechat.config(server, "aliases = [\"access_token\"]"), &["-vvv"]);
    let (mut text, binary) = (node.connect(), node.connect());
    let token = wait_for("a token", || text.get("access_token"));
    (node, text, binary, String::from_utf8(token).unwrap())
}

fn generation(text: &mut Client) -> u64 {
    text.stat("tokens", &format!("{APPID}:generation")).unwrap().parse().unwrap()
}

#[test]
fn reads_of_a_managed_key() {
    let wechat = Wechat::start();
    let (_node, mut text, mut client, token) = start(&wechat, "");
    let cas = generation(&mut text);
    for key in ["access_token", &managed_key()] {
        for opcode in [0x00, 0x09, 0x0c, 0x0d, 0x1d, 0x1e, 0x23, 0x24] {
            let answer = ask(&mut client, &get(opcode, key));
            assert_eq!((answer.status, answer.cas, answer.text()), (0, cas, token.clone()), "{opcode:#x}");
            assert_eq!(answer.extras, [0; 4]);
            let with_key = matches!(opcode, 0x0c | 0x0d | 0x23 | 0x24);
            assert_eq!(answer.key, if with_key { key.as_bytes() } else { b"" });
        }
        let touched = ask(&mut client, &Packet::new(0x1c).key(key).extras([0, 0, 0, 1]));
        assert_eq!((touched.status, touched.cas, touched.text()), (0, cas, String::new()));
    }
    assert_eq!(wechat.calls(APPID).of(Endpoint::StableToken), 1);
}

#[test]
fn writes_to_a_managed_key_are_refused() {
    let wechat = Wechat::start();
    let (node, mut text, mut client, token) = start(&wechat, "");
    let cas = generation(&mut text);
    let huge = "x".repeat(3 << 20);
    for key in ["access_token", &managed_key()] {
        for value in ["other", "", &huge] {
            for &opcode in STORES {
                let answer = ask(&mut client, &store(opcode, key, value));
                assert_eq!((answer.status, answer.text()), (0x05, "Not stored.".into()), "{opcode:#x}");
                let answer = ask(&mut client, &store(opcode, key, value).cas(cas));
                assert_eq!((answer.status, answer.text()), (0x02, "Data exists for key.".into()), "{opcode:#x}");
            }
        }
        for opcode in [0x05, 0x06] {
            let answer = ask(&mut client, &count(opcode, key));
            // libmemcached would give the server up on "non-numeric".
            assert_eq!((answer.status, answer.text()), (0x05, "Not stored.".into()));
        }
        // In step and silent, as libmemcached's buffered mode needs it.
        for &opcode in QUIET_STORES {
            ask_in_vain(&mut client, &store(opcode, key, "other"));
            ask_in_vain(&mut client, &store(opcode, key, "other").cas(77));
        }
        ask_in_vain(&mut client, &count(0x15, key));
        ask_in_vain(&mut client, &count(0x16, key));
        assert_eq!(text.get(key).unwrap(), token.as_bytes());
    }
    // 30 loud and 10 quiet ones for each name.
    assert_eq!(text.stat("", "managed_refused_writes").unwrap(), "80");
    node.await_log("refused a client's write to a managed key");
    assert_eq!(ask(&mut client, &Packet::new(0x08)).status, 0);
    assert_eq!(ask(&mut client, &get(0x00, "access_token")).text(), token, "flush is about ordinary keys");
    assert_eq!(wechat.calls(APPID).of(Endpoint::StableToken), 1);
}

#[test]
fn a_foreign_writer_is_reported_in_every_protocol() {
    let wechat = Wechat::start();
    let (_node, mut text, mut client, _) = start(&wechat, "");
    ask_in_vain(&mut client, &store(0x11, "access_token", "another token, fetched by itself"));
    assert_eq!(text.stat("tokens", &format!("{APPID}:rival_writes")).unwrap(), "1");
}

#[test]
fn client_error_is_invalid_arguments() {
    let wechat = Wechat::start();
    let (_node, _, mut client, token) = start(&wechat, "refuse_with = \"client_error\"");
    for &opcode in STORES {
        let answer = ask(&mut client, &store(opcode, "access_token", "other"));
        assert_eq!((answer.status, answer.text()), (0x04, "Invalid arguments".into()));
    }
    assert_eq!(ask(&mut client, &get(0x00, "access_token")).text(), token, "the connection stays");
}

#[test]
fn a_delete_has_the_token_checked() {
    let wechat = Wechat::start();
    let (_node, mut text, mut client, _) = start(&wechat, "");
    let reports = |text: &mut Client| text.stat("tokens", &format!("{APPID}:reports")).unwrap();
    let stale = ask(&mut client, &get(0x04, "access_token").cas(99));
    assert_eq!((stale.status, stale.text()), (0x02, "Data exists for key.".into()));
    assert_eq!(reports(&mut text), "0", "about another value there is nothing to check");
    let cas = generation(&mut text);
    for packet in [get(0x04, "access_token"), get(0x04, "access_token").cas(cas)] {
        assert_eq!(ask(&mut client, &packet).status, 0);
    }
    ask_in_vain(&mut client, &get(0x14, "access_token"));
    ask_in_vain(&mut client, &get(0x14, "access_token").cas(99));
    assert_eq!(reports(&mut text), "3");
    assert_eq!(ask(&mut client, &get(0x00, "access_token")).status, 0);
}

#[test]
fn the_answer_to_a_delete_comes_after_the_check() {
    let wechat = Wechat::start();
    let (_node, _, mut client, old) = start(&wechat, "");
    wechat.kill_tokens(APPID);
    assert_eq!(ask(&mut client, &get(0x04, "access_token")).status, 0);
    assert_ne!(ask(&mut client, &get(0x00, "access_token")).text(), old, "a new token by the time of the answer");
}

#[test]
#[ignore = "waits for real time"]
fn a_first_get_is_a_miss_when_the_upstream_hangs() {
    let wechat = Wechat::start();
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Hang));
    let node = Node::start(&wechat.config("", "aliases = [\"access_token\"]"), &[]);
    let mut client = node.connect();
    // Quiet misses are silent, loud ones come after them, and what stands behind them is answered.
    let batch = [get(0x0d, "access_token"), get(0x0d, "no_such_key"), get(0x00, &managed_key()), Packet::new(0x0a)];
    client.send(batch.iter().flat_map(Packet::bytes).collect::<Vec<u8>>());
    let miss = Answer::read(&mut client);
    assert_eq!((miss.opcode, miss.status, miss.text()), (0x00, 0x01, "Not found".into()));
    assert_eq!(Answer::read(&mut client).opcode, 0x0a);
    wechat.clear_fault(APPID);
    let token =
        wait_for("a token", || Some(ask(&mut client, &get(0x0c, "access_token"))).filter(|got| got.status == 0));
    assert_eq!(token.key, b"access_token");
}

#[test]
fn a_first_get_is_answered_with_the_token() {
    let wechat = Wechat::start();
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Delay { ms: 250 }));
    let node = Node::start(&wechat.config("first_get_wait_ms = 900", "aliases = [\"access_token\"]"), &[]);
    let mut client = node.connect();
    // As libmemcached asks: quiet ones, then a no-op. A miss would be silent.
    let batch = [get(0x0d, "no_such_key"), get(0x0d, "access_token"), get(0x09, "access_token"), Packet::new(0x0a)];
    client.send(batch.iter().flat_map(Packet::bytes).collect::<Vec<u8>>());
    let opcodes: Vec<u8> = (0..3).map(|_| Answer::read(&mut client).opcode).collect();
    assert_eq!(opcodes, [0x0d, 0x09, 0x0a], "the first get was not held");
}

#[test]
fn statistics_have_the_tokens_and_end_with_an_empty_one() {
    let wechat = Wechat::start();
    let (_node, _, mut client, token) = start(&wechat, "");
    for (argument, some) in [("", "managed_credentials"), ("tokens", "state"), ("settings", "binding_protocol")] {
        client.send(Packet::new(0x10).key(argument).bytes());
        let mut figures = Vec::new();
        loop {
            let answer = Answer::read(&mut client);
            assert_eq!(answer.status, 0);
            if answer.key.is_empty() {
                assert!(answer.value.is_empty());
                break;
            }
            assert!(!answer.text().contains(&token));
            figures.push(String::from_utf8(answer.key).unwrap());
        }
        assert!(figures.iter().any(|name| name.ends_with(some)), "{argument}: {figures:?}");
    }
    assert_eq!(ask(&mut client, &Packet::new(0x0b)).text(), tokencached::service::MEMCACHED_VERSION);
}

/// Users, and which protocol is spoken.
fn guarded(flags: &[&str]) -> Node {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "users", "alice:secret\nbob:pa:ss\n");
    Node::start_in(folder, "[server]\nauth_file = \"users\"\n[state]\npath = \"none\"\n", flags)
}

fn login(message: &str) -> Packet {
    Packet::new(0x21).key("PLAIN").value(message)
}

#[test]
#[ignore = "waits for real time"]
fn clients_log_in_by_sasl() {
    for flags in [&[][..], &["-S"], &["-B", "binary"]] {
        let node = guarded(flags);
        let mut client = node.connect();
        assert_eq!(ask(&mut client, &Packet::new(0x20)).text(), "PLAIN");
        assert_eq!(ask(&mut client, &Packet::new(0x0b)).status, 0, "the version is no secret");
        let answer = ask(&mut client, &login("\0alice\0wrong"));
        assert_eq!((answer.status, answer.text()), (0x20, "Auth failure.".into()));
        let answer = ask(&mut client, &login("\0alice\0secret"));
        assert_eq!((answer.status, answer.text()), (0, "Authenticated".into()));
        assert_eq!(ask(&mut client, &store(0x01, "k", "v")).status, 0);
        assert_eq!(ask(&mut client, &get(0x00, "k")).text(), "v");
        // In two steps, and with the name said twice.
        let mut client = node.connect();
        assert_eq!(ask(&mut client, &login("")).status, 0x21);
        assert_eq!(ask(&mut client, &Packet::new(0x22).key("PLAIN").value("bob\0bob\0pa:ss")).status, 0);
        assert_eq!(ask(&mut client, &get(0x00, "k")).text(), "v");
    }
}

#[test]
#[ignore = "waits for real time"]
fn before_the_login_a_client_gets_nothing_else() {
    let node = guarded(&[]);
    for opcode in (0..=255).filter(|opcode| !matches!(opcode, 0x0b | 0x20..=0x22)) {
        let mut client = node.connect();
        // The block of a store is not even waited for.
        client.send(&Packet::new(opcode).key("k").extras([0; 8]).value("value").bytes()[..24]);
        let answer = Answer::read(&mut client);
        assert_eq!((answer.status, answer.text()), (0x20, "Auth failure.".into()), "{opcode:#x}");
        assert_eq!(client.rest(), b"", "closed");
    }
    // As with text: counted, and the third wrong one ends it.
    let mut client = node.connect();
    let wrong = [
        login("\0alice\0wrong"),
        Packet::new(0x21).key("CRAM-MD5").value("\0alice\0secret"),
        Packet::new(0x22).key("PLAIN").value("\0alice\0secret"),
    ];
    for packet in &wrong {
        assert_eq!(ask(&mut client, packet).status, 0x20);
    }
    assert_eq!(client.rest(), b"");
    let mut client = node.connect();
    assert_eq!(ask(&mut client, &login("\0alice\0secret")).status, 0);
    client.send(Packet::new(0x10).bytes());
    let mut figure = |name: &[u8]| loop {
        let answer = Answer::read(&mut client);
        assert!(!answer.key.is_empty());
        if answer.key == name {
            break answer.text();
        }
    };
    assert_eq!(figure(b"auth_cmds"), "4");
    assert_eq!(figure(b"auth_errors"), "3");
    node.await_log("authentication failed: wrong");
    assert!(!node.log().contains("secret"));
}

#[test]
fn rights_are_the_same_as_in_text() {
    let wechat = Wechat::with(Options {
        apps: vec![AppOptions { appid: "wxfedcba9876543210".into(), secret: SECRET.into(), ..AppOptions::default() }],
        ..Options::default()
    });
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "users", "all:1\nweb:2\ntokens:3\nreader:4\n");
    let user = |name: &str, rights: &str| format!("[[user]]\nname = \"{name}\"\nrights = [{rights}]\n");
    let users = [
        user("all", "\"all\""),
        user("web", "\"ordinary\""),
        user("tokens", "\"managed\""),
        user("reader", "\"all\", \"read_only\""),
    ];
    let config = wechat.config("auth_file = \"users\"", &format!("aliases = [\"access_token\"]\n{}", users.concat()));
    let node = Node::start_in(folder, &config, &[]);
    let enter = |token: &str| {
        let mut client = node.connect();
        assert_eq!(ask(&mut client, &login(token)).status, 0);
        client
    };
    let (mut all, mut web, mut tokens, mut reader) =
        (enter("\0all\x001"), enter("\0web\x002"), enter("\0tokens\x003"), enter("\0reader\x004"));
    wait_for("a token", || Some(ask(&mut all, &get(0x00, "access_token"))).filter(|answer| answer.status == 0));
    ask(&mut all, &store(0x01, "k", "v"));
    let status = |client: &mut Client, packet: Packet| ask(client, &packet).status;
    // What it may not see is not there.
    assert_eq!(status(&mut web, get(0x00, "access_token")), 0x01);
    assert_eq!(status(&mut web, get(0x04, "access_token")), 0x01);
    assert_eq!(status(&mut web, Packet::new(0x1c).key("access_token").extras([0; 4])), 0x01);
    assert_eq!(status(&mut web, count(0x05, "access_token")), 0x01);
    assert_eq!(status(&mut web, store(0x01, "access_token", "other")), 0x05);
    assert_eq!(status(&mut web, store(0x02, "access_token", "other").cas(1)), 0x02);
    ask_in_vain(&mut web, &store(0x11, "access_token", "other"));
    assert_eq!(status(&mut web, store(0x01, "k", "w")), 0);
    assert_eq!(status(&mut tokens, get(0x00, "access_token")), 0);
    assert_eq!(status(&mut tokens, get(0x00, "k")), 0x01);
    assert_eq!(status(&mut tokens, store(0x01, "k", "x")), 0x05);
    assert_eq!(status(&mut tokens, Packet::new(0x08)), 0x20);
    assert_eq!(status(&mut tokens, Packet::new(0x10).key("reset")), 0x20);
    // A reader reads, and nothing else.
    assert_eq!(ask(&mut reader, &get(0x00, "k")).text(), "w");
    assert_eq!(status(&mut reader, get(0x1d, "k")), 0x01);
    for &opcode in STORES {
        assert_eq!(status(&mut reader, store(opcode, "k", "x")), 0x05);
    }
    assert_eq!(status(&mut reader, count(0x05, "n")), 0x01);
    assert_eq!(status(&mut reader, get(0x04, "access_token")), 0x01);
    assert_eq!(status(&mut reader, Packet::new(0x08)), 0x20);
    assert_eq!(ask(&mut all, &get(0x00, "k")).text(), "w");
}

#[test]
fn the_first_byte_chooses_unless_the_operator_does() {
    for (flags, binary, text) in
        [(&[][..], true, true), (&["-B", "ascii"], false, true), (&["-B", "binary"], true, false)]
    {
        let node = Node::plain(flags);
        for (is_accepted, first, whole) in
            [(binary, &b"\x80"[..], Packet::new(0x0a).bytes()), (text, b"m", b"mn\r\n".to_vec())]
        {
            let mut client = node.connect();
            client.send(first);
            if is_accepted {
                client.send(&whole[1..]);
                assert!(!client.read(4).is_empty());
            } else {
                // At once, though a request has only begun.
                assert_eq!(client.rest(), b"", "{flags:?}");
            }
        }
        if binary && text {
            assert!(!node.log().contains("connection closed: the client"), "{}", node.log());
        } else {
            node.await_log("connection closed: the client");
        }
    }
}

#[test]
fn a_conversation_stays_in_its_protocol() {
    let node = Node::plain(&[]);
    let mut client = node.connect();
    ask(&mut client, &Packet::new(0x0a));
    client.send([store(0x01, "k", "v").bytes(), b"get k\r\n".to_vec()].concat());
    assert_eq!(Answer::read(&mut client).status, 0, "what came before is answered");
    assert_eq!(client.rest(), b"");
    let mut client = node.connect();
    client.expect("get k\r\n", "VALUE k 0 1\r\nv\r\nEND\r\n");
    client.send(Packet::new(0x0a).bytes());
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_batch_is_answered_in_order_whatever_its_size() {
    let node = Node::plain(&[]);
    let mut client = node.connect();
    let value = "v".repeat(5000);
    let mut bytes = Vec::new();
    for index in 0..300_u32 {
        bytes.extend(store(0x11, &format!("k{index}"), &value).bytes());
        bytes.extend(get(0x0d, &format!("k{index}")).opaque(index).bytes());
        bytes.extend(get(0x0d, "none").bytes());
    }
    bytes.extend(Packet::new(0x17).bytes());
    let mut writer = Client { stream: client.stream.try_clone().unwrap() };
    let writing = std::thread::spawn(move || writer.send(bytes));
    for index in 0..300 {
        let answer = Answer::read(&mut client);
        assert_eq!((answer.opaque, answer.key, answer.value.len()), (index, format!("k{index}").into_bytes(), 5000));
    }
    assert_eq!(client.rest(), b"", "a quiet goodbye is not answered");
    writing.join().unwrap();
}

/// python-binary-memcached, which speaks nothing else: with a user on a port for the binary protocol alone, and without.
#[test]
#[ignore = "needs python3"]
fn a_real_client_of_another_language() {
    let wechat = Wechat::start();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "users", "alice:secret\n");
    let config = wechat.config("auth_file = \"users\"", "aliases = [\"access_token\"]");
    let guarded = Node::start_in(folder, &config, &["-S"]);
    let (open, ..) = start(&wechat, "");
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/binary");
    assert!(packages.exists(), "{} is missing; tests/run installs it", packages.display());
    for (node, login) in [(&open, &[][..]), (&guarded, &["alice", "secret"])] {
        let mut command = program("python3");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/binary_client.py"));
        command.arg("access_token").args(login);
        command.env("MC_HOST", "127.0.0.1").env("MC_PORT", node.address.port().to_string());
        command.env("PYTHONPATH", &packages).env("PYTHONDONTWRITEBYTECODE", "1");
        assert_eq!(run_checked(&mut command), "ok\n", "{}", node.log());
    }
}

#[test]
fn every_cut_gives_the_same_answers() {
    let node = Node::plain(&["-I", "1k"]);
    let mut client = node.connect();
    let session: Vec<u8> = [
        Packet::new(0x08),
        store(0x11, "a", "value"),
        get(0x0d, "a"),
        get(0x09, "none"),
        store(0x01, "large", &"x".repeat(1500)),
        Packet::new(0x1b).extras([0; 4]).key("key").value("value"),
        count(0x05, "n"),
        store(0x0e, "a", "more"),
        get(0x23, "a"),
        Packet::new(0x10).key("sizes"),
        get(0x04, "a"),
        Packet::new(0x0a).opaque(7),
    ]
    .iter()
    .flat_map(Packet::bytes)
    .collect();
    let mut answers = |pieces: &[&[u8]]| {
        pieces.iter().for_each(|piece| client.send(piece));
        let mut answers = Vec::new();
        while answers.last().is_none_or(|last: &Answer| last.opaque != 7) {
            // Cas ids count on.
            answers.push(Answer { cas: 0, ..Answer::read(&mut client) });
        }
        answers
    };
    let whole = answers(&[&session]);
    let statuses: Vec<u16> = whole.iter().map(|answer| answer.status).collect();
    // The last get has touched the item with a time long gone.
    assert_eq!(statuses, [0, 0, 3, 0x81, 0, 0, 0, 0, 0, 1, 0]);
    for cut in 1..session.len() {
        assert_eq!(answers(&[&session[..cut], &session[cut..]]), whole, "cut at {cut}");
    }
    assert_eq!(answers(&session.chunks(1).collect::<Vec<_>>()), whole);
}
