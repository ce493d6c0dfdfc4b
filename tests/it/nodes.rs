//! Several nodes that share a state.

mod config;
mod together;
