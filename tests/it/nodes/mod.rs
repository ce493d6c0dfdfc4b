//! Several nodes that share a state.

mod config;
#[cfg(feature = "redis")]
mod conformance;
#[cfg(feature = "redis")]
mod faults;
#[cfg(feature = "redis")]
mod store;
mod together;
