//! `tokencached check`: its verdict, faults and warnings with exit codes, the settings without secrets, and with `--live`
//! WeChat's own word.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitStatus;

use tokencached::sandbox::{AppOptions, Endpoint, FaultKind, InjectedFault, Options};

use crate::support::{APPID, Node, SECRET, Wechat, as_root, config, program, run, tokencached, write};

#[track_caller]
fn check(config: &str, flags: &[&str]) -> (ExitStatus, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "c.toml", &config.replace("{folder}", &folder.path().display().to_string()));
    let (status, said) = run(tokencached().arg("check").arg("--config").arg(file).args(flags));
    assert!(!said.contains(SECRET), "{said}");
    (status, said)
}

/// As [`check`] with `--live`, and never a forced or a classic call.
#[track_caller]
fn live(wechat: &Wechat, app: &str) -> (ExitStatus, String) {
    let answer = check(&wechat.config("", app), &["--live"]);
    let calls = wechat.calls(APPID);
    assert_eq!(calls.of(Endpoint::StableTokenForced) + calls.of(Endpoint::Token), 0, "{calls:?}");
    answer
}

#[test]
fn it_prints_the_settings_in_effect_without_secrets_if_asked() {
    let config = config("https://api.weixin.qq.com", "memory = \"32MiB\"", "");
    let (status, said) = check(&config, &["--print", "-p", "11999"]);
    assert_eq!(status.code(), Some(0), "{said}");
    for part in [APPID, "\"32MiB\"", "127.0.0.1:11999", "stable_token", "https://api.weixin.qq.com"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(said.contains("# warning:"), "a secret in the file is warned about: {said}");
    let (_, said) = check(&config, &[]);
    assert!(!said.contains("[server]") && !said.contains("stable_token"), "only if asked: {said}");
}

#[test]
fn what_it_prints_is_a_configuration_again() {
    let (_, said) = check("[server]\nmemory = \"32MiB\"\n[state]\npath = \"none\"\n", &["--print"]);
    let (status, again) = check(&said, &["--print"]);
    assert_eq!(status.code(), Some(0), "{again}");
    assert_eq!(said, again);
}

/// What an installation asks before it starts the server beside a memcached.
#[test]
fn an_address_that_is_taken_is_named_with_its_owner() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let config = format!("[server]\nlisten = [\"{taken}\"]\n[state]\npath = \"none\"\n");
    let (status, said) = check(&config, &[]);
    let owner = format!("(process {}): a server that starts now ends with exit code 69", std::process::id());
    assert!(status.success() && said.contains(&format!("note: the address {taken} is in use by ")), "{said}");
    assert!(said.contains(&owner), "{said}");
    // A server that runs has its own addresses.
    assert!(!check(&config, &["--quiet"]).1.contains("in use"));
    drop(other);
    let (_, said) = check(&config, &[]);
    assert!(!said.contains("in use"), "{said}");
}

/// Most people check beside the server that runs: that it has its address is no fault.
#[test]
fn an_address_of_the_running_server_is_not_made_a_fault() {
    let node = Node::plain(&[]);
    let address = node.address;
    let (status, said) = check(&format!("[server]\nlisten = [\"{address}\"]\n[state]\npath = \"none\"\n"), &[]);
    assert!(status.success(), "{said}");
    assert!(said.contains(&format!("the address {address} is in use by tokencached (process ")), "{said}");
    assert!(said.contains("exit code 69; no fault if that is the server itself"), "{said}");
}

#[test]
fn a_socket_that_a_server_answers_at_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let config = format!("[server]\nunix_socket = \"{}\"\n[state]\npath = \"none\"\n", path.display());
    let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (_, said) = check(&config, &[]);
    assert!(said.contains(&format!("note: a server answers at the socket {}", path.display())), "{said}");
    // What is left of one that has ended is not in the way.
    drop(other);
    let (_, said) = check(&config, &[]);
    assert!(path.exists() && !said.contains("answers at"), "{said}");
}

