//! Followers without secrets, as processes: of a leader that renews, or of a follower in between.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokencached::sandbox::Verdict;

use super::http::{Impostor, http};
use crate::http_api::{API_HEADER, HttpNode};
use crate::support::{APPID, Client, Node, SECRET, Wechat, free_address, tokencached, tokencached_before, wait_for};

fn renewing(wechat: &Wechat, http: SocketAddr) -> Node {
    let http = format!("[http]\nlisten = [\"{http}\"]\n");
    Node::start(&format!("{http}{}", wechat.config("", "tickets = [\"jsapi\"]")), &[])
}

/// One that has no secret and whose WeChat is out of reach.
fn following(leader: SocketAddr, http: SocketAddr) -> Node {
    let config = format!(
        "[http]\nlisten = [\"{http}\"]\n[state]\npath = \"none\"\nleader_urls = \"http://{leader}\"\npoll_every_ms = 1000\n\
         [upstream]\nbase_url = \"http://127.0.0.1:1\"\n[[app]]\nappid = \"{APPID}\"\ntickets = [\"jsapi\"]\n"
    );
    Node::start(&config, &[])
}

/// One that keeps its state in that folder.
fn following_in(folder: TempDir, leaders: &[SocketAddr]) -> Node {
    let urls: Vec<String> = leaders.iter().map(|leader| format!("\"http://{leader}\"")).collect();
    let urls = urls.join(", ");
    let config = format!(
        "[state]\npath = \"{{folder}}/state.json\"\nleader_urls = [{urls}]\npoll_every_ms = 1000\n\
         [upstream]\nbase_url = \"http://127.0.0.1:1\"\n[[app]]\nappid = \"{APPID}\"\n"
    );
    Node::start_in(folder, &config, &[])
}

fn token(client: &mut Client) -> Option<String> {
    client.get(&format!("access_token:{APPID}")).map(|token| String::from_utf8(token).unwrap())
}

#[test]
fn a_follower_of_a_follower_serves_what_is_renewed_and_its_reports_come_through() {
    let (wechat, addresses) = (Wechat::start(), [free_address(), free_address(), free_address()]);
    let renews = renewing(&wechat, addresses[0]);
    let (second, third) = (following(addresses[0], addresses[1]), following(addresses[1], addresses[2]));
    let mut clients = [renews.connect(), second.connect(), third.connect()];
    let first = wait_for("the token everywhere", || {
        let [a, b, c] = clients.each_mut().map(token);
        (a.is_some() && a == b && b == c).then_some(a).flatten()
    });
    let ticket = |client: &mut Client| client.get(&format!("jsapi_ticket:{APPID}"));
    wait_for("the ticket", || (ticket(&mut clients[2]).is_some()).then_some(()));
    assert_eq!(wechat.judge(&first), Verdict::Accepted);
    wechat.kill_tokens(APPID);
    // What a client does when WeChat refuses: the answer comes when the node that renews has looked.
    clients[2].expect(format!("delete access_token:{APPID}\r\n"), "DELETED\r\n");
    let next = wait_for("another token at the last", || token(&mut clients[2]).filter(|token| *token != first));
    assert_eq!(wechat.judge(&next), Verdict::Accepted);
    assert!(!third.log().contains(SECRET));
}

/// The node that is followed dies: its followers serve on, and go on when it is back.
#[test]
fn followers_serve_on_while_the_node_they_follow_is_gone() {
    let (wechat, addresses) = (Wechat::start(), [free_address(), free_address()]);
    let renews = renewing(&wechat, addresses[0]);
    let follows = following(addresses[0], addresses[1]);
    let mut client = follows.connect();
    let first = wait_for("the token", || token(&mut client));
    drop(renews);
    wait_for("word of it", || follows.log().contains("tokens are served from memory").then_some(()));
    assert_eq!(token(&mut client), Some(first.clone()));
    wechat.kill_tokens(APPID);
    let _renews = renewing(&wechat, addresses[0]);
    let next = wait_for("the new token", || token(&mut client).filter(|token| *token != first));
    assert_eq!(wechat.judge(&next), Verdict::Accepted);
}

/// A node that is followed and lists what it is told to: the last of these pages that was chosen. A page that has been
/// told is not told again to whoever asks for changes.
struct Leader {
    impostor: Impostor,
    page: Arc<AtomicUsize>,
}

