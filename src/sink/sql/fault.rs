//! The classes of errors of a database, each with a text and advice.
//!
//! Pure. Never passes on the database's own text: it may quote values.

use std::io;

use sqlx::mysql::MySqlDatabaseError;
use sqlx::postgres::PgDatabaseError;

use crate::descriptors;
use crate::store_fault::{StoreFault, store_faults};

store_faults! {
    /// Why a database could not be written.
    SqlFault {
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
        Other "other" Entry "it refused": "see the database's own log";
    }
}

/// With the database's own error number: the letters and digits of a code contain no value.
fn refused(code: &str) -> StoreFault {
    let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(5).collect();
    StoreFault { what: format!("it refused (error {code})").into(), ..SqlFault::Other.into() }
}

/// An error while connecting.
pub(super) fn of_connecting(error: &sqlx::Error) -> StoreFault {
    let fault = of_error(error);
    if fault == SqlFault::Dropped.into() { SqlFault::Unreachable.into() } else { fault }
}

pub(super) fn of_error(error: &sqlx::Error) -> StoreFault {
    let is_of_file = matches!(error, sqlx::Error::Io(_) | sqlx::Error::Configuration(_));
    if descriptors::is_caused_by_exhaustion(error) || is_of_file && descriptors::are_exhausted() {
        return SqlFault::NoDescriptor.into();
    }
    let fault = match error {
        sqlx::Error::Database(error) => {
            let (fault, code) = if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
                (of_mysql(error.number()), error.number().to_string())
            } else if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
                (of_postgres(error.code()), error.code().to_owned())
            } else {
                let code = error.code().and_then(|code| code.parse().ok()).unwrap_or_default();
                (of_sqlite(code), code.to_string())
            };
            return if fault == SqlFault::Other { refused(&code) } else { fault.into() };
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
    };
    fault.into()
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
        _ => SqlFault::Other,
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
        _ => SqlFault::Other,
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
        _ => SqlFault::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_fault::StoreFaultScope;

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
        assert_eq!((of_mysql(65_535), of_postgres("XX000")), (SqlFault::Other, SqlFault::Other));
        assert_eq!(refused("65535").to_string(), "it refused (error 65535)");
        assert_eq!(refused("XX000").to_string(), "it refused (error XX000)");
        assert_eq!(refused("'; a token").to_string(), "it refused (error atoke)");
    }

    #[test]
    fn what_one_row_meets_does_not_hold_up_the_others() {
        for fault in [SqlFault::Locked, SqlFault::NoRow, SqlFault::Table, SqlFault::TooLong] {
            assert_eq!(StoreFault::from(fault).scope, StoreFaultScope::Entry);
        }
        for fault in [SqlFault::Unreachable, SqlFault::Timeout, SqlFault::Password, SqlFault::ReadOnly] {
            assert_eq!(StoreFault::from(fault).scope, StoreFaultScope::Backend);
        }
        assert_eq!(StoreFault::from(SqlFault::NoDescriptor).scope, StoreFaultScope::Descriptors);
    }
}
