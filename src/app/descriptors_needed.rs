//! How many file descriptors the server itself needs beside those of its clients.
//!
//! Counts generously: one descriptor too many costs nothing, one too few can make a renewal fail.

use super::Options;
use crate::http_api::options::RESERVED_CONNECTIONS;
use crate::sink;
use crate::sink::options::SinkTo;

/// A socket, the copy that is accepted from, and the one kept to refuse a client with.
const PER_LISTENER: usize = 3;

/// The descriptors that are needed whoever is connected.
pub fn descriptors(config: &Options) -> usize {
    let http = config.http.as_ref().map_or(0, |http| http.listen.len() * PER_LISTENER + RESERVED_CONNECTIONS);
    let has_ticket_files = config.credentials.apps.iter().any(|app| app.verify_ticket_file.is_some());
    let has_commands = config.sinks.iter().any(|sink| matches!(sink.to, SinkTo::Command(_)));
    [
        // Standard streams, the log's, systemd's socket, a pid file, signals.
        16,
        // The runtime of each worker, of the refresher and of the HTTP port: its poll, its waker, its end of the signals' pipe.
        (config.server.threads + 2) * 4,
        config.listeners().len() * PER_LISTENER,
        http,
        // A connection to a platform, the look-up of its name, the secret's file.
        config.credentials.upstream.concurrency * 3,
        // The state file, what it is written to first, its folder, its lock.
        4,
        usize::from(has_ticket_files),
        config.sinks.iter().map(sink_descriptors).sum(),
        // The ends of three pipes of each command that runs, of which there are four at most, and the look at its file.
        if has_commands { 4 * 7 } else { 0 },
        // Connections to the cluster store, to its sentinels or to the members of a Redis cluster, and one for messages.
        if config.credentials.cluster.is_some() { 16 } else { 0 },
        // For what is opened for a moment: certificates, a configuration that is read again, a client above the limit.
        24,
    ]
    .iter()
    .sum()
}

fn sink_descriptors(sink: &sink::Options) -> usize {
    match sink.to {
        // A connection, and the one that replaces it.
        SinkTo::Redis { .. } => 3,
        // Connections, and what SQLite keeps beside its file.
        SinkTo::Sql(_) => 16,
        // A folder, a file and the one it replaces, of each thread that writes.
        SinkTo::File(_) => 12,
        // All commands together are counted.
        SinkTo::Command(_) => 0,
    }
}
