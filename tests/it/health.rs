//! `tokencached health`: one sentence and an exit code about a server that runs, however it listens and whoever it lets in.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use crate::support::{Node, SECRET, free_port, run, tokencached, wait_for, write};
use crate::tls::Authority;

const PLAIN: &str = "[state]\npath = \"none\"\n";

/// Asks; the answer is one line on any account.
#[track_caller]
fn health(config: Option<&Path>, flags: &[&str], variables: &[(&str, &str)]) -> (ExitStatus, String) {
    let mut command = tokencached();
    command.arg("health").envs(variables.iter().copied()).args(flags);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    let (status, said) = run(&mut command);
    assert_eq!(said.lines().count(), 1, "{said}");
    (status, said)
}

#[track_caller]
fn is_well(config: Option<&Path>, flags: &[&str], sentence: &str) {
    let (status, said) = health(config, flags, &[]);
    assert_eq!((status.code(), said.trim_end()), (Some(0), sentence));
}

#[track_caller]
fn is_not_well(config: Option<&Path>, flags: &[&str], part: &str) {
    let (status, said) = health(config, flags, &[]);
    assert!(status.code() == Some(1) && said.starts_with("not healthy: ") && said.contains(part), "{status}: {said}");
}

/// A server at a port that is known, with this configuration.
struct Server {
    node: Node,
    port: String,
}

impl Server {
    fn start(config: &str) -> Server {
        Server::start_in(tempfile::tempdir().unwrap(), config)
    }

    fn start_in(folder: tempfile::TempDir, config: &str) -> Server {
        let port = free_port().to_string();
        let node = Node::start_in(folder, config, &["-p", &port]);
        Server { node, port }
    }

    fn at(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    #[track_caller]
    fn is_well(&self, flags: &[&str], sentence: &str) {
        let flags = [&["-p", &self.port], flags].concat();
        is_well(Some(&self.node.path("tokencached.toml")), &flags, sentence);
    }

    #[track_caller]
    fn is_not_well(&self, flags: &[&str], part: &str) {
        let flags = [&["-p", &self.port], flags].concat();
        is_not_well(Some(&self.node.path("tokencached.toml")), &flags, part);
    }
}

#[test]
fn it_asks_where_the_server_listens() {
    let server = Server::start(PLAIN);
    let sentence = format!("healthy: {} answers", server.at());
    server.is_well(&[], &sentence);
    is_well(None, &["-p", &server.port], &sentence);
    // The environment moves the server, so it moves the question too.
    let (status, said) = health(None, &[], &[("TOKENCACHED_SERVER_LISTEN", &server.at())]);
    assert_eq!((status.code(), said.trim_end()), (Some(0), &*sentence));
    let all = [("TOKENCACHED_SERVER_LISTEN", format!("0.0.0.0:{}", server.port))];
    let all = all.map(|(name, value)| (name, value.leak() as &str));
    let (status, said) = health(None, &["--allow-unauthenticated"], &all);
    assert!(status.success(), "{said}");
    let port = server.port.clone();
    server.node.stop();
    is_not_well(None, &["-p", &port], "cannot connect");
}

#[test]
fn a_unix_socket_is_asked_too() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket").display().to_string();
    is_not_well(None, &["-s", &socket], "cannot connect");
    let config = format!("{PLAIN}[[server.listener]]\naddress = \"unix:{socket}\"\n");
    let _node = Node::start(&config, &[]);
    is_well(None, &["-s", &socket], &format!("healthy: {socket} answers"));
}

#[test]
fn a_server_that_wants_a_login_is_well() {
    for protocol in ["auto", "ascii", "binary"] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "users", "web:password");
        let config = format!("[server]\nauth_file = \"users\"\nprotocol = \"{protocol}\"\n{PLAIN}");
        let server = Server::start_in(folder, &config);
        server.is_well(&[], &format!("healthy: {} answers", server.at()));
        assert!(!server.node.log().contains("authentication failed"), "{}", server.node.log());
    }
}

#[test]
fn behind_tls_any_certificate_is_good_and_none_is_needed() {
    for clients in ["", "client_ca = \"ca.pem\"\n", "client_ca = \"ca.pem\"\nmin_version = \"1.3\"\n"] {
        let authority = Authority::new();
        let folder = tempfile::tempdir().unwrap();
        authority.sign_server(folder.path(), "first");
        write(folder.path(), "ca.pem", authority.pem());
        let config = format!("[server.tls]\ncert = \"server.pem\"\nkey = \"server.key\"\n{clients}\n{PLAIN}");
        let server = Server::start_in(folder, &config);
        server.is_well(&[], &format!("healthy: {} answers", server.at()));
        // Asked every few seconds, it must not fill the log.
        let failed = server.node.log().contains("TLS handshake failed");
        assert!(!failed || !clients.is_empty(), "{}", server.node.log());
    }
}

