//! Names that settings had before: they do what the new ones do, and are said once, with what to write.

use tokencached::config::schema::SECTIONS;

use crate::config::{APPID, fault, given};

fn notices(file: Option<&str>, variables: &[(&str, &str)]) -> Vec<String> {
    given(file, variables, "").unwrap_or_else(|faults| panic!("{faults}")).notices
}

#[track_caller]
fn assert_same(old: &str, new: &str) {
    let [old, new] = [old, new].map(|file| given(Some(file), &[], "").unwrap_or_else(|faults| panic!("{faults}")));
    assert_eq!(old.effective(), new.effective());
    assert_eq!(format!("{:?}", old.config), format!("{:?}", new.config));
    assert!(!old.notices.is_empty() && new.notices.is_empty(), "{:?} {:?}", old.notices, new.notices);
}

#[test]
fn a_file_with_old_names_does_what_it_did() {
    let file = |http: &str| format!("[{http}]\nlisten = [\"127.0.0.1:0\"]\nmax_connections = 9\n");
    assert_same(&file("side"), &file("http"));
    let file = |platform: &str| {
        format!("[[app]]\nappid = \"ww0123456789abcdef\"\nsecret_env = \"WX_SECRET\"\n{platform} = \"wecom\"\n")
    };
    assert_same(&file("kind"), &file("platform"));
    let file = |[urls, key]: [&str; 2]| {
        let app = format!("[[app]]\nappid = \"{APPID}\"\n");
        format!("[state]\npath = \"none\"\n{urls} = \"http://127.0.0.1:2130\"\n{key} = \"WX_SECRET\"\n{app}")
    };
    assert_same(&file(["upstream", "upstream_key_env"]), &file(["leader_urls", "leader_key_env"]));
}

#[test]
fn each_old_name_is_said_once_with_its_first_place_and_the_new_one() {
    let app = |id: &str| format!("[[app]]\nappid = \"{id}\"\nsecret_env = \"WX_SECRET\"\nkind = \"wecom\"\n");
    let apps = app("ww0123456789abcdef") + &app("wwfedcba9876543210");
    let file = format!("[side]\nlisten = \"127.0.0.1:0\"\n{apps}");
    let notices = notices(Some(&file), &[("TOKENCACHED_SIDE_REQUESTS_PER_S", "7")]);
    assert_eq!(notices.len(), 4, "{notices:?}");
    for part in [
        ":1: [side] is an old name, still read: write [http]",
        ":6: kind is an old name, still read: write platform",
        "TOKENCACHED_SIDE_REQUESTS_PER_S is an old name, still read: write TOKENCACHED_HTTP_REQUESTS_PER_S",
        ":2: metrics have new names; old_metric_names = true beside listen gives those of before",
    ] {
        assert!(notices.iter().any(|notice| notice.ends_with(part)), "{part:?} is not in {notices:?}");
    }
    assert!(self::notices(Some("[log]\njson = true\n"), &[]).is_empty());
}

#[test]
fn an_old_variable_does_what_it_did() {
    let variables =
        [("TOKENCACHED_SIDE_LISTEN", "127.0.0.1:0"), ("TOKENCACHED_STATE_UPSTREAM", "http://127.0.0.1:2130")];
    let loaded = given(None, &variables, "").unwrap();
    assert!(loaded.config.http.is_some() && loaded.config.credentials.cluster.is_some());
    assert!(!loaded.warnings.join("\n").contains("TOKENCACHED_"), "{:?}", loaded.warnings);
    assert_eq!(loaded.notices.len(), 3);
}

#[test]
fn an_old_name_beside_the_new_one_is_a_fault_that_names_both() {
    for (file, what) in [
        ("[side]\n[http]\n", ":1: [side] is the old name of [http], and both are given\n     Keep [http]."),
        (
            "[state]\nupstream = \"http://127.0.0.1\"\nleader_urls = \"http://127.0.0.1\"\n",
            ":2: upstream is the old name of leader_urls, and both are given\n     Keep leader_urls.",
        ),
    ] {
        let shown = fault(Some(file), &[], "");
        assert!(shown.contains(what), "{shown}");
    }
}

/// A unit may set the one and a drop-in the other, which is no reason not to start.
#[test]
fn an_old_variable_beside_the_new_one_is_not_used_and_a_warning_names_both() {
    let variables = [("TOKENCACHED_SIDE_LISTEN", "127.0.0.1:1"), ("TOKENCACHED_HTTP_LISTEN", "127.0.0.1:2")];
    let loaded = given(None, &variables, "").unwrap_or_else(|faults| panic!("{faults}"));
    let listen = loaded.config.http.map(|http| http.listen).unwrap_or_default();
    assert_eq!(listen, ["127.0.0.1:2".parse().unwrap()]);
    let warning = "environment TOKENCACHED_SIDE_LISTEN is not used: it is the old name of TOKENCACHED_HTTP_LISTEN, \
                   which is set too";
    assert_eq!(loaded.warnings.iter().filter(|said| *said == warning).count(), 1, "{:?}", loaded.warnings);
    assert!(loaded.notices.is_empty(), "{:?}", loaded.notices);
    // What is not used is not judged, and one that is empty counts as not set.
    let variables = [("TOKENCACHED_SIDE_LISTEN", "nonsense:x"), ("TOKENCACHED_HTTP_LISTEN", "127.0.0.1:2")];
    assert!(given(None, &variables, "").is_ok());
    let variables = [("TOKENCACHED_SIDE_LISTEN", "127.0.0.1:1"), ("TOKENCACHED_HTTP_LISTEN", "")];
    assert!(given(None, &variables, "").unwrap().config.http.is_some());
}

