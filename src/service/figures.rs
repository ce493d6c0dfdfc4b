//! The tables of figures: of the server, of a class of items, of a sink, of a credential. Each is in the order of
//! `stats`; a list of names says in which order `/metrics` has those that it has.
//!
//! Never shows a token, a secret or an ordinary key.

mod classes;
mod credentials;
mod sinks;

use std::sync::atomic::Ordering::Relaxed;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

pub use self::classes::{ClassSample, total_malloced};
pub use self::credentials::CredentialSample;
pub use self::sinks::SinkSample;
use super::{MEMCACHED_VERSION, Service};
use crate::access::Rights;
use crate::cache::{CacheTotals, ClassTotals};
use crate::clock::Now;
use crate::credential::facts::ClusterStatus;
use crate::credential::table::Table;
use crate::stats::{ConnectionMemoryStats, Figure, FigureValue, Stats, WorkerTotals, figures};

/// The server now, as somebody with these rights may see it.
pub struct ServerSample<'s> {
    service: &'s Service,
    stats: &'s Stats,
    memory: &'s ConnectionMemoryStats,
    table: &'s Table,
    /// None on a single node.
    cluster: Option<&'s ClusterStatus>,
    rights: &'s Rights,
    now: Now,
    counts: WorkerTotals,
    cache: CacheTotals,
    /// The sums over all classes of items.
    classes: ClassTotals,
}

