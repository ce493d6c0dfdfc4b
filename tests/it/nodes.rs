//! Several nodes that share a state.

mod together;
