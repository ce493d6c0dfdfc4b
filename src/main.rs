//! The program: arguments -> config -> telemetry -> runtime -> app. The only place that exits, but for `--help` and wrong
//! usage, which end in `cli.rs`.

mod allocator;

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokencached::app::{self, Bound, Reloader, StartError};
use tokencached::check::Detail;
use tokencached::cli::{self, CheckArgs, CliCommand, GenerateArgs, HealthArgs, ServeArgs};
use tokencached::config::{self, Config, Loaded, ProcessEnvironment};
use tokencached::health;
use tokencached::process::{Daemonized, systemd};
use tokencached::server::ListenAt;
use tokencached::{check, clock, demo, descriptors, process, sink, telemetry};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// sysexits(3): the configuration is wrong.
const EXIT_CONFIG: u8 = 78;
/// sysexits(3): the start could not get something that it needs.
const EXIT_UNAVAILABLE: u8 = 69;
/// sysexits(3): a part of the server that must not end has ended, or the end took too long.
const EXIT_SOFTWARE: u8 = 70;
/// As a shell counts it: ended by SIGINT, the second one.
const EXIT_SECOND_SIGNAL: u8 = 130;

/// The process ends at most this long after it was told to. Calls under way, the state and the last answers have limits of
/// their own; together they are shorter, unless both the platform and the disk hang. Less than the unit's TimeoutStopSec.
const END_MAX: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    let done = match cli::parse() {
        CliCommand::Serve(args) => serve(&args),
        CliCommand::Demo(args) => show(|shutdown| demo::run(&args, shutdown)),
        CliCommand::Sandbox(args) => show(|shutdown| demo::run_sandbox(&args, shutdown)),
        CliCommand::Check(args) => Ok(run_check(&args)),
        CliCommand::Health(args) => run_health(&args),
        CliCommand::Version => print(concat!("tokencached ", env!("CARGO_PKG_VERSION"), "\n").as_bytes()),
        CliCommand::Tied(args) => {
            let error = process::exec_tied(args.parent, &args.command);
            Err(StartError::system("cannot become the program")(error))
        }
        CliCommand::Generate(args) => generate(&args),
    };
    let code = done.unwrap_or_else(|error| {
        telemetry::print(&error.to_string());
        ExitCode::from(exit_code(&error))
    });
    telemetry::flush();
    code
}

/// The code that the process ends with; `tokencached --help` explains them.
fn exit_code(error: &StartError) -> u8 {
    match error {
        StartError::Refused(_) => EXIT_CONFIG,
        StartError::Unavailable(_) => EXIT_UNAVAILABLE,
        StartError::PartEnded(_) => EXIT_SOFTWARE,
    }
}

fn load(args: &ServeArgs) -> Result<Loaded, StartError> {
    config::load(args.config.as_deref(), &ProcessEnvironment, &args.flags)
        .map_err(|faults| StartError::Refused(faults.to_string()))
}

/// The server. Threads are there before privileges are dropped, that of signals and that of the log: limits and the user
/// are the whole process's.
fn serve(args: &ServeArgs) -> Result<ExitCode, StartError> {
    let args = absolute(args);
    let mut loaded = load(&args)?;
    let shutdown = CancellationToken::new();
    let on_hangup = OnHangup::default();
    // First, because the start may wait for the state file. Without it a signal could not end the first process of a
    // container, and SIGHUP would end any other.
    watch_signals(&shutdown, &on_hangup, "still starting; nothing to reload")?;
    // Before -d leaves the terminal, and before anybody can connect.
    app::await_state(&loaded.config, || shutdown.is_cancelled(), telemetry::print)?;
    if shutdown.is_cancelled() || loaded.config.server.daemonize && go_to_background()? == Daemonized::Parent {
        return Ok(ExitCode::SUCCESS);
    }
    start_telemetry(&loaded.config.log);
    set_core_dumps(args.flags.enable_coredumps);
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    loaded.notices.iter().for_each(|notice| tracing::info!("{notice}"));
    fit_below_file_limit(&mut loaded.config);
    let config = &loaded.config;
    let bound = Bound::open(config.clone())?;
    let (reloader, http_addresses) = (bound.reloader(), bound.http_addresses());
    let unprivileged = bound.drop_privileges()?;
    if config.server.user.is_some() {
        // Becoming another user has set it anew.
        set_core_dumps(args.flags.enable_coredumps);
    }
    let served = async {
        // It is set once, here.
        let _ = on_hangup.set(Box::new(move || reload(&args, &reloader)));
        let app = unprivileged.start(shutdown)?;
        write_port_file(app.addresses())?;
        announce(config, app.addresses(), &http_addresses);
        tokio::spawn(systemd::notify_ready());
        app.run().await?;
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    };
    // While the runtime is still there: afterwards one more command might start.
    block_on(async {
        let ended = served.await;
        sink::kill_commands();
        ended
    })?
}

