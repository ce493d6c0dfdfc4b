//! Several nodes that share a state.

mod scale;
mod settings;
mod together;
