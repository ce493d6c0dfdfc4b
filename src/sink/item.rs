//! What a sink writes of one credential, and how it judges what it finds there.
//!
//! Pure: the time comes in as a value.

use std::sync::Arc;

use bytes::Bytes;

use super::backend::{CurrentValue, Retraction};
use super::options::{SinkContent, SinkEntry};
use crate::clock::{BootMs, LogThrottle, Now};
use crate::credential::table::{Credential, Published};

/// Shorter values are no tokens.
const TOKEN_BYTES_MIN: usize = 16;
/// How many tokens of ours may still be in a store: the present one, the one before, and one that a Redis loaded from disk.
const OURS_MAX: usize = 3;

/// One credential, and the entries that one sink writes of it.
pub(super) struct SinkItem {
    pub credential: Arc<Credential>,
    pub entries: Arc<[SinkEntry]>,
    /// When the written value has to go.
    pub end_ms: Option<BootMs>,
    /// Limits the log lines about foreign writers to one a minute.
    pub foreign_throttle: LogThrottle,
    /// What we wrote last to each entry, unless it was retracted since.
    written: Vec<Option<Vec<u8>>>,
    /// Our last tokens that were written, and the last that were tried, which a store may write although the write is
    /// given up; the newest last. However many are tried in vain, what was written before stays known.
    written_tokens: Vec<Bytes>,
    tried_tokens: Vec<Bytes>,
}

