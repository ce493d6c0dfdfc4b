//! TLS towards clients: handshakes, certificates of both sides, new ones without dropping anybody; judged by this
//! library's own client, by OpenSSL's and by Python's.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::{APPID, Client, Node, TIMEOUT, Wechat, program, run, run_checked, tokencached, wait_for, write};

/// A certificate authority, with its certificate in a file.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of the tests");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Signs a certificate: writes `<file>.pem` and `<file>.key`.
    fn sign(&self, folder: &Path, file: &str, common_name: &str, names: Vec<SanType>) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        write(folder, &format!("{file}.pem"), &certificate.pem());
        write(folder, &format!("{file}.key"), &key.serialize_pem());
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub fn sign_server(&self, folder: &Path, common_name: &str) {
        self.sign(folder, "server", common_name, vec![SanType::DnsName("localhost".try_into().unwrap())]);
    }

    /// A client's side that trusts this authority, and shows that certificate.
    pub fn client(&self, identity: Option<(&Path, &str)>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        match identity {
            None => builder.with_no_client_auth(),
            Some((folder, file)) => {
                let certificate = CertificateDer::from_pem_file(folder.join(format!("{file}.pem"))).unwrap();
                let key = PrivateKeyDer::from_pem_file(folder.join(format!("{file}.key"))).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        }
    }
}

pub type Tls = StreamOwned<ClientConnection, TcpStream>;

pub fn connect(address: SocketAddr, config: ClientConfig) -> Tls {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
}

/// Sends, and reads as much as is expected; an error if the connection ends before.
pub fn ask(tls: &mut Tls, send: &str, expected: &str) -> std::io::Result<()> {
    tls.write_all(send.as_bytes())?;
    let mut answer = vec![0; expected.len()];
    tls.read_exact(&mut answer)?;
    assert_eq!(String::from_utf8_lossy(&answer), expected, "to {send:?}");
    Ok(())
}

const SERVER: &str = "[server.tls]\ncert = \"server.pem\"\nkey = \"server.key\"\n";

/// A plain cache behind TLS, with further lines of its configuration.
fn start(authority: &Authority, tls: &str) -> Node {
    let folder = tempfile::tempdir().unwrap();
    authority.sign_server(folder.path(), "first");
    write(folder.path(), "ca.pem", &authority.pem);
    Node::start_in(folder, &format!("{SERVER}{tls}\n[state]\npath = \"none\"\n"), &[])
}

/// The common name that the server shows.
pub fn shown(address: SocketAddr, authority: &Authority) -> String {
    let mut tls = connect(address, authority.client(None));
    ask(&mut tls, "mn\r\n", "MN\r\n").unwrap();
    let shown = tls.conn.peer_certificates().unwrap()[0].to_vec();
    let names = ["first", "second"].into_iter().filter(|name| memchr::memmem::find(&shown, name.as_bytes()).is_some());
    names.collect()
}

#[test]
fn the_protocol_is_the_same_behind_tls() {
    let authority = Authority::new();
    let node = start(&authority, "");
    let mut tls = connect(node.address, authority.client(None));
    ask(&mut tls, "set k 0 0 1\r\nx\r\nget k\r\n", "STORED\r\nVALUE k 0 1\r\nx\r\nEND\r\n").unwrap();
    // Larger than any record, both ways, and many at once.
    let large = "v".repeat(900_000);
    ask(&mut tls, &format!("set large 0 0 900000\r\n{large}\r\n"), "STORED\r\n").unwrap();
    let one = format!("VALUE large 0 900000\r\n{large}\r\nEND\r\n");
    ask(&mut tls, &"get large\r\n".repeat(5), &one.repeat(5)).unwrap();
    ask(&mut tls, "stats settings\r\n", "STAT maxbytes").unwrap();
    // The end is said, so that nobody can cut an answer short unnoticed.
    let mut tls = connect(node.address, authority.client(None));
    tls.write_all(b"quit\r\n").unwrap();
    assert_eq!(tls.read_to_end(&mut Vec::new()).unwrap(), 0);
}

