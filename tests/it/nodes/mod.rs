//! Several nodes: how they are configured, and what they share, with real stores under it.

mod config;
#[cfg(feature = "redis")]
mod conformance;
#[cfg(feature = "redis")]
mod store;
