//! Files that are replaced while the server runs: every kind of file, each way of replacing one, without a signal.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tokencached::credential::App;
use tokencached::credential::table::CredentialState;
use tokencached::sandbox::{Endpoint, Options, Verdict};
use tokencached::secret_source::SecretSource;

use crate::http_api::{HttpNode, exchange};
use crate::open_platform::{self, AUTH, COMPONENT};
use crate::refresher::{self, SECRET as OTHER_SECRET, sandbox, stable, until};
use crate::support::{APPID, Client, Node, SECRET, Wechat, as_root, program, run, tokencached, wait_for, write};
use crate::tls::{Authority, connect, shown};

/// How a file is replaced.
#[derive(Clone, Copy, Debug)]
pub enum Replacement {
    /// Truncated and written, as an editor or `echo >` does.
    InPlace,
    /// Another file renamed over it.
    Rename,
    /// A link put in its place that leads elsewhere, as `ln -sfn` does.
    Link,
    /// The folder that its link leads through is another one, as Kubernetes does.
    Folder,
}

pub const REPLACEMENTS: [Replacement; 4] =
    [Replacement::InPlace, Replacement::Rename, Replacement::Link, Replacement::Folder];

impl Replacement {
    /// Replaces these files, which are in one folder.
    pub fn replace(self, files: &[(&Path, &str)]) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("..{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = files[0].0.parent().unwrap();
        if let Replacement::Folder = self {
            // With the contents as they are first, unless it is so already.
            let (old, new) = (folder.join(format!("{unique}-old")), folder.join(format!("{unique}-new")));
            for target in [&old, &new] {
                fs::create_dir(target).unwrap();
            }
            for (path, text) in files {
                let name = path.file_name().unwrap();
                fs::copy(path, old.join(name)).unwrap();
                fs::write(new.join(name), text).unwrap();
            }
            link(&old, &folder.join("..data"));
            for (path, _) in files {
                link(&Path::new("..data").join(path.file_name().unwrap()), path);
            }
            return link(&new, &folder.join("..data"));
        }
        for (path, text) in files {
            let beside = folder.join(format!("{unique}-{}", path.file_name().unwrap().display()));
            match self {
                Replacement::InPlace => fs::write(path, text).unwrap(),
                Replacement::Rename => {
                    fs::write(&beside, text).unwrap();
                    fs::rename(&beside, path).unwrap();
                }
                Replacement::Link | Replacement::Folder => {
                    fs::write(&beside, text).unwrap();
                    link(&beside, path);
                }
            }
        }
    }
}

/// A link, put in the place of whatever is there.
fn link(target: &Path, path: &Path) {
    let beside = path.with_file_name(format!("{}-link", path.file_name().unwrap().display()));
    symlink(target, &beside).unwrap();
    fs::rename(beside, path).unwrap();
}

fn logs_in(node: &Node, password: &str) -> bool {
    let login = format!("a {password}");
    let mut client = node.connect();
    client.send(format!("set x 0 0 {}\r\n{login}\r\n", login.len()));
    client.read_until(b"\r\n") == b"STORED\r\n"
}

#[test]
#[ignore = "waits for real time"]
fn users_are_followed_and_a_bad_file_locks_out_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let users = write(folder.path(), "users", "a:first\n");
    let node = Node::start_in(folder, "[server]\nauth_file = \"users\"\n[state]\npath = \"none\"\n", &[]);
    assert!(logs_in(&node, "first"));
    let mut there = node.connect();
    there.expect("set x 0 0 7\r\na first\r\n", "STORED\r\n");
    for (count, way) in REPLACEMENTS.into_iter().enumerate() {
        let password = format!("password{count}");
        way.replace(&[(&users, &format!("a:{password}\n"))]);
        wait_for(&format!("{way:?}"), || logs_in(&node, &password).then_some(()));
    }
    assert!(!logs_in(&node, "first"));
    there.expect("get a\r\n", "END\r\n");
    Replacement::Rename.replace(&[(&users, "no colon in here\n")]);
    node.await_log("is not used: line 1 has no colon");
    assert!(logs_in(&node, "password3"));
    fs::remove_file(&users).unwrap();
    node.await_log("is missing; the last good content is kept");
    assert!(logs_in(&node, "password3"));
    write(node.folder.path(), "users", "a:password3\n");
    node.await_log("can be used again");
    let log = node.log();
    assert_eq!(log.matches("is missing; the last").count(), 1, "{log}");
    assert!(!log.contains("no colon in here") && !log.contains("password3"), "{log}");
}

