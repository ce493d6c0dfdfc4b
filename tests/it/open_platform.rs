//! The open platform: a component with its pushed verify ticket, and the accounts that have authorised it. Above all:
//! no refresh token is ever lost, however the process ends and whatever the configuration says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail the test")]

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use tempfile::TempDir;
use tokencached::credential::App;
use tokencached::credential::state::{FileStore, LoadedState, Snapshot, StateStore};
use tokencached::credential::table::Table;
use tokencached::credential::verify_ticket::{TicketFault, parse};
use tokencached::platform::component::{AUTHORIZER, AUTHORIZERS, COMPONENT as COMPONENT_KIND, PLATFORM};
use tokencached::sandbox::{AppOptions, Endpoint, Options, Sandbox, SandboxPlatform, Verdict};
use tokencached::secret::Secret;
use tokencached::secret_source::SecretSource;
use tokio_util::sync::CancellationToken;

use crate::refresher::{build, token, until, upstream};
use crate::support::{Client, Node, Wechat, memory_folder, program, run, run_checked, tokencached, wait_for, write};

pub const COMPONENT: &str = "wxc000000000000001";
pub const AUTH: &str = "wxa000000000000001";
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// The refresh token from the merchant's authorisation.
pub const FIRST: &str = "refreshtoken@@@FIRST-0123456789abcdefghijklmnopqrstuvwxyz";

pub fn options(lifetime_s: u64) -> Options {
    let component = AppOptions {
        appid: COMPONENT.into(),
        secret: SECRET.into(),
        platform: SandboxPlatform::Component,
        ..AppOptions::default()
    };
    let authorizer = AppOptions {
        appid: AUTH.into(),
        authorizer_of: Some(COMPONENT.into()),
        refresh_token: FIRST.into(),
        ..AppOptions::default()
    };
    // A token is renewed at half its lifetime, so one that was just read works.
    let overlap_ms = Some(lifetime_s * 500);
    Options {
        apps: vec![component, authorizer],
        lifetime_s,
        overlap_ms,
        rotate_refresh_tokens: true,
        ..Options::default()
    }
}

/// A folder with the operator's files: the ticket of the last push, and the refresh token.
pub fn folder(wechat: &Sandbox) -> TempDir {
    let folder = memory_folder();
    write(folder.path(), "ticket", &wechat.push_verify_ticket(COMPONENT));
    write(folder.path(), "refresh", FIRST);
    folder
}

fn config(wechat: &Wechat, authorizer: &str) -> String {
    let component = format!(
        "[upstream]\nbase_url = \"{}\"\n[state]\npath = \"{{folder}}/state.json\"\n[[app]]\nplatform = \"component\"\n\
         appid = \"{COMPONENT}\"\nsecret = \"{SECRET}\"\nverify_ticket_file = \"ticket\"\n",
        wechat.base_url()
    );
    component + authorizer
}

fn authorizer() -> String {
    format!("[[app.authorizer]]\nappid = \"{AUTH}\"\nrefresh_token_file = \"refresh\"\n")
}

pub fn start(wechat: &Wechat, folder: TempDir) -> Node {
    Node::start_in(folder, &config(wechat, &authorizer()), &[])
}

pub fn component_key() -> String {
    format!("component_access_token:{COMPONENT}")
}

pub fn key() -> String {
    format!("access_token:{AUTH}")
}

pub fn value(client: &mut Client, key: &str) -> String {
    String::from_utf8(wait_for(key, || client.get(key))).unwrap()
}

/// Another value than this one.
pub fn other(client: &mut Client, key: &str, than: &str) -> String {
    let new = wait_for(&format!("another {key}"), || client.get(key).filter(|now| now != than.as_bytes()));
    String::from_utf8(new).unwrap()
}

pub fn stat(client: &mut Client, name: &str) -> String {
    client.stat("tokens", name).unwrap_or_default()
}

/// Makes the account's token invalid and reports it: the next value is fetched at once.
fn renew(wechat: &Wechat, client: &mut Client) -> String {
    let old = value(client, &key());
    wechat.kill_tokens(AUTH);
    client.expect(format!("delete {}\r\n", key()), "DELETED\r\n");
    other(client, &key(), &old)
}