#[test]
fn every_fault_is_named_and_the_exit_code_says_configuration() {
    let faulty = config("ftp://wrong", "memroy = \"1GiB\"\nthreads = 0", "endpoint = \"tokens\"");
    let (status, said) = check(&faulty, &[]);
    assert_eq!(status.code(), Some(78), "{said}");
    for part in ["memroy", "threads", "endpoint", "base_url"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn a_file_that_is_not_there_is_a_fault() {
    let (status, said) = run(tokencached().args(["check", "--config", "/nowhere/c.toml"]));
    assert_eq!(status.code(), Some(78), "{said}");
    assert!(said.contains("/nowhere/c.toml"), "{said}");
}

#[test]
fn live_with_a_good_app() {
    let wechat = Wechat::start();
    for endpoint in ["stable_token", "token"] {
        let (status, said) = live(&wechat, &format!("endpoint = \"{endpoint}\""));
        assert_eq!(status.code(), Some(0), "{said}");
        assert!(said.contains(&format!("good: {APPID}: WeChat gave a token")), "{said}");
        assert!(last_line(&said).starts_with("1 of 1 app good; "), "{said}");
    }
    assert_eq!(wechat.calls(APPID).of(Endpoint::StableToken), 2);
}

#[test]
fn live_with_a_wrong_secret() {
    let wechat = Wechat::start();
    wechat.set_secret(APPID, "another");
    let (status, said) = live(&wechat, "");
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("40125") && said.contains("what to do: put the app's current secret in place"), "{said}");
    assert!(last_line(&said).starts_with("0 of 1 app good, 1 not; "), "{said}");
}

#[test]
fn live_from_an_address_that_is_not_allowed() {
    let wechat = Wechat::start();
    wechat.set_allowlist(APPID, Some(vec![IpAddr::from([192, 0, 2, 1])]));
    let (status, said) = live(&wechat, "");
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("40164"), "{said}");
    assert!(said.contains("WeChat saw IP 127.0.0.1; add it to the IP allow-list of app"), "{said}");
}

#[test]
fn live_where_something_else_than_wechat_answers_names_base_url() {
    let wechat = Wechat::start();
    let config = wechat.config("", "").replace(&wechat.base_url(), &format!("{}/wechat", wechat.base_url()));
    let (status, said) = check(&config, &["--live"]);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("warning: ") && said.contains("base_url has a path"), "{said}");
    let advice = said.split("what to do: ").nth(1).unwrap_or_default();
    assert!(said.contains("HTTP status 404") && advice.contains("base_url"), "{said}");
}

#[test]
fn live_without_an_upstream() {
    let gone = Wechat::start();
    let config = gone.config("", "");
    drop(gone);
    let (status, said) = check(&config, &["--live"]);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("Connection refused") && said.contains("what to do: check DNS, routing"), "{said}");
}

#[test]
fn live_with_an_upstream_that_hangs() {
    let wechat = Wechat::start();
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Hang));
    let config =
        wechat.config("", "").replace("[upstream]", "[upstream]\nconnect_timeout_ms = 100\ntotal_timeout_ms = 200");
    let (status, said) = check(&config, &["--live"]);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("no token") && said.contains("what to do"), "{said}");
}

#[test]
fn live_without_apps_says_that_there_is_nothing_to_ask() {
    let (status, said) = check("", &["--live"]);
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("no app is configured"), "{said}");
}

fn last_line(said: &str) -> &str {
    said.lines().last().unwrap_or_default()
}

/// So many apps, and the configuration of them; the secrets of every `wrong`th one are not the right ones.
fn many(count: usize, wrong: usize) -> (Wechat, String) {
    let appid = |index: usize| format!("wx{index:016}");
    let known = |index| AppOptions { appid: appid(index), secret: SECRET.into(), ..AppOptions::default() };
    let wechat = Wechat::with(Options { apps: (0..count).map(known).collect(), ..Options::default() });
    let mut config = format!("[state]\npath = \"none\"\n[upstream]\nbase_url = \"{}\"\n", wechat.base_url());
    for index in 0..count {
        let secret = if (index + 1).is_multiple_of(wrong) { "0123456789abcdef0123456789abcdef" } else { SECRET };
        let _ = writeln!(config, "[[app]]\nappid = \"{}\"\nsecret = \"{secret}\"", appid(index));
    }
    (wechat, config)
}