#[test]
#[ignore = "waits for real time"]
fn keys_of_the_http_port_are_followed() {
    let wechat = Wechat::start();
    let folder = tempfile::tempdir().unwrap();
    let key = |count: usize| format!("key-number-{count}-of-this-test-0123456789");
    let line = |count: usize| format!("ops {} status\n", key(count));
    let keys = write(folder.path(), "keys", &line(9));
    let http = HttpNode::start_in(folder, &wechat, "keys_file = \"keys\"", "", "");
    let status = |count: usize| {
        let bearer = format!("Authorization: Bearer {}", key(count));
        http.get("/v1/status", &[&bearer]).status
    };
    assert_eq!(status(9), 200);
    for (count, way) in REPLACEMENTS.into_iter().enumerate() {
        way.replace(&[(&keys, &line(count))]);
        wait_for(&format!("{way:?}"), || (status(count) == 200).then_some(()));
    }
    assert_ne!(status(9), 200);
    Replacement::InPlace.replace(&[(&keys, "ops short status\n")]);
    http.node.await_log("is not used: line 1 has a key of fewer than");
    assert_eq!(status(3), 200);
}

#[test]
#[ignore = "waits for real time"]
fn certificates_and_their_keys_are_followed_on_both_ports() {
    let authority = Authority::new();
    let wechat = Wechat::start();
    let folder = tempfile::tempdir().unwrap();
    authority.sign_server(folder.path(), "first");
    let tls = "[server.tls]\ncert = \"server.pem\"\nkey = \"server.key\"\n";
    let http = "[http.tls]\ncert = \"server.pem\"\nkey = \"server.key\"\n";
    let server = HttpNode::start_in(folder, &wechat, "", &format!("{tls}{http}"), "");
    let shown_by_http = || {
        let mut stream = connect(server.address, authority.client(None));
        assert_eq!(exchange(&mut stream, "GET", "/livez", &[], "").status, 200);
        let shown = stream.conn.peer_certificates().unwrap()[0].to_vec();
        ["first", "second"].into_iter().find(|name| memchr::memmem::find(&shown, name.as_bytes()).is_some())
    };
    assert_eq!((shown(server.node.address, &authority).as_str(), shown_by_http()), ("first", Some("first")));
    let (cert, key) = (server.node.path("server.pem"), server.node.path("server.key"));
    let elsewhere = tempfile::tempdir().unwrap();
    let new = |name: &str| {
        authority.sign_server(elsewhere.path(), name);
        ["server.pem", "server.key"].map(|file| fs::read_to_string(elsewhere.path().join(file)).unwrap())
    };
    for (way, name) in REPLACEMENTS.into_iter().zip(["second", "first", "second", "first"]) {
        let [new_cert, new_key] = new(name);
        way.replace(&[(&cert, &new_cert), (&key, &new_key)]);
        wait_for(&format!("{way:?}"), || (shown(server.node.address, &authority) == name).then_some(()));
        wait_for(&format!("{way:?} over HTTP"), || (shown_by_http() == Some(name)).then_some(()));
    }
    // A certificate without its key: both ports keep what they have.
    Replacement::Rename.replace(&[(&cert, &new("second")[0])]);
    server.node.await_log("do not go together");
    assert_eq!((shown(server.node.address, &authority).as_str(), shown_by_http()), ("first", Some("first")));
}

