//! A request and the time in, an answer out: managed keys first, then the cache.
//!
//! No sockets and nothing async: what must wait is handed back as an [`CommandOutcome::Wait`] and tried again.
//! Never calls WeChat.

mod access;
mod binary;
pub mod figures;
mod managed;
mod meta;
pub mod options;
mod output;
mod statistics;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::sync::{oneshot, watch};

use self::managed::ManagedRead;
pub use self::options::RefuseWith;
pub use self::output::Output;
use crate::access::Rights;
pub use crate::cache::DetachedBytes;
use crate::cache::{ArithmeticOutcome, Cache, ItemView, ShareableValue, Stored};
use crate::clock::{LogThrottle, Now};
use crate::credential::table::{Names, Table};
use crate::protocol::{Request, StoreMode, keys, response};
use crate::stats::{Stats, WorkerStats};

/// Output queued for one connection past which it must be written before more is executed, bytes.
pub const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// Keys looked up in a row before other connections get a turn, whether or not there is something under them.
pub const KEYS_PER_TURN: usize = 1024;

/// A relative exptime ends at 30 days; larger ones are absolute (protocol.txt, "Expiration times").
const RELATIVE_EXPTIME_S_MAX: i64 = 60 * 60 * 24 * 30;

const NON_NUMERIC: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value";

/// The settings of the service.
#[derive(Clone, Debug)]
pub struct Settings {
    pub refuse_with: RefuseWith,
    pub shutdown_command: bool,
    /// (name, value) pairs of `stats settings`, in order.
    pub shown_settings: Vec<(String, String)>,
    pub threads: usize,
    pub max_connections: usize,
    /// At the start.
    pub verbosity: u32,
    /// What `verbosity` does.
    pub set_verbosity: fn(u32),
}

impl Default for Settings {
    /// A plain cache on one thread, without the command `shutdown`; `verbosity` does nothing.
    fn default() -> Settings {
        Settings {
            refuse_with: RefuseWith::NotStored,
            shutdown_command: false,
            shown_settings: Vec::new(),
            threads: 1,
            max_connections: 1024,
            verbosity: 0,
            set_verbosity: |_| {},
        }
    }
}

/// The one object behind all connections.
pub struct Service {
    pub cache: Cache,
    pub table: Arc<Table>,
    pub stats: Arc<Stats>,
    settings: Settings,
    verbosity: AtomicU32,
    started: Now,
    denial_log: LogThrottle,
}

/// What comes with a request besides the request.
pub struct Context<'a> {
    pub now: Now,
    pub stats: &'a WorkerStats,
    /// Who asks, for the log; never consulted for a decision.
    pub peer: &'a dyn std::fmt::Display,
    /// What the client may do.
    pub rights: &'a Rights,
    /// The managed keys.
    pub names: &'a Names,
    /// False once the time allowed for waiting is over.
    pub may_wait: bool,
    /// The data block was dropped because there was no memory to receive it, not because it is too large.
    pub memory_short: bool,
    /// Keys that may still be looked up before other connections get a turn; counted down. A request that takes as long
    /// as a whole turn leaves none.
    pub keys_left: usize,
    pub out: &'a mut Output,
}

/// What became of a request.
pub enum CommandOutcome {
    /// Answered in full.
    Done,
    /// A `get` with more keys to answer; write the output, give others a turn, then go on from this byte of its keys.
    MoreKeys(usize),
    /// A read must wait: write what there is, and after the wait go on from this byte of its keys.
    Wait(FirstFetchWait, usize),
    /// Answered once the verification is over: append these bytes then.
    ReplyAfterVerification(oneshot::Receiver<()>, Vec<u8>),
    /// Read the certificates again, and answer what came of it.
    RefreshCertificates,
    /// The client has sent `quit`.
    Close,
    /// The client ended the server, as `-A` allows.
    Shutdown,
}

/// A change of a managed key to wait for.
pub struct FirstFetchWait(pub watch::Receiver<u64>);

impl Service {
    pub fn new(cache: Cache, table: Arc<Table>, stats: Arc<Stats>, settings: Settings) -> Service {
        Service {
            cache,
            table,
            stats,
            verbosity: AtomicU32::new(settings.verbosity),
            settings,
            started: Now::read(),
            denial_log: LogThrottle::default(),
        }
    }

    /// When it was made.
    pub fn started(&self) -> Now {
        self.started
    }

