//! Why a server does not start, or ends although nobody told it to.
//!
//! Only `main` turns one into an exit code.

use std::io;

/// The reason that the process ends with. Its text is what the operator reads.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration, or a file that it names, is refused: each fault with its place and a way out.
    #[error("{0}")]
    Refused(String),
    /// The start could not get something that it needs: an address, the state file, a process of the demo.
    #[error("{0}")]
    Unavailable(String),
    /// A part that must run for as long as the server does has ended before it.
    #[error("{0} has ended; the log says why. Start the server again")]
    PartEnded(String),
}

impl StartError {
    /// For `map_err`: what the system has refused.
    pub fn system(what: &'static str) -> impl Fn(io::Error) -> StartError + Copy {
        move |error| StartError::Unavailable(format!("{what}: {error}"))
    }
}