#[test]
#[ignore = "needs openssl"]
fn openssl_and_python_agree() {
    let authority = Authority::new();
    let node = start(&authority, "min_version = \"1.3\"");
    let ca = node.path("ca.pem");
    let address = node.address.to_string();
    let common = ["s_client", "-connect", &address, "-servername", "localhost", "-verify_return_error", "-CAfile"];
    node.await_log("anybody can read the private key");
    let (status, said) = run(program("openssl").args(common).arg(&ca).arg("-tls1_3"));
    assert!(said.contains("Verify return code: 0 (ok)") && said.contains("TLSv1.3"), "{status} {said}");
    let (_, said) = run(program("openssl").args(common).arg(&ca).arg("-tls1_2"));
    assert!(said.contains("alert"), "{said}");
    let script = "
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
with socket.create_connection(('127.0.0.1', int(sys.argv[1])), 30) as plain:
    with context.wrap_socket(plain, server_hostname='localhost') as tls:
        tls.sendall(b'set python 0 0 3\\r\\nyes\\r\\nget python\\r\\nquit\\r\\n')
        answer = b''
        while part := tls.recv(4096):
            answer += part
print(answer)
";
    let port = node.address.port().to_string();
    let said = run_checked(program("python3").args(["-c", script, &port]).arg(&ca));
    assert_eq!(said.trim(), r"b'STORED\r\nVALUE python 0 3\r\nyes\r\nEND\r\n'");
}

#[test]
fn memcacheds_own_words_switch_tls_on() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.sign_server(folder.path(), "first");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let words = format!(
        "ssl_chain_cert={},ssl_key={},ssl_min_version=3,ssl_verify_mode=0",
        path("server.pem"),
        path("server.key")
    );
    let node = Node::plain(&["-Z", "-o", &words]);
    assert_eq!(shown(node.address, &authority), "first");
    assert!(!node.log().contains("ignored"), "{}", node.log());
}

#[test]
fn new_certificates_are_taken_without_dropping_anybody() {
    let authority = Authority::new();
    let node = start(&authority, "");
    let mut there = connect(node.address, authority.client(None));
    ask(&mut there, "mn\r\n", "MN\r\n").unwrap();
    assert_eq!(shown(node.address, &authority), "first");

    authority.sign_server(node.folder.path(), "second");
    ask(&mut there, "refresh_certs\r\n", "OK\r\n").unwrap();
    assert_eq!(shown(node.address, &authority), "second");

    // What cannot be used changes nothing and is said.
    let key = fs::read_to_string(node.path("server.key")).unwrap();
    authority.sign_server(node.folder.path(), "first");
    write(node.folder.path(), "server.key", &key);
    ask(&mut there, "refresh_certs\r\n", "SERVER_ERROR the certificates").unwrap();
    assert_eq!(shown(node.address, &authority), "second");
    node.await_log("do not go together");
    assert!(!node.log().contains("PRIVATE KEY"), "{}", node.log());

    authority.sign_server(node.folder.path(), "first");
    node.signal("HUP");
    wait_for("the new certificate", || (shown(node.address, &authority) == "first").then_some(()));
    let mut there = connect(node.address, authority.client(None));
    ask(&mut there, "mn\r\n", "MN\r\n").unwrap();
}

#[test]
fn without_tls_there_is_nothing_to_refresh() {
    Node::plain(&[]).connect().expect("refresh_certs\r\n", "ERROR\r\n");
}

