//! SQL sinks with a real MariaDB, PostgreSQL and SQLite: readers find current rows, whatever happens to the database, and
//! nothing else is disturbed.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use tokencached::cli::Flags;
use tokencached::clock::{boot_ms, unix_ms};
use tokencached::config::load;
use tokencached::credential::table::{CredentialWriter, KeyConfig, Published, Table, TableConfig};
use tokencached::encoding::View;
use tokencached::sandbox::{AppOptions, FaultKind, InjectedFault, Options};
use tokencached::stats::Stats;
use tokencached::supervision::Supervisor;
use tokio_util::sync::CancellationToken;

use crate::support::sql::{DatabaseType, Server, Store, password_file};
use crate::support::{APPID, Client, Node, SECRET, Wechat, run, run_checked, tokencached, wait_for, write};

/// Another program's token, as long as one of WeChat's.
const FOREIGN: &str = "70_a-token-that-another-program-has-fetched-by-itself-0123456789";
/// A table as sites have it.
const TOKENS: &str = "CREATE TABLE tokens (app VARCHAR(64) PRIMARY KEY, token VARCHAR(600), ends BIGINT)";
const UPDATE: &str = "UPDATE tokens SET token = {value}, ends = {expires_at} WHERE app = {appid}";
const READ: &str = "SELECT token FROM tokens WHERE app = {appid}";

/// A sink with these statements; it checks its rows every second.
fn sink(store: &Store, lines: &str) -> String {
    format!("[[sink]]\n{}check_every_s = 1\n{lines}\n", store.lines())
}

/// One that updates the row of [`TOKENS`], and reads it.
fn update(store: &Store, lines: &str) -> String {
    sink(store, &format!("statement = \"{UPDATE}\"\nread = \"{READ}\"\n{lines}"))
}

fn start(wechat: &Wechat, app: &str, sink: &str) -> Node {
    Node::start(&wechat.config("", &format!("{app}\n{sink}")), &[])
}

/// [`TOKENS`] with an empty row of [`APPID`].
fn with_a_row(store: &Store) {
    store.ask(TOKENS);
    store.ask(&format!("INSERT INTO tokens VALUES ('{APPID}', '', 0)"));
}

fn row(store: &Store) -> String {
    store.ask(&format!("SELECT token FROM tokens WHERE app = '{APPID}'"))
}

fn token(client: &mut Client) -> Option<String> {
    client.get(&format!("access_token:{APPID}")).map(|token| String::from_utf8(token).unwrap())
}

/// Waits until the row holds what a memcached client reads.
#[track_caller]
fn wait_until_written(store: &Store, node: &Node) -> String {
    let mut client = node.connect();
    wait_for("the token in the row", || {
        let token = token(&mut client)?;
        (row(store) == token).then_some(token)
    })
}

fn figure(node: &Node, name: &str) -> String {
    node.connect().stat("", &format!("sink_0_{name}")).unwrap()
}

#[track_caller]
fn wait_for_error(node: &Node, class: &str) {
    wait_for(class, || (figure(node, "last_error") == class).then_some(()));
    assert!(token(&mut node.connect()).is_some(), "a sink's trouble never touches serving");
}

#[track_caller]
fn wait_for_good_news(node: &Node) {
    wait_for("good news", || (figure(node, "last_error") == "none").then_some(()));
}

/// No token and no password is in the log.
#[track_caller]
fn says_nothing_secret(node: &Node) {
    let log = node.log();
    let token = token(&mut node.connect()).unwrap_or_else(|| FOREIGN.to_owned());
    for secret in [token.as_str(), FOREIGN, SECRET, crate::support::sql::PASSWORD] {
        assert!(!log.contains(secret), "{log}");
    }
}

fn unix_s() -> i64 {
    unix_ms() / 1000
}

