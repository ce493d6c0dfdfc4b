//! One connection to a server whose address is known: TLS, password, deadlines, and what the client library's errors
//! mean.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, TlsCertificates,
};
use tokio::time::timeout;

use super::fault::Fault;
use super::options::{RedisOptions, TlsFiles};
use super::subscriber::Subscriber;
use crate::descriptors;
use crate::files::{self, Unread, read_aside};
use crate::secret_source::SecretFault;

/// Where one server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Tcp(String, u16),
    Unix(PathBuf),
}

impl Place {
    /// Where a cluster's node sends us to: `host:port`, without a host if it is its own.
    pub fn moved(&self, to: &str) -> Option<Place> {
        let (host, port) = to.rsplit_once(':')?;
        let port = port.parse().ok()?;
        match (host.trim_start_matches('[').trim_end_matches(']'), self) {
            ("", Place::Tcp(own, _)) => Some(Place::Tcp(own.clone(), port)),
            // It does not know its own address.
            ("" | "?", _) => None,
            (host, _) => Some(Place::Tcp(host.to_owned(), port)),
        }
    }
}

/// With whose name and password to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogIn {
    AsConfigured,
    /// To a sentinel: neither has it databases, nor our user.
    Nameless,
    OnlyPassword,
}

/// Connects within twice the deadline: the host may have to be looked up.
pub(super) async fn connect(server: &RedisOptions, place: &Place) -> Result<MultiplexedConnection, Fault> {
    connect_as(server, place, LogIn::AsConfigured).await
}

pub(super) async fn connect_as(
    server: &RedisOptions,
    place: &Place,
    log_in: LogIn,
) -> Result<MultiplexedConnection, Fault> {
    let deadline = Duration::from_millis(server.timeout_ms);
    let client = client(server, place, log_in).await?;
    let options =
        AsyncConnectionConfig::new().set_connection_timeout(Some(deadline)).set_response_timeout(Some(deadline));
    let connecting = client.get_multiplexed_async_connection_with_config(&options);
    let connection = timeout(2 * deadline, connecting).await.map_err(|_| Fault::Timeout)?;
    connection.map_err(|error| fault_at_the_start(&error, server))
}

/// Listens to these channels.
pub(super) async fn subscribe(server: &RedisOptions, place: &Place, channels: &[&str]) -> Result<Subscriber, Fault> {
    let deadline = Duration::from_millis(server.timeout_ms);
    let client = client(server, place, LogIn::AsConfigured).await?;
    let connecting = timeout(2 * deadline, client.get_async_pubsub());
    let mut pubsub =
        connecting.await.map_err(|_| Fault::Timeout)?.map_err(|error| fault_at_the_start(&error, server))?;
    let subscribing = timeout(2 * deadline, pubsub.subscribe(channels));
    subscribing.await.map_err(|_| Fault::Timeout)?.map_err(|error| fault_at_the_start(&error, server))?;
    Ok(Subscriber::new(pubsub, deadline))
}

/// Reads what may be replaced while we run: the password and the certificates.
async fn client(server: &RedisOptions, place: &Place, log_in: LogIn) -> Result<Client, Fault> {
    let deadline = Duration::from_millis(server.timeout_ms);
    timeout(deadline, read_client(server, place, log_in)).await.map_err(|_| Fault::Timeout)?
}

async fn read_client(server: &RedisOptions, place: &Place, log_in: LogIn) -> Result<Client, Fault> {
    let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
    if log_in == LogIn::AsConfigured {
        settings = settings.set_db(server.db.into());
    }
    if let (Some(user), LogIn::AsConfigured) = (&server.user, log_in) {
        settings = settings.set_username(user);
    }
    if let (Some(source), LogIn::AsConfigured | LogIn::OnlyPassword) = (&server.password, log_in) {
        settings = settings.set_password(source.read_aside().await.map_err(unread_password)?.expose());
    }
    let address = match (place, &server.tls) {
        (Place::Unix(path), _) => ConnectionAddr::Unix(path.clone()),
        (Place::Tcp(host, port), None) => ConnectionAddr::Tcp(host.clone(), *port),
        (Place::Tcp(host, port), Some(_)) => {
            ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
        }
    };
    let info = address.into_connection_info().map_err(|_| Fault::Protocol)?.set_redis_settings(settings);
    match (&server.tls, place) {
        (Some(files), Place::Tcp(..)) => {
            let certificates = certificates(files).await?;
            Client::build_with_tls(info, certificates).map_err(|_| Fault::Files)
        }
        _ => Client::open(info).map_err(|_| Fault::Protocol),
    }
}

