//! The metrics of credentials: always totals, and series for each credential. With very many apps only credentials in
//! trouble have series: ten thousand healthy ones would make twenty megabytes a scrape that nobody looks at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::metrics_writer::{Labels, MetricsWriter, with_label};
use super::options::MetricsPerCredential;
use crate::clock::Now;
use crate::credential::facts::CallOutcome;
use crate::credential::table::{Credential, CredentialState};
use crate::service::figures::CredentialSample;
use crate::stats::{Metric, by_names};

/// With more apps than this, healthy credentials have no series unless the configuration says so.
const APPS_MAX: usize = 1_000;
/// The most credentials in trouble that have series then, the worst first: all may be in trouble at once.
const TROUBLED_MAX: usize = 1_000;
/// A foreign writer counts as trouble for so long.
const FOREIGN_WRITE_MS: i64 = 3_600_000;

impl CredentialSample<'_> {
    fn seconds_left(&self) -> f64 {
        self.status.expires_boot_ms.saturating_sub(self.now.boot_ms) as f64 / 1000.0
    }

    /// How bad it is; 0 is no trouble. Every state that an alert on a single credential asks for must be trouble.
    fn trouble(&self) -> u8 {
        match self.status.state {
            _ if !self.is_live => 4,
            CredentialState::Blocked => 3,
            CredentialState::Stale | CredentialState::Waiting | CredentialState::Dead => 2,
            _ if self.status.last_error.is_some() || self.quota_runs_out() || self.has_foreign_writer() => 1,
            CredentialState::Fresh | CredentialState::Renewing => 0,
        }
    }

    fn quota_runs_out(&self) -> bool {
        self.status.calls_quota.is_some_and(|quota| self.calls_today().saturating_mul(4) > quota.saturating_mul(3))
    }

    fn has_foreign_writer(&self) -> bool {
        let of_late = |at: Now| self.now.unix_ms.saturating_sub(at.unix_ms) < FOREIGN_WRITE_MS;
        self.credential.foreign_writes.load(Relaxed) > 0
            && self.credential.writers.all().iter().any(|writer| writer.is_foreign && of_late(writer.last))
    }
}

type LabelledCredential<'c> = (Labels<'c>, CredentialSample<'c>);

pub fn write<'c>(
    out: &mut MetricsWriter,
    credentials: &'c [Arc<Credential>],
    setting: MetricsPerCredential,
    apps: usize,
    now: Now,
) {
    let is_reduced = match setting {
        MetricsPerCredential::All => false,
        MetricsPerCredential::Troubled => true,
        MetricsPerCredential::Auto => apps > APPS_MAX,
    };
    let of = |credential: &'c Arc<Credential>| {
        let labels = vec![("app", credential.app()), ("type", credential.about().credential_type)];
        (labels, CredentialSample::of(credential, now))
    };
    let mut seen: Vec<LabelledCredential<'_>> = credentials.iter().map(of).collect();
    write_platform_totals(out, &seen);
    let mut left_out = 0;
    if is_reduced {
        seen.retain(|(_, of)| of.trouble() > 0);
        // The sort is stable: of equally bad ones, the same have series at each scrape.
        seen.sort_by_key(|(_, of)| std::cmp::Reverse(of.trouble()));
        left_out = seen.len().saturating_sub(TROUBLED_MAX);
        seen.truncate(TROUBLED_MAX);
    }
    let help = "Whether only credentials in trouble have series of their own.";
    out.value(Metric::gauge("tokencached_series_reduced", help), f64::from(u8::from(is_reduced)));
    let help = "Credentials in trouble that have no series of their own because there are too many.";
    out.value(Metric::gauge("tokencached_series_left_out", help), left_out as f64);
    write_app_names(out, &seen);
    write_each_credential(out, &seen);
}