#[tokio::test]
#[ignore = "waits for real time"]
async fn a_refused_secret_that_is_replaced_is_tried_and_a_missing_file_keeps_the_last_good_one() {
    for way in REPLACEMENTS {
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), "secret", "thewrongone\n");
        let sandbox = sandbox(Options { lifetime_s: 6, ..Options::default() }).await;
        let node = refresher::Node::of(&sandbox, App { secret: SecretSource::file(&file), ..stable() });
        until("a refusal", || node.status().state == CredentialState::Blocked).await;
        way.replace(&[(&file, &format!("{OTHER_SECRET}\n"))]);
        assert_eq!(sandbox.judge(&node.live().await), Verdict::Accepted, "{way:?}");
        assert_eq!(sandbox.calls("wx1").total(), 2, "{way:?}");
        // Renewals go on.
        fs::remove_file(&file).unwrap();
        let first = node.values();
        until("a renewal without the file", || node.values() > first).await;
        assert_eq!(node.status().state, CredentialState::Fresh, "{way:?}");
        node.stop().await;
    }
}

/// Calls for the account's token.
fn renewals(wechat: &Wechat) -> u64 {
    wechat.calls(AUTH).of(Endpoint::AuthorizerToken)
}

#[test]
#[ignore = "waits for real time"]
fn a_changed_refresh_token_file_is_renewed_with_at_once_and_once() {
    let wechat = Wechat::with(open_platform::options(7200));
    let node = open_platform::start(&wechat, open_platform::folder(&wechat));
    let refresh = node.path("refresh");
    let mut client = node.connect();
    let mut token = open_platform::value(&mut client, &open_platform::key());
    assert_eq!(renewals(&wechat), 1);
    for (count, way) in (2..).zip(REPLACEMENTS) {
        // The merchant has authorised anew, which ends the refresh token before.
        let new = wechat.authorise(AUTH);
        way.replace(&[(&refresh, &new)]);
        token = open_platform::other(&mut client, &open_platform::key(), &token);
        assert_eq!(wechat.judge(&token), Verdict::Accepted, "{way:?}");
        assert_eq!((renewals(&wechat), open_platform::refused(&wechat)), (count, 0), "{way:?}");
        assert_eq!(open_platform::stat(&mut client, &format!("{AUTH}:calls_today")), count.to_string(), "{way:?}");
        node.await_log("renewing with it");
    }
    // The same again, in another file, is no change; nor is what the state knows, at the next start.
    let same = fs::read_to_string(&refresh).unwrap();
    Replacement::Rename.replace(&[(&refresh, &same)]);
    let node = open_platform::start(&wechat, node.stop());
    // Its watch has seen the refresh token when it has seen what comes after.
    fs::write(node.path("refresh"), "not a refresh token").unwrap();
    node.await_log("is not used: it has a blank");
    assert_eq!(open_platform::value(&mut node.connect(), &open_platform::key()), token);
    assert_eq!(renewals(&wechat), 5);
    // What was changed while no server ran is renewed with by the next one.
    let folder = node.stop();
    write(folder.path(), "refresh", &wechat.authorise(AUTH));
    let node = open_platform::start(&wechat, folder);
    open_platform::other(&mut node.connect(), &open_platform::key(), &token);
    assert_eq!((renewals(&wechat), open_platform::refused(&wechat)), (6, 0));
}

#[test]
#[ignore = "waits for real time"]
fn verify_tickets_are_followed() {
    // Short, so that the ticket is soon needed again.
    let wechat = Wechat::with(open_platform::options(4));
    let node = open_platform::start(&wechat, open_platform::folder(&wechat));
    let ticket = node.path("ticket");
    let mut client = node.connect();
    let (key, state) = (open_platform::component_key(), format!("{COMPONENT}:state"));
    open_platform::value(&mut client, &key);
    for way in REPLACEMENTS {
        wechat.expire_verify_tickets(COMPONENT);
        let refused = || open_platform::stat(&mut node.connect(), &state) == "waiting";
        wait_for(&format!("a refusal before {way:?}"), || refused().then_some(()));
        way.replace(&[(&ticket, &wechat.push_verify_ticket(COMPONENT))]);
        wait_for(&format!("{way:?}"), || (!refused() && client.get(&key).is_some()).then_some(()));
    }
}

