//! `check --live`: fetches a token for each app, and logs in to each sink's store and to the cluster store.
//!
//! Never forces a new token, never shows a token or a secret.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};

use super::report::{CheckOutcome, CheckReport, Subject};
#[cfg(feature = "redis")]
use crate::cluster;
use crate::config::Config;
use crate::credential::App;
use crate::platform::{Client, ClientOptions, FetchParams, Upstream, component};
#[cfg(feature = "redis")]
use crate::redis_client::{self, RedisClient};
use crate::secret::fingerprint;
use crate::secret_source::SecretSource;
use crate::sink::{self, options::SinkTo};

/// Checks all apps and stores, and records the results.
///
/// Always calls the stable endpoint, unforced. That shows whether appid, secret, allow-list and network are right, and ends
/// no token in use, also if the app is on the classic endpoint: the two are independent.
pub async fn check_live(config: &Config, report: &mut CheckReport) -> Result<(), String> {
    check_apps(config, report).await?;
    for sink in &config.sinks {
        let outcome = match &sink.to {
            // `folders` has examined the folders of files.
            SinkTo::File(_) => continue,
            // The loader has examined the command's file.
            SinkTo::Command(_) => CheckOutcome::NotAsked(
                "the command is not run here; its file exists, and no other user can change it".to_owned(),
            ),
            SinkTo::Redis { .. } | SinkTo::Sql(_) => match check_sink(sink).await {
                Ok(()) => CheckOutcome::Good("login works".to_owned()),
                Err(fault) => CheckOutcome::Bad(format!("no: {fault}")),
            },
        };
        report.record(Subject::Sink, format!("sink {sink}"), outcome);
    }
    #[cfg(feature = "redis")]
    if let Some(cluster::Options::Redis(state)) = &config.credentials.cluster {
        let outcome = match redis_client::try_connect(&RedisClient::of_key(state.server.clone(), &state.key())).await {
            Ok(()) => CheckOutcome::Good("login works, and it is a master".to_owned()),
            Err(fault) => CheckOutcome::Bad(format!("no: {fault}")),
        };
        report.record(Subject::ClusterStore, format!("state {}", state.server), outcome);
    }
    if config.credentials.apps.is_empty() {
        report.note("no app is configured, so there is nothing to ask WeChat");
    }
    Ok(())
}

/// As many calls at once as the server would make.
async fn check_apps(config: &Config, report: &mut CheckReport) -> Result<(), String> {
    let (apps, upstream) = (&config.credentials.apps, &config.credentials.upstream);
    let client = Client::new(upstream)?;
    let asked = apps.iter().map(|app| fetch_one(&client, app, upstream));
    for (app, outcome) in apps.iter().zip(run_all(upstream.concurrency, asked).await) {
        report.record(Subject::App, app.display_name(), outcome);
    }
    Ok(())
}

/// What these come to, in their order, with so many at once. One that takes long holds up no other.
async fn run_all<T>(at_once: usize, work: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let numbered = work.enumerate().map(async |(at, work)| (at, work.await));
    let mut done: Vec<(usize, T)> = stream::iter(numbered).buffer_unordered(at_once.max(1)).collect().await;
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Whether the login at a sink's store works, and we may write there.
async fn check_sink(sink: &sink::Options) -> Result<(), String> {
    match &sink.to {
        #[cfg(feature = "redis")]
        SinkTo::Redis { server, .. } => redis_client::try_connect(&RedisClient::new(server.clone())).await,
        #[cfg(feature = "sql")]
        SinkTo::Sql(_) => crate::sink::try_sql(sink).await,
        #[allow(unreachable_patterns)]
        _ => Ok(()),
    }
}

async fn fetch_one(client: &Client, app: &App, upstream: &ClientOptions) -> CheckOutcome {
    if app.secret.is_absent() {
        return CheckOutcome::NotAsked("this node has no secret of it and only follows".to_owned());
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
        // Each call of the open platform makes a new token and may end the one in use.
        return CheckOutcome::NotAsked("each call of the open platform would replace the token in use".to_owned());
    }
    // The first endpoint ends no token in use, whichever is configured.
    let token = app.platform.tokens.first().map_or(app.token, |(_, token)| *token);
    let params = FetchParams {
        base_url: app.base_url(upstream),
        appid: &app.appid,
        secret: &secret,
        token: "",
        component: "",
        force: false,
    };
    match client.fetch(token, params, Duration::from_millis(upstream.total_timeout_ms)).await {
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

#[cfg(test)]
mod tests {
    use std::future::ready;

    use futures_util::future::{BoxFuture, FutureExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_app_that_gets_no_answer_holds_up_no_other() {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let work: Vec<BoxFuture<'_, u8>> = vec![
            async { answered.await.unwrap() }.boxed(),
            ready(2).boxed(),
            ready(3).boxed(),
            async { answer.send(1).map(|()| 4).unwrap() }.boxed(),
        ];
        let done = tokio::time::timeout(Duration::from_secs(60), run_all(2, work.into_iter())).await;
        assert_eq!(done, Ok(vec![1, 2, 3, 4]));
    }
}