    /// Clients at once.
    pub fn max_connections(&self) -> usize {
        self.settings.max_connections
    }

    /// Executes a request. `begin` is the byte of its keys from which a partly answered `get` goes on, otherwise 0.
    pub fn execute(&self, request: &Request<'_>, begin: usize, context: &mut Context<'_>) -> CommandOutcome {
        if !context.rights.is_all()
            && let Some(refused) = self.reject_without_rights(request, context)
        {
            return refused;
        }
        match *request {
            Request::Get { keys, with_cas, touch_exptime } => {
                return self.get(keys, begin, with_cas, touch_exptime, context);
            }
            Request::Store { mode, key, flags, exptime, value, noreply } => {
                let answer = match self.text_reject_write(mode, key, value, context) {
                    Some(refusal) => refusal,
                    None => self.store(mode, key, flags, exptime, value, context),
                };
                response::reply(context.out, answer, noreply);
            }
            Request::TooLarge { mode, key, noreply } => {
                let answer = match self.text_reject_write(mode, key, &[], context) {
                    Some(refusal) => refusal,
                    None => self.too_large(mode, key, context),
                };
                response::reply(context.out, answer, noreply);
            }
            Request::Arithmetic { key, delta, increase, noreply } => {
                self.arithmetic(key, delta, increase, noreply, context);
            }
            Request::Delete { key, noreply } => return self.delete(key, noreply, context),
            Request::Touch { key, exptime, noreply } => {
                let answer = self.touch(key, exptime, context);
                response::reply(context.out, answer, noreply);
            }
            Request::FlushAll { delay, noreply } => {
                context.stats.cmd_flush.add(1);
                let now = self.seconds(context.now);
                let at = if delay > 0 { self.expiry(delay, context.now) } else { now };
                self.cache.flush(at, now);
                response::reply(context.out, "OK", noreply);
            }
            Request::Stats { argument, rest } => self.statistics(argument, rest, context),
            Request::Verbosity { level, noreply } => {
                if self.verbosity.swap(level, Relaxed) != level {
                    (self.settings.set_verbosity)(level);
                    tracing::info!(peer = %context.peer, level, "a client has changed the log verbosity");
                }
                response::reply(context.out, "OK", noreply);
            }
            Request::CacheMemlimit { megabytes, noreply } => {
                response::reply(context.out, self.set_memory_limit(megabytes), noreply);
            }
            Request::RefreshCertificates => return CommandOutcome::RefreshCertificates,
            Request::Shutdown { argument } => return self.shutdown(argument, context),
            Request::Version => {
                context.out.extend_from_slice(b"VERSION ");
                response::line(context.out, MEMCACHED_VERSION);
            }
            Request::Maintenance { answer, noreply } => response::reply(context.out, answer, noreply),
            Request::NoOperation => response::line(context.out, "MN"),
            Request::MetaGet(ref meta) => return self.meta_get(meta, context),
            Request::MetaStore { ref meta, mode, value } => self.meta_store(meta, mode, value, context),
            Request::MetaDelete(ref meta) => return self.meta_delete(meta, context),
            Request::MetaArithmetic { ref meta, increase } => self.meta_arithmetic(meta, increase, context),
            Request::MetaDebug(key) => self.meta_debug(key, context),
            Request::Quit => return CommandOutcome::Close,
            Request::Invalid { error, noreply } => response::reply(context.out, error, noreply),
        }
        CommandOutcome::Done
    }

    /// Seconds since the server started, from 2 on: memcached's relative clock, on the boot clock.
    fn seconds(&self, now: Now) -> u32 {
        let ms = now.boot_ms.saturating_sub(self.started.boot_ms);
        u32::try_from(ms / 1000 + 2).unwrap_or(u32::MAX)
    }

    /// An exptime as it comes over the wire -> the cache's own seconds (memcached.c, `realtime`).
    /// 0 never; negative at once; up to 30 days from now; beyond, absolute wall time. Like memcached, the
    /// number is cut to 32 bits first.
    fn expiry(&self, exptime: i64, now: Now) -> u32 {
        self.expiry_of(i64::from(exptime as i32), now)
    }

    /// The same with a number that is taken as it is.
    fn expiry_of(&self, exptime: i64, now: Now) -> u32 {
        let now_s = self.seconds(now);
        let from_now = match exptime {
            0 => return 0,
            ..0 => return 1,
            1..=RELATIVE_EXPTIME_S_MAX => exptime,
            _ => exptime - now.unix_s(),
        };
        let at = i64::from(now_s) + from_now;
        u32::try_from(at).unwrap_or(0).max(1)
    }

