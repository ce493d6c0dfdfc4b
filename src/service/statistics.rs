//! `stats` in its forms: memcached's names and meanings (protocol.txt, "Statistics"), and `stats tokens`.
//!
//! Never shows a token, a secret or an ordinary key.

use std::sync::atomic::Ordering::Relaxed;

use super::{Context, MEMCACHED_VERSION, Service};
use crate::access::Rights;
use crate::cache::{CacheTotals, ClassTotals};
use crate::clock::{BootMs, Now};
use crate::credential::table::Credential;
use crate::protocol::response::{line, stat};
use crate::stats::SinkStats;

/// memcached's page, by which `stats slabs` reports memory, bytes.
const PAGE_BYTES: u64 = 1024 * 1024;

impl Service {
    pub(super) fn statistics(&self, argument: &[u8], rest: &[u8], context: &mut Context<'_>) {
        // Each looks at all shards, workers or connections.
        context.keys_left = 0;
        let out = &mut *context.out;
        match argument {
            b"" => self.general_statistics(context.now, context.rights, out),
            b"reset" => {
                self.stats.reset();
                self.cache.reset_stats();
                return line(out, "RESET");
            }
            b"settings" => self.shown_settings(out),
            b"conns" => self.connections_page(context.now, out),
            b"items" => self.cache.classes().iter().for_each(|(class, totals)| items(*class, totals, out)),
            b"slabs" => self.slabs(out),
            b"sizes" => stat(out, "sizes_status", "disabled"),
            b"tokens" => {
                self.visible_credentials(context.rights).for_each(|credential| tokens(&credential, context.now, out))
            }
            // Keys are not listed here; a client that asks gets an empty list and goes on.
            b"cachedump" if rest.is_empty() => return line(out, "CLIENT_ERROR bad command line"),
            b"detail" => match rest {
                b"on" | b"off" => return line(out, "OK"),
                b"dump" => {}
                _ => return line(out, "CLIENT_ERROR usage: stats detail on|off|dump"),
            },
            // PHP's memcache takes an error to a known word for a broken server and leaves it for 15 s.
            b"cachedump" | b"malloc" | b"maps" | b"extstore" => {}
            _ => return line(out, "ERROR"),
        }
        line(out, "END");
    }

