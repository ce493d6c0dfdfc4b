//! The configuration: file, environment and flags in, one typed [`Config`] out.
//!
//! Every fault is listed at once, with its place and a way out. Never reads the clock, never opens a socket
//! (a host name to listen on is looked up). A secret enters [`Secret`] and nothing else; no fault quotes one.

pub use crate::app::Options as Config;
use crate::cluster::Options as Nodes;
use crate::credential::{Adopt, Alias, App};
use crate::encoding::View;
use crate::http_api::Options as Side;
use crate::platform::{ClientOptions as Upstream, CredentialName};
use crate::redis_client::options::RedisOptions;
use crate::secret_source::{HIDDEN, SecretOrigin, SecretSource};
use crate::server::{Access, ListenAt, Listener, Options as Server, Protocol};
use crate::service::RefuseWith;
use crate::sink::options::{Options as Sink, SinkCommand, SinkContent, SinkEntry, SinkFile, SinkTo, SqlSink, Ttl};
use crate::telemetry::Options as Log;
use crate::tls::{ClientCertificates, TlsOptions as Tls, TlsVersion};
use crate::{preset, sink};

mod access;
mod adopt;
mod aliases;
mod app_name;
mod apps;
mod authorizers;
mod credentials;
mod effective;
mod encodings;
mod environment;
mod fault;
mod file;
mod flags;
mod key_words;
mod listen;
mod listeners;
mod load;
mod mistakes;
mod nodes;
mod redis_server;
mod settings;
mod side;
mod sink_command;
mod sink_file;
mod sink_sql;
mod sinks;
mod surroundings;
mod trusted_hosts;
mod upstream;
mod value;
mod words;

pub use credentials::remedy_for_tls;
pub use environment::{Environment, ProcessEnvironment};
pub use fault::{Fault, Faults, Place};
pub use flags::Flags;
pub use load::{Loaded, load};
pub use settings::{APP_KEYS, AUTHORIZER_KEYS, LISTENER_KEYS, NAMED_KEYS, SETTINGS, Setting};
pub use sinks::SINK_KEYS;

/// The names of all presets: of keys, of tables of a database, of files.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    let keys = preset::PRESETS.iter().map(|preset| preset.name);
    let tables = sink::sql_presets::SQL_PRESETS.iter().map(|preset| preset.name);
    keys.chain(tables).chain(sink::file_presets::preset_names())
}
