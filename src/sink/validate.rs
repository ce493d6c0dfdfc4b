//! Whether the settings of a sink make sense together, and the sinks beside each other. Looks at a command's program, and
//! otherwise at nothing but the settings.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::keys::Scope;
use super::options::{Options, SinkCommand, SinkEntry, SinkTo, SqlAt, SqlPlan, SqlTls};
use super::sql_statement::{SqlDialect, SqlStatement};
use super::template::{Placeholder, TimeShown};
use crate::encoding::Fact;
use crate::encoding::key_words::{current_word, known_words, words_in_braces};
use crate::files::trusted::{self, Untrusted};
use crate::invalid_value::{InvalidValue, Judgement, quoted, quoted_name, wrong};
use crate::network::is_this_machine;

const FILE_REMEDY: &str = "Write a path such as \"/var/www/site/cache/{type}.php\".";
const PATH_BYTES_MAX: usize = 4000;

/// Whether that program can be run, and no others could change it.
pub fn judge_program(word: &str) -> Result<(), InvalidValue> {
    let path = Path::new(word);
    if word.contains('{') || !path.is_absolute() {
        let what = format!("{} is not the path of a program", quoted(word));
        return wrong(what, "Give it in full, beginning with a /, without placeholders.");
    }
    match trusted::judge(path) {
        Ok(()) => {}
        Err(why @ Untrusted::Unseen { .. }) => {
            return wrong(format!("the program cannot be run: {why}"), why.remedy());
        }
        Err(why) => return wrong(format!("others could change the program: {why}"), why.remedy()),
    }
    if rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_err() {
        let remedy = format!("Make it one: chmod a+x {}.", path.display());
        return wrong(format!("{} is not executable", quoted(word)), remedy);
    }
    Ok(())
}

/// Whether the words in an argument are known. The value is none: every user of the machine can read arguments.
pub fn judge_argument(word: &str) -> Result<(), InvalidValue> {
    for inner in words_in_braces(word) {
        if inner == "value" {
            let what = "{value} would show the value to every user of the machine, who can list arguments";
            return wrong(what, "Remove it: the program reads the value from its standard input.");
        }
        if !SinkCommand::WORDS.contains(&current_word(inner)) {
            let what = format!("{{{}}} is not known in an argument", quoted_name(inner).trim_matches('"'));
            let known = SinkCommand::WORDS.map(|word| format!("{{{word}}}")).join(", ");
            return wrong(what, format!("Known are {known}."));
        }
    }
    Ok(())
}

/// The path of a file, from that folder.
pub fn file_path(given: &str, folder: &Path) -> Result<String, InvalidValue> {
    known_words(given, &["appid", "id", "type", "name"])?;
    if given.ends_with('/') || given.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return wrong(format!("{} is not the path of a file", quoted(given)), FILE_REMEDY);
    }
    match folder.join(given).to_str() {
        Some(path) if path.len() <= PATH_BYTES_MAX => Ok(path.to_owned()),
        _ => wrong("the path is too long, or not UTF-8", FILE_REMEDY),
    }
}

pub fn file_time(word: &str) -> Result<TimeShown, InvalidValue> {
    let remedy = "Write mtime = \"{expires_at-7200}\", with the lifetime that the script takes a file for good.";
    match TimeShown::parse(word) {
        Some(time) if matches!(time.fact, Fact::ExpiresAt | Fact::FetchedAt) => Ok(time),
        _ => wrong("it is not a time in seconds since 1970", remedy),
    }
}

pub fn judge_prefix(given: &str) -> Result<(), InvalidValue> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    if given.len() > 64 || !given.chars().all(plain) || given.starts_with(|c: char| c.is_ascii_digit()) {
        let remedy = "Write what stands before the table's name, such as \"pre_\", in letters, digits, _ and dots.";
        return wrong(format!("{} is no part of a table's name", quoted(given)), remedy);
    }
    Ok(())
}

/// What brings a value knows neither the value nor its times yet.
pub fn judge_read(statement: &SqlStatement) -> Result<(), InvalidValue> {
    if statement.has(Placeholder::Value) || statement.has_time() {
        let remedy = "Write read = \"SELECT column FROM table WHERE ...\", with {appid} and {type}.";
        return wrong("what is read has {value} or a time in it", remedy);
    }
    Ok(())
}