/// A process as the shipped unit has it: a user of its own without any right.
fn as_nobody() -> Command {
    let mut command = program("setpriv");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]);
    command.args(["--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs", "--"]);
    command.arg(env!("CARGO_BIN_EXE_tokencached"));
    command
}

/// The process can read it, and as root it belongs to nobody else.
fn open(path: &Path, mode: u32) -> PathBuf {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_owned()
}

#[test]
#[ignore = "needs root"]
fn under_the_unit_every_secret_file_can_be_a_credential() {
    as_root();
    let (wechat, authority) = (Wechat::start(), Authority::new());
    let (own, credentials) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    open(own.path(), 0o777);
    let key = "a-key-of-this-test-0123456789abcdef";
    let at = credentials.path();
    authority.sign_server(at, "first");
    write(at, "users", "a:first\n");
    write(at, "keys", &format!("ops {key} status\n"));
    for file in fs::read_dir(at).unwrap() {
        // As systemd leaves them: for the unit's user to read, and for nobody else.
        let path = file.unwrap().path();
        std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
        open(&path, 0o400);
    }
    open(at, 0o555);
    let config = wechat
        .config(
            "auth_credential = \"users\"\n[server.tls]\ncert_credential = \"server.pem\"\nkey_credential = \"server.key\"\n\
             [http]\nlisten = \"127.0.0.1:0\"\nkeys_credential = \"keys\"\n\
             [http.tls]\ncert_credential = \"server.pem\"\nkey_credential = \"server.key\"\n",
            "",
        )
        .replace("{folder}/state.json", "none");
    let folder = at.display().to_string();
    let node = Node::start_binary(as_nobody(), own, &config, &[], &[("CREDENTIALS_DIRECTORY", &folder)]);
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000") && status.contains("Uid:\t65534"), "{status}");
    assert_eq!(shown_after_login(&node, &authority), "first");
    let (status, printed) = run(tokencached()
        .args(["check", "--print"])
        .arg("--config")
        .arg(node.path("tokencached.toml"))
        .env("CREDENTIALS_DIRECTORY", &folder));
    assert!(status.success(), "{printed}");
    for line in ["auth_credential = \"users\"", "keys_credential = \"keys\"", "tls.key_credential = \"server.key\""] {
        assert!(printed.contains(line), "{line} in {printed}");
    }
}

fn shown_after_login(node: &Node, authority: &Authority) -> String {
    let mut tls = connect(node.address, authority.client(None));
    crate::tls::ask(&mut tls, "set x 0 0 7\r\na first\r\n", "STORED\r\n").unwrap();
    let shown = tls.conn.peer_certificates().unwrap()[0].to_vec();
    let found = ["first", "second"].into_iter().find(|name| memchr::memmem::find(&shown, name.as_bytes()).is_some());
    found.unwrap_or_default().to_owned()
}

