//! The program: arguments -> config -> telemetry -> runtime -> app. The only place that exits.

mod allocator;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokencached::app::{self, App};
use tokencached::check::Detail;
use tokencached::cli::{self, CheckArgs, CliCommand, ServeArgs};
use tokencached::cluster;
use tokencached::config::{self, Config, Loaded, ProcessEnvironment};
use tokencached::credential::state_lock::lock_path;
use tokencached::http_api::{BoundListeners, ReloadHandle};
use tokencached::process::systemd;
use tokencached::server::Authenticator;
use tokencached::server::ListenAt;
use tokencached::{check, clock, demo, descriptors, process, sink, telemetry};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// sysexits(3): the configuration is wrong.
const EXIT_CONFIG: u8 = 78;
/// sysexits(3): something the start needs is not to be had.
const EXIT_UNAVAILABLE: u8 = 69;
/// sysexits(3): a part of the server that must not end has ended, or the end took too long.
const EXIT_SOFTWARE: u8 = 70;

/// The process ends so long after it was told to at the latest; calls under way, the state and the last answers have
/// limits of their own that are shorter together, unless WeChat and the disk hang both. Less than the unit's TimeoutStopSec.
const END_MAX: Duration = Duration::from_secs(15);

/// What is said before leaving, and with which code.
type Failure = (u8, String);

fn main() -> ExitCode {
    let done = match cli::parse() {
        CliCommand::Serve(args) => serve(&args),
        CliCommand::Demo(args) => show(|shutdown| demo::run(&args, shutdown)),
        CliCommand::Sandbox(args) => show(|shutdown| demo::run_sandbox(&args, shutdown)),
        CliCommand::Check(args) => run_check(&args),
        CliCommand::Version => print_version(),
        CliCommand::Tied(args) => {
            Err(unavailable("cannot become the program")(process::exec_tied(args.parent, &args.command)))
        }
    };
    let code = done.unwrap_or_else(|(code, text)| {
        telemetry::print(&text);
        ExitCode::from(code)
    });
    telemetry::flush();
    code
}

fn load(args: &ServeArgs) -> Result<Loaded, Failure> {
    config::load(args.config.as_deref(), &ProcessEnvironment, &args.flags)
        .map_err(|faults| (EXIT_CONFIG, faults.to_string()))
}

fn unavailable(what: &str) -> impl Fn(std::io::Error) -> Failure {
    move |error| (EXIT_UNAVAILABLE, format!("{what}: {error}"))
}

/// The server. What needs privileges is done first, in this order. Threads are there by then, that of signals and that of
/// the log: limits and the user are the whole process's.
fn serve(args: &ServeArgs) -> Result<ExitCode, Failure> {
    let args = absolute(args);
    let mut loaded = load(&args)?;
    let shutdown = CancellationToken::new();
    let reloading = watch_signals_of_server(&shutdown)?;
    // Before -d leaves the terminal, and before anybody can connect.
    app::await_state(&loaded.config, || shutdown.is_cancelled(), telemetry::print)
        .map_err(|text| (EXIT_UNAVAILABLE, text))?;
    if shutdown.is_cancelled() {
        return Ok(ExitCode::SUCCESS);
    }
    if loaded.config.server.daemonize {
        match process::daemonize().map_err(unavailable("cannot go to the background (-d)"))? {
            process::Daemonized::Parent => return Ok(ExitCode::SUCCESS),
            process::Daemonized::Child => {}
        }
    }
    start_telemetry(&loaded.config.log);
    core_dumps(args.flags.enable_coredumps);
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    fit_below_file_limit(&mut loaded.config);
    let config = &loaded.config;
    let authenticator = app::authenticator(config).map_err(|error| (EXIT_CONFIG, with_remedy(error, config)))?;
    let bound = app::bind(config).map_err(|error| (EXIT_UNAVAILABLE, error))?;
    let door = app::side(config).map_err(|error| (EXIT_UNAVAILABLE, with_remedy(error, config)))?;
    let reload_handle = door.as_ref().map(BoundListeners::reload_handle);
    let side_addresses = door.as_ref().map(BoundListeners::addresses).unwrap_or_default();
    let addresses: Vec<_> = bound.iter().filter_map(|bound| bound.tcp_addr()).collect();
    let _pid_file = match &config.server.pid_file {
        Some(path) => Some(process::PidFile::write(path).map_err(unavailable("cannot write the pid file (-P)"))?),
        None => None,
    };
    switch_user(config)?;
    if config.server.user.is_some() {
        // Becoming another user has set it anew.
        core_dumps(args.flags.enable_coredumps);
    }
    if config.server.lock_memory
        && let Err(error) = process::lock_memory()
    {
        tracing::warn!(%error, "-k: memory cannot be locked; going on without");
    }
    let runtime = runtime()?;
    let code = runtime.block_on(async {
        let reloaded = authenticator.clone();
        // It is set once, here.
        let _ = reloading.set(Box::new(move || reload(&args, &reloaded, reload_handle.as_deref())));
        let app = App::new(config, bound, door, authenticator, shutdown).map_err(|error| (EXIT_UNAVAILABLE, error))?;
        if let Some(path) = std::env::var_os("MEMCACHED_PORT_FILENAME") {
            process::write_port_file(Path::new(&path), &addresses)
                .map_err(unavailable("cannot write MEMCACHED_PORT_FILENAME"))?;
        }
        announce(config, app.addresses(), &side_addresses);
        tokio::spawn(systemd::notify_ready());
        app.run().await.map_err(|part| (EXIT_SOFTWARE, format!("{part}; the log says why. Start the server again")))?;
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    });
    sink::kill_commands();
    runtime.shutdown_background();
    code
}