#[test]
fn the_last_line_says_how_many_apps_are_good_and_before_it_stands_what_is_wrong() {
    let (_wechat, config) = many(300, 33);
    let (status, said) = check(&config, &["--live"]);
    assert_eq!(status.code(), Some(1), "{said}");
    assert_eq!(last_line(&said), "291 of 300 apps good, 9 not; 1 warning", "{said}");
    assert!(said.lines().count() < 12, "300 apps are not 300 lines: {said}");
    // Nine with the same fault: said once, with all of them below.
    let bad = said.lines().position(|line| line.starts_with("bad: 9 apps: no token: ")).expect(&said);
    let warning = said.lines().position(|line| line.starts_with("warning: ")).expect(&said);
    assert!(warning < bad, "{said}");
    for index in (32..300).step_by(33) {
        assert_eq!(said.matches(&format!("wx{index:016}")).count(), 1, "{said}");
    }
    assert!(said.contains("\n  what to do: put the app's current secret in place"), "{said}");
    let (_, all) = check(&config, &["--live", "--print"]);
    assert_eq!(all.lines().filter(|line| line.starts_with("# good: ")).count(), 291, "{all}");
    let (_, quiet) = check(&config, &["--live", "--quiet"]);
    assert_eq!(quiet.lines().count(), said.lines().count(), "few words in both");
}

#[test]
fn without_live_the_verdict_is_about_the_configuration_and_says_how_many_warnings_there_are() {
    for (text, verdict) in [
        // Is that what is wanted? Hence the warning.
        ("[state]\npath = \"none\"\n", "configuration good: no apps; 1 warning"),
        (&format!("{FOLLOWED}[[app]]\nappid = \"{APPID}\"\n"), "configuration good: 1 app; no warnings"),
        (
            &format!("{FOLLOWED}[[app]]\nappid = \"{APPID}\"\n[[sink]]\ncommand = [\"/bin/true\"]\n"),
            "configuration good: 1 app, 1 sink; no warnings",
        ),
        ("[state]\npath = \"none\"\n[log]\nverbosity = 9", "configuration refused: 1 fault"),
        ("nonsense = 1\n[log]\nverbosity = 9", "configuration refused: 2 faults"),
    ] {
        let (status, said) = check(text, &[]);
        assert_eq!(last_line(&said), verdict, "{said}");
        assert_eq!(status.code(), Some(if verdict.contains("refused") { 78 } else { 0 }), "{said}");
    }
    let (status, said) = check(&config("https://api.weixin.qq.com", "", ""), &[]);
    assert_eq!((last_line(&said), status.code()), ("configuration good: 1 app; 1 warning", Some(0)), "{said}");
}

/// A node that follows another needs no secret.
const FOLLOWED: &str = "[state]\npath = \"none\"\nupstream = \"http://127.0.0.1:9\"\n";

#[test]
fn quiet_is_quiet_where_there_is_nothing_to_say() {
    let (_wechat, config) = many(300, 1000);
    let (status, said) = check(&config, &["--quiet"]);
    assert_eq!(status.code(), Some(0), "{said}");
    // The secrets stand in the file, which is said once.
    assert!(said.lines().count() == 3 && said.starts_with("warning: "), "{said}");
    assert_eq!(last_line(&said), "configuration good: 300 apps; 1 warning", "{said}");
    let (_, said) = check(&format!("{FOLLOWED}[[app]]\nappid = \"{APPID}\"\n"), &["--quiet"]);
    assert_eq!(said, "configuration good: 1 app; no warnings\n");
    let (_, said) = check("[state]\npath = \"none\"\nnonsense = 1\n", &["--quiet"]);
    assert!(said.contains("nonsense") && last_line(&said) == "configuration refused: 1 fault", "{said}");
}

/// Whether some words of a text stand there twice in a row, as in "cannot be read: cannot be read".
fn doubled(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().map(|word| word.trim_matches([':', ';', ',', '"', '.'])).collect();
    (2..=6).flat_map(|length| words.windows(2 * length).map(move |window| window.split_at(length))).find_map(
        |(a, b)| {
            let is_word = |word: &&str| word.chars().any(char::is_alphabetic);
            (a == b && a.iter().all(is_word)).then(|| a.join(" "))
        },
    )
}

