//! An SQL statement with placeholders such as `{value}` and `{expires_at-3600}`. Pure.
//!
//! A placeholder is always bound as a parameter: no value, appid or time ever becomes part of the statement's text.

use std::fmt::Write;

use super::template::Placeholder;
use crate::invalid_value::{InvalidValue, quoted, wrong};

/// Longest time that may be added or subtracted, milliseconds.
const SHIFT_MS_MAX: u64 = 86_400_000 * 366;
const KNOWN: &str = "Write one of {value}, {expires_at}, {fetched_at}, {expires_in} (with _ms behind for milliseconds, and +N or \
                     -N in the time's own unit), {appid}, {id}, {agent}, {type}.";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqlDialect {
    /// MySQL and MariaDB.
    MySql,
    Postgres,
    Sqlite,
}

/// A statement that can be run: the text for the database, and the parameters in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlStatement {
    /// As configured.
    pub written: String,
    pub text: String,
    pub parameters: Vec<Placeholder>,
}

impl SqlStatement {
    pub fn has(&self, parameter: Placeholder) -> bool {
        self.parameters.contains(&parameter)
    }

    pub fn has_time(&self) -> bool {
        self.parameters.iter().any(|parameter| matches!(parameter, Placeholder::Time(_)))
    }

    pub fn names_app(&self) -> bool {
        self.has(Placeholder::AppId) || self.has(Placeholder::Id)
    }

    /// Whether it changes every row of its table: an UPDATE without WHERE and LIMIT.
    pub fn changes_every_row(&self) -> bool {
        let is_part_of_a_word = |char: char| char.is_alphanumeric() || char == '_';
        let mut words = self.text.split(|char| !is_part_of_a_word(char)).filter(|word| !word.is_empty());
        let chooses = |word: &str| word.eq_ignore_ascii_case("where") || word.eq_ignore_ascii_case("limit");
        words.next().is_some_and(|first| first.eq_ignore_ascii_case("update")) && !words.any(chooses)
    }

