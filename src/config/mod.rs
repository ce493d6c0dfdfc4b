//! The configuration: file, environment and flags in, one typed [`Config`] out.
//!
//! [`schema`] has a row for every setting; [`reader`] reads a value as its row says. Then a module for each table of the file
//! produces the options of its part, and judges what its keys have to do with each other.
//!
//! Every fault is listed at once, with its place and a way out. Never reads the clock, never opens a socket
//! (a host name to listen on is looked up). A secret enters [`crate::secret::Secret`] and nothing else; no fault quotes one.

pub use crate::app::Options as Config;
use crate::cluster::Options as ClusterOptions;
use crate::credential::{Adopt, Alias, App};
use crate::encoding::View;
use crate::http_api::Options as Http;
use crate::platform::{ClientOptions, CredentialName};
use crate::redis_client::options::RedisOptions;
use crate::secret_source::SecretSource;
use crate::server::{Access, Listener, Options as Server};
use crate::sink::options::{Options as Sink, SinkCommand, SinkEntry, SinkFile, SinkTo, SqlSink, Ttl};
use crate::telemetry::Options as Log;
use crate::{preset, sink};

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

pub use crate::raw_value::Place;
pub use environment::{Environment, ProcessEnvironment};
pub use fault::{Fault, Faults};
pub use load::{Loaded, load};

/// The names of all presets: of keys, of tables of a database, of files.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    let keys = preset::PRESETS.iter().map(|preset| preset.name);
    let tables = sink::sql_presets::SQL_PRESETS.iter().map(|preset| preset.name);
    keys.chain(tables).chain(sink::file_presets::preset_names())
}