impl SinkEntry {
    /// The bytes that an alias would answer.
    pub(super) fn render(&self, current: &CurrentValue) -> Vec<u8> {
        let mut bytes = Vec::new();
        match &self.content {
            SinkContent::View(view) => {
                view.render(&current.value).write(&mut bytes, &current.times(view.at_least_s));
            }
            SinkContent::Template(_) => bytes.extend_from_slice(&current.value),
        }
        bytes
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundContent {
    Absent,
    Ours,
    /// A foreign writer's token, where ours was.
    ForeignToken,
    /// Anything else that we did not write.
    Other,
}

impl SinkItem {
    pub fn new(credential: Arc<Credential>, entries: Vec<SinkEntry>) -> SinkItem {
        SinkItem {
            credential,
            written: vec![None; entries.len()],
            entries: entries.into_iter().collect(),
            end_ms: None,
            foreign_throttle: LogThrottle::default(),
            written_tokens: Vec::new(),
            tried_tokens: Vec::new(),
        }
    }

    /// The value to write at this instant, and when it has to go; none if no value lives longer than the margin.
    pub fn value_to_write(&self, margin_ms: u64, now: Now, at_least_s: u32) -> Option<(CurrentValue, BootMs)> {
        let published = self.credential.published()?;
        let until_ms = published.expires_boot_ms.saturating_sub(margin_ms);
        (until_ms > now.boot_ms).then(|| (current(&published, now, at_least_s), until_ms))
    }

    /// A write of this token begins.
    pub fn record_try(&mut self, token: Bytes) {
        remember(&mut self.tried_tokens, token);
    }

    pub fn judge_all(&self, found: &[Option<Vec<u8>>]) -> Vec<FoundContent> {
        found.iter().enumerate().map(|(entry, found)| self.judge(entry, found.as_deref())).collect()
    }

    /// Judges what was at an entry; `None` if nothing was. Looks for our tokens in any encoding: another node writes the
    /// same token with other times.
    pub fn judge(&self, entry: usize, found: Option<&[u8]>) -> FoundContent {
        let (Some(found), Some(known), Some(written)) = (found, self.entries.get(entry), self.written.get(entry))
        else {
            return FoundContent::Absent;
        };
        let same = written.as_deref() == Some(found);
        let holds = |token: &Bytes| memchr::memmem::find(found, token).is_some();
        if same || !known.content.holds_value() || self.written_tokens.iter().chain(&self.tried_tokens).any(holds) {
            return FoundContent::Ours;
        }
        // Before our first write, what is there may be old.
        if written.is_some() && found.len() >= TOKEN_BYTES_MIN {
            FoundContent::ForeignToken
        } else {
            FoundContent::Other
        }
    }

    /// The write that was begun last is done.
    pub fn record_written(&mut self, contents: Vec<Vec<u8>>) {
        self.written = contents.into_iter().map(Some).collect();
        if let Some(token) = self.tried_tokens.pop() {
            remember(&mut self.written_tokens, token);
        }
    }

    /// What to retract. After a restart the expected bytes are what a former process will have written, as far as that is
    /// known.
    pub fn retraction(&self, now: Now) -> Retraction {
        let last = self.credential.published().map(|published| current(&published, now, 0));
        let expected = |(entry, written): (&SinkEntry, &Option<Vec<u8>>)| {
            let guess = || last.as_ref().filter(|_| entry.content.holds_value()).map(|last| entry.render(last));
            written.clone().or_else(guess)
        };
        let expected = self.entries.iter().zip(&self.written).map(expected).collect();
        Retraction { entries: self.entries.clone(), expected, last }
    }

    pub fn record_retracted(&mut self) {
        self.written.fill(None);
    }

    pub fn is_written(&self) -> bool {
        self.written.iter().any(Option::is_some)
    }
}

fn remember(tokens: &mut Vec<Bytes>, token: Bytes) {
    tokens.retain(|known| *known != token);
    tokens.push(token);
    if tokens.len() > OURS_MAX {
        tokens.remove(0);
    }
}

fn current(published: &Published, now: Now, at_least_s: u32) -> CurrentValue {
    CurrentValue {
        value: published.value.clone(),
        now,
        end_ms: published.expires_boot_ms,
        reliable_until_ms: published.reliable_until(now.boot_ms),
        at_least_s,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::table::{CredentialWriter, ReliableUntil, Table, TableConfig};
    use crate::encoding::{Fact, Form, View};
    use crate::platform::CredentialName;

    const TOKEN: &str = "token-of-ours-0123456789";
    const OTHER: &str = "token-of-another-0123456789";
    const NOW: Now = Now { boot_ms: 10_000, unix_ms: 1_700_000_000_000 };

    fn item() -> (SinkItem, CredentialWriter) {
        let entry = |(name, form): (&str, Form)| {
            let content = SinkContent::View(View { form, flags: 0, at_least_s: 0 });
            SinkEntry {
                app: "wx1".into(),
                of: CredentialName::AccessToken,
                name: name.into(),
                redacted_name: None,
                content,
            }
        };
        let entries = [("token", Form::JSON_STRING), ("at", Form::Raw(Fact::ExpiresAt))].map(entry).into();
        let (table, mut writers, _requests) = Table::new(TableConfig::of([("wx1", Vec::new())]));
        (SinkItem::new(table.credentials()[0].clone(), entries), writers.remove(0))
    }

    fn publish(writer: &CredentialWriter, token: &str, expires_boot_ms: BootMs) {
        let value = Bytes::copy_from_slice(token.as_bytes());
        writer.publish(Published::to_the_end(value, 1, expires_boot_ms));
    }

    fn write(item: &mut SinkItem) {
        let (current, _) = item.value_to_write(0, NOW, 0).unwrap();
        item.record_try(current.value.clone());
        item.record_written(item.entries.iter().map(|entry| entry.render(&current)).collect());
    }

    #[test]
    fn what_was_written_stays_known_however_many_writes_fail_after_it() {
        let (mut item, writer) = item();
        publish(&writer, TOKEN, 70_500);
        write(&mut item);
        for number in 0..9 {
            item.record_try(format!("token-that-never-came-{number:04}").into());
        }
        let judge = |token: &str| item.judge(0, Some(token.as_bytes()));
        assert_eq!(judge(&format!("{TOKEN} by another node")), FoundContent::Ours);
        assert_eq!(judge("token-that-never-came-0008"), FoundContent::Ours, "it may have come after all");
        assert_eq!(judge(OTHER), FoundContent::ForeignToken);
    }

    #[test]
    fn a_value_is_written_until_its_end_less_the_margin() {
        let (item, writer) = item();
        let wanted =
            |margin_ms| item.value_to_write(margin_ms, NOW, 0).map(|(current, until_ms)| (current.left_ms(), until_ms));
        assert_eq!(wanted(0), None);
        publish(&writer, TOKEN, 70_500);
        assert_eq!(wanted(0), Some((60_500, 70_500)));
        assert_eq!(wanted(60_000), Some((60_500, 10_500)));
        assert_eq!(wanted(61_000), None);
        let (current, _) = item.value_to_write(0, NOW, 0).unwrap();
        let contents: Vec<_> = item.entries.iter().map(|entry| entry.render(&current)).collect();
        assert_eq!(contents, [format!("\"{TOKEN}\"").into_bytes(), b"1700000060".to_vec()]);
        writer.withdraw(NOW.boot_ms);
        assert_eq!(item.value_to_write(0, NOW, 0).map(|(_, until_ms)| until_ms), None);
    }

    #[test]
    fn the_time_told_is_the_time_that_the_value_can_be_relied_on() {
        let (item, writer) = item();
        let reliable = ReliableUntil { until_boot_ms: 40_000, at_least_ms: 0 };
        let published = Published { reliable, ..Published::to_the_end(Bytes::from_static(b"token"), 1, 70_500) };
        writer.publish(published);
        let (current, until_ms) = item.value_to_write(0, NOW, 0).unwrap();
        assert_eq!((current.left_ms(), until_ms), (60_500, 70_500), "it is there to its true end");
        assert_eq!(item.entries[1].render(&current), b"1700000030");
    }

    #[test]
    fn a_value_that_is_over_is_told_with_a_time_in_the_past() {
        let (item, writer) = item();
        publish(&writer, TOKEN, 9_000);
        let last = item.retraction(NOW).last.unwrap();
        assert_eq!(item.entries[1].render(&last), b"1699999999");
        let later = Now { boot_ms: NOW.boot_ms + 60_000, unix_ms: NOW.unix_ms + 60_000 };
        let last = item.retraction(later).last.unwrap();
        assert_eq!(item.entries[1].render(&last), b"1699999999", "the same whenever it is written");
    }

    #[test]
    fn another_token_is_a_foreign_writers_once_ours_has_been_there() {
        let (mut item, writer) = item();
        publish(&writer, TOKEN, 70_500);
        assert_eq!(item.judge(0, None), FoundContent::Absent);
        assert_eq!(item.judge(0, Some(OTHER.as_bytes())), FoundContent::Other, "perhaps long abandoned");
        write(&mut item);
        assert_eq!(item.judge(0, Some(TOKEN.as_bytes())), FoundContent::Ours, "in another encoding");
        assert_eq!(item.judge(0, Some(OTHER.as_bytes())), FoundContent::ForeignToken);
        assert_eq!(item.judge(0, Some(b"short")), FoundContent::Other);
        assert_eq!(item.judge(1, Some(b"1")), FoundContent::Ours, "a time says nothing");
    }

    #[test]
    fn the_last_tokens_are_known_as_ours_and_older_ones_are_not() {
        let (mut item, writer) = item();
        let tokens: Vec<String> = (0..4).map(|n| format!("{TOKEN}-{n}-")).collect();
        for token in &tokens {
            publish(&writer, token, 70_500);
            write(&mut item);
        }
        assert_eq!(item.judge(0, Some(tokens[0].as_bytes())), FoundContent::ForeignToken);
        assert!(tokens[1..].iter().all(|token| item.judge(0, Some(token.as_bytes())) == FoundContent::Ours));
    }

    #[test]
    fn only_what_was_written_is_taken_back() {
        let (mut item, writer) = item();
        assert_eq!(item.retraction(NOW).expected, [None, None]);
        publish(&writer, TOKEN, 70_500);
        let token = Some(format!("\"{TOKEN}\"").into_bytes());
        let expected = [token.clone(), None];
        assert_eq!(item.retraction(NOW).expected, expected, "a former process will have written it");
        write(&mut item);
        assert_eq!(item.retraction(NOW).expected, [token, Some(b"1700000060".to_vec())]);
        assert!(item.is_written());
        item.record_retracted();
        assert!(!item.is_written());
    }
}