/// The same for each database: a module with a test for each function that takes a [`Store`].
macro_rules! on_each_database {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        mod mariadb {
            $(#[test] #[ignore = "needs mariadbd"] fn $name() { super::$name(super::Store::shared(super::DatabaseType::MariaDb)); })*
        }
        mod postgres {
            $(#[test] #[ignore = "needs postgres"] fn $name() { super::$name(super::Store::shared(super::DatabaseType::Postgres)); })*
        }
        mod sqlite {
            $(#[test] #[ignore = "needs sqlite3"] fn $name() { super::$name(super::Store::sqlite()); })*
        }
    };
}

on_each_database! {
    a_row_follows_each_renewal_with_its_times;
    a_row_that_is_there_already_is_no_failure;
    a_row_that_is_not_there_is_a_failure_that_says_so;
    an_insert_makes_the_row_that_is_not_there;
    an_upsert_of_the_databases_own_writes_every_kind;
    several_statements_are_run_all_or_none;
    whatever_the_value_is_it_is_a_parameter;
    a_value_that_is_too_long_for_its_column_is_never_cut;
    an_unknown_table_is_named_and_written_once_it_is_there;
    a_locked_row_holds_up_neither_the_other_rows_nor_readers;
    a_foreign_overwrite_is_noticed_mended_and_reported;
    a_dead_value_is_marked_as_over_and_never_deleted;
    a_value_of_another_program_is_not_marked;
    the_table_of_the_php_class_is_kept_with_its_times;
    check_live_judges_the_statements_and_writes_nothing;
}

fn a_row_follows_each_renewal_with_its_times(store: Store) {
    let wechat = Wechat::short_lived(6);
    with_a_row(&store);
    // The time is so far ahead that no reader fetches before the next rewrite.
    let node = start(&wechat, "", &update(&store, "rewrite_every_s = 10"));
    let first = wait_until_written(&store, &node);
    let ends: i64 = store.ask("SELECT ends FROM tokens").parse().unwrap();
    let now = unix_s();
    assert!((now + 3..=now + 31).contains(&ends), "{} s ahead", ends - now);
    wait_for("the next token", || (![String::new(), first.clone()].contains(&row(&store))).then_some(()));
    wait_until_written(&store, &node);
    assert_eq!(figure(&node, "last_error"), "none", "{}", node.log());
    assert_eq!((figure(&node, "connected").as_str(), figure(&node, "rival_writes").as_str()), ("1", "0"));
    says_nothing_secret(&node);
}

/// MySQL counts only rows that differ, unless it is told otherwise.
fn a_row_that_is_there_already_is_no_failure(store: Store) {
    let wechat = Wechat::start();
    with_a_row(&store);
    let lines = format!("statement = \"UPDATE tokens SET token = {{value}} WHERE app = {{appid}}\"\nread = \"{READ}\"");
    let config = wechat.config("", &sink(&store, &lines));
    let node = Node::start(&config, &[]);
    let token = wait_until_written(&store, &node);
    let node = Node::start_in(node.stop(), &config, &[]);
    wait_for("the second writing", || (figure(&node, "writes") == "1").then_some(()));
    assert_eq!(row(&store), token);
    assert_eq!(
        (figure(&node, "failures").as_str(), figure(&node, "rival_writes").as_str()),
        ("0", "0"),
        "{}",
        node.log()
    );
}

fn a_row_that_is_not_there_is_a_failure_that_says_so(store: Store) {
    let wechat = Wechat::start();
    store.ask(TOKENS);
    let node = start(&wechat, "", &update(&store, ""));
    wait_for_error(&node, "no_row");
    node.await_log("no row was changed");
    node.await_log("insert it once, or give insert or an upsert");
    store.ask(&format!("INSERT INTO tokens VALUES ('{APPID}', '', 0)"));
    wait_until_written(&store, &node);
    wait_for_good_news(&node);
    says_nothing_secret(&node);
}

fn an_insert_makes_the_row_that_is_not_there(store: Store) {
    let wechat = Wechat::short_lived(6);
    store.ask(TOKENS);
    let lines = "insert = \"INSERT INTO tokens VALUES ({appid}, {value}, {expires_at})\"\nrewrite_every_s = 10";
    let node = start(&wechat, "", &update(&store, lines));
    let first = wait_until_written(&store, &node);
    wait_for("the next token", || (row(&store) != first).then_some(()));
    assert_eq!(store.ask("SELECT COUNT(*) FROM tokens"), "1");
    assert_eq!(figure(&node, "failures"), "0", "{}", node.log());
}

fn an_upsert_of_the_databases_own_writes_every_kind(store: Store) {
    let wechat = Wechat::start();
    store.ask("CREATE TABLE kinds (app VARCHAR(64), kind VARCHAR(32), token VARCHAR(600), left_ms BIGINT, PRIMARY KEY (app, kind))");
    let upsert = match &store {
        Store::Sqlite(_) => "ON CONFLICT (app, kind) DO UPDATE SET token = excluded.token",
        store if store.server().unwrap().0.kind == DatabaseType::Postgres => {
            "ON CONFLICT (app, kind) DO UPDATE SET token = excluded.token"
        }
        _ => "ON DUPLICATE KEY UPDATE token = VALUES(token)",
    };
    let lines = format!(
        "statement = \"\"\"INSERT INTO kinds VALUES ({{appid}}, {{type}}, {{value}}, {{expires_in_ms}}) {upsert};\"\"\""
    );
    let node = start(&wechat, "tickets = [\"jsapi\"]", &sink(&store, &lines));
    let mut client = node.connect();
    for kind in ["access_token", "jsapi_ticket"] {
        let ask = format!("SELECT token FROM kinds WHERE app = '{APPID}' AND kind = '{kind}'");
        wait_for(kind, || {
            let value = client.get(&format!("{kind}:{APPID}"))?;
            (store.ask(&ask).as_bytes() == value).then_some(())
        });
    }
    let left_ms: u64 = store.ask("SELECT MIN(left_ms) FROM kinds").parse().unwrap();
    // A ticket's time is at least three of its polls ahead.
    assert!((1_500_000..=1_800_000).contains(&left_ms), "{left_ms}");
}

fn several_statements_are_run_all_or_none(store: Store) {
    let wechat = Wechat::start();
    with_a_row(&store);
    store.ask("CREATE TABLE log (app VARCHAR(64), token VARCHAR(600))");
    let lines = format!(
        "statement = [\"{UPDATE}\", \"UPDATE log SET token = {{value}} WHERE app = {{appid}}\"]\nread = \"{READ}\""
    );
    let node = start(&wechat, "", &sink(&store, &lines));
    wait_for_error(&node, "no_row");
    assert_eq!(row(&store), "", "half of it was written");
    store.ask(&format!("INSERT INTO log VALUES ('{APPID}', '')"));
    let token = wait_until_written(&store, &node);
    assert_eq!(store.ask("SELECT token FROM log"), token);
}

/// Sinks of this process, on a table of credentials that the test fills.
struct Sinks {
    runtime: tokio::runtime::Runtime,
    writers: Vec<CredentialWriter>,
    end: CancellationToken,
    running: tokio::task::JoinHandle<()>,
    stats: Stats,
}

impl Sinks {
    /// For apps of these ids.
    fn start(apps: impl Iterator<Item = String>, sink: &str) -> Sinks {
        let apps: Vec<String> = apps.collect();
        let lines: String =
            apps.iter().map(|app| format!("[[app]]\nappid = \"{app}\"\nsecret = \"{SECRET}\"\n")).collect();
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), "tokencached.toml", &format!("[state]\npath = \"none\"\n{lines}{sink}"));
        let nothing = BTreeMap::<String, String>::new();
        let config = load(Some(&file), &nothing, &Flags::default()).unwrap_or_else(|faults| panic!("{faults}")).config;
        let keys = |app| vec![KeyConfig { name: format!("access_token:{app}"), redacted_name: None, view: View::RAW }];
        let (table, writers, _requests) = Table::new(TableConfig::of(apps.iter().map(|app| (app, keys(app)))));
        let (end, stats) = (CancellationToken::new(), Stats::default());
        let sinks = tokencached::sink::build(&config.sinks, &table.into(), &stats);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let ended = end.clone();
        let running = runtime.spawn(async move {
            tokencached::sink::run(sinks, ended.clone(), &Supervisor::new(ended)).await;
        });
        Sinks { runtime, writers, end, running, stats }
    }

    fn publish(&self, at: usize, value: &str) {
        let expires_boot_ms = boot_ms() + 7_200_000;
        let value = Bytes::copy_from_slice(value.as_bytes());
        self.writers[at].publish(Published::to_the_end(value, 1, expires_boot_ms));
    }

    fn stop(self) {
        self.end.cancel();
        self.runtime.block_on(self.running).unwrap();
    }
}

