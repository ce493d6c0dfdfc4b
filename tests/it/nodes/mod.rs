//! Several nodes: what they share, with real stores under it.

#[cfg(feature = "redis")]
mod conformance;
#[cfg(feature = "redis")]
mod store;