/// The names of the apps, to be joined with the other series by `app`. As a label of those series, a name that is changed
/// would make new series.
fn write_app_names(out: &mut MetricsWriter, seen: &[LabelledCredential<'_>]) {
    let named: BTreeMap<&str, &str> =
        seen.iter().filter_map(|(_, of)| Some((of.credential.app(), of.about.name.as_deref()?))).collect();
    if named.is_empty() {
        return;
    }
    let series = named.into_iter().map(|(app, name)| (vec![("app", app), ("name", name)], 1.0));
    let help = "The name that the configuration gives the app.";
    out.family(Metric::info("tokencached_app", help), series);
}

fn write_each_credential(out: &mut MetricsWriter, seen: &[LabelledCredential<'_>]) {
    for names in [CredentialSample::LEVELS, CredentialSample::COUNTERS] {
        out.labelled_figures(CredentialSample::FIGURES, names, seen.iter());
    }
    let states = seen.iter().flat_map(|(labels, of)| {
        CredentialState::ALL.map(|state| {
            let is_in_it = f64::from(u8::from(of.status.state == state));
            (with_label(labels, "state", state.name()), is_in_it)
        })
    });
    out.family(
        Metric::gauge("tokencached_credential_state", "1 for the state that the credential is in, else 0."),
        states,
    );
    let outcomes = seen.iter().flat_map(|(labels, of)| {
        CallOutcome::ALL
            .map(|outcome| (with_label(labels, "outcome", outcome.name()), of.status.outcomes.count(outcome) as f64))
    });
    out.family(Metric::counter("tokencached_fetches", "Fetches, by outcome."), outcomes);
}

/// The credentials of a platform and a type, with the labels of their sums.
type PlatformGroup<'s, 'c> = (Labels<'static>, Vec<&'s CredentialSample<'c>>);

fn write_platform_totals(out: &mut MetricsWriter, seen: &[LabelledCredential<'_>]) {
    let mut groups: BTreeMap<_, PlatformGroup<'_, '_>> = BTreeMap::new();
    for (_, of) in seen {
        let (platform, credential_type) = (of.about.platform, of.about.credential_type);
        let labels = || vec![("platform", platform), ("type", credential_type)];
        groups.entry((platform, credential_type)).or_insert_with(|| (labels(), Vec::new())).1.push(of);
    }
    let groups: Vec<PlatformGroup<'_, '_>> = groups.into_values().collect();
    let states = CredentialState::ALL.map(|state| (state.name(), state));
    let states = by_word(&groups, "state", &states, |of, state| u64::from(of.status.state == state));
    out.family(Metric::gauge("tokencached_credentials", "Credentials, by state."), states);
    let failures = CallOutcome::ALL.into_iter().filter(|outcome| matches!(outcome, CallOutcome::Failed(_)));
    let classes: Vec<_> = failures.map(|outcome| (outcome.name(), outcome)).collect();
    let classes = by_word(&groups, "class", &classes, |of, outcome| {
        u64::from(of.status.last_error.as_ref().is_some_and(|error| CallOutcome::Failed(error.class) == outcome))
    });
    let help = "Credentials whose last call failed, by the class of the failure.";
    out.family(Metric::gauge("tokencached_credentials_failing", help), classes);
    let live = |all: &[&CredentialSample<'_>]| all.iter().filter(|of| of.is_live).count() as f64;
    let live = groups.iter().map(|(labels, all)| (labels.clone(), live(all)));
    out.family(Metric::gauge("tokencached_credentials_live", "Credentials with a live value."), live);
    let least = |all: &[&CredentialSample<'_>]| {
        all.iter().filter(|of| of.is_live).map(|of| of.seconds_left()).min_by(f64::total_cmp)
    };
    let left = groups.iter().filter_map(|(labels, all)| Some((labels.clone(), least(all)?)));
    out.family(
        Metric::gauge("tokencached_credentials_seconds_left_min", "Seconds until the first live value ends."),
        left,
    );
    let outcomes = CallOutcome::ALL.map(|outcome| (outcome.name(), outcome));
    let outcomes = by_word(&groups, "outcome", &outcomes, |of, outcome| of.status.outcomes.count(outcome));
    out.family(Metric::counter("tokencached_platform_fetches", "Fetches for all credentials, by outcome."), outcomes);
    for figure in by_names(CredentialSample::FIGURES, CredentialSample::COUNTERS) {
        let Some(metric) = figure.metric else { continue };
        let name = metric.name.replacen("tokencached_", "tokencached_platform_", 1);
        let sums = groups
            .iter()
            .map(|(labels, all)| (labels.clone(), all.iter().filter_map(|of| (figure.read)(of).number()).sum()));
        out.family(Metric::counter(&name, &format!("Of all credentials: {}", metric.help)), sums);
    }
}

/// For each group and word, the sum of what its credentials have of that word.
fn by_word<'g, W: Copy>(
    groups: &'g [PlatformGroup<'_, '_>],
    label: &'static str,
    words: &'g [(&'static str, W)],
    value: fn(&CredentialSample<'_>, W) -> u64,
) -> impl Iterator<Item = (Labels<'static>, f64)> + 'g {
    groups.iter().flat_map(move |(labels, all)| {
        words.iter().map(move |(word, of_word)| {
            let sum: u64 = all.iter().map(|of| value(of, *of_word)).sum();
            (with_label(labels, label, word), sum as f64)
        })
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::credential::facts::{CredentialInfo, FailureClass};
    use crate::credential::journal::Journal;
    use crate::credential::table::{
        CredentialConfig, CredentialStatus, CredentialWriter, LastError, Published, Table, TableConfig,
    };

    /// So many apps, each with a token that lives.
    fn table(apps: usize) -> (Table, Vec<CredentialWriter>) {
        let about = || CredentialInfo { platform: "mp", credential_type: "access_token", ..CredentialInfo::default() };
        let one = |n| CredentialConfig { about: about(), ..CredentialConfig::new(&format!("wx{n:016x}"), Vec::new()) };
        let credentials = (0..apps).map(one).collect();
        let (table, writers, _requests) = Table::new(TableConfig { credentials, ..TableConfig::default() });
        for writer in &writers {
            writer.publish(Published::to_the_end(Bytes::from_static(b"T"), 1, 7_200_000));
            writer.update_status(|status| {
                (status.state, status.generation, status.expires_boot_ms) = (CredentialState::Fresh, 1, 7_200_000);
            });
        }
        (table, writers)
    }

    fn block(writer: &CredentialWriter) {
        writer.update_status(|status| {
            status.state = CredentialState::Blocked;
            status.last_error = Some(LastError {
                errcode: Some(40164),
                class: FailureClass::Operator,
                rid: None,
                text: "invalid ip".into(),
                meaning: None,
                advice: "add it to the list".into(),
                network: None,
                seen_ip: None,
                at_boot_ms: 1,
            });
        });
    }

    fn scrape(table: &Table, setting: MetricsPerCredential) -> String {
        let credentials = table.credentials();
        let now = Now { boot_ms: 1_000, unix_ms: 1_000 };
        let mut out = MetricsWriter::new(false);
        write(&mut out, &credentials, setting, credentials.len(), now);
        out.finish()
    }

    fn count(text: &str, begin: &str) -> usize {
        text.lines().filter(|line| line.starts_with(begin)).count()
    }

    #[test]
    fn up_to_a_thousand_apps_each_has_its_series_and_above_that_those_in_trouble() {
        let (many, writers) = table(APPS_MAX);
        block(&writers[7]);
        let text = scrape(&many, MetricsPerCredential::Auto);
        assert_eq!(count(&text, "tokencached_credential_live{"), APPS_MAX);
        assert!(text.contains("\ntokencached_series_reduced 0.0\n"));
        let (more, writers) = table(APPS_MAX + 1);
        block(&writers[7]);
        let text = scrape(&more, MetricsPerCredential::Auto);
        assert!(text.contains("\ntokencached_series_reduced 1.0\n"));
        assert_eq!(count(&text, "tokencached_credential_live{"), 1);
        let blocked = "app=\"wx0000000000000007\",type=\"access_token\",state=\"blocked\"} 1.0";
        assert!(text.contains(&format!("\ntokencached_credential_state{{{blocked}\n")));
        let of_all = "tokencached_credentials{platform=\"mp\",type=\"access_token\",state=";
        assert!(text.contains(&format!("\n{of_all}\"fresh\"}} 1000.0\n")), "{text}");
        assert!(text.contains(&format!("\n{of_all}\"blocked\"}} 1.0\n")));
        let failing = "tokencached_credentials_failing{platform=\"mp\",type=\"access_token\",class=\"operator\"} 1.0";
        assert!(text.contains(failing));
        let text = scrape(&more, MetricsPerCredential::All);
        assert_eq!(count(&text, "tokencached_credential_live{"), APPS_MAX + 1);
    }

    #[test]
    fn a_scrape_of_ten_thousand_apps_stays_small_even_if_all_are_in_trouble() {
        let (table, writers) = table(10_000);
        assert!(scrape(&table, MetricsPerCredential::Auto).len() < 16 * 1024);
        writers.iter().for_each(block);
        // The worst come first: these have no live value either.
        for writer in &writers[9_000..] {
            writer.withdraw(1_000);
        }
        let text = scrape(&table, MetricsPerCredential::Auto);
        assert!(text.len() < 4 * 1024 * 1024, "{}", text.len());
        assert_eq!(count(&text, "tokencached_credential_live{"), TROUBLED_MAX);
        assert!(text.contains("\ntokencached_series_left_out 9000.0\n"));
        assert_eq!(count(&text, "tokencached_credential_live{app=\"wx0000000000002"), 1_000);
    }

    #[test]
    fn whatever_an_alert_asks_of_a_single_credential_is_trouble() {
        let of = |change: fn(&CredentialWriter)| {
            let (table, writers) = table(1);
            change(&writers[0]);
            CredentialSample::of(&table.credentials()[0], Now { boot_ms: 1_000, unix_ms: 1_000 }).trouble()
        };
        assert_eq!(of(|_| {}), 0);
        assert_eq!(of(|writer| writer.withdraw(1_000)), 4);
        assert_eq!(of(block), 3);
        assert_eq!(of(|writer| writer.update_status(|status| status.state = CredentialState::Waiting)), 2);
        let quota = |used| {
            move |status: &mut CredentialStatus| {
                (status.calls_today, status.calls_quota, status.day_ends_unix_ms) = (used, Some(100), 2_000);
            }
        };
        let after = |used| {
            let (table, writers) = table(1);
            writers[0].update_status(quota(used));
            CredentialSample::of(&table.credentials()[0], Now { boot_ms: 1_000, unix_ms: 1_000 }).trouble()
        };
        assert_eq!((after(75), after(76)), (0, 1));
        let foreign = |credential: &CredentialWriter| {
            credential.foreign_writes.fetch_add(1, Relaxed);
            credential.record_refused_write(
                &Journal::default(),
                &"10.0.0.5:1",
                true,
                Now { boot_ms: 500, unix_ms: 500 },
            );
        };
        assert_eq!(of(foreign), 1);
    }
}