impl<'s> ServerSample<'s> {
    pub fn of(service: &'s Service, rights: &'s Rights, now: Now) -> ServerSample<'s> {
        let (stats, table, cache) = (&*service.stats, &*service.table, service.cache.totals());
        ServerSample {
            service,
            stats,
            memory: &stats.connection_memory,
            table,
            cluster: Some(&table.cluster).filter(|cluster| cluster.node().is_some()),
            rights,
            now,
            counts: stats.totals(),
            classes: cache.classes,
            cache,
        }
    }

    /// The figures that the status page shows and charts.
    pub const ON_THE_PAGE: &'static str = "curr_connections total_connections rejected_connections cmd_get cmd_set
        get_hits get_misses managed_hits managed_misses access_denied auth_errors bytes_read bytes_written curr_items
        total_items bytes limit_maxbytes evictions reclaimed expired_unfetched";

    pub const MEMCACHED_METRICS: &'static str = "uptime time curr_connections max_connections bytes limit_maxbytes
        curr_items accepting_conns memcached_malloced_bytes rusage_user rusage_system bytes_read bytes_written
        total_connections rejected_connections conn_yields listen_disabled_num total_items evictions reclaimed
        store_too_large store_no_memory direct_reclaims lru_crawler_starts crawler_reclaimed crawler_items_checked
        moves_to_cold moves_to_warm moves_within_lru";

    pub const OWN_METRICS: &'static str = "managed_hits managed_misses managed_reports client_checks
        client_checks_refused access_denied auth_errors auth_delays ssl_handshake_errors foreign_protocols idle_kicks
        request_timeouts write_timeouts log_lines_dropped in_flight_refusals tokencached_refresher_panics
        tokencached_state_file_enabled tokencached_state_file_healthy state_file_failures tokencached_cluster_enabled
        shared_state_up shared_state_age_s shared_state_forged_values shared_state_forged_counts";

    pub const FIGURES: &'s [Figure<Self>] = figures! { |of|
        service:
            pid = u64::from(std::process::id()),
            uptime = of.now.boot_ms.saturating_sub(of.service.started.boot_ms) / 1000
                => gauge memcached_uptime_seconds "Seconds since the server started.",
            time = of.now.unix_s().cast_unsigned()
                => gauge memcached_time_seconds "Seconds since 1970 by the server's clock.",
            version = MEMCACHED_VERSION,
            libevent = "none",
            pointer_size = u64::from(usize::BITS),
            rusage_user = processor_time(Usage::user_time)
                => counter memcached_process_user_cpu_seconds "User time of the process.",
            rusage_system = processor_time(Usage::system_time)
                => counter memcached_process_system_cpu_seconds "System time of the process.",
            max_connections = of.service.settings.max_connections
                => gauge memcached_max_connections "The most connections that may be open.";
        stats:
            curr_connections => gauge memcached_current_connections "Open connections.",
            total_connections => counter memcached_connections "Connections accepted.",
            rejected_connections
                => counter memcached_connections_rejected "Connections refused because there were too many.",
            connection_structures = &of.stats.curr_connections,
            response_obj_oom = of.counts.answer_refusals;
        absent: response_obj_count, response_obj_bytes, read_buf_count, read_buf_bytes, read_buf_bytes_free,
            read_buf_oom = of.counts.in_flight_refusals,
            reserved_fds;
        counts: cmd_get, cmd_set, cmd_flush, cmd_touch, cmd_meta, get_hits, get_misses,
            get_expired = of.cache.get_expired,
            get_flushed, delete_misses, delete_hits, incr_misses, incr_hits, decr_misses, decr_hits, cas_misses,
            cas_hits, cas_badval, touch_hits, touch_misses,
            store_too_large => counter memcached_item_too_large "Items refused as too large.",
            store_no_memory => counter memcached_item_no_memory "Items refused because there was no memory for them.",
            auth_cmds,
            auth_errors => counter tokencached_auth_errors "Failed logins.",
            idle_kicks => counter tokencached_idle_kicks "Connections closed because they were idle.",
            bytes_read => counter memcached_read_bytes "Bytes read from clients.",
            bytes_written => counter memcached_written_bytes "Bytes written to clients.",
            limit_maxbytes = of.cache.budget_bytes => gauge memcached_limit_bytes "Bytes that items may use.",
            accepting_conns = 1_u64 => gauge memcached_accepting_connections "Whether connections are accepted.";
        absent:
            listen_disabled_num => counter memcached_connections_listener_disabled
                "Times the listener was disabled; always 0 here.",
            time_in_listen_disabled_us,
            threads = of.service.settings.threads,
            conn_yields = of.counts.conn_yields => counter memcached_connections_yielded
                "Times a connection with many requests had to let others go first.";
        cache: hash_power_level, hash_bytes;
        absent: hash_is_expanding, slab_reassign_rescues, slab_reassign_chunk_rescues, slab_reassign_evictions_nomem,
            slab_reassign_inline_reclaim, slab_reassign_busy_items, slab_reassign_busy_deletes, slab_reassign_running,
            slabs_moved, lru_crawler_running,
            lru_crawler_starts => counter memcached_lru_crawler_starts
                "Runs of the crawler; always 0, there is no crawler here.",
            lru_maintainer_juggles, malloc_fails, log_worker_dropped, log_worker_written, log_watcher_skipped,
            log_watcher_sent, log_watchers, unexpected_napi_ids, round_robin_fallback;
        cache:
            bytes => gauge memcached_current_bytes "Bytes in use by items.",
            curr_items => gauge memcached_current_items "Items held.",
            total_items => counter memcached_items "Items stored since the start.",
            slab_global_page_pool = 0_u64;
        classes:
            expired_unfetched, evicted_unfetched, evicted_active,
            evictions = of.classes.evicted => counter memcached_items_evicted "Items evicted to make room.",
            reclaimed => counter memcached_items_reclaimed "Items stored in memory of expired items.",
            crawler_reclaimed => counter memcached_lru_crawler_reclaimed "Expired items removed in the background.",
            crawler_items_checked
                => counter memcached_lru_crawler_items_checked "Items examined in the background.",
            lrutail_reflocked = 0_u64,
            moves_to_cold = 0_u64 => counter memcached_lru_crawler_moves_to_cold "Items moved to the cold queue.",
            moves_to_warm => counter memcached_lru_crawler_moves_to_warm "Items moved to the warm queue.",
            moves_within_lru => counter memcached_lru_crawler_moves_within_lru "Items moved within a queue.",
            direct_reclaims => counter memcached_direct_reclaims "Items evicted while a client waited.",
            lru_bumps_dropped = 0_u64,
            memcached_malloced_bytes = total_malloced(&ClassSample::all(of.service)) => gauge memcached_malloced_bytes
                "Bytes in the pages memcached would need for these items.";
        counts:
            tokencached_version = env!("CARGO_PKG_VERSION"),
            managed_credentials = of.table.count_credentials(|credential| of.rights.app(credential.app())),
            managed_hits => counter tokencached_managed_hits "Reads of a managed key that found a live value.",
            managed_misses => counter tokencached_managed_misses "Reads of a managed key that found none.";
        table:
            managed_refused_writes = &of.stats.refused_writes,
            managed_reports = &of.table.reports_made
                => counter tokencached_managed_reports "Reports by clients that a value is refused.",
            client_checks => counter tokencached_client_verifications
                "Verifications of a value that a client's report caused.",
            client_checks_refused => counter tokencached_client_verifications_denied
                "Verifications not made because clients had caused too many for nothing.";
        stats:
            access_denied => counter tokencached_access_denied
                "Requests refused because the client has no right to them.",
            log_lines_dropped => counter tokencached_log_lines_dropped
                "Log lines that could not be written in time, or at all.";
        counts:
            auth_delays => counter tokencached_auth_delays
                "Logins delayed because wrong passwords came from their address.",
            ssl_handshake_errors => counter tokencached_tls_handshake_errors "TLS handshakes that failed.",
            foreign_protocols => counter tokencached_foreign_protocols
                "Connections that did not speak memcached's protocols.",
            request_timeouts => counter tokencached_request_timeouts
                "Connections closed because a request was not complete in time.",
            write_timeouts => counter tokencached_write_timeouts
                "Connections closed because the client did not read its answers.",
            in_flight_refusals => counter tokencached_in_flight_refusals
                "Half-received requests dropped because connections used all the memory they may.";
        table:
            tokencached_refresher_panics = &of.table.panics
                => counter tokencached_refresher_panics "Fetches that crashed; each is a bug.",
            tokencached_state_file_enabled = of.table.keeps_state
                => gauge tokencached_state_file_enabled "Whether there is a state file.",
            tokencached_state_file_healthy = &of.table.state_saved
                => gauge tokencached_state_file_healthy "Whether the last write of the state file succeeded.",
            state_file_saved = of.table.keeps_state.then_some(&of.table.state_saved),
            state_file_failures = of.table.keeps_state.then_some(&of.table.state_failures)
                => counter tokencached_state_file_failures "Writes of the state file that failed.";
        memory:
            connection_memory_bytes = of.memory.bytes.load(Relaxed) + of.service.cache.detached().bytes(),
            connection_memory_bytes_max = &of.memory.bytes_max;
        cluster:
            tokencached_cluster_enabled = of.cluster.is_some()
                => gauge tokencached_cluster_enabled "Whether this node shares its state with others.",
            shared_state_node = of.cluster.and_then(ClusterStatus::node),
            shared_state_up = of.cluster.map(|cluster| cluster.is_up() == Some(true))
                => gauge tokencached_cluster_up "Whether the cluster store or the leader can be reached.",
            shared_state_forged_values = of.cluster.map(|cluster| &cluster.forged.values)
                => counter tokencached_cluster_forged_values
                "Values in the cluster store that no node can have written; they were ignored and replaced.",
            shared_state_forged_counts = of.cluster.map(|cluster| &cluster.forged.counts)
                => counter tokencached_cluster_forged_counts
                "Counts of calls in the cluster store that no node can have written; they were ignored.",
            shared_state_age_s = of.cluster.map(|cluster| match cluster.age_ms(of.now.boot_ms) {
                Some(age_ms) => FigureValue::Milliseconds(age_ms),
                None => "never".into(),
            }) => gauge tokencached_cluster_age_seconds
            "Seconds since the cluster store or the leader last answered: so far may this node be behind the others.";
    };
}

