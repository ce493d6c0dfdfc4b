//! Several nodes that share a state.

#[cfg(feature = "redis")]
mod killing;
mod settings;
mod together;