/// Who controls a platform, a leader or a Redis may send anything.
fn whatever_the_value_is_it_is_a_parameter(store: Store) {
    with_a_row(&store);
    let sinks = Sinks::start(std::iter::once(APPID.to_owned()), &update(&store, ""));
    for hostile in [
        "'; DROP TABLE tokens; -- ",
        "\\'; DELETE FROM tokens; #",
        "\"); DROP TABLE tokens; /* ` $1 ? {value} :value @value %s 密",
        "' OR '1'='1",
    ] {
        sinks.publish(0, hostile);
        wait_for(hostile, || (row(&store) == hostile.trim_end_matches('\n')).then_some(()));
    }
    for no_text in ["a line\nbreak", "a\u{1b}[31mcolour", "a\0byte"] {
        let failures = || sinks.stats.sinks()[0].recent().failures.values().sum::<u64>();
        let before = failures();
        sinks.publish(0, no_text);
        wait_for("a refusal", || (failures() > before).then_some(()));
        assert_eq!(sinks.stats.sinks()[0].recent().last_error.as_ref().map(|error| error.class), Some("value"));
        assert_eq!(row(&store), "' OR '1'='1", "it is written nowhere");
    }
    assert_eq!(store.ask("SELECT COUNT(*) FROM tokens"), "1");
    sinks.stop();
}

