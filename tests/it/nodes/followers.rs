//! Nodes without secrets, as processes, that follow one that renews by its side port, or one that follows it in turn.

use std::net::{SocketAddr, TcpListener};

use tokencached::sandbox::Verdict;

use crate::support::{APPID, Client, Node, SECRET, Wechat, wait_for};

/// An address that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn renewing(wechat: &Wechat, side: SocketAddr) -> Node {
    let side = format!("[side]\nlisten = [\"{side}\"]\n");
    Node::start(&format!("{side}{}", wechat.config("", "tickets = [\"jsapi\"]")), &[])
}

/// One that has no secret and whose WeChat is out of reach.
fn following(upstream: SocketAddr, side: SocketAddr) -> Node {
    let config = format!(
        "[side]\nlisten = [\"{side}\"]\n[state]\npath = \"none\"\nupstream = \"http://{upstream}\"\npoll_every_ms = 1000\n\
         [upstream]\nbase_url = \"http://127.0.0.1:1\"\n[[app]]\nappid = \"{APPID}\"\ntickets = [\"jsapi\"]\n"
    );
    Node::start(&config, &[])
}

fn token(client: &mut Client) -> Option<String> {
    client.get(&format!("access_token:{APPID}")).map(|token| String::from_utf8(token).unwrap())
}

#[test]
fn a_follower_of_a_follower_serves_what_is_renewed_and_its_reports_come_through() {
    let (wechat, sides) = (Wechat::start(), [free(), free(), free()]);
    let renews = renewing(&wechat, sides[0]);
    let (second, third) = (following(sides[0], sides[1]), following(sides[1], sides[2]));
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
    let (wechat, sides) = (Wechat::start(), [free(), free()]);
    let renews = renewing(&wechat, sides[0]);
    let follows = following(sides[0], sides[1]);
    let mut client = follows.connect();
    let first = wait_for("the token", || token(&mut client));
    drop(renews);
    wait_for("word of it", || follows.log().contains("tokens are served from memory").then_some(()));
    assert_eq!(token(&mut client), Some(first.clone()));
    wechat.kill_tokens(APPID);
    let _renews = renewing(&wechat, sides[0]);
    let next = wait_for("the new token", || token(&mut client).filter(|token| *token != first));
    assert_eq!(wechat.judge(&next), Verdict::Accepted);
}