/// A daemon changes its folder; the file must be found again.
fn absolute(args: &ServeArgs) -> ServeArgs {
    let config = args.config.as_deref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    ServeArgs { config, flags: args.flags.clone() }
}

fn announce(config: &Config, addresses: &[std::net::SocketAddr], side: &[std::net::SocketAddr]) {
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
    let side: Vec<String> = side.iter().map(ToString::to_string).collect();
    let side = Some(side.join(" ")).filter(|side| !side.is_empty());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listening = listening.join(" "),
        side,
        apps = clock::nonzero(config.credentials.apps.len() as u64),
        memory_bytes = config.server.memory_bytes,
        "ready"
    );
}

/// What is wrong, and what to do if it is that systemd's user may not read a file.
fn with_remedy(error: String, config: &Config) -> String {
    match config::remedy_for_tls(config, &ProcessEnvironment) {
        Some(remedy) => format!("{error}\n{remedy}"),
        None => error,
    }
}

fn start_telemetry(log: &telemetry::Options) {
    if let Err(error) = telemetry::init(log) {
        telemetry::print(&format!("logs cannot be set up: {error}"));
    }
}

fn core_dumps(wanted: bool) {
    match process::set_core_dumps(wanted) {
        Ok(()) if wanted => tracing::warn!("-r: a core dump of this process holds every token and secret it knows"),
        Ok(()) => {}
        Err(error) => tracing::warn!(%error, "core dumps cannot be switched on or off"),
    }
}

/// Raises the limit on open files to what is needed. If that cannot be, there are fewer connections: clients must not
/// take the descriptors that renewal needs.
fn fit_below_file_limit(config: &mut Config) {
    let wanted = app::descriptors(config);
    let limit = process::raise_file_limit(wanted.total() as u64);
    let fit = wanted.fit(limit);
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
    if let Some(side) = &mut config.http {
        side.max_connections = fit.http;
    }
}

/// `-u`, and the state folder, which must exist before and which that user must be able to write in.
fn switch_user(config: &Config) -> Result<(), Failure> {
    let folder = config.credentials.state_path.as_deref().and_then(Path::parent);
    let made: Vec<PathBuf> = match folder.map(process::make_folders).transpose() {
        Ok(made) => made.unwrap_or_default(),
        Err(error) => {
            let path = folder.map(|path| tracing::field::display(path.display()));
            tracing::warn!(path, %error, "the state folder cannot be made; running from memory");
            Vec::new()
        }
    };
    let Some(user) = &config.server.user else { return Ok(()) };
    process::switch_user(user, &made).map_err(unavailable("cannot switch the user (-u)"))?;
    if let Some(path) = &config.credentials.state_path {
        process::check_state_file(path, &lock_path(path), user).map_err(|fault| (EXIT_CONFIG, fault))?;
    }
    for app in &config.credentials.apps {
        if !app.secret.is_absent()
            && let Err(fault) = app.secret.read()
        {
            let text = format!("as user {user} the secret of {} {fault}", app.appid);
            return Err((EXIT_CONFIG, text));
        }
    }
    for sink in &config.sinks {
        if let Some(Err(fault)) = sink.password().map(|password| password.read()) {
            return Err((EXIT_CONFIG, format!("as user {user} the password of {sink} {fault}")));
        }
    }
    for (what, source) in config.credentials.cluster.iter().flat_map(cluster::Options::secrets) {
        if let Err(fault) = source.read() {
            return Err((EXIT_CONFIG, format!("as user {user} {what} in [state] {fault}")));
        }
    }
    Ok(())
}

/// One thread beside the workers: accepting and renewing are not much work.
fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(unavailable("cannot start the runtime"))
}

/// What SIGHUP has done, from when the server runs.
type Reloading = Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>;

/// From the beginning on: the start may wait, and neither a container's first process, which no signal ends that it does
/// not watch for, nor a SIGHUP may then do what nobody wants.
fn watch_signals_of_server(shutdown: &CancellationToken) -> Result<Reloading, Failure> {
    let reloading = Reloading::default();
    let running = reloading.clone();
    watch_signals(shutdown, move || match running.get() {
        Some(reload) => reload(),
        None => tracing::info!("SIGHUP: still starting; there is nothing to read again"),
    })?;
    Ok(reloading)
}