fn a_value_that_is_too_long_for_its_column_is_never_cut(store: Store) {
    if matches!(store, Store::Sqlite(_)) {
        // It has no lengths.
        return;
    }
    let wechat = Wechat::start();
    store.ask("CREATE TABLE tokens (app VARCHAR(64), token VARCHAR(100), ends BIGINT)");
    store.ask(&format!("INSERT INTO tokens VALUES ('{APPID}', 'of old', 0)"));
    let node = start(&wechat, "", &update(&store, ""));
    wait_for_error(&node, "column");
    node.await_log("the column is too short for the value");
    assert_eq!(row(&store), "of old");
    says_nothing_secret(&node);
}

fn an_unknown_table_is_named_and_written_once_it_is_there(store: Store) {
    let wechat = Wechat::start();
    let node = start(&wechat, "", &update(&store, ""));
    let class = if matches!(store, Store::Sqlite(_)) { "syntax" } else { "table" };
    wait_for_error(&node, class);
    node.await_log("see that the table is");
    with_a_row(&store);
    wait_until_written(&store, &node);
    wait_for_good_news(&node);
}

/// Two apps with a row each.
fn with_two_rows(store: &Store) -> Wechat {
    let app = AppOptions { appid: "wxother".into(), secret: SECRET.into(), ..AppOptions::default() };
    let quarter_ms = Some(1500);
    let options = Options {
        lifetime_s: 6,
        overlap_ms: quarter_ms,
        stable_window_ms: quarter_ms,
        apps: vec![app],
        ..Options::default()
    };
    with_a_row(store);
    store.ask("INSERT INTO tokens VALUES ('wxother', '', 0)");
    Wechat::with(options)
}

fn a_locked_row_holds_up_neither_the_other_rows_nor_readers(store: Store) {
    let wechat = with_two_rows(&store);
    let other = format!("[[app]]\nappid = \"wxother\"\nsecret = \"{SECRET}\"\n");
    let lines = format!("{other}{}", update(&store, "timeout_ms = 1000\nrewrite_every_s = 10"));
    let node = start(&wechat, "", &lines);
    wait_until_written(&store, &node);
    let lock = store.hold(&format!("UPDATE tokens SET ends = 1 WHERE app = '{APPID}'"));
    wait_for_error(&node, "locked");
    if !matches!(store, Store::Sqlite(_)) {
        // There the whole file is locked.
        let ask = "SELECT token FROM tokens WHERE app = 'wxother'";
        let before = store.ask(ask);
        wait_for("the other row's next token", || (store.ask(ask) != before).then_some(()));
    }
    node.await_log("somebody holds a lock");
    assert_eq!(figure(&node, "connected"), "1");
    drop(lock);
    wait_until_written(&store, &node);
    wait_for_good_news(&node);
    says_nothing_secret(&node);
}

fn a_foreign_overwrite_is_noticed_mended_and_reported(store: Store) {
    let wechat = Wechat::start();
    store.ask(TOKENS);
    store.ask(&format!("INSERT INTO tokens VALUES ('{APPID}', '{FOREIGN}', 0)"));
    let node = start(&wechat, "", &update(&store, ""));
    wait_until_written(&store, &node);
    assert_eq!(figure(&node, "rival_writes"), "0", "what was there before may be long abandoned");
    store.ask(&format!("UPDATE tokens SET token = '{FOREIGN}'"));
    wait_for("a foreign writer", || (figure(&node, "rival_writes") == "1").then_some(()));
    wait_until_written(&store, &node);
    node.await_log("a foreign writer has replaced our token");
    says_nothing_secret(&node);
}

