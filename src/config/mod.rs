//! The configuration: file, environment and flags in, one typed [`Config`] out.
//!
//! [`schema`] has a row for every setting; [`reader`] reads a value as its row says. Then a module for each table of the file
//! produces the options of its part, which says whether its keys go together.
//!
//! Every fault is listed at once, with its place and a way out. Never reads the clock, never opens a socket
//! (a host name to listen on is looked up). A secret enters [`crate::secret::Secret`] and nothing else; no fault quotes one.

mod aliases;
mod apps;
mod cluster;
mod environment;
mod fault;
mod file;
mod flags;
mod http;
mod load;
mod old_names;
mod reader;
mod redis;
mod report;
pub mod schema;
mod secrets;
mod server;
mod sink_command;
mod sink_file;
mod sink_sql;
mod sinks;
mod upstream;
mod value;

pub use crate::app::Options as Config;
pub use crate::raw_value::Place;
pub use environment::{Environment, ProcessEnvironment};
pub use fault::{Fault, Faults};
pub use load::{Loaded, load};
