//! Which of several hosts that give the same answers the next call goes to.
//!
//! A host that has failed is avoided for a while, for longer each time. A call goes to the first host that is not
//! avoided, so the preferred one is tried again by itself. Pure: time is passed in. Never calls a host, never looks a name
//! up, never keeps an address.

use std::sync::Arc;

use url::Url;

use super::failure::{Class, Failure, MESSAGE_CHARS_MAX, Missing};
use crate::clock::BootMs;

/// How long a host is avoided after its first failure; doubled with each further one.
pub const AVOID_MS_MIN: u64 = 60_000;
/// The longest time that a host is avoided.
pub const AVOID_MS_MAX: u64 = 600_000;

/// WeChat's errcode for an address that is out of service: it is about the host, not about the app.
const RETIRED_ADDRESS: i64 = 48017;

/// Hosts in order of preference, and how each has been doing.
#[derive(Debug)]
pub struct Hosts(Vec<Host>);

#[derive(Debug)]
struct Host {
    base_url: Arc<str>,
    /// Failures since it last answered.
    failures: u32,
    failed_ms: BootMs,
    avoided_until_ms: BootMs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenHost {
    pub base_url: Arc<str>,
    index: usize,
    /// When it was chosen: a call that began before a failure says nothing about the time after it.
    at_ms: BootMs,
}

impl ChosenHost {
    pub fn only(base_url: &str) -> ChosenHost {
        ChosenHost { base_url: Arc::from(base_url), index: 0, at_ms: 0 }
    }
}

impl Hosts {
    pub fn of(base_urls: &[&str]) -> Hosts {
        let host = |url: &&str| Host { base_url: Arc::from(*url), failures: 0, failed_ms: 0, avoided_until_ms: 0 };
        Hosts(base_urls.iter().map(host).collect())
    }

    /// The host of the next call, or another one for a call that could not be sent to `tried`: the first that is not
    /// avoided, otherwise the one that is avoided for the shortest time.
    pub fn pick(&self, tried: Option<&ChosenHost>, now_ms: BootMs) -> Option<ChosenHost> {
        let others = self.0.iter().enumerate().filter(|(index, _)| tried.is_none_or(|tried| tried.index != *index));
        // Of several with the same time left, which is none for all that are well, this takes the first.
        let (index, host) = others.min_by_key(|(_, host)| host.avoided_until_ms.saturating_sub(now_ms))?;
        Some(ChosenHost { base_url: host.base_url.clone(), index, at_ms: now_ms })
    }

    /// The call failed by the host's fault. Returns for how long the host is avoided now; `None` if it was already: of many
    /// calls under way at the same time only the first failure counts.
    pub fn record_failure(&mut self, pick: &ChosenHost, now_ms: BootMs) -> Option<u64> {
        let host = self.0.get_mut(pick.index)?;
        if host.failures > 0 && host.failed_ms >= pick.at_ms {
            return None;
        }
        let avoid_ms = AVOID_MS_MIN.saturating_mul(1 << host.failures.min(10)).min(AVOID_MS_MAX);
        host.failures = host.failures.saturating_add(1);
        host.failed_ms = now_ms;
        host.avoided_until_ms = now_ms.saturating_add(avoid_ms);
        Some(avoid_ms)
    }