#[test]
fn who_does_not_speak_tls_is_closed_and_nobody_else_notices() {
    let authority = Authority::new();
    let node = start(&authority, "");
    for bytes in ["get k\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        let mut client = node.connect();
        client.send(bytes);
        let answer = client.rest();
        assert!(answer.len() <= 7, "an alert at most: {}", answer.escape_ascii());
    }
    // One that goes away in the middle of its handshake.
    drop(node.connect());
    let mut tls = connect(node.address, authority.client(None));
    ask(&mut tls, "set k 0 0 1\r\nx\r\n", "STORED\r\n").unwrap();
    // A client that trusts somebody else goes by itself.
    let mut wary = connect(node.address, Authority::new().client(None));
    assert!(ask(&mut wary, "get k\r\n", "").is_err());
    wait_for("connections to be given back", || {
        let stats = stats(&mut tls);
        let errors: u32 = figure(&stats, "ssl_handshake_errors");
        (figure(&stats, "curr_connections") == 1 && errors >= 3).then_some(())
    });
    node.await_log("TLS handshake failed");
    assert_eq!(node.log().matches("TLS handshake failed").count(), 1, "{}", node.log());
}

fn stats(tls: &mut Tls) -> String {
    tls.write_all(b"stats\r\n").unwrap();
    let mut answer = String::new();
    let mut part = [0; 4096];
    while !answer.ends_with("END\r\n") {
        let read = tls.read(&mut part).unwrap();
        answer.push_str(std::str::from_utf8(&part[..read]).unwrap());
    }
    answer
}

fn figure(stats: &str, name: &str) -> u32 {
    let value = stats.lines().find_map(|line| line.strip_prefix(&format!("STAT {name} ")));
    value.unwrap_or_else(|| panic!("no {name} in {stats}")).parse().unwrap()
}

#[test]
fn certificates_of_clients_decide_what_they_may_do() {
    let authority = Authority::new();
    let wechat = Wechat::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    authority.sign_server(&path, "first");
    write(&path, "ca.pem", &authority.pem);
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let uri = |name: &str| SanType::URI(name.try_into().unwrap());
    authority.sign(&path, "billing", "billing", vec![]);
    authority.sign(&path, "web", "somebody", vec![dns("WEB-1.internal")]);
    authority.sign(&path, "job", "somebody", vec![uri("spiffe://shop/job")]);
    authority.sign(&path, "stranger", "stranger", vec![dns("billing"), uri("spiffe://shop/job/other")]);
    Authority::new().sign(&path, "forged", "billing", vec![]);
    let rules = "
[[certificate]]
name = \"cn:billing\"
rights = \"ordinary\"
[[certificate]]
name = \"dns:web-1.internal\"
rights = [\"app:wx0123456789abcdef\"]
[[certificate]]
name = \"uri:spiffe://shop/job\"
rights = \"all\"
";
    let config = wechat.config(&format!("{SERVER}client_ca = \"ca.pem\""), rules);
    let node = Node::start_in(folder, &config, &[]);
    let token = format!("access_token:{APPID}");
    let open = |file: &str| connect(node.address, authority.client(Some((&path, file))));
    let mut job = open("job");
    wait_for("a token", || {
        job.write_all(format!("get {token}\r\nmn\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        let mut part = [0; 4096];
        while !answer.ends_with("MN\r\n") {
            let read = job.read(&mut part).unwrap();
            answer.push_str(std::str::from_utf8(&part[..read]).unwrap());
        }
        answer.starts_with("VALUE").then_some(())
    });
    ask(&mut job, "set k 0 0 1\r\nx\r\n", "STORED\r\n").unwrap();
    let mut billing = open("billing");
    ask(&mut billing, &format!("get {token} k\r\n"), "VALUE k 0 1\r\nx\r\nEND\r\n").unwrap();
    let mut web = open("web");
    ask(&mut web, &format!("get k {token}\r\n"), &format!("VALUE {token} 0 ")).unwrap();

    for file in ["stranger", "forged"] {
        assert!(ask(&mut open(file), "mn\r\n", "MN\r\n").is_err(), "{file}");
    }
    assert!(ask(&mut connect(node.address, authority.client(None)), "mn\r\n", "MN\r\n").is_err());
    wait_for("all to be counted", || (figure(&stats(&mut job), "ssl_handshake_errors") >= 2).then_some(()));
    node.await_log("TLS handshake failed");
    assert_eq!(node.log().matches("TLS handshake failed").count(), 1, "once a minute at most\n{}", node.log());
}

#[test]
fn a_certificate_about_to_expire_is_warned_about() {
    let authority = Authority::new();
    let node = start(&authority, "");
    assert!(!node.log().contains("expires soon"), "{}", node.log());
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = KeyPair::generate().unwrap();
    write(node.folder.path(), "server.pem", &params.signed_by(&key, &authority.issuer).unwrap().pem());
    write(node.folder.path(), "server.key", &key.serialize_pem());
    node.signal("HUP");
    wait_for("the warning", || node.log().contains("expires soon").then_some(()));
}

#[test]
fn a_password_and_a_certificate_can_both_be_asked_for() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.sign_server(folder.path(), "first");
    write(folder.path(), "users", "alice:secret\n");
    let config = format!(
        "[server]\nauth_file = \"users\"\n{}\n[[server.listener]]\naddress = \"127.0.0.1:0\"\ntls = false\nrights = \"ordinary\"\n\
         [state]\npath = \"none\"\n",
        "tls.cert = \"server.pem\"\ntls.key = \"server.key\""
    );
    let node = Node::start_in(folder, &config, &[]);
    let mut tls = connect(node.address, authority.client(None));
    ask(&mut tls, "get k\r\n", "CLIENT_ERROR unauthenticated\r\n").unwrap();
    ask(&mut tls, "set x 0 0 12\r\nalice secret\r\nget k\r\n", "STORED\r\nEND\r\n").unwrap();
    let ports = fs::read_to_string(node.path("port")).unwrap();
    let plain = ports.lines().nth(1).unwrap().strip_prefix("TCP INET: ").unwrap().parse::<u16>().unwrap();
    let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 1], plain)));
    client.expect("set x 0 0 12\r\nalice secret\r\nget k\r\n", "STORED\r\nEND\r\n");
}

