//! What `check` has found, and how it is printed: notes first, what is wrong last, then the verdict.
//!
//! Each line begins with `note:`, `good:`, `not asked:`, `warning:` or `bad:`; lines that belong to it are indented by two
//! blanks. With `--print` the settings in effect come first, and every other line begins with `# `, so that the whole
//! output is a configuration again. Never reads or checks anything.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::Hash;
use std::io::{self, Write};

use crate::texts::Language;

/// Up to so many good apps are listed one by one; with `--print` all are.
const GOOD_SHOWN_MAX: usize = 10;
const WIDTH: usize = 100;
/// How many further lines of one warning are named.
const PLACES_MAX: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Faults, warnings and the verdict.
    Quiet,
    /// Also notes and what is good.
    Usual,
    /// Also the settings in effect, and every good app by itself.
    All,
}

#[derive(Debug, Default)]
pub struct CheckReport {
    notes: Vec<String>,
    warnings: Vec<String>,
    /// What `--live` has asked, and the name of each.
    asked: Vec<(Subject, String, CheckOutcome)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    App,
    Sink,
    ClusterStore,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    Good(String),
    NotAsked(String),
    /// What is wrong, and in the next line what to do.
    Bad(String),
}

impl CheckReport {
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    /// Notes about several apps, each with the app's name; equal ones become one.
    pub fn note_of_apps(&mut self, notes: Vec<(String, String)>) {
        self.notes.extend(merge_equal(notes, false));
    }

    pub fn record(&mut self, subject: Subject, name: String, outcome: CheckOutcome) {
        self.asked.push((subject, name, outcome));
    }

    pub fn is_good(&self) -> bool {
        !self.asked.iter().any(|(.., outcome)| matches!(outcome, CheckOutcome::Bad(_)))
    }

