//! The table of settings: what docs and editors are told of it is generated, examples are valid by it, and its defaults are
//! those of the parts.

mod pages;

use std::fs;
use std::path::PathBuf;

use pages::LANGUAGES;
use serde_json::Value;
use tokencached::config::schema::{self, SECTIONS, Setting, Takes};
use tokencached::sink::options::SinkTo;
use tokencached::{cluster, http_api, platform, server, telemetry};

use crate::config::{by_environment, by_flags};
use crate::support::tokencached;

/// Set to write the files anew instead of comparing them.
const WRITE: &str = "TOKENCACHED_WRITE_REFERENCE";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn settings() -> impl Iterator<Item = &'static Setting> {
    SECTIONS.iter().flat_map(|section| section.settings())
}

#[test]
fn the_reference_and_the_json_schema_are_those_of_the_program() {
    let mut files = vec![("docs/tokencached.schema.json".to_owned(), pages::json_schema())];
    files.extend(LANGUAGES.map(|language| (format!("docs/{language}/settings.md"), pages::page(language))));
    for (name, text) in files {
        if std::env::var_os(WRITE).is_some() {
            fs::write(path(&name), &text).unwrap();
        }
        let there = fs::read_to_string(path(&name)).unwrap_or_default();
        assert!(
            there == text,
            "{name} is not what the program says: write it by {WRITE}=1 cargo test config_reference"
        );
    }
}

#[test]
fn every_setting_is_explained_in_both_languages() {
    for setting in settings() {
        let [english, chinese] = setting.says;
        assert!(!english.is_empty() && !chinese.is_empty() && english != chinese, "{}", setting.key);
        assert_eq!(setting.default_words[0].is_empty(), setting.default_words[1].is_empty(), "{}", setting.key);
    }
}

/// What is wrong with a value by the keywords that the schema uses.
fn validate(schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().unwrap() {
        let good = match keyword.as_str() {
            "type" => {
                let is = |name: &Value| match name.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64(),
                    other => panic!("{at}: {other}"),
                };
                rule.as_array().map_or_else(|| is(rule), |names| names.iter().any(is))
            }
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => value.as_i64() >= rule.as_i64(),
            "maximum" => value.as_i64() <= rule.as_i64(),
            "minItems" => value.as_array().is_some_and(|items| items.len() as u64 >= rule.as_u64().unwrap()),
            "anyOf" => rule.as_array().unwrap().iter().any(|one| {
                let mut inner = Vec::new();
                validate(one, value, at, &mut inner);
                inner.is_empty()
            }),
            "items" => {
                value.as_array().into_iter().flatten().for_each(|item| validate(rule, item, at, wrong));
                true
            }
            "properties" => {
                for (key, item) in value.as_object().into_iter().flatten() {
                    match rule.get(key) {
                        Some(rule) => validate(rule, item, &format!("{at}.{key}"), wrong),
                        None => wrong.push(format!("{at}.{key} is not known")),
                    }
                }
                true
            }
            "additionalProperties" => *rule == Value::Bool(false),
            // A text that is no size or mask is for the program to judge.
            "pattern" | "$schema" | "title" | "description" | "default" | "deprecated" => true,
            other => panic!("this test knows nothing of {other}"),
        };
        if !good {
            wrong.push(format!("{at}: {value} is not {keyword} {rule}"));
        }
    }
}

fn faults_of(name: &str) -> Vec<String> {
    let schema = serde_json::from_str(&pages::json_schema()).unwrap();
    let text = fs::read_to_string(path(name)).unwrap();
    let table: toml::Table = text.trim_start_matches('\u{feff}').parse().unwrap();
    let mut wrong = Vec::new();
    validate(&schema, &serde_json::to_value(table).unwrap(), "", &mut wrong);
    wrong
}

#[test]
fn our_own_files_are_valid_by_the_json_schema_and_wrong_ones_are_not() {
    let names = fs::read_dir(path("tests/configs")).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| format!("tests/configs/{}", name.to_str().unwrap()));
    let fine: Vec<String> = names.filter(|name| name.contains("/fine-") && name.ends_with(".toml")).collect();
    assert!(fine.len() > 8);
    for name in fine.iter().map(String::as_str).chain(["deploy/tokencached.toml", "deploy/several.toml"]) {
        assert_eq!(faults_of(name), Vec::<String>::new(), "{name}");
    }
    for name in ["app-unknown-key", "section-unknown", "server-threads-zero", "kind-unknown", "log-verbosity"] {
        assert_eq!(faults_of(&format!("tests/configs/{name}.toml")).len(), 1, "{name}");
    }
}

#[test]
fn every_default_is_in_its_range() {
    for setting in settings() {
        match &setting.takes {
            Takes::Number { low, high, default: Some(default), .. } | Takes::Size { low, high, default } => {
                assert!((low..=high).contains(&default), "{}", setting.key);
            }
            Takes::Word { of: words, default } => {
                assert!(default.is_empty() || words.contains(default), "{}", setting.key)
            }
            _ => {}
        }
    }
}