#[test]
#[ignore = "needs root"]
fn a_file_that_the_units_user_may_not_read_is_answered_with_what_to_paste() {
    as_root();
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), 0o755);
    let authority = Authority::new();
    authority.sign_server(folder.path(), "first");
    for (name, text) in [("users", "a:b\n"), ("keys", "ops 0123456789abcdef0123456789abcdef status\n"), ("s", SECRET)] {
        write(folder.path(), name, text);
    }
    for name in ["users", "keys", "s", "server.key"] {
        open(&folder.path().join(name), 0o600);
    }
    let tls = "cert = \"server.pem\"\nkey = \"server.key\"\n";
    let app = format!("[[app]]\nappid = \"{APPID}\"\nsecret_file = \"s\"\n");
    let cases = [
        ("users", "auth_credential", "users", "[server]\nauth_file = \"users\"\n".to_owned()),
        ("keys", "keys_credential", "keys", "[http]\nlisten = \"127.0.0.1:0\"\nkeys_file = \"keys\"\n".to_owned()),
        ("server.key", "tls.key_credential", "server-key", format!("[server.tls]\n{tls}")),
        (
            "server.key",
            "tls.key_credential",
            "http-key",
            format!("[http]\nlisten = \"127.0.0.1:0\"\n[http.tls]\n{tls}"),
        ),
        ("s", "secret_credential", APPID, app),
    ];
    for (file, setting, name, config) in cases {
        let config = write(folder.path(), "c.toml", &format!("[state]\npath = \"none\"\n{config}"));
        open(&config, 0o644);
        let line = format!("LoadCredential={name}:{}", folder.path().join(file).display());
        let check = |variables: &[(&str, &str)]| {
            run(as_nobody().arg("check").arg("--config").arg(&config).envs(variables.iter().copied()))
        };
        let (status, said) = check(&[("INVOCATION_ID", "0123456789abcdef0123456789abcdef")]);
        assert_eq!(status.code(), Some(78), "{said}");
        assert!(said.contains(&line) && said.contains(&format!("{setting} = \"{name}\"")), "{said}");
        let (status, said) = check(&[]);
        assert!(status.code() == Some(78) && !said.contains("LoadCredential"), "without a unit: {said}");
    }
}

#[test]
fn a_credential_without_its_folder_says_who_makes_that() {
    for (setting, config) in [
        ("auth_file", "[server]\nauth_credential = \"users\"\n"),
        ("keys_file", "[http]\nlisten = \"127.0.0.1:0\"\nkeys_credential = \"users\"\n"),
        ("tls.key", "[server.tls]\nkey_credential = \"users\"\n"),
        ("secret_file", "[[app]]\nappid = \"wx0123456789abcdef\"\nsecret_credential = \"users\"\n"),
        ("key_file", "[state]\nurl = \"rediss://127.0.0.1\"\nkey_credential = \"users\"\n"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let config = write(folder.path(), "c.toml", config);
        let (status, said) =
            run(tokencached().arg("check").arg("--config").arg(&config).env_remove("CREDENTIALS_DIRECTORY"));
        assert_eq!(status.code(), Some(78), "{said}");
        let part = "there is no CREDENTIALS_DIRECTORY in the environment";
        assert!(said.contains(part) && said.contains("LoadCredential=users:/path"), "{said}");
        assert!(said.contains(&format!("use {setting}")), "{said}");
    }
}

/// The advice for a refused secret, by where that came from.
#[test]
fn advice_says_how_another_secret_takes_effect() {
    let wechat = Wechat::start();
    let wrong = "ffffffffffffffffffffffffffffffff";
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("tokencached@2.service");
    fs::create_dir(&unit).unwrap();
    for (place, name) in [(folder.path(), "file"), (&*unit, "credential")] {
        write(place, name, wrong);
    }
    let file = format!("secret_file = \"{}\"", folder.path().join("file").display());
    let cases = [
        (file, "a changed file is tried within seconds"),
        ("secret_credential = \"credential\"".to_owned(), "systemctl restart tokencached@2"),
        ("secret_env = \"WX\"".to_owned(), "environment variable: restart"),
        (format!("secret = \"{wrong}\""), "change it there and restart"),
    ];
    for (source, said) in cases {
        let config = wechat.config("", "").replace(&format!("secret = \"{SECRET}\""), &source);
        assert!(config.contains(&source), "{config}");
        let variables = [("CREDENTIALS_DIRECTORY", unit.to_str().unwrap()), ("WX", wrong)];
        let node = Node::start_with(tempfile::tempdir().unwrap(), &config, &[], &variables);
        node.await_log(said);
        let mut client: Client = node.connect();
        let advice = wait_for("the advice", || client.stat("tokens", &format!("{APPID}:what_to_do")));
        assert!(advice.contains(said) && advice.contains("current secret"), "{advice}");
        let others = ["within seconds", "systemctl restart", "environment variable", "change it there"];
        assert_eq!(others.iter().filter(|other| advice.contains(**other)).count(), 1, "{advice}");
    }
}