async fn certificates(files: &TlsFiles) -> Result<TlsCertificates, Fault> {
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

async fn pem(path: &Path) -> Result<Vec<u8>, Fault> {
    let here = path.to_owned();
    let read = read_aside(path, move || files::read(&here, files::PEM_BYTES_MAX)).await.map_err(|_| Fault::Files)?;
    read.map(|mut bytes| std::mem::take(&mut *bytes)).map_err(|fault| match fault {
        Unread::Io(error) if descriptors::is_exhausted(&error) => Fault::NoDescriptor,
        _ => Fault::Files,
    })
}

fn unread_password(fault: SecretFault) -> Fault {
    if fault == SecretFault::NoDescriptor { Fault::NoDescriptor } else { Fault::PasswordUnreadable }
}

/// The fault behind an error on a live connection.
pub(super) fn fault_of(error: &RedisError) -> Fault {
    if error.is_timeout() {
        return Fault::Timeout;
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            Fault::of_text(error.detail().unwrap_or_default()).unwrap_or(Fault::Password)
        }
        ErrorKind::Server(_) | ErrorKind::Extension => {
            Fault::of_server(error.code().unwrap_or_default(), error.detail())
        }
        ErrorKind::Io => Fault::Dropped,
        _ => Fault::Protocol,
    }
}

/// The same while connecting.
fn fault_at_the_start(error: &RedisError, server: &RedisOptions) -> Fault {
    let tls = server.tls.is_some();
    match fault_of(error) {
        // The library's error does not always tell: a look-up that fails for want of one names another reason.
        Fault::Dropped if is_out_of_descriptors(error) || descriptors::are_used_up() => Fault::NoDescriptor,
        Fault::Dropped if error.is_connection_refusal() => Fault::Unreachable,
        Fault::Dropped if tls && is_of_tls(error) => Fault::Tls,
        Fault::Dropped if error.is_connection_dropped() => Fault::Dropped,
        Fault::Dropped => Fault::Unreachable,
        Fault::Protocol if tls => Fault::Tls,
        other => other,
    }
}

fn is_out_of_descriptors(error: &RedisError) -> bool {
    let source = std::error::Error::source(error);
    let inner = source.and_then(|source| source.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>());
    inner.is_some_and(|inner| descriptors::is_caused_by_exhaustion(&**inner))
}

/// The library hands on what TLS says as a text.
fn is_of_tls(error: &RedisError) -> bool {
    let text = error.to_string().to_lowercase();
    ["certificate", "alert", "handshake", "corrupt message", "tls"].iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_names_a_host_or_means_its_own() {
        let here = Place::Tcp("one".into(), 1);
        let tcp = |host: &str, port| Some(Place::Tcp(host.into(), port));
        assert_eq!(here.moved("10.0.0.1:6381"), tcp("10.0.0.1", 6381));
        assert_eq!(here.moved("::1:6381"), tcp("::1", 6381));
        assert_eq!(here.moved(":6381"), tcp("one", 6381));
        assert_eq!(Place::Unix("/r.sock".into()).moved("two:7"), tcp("two", 7));
        for nowhere in ["?:6381", "6381", "one:", "one:x", ""] {
            assert_eq!(here.moved(nowhere), None, "{nowhere}");
        }
        assert_eq!(Place::Unix("/r.sock".into()).moved(":7"), None);
    }

    #[test]
    fn without_a_file_descriptor_a_redis_is_not_blamed_and_no_other_is_gone_to() {
        let of = |errno: rustix::io::Errno| RedisError::from(std::io::Error::from(errno));
        let server = RedisOptions {
            at: super::super::options::RedisAt::Unix("/r.sock".into()),
            tls: None,
            db: 0,
            user: None,
            password: None,
            password_origin: None,
            trusted_hosts: Vec::new(),
            timeout_ms: 500,
        };
        for errno in [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE] {
            let fault = fault_at_the_start(&of(errno), &server);
            assert_eq!((fault, fault.advice()), (Fault::NoDescriptor, descriptors::REMEDY));
        }
        assert_eq!(fault_at_the_start(&of(rustix::io::Errno::CONNREFUSED), &server), Fault::Unreachable);
    }
}