    /// The host answered, perhaps with a refusal. True if it had failed before.
    pub fn record_answer(&mut self, pick: &ChosenHost) -> bool {
        let Some(host) = self.0.get_mut(pick.index) else { return false };
        if host.failures == 0 || host.failed_ms > pick.at_ms {
            return false;
        }
        host.failures = 0;
        host.avoided_until_ms = 0;
        true
    }
}

/// Whether another host might have done better. All hosts refuse alike, except with the one errcode that is about the
/// host.
pub fn is_host_fault(failure: &Failure) -> bool {
    match failure.errcode {
        Some(code) => code == RETIRED_ADDRESS,
        None => failure.class == Class::Retry && failure.missing != Some(Missing::FileDescriptor),
    }
}

/// A host's name, without scheme, port and path.
pub fn name(base_url: &str) -> Option<String> {
    Url::parse(base_url).ok()?.host_str().map(str::to_owned)
}

/// The failure, with the host's name before its message.
pub fn with_host_name(mut failure: Failure, base_url: &str) -> Failure {
    if let Some(name) = name(base_url) {
        failure.message = format!("{name}: {}", failure.message).chars().take(MESSAGE_CHARS_MAX).collect();
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::failure::Delivery;
    use crate::platform::{ApiCall, ApiEndpoint};

    const TOKEN: ApiCall = ApiCall { platform: "mp", endpoint: ApiEndpoint::Token };

    const MINUTE: u64 = 60_000;

    fn three() -> Hosts {
        Hosts::of(&["https://a", "https://b", "https://c"])
    }

    #[track_caller]
    fn picks(hosts: &Hosts, now_ms: BootMs, expected: &str) -> ChosenHost {
        let pick = hosts.pick(None, now_ms).unwrap();
        assert_eq!(&*pick.base_url, expected);
        pick
    }

    #[test]
    fn a_host_that_has_failed_is_avoided_and_then_preferred_again() {
        let mut hosts = three();
        let pick = picks(&hosts, 1_000, "https://a");
        assert_eq!(hosts.record_failure(&pick, 2_000), Some(MINUTE));
        picks(&hosts, 2_000, "https://b");
        picks(&hosts, 2_000 + MINUTE - 1, "https://b");
        picks(&hosts, 2_000 + MINUTE, "https://a");
    }

    #[test]
    fn the_time_doubles_to_ten_minutes_and_an_answer_ends_the_count() {
        let mut hosts = three();
        let mut now_ms = 5;
        for minutes in [1, 2, 4, 8, 10, 10] {
            let pick = picks(&hosts, now_ms, "https://a");
            assert_eq!(hosts.record_failure(&pick, now_ms + 1), Some(minutes * MINUTE));
            now_ms += 1 + minutes * MINUTE;
        }
        let pick = picks(&hosts, now_ms, "https://a");
        assert!(hosts.record_answer(&pick));
        assert!(!hosts.record_answer(&pick), "nothing to end");
        assert_eq!(hosts.record_failure(&pick, now_ms), Some(MINUTE));
    }

    #[test]
    fn many_calls_at_the_same_time_count_as_one_failure() {
        let mut hosts = three();
        let calls = [picks(&hosts, 10, "https://a"), picks(&hosts, 20, "https://a"), picks(&hosts, 30, "https://a")];
        assert_eq!(hosts.record_failure(&calls[0], 40), Some(MINUTE));
        assert_eq!(hosts.record_failure(&calls[1], 50), None);
        assert!(!hosts.record_answer(&calls[2]), "it began before the failure");
        picks(&hosts, 40 + MINUTE - 1, "https://b");
        picks(&hosts, 40 + MINUTE, "https://a");
    }

    #[test]
    fn if_all_are_avoided_the_first_to_come_back_is_chosen() {
        let mut hosts = three();
        for expected in ["https://a", "https://b", "https://c"] {
            let pick = picks(&hosts, 100, expected);
            let after = hosts.pick(Some(&pick), 100).unwrap();
            assert_ne!(after.base_url, pick.base_url);
            hosts.record_failure(&pick, 100);
        }
        let again = picks(&hosts, 200, "https://a");
        assert_eq!(&*hosts.pick(Some(&again), 200).unwrap().base_url, "https://b");
        hosts.record_failure(&again, 200);
        picks(&hosts, 300, "https://b");
    }

    #[test]
    fn one_host_has_no_other() {
        let mut hosts = Hosts::of(&["https://a"]);
        let pick = picks(&hosts, 7, "https://a");
        assert_eq!(hosts.pick(Some(&pick), 7), None);
        hosts.record_failure(&pick, 7);
        picks(&hosts, 8, "https://a");
        assert!(Hosts::of(&[]).pick(None, 0).is_none());
    }

    #[test]
    fn only_a_lost_call_and_a_retired_address_are_the_hosts_fault() {
        assert!(is_host_fault(&Failure::transport("wx1", Delivery::NotSent, "refused")));
        assert!(is_host_fault(&Failure::transport("wx1", Delivery::Ambiguous, "reset")));
        assert!(is_host_fault(&Failure::refused(TOKEN, "wx1", 48017, String::new())));
        assert!(!is_host_fault(&Failure::unreadable_secret("wx1", "no secret")));
        assert!(!is_host_fault(&Failure::no_descriptor("wx1", "too many open files")));
        for code in [-1, 40001, 40013, 40164, 45009, 45011, 89503, 12345] {
            assert!(!is_host_fault(&Failure::refused(TOKEN, "wx1", code, String::new())), "{code}");
        }
    }

    #[test]
    fn a_failure_names_the_host_and_no_more_of_its_address() {
        let failure = with_host_name(
            Failure::transport("wx1", Delivery::NotSent, "refused"),
            "https://api2.weixin.qq.com:8443/x",
        );
        assert_eq!(failure.message, "api2.weixin.qq.com: refused");
        let long = with_host_name(Failure::transport("wx1", Delivery::NotSent, "é".repeat(200)), "https://a");
        assert_eq!(long.message.chars().count(), MESSAGE_CHARS_MAX);
        assert_eq!(with_host_name(Failure::transport("wx1", Delivery::NotSent, "x"), "not an address").message, "x");
    }
}
