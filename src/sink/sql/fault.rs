//! The classes of errors of a database, each with a text and advice.
//!
//! Pure. Never passes on the database's own text: it may quote values.

use std::borrow::Cow;
use std::fmt;
use std::io;

use sqlx::mysql::MySqlDatabaseError;
use sqlx::postgres::PgDatabaseError;

use crate::descriptors;
use crate::secret_source::SecretFault;
use crate::sink::backend::{SinkFault, SinkFaultScope};

/// Why a database could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SqlFault {
    Unreachable,
    Timeout,
    Dropped,
    Tls,
    /// It wants a way to log in that is not supported here.
    Method,
    Password,
    PasswordUnreadable,
    Files,
    /// This process is out of file descriptors. That passes, and says nothing about any server.
    NoDescriptor,
    Busy,
    Database,
    /// SQLite: the file is not there, or may not be opened.
    NoFile,
    NotADatabase,
    Permission,
    Table,
    Column,
    Syntax,
    /// SQLite does not distinguish a wrong statement from a missing table or column.
    Statement,
    TooLong,
    Type,
    Constraint,
    Locked,
    ReadOnly,
    Full,
    /// The statement changed no row.
    NoRow,
    /// The value is no text.
    Value,
    Protocol,
    /// With the database's own error number.
    Other(SqlCode),
}

/// The number or the five letters of an error, which contain no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SqlCode([u8; 5]);

impl SqlCode {
    fn new(text: &str) -> SqlCode {
        let mut code = [b' '; 5];
        for (place, byte) in code.iter_mut().zip(text.bytes().filter(u8::is_ascii_alphanumeric)) {
            *place = byte;
        }
        SqlCode(code)
    }
}

impl fmt::Display for SqlCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().filter(|byte| **byte != b' ').try_for_each(|byte| write!(f, "{}", char::from(*byte)))
    }
}

impl SqlFault {
    pub fn of_password(fault: SecretFault) -> SqlFault {
        match fault {
            SecretFault::NoDescriptor => SqlFault::NoDescriptor,
            _ => SqlFault::PasswordUnreadable,
        }
    }

    /// The fault while connecting.
    pub fn while_connecting(self) -> SqlFault {
        match self {
            SqlFault::Dropped => SqlFault::Unreachable,
            fault => fault,
        }
    }

    /// True if a new connection may help.
    pub fn is_about_the_connection(self) -> bool {
        !matches!(
            self,
            SqlFault::Permission
                | SqlFault::Table
                | SqlFault::Column
                | SqlFault::Syntax
                | SqlFault::Statement
                | SqlFault::TooLong
                | SqlFault::Type
                | SqlFault::Constraint
                | SqlFault::Locked
                | SqlFault::Full
                | SqlFault::NoRow
                | SqlFault::Value
                | SqlFault::Other(_)
        )
    }

    /// One word for statistics and logs.
    fn class(self) -> &'static str {
        match self {
            SqlFault::Unreachable => "unreachable",
            SqlFault::Timeout => "timeout",
            SqlFault::Dropped => "dropped",
            SqlFault::Tls => "tls",
            SqlFault::Method | SqlFault::Password | SqlFault::PasswordUnreadable => "password",
            SqlFault::Files => "files",
            SqlFault::NoDescriptor => "descriptors",
            SqlFault::Busy => "busy",
            SqlFault::Database | SqlFault::NoFile | SqlFault::NotADatabase => "database",
            SqlFault::Permission => "permission",
            SqlFault::Table | SqlFault::Column => "table",
            SqlFault::Syntax | SqlFault::Statement => "syntax",
            SqlFault::TooLong | SqlFault::Type => "column",
            SqlFault::Constraint => "constraint",
            SqlFault::Locked => "locked",
            SqlFault::ReadOnly => "readonly",
            SqlFault::Full => "disk",
            SqlFault::NoRow => "no_row",
            SqlFault::Value => "value",
            SqlFault::Protocol => "protocol",
            SqlFault::Other(_) => "other",
        }
    }

    /// What to do about it.
    fn advice(self) -> &'static str {
        match self {
            SqlFault::Unreachable => "see that the database runs, that url is right and that no firewall is between",
            SqlFault::Timeout => "the database or the network is slow: see its list of processes, or raise timeout_ms",
            SqlFault::Dropped => "nothing, if it passes: the database was restarted or closes idle connections",
            SqlFault::Tls => {
                "see that the database speaks TLS, that ca_file is the authority of its certificate and that the \
                 certificate names the host in url; tls = \"encrypt\" does without the certificate, tls = \"off\" without TLS"
            }
            SqlFault::Method => {
                "give the user a password that is checked by mysql_native_password or caching_sha2_password, or by \
                 scram-sha-256 or md5 in pg_hba.conf; caching_sha2_password needs TLS or a socket that speaks it"
            }
            SqlFault::Password => {
                "the database refuses the user or the password: put the right one into password_file, and see from which \
                 hosts the user may come"
            }
            SqlFault::PasswordUnreadable => {
                "see that the file in password_file is there and that this process may read it"
            }
            SqlFault::Files => "see that ca_file is a good PEM file that this process may read",
            SqlFault::NoDescriptor => descriptors::REMEDY,
            SqlFault::Busy => "nothing, if it passes: the database is starting, or has no connection left for us",
            SqlFault::Database => "see that url ends in the name of the database, and that the user may enter it",
            SqlFault::NoFile => {
                "see that the file in url is there; this process has to be able to write it and its folder, where SQLite \
                 keeps its journal (under systemd: ReadWritePaths=)"
            }
            SqlFault::NotADatabase => "see that the file in url is a database of SQLite",
            SqlFault::Permission => "grant the user SELECT, INSERT and UPDATE on the table",
            SqlFault::Table => {
                "see that the table is in the database that url names; on Linux MySQL minds upper and lower case"
            }
            SqlFault::Column => "see that the statement has the table's own columns",
            SqlFault::Syntax => "correct the statement, in the database's own dialect",
            SqlFault::Statement => {
                "see that the table is in the file that url names, has the statement's columns, and that the statement is one \
                 of SQLite's"
            }
            SqlFault::TooLong => {
                "widen the column: a token may have 512 characters, and a part of one is worth nothing"
            }
            SqlFault::Type => {
                "see that the column takes what is written to it; a text needs a CAST where the column is none"
            }
            SqlFault::Constraint => {
                "see the table's keys and constraints: an INSERT of a row that is there wants to be an UPDATE or an upsert"
            }
            SqlFault::Locked => {
                "find out who holds the lock: a transaction that was never ended, a backup or an ALTER TABLE; it is tried \
                 again"
            }
            SqlFault::ReadOnly => "this is a replica, or a file we may only read: url must name what can be written",
            SqlFault::Full => "the database's disk is full",
            SqlFault::NoRow => {
                "no row was changed, as the row is not there: insert it once, or give insert or an upsert"
            }
            SqlFault::Value => "the platform has sent a value that is no plain text; it is written nowhere",
            SqlFault::Protocol => "see that it is the kind of database that url says, and no other service",
            SqlFault::Other(_) => "see the database's own log",
        }
    }
}

