//! The connection to a database: each statement has a deadline, and a connection that may be in an unknown state is dropped.
//!
//! Never logs, and never puts a value into the text of a statement.

use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode, PgTypeInfo};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, Executor, Postgres, Row, SqlSafeStr, Type};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::error::Elapsed;

use super::fault::{SqlFault, of_connecting, of_error};
use crate::secret::Secret;
use crate::secret_source::SecretFault;
use crate::sink::backend::CurrentValue;
use crate::sink::options::{SinkEntry, SqlAt, SqlServer, SqlTls};
use crate::sink::sql_statement::{SqlDialect, SqlStatement};
use crate::sink::template::Placeholder;
use crate::store_fault::StoreFault;

/// How many statements are kept prepared.
const PREPARED_MAX: usize = 16;
/// The database itself stops waiting for a lock after `timeout_ms`, which MySQL rounds up to a second. This much longer we
/// wait for that answer.
const LOCK_WAIT_EXTRA: Duration = Duration::from_secs(2);
/// How long closing a connection may take.
const CLOSE_WAIT: Duration = Duration::from_millis(500);

pub(super) struct Database {
    server: SqlServer,
    /// None while it is used: a cancelled call leaves no connection with a half-read answer.
    connection: Mutex<Option<SqlConnection>>,
}

enum SqlConnection {
    MySql(MySqlConnection),
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

/// What the placeholders of a statement stand for.
pub(super) struct SqlFacts<'a> {
    pub entry: &'a SinkEntry,
    pub value: Option<&'a str>,
    pub current: Option<&'a CurrentValue>,
}

enum SqlValue<'a> {
    Text(&'a str),
    Integer(i64),
}

impl<'a> SqlFacts<'a> {
    fn of(&self, placeholder: Placeholder) -> SqlValue<'a> {
        match placeholder {
            Placeholder::Time(time) => SqlValue::Integer(self.current.map_or(time.add, |current| current.time(time))),
            placeholder => SqlValue::Text(self.entry.named(placeholder).or(self.value).unwrap_or_default()),
        }
    }
}

pub(super) struct RowChange<'a> {
    pub statements: &'a [SqlStatement],
    /// Runs if the first statement has changed no row.
    pub instead: Option<&'a SqlStatement>,
    /// Whether each statement has to change a row.
    pub must_change: bool,
}

impl Database {
    pub fn new(server: SqlServer) -> Database {
        Database { server, connection: Mutex::new(None) }
    }

    /// Connects and logs in, with the password as it is now.
    pub async fn open(&self) -> Result<(), StoreFault> {
        let mut slot = self.connection.lock().await;
        if let Some(old) = slot.take() {
            let _ = tokio::time::timeout(CLOSE_WAIT, old.close()).await;
        }
        let password = match &self.server.password {
            Some(source) => Some(source.read_in_background().await.map_err(|fault| match fault {
                SecretFault::NoDescriptor => SqlFault::NoDescriptor,
                _ => SqlFault::PasswordUnreadable,
            })?),
            None => None,
        };
        let connecting = connect(&self.server, password.as_ref());
        let connected = tokio::time::timeout(self.timeout(), connecting).await.map_err(|_| SqlFault::Timeout)?;
        *slot = Some(connected.map_err(|error| of_connecting(&error))?);
        Ok(())
    }

    /// Changes rows, by all statements or none. Returns how many rows.
    pub async fn change(&self, change: &RowChange<'_>, facts: &SqlFacts<'_>) -> Result<u64, StoreFault> {
        let mut used = self.take().await?;
        let changing = used.connection.change(change, facts, self.server.timeout_ms);
        let changed = tokio::time::timeout(2 * self.timeout() + LOCK_WAIT_EXTRA, changing).await;
        used.end(changed)
    }

    pub async fn read(&self, read: &SqlStatement, facts: &SqlFacts<'_>) -> Result<Option<Vec<u8>>, StoreFault> {
        Ok(self.read_row(read, facts).await?.into_iter().next().flatten())
    }

    /// The columns of the first row, as bytes; none where there is no row.
    pub async fn read_row(
        &self,
        read: &SqlStatement,
        facts: &SqlFacts<'_>,
    ) -> Result<Vec<Option<Vec<u8>>>, StoreFault> {
        let mut used = self.take().await?;
        let read = tokio::time::timeout(self.timeout(), used.connection.read(read, facts)).await;
        used.end(read)
    }

    /// Has the database prepare a statement without running it.
    pub async fn prepare(&self, statement: &SqlStatement, facts: &SqlFacts<'_>) -> Result<(), StoreFault> {
        let mut used = self.take().await?;
        let prepared = tokio::time::timeout(self.timeout(), used.connection.prepare(statement, facts)).await;
        used.end(prepared)
    }