/// Calls for the account's token that WeChat refused because of the refresh token.
pub fn refused(wechat: &Wechat) -> u64 {
    wechat.calls(AUTH).ended(Endpoint::AuthorizerToken, "errcode 61023")
}

/// The refresh token in the state file.
fn kept(folder: &Path) -> String {
    match FileStore::new(folder.join("state.json")).load() {
        LoadedState::Found(snapshot) => kept_in(&snapshot).unwrap_or_default(),
        other => panic!("{other:?}"),
    }
}

fn kept_in(snapshot: &Snapshot) -> Option<String> {
    snapshot.grants.iter().find(|kept| kept.name.authorizer == AUTH).map(|kept| kept.value.clone())
}

#[test]
#[ignore = "waits for real time"]
fn both_tokens_are_kept_current_over_renewals_while_every_refresh_token_works_but_once() {
    let wechat = Wechat::with(options(6));
    let node = start(&wechat, folder(&wechat));
    let mut client = node.connect();
    for key in [component_key(), key()] {
        let mut now = value(&mut client, &key);
        for _ in 0..3 {
            assert_eq!(wechat.judge(&now), Verdict::Accepted, "{key}");
            now = other(&mut client, &key, &now);
        }
    }
    assert_eq!(client.get(&format!("authorizer_access_token:{AUTH}")), client.get(&key()));
    assert_eq!(refused(&wechat), 0);
    let calls = wechat.calls(AUTH);
    assert_eq!(calls.of(Endpoint::AuthorizerToken), calls.minted);
}

#[test]
#[ignore = "waits for real time"]
fn a_ticket_that_comes_late_is_used_within_seconds_and_until_then_the_state_says_what_is_missing() {
    let wechat = Wechat::with(options(7200));
    let folder = folder(&wechat);
    std::fs::remove_file(folder.path().join("ticket")).unwrap();
    let node = start(&wechat, folder);
    let mut client = node.connect();
    let state = format!("{COMPONENT}:state");
    wait_for("a state", || (stat(&mut client, &state) == "blocked").then_some(()));
    let error = client.ask("stats tokens\r\n");
    let error = String::from_utf8(error).unwrap();
    assert!(error.contains("component_verify_ticket") && error.contains("every 10 minutes"), "{error}");
    assert_eq!((client.get(&component_key()), wechat.calls(COMPONENT).total()), (None, 0));
    // Its authorizer has no fault of its own.
    let mut of_authorizer = |name: &str| client.stat("tokens", &format!("{AUTH}:{name}"));
    let waits =
        [of_authorizer("state"), of_authorizer("waits_for"), of_authorizer("failures"), of_authorizer("last_error")];
    assert_eq!(waits.map(Option::unwrap_or_default), ["waiting", COMPONENT, "0", ""]);
    write(node.folder.path(), "ticket", &format!("{}\n", wechat.push_verify_ticket(COMPONENT)));
    value(&mut client, &component_key());
    value(&mut client, &key());
}

#[test]
#[ignore = "waits for real time"]
fn garbage_in_the_ticket_file_is_never_used_and_the_last_good_ticket_is() {
    let wechat = Wechat::with(options(4));
    let node = start(&wechat, folder(&wechat));
    let mut client = node.connect();
    let mut now = value(&mut client, &component_key());
    for garbage in
        ["", "\n", "ticket@@@", "<xml><ComponentVerifyTicket>ticket@@@abcdefghijkl", "a b\0c", "<html></html>"]
    {
        write(node.folder.path(), "ticket", garbage);
        now = other(&mut client, &component_key(), &now);
    }
    std::fs::remove_file(node.path("ticket")).unwrap();
    now = other(&mut client, &component_key(), &now);
    let calls = wechat.calls(COMPONENT);
    assert_eq!(calls.ended(Endpoint::ComponentToken, "ok"), calls.of(Endpoint::ComponentToken), "{calls:?}");
    wait_for("a word about it", || node.log().contains("the last good content is kept").then_some(()));
    // The message of a push is accepted like the bare ticket.
    wechat.expire_verify_tickets(COMPONENT);
    let ticket = wechat.push_verify_ticket(COMPONENT);
    let xml = format!("<xml><ComponentVerifyTicket><![CDATA[{ticket}]]></ComponentVerifyTicket></xml>");
    write(node.folder.path(), "ticket", &xml);
    other(&mut client, &component_key(), &now);
}

