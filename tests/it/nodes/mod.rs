//! Several nodes: what they share, with real stores under it.

mod http;
