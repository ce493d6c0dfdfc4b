//! The figures of a credential: `stats tokens`. Never the value.

use crate::clock::{BootMs, Now};
use crate::credential::facts::CredentialInfo;
use crate::credential::table::{Credential, CredentialStatus, LastError, Reading};
use crate::stats::{Figure, FigureValue, figures};

/// A credential now.
pub struct CredentialSample<'c> {
    pub credential: &'c Credential,
    pub about: &'c CredentialInfo,
    pub status: CredentialStatus,
    pub is_live: bool,
    pub now: Now,
}

impl<'c> CredentialSample<'c> {
    pub fn of(credential: &'c Credential, now: Now) -> CredentialSample<'c> {
        CredentialSample {
            credential,
            about: credential.about(),
            status: credential.status(now.boot_ms),
            is_live: matches!(credential.read(now.boot_ms), Reading::Live(_)),
            now,
        }
    }

    pub const LEVELS: &'static str =
        "seconds_left tokencached_credential_live generation calls_today tokencached_probes_today calls_quota";
    pub const COUNTERS: &'static str =
        "calls_denied calls probes checks forced early_deaths reports refused_writes rival_writes";

    pub const FIGURES: &'c [Figure<Self>] = figures! { |of|
        about:
            name = of.about.name.as_ref(),
            tokencached_credential_live = of.is_live
                => gauge tokencached_credential_live "Whether there is a live value.";
        status:
            state = of.status.state.name(),
            endpoint,
            generation => gauge tokencached_credential_generation
                "Number of the present value; each new value counts one more.",
            seconds_left = of.until(of.status.expires_boot_ms)
                => gauge tokencached_credential_seconds_left "Seconds until the value ends.",
            next_action = of.status.next_action(),
            next_call_in_s = of.until(of.status.next_try_boot_ms),
            next_probe_in_s = of.status.next_probe_boot_ms.map_or("none".into(), |at| of.until(at)),
            calls => counter tokencached_calls "Calls made, probes included.",
            calls_today = of.calls_today() => gauge tokencached_quota_used "Calls made today.",
            calls_quota = of.status.calls_quota.map_or("none".into(), FigureValue::Number)
                => gauge tokencached_quota_limit "Calls a day that the platform allows.",
            calls_denied => counter tokencached_calls_denied "Calls not made because of the quota.",
            probes => counter tokencached_probes "Calls that only tried whether the value is accepted.",
            probes_today = of.probes_today(),
            tokencached_probes_today = of.about.can_probe.then(|| of.probes_today())
                => gauge tokencached_probes_today "Probes of today; their call has a quota of its own.",
            same_answers, failures;
        credential: reports => counter tokencached_reports "Reports by clients that the value is refused.";
        status:
            checks => counter tokencached_verifications "Verifications of a value that was doubted.",
            forced => counter tokencached_forced "Calls that made the platform replace a live value.";
        credential:
            refused_writes => counter tokencached_refused_writes "Writes by clients that were refused.",
            rival_writes = &of.credential.foreign_writes => counter tokencached_foreign_writes
                "Refused writes that brought another token: a foreign writer fetches by itself.";
        status:
            early_deaths
                => counter tokencached_early_deaths "Values that the platform refused before their expiry.",
            wildcard_keys = of.wildcard_keys(),
            waits_for = of.credential.missing_token(&of.status).map(|parent| &parent.appid),
            last_error_class = of.error().map(|error| error.class.name()),
            last_error_errcode = of.error().map(|error| error.errcode.unwrap_or(0).to_string()),
            last_error_rid = of.error().map(|error| error.rid.as_deref().unwrap_or("none")),
            last_error_s_ago = of.error().map(|error| of.now.boot_ms.saturating_sub(error.at_boot_ms) / 1000),
            last_error = of.error().map(|error| &error.text),
            what_to_do = of.error().map(|error| &*error.advice);
    };

    fn until(&self, boot_ms: BootMs) -> FigureValue<'_> {
        FigureValue::Milliseconds(boot_ms.saturating_sub(self.now.boot_ms))
    }

    pub fn calls_today(&self) -> u64 {
        self.status.today(self.now.unix_ms).0
    }

    fn probes_today(&self) -> u64 {
        self.status.today(self.now.unix_ms).1
    }

    fn wildcard_keys(&self) -> Option<String> {
        let keys = self.credential.wildcard_names().join(" ");
        (!keys.is_empty()).then_some(keys)
    }

    fn error(&self) -> Option<&LastError> {
        self.status.last_error.as_ref()
    }
}
