//! The integration tests: one binary, a module a scenario. See `tests/README.md` for where a new test goes.

mod refresher;
mod sandbox;
mod state;
