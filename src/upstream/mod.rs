//! The HTTPS client of WeChat's API.
//!
//! `request` says what is sent, `answer` reads what came back and `class` says what an error means: all three
//! are pure. `client` does the I/O. Nothing here decides when to call, retries by itself, or logs.

pub mod answer;
pub mod class;
pub mod client;
pub mod request;

pub use answer::{Probe, Token, Told};
pub use class::{Class, Failure, Pace, Sent, Wait};
pub use client::{BuildError, Client};
pub use request::FetchSpec;
