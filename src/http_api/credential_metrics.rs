//! The metrics of credentials: always totals, and series for each credential. With very many apps only credentials in
//! trouble have series: ten thousand healthy ones would make twenty megabytes a scrape that nobody looks at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::metrics::{COUNTER, EncodeResult, GAUGE, Labels, each, family, gauge};
use super::options::MetricsPerCredential;
use crate::clock::Now;
use crate::credential::facts::CredentialInfo;
use crate::credential::table::{Credential, CredentialState, CredentialStatus, Reading};

/// With more apps than this, healthy credentials have no series unless the configuration says so.
const APPS_MAX: usize = 1_000;
/// The most credentials in trouble that have series then, the worst first: all may be in trouble at once.
const TROUBLED_MAX: usize = 1_000;
/// A foreign writer counts as trouble for so long.
const FOREIGN_WRITE_MS: i64 = 3_600_000;

const CLASSES: [&str; 4] = ["retry", "wait", "operator", "internal"];

/// A credential at the time of the scrape.
struct CredentialSample<'c> {
    credential: &'c Credential,
    about: &'c CredentialInfo,
    status: CredentialStatus,
    is_live: bool,
    now: Now,
}

impl CredentialSample<'_> {
    fn of(credential: &Credential, now: Now) -> CredentialSample<'_> {
        CredentialSample {
            credential,
            about: credential.about(),
            status: credential.status(now.boot_ms),
            is_live: matches!(credential.read(now.boot_ms), Reading::Live(_)),
            now,
        }
    }

    fn labels(&self) -> Labels<'_> {
        vec![("app", self.credential.app()), ("type", self.about.credential_type)]
    }

    fn seconds_left(&self) -> f64 {
        self.status.expires_boot_ms.saturating_sub(self.now.boot_ms) as f64 / 1000.0
    }

    fn used(&self) -> u64 {
        self.status.today(self.now.unix_ms).0
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
        self.status.calls_quota.is_some_and(|quota| self.used().saturating_mul(4) > quota.saturating_mul(3))
    }

    fn has_foreign_writer(&self) -> bool {
        let of_late = |at: Now| self.now.unix_ms.saturating_sub(at.unix_ms) < FOREIGN_WRITE_MS;
        self.credential.foreign_writes.load(Relaxed) > 0
            && self.credential.writers.all().iter().any(|writer| writer.is_foreign && of_late(writer.last))
    }
}

