//! What people write who mean something else: each is told in a sentence what to write. What has started before, starts.

use std::path::Path;

use tokencached::cli::{self, CliCommand};
use tokencached::texts::Language;

use crate::config::{APPID, SECRET, by_environment, by_flags, fault, given};

const CORPID: &str = "ww0123456789abcdef";

fn quick(appid: &str, secret: &str) -> Vec<String> {
    by_environment(&[("WECHAT_APPID", appid), ("WECHAT_SECRET", secret)]).warnings
}

/// The warnings of one app with these lines in its table.
fn warnings_of(app: &str) -> Vec<String> {
    given(Some(&format!("[[app]]\n{app}\n")), &[], "").unwrap_or_else(|faults| panic!("{faults}")).warnings
}

/// With one app and these variables: what is said of them.
fn said_of(variables: &[(&str, &str)], upstream: &str) -> Vec<String> {
    let file = format!("[upstream]\n{upstream}\n[[app]]\nappid = \"{APPID}\"\nsecret_env = \"WX_SECRET\"\n");
    given(Some(&file), variables, "").unwrap_or_else(|faults| panic!("{faults}")).warnings
}

#[track_caller]
fn only(warnings: &[String], parts: &[&str]) {
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in parts {
        assert!(warnings[0].contains(part), "{part:?} is not in {}", warnings[0]);
    }
    assert!(!warnings[0].contains(SECRET), "{}", warnings[0]);
}

#[test]
fn an_appid_with_a_line_end_or_a_blank_around_it_is_told_apart_from_one_inside() {
    for (appid, part) in [
        ("wx0123456789abcdef\n", "ends in a line break"),
        ("wx0123456789abcdef\r", "ends in a line break"),
        (" wx0123456789abcdef", "begins or ends with a blank"),
        ("wx0123456789abcdef ", "begins or ends with a blank"),
        ("wx 1", "has a blank or a control character"),
    ] {
        let said = fault(None, &[("WECHAT_APPID", appid), ("WECHAT_SECRET", SECRET)], "");
        assert!(said.contains("environment WECHAT_APPID") && said.contains(part), "{appid:?}: {said}");
    }
}

#[test]
fn a_secret_with_blanks_around_it_says_so_and_a_line_end_alone_is_no_part_of_it() {
    for secret in [format!("{SECRET} "), format!(" {SECRET}"), format!("{SECRET} \n")] {
        let said = fault(None, &[("WECHAT_APPID", APPID), ("WECHAT_SECRET", &secret)], "");
        assert!(said.contains("begins or ends with a blank"), "{said}");
    }
    assert_eq!(quick(APPID, &format!("{SECRET}\r\n")), Vec::<String>::new());
}

