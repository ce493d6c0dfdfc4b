//! The settings of TLS towards clients: files, what is asked of clients, the least version.

use std::path::PathBuf;

use crate::invalid_value::InvalidValue;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedFor {
    No,
    Optional,
    Required,
}

impl AskedFor {
    /// Each with its word in the configuration.
    pub const WORDS: &[(&str, AskedFor)] =
        &[("none", AskedFor::No), ("optional", AskedFor::Optional), ("required", AskedFor::Required)];
}

impl ClientCertificates {
    /// What is asked, by default as much as there are authorities for. The fault is that there are none.
    pub fn new(asked: Option<AskedFor>, ca: Option<PathBuf>) -> Result<ClientCertificates, InvalidValue> {
        match (asked, ca) {
            (Some(AskedFor::No), _) | (None, None) => Ok(ClientCertificates::Ignored),
            (Some(AskedFor::Optional), Some(ca)) => Ok(ClientCertificates::Optional(ca)),
            (None | Some(AskedFor::Required), Some(ca)) => Ok(ClientCertificates::Required(ca)),
            (Some(AskedFor::Optional | AskedFor::Required), None) => {
                let what = "nobody is named whose certificates would count";
                Err(InvalidValue::new(what, "Give client_ca, the authorities (-o ssl_ca_cert)."))
            }
        }
    }

    /// The word of [`AskedFor`].
    pub fn word(&self) -> &'static str {
        match self {
            ClientCertificates::Ignored => "none",
            ClientCertificates::Optional(_) => "optional",
            ClientCertificates::Required(_) => "required",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

impl TlsVersion {
    /// Each with its word in the configuration.
    pub const WORDS: &[(&str, TlsVersion)] = &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
}
