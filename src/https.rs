//! What all HTTP clients of this process share: trusted certificates, look-up of names, the text of an error.
//!
//! Connects nowhere. There is no switch to turn the verification of certificates off.

mod network;
mod resolver;

use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::descriptors;
use crate::files;
pub use network::NetworkFault;
pub use resolver::{LookUpFailed, NameResolver};

/// Whose certificates count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust<'p> {
    /// Those of the public authorities (Mozilla's list), and of these too.
    PublicAnd(Option<&'p Path>),
    /// Those of these alone, or of the public ones if none are given.
    OnlyOr(Option<&'p Path>),
}

/// Why there is no client: always something in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// Of the file of authorities.
    #[error("{0}")]
    CaFile(String),
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// A client's side of TLS. Reads the file; connects nowhere.
pub fn tls(trust: Trust<'_>) -> Result<rustls::ClientConfig, TlsFault> {
    let (public, file) = match trust {
        Trust::PublicAnd(file) => (true, file),
        Trust::OnlyOr(file) => (file.is_none(), file),
    };
    let mut roots = rustls::RootCertStore::empty();
    if public {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(path) = file {
        add(&mut roots, path).map_err(TlsFault::CaFile)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsFault::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn add(roots: &mut rustls::RootCertStore, path: &Path) -> Result<(), String> {
    let mut found = 0;
    let pem = files::read(path, files::PEM_BYTES_MAX).map_err(|fault| fault.to_string())?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
        found += 1;
    }
    if found == 0 { Err("holds no PEM certificate".to_owned()) } else { Ok(()) }
}

/// Whether the certificate was refused, or the other side does not use TLS.
pub fn is_tls_error(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.is::<rustls::Error>() {
            return true;
        }
        // The source of an I/O error is that of its content, not the content.
        cause = match inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(content) => Some(content),
            None => inner.source(),
        };
    }
    false
}

/// Whether this process had no file descriptor left, which passes.
pub fn is_out_of_descriptors(error: &reqwest::Error) -> bool {
    error.source().is_some_and(descriptors::is_caused_by_exhaustion)
        || (error.is_connect() && descriptors::are_exhausted())
}

/// An error and its causes in one line, without the URL, which may hold a secret.
pub fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_in_place_of_authorities_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let fault = tls(Trust::OnlyOr(Some(&pipe))).map(drop);
        assert_eq!(fault, Err(TlsFault::CaFile("it is not a regular file".to_owned())));
    }
}