    /// The figures of `stats`, `stats items` and `stats slabs` by name, for another port to show.
    pub fn figures(&self, argument: &[u8], now: Now) -> Vec<(String, String)> {
        let mut out = Vec::new();
        match argument {
            b"items" => self.cache.classes().iter().for_each(|(class, totals)| items(*class, totals, &mut out)),
            b"slabs" => self.slabs(&mut out),
            _ => self.general_statistics(now, &Rights::ALL, &mut out),
        }
        let text = String::from_utf8_lossy(&out);
        let figures = text.lines().filter_map(|line| line.strip_prefix("STAT ")?.split_once(' '));
        figures.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// As they are now: two of them can be changed by a command.
    fn shown_settings(&self, out: &mut Vec<u8>) {
        for (name, value) in &self.settings.shown_settings {
            match name.as_str() {
                "maxbytes" => stat(out, name, self.cache.totals().budget_bytes),
                "verbosity" => stat(out, name, self.verbosity.load(Relaxed)),
                _ => stat(out, name, value),
            }
        }
    }

    /// `stats conns`.
    fn connections_page(&self, now: Now, out: &mut Vec<u8>) {
        for (descriptor, info) in self.stats.connections.all() {
            stat(out, &format!("{descriptor}:addr"), &info.addr);
            if let Some(listen_addr) = &info.listen_addr {
                stat(out, &format!("{descriptor}:listen_addr"), listen_addr);
            }
            let silent_ms = now.boot_ms.saturating_sub(info.last_command_boot_ms());
            stat(out, &format!("{descriptor}:state"), info.state().name());
            stat(out, &format!("{descriptor}:secs_since_last_cmd"), silent_ms / 1000);
        }
    }

    fn general_statistics(&self, now: Now, rights: &Rights, out: &mut Vec<u8>) {
        let totals = self.cache.totals();
        self.process(now, out);
        self.connections(out);
        self.commands(&totals, out);
        self.memory(&totals, out);
        stat(out, "tokencached_version", env!("CARGO_PKG_VERSION"));
        stat(out, "managed_credentials", self.visible_credentials(rights).count());
        let counts = self.stats.totals();
        stat(out, "managed_hits", counts.managed_hits);
        stat(out, "managed_misses", counts.managed_misses);
        stat(out, "managed_refused_writes", self.stats.refused_writes.load(Relaxed));
        stat(out, "managed_reports", self.table.reports_made.load(Relaxed));
        stat(out, "client_checks", self.table.client_checks.load(Relaxed));
        stat(out, "client_checks_refused", self.table.client_checks_refused.load(Relaxed));
        stat(out, "access_denied", self.stats.access_denied.load(Relaxed));
        stat(out, "log_lines_dropped", self.stats.log_lines_dropped.load(Relaxed));
        stat(out, "auth_delays", counts.auth_delays);
        stat(out, "ssl_handshake_errors", counts.ssl_handshake_errors);
        stat(out, "foreign_protocols", counts.foreign_protocols);
        stat(out, "request_timeouts", counts.request_timeouts);
        stat(out, "write_timeouts", counts.write_timeouts);
        stat(out, "in_flight_refusals", counts.in_flight_refusals);
        if self.table.keeps_state {
            stat(out, "state_file_saved", u8::from(self.table.state_saved.load(Relaxed)));
            stat(out, "state_file_failures", self.table.state_failures.load(Relaxed));
        }
        let memory = &self.stats.connection_memory;
        stat(out, "connection_memory_bytes", memory.bytes.load(Relaxed) + self.cache.detached().bytes());
        stat(out, "connection_memory_bytes_max", memory.bytes_max.load(Relaxed));
        if let Some(node) = self.table.cluster.node() {
            stat(out, "shared_state_node", node);
            stat(out, "shared_state_up", u8::from(self.table.cluster.is_up() == Some(true)));
            let age_s = self.table.cluster.age_ms(now.boot_ms).map(|ms| ms / 1000);
            let forged = &self.table.cluster.forged;
            stat(out, "shared_state_forged_values", forged.values.load(Relaxed));
            stat(out, "shared_state_forged_counts", forged.counts.load(Relaxed));
            stat(out, "shared_state_age_s", age_s.map_or("never".to_owned(), |seconds| seconds.to_string()));
        }
        self.stats.sinks().iter().enumerate().for_each(|(number, figures)| sink(number, figures, now, rights, out));
    }

    fn process(&self, now: Now, out: &mut Vec<u8>) {
        let uptime_s = now.boot_ms.saturating_sub(self.started.boot_ms) / 1000;
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok();
        let seconds = |time: nix::sys::time::TimeVal| format!("{}.{:06}", time.tv_sec(), time.tv_usec());
        stat(out, "pid", std::process::id());
        stat(out, "uptime", uptime_s);
        stat(out, "time", now.unix_s());
        stat(out, "version", MEMCACHED_VERSION);
        stat(out, "libevent", "none");
        stat(out, "pointer_size", usize::BITS);
        stat(out, "rusage_user", usage.map_or("0.000000".into(), |usage| seconds(usage.user_time())));
        stat(out, "rusage_system", usage.map_or("0.000000".into(), |usage| seconds(usage.system_time())));
    }

    fn connections(&self, out: &mut Vec<u8>) {
        let stats = &self.stats;
        let counts = stats.totals();
        stat(out, "max_connections", self.settings.max_connections);
        stat(out, "curr_connections", stats.curr_connections.load(Relaxed));
        stat(out, "total_connections", stats.total_connections.load(Relaxed));
        stat(out, "rejected_connections", stats.rejected_connections.load(Relaxed));
        stat(out, "connection_structures", stats.curr_connections.load(Relaxed));
        for (name, value) in [
            ("response_obj_oom", counts.answer_refusals),
            ("response_obj_count", 0),
            ("response_obj_bytes", 0),
            ("read_buf_count", 0),
            ("read_buf_bytes", 0),
            ("read_buf_bytes_free", 0),
            ("read_buf_oom", counts.in_flight_refusals),
        ] {
            stat(out, name, value);
        }
        stat(out, "reserved_fds", 0);
    }

    fn commands(&self, totals: &CacheTotals, out: &mut Vec<u8>) {
        let counts = self.stats.totals();
        for (name, value) in [
            ("cmd_get", counts.cmd_get),
            ("cmd_set", counts.cmd_set),
            ("cmd_flush", counts.cmd_flush),
            ("cmd_touch", counts.cmd_touch),
            ("cmd_meta", counts.cmd_meta),
            ("get_hits", counts.get_hits),
            ("get_misses", counts.get_misses),
            ("get_expired", totals.get_expired),
            ("get_flushed", counts.get_flushed),
            ("delete_misses", counts.delete_misses),
            ("delete_hits", counts.delete_hits),
            ("incr_misses", counts.incr_misses),
            ("incr_hits", counts.incr_hits),
            ("decr_misses", counts.decr_misses),
            ("decr_hits", counts.decr_hits),
            ("cas_misses", counts.cas_misses),
            ("cas_hits", counts.cas_hits),
            ("cas_badval", counts.cas_badval),
            ("touch_hits", counts.touch_hits),
            ("touch_misses", counts.touch_misses),
            ("store_too_large", counts.store_too_large),
            ("store_no_memory", counts.store_no_memory),
            ("auth_cmds", counts.auth_cmds),
            ("auth_errors", counts.auth_errors),
            ("idle_kicks", counts.idle_kicks),
            ("bytes_read", counts.bytes_read),
            ("bytes_written", counts.bytes_written),
        ] {
            stat(out, name, value);
        }
    }

    fn memory(&self, totals: &CacheTotals, out: &mut Vec<u8>) {
        for (name, value) in [
            ("limit_maxbytes", totals.budget_bytes),
            ("accepting_conns", 1),
            ("listen_disabled_num", 0),
            ("time_in_listen_disabled_us", 0),
            ("threads", self.settings.threads as u64),
            ("conn_yields", self.stats.totals().conn_yields),
            ("hash_power_level", u64::from(totals.hash_power_level)),
            ("hash_bytes", totals.hash_bytes),
            ("hash_is_expanding", 0),
            ("slab_reassign_rescues", 0),
            ("slab_reassign_chunk_rescues", 0),
            ("slab_reassign_evictions_nomem", 0),
            ("slab_reassign_inline_reclaim", 0),
            ("slab_reassign_busy_items", 0),
            ("slab_reassign_busy_deletes", 0),
            ("slab_reassign_running", 0),
            ("slabs_moved", 0),
            ("lru_crawler_running", 0),
            ("lru_crawler_starts", 0),
            ("lru_maintainer_juggles", 0),
            ("malloc_fails", 0),
            ("log_worker_dropped", 0),
            ("log_worker_written", 0),
            ("log_watcher_skipped", 0),
            ("log_watcher_sent", 0),
            ("log_watchers", 0),
            ("unexpected_napi_ids", 0),
            ("round_robin_fallback", 0),
            ("bytes", totals.bytes),
            ("curr_items", totals.curr_items),
            ("total_items", totals.total_items),
            ("slab_global_page_pool", 0),
            ("expired_unfetched", totals.expired_unfetched),
            ("evicted_unfetched", totals.evicted_unfetched),
            ("evicted_active", totals.evicted_active),
            ("evictions", totals.evictions),
            ("reclaimed", totals.reclaimed),
            ("crawler_reclaimed", totals.crawler_reclaimed),
            ("crawler_items_checked", totals.crawler_items_checked),
            ("lrutail_reflocked", 0),
            ("moves_to_cold", 0),
            ("moves_to_warm", totals.moves_to_warm),
            ("moves_within_lru", totals.moves_within_lru),
            ("direct_reclaims", totals.direct_reclaims),
            ("lru_bumps_dropped", 0),
        ] {
            stat(out, name, value);
        }
    }

    fn slabs(&self, out: &mut Vec<u8>) {
        let classes = self.cache.classes();
        for (class, totals) in &classes {
            slab(*class, totals, out);
        }
        stat(out, "active_slabs", classes.len());
        stat(out, "total_malloced", classes.iter().map(|(_, totals)| pages(totals) * PAGE_BYTES).sum::<u64>());
    }
}

/// The pages memcached would need for as many items of a class.
fn pages(totals: &ClassTotals) -> u64 {
    totals.number.div_ceil(chunks_per_page(totals)).max(1)
}

fn chunks_per_page(totals: &ClassTotals) -> u64 {
    (PAGE_BYTES / totals.chunk_size.max(1)).max(1)
}

fn slab(class: u8, totals: &ClassTotals, out: &mut Vec<u8>) {
    let chunks = pages(totals) * chunks_per_page(totals);
    for (name, value) in [
        ("chunk_size", totals.chunk_size),
        ("chunks_per_page", chunks_per_page(totals)),
        ("total_pages", pages(totals)),
        ("total_chunks", chunks),
        ("used_chunks", totals.number),
        ("free_chunks", chunks - totals.number),
        ("free_chunks_end", 0),
        ("mem_requested", totals.mem_requested),
        ("get_hits", totals.get_hits),
        ("cmd_set", totals.cmd_set),
        ("delete_hits", totals.delete_hits),
        ("incr_hits", totals.incr_hits),
        ("decr_hits", totals.decr_hits),
        ("cas_hits", totals.cas_hits),
        ("cas_badval", totals.cas_badval),
        ("touch_hits", totals.touch_hits),
    ] {
        stat(out, &format!("{class}:{name}"), value);
    }
}

fn items(class: u8, totals: &ClassTotals, out: &mut Vec<u8>) {
    if totals.number == 0 {
        return;
    }
    for (name, value) in [
        ("number", totals.number),
        ("number_hot", 0),
        ("number_warm", 0),
        ("number_cold", totals.number),
        ("age_hot", 0),
        ("age_warm", 0),
        ("age", totals.age),
        ("mem_requested", totals.mem_requested),
        ("evicted", totals.evicted),
        ("evicted_nonzero", totals.evicted_nonzero),
        ("evicted_time", totals.evicted_time),
        ("outofmemory", totals.outofmemory),
        ("tailrepairs", 0),
        ("reclaimed", totals.reclaimed),
        ("expired_unfetched", totals.expired_unfetched),
        ("evicted_unfetched", totals.evicted_unfetched),
        ("evicted_active", totals.evicted_active),
        ("crawler_reclaimed", totals.crawler_reclaimed),
        ("crawler_items_checked", totals.crawler_items_checked),
        ("lrutail_reflocked", 0),
        ("moves_to_cold", 0),
        ("moves_to_warm", totals.moves_to_warm),
        ("moves_within_lru", totals.moves_within_lru),
        ("direct_reclaims", totals.direct_reclaims),
        ("hits_to_hot", 0),
        ("hits_to_warm", 0),
        ("hits_to_cold", totals.get_hits),
        ("hits_to_temp", 0),
    ] {
        stat(out, &format!("items:{class}:{name}"), value);
    }
}

/// Figures of one of the places that are written to beside the cache.
fn sink(number: usize, figures: &SinkStats, now: Now, rights: &Rights, out: &mut Vec<u8>) {
    let mut show = |name: &str, value: &dyn std::fmt::Display| stat(out, &format!("sink_{number}_{name}"), value);
    let seconds_ago = |unix_ms: i64| now.unix_ms.saturating_sub(unix_ms).max(0) / 1000;
    show("type", &figures.sink_type);
    show("target", &one_line(&figures.target));
    show("connected", &u8::from(figures.connected.load(Relaxed)));
    show("waiting", &figures.waiting.load(Relaxed));
    show("writes", &figures.writes.load(Relaxed));
    show("deletes", &figures.deletes.load(Relaxed));
    show("failures", &figures.failures_total());
    let foreign_writes = figures.foreign_writes.load(Relaxed);
    show("foreign_writes", &foreign_writes);
    // Its name of before.
    show("rival_writes", &foreign_writes);
    if let Some(write) = figures.last_write().filter(|write| rights.app(&write.app)) {
        show("last_write_app", &write.app);
        show("last_write_kind", &write.credential_type);
        show("last_write_entry", &one_line(&write.entry));
        show("last_write_s_ago", &seconds_ago(write.at_unix_ms));
    }
    let error = figures.last_error();
    show("last_error", &error.as_ref().map_or("none", |error| error.class));
    if let Some(error) = error {
        show("last_error_text", &error.what);
        show("last_error_whose", &error.responsible);
        show("last_error_s_ago", &seconds_ago(error.at_unix_ms));
        show("what_to_do", &error.advice);
    }
}

/// A path may have any character in it, an answer's line may not.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, "?")
}

