//! What some fetches need besides the app's secret: the verify ticket that WeChat pushes to a component, and the
//! refresh token of each account that has authorised one. A lost refresh token means that the merchant has to authorise
//! again.
//!
//! They are kept here and written with the state. Decides which of two refresh tokens is tried. Never logs or sends
//! one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use super::state_writer::StateWriter;
use crate::platform::Failure;
use crate::secret::{Secret, fingerprint};

/// Which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantType {
    VerifyTicket,
    RefreshToken,
}

/// Which component and account it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GrantName {
    pub what: GrantType,
    pub component: String,
    /// Empty for a verify ticket.
    #[serde(default)]
    pub authorizer: String,
    /// Fingerprint of the base URL: a refresh token must never go to another server.
    pub base: String,
}

/// One of them in the state file. No `Debug`: it holds the secret value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedGrant {
    #[serde(flatten)]
    pub name: GrantName,
    pub value: String,
    /// Fingerprint of the configured value (or of the ticket's file) when it was last taken in. While that is the same,
    /// `value` is the newer one.
    pub configured: Option<String>,
    /// When it was last configured, wall time.
    pub wanted_unix_ms: i64,
}

/// How long the refresh token of an account that is no longer configured is kept: if an account was removed by mistake
/// or for a while, its merchant need not authorise again.
const UNWANTED_KEPT_MS: i64 = 90 * 86_400_000;
/// How many of those are kept, the newest. A state of ten thousand accounts takes about 10 MB.
const UNWANTED_MAX: usize = 10_000;
/// A new refresh token is written before its access token is published. A disk that hangs delays that at most this
/// long.
const DISK_WAIT: Duration = Duration::from_secs(3);

/// All of them. Fetches use and replace them, the state writer writes them.
#[derive(Default)]
pub struct Grants(Mutex<HashMap<GrantName, GrantState>>);

#[derive(Clone, Default)]
struct GrantState {
    value: Option<String>,
    configured: Option<String>,
    wanted_unix_ms: i64,
    /// It is configured now.
    is_wanted: bool,
    /// Fingerprints of those that WeChat has refused since the last success, or since all were refused.
    refused: Vec<String>,
}

impl Grants {
    /// From what an earlier process has written and what is configured now.
    pub fn new(kept: &[SavedGrant], wanted: impl IntoIterator<Item = GrantName>) -> Grants {
        let grants = Grants::default();
        grants.take_over(kept);
        wanted.into_iter().for_each(|name| grants.want(name));
        grants
    }

    /// This one is configured from now on.
    pub fn want(&self, name: GrantName) {
        self.0.lock().entry(name).or_default().is_wanted = true;
    }

    /// This one is not configured any more. It is kept for a while.
    pub fn unwant(&self, name: &GrantName, now_unix_ms: i64) {
        if let Some(held) = self.0.lock().get_mut(name).filter(|held| held.is_wanted) {
            (held.is_wanted, held.wanted_unix_ms) = (false, held.wanted_unix_ms.max(now_unix_ms));
        }
    }

    /// Takes over what another process has written. Those used here were renewed here and are later.
    pub fn take_over(&self, kept: &[SavedGrant]) {
        let mut all = self.0.lock();
        for SavedGrant { name, value, configured, wanted_unix_ms } in kept {
            let ours = all.entry(name.clone()).or_default();
            if ours.value.is_none() || !ours.is_wanted {
                ours.value = Some(value.clone());
                ours.configured.clone_from(configured);
            }
            ours.wanted_unix_ms = ours.wanted_unix_ms.max(*wanted_unix_ms);
        }
    }

