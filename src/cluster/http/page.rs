//! One page of a leader's `GET /v1/credentials`: parses and checks it.
//!
//! Pure. Whatever the bytes are, a page that passes can be served: tokens are printable, ends are near, numbers are small.

use std::collections::HashSet;

use serde::Deserialize;

use super::client::LeaderFault;

/// The limit that a platform's values have too.
const TOKEN_BYTES_MAX: usize = 8192;
/// No value lives longer than a month.
const LEFT_MS_MAX: u64 = 31 * 24 * 3_600_000;
/// Numbers in JSON are exact up to here.
const NUMBER_MAX: u64 = 1 << 53;
/// All generations are below this, so that each can be followed by another.
const GENERATION_END: u64 = 1_000_000_000_000_000;
/// The most credentials in one page; leaders send 500.
const ENTRIES_MAX: usize = 5_000;
const WORD_BYTES_MAX: usize = 64;

/// A page. No `Debug`: it holds tokens.
#[derive(Deserialize)]
pub struct LeaderPage {
    pub now_ms: u64,
    /// How long the leader held the answer back.
    pub waited_ms: u64,
    /// How long the leader has been cut off from the nodes that renew. Older versions do not say.
    #[serde(default)]
    pub age_ms: u64,
    /// Identifies the process that answers.
    pub run: String,
    /// It is the first page of a whole listing.
    pub from_start: bool,
    pub cursor: String,
    pub more: bool,
    pub credentials: Vec<LeaderEntry>,
}

/// One credential. Fields that are not needed here are ignored.
#[derive(Deserialize)]
pub struct LeaderEntry {
    pub app: String,
    pub kind: String,
    pub generation: u64,
    /// None if there is no live value.
    pub token: Option<String>,
    pub expires_in_ms: u64,
    /// Older versions do not say.
    #[serde(default)]
    pub reliable_lead_ms: Option<u64>,
    pub lifetime_ms: Option<u64>,
    pub fetched_at_ms: Option<i64>,
    pub withdrawn: bool,
}

/// Quotes nothing of the answer.
const MALFORMED: LeaderFault = LeaderFault::new(
    "answers with something that no tokencached says",
    "check that the address is that of a tokencached's HTTP API",
);

