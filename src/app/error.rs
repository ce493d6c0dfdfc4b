//! Why a server does not start, or ends although nobody told it to.
//!
//! Only `main` turns one into an exit code.

use std::io;

/// The reason that the process ends with. Its text is what the operator reads.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is refused: its faults, each with its place and a way out.
    #[error("{0}")]
    Configuration(String),
    /// The files that let clients in cannot be used: users, certificates.
    #[error("{0}")]
    ClientAuth(String),
    /// The user that the server runs as may not read or write a file that it needs.
    #[error("{0}")]
    Permission(String),
    /// An address or a socket cannot be listened on.
    #[error("{0}")]
    Listen(String),
    /// The HTTP port cannot be opened, or its files cannot be used.
    #[error("{0}")]
    HttpApi(String),
    /// Another process has the state file.
    #[error("{0}")]
    State(String),
    /// What keeps credentials current cannot be built.
    #[error("{0}")]
    Credentials(String),
    /// The simulated platform cannot start, or a process of the demo.
    #[error("{0}")]
    Demo(String),
    /// `check --live` could not ask.
    #[error("{0}")]
    LiveCheck(String),
    /// The system refused something.
    #[error("{what}: {error}")]
    System { what: &'static str, error: io::Error },
    /// A part that must run for as long as the server does has ended before it.
    #[error("{0} has ended; the log says why. Start the server again")]
    PartEnded(String),
}

impl StartError {
    /// For `map_err`: what the system has refused.
    pub fn system(what: &'static str) -> impl Fn(io::Error) -> StartError + Copy {
        move |error| StartError::System { what, error }
    }

    /// Adds a way out if files of users, keys or certificates cannot be used.
    pub fn with_file_advice(self, advice: impl FnOnce() -> Option<String>) -> StartError {
        let add = |text: String| match advice() {
            Some(advice) => format!("{text}\n{advice}"),
            None => text,
        };
        match self {
            StartError::ClientAuth(text) => StartError::ClientAuth(add(text)),
            StartError::HttpApi(text) => StartError::HttpApi(add(text)),
            other => other,
        }
    }
}