#[test]
fn the_http_api_is_asked_if_there_is_one() {
    let http = free_port();
    let config = format!("[http]\nlisten = [\"127.0.0.1:{http}\"]\n{PLAIN}");
    let server = Server::start(&config);
    let at = server.at();
    server.is_well(&[], &format!("healthy: {at} answers, http://127.0.0.1:{http}/livez says \"ok\""));
    // It is ready a moment later.
    let ready = format!("healthy: {at} answers, http://127.0.0.1:{http}/readyz says \"ready\"");
    server.is_well(&["--ready", "--wait", "20s"], &ready);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = taken.local_addr().unwrap().to_string();
    drop(taken);
    let file = write(server.node.folder.path(), "other.toml", &format!("[http]\nlisten = [\"{other}\"]\n{PLAIN}"));
    is_not_well(Some(&file), &["-p", &server.port], "/livez: cannot connect");
}

#[test]
fn the_http_api_behind_tls_is_asked_too() {
    let (authority, folder, http) = (Authority::new(), tempfile::tempdir().unwrap(), free_port());
    authority.sign_server(folder.path(), "first");
    let tls = "tls.cert = \"server.pem\"\ntls.key = \"server.key\"\n";
    let server = Server::start_in(folder, &format!("[http]\nlisten = [\"127.0.0.1:{http}\"]\n{tls}{PLAIN}"));
    server.is_well(&[], &format!("healthy: {} answers, https://127.0.0.1:{http}/livez says \"ok\"", server.at()));
}

#[test]
fn a_server_that_stands_still_is_not_waited_for() {
    let server = Server::start(PLAIN);
    server.node.signal("STOP");
    server.is_not_well(&["--timeout", "200ms"], "no answer within 0.2 s");
    server.node.signal("CONT");
    server.is_well(&[], &format!("healthy: {} answers", server.at()));
}

#[test]
fn another_program_at_the_port_is_not_taken_for_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let other = std::thread::spawn(move || {
        for greeting in ["SSH-2.0-x\r\n", ""] {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 64]);
            stream.write_all(greeting.as_bytes()).unwrap();
        }
    });
    is_not_well(None, &["-p", &port], "no memcached server");
    is_not_well(None, &["-p", &port], "without an answer");
    other.join().unwrap();
}

#[test]
fn a_refused_configuration_is_one_sentence_without_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("[[app]]\nappid = \"wx0123456789abcdef\"\nsecret = \"{SECRET}\"\nendpoint = \"{SECRET}\"\n");
    let file = write(folder.path(), "c.toml", &config);
    let (status, said) = health(Some(&file), &[], &[]);
    assert!(status.code() == Some(1) && said.contains("tokencached check") && !said.contains(SECRET), "{said}");
    is_not_well(None, &["-p", "-1"], "any free port");
}

#[test]
fn with_wait_it_asks_again_until_the_server_is_there() {
    let port = free_port().to_string();
    let mut waits = tokencached();
    waits.args(["health", "--wait", "30s", "-p", &port]).stdout(Stdio::piped());
    let mut waits = waits.spawn().unwrap();
    let _node = Node::start(PLAIN, &["-p", &port]);
    let status = wait_for("the answer", || waits.try_wait().unwrap());
    assert!(status.success());
}

/// What answers there may be any program, and the sentence is read on a terminal.
#[test]
fn nothing_of_an_answer_is_printed_that_is_no_plain_text() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let api = TcpListener::bind("127.0.0.1:0").unwrap();
    let http = format!("[http]\nlisten = [\"{}\"]\n{PLAIN}", api.local_addr().unwrap());
    let others = std::thread::spawn(move || {
        for status in
            ["HTTP/1.1 \x1b[2\r\n\r\n{\"status\":\"ok\"}", "HTTP/1.1 503 x\r\n\r\n{\"status\":\"\\u001b[2J\"}"]
        {
            for (listener, answer) in [(&listener, "VERSION \x1b[2J\r\n"), (&api, status)] {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 256]);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "c.toml", &http);
    for part in ["is no HTTP", "HTTP status 503, \"\\u{1b}[2J\""] {
        let (status, said) = health(Some(&file), &["-p", &port], &[]);
        assert!(status.code() == Some(1) && said.contains(part) && !said.contains('\x1b'), "{said:?}");
    }
    others.join().unwrap();
}

#[test]
fn with_wait_the_time_is_over_when_it_is_over() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    is_not_well(None, &["--timeout", "60s", "--wait", "300ms", "-p", &port], "no answer within 0.");
}

#[test]
fn a_server_is_well_although_nobody_reads_the_sentence() {
    let server = Server::start(PLAIN);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = tokencached().args(["health", "-p", &server.port]).stdout(full).status().unwrap();
    assert_eq!(status.code(), Some(0));
}
