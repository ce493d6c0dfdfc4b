//! The HTTPS client of WeChat's API.
//!
//! `answer` reads what came back, `codes` says what an error code means and `class` what is made of a failure, `hosts`
//! which host is next, all pure; what is sent is in [`crate::kind`]. `client` does the I/O. Nothing here decides when to
//! call, sends a call twice, or logs more than a host's coming and going.

pub mod answer;
pub mod class;
pub mod client;
pub mod codes;
pub mod hosts;

pub use answer::{Probe, Token, Told};
pub use class::{Class, Failure, Pace, Sent, Wait};
pub use client::{BuildError, Called, Client, Upstream};