/// Name, type and help of a family, and its value for a credential, if it has one.
type CredentialFamily = (&'static str, MetricType, &'static str, fn(&CredentialSample<'_>) -> Option<f64>);

const LEVELS: &[CredentialFamily] = &[
    ("credential_seconds_left", GAUGE, "Seconds until the value ends.", |of| Some(of.seconds_left())),
    ("credential_live", GAUGE, "Whether there is a live value.", |of| Some(f64::from(u8::from(of.is_live)))),
    ("credential_generation", GAUGE, "Number of the present value; each new value counts one more.", |of| {
        Some(of.status.generation as f64)
    }),
    ("quota_used", GAUGE, "Calls made today.", |of| Some(of.used() as f64)),
    ("probes_today", GAUGE, "Probes of today; their call has a quota of its own.", |of| {
        of.about.can_probe.then(|| of.status.today(of.now.unix_ms).1 as f64)
    }),
    ("quota_limit", GAUGE, "Calls a day that the platform allows.", |of| {
        of.status.calls_quota.map(|calls| calls as f64)
    }),
];

const COUNTERS: &[CredentialFamily] = &[
    ("calls_denied", COUNTER, "Calls not made because of the quota.", |of| Some(of.status.calls_denied as f64)),
    ("calls", COUNTER, "Calls made, probes included.", |of| Some(of.status.calls as f64)),
    ("probes", COUNTER, "Calls that only tried whether the value is accepted.", |of| Some(of.status.probes as f64)),
    ("verifications", COUNTER, "Verifications of a value that was doubted.", |of| Some(of.status.checks as f64)),
    ("forced", COUNTER, "Calls that made the platform replace a live value.", |of| Some(of.status.forced as f64)),
    ("early_deaths", COUNTER, "Values that the platform refused before their expiry.", |of| {
        Some(of.status.early_deaths as f64)
    }),
    ("reports", COUNTER, "Reports by clients that the value is refused.", |of| {
        Some(of.credential.reports.load(Relaxed) as f64)
    }),
    ("refused_writes", COUNTER, "Writes by clients that were refused.", |of| {
        Some(of.credential.refused_writes.load(Relaxed) as f64)
    }),
    (
        "foreign_writes",
        COUNTER,
        "Refused writes that brought another token: a foreign writer fetches by itself.",
        |of| Some(of.credential.foreign_writes.load(Relaxed) as f64),
    ),
];

/// All families about credentials.
pub fn encode(
    out: &mut DescriptorEncoder<'_>,
    credentials: &[Arc<Credential>],
    setting: MetricsPerCredential,
    apps: usize,
    now: Now,
) -> EncodeResult {
    let is_reduced = match setting {
        MetricsPerCredential::All => false,
        MetricsPerCredential::Troubled => true,
        MetricsPerCredential::Auto => apps > APPS_MAX,
    };
    let mut seen: Vec<CredentialSample<'_>> =
        credentials.iter().map(|credential| CredentialSample::of(credential, now)).collect();
    encode_platform_totals(out, &seen)?;
    let mut left_out = 0;
    if is_reduced {
        seen.retain(|of| of.trouble() > 0);
        // The sort is stable: of equally bad ones, the same have series at each scrape.
        seen.sort_by_key(|of| std::cmp::Reverse(of.trouble()));
        left_out = seen.len().saturating_sub(TROUBLED_MAX);
        seen.truncate(TROUBLED_MAX);
    }
    let help = "Whether only credentials in trouble have series of their own.";
    gauge(out, "tokencached_series_reduced", help, f64::from(u8::from(is_reduced)))?;
    let help = "Credentials in trouble that have no series of their own because there are too many.";
    gauge(out, "tokencached_series_left_out", help, left_out as f64)?;
    encode_app_names(out, &seen)?;
    encode_each_credential(out, &seen)
}

/// The names of the apps, to be joined with the other series by `app`. As a label of those series, a name that is changed
/// would make new series.
fn encode_app_names(out: &mut DescriptorEncoder<'_>, seen: &[CredentialSample<'_>]) -> EncodeResult {
    let named: BTreeMap<&str, &str> =
        seen.iter().filter_map(|of| Some((of.credential.app(), of.about.name.as_deref()?))).collect();
    if named.is_empty() {
        return Ok(());
    }
    let mut encoder =
        family(out, "tokencached_app", "The name that the configuration gives the app.", MetricType::Info)?;
    for (app, name) in named {
        encoder.encode_info(&vec![("app", app), ("name", name)])?;
    }
    Ok(())
}

fn encode_each_credential(out: &mut DescriptorEncoder<'_>, seen: &[CredentialSample<'_>]) -> EncodeResult {
    for (name, metric_type, help, value) in LEVELS.iter().chain(COUNTERS) {
        let name = format!("tokencached_{name}");
        each(out, (&name, help, *metric_type), seen.iter().filter_map(|of| Some((of.labels(), value(of)?))))?;
    }
    let states = seen.iter().flat_map(|of| {
        CredentialState::ALL.map(|state| {
            let labels = [of.labels(), vec![("state", state.name())]].concat();
            (labels, f64::from(u8::from(of.status.state == state)))
        })
    });
    each(out, ("tokencached_credential_state", "1 for the state that the credential is in, else 0.", GAUGE), states)?;
    let outcomes = seen.iter().flat_map(|of| {
        of.status.outcomes.each().map(|(name, count)| {
            let labels = [of.labels(), vec![("outcome", name)]].concat();
            (labels, count as f64)
        })
    });
    each(out, ("tokencached_fetches", "Fetches, by outcome.", COUNTER), outcomes)
}

/// The sums over all credentials of a platform and a type.
#[derive(Default)]
struct PlatformTotal {
    live: u64,
    seconds_left_min: Option<f64>,
    states: BTreeMap<&'static str, u64>,
    classes: BTreeMap<&'static str, u64>,
    outcomes: BTreeMap<&'static str, u64>,
    /// In the order of [`COUNTERS`].
    counters: [f64; COUNTERS.len()],
}

