//! The integration tests: one binary, a module a scenario. See `tests/README.md` for where a new test goes.

mod cache_model;
mod config;
mod differential;
mod house;
mod protocol;
mod sandbox;
mod soak;
mod splits;
mod support;
