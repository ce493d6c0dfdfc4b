//! The connection to one Redis: connects, writes, looks, deletes, each under a deadline.
//!
//! Never logs. No error of the client library gets out of here, because it may quote keys and addresses.

use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisError, TlsCertificates, Value,
};

use super::fault::Fault;
use crate::config::{self, SinkAt};
use crate::secret::Secret;

/// Deletes a key if it holds what we have written.
const DELETE_OURS: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// A live connection. Clones share it.
#[derive(Clone)]
pub(super) struct Link {
    connection: MultiplexedConnection,
    timeout: Duration,
}

impl Link {
    /// Looks the host up, connects, logs in and selects the database, all within twice the sink's deadline.
    pub async fn connect(sink: &config::Sink) -> Result<Link, Fault> {
        let timeout = Duration::from_millis(sink.timeout_ms);
        let client = tokio::time::timeout(timeout, client(sink)).await.map_err(|_| Fault::Timeout)??;
        let options =
            AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(Some(timeout));
        let connecting = client.get_multiplexed_async_connection_with_config(&options);
        let connection = tokio::time::timeout(2 * timeout, connecting).await.map_err(|_| Fault::Timeout)?;
        let connection = connection.map_err(|error| fault(&error, sink))?;
        let mut link = Link { connection, timeout };
        // A server that wants a password, or a certificate of ours, says so only now.
        link.look(&[]).await.map_err(|fault| match (fault, &sink.at) {
            (Fault::Dropped, SinkAt::Tls { .. }) => Fault::Tls,
            (fault, _) => fault,
        })?;
        Ok(link)
    }

    /// Writes all keys of one credential at once; gives back what was under each before.
    pub async fn write(
        &mut self,
        keys: &[&str],
        values: &[Vec<u8>],
        ttl_ms: Option<u64>,
    ) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        let mut pipeline = Pipeline::with_capacity(2 * keys.len() + 2);
        // A value of another type cannot be read, and is replaced all the same. Not the library's own transactions:
        // they do not tell why a server refused to execute one.
        pipeline.ignore_errors().cmd("MULTI");
        for key in keys {
            pipeline.cmd("GET").arg(*key);
        }
        for (key, value) in keys.iter().zip(values) {
            pipeline.cmd("SET").arg(*key).arg(value);
            if let Some(ttl_ms) = ttl_ms {
                pipeline.arg("PX").arg(ttl_ms.max(1));
            }
        }
        pipeline.cmd("EXEC");
        let answers = executed(self.ask(&pipeline).await?)?;
        let (before, written) = answers.split_at_checked(keys.len()).ok_or(Fault::Protocol)?;
        if let Some(refused) = written.iter().find_map(refusal) {
            return Err(refused);
        }
        before.iter().map(found).collect()
    }

    /// What is under these keys now.
    pub async fn look(&mut self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        let mut pipeline = Pipeline::with_capacity(keys.len() + 1);
        pipeline.ignore_errors();
        for key in keys {
            pipeline.cmd("GET").arg(*key);
        }
        pipeline.cmd("PING");
        let mut answers: Vec<Value> = self.ask(&pipeline).await?;
        let pong = answers.pop().ok_or(Fault::Protocol)?;
        match refusal(&pong) {
            Some(fault) => Err(fault),
            None => answers.iter().map(found).collect(),
        }
    }

    /// Deletes those keys that hold exactly these bytes; how many did.
    pub async fn delete_ours(&mut self, expected: &[(String, Vec<u8>)]) -> Result<u64, Fault> {
        let mut pipeline = Pipeline::with_capacity(expected.len());
        pipeline.ignore_errors();
        for (key, value) in expected {
            pipeline.cmd("EVAL").arg(DELETE_OURS).arg(1).arg(key).arg(value);
        }
        let answers: Vec<Value> = self.ask(&pipeline).await?;
        let deleted = |answer: &Value| match answer {
            Value::Int(deleted) => Ok(u64::try_from(*deleted).unwrap_or(0)),
            // Another type, so not ours.
            answer => found(answer).map(|_| 0),
        };
        answers.iter().map(deleted).sum()
    }

    async fn ask(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, Fault> {
        let asking = pipeline.query_async(&mut self.connection);
        let answer = tokio::time::timeout(2 * self.timeout, asking).await.map_err(|_| Fault::Timeout)?;
        answer.map_err(|error| refused(&error))
    }
}

/// The answers inside a transaction. If it was refused, the first refusal of a command says why.
fn executed(mut answers: Vec<Value>) -> Result<Vec<Value>, Fault> {
    match answers.pop() {
        Some(Value::Array(inside)) => Ok(inside),
        Some(last) => {
            let refusals: Vec<Fault> = answers.iter().chain([&last]).filter_map(refusal).collect();
            let known = refusals.iter().find(|fault| **fault != Fault::Other).or(refusals.first());
            Err(known.copied().unwrap_or(Fault::Protocol))
        }
        None => Err(Fault::Protocol),
    }
}

