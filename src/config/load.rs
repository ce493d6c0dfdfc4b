//! The three layers laid over each other: file < environment < flags; then the parts, and what follows from all of them.

use std::path::{Path, PathBuf};

use super::cluster::ClusterRole;
use super::environment::{self, Environment};
use super::fault::{Fault, Faults};
use super::file::{self, Document};
use super::old_names::OldNames;
use super::reader::Reader;
use super::schema::SECTIONS;
use super::value::Value;
use super::{Config, apps, flags};
use crate::cli::Flags;
use crate::credential;
use crate::platform::client::surroundings;
use crate::raw_value::Place;
use crate::telemetry::Options as Log;
use crate::texts::Language;

/// A configuration and what was said on the way to it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// Sentences for the operator; none stops the start.
    pub warnings: Vec<String>,
    /// Old names that are in use, and what to write: a sentence each.
    pub notices: Vec<String>,
    printed: String,
}

impl Loaded {
    /// All settings in effect as TOML. It loads again, except where a hidden secret stands.
    pub fn effective(&self) -> String {
        self.printed.clone()
    }
}

/// Reads the file, the environment and the flags; every fault of all three at once.
///
/// Reads the secret files too, to judge them. Relative paths in the file count from its folder, others from
/// the current one; all come out absolute, because a daemon changes its folder.
pub fn load(file: Option<&Path>, environment: &dyn Environment, flags: &Flags) -> Result<Loaded, Faults> {
    let (mut warnings, mut old_names) = (flags.ignored(), OldNames::default());
    let mut faults: Vec<Fault> = flags.refusals().into_iter().map(flags::fault).collect();
    let mut document = match file {
        Some(path) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            file::read(&path, &mut old_names, &mut faults)
        }
        None => Document::empty(),
    };
    environment::variables(&mut document, environment, &mut old_names, &mut faults, &mut warnings);
    flags::settings(&mut document, flags, &mut faults);
    let mut reader = Reader {
        environment,
        folder: document.folder.clone(),
        current: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
        file_is_open: document.open_to_others,
        cluster_role: ClusterRole::of(document.one("state")),
        faults,
        warnings,
    };

    let (server, access) = reader.server(&document, flags);
    let upstream = reader.upstream(document.one("upstream"));
    let http = reader.http(document.one("http"));
    let log = Log {
        verbosity: reader.value(document.one("log"), "verbosity"),
        json: reader.value(document.one("log"), "json"),
        advice_language: reader.word(document.one("log"), "advice_language", &Language::WORDS).unwrap_or_default(),
    };
    let state_path = reader.state_path(document.one("state"));
    let cluster = reader.cluster(document.one("state"));
    let apps = reader.apps(document.take_list("app"));
    let sinks = reader.sinks(document.list("sink"), apps.iter().map(|entry| &entry.app));
    // What is wrong with a sink is said already.
    if reader.faults.is_empty() {
        for app in apps.iter().map(|entry| &entry.app) {
            let is_in_a_sink = sinks.iter().any(|sink| sink.keeps_token_of(&app.id()));
            reader.accept(&Place::Default, app.judge_adopt(is_in_a_sink));
        }
    }
    if apps.is_empty() && reader.faults.is_empty() {
        reader.warnings.push(
            "no app is configured: this is a plain cache and keeps no access token current \
             (set WECHAT_APPID and WECHAT_SECRET, or write [[app]] in a file for --config)"
                .into(),
        );
    }
    let state_path = match state_path {
        Some(given) => given,
        None if apps.is_empty() => None,
        None => {
            let path = credential::default_state_path(environment);
            if path.is_none() {
                let what = "there is no folder for the state file, so tokens are fetched anew at each start";
                reader.warnings.push(format!("{what} (set state.path)"));
            }
            path
        }
    };
    let shown = state_path.clone().map_or_else(|| "none".into(), Value::Path);
    document.one("state").print("path", shown);
    if state_path.is_none() {
        let fault = apps.iter().find_map(|entry| entry.app.judge_without_state().err());
        fault.into_iter().for_each(|fault| reader.fault(&Place::Default, fault));
    }
    let Reader { faults, mut warnings, .. } = reader;
    if !faults.is_empty() {
        return Err(Faults::new(faults));
    }
    let printed = print(&document, &apps, http.is_some());
    let apps = apps.into_iter().map(|entry| entry.app).collect();
    let credentials = credential::Options { state_path, cluster, upstream, apps };
    warnings.extend(credentials.path_warnings());
    let hosts = credentials.called_hosts();
    warnings.extend(surroundings::unused(&|name| environment.get(name), &credentials.upstream, &hosts));
    let config = Config { server, access, credentials, http, sinks, log };
    warnings.extend(config.unknown_apps());
    let of_metrics = old_names.of_metrics(document.one("http"));
    let notices = old_names.notices().into_iter().chain(of_metrics).collect();
    Ok(Loaded { config, warnings, notices, printed })
}

/// All tables as they hold. A component's authorizers follow it.
fn print(document: &Document, apps: &[apps::Entry], has_http: bool) -> String {
    let mut out = String::new();
    for section in SECTIONS.iter().filter(|section| section.name != "http" || has_http) {
        if section.name == "app" {
            apps.iter().for_each(|entry| entry.table.write(&mut out));
        }
        for table in document.list(section.name) {
            table.write(&mut out);
            table.tables.iter().for_each(|below| below.write(&mut out));
        }
    }
    out.trim_start().to_owned()
}
