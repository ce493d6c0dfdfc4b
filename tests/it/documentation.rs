//! What is added stands in all the places where people and programs look for it. `tests/README.md` has the table: what is
//! added, where it belongs, which of these tests tells.

mod translations;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tokencached::platform::component::AUTHORIZERS;
use tokencached::platform::{CredentialType, FetchParams, PLATFORMS, Platform};
use tokencached::sandbox::{Options, Sandbox};
use tokencached::secret::Secret;
use tokencached::{preset, sink};

use crate::support::markdown::text;
use crate::support::{Client, Node, Wechat, tokencached, wait_for};

/// All pages of a folder in one.
fn pages(folder: &str) -> String {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".md")).map(|name| text(&format!("{folder}/{name}"))).collect()
}

/// Of these names those that the page has not in backticks, alone or in quotes.
fn lacking<'a>(page: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let stands = |name: &str| page.contains(&format!("`{name}`")) || page.contains(&format!("\"{name}\""));
    names.into_iter().filter(|name| !stands(name)).collect()
}

#[track_caller]
fn assert_named<'a>(place: &str, page: &str, names: impl IntoIterator<Item = &'a str>) {
    let lacking = lacking(page, names);
    assert!(lacking.is_empty(), "{place} does not name {lacking:?}");
}

/// The row of a table that begins with this name in backticks.
fn row<'p>(page: &'p str, name: &str) -> &'p str {
    let begins = format!("| `{name}` |");
    page.lines().find(|line| line.starts_with(&begins)).unwrap_or_else(|| panic!("no row of {name}"))
}

fn credential_types() -> impl Iterator<Item = (&'static Platform, &'static str, &'static CredentialType)> {
    let all = PLATFORMS.iter().copied().chain([&AUTHORIZERS]);
    all.flat_map(|platform| {
        platform.tokens.iter().chain(platform.tickets).map(move |(word, of_type)| (platform, *word, *of_type))
    })
}

/// The names of all presets: of keys, of tables of a database, of files.
fn preset_names() -> impl Iterator<Item = &'static str> {
    let keys = preset::presets().iter().map(|preset| preset.name.as_str());
    let tables = sink::sql_presets::SQL_PRESETS.iter().map(|preset| preset.name);
    let files = sink::file_presets::FILE_PRESETS.iter().map(|preset| preset.name);
    keys.chain(tables).chain(files)
}

#[test]
fn a_preset_is_in_the_manual_and_on_a_page_for_movers_in_both_languages() {
    let sdk_and_sinks = text("docs/en/sdk.md") + &text("docs/en/sinks.md");
    assert_named("docs/en/sdk.md or docs/en/sinks.md", &sdk_and_sinks, preset_names());
    for language in ["en", "zh"] {
        let folder = format!("docs/{language}/moving");
        assert_named(&folder, &pages(&folder), preset_names());
    }
}

/// Settings have theirs in `config_reference::the_reference_and_the_json_schema_are_those_of_the_program`.
#[test]
fn a_platform_is_in_the_manual_of_both_languages_and_on_the_page() {
    let settings = text("docs/en/settings.md");
    let app = settings.split("\n## `[[app]]`").nth(1).unwrap();
    let names = || PLATFORMS.iter().map(|platform| platform.name);
    assert_named("the row `platform` of docs/en/settings.md", row(app, "platform"), names());
    for page in ["docs/en/running.md", "docs/zh/running.md"] {
        assert_named(page, &text(page), names());
    }
    for platform in names().chain([AUTHORIZERS.name]) {
        assert_page_has_words(&format!("platform_{platform}"));
    }
    for platform in PLATFORMS {
        if platform.tokens.len() > 1 {
            let words = platform.tokens.iter().map(|(word, _)| *word);
            assert_named("the row `endpoint` of docs/en/settings.md", row(app, "endpoint"), words);
        }
        let words = platform.tickets.iter().map(|(word, _)| *word);
        assert_named("the row `tickets` of docs/en/settings.md", row(app, "tickets"), words);
    }
}

#[test]
fn what_is_kept_is_named_where_it_can_be_chosen() {
    let sinks = text("docs/en/settings.md");
    let sinks = sinks.split("\n## `[[sink]]`").nth(1).unwrap();
    let keys = || credential_types().map(|(_, _, of_type)| of_type.key);
    assert_named("the row `types` of docs/en/settings.md", row(sinks, "types"), keys());
    assert_named("docs/en/http-api.md", &text("docs/en/http-api.md"), keys());
}