#[test]
#[ignore = "waits for real time"]
fn another_components_message_and_wrapped_texts_never_take_the_last_good_tickets_place() {
    let wechat = Wechat::with(options(4));
    let node = start(&wechat, folder(&wechat));
    let mut client = node.connect();
    let mut now = value(&mut client, &component_key());
    for wrong in [
        "<xml><AppId>wxc000000000000002</AppId><ComponentVerifyTicket>ticket@@@0123456789abcdef</ComponentVerifyTicket></xml>",
        "{\"AppId\":\"wxc000000000000002\",\"ComponentVerifyTicket\":\"ticket@@@0123456789abcdef\"}",
        "<?php\nreturn $ticket='ticket@@@0123456789abcdef';",
        "ticket:ticket@@@0123456789abcdef",
        "<xml><AppId>wxc000000000000001</AppId><Encrypt>0123456789abcdef</Encrypt></xml>",
    ] {
        write(node.folder.path(), "ticket", wrong);
        now = other(&mut client, &component_key(), &now);
    }
    let calls = wechat.calls(COMPONENT);
    assert_eq!(calls.ended(Endpoint::ComponentToken, "ok"), calls.of(Endpoint::ComponentToken), "{calls:?}");
    node.await_log("it is of component wxc000000000000002, and this is wxc000000000000001");
    node.await_log("decrypt");
    // What other programs write around a ticket is removed.
    wechat.expire_verify_tickets(COMPONENT);
    let ticket = wechat.push_verify_ticket(COMPONENT);
    let json = format!("{{\"AppId\":\"{COMPONENT}\",\"ComponentVerifyTicket\":\"{ticket}\"}}\n");
    write(node.folder.path(), "ticket", &json);
    now = other(&mut client, &component_key(), &now);
    wechat.expire_verify_tickets(COMPONENT);
    let ticket = wechat.push_verify_ticket(COMPONENT);
    let php = format!("<?php\n//000000006000\n exit();?>\ns:{}:\"{ticket}\";", ticket.len());
    write(node.folder.path(), "ticket", &php);
    other(&mut client, &component_key(), &now);
}

/// Files as PHP itself and the caches of WeChat's PHP SDKs write them.
#[test]
#[ignore = "needs php"]
fn a_ticket_is_found_in_the_files_that_php_writes() {
    const TICKET: &str = "ticket@@@0123456789abcdef-_ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/php/ticket_files.php");
    let said = run_checked(program("php").arg(script).arg(folder.path()).args([TICKET, COMPONENT]));
    let names: Vec<&str> = said.lines().collect();
    assert_eq!((names.len(), names.last()), (9, Some(&"ok")), "{said}");
    for name in &names[..8] {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        let taken = parse(COMPONENT, &text).map(|ticket| ticket.expose().to_owned());
        assert_eq!(taken.as_deref(), Ok(TICKET), "{name}: {text}");
    }
}

#[test]
#[ignore = "waits for real time"]
fn a_ticket_that_has_expired_is_waited_out_and_the_next_push_is_tried_at_once() {
    let wechat = Wechat::with(options(4));
    let node = start(&wechat, folder(&wechat));
    let mut client = node.connect();
    value(&mut client, &component_key());
    wechat.expire_verify_tickets(COMPONENT);
    let state = format!("{COMPONENT}:state");
    wait_for("a refusal", || (stat(&mut client, &state) == "waiting").then_some(()));
    wait_for("the end of the token", || client.get(&component_key()).is_none().then_some(()));
    assert_eq!(wechat.calls(COMPONENT).ended(Endpoint::ComponentToken, "errcode 61005"), 1, "no use asking again");
    write(node.folder.path(), "ticket", &wechat.push_verify_ticket(COMPONENT));
    value(&mut client, &component_key());
    value(&mut client, &key());
}

#[test]
#[ignore = "waits for real time"]
fn a_restart_needs_neither_the_ticket_file_nor_the_first_refresh_token() {
    let wechat = Wechat::with(options(4));
    let node = start(&wechat, folder(&wechat));
    let mut client = node.connect();
    let mut now = value(&mut client, &key());
    for _ in 0..2 {
        now = other(&mut client, &key(), &now);
    }
    let folder = node.stop();
    assert_eq!(kept(folder.path()), wechat.refresh_token(AUTH));
    assert_ne!(kept(folder.path()), FIRST, "the configured one is long over");
    std::fs::remove_file(folder.path().join("ticket")).unwrap();
    let node = start(&wechat, folder);
    let mut client = node.connect();
    other(&mut client, &key(), &now);
    let component = value(&mut client, &component_key());
    other(&mut client, &component_key(), &component);
    assert_eq!(refused(&wechat), 0);
}

