//! What all HTTP clients of this process share: look-up of names, what an error means and its text.
//!
//! Connects nowhere. Whose certificates are trusted: `tls`.

mod network;
mod resolver;

use std::error::Error;
use std::io;
use std::iter::successors;

use crate::descriptors;
pub use network::NetworkFault;
pub use resolver::{LookUpFailed, NameResolver};

/// What is behind an error, the nearest first. The source of an I/O error is that of its content, so the content comes
/// before it.
fn causes<'e>(error: &'e reqwest::Error) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    successors(error.source(), |cause| {
        let cause: &'e (dyn Error + 'static) = *cause;
        match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(content) => Some(content),
            None => cause.source(),
        }
    })
}

/// Whether the certificate was refused, or the other side does not use TLS.
pub fn is_tls_error(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| cause.is::<rustls::Error>())
}

/// Whether this process had no file descriptor left, which passes.
pub fn is_out_of_descriptors(error: &reqwest::Error) -> bool {
    error.source().is_some_and(descriptors::is_caused_by_exhaustion)
        || (error.is_connect() && descriptors::are_exhausted())
}

/// An error and its causes in one line, without the URL, which may hold a secret.
pub fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let causes = successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
