//! The status page in a real headless Chromium, against the real server and the sandbox. `tests/browser` drives it;
//! `tests/run` installs Chromium and what drives it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tokencached::sandbox::{AppOptions, Options};

use crate::support::{APPID, Node, SECRET, Wechat, program, run_checked, wait_for, write};

const OTHER: &str = "wx7c20d94be1a35f68";
/// Its calls come from an address that is not on its list.
const BARRED: &str = "wx90ab34cd56ef7812";

const KEYS: &str = "ops ops-0123456789abcdef0123456789 status read refresh\n\
    viewer viewer-0123456789abcdef012345 status\n\
    half half-0123456789abcdef01234567 status refresh:wx0123456789abcdef\n\
    reader reader-0123456789abcdef012345 read:wx7c20d94be1a35f68\n";

/// A browser is several processes; many at once only hold each other up.
pub(super) static BROWSER: Mutex<()> = Mutex::new(());

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn app(appid: &str) -> AppOptions {
    let ip_allowlist = (appid == BARRED).then(|| vec!["192.0.2.1".parse().unwrap()]);
    AppOptions { appid: appid.into(), secret: SECRET.into(), ip_allowlist, ..AppOptions::default() }
}

/// A table of the configuration for each.
fn tables(appids: &[String]) -> String {
    appids.iter().map(|appid| format!("[[app]]\nappid = \"{appid}\"\nsecret = \"{SECRET}\"\n")).collect()
}

/// A server with an HTTP API, its WeChat, and these apps beside the usual one.
struct Scene {
    wechat: Wechat,
    node: Node,
    page: SocketAddr,
}

impl Scene {
    fn new(others: &[String], http: &str) -> Scene {
        let apps = others.iter().map(|appid| app(appid)).collect();
        let wechat = Wechat::with(Options { apps, ..Options::default() });
        let own = "tickets = [\"jsapi\"]\naliases = [\"access_token\", \"WCH_access_token\"]\n";
        Scene::start(wechat, own, others, http)
    }

    fn usual(http: &str) -> Scene {
        Scene::new(&[OTHER.to_owned(), BARRED.to_owned()], http)
    }

    fn start(wechat: Wechat, own: &str, others: &[String], http: &str) -> Scene {
        let http = format!("[http]\nlisten = [\"127.0.0.1:0\"]\n{http}");
        let config = format!("{}{}{http}", wechat.config("", own), tables(others));
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "keys", KEYS);
        let node = Node::start_in(folder, &config, &[]);
        let page = node.http_address();
        Scene { wechat, node, page }
    }

    /// What can be fetched has been, so that the browser finds all at rest.
    fn settled(self, live: &[&str]) -> Scene {
        let mut client = self.node.connect();
        for key in live {
            wait_for(key, || client.get(key));
        }
        let log = || self.node.log();
        wait_for("the refusal", || log().contains("40164").then_some(()));
        self
    }

    /// Chromium carries out a scenario of `tests/browser/page.js`.
    fn browse(&self, scenario: &str, more: &[(&str, &str)]) {
        self.run("page.js", scenario, more);
    }

    fn run(&self, script: &str, scenario: &str, more: &[(&str, &str)]) {
        let packages = root().join("target/node/node_modules");
        assert!(packages.join("playwright-core").exists(), "playwright-core is missing; tests/run installs it");
        let mut command = program("node");
        command.arg(root().join("tests/browser").join(script)).arg(scenario).env("NODE_PATH", packages);
        command.env("PAGE", format!("http://{}/", self.page)).env("WECHAT", self.wechat.base_url());
        command.env("MC_PORT", self.node.address.port().to_string()).env("APP_SECRET", SECRET);
        command.env("NODE_PID", self.node.pid().to_string()).env("VERSION", env!("CARGO_PKG_VERSION"));
        command.env("BINARY", env!("CARGO_BIN_EXE_tokencached")).env("CONFIG", self.node.path("tokencached.toml"));
        let _one_browser_at_a_time = BROWSER.lock();
        let said = run_checked(command.envs(more.iter().copied()));
        assert_eq!(said, "ok\n", "{}", self.node.log());
    }
}

fn usual_keys() -> [String; 3] {
    [format!("access_token:{APPID}"), format!("jsapi_ticket:{APPID}"), format!("access_token:{OTHER}")]
}

fn usual(http: &str) -> Scene {
    let keys = usual_keys();
    Scene::usual(http).settled(&keys.each_ref().map(String::as_str))
}

/// Chromium carries out a scenario of `tests/browser/cases.js`: this server has the page, and data is made up.
fn made_up(scenario: &str) {
    Scene::start(Wechat::start(), "", &[], "").run("cases.js", scenario, &[]);
}

#[test]
#[ignore = "needs node"]
fn a_fault_is_drawn_from_its_first_to_its_last_moment() {
    made_up("lasting");
}

#[test]
#[ignore = "needs node"]
fn without_contact_nothing_is_green_and_the_title_says_so() {
    made_up("contact");
}

#[test]
#[ignore = "needs node"]
fn equal_faults_are_one_line_with_what_mends_them() {
    made_up("folded");
}

