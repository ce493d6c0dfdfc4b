//! Which of several hosts that answer alike the next call goes to.
//!
//! A host at fault rests a while, longer each time, and the first that does not rest is taken; so the preferred one is
//! tried again by itself. Pure: time is passed in; never calls, never looks a name up, never pins an address.

use std::sync::Arc;

use url::Url;

use super::failure::{Class, Failure, MESSAGE_CHARS_MAX, Missing};
use crate::clock::BootMs;

/// How long a host rests after its first fault; doubled with each further one.
pub const REST_MS_MIN: u64 = 60_000;
/// The longest rest.
pub const REST_MS_MAX: u64 = 600_000;

/// WeChat's word for an entry address that is out of service: about the host, not about the app.
const RETIRED_ENTRY: i64 = 48017;

/// Hosts in order of preference, and what is known of each.
#[derive(Debug)]
pub struct Hosts(Vec<Host>);

#[derive(Debug)]
struct Host {
    base_url: Arc<str>,
    /// Since it last answered.
    faults: u32,
    fault_ms: BootMs,
    rests_until_ms: BootMs,
}

/// The host of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenHost {
    pub base_url: Arc<str>,
    index: usize,
    /// When it was taken: a call that began before a fault says nothing about the time after.
    at_ms: BootMs,
}

impl ChosenHost {
    /// The one host there is.
    pub fn only(base_url: &str) -> ChosenHost {
        ChosenHost { base_url: Arc::from(base_url), index: 0, at_ms: 0 }
    }
}

impl Hosts {
    /// `None` if there is nothing to choose from.
    pub fn of<S: AsRef<str>>(base_urls: &[S]) -> Option<Hosts> {
        let host = |url: &S| Host { base_url: Arc::from(url.as_ref()), faults: 0, fault_ms: 0, rests_until_ms: 0 };
        (!base_urls.is_empty()).then(|| Hosts(base_urls.iter().map(host).collect()))
    }

    /// The host of the next call: the first that does not rest, else the one that rests the shortest.
    pub fn pick(&self, now_ms: BootMs) -> Option<ChosenHost> {
        self.pick_but(None, now_ms)
    }

    /// Another host, for a call that never left for the first.
    pub fn pick_other(&self, tried: &ChosenHost, now_ms: BootMs) -> Option<ChosenHost> {
        self.pick_but(Some(tried.index), now_ms)
    }

    fn pick_but(&self, tried: Option<usize>, now_ms: BootMs) -> Option<ChosenHost> {
        let others = self.0.iter().enumerate().filter(|(index, _)| Some(*index) != tried);
        // The first of several that rest equally long, which is none at all for all that are well.
        let (index, host) = others.min_by_key(|(_, host)| host.rests_until_ms.saturating_sub(now_ms))?;
        Some(ChosenHost { base_url: host.base_url.clone(), index, at_ms: now_ms })
    }

    /// The call did not get through, by the host's fault. How long the host rests now, unless it did already: of many
    /// calls under way together only the first counts.
    pub fn failed(&mut self, pick: &ChosenHost, now_ms: BootMs) -> Option<u64> {
        let host = self.0.get_mut(pick.index)?;
        if host.faults > 0 && host.fault_ms >= pick.at_ms {
            return None;
        }
        let rest_ms = REST_MS_MIN.saturating_mul(1 << host.faults.min(10)).min(REST_MS_MAX);
        host.faults = host.faults.saturating_add(1);
        host.fault_ms = now_ms;
        host.rests_until_ms = now_ms.saturating_add(rest_ms);
        Some(rest_ms)
    }

    /// The host answered, be it with a refusal. True if it had been at fault.
    pub fn answered(&mut self, pick: &ChosenHost) -> bool {
        let Some(host) = self.0.get_mut(pick.index) else { return false };
        if host.faults == 0 || host.fault_ms > pick.at_ms {
            return false;
        }
        host.faults = 0;
        host.rests_until_ms = 0;
        true
    }
}

/// Whether another host might have done better. A refusal in WeChat's words is the same everywhere, except the one
/// that is about the host.
pub fn is_at_fault(failure: &Failure) -> bool {
    match failure.errcode {
        Some(code) => code == RETIRED_ENTRY,
        None => failure.class == Class::Retry && failure.missing != Some(Missing::Descriptor),
    }
}

/// A host's name, without scheme, port and path.
pub fn name(base_url: &str) -> Option<String> {
    Url::parse(base_url).ok()?.host_str().map(str::to_owned)
}