fn processor_time(of: fn(&Usage) -> TimeVal) -> FigureValue<'static> {
    let us = getrusage(UsageWho::RUSAGE_SELF).map_or(0_i64, |usage| of(&usage).num_microseconds());
    FigureValue::Microseconds(us.max(0).cast_unsigned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::stats::by_names;

    /// Every name of a table is there once, and every metric of it once in the lists of its metrics.
    fn judge<T>(table: &[Figure<T>], lists: &[&'static str], metrics: &mut BTreeSet<&'static str>) {
        let listed: Vec<&str> = lists.iter().flat_map(|names| names.split_whitespace()).collect();
        let mut names = BTreeSet::new();
        for figure in table {
            assert!(names.insert(figure.name), "{} is there twice", figure.name);
            let times = listed.iter().filter(|name| **name == figure.name).count();
            assert_eq!(times, usize::from(figure.metric.is_some()), "{} in the list of metrics", figure.name);
            if let Some(metric) = figure.metric {
                assert!(metrics.insert(metric.name), "{} is there twice", metric.name);
                assert!(metric.help.ends_with('.'), "{}", metric.help);
            }
        }
        assert!(listed.iter().all(|name| names.contains(name)), "{listed:?}");
    }

    #[test]
    fn names_are_unique_and_each_metric_is_listed_once() {
        let metrics = &mut BTreeSet::new();
        judge(ServerSample::FIGURES, &[ServerSample::MEMCACHED_METRICS, ServerSample::OWN_METRICS], metrics);
        judge(ClassSample::ITEMS, &[ClassSample::ITEM_METRICS], metrics);
        judge(ClassSample::SLABS, &[ClassSample::SLAB_METRICS], metrics);
        judge(SinkSample::FIGURES, &[SinkSample::METRICS], metrics);
        judge(CredentialSample::FIGURES, &[CredentialSample::LEVELS, CredentialSample::COUNTERS], metrics);
        let of_page = by_names(ServerSample::FIGURES, ServerSample::ON_THE_PAGE).count();
        assert_eq!(of_page, ServerSample::ON_THE_PAGE.split_whitespace().count());
    }
}
