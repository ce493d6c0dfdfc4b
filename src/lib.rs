//! tokencached: a memcached-compatible cache node that keeps WeChat's credentials current.
//!
//! # The map
//!
//! Grouped by purpose. Which module may import which is the table `HOUSE` in `tests/it/house.rs`.
//!
//! | where | what |
//! |---|---|
//! | `main.rs` | arguments -> config -> telemetry -> runtime -> app; signals; exits (`--help` and wrong usage: [`cli`]) |
//! | [`cli`] | the command line: `serve` (default), `demo`, `sandbox`, `check`, `health`, `version`, `help` |
//! | [`demo`], [`check`], [`health`] | the commands of those names |
//! | [`config`] | file, environment, flags -> every part's options, or all faults; `schema.toml`: the settings |
//! | [`app`] | starts every part in order, ends them in order; every part's options together |
//! | **ports** | |
//! | [`server`] | the memcached port: listeners, workers, connections; limits, timeouts, back-pressure |
//! | [`http_api`] | the HTTP port: JSON, platform-shaped calls, metrics, the status page |
//! | **keeping credentials current** | |
//! | [`credential`] | managed keys: table and names (read by all), refresher (writes), schedule, quota, state file |
//! | [`sink`] | stores of the site's own that are kept current as well: file, SQL, Redis, command |
//! | [`cluster`] | several nodes: leases, shared records, followers. A single node never enters it |
//! | [`platform`] | a file a platform: requests, renewal rules, in `errcodes/` error codes; answers; the HTTPS client |
//! | **executing a request** | |
//! | [`service`] | executes a request: checks rights, then managed keys, then the cache. Refuses writes to managed keys |
//! | [`cache`] | ordinary keys: shards, one exact memory budget, eviction, expiry |
//! | [`protocol`] | memcached's text, meta and binary protocols as plain values |
//! | [`access`] | who may do what: rights, users, API keys, names in certificates |
//! | **connections to others, files** | |
//! | [`redis_client`] | a connection to a Redis: sentinel, cluster, ACL, TLS; for `cluster` and `sink` |
//! | [`tls`], [`http_server`] | TLS of our own ports and the trust of clients; connections of the HTTP API and the sandbox |
//! | [`https`], [`network`] | name look-ups and errors of HTTP clients; IP networks |
//! | [`files`], [`secret_source`] | files that others write, read so that a disk that hangs holds up nothing else |
//! | **used by everything** | |
//! | [`encoding`], [`preset`] | how a value is written into a key or a file; the keys a known SDK reads: `presets.toml` |
//! | [`process`], [`descriptors`], [`unit`] | the process itself: user, background, limits; advice for systemd |
//! | [`environment`] | what a start reads of its surroundings: variables, names, the user |
//! | [`raw_value`], [`invalid_value`], [`byte_size`] | a value as somebody has written it, and what is wrong with it; sizes |
//! | [`texts`] | what people read, in Chinese: one table, applied where it is printed |
//! | [`stats`], [`telemetry`], [`supervision`] | counters, figures; the log; a part that ends too early ends the server |
//! | [`store_fault`] | what can be wrong with a Redis, a database, a file or a command that values are written to |
//! | [`clock`], [`secret`] | time; values that are never printed |
//! | [`rate_limit`], [`address_group`] | limits by client; which addresses count as one client |
//! | [`sync`] | locks and atomics that loom can test |
//! | [`sandbox`] | the simulated platforms: a real HTTP server, for people and for the tests |
//!
//! # Threads and tasks
//!
//! ```text
//! main thread: main.rs blocks on app::Running::run ---------------------------- ends last; exits with the code
//!  |
//!  +- thread "log"         telemetry: writes log lines from a bounded queue --- never joined, flushed at the end
//!  +- thread "signals"     main.rs: own runtime; SIGTERM -> shutdown token, SIGHUP -> reload. Ends the process
//!  |                       after 15 s, or at a second signal, whatever the others do
//!  +- threads "worker-N"   server: own single-threaded runtime each; owns its connections for life
//!  |    `- task: a connection. Ends with its client, when idle too long, or at shutdown after its last batch
//!  +- thread for HTTP      http_api: own runtime
//!  |    |- task: an acceptor for each address      |- task: a connection or an event stream
//!  |    `- task: watches the table for events
//!  `- runtime "control" (one thread, and threads for what blocks)
//!       |- task: an acceptor for each listener     hands connections to the workers in turn
//!       |- task: the refresher                     the only one that writes values into the table
//!       |    |- task: a fetch, a probe             a call to a platform, under a deadline
//!       |    |- task: the writer of the state file
//!       |    |- task: the watch on secret and ticket files
//!       |    `- task: the watch on the cluster store, or on a leader
//!       |- task: each sink                         reads the table, writes to its store
//!       `- task: the watch on files of users, keys and certificates
//! ```
//!
//! Who starts what: `main` the log, the signals and the runtime; [`app`] everything else. One shutdown token ends them:
//! a signal cancels it, a client's `shutdown` command, or a part that ends too early ([`supervision`]). Then, side by
//! side: acceptors stop and workers write their last batches (5 s at most), the HTTP port answers what it has begun (3 s),
//! the refresher lets calls that are already sent end (8 s) and writes the state. Sinks come last, with the last values
//! (1 s). What blocks (look-ups of names, disks, commands of sinks) runs on threads that nobody waits for.
//!
//! # Four journeys
//!
//! 1. `get access_token:wx1`: `server/driver.rs` reads for `server/connection.rs` -> `protocol/parse.rs` ->
//!    `service/mod.rs` -> `service/reads.rs` -> `service/managed.rs` -> `credential/table/names.rs` finds the key,
//!    `credential/table.rs` has its value -> the answer joins the batch's one write. Nothing waits and nothing calls a
//!    platform; the one exception is a value whose very first fetch is still under way. `mg` goes through
//!    `service/meta.rs` in place of `service/reads.rs`.
//! 2. Renewal: `credential/refresher/scheduler.rs` sleeps until it is due -> `credential/actor.rs` ->
//!    `credential/actor/fetching.rs` says what to fetch -> `credential/fetch_task.rs` -> in a cluster
//!    `credential/cluster_fetch.rs` takes the lease -> `platform/client.rs` calls -> `platform/answer.rs` reads the
//!    answer -> `credential/actor/fetching.rs` judges it, and `credential/schedule.rs` says when the next is due ->
//!    `credential/state_writer.rs` -> `credential/table/writer.rs` swaps the value -> `sink/runner.rs` of each sink.
//!    A failure does not touch the value.
//! 3. `set k`: `protocol/parse.rs` -> `service/mod.rs` -> `service/managed.rs` refuses it if `k` is a managed key; else
//!    `service/writes.rs` -> one shard of `cache` stores it under one lock: `cache/shard.rs` evicts in `make_room`. If all
//!    shards together then exceed the memory budget, `enforce_budget` in `cache/mod.rs` evicts from the largest.
//! 4. Users, keys, certificates and secrets change while the server runs: `files/watch.rs` or SIGHUP -> the part that
//!    uses the file takes the new content. A file that cannot be used changes nothing.
//!
//! # Arrows
//!
//! Imports point one way: main -> app -> {http_api, server, sink, credential::refresher} -> {service, cluster, platform
//! client} -> {cache, credential::table} -> {protocol, platform rules, clock, stats, secret} -> sync. Only main and check
//! import `config`. `tests/it/house.rs` has the whole table and checks it, inside folders too.

pub mod access;
pub mod address_group;
pub mod app;
pub mod byte_size;
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
pub mod environment;
pub mod files;
pub mod health;
pub mod http_api;
pub mod http_server;
pub mod https;
pub mod invalid_value;
pub mod network;
pub mod platform;
pub mod preset;
pub mod process;
pub mod protocol;
pub mod rate_limit;
pub mod raw_value;
#[cfg(feature = "redis")]
pub mod redis_client;
#[cfg(not(feature = "redis"))]
pub mod redis_client {
    //! Without the feature `redis` only its settings are compiled.

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
pub mod store_fault;
pub mod supervision;
pub mod sync;
pub mod telemetry;
pub mod texts;
pub mod tls;
pub mod unit;