    fn get(
        &self,
        list: &[u8],
        begin: usize,
        with_cas: bool,
        touch_exptime: Option<i64>,
        context: &mut Context<'_>,
    ) -> CommandOutcome {
        let now = self.seconds(context.now);
        let expiry = touch_exptime.map(|exptime| self.expiry(exptime, context.now));
        // Only where it is broken off: a key is a part of the list.
        let place_of = |key: &[u8]| key.as_ptr().addr().saturating_sub(list.as_ptr().addr());
        for key in keys(list.get(begin..).unwrap_or_default()) {
            if context.keys_left == 0 || context.out.is_full() {
                return CommandOutcome::MoreKeys(place_of(key));
            }
            context.keys_left -= 1;
            if let Some(wait) = self.get_one(key, with_cas, expiry, now, context) {
                return CommandOutcome::Wait(wait, place_of(key));
            }
        }
        context.out.extend_from_slice(b"END\r\n");
        CommandOutcome::Done
    }

    /// Appends what is under a key, unless it must be waited for.
    #[inline]
    fn get_one(
        &self,
        key: &[u8],
        with_cas: bool,
        expiry: Option<u32>,
        now: u32,
        context: &mut Context<'_>,
    ) -> Option<FirstFetchWait> {
        let read =
            if self.is_visible(key, context) { self.get_managed(key, with_cas, context) } else { ManagedRead::Miss };
        let hit = match read {
            ManagedRead::Wait(wait) => return Some(wait),
            ManagedRead::Hit => true,
            ManagedRead::Miss => false,
            ManagedRead::Ordinary => {
                let out = &mut *context.out;
                let show = |item: ItemView<'_>| {
                    let cas = with_cas.then_some(item.cas);
                    if item.is_shareable() {
                        return append_large(out, (item.key, item.flags, item.value), cas, item.shareable());
                    }
                    response::value(out, item.key, item.flags, item.value, cas);
                };
                match expiry {
                    None => self.cache.get(key, now, show).is_some(),
                    Some(expiry) => self.cache.get_and_touch(key, expiry, now, show).is_some(),
                }
            }
        };
        self.count_get(expiry.is_some(), hit, context.stats);
        None
    }

    /// As memcached counts: a get that touches is a touch.
    fn count_get(&self, touches: bool, hit: bool, stats: &WorkerStats) {
        let (commands, hits, misses) = if touches {
            (&stats.cmd_touch, &stats.touch_hits, &stats.touch_misses)
        } else {
            (&stats.cmd_get, &stats.get_hits, &stats.get_misses)
        };
        commands.add(1);
        if hit { hits.add(1) } else { misses.add(1) }
    }

    fn store(
        &self,
        mode: StoreMode,
        key: &[u8],
        flags: u32,
        exptime: i64,
        value: &[u8],
        context: &mut Context<'_>,
    ) -> &'static str {
        let expiry = self.expiry(exptime, context.now);
        let stored = self.cache.store(mode, key, flags, expiry, value, self.seconds(context.now));
        self.record_store(mode, stored, context)
    }

    /// Counts what became of a store, and words it.
    fn record_store(&self, mode: StoreMode, stored: Stored, context: &Context<'_>) -> &'static str {
        let (stats, cas) = (context.stats, matches!(mode, StoreMode::Cas(_)));
        if !matches!(stored, Stored::TooLarge | Stored::OutOfMemory) {
            stats.cmd_set.add(1);
        }
        match stored {
            Stored::Stored if cas => stats.cas_hits.add(1),
            // `ms` may find another cas when it appends; memcached does not count that.
            Stored::Exists if cas => stats.cas_badval.add(1),
            Stored::NotFound => stats.cas_misses.add(1),
            Stored::TooLarge => stats.store_too_large.add(1),
            Stored::OutOfMemory => stats.store_no_memory.add(1),
            Stored::Stored | Stored::NotStored | Stored::Exists => {}
        }
        match stored {
            Stored::Stored => "STORED",
            Stored::NotStored => "NOT_STORED",
            Stored::Exists => "EXISTS",
            Stored::NotFound => "NOT_FOUND",
            Stored::TooLarge => "SERVER_ERROR object too large for cache",
            Stored::OutOfMemory => "SERVER_ERROR out of memory storing object",
        }
    }

    /// As memcached: the old value of a `set` goes, so that nobody reads what was meant to be replaced.
    fn too_large(&self, mode: StoreMode, key: &[u8], context: &Context<'_>) -> &'static str {
        if mode == StoreMode::Set {
            self.cache.delete(key, self.seconds(context.now));
        }
        self.record_store(mode, discarded_store(context), context)
    }

    fn arithmetic(&self, key: &[u8], delta: u64, increase: bool, noreply: bool, context: &mut Context<'_>) {
        let stats = context.stats;
        let (hits, misses) =
            if increase { (&stats.incr_hits, &stats.incr_misses) } else { (&stats.decr_hits, &stats.decr_misses) };
        if context.names.is_managed(key) {
            response::reply(context.out, NON_NUMERIC, noreply);
            return;
        }
        let answer = match self.cache.arithmetic(key, delta, increase, self.seconds(context.now)) {
            ArithmeticOutcome::Value(value) => {
                hits.add(1);
                if !noreply {
                    response::number(context.out, value);
                    context.out.extend_from_slice(b"\r\n");
                }
                return;
            }
            ArithmeticOutcome::NotFound => {
                misses.add(1);
                "NOT_FOUND"
            }
            ArithmeticOutcome::NonNumeric => NON_NUMERIC,
            // Only under -M, or when a longer number no longer fits the largest item.
            ArithmeticOutcome::OutOfMemory | ArithmeticOutcome::TooLarge => "SERVER_ERROR out of memory in incr",
        };
        response::reply(context.out, answer, noreply);
    }

    fn delete(&self, key: &[u8], noreply: bool, context: &mut Context<'_>) -> CommandOutcome {
        if let Some(outcome) = self.delete_managed(key, noreply, context) {
            return outcome;
        }
        let answer = if self.cache.delete(key, self.seconds(context.now)) {
            context.stats.delete_hits.add(1);
            "DELETED"
        } else {
            context.stats.delete_misses.add(1);
            "NOT_FOUND"
        };
        response::reply(context.out, answer, noreply);
        CommandOutcome::Done
    }

    fn touch(&self, key: &[u8], exptime: i64, context: &Context<'_>) -> &'static str {
        let stats = context.stats;
        stats.cmd_touch.add(1);
        let expiry = self.expiry(exptime, context.now);
        if context.names.is_managed(key) || self.cache.touch(key, expiry, self.seconds(context.now)) {
            stats.touch_hits.add(1);
            "TOUCHED"
        } else {
            stats.touch_misses.add(1);
            "NOT_FOUND"
        }
    }

    fn set_memory_limit(&self, megabytes: u32) -> &'static str {
        if megabytes < 8 {
            return "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m";
        }
        self.cache.set_budget(u64::from(megabytes) * 1024 * 1024);
        "OK"
    }

    fn shutdown(&self, argument: &[u8], context: &mut Context<'_>) -> CommandOutcome {
        if !self.settings.shutdown_command {
            response::line(context.out, "ERROR: shutdown not enabled");
            return CommandOutcome::Done;
        }
        match argument {
            b"" | b"graceful" => CommandOutcome::Shutdown,
            _ => {
                response::line(context.out, "CLIENT_ERROR invalid shutdown mode");
                CommandOutcome::Done
            }
        }
    }
}

/// Appends what a `get` answers, but for the data block, which is not copied.
#[cold]
fn append_large(
    out: &mut Output,
    (key, flags, value): (&[u8], u32, &[u8]),
    cas: Option<u64>,
    shareable: ShareableValue<'_>,
) {
    response::value_line(out, key, flags, value.len(), cas);
    out.push_large(value, shareable);
    out.extend_from_slice(b"\r\n");
}

/// What becomes of a store whose data block was thrown away.
fn discarded_store(context: &Context<'_>) -> Stored {
    if context.memory_short { Stored::OutOfMemory } else { Stored::TooLarge }
}

/// The version that clients are told, in every protocol: that of the memcached whose commands are all here. A plain
/// number, because libraries compare it: npm's memcached takes the last three digits of any longer text, and PHP's
/// `version_compare` takes a text behind the number for a release before it. Our own is `tokencached_version` in `stats`.
pub const MEMCACHED_VERSION: &str = "1.6.18";