/// Whether a database of that dialect is told one user to log in as, or none where nobody logs in.
pub fn judge_login(dialect: SqlDialect, given: &[&'static str], has_user: bool, has_user_in_url: bool) -> Judgement {
    let mut judgement = Judgement::default();
    let is_sqlite = dialect == SqlDialect::Sqlite;
    for key in given {
        let is_of_login = ["user", "socket", "tls", "ca_file"].contains(key) || key.starts_with("password");
        let what = "SQLite is a file, and nobody logs in to it";
        judgement.fault_if(is_sqlite && is_of_login, key, what, "Remove the key.");
    }
    judgement.fault_if(has_user && has_user_in_url, "user", "the url names a user too", "Keep one of the two.");
    let is_nobody = !has_user && !has_user_in_url && !is_sqlite;
    let remedy = "Write user = \"...\", or url = \"mysql://user@...\".";
    judgement.fault_if(is_nobody, "", "nobody is named to log in as", remedy);
    judgement
}

/// Whether there are either statements or a preset, and nothing beside it that belongs to the other.
pub fn judge_statement_keys(given: &[&'static str]) -> Judgement {
    let mut judgement = Judgement::default();
    let (has_own, has_preset) = (given.contains(&"statement"), given.contains(&"presets"));
    let remedy = "Keep one of the two, and give the other a [[sink]] of its own.";
    judgement.fault_if(has_own && has_preset, "presets", "there are statements already", remedy);
    let remedy = "Write statement = \"UPDATE ...\", or presets = [\"wx_token\"].";
    let is_empty = !has_own && !has_preset;
    judgement.fault_if(is_empty, "", "nothing says what is to be written to the database", remedy);
    for key in given {
        let is_of_own = ["insert", "read", "retract"].contains(key);
        let remedy = "Remove it, or write the statement yourself.";
        judgement.fault_if(has_preset && !has_own && is_of_own, key, "the preset brings its own", remedy);
        let (what, remedy) =
            ("there is no preset for it to stand in", "Write the table's whole name into the statement.");
        judgement.fault_if(has_own && !has_preset && *key == "prefix", key, what, remedy);
    }
    judgement
}

impl SqlAt {
    /// The same through a socket.
    pub fn by_socket(self, socket: Option<PathBuf>, dialect: SqlDialect) -> (SqlAt, Judgement) {
        let mut judgement = Judgement::default();
        let (SqlAt::Tcp { host, port }, Some(socket)) = (&self, socket) else { return (self, judgement) };
        let what = "a socket is on this machine, and the host in url is not";
        judgement.fault_if(!is_this_machine(host), "socket", what, "Write localhost there.");
        // Who copies the name of PostgreSQL's socket means its folder.
        let of_postgres = dialect == SqlDialect::Postgres && !socket.is_dir();
        let path = if of_postgres { socket.parent().map(Path::to_owned).unwrap_or(socket) } else { socket };
        (SqlAt::Unix { path, port: *port }, judgement)
    }
}

impl SqlTls {
    /// By the word of the setting. Without one: verified to another machine, and on this one TLS if there is any.
    pub fn of_word(word: Option<&str>, ca_file: Option<PathBuf>, has_ca_file: bool, at: &SqlAt) -> (SqlTls, Judgement) {
        let mut judgement = Judgement::default();
        let far = match at {
            SqlAt::Tcp { host, .. } if !is_this_machine(host) => Some(host),
            _ => None,
        };
        let is_blind = matches!(word, Some("encrypt" | "off")) && has_ca_file;
        let what = "no certificate is verified, so there is no use for an authority";
        judgement.fault_if(is_blind, "ca_file", what, "Remove it, or tls.");
        match (word, far) {
            (Some("off"), Some(host)) => {
                let what =
                    format!("tokens pass the network in the clear on their way to {host}; tls = \"verify\" hides");
                judgement.warn("tls", format!("{what} them"));
            }
            (Some("encrypt"), Some(host)) => {
                let what =
                    format!("nobody looks whether it is {host} that is given the password; tls = \"verify\" does");
                judgement.warn("tls", what);
            }
            _ => {}
        }
        let tls = match (word, far, ca_file) {
            (Some("off"), ..) => SqlTls::Off,
            (Some("encrypt"), ..) => SqlTls::Unverified,
            (None, None, None) => SqlTls::IfOffered,
            (_, _, ca_file) => SqlTls::Verified { ca_file },
        };
        (tls, judgement)
    }
}

impl SqlPlan {
    /// Whether the site's own statements do what they are for.
    pub fn judge(&self) -> Judgement {
        let mut judgement = Judgement::default();
        let is_blind = !self.write.is_empty() && !self.write.iter().any(|statement| statement.has(Placeholder::Value));
        judgement.fault_if(is_blind, "statement", "no statement has {value}", "Write it where the token belongs.");
        if self.write.iter().chain(&self.retract).any(SqlStatement::changes_every_row) {
            judgement.warn(
                "statement",
                "an UPDATE without WHERE writes this token into every row of its table, other apps' too; add WHERE unless \
                 the table has one row",
            );
        }
        judgement
    }
}

/// What is written with these statements: whatever `{type}` stands for, or each app's token.
pub fn sql_entries(plans: &[SqlPlan], scope: &Scope<'_>) -> Result<Vec<SinkEntry>, InvalidValue> {
    let each = |is_it: &dyn Fn(&SqlStatement) -> bool| plans.iter().all(|plan| plan.write.iter().any(is_it));
    let mut entries = scope.credentials();
    if plans.iter().any(|plan| plan.of.is_some()) {
        entries.retain(|entry| plans.iter().any(|plan| plan.of == Some(entry.of)));
    } else if !each(&|statement| statement.has(Placeholder::CredentialType)) {
        // The app's token stands first.
        let mut seen = HashSet::new();
        entries.retain(|entry| seen.insert(entry.app.clone()));
    }
    let apps: HashSet<&str> = entries.iter().map(|entry| entry.app.as_str()).collect();
    if apps.len() > 1 && !each(&SqlStatement::names_app) {
        let what = format!("no statement says which app it is about, and there are {}", apps.len());
        let remedy = "Name one app in apps = [\"wx...\"], or write {appid} where the statement chooses the row.";
        return wrong(what, remedy);
    }
    let uses_agent = plans.iter().flat_map(|plan| &plan.write).any(|statement| statement.has(Placeholder::Agent));
    if let (true, Some(app)) = (uses_agent, scope.apps.iter().find(|app| app.agent.is_none())) {
        let what = format!("a statement with {{agent}}, and the app {} has none", quoted(&app.id()));
        return wrong(what, "Write {id} in its place, or name the apps of this sink.");
    }
    Ok(entries)
}

/// An entry that another sink writes as well: the sink's place among all, the entry's in it, and the fault.
pub type WrittenTwice = (usize, usize, InvalidValue);

/// Two sinks of one database must not fight for a key, nor for a file.
pub fn written_twice(sinks: &[Options]) -> Vec<WrittenTwice> {
    let mut faults = Vec::new();
    let mut first: HashMap<(String, &str), usize> = HashMap::new();
    for (at, sink) in sinks.iter().enumerate() {
        let (database, whereto) = match &sink.to {
            SinkTo::Redis { .. } => (sink.to_string(), " to that database"),
            SinkTo::File(_) => ("file".to_owned(), ""),
            // What a command does with a value is its own, and a statement says more than where.
            SinkTo::Command(_) | SinkTo::Sql(_) => continue,
        };
        for (entry_at, entry) in sink.entries.iter().enumerate() {
            if *first.entry((database.clone(), &entry.name)).or_insert(at) != at {
                let what = format!("another sink writes {}{whereto} already", quoted(entry.redacted_name()));
                faults.push((at, entry_at, InvalidValue::new(what, "Keep it in one of the two.")));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_no_way_into_a_statement() {
        assert_eq!(judge_prefix("site.pre_"), Ok(()));
        for wrong in ["a b", "a;", "a`", "a'", "a\"", "a-", "1a", "é"] {
            assert!(judge_prefix(wrong).is_err(), "{wrong}");
        }
    }
}