#[test]
fn killed_as_soon_as_a_new_token_is_seen_the_new_refresh_token_is_on_the_disk() {
    let wechat = Wechat::with(options(7200));
    let mut folder = folder(&wechat);
    for round in 0..8 {
        let node = start(&wechat, folder);
        renew(&wechat, &mut node.connect());
        folder = node.kill();
        assert_eq!(kept(folder.path()), wechat.refresh_token(AUTH), "round {round}");
    }
    assert_eq!(refused(&wechat), 0);
}

/// A new refresh token can only be lost between its making and its arrival, never otherwise.
#[test]
fn killed_at_any_instant_of_a_renewal_the_state_is_whole_and_at_most_the_answer_under_way_is_lost() {
    let wechat = Wechat::with(options(7200));
    let mut folder = folder(&wechat);
    let mut before = FIRST.to_owned();
    for round in 0..16 {
        let node = start(&wechat, folder);
        let mut client = node.connect();
        value(&mut client, &key());
        wait_for("the disk", || (kept(node.folder.path()) == wechat.refresh_token(AUTH)).then_some(()));
        before.clone_from(&wechat.refresh_token(AUTH));
        wechat.kill_tokens(AUTH);
        wait_for("a rotation", || {
            // Again and again: a report during a renewal of the start is answered by that.
            client.send(format!("delete {}\r\n", key()));
            (wechat.refresh_token(AUTH) != before).then_some(())
        });
        // At once, and up to some milliseconds later.
        std::thread::park_timeout(std::time::Duration::from_micros(500 * round));
        folder = node.kill();
        let (kept, now) = (kept(folder.path()), wechat.refresh_token(AUTH));
        assert!(kept == now || kept == before, "round {round}");
        if kept != now {
            write(folder.path(), "refresh", &wechat.authorise(AUTH));
        }
    }
}

/// A store that records for each refresh token which access token was published when it was first written.
struct Witness {
    inner: FileStore,
    table: OnceLock<Arc<Table>>,
    seen: Mutex<Vec<(String, Option<String>)>>,
}

impl StateStore for Witness {
    fn load(&self) -> LoadedState {
        self.inner.load()
    }

    fn save(&self, snapshot: &Snapshot) -> io::Result<()> {
        self.inner.save(snapshot)?;
        let published = self.table.get().and_then(|table| token(&table.credentials()[1]));
        let mut seen = self.seen.lock().unwrap();
        if let Some(refresh) = kept_in(snapshot)
            && seen.iter().all(|(known, _)| *known != refresh)
        {
            seen.push((refresh, published));
        }
        Ok(())
    }
}

fn app(appid: &str, secret: &str, kind: &'static tokencached::platform::CredentialType) -> App {
    App { platform: &PLATFORM, ..App::mp(appid, SecretSource::Fixed(Secret::new(secret.to_owned())), kind) }
}

fn apps() -> Vec<App> {
    let account = App { platform: &AUTHORIZERS, component: Some(COMPONENT.into()), ..app(AUTH, FIRST, &AUTHORIZER) };
    vec![app(COMPONENT, SECRET, &COMPONENT_KIND), account]
}

#[tokio::test]
#[ignore = "waits for real time"]
async fn a_new_refresh_token_is_written_before_its_access_token_is_published() {
    let sandbox = Sandbox::start(options(4)).await.unwrap();
    let folder = memory_folder();
    let inner = FileStore::new(folder.path().join("state.json"));
    let witness = Arc::new(Witness { inner, table: OnceLock::new(), seen: Mutex::default() });
    let (table, refresher) = build(&upstream(&sandbox.base_url()), &apps(), Some(witness.clone()));
    assert!(witness.table.set(table.clone()).is_ok());
    let stop = CancellationToken::new();
    let running = tokio::spawn(refresher.run(stop.clone()));
    table.hand_in_verify_ticket(COMPONENT, &sandbox.push_verify_ticket(COMPONENT)).unwrap();
    let mut tokens: Vec<String> = Vec::new();
    until("four tokens", || {
        tokens.extend(token(&table.credentials()[1]).filter(|now| tokens.last() != Some(now)));
        tokens.len() >= 4
    })
    .await;
    stop.cancel();
    running.await.unwrap();
    let seen = witness.seen.lock().unwrap();
    // The n-th refresh token came with the n-th token: at that time the one before it was published.
    for (n, (_, published)) in seen.iter().take(4).enumerate() {
        assert_eq!(published.as_ref(), n.checked_sub(1).map(|before| &tokens[before]), "{n}");
    }
    assert!(seen.len() >= 4);
}

