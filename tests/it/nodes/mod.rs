//! Several nodes that share a state, or follow another node.

mod config;
#[cfg(feature = "redis")]
mod conformance;
mod followers;
mod http;
#[cfg(feature = "redis")]
mod killing;
#[cfg(feature = "redis")]
mod store;
mod together;
