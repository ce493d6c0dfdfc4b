//! How many file descriptors the server itself needs beside those of its clients.
//!
//! Counts generously: one descriptor too many costs nothing, one too few can make a renewal fail.

use super::Options;
use crate::cluster;
use crate::http_api::options::RESERVED_CONNECTIONS;
use crate::sink;
use crate::sink::options::SinkTo;

/// Standard streams, the log's, systemd's socket, a pid file, signals.
const PROCESS: usize = 16;
/// A thread's runtime: its poll, its waker, its end of the signals' pipe.
const PER_THREAD: usize = 4;
/// A socket, the copy that is accepted from, and the one kept to refuse a client with.
const PER_LISTENER: usize = 3;
/// A connection to a platform, the look-up of its name, the secret's file.
const PER_CALL: usize = 3;
/// The state file, what it is written to first, its folder, its lock.
const STATE: usize = 4;
/// A connection to a Redis, and the one that replaces it.
const PER_REDIS_SINK: usize = 3;
/// Connections to a database, and what SQLite keeps beside its file.
const PER_SQL_SINK: usize = 16;
/// A folder, a file and the one it replaces, of each thread that writes.
const PER_FILE_SINK: usize = 12;
/// The ends of three pipes of each command that runs, of which there are four at most, and the look at its file.
const COMMANDS: usize = 4 * 7;
/// Connections to the cluster store, to its sentinels or to the members of a Redis cluster, and one for messages.
const CLUSTER: usize = 16;
/// For what is opened for a moment: certificates, a configuration that is read again, a client above the limit.
const RESERVE: usize = 24;

/// The descriptors that are needed whoever is connected.
pub fn descriptors(config: &Options) -> usize {
    // Two more: the refresher's thread and the HTTP port's.
    let threads = config.server.threads + 2;
    let http = config.http.as_ref().map_or(0, |http| http.listen.len() * PER_LISTENER + RESERVED_CONNECTIONS);
    let ticket_files = config.credentials.apps.iter().filter(|app| app.verify_ticket_file.is_some()).count();
    let nodes = match &config.credentials.cluster {
        Some(cluster::Options::Redis(_) | cluster::Options::Leader(_)) => CLUSTER,
        None => 0,
    };
    let has_commands = config.sinks.iter().any(|sink| matches!(sink.to, SinkTo::Command(_)));
    PROCESS
        + threads * PER_THREAD
        + config.listeners().len() * PER_LISTENER
        + http
        + config.credentials.upstream.concurrency * PER_CALL
        + STATE
        + ticket_files.min(1)
        + config.sinks.iter().map(sink_descriptors).sum::<usize>()
        + if has_commands { COMMANDS } else { 0 }
        + nodes
        + RESERVE
}

fn sink_descriptors(sink: &sink::Options) -> usize {
    match sink.to {
        SinkTo::Redis { .. } => PER_REDIS_SINK,
        SinkTo::Sql(_) => PER_SQL_SINK,
        SinkTo::File(_) => PER_FILE_SINK,
        // All commands together have `COMMANDS`.
        SinkTo::Command(_) => 0,
    }
}