/// A disk that is full.
struct Full(AtomicBool, FileStore);

impl StateStore for Full {
    fn load(&self) -> LoadedState {
        self.1.load()
    }

    fn save(&self, snapshot: &Snapshot) -> io::Result<()> {
        if self.0.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { self.1.save(snapshot) }
    }
}

#[tokio::test]
#[ignore = "waits for real time"]
async fn a_full_disk_does_not_keep_the_token_from_its_readers_and_is_caught_up_with() {
    let sandbox = Sandbox::start(options(7200)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Full(AtomicBool::new(true), FileStore::new(folder.path().join("state.json"))));
    let (table, refresher) = build(&upstream(&sandbox.base_url()), &apps(), Some(store.clone()));
    let stop = CancellationToken::new();
    let running = tokio::spawn(refresher.run(stop.clone()));
    table.hand_in_verify_ticket(COMPONENT, &sandbox.push_verify_ticket(COMPONENT)).unwrap();
    until("the account's token", || token(&table.credentials()[1]).is_some()).await;
    assert!(!folder.path().join("state.json").exists());
    store.0.store(false, Ordering::SeqCst);
    until("a good write", || folder.path().join("state.json").exists()).await;
    assert_eq!(kept(folder.path()), sandbox.refresh_token(AUTH));
    stop.cancel();
    running.await.unwrap();
}

#[test]
#[ignore = "waits for real time"]
fn a_second_server_on_the_state_of_authorizers_does_not_start_and_no_refresh_token_is_lost() {
    let wechat = Wechat::with(options(7200));
    let node = start(&wechat, folder(&wechat));
    value(&mut node.connect(), &key());
    let config = node.path("tokencached.toml");
    let (status, said) = run(tokencached().args(["-p", "-1", "--config"]).arg(config));
    assert_eq!(status.code(), Some(69), "{said}");
    assert!(said.contains(&format!("in use by process {}", node.pid())), "{said}");
    let folder = node.stop();
    assert_eq!(kept(folder.path()), wechat.refresh_token(AUTH));
}

#[tokio::test]
async fn a_ticket_can_be_handed_in_by_a_call() {
    let sandbox = Sandbox::start(options(7200)).await.unwrap();
    let (table, refresher) = build(&upstream(&sandbox.base_url()), &apps(), None);
    let stop = CancellationToken::new();
    let running = tokio::spawn(refresher.run(stop.clone()));
    let hand_in = |component: &str, ticket: &str| table.hand_in_verify_ticket(component, ticket);
    assert_eq!(hand_in(AUTH, "ticket@@@0123456789abcdef"), Err(TicketFault::UnknownComponent));
    assert_eq!(hand_in(COMPONENT, " "), Err(TicketFault::Empty));
    assert_eq!(hand_in(COMPONENT, "ticket@@@0123456789 abcdef"), Err(TicketFault::Characters));
    // A wrong one is refused by WeChat and waits; the right one is used at once.
    assert_eq!(hand_in(COMPONENT, "ticket@@@0123456789abcdef"), Ok(()));
    until("a refusal", || sandbox.calls(COMPONENT).ended(Endpoint::ComponentToken, "errcode 61006") == 1).await;
    assert_eq!(hand_in(COMPONENT, &sandbox.push_verify_ticket(COMPONENT)), Ok(()));
    until("both tokens", || table.credentials().iter().all(|credential| token(credential).is_some())).await;
    stop.cancel();
    running.await.unwrap();
}