/// Every way in which a file cannot be read that the configuration names.
fn unreadable(folder: &Path) -> Vec<(&'static str, String)> {
    let path = |name: &str| folder.join(name).display().to_string();
    let made = program("mkfifo").arg(path("pipe")).status().unwrap();
    assert!(made.success());
    write(folder, "empty", "");
    write(folder, "large", &"x".repeat(2 << 20));
    std::fs::write(folder.join("binary"), [0xff, 0xfe, 0x00]).unwrap();
    write(folder, "blank", "a b");
    write(folder, "hidden", "<hidden>");
    let names = ["none", "pipe", "empty", "large", "binary", "blank", "hidden"];
    names.map(|name| (name, path(name))).into_iter().chain([("folder", folder.display().to_string())]).collect()
}

#[test]
#[ignore = "waits for real time"]
fn no_message_about_a_file_says_a_thing_twice() {
    assert_eq!(doubled("x cannot be read: cannot be read: no").as_deref(), Some("cannot be read"));
    let folder = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for (name, path) in unreadable(folder.path()) {
        for text in [
            format!("[[app]]\nappid = \"{APPID}\"\nsecret_file = \"{path}\""),
            format!("[[app]]\nappid = \"{APPID}\"\nsecret_env = \"NO_SUCH\""),
            format!("[server]\nauth_file = \"{path}\""),
            format!("[server.tls]\ncert = \"{path}\""),
            format!("[server]\ntls.cert = \"{path}\"\ntls.client_ca = \"{path}\""),
            format!("[upstream]\nca_file = \"{path}\""),
            format!("[side]\nkeys_file = \"{path}\""),
            format!("[side]\ntls.cert = \"{path}\"\ntls.key = \"{path}\""),
            format!(
                "[state]\npath = \"none\"\nurl = \"redis://127.0.0.1\"\nsecret_file = \"{path}\"\npassword_file = \"{path}\""
            ),
            format!("[state]\npath = \"none\"\nupstream = \"http://127.0.0.1:9\"\nupstream_key_file = \"{path}\""),
            format!("[[sink]]\ncommand = [\"{path}\"]"),
            format!("[[sink]]\nurl = \"mysql://127.0.0.1/x\"\npresets = [\"none\"]\npassword_file = \"{path}\""),
            format!(
                "[[app]]\nappid = \"{APPID}\"\nkind = \"component\"\nsecret = \"{SECRET}\"\nverify_ticket_file = \"{path}\"\n\
                 [[app.authorizer]]\nappid = \"wx2\"\nrefresh_token_file = \"{path}\""
            ),
        ] {
            let (_, said) = check(&text, &[]);
            assert_eq!(doubled(&said), None, "{name}: {text}: {said}");
            seen += usize::from(said.contains("cannot be read") || said.contains("is "));
        }
    }
    assert!(seen > 40, "{seen}");
}

/// A file that was fine when the configuration was read, and is not when it is read again.
#[test]
fn no_message_of_a_fault_that_wraps_another_says_a_thing_twice() {
    use tokencached::secret_source::{SecretFault, SecretSource};
    let folder = tempfile::tempdir().unwrap();
    let mut faults: Vec<SecretFault> = unreadable(folder.path())
        .into_iter()
        .filter_map(|(_, path)| SecretSource::file(std::path::Path::new(&path)).read().err())
        .collect();
    faults.extend([
        SecretFault::Absent,
        SecretFault::NoDescriptor,
        SecretFault::DiskTimeout(tokencached::files::DiskTimeout),
    ]);
    assert!(faults.len() > 10, "{faults:?}");
    for fault in faults {
        // As they are wrapped: each says itself what is the matter, and is put behind the name of the thing only.
        for wrapped in [format!("the secret {fault}"), format!("secret file /x {fault}")] {
            assert_eq!(doubled(&wrapped), None);
            let verbs = ["is ", "has ", "cannot "];
            assert!(verbs.iter().any(|verb| fault.to_string().starts_with(verb)), "{wrapped}");
        }
    }
    // Nobody puts it behind a verb of their own.
    let mut wrappers = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut wrappers);
    let wrong: Vec<_> =
        wrappers.iter().filter(|line| of_secret(line) && line.contains("cannot be read: {fault}")).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn of_secret(line: &str) -> bool {
    ["secret", "password", "[state]", "key for it"].iter().any(|word| line.contains(word))
}

