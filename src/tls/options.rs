//! The settings of TLS towards clients: files, what is asked of clients, the least version.

use std::path::PathBuf;

/// Certificates, by their files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// The chain, the server's own first.
    pub cert: PathBuf,
    pub key: PathBuf,
    pub clients: ClientCertificates,
    pub min_version: TlsVersion,
}

/// Whether clients show certificates; with the file of the authorities that sign them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    Ignored,
    Optional(PathBuf),
    Required(PathBuf),
}

/// The lowest version of TLS that is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}
