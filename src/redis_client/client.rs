//! Opens one connection to a known address: TLS, login, deadlines. Classifies the client library's errors.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, TlsCertificates,
};
use tokio::time::timeout;

use super::fault::RedisFault;
use super::options::{RedisOptions, TlsFiles};
use super::subscriber::{Subscription, messages};
use crate::descriptors;
use crate::files::{self, ReadFault, read_in_background};
use crate::network::without_brackets;
use crate::secret_source::SecretFault;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ServerAddress {
    Tcp(String, u16),
    Unix(PathBuf),
}

impl ServerAddress {
    /// The address in a cluster's redirect: `host:port`, without a host if it is the same one.
    pub fn redirected(&self, to: &str) -> Option<ServerAddress> {
        let (host, port) = to.rsplit_once(':')?;
        let port = port.parse().ok()?;
        match (without_brackets(host), self) {
            ("", ServerAddress::Tcp(own, _)) => Some(ServerAddress::Tcp(own.clone(), port)),
            // The node does not know its own address.
            ("" | "?", _) => None,
            (host, _) => Some(ServerAddress::Tcp(host.to_owned(), port)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Login {
    AsConfigured,
    /// Without user, password and database: to a sentinel.
    Anonymous,
    PasswordOnly,
}

/// A step that must be over within that time.
pub(super) async fn within<T>(limit: Duration, step: impl Future<Output = T>) -> Result<T, RedisFault> {
    timeout(limit, step).await.map_err(|_| RedisFault::Timeout)
}

/// Connects within twice the deadline, because the host name may have to be resolved.
pub(super) async fn connect(
    server: &RedisOptions,
    address: &ServerAddress,
    login: Login,
) -> Result<MultiplexedConnection, RedisFault> {
    let deadline = server.timeout();
    let client = within(deadline, client(server, address, login)).await??;
    let options =
        AsyncConnectionConfig::new().set_connection_timeout(Some(deadline)).set_response_timeout(Some(deadline));
    let connecting = client.get_multiplexed_async_connection_with_config(&options);
    within(2 * deadline, connecting).await?.map_err(|error| fault_while_connecting(&error, server.tls.is_some()))
}

pub(super) async fn subscribe(
    server: &RedisOptions,
    address: &ServerAddress,
    channels: &[&str],
) -> Result<Subscription, RedisFault> {
    let (deadline, failed) = (server.timeout(), |error| fault_while_connecting(&error, server.tls.is_some()));
    let client = within(deadline, client(server, address, Login::AsConfigured)).await??;
    let mut pubsub = within(2 * deadline, client.get_async_pubsub()).await?.map_err(failed)?;
    within(2 * deadline, pubsub.subscribe(channels)).await?.map_err(failed)?;
    Ok(messages(pubsub, deadline))
}

/// Reads the password and the certificates, which may be replaced while the server runs.
async fn client(server: &RedisOptions, address: &ServerAddress, login: Login) -> Result<Client, RedisFault> {
    let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
    if login == Login::AsConfigured {
        settings = settings.set_db(server.db.into());
        settings = server.user.iter().fold(settings, |settings, user| settings.set_username(user));
    }
    if let Some(source) = server.password.as_ref().filter(|_| login != Login::Anonymous) {
        let password = source.read_in_background().await.map_err(|fault| match fault {
            SecretFault::NoDescriptor => RedisFault::NoDescriptor,
            _ => RedisFault::PasswordUnreadable,
        })?;
        settings = settings.set_password(password.expose());
    }
    let (at, files) = match (address, &server.tls) {
        (ServerAddress::Unix(path), _) => (ConnectionAddr::Unix(path.clone()), None),
        (ServerAddress::Tcp(host, port), None) => (ConnectionAddr::Tcp(host.clone(), *port), None),
        (ServerAddress::Tcp(host, port), Some(files)) => {
            let at = ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None };
            (at, Some(files))
        }
    };
    let info = at.into_connection_info().map_err(|_| RedisFault::Protocol)?.set_redis_settings(settings);
    match files {
        Some(files) => Client::build_with_tls(info, certificates(files).await?).map_err(|_| RedisFault::Files),
        None => Client::open(info).map_err(|_| RedisFault::Protocol),
    }
}

async fn certificates(files: &TlsFiles) -> Result<TlsCertificates, RedisFault> {
    let client_tls = match &files.identity {
        Some((cert, key)) => Some(ClientTlsConfig { client_cert: pem(cert).await?, client_key: pem(key).await? }),
        None => None,
    };
    let root_cert = match &files.ca_file {
        Some(path) => Some(pem(path).await?),
        None => None,
    };
    Ok(TlsCertificates { client_tls, root_cert })
}

async fn pem(path: &Path) -> Result<Vec<u8>, RedisFault> {
    let here = path.to_owned();
    let reading = read_in_background(path, move || files::read(&here, files::PEM_BYTES_MAX));
    match reading.await {
        Ok(Ok(mut bytes)) => Ok(std::mem::take(&mut *bytes)),
        Ok(Err(ReadFault::Io(error))) if descriptors::is_exhausted(&error) => Err(RedisFault::NoDescriptor),
        _ => Err(RedisFault::Files),
    }
}

/// Classifies an error of the client library on an open connection.
pub fn fault_of(error: &RedisError) -> RedisFault {
    if error.is_timeout() {
        return RedisFault::Timeout;
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            RedisFault::of_text(error.detail().unwrap_or_default()).unwrap_or(RedisFault::Password)
        }
        ErrorKind::Server(_) | ErrorKind::Extension => {
            RedisFault::of_server(error.code().unwrap_or_default(), error.detail())
        }
        ErrorKind::Io => RedisFault::Dropped,
        _ => RedisFault::Protocol,
    }
}

/// Classifies an error while connecting.
fn fault_while_connecting(error: &RedisError, tls: bool) -> RedisFault {
    match fault_of(error) {
        // The error does not always say so: a name look-up that fails without descriptors gives another reason.
        RedisFault::Dropped if is_out_of_descriptors(error) || descriptors::are_exhausted() => RedisFault::NoDescriptor,
        RedisFault::Dropped if error.is_connection_refusal() => RedisFault::Unreachable,
        RedisFault::Dropped if tls && is_tls_error(error) => RedisFault::Tls,
        RedisFault::Dropped if error.is_connection_dropped() => RedisFault::Dropped,
        RedisFault::Dropped => RedisFault::Unreachable,
        RedisFault::Protocol if tls => RedisFault::Tls,
        other => other,
    }
}

fn is_out_of_descriptors(error: &RedisError) -> bool {
    let source = std::error::Error::source(error);
    let inner = source.and_then(|source| source.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>());
    inner.is_some_and(|inner| descriptors::is_caused_by_exhaustion(&**inner))
}

/// The library has only a text for errors of TLS.
fn is_tls_error(error: &RedisError) -> bool {
    let text = error.to_string().to_lowercase();
    ["certificate", "alert", "handshake", "corrupt message", "tls"].iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_names_a_host_or_means_its_own() {
        let here = ServerAddress::Tcp("one".into(), 1);
        let tcp = |host: &str, port| Some(ServerAddress::Tcp(host.into(), port));
        assert_eq!(here.redirected("10.0.0.1:6381"), tcp("10.0.0.1", 6381));
        assert_eq!(here.redirected("::1:6381"), tcp("::1", 6381));
        assert_eq!(here.redirected(":6381"), tcp("one", 6381));
        assert_eq!(ServerAddress::Unix("/r.sock".into()).redirected("two:7"), tcp("two", 7));
        for nowhere in ["?:6381", "6381", "one:", "one:x", ""] {
            assert_eq!(here.redirected(nowhere), None, "{nowhere}");
        }
        assert_eq!(ServerAddress::Unix("/r.sock".into()).redirected(":7"), None);
    }

    #[test]
    fn without_a_file_descriptor_a_redis_is_not_blamed_and_no_other_is_gone_to() {
        let of = |errno: rustix::io::Errno| RedisError::from(std::io::Error::from(errno));
        for errno in [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE] {
            let fault = fault_while_connecting(&of(errno), false);
            assert_eq!((fault, fault.advice()), (RedisFault::NoDescriptor, descriptors::REMEDY));
        }
        assert_eq!(fault_while_connecting(&of(rustix::io::Errno::CONNREFUSED), false), RedisFault::Unreachable);
    }
}
