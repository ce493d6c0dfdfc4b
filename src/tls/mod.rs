//! TLS: of the server's own ports (memcached, HTTP API, sandbox), and whose certificates its clients trust.
//!
//! Never logs a key, never falls back to plain text, and has no switch to turn the verification of certificates off.

mod client;
mod options;
pub mod pem_file;
mod server;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use self::client::{TlsFault, Trust, client_config};
pub use self::options::{AskedFor, ClientCertificates, TlsOptions, TlsVersion};
pub(crate) use self::server::{Tls, names};

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