#[test]
fn a_new_refresh_token_in_the_configuration_wins_over_the_kept_one() {
    let wechat = Wechat::with(options(7200));
    let node = start(&wechat, folder(&wechat));
    renew(&wechat, &mut node.connect());
    let folder = node.stop();
    // The merchant has authorised again, which ended the kept one.
    write(folder.path(), "refresh", &wechat.authorise(AUTH));
    let node = start(&wechat, folder);
    renew(&wechat, &mut node.connect());
    renew_after_restart(&wechat, node);
    assert_eq!(refused(&wechat), 0);
}

/// The configured one is taken in once; after that the newer one is used.
fn renew_after_restart(wechat: &Wechat, node: Node) {
    let node = start(wechat, node.stop());
    renew(wechat, &mut node.connect());
}

#[test]
fn a_wrong_refresh_token_in_the_configuration_costs_one_call_and_the_kept_one_works_on() {
    let wechat = Wechat::with(options(7200));
    let node = start(&wechat, folder(&wechat));
    renew(&wechat, &mut node.connect());
    let folder = node.stop();
    write(folder.path(), "refresh", "refreshtoken@@@of-another-account-altogether");
    let node = start(&wechat, folder);
    renew(&wechat, &mut node.connect());
    node.await_log("refuses the configured refresh token");
    renew_after_restart(&wechat, node);
    assert_eq!(refused(&wechat), 1);
}

#[test]
#[ignore = "waits for real time"]
fn when_no_refresh_token_works_the_operator_is_told_and_a_new_file_is_tried_within_seconds() {
    let wechat = Wechat::with(options(7200));
    let node = start(&wechat, folder(&wechat));
    let mut client = node.connect();
    let old = renew(&wechat, &mut client);
    wechat.withdraw(AUTH);
    let node = {
        let folder = node.stop();
        start(&wechat, folder)
    };
    let mut client = node.connect();
    wechat.kill_tokens(AUTH);
    client.send(format!("delete {}\r\n", key()));
    let state = format!("{AUTH}:state");
    wait_for("a state", || (stat(&mut node.connect(), &state) == "blocked").then_some(()));
    let said = String::from_utf8(node.connect().ask("stats tokens\r\n")).unwrap();
    assert!(said.contains("ask the merchant to authorise again"), "{said}");
    assert_eq!(refused(&wechat), 2, "the kept one and the configured one, once each");
    write(node.folder.path(), "refresh", &wechat.authorise(AUTH));
    other(&mut node.connect(), &key(), &old);
}

#[test]
fn an_authorizer_taken_out_and_put_back_keeps_its_refresh_token() {
    let wechat = Wechat::with(options(7200));
    let node = start(&wechat, folder(&wechat));
    renew(&wechat, &mut node.connect());
    let folder = node.stop();
    let without = Node::start_in(folder, &config(&wechat, ""), &[]);
    let mut client = without.connect();
    let component = value(&mut client, &component_key());
    wechat.kill_tokens(COMPONENT);
    client.expect(format!("delete {}\r\n", component_key()), "DELETED\r\n");
    other(&mut client, &component_key(), &component);
    assert_eq!(client.get(&key()), None);
    let folder = without.stop();
    assert_eq!(kept(folder.path()), wechat.refresh_token(AUTH));
    let node = start(&wechat, folder);
    assert_eq!(wechat.judge(&value(&mut node.connect(), &key())), Verdict::Accepted);
    assert_eq!(refused(&wechat), 0);
}

#[test]
fn a_component_token_that_has_died_is_renewed_for_its_authorizers_sake() {
    let wechat = Wechat::with(options(7200));
    let node = start(&wechat, folder(&wechat));
    let mut client = node.connect();
    value(&mut client, &key());
    let component = value(&mut client, &component_key());
    wechat.kill_tokens(COMPONENT);
    renew(&wechat, &mut client);
    assert_ne!(value(&mut client, &component_key()), component);
    assert_eq!(refused(&wechat), 0);
}

