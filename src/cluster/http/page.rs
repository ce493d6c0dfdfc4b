//! An answer of the other node's `GET /v1/credentials`, taken apart and judged.
//!
//! Pure. Whatever the bytes are, what comes out can be served: tokens are printable, ends are near, numbers fit.

use std::collections::HashSet;

use serde::Deserialize;

use super::client::LeaderFault;

/// As the side port's values are when they come from WeChat.
const TOKEN_BYTES_MAX: usize = 8192;
/// No value lives longer than a month.
const LEFT_MS_MAX: u64 = 31 * 24 * 3_600_000;
/// JSON's numbers are exact up to there.
const NUMBER_MAX: u64 = 1 << 53;
/// Generations stay below this everywhere: one that did not could not be counted on from.
const GENERATION_END: u64 = 1_000_000_000_000_000;
/// Credentials in one answer; 500 are told.
const ENTRIES_MAX: usize = 5_000;
/// Cursors and runs are shorter.
const WORD_BYTES_MAX: usize = 64;

/// One answer. No `Debug`: it holds tokens.
#[derive(Deserialize)]
pub struct LeaderPage {
    /// The other node's clock.
    pub now_ms: u64,
    /// How long the other node held the answer back.
    pub waited_ms: u64,
    /// How long it has been out of touch with those who renew. Versions before this one did not say.
    #[serde(default)]
    pub age_ms: u64,
    /// Names the process that answers.
    pub run: String,
    /// It begins with everything.
    pub from_start: bool,
    pub cursor: String,
    pub more: bool,
    pub credentials: Vec<LeaderEntry>,
}

/// One credential. More may be told of it than is read here.
#[derive(Deserialize)]
pub struct LeaderEntry {
    pub app: String,
    pub kind: String,
    pub generation: u64,
    /// None that lives.
    pub token: Option<String>,
    pub expires_in_ms: u64,
    /// Versions before this one did not say.
    #[serde(default)]
    pub reliable_lead_ms: Option<u64>,
    pub lifetime_ms: Option<u64>,
    pub fetched_at_ms: Option<i64>,
    pub withdrawn: bool,
}

/// What is wrong with an answer, in words that quote nothing of it.
const RUBBISH: LeaderFault = LeaderFault::of(
    "answers with something that no tokencached says",
    "check that the address is that of a tokencached's side port",
);

impl LeaderPage {
    /// Reads it. `after` is the cursor it was asked with.
    pub fn parse(body: &[u8], after: Option<&str>) -> Result<LeaderPage, LeaderFault> {
        let page: LeaderPage = serde_json::from_slice(body).map_err(|_| RUBBISH)?;
        let word =
            |text: &str| (1..=WORD_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        // Else it would be asked for the same again and again.
        let goes_on = !page.more || (!page.credentials.is_empty() && after != Some(page.cursor.as_str()));
        let sound = word(&page.cursor)
            && word(&page.run)
            && goes_on
            && (after.is_some() || page.from_start)
            && page.now_ms <= NUMBER_MAX
            && page.credentials.len() <= ENTRIES_MAX
            && page.credentials.iter().all(LeaderEntry::is_sound)
            && page.names_each_once();
        if sound { Ok(page) } else { Err(RUBBISH) }
    }
}

impl LeaderPage {
    /// Of two values for one credential nobody could say which is meant.
    fn names_each_once(&self) -> bool {
        let mut names = HashSet::with_capacity(self.credentials.len());
        self.credentials.iter().all(|entry| names.insert((entry.app.as_str(), entry.kind.as_str())))
    }
}

impl LeaderEntry {
    fn is_sound(&self) -> bool {
        let plain = |token: &String| {
            (1..=TOKEN_BYTES_MAX).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let live = self.token.as_ref().is_none_or(|token| plain(token) && self.generation > 0);
        live && self.generation < GENERATION_END
            && self.expires_in_ms <= LEFT_MS_MAX
            && self.reliable_lead_ms.is_none_or(|lead_ms| lead_ms <= LEFT_MS_MAX)
            && self.lifetime_ms.is_none_or(|life_ms| life_ms <= LEFT_MS_MAX)
    }

    /// The value, if it lives.
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