    /// What is to be written: everything configured, and for a while the refresh tokens of what is not configured any
    /// more.
    pub fn to_save(&self, now_unix_ms: i64) -> Vec<SavedGrant> {
        let (mut wanted, mut others) = (Vec::new(), Vec::new());
        for (name, held) in self.0.lock().iter() {
            let Some(value) = held.value.clone() else { continue };
            let now = if held.is_wanted { now_unix_ms } else { i64::MIN };
            // A clock set back by years must not make it look old.
            let wanted_unix_ms = held.wanted_unix_ms.max(now);
            let saved = SavedGrant { name: name.clone(), value, configured: held.configured.clone(), wanted_unix_ms };
            let age_ms = now_unix_ms.saturating_sub(wanted_unix_ms);
            if held.is_wanted {
                wanted.push(saved);
            } else if name.what == GrantType::RefreshToken && age_ms <= UNWANTED_KEPT_MS {
                others.push(saved);
            }
        }
        others.sort_by_key(|kept| std::cmp::Reverse(kept.wanted_unix_ms));
        others.truncate(UNWANTED_MAX);
        wanted.append(&mut others);
        wanted
    }
}

impl GrantState {
    /// The refresh token to try next. If the configured one has changed since it was taken in, it comes first: the
    /// merchant has authorised again. Otherwise the kept one comes first: WeChat may have replaced the configured one
    /// long ago.
    fn pick(&self, configured: Option<&Secret>) -> Option<Secret> {
        let kept = self.value.clone().map(Secret::new);
        let configured = configured.cloned();
        let anew = configured.as_ref().is_some_and(|secret| self.configured.as_ref() != Some(&print(secret)));
        let order = if anew { [configured, kept] } else { [kept, configured] };
        order.into_iter().flatten().find(|secret| !self.refused.contains(&print(secret)))
    }

    fn is_configured_anew(&self, configured: &Secret, at_start: bool) -> bool {
        let configured = print(configured);
        let known = self.configured.as_ref();
        // Without a value the first fetch is running, and uses it.
        self.value.is_some()
            && known.map_or(!at_start, |known| *known != configured)
            && !self.refused.contains(&configured)
    }

    /// Records that WeChat has refused it. True if there is another to try; otherwise the next try starts with the
    /// first.
    fn record_refused(&mut self, used: &Secret, configured: Option<&Secret>) -> bool {
        self.refused.push(print(used));
        let another = self.pick(configured).is_some();
        if !another {
            self.refused.clear();
        }
        another
    }

    /// Records that WeChat has accepted it, perhaps with a new one. True if there is something to write.
    fn record_accepted(&mut self, used: &Secret, configured: Option<&Secret>, successor: Option<&Secret>) -> bool {
        let before = (self.value.take(), self.configured.take());
        self.value = Some(successor.unwrap_or(used).expose().to_owned());
        // The configured one was tried, whether it was refused or accepted.
        self.configured = configured.map(print).or_else(|| before.1.clone());
        self.refused.clear();
        before != (self.value.clone(), self.configured.clone())
    }

    /// True if there is something to write.
    fn adopt(&mut self, token: &str) -> bool {
        self.refused.clear();
        self.value.replace(token.to_owned()).as_deref() != Some(token)
    }

    /// True if it is new. A ticket from a file is new only if the file has changed.
    fn take_ticket(&mut self, ticket: &Secret, from_file: bool) -> bool {
        let seen = Some(print(ticket));
        if from_file && std::mem::replace(&mut self.configured, seen.clone()) == seen {
            return false;
        }
        self.value.replace(ticket.expose().to_owned()).as_deref() != Some(ticket.expose())
    }
}

fn print(secret: &Secret) -> String {
    fingerprint(secret.expose().as_bytes())
}

/// A credential's own grant.
#[derive(Clone)]
pub struct Grant {
    pub grants: Arc<Grants>,
    pub name: GrantName,
    pub state_writer: Option<StateWriter>,
}

/// The secrets for one call.
pub struct CallSecrets {
    /// The app's secret, or the refresh token in its place.
    pub secret: Secret,
    pub ticket: Option<Secret>,
    configured: Option<Secret>,
}

