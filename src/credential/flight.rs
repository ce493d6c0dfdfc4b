//! One trip to WeChat on behalf of one credential: read the secret, wait for a turn, call, perhaps probe.
//!
//! Decides nothing about schedules and publishes nothing; it brings back what it saw.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::adopt::{self, Found, Source};
use super::grants::{Grant, Means};
use super::ledger::{Denied, Ledger};
use super::policy::{ADOPTED_TOLD_LIFE_MS, Adopted, Standing};
use super::saver::Saver;
use super::table::{Credential, Reading};
use super::turn::{Arrival, Held, Sharing, Shown, Turn};
use crate::clock::{BootMs, Clock};
use crate::cluster::turn::Next;
use crate::cluster::{Answer, Unreachable};
use crate::platform::{Ask, Kind, Renewal};
use crate::platform::{Class, Failure, Probe, Sent, Token, Told, Upstream};
use crate::secret::Secret;
use crate::secret_source::{SecretFault, SecretSource};

/// Why the trip is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The schedule says so.
    Renew,
    /// Somebody doubts the present value: verify before spending.
    Check,
    /// Try the present value on a cheap read, and nothing else.
    Probe,
    /// WeChat refuses the present value: another one is needed.
    Replace,
    /// WeChat refuses the value and hands it out all the same: it is told to make another.
    Force,
}

impl Purpose {
    /// True for a trip that only tries the present value and costs the token endpoint nothing. A classic value is never
    /// renewed on mere suspicion: that would doom it.
    pub fn only_probes(self, kind: &Kind) -> bool {
        let suspicion = self == Purpose::Check && kind.renewal == Renewal::Mint;
        self == Purpose::Probe || (suspicion && kind.probe.is_some())
    }
}

/// Everything a trip needs; it shares nothing with the driver.
pub struct Flight {
    pub purpose: Purpose,
    pub appid: String,
    pub base_url: String,
    pub kind: &'static Kind,
    /// The access token it is fetched with, for kinds that need one.
    pub parent: Option<Arc<Credential>>,
    pub source: SecretSource,
    /// What it is asked with besides, for kinds that need more than a secret.
    pub grant: Option<Grant>,
    /// The present value, if there is one.
    pub held: Option<Bytes>,
    pub standing: Standing,
    pub total_timeout_ms: u64,
    pub upstream: Arc<dyn Upstream>,
    pub clock: Arc<dyn Clock>,
    pub permits: Arc<Semaphore>,
    /// Where the site keeps a value that it has fetched itself, for as long as this server has fetched none.
    pub adopts_from: Option<Arc<dyn Source>>,
    /// How long a call may take at most, whatever else bounds it.
    pub patience: Duration,
    pub cancel: CancellationToken,
    /// Classic only: the note in the state that a call is about to be made.
    pub intent: Option<(Saver, u64)>,
    /// With other nodes: what is shared with them.
    pub sharing: Option<Box<Sharing>>,
}

/// What came of it.
pub struct Landing {
    pub purpose: Purpose,
    /// Calls sent, probes included.
    pub calls: u64,
    /// Of them, the probes.
    pub probes: u64,
    /// What has become of taking over the site's own value.
    pub adoption: Option<Adoption>,
    /// The secret that was used, to notice when it changes.
    pub secret: Option<Secret>,
    /// The generation of the access token WeChat refused while it was used for this call.
    pub refused_parent: Option<u64>,
    /// The calls of all nodes, if they are counted together.
    pub ledger: Option<Ledger>,
    /// How the answer's value was shared.
    pub shown: Shown,
    pub outcome: Outcome,
}

impl Landing {
    fn count_probe(&mut self, kind: &Kind) {
        let sent = u64::from(kind.probe.is_some());
        self.calls += sent;
        self.probes += sent;
    }
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
    /// There is no live value of the token it is fetched with; nothing was sent.
    NoToken,
    /// The present value was tried, and nothing was fetched.
    Probed {
        probe: Probe,
        sent_ms: BootMs,
    },
    /// It was not our turn: what the store that nodes share has said.
    Told {
        answer: Answer,
        next: Next,
    },
    /// The lease ran out before the call was sent.
    Late,
    /// A quota forbids the call.
    Denied(Denied),
    /// Nothing is fetched without the store.
    OutOfReach(Unreachable),
}

impl From<Held> for Outcome {
    fn from(held: Held) -> Outcome {
        match held {
            Held::Told(answer, next) => Outcome::Told { answer, next },
            Held::Late => Outcome::Late,
            Held::Denied(denied) => Outcome::Denied(denied),
            Held::OutOfReach(unreachable) => Outcome::OutOfReach(unreachable),
        }
    }
}

/// What has become of taking over the site's own value.
pub enum Adoption {
    Done {
        place: String,
        adopted: Adopted,
    },
    /// It is not to be had; a value is fetched instead.
    Refused {
        place: String,
        reason: String,
    },
}