impl LeaderPage {
    /// Parses a page. `after` is the cursor of the question.
    pub fn parse(body: &[u8], after: Option<&str>) -> Result<LeaderPage, LeaderFault> {
        let page: LeaderPage = serde_json::from_slice(body).map_err(|_| MALFORMED)?;
        let is_word =
            |text: &str| (1..=WORD_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        // Otherwise the same would be asked for again and again.
        let makes_progress = !page.more || (!page.credentials.is_empty() && after != Some(page.cursor.as_str()));
        let is_valid = is_word(&page.cursor)
            && is_word(&page.run)
            && makes_progress
            && (after.is_some() || page.from_start)
            && page.now_ms <= NUMBER_MAX
            && page.credentials.len() <= ENTRIES_MAX
            && page.credentials.iter().all(LeaderEntry::is_valid)
            && page.names_each_once();
        if is_valid { Ok(page) } else { Err(MALFORMED) }
    }

    /// Nobody could say which of two values for one credential is meant.
    fn names_each_once(&self) -> bool {
        let mut names = HashSet::with_capacity(self.credentials.len());
        self.credentials.iter().all(|entry| names.insert((entry.app.as_str(), entry.kind.as_str())))
    }
}

impl LeaderEntry {
    fn is_valid(&self) -> bool {
        let is_plain = |token: &String| {
            (1..=TOKEN_BYTES_MAX).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let live = self.token.as_ref().is_none_or(|token| is_plain(token) && self.generation > 0);
        live && self.generation < GENERATION_END
            && self.expires_in_ms <= LEFT_MS_MAX
            && self.reliable_lead_ms.is_none_or(|lead_ms| lead_ms <= LEFT_MS_MAX)
            && self.lifetime_ms.is_none_or(|life_ms| life_ms <= LEFT_MS_MAX)
    }

    pub fn live(&self) -> Option<&str> {
        self.token.as_deref().filter(|_| self.expires_in_ms > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn entry() -> Value {
        json!({ "app": "wx1", "kind": "access_token", "state": "fresh", "generation": 3, "token": "TOKEN",
            "expires_in_ms": 7_000, "lifetime_ms": 7_200, "fetched_at_ms": 1, "withdrawn": false, "later": [] })
    }

    fn page() -> Value {
        json!({ "now_ms": 10_000, "waited_ms": 0, "run": "1", "from_start": true, "cursor": "a-1", "more": false,
            "credentials": [entry()] })
    }

    fn parse(page: &Value, after: Option<&str>) -> bool {
        LeaderPage::parse(page.to_string().as_bytes(), after).is_ok()
    }

    #[test]
    fn a_sound_answer_is_taken_with_whatever_else_is_in_it() {
        assert!(parse(&page(), None));
        assert!(
            LeaderPage::parse(page().to_string().as_bytes(), None)
                .is_ok_and(|page| { page.credentials[0].live() == Some("TOKEN") })
        );
    }

    #[test]
    fn nothing_that_could_do_harm_is_taken() {
        for (name, wrong) in [
            ("token", json!("")),
            ("token", json!("a\r\nset x 0 0 1\r\n")),
            ("token", json!("a b")),
            ("token", json!("汉")),
            ("token", json!("x".repeat(TOKEN_BYTES_MAX + 1))),
            ("token", json!(7)),
            ("generation", json!(-1)),
            ("generation", json!(0)),
            ("generation", json!(GENERATION_END)),
            ("generation", json!(u64::MAX)),
            ("expires_in_ms", json!(u64::MAX)),
            ("expires_in_ms", json!("7200")),
            ("lifetime_ms", json!(u64::MAX)),
            ("reliable_lead_ms", json!(u64::MAX)),
            ("reliable_lead_ms", json!(-1)),
            ("withdrawn", json!(null)),
        ] {
            let mut page = page();
            page["credentials"][0][name] = wrong.clone();
            assert!(!parse(&page, None), "{name} {wrong}");
        }
        for (name, wrong) in [
            ("now_ms", json!(-1)),
            ("now_ms", json!(u64::MAX)),
            ("age_ms", json!(-1)),
            ("cursor", json!("")),
            ("cursor", json!("a\nb")),
            ("cursor", json!("x".repeat(65))),
            ("run", json!("")),
            ("more", json!(1)),
            ("from_start", json!(false)),
            ("credentials", json!({})),
        ] {
            let mut page = page();
            page[name] = wrong.clone();
            assert!(!parse(&page, None), "{name} {wrong}");
        }
        for text in ["", "{", "[]", "null", "{}", "\u{feff}"] {
            assert!(LeaderPage::parse(text.as_bytes(), None).is_err());
        }
    }

    #[test]
    fn an_answer_of_a_version_that_did_not_say_how_old_it_is_is_of_this_moment() {
        let mut page = page();
        assert_eq!(LeaderPage::parse(page.to_string().as_bytes(), None).ok().map(|page| page.age_ms), Some(0));
        page["age_ms"] = json!(70_000);
        assert_eq!(LeaderPage::parse(page.to_string().as_bytes(), None).ok().map(|page| page.age_ms), Some(70_000));
    }

    #[test]
    fn an_answer_that_names_a_credential_twice_or_thousands_of_them_is_refused() {
        let mut page = page();
        page["credentials"] = json!([entry(), entry()]);
        assert!(!parse(&page, None));
        page["credentials"][1]["kind"] = json!("jsapi_ticket");
        assert!(parse(&page, None));
        let many = |count: usize| {
            let one = |n: usize| {
                let mut one = entry();
                one["app"] = json!(n.to_string());
                one
            };
            (0..count).map(one).collect::<Vec<Value>>()
        };
        page["credentials"] = json!(many(ENTRIES_MAX));
        assert!(parse(&page, None));
        page["credentials"] = json!(many(ENTRIES_MAX + 1));
        assert!(!parse(&page, None));
    }

    #[test]
    fn an_answer_that_leads_nowhere_is_refused() {
        let mut page = page();
        page["more"] = json!(true);
        assert!(parse(&page, Some("a-0")) && !parse(&page, Some("a-1")));
        page["credentials"] = json!([]);
        assert!(!parse(&page, Some("a-0")));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_the_reader(body: Vec<u8>) {
            proptest::prop_assert!(LeaderPage::parse(&body, None).is_err());
        }

        #[test]
        fn what_is_taken_is_printable_whatever_the_token_is(token in "\\PC{0,40}|[ -~]{1,40}") {
            let mut page = page();
            page["credentials"][0]["token"] = json!(token);
            let taken = parse(&page, None);
            proptest::prop_assert_eq!(taken, !token.is_empty() && token.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
        }
    }
}