/// `-d`. The parent is the process that was called; its work is done.
fn go_to_background() -> Result<Daemonized, StartError> {
    process::daemonize().map_err(StartError::system("cannot go to the background (-d)"))
}

/// For scripts that start a server on any free port.
fn write_port_file(addresses: &[SocketAddr]) -> Result<(), StartError> {
    let Some(path) = std::env::var_os("MEMCACHED_PORT_FILENAME") else { return Ok(()) };
    process::write_port_file(Path::new(&path), addresses)
        .map_err(StartError::system("cannot write MEMCACHED_PORT_FILENAME"))
}

/// A daemon changes its folder; the file must be found again.
fn absolute(args: &ServeArgs) -> ServeArgs {
    let config = args.config.as_deref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    ServeArgs { config, flags: args.flags.clone() }
}

fn announce(config: &Config, addresses: &[SocketAddr], http: &[SocketAddr]) {
    let mut listening: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    listening.extend(config.listeners().iter().filter_map(|listener| match &listener.at {
        ListenAt::Unix { path, .. } => Some(path.display().to_string()),
        ListenAt::Tcp(_) => None,
    }));
    if config.credentials.state_path.is_none()
        && config.credentials.cluster.is_none()
        && !config.credentials.apps.is_empty()
    {
        tracing::info!("no token restored: tokens are kept in memory only, since path in [state] is \"none\"");
    }
    let http: Vec<String> = http.iter().map(ToString::to_string).collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listening = listening.join(" "),
        http = Some(http.join(" ")).filter(|http| !http.is_empty()),
        apps = clock::nonzero(config.credentials.apps.len() as u64),
        memory_bytes = config.server.memory_bytes,
        "ready"
    );
}

fn start_telemetry(log: &telemetry::Options) {
    if let Err(error) = telemetry::init(log) {
        telemetry::print(&format!("logs cannot be set up: {error}"));
    }
}

fn set_core_dumps(wanted: bool) {
    match process::set_core_dumps(wanted) {
        Ok(()) if wanted => tracing::warn!("-r: a core dump of this process holds every token and secret it knows"),
        Ok(()) => {}
        Err(error) => tracing::warn!(%error, "cannot switch core dumps on or off"),
    }
}

/// Raises the limit on open files to what is needed. If that fails, fewer connections are allowed: clients must not take
/// the descriptors that renewal needs.
fn fit_below_file_limit(config: &mut Config) {
    let wanted = app::descriptors(config);
    let limit = process::raise_file_limit(wanted.total() as u64);
    let fit = wanted.limits_within(limit);
    if limit < wanted.total() as u64 {
        tracing::warn!(
            limit,
            needed = wanted.total(),
            max_connections = fit.clients,
            instead_of = wanted.clients,
            http_max_connections = fit.http,
            "the limit on open files is too low for -c: fewer clients are let in, so that renewal keeps its descriptors; {}",
            descriptors::REMEDY
        );
    }
    config.server.max_connections = fit.clients;
    if let Some(http) = &mut config.http {
        http.max_connections = fit.http;
    }
}

/// Does this with one thread beside the workers: accepting and renewing are not much work. What is still blocked at the end,
/// such as the look-up of a name, is not waited for.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, StartError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).thread_name("control").enable_all().build();
    let runtime = runtime.map_err(StartError::system("cannot start the runtime"))?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(done)
}

/// What SIGHUP does, from when the server runs.
type OnHangup = Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>;

/// SIGTERM, SIGINT and SIGUSR1 end the server once the requests in flight are answered; a second one ends it at once.
/// SIGHUP calls `on_hangup`, which may take its time, or says why not. All this has a thread of its own: whatever the
/// others wait for, the process ends when it is told to.
fn watch_signals(
    shutdown: &CancellationToken,
    on_hangup: &OnHangup,
    otherwise: &'static str,
) -> Result<(), StartError> {
    let failed = StartError::system("cannot watch for signals");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().map_err(failed)?;
    let inside = runtime.enter();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::user_defined1()] {
        runtime.spawn(end_at(signal(kind).map_err(failed)?, shutdown.clone()));
    }
    let mut hangups = signal(SignalKind::hangup()).map_err(failed)?;
    let on_hangup = on_hangup.clone();
    runtime.spawn(async move {
        while hangups.recv().await.is_some() {
            let on_hangup = on_hangup.clone();
            let hear = move || on_hangup.get().map_or_else(|| tracing::info!("SIGHUP: {otherwise}"), |reload| reload());
            let _ = tokio::task::spawn_blocking(hear).await;
        }
    });
    drop(inside);
    let shutdown = shutdown.clone();
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(move || runtime.block_on(end_in_time(shutdown))).map_err(failed)?;
    Ok(())
}

