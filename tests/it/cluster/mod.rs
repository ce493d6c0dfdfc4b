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
mod in_process;
#[cfg(feature = "redis")]
mod node_kills;
mod scale;
#[cfg(feature = "redis")]
mod store;
#[cfg(feature = "redis")]
mod upgrade;
