//! A request and the time in, an answer out: managed keys first, then the cache.
//!
//! No sockets and nothing async: what must wait is handed back as an [`CommandOutcome::Wait`] and tried again.
//! Never calls WeChat.

mod access;
pub mod figures;
mod managed;
mod meta;
pub mod options;
mod output;
mod reads;
mod statistics;
mod writes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::sync::{oneshot, watch};

pub use self::options::RefuseWith;
pub use self::output::Output;
use crate::access::Rights;
use crate::cache::Cache;
pub use crate::cache::DetachedBytes;
use crate::clock::{LogThrottle, Now};
use crate::credential::table::{Names, Table};
use crate::protocol::{Command, Reply, Request, Status, reply};
use crate::stats::{Stats, WorkerStats};

/// Output queued for one connection past which it must be written before more is executed, bytes.
pub const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// Keys looked up in a row before other connections get a turn, whether or not there is something under them.
pub const KEYS_PER_TURN: usize = 1024;

/// The version that clients are told.
pub const MEMCACHED_VERSION: &str = reply::MEMCACHED_VERSION;

/// A relative exptime ends at 30 days; larger ones are absolute (protocol.txt, "Expiration times").
const RELATIVE_EXPTIME_S_MAX: i64 = 60 * 60 * 24 * 30;

/// The settings of the service.
#[derive(Clone, Debug)]
pub struct Settings {
    pub refuse_with: RefuseWith,
    pub shutdown_command: bool,
    /// (name, value) pairs of `stats settings`, in order.
    pub shown_settings: Vec<(&'static str, String)>,
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

/// What is needed to execute a request, besides the request.
pub struct Context<'a> {
    pub now: Now,
    pub stats: &'a WorkerStats,
    /// Who asks. For the log only: never decides anything.
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
    ReplyAfterVerification(VerificationWait, Vec<u8>),
    /// Read the certificates again, and answer what came of it.
    RefreshCertificates,
    /// The client has sent `quit`.
    Close,
    /// The client ended the server, as `-A` allows.
    Shutdown,
}

/// A change of a managed key to wait for.
pub struct FirstFetchWait(pub watch::Receiver<u64>);

/// The end of a verification to wait for.
pub type VerificationWait = oneshot::Receiver<()>;

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
        let (wire, mut room) = (&request.wire, None);
        let key = request.key(&mut room);
        if !context.rights.is_all()
            && let Err(denied) = self.authorize(&request.command, key, context)
        {
            self.record_denial(context);
            wire.write(context.out, key, denied);
            return CommandOutcome::Done;
        }
        let reply = match request.command {
            Command::GetMany { keys, with_cas, touch } => return self.get_many(keys, begin, with_cas, touch, context),
            Command::Get { touch } => match self.get(wire, key, touch, context) {
                Ok(reply) => reply,
                Err(wait) => return CommandOutcome::Wait(wait, 0),
            },
            Command::MetaGet { .. } => match self.meta_get(wire, key, context) {
                Ok(reply) => reply,
                Err(wait) => return CommandOutcome::Wait(wait, 0),
            },
            Command::Store(_) | Command::Arithmetic(_) => {
                match self.reject_managed_write(&request.command, key, context) {
                    Some(refusal) => refusal,
                    None => self.write(&request.command, wire, key, context),
                }
            }
            Command::Delete(ref delete) => match self.delete(delete, wire, key, context) {
                (reply, None) => reply,
                (reply, Some(verification)) => {
                    let mut held = Vec::new();
                    wire.write(&mut held, key, reply);
                    return CommandOutcome::ReplyAfterVerification(verification, held);
                }
            },
            Command::Touch { exptime } => self.touch(exptime, wire, key, context),
            Command::Debug => self.meta_debug(wire, key, context),
            Command::Flush { delay } => {
                context.stats.cmd_flush.add(1);
                let now = self.seconds(context.now);
                self.cache.flush(delay.map_or(now, |delay| self.expiry(delay, context.now)), now);
                (&Status::OK).into()
            }
            Command::Stats { argument, rest } => self.statistics((argument, rest), wire, context),
            Command::Verbosity { level } => {
                if self.verbosity.swap(level, Relaxed) != level {
                    (self.settings.set_verbosity)(level);
                    tracing::info!(peer = %context.peer, level, "a client has changed the log verbosity");
                }
                (&Status::OK).into()
            }
            Command::CacheMemlimit { megabytes: ..8 } => {
                Reply::Line("MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m")
            }
            Command::CacheMemlimit { megabytes } => {
                self.cache.set_budget(u64::from(megabytes) * 1024 * 1024);
                (&Status::OK).into()
            }
            Command::RefreshCertificates => return CommandOutcome::RefreshCertificates,
            Command::Shutdown { .. } if !self.settings.shutdown_command => Reply::Line("ERROR: shutdown not enabled"),
            Command::Shutdown { argument: b"" | b"graceful" } => return CommandOutcome::Shutdown,
            Command::Shutdown { .. } => Reply::Line("CLIENT_ERROR invalid shutdown mode"),
            // Clients that must log in first are handled by the connection.
            Command::Mechanisms | Command::Login { .. } => (&Status::UNKNOWN).into(),
            Command::Reply(reply) => reply,
            Command::Close(last) => {
                if let Some(status) = last {
                    wire.write(context.out, key, status.into());
                }
                return CommandOutcome::Close;
            }
        };
        wire.write(context.out, key, reply);
        CommandOutcome::Done
    }

    /// Seconds since the server started, from 2 on: memcached's relative clock, on the boot clock.
    fn seconds(&self, now: Now) -> u32 {
        let ms = now.boot_ms.saturating_sub(self.started.boot_ms);
        u32::try_from(ms / 1000 + 2).unwrap_or(u32::MAX)
    }

    /// An exptime -> the cache's own seconds (memcached.c, `realtime`): 0 never; negative at once; up to 30 days from
    /// now; beyond, absolute wall time.
    fn expiry(&self, exptime: i64, now: Now) -> u32 {
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
}
