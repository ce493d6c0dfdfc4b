//! JS-SDK signatures beside a real headless Chromium: what is signed is what the page finds in `location.href`.

use std::path::Path;

use super::HttpNode;
use super::page::BROWSER;
use crate::support::{APPID, Wechat, program, run_checked, wait_for};

#[test]
#[ignore = "needs node"]
fn what_is_signed_is_what_a_real_browser_shows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages = root.join("target/node/node_modules");
    assert!(packages.join("playwright-core").exists(), "playwright-core is missing; tests/run installs it");
    let wechat = Wechat::start();
    let http = HttpNode::start(&wechat, "", "", "tickets = [\"jsapi\"]");
    let mut client = http.node.connect();
    let ticket = wait_for("the ticket", || client.get(&format!("jsapi_ticket:{APPID}")));
    let mut command = program("node");
    command.arg(root.join("tests/browser/signed_urls.js")).env("NODE_PATH", packages);
    command.env("PAGE", format!("http://{}/", http.address)).env("APP", APPID);
    command.env("TICKET", String::from_utf8(ticket).unwrap());
    let _one_browser_at_a_time = BROWSER.lock();
    assert_eq!(run_checked(&mut command), "ok\n", "{}", http.node.log());
}
