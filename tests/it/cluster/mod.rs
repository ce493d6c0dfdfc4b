//! Clusters: nodes that share a Redis, and nodes that follow a leader.

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
