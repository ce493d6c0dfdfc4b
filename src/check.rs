//! `tokencached check`: says what a start would do, and with `--live` asks WeChat once for each app, and each sink's
//! Redis whether it lets us in.
//!
//! Never forces a new token, never shows a token or a secret.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Access;

#[cfg(feature = "redis")]
use crate::config::Nodes;
use crate::config::{self, App, Config, Loaded, SinkEntry, SinkTo, Upstream};
use crate::credential;
#[cfg(feature = "redis")]
use crate::engine::{self, Engine};
use crate::kind::{Ask, component};
use crate::secret::fingerprint;
use crate::sink::unit;
use crate::upstream::Client;

/// Prints the warnings and the effective settings, secrets hidden.
pub fn settings(loaded: &Loaded, out: &mut impl Write) -> io::Result<()> {
    for warning in &loaded.warnings {
        writeln!(out, "# warning: {warning}")?;
    }
    writeln!(out, "# the settings in effect")?;
    out.write_all(loaded.effective().as_bytes())?;
    for hint in loaded.config.apps.iter().filter_map(App::moving_hint) {
        writeln!(out, "# {hint}")?;
    }
    Ok(())
}

/// Folders of one sink that are spoken of; sites with a folder an app have thousands.
const FOLDERS_MAX: usize = 5;

/// Says what the shipped systemd unit needs to write the files of sinks, and whether this process may.
pub fn files(config: &Config, out: &mut impl Write) -> io::Result<()> {
    for sink in config.sinks.iter().filter(|sink| matches!(sink.to, SinkTo::File(_))) {
        let folder = |entry: &SinkEntry| Path::new(&entry.name).parent().map(Path::to_owned);
        let folders: BTreeSet<PathBuf> = sink.entries.iter().filter_map(folder).collect();
        for folder in folders.iter().take(FOLDERS_MAX) {
            let state = match rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK) {
                Ok(()) => "this process may write there".to_owned(),
                Err(errno) => format!("this process may not write there: {}", io::Error::from(errno)),
            };
            writeln!(out, "# sink {sink}: {}: {state}", folder.display())?;
            writeln!(out, "#   files there get its group if it was made by: {}", unit::command(folder))?;
            writeln!(out, "#   the systemd unit needs a drop-in (systemctl edit tokencached):")?;
            unit::lines(folder).iter().try_for_each(|line| writeln!(out, "#     {line}"))?;
        }
        if folders.len() > FOLDERS_MAX {
            writeln!(out, "#   and so on for {} more folders", folders.len() - FOLDERS_MAX)?;
        }
    }
    Ok(())
}

/// Says it if a server has the state file now, as is usual beside one that runs. Keeps nobody from it.
pub fn state(config: &Config, out: &mut impl Write) -> io::Result<()> {
    match credential::state_in_use(config) {
        Some(text) => writeln!(out, "# {text}"),
        None => Ok(()),
    }
}

/// Asks WeChat once for each app and says what it answered and what to do about it; tries the door of each sink. True
/// if all is well.
///
/// Always the stable endpoint, unforced: it shows whether appid, secret, allow-list and network are right, and it
/// touches no token in use, also where the app is configured for the classic one (the two are isolated).
pub async fn live(config: &Config, out: &mut impl Write) -> Result<bool, String> {
    let client = Client::new(&config.upstream).map_err(|error| error.to_string())?;
    let deadline = Duration::from_millis(config.upstream.total_timeout_ms);
    let mut all_well = true;
    for app in &config.apps {
        let (well, text) = ask(&client, app, &config.upstream, deadline).await;
        all_well &= well;
        writeln!(out, "# {}: {text}", app.shown()).map_err(|error| format!("cannot print: {error}"))?;
    }
    for sink in &config.sinks {
        let text = match &sink.to {
            // `check` has said above what there is to say.
            SinkTo::File(_) => continue,
            // The configuration has been refused otherwise.
            SinkTo::Command(_) => "not run; it is there, and nobody else can change it".to_owned(),
            SinkTo::Redis { .. } | SinkTo::Sql(_) => {
                let tried = try_sink(sink).await;
                all_well &= tried.is_ok();
                tried.err().map_or("good: it lets us in".to_owned(), |fault| format!("no: {fault}"))
            }
        };
        writeln!(out, "# sink {sink}: {text}").map_err(|error| format!("cannot print: {error}"))?;
    }
    #[cfg(feature = "redis")]
    if let Some(Nodes::Redis(state)) = &config.nodes {
        let tried = engine::try_out(&Engine::of_key(state.server.clone(), &state.key())).await;
        all_well &= tried.is_ok();
        let text = tried.err().map_or("good: it lets us in and is a master".to_owned(), |fault| format!("no: {fault}"));
        writeln!(out, "# state {}: {text}", state.server).map_err(|error| format!("cannot print: {error}"))?;
    }
    if config.apps.is_empty() {
        writeln!(out, "# no app is configured, so there is nothing to ask WeChat")
            .map_err(|error| format!("cannot print: {error}"))?;
    }
    Ok(all_well)
}

/// Whether a sink lets us in, and would take what is written there.
async fn try_sink(sink: &config::Sink) -> Result<(), String> {
    match &sink.to {
        #[cfg(feature = "redis")]
        SinkTo::Redis { server, .. } => engine::try_out(&Engine::new(server.clone())).await,
        #[cfg(feature = "sql")]
        SinkTo::Sql(_) => crate::sink::try_sql(sink).await,
        #[allow(unreachable_patterns)]
        _ => Ok(()),
    }
}

async fn ask(client: &Client, app: &App, upstream: &Upstream, deadline: Duration) -> (bool, String) {
    if app.secret.is_absent() {
        return (true, "not asked: it has no secret here and is only followed".to_owned());
    }
    let secret = match app.secret.read() {
        Ok(secret) => secret,
        Err(fault) => return (false, format!("the secret cannot be read: {fault}")),
    };
    if app.platform.name == component::PLATFORM.name || app.component.is_some() {
        // Every call of the open platform's makes a new token, and may end the one in use.
        return (true, "not asked: the open platform has no call that leaves the token in use alone".to_owned());
    }
    // The platform's harmless way to ask, whichever is configured.
    let kind = app.platform.tokens.first().map_or(app.token, |(_, kind)| *kind);
    let ask = Ask {
        base_url: app.base_url(upstream),
        appid: &app.appid,
        secret: &secret,
        token: "",
        component: "",
        force: false,
    };
    match client.fetch(kind, &ask, deadline).await {
        Ok(token) => (
            true,
            format!(
                "good: WeChat gave a token of {} bytes with {} s to live (fingerprint {})",
                token.value.len(),
                token.expires_in_s,
                fingerprint(&token.value)
            ),
        ),
        Err(failure) => {
            let rid = failure.rid.as_deref().map(|rid| format!(" (rid {rid})")).unwrap_or_default();
            (false, format!("no token: {failure}{rid}\n#   what to do: {}", failure.advice()))
        }
    }
}
