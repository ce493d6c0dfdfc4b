//! Several nodes that share a state, or follow another node.

mod config;
#[cfg(feature = "redis")]
mod conformance;
#[cfg(feature = "redis")]
mod faults;
mod followers;
#[cfg(feature = "redis")]
mod forged;
mod http;
#[cfg(feature = "redis")]
mod killing;
mod scale;
#[cfg(feature = "redis")]
mod store;
mod together;
#[cfg(feature = "redis")]
mod upgrade;
