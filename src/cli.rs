//! The command line: `serve` (default), `demo`, `sandbox`, `check`, `health`, `version`, `help`; hidden, `tied` and
//! `generate`.
//!
//! Turns arguments into values and judges nothing that the file or the environment could say as well; that is
//! [`crate::config`]'s work. Starts nothing.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

mod flags;
mod generate;
mod language;
mod words;

pub use flags::{Flags, file_after_flag};
pub use generate::GenerateArgs;
pub use words::{Word, missing_value, translated};

use crate::secret::Secret;
use crate::texts::Language;

const AFTER_HELP: &str = "\
Examples:
  tokencached                                    a plain cache on 127.0.0.1:11211
  WECHAT_APPID=wx... WECHAT_SECRET=... tokencached
                                                 and \"get access_token\" always answers with a live token
  tokencached --config /etc/tokencached/tokencached.toml
  tokencached check --config F --live            judge a configuration and fetch one token per app
  tokencached health --config F                  ask whether the server that runs with it is well
  tokencached help check                         the flags of a command
  tokencached demo                               try it out without a WeChat account
  tokencached demo --nodes 3                     the same with three nodes, to kill one

Exit codes:
  0    it ended on request; check: all is good, whatever the warnings
  1    check --live: an app, a sink or the cluster store is not good; health: the server is not well
  2    a flag or a command that does not exist
  69   the start could not get what it needs: an address, a user, the state file
  70   a part of the server ended that must not, or the end took over 15 s
  78   the configuration is refused
  130  a second signal came before the first had ended it";

/// A memcached-compatible cache node that keeps WeChat access tokens current.
#[derive(Parser, Debug)]
#[command(
    name = "tokencached",
    version,
    after_help = AFTER_HELP,
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    infer_long_args = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<CliCommand>,
    /// Language of the help and of check: en or zh [default: that of the locale]
    #[arg(long, global = true, value_name = "LANGUAGE", value_parser = ["en", "zh"], hide_possible_values = true)]
    language: Option<String>,
    #[command(flatten)]
    serve: ServeArgs,
}

/// What to do.
#[derive(Subcommand, Debug)]
#[command(args_override_self = true)]
pub enum CliCommand {
    /// Run the server (what happens without a command)
    Serve(Box<ServeArgs>),
    /// Run a server beside a simulated WeChat, to watch tokens being renewed
    Demo(DemoArgs),
    /// Run the simulated WeChat alone
    Sandbox(Box<SandboxArgs>),
    /// Judge a configuration, and with --live ask whether each app works
    Check(Box<CheckArgs>),
    /// Ask whether the server that runs with this configuration is well: exit code 0 or 1, and a sentence
    Health(Box<HealthArgs>),
    /// Print the version
    Version,
    /// Become another program that ends when the parent does (for the demo's own processes)
    #[command(hide = true)]
    Tied(TiedArgs),
    /// Write the manual pages or the completions of a shell (for packages)
    #[command(hide = true)]
    Generate(GenerateArgs),
}

/// `tokencached`, `tokencached serve`.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// The configuration file, in TOML
    #[arg(long, value_name = "FILE", env = "TOKENCACHED_CONFIG")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub flags: Flags,
}

/// `tokencached demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// How many nodes, 1 to 9. Several are a process each, on a Redis if there is one on PATH
    #[arg(long, value_name = "NUM", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: u16,
    /// TCP port; of several nodes the first one's, the others have the next ones
    #[arg(short, long, value_name = "NUM", default_value_t = 11211)]
    pub port: u16,
    /// Address to listen on
    #[arg(short, long, value_name = "ADDR", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub listen: IpAddr,
    /// Port of the status page, as with --port [default: 2130, or any free one if that is taken]
    #[arg(long, alias = "side-port", value_name = "NUM")]
    pub http_port: Option<u16>,
    /// How long a simulated token lives: 60s, 2m, 2h
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = lifetime)]
    pub lifetime: Duration,
}