impl Leader {
    fn start(pages: Vec<Value>) -> Leader {
        let page = Arc::new(AtomicUsize::new(0));
        let chosen = page.clone();
        let answer = move |_: usize, head: &str| {
            let at = chosen.load(Ordering::Acquire);
            if head.starts_with("post") {
                return http("{}");
            }
            let mut page = pages[at].clone();
            let told = head.contains(&format!("after={}", page["cursor"].as_str().unwrap()));
            page["from_start"] = json!(!head.contains("after="));
            if told {
                page["credentials"] = json!([]);
            }
            http(&page.to_string())
        };
        Leader { impostor: Impostor::start(answer, false), page }
    }

    fn choose(&self, page: usize) {
        self.page.store(page, Ordering::Release);
    }
}

/// What a node lists. As the version before this one says it, without its age.
fn page(run: &str, cursor: &str, generation: u64, token: &str, left_ms: u64) -> Value {
    json!({ "now_ms": 1_000_000, "waited_ms": 0, "run": run, "from_start": true, "cursor": cursor, "more": false,
        "credentials": [{ "app": APPID, "kind": "access_token", "state": "fresh", "generation": generation,
            "token": token, "expires_in_ms": left_ms, "lifetime_ms": left_ms, "fetched_at_ms": 1, "withdrawn": false }] })
}

const MONTH_MS: u64 = 30 * 86_400_000;

/// A token that never was, with the highest number and the latest end that are taken at all.
fn lie(cursor: &str) -> Value {
    page("run", cursor, 999_999_999_999_999, "WRONG", MONTH_MS)
}

fn shows(client: &mut Client, generation: u64, token: &str) -> Option<()> {
    let answer = String::from_utf8(client.ask(format!("gets access_token:{APPID}\r\n"))).unwrap();
    (answer == format!("VALUE access_token:{APPID} 0 {} {generation}\r\n{token}\r\nEND\r\n", token.len())).then_some(())
}

#[test]
fn a_wrong_answer_of_the_node_that_is_followed_lasts_until_its_next_one() {
    for run in ["run", "another run"] {
        let truth = page(&run.replace(' ', "-"), "c2", 7, "TRUE", 5_000_000);
        let leader = Leader::start(vec![lie("c1"), truth]);
        let follower = following_in(tempfile::tempdir().unwrap(), &[leader.impostor.address]);
        let mut client = follower.connect();
        wait_for("the wrong token", || shows(&mut client, 999_999_999_999_999, "WRONG"));
        leader.choose(1);
        wait_for("the true one", || shows(&mut client, 7, "TRUE"));
    }
}

#[test]
fn a_wrong_answer_does_not_outlast_a_restart() {
    let leader = Leader::start(vec![lie("c1"), page("run", "c2", 7, "TRUE", 5_000_000)]);
    let follower = following_in(tempfile::tempdir().unwrap(), &[leader.impostor.address]);
    let kept = |folder: &Path, token| {
        std::fs::read_to_string(folder.join("state.json")).is_ok_and(|state| state.contains(token)).then_some(())
    };
    wait_for("the state", || kept(follower.folder.path(), "WRONG"));
    let folder = follower.kill();
    std::fs::remove_file(folder.path().join("log")).unwrap();
    leader.choose(1);
    let follower = following_in(folder, &[leader.impostor.address]);
    wait_for("the true one", || shows(&mut follower.connect(), 7, "TRUE"));
    wait_for("the state", || kept(follower.folder.path(), "TRUE"));
}

#[test]
fn a_delete_at_a_follower_brings_what_the_node_that_is_followed_has_now() {
    // It lied in an answer, and knows of nothing that has changed since.
    let leader = Leader::start(vec![lie("c1"), page("run", "c1", 7, "TRUE", 5_000_000)]);
    let follower = following_in(tempfile::tempdir().unwrap(), &[leader.impostor.address]);
    let mut client = follower.connect();
    wait_for("the wrong token", || shows(&mut client, 999_999_999_999_999, "WRONG"));
    leader.choose(1);
    client.expect(format!("delete access_token:{APPID}\r\n"), "DELETED\r\n");
    wait_for("the true one", || shows(&mut client, 7, "TRUE"));
}

