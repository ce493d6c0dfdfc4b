//! Sinks: write credentials to stores of the site's own, for readers that look there.
//!
//! | module | what it is for |
//! |---|---|
//! | `runner` | one task for each sink, the same for every type: what to write, when, and what to do after a failure |
//! | `backend` | the trait that each type of sink implements: `redis`, `file`, `sql`, `command` |
//! | `options`, `validate` | what is configured, and whether it makes sense |
//! | `item` | what is written of one credential, and the judgement of what is found there; pure |
//! | `queue` | what is written next; pure |
//! | `adopt_source` | reads what the site's stores have before the first write |
//!
//! A sink only reads the credential table. The one thing it tells the refresher is that a foreign writer stores tokens.
//! Nothing waits for a sink, and of several changes only the latest is written. Never shows a value, a password or a key
//! with a secret.

mod adopt_source;
mod backend;
mod command;
mod file;
pub mod file_presets;
pub mod files;
mod item;
pub mod keys;
pub mod options;
mod queue;
#[cfg(feature = "redis")]
mod redis;
mod runner;
#[cfg(feature = "sql")]
mod sql;
pub mod sql_address;
pub mod sql_presets;
pub mod sql_statement;
pub mod template;
pub mod validate;

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

pub use self::adopt_source::source;
use self::backend::SinkBackend;
pub use self::command::kill_all as kill_commands;
pub use self::options::Options;
use self::options::SinkTo;
use self::runner::LAST_WRITES;
pub use self::runner::SinkRunner;
use crate::credential::table::Table;
use crate::stats::Stats;
use crate::supervision::Supervisor;

/// Builds a runner for each configured sink, on the table's credentials.
pub fn build(sinks: &[Options], table: &Arc<Table>, stats: &Stats) -> Vec<SinkRunner> {
    let sink = |options: &Options| {
        let stats = stats.register_sink(options.type_name(), options.to_string());
        Some(SinkRunner::new(options, backend(options)?, table, stats))
    };
    sinks.iter().filter_map(sink).collect()
}

/// The backend of a sink. None if this build has no such backend; the configuration has refused the sink then.
fn backend(options: &Options) -> Option<Arc<dyn SinkBackend>> {
    match &options.to {
        #[cfg(feature = "redis")]
        SinkTo::Redis { server, ttl_margin_s } => {
            Some(Arc::new(redis::RedisBackend::new(server.clone(), *ttl_margin_s)))
        }
        SinkTo::File(file) => Some(Arc::new(file::FileBackend::new(file))),
        #[cfg(not(feature = "redis"))]
        SinkTo::Redis { .. } => None,
        #[cfg(feature = "sql")]
        SinkTo::Sql(config) => Some(Arc::new(sql::SqlBackend::new(config))),
        #[cfg(not(feature = "sql"))]
        SinkTo::Sql(_) => None,
        SinkTo::Command(command) => Some(Arc::new(command::CommandBackend::new(command.clone()))),
    }
}

/// Connects to the database of a sink and has it prepare the statements, without running them.
#[cfg(feature = "sql")]
pub async fn try_sql(options: &Options) -> Result<(), String> {
    let SinkTo::Sql(to) = &options.to else { return Ok(()) };
    let prepared = sql::SqlBackend::new(to).prepare_all(&options.entries).await;
    prepared.map_err(|fault| format!("{fault}\n#   what to do: {}", fault.advice))
}

/// Runs all sinks until `end`, then lets each write its last changes, for a second at most.
pub async fn run(sinks: Vec<SinkRunner>, end: CancellationToken, supervisor: &Supervisor) {
    let mut tasks = JoinSet::new();
    for sink in sinks {
        let (alive, running) = (supervisor.watch(format!("the sink {}", sink.options)), sink.run(end.clone()));
        tasks.spawn(alive.during(running));
    }
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            if ended.is_err() {
                error!("a sink task has panicked; the sink is no longer written");
            }
        }
    };
    tokio::select! {
        () = all => {}
        // A store that does not answer must not delay the shutdown.
        () = async { end.cancelled().await; tokio::time::sleep(2 * LAST_WRITES).await } => {}
    }
}