/// WeChat refuses a classic token, and gives no other.
fn kill_the_token(wechat: &Wechat, node: &Node) {
    wechat.set_fault(APPID, InjectedFault::new(FaultKind::Reset));
    wechat.kill_tokens(APPID);
    node.connect().expect(format!("delete access_token:{APPID}\r\n"), "DELETED\r\n");
}

fn a_dead_value_is_marked_as_over_and_never_deleted(store: Store) {
    let wechat = Wechat::start();
    with_a_row(&store);
    let node = start(&wechat, "endpoint = \"token\"", &update(&store, ""));
    let token = wait_until_written(&store, &node);
    let ends = || store.ask("SELECT ends FROM tokens").parse::<i64>().unwrap();
    assert!(ends() > unix_s() + 600);
    kill_the_token(&wechat, &node);
    wait_for("a time that is past", || (ends() <= unix_s()).then_some(()));
    assert_eq!(row(&store), token, "the value is kept");
}

fn a_value_of_another_program_is_not_marked(store: Store) {
    let wechat = Wechat::start();
    with_a_row(&store);
    let retract = "retract = \"UPDATE tokens SET ends = {expires_at} WHERE app = {appid} AND token = {value}\"";
    let lines = update(&store, retract).replace("check_every_s = 1", "check_every_s = 3600");
    let node = start(&wechat, "endpoint = \"token\"", &lines);
    wait_until_written(&store, &node);
    store.ask(&format!("UPDATE tokens SET token = '{FOREIGN}', ends = 4000000000"));
    kill_the_token(&wechat, &node);
    // Whatever the server does about it is done once the app's other row is expired.
    wait_for("the miss", || token(&mut node.connect()).is_none().then_some(()));
    assert_eq!(store.ask("SELECT token, ends FROM tokens").replace(['\t', '|'], " "), format!("{FOREIGN} 4000000000"));
}

fn the_table_of_the_php_class_is_kept_with_its_times(store: Store) {
    let wechat = Wechat::start();
    wx_token(&store, "site_wx_token");
    // A site that has never used the ticket has no row of it.
    store.ask("DELETE FROM site_wx_token WHERE type = 'jsapi_ticket'");
    let node = start(&wechat, "tickets = [\"jsapi\"]", &sink(&store, "presets = [\"wx_token\"]\nprefix = \"site_\""));
    let mut client = node.connect();
    for (kind, of) in [("access_token", "access_token"), ("jsapi_ticket", "jsapi_ticket")] {
        let ask = |what: &str| store.ask(&format!("SELECT {what} FROM site_wx_token WHERE type = '{kind}'"));
        wait_for(kind, || {
            let value = client.get(&format!("{of}:{APPID}"))?;
            (ask("value").as_bytes() == value).then_some(())
        });
        let fetched: i64 = ask("expire").parse().unwrap();
        let left = fetched + 3600 - unix_s();
        assert!((900..=7200).contains(&left), "the class would fetch in {left} s");
    }
    assert_eq!(store.ask("SELECT COUNT(*) FROM site_wx_token"), "2");
}

fn check_live_judges_the_statements_and_writes_nothing(store: Store) {
    let wechat = Wechat::start();
    with_a_row(&store);
    let folder = tempfile::tempdir().unwrap();
    let check = |sink: &str| {
        let config = wechat.config("", sink).replace("{folder}", &folder.path().display().to_string());
        let config = write(folder.path(), "tokencached.toml", &config);
        run(tokencached().args(["check", "--live", "--config"]).arg(config))
    };
    let (status, said) = check(&update(&store, ""));
    assert!(status.success() && said.contains("good"), "{said}");
    assert!(!said.contains(crate::support::sql::PASSWORD), "{said}");
    let (status, said) = check(&update(&store, "").replace("UPDATE tokens SET token", "UPDATE tokens SET nothing"));
    assert!(!status.success() && said.contains("no:"), "{said}");
    assert_eq!(row(&store), "");
}

/// The class's table, with the rows it is made with.
pub fn wx_token(store: &Store, table: &str) {
    store.ask(&format!(
        "CREATE TABLE {table} (id INT NOT NULL PRIMARY KEY, type VARCHAR(20) NOT NULL, expire VARCHAR(16) NOT NULL, \
         value VARCHAR(600) NOT NULL)"
    ));
    store.ask(&format!("INSERT INTO {table} VALUES (1, 'access_token', '', ''), (2, 'jsapi_ticket', '', '')"));
}

