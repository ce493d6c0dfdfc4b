//! The address of a database, as a text. Pure; never quotes it: people put passwords there.

use url::Url;

use super::options::SqlAt;
use super::sql_statement::SqlDialect;
use crate::invalid_value::{InvalidValue, wrong};
use crate::network::without_brackets;

const REMEDY: &str = "Write \"mysql://user@127.0.0.1:3306/database\", \"postgres://user@127.0.0.1:5432/database\" or \
                      \"sqlite:/path/to/file.db\".";

#[derive(Debug, PartialEq, Eq)]
pub struct SqlAddress {
    pub dialect: SqlDialect,
    pub at: SqlAt,
    pub database: String,
    pub user: Option<String>,
}

/// Whether a URL names a database and not a Redis.
pub fn is_sql(url: &str) -> bool {
    dialect(url).is_some()
}

fn dialect(url: &str) -> Option<SqlDialect> {
    match url.split(':').next().unwrap_or_default() {
        "mysql" | "mariadb" => Some(SqlDialect::MySql),
        "postgres" | "postgresql" => Some(SqlDialect::Postgres),
        "sqlite" => Some(SqlDialect::Sqlite),
        _ => None,
    }
}

/// Never quotes it: people put passwords there.
pub fn parse(given: &str) -> Result<SqlAddress, InvalidValue> {
    let dialect = match dialect(given) {
        Some(SqlDialect::Sqlite) => return sqlite(given),
        Some(dialect) => dialect,
        None => return wrong("the URL is none of a database", REMEDY),
    };
    let url = Url::parse(given).map_err(|error| InvalidValue::new(format!("this is not a URL: {error}"), REMEDY))?;
    if url.password().is_some() {
        let remedy = "Write password_file = \"/path\" in a line of its own.";
        return wrong("the URL has a password, and URLs get into logs", remedy);
    }
    if url.query().is_some() || url.fragment().is_some() {
        let remedy = "Remove it: tls, ca_file, socket and timeout_ms are keys of their own.";
        return wrong("the URL has a query or a fragment", remedy);
    }
    let user = Some(url.username()).filter(|user| !user.is_empty()).map(str::to_owned);
    let database = url.path().trim_start_matches('/');
    if user.as_deref().unwrap_or_default().contains('%') || database.contains('%') {
        let remedy = "Write the user as user = \"...\", and a database whose name is of letters, digits, _ and -.";
        return wrong("the URL has a percent sign", remedy);
    }
    if database.is_empty() || database.contains('/') {
        return wrong("the URL does not name one database", REMEDY);
    }
    let host = url.host_str().filter(|host| !host.is_empty() && !host.contains('%'));
    let Some(host) = host else { return wrong("the URL has no host", REMEDY) };
    let host = without_brackets(host).to_owned();
    let port = url.port().unwrap_or(if dialect == SqlDialect::MySql { 3306 } else { 5432 });
    Ok(SqlAddress { dialect, at: SqlAt::Tcp { host, port }, database: database.to_owned(), user })
}

/// `sqlite:/path` and `sqlite:///path` are one.
fn sqlite(url: &str) -> Result<SqlAddress, InvalidValue> {
    let path = url.trim_start_matches("sqlite:");
    let path = path.strip_prefix("//").unwrap_or(path);
    if !path.starts_with('/') || path.len() < 2 || path.contains(['?', '#']) {
        return wrong("the path of the database is not an absolute one", REMEDY);
    }
    let (dialect, at) = (SqlDialect::Sqlite, SqlAt::File(path.into()));
    Ok(SqlAddress { dialect, at, database: String::new(), user: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Option<SqlAddress> {
        parse(url).ok()
    }

    #[test]
    fn addresses_read_as_people_write_them() {
        let of = |dialect, host: &str, port, database: &str, user: Option<&str>| {
            let at = SqlAt::Tcp { host: host.into(), port };
            Some(SqlAddress { dialect, at, database: database.into(), user: user.map(str::to_owned) })
        };
        assert_eq!(read("mysql://me@127.0.0.1/db"), of(SqlDialect::MySql, "127.0.0.1", 3306, "db", Some("me")));
        assert_eq!(read("mariadb://db.internal:3307/db"), of(SqlDialect::MySql, "db.internal", 3307, "db", None));
        assert_eq!(read("postgres://[::1]/a-b_c"), of(SqlDialect::Postgres, "::1", 5432, "a-b_c", None));
        assert_eq!(read("postgresql://me@h:1/d"), of(SqlDialect::Postgres, "h", 1, "d", Some("me")));
        for file in ["sqlite:/var/db.sqlite", "sqlite:///var/db.sqlite"] {
            let at = SqlAt::File("/var/db.sqlite".into());
            let expected = SqlAddress { dialect: SqlDialect::Sqlite, at, database: String::new(), user: None };
            assert_eq!(read(file), Some(expected), "{file}");
        }
        for wrong in [
            "mysql://h",
            "mysql://h/",
            "mysql://h/a/b",
            "mysql:///db",
            "mysql://h/db?ssl=1",
            "sqlite:db",
            "sqlite::memory:",
            "sqlite://host/db",
            "mysql://m%65@h/db",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_quoted() {
        let problem = parse("mysql://me:hunter22@h/db").unwrap_err();
        assert!(!problem.what.contains("hunter22") && !problem.remedy.contains("hunter22"), "{problem:?}");
    }
}
