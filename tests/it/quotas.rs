//! Quotas as WeChat sees them: calls counted over real connections, over restarts and with very many reports.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail the test")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tokencached::credential::App;
use tokencached::credential::facts::FailureClass;
use tokencached::credential::state::{FileStore, LoadedState, StateStore};
use tokencached::credential::table::CredentialState;
use tokencached::sandbox::{Endpoint, FaultKind, InjectedFault, Options, Sandbox};

use crate::refresher::{Node, classic, sandbox, stable, until, upstream};
use crate::support::{self, APPID, Wechat, run, tokencached, wait_for, write};

const PER_DAY: u64 = 12;

fn file(folder: &Path) -> Arc<dyn StateStore> {
    Arc::new(FileStore::new(folder.join("state.json")))
}

fn calls_kept(folder: &Path) -> u64 {
    match file(folder).load() {
        LoadedState::Found(snapshot) => snapshot.usages[0].calls.calls_today(),
        _ => 0,
    }
}

/// The most token calls in a day of UTC+8, in case midnight is during the test.
fn calls_of_a_day(sandbox: &Sandbox) -> u64 {
    let mut days: HashMap<i64, u64> = HashMap::new();
    for call in sandbox.calls("wx1").recent.iter().filter(|call| call.endpoint == Endpoint::Token) {
        *days.entry((call.unix_ms + 8 * 3_600_000).div_euclid(86_400_000)).or_default() += 1;
    }
    days.into_values().max().unwrap_or(0)
}

#[tokio::test]
async fn an_upstream_that_fails_for_long_sees_no_more_calls_than_the_quota_whatever_is_restarted() {
    let folder = tempfile::tempdir().unwrap();
    let sandbox = sandbox(Options::default()).await;
    let app = App { daily_quota: Some(PER_DAY), ..classic() };
    for round in 0.. {
        assert!(round < 40, "never held back");
        let kill = round % 2 == 0;
        // A call that runs at the kill; or calls that end and may each have made a token.
        let kind = if kill { FaultKind::Hang } else { FaultKind::Cut };
        sandbox.set_fault("wx1", InjectedFault::new(kind).after_minting());
        let node = Node::start(&upstream(&sandbox.base_url()), std::slice::from_ref(&app), Some(file(folder.path())));
        let before = sandbox.calls("wx1").total();
        until("a call or a denial", || {
            let calls = sandbox.calls("wx1");
            node.status().calls_denied > 0 || if kill { calls.in_flight > 0 } else { calls.total() > before }
        })
        .await;
        let denied = node.status().calls_denied > 0;
        if kill {
            until("the count on the disk", || calls_kept(folder.path()) == node.status().calls_today).await;
            node.kill().await;
            until("the end of its call", || sandbox.calls("wx1").in_flight == 0).await;
        } else {
            node.stop().await;
        }
        assert!(calls_of_a_day(&sandbox) <= PER_DAY);
        if denied {
            break;
        }
    }
    assert_eq!(calls_of_a_day(&sandbox), PER_DAY, "and none is lost to caution");
}

#[tokio::test]
#[ignore = "waits for real time"]
async fn a_denial_is_a_wait_that_says_which_quota_and_what_to_do_and_serves_the_value_on() {
    let sandbox = sandbox(Options { lifetime_s: 6, overlap_ms: Some(2_000), ..Options::default() }).await;
    let node = Node::of(&sandbox, App { daily_quota: Some(2), ..classic() });
    let first = node.live().await;
    until("a denial", || node.status().calls_denied > 0).await;
    assert_eq!(node.token(), Some(first), "its half of two calls is used; the other is for a dying value");
    let error = node.status().last_error.unwrap();
    assert_eq!((error.class, error.errcode, node.status().state), (FailureClass::Wait, None, CredentialState::Waiting));
    assert!(error.text.contains("1 calls for renewals") && error.advice.contains("daily_quota"), "{error:?}");
    until("the reserve's renewal", || node.values() == 2).await;
    assert_eq!(node.status().calls_today, 2);
    node.stop().await;
}

#[tokio::test]
#[ignore = "waits for real time"]
async fn a_storm_of_deletes_does_not_starve_the_renewals() {
    let options = Options { lifetime_s: 4, overlap_ms: Some(2_000), ..Options::default() };
    let sandbox = sandbox(options).await;
    let node = Node::of(&sandbox, App { daily_quota: Some(40), ..classic() });
    node.live().await;
    while node.status().calls_denied == 0 {
        // Each report is right, so each verification makes a new token.
        sandbox.kill_tokens("wx1");
        node.report(None).await;
    }
    let minted = sandbox.calls("wx1").minted;
    assert!(minted <= 40 / 2, "{minted}");
    let generation = node.status().generation;
    until("renewals by the schedule", || node.status().generation >= generation + 2).await;
    assert!(node.status().calls_denied > 0 && calls_of_a_day(&sandbox) <= 40);
    node.stop().await;
}

