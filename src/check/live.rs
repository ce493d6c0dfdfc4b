//! `check --live`: asks WeChat once for each app, and each sink's store and the shared Redis whether they let us in.
//!
//! Never forces a new token, never shows a token or a secret.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::report::{CheckOutcome, CheckReport, Subject};
#[cfg(feature = "redis")]
use crate::cluster;
use crate::config::Config;
use crate::credential::App;
use crate::platform::Client;
use crate::platform::ClientOptions;
use crate::platform::{FetchParams, component};
#[cfg(feature = "redis")]
use crate::redis_client::{self, RedisClient};
use crate::secret::fingerprint;
use crate::secret_source::SecretSource;
use crate::sink::{self, options::SinkTo};

/// Asks all and records how it went.
///
/// Always the stable endpoint, unforced: it shows whether appid, secret, allow-list and network are right, and it
/// touches no token in use, also where the app is configured for the classic one (the two are isolated).
pub async fn ask_all(config: &Config, report: &mut CheckReport) -> Result<(), String> {
    ask_apps(config, report).await?;
    for sink in &config.sinks {
        let outcome = match &sink.to {
            // What there is to say of them has been said.
            SinkTo::File(_) => continue,
            // The configuration has been refused otherwise.
            SinkTo::Command(_) => {
                CheckOutcome::NotAsked("a command is not run; it is there, and nobody else can change it".to_owned())
            }
            SinkTo::Redis { .. } | SinkTo::Sql(_) => match try_sink(sink).await {
                Ok(()) => CheckOutcome::Good("it lets us in".to_owned()),
                Err(fault) => CheckOutcome::Bad(format!("no: {fault}")),
            },
        };
        report.record(Subject::Sink, format!("sink {sink}"), outcome);
    }
    #[cfg(feature = "redis")]
    if let Some(cluster::Options::Redis(state)) = &config.credentials.cluster {
        let outcome = match redis_client::try_connect(&RedisClient::of_key(state.server.clone(), &state.key())).await {
            Ok(()) => CheckOutcome::Good("it lets us in and is a master".to_owned()),
            Err(fault) => CheckOutcome::Bad(format!("no: {fault}")),
        };
        report.record(Subject::State, format!("state {}", state.server), outcome);
    }
    if config.credentials.apps.is_empty() {
        report.note("no app is configured, so there is nothing to ask WeChat");
    }
    Ok(())
}

/// As many at once as the server would ask, so that many apps do not wait for one that does not answer.
async fn ask_apps(config: &Config, report: &mut CheckReport) -> Result<(), String> {
    let client = Client::new(&config.credentials.upstream).map_err(|error| error.to_string())?;
    let upstream = Arc::new(config.credentials.upstream.clone());
    let at_once = Arc::new(Semaphore::new(config.credentials.upstream.concurrency.max(1)));
    let mut asked = JoinSet::new();
    for (index, app) in config.credentials.apps.iter().cloned().enumerate() {
        let (client, upstream, at_once) = (client.clone(), upstream.clone(), at_once.clone());
        asked.spawn(async move {
            let _permit = at_once.acquire().await;
            (index, ask(&client, &app, &upstream).await)
        });
    }
    let mut outcomes = asked.join_all().await;
    outcomes.sort_by_key(|(index, _)| *index);
    for ((_, outcome), app) in outcomes.into_iter().zip(&config.credentials.apps) {
        report.record(Subject::App, app.shown(), outcome);
    }
    Ok(())
}

/// Whether a sink lets us in, and would take what is written there.
async fn try_sink(sink: &sink::Options) -> Result<(), String> {
    match &sink.to {
        #[cfg(feature = "redis")]
        SinkTo::Redis { server, .. } => redis_client::try_connect(&RedisClient::new(server.clone())).await,
        #[cfg(feature = "sql")]
        SinkTo::Sql(_) => crate::sink::try_sql(sink).await,
        #[allow(unreachable_patterns)]
        _ => Ok(()),
    }
}

async fn ask(client: &Client, app: &App, upstream: &ClientOptions) -> CheckOutcome {
    if app.secret.is_absent() {
        return CheckOutcome::NotAsked("it has no secret here and is only followed".to_owned());
    }
    let secret = match app.secret.read_in_background().await {
        Ok(secret) => secret,
        Err(fault) => {
            let file = match &app.secret {
                SecretSource::File(file) => format!(" file {}", file.path().display()),
                _ => String::new(),
            };
            return CheckOutcome::Bad(format!("the secret{file} {fault}"));
        }
    };
    if app.platform.name == component::PLATFORM.name || app.component.is_some() {
        // Every call of the open platform's makes a new token, and may end the one in use.
        return CheckOutcome::NotAsked("the open platform has no call that leaves the token in use alone".to_owned());
    }
    // The platform's harmless way to ask, whichever is configured.
    let kind = app.platform.tokens.first().map_or(app.token, |(_, kind)| *kind);
    let ask = FetchParams {
        base_url: app.base_url(upstream),
        appid: &app.appid,
        secret: &secret,
        token: "",
        component: "",
        force: false,
    };
    match client.fetch(kind, &ask, Duration::from_millis(upstream.total_timeout_ms)).await {
        Ok(token) => CheckOutcome::Good(format!(
            "WeChat gave a token of {} bytes with {} s to live (fingerprint {})",
            token.value.len(),
            token.expires_in_s,
            fingerprint(&token.value)
        )),
        Err(failure) => {
            let rid = failure.rid.as_deref().map(|rid| format!(" (rid {rid})")).unwrap_or_default();
            CheckOutcome::Bad(format!("no token: {failure}{rid}\nwhat to do: {}", failure.advice()))
        }
    }
}