#[test]
fn the_defaults_of_the_table_are_those_of_the_parts() {
    let loaded = by_flags("").config;
    let shown = |part: &dyn std::fmt::Debug| format!("{part:#?}");
    assert_eq!(shown(&loaded.log), shown(&telemetry::Options::default()));
    assert_eq!(shown(&loaded.credentials.upstream), shown(&platform::ClientOptions::default()));
    let listen = loaded.server.listen.clone();
    assert_eq!(shown(&loaded.server), shown(&server::Options { listen, ..Default::default() }));
    let http = by_environment(&[("TOKENCACHED_HTTP_LISTEN", "127.0.0.1:0")]).config.http;
    assert_eq!(http, Some(http_api::Options::at(vec!["127.0.0.1:0".parse().unwrap()])));
}

/// What a table of a list gets without a word.
#[cfg(feature = "redis")]
#[test]
fn the_defaults_of_sinks_and_of_the_cluster_are_those_of_the_parts() {
    let file = "[state]\nurl = \"redis://127.0.0.1\"\nsecret_env = \"WX_SECRET\"\n[[sink]]\nurl = \"redis://127.0.0.1\"\n\
                [[sink]]\nfile = \"/srv/{type}\"\n[[sink]]\ncommand = [\"/bin/true\"]\n";
    let loaded = crate::config::given(Some(file), &[], "").unwrap_or_else(|faults| panic!("{faults}")).config;
    let of = |section: &str, key: &str| match schema::section(section).find(key).map(|setting| &setting.takes) {
        Some(Takes::Number { default: Some(default), .. }) => *default,
        other => panic!("{section}.{key}: {other:?}"),
    };
    let Some(cluster::Options::Redis(store)) = &loaded.credentials.cluster else { panic!() };
    assert_eq!(
        (store.server.timeout_ms, store.poll_every_ms),
        (of("state", "timeout_ms"), of("state", "poll_every_ms"))
    );
    assert_eq!((store.server.timeout_ms, store.poll_every_ms, store.prefix.as_str()), (1_000, 2_000, "tokencached"));
    for sink in &loaded.sinks {
        assert_eq!(sink.check_every_ms, 5_000);
        match &sink.to {
            SinkTo::Redis { server, .. } => assert_eq!(server.timeout_ms, of("sink", "timeout_ms")),
            SinkTo::File(file) => assert_eq!(file.mode, 0o660),
            SinkTo::Command(_) => assert_eq!(sink.rewrite_every_ms, 0),
            SinkTo::Sql(_) => panic!(),
        }
        assert!(matches!(sink.to, SinkTo::Command(_)) || sink.rewrite_every_ms == 300_000);
    }
}

/// The words of `endpoint` are those of the platforms, all of them.
#[test]
fn the_endpoints_of_the_table_are_those_of_the_platforms() {
    let Some(Takes::Word { of: words, .. }) = schema::section("app").find("endpoint").map(|setting| &setting.takes)
    else {
        panic!()
    };
    let known: Vec<&str> = platform::PLATFORMS.iter().flat_map(|one| one.tokens).map(|(word, _)| *word).collect();
    assert_eq!(*words, known);
}

/// Each word that the table has is one that is understood.
#[test]
fn every_word_of_the_table_is_understood() {
    for section in SECTIONS.iter().filter(|section| !section.is_list) {
        for setting in section.settings() {
            let Takes::Word { of: words, .. } = &setting.takes else { continue };
            for word in *words {
                let variable = section.variable(setting).unwrap();
                let said = crate::config::given(None, &[(&variable, word)], "").err().map(|faults| faults.to_string());
                assert!(!said.unwrap_or_default().contains("is not known here"), "{variable}={word}");
            }
        }
    }
}

/// The text of a flag names the default that the table has.
#[test]
fn the_help_has_the_defaults_of_the_table() {
    let help = String::from_utf8(tokencached().arg("--help").output().unwrap().stdout).unwrap();
    let mut seen = 0;
    for setting in settings().filter(|setting| setting.flag.len() == 2 && setting.flag != "-l") {
        let begins = format!("{},", setting.flag);
        let line = help.lines().find(|line| line.trim_start().starts_with(&begins)).unwrap();
        let Some((_, default)) = line.split_once("[default: ") else { continue };
        let expected = match &setting.takes {
            Takes::Number { default: Some(number), .. } => number.to_string(),
            Takes::Size { default, .. } if setting.flag == "-m" => (default >> 20).to_string(),
            Takes::Size { default, .. } => format!("{}m", default >> 20),
            Takes::Word { default: word, .. } => (*word).to_owned(),
            _ => setting.default_words[0].split(',').next().unwrap().replace(['`', '"'], ""),
        };
        assert_eq!(default.trim_end_matches(']'), expected, "{}", setting.key);
        seen += 1;
    }
    assert!(seen > 6, "{seen}");
}
