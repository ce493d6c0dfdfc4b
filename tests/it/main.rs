//! The integration tests: one binary, a module a scenario. See `tests/README.md` for where a new test goes.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::disallowed_types, reason = "a lock that a failed test poisons fails the next one too, which is right")]

mod access;
mod adopting;
mod aliases;
mod allocator;
mod apps_at_run_time;
mod binary;
mod binary_differential;
mod blocking;
mod cache_model;
mod check;
mod chinese;
mod clients;
mod cluster;
mod cluster_model;
mod commands;
mod config;
mod config_mistakes;
mod config_old_names;
mod config_reference;
mod demo;
mod dependencies;
mod deploy;
mod differential;
mod documentation;
mod file_reload;
mod foreign_writer;
mod fragmentation;
mod frameworks;
mod fuzz;
mod health;
mod hostile;
mod hosts;
mod house;
mod http_api;
mod image;
mod interleavings;
mod libmemcached_tools;
mod lifecycle;
mod load;
mod logs;
mod managed;
mod memccapable;
mod meta;
mod month;
#[cfg(feature = "redis")]
#[path = "../moving/mod.rs"]
mod moving;
#[cfg(feature = "redis")]
#[path = "moving.rs"]
mod moving_in;
mod old_settings;
mod open_platform;
mod package_files;
mod packages;
mod panels;
mod php;
mod probing;
mod protocol;
mod quotas;
mod readme;
#[path = "../record_rules/mod.rs"]
mod record_rules;
#[cfg(feature = "redis")]
mod redis_client;
mod refresher;
mod sandbox;
mod scale;
mod scripts;
mod sink_files;
#[cfg(feature = "redis")]
mod sinks;
#[cfg(all(feature = "redis", feature = "sql"))]
mod sinks_sql;
mod soak;
mod state;
mod state_file;
mod statistics;
mod support;
#[path = "interleavings/sync.rs"]
mod sync;
mod systemd;
mod tickets;
mod tiers;
mod tls;
