//! A connection to the server that is asked: TCP or a Unix socket, with TLS over it or not.
//!
//! With TLS any certificate is good: nothing is sent that others may not know, and a server whose certificate has expired
//! is no better after a restart.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::tls;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(super) struct Connection {
    stream: Box<dyn Stream>,
}

impl Connection {
    /// The first of these that takes it.
    pub async fn tcp(addresses: &[SocketAddr]) -> io::Result<Connection> {
        Ok(Connection { stream: Box::new(TcpStream::connect(addresses).await?) })
    }

    pub async fn unix(path: &Path) -> io::Result<Connection> {
        Ok(Connection { stream: Box::new(UnixStream::connect(path).await?) })
    }

    /// Goes on with TLS. False: the server has answered by a refusal, because it wants a certificate of the client.
    pub async fn start_tls(&mut self) -> Result<bool, String> {
        let config = client_config().map_err(|error| format!("cannot set up TLS: {error}"))?;
        let name = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
        let plain = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        match TlsConnector::from(Arc::new(config)).connect(name, plain).await {
            Ok(stream) => {
                self.stream = Box::new(stream);
                Ok(true)
            }
            Err(error) if is_alert(&error) => Ok(false),
            Err(error) => Err(format!("the TLS handshake failed: {error}")),
        }
    }

    /// Sends, and reads until the answer is complete or the server hangs up. `None`: it wants a certificate of the client,
    /// which TLS 1.3 says only after the handshake.
    pub async fn ask(
        &mut self,
        question: &[u8],
        is_complete: impl Fn(&[u8]) -> bool,
        bytes_max: usize,
    ) -> Result<Option<Vec<u8>>, String> {
        let mut answer = Vec::new();
        let asked = async {
            self.stream.write_all(question).await?;
            self.stream.flush().await?;
            while !is_complete(&answer) && answer.len() < bytes_max {
                if self.stream.read_buf(&mut answer).await? == 0 {
                    break;
                }
            }
            io::Result::Ok(())
        };
        match asked.await {
            Ok(()) => Ok(Some(answer)),
            Err(error) if is_alert(&error) => Ok(None),
            Err(error) => Err(format!("no answer: {error}")),
        }
    }
}

/// Whether the other side has said by TLS's own means that it refuses.
fn is_alert(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(_)))
}

fn client_config() -> Result<ClientConfig, rustls::Error> {
    let provider = tls::provider();
    Ok(ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth())
}

/// Takes every certificate whose key the server holds.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
