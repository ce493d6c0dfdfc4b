//! Counters. Each worker has a set of its own and is its only writer, so counting on the hit path is a plain
//! load and store; whoever wants a total adds the sets up.
//!
//! Never locks on the counting side. Names are those of memcached's `stats` (protocol.txt, "General-purpose statistics").

mod connections;
mod figure;
mod sinks;
mod workers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

pub use connections::{ConnectionInfo, ConnectionState, ConnectionTable};
pub(crate) use figure::figures;
pub use figure::{Figure, FigureValue, Metric, MetricType, by_names};
pub use sinks::{RecentSinkEvents, SinkError, SinkStats, SinkWrite};
pub use workers::Counter;

use workers::{CounterSet, Workers};

macro_rules! worker_stats {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What one worker counts. On cache lines of its own, so that no worker waits for another's.
        #[derive(Default, Debug)]
        #[repr(align(128))]
        pub struct WorkerStats { $($(#[$doc])* pub $name: Counter),* }

        #[derive(Default, Debug, Clone, Copy)]
        pub struct WorkerTotals { $($(#[$doc])* pub $name: u64),* }

        impl CounterSet for WorkerStats {
            type Totals = WorkerTotals;

            fn add_to(&self, totals: &mut WorkerTotals) {
                $(totals.$name = totals.$name.wrapping_add(self.$name.get());)*
            }

            fn subtract(totals: &mut WorkerTotals, base: &WorkerTotals) {
                $(totals.$name = totals.$name.wrapping_sub(base.$name);)*
            }
        }
    };
}

// What each counts is in the table of the server's figures, with its help.
worker_stats! {
    /// Keys asked for.
    cmd_get,
    /// Storage commands that were carried out or tried.
    cmd_set,
    cmd_flush, cmd_touch, cmd_meta, get_hits, get_misses, get_flushed, delete_hits, delete_misses, incr_hits,
    incr_misses, decr_hits, decr_misses, cas_hits, cas_misses, cas_badval, touch_hits, touch_misses, store_too_large,
    store_no_memory, bytes_read, bytes_written, conn_yields, managed_hits, managed_misses, foreign_protocols, auth_cmds,
    auth_errors, auth_delays, ssl_handshake_errors, idle_kicks, request_timeouts, write_timeouts, in_flight_refusals,
    /// Connections closed because connections used all the memory they may, in the middle of an answer.
    answer_refusals,
}

/// Memory that connections hold beyond their first buffers. On cache lines of its own: every batch looks at it.
#[derive(Default, Debug)]
#[repr(align(128))]
pub struct ConnectionMemoryStats {
    pub bytes: AtomicU64,
    pub bytes_max: AtomicU64,
}

#[derive(Default, Debug)]
pub struct Stats {
    workers: Workers<WorkerStats>,
    pub curr_connections: AtomicU64,
    pub total_connections: AtomicU64,
    pub rejected_connections: AtomicU64,
    /// Writes to managed keys that were refused since the start: the sum of what each credential counts. `stats reset`
    /// leaves both, so that they stay the same.
    pub refused_writes: AtomicU64,
    /// Requests that were refused because the client has no right to them.
    pub access_denied: AtomicU64,
    /// Log lines that could not be written in time, or at all.
    pub log_lines_dropped: Arc<AtomicU64>,
    pub connection_memory: ConnectionMemoryStats,
    pub connections: ConnectionTable,
    sinks: Mutex<Vec<Arc<SinkStats>>>,
}

impl Stats {
    /// With the log's count of lines that are missing in it.
    pub fn with_log(lines_dropped: Arc<AtomicU64>) -> Stats {
        Stats { log_lines_dropped: lines_dropped, ..Stats::default() }
    }

    /// A new worker's own set.
    pub fn register_worker(&self) -> Arc<WorkerStats> {
        self.workers.register()
    }

    /// The next sink's own figures.
    pub fn register_sink(&self, sink_type: &'static str, target: String) -> Arc<SinkStats> {
        let sink = Arc::new(SinkStats::new(sink_type, target));
        self.sinks.lock().push(sink.clone());
        sink
    }

    /// Those of every sink, in the configuration's order.
    pub fn sinks(&self) -> Vec<Arc<SinkStats>> {
        self.sinks.lock().clone()
    }

    /// The sums since the last reset.
    pub fn totals(&self) -> WorkerTotals {
        self.workers.totals()
    }

    /// `stats reset`: counts start from zero again; what is current stays.
    pub fn reset(&self) {
        self.workers.reset();
        self.total_connections.store(0, Relaxed);
        self.rejected_connections.store(0, Relaxed);
        self.access_denied.store(0, Relaxed);
        self.log_lines_dropped.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_the_sum_of_workers_since_the_reset() {
        let stats = Stats::default();
        let (one, two) = (stats.register_worker(), stats.register_worker());
        one.get_hits.add(2);
        two.get_hits.add(3);
        assert_eq!(stats.totals().get_hits, 5);
        stats.reset();
        two.get_hits.add(1);
        assert_eq!(stats.totals().get_hits, 1);
    }
}