/// The failure, with the name of the host it happened at.
pub fn named(mut failure: Failure, base_url: &str) -> Failure {
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

    const TOKEN: ApiCall = ApiCall { platform: "mp", call: ApiEndpoint::Token };

    const MINUTE: u64 = 60_000;

    fn three() -> Hosts {
        Hosts::of(&["https://a", "https://b", "https://c"]).unwrap()
    }

    #[track_caller]
    fn picks(hosts: &Hosts, now_ms: BootMs, expected: &str) -> ChosenHost {
        let pick = hosts.pick(now_ms).unwrap();
        assert_eq!(&*pick.base_url, expected);
        pick
    }

    #[test]
    fn a_host_at_fault_rests_and_is_preferred_again_afterwards() {
        let mut hosts = three();
        let pick = picks(&hosts, 1_000, "https://a");
        assert_eq!(hosts.failed(&pick, 2_000), Some(MINUTE));
        picks(&hosts, 2_000, "https://b");
        picks(&hosts, 2_000 + MINUTE - 1, "https://b");
        picks(&hosts, 2_000 + MINUTE, "https://a");
    }

    #[test]
    fn the_rest_doubles_to_ten_minutes_and_an_answer_ends_the_count() {
        let mut hosts = three();
        let mut now_ms = 5;
        for minutes in [1, 2, 4, 8, 10, 10] {
            let pick = picks(&hosts, now_ms, "https://a");
            assert_eq!(hosts.failed(&pick, now_ms + 1), Some(minutes * MINUTE));
            now_ms += 1 + minutes * MINUTE;
        }
        let pick = picks(&hosts, now_ms, "https://a");
        assert!(hosts.answered(&pick));
        assert!(!hosts.answered(&pick), "nothing to end");
        assert_eq!(hosts.failed(&pick, now_ms), Some(MINUTE));
    }

    #[test]
    fn many_calls_under_way_together_count_as_one_fault() {
        let mut hosts = three();
        let calls = [picks(&hosts, 10, "https://a"), picks(&hosts, 20, "https://a"), picks(&hosts, 30, "https://a")];
        assert_eq!(hosts.failed(&calls[0], 40), Some(MINUTE));
        assert_eq!(hosts.failed(&calls[1], 50), None);
        assert!(!hosts.answered(&calls[2]), "it began before the fault");
        picks(&hosts, 40 + MINUTE - 1, "https://b");
        picks(&hosts, 40 + MINUTE, "https://a");
    }

    #[test]
    fn if_all_rest_the_one_back_first_is_taken_and_there_is_always_one() {
        let mut hosts = three();
        for expected in ["https://a", "https://b", "https://c"] {
            let pick = picks(&hosts, 100, expected);
            let after = hosts.pick_other(&pick, 100).unwrap();
            assert_ne!(after.base_url, pick.base_url);
            hosts.failed(&pick, 100);
        }
        let again = picks(&hosts, 200, "https://a");
        assert_eq!(&*hosts.pick_other(&again, 200).unwrap().base_url, "https://b");
        hosts.failed(&again, 200);
        picks(&hosts, 300, "https://b");
    }

    #[test]
    fn one_host_has_no_other() {
        let mut hosts = Hosts::of(&["https://a"]).unwrap();
        let pick = picks(&hosts, 7, "https://a");
        assert_eq!(hosts.pick_other(&pick, 7), None);
        hosts.failed(&pick, 7);
        picks(&hosts, 8, "https://a");
        assert!(Hosts::of::<&str>(&[]).is_none());
    }

    #[test]
    fn only_a_lost_call_and_a_retired_entry_are_the_hosts_fault() {
        assert!(is_at_fault(&Failure::transport("wx1", Delivery::NotSent, "refused")));
        assert!(is_at_fault(&Failure::transport("wx1", Delivery::Ambiguous, "reset")));
        assert!(is_at_fault(&Failure::refused(TOKEN, "wx1", 48017, String::new())));
        assert!(!is_at_fault(&Failure::unusable("wx1", "no secret")));
        assert!(!is_at_fault(&Failure::no_descriptor("wx1", "too many open files")));
        for code in [-1, 40001, 40013, 40164, 45009, 45011, 89503, 12345] {
            assert!(!is_at_fault(&Failure::refused(TOKEN, "wx1", code, String::new())), "{code}");
        }
    }

    #[test]
    fn a_failure_names_the_host_and_no_more_of_its_address() {
        let failure =
            named(Failure::transport("wx1", Delivery::NotSent, "refused"), "https://api2.weixin.qq.com:8443/x");
        assert_eq!(failure.message, "api2.weixin.qq.com: refused");
        let long = named(Failure::transport("wx1", Delivery::NotSent, "é".repeat(200)), "https://a");
        assert_eq!(long.message.chars().count(), MESSAGE_CHARS_MAX);
        assert_eq!(named(Failure::transport("wx1", Delivery::NotSent, "x"), "not an address").message, "x");
    }
}