#[test]
fn tickets_and_aliases_of_an_authorizer_are_those_of_any_account() {
    let wechat = Wechat::with(options(7200));
    let mut config = config(&wechat, "presets = [\"wechatpy\", \"easywechat6-laravel\"]\naliases = [\"platform\"]\n");
    config += &authorizer();
    config += "tickets = [\"jsapi\", \"wx_card\"]\naliases = [\"{appid}_mine\"]\npresets = [\"wechatpy\"]\n";
    let node = Node::start_in(folder(&wechat), &config, &[]);
    let mut client = node.connect();
    let jsapi = value(&mut client, &format!("jsapi_ticket:{AUTH}"));
    let card = value(&mut client, &format!("wx_card_ticket:{AUTH}"));
    assert!(jsapi != card);
    assert_eq!(wechat.calls(AUTH).of(Endpoint::Ticket), 2);
    let token = value(&mut client, &key());
    assert_eq!(value(&mut client, &format!("{AUTH}_mine")), token);
    assert_eq!(value(&mut client, &format!("wechatpy:{AUTH}_access_token")), format!("\"{token}\""));
    let component = value(&mut client, &component_key());
    assert_eq!(value(&mut client, "platform"), component);
    assert_eq!(value(&mut client, &format!("open_platform.component_access_token.{COMPONENT}")), component);
    let of_wechatpy = value(&mut client, &format!("wechatpy:{COMPONENT}_component_access_token"));
    assert_eq!(of_wechatpy, format!("\"{component}\""));
    client.expect(format!("set {} 0 0 1\r\nx\r\n", key()), "NOT_STORED\r\n");
}

#[test]
#[ignore = "waits for real time"]
fn nothing_secret_is_in_logs_and_statistics() {
    let wechat = Wechat::with(options(4));
    let node = Node::start_in(folder(&wechat), &config(&wechat, &authorizer()), &["-vvv"]);
    let mut client = node.connect();
    let mut secrets = vec![SECRET.to_owned(), FIRST.to_owned(), value(&mut client, &component_key())];
    secrets.extend([value(&mut client, &key()), wechat.refresh_token(AUTH)]);
    // With every errcode.
    let state = |appid: &str, client: &mut Client, state: &str| {
        let name = format!("{appid}:state");
        wait_for(state, || (stat(client, &name) == state).then_some(()));
    };
    wechat.withdraw(AUTH);
    state(AUTH, &mut client, "blocked");
    for text in ["refreshtoken@@@wrong-0123456789", &wechat.authorise(AUTH)] {
        write(node.folder.path(), "refresh", text);
        secrets.push(text.to_owned());
    }
    state(AUTH, &mut client, "fresh");
    wechat.expire_verify_tickets(COMPONENT);
    state(COMPONENT, &mut client, "waiting");
    let ticket = wechat.push_verify_ticket(COMPONENT);
    write(node.folder.path(), "ticket", &ticket);
    secrets.push(ticket);
    state(COMPONENT, &mut client, "fresh");
    secrets.extend([value(&mut client, &component_key()), value(&mut client, &key()), wechat.refresh_token(AUTH)]);
    let statistics =
        ["", "tokens", "settings"].map(|what| client.ask(format!("stats {what}\r\n").replace(" \r", "\r")));
    let said = node.log() + &String::from_utf8(statistics.concat()).unwrap();
    for secret in secrets {
        assert!(!said.contains(&secret) && !said.contains(&secret[..secret.len().min(24)]), "{secret}");
    }
    assert!(!said.contains("refreshtoken@@@") && !said.contains("ticket@@@"));
}

#[test]
fn the_example_of_the_documentation_is_accepted() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/en/configuration.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    let blocks = manual.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let example = blocks.into_iter().find(|block| block.contains("[[app.authorizer]]")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "component", SECRET);
    write(folder.path(), "wxfedcba9876543210.refresh", FIRST);
    let example = example.replace("/etc/tokencached/secrets", &folder.path().display().to_string());
    let file = write(folder.path(), "tokencached.toml", &example);
    let said = run_checked(tokencached().args(["check", "--print", "--config"]).arg(&file).env("HOME", folder.path()));
    assert!(said.contains("[[app.authorizer]]") && !said.contains(FIRST), "{said}");
}

#[test]
fn a_state_that_cannot_be_used_is_said_loudly_with_what_that_means() {
    let wechat = Wechat::with(options(7200));
    let folder = folder(&wechat);
    write(folder.path(), "state.json", "{");
    let node = start(&wechat, folder);
    value(&mut node.connect(), &key());
    node.await_log("authorise again");
    let log = node.log();
    assert!(log.contains("ERROR") && log.contains("refresh tokens") && log.contains("authorise again"), "{log}");
}