/// The site's own store gets so long to answer.
const ADOPT_WAIT: Duration = Duration::from_secs(2);
/// A classic call waits so long for its intent to reach the disk: better a call unrecorded than none.
const INTENT_WAIT: Duration = Duration::from_millis(250);

impl Flight {
    /// Flies. Once a call has been sent it is waited for, whatever `cancel` says.
    pub async fn fly(mut self) -> Landing {
        let mut landing = Landing {
            purpose: self.purpose,
            calls: 0,
            probes: 0,
            adoption: None,
            secret: None,
            refused_parent: None,
            ledger: None,
            shown: Shown::NotShared,
            outcome: Outcome::Cancelled,
        };
        let permit = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return landing,
            permit = self.permits.clone().acquire_owned() => permit,
        };
        // The semaphore is never closed.
        let Ok(_permit) = permit else { return landing };
        match &self.held {
            Some(held) if self.purpose.only_probes(self.kind) => {
                landing.outcome = self.probe(held, &mut landing).await;
                return landing;
            }
            None if self.purpose == Purpose::Probe => {
                landing.outcome = Outcome::Probed { probe: Probe::Unknown, sent_ms: self.clock.boot_ms() };
                return landing;
            }
            _ => {}
        }
        let sharing = self.sharing.take();
        let mut turn = match Turn::begin(sharing, async || self.is_accepted(&mut landing).await).await {
            Ok(turn) => turn,
            Err(held) => {
                landing.outcome = held.into();
                return landing;
            }
        };
        landing.outcome = match self.means(&mut landing).await {
            Ok(means) => self.fetch(&means, &mut turn, &mut landing).await,
            Err(failure) => Outcome::Failed { failure, sent_ms: self.clock.boot_ms() },
        };
        landing.ledger = turn.over().await;
        landing
    }

    /// What to call with, or why there is nothing.
    async fn means(&self, landing: &mut Landing) -> Result<Means, Failure> {
        let read = read_secret(&self.source).await;
        landing.secret = read.as_ref().ok().cloned();
        let read = match read {
            Err(Unread { reason, no_descriptor: true }) => return Err(Failure::no_descriptor(&self.appid, reason)),
            read => read.map_err(|unread| unread.reason),
        };
        match &self.grant {
            // Not even with what is still kept from when it had one.
            _ if self.source.is_absent() => Err(Failure::followed(&self.appid)),
            Some(grant) => grant.means(&self.appid, read),
            None => read.map(Means::plain).map_err(|reason| Failure::unusable(&self.appid, reason)),
        }
    }

    /// True if WeChat accepts the present value now.
    async fn is_accepted(&self, landing: &mut Landing) -> bool {
        let Some(held) = &self.held else { return false };
        matches!(self.probe(held, landing).await, Outcome::Probed { probe: Probe::Alive, .. })
    }

    async fn probe(&self, held: &[u8], landing: &mut Landing) -> Outcome {
        landing.count_probe(self.kind);
        let sent_ms = self.clock.boot_ms();
        let probe = self.upstream.probe(self.kind, &self.base_url, held, self.deadline()).await;
        Outcome::Probed { probe, sent_ms }
    }

    async fn fetch(&self, means: &Means, turn: &mut Turn, landing: &mut Landing) -> Outcome {
        if let Some((saver, version)) = &self.intent {
            saver.wait(*version, INTENT_WAIT).await;
        }
        if self.cancel.is_cancelled() {
            return Outcome::Cancelled;
        }
        if let Some(outcome) = self.adopt(turn, landing).await {
            return outcome;
        }
        let Ok((token, generation)) = self.parent_token(self.clock.boot_ms()) else {
            return Outcome::NoToken;
        };
        let ask = self.ask(means, &token);
        let at_most = match turn.announce(self.clock.unix_ms()).await {
            Ok(at_most) => at_most.unwrap_or(Duration::MAX),
            Err(held) => return held.into(),
        };
        let sent_ms = self.clock.boot_ms();
        landing.calls += 1;
        let token = match self.upstream.fetch(self.kind, ask, self.deadline().min(at_most)).await {
            Ok(token) => token,
            Err(mut failure) => {
                // Perhaps the access token's fault: it is looked into, and this is asked again.
                if self.parent.is_some() && failure.refuses_token() {
                    landing.refused_parent = Some(generation);
                    failure.class = Class::Retry;
                }
                if let Some(grant) = &self.grant {
                    grant.refused(means, &mut failure);
                }
                turn.failed(&failure, self.standing.left_ms(sent_ms) > 0).await;
                return Outcome::Failed { failure, sent_ms };
            }
        };
        let received_ms = self.clock.boot_ms();
        if let Some(grant) = &self.grant {
            grant.answered(means, token.refresh.as_ref()).await;
        }
        let same = self.held.as_ref().is_some_and(|held| *held == token.value);
        let refresh = self.grant.as_ref().and_then(Grant::refresh_token);
        let life_ms = token.expires_in_s.saturating_mul(1000);
        landing.shown =
            turn.answered(&token, Arrival { same, sent_ms, received_ms, life_ms }, &self.standing, refresh).await;
        let doubted = self.purpose != Purpose::Renew || self.standing.is_withdrawn();
        let probe = if same && doubted && self.kind.probe.is_some() {
            landing.count_probe(self.kind);
            Some(self.upstream.probe(self.kind, &self.base_url, &token.value, self.deadline()).await)
        } else {
            None
        };
        Outcome::Answered { token, sent_ms, received_ms, probe }
    }

    /// Instead of a fetch: the value that the site has, if that is another than the present one and is accepted.
    async fn adopt(&self, turn: &mut Turn, landing: &mut Landing) -> Option<Outcome> {
        let source = self.adopts_from.as_ref()?;
        let refused = |reason: String| Some(Adoption::Refused { place: source.place(), reason });
        let stored = match tokio::time::timeout(ADOPT_WAIT, source.read()).await {
            Ok(Ok(stored)) => stored,
            Ok(Err(reason)) => {
                landing.adoption = refused(reason);
                return None;
            }
            Err(_) => {
                landing.adoption = refused("it does not answer".to_owned());
                return None;
            }
        };
        let Some(found) = adopt::find(&stored, self.clock.unix_ms()) else {
            landing.adoption = refused("no token is there, or by its own times it is over".to_owned());
            return None;
        };
        if self.held.as_ref() == Some(&found.value) {
            return None;
        }
        let sent_ms = self.clock.boot_ms();
        landing.count_probe(self.kind);
        let probe = self.upstream.probe(self.kind, &self.base_url, &found.value, self.deadline()).await;
        match probe {
            Probe::Alive => {}
            Probe::Dead(errcode) => {
                landing.adoption = refused(format!("WeChat refuses the token that is there, errcode {errcode}"));
                return None;
            }
            Probe::Withheld(errcode) => {
                landing.adoption = refused(format!("WeChat does not let the token be tried, errcode {errcode}"));
                return None;
            }
            // A fetch could end it, so it is not given up for that.
            Probe::Unknown => {
                let failure = Failure::transport(&self.appid, Sent::NotSent, "the site's own token could not be tried");
                return Some(Outcome::Failed { failure, sent_ms });
            }
        }
        let received_ms = self.clock.boot_ms();
        let Found { value, left_ms, is_end_known } = found;
        let token = Token { value, expires_in_s: left_ms / 1000, told: Told::AsGiven, refresh: None };
        let life_ms = ADOPTED_TOLD_LIFE_MS.min(left_ms);
        let arrival = Arrival { same: false, sent_ms, received_ms, life_ms };
        landing.shown = turn.answered(&token, arrival, &self.standing, None).await;
        let adopted = if is_end_known { Adopted::WithEnd } else { Adopted::WithoutEnd };
        landing.adoption = Some(Adoption::Done { place: source.place(), adopted });
        Some(Outcome::Answered { token, sent_ms, received_ms, probe: Some(probe) })
    }

    fn ask<'a>(&'a self, means: &'a Means, parent_token: &'a str) -> Ask<'a> {
        Ask {
            base_url: &self.base_url,
            appid: &self.appid,
            secret: &means.secret,
            token: means.ticket.as_ref().map_or(parent_token, Secret::expose),
            force: self.purpose == Purpose::Force,
            component: self.grant.as_ref().map_or("", |grant| grant.name.component.as_str()),
        }
    }

    /// The live access token and its generation; empty for kinds that need none.
    fn parent_token(&self, now_ms: BootMs) -> Result<(String, u64), ()> {
        let Some(parent) = &self.parent else { return Ok((String::new(), 0)) };
        match parent.read(now_ms) {
            Reading::Live(guard) => {
                let published = guard.as_ref().ok_or(())?;
                let token = std::str::from_utf8(&published.value).map_err(|_| ())?;
                Ok((token.to_owned(), published.generation))
            }
            Reading::FirstFetch | Reading::Absent => Err(()),
        }
    }

    fn deadline(&self) -> Duration {
        let deadline_ms = self.standing.call_deadline_ms(self.clock.boot_ms(), self.total_timeout_ms);
        Duration::from_millis(deadline_ms).min(self.patience)
    }
}

/// Why there is no secret.
pub struct Unread {
    /// Names the file, never its content.
    reason: String,
    /// The process has no file descriptor left, which says nothing about the file.
    no_descriptor: bool,
}

/// The secret as it is now.
pub async fn read_secret(source: &SecretSource) -> Result<Secret, Unread> {
    source.read_aside().await.map_err(|fault| Unread {
        no_descriptor: fault == SecretFault::NoDescriptor,
        reason: match source {
            SecretSource::File(file) => format!("secret file {} {fault}", file.path().display()),
            _ => fault.to_string(),
        },
    })
}
