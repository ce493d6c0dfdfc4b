//! Managed keys: what the server keeps current by itself.
//!
//! `table` is what readers see; `policy` says when to renew, as a pure function; `refresher` is the one
//! writer; `state` survives a restart. Readers never wait for a renewal and never call WeChat.

pub mod policy;
pub mod state;
pub mod table;
