//! Sites on PHP frameworks whose cache is in the server: with the framework's preset they never fetch.
//!
//! Symfony, Laravel and WordPress are the real ones, of Debian's packages; the others are scripts that do what the
//! frameworks' drivers do.

use std::path::PathBuf;
use std::process::Command;

use tokencached::sandbox::Endpoint;

use crate::support::{APPID, Node, SECRET, Wechat, program, run_checked, wait_for};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A site, and what its app has in the configuration.
struct Site {
    framework: &'static str,
    extension: &'static str,
    /// As the site's framework is told it.
    prefix: &'static str,
    app: String,
}

fn site(framework: &'static str, extension: &'static str, prefix: &'static str, app: &str) -> Site {
    let app = format!("tickets = [\"jsapi\", \"wx_card\"]\nclient = \"{extension}\"\n{app}");
    Site { framework, extension, prefix, app }
}

/// What the site saw of so many tokens in a row, and how often it asked WeChat by itself.
#[track_caller]
fn seen(site: &Site, tokens: &str) -> (serde_json::Value, u64) {
    let mut command = program("php");
    command.arg(root().join("tests/php/framework_reads.php"));
    command.args([site.framework, site.extension, site.prefix, tokens]);
    command.env("WORDPRESS", root().join("target/wordpress/usr/share/wordpress"));
    seen_by(&mut command, &site.app)
}

/// The same of any script.
#[track_caller]
fn seen_by(command: &mut Command, app: &str) -> (serde_json::Value, u64) {
    let wechat = Wechat::short_lived(4);
    let node = Node::start(&wechat.config("", app), &["-v"]);
    for ticket in ["jsapi_ticket", "wx_card_ticket"] {
        wait_for(ticket, || node.connect().get(&format!("{ticket}:{APPID}")));
    }
    command.env("MC_HOST", "127.0.0.1").env("MC_PORT", node.address.port().to_string());
    command.env("WECHAT", wechat.base_url()).env("APPID", APPID).env("SECRET", SECRET);
    let said = run_checked(command);
    assert!(!node.log().contains(SECRET), "{}", node.log());
    let seen: serde_json::Value = serde_json::from_str(said.lines().last().unwrap_or_default()).expect(&said);
    (seen, wechat.calls(APPID).of(Endpoint::Token))
}

/// The site never fetched, but where the script made it; and nothing it used was refused.
#[track_caller]
fn only_reads(site: Site) {
    no_fetch(seen(&site, "3"));
}

#[track_caller]
fn no_fetch((seen, fetches): (serde_json::Value, u64)) {
    assert_eq!(seen["fetched"], 0, "{seen}");
    assert_eq!(seen["refused"], 0, "{seen}");
    assert_eq!(seen["forced"].as_u64(), Some(fetches), "{seen}");
    assert!(seen["used"].as_u64() >= Some(3), "{seen}");
}

#[test]
#[ignore = "needs php"]
fn thinkphp_5_only_reads() {
    only_reads(site("thinkphp5", "memcached", "", "presets = [\"thinkphp5\"]\nprefix = \"\""));
    only_reads(site("thinkphp5", "memcache", "tp_", "presets = [\"thinkphp5\"]\nprefix = \"tp_\""));
}

#[test]
#[ignore = "needs php"]
fn thinkphp_6_and_8_only_read() {
    only_reads(site("thinkphp6", "memcached", "", "presets = [\"thinkphp6\"]"));
    only_reads(site("thinkphp6", "memcache", "shop_", "presets = [\"thinkphp6\"]\nprefix = \"shop_\""));
}

/// What the preset is for: a string that is not serialized counts as missing there, on every page view.
#[test]
#[ignore = "needs php"]
fn thinkphp_6_would_fetch_on_every_page_view_with_the_tutorials_keys() {
    let (seen, fetches) = seen(&site("thinkphp6", "memcached", "", "presets = [\"tutorial\"]"), "views");
    assert_eq!((seen["fetched"].as_u64(), fetches), (Some(3), 3), "{seen}");
}