    /// The verdict of `check --live`, such as `291 of 300 apps good, 9 not`; `None` if there was nothing to check.
    fn live_verdict(&self) -> Option<String> {
        let of = |(subject, what): (Subject, &str)| {
            let (mut good, mut bad, mut not_asked) = (0, 0, 0);
            for (.., outcome) in self.asked.iter().filter(|(asked, ..)| *asked == subject) {
                match outcome {
                    CheckOutcome::Good(_) => good += 1,
                    CheckOutcome::NotAsked(_) => not_asked += 1,
                    CheckOutcome::Bad(_) => bad += 1,
                }
            }
            let others = [(bad, "not"), (not_asked, "not asked")].into_iter().filter(|(number, _)| *number > 0);
            let others: String = others.map(|(number, how)| format!(", {number} {how}")).collect();
            let total = good + bad + not_asked;
            (total > 0).then(|| format!("{good} of {} good{others}", count(total, what)))
        };
        let subjects = [(Subject::App, "app"), (Subject::Sink, "sink"), (Subject::ClusterStore, "cluster store")];
        let parts: Vec<String> = subjects.into_iter().filter_map(of).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// Prints it. `settings` are those in effect; `verdict` is that about the configuration, used if `--live` has none.
    pub fn print(
        self,
        detail: Detail,
        language: Language,
        settings: &str,
        verdict: &str,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let prefix = if detail == Detail::All { "# " } else { "" };
        if detail == Detail::All {
            writeln!(out, "# {}", language.of("the settings in effect"))?;
            out.write_all(settings.as_bytes())?;
        }
        let verdict = self.live_verdict().unwrap_or_else(|| verdict.to_owned());
        let (mut good, mut not_asked, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        for (_, name, outcome) in self.asked {
            match outcome {
                CheckOutcome::Good(text) => good.push(format!("{name}: {text}")),
                CheckOutcome::NotAsked(text) => not_asked.push((name, text)),
                CheckOutcome::Bad(text) => bad.push((name, text)),
            }
        }
        let mut lines = Vec::new();
        let mut add = |word: &str, texts: Vec<String>| {
            let word = language.of(word);
            lines.extend(texts.iter().map(|text| format!("{word}: {}", language.of(text).replace('\n', "\n  "))));
        };
        if detail != Detail::Quiet {
            add("note", self.notes);
            if detail == Detail::All || good.len() <= GOOD_SHOWN_MAX {
                add("good", good);
            }
            add("not asked", merge_equal(not_asked, detail == Detail::All));
        }
        let warnings = merge_places(self.warnings);
        let warned = if warnings.is_empty() { "no warnings".to_owned() } else { count(warnings.len(), "warning") };
        add("warning", warnings);
        add("bad", merge_equal(bad, true));
        lines.push(language.of(&format!("{verdict}; {warned}")).into_owned());
        for line in lines.iter().flat_map(|text| text.lines()) {
            writeln!(out, "{prefix}{line}")?;
        }
        Ok(())
    }
}

/// `1 app`, `2 apps`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Those with the same key together, in the order of the first of each.
fn grouped<K: Clone + Eq + Hash, V>(all: impl Iterator<Item = (K, V)>) -> Vec<(K, Vec<V>)> {
    let (mut at, mut groups): (HashMap<K, usize>, Vec<(K, Vec<V>)>) = Default::default();
    for (key, value) in all {
        let index = *at.entry(key.clone()).or_insert(groups.len());
        match groups.get_mut(index) {
            Some((_, members)) => members.push(value),
            None => groups.push((key, vec![value])),
        }
    }
    groups
}

/// Texts that differ only in their app's name become one, with how many there are, and with the names below if wanted.
fn merge_equal(all: Vec<(String, String)>, with_names: bool) -> Vec<String> {
    let groups = grouped(all.into_iter().map(|(name, text)| (generalize(&name, &text), (name, text))));
    groups.into_iter().map(|(general, members)| group_text(&general, &members, with_names)).collect()
}

fn group_text(general: &str, members: &[(String, String)], with_names: bool) -> String {
    if let [(name, text)] = members {
        return format!("{name}: {text}");
    }
    let mut text = format!("{}: {general}", count(members.len(), "app"));
    let mut line = String::new();
    for (name, _) in members.iter().filter(|_| with_names) {
        if !line.is_empty() && line.len() + name.len() > WIDTH {
            let _ = write!(text, "\n{}", line.trim_end());
            line.clear();
        }
        let _ = write!(line, "{name} ");
    }
    if !line.is_empty() {
        let _ = write!(text, "\n{}", line.trim_end());
    }
    text
}

/// The text without the app's name and without WeChat's request id.
fn generalize(name: &str, text: &str) -> String {
    let mut text = text.replace(name, "APPID");
    // Messages about an agent also name the corporation.
    if let Some((corporation, _)) = name.split_once(':').filter(|(corporation, _)| !corporation.is_empty()) {
        text = text.replace(corporation, "APPID");
    }
    without_rid(&text)
}

fn without_rid(text: &str) -> String {
    let Some((before, rest)) = text.split_once("rid") else { return text.to_owned() };
    let rest = rest.trim_start_matches([':', '=', ' ']);
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
    let looks_right = rest.get(..end).is_some_and(|rid| rid.contains('-'));
    match rest.get(end..).filter(|_| looks_right) {
        Some(rest) => {
            let before = before.trim_end_matches([' ', '(', ',']);
            without_rid(&format!("{before}{}", rest.strip_prefix(')').unwrap_or(rest)))
        }
        None => text.to_owned(),
    }
}

/// `FILE:LINE: text` of several lines with the same text becomes one with the other lines at its end.
fn merge_places(warnings: Vec<String>) -> Vec<String> {
    let placed = warnings.into_iter().enumerate().map(|(at, warning)| {
        let parts = warning.split_once(": ").and_then(|(place, text)| Some((place.rsplit_once(':')?, text)));
        let parts = parts.filter(|((_, line), _)| line.bytes().all(|byte| byte.is_ascii_digit()));
        let (key, line) = match parts {
            Some(((file, line), text)) => ((None, file.to_owned(), text.to_owned()), line.to_owned()),
            // Equal to no other.
            None => ((Some(at), String::new(), String::new()), String::new()),
        };
        (key, (warning, line))
    });
    grouped(placed).into_iter().filter_map(|(_, members)| with_places(&members)).collect()
}

/// The first warning, with the lines of the others.
fn with_places(members: &[(String, String)]) -> Option<String> {
    let ((warning, _), more) = members.split_first()?;
    if more.is_empty() {
        return Some(warning.clone());
    }
    let shown = more.iter().take(PLACES_MAX).map(|(_, line)| line.as_str()).collect::<Vec<_>>().join(", ");
    let rest = more.len().saturating_sub(PLACES_MAX);
    let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    Some(format!("{warning}\nthe same in line{} {shown}{rest}", if more.len() == 1 { "" } else { "s" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(report: CheckReport, detail: Detail) -> String {
        let mut out = Vec::new();
        report
            .print(detail, Language::English, "[log]\njson = false\n", "configuration good: no apps", &mut out)
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    fn refused(appid: &str, rid: &str) -> (String, CheckOutcome) {
        let text =
            format!("no token: errcode 40164, invalid ip (rid {rid})\nwhat to do: add it to the list of {appid}");
        (appid.to_owned(), CheckOutcome::Bad(text))
    }

    #[test]
    fn equal_faults_are_said_once_with_the_apps_below_and_the_verdict_comes_last() {
        let mut report = CheckReport::default();
        report.note("a note");
        report.warn("a warning");
        for index in 0..11 {
            report.record(Subject::App, format!("wx{index:016}"), CheckOutcome::Good("WeChat gave a token".into()));
        }
        for (appid, rid) in [("wx1111111111111111", "5f00-a1"), ("wx2222222222222222", "5f00-b2")] {
            let (name, outcome) = refused(appid, rid);
            report.record(Subject::App, name, outcome);
        }
        report.record(Subject::App, "wx3333333333333333".into(), CheckOutcome::Bad("the secret is empty".into()));
        assert_eq!(
            printed(report, Detail::Usual),
            "note: a note\nwarning: a warning\nbad: 2 apps: no token: errcode 40164, invalid ip\n  what to do: add it to \
             the list of APPID\n  wx1111111111111111 wx2222222222222222\nbad: wx3333333333333333: the secret is empty\n11 of \
             14 apps good, 3 not; 1 warning\n"
        );
    }

    #[test]
    fn few_good_apps_are_listed_and_all_are_if_asked_for() {
        let with = |good: usize, detail| {
            let mut report = CheckReport::default();
            for index in 0..good {
                report.record(Subject::App, format!("wx{index:016}"), CheckOutcome::Good("well".into()));
            }
            printed(report, detail)
        };
        assert_eq!(with(1, Detail::Usual), "good: wx0000000000000000: well\n1 of 1 app good; no warnings\n");
        assert_eq!(with(300, Detail::Usual), "300 of 300 apps good; no warnings\n");
        assert_eq!(with(1, Detail::Quiet), "1 of 1 app good; no warnings\n");
        assert_eq!(with(300, Detail::All).lines().filter(|line| line.starts_with("# good: ")).count(), 300);
    }

    #[test]
    fn with_the_settings_all_other_lines_are_comments() {
        let mut report = CheckReport::default();
        report.warn("c.toml:3: one\ntwo");
        assert_eq!(
            printed(report, Detail::All),
            "# the settings in effect\n[log]\njson = false\n# warning: c.toml:3: one\n#   two\n# configuration good: no \
             apps; 1 warning\n"
        );
    }

    #[test]
    fn one_warning_of_many_lines_is_said_once() {
        let warnings = |count: usize| {
            let all = (1..=count).map(|line| format!("/etc/c.toml:{line}: the secret is here")).collect();
            merge_places(all)
        };
        assert_eq!(warnings(1), ["/etc/c.toml:1: the secret is here"]);
        assert_eq!(warnings(3), ["/etc/c.toml:1: the secret is here\nthe same in lines 2, 3"]);
        let many = warnings(300);
        assert!(many.len() == 1 && many[0].ends_with("20, 21 and 279 more"), "{many:?}");
        assert_eq!(merge_places(vec!["no: place".into(), "no: place".into()]).len(), 2);
    }

    #[test]
    fn a_name_of_a_call_does_not_make_equal_faults_differ() {
        let without = |text: &str| without_rid(text);
        assert_eq!(without("errcode 40001 rid: 5f-1a-2b (rid 5f-1a-2b)"), "errcode 40001");
        assert_eq!(without("a bridge is arid"), "a bridge is arid");
        assert_eq!(without("errcode 1, x, rid: 5f-1a"), "errcode 1, x");
    }
}
