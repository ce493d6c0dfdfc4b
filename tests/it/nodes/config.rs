//! Several nodes that share a state.

mod settings;
mod together;