    async fn take(&self) -> Result<ConnectionInUse<'_>, StoreFault> {
        let mut slot = self.connection.lock().await;
        let connection = slot.take().ok_or(SqlFault::Dropped)?;
        Ok(ConnectionInUse { slot, connection })
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.server.timeout_ms)
    }
}

struct ConnectionInUse<'d> {
    slot: MutexGuard<'d, Option<SqlConnection>>,
    connection: SqlConnection,
}

impl ConnectionInUse<'_> {
    /// Keeps the connection, unless it is in an unknown state.
    fn end<T>(mut self, done: Result<Result<T, StoreFault>, Elapsed>) -> Result<T, StoreFault> {
        let done = done.map_err(|_| SqlFault::Timeout)?;
        if done.as_ref().err().is_none_or(|fault| !fault.is_about_the_connection()) {
            *self.slot = Some(self.connection);
        }
        done
    }
}

async fn connect(server: &SqlServer, password: Option<&Secret>) -> Result<SqlConnection, sqlx::Error> {
    match server.dialect {
        SqlDialect::MySql => {
            let mut connection = mysql(server, password).connect().await?;
            // A lock is waited for no longer than this, and the connection is still good afterwards. In strict mode a value
            // that is too long for its column is an error; otherwise it would be cut.
            let wait_s = server.timeout_ms.div_ceil(1000);
            let settings = format!(
                "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'), innodb_lock_wait_timeout = {wait_s}, \
                 lock_wait_timeout = {wait_s}"
            );
            connection.execute(AssertSqlSafe(settings)).await?;
            Ok(SqlConnection::MySql(connection))
        }
        SqlDialect::Postgres => Ok(SqlConnection::Postgres(postgres(server, password).connect().await?)),
        SqlDialect::Sqlite => Ok(SqlConnection::Sqlite(sqlite(server).connect().await?)),
    }
}

/// Where it is, who logs in, and the modes of TLS in the order of [`SqlTls`].
macro_rules! with_server {
    ($options:expr, $server:expr, $password:expr, $ca:ident, [$verified:path, $unverified:path, $if_offered:path, $off:path]) => {{
        let mut options = $options
            .database(&$server.database)
            .username($server.user.as_deref().unwrap_or_default())
            .disable_statement_logging();
        options = match &$server.at {
            SqlAt::Tcp { host, port } => options.host(host).port(*port),
            SqlAt::Unix { path, port } => options.socket(path).port(*port),
            SqlAt::File(_) => options,
        };
        if let Some(password) = $password {
            options = options.password(password.expose());
        }
        match &$server.tls {
            SqlTls::Verified { ca_file: Some(file) } => options.ssl_mode($verified).$ca(file),
            SqlTls::Verified { ca_file: None } => options.ssl_mode($verified),
            SqlTls::Unverified => options.ssl_mode($unverified),
            SqlTls::IfOffered => options.ssl_mode($if_offered),
            SqlTls::Off => options.ssl_mode($off),
        }
    }};
}

fn mysql(server: &SqlServer, password: Option<&Secret>) -> MySqlConnectOptions {
    use MySqlSslMode::{Disabled, Preferred, Required, VerifyIdentity};
    let options = MySqlConnectOptions::new().statement_cache_capacity(PREPARED_MAX);
    let options = options.pipes_as_concat(false).no_engine_substitution(false).timezone(None);
    with_server!(options, server, password, ssl_ca, [VerifyIdentity, Required, Preferred, Disabled])
}

fn postgres(server: &SqlServer, password: Option<&Secret>) -> PgConnectOptions {
    use PgSslMode::{Disable, Prefer, Require, VerifyFull};
    let options = PgConnectOptions::new_without_pgpass().application_name("tokencached").extra_float_digits(None);
    with_server!(options, server, password, ssl_root_cert, [VerifyFull, Require, Prefer, Disable])
}

fn sqlite(server: &SqlServer) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new()
        .create_if_missing(false)
        .foreign_keys(false)
        .busy_timeout(Duration::from_millis(server.timeout_ms))
        .statement_cache_capacity(PREPARED_MAX)
        .disable_statement_logging();
    match &server.at {
        SqlAt::File(path) => options.filename(path),
        SqlAt::Tcp { .. } | SqlAt::Unix { .. } => options,
    }
}

/// The same for each kind of connection.
macro_rules! on_each {
    ($connection:expr, $it:ident => $what:expr) => {
        match $connection {
            SqlConnection::MySql($it) => $what,
            SqlConnection::Postgres($it) => $what,
            SqlConnection::Sqlite($it) => $what,
        }
    };
}