#[test]
#[ignore = "needs node"]
fn network_errors_are_in_words_of_the_readers_language() {
    made_up("network");
}

#[test]
#[ignore = "needs node"]
fn with_several_nodes_the_page_says_which_one_it_is_and_who_renews() {
    made_up("nodes");
}

#[test]
#[ignore = "needs node"]
fn names_and_messages_are_never_markup() {
    made_up("hostile");
}

#[test]
#[ignore = "needs node"]
fn the_page_holds_ten_thousand_apps() {
    made_up("many");
}

#[test]
#[ignore = "needs node"]
fn on_a_phone_trouble_comes_first_and_nothing_is_empty() {
    made_up("phone");
}

#[test]
#[ignore = "needs node"]
fn long_figures_have_room_at_every_width() {
    made_up("room");
}

#[test]
#[ignore = "needs node"]
fn every_state_has_its_own_word_and_one_is_not_plural() {
    made_up("words");
}

#[test]
#[ignore = "needs node"]
fn the_page_shows_what_there_is_and_changes_by_itself() {
    usual("").browse("shows", &[]);
}

#[test]
#[ignore = "needs node"]
fn the_page_asks_for_a_key_and_offers_what_it_may_and_asks_twice() {
    usual("keys_file = \"{folder}/keys\"\n").browse("rights", &[]);
}

#[test]
#[ignore = "needs node"]
fn the_page_is_for_everybody() {
    usual("").browse("everybody", &[]);
}

#[test]
#[ignore = "needs node"]
fn the_page_needs_no_mouse() {
    usual("").browse("keyboard", &[]);
}

#[test]
#[ignore = "needs node"]
fn the_page_holds_a_thousand_apps() {
    let mut others: Vec<String> = (0..998).map(|n| format!("wxbeef{:012}", n + 1)).collect();
    others.push(BARRED.to_owned());
    let apps = others.iter().map(|appid| app(appid)).collect();
    let wechat = Wechat::with(Options { apps, ..Options::default() });
    let scene = Scene::start(wechat, "", &others, "");
    let keys: Vec<String> = others[..998].iter().map(|appid| format!("access_token:{appid}")).collect();
    scene.settled(&keys.iter().map(String::as_str).collect::<Vec<_>>()).browse("thousand", &[]);
}

#[test]
#[ignore = "needs node"]
fn the_page_says_when_the_server_is_away_and_comes_back_with_it() {
    let scene = usual("");
    // Started again it must listen where the page looks for it.
    let config = scene.node.path("tokencached.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("listen = [\"127.0.0.1:0\"]", &format!("listen = [\"{}\"]", scene.page))).unwrap();
    scene.browse("away", &[]);
}

/// The pictures are in `target/status-page/`. With STATUS_PAGE_PICTURE=1, that of the READMEs is written, too.
#[test]
#[ignore = "needs node"]
fn the_page_is_there_to_be_looked_at() {
    let shots = root().join("target/status-page");
    let picture = root().join("docs/en/status-page.png");
    let mut more = vec![("SHOTS", shots.to_str().unwrap())];
    if std::env::var_os("STATUS_PAGE_PICTURE").is_some() {
        more.push(("PICTURE", picture.to_str().unwrap()));
    }
    let others = [OTHER, BARRED, "wxa4d1c8e90b7f2635", "wx2b6e0f9d8c7a5143", "wxd7e8f90a1b2c3d4e"].map(str::to_owned);
    let apps = others.iter().map(|appid| app(appid)).collect();
    let wechat = Wechat::with(Options { apps, lifetime_s: 20, ..Options::default() });
    let own = "tickets = [\"jsapi\"]\naliases = [\"access_token\", \"WCH_access_token\"]\n";
    let keys = usual_keys();
    Scene::start(wechat, own, &others, "").settled(&keys.each_ref().map(String::as_str)).browse("pictures", &more);
    let shot: PathBuf = shots.join("status-page-wide-light.png");
    assert!(fs::metadata(shot).unwrap().len() > 20_000);
}

/// One place that is written to and one that fails until a file is there.
#[test]
#[ignore = "needs node"]
fn the_page_shows_where_values_are_also_written_to_and_why_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let sinks = format!(
        "[[sink]]\ncommand = [\"/bin/true\"]\n\
         [[sink]]\ncommand = [\"/bin/sh\", \"-c\", \"test -e {}\"]\n",
        go.display()
    );
    let scene = Scene::start(Wechat::start(), "", &[], &sinks);
    wait_for("a token", || scene.node.connect().get(&format!("access_token:{APPID}")));
    scene.browse("sinks", &[("GO", go.to_str().unwrap())]);
}

#[cfg(feature = "redis")]
#[test]
fn what_a_redis_refuses_is_said_in_chinese_too() {
    use tokencached::redis_client::RedisFault;
    use tokencached::texts;
    for fault in RedisFault::ALL {
        for text in [fault.to_string(), fault.advice().to_owned()] {
            assert!(texts::chinese(&text).is_some(), "no Chinese for: {text}");
        }
    }
}