mod servers {
    use super::*;

    fn down_at_the_start_and_later(kind: DatabaseType) {
        let wechat = Wechat::start();
        let mut store = Store::own(kind);
        with_a_row(&store);
        store.own_server().kill();
        let node = start(&wechat, "", &update(&store, ""));
        wait_for_error(&node, "unreachable");
        assert_eq!(figure(&node, "connected"), "0");
        store.own_server().start_again();
        wait_until_written(&store, &node);
        wait_for_good_news(&node);
        store.own_server().kill();
        wait_for("the end to be noticed", || (figure(&node, "connected") == "0").then_some(()));
        assert!(token(&mut node.connect()).is_some());
        store.own_server().start_again();
        store.ask("UPDATE tokens SET token = ''");
        wait_until_written(&store, &node);
        node.await_log("sink recovered");
        says_nothing_secret(&node);
    }

    #[test]
    #[ignore = "needs mariadbd"]
    fn a_mariadb_that_is_down_at_the_start_and_later_is_written_when_it_comes() {
        down_at_the_start_and_later(DatabaseType::MariaDb);
    }

    #[test]
    #[ignore = "needs postgres"]
    fn a_postgres_that_is_down_at_the_start_and_later_is_written_when_it_comes() {
        down_at_the_start_and_later(DatabaseType::Postgres);
    }

    fn passwords(kind: DatabaseType) {
        let (wechat, store) = (Wechat::start(), Store::shared(kind));
        with_a_row(&store);
        let folder = tempfile::tempdir().unwrap();
        let file = password_file(folder.path(), "another-word");
        let inline = format!("password = \"{}\"", crate::support::sql::PASSWORD);
        let lines = update(&store, "").replace(&inline, &format!("password_file = \"{}\"", file.display()));
        let node = start(&wechat, "", &lines);
        wait_for_error(&node, "password");
        node.await_log("it refuses our user or password");
        password_file(folder.path(), crate::support::sql::PASSWORD);
        wait_until_written(&store, &node);
        assert!(!node.log().contains("another-word"), "{}", node.log());
        says_nothing_secret(&node);
    }

    #[test]
    #[ignore = "needs mariadbd"]
    fn a_password_of_mariadb_is_read_at_each_connection_and_never_said() {
        passwords(DatabaseType::MariaDb);
    }

    #[test]
    #[ignore = "needs postgres"]
    fn a_password_of_postgres_is_read_at_each_connection_and_never_said() {
        passwords(DatabaseType::Postgres);
    }

    fn lost_sessions(kind: DatabaseType) {
        let (wechat, mut store) = (Wechat::start(), Store::own(kind));
        with_a_row(&store);
        let node = start(&wechat, "", &update(&store, ""));
        wait_until_written(&store, &node);
        store.ask("UPDATE tokens SET token = ''");
        store.own_server().end_sessions();
        wait_until_written(&store, &node);
        wait_for_good_news(&node);
    }

    #[test]
    #[ignore = "needs mariadbd"]
    fn after_a_lost_session_of_mariadb_everything_is_written_again() {
        lost_sessions(DatabaseType::MariaDb);
    }

    #[test]
    #[ignore = "needs postgres"]
    fn after_a_lost_session_of_postgres_everything_is_written_again() {
        lost_sessions(DatabaseType::Postgres);
    }

    fn tls(kind: DatabaseType) {
        let wechat = Wechat::start();
        let server = Server::with_tls(kind);
        let name = server.database();
        let encrypted = match kind {
            DatabaseType::MariaDb => {
                server.ask("", "ALTER USER tokencached@'127.0.0.1' REQUIRE SSL");
                "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'tokencached'"
            }
            DatabaseType::Postgres => {
                "SELECT COUNT(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND usename = 'tokencached'"
            }
        };
        let store = Store::Own(server, name);
        with_a_row(&store);
        let folder = store.server().unwrap().0.folder().display().to_string();
        let with = |lines: &str, host: &str| update(&store, lines).replace("@127.0.0.1:", &format!("@{host}:"));
        // The certificate names the host.
        let node = start(&wechat, "", &with(&format!("ca_file = \"{folder}/ca.pem\""), "localhost"));
        wait_until_written(&store, &node);
        assert_eq!(store.ask(encrypted), "1");
        drop(node);
        // On the same machine by default: TLS, if the server has it.
        let node = start(&wechat, "", &with("", "127.0.0.1"));
        wait_until_written(&store, &node);
        drop(node);
        // No public authority vouches for this server, and the certificate does not name this host.
        for (lines, host) in
            [("tls = \"verify\"".to_owned(), "localhost"), (format!("ca_file = \"{folder}/ca.pem\""), "127.0.0.1")]
        {
            let node = start(&wechat, "", &with(&lines, host));
            wait_for_error(&node, "tls");
        }
    }