impl From<SqlFault> for SinkFault {
    fn from(fault: SqlFault) -> SinkFault {
        let scope = match fault {
            SqlFault::NoDescriptor => SinkFaultScope::Descriptors,
            _ if fault.is_about_the_connection() => SinkFaultScope::Backend,
            _ => SinkFaultScope::Entry,
        };
        SinkFault {
            class: fault.class(),
            what: Cow::Owned(fault.to_string()),
            advice: Cow::Borrowed(fault.advice()),
            scope,
        }
    }
}

impl fmt::Display for SqlFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SqlFault::Unreachable => "it cannot be reached",
            SqlFault::Timeout => "it did not answer in time",
            SqlFault::Dropped => "it closed the connection",
            SqlFault::Tls => "there is no trust in its certificate, or it does not speak TLS",
            SqlFault::Method => "it wants a way to log in that is not known here",
            SqlFault::Password => "it refuses our user or password",
            SqlFault::PasswordUnreadable => "the password cannot be read",
            SqlFault::Files => "the certificates of ca_file cannot be used",
            SqlFault::NoDescriptor => "this process has no file descriptor left for it",
            SqlFault::Busy => "it is busy",
            SqlFault::Database => "it has no such database",
            SqlFault::NoFile => "the file cannot be opened",
            SqlFault::NotADatabase => "the file is no database",
            SqlFault::Permission => "the user may not run the statement",
            SqlFault::Table => "it has no such table",
            SqlFault::Column => "the table has no such column",
            SqlFault::Syntax => "it does not understand the statement",
            SqlFault::Statement => "it cannot run the statement",
            SqlFault::TooLong => "the column is too short for the value",
            SqlFault::Type => "the column is of another type",
            SqlFault::Constraint => "a constraint of the table forbids it",
            SqlFault::Locked => "somebody holds a lock on the row or the table",
            SqlFault::ReadOnly => "it is read-only",
            SqlFault::Full => "it has no room",
            SqlFault::NoRow => "no row was changed",
            SqlFault::Value => "the value is no plain text",
            SqlFault::Protocol => "it does not answer as that kind of database does",
            SqlFault::Other(code) => return write!(f, "it refused (error {code})"),
        })
    }
}

/// Classifies an error of the client library.
pub(super) fn of_error(error: &sqlx::Error) -> SqlFault {
    if descriptors::is_caused_by_exhaustion(error) || is_file_error(error) && descriptors::are_exhausted() {
        return SqlFault::NoDescriptor;
    }
    match error {
        sqlx::Error::Database(error) => {
            if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
                of_mysql(error.number())
            } else if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
                of_postgres(error.code())
            } else {
                of_sqlite(error.code().and_then(|code| code.parse().ok()).unwrap_or_default())
            }
        }
        sqlx::Error::Io(error) => of_io(error),
        sqlx::Error::Tls(_) => SqlFault::Tls,
        sqlx::Error::Configuration(_) => SqlFault::Files,
        sqlx::Error::Protocol(text) if text.contains("auth") || text.contains("RSA") => SqlFault::Method,
        sqlx::Error::Protocol(_) => SqlFault::Protocol,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnIndexOutOfBounds { .. } => {
            SqlFault::Type
        }
        _ => SqlFault::Dropped,
    }
}