impl CallSecrets {
    /// For a credential that needs only its secret.
    pub fn plain(secret: Secret) -> CallSecrets {
        CallSecrets { secret, ticket: None, configured: None }
    }
}

impl Grant {
    fn with_state<T>(&self, work: impl FnOnce(&mut GrantState) -> T) -> T {
        work(self.grants.0.lock().entry(self.name.clone()).or_default())
    }

    /// Makes a change that says whether there is something to write, and has that written at once.
    fn change(&self, work: impl FnOnce(&mut GrantState) -> bool) -> bool {
        let is_new = self.with_state(work);
        if let Some(state_writer) = self.state_writer.as_ref().filter(|_| is_new) {
            state_writer.request_write_now();
        }
        is_new
    }

    /// The last value, if it is of that kind.
    fn value_of(&self, what: GrantType) -> Option<String> {
        (self.name.what == what).then(|| self.with_state(|held| held.value.clone()))?
    }

    /// The secrets for the call, from the secret as it was read, or why there are none.
    pub fn call_secrets(&self, appid: &str, read: Result<Secret, String>) -> Result<CallSecrets, Failure> {
        if self.name.what == GrantType::VerifyTicket {
            let secret = read.map_err(|reason| Failure::unreadable_secret(appid, reason))?;
            let ticket = self.ticket().ok_or_else(|| Failure::no_ticket(appid))?;
            return Ok(CallSecrets { ticket: Some(Secret::new(ticket)), ..CallSecrets::plain(secret) });
        }
        let (configured, reason) = match read {
            Ok(secret) => (Some(secret), String::new()),
            Err(reason) => (None, reason),
        };
        let secret = self.with_state(|held| held.pick(configured.as_ref()));
        let secret = secret.ok_or_else(|| Failure::no_refresh_token(appid, reason))?;
        Ok(CallSecrets { secret, ticket: None, configured })
    }

    /// Records that WeChat has refused the call. If there is a newer ticket or another refresh token, the call is
    /// retried.
    pub fn record_refused(&self, secrets: &CallSecrets, failure: &mut Failure) {
        use crate::platform::Class;
        match (self.name.what, failure.errcode) {
            (GrantType::VerifyTicket, Some(61005 | 61006)) if self.ticket().map(Secret::new) != secrets.ticket => {
                failure.class = Class::Retry;
            }
            (GrantType::RefreshToken, Some(61023)) => {
                let configured = secrets.configured.as_ref();
                if self.with_state(|held| held.record_refused(&secrets.secret, configured)) {
                    let which = if configured == Some(&secrets.secret) { "configured" } else { "kept" };
                    let token = print(&secrets.secret);
                    warn!(appid = %failure.appid, token, "WeChat refuses the {which} refresh token; trying the other");
                    failure.class = Class::Retry;
                }
            }
            _ => {}
        }
    }

    /// Records that WeChat has accepted the call. Returns when a new refresh token is on disk; if the disk hangs, logs
    /// that and goes on, because readers wait for the access token.
    pub async fn record_accepted(&self, secrets: &CallSecrets, successor: Option<&Secret>) {
        if self.name.what == GrantType::VerifyTicket {
            return;
        }
        let configured = secrets.configured.as_ref();
        let changed = self.with_state(|held| held.record_accepted(&secrets.secret, configured, successor));
        let Some(state_writer) = self.state_writer.as_ref().filter(|_| changed) else { return };
        if !state_writer.wait_until_saved(state_writer.request_write_now(), DISK_WAIT).await {
            error!(
                appid = %self.name.authorizer,
                advice = "make room or repair the disk before this process ends: WeChat may have ended the former \
                          refresh token, and then the merchant would have to authorise again",
                "a new refresh token could not be written to the state file yet"
            );
        }
    }

    /// The refresh token that WeChat accepted last, for the other nodes; none for a component.
    pub fn refresh_token(&self) -> Option<String> {
        self.value_of(GrantType::RefreshToken)
    }