fn sources(path: &Path, lines: &mut Vec<String>) {
    if path.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| sources(&entry.unwrap().path(), lines));
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        lines.extend(std::fs::read_to_string(path).unwrap().lines().map(str::to_owned));
    }
}

#[test]
#[ignore = "needs root"]
fn a_state_folder_or_a_folder_of_a_socket_that_is_not_to_be_had_is_warned_of_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    let file = write(folder.path(), "file", "");
    let shown = closed.display();
    // A node that follows another needs no secret.
    let app = format!("upstream = \"http://127.0.0.1:9\"\n[[app]]\nappid = \"{APPID}\"\n");
    let followed = format!("{FOLLOWED}[[app]]\nappid = \"{APPID}\"\n");
    for (text, parts) in [
        (
            format!("[state]\npath = \"{shown}/state.json\"\n{app}"),
            vec![
                format!("state folder {shown} (of root, mode 0755)"),
                "install -d -m 700 -o nobody /var/lib/tokencached".to_owned(),
            ],
        ),
        (
            format!("[state]\npath = \"{shown}/a/state.json\"\n{app}"),
            vec![format!("state folder {shown}/a is not there"), format!("install -d -m 700 -o nobody {shown}/a")],
        ),
        (
            format!("[state]\npath = \"/var/lib/no-such/state.json\"\n{app}"),
            vec!["state folder /var/lib/no-such is not there".into(), "add StateDirectory=no-such to the unit".into()],
        ),
        (
            format!("{followed}[server]\nunix_socket = \"{shown}/x.sock\"\n"),
            vec![format!("may not make the socket {shown}/x.sock"), "RuntimeDirectory=tokencached".into()],
        ),
        (
            format!("{followed}[server]\nunix_socket = \"/run/no-such/x.sock\"\n"),
            vec!["/run/no-such of the socket".into(), "add RuntimeDirectory=no-such to the unit".into()],
        ),
        (
            format!("{followed}[server]\nunix_socket = \"{}/x.sock\"\n", file.display()),
            vec!["may not make the socket".into(), "Not a directory".into()],
        ),
    ] {
        let Some(said) = check_as_nobody(folder.path(), &text) else { return };
        for part in parts {
            assert!(said.lines().any(|line| line.starts_with("warning: ") && line.contains(&part)), "{part}: {said}");
        }
        assert!(
            last_line(&said).starts_with("configuration good: ") && last_line(&said).ends_with("; 1 warning"),
            "{said}"
        );
    }
    // What the shipped unit makes at its start is no reason for a warning by hand.
    let text = format!("{followed}[server]\nunix_socket = \"/run/tokencached/x.sock\"\n");
    if let Some(said) = check_as_nobody(folder.path(), &text).filter(|_| !Path::new("/run/tokencached").exists()) {
        assert!(said.contains("note: /run/tokencached is made by the systemd unit when it starts"), "{said}");
        assert!(last_line(&said).ends_with("; no warnings"), "{said}");
    }
}

/// As a user without any right; `None` if this process cannot become one.
fn check_as_nobody(folder: &Path, text: &str) -> Option<String> {
    as_root();
    let file = write(folder, "c.toml", text);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let mut command = program("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--"]);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let (status, said) = run(command.arg(env!("CARGO_BIN_EXE_tokencached")).args(["check", "--config"]).arg(file));
    assert_eq!(status.code(), Some(0), "{said}");
    Some(said)
}

#[test]
fn help_and_version_are_commands_too() {
    let said = |arguments: &[&str]| {
        let (status, said) = run(tokencached().args(arguments));
        assert_eq!(status.code(), Some(0), "{said}");
        said
    };
    assert_eq!(said(&["help"]), said(&["--help"]));
    assert_eq!(said(&["help", "check"]), said(&["check", "--help"]));
    assert_eq!(said(&["version"]), said(&["--version"]));
    assert_eq!(said(&["version"]), concat!("tokencached ", env!("CARGO_PKG_VERSION"), "\n"));
    assert!(said(&["help"]).contains("Exit codes:"));
}