/// It answers the call for it, so that a platform can be tried without an account.
#[tokio::test]
async fn the_sandbox_knows_every_platforms_calls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (platform, word, of_type) in credential_types() {
        let (secret, base_url) = (Secret::new("s".into()), sandbox.base_url());
        let ask =
            FetchParams { base_url: &base_url, appid: "a", secret: &secret, token: "t", component: "c", force: false };
        let sent = of_type.request(&ask);
        let query: Vec<String> = sent.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let url = format!("{}?{}", sent.url, query.join("&"));
        let request = match sent.body {
            Some(body) => client.post(url).body(body),
            None => client.get(url),
        };
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}: {word}: the sandbox does not know the call", platform.name);
    }
    let help = help("sandbox");
    for platform in PLATFORMS {
        let flag = if platform.name == "mp" { "--app".to_owned() } else { format!("--{}", platform.name) };
        assert!(help.contains(&format!("{flag} <")), "tokencached sandbox has no {flag}");
    }
}

fn help(command: &str) -> String {
    let output = tokencached().args([command, "--help"]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// memcached's own flags are in `running.md`, which `readme::the_table_of_flags_is_what_the_help_says` holds.
#[test]
fn a_flag_of_a_command_is_in_the_manual() {
    let manual = text("README.md") + &pages("docs/en");
    let flags_of = |command| -> BTreeSet<String> {
        let help = help(command);
        let lines = help.lines().filter(|line| line.trim_start().starts_with('-'));
        let words = lines.filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")));
        words.map(|word| word.trim_end_matches("...").to_owned()).collect()
    };
    let served = flags_of("serve");
    for command in ["sandbox", "demo", "check", "health"] {
        let own = flags_of(command);
        for flag in own.iter().filter(|flag| !served.contains(*flag)) {
            let goes_on = |rest: &str| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
            let known = manual.split(flag.as_str()).skip(1).any(|rest| !goes_on(rest));
            assert!(known, "no page names {flag} of `tokencached {command}`");
        }
        assert!(own.len() >= 3, "{own:?}");
    }
}

/// The names in an answer to `stats ...`; of `stats tokens` without the app.
fn figures(client: &mut Client, argument: &str) -> BTreeSet<String> {
    let answer = String::from_utf8(client.ask(format!("stats {argument}\r\n"))).unwrap();
    let names = answer.lines().filter_map(|line| line.strip_prefix("STAT ")?.split(' ').next());
    names.map(|name| name.rsplit(':').next().unwrap().to_owned()).collect()
}

/// What memcached has too is not explained here; `statistics::general_names_are_memcacheds_and_a_few_of_our_own` tells
/// which that is.
#[test]
fn a_figure_of_stats_is_in_the_manual() {
    let wechat = Wechat::start();
    wechat.freeze_secret(crate::support::APPID, true);
    let sinks = "[[sink]]\ncommand = [\"/bin/true\"]\n";
    let node = Node::start(&format!("{}{sinks}", wechat.config("", "aliases = [\"{any}:access_token\"]")), &[]);
    let mut client = node.connect();
    wait_for("a failure", || client.stat("tokens", &format!("{}:last_error", crate::support::APPID)));
    let manual = text("docs/en/statistics.md");
    let listed = |name: &str| manual.contains(&format!("`{name}`"));
    for name in figures(&mut client, "tokens") {
        assert!(listed(&name), "docs/en/statistics.md does not explain {name} of stats tokens");
    }
    let follower = "[state]\npath = \"none\"\nupstream = \"http://127.0.0.1:9\"\n[[app]]\nappid = \"wx1\"\n";
    let follower = Node::start(follower, &[]);
    let own = crate::statistics::OWN.iter().map(|name| (*name).to_owned());
    let own = own.chain(figures(&mut client, "")).chain(figures(&mut follower.connect(), ""));
    let own: BTreeSet<String> = own.filter(|name| !crate::statistics::is_memcacheds(name)).collect();
    assert!(own.len() > 25, "{own:?}");
    let sinks_page = text("docs/en/sinks.md");
    for name in own {
        let known = if name.starts_with("sink_") { sinks_page.contains(&format!("`{name}`")) } else { listed(&name) };
        let short = |name: &str| sinks_page.contains(&format!("`_{}`", name.rsplit("last_write_").next().unwrap()));
        assert!(known || (name.starts_with("sink_0_last_write_") && short(&name)), "no page explains {name} of stats");
    }
}

/// The strings in `fn name` of an `impl`.
fn names_of(file: &str, implementation: &str) -> BTreeSet<String> {
    let source = text(file);
    let body = source.split(&format!("impl {implementation} {{")).nth(1).unwrap();
    let body = body.split("fn name(").nth(1).unwrap().split("\n    }\n").next().unwrap();
    body.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The enumeration in the description of the API.
fn described(schema: &str, property: &str) -> BTreeSet<String> {
    let api: serde_json::Value = serde_json::from_str(&text("src/http_api/openapi.json")).unwrap();
    let found = &api["components"]["schemas"][schema]["properties"][property]["enum"];
    let found = found.as_array().unwrap_or_else(|| panic!("{schema}.{property} is no enumeration"));
    found.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn assert_page_has_words(name: &str) {
    let words = text("src/http_api/page/words.js");
    for language in ["en", "zh"] {
        let part = words.split(&format!("const {language} = {{")).nth(1).unwrap().split("\n};").next().unwrap();
        let stands = [format!(" {name}: "), format!(" \"{name}\": ")].iter().any(|word| part.contains(word));
        assert!(stands, "src/http_api/page/words.js has no {name} in {language}");
    }
}

#[test]
fn what_the_api_can_say_is_described_and_has_words_on_the_page() {
    for (file, implementation, schema, property, words) in [
        ("src/credential/journal.rs", "Event", "Entry", "event", &["ev_{}"][..]),
        ("src/credential/table.rs", "CredentialState", "Credential", "state", &["{}", "{}_means"]),
        ("src/credential/facts.rs", "VerificationResult", "Check", "verdict", &["verdict_{}"]),
        ("src/platform/failure.rs", "FailureClass", "Error", "class", &["class_{}", "out_{}"]),
    ] {
        let said = names_of(file, implementation);
        assert!(said.len() > 3, "{file}: {said:?}");
        assert_eq!(said, described(schema, property), "{file} beside {schema}.{property} in src/http_api/openapi.json");
        for word in said.iter().flat_map(|name| words.iter().map(move |form| form.replace("{}", name))) {
            assert_page_has_words(&word);
        }
    }
    for word in described("Verdict", "verdict") {
        assert_page_has_words(&format!("did_{word}"));
        assert_named("docs/en/http-api.md", &text("docs/en/http-api.md"), [word.as_str()]);
    }
    for word in described("Sink", "type") {
        assert_page_has_words(&format!("sink_{word}"));
    }
}

/// Classes and states are also what operators read in the log and in `stats tokens`.
#[test]
fn a_state_and_a_class_are_explained_to_operators() {
    let statistics = text("docs/en/statistics.md");
    let states = names_of("src/credential/table.rs", "CredentialState");
    assert_named("docs/en/statistics.md", &statistics, states.iter().map(String::as_str));
    for page in ["docs/en/renewal.md", "docs/zh/renewal.md"] {
        let classes = names_of("src/platform/failure.rs", "Class");
        assert_named(page, &text(page), classes.iter().map(String::as_str));
    }
}

/// `http_api::openapi` holds that those under `/v1` are in the description, and the other way round.
#[test]
fn a_route_and_a_problem_of_the_http_port_are_in_the_manual() {
    let manual = text("docs/en/http-api.md");
    let routes = text("src/http_api/routes.rs");
    let routes: Vec<&str> = routes.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(routes.len() > 15);
    for route in routes {
        assert!(manual.contains(route), "docs/en/http-api.md does not name {route}");
    }
    let mut problems = BTreeSet::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http_api")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(path).unwrap();
            for call in source.split("Problem::new(StatusCode::").skip(1) {
                problems.extend(call.split('"').nth(1).map(str::to_owned));
            }
        }
    }
    problems.remove("internal");
    assert!(problems.len() > 15, "{problems:?}");
    assert_named("docs/en/http-api.md", &manual, problems.iter().map(String::as_str));
}
