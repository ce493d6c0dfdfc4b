//! The HTTPS client of WeChat's API.
//!
//! `answer` reads what came back and `class` says what an error means, both pure; what is sent is in [`crate::kind`].
//! `client` does the I/O. Nothing here decides when to call, retries by itself, or logs.

pub mod answer;
pub mod class;
pub mod client;

pub use answer::{Probe, Token, Told};
pub use class::{Class, Failure, Pace, Sent, Wait};
pub use client::{BuildError, Client};