fn is_file_error(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::Configuration(_))
}

fn of_io(error: &io::Error) -> SqlFault {
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::NotFound
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::TimedOut => SqlFault::Unreachable,
        // A certificate that is not trusted, or an answer that is not TLS.
        io::ErrorKind::InvalidData => SqlFault::Tls,
        _ => SqlFault::Dropped,
    }
}

/// By the server's error number.
fn of_mysql(number: u16) -> SqlFault {
    match number {
        1045 | 1698 | 1130 => SqlFault::Password,
        1251 | 1275 | 2059 => SqlFault::Method,
        1044 | 1049 | 1046 => SqlFault::Database,
        1142 | 1143 | 1227 | 1370 => SqlFault::Permission,
        1146 => SqlFault::Table,
        1054 => SqlFault::Column,
        1064 | 1149 => SqlFault::Syntax,
        1406 => SqlFault::TooLong,
        1264..=1267 | 1292 | 1366 => SqlFault::Type,
        1048 | 1062 | 1216 | 1217 | 1364 | 1451 | 1452 | 4025 => SqlFault::Constraint,
        1205 | 1213 | 1317 | 1969 | 3024 => SqlFault::Locked,
        1290 | 1792 | 1836 => SqlFault::ReadOnly,
        1021 | 1041 | 1114 => SqlFault::Full,
        1040 | 1203 | 1226 => SqlFault::Busy,
        1053 | 1077 | 1079 | 1080 | 1927 => SqlFault::Dropped,
        number => SqlFault::Other(SqlCode::new(&number.to_string())),
    }
}

/// By the five letters of the standard and of PostgreSQL.
fn of_postgres(state: &str) -> SqlFault {
    match state {
        "28P01" | "28000" => SqlFault::Password,
        "3D000" => SqlFault::Database,
        "42501" => SqlFault::Permission,
        "42P01" | "3F000" => SqlFault::Table,
        "42703" => SqlFault::Column,
        "42601" | "42P02" => SqlFault::Syntax,
        "22001" => SqlFault::TooLong,
        "42804" | "42846" | "42883" | "22P02" | "42P18" => SqlFault::Type,
        "55P03" | "57014" | "40001" | "40P01" => SqlFault::Locked,
        "25006" => SqlFault::ReadOnly,
        "53100" | "53200" => SqlFault::Full,
        "53300" | "57P03" => SqlFault::Busy,
        "57P01" | "57P02" | "08006" => SqlFault::Dropped,
        _ if state.starts_with("23") => SqlFault::Constraint,
        _ => SqlFault::Other(SqlCode::new(state)),
    }
}

/// By SQLite's code; the extended ones have the plain one in their lowest byte.
fn of_sqlite(code: i32) -> SqlFault {
    match code & 0xff {
        5 | 6 => SqlFault::Locked,
        8 => SqlFault::ReadOnly,
        13 => SqlFault::Full,
        10 | 14 => SqlFault::NoFile,
        11 | 26 => SqlFault::NotADatabase,
        3 | 23 => SqlFault::Permission,
        18 => SqlFault::TooLong,
        19 => SqlFault::Constraint,
        20 | 25 => SqlFault::Type,
        1 => SqlFault::Statement,
        _ => SqlFault::Other(SqlCode::new(&code.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        for (fault, expected) in [
            (of_mysql(1045), SqlFault::Password),
            (of_mysql(1146), SqlFault::Table),
            (of_mysql(1205), SqlFault::Locked),
            (of_postgres("28P01"), SqlFault::Password),
            (of_postgres("42P01"), SqlFault::Table),
            (of_postgres("23505"), SqlFault::Constraint),
            (of_postgres("57014"), SqlFault::Locked),
            (of_sqlite(5), SqlFault::Locked),
            (of_sqlite(1 << 8 | 14), SqlFault::NoFile),
        ] {
            assert_eq!(fault, expected);
        }
    }

    /// With a statement of the database's own in the log, a value could get there.
    #[test]
    fn of_an_unknown_refusal_only_the_number_is_told() {
        assert_eq!(of_mysql(65_535).to_string(), "it refused (error 65535)");
        assert_eq!(of_postgres("XX000").to_string(), "it refused (error XX000)");
        assert_eq!(SqlCode::new("'; a token").to_string(), "atoke");
    }

    #[test]
    fn what_one_row_meets_does_not_hold_up_the_others() {
        for fault in [SqlFault::Locked, SqlFault::NoRow, SqlFault::Table, SqlFault::TooLong] {
            assert_eq!(SinkFault::from(fault).scope, SinkFaultScope::Entry);
        }
        for fault in [SqlFault::Unreachable, SqlFault::Timeout, SqlFault::Password, SqlFault::ReadOnly] {
            assert_eq!(SinkFault::from(fault).scope, SinkFaultScope::Backend);
        }
        assert_eq!(SinkFault::from(SqlFault::NoDescriptor).scope, SinkFaultScope::Descriptors);
    }
}