    #[test]
    #[ignore = "needs mariadbd"]
    fn tls_of_mariadb_is_verified_where_it_is_asked_for() {
        tls(DatabaseType::MariaDb);
    }

    #[test]
    #[ignore = "needs postgres"]
    fn tls_of_postgres_is_verified_where_it_is_asked_for() {
        tls(DatabaseType::Postgres);
    }

    /// Nothing goes in the clear to a server that has no TLS.
    #[test]
    #[ignore = "needs mariadbd"]
    fn without_tls_on_the_other_side_a_sink_that_wants_it_writes_nothing() {
        for kind in [DatabaseType::MariaDb, DatabaseType::Postgres] {
            let (wechat, store) = (Wechat::start(), Store::shared(kind));
            with_a_row(&store);
            let node = start(&wechat, "", &update(&store, "tls = \"encrypt\""));
            wait_for_error(&node, "tls");
            assert_eq!(row(&store), "");
        }
    }

    #[test]
    #[ignore = "needs mariadbd"]
    fn a_unix_socket_will_do() {
        for kind in [DatabaseType::MariaDb, DatabaseType::Postgres] {
            let (wechat, store) = (Wechat::start(), Store::shared(kind));
            with_a_row(&store);
            let folder = store.server().unwrap().0.folder().display().to_string();
            let socket = if kind == DatabaseType::MariaDb { format!("{folder}/mysqld.sock") } else { folder };
            let lines = update(&store, &format!("socket = \"{socket}\"")).replace("@127.0.0.1:", "@localhost:");
            let node = start(&wechat, "", &lines);
            wait_until_written(&store, &node);
        }
    }
}

/// Ten thousand apps, without fetches: their rows are written, and a change does not wait for the others.
#[test]
#[ignore = "needs mariadbd"]
fn ten_thousand_apps_have_their_rows_and_a_change_does_not_wait_for_the_rewriting() {
    const APPS: usize = 10_000;
    let store = Store::shared(DatabaseType::MariaDb);
    store.ask(TOKENS);
    store.ask(&format!("INSERT INTO tokens SELECT CONCAT('wx', seq), '', 0 FROM seq_1_to_{APPS}"));
    let sink = sink(&store, &format!("statement = \"{UPDATE}\"\nrewrite_every_s = 3600"));
    let sinks = Sinks::start((1..=APPS).map(|n| format!("wx{n}")), &sink);
    (0..APPS).for_each(|at| sinks.publish(at, &format!("a-token-of-the-app-number-{at}")));
    for count in (1000..=APPS).step_by(1000) {
        wait_for(&format!("{count} rows"), || {
            let written = store.ask("SELECT COUNT(*) FROM tokens WHERE token LIKE 'a-token%' AND ends > 0");
            (written.parse::<usize>().unwrap() >= count).then_some(())
        });
    }
    sinks.publish(APPS / 2, "the-next-token-of-an-app-in-the-middle");
    wait_for("the next token", || {
        (store.ask("SELECT COUNT(*) FROM tokens WHERE token LIKE 'the-next%'") == "1").then_some(())
    });
    sinks.stop();
}

/// A file that is not there, or is something else.
#[test]
fn a_file_that_is_no_database_is_named_and_left_alone() {
    let wechat = Wechat::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.db");
    let sink = format!("[[sink]]\nurl = \"sqlite:{}\"\nstatement = \"{UPDATE}\"\n", path.display());
    let node = start(&wechat, "", &sink);
    wait_for_error(&node, "database");
    node.await_log("the file cannot be opened");
    assert!(!path.exists(), "a database of another name is not made");
    std::fs::write(&path, "a page of notes that is no database at all, but long enough to look at\n".repeat(20))
        .unwrap();
    // Of the same class as before, so the log is silent about it for a minute.
    let mut client = node.connect();
    wait_for("the fault of the file", || {
        client.stat("", "sink_0_last_error_text")?.contains("the file is no database").then_some(())
    });
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("a page of notes"));
}

