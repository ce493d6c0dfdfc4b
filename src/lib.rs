//! tokencached: a memcached-compatible cache node that keeps WeChat's access tokens current.
//!
//! # The map
//!
//! | where | what |
//! |---|---|
//! | `main.rs` | arguments -> config -> telemetry -> runtime -> app; the only place that exits |
//! | [`cli`] | the command line: `serve` (default), `demo`, `sandbox`, `check` |
//! | [`app`] | builds every part once and runs them until told to stop |
//! | [`demo`], [`check`] | the subcommands of those names |
//! | [`access`] | who may do what: rights, users and their passwords; pure |
//! | [`config`] | file, environment and flags -> one typed `Config`; every fault listed at once |
//! | [`server`] | listeners, workers, connections: bytes in, bytes out; limits and back-pressure |
//! | [`http_api`] | the HTTP port for people, monitoring and code that does not speak memcached |
//! | [`service`] | a parsed request and the time in, a response out: managed keys first, then the cache |
//! | [`protocol`] | memcached's protocols as pure values; no I/O, no clock |
//! | [`cache`] | ordinary keys: shards, exact memory budget, eviction, expiry |
//! | [`credential`] | managed keys: the table, renewal schedule, refresher, state file |
//! | [`platform`] | the kinds of credentials, a file a platform: what to send, what comes back, when to renew |
//! | [`platform`] | the HTTPS client of WeChat's API: requests, answers, error classes |
//! | [`address_group`] | which addresses count as one client |
//! | [`files`] | reads secrets, keys and tickets so that a disk that hangs holds up nothing else |
//! | [`https`] | what HTTP clients have in common: whom they trust, how an error reads |
//! | [`cluster`] | several nodes: what they share, who renews, how the others follow |
//! | `redis_client` | the connection to a Redis: where it is, how to get in, what its refusals mean |
//! | [`sink`] | what is kept current, written to a store of the site's own as well: a Redis, a database |
//! | [`sandbox`] | a simulated WeChat API, for trying out and for the tests |
//! | [`process`] | background, pid file, user, limits: what memcached's flags ask of the process itself |
//! | [`descriptors`] | file descriptors: how many clients fit, and which errors are their want |
//! | [`clock`], [`secret`], [`stats`], [`telemetry`] | time, values that never show, counters, logs |
//! | [`unit`] | what a systemd unit needs so that the server may do something: lines and commands to paste |
//! | [`supervision`] | a part that ends before the server does ends the server |
//! | [`sync`] | what the lock-free parts are built of |
//!
//! # Three journeys
//!
//! 1. `get access_token:wx1`: a connection fills its buffer, [`protocol`] parses, [`service`] reads the
//!    credential table, the answer is appended to the batch's one write. Nothing waits and nothing calls
//!    WeChat; the one exception is a value whose very first fetch is still under way.
//! 2. Renewal: the schedule says when, the refresher sleeps, [`platform`] fetches under a deadline, the state
//!    is written, the table swaps the value. A failure leaves the value alone.
//! 3. `set k`: parse, service, one cache shard: replace, count bytes, evict under the same lock.
//!
//! # Arrows
//!
//! Imports point one way: main -> app -> {side, net, credential::refresher} -> {service, upstream} ->
//! {cache, credential::table, nodes} -> {protocol, kind, upstream::codes, clock, stats, secret} -> sync.
//! `tests/it/house.rs` holds them.

pub mod access;
pub mod address_group;
pub mod app;
pub mod cache;
pub mod check;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod credential;
pub mod demo;
pub mod descriptors;
pub mod encoding;
pub mod files;
pub mod http_api;
pub mod https;
pub mod invalid_value;
pub mod network;
pub mod platform;
pub mod preset;
pub mod process;
pub mod protocol;
#[cfg(feature = "redis")]
pub mod redis_client;
#[cfg(not(feature = "redis"))]
pub mod redis_client {
    //! Without the feature `redis` there are its settings alone.

    pub mod address;
    pub mod options;
}
pub mod sandbox;
pub mod secret;
pub mod secret_source;
pub mod server;
pub mod service;
pub mod sink;
pub mod stats;
pub mod supervision;
pub mod sync;
pub mod telemetry;
pub mod tls;
pub mod unit;