/// SIGTERM, SIGINT and SIGUSR1 end the server after what is in flight; a second one ends it at once. SIGHUP, which by
/// itself would end the process, has this done; it may take its time. All on a thread of its own: whatever the others
/// wait for, the process ends when it is told to.
fn watch_signals(shutdown: &CancellationToken, at_hangup: impl Fn() + Clone + Send + 'static) -> Result<(), Failure> {
    let failed = unavailable("cannot watch for signals");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().map_err(&failed)?;
    let inside = runtime.enter();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::user_defined1()] {
        runtime.spawn(end_at(signal(kind).map_err(&failed)?, shutdown.clone()));
    }
    let mut hangups = signal(SignalKind::hangup()).map_err(&failed)?;
    runtime.spawn(async move {
        while hangups.recv().await.is_some() {
            let _ = tokio::task::spawn_blocking(at_hangup.clone()).await;
        }
    });
    drop(inside);
    let shutdown = shutdown.clone();
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(move || runtime.block_on(end_in_time(shutdown))).map_err(&failed)?;
    Ok(())
}

async fn end_at(mut signals: Signal, shutdown: CancellationToken) {
    while signals.recv().await.is_some() {
        if shutdown.is_cancelled() {
            sink::kill_commands();
            telemetry::flush();
            std::process::exit(130);
        }
        tracing::info!("finishing what is in flight, then stopping");
        systemd::notify_stopping();
        shutdown.cancel();
    }
}

/// Nothing that hangs may keep a process from ending.
async fn end_in_time(shutdown: CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(END_MAX).await;
    tracing::error!(
        "the shutdown takes too long, something hangs (such as a write to a disk); exiting without waiting for it"
    );
    sink::kill_commands();
    telemetry::flush();
    std::process::exit(EXIT_SOFTWARE.into());
}

/// Users, passwords, rights, keys and certificates are read again. All files but the configuration are followed anyhow.
fn reload(args: &ServeArgs, authenticator: &Authenticator, side: Option<&ReloadHandle>) {
    tracing::info!("SIGHUP: reading users, keys and certificates again; other changes need a restart");
    match config::load(args.config.as_deref(), &ProcessEnvironment, &args.flags) {
        Ok(loaded) => {
            authenticator.reload(&loaded.config.access);
            if let (Some(reload_handle), Some(side)) = (side, &loaded.config.http) {
                reload_handle.reload(side);
            }
        }
        Err(faults) => {
            for fault in faults.iter() {
                tracing::error!(place = %fault.place, advice = fault.remedy, "the configuration: {}", fault.what);
            }
            tracing::error!("the configuration cannot be used: users, keys and certificates stay as they were");
        }
    }
}

/// Runs something to look at until a signal ends it.
fn show<F: Future<Output = Result<(), String>>>(run: impl FnOnce(CancellationToken) -> F) -> Result<ExitCode, Failure> {
    start_telemetry(&telemetry::Options::default());
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        watch_signals(&shutdown, || tracing::info!("SIGHUP: there is nothing to read again"))?;
        run(shutdown).await.map_err(|text| (EXIT_UNAVAILABLE, text))
    });
    runtime.shutdown_background();
    done.map(|()| ExitCode::SUCCESS)
}

fn print_version() -> Result<ExitCode, Failure> {
    let version = concat!("tokencached ", env!("CARGO_PKG_VERSION"), "\n");
    std::io::stdout().write_all(version.as_bytes()).map_err(unavailable("cannot print"))?;
    Ok(ExitCode::SUCCESS)
}

fn run_check(args: &CheckArgs) -> Result<ExitCode, Failure> {
    let serve = absolute(&args.serve);
    let loaded = config::load(serve.config.as_deref(), &ProcessEnvironment, &serve.flags).map_err(|faults| {
        let command: Vec<_> = std::env::args_os().collect();
        (EXIT_CONFIG, check::refusal(&faults, &command, serve.config.as_deref()))
    })?;
    let refused = |error: String| (EXIT_CONFIG, format!("{error}\nconfiguration refused: 1 fault"));
    let judged = app::authenticator(&loaded.config).and_then(|_| app::validate_http_api(&loaded.config));
    judged.map_err(|error| refused(with_remedy(error, &loaded.config)))?;
    let mut report = check::examine(&loaded);
    if args.live {
        let runtime = runtime()?;
        let asked = runtime.block_on(check::check_live(&loaded.config, &mut report));
        // A name that is still being looked up is not waited for.
        runtime.shutdown_background();
        asked.map_err(|text| (EXIT_UNAVAILABLE, text))?;
    }
    let detail = match (args.quiet, args.print) {
        (true, _) => Detail::Quiet,
        (false, false) => Detail::Usual,
        (false, true) => Detail::All,
    };
    let is_good = report.is_good();
    let (settings, verdict) = (loaded.effective(), check::verdict(&loaded.config));
    let mut out = std::io::stdout().lock();
    report.print(detail, &settings, &verdict, &mut out).map_err(unavailable("cannot print"))?;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