/// Only the counts have changed, so only the end of the process writes them.
#[tokio::test]
async fn calls_that_brought_nothing_are_in_the_state_at_an_orderly_end() {
    let folder = tempfile::tempdir().unwrap();
    let sandbox = sandbox(Options::default()).await;
    sandbox.set_fault("wx1", InjectedFault::new(FaultKind::Errcode { errcode: 40013, errmsg: "invalid appid".into() }));
    let node = Node::start(&upstream(&sandbox.base_url()), &[stable()], Some(file(folder.path())));
    until("a refusal", || node.status().failures > 0).await;
    let calls = node.status().calls_today;
    node.stop().await;
    assert_eq!((calls, calls_kept(folder.path())), (1, 1));
}

#[test]
fn a_process_knows_its_calls_of_today_after_an_orderly_end_and_after_a_kill() {
    let wechat = Wechat::start();
    let config = wechat.config("", "endpoint = \"token\"\ndaily_quota = 12");
    let figure = |node: &support::Node, name: &str| node.connect().stat("tokens", &format!("{APPID}:{name}"));
    let mut node = support::Node::start(&config, &[]);
    for end in [support::Node::stop, support::Node::kill] {
        wait_for("a value", || node.connect().get(&format!("access_token:{APPID}")));
        wait_for("the call in the state", || (calls_kept(node.folder.path()) == 1).then_some(()));
        for (name, value) in [("calls_today", "1"), ("calls_quota", "12"), ("calls_denied", "0")] {
            assert_eq!(figure(&node, name).as_deref(), Some(value), "{name}");
        }
        node = support::Node::start_in(end(node), &config, &[]);
        assert_eq!((figure(&node, "calls_today"), figure(&node, "calls")), (Some("1".into()), Some("0".into())));
    }
}

#[test]
fn the_days_calls_for_a_ticket_are_a_setting_of_their_own() {
    let wechat = Wechat::start();
    let config = wechat.config("", "tickets = [\"jsapi\"]\ndaily_quota = 12\ndaily_ticket_quota = 700");
    let node = support::Node::start(&config, &[]);
    wait_for("the ticket", || node.connect().get(&format!("jsapi_ticket:{APPID}")));
    let quota = |id: &str| node.connect().stat("tokens", &format!("{id}:calls_quota"));
    assert_eq!(quota(APPID).as_deref(), Some("12"));
    assert_eq!(quota(&format!("jsapi_ticket:{APPID}")).as_deref(), Some("700"));
}

/// What `check` says of an app with these settings.
fn check(app: &str) -> (std::process::ExitStatus, String) {
    let folder = tempfile::tempdir().unwrap();
    let config = support::config("https://api.weixin.qq.com", "", app).replace("{folder}", "/nonexistent");
    run(tokencached().args(["check", "--print", "--config"]).arg(write(folder.path(), "c.toml", &config)))
}

#[test]
fn a_daily_quota_is_a_number_of_calls_and_none_is_no_such_number() {
    let (status, said) = check("daily_quota = 200");
    assert!(status.success() && said.contains("\ndaily_quota = 200\n"), "{said}");
    for wrong in ["0", "-1", "true", "\"many\"", "1000000001"] {
        let (status, said) = check(&format!("daily_quota = {wrong}"));
        assert!(!status.success() && said.contains("daily_quota: "), "{wrong}: {said}");
    }
}

#[test]
fn fallback_probes_and_forced_refreshes_are_settings_where_they_mean_something() {
    let all = "endpoint = \"token\"\nfallback = \"stable_token\"\nprobe_every_s = 300\nforced_per_day = 3";
    let (status, said) = check(all);
    assert!(status.success(), "{said}");
    for line in all.lines() {
        assert!(said.contains(&format!("\n{line}\n")), "{line}: {said}");
    }
    for (key, wrong) in [
        ("fallback", "fallback = \"token\""),
        ("fallback", "endpoint = \"token\"\nfallback = \"token\""),
        ("fallback", "fallback = true"),
        ("probe_every_s", "probe_every_s = 9"),
        ("probe_every_s", "platform = \"qq\"\nprobe_every_s = 300"),
        ("forced_per_day", "forced_per_day = 21"),
        ("forced_per_day", "platform = \"wecom\"\nforced_per_day = 1"),
    ] {
        let (status, said) = check(wrong);
        assert!(!status.success() && said.contains(&format!("{key}: ")), "{wrong}: {said}");
    }
}

#[tokio::test]
async fn a_call_that_never_left_is_not_counted() {
    let address = support::free_address();
    let app = App { daily_quota: Some(PER_DAY), ..classic() };
    let node = Node::start(&upstream(&format!("http://{address}")), &[app], None);
    until("failures", || node.status().failures >= 3 && node.status().calls_today == 0).await;
    assert_eq!((node.status().calls_denied, node.status().calls_quota), (0, Some(PER_DAY)));
    node.stop().await;
}
