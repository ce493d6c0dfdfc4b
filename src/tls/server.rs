//! The server's half: certificates from files, replaced without touching the connections that are there.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::options::{ClientCertificates, TlsOptions as Files, TlsVersion};
use super::provider;
use crate::access::CertificateName;
use crate::files;
use crate::files::watch::{ContentDigest, FileContent, NotApplied, WatchedFiles, digest_of};

/// Certificates of the common authorities are renewed a month before their end.
const EXPIRES_SOON_S: i64 = 14 * 86_400;

/// The certificates in use, and where they came from.
pub(crate) struct Tls {
    files: Files,
    current: ArcSwap<ServerConfig>,
    /// Of what they were read from.
    in_use: Mutex<ContentDigest>,
}

impl Tls {
    /// Reads the files. The error is a sentence for the operator.
    pub fn new(files: &Files) -> Result<Tls, String> {
        let contents = read(files)?;
        let current = ArcSwap::new(config_of(files, &contents)?);
        Ok(Tls { current, in_use: Mutex::new(digest_of(&contents)), files: files.clone() })
    }

    /// Reads the files again; connections from now on get what they hold. On an error all stays as it is.
    pub fn refresh(&self) -> Result<(), String> {
        let mut in_use = self.in_use.lock();
        let contents = read(&self.files)?;
        self.current.store(config_of(&self.files, &contents)?);
        *in_use = digest_of(&contents);
        Ok(())
    }

    pub fn watched(self: &Arc<Tls>, name: &'static str) -> Box<dyn WatchedFiles> {
        Box::new(WatchedTlsFiles { tls: self.clone(), name })
    }

    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        TlsAcceptor::from(self.current.load_full()).accept(stream).await
    }
}

/// The names in the certificate that the client has shown, which was verified in the handshake.
pub(crate) fn names<S>(stream: &TlsStream<S>) -> Vec<CertificateName> {
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    chain.first().map(|certificate| names_in(certificate)).unwrap_or_default()
}

fn names_in(certificate: &[u8]) -> Vec<CertificateName> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let subject = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let mut names: Vec<_> = subject.map(|name| CertificateName::CommonName(name.to_owned())).collect();
    if let Ok(Some(alternative)) = certificate.subject_alternative_name() {
        names.extend(alternative.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(CertificateName::dns(name)),
            GeneralName::URI(uri) => Some(CertificateName::Uri((*uri).to_owned())),
            _ => None,
        }));
    }
    names
}

/// The certificate, its key, and the authorities of clients if they count.
fn paths(files: &Files) -> Vec<PathBuf> {
    let mut paths = vec![files.cert.clone(), files.key.clone()];
    if let ClientCertificates::Optional(ca) | ClientCertificates::Required(ca) = &files.clients {
        paths.push(ca.clone());
    }
    paths
}

/// What these hold. Refuses a pipe, which would hold up a start or a reload until somebody writes into it.
fn read(files: &Files) -> Result<Vec<FileContent>, String> {
    let pem = |path: &PathBuf| {
        files::read(path, files::PEM_BYTES_MAX).map_err(|fault| format!("{} {}", path.display(), fault.sentence()))
    };
    paths(files).iter().map(pem).collect()
}

/// `contents` are those of [`paths`].
fn config_of(files: &Files, contents: &[FileContent]) -> Result<Arc<ServerConfig>, String> {
    let pem = |at: usize| contents.get(at).map(|content| content.as_slice()).unwrap_or_default();
    let chain = certificates(&files.cert, pem(0))?;
    warn_if_expiring(&files.cert, &chain);
    let key = PrivateKeyDer::from_pem_slice(pem(1));
    let key = key.map_err(|error| bad_file(&files.key, "private key", &error))?;
    let provider = provider();
    let versions: &[&rustls::SupportedProtocolVersion] = match files.min_version {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let builder = match &files.clients {
        ClientCertificates::Ignored => builder.with_no_client_auth(),
        ClientCertificates::Optional(ca) | ClientCertificates::Required(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca, pem(2))? {
                roots.add(certificate).map_err(|error| format!("{} is no authority: {error}", ca.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match files.clients {
                ClientCertificates::Optional(_) => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| format!("{}: {error}", ca.display()))?)
        }
    };
    let config = builder.with_single_cert(chain, key).map_err(|error| {
        format!(
            "the certificate {} and the key {} do not go together: {error}",
            files.cert.display(),
            files.key.display()
        )
    })?;
    Ok(Arc::new(config))
}

/// A certificate about to expire keeps working here and fails at the clients, so somebody should hear of it before.
fn warn_if_expiring(path: &Path, chain: &[CertificateDer<'_>]) {
    let Some(Ok((_, certificate))) = chain.first().map(|der| X509Certificate::from_der(der)) else { return };
    let left_s = certificate.validity().not_after.timestamp() - crate::clock::unix_ms() / 1000;
    if left_s < EXPIRES_SOON_S {
        let days_left = left_s.div_euclid(86_400);
        tracing::warn!(path = %path.display(), days_left, "the TLS certificate expires soon or has expired");
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = read.map_err(|error| bad_file(path, "certificate", &error))?;
    if chain.is_empty() {
        return Err(format!("{} holds no certificate in PEM format", path.display()));
    }
    Ok(chain)
}

/// The parser's own words never quote the file.
fn bad_file(path: &Path, what: &str, error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::NoItemsFound => format!("{} holds no {what} in PEM format", path.display()),
        _ => format!("{} is not a {what} in PEM format", path.display()),
    }
}

struct WatchedTlsFiles {
    tls: Arc<Tls>,
    name: &'static str,
}

impl WatchedFiles for WatchedTlsFiles {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn paths(&self) -> Vec<PathBuf> {
        paths(&self.tls.files)
    }

    fn bytes_max(&self) -> usize {
        files::PEM_BYTES_MAX
    }

    fn apply(&mut self, contents: &[FileContent], _at_start: bool) -> Result<(), NotApplied> {
        let mut in_use = self.tls.in_use.lock();
        let digest = digest_of(contents);
        if *in_use == digest {
            return Ok(());
        }
        self.tls.current.store(config_of(&self.tls.files, contents).map_err(NotApplied::Bad)?);
        *in_use = digest;
        let paths: Vec<String> = self.paths().iter().map(|path| path.display().to_string()).collect();
        tracing::info!("reloaded {} {}; new connections use them", self.name, paths.join(", "));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_in_place_of_a_certificate_key_or_authority_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(path("cert"), made.cert.pem()).unwrap();
        std::fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        let with = |cert: &str, key: &str, ca: &str| {
            let clients = ClientCertificates::Required(path(ca));
            Tls::new(&Files { cert: path(cert), key: path(key), clients, min_version: TlsVersion::Tls12 }).map(drop)
        };
        assert_eq!(with("cert", "key", "cert"), Ok(()));
        for [cert, key, ca] in [["pipe", "key", "cert"], ["cert", "pipe", "cert"], ["cert", "key", "pipe"]] {
            let fault = with(cert, key, ca).unwrap_err();
            assert!(fault.ends_with("pipe is not a regular file"), "{fault}");
        }
    }
}