/// A statement with its parameters, for any of the databases.
macro_rules! bound {
    ($statement:expr, $facts:expr, $is_kept:expr) => {
        $statement.parameters.iter().fold(
            sqlx::query(AssertSqlSafe($statement.text.clone())).persistent($is_kept),
            |query, parameter| match $facts.of(*parameter) {
                SqlValue::Text(text) => query.bind(text),
                SqlValue::Integer(number) => query.bind(number),
            },
        )
    };
}

impl SqlConnection {
    async fn close(self) -> Result<(), sqlx::Error> {
        on_each!(self, connection => connection.close().await)
    }

    /// Whether statements are kept prepared. A pooler before a PostgreSQL may give each to another session.
    fn keeps_prepared(&self) -> bool {
        !matches!(self, SqlConnection::Postgres(_))
    }

    async fn change(
        &mut self,
        change: &RowChange<'_>,
        facts: &SqlFacts<'_>,
        timeout_ms: u64,
    ) -> Result<u64, StoreFault> {
        let begin = match self {
            // For this transaction only: behind a pooler the session serves others too.
            SqlConnection::Postgres(_) => Some(format!(
                "BEGIN; SET LOCAL statement_timeout = {timeout_ms}; SET LOCAL lock_timeout = {timeout_ms}"
            )),
            SqlConnection::MySql(_) if change.statements.len() > 1 => Some("START TRANSACTION".to_owned()),
            SqlConnection::Sqlite(_) if change.statements.len() > 1 => Some("BEGIN IMMEDIATE".to_owned()),
            SqlConnection::MySql(_) | SqlConnection::Sqlite(_) => None,
        };
        let Some(begin) = begin else { return self.change_each(change, facts).await };
        self.plain(begin).await?;
        let changed = self.change_each(change, facts).await;
        match &changed {
            Ok(_) => self.plain("COMMIT".to_owned()).await?,
            Err(fault) if fault.is_about_the_connection() => {}
            Err(_) => self.plain("ROLLBACK".to_owned()).await?,
        }
        changed
    }

    async fn change_each(&mut self, change: &RowChange<'_>, facts: &SqlFacts<'_>) -> Result<u64, StoreFault> {
        let mut changed = 0;
        for (at, statement) in change.statements.iter().enumerate() {
            let mut rows = self.execute(statement, facts).await?;
            if let (0, 0, Some(instead)) = (at, rows, change.instead) {
                rows = self.execute(instead, facts).await?;
            }
            if rows == 0 && change.must_change {
                return Err(SqlFault::NoRow.into());
            }
            changed += rows;
        }
        Ok(changed)
    }

    async fn execute(&mut self, statement: &SqlStatement, facts: &SqlFacts<'_>) -> Result<u64, StoreFault> {
        let is_kept = self.keeps_prepared();
        let rows =
            on_each!(self, to => bound!(statement, facts, is_kept).execute(to).await.map(|done| done.rows_affected()));
        rows.map_err(|error| of_error(&error))
    }

    async fn read(&mut self, read: &SqlStatement, facts: &SqlFacts<'_>) -> Result<Vec<Option<Vec<u8>>>, StoreFault> {
        let is_kept = self.keeps_prepared();
        let columns: Result<_, sqlx::Error> = on_each!(self, from => {
            let row = bound!(read, facts, is_kept).fetch_optional(from).await;
            row.and_then(|row| match row {
                Some(row) => (0..row.len()).map(|at| row.try_get_unchecked(at)).collect(),
                None => Ok(Vec::new()),
            })
        });
        columns.map_err(|error| of_error(&error))
    }

    async fn prepare(&mut self, statement: &SqlStatement, facts: &SqlFacts<'_>) -> Result<(), StoreFault> {
        let text = AssertSqlSafe(statement.text.clone()).into_sql_str();
        let done = match self {
            SqlConnection::MySql(connection) => connection.prepare(text).await.map(drop),
            SqlConnection::Sqlite(connection) => connection.prepare(text).await.map(drop),
            SqlConnection::Postgres(connection) => {
                let of_type = |parameter: &Placeholder| match facts.of(*parameter) {
                    SqlValue::Text(_) => <String as Type<Postgres>>::type_info(),
                    SqlValue::Integer(_) => <i64 as Type<Postgres>>::type_info(),
                };
                let types: Vec<PgTypeInfo> = statement.parameters.iter().map(of_type).collect();
                connection.prepare_with(text, &types).await.map(drop)
            }
        };
        done.map_err(|error| of_error(&error))
    }

    /// A statement of our own, without parameters.
    async fn plain(&mut self, text: String) -> Result<(), StoreFault> {
        let done = on_each!(self, connection => connection.execute(AssertSqlSafe(text)).await.map(drop));
        done.map_err(|error| of_error(&error))
    }
}