#[test]
#[ignore = "needs php"]
fn yii_2_only_reads() {
    only_reads(site("yii2", "memcache", "", "presets = [\"yii2\"]"));
    only_reads(site("yii2", "memcached", "a1b2c", "presets = [\"yii2\"]\nprefix = \"a1b2c\""));
}

#[test]
#[ignore = "needs php"]
fn codeigniter_2_only_reads() {
    only_reads(site("codeigniter2", "memcached", "", "presets = [\"codeigniter2\"]"));
    only_reads(site("codeigniter2", "memcache", "", "presets = [\"codeigniter2\"]"));
}

#[test]
#[ignore = "needs php"]
fn codeigniter_3_only_reads() {
    only_reads(site("codeigniter3", "memcached", "ci_", "presets = [\"codeigniter3\"]\nprefix = \"ci_\""));
    only_reads(site("codeigniter3", "memcache", "", "presets = [\"codeigniter3\"]"));
}

#[test]
#[ignore = "needs php"]
fn discuz_only_reads() {
    only_reads(site("discuz", "memcache", "XaTV9z_", "presets = [\"discuz\"]\nprefix = \"XaTV9z_\""));
    only_reads(site("discuz", "memcached", "XaTV9z_", "presets = [\"discuz\"]\nprefix = \"XaTV9z_\""));
}

/// Laravel's own prefix is written in both cases; up to version 10 it puts a colon behind it.
#[test]
#[ignore = "needs php"]
fn easywechat_on_laravel_only_reads_with_laravels_colon_and_without() {
    for easywechat in ["easywechat4-laravel", "easywechat5-laravel"] {
        let presets = format!("presets = [\"laravel\", \"{easywechat}\", \"easywechat6-laravel\"]");
        let app = format!("{presets}\nprefix = \"laravel_cache\"");
        only_reads(site("laravel10", "memcached", "laravel_cache", &app));
        let app = format!("{presets}\nprefix = \"laravel_cache_\"");
        only_reads(site("laravel11", "memcached", "laravel_cache_", &app));
    }
}

#[test]
#[ignore = "needs php"]
fn easywechat_on_laravel_without_a_prefix_only_reads() {
    let app = "presets = [\"laravel\", \"easywechat4-laravel\", \"easywechat6-laravel\"]\nprefix = \"\"";
    only_reads(site("laravel10", "memcached", "", app));
}

#[test]
#[ignore = "needs php"]
fn easywechat_on_symfonys_cache_only_reads_and_its_clear_works() {
    only_reads(site("symfony", "memcached", "", "presets = [\"symfony\"]"));
    only_reads(site("symfony", "memcached", "Kx9-aB2c_d", "presets = [\"symfony\"]\nprefix = \"Kx9-aB2c_d:\""));
}

#[test]
#[ignore = "needs php"]
fn wordpress_only_reads_and_its_flush_works() {
    only_reads(site("wordpress", "memcache", "salt", "presets = [\"wordpress\"]"));
}

#[test]
#[ignore = "needs php"]
fn wordpress_without_versions_only_reads_and_its_flush_works() {
    only_reads(site("wordpress", "memcached", "", "presets = [\"wordpress\"]"));
}

#[test]
#[ignore = "needs node"]
fn nodes_wechat_api_only_reads() {
    for (stores, client) in [("text", "memcached"), ("object", "node-memcached")] {
        let mut command = program("node");
        command.arg(root().join("tests/node/wechat_api.js")).args([stores, "3"]);
        command.env("NODE_PATH", root().join("target/node/node_modules"));
        let app = format!("tickets = [\"jsapi\", \"wx_card\"]\nclient = \"{client}\"\npresets = [\"node-wechat-api\"]");
        no_fetch(seen_by(&mut command, &app));
    }
}