/// `tokencached sandbox`.
#[derive(Args, Clone, Debug)]
pub struct SandboxArgs {
    /// Address of the simulated API
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8765")]
    pub listen: SocketAddr,
    /// How long a token lives: 60s, 2m, 2h
    #[arg(long, value_name = "TIME", default_value = "2h", value_parser = lifetime)]
    pub lifetime: Duration,
    /// How long the old token still works after a new one was made [default: 5m of 2h, in proportion]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub overlap: Option<Duration>,
    /// How long before its end stable_token hands out a new token [default: 5m of 2h, in proportion]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub stable_window: Option<Duration>,
    /// An app; repeat for several [default: one app, which is printed]
    #[arg(long = "app", value_name = "APPID:SECRET", value_parser = account)]
    pub apps: Vec<AccountArg>,
    /// A WeCom corporation; repeat for several
    #[arg(long = "wecom", value_name = "CORPID:SECRET", value_parser = account)]
    pub wecom: Vec<AccountArg>,
    /// A QQ mini program; repeat for several
    #[arg(long = "qq", value_name = "APPID:SECRET", value_parser = account)]
    pub qq: Vec<AccountArg>,
    /// A Feishu app; repeat for several
    #[arg(long = "feishu", value_name = "APPID:SECRET", value_parser = account)]
    pub feishu: Vec<AccountArg>,
    /// A third-party platform of WeChat's (a component); repeat for several
    #[arg(long = "component", value_name = "APPID:SECRET", value_parser = account)]
    pub components: Vec<AccountArg>,
    /// An account that has authorised a component given here; repeat for several
    #[arg(long = "authorizer", value_name = "COMPONENT:APPID:REFRESH_TOKEN", value_parser = authorizer)]
    pub authorizers: Vec<AuthorizerArg>,
    /// Only these addresses may call, as with WeChat's allow-list; repeat for several [default: any]
    #[arg(long = "allow-ip", value_name = "IP")]
    pub allow_ips: Vec<IpAddr>,
    /// Certificate chain (PEM): serve HTTPS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

/// `tokencached check`.
#[derive(Args, Clone, Debug, Default)]
pub struct CheckArgs {
    /// Also fetch a token for each app, without forcing a new one
    #[arg(long)]
    pub live: bool,
    /// Also print the settings in effect, without secrets, and every good app by itself
    #[arg(long)]
    pub print: bool,
    /// Print only faults, warnings and the verdict
    #[arg(long, conflicts_with = "print")]
    pub quiet: bool,
    /// What `--language` or the locale says.
    #[arg(skip)]
    pub language: Language,
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// `tokencached health`. The configuration is read as the server reads it, to know where to ask.
#[derive(Args, Clone, Debug)]
pub struct HealthArgs {
    /// Ask /readyz of the HTTP API, not /livez: whether the first fetches are over
    #[arg(long)]
    pub ready: bool,
    /// How long the server may take to answer: 3s, 500ms
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    pub timeout: Duration,
    /// Ask again until the answer is good, for at most so long [default: ask once]
    #[arg(long, value_name = "TIME", default_value = "0s", hide_default_value = true, value_parser = duration)]
    pub wait: Duration,
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// `tokencached tied`.
#[derive(Args, Clone, Debug)]
pub struct TiedArgs {
    /// The process whose end is ours
    pub parent: u32,
    /// What to become
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub command: Vec<OsString>,
}

/// An account of the simulated API.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountArg {
    pub id: String,
    pub secret: Secret,
}

/// An account of the simulated API that a component asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorizerArg {
    pub component: String,
    pub id: String,
    pub refresh_token: Secret,
}

/// The arguments of this process. Leaves the process after `--help`, `--version` and wrong usage.
pub fn parse() -> CliCommand {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // systemd hands the machine's locale to units; what they print is part of a log.
    let is_logged = std::env::var_os("JOURNAL_STREAM").is_some() && !std::io::stdout().is_terminal();
    let language = language::asked(&arguments, |name| std::env::var(name).ok().filter(|_| !is_logged));
    match parse_in(language, arguments) {
        Ok(command) => command,
        Err(error) => language::exit(&error, language),
    }
}

/// The arguments given, the program's name first; what is said about them is in that language.
pub fn parse_in<T>(language: Language, arguments: impl IntoIterator<Item = T>) -> Result<CliCommand, clap::Error>
where
    T: Into<OsString> + Clone,
{
    let mut command = command_in(language);
    let matches = command.try_get_matches_from_mut(arguments)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    Ok(match cli.command {
        None => CliCommand::Serve(Box::new(cli.serve)),
        Some(CliCommand::Check(args)) => CliCommand::Check(Box::new(CheckArgs { language, ..*args })),
        Some(command) => command,
    })
}

/// All commands and flags, with help in a language.
pub fn command_in(language: Language) -> clap::Command {
    match language {
        Language::English => Cli::command(),
        Language::Chinese => language::chinese(Cli::command()),
    }
}

/// `60s`, `2m`, `2h`, `500ms`; a number alone counts seconds. To humantime, a number alone is wrong and `5M` are months.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time: write 60s, 2m, 2h or 500ms");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)
}

/// WeChat's answers count whole seconds, so a token lives at least one.
fn lifetime(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time < Duration::from_secs(1) => Err("a token lives for at least 1s".to_owned()),
        time if time > Duration::from_secs(30 * 86_400) => Err("a token lives for at most 30d".to_owned()),
        time => Ok(time),
    }
}

fn account(text: &str) -> Result<AccountArg, String> {
    match text.split_once(':') {
        Some((id, secret)) if !id.is_empty() && !secret.is_empty() => {
            Ok(AccountArg { id: id.to_owned(), secret: Secret::new(secret.to_owned()) })
        }
        _ => Err("write ID:SECRET".to_owned()),
    }
}

/// A refresh token may hold colons; the two ids do not.
fn authorizer(text: &str) -> Result<AuthorizerArg, String> {
    let mut parts = text.splitn(3, ':').filter(|part| !part.is_empty());
    match (parts.next(), parts.next(), parts.next()) {
        (Some(component), Some(id), Some(refresh_token)) => Ok(AuthorizerArg {
            component: component.to_owned(),
            id: id.to_owned(),
            refresh_token: Secret::new(refresh_token.to_owned()),
        }),
        _ => Err("write COMPONENT:APPID:REFRESH_TOKEN".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_read_as_people_write_them() {
        let check = |text: &str, ms: u64| assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        check("60s", 60_000);
        check("2m", 120_000);
        check("2h", 7_200_000);
        check("1d", 86_400_000);
        check("500ms", 500);
        check("7", 7_000);
        for text in ["", "s", "-1s", "1.5m", "2 h", "99999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(lifetime("0s").is_err());
    }

    #[test]
    fn an_account_does_not_show_its_secret() {
        assert_eq!(format!("{:?}", account("wx1:word").unwrap()), "AccountArg { id: \"wx1\", secret: <secret> }");
        assert!(account("wx1").is_err());
        assert!(account(":word").is_err());
        let shown = format!("{:?}", authorizer("wxc:wx1:refresh@@@a:b").unwrap());
        assert_eq!(shown, "AuthorizerArg { component: \"wxc\", id: \"wx1\", refresh_token: <secret> }");
        assert_eq!(authorizer("wxc:wx1:refresh@@@a:b").unwrap().refresh_token.expose(), "refresh@@@a:b");
        assert!(authorizer("wxc:wx1").is_err());
    }
}
