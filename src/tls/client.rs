//! The client's half: whose certificates count. Reads files; connects nowhere.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::provider;
use crate::files;

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
    #[error("{0}")]
    CaFile(String),
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

pub fn client_config(trust: Trust<'_>) -> Result<ClientConfig, TlsFault> {
    let (public, file) = match trust {
        Trust::PublicAnd(file) => (true, file),
        Trust::OnlyOr(file) => (file.is_none(), file),
    };
    let mut roots = RootCertStore::empty();
    if public {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(path) = file {
        add(&mut roots, path).map_err(TlsFault::CaFile)?;
    }
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsFault::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let mut found = 0;
    let pem = files::read(path, files::PEM_BYTES_MAX).map_err(|fault| fault.to_string())?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
        found += 1;
    }
    if found == 0 { Err("holds no PEM certificate".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_in_place_of_authorities_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let fault = client_config(Trust::OnlyOr(Some(&pipe))).map(drop);
        assert_eq!(fault, Err(TlsFault::CaFile("it is not a regular file".to_owned())));
    }
}