/// `stats tokens`: what the refresher knows of a credential, never the value.
fn tokens(credential: &Credential, now: Now, out: &mut Vec<u8>) {
    let appid = &credential.appid;
    let status = credential.status(now.boot_ms);
    let seconds_to = |boot_ms: BootMs| boot_ms.saturating_sub(now.boot_ms) / 1000;
    let mut show = |name: &str, value: &dyn std::fmt::Display| stat(out, &format!("{appid}:{name}"), value);
    if let Some(name) = &credential.about().name {
        show("name", name);
    }
    show("state", &status.state.name());
    show("endpoint", &status.endpoint);
    show("generation", &status.generation);
    show("seconds_left", &seconds_to(status.expires_boot_ms));
    show("next_action", &status.next_action());
    show("next_call_in_s", &seconds_to(status.next_try_boot_ms));
    show("next_probe_in_s", &status.next_probe_boot_ms.map_or("none".into(), |at| seconds_to(at).to_string()));
    show("calls", &status.calls);
    let (calls_today, probes_today) = status.today(now.unix_ms);
    show("calls_today", &calls_today);
    show("calls_quota", &status.calls_quota.map_or("none".into(), |calls| calls.to_string()));
    show("calls_denied", &status.calls_denied);
    show("probes", &status.probes);
    show("probes_today", &probes_today);
    show("same_answers", &status.same_answers);
    show("failures", &status.failures);
    show("reports", &credential.reports.load(Relaxed));
    show("checks", &status.checks);
    show("forced", &status.forced);
    show("refused_writes", &credential.refused_writes.load(Relaxed));
    show("rival_writes", &credential.foreign_writes.load(Relaxed));
    show("early_deaths", &status.early_deaths);
    let wildcards = credential.wildcard_names().join(" ");
    if !wildcards.is_empty() {
        show("wildcard_keys", &wildcards);
    }
    if let Some(parent) = credential.missing_token(&status) {
        show("waits_for", &parent.appid);
    }
    if let Some(error) = &status.last_error {
        show("last_error_class", &error.class);
        show("last_error_errcode", &error.errcode.unwrap_or(0));
        show("last_error_rid", &error.rid.as_deref().unwrap_or("none"));
        show("last_error_s_ago", &(now.boot_ms.saturating_sub(error.at_boot_ms) / 1000));
        show("last_error", &error.text);
        show("what_to_do", &error.advice);
    }
}