    pub fn parse(written: &str, dialect: SqlDialect) -> Result<SqlStatement, InvalidValue> {
        let written = written.trim().trim_end_matches(';').trim_end();
        let mut statement = SqlStatement { written: written.to_owned(), text: String::new(), parameters: Vec::new() };
        let mut rest = written;
        while let Some(first) = rest.chars().next() {
            let verbatim = verbatim_len(rest, dialect);
            let taken = match first {
                _ if verbatim > 0 => {
                    let text = rest.get(..verbatim).unwrap_or(rest);
                    no_placeholder_in(text)?;
                    statement.text.push_str(text);
                    verbatim
                }
                '{' => statement.placeholder(rest, dialect)?,
                _ => {
                    refuse_plain(rest, dialect)?;
                    statement.text.push(first);
                    first.len_utf8()
                }
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(statement)
    }

    /// Reads the placeholder that the rest begins with; how long it is.
    fn placeholder(&mut self, rest: &str, dialect: SqlDialect) -> Result<usize, InvalidValue> {
        let Some(end) = rest.find('}') else { return wrong("the statement has a { without a }", KNOWN) };
        let word = rest.get(1..end).unwrap_or_default();
        let Some(parameter) = parameter(word) else {
            return wrong(format!("the statement has an unknown placeholder {}", quoted(word)), KNOWN);
        };
        self.parameters.push(parameter);
        match dialect {
            SqlDialect::Postgres => drop(write!(self.text, "${}", self.parameters.len())),
            SqlDialect::MySql | SqlDialect::Sqlite => self.text.push('?'),
        }
        Ok(end + 1)
    }
}

fn parameter(word: &str) -> Option<Placeholder> {
    Placeholder::of_word(word)
        .filter(|placeholder| !matches!(placeholder, Placeholder::Time(time) if time.add.unsigned_abs() > SHIFT_MS_MAX))
}

/// The length of the quoted text or comment that the rest begins with. Nothing in it is a placeholder.
fn verbatim_len(rest: &str, dialect: SqlDialect) -> usize {
    let until = |begin: usize, end: &str| {
        rest.get(begin..).and_then(|rest| rest.find(end)).map_or(rest.len(), |at| begin + at + end.len())
    };
    match rest.as_bytes() {
        // A doubled quote ends one text and begins the next, which comes to the same.
        [quote @ (b'\'' | b'"' | b'`'), ..] => quoted_len(rest, *quote, dialect),
        [b'-', b'-', ..] => until(2, "\n"),
        [b'#', ..] if dialect == SqlDialect::MySql => until(1, "\n"),
        [b'/', b'*', ..] => until(2, "*/"),
        [b'$', ..] if dialect == SqlDialect::Postgres => match dollar_tag(rest) {
            Some(tag) => until(tag.len(), tag),
            None => 0,
        },
        _ => 0,
    }
}

fn quoted_len(rest: &str, quote: u8, dialect: SqlDialect) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if std::mem::take(&mut escaped) => {}
            b'\\' if dialect == SqlDialect::MySql && quote != b'`' => escaped = true,
            byte if byte == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `$$` or `$name$`, at the beginning.
fn dollar_tag(rest: &str) -> Option<&str> {
    let end = rest.get(1..)?.find('$')? + 2;
    let tag = rest.get(..end)?;
    let name = tag.trim_matches('$');
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (is_name && !name.starts_with(|c: char| c.is_ascii_digit())).then_some(tag)
}

/// Between quotes a parameter would be read as the text `?`.
fn no_placeholder_in(text: &str) -> Result<(), InvalidValue> {
    for part in text.split('{').skip(1) {
        if let Some((word, _)) = part.split_once('}')
            && parameter(word).is_some()
        {
            let what = format!("the placeholder {{{word}}} stands between quotes or in a comment");
            return wrong(what, "Remove the quotes: it is bound as a parameter and needs none.");
        }
    }
    Ok(())
}

/// Refuses what would not do what it seems to do.
fn refuse_plain(rest: &str, dialect: SqlDialect) -> Result<(), InvalidValue> {
    let bytes = rest.as_bytes();
    let digit_next = bytes.get(1).is_some_and(u8::is_ascii_digit);
    let own = match bytes.first() {
        Some(b';') => {
            let remedy = "Write statement = [\"...\", \"...\"], a text for each.";
            return wrong("there is more than one statement in one text", remedy);
        }
        Some(b'\0') => return wrong("the statement holds a NUL byte", "Remove it."),
        Some(b'?') if dialect != SqlDialect::Postgres => "?",
        Some(b'$') if dialect == SqlDialect::Postgres && digit_next => "$1",
        Some(b':') if dialect == SqlDialect::Sqlite => ":name",
        Some(b'@' | b'$') if dialect == SqlDialect::Sqlite => "@name",
        _ => return Ok(()),
    };
    wrong(format!("the statement has a parameter of the form {own}"), KNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Fact;
    use crate::sink::template::TimeShown;

    const ALL: [SqlDialect; 3] = [SqlDialect::MySql, SqlDialect::Postgres, SqlDialect::Sqlite];

    fn parsed(text: &str, dialect: SqlDialect) -> SqlStatement {
        SqlStatement::parse(text, dialect).unwrap_or_else(|problem| panic!("{text}: {problem:?}"))
    }

    fn time(fact: Fact, plus: i64) -> Placeholder {
        Placeholder::Time(TimeShown { fact, add: plus })
    }

    #[test]
    fn placeholders_become_parameters_in_the_way_of_each_database() {
        let text =
            " UPDATE t SET v = {value}, e={expires_at-3600},f = {fetched_at_ms+5} WHERE a = {appid} AND v <> {value}; ";
        let expected = [
            Placeholder::Value,
            time(Fact::ExpiresAt, -3600),
            time(Fact::FetchedAtMs, 5),
            Placeholder::AppId,
            Placeholder::Value,
        ];
        for dialect in ALL {
            let statement = parsed(text, dialect);
            assert_eq!(statement.parameters, expected);
            let marks = if dialect == SqlDialect::Postgres { ["$1", "$2", "$3", "$4", "$5"] } else { ["?"; 5] };
            let [a, b, c, d, e] = marks;
            assert_eq!(statement.text, format!("UPDATE t SET v = {a}, e={b},f = {c} WHERE a = {d} AND v <> {e}"));
        }
    }

    #[test]
    fn what_is_quoted_or_a_comment_stays_as_it_is() {
        for text in [
            r#"INSERT INTO t VALUES ('{"a": "it''s; ?"}', {value})"#,
            r#"INSERT INTO "a;?" VALUES ({value}) -- what? ; x"#,
            "INSERT INTO t /* ; ? {x} */ VALUES ({value})",
        ] {
            for dialect in ALL {
                let statement = parsed(text, dialect);
                let mark = if dialect == SqlDialect::Postgres { "$1" } else { "?" };
                assert_eq!(statement.text, text.replace("{value}", mark), "{dialect:?}");
                assert_eq!(statement.parameters, [Placeholder::Value]);
            }
        }
        let statement = parsed(r"UPDATE `t` SET a = 'it\'s; ?', b = {value} # ; x", SqlDialect::MySql);
        assert_eq!(statement.text, r"UPDATE `t` SET a = 'it\'s; ?', b = ? # ; x");
        let statement = parsed("SELECT $x$ ; {a} $x$, {value}::text, a ? 'b'", SqlDialect::Postgres);
        assert_eq!(statement.text, "SELECT $x$ ; {a} $x$, $1::text, a ? 'b'");
    }

    #[test]
    fn what_would_not_be_bound_is_refused_with_a_way_out() {
        for (text, what) in [
            ("UPDATE t SET v = '{value}'", "the placeholder {value} stands between quotes or in a comment"),
            (
                "UPDATE t SET v = \"{expires_at+1}\"",
                "the placeholder {expires_at+1} stands between quotes or in a comment",
            ),
            ("UPDATE t SET v = {value} -- {appid}", "the placeholder {appid} stands between quotes or in a comment"),
            ("UPDATE t SET v = {token}", "the statement has an unknown placeholder \"token\""),
            ("UPDATE t SET v = {expires_at+}", "the statement has an unknown placeholder "),
            ("UPDATE t SET v = {expires_at-1-1}", "the statement has an unknown placeholder "),
            ("UPDATE t SET v = {value+1}", "the statement has an unknown placeholder "),
            ("UPDATE t SET v = {expires_at+99999999999999999999}", "the statement has an unknown placeholder "),
            ("UPDATE t SET v = {value", "the statement has a { without a }"),
            ("UPDATE t SET v = {value}; DROP TABLE t", "there is more than one statement"),
        ] {
            for dialect in ALL {
                let fault = SqlStatement::parse(text, dialect).expect_err(text).what;
                assert!(fault.starts_with(what), "{text}: {fault}");
            }
        }
        for (text, dialect) in [
            ("UPDATE t SET v = ?", SqlDialect::MySql),
            ("UPDATE t SET v = ?", SqlDialect::Sqlite),
            ("UPDATE t SET v = :value", SqlDialect::Sqlite),
            ("UPDATE t SET v = $1", SqlDialect::Postgres),
        ] {
            assert!(SqlStatement::parse(text, dialect).is_err(), "{text}");
        }
    }

    /// Whatever text it is, an opened quote or comment that never ends included.
    #[test]
    fn an_update_without_where_changes_every_row() {
        let changes = |text: &str| parsed(text, SqlDialect::Sqlite).changes_every_row();
        assert!(changes("UPDATE tokens SET token = {value}"));
        assert!(changes("update\ttokens set token={value},somewhere={expires_at}"));
        assert!(!changes("UPDATE tokens SET token = {value} where(app = {appid})"));
        assert!(!changes("INSERT INTO tokens (token) VALUES ({value}) ON CONFLICT DO UPDATE SET token = {value}"));
        assert!(!changes("REPLACE INTO tokens VALUES ({appid}, {value})"));
    }

    #[test]
    fn no_text_makes_it_panic() {
        for text in ["", ";", "'", "'\\", "\"é", "/*", "--", "$", "$é$", "$$", "{", "{}", "é{value}é", "`{", "#"] {
            for dialect in ALL {
                let _ = SqlStatement::parse(text, dialect);
            }
        }
    }
}