#[test]
fn no_token_is_believed_to_live_longer_than_its_type_does() {
    let leader = Leader::start(vec![lie("c1")]);
    let follower = following_in(tempfile::tempdir().unwrap(), &[leader.impostor.address]);
    let mut client = follower.connect();
    wait_for("the token", || shows(&mut client, 999_999_999_999_999, "WRONG"));
    let answer = String::from_utf8(client.ask(format!("mg access_token:{APPID} t\r\n"))).unwrap();
    let left_s: u64 = answer.trim().strip_prefix("HD t").unwrap().parse().unwrap();
    assert!((7_000..=7_800).contains(&left_s), "{left_s}");
    wait_for("a warning", || follower.log().contains("a longer lifetime than this type can have").then_some(()));
}

#[test]
fn a_node_that_has_itself_been_cut_off_is_left_for_the_next() {
    let mut cut_off = page("cut-off", "c1", 7, "OLD", 5_000_000);
    cut_off["age_ms"] = json!(200_000);
    let (cut_off, well) = (Leader::start(vec![cut_off]), Leader::start(vec![page("well", "c1", 6, "NEW", 4_000_000)]));
    let follower = following_in(tempfile::tempdir().unwrap(), &[cut_off.impostor.address, well.impostor.address]);
    let mut client = follower.connect();
    wait_for("what the other one has", || shows(&mut client, 6, "NEW"));
    wait_for("word of it", || follower.log().contains("has not heard from a node that renews").then_some(()));
}

#[test]
#[ignore = "waits for real time"]
fn a_follower_of_a_follower_says_how_long_the_node_that_renews_has_been_away() {
    let (wechat, addresses) = (Wechat::start(), [free_address(), free_address(), free_address()]);
    let renews = HttpNode { node: renewing(&wechat, addresses[0]), address: addresses[0] };
    let _second = following(addresses[0], addresses[1]);
    let third = HttpNode { node: following(addresses[1], addresses[2]), address: addresses[2] };
    let age_ms = |node: &HttpNode| node.get("/v1/credentials", &[API_HEADER]).json()["age_ms"].as_u64();
    let (token, _) = third.token(&[API_HEADER]);
    assert_eq!(age_ms(&renews), Some(0), "it renews by itself");
    // Before its first look at the second it says nothing.
    wait_for("a fresh picture", || age_ms(&third).filter(|age| *age < 6_000));
    drop(renews);
    // The second answers the third as before, and has nothing new.
    wait_for("an older picture", || age_ms(&third).filter(|age| *age > 6_000));
    assert_eq!(third.token(&[API_HEADER]).0, token);
}

/// A node of one version renews, one of another follows it. Both read the old names of settings.
fn goes_together(renews: Command, follows: Command) {
    let (wechat, addresses) = (Wechat::start(), [free_address(), free_address()]);
    let http = format!("[side]\nlisten = [\"{}\"]\n", addresses[0]);
    let folder = || tempfile::tempdir().unwrap();
    let renewing = Node::start_binary(renews, folder(), &format!("{http}{}", wechat.config("", "")), &[], &[]);
    let config = format!(
        "[side]\nlisten = [\"{}\"]\n[state]\npath = \"none\"\nupstream = \"http://{}\"\npoll_every_ms = 1000\n\
         [upstream]\nbase_url = \"http://127.0.0.1:1\"\n[[app]]\nappid = \"{APPID}\"\n",
        addresses[1], addresses[0]
    );
    let following = Node::start_binary(follows, folder(), &config, &[], &[]);
    let mut clients = [renewing.connect(), following.connect()];
    let mut last = String::new();
    for _ in 0..2 {
        last = wait_for("the same token at both", || {
            let [ours, theirs] = clients.each_mut().map(token);
            ours.filter(|ours| theirs.as_ref() == Some(ours) && *ours != last)
        });
        let cas = clients.each_mut().map(|client| client.ask(format!("gets access_token:{APPID}\r\n")));
        assert_eq!(cas[0], cas[1], "and the same generation");
        wechat.kill_tokens(APPID);
        clients[1].expect(format!("delete access_token:{APPID}\r\n"), "DELETED\r\n");
    }
}

#[test]
#[ignore = "needs the version before"]
fn this_version_and_the_one_before_follow_each_other() {
    let (renews, follows) = (tokencached_before(), tokencached_before());
    goes_together(renews, tokencached());
    goes_together(tokencached(), follows);
}