#[test]
fn certificates_that_cannot_be_used_stop_the_start() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.sign_server(folder.path(), "first");
    write(folder.path(), "ca.pem", &authority.pem);
    authority.sign(folder.path(), "other", "other", vec![]);
    for (lines, part) in [
        ("cert = \"server.pem\"\nkey = \"other.key\"", "do not go together"),
        ("cert = \"server.pem\"", "holds no private key"),
        ("cert = \"server.key\"\nkey = \"server.key\"", "holds no certificate"),
        ("cert = \"server.pem\"\nkey = \"none.key\"", "none.key cannot be read"),
        ("key = \"server.key\"", "TLS has no certificate of the server"),
        (
            "cert = \"server.pem\"\nkey = \"server.key\"\nclient_certificates = \"required\"",
            "whose certificates would count",
        ),
    ] {
        let config = write(folder.path(), "tokencached.toml", &format!("[server.tls]\n{lines}\n"));
        for arguments in [&["check"][..], &["-p", "-1"]] {
            let (status, said) = run(tokencached().args(arguments).arg("--config").arg(&config));
            assert_eq!(status.code(), Some(78), "{lines}: {said}");
            assert!(said.contains(part), "{lines}: {said}");
            assert!(!said.contains("PRIVATE"), "{said}");
        }
    }
}

#[test]
fn an_idle_connection_costs_what_the_manual_says() {
    const CLIENTS: u64 = 400;
    let authority = Authority::new();
    let node = start(&authority, "");
    let connect = || {
        let mut tls = connect(node.address, authority.client(None));
        ask(&mut tls, "mn\r\n", "MN\r\n").unwrap();
        tls
    };
    let _first: Vec<Tls> = (0..20).map(|_| connect()).collect();
    let before = node.memory_bytes();
    let _idle: Vec<Tls> = (0..CLIENTS).map(|_| connect()).collect();
    let each = node.memory_bytes().saturating_sub(before) / CLIENTS;
    println!("{CLIENTS} idle TLS connections, {each} bytes each");
    // docs/en/configuration.md, "New passwords and certificates".
    assert!(each < 24 * 1024, "{each} bytes");
}