#[test]
fn a_secret_in_quotes_is_named_wherever_it_comes_from() {
    only(&quick(APPID, &format!("\"{SECRET}\"")), &["WECHAT_SECRET", "quotes", "--env-file"]);
    only(&quick(APPID, &format!("'{SECRET}'")), &["WECHAT_SECRET", "quotes"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("quoted");
    std::fs::write(&path, format!("\"{SECRET}\"\n")).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let app = format!("appid = \"{APPID}\"\nsecret_file = \"{}\"", path.display());
    only(&warnings_of(&app), &["quotes", "quoted"]);
    let quoted_id = quick(&format!("\"{APPID}\""), SECRET);
    only(&quoted_id, &["WECHAT_APPID", "quotes", "--env-file"]);
}

#[test]
fn a_corpid_without_a_kind_is_told_which_one_to_write() {
    only(&warnings_of(&format!("appid = \"{CORPID}\"\nsecret_env = \"WX_SECRET\"")), &[CORPID, "platform = \"wecom\""]);
    only(&warnings_of("appid = \"cli_a1b2c3\"\nsecret_env = \"WX_SECRET\""), &["platform = \"feishu\""]);
    only(&quick(CORPID, SECRET), &["WECHAT_APPID", "[[app]]", "platform = \"wecom\""]);
    assert!(warnings_of(&format!("platform = \"wecom\"\nappid = \"{CORPID}\"\nsecret_env = \"WX_SECRET\"")).is_empty());
}

#[test]
fn a_configuration_file_after_c_or_f_is_told_the_flag_it_belongs_to() {
    for line in ["-c conf.toml", "-c /etc/tokencached/tokencached.toml"] {
        let file = line.split_once(' ').unwrap().1;
        let said = fault(None, &[], line);
        assert!(said.contains("flag -c") && said.contains(&format!("--config {file}")), "{said}");
    }
    assert!(!fault(None, &[], "-c many").contains("--config"));
    let warned = by_flags("-f conf.toml").warnings.join("\n");
    assert!(warned.contains("-f") && warned.contains("--config conf.toml"), "{warned}");
    assert!(!by_flags("-f 1.25").warnings.join("\n").contains("--config conf"));
    match cli::parse_in(Language::English, ["tokencached", "--conf", "conf.toml"]) {
        Ok(CliCommand::Serve(args)) => assert_eq!(args.config.as_deref(), Some(Path::new("conf.toml"))),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_placeholder_in_place_of_an_appid_or_a_secret_is_warned_about() {
    only(&quick("wx...", SECRET), &["WECHAT_APPID", "placeholder"]);
    only(&quick(APPID, &format!("WECHAT_SECRET={SECRET}")), &["WECHAT_SECRET", "its name in front"]);
    only(&quick("your-appid", SECRET), &["placeholder"]);
    for secret in ["your-secret", "...", "<secret>", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "changeme"] {
        only(&quick(APPID, secret), &["WECHAT_SECRET", "placeholder"]);
    }
    only(&quick(APPID, "0123456789abcdef"), &["WECHAT_SECRET", "32"]);
    only(&quick(APPID, &SECRET[..31]), &["31 characters", "32"]);
    assert_eq!(quick(APPID, &SECRET.to_uppercase()), Vec::<String>::new());
    // WeCom's are longer, Feishu's are no hex.
    let app = format!("platform = \"wecom\"\nappid = \"{CORPID}\"\nsecret_env = \"LONG\"");
    let long = [("LONG", "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_AbCdE")];
    assert!(given(Some(&format!("[[app]]\n{app}\n")), &long, "").unwrap().warnings.is_empty());
}

#[test]
fn a_proxy_of_the_environment_is_named_with_the_line_to_paste_and_without_its_password() {
    let said = said_of(&[("HTTPS_PROXY", "http://me:passw0rd@proxy.internal:3128/")], "");
    only(&said, &["HTTPS_PROXY", "not used", "proxy = \"http://***@proxy.internal:3128\""]);
    assert!(!said[0].contains("passw0rd") && !said[0].contains("me:"), "{said:?}");
    only(&said_of(&[("https_proxy", "proxy.internal:3128")], ""), &["proxy = \"http://proxy.internal:3128\""]);
    only(&said_of(&[("ALL_PROXY", "http://proxy.internal")], ""), &["ALL_PROXY", "proxy = \"http://proxy.internal\""]);
    only(&said_of(&[("ALL_PROXY", "socks5://me:passw0rd@proxy.internal")], ""), &["ALL_PROXY", "only http and https"]);
    only(&said_of(&[("HTTPS_PROXY", "http://me:passw0rd@")], ""), &["HTTPS_PROXY", "not an address"]);
    let both = [("HTTPS_PROXY", "http://a:1"), ("https_proxy", "http://a:1"), ("ALL_PROXY", "http://b:1")];
    assert_eq!(said_of(&both, "").len(), 1);
}

#[test]
fn a_password_that_is_not_encoded_is_not_shown_in_parts() {
    for value in [
        "http://user:p@passw0rd/x@proxy.lan:3128",
        "http://user:12345/x@proxy.lan:3128",
        "http://user:12345?x@10.0.0.1:3128",
        "dom\\user:p4ss12345@10.0.0.1:3128",
        "http://p\"12345:1",
    ] {
        let said = said_of(&[("HTTPS_PROXY", value)], "");
        only(&said, &["HTTPS_PROXY", "proxy = \"http://HOST:PORT\""]);
        assert!(!said[0].contains("passw0rd") && !said[0].contains("12345") && !said[0].contains("dom"), "{said:?}");
    }
}

#[test]
fn an_appid_that_used_to_start_still_starts() {
    only(&quick("\u{feff}wx0123456789abcdef", SECRET), &["WECHAT_APPID", "begins with a byte order mark"]);
    only(&quick("wx0123456789abcdef\u{a0}", SECRET), &["WECHAT_APPID", "begins or ends with a blank"]);
}

#[test]
fn a_secret_in_the_place_of_an_appid_is_not_shown() {
    for appid in [format!("{SECRET}\r"), format!("{APPID}:{SECRET}\n"), format!("{SECRET} ")] {
        let said = fault(None, &[("WECHAT_APPID", &appid), ("WECHAT_SECRET", SECRET)], "");
        assert!(said.contains("WECHAT_APPID") && !said.contains(SECRET), "{said}");
    }
    let said = quick(&format!("{APPID}:{SECRET}"), SECRET);
    assert!(!said.join("\n").contains(SECRET), "{said:?}");
}

#[test]
fn nothing_is_said_of_a_proxy_that_is_not_meant_for_wechat() {
    let proxy = ("HTTPS_PROXY", "http://proxy.internal:3128");
    assert!(said_of(&[proxy], "proxy = \"http://other:1\"").is_empty());
    assert!(said_of(&[("HTTPS_PROXY", "")], "").is_empty());
    for covers in ["*", "qq.com", ".qq.com", "localhost, api.weixin.qq.com", "weixin.qq.com:443"] {
        assert!(said_of(&[proxy, ("NO_PROXY", covers)], "hosts = []").is_empty(), "{covers}");
    }
    // One host of several is not all of them.
    assert_eq!(said_of(&[proxy, ("no_proxy", "api.weixin.qq.com")], "").len(), 1);
    assert_eq!(said_of(&[proxy, ("NO_PROXY", "xqq.com,10.0.0.0/8")], "hosts = []").len(), 1);
    assert!(said_of(&[proxy], "base_url = \"http://127.0.0.1:8765\"").is_empty());
    assert!(!by_environment(&[proxy]).warnings.join("\n").contains("PROXY"), "there is nothing to call WeChat for");
}

#[test]
fn authorities_of_the_environment_are_named_with_the_line_to_paste() {
    only(&said_of(&[("SSL_CERT_FILE", "/etc/company.pem")], ""), &["SSL_CERT_FILE", "ca_file = \"/etc/company.pem\""]);
    only(&said_of(&[("SSL_CERT_DIR", "/etc/certs")], ""), &["SSL_CERT_DIR", "ca_file"]);
    only(
        &said_of(&[("SSL_CERT_FILE", "/etc/company.pem"), ("SSL_CERT_DIR", "/etc/certs")], ""),
        &["SSL_CERT_FILE", "SSL_CERT_DIR", "ca_file = \"/etc/company.pem\""],
    );
    let pem = format!("ca_file = \"{}/tests/configs/secrets/ca.pem\"", env!("CARGO_MANIFEST_DIR"));
    let with = given(Some(&format!("[upstream]\n{pem}\n")), &[("SSL_CERT_FILE", "/x")], "");
    assert!(with.is_err() || !with.unwrap().warnings.join("\n").contains("SSL_CERT_FILE"));
}

#[test]
fn a_pasted_line_whose_password_was_not_filled_in_is_refused() {
    let said = fault(Some("[upstream]\nproxy = \"http://***@proxy.internal:3128\"\n"), &[], "");
    assert!(said.contains("***") && said.contains("user and password"), "{said}");
}

#[test]
fn a_base_url_with_a_path_is_warned_about_and_taken() {
    let gateway = said_of(&[], "base_url = \"https://proxy.example/wechat\"");
    only(&gateway, &["base_url", "https://proxy.example/wechat/cgi-bin/"]);
    only(&said_of(&[], "hosts = [\"https://proxy.example/wechat\"]"), &["hosts", "/wechat/cgi-bin/"]);
    only(
        &said_of(&[], "base_url = \"https://api.weixin.qq.com/cgi-bin\""),
        &["base_url = \"https://api.weixin.qq.com\"", "cgi-bin twice"],
    );
    let own = format!("appid = \"{APPID}\"\nsecret_env = \"WX_SECRET\"\nbase_url = \"https://proxy.example/wechat/\"");
    only(&warnings_of(&own), &["base_url", "/wechat/cgi-bin/"]);
    assert!(said_of(&[], "base_url = \"https://proxy.example/\"").is_empty());
}

/// A name in quotes is one word, and no table stands below another by it.
#[test]
fn a_header_in_quotes_that_names_a_table_below_another_is_not_known() {
    for name in ["server.listener", "app.authorizer"] {
        let file = format!("[[\"{name}\"]]\nfile = \"/srv/{{appid}}.php\"\n");
        let said = fault(Some(&file), &[], "");
        assert!(said.contains(&format!(":1: \"{name}\" is not known")), "{said}");
        let beside = format!("{file}[[sink]]\nfile = \"/srv/{{type}}/{{id}}.php\"\n");
        let said = given(Some(&beside), &[], "").unwrap_err().to_string();
        assert!(said.contains(&format!("\"{name}\" is not known")), "{said}");
    }
}

/// Every fault of `[state]` at once, also of keys that the way in which nodes come together has no use for.
#[test]
fn the_values_of_state_are_judged_whichever_way_nodes_come_together() {
    let faults = |state: &str, variables: &[(&str, &str)]| {
        let file = format!("[state]\n{state}\n");
        let faults = given(Some(&file), variables, "").unwrap_err();
        let shown = faults.iter().map(|fault| format!("{}: {}", fault.place, fault.what)).collect::<Vec<_>>();
        shown
            .iter()
            .map(|said| said.split_once("tokencached.toml:").map_or(said.clone(), |said| said.1.to_owned()))
            .collect()
    };
    let common = "timeout_ms = \"x\"\nca_file = \"/nope\"";
    let both: Vec<String> = faults(&format!("url = \"redis://127.0.0.1\"\nupstream = \"ftp://x\"\n{common}"), &[]);
    assert_eq!(both.len(), 4, "{both:?}");
    assert!(both[0].starts_with("3: ") && both[0].contains("neither https nor http"), "{both:?}");
    assert!(both[1].starts_with("3: ") && both[1].contains("it stands beside url"), "{both:?}");
    assert!(both[2].starts_with("4: ") && both[2].contains("\"x\" is not a number"), "{both:?}");
    assert!(both[3].starts_with("5: ") && both[3].contains("/nope"), "{both:?}");
    let none: Vec<String> = faults(common, &[]);
    assert_eq!(none.len(), 4, "{none:?}");
    let neither = none.iter().filter(|said| said.contains("there is neither url nor leader_urls in [state]"));
    assert_eq!(neither.count(), 2, "{none:?}");
    let follower = "path = \"none\"\nleader_urls = \"http://127.0.0.1\"";
    let variables = [("TOKENCACHED_STATE_DB", "many"), ("TOKENCACHED_STATE_PREFIX", "{a}")];
    let of_store: Vec<String> = faults(follower, &variables);
    assert_eq!(of_store.len(), 4, "{of_store:?}");
    assert!(of_store.iter().any(|said| said.contains("\"many\" is not a number")), "{of_store:?}");
    assert!(of_store.iter().any(|said| said.contains("braces")), "{of_store:?}");
    let leader = "url = \"redis://127.0.0.1\"\nsecret = \"a-secret-of-nodes\"\nleader_ca_file = \"/nope\"";
    let of_leader: Vec<String> = faults(leader, &[]);
    assert_eq!(of_leader.len(), 2, "{of_leader:?}");
}

#[test]
fn a_key_file_beside_a_credential_that_is_none_is_said_too() {
    let sink = "[[sink]]\nurl = \"rediss://localhost\"\ncert_file = \"{pem}\"\nkey_file = \"{pem}\"\nkey_credential = [\"a\"]\n";
    let pem = format!("{}/tests/configs/secrets/server.pem", env!("CARGO_MANIFEST_DIR"));
    let said = given(Some(&sink.replace("{pem}", &pem)), &[], "").unwrap_err();
    let said: Vec<&str> = said.iter().map(|fault| fault.what.as_str()).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("a list stands where a text belongs"), "{said:?}");
    assert!(said[1].contains("key_file is given as well"), "{said:?}");
}
