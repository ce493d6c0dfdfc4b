//! `tokencached check`: settings without secrets, faults with exit codes, and with `--live` WeChat's own word.

use std::net::IpAddr;
use std::process::ExitStatus;

use tokencached::sandbox::{Endpoint, Fault, FaultKind};

use crate::support::{APPID, SECRET, Wechat, config, run, tokencached, write};

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
fn it_prints_the_settings_in_effect_without_secrets() {
    let (status, said) = check(&config("https://api.weixin.qq.com", "memory = \"32MiB\"", ""), &["-p", "11999"]);
    assert_eq!(status.code(), Some(0), "{said}");
    for part in [APPID, "\"32MiB\"", "127.0.0.1:11999", "stable_token", "https://api.weixin.qq.com"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(said.contains("# warning:"), "a secret in the file is warned about: {said}");
}

#[test]
fn what_it_prints_is_a_configuration_again() {
    let (_, said) = check("[server]\nmemory = \"32MiB\"\n[state]\npath = \"none\"\n", &[]);
    let (status, again) = check(&said, &[]);
    assert_eq!(status.code(), Some(0), "{again}");
    assert_eq!(said, again);
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
        assert!(said.contains(&format!("# {APPID}: good")), "{said}");
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
    assert!(said.contains("# warning") && said.contains("base_url has a path"), "{said}");
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
    wechat.set_fault(APPID, Fault::new(FaultKind::Hang));
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
