//! One trip to WeChat on behalf of one credential: read the secret, wait for a turn, call, perhaps probe.
//!
//! Decides nothing about schedules and publishes nothing; it brings back what it saw.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::policy::Standing;
use super::saver::Saver;
use crate::clock::{self, BootMs};
use crate::config::{Endpoint, SecretSource};
use crate::secret::Secret;
use crate::upstream::{Client, Failure, FetchSpec, Probe, Token};

/// Why the trip is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The schedule says so.
    Renew,
    /// Somebody doubts the present value: verify before spending.
    Check,
}

/// Everything a trip needs; it shares nothing with the driver.
pub struct Flight {
    pub purpose: Purpose,
    pub appid: String,
    pub base_url: String,
    pub endpoint: Endpoint,
    pub source: SecretSource,
    /// The present value, if there is one.
    pub held: Option<Bytes>,
    pub standing: Standing,
    pub total_timeout_ms: u64,
    pub client: Client,
    pub permits: Arc<Semaphore>,
    pub cancel: CancellationToken,
    /// Classic only: the note in the state that a call is about to be made.
    pub intent: Option<(Saver, u64)>,
}

/// What came of it.
pub struct Landing {
    pub purpose: Purpose,
    /// Calls made, probes included.
    pub calls: u64,
    /// The secret that was used, to notice when it changes.
    pub secret: Option<Secret>,
    pub outcome: Outcome,
}

pub enum Outcome {
    /// Told to stop before anything was sent.
    Cancelled,
    /// A token, ours or a new one.
    Answered {
        token: Token,
        sent_ms: BootMs,
        received_ms: BootMs,
        probe: Option<Probe>,
    },
    Failed {
        failure: Failure,
        sent_ms: BootMs,
    },
    /// A check of a classic value that found no reason to renew it.
    Kept(Probe),
}

/// A classic call waits so long for its intent to reach the disk: better a call unrecorded than none.
const INTENT_WAIT: Duration = Duration::from_millis(250);
const SECRET_BYTES_MAX: u64 = 4096;

impl Flight {
    /// Flies. Once a call has been sent it is waited for, whatever `cancel` says.
    pub async fn fly(self) -> Landing {
        let mut landing = Landing { purpose: self.purpose, calls: 0, secret: None, outcome: Outcome::Cancelled };
        let permit = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return landing,
            permit = self.permits.clone().acquire_owned() => permit,
        };
        // The semaphore is never closed.
        let Ok(_permit) = permit else { return landing };
        let secret = match read_secret(&self.source).await {
            Ok(secret) => secret,
            Err(reason) => {
                let failure = Failure::unusable(&self.appid, reason);
                landing.outcome = Outcome::Failed { failure, sent_ms: clock::boot_ms() };
                return landing;
            }
        };
        landing.outcome = match (self.purpose, self.endpoint, &self.held) {
            (Purpose::Check, Endpoint::Token, Some(held)) => {
                landing.calls += 1;
                match self.client.probe(&self.base_url, held, self.deadline()).await {
                    Probe::Dead(_) => self.fetch(&secret, &mut landing.calls).await,
                    probe => Outcome::Kept(probe),
                }
            }
            _ => self.fetch(&secret, &mut landing.calls).await,
        };
        landing.secret = Some(secret);
        landing
    }

    async fn fetch(&self, secret: &Secret, calls: &mut u64) -> Outcome {
        if let Some((saver, version)) = &self.intent {
            saver.wait(*version, INTENT_WAIT).await;
        }
        if self.cancel.is_cancelled() {
            return Outcome::Cancelled;
        }
        let spec = FetchSpec { base_url: &self.base_url, appid: &self.appid, secret, endpoint: self.endpoint };
        *calls += 1;
        let sent_ms = clock::boot_ms();
        let token = match self.client.fetch(&spec, self.deadline()).await {
            Ok(token) => token,
            Err(failure) => return Outcome::Failed { failure, sent_ms },
        };
        let received_ms = clock::boot_ms();
        let same = self.held.as_ref().is_some_and(|held| *held == token.value);
        let probe = if self.purpose == Purpose::Check && same {
            *calls += 1;
            Some(self.client.probe(&self.base_url, &token.value, self.deadline()).await)
        } else {
            None
        };
        Outcome::Answered { token, sent_ms, received_ms, probe }
    }

    fn deadline(&self) -> Duration {
        Duration::from_millis(self.standing.call_deadline_ms(clock::boot_ms(), self.total_timeout_ms))
    }
}

/// The secret as it is now. Reasons name the file, never its content.
pub async fn read_secret(source: &SecretSource) -> Result<Secret, String> {
    let path = match source {
        SecretSource::Fixed(secret) => return Ok(secret.clone()),
        SecretSource::File(path) => path,
    };
    let shown = path.display();
    let facts = tokio::fs::metadata(path).await.map_err(|error| format!("secret file {shown}: {error}"))?;
    if !facts.is_file() || facts.len() > SECRET_BYTES_MAX {
        return Err(format!("secret file {shown} is not a small regular file"));
    }
    let text = tokio::fs::read_to_string(path).await.map_err(|error| format!("secret file {shown}: {error}"))?;
    match text.trim() {
        "" => Err(format!("secret file {shown} is empty")),
        secret => Ok(Secret::new(secret.to_owned())),
    }
}