/// What a `GET` brought; text of another type counts as something.
fn found(answer: &Value) -> Result<Option<Vec<u8>>, Fault> {
    match answer {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes.clone())),
        Value::SimpleString(text) => Ok(Some(text.clone().into_bytes())),
        Value::ServerError(error) if error.code() == "WRONGTYPE" || is_wrong_type(error.details()) => {
            Ok(Some(Vec::new()))
        }
        answer => Err(refusal(answer).unwrap_or(Fault::Protocol)),
    }
}

/// In a script's error the code stands inside.
fn is_wrong_type(details: Option<&str>) -> bool {
    details.is_some_and(|details| details.contains("WRONGTYPE"))
}

fn refusal(answer: &Value) -> Option<Fault> {
    match answer {
        Value::ServerError(error) => Some(of_server(error.code(), error.details())),
        _ => None,
    }
}

fn of_server(code: &str, details: Option<&str>) -> Fault {
    let details = details.unwrap_or_default();
    Fault::of_code(code).or_else(|| Fault::of_text(details)).unwrap_or(Fault::Other)
}

/// The fault behind an error of the client library on a live connection.
fn refused(error: &RedisError) -> Fault {
    if error.is_timeout() {
        return Fault::Timeout;
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            Fault::of_text(error.detail().unwrap_or_default()).unwrap_or(Fault::Password)
        }
        ErrorKind::Server(_) | ErrorKind::Extension => of_server(error.code().unwrap_or_default(), error.detail()),
        ErrorKind::Io => Fault::Dropped,
        _ => Fault::Protocol,
    }
}

/// The same while connecting.
fn fault(error: &RedisError, sink: &config::Sink) -> Fault {
    let tls = matches!(sink.at, SinkAt::Tls { .. });
    match refused(error) {
        Fault::Dropped if error.is_connection_refusal() => Fault::Unreachable,
        Fault::Dropped if tls && is_of_tls(error) => Fault::Tls,
        Fault::Dropped if error.is_connection_dropped() => Fault::Dropped,
        Fault::Dropped => Fault::Unreachable,
        Fault::Protocol if tls => Fault::Tls,
        other => other,
    }
}

/// The library hands on what TLS says as a text.
fn is_of_tls(error: &RedisError) -> bool {
    let text = error.to_string().to_lowercase();
    ["certificate", "alert", "handshake", "corrupt message", "tls"].iter().any(|word| text.contains(word))
}

/// Reads what may be replaced while we run: the password and the certificates.
async fn client(sink: &config::Sink) -> Result<Client, Fault> {
    let mut settings = RedisConnectionInfo::default().set_db(sink.db.into()).set_skip_set_lib_name();
    if let Some(user) = &sink.user {
        settings = settings.set_username(user);
    }
    if let Some(source) = sink.password.clone() {
        settings = settings.set_password(blocking(move || source.read().ok()).await?.expose());
    }
    let (address, certificates) = match &sink.at {
        SinkAt::Tcp { host, port } => (ConnectionAddr::Tcp(host.clone(), *port), None),
        SinkAt::Unix(path) => (ConnectionAddr::Unix(path.clone()), None),
        SinkAt::Tls { host, port, ca_file, identity } => {
            let address = ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None };
            let (ca_file, identity) = (ca_file.clone(), identity.clone());
            let certificates = tokio::task::spawn_blocking(move || certificates(ca_file.as_deref(), identity));
            (address, Some(certificates.await.map_err(|_| Fault::Files)??))
        }
    };
    let info = address.into_connection_info().map_err(|_| Fault::Protocol)?.set_redis_settings(settings);
    match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates).map_err(|_| Fault::Files),
        None => Client::open(info).map_err(|_| Fault::Protocol),
    }
}

async fn blocking(read: impl FnOnce() -> Option<Secret> + Send + 'static) -> Result<Secret, Fault> {
    let secret = tokio::task::spawn_blocking(read).await.ok().flatten();
    secret.ok_or(Fault::PasswordUnreadable)
}

fn certificates(ca_file: Option<&Path>, identity: Option<(PathBuf, PathBuf)>) -> Result<TlsCertificates, Fault> {
    let read = |path: &Path| std::fs::read(path).map_err(|_| Fault::Files);
    let client_tls = match identity {
        Some((cert, key)) => Some(ClientTlsConfig { client_cert: read(&cert)?, client_key: read(&key)? }),
        None => None,
    };
    Ok(TlsCertificates { client_tls, root_cert: ca_file.map(read).transpose()? })
}
