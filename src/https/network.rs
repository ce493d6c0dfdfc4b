//! What kind of network trouble an error is: one word that never changes, for programs and for pages in any language.
//!
//! Pure: looks at an error's causes, never at its text.

use std::error::Error;
use std::io;

use super::{LookUpFailed, causes};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkFault {
    /// The name has no address, or no name server answers.
    Dns,
    /// Nothing listens there.
    Refused,
    /// There is no way to the address.
    Unreachable,
    Timeout,
    /// The other side's certificate is not one to trust.
    Certificate,
    /// TLS failed otherwise: the other side speaks none, or refuses ours.
    Tls,
    /// The connection was closed before the answer was complete.
    Reset,
    /// Something answered, but not as the platform does: an error page of a proxy, no JSON.
    Answer,
    Other,
}

impl NetworkFault {
    pub fn name(self) -> &'static str {
        match self {
            NetworkFault::Dns => "dns",
            NetworkFault::Refused => "refused",
            NetworkFault::Unreachable => "unreachable",
            NetworkFault::Timeout => "timeout",
            NetworkFault::Certificate => "certificate",
            NetworkFault::Tls => "tls",
            NetworkFault::Reset => "reset",
            NetworkFault::Answer => "answer",
            NetworkFault::Other => "other",
        }
    }

    /// That of a call that brought no answer.
    pub fn of(error: &reqwest::Error) -> NetworkFault {
        let other = if error.is_timeout() { NetworkFault::Timeout } else { NetworkFault::Other };
        causes(error).find_map(of_cause).unwrap_or(other)
    }
}

fn of_cause(cause: &(dyn Error + 'static)) -> Option<NetworkFault> {
    if cause.is::<LookUpFailed>() {
        return Some(NetworkFault::Dns);
    }
    if let Some(error) = cause.downcast_ref::<rustls::Error>() {
        let by_certificate = matches!(error, rustls::Error::InvalidCertificate(_));
        return Some(if by_certificate { NetworkFault::Certificate } else { NetworkFault::Tls });
    }
    if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
        return Some(NetworkFault::Reset);
    }
    match cause.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::ConnectionRefused => Some(NetworkFault::Refused),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            Some(NetworkFault::Unreachable)
        }
        io::ErrorKind::TimedOut => Some(NetworkFault::Timeout),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Some(NetworkFault::Reset),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::https::NameResolver;
    use crate::tls::{Trust, client_config};

    fn client() -> reqwest::Client {
        let builder = reqwest::Client::builder().tls_backend_preconfigured(client_config(Trust::OnlyOr(None)).unwrap());
        builder.dns_resolver(Arc::new(NameResolver::of_system())).no_proxy().build().unwrap()
    }

    async fn fault(url: &str) -> NetworkFault {
        NetworkFault::of(&client().get(url).send().await.unwrap_err())
    }

    /// A server that does this to its first client.
    async fn server<F: Future<Output = ()> + Send>(
        act: impl FnOnce(tokio::net::TcpStream) -> F + Send + 'static,
    ) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { act(listener.accept().await.unwrap().0).await });
        address
    }

    #[tokio::test]
    async fn each_network_fault_has_its_word() {
        assert_eq!(fault("http://no-such-host.invalid/").await, NetworkFault::Dns);
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(fault(&format!("http://{nobody}/")).await, NetworkFault::Refused);
        let closes = server(async |mut stream| drop(stream.read(&mut [0; 512]).await)).await;
        assert_eq!(fault(&format!("http://{closes}/")).await, NetworkFault::Reset);
        let plain = server(async |mut stream| drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await)).await;
        assert_eq!(fault(&format!("https://{plain}/")).await, NetworkFault::Tls);
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", silent.local_addr().unwrap());
        let error = client().get(url).timeout(Duration::from_millis(20)).send().await.unwrap_err();
        assert_eq!(NetworkFault::of(&error), NetworkFault::Timeout);
    }

    #[tokio::test]
    async fn a_certificate_that_nobody_vouches_for_is_told_from_other_trouble_with_tls() {
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let address = server(async move |stream| drop(acceptor.accept(stream).await)).await;
        assert_eq!(fault(&format!("https://{address}/")).await, NetworkFault::Certificate);
    }

    #[test]
    fn no_two_faults_have_the_same_word() {
        let all = [
            NetworkFault::Dns,
            NetworkFault::Refused,
            NetworkFault::Unreachable,
            NetworkFault::Timeout,
            NetworkFault::Certificate,
            NetworkFault::Tls,
            NetworkFault::Reset,
            NetworkFault::Answer,
            NetworkFault::Other,
        ];
        let mut names = all.map(NetworkFault::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
    }
}