    /// The last verify ticket, for the other nodes; none for an authorizer.
    pub fn ticket(&self) -> Option<String> {
        self.value_of(GrantType::VerifyTicket)
    }

    /// Takes over the refresh token of another node's renewal; it is used next.
    pub fn adopt_refresh_token(&self, token: &str) {
        self.change(|held| held.adopt(token));
    }

    /// True for a refresh token.
    pub fn is_refresh_token(&self) -> bool {
        self.name.what == GrantType::RefreshToken
    }

    /// True if the configured refresh token has changed since one was last taken in: the merchant has authorised again.
    /// For the one that was there at the start this is only known if it is known which was taken in.
    pub fn is_configured_anew(&self, configured: &Secret, at_start: bool) -> bool {
        self.is_refresh_token() && self.with_state(|held| held.is_configured_anew(configured, at_start))
    }

    /// True if it is a ticket that was not received yet.
    pub fn is_missing(&self) -> bool {
        self.name.what == GrantType::VerifyTicket && self.ticket().is_none()
    }

    /// Takes a verify ticket. True if it is new.
    pub fn take_ticket(&self, ticket: &Secret, from_file: bool) -> bool {
        self.change(|held| held.take_ticket(ticket, from_file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn held(value: &str, configured: &str) -> GrantState {
        GrantState { value: Some(value.into()), configured: Some(print(&secret(configured))), ..GrantState::default() }
    }

    #[track_caller]
    fn picks(held: &GrantState, configured: Option<&str>, expected: Option<&str>) {
        let configured = configured.map(secret);
        assert_eq!(held.pick(configured.as_ref()).as_ref().map(Secret::expose), expected);
    }

    #[test]
    fn the_kept_one_wins_unless_the_configured_one_has_changed_since() {
        picks(&GrantState::default(), None, None);
        picks(&GrantState::default(), Some("A"), Some("A"));
        picks(&held("B", "A"), Some("A"), Some("B"));
        picks(&held("B", "A"), None, Some("B"));
        picks(&held("B", "A"), Some("C"), Some("C"));
    }

    #[test]
    fn each_is_tried_once_in_a_round_and_the_next_round_begins_as_the_first_did() {
        let mut held = held("B", "A");
        let configured = secret("A");
        assert!(held.record_refused(&secret("B"), Some(&configured)));
        picks(&held, Some("A"), Some("A"));
        assert!(!held.record_refused(&secret("A"), Some(&configured)));
        picks(&held, Some("A"), Some("B"));
        assert!(!GrantState::default().record_refused(&configured, Some(&configured)), "there is no other");
    }

    #[test]
    fn a_success_takes_the_configured_one_in_and_keeps_the_successor() {
        let mut held = GrantState::default();
        assert!(held.record_accepted(&secret("A"), Some(&secret("A")), None));
        picks(&held, Some("A"), Some("A"));
        assert!(!held.record_accepted(&secret("A"), Some(&secret("A")), Some(&secret("A"))), "nothing new to write");
        assert!(held.record_accepted(&secret("A"), Some(&secret("A")), Some(&secret("B"))));
        picks(&held, Some("A"), Some("B"));
    }

    #[test]
    fn a_configured_one_that_was_refused_is_not_tried_again_while_the_kept_one_works() {
        let mut held = held("B", "A");
        let typo = secret("C");
        assert!(held.record_refused(&typo, Some(&typo)));
        picks(&held, Some("C"), Some("B"));
        assert!(held.record_accepted(&secret("B"), Some(&typo), None));
        picks(&held, Some("C"), Some("B"));
        picks(&held, Some("D"), Some("D"));
    }

    #[test]
    fn an_unreadable_file_does_not_make_the_kept_one_forget_what_was_taken_in() {
        let mut held = held("B", "A");
        assert!(held.record_accepted(&secret("B"), None, Some(&secret("C"))));
        picks(&held, Some("A"), Some("C"));
    }

    #[test]
    fn a_ticket_in_a_file_that_has_not_changed_does_not_replace_a_newer_one() {
        let mut held = GrantState::default();
        assert!(held.take_ticket(&secret("1"), true));
        assert!(held.take_ticket(&secret("2"), false));
        assert!(!held.take_ticket(&secret("1"), true));
        assert_eq!(held.value.as_deref(), Some("2"));
        assert!(held.take_ticket(&secret("3"), true));
        assert!(!held.take_ticket(&secret("3"), false), "no news");
    }

    #[test]
    fn a_ticket_that_was_refused_while_a_newer_one_came_in_is_no_reason_to_wait() {
        let grant = Grant { grants: Arc::default(), name: name(GrantType::VerifyTicket, ""), state_writer: None };
        let read = || Ok(secret("s3cr3t"));
        let nothing = grant.call_secrets("wxc", read()).err().unwrap();
        assert!(nothing.advice().contains("every 10 minutes"), "{}", nothing.advice());
        assert!(grant.take_ticket(&secret("ticket 1"), false));
        let secrets = grant.call_secrets("wxc", read()).unwrap();
        let refused = || {
            let mut failure = Failure::refused(crate::platform::component::COMPONENT.api, "wxc", 61005, String::new());
            grant.record_refused(&secrets, &mut failure);
            failure.class
        };
        assert_eq!(refused().name(), "wait");
        assert!(grant.take_ticket(&secret("ticket 2"), false));
        assert_eq!(refused().name(), "retry");
    }

    #[test]
    fn without_any_refresh_token_the_advice_is_about_one() {
        let grant = Grant { grants: Arc::default(), name: name(GrantType::RefreshToken, "wxa"), state_writer: None };
        let failure = grant.call_secrets("wxa", Err("secret file x is empty".into())).err().unwrap();
        assert!(failure.advice().contains("refresh token") && failure.to_string().contains("is empty"));
        let secrets = grant.call_secrets("wxa", Ok(secret("A"))).unwrap();
        assert_eq!(secrets.secret.expose(), "A");
    }

    fn name(what: GrantType, authorizer: &str) -> GrantName {
        GrantName { what, component: "wxc".into(), authorizer: authorizer.into(), base: "b".into() }
    }

    fn kept(name: GrantName, wanted_unix_ms: i64) -> SavedGrant {
        SavedGrant { name, value: "V".into(), configured: None, wanted_unix_ms }
    }

    #[test]
    fn what_is_configured_is_kept_for_ever_and_what_was_for_ninety_days() {
        let now = 200 * 86_400_000;
        let old = now - UNWANTED_KEPT_MS - 1;
        let stored = [
            kept(name(GrantType::RefreshToken, "wanted"), old),
            kept(name(GrantType::RefreshToken, "lately"), old + 1),
            kept(name(GrantType::RefreshToken, "long ago"), old),
            kept(name(GrantType::VerifyTicket, ""), now),
        ];
        let grants = Grants::new(&stored, [name(GrantType::RefreshToken, "wanted")]);
        let left = grants.to_save(now);
        let names: Vec<_> = left.iter().map(|kept| (kept.name.authorizer.as_str(), kept.wanted_unix_ms)).collect();
        assert_eq!(names, [("wanted", now), ("lately", old + 1)]);
        let set_back = grants.to_save(now - 1000 * 86_400_000);
        assert_eq!((set_back.len(), set_back[0].wanted_unix_ms), (3, old), "a clock set back loses none");
    }

    #[test]
    fn of_those_no_longer_configured_the_newest_are_kept() {
        let many: Vec<_> =
            (0..=UNWANTED_MAX as i64).map(|n| kept(name(GrantType::RefreshToken, &n.to_string()), n)).collect();
        let left = Grants::new(&many, []).to_save(0);
        assert_eq!(left.len(), UNWANTED_MAX);
        assert!(left.iter().all(|kept| kept.name.authorizer != "0"));
    }
}