/// The class of the table `wx_token` in PHP, until it has seen so many tokens: what it has fetched and what was refused.
#[track_caller]
pub fn php_class(wechat: &Wechat, store: &Store, tokens: &str) -> String {
    let dsn = match store {
        Store::Sqlite(folder) => format!("sqlite:{}/site.db", folder.path().display()),
        store => {
            let (server, name) = store.server().unwrap();
            format!("mysql:host=127.0.0.1;port={};dbname={name}", server.port)
        }
    };
    let mut command = crate::support::program("php");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/php/wx_token.php")).arg(tokens);
    command.env("DSN", dsn).env("USER", "tokencached").env("PASSWORD", crate::support::sql::PASSWORD);
    command.env("TABLE", "wx_token").env("WECHAT", wechat.base_url()).env("APPID", APPID).env("SECRET", SECRET);
    run_checked(&mut command)
}

/// The class of the table works unchanged beside the sink.
fn the_php_class_never_fetches(app: &str) {
    let (wechat, store) = (Wechat::short_lived(6), Store::shared(DatabaseType::MariaDb));
    wx_token(&store, "wx_token");
    let class = |tokens: &str| php_class(&wechat, &store, tokens);
    assert_eq!(class("1"), "fetched 2 refused 0\n", "without the sink it fetches token and ticket");
    let lines = format!("tickets = [\"jsapi\"]\n{app}\n{}", sink(&store, "presets = [\"wx_token\"]"));
    let node = start(&wechat, "", &lines);
    wait_for("both rows", || (figure(&node, "writes").parse::<u64>().unwrap() >= 2).then_some(()));
    assert_eq!(class("6"), "fetched 0 refused 0\n", "{}", node.log());
    assert_eq!(figure(&node, "rival_writes"), "0", "{}", node.log());
}

#[test]
#[ignore = "waits for real time"]
fn the_php_class_with_its_table_never_fetches_beside_the_sink() {
    the_php_class_never_fetches("");
}

#[test]
#[ignore = "waits for real time"]
fn the_php_class_with_its_table_never_fetches_beside_the_sink_of_a_classic_app() {
    the_php_class_never_fetches("endpoint = \"token\"");
}

/// The class of the configuration table, compiled and run by mono.
fn the_csharp_class_never_fetches(app: &str) {
    let (wechat, store) = (Wechat::short_lived(6), Store::shared(DatabaseType::MariaDb));
    store.ask(
        "CREATE TABLE SWX_Config (UserName VARCHAR(50) PRIMARY KEY, AppID VARCHAR(50), AppSecret VARCHAR(50), \
         access_token VARCHAR(600))",
    );
    store.ask(&format!("INSERT INTO SWX_Config VALUES ('admin', '{APPID}', '{SECRET}', '')"));
    let (server, name) = store.server().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("SwxConfig.exe");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mono/SwxConfig.cs");
    run_checked(
        crate::support::program("mcs").arg(format!("-out:{}", program.display())).arg("-r:System.Data").arg(source),
    );
    let class = |tokens: &str| {
        let odbc = format!(
            "Driver={};SERVER=127.0.0.1;PORT={};DATABASE={name};UID=tokencached;PWD={}",
            "/usr/lib/x86_64-linux-gnu/odbc/libmaodbc.so",
            server.port,
            crate::support::sql::PASSWORD
        );
        let mut command = crate::support::program("mono");
        command.arg(&program).arg(tokens).env("ODBC", odbc).env("WECHAT", wechat.base_url());
        run_checked(&mut command)
    };
    assert_eq!(class("1"), "fetched 1 refused 0\n", "without the sink it fetches");
    let lines = format!("{app}\n{}", sink(&store, "presets = [\"SWX_Config\"]"));
    let node = start(&wechat, "", &lines);
    wait_for("the row", || (figure(&node, "writes").parse::<u64>().unwrap() >= 1).then_some(()));
    assert_eq!(class("6"), "fetched 0 refused 0\n", "{}", node.log());
    assert_eq!(figure(&node, "rival_writes"), "0", "{}", node.log());
}

#[test]
#[ignore = "waits for real time"]
fn the_csharp_class_with_its_table_never_fetches_beside_the_sink() {
    the_csharp_class_never_fetches("");
}

#[test]
#[ignore = "waits for real time"]
fn the_csharp_class_with_its_table_never_fetches_beside_the_sink_of_a_classic_app() {
    the_csharp_class_never_fetches("endpoint = \"token\"");
}
