//! Several nodes that share a state.

#[cfg(feature = "redis")]
mod conformance;
mod settings;
#[cfg(feature = "redis")]
mod store;
mod together;