async fn end_at(mut signals: Signal, shutdown: CancellationToken) {
    while signals.recv().await.is_some() {
        if shutdown.is_cancelled() {
            exit_now(EXIT_SECOND_SIGNAL);
        }
        tracing::info!("shutting down: finishing requests in flight");
        systemd::notify_stopping();
        shutdown.cancel();
    }
}

/// Ends the process when the shutdown takes too long.
async fn end_in_time(shutdown: CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(END_MAX).await;
    tracing::error!("shutdown timed out: something hangs, such as a write to a disk; exiting without waiting for it");
    exit_now(EXIT_SOFTWARE);
}

/// Ends the process at once, whatever the other threads are doing.
fn exit_now(code: u8) -> ! {
    sink::kill_commands();
    telemetry::flush();
    std::process::exit(code.into());
}

/// Reads users, passwords, rights, keys and certificates again. Their files are watched as well; the configuration is not.
fn reload(args: &ServeArgs, reloader: &Reloader) {
    tracing::info!("SIGHUP: reloading users, keys and certificates; other changes need a restart");
    match config::load(args.config.as_deref(), &ProcessEnvironment, &args.flags) {
        Ok(loaded) => reloader.reload(&loaded.config),
        Err(faults) => {
            for fault in faults.iter() {
                tracing::error!(place = %fault.place, advice = fault.remedy, "the configuration: {}", fault.what);
            }
            tracing::error!(
                "reload failed: the configuration is refused; users, keys and certificates stay as they were"
            );
        }
    }
}

/// Runs the demo or the sandbox until a signal ends it.
fn show<F>(run: impl FnOnce(CancellationToken) -> F) -> Result<ExitCode, StartError>
where
    F: Future<Output = Result<(), StartError>>,
{
    start_telemetry(&telemetry::Options::default());
    let done = block_on(async {
        let shutdown = CancellationToken::new();
        watch_signals(&shutdown, &OnHangup::default(), "nothing to reload")?;
        run(shutdown).await
    });
    done?.map(|()| ExitCode::SUCCESS)
}

fn print(text: &[u8]) -> Result<ExitCode, StartError> {
    std::io::stdout().write_all(text).map_err(StartError::system("cannot print"))?;
    Ok(ExitCode::SUCCESS)
}

fn generate(args: &GenerateArgs) -> Result<ExitCode, StartError> {
    let mut page = Vec::new();
    args.run(&mut page).map_err(StartError::system("cannot write the pages"))?;
    print(&page)
}

/// In the language of its arguments.
fn run_check(args: &CheckArgs) -> ExitCode {
    check_configuration(args).unwrap_or_else(|error| {
        telemetry::print(&args.language.of(&error.to_string()));
        ExitCode::from(exit_code(&error))
    })
}

fn check_configuration(args: &CheckArgs) -> Result<ExitCode, StartError> {
    let serve = absolute(&args.serve);
    let loaded = config::load(serve.config.as_deref(), &ProcessEnvironment, &serve.flags).map_err(|faults| {
        let command: Vec<_> = std::env::args_os().collect();
        StartError::Refused(check::refusal(&faults, &command, serve.config.as_deref()))
    })?;
    app::check_files(&loaded.config)
        .map_err(|error| StartError::Refused(format!("{error}\nconfiguration refused: 1 fault")))?;
    let mut report = check::examine(&loaded);
    if args.live {
        block_on(check::check_live(&loaded.config, &mut report))?.map_err(StartError::Unavailable)?;
    }
    let detail = match (args.quiet, args.print) {
        (true, _) => Detail::Quiet,
        (false, false) => Detail::Usual,
        (false, true) => Detail::All,
    };
    let is_good = report.is_good();
    let (settings, verdict) = (loaded.effective(), check::verdict(&loaded.config));
    let mut out = std::io::stdout().lock();
    report.print(detail, args.language, &settings, &verdict, &mut out).map_err(StartError::system("cannot print"))?;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const NOBODY_KNOWS_WHERE: &str = "not healthy: the configuration is refused, so nobody knows where to ask; \"tokencached check\" \
                                  with the same arguments says why";

/// Says in a sentence how the server is. It is asked where the same configuration makes it listen.
fn run_health(args: &HealthArgs) -> Result<ExitCode, StartError> {
    let question = if args.ready { health::IS_READY } else { health::IS_ALIVE };
    let answer = match load(&args.serve) {
        Ok(loaded) => block_on(health::wait(&loaded.config, question, args.timeout, args.wait))?,
        Err(_) => Err(NOBODY_KNOWS_WHERE.to_owned()),
    };
    let (code, sentence) = match answer {
        Ok(sentence) => (ExitCode::SUCCESS, sentence),
        Err(sentence) => (ExitCode::FAILURE, sentence),
    };
    // The code says it too: a server is not ill because nobody reads.
    let _ = writeln!(std::io::stdout(), "{sentence}");
    Ok(code)
}