impl PlatformTotal {
    fn add(&mut self, of: &CredentialSample<'_>) {
        if of.is_live {
            self.live += 1;
            let least = self.seconds_left_min.unwrap_or(f64::INFINITY);
            self.seconds_left_min = Some(of.seconds_left().min(least));
        }
        *self.states.entry(of.status.state.name()).or_default() += 1;
        if let Some(error) = &of.status.last_error {
            *self.classes.entry(error.class).or_default() += 1;
        }
        for (name, count) in of.status.outcomes.each() {
            *self.outcomes.entry(name).or_default() += count;
        }
        for (sum, (.., value)) in self.counters.iter_mut().zip(COUNTERS) {
            *sum += value(of).unwrap_or(0.0);
        }
    }
}

fn encode_platform_totals(out: &mut DescriptorEncoder<'_>, seen: &[CredentialSample<'_>]) -> EncodeResult {
    let mut totals: BTreeMap<(&'static str, &'static str), PlatformTotal> = BTreeMap::new();
    for of in seen {
        totals.entry((of.about.platform, of.about.credential_type)).or_default().add(of);
    }
    let labels = |(platform, credential_type): &(&'static str, &'static str)| {
        vec![("platform", *platform), ("type", *credential_type)]
    };
    let by_word =
        |label: &'static str, words: &[&'static str], of: fn(&PlatformTotal) -> &BTreeMap<&'static str, u64>| {
            let mut values: Vec<(Labels<'static>, f64)> = Vec::new();
            for (group, total) in &totals {
                for word in words {
                    let value = of(total).get(word).copied().unwrap_or(0);
                    values.push(([labels(group), vec![(label, *word)]].concat(), value as f64));
                }
            }
            values.into_iter()
        };
    let states = by_word("state", &CredentialState::ALL.map(CredentialState::name), |total| &total.states);
    each(out, ("tokencached_credentials", "Credentials, by state.", GAUGE), states)?;
    let classes = by_word("class", &CLASSES, |total| &total.classes);
    each(
        out,
        ("tokencached_credentials_failing", "Credentials whose last call failed, by the class of the failure.", GAUGE),
        classes,
    )?;
    let live = totals.iter().map(|(group, total)| (labels(group), total.live as f64));
    each(out, ("tokencached_credentials_live", "Credentials with a live value.", GAUGE), live)?;
    let left = totals.iter().filter_map(|(group, total)| Some((labels(group), total.seconds_left_min?)));
    let help = "Seconds until the first live value ends.";
    each(out, ("tokencached_credentials_seconds_left_min", help, GAUGE), left)?;
    let words = CredentialStatus::default().outcomes.each().map(|(name, _)| name);
    let outcomes = by_word("outcome", &words, |total| &total.outcomes);
    each(out, ("tokencached_platform_fetches", "Fetches for all credentials, by outcome.", COUNTER), outcomes)?;
    for (at, (name, metric_type, help, _)) in COUNTERS.iter().enumerate() {
        let (name, help) = (format!("tokencached_platform_{name}"), format!("Of all credentials: {help}"));
        let sums = totals.iter().filter_map(|(group, total)| Some((labels(group), *total.counters.get(at)?)));
        each(out, (&name, &help, *metric_type), sums)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::credential::journal::Journal;
    use crate::credential::table::{CredentialConfig, CredentialWriter, LastError, Published, Table, TableConfig};

    /// So many apps, each with a token that lives.
    fn table(apps: usize) -> (Table, Vec<CredentialWriter>) {
        let about = || CredentialInfo {
            platform: "mp",
            credential_type: "access_token",
            is_token: true,
            ..CredentialInfo::default()
        };
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
                class: "operator",
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

    struct TestCollector(Vec<Arc<Credential>>, MetricsPerCredential, usize);

    impl std::fmt::Debug for TestCollector {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("TestCollector")
        }
    }

    impl Collector for TestCollector {
        fn encode(&self, mut out: DescriptorEncoder<'_>) -> EncodeResult {
            encode(&mut out, &self.0, self.1, self.2, Now { boot_ms: 1_000, unix_ms: 1_000 })
        }
    }

    fn scrape(table: &Table, setting: MetricsPerCredential) -> String {
        let credentials = table.credentials().to_vec();
        let apps = credentials.len();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(TestCollector(credentials, setting, apps)));
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        text
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
