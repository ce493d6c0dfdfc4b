//! The classes of errors of a database, each with a text and advice.
//!
//! Pure. Never passes on the database's own text: it may quote values.

use std::fmt;
use std::io;

use sqlx::mysql::MySqlDatabaseError;
use sqlx::postgres::PgDatabaseError;

use crate::descriptors;
use crate::secret_source::SecretFault;
use crate::sink::backend::{SinkFault, SinkFaultScope};

/// Each fault in a row: one word for statistics and logs, what it affects, what it is and what to do about it.
macro_rules! sql_faults {
    ($($(#[$note:meta])* $name:ident $class:literal $scope:ident $what:literal : $advice:expr;)*) => {
        /// Why a database could not be written.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum SqlFault {
            $($(#[$note])* $name,)*
            /// With the database's own error number.
            Other(SqlCode),
        }

        impl SqlFault {
            fn row(self) -> (&'static str, SinkFaultScope, &'static str, &'static str) {
                match self {
                    $(SqlFault::$name => ($class, SinkFaultScope::$scope, $what, $advice),)*
                    SqlFault::Other(_) => ("other", SinkFaultScope::Entry, "it refused", "see the database's own log"),
                }
            }
        }
    };
}

sql_faults! {
    Unreachable "unreachable" Backend "it cannot be reached":
        "see that the database runs, that url is right and that no firewall is between";
    Timeout "timeout" Backend "it did not answer in time":
        "the database or the network is slow: see its list of processes, or raise timeout_ms";
    Dropped "dropped" Backend "it closed the connection":
        "nothing, if it passes: the database was restarted or closes idle connections";
    Tls "tls" Backend "there is no trust in its certificate, or it does not speak TLS":
        "see that the database speaks TLS, that ca_file is the authority of its certificate and that the certificate names \
         the host in url; tls = \"encrypt\" does without the certificate, tls = \"off\" without TLS";
    Method "password" Backend "it wants a way to log in that is not known here":
        "give the user a password that is checked by mysql_native_password or caching_sha2_password, or by scram-sha-256 or \
         md5 in pg_hba.conf; caching_sha2_password needs TLS or a socket that speaks it";
    Password "password" Backend "it refuses our user or password":
        "the database refuses the user or the password: put the right one into password_file, and see from which hosts the \
         user may come";
    PasswordUnreadable "password" Backend "the password cannot be read":
        "see that the file in password_file is there and that this process may read it";
    Files "files" Backend "the certificates of ca_file cannot be used":
        "see that ca_file is a good PEM file that this process may read";
    /// This process is out of file descriptors. That passes, and says nothing about any server.
    NoDescriptor "descriptors" Descriptors "this process has no file descriptor left for it": descriptors::REMEDY;
    Busy "busy" Backend "it is busy":
        "nothing, if it passes: the database is starting, or has no connection left for us";
    Database "database" Backend "it has no such database":
        "see that url ends in the name of the database, and that the user may enter it";
    /// SQLite: the file is not there, or may not be opened.
    NoFile "database" Backend "the file cannot be opened":
        "see that the file in url is there; this process has to be able to write it and its folder, where SQLite keeps its \
         journal (under systemd: ReadWritePaths=)";
    NotADatabase "database" Backend "the file is no database":
        "see that the file in url is a database of SQLite";
    Permission "permission" Entry "the user may not run the statement":
        "grant the user SELECT, INSERT and UPDATE on the table";
    Table "table" Entry "it has no such table":
        "see that the table is in the database that url names; on Linux MySQL minds upper and lower case";
    Column "table" Entry "the table has no such column":
        "see that the statement has the table's own columns";
    Syntax "syntax" Entry "it does not understand the statement":
        "correct the statement, in the database's own dialect";
    /// SQLite does not distinguish a wrong statement from a missing table or column.
    Statement "syntax" Entry "it cannot run the statement":
        "see that the table is in the file that url names, has the statement's columns, and that the statement is one of \
         SQLite's";
    TooLong "column" Entry "the column is too short for the value":
        "widen the column: a token may have 512 characters, and a part of one is worth nothing";
    Type "column" Entry "the column is of another type":
        "see that the column takes what is written to it; a text needs a CAST where the column is none";
    Constraint "constraint" Entry "a constraint of the table forbids it":
        "see the table's keys and constraints: an INSERT of a row that is there wants to be an UPDATE or an upsert";
    Locked "locked" Entry "somebody holds a lock on the row or the table":
        "find out who holds the lock: a transaction that was never ended, a backup or an ALTER TABLE; it is tried again";
    ReadOnly "readonly" Backend "it is read-only":
        "this is a replica, or a file we may only read: url must name what can be written";
    Full "disk" Entry "it has no room": "the database's disk is full";
    NoRow "no_row" Entry "no row was changed":
        "no row was changed, as the row is not there: insert it once, or give insert or an upsert";
    /// The value is no text.
    Value "value" Entry "the value is no plain text":
        "the platform has sent a value that is no plain text; it is written nowhere";
    Protocol "protocol" Backend "it does not answer as that kind of database does":
        "see that it is the kind of database that url says, and no other service";
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
        f.write_str(String::from_utf8_lossy(&self.0).trim_end())
    }
}

impl SqlFault {
    pub fn of_password(fault: SecretFault) -> SqlFault {
        match fault {
            SecretFault::NoDescriptor => SqlFault::NoDescriptor,
            _ => SqlFault::PasswordUnreadable,
        }
    }

    pub fn while_connecting(self) -> SqlFault {
        if self == SqlFault::Dropped { SqlFault::Unreachable } else { self }
    }

    /// True if a new connection may help.
    pub fn is_about_the_connection(self) -> bool {
        self.row().1 != SinkFaultScope::Entry
    }
}

impl From<SqlFault> for SinkFault {
    fn from(fault: SqlFault) -> SinkFault {
        let (class, scope, _, advice) = fault.row();
        SinkFault { class, what: fault.to_string().into(), advice: advice.into(), scope }
    }
}

impl fmt::Display for SqlFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().2)?;
        if let SqlFault::Other(code) = self { write!(f, " (error {code})") } else { Ok(()) }
    }
}

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