/// Whoever has the old section has dashboards with the old metrics.
#[test]
fn a_listen_under_the_old_section_brings_a_notice_of_the_metrics_unless_their_names_are_chosen() {
    let of_metrics = |file: &str, variables: &[(&str, &str)]| -> Vec<String> {
        notices(Some(file), variables).into_iter().filter(|said| said.contains("metrics")).collect()
    };
    let listen = "listen = \"127.0.0.1:0\"\n";
    let said = of_metrics(&format!("[side]\nmax_connections = 9\n{listen}"), &[]);
    let end = ":3: metrics have new names; old_metric_names = true beside listen gives those of before";
    assert!(said.len() == 1 && said[0].ends_with(end), "{said:?}");
    let variable = [("TOKENCACHED_SIDE_LISTEN", "127.0.0.1:0")];
    let all = "environment TOKENCACHED_SIDE_LISTEN: metrics have new names; TOKENCACHED_HTTP_OLD_METRIC_NAMES=true gives \
               those of before";
    assert_eq!(of_metrics("", &variable), [all]);
    for on in [true, false] {
        let chosen = format!("[side]\n{listen}old_metric_names = {on}\n");
        assert!(of_metrics(&chosen, &[]).is_empty());
        let chosen = format!("[http]\nold_metric_names = {on}\n");
        assert!(of_metrics(&chosen, &variable).is_empty());
    }
    assert!(of_metrics(&format!("[http]\n{listen}"), &[]).is_empty());
    assert!(of_metrics(&format!("[http]\n{listen}"), &[("TOKENCACHED_SIDE_REQUESTS_PER_S", "7")]).is_empty());
}

/// Who misspells an old name is told the new one.
#[test]
fn a_misspelt_old_name_is_told_the_new_one() {
    for (file, what, remedy) in [
        ("[sid]\n", ":1: \"sid\" is not known", "Did you mean [http]?"),
        ("[sied]\n", ":1: \"sied\" is not known", "Did you mean [http]?"),
        ("[Side]\n", ":1: \"Side\" is not known", "Did you mean [http]?"),
        ("[sides]\n", ":1: \"sides\" is not known", "Did you mean [http]?"),
        ("[sinks]\n", ":1: \"sinks\" is not known", "Did you mean [[sink]]?"),
        ("kind = \"mp\"\n", ":1: \"kind\" is not known", "It belongs under a line [[app]]: write platform."),
        (
            "upstream_key_file = \"/k\"\n",
            ":1: \"upstream_key_file\" is not known",
            "It belongs under a line [state]: write leader_key_file.",
        ),
        (
            "[server]\nupstream_key_file = \"/k\"\n",
            ":2: \"upstream_key_file\" is not a key of [server]",
            "It belongs under a line [state]: write leader_key_file.",
        ),
        ("[state]\nupstraem = \"x\"\n", ":2: \"upstraem\" is not a key of [state]", "Did you mean \"leader_urls\"?"),
        (
            "[state]\nupstream_keyfile = \"x\"\n",
            ":2: \"upstream_keyfile\" is not a key of [state]",
            "Did you mean \"leader_key_file\"?",
        ),
        (
            "[server]\nrequests_per_s = 1\n",
            ":2: \"requests_per_s\" is not a key of [server]",
            "Did you mean \"requests_per_turn\"?",
        ),
    ] {
        let shown = fault(Some(file), &[], "");
        assert!(shown.contains(&format!("{what}\n     {remedy}")), "{remedy} is not in {shown}");
    }
    for key in ["kimd", "Kind"] {
        let app = format!("[[app]]\nappid = \"{APPID}\"\nsecret_env = \"WX_SECRET\"\n{key} = \"mp\"\n");
        let shown = fault(Some(&app), &[], "");
        assert!(shown.contains(":4: ") && shown.contains("Did you mean \"platform\"?"), "{shown}");
    }
}

/// A setting that never had another name has no old one: `_file` in a table is a key that nobody knows.
#[test]
fn every_old_key_is_one_that_there_was() {
    let renamed = [
        ("app", "kind"),
        ("sink", "kinds"),
        ("state", "upstream"),
        ("state", "upstream_ca_file"),
        ("state", "upstream_key"),
        ("state", "upstream_key_credential"),
        ("state", "upstream_key_env"),
        ("state", "upstream_key_file"),
    ];
    for section in SECTIONS.iter() {
        for setting in section.settings().filter(|setting| !setting.old_key.is_empty()) {
            assert!(renamed.contains(&(section.name, setting.old_key)), "[{}] {}", section.name, setting.old_key);
        }
    }
    let app = format!("[[app]]\nappid = \"{APPID}\"\n_file = \"/etc/wechat\"\n");
    let faults = given(Some(&app), &[], "").unwrap_err().to_string();
    assert!(faults.contains("\"_file\" is not a key of [[app]]"), "{faults}");
}
