//! `--help` and what is said about wrong usage, in Chinese. Reads which language is wanted before the arguments are parsed,
//! since the help is printed while they are. Changes no command and no flag.

use std::ffi::OsString;
use std::io::Write;

use clap::builder::StyledStr;
use clap::{Arg, ArgAction, Command};

use crate::texts::{self, Language};

const FLAG: &str = "--language";
/// Shorter ones could mean `--listen`.
const FLAG_CHARS_MIN: usize = "--la".len();
const TEMPLATE: &str = "{before-help}{about-with-newline}\n用法：{usage}\n\n{all-args}{after-help}";

/// What `--language` says among the arguments, and else the locale.
pub fn asked(arguments: &[OsString], variable: impl Fn(&str) -> Option<String>) -> Language {
    let words: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let given = words.iter().enumerate().find_map(|(at, word)| {
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (&**word, words.get(at + 1).map(|next| &**next)),
        };
        let is_flag = flag.len() >= FLAG_CHARS_MIN && FLAG.starts_with(flag);
        value.filter(|_| is_flag).and_then(Language::of_word)
    });
    given.unwrap_or_else(|| Language::of_locale(variable))
}

/// Prints help, or what is wrong with the arguments, and leaves the process.
pub fn exit(error: &clap::Error, language: Language) -> ! {
    if language == Language::English || !error.use_stderr() {
        error.exit();
    }
    let text = error.render().to_string();
    let _ = std::io::stderr().write_all(language.of(&text).as_bytes());
    std::process::exit(error.exit_code())
}

/// The same command with its help in Chinese.
pub fn chinese(mut command: Command) -> Command {
    command.build();
    of_command(command)
}

fn of_command(mut command: Command) -> Command {
    // clap builds the help of `help` anew each time.
    if command.get_name() == "help" {
        let about = translated(command.get_about());
        return command.about(about).mut_args(of_arg);
    }
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").replace("[OPTIONS]", "[选项]");
    let usage = usage.replace("[COMMAND]", "[命令]").replace("<COMMAND>", "<命令>");
    let usage: Vec<&str> = usage.lines().map(str::trim).collect();
    let (about, after) = (translated(command.get_about()), translated(command.get_after_help()));
    command
        .help_template(TEMPLATE)
        .override_usage(usage.join("\n      "))
        .subcommand_help_heading("命令")
        .about(about)
        .after_help(after)
        .mut_args(of_arg)
        .mut_subcommands(of_command)
}

fn of_arg(arg: Arg) -> Arg {
    let heading = match arg.get_help_heading() {
        Some(heading) => texts::fixed(heading).unwrap_or("其他"),
        None if arg.is_positional() => "参数",
        None => "选项",
    };
    let mut help = translated(arg.get_help()).to_string();
    // The words around these two are clap's own.
    if let Some(variable) = arg.get_env() {
        help.push_str(&format!(" [环境变量：{}]", variable.to_string_lossy()));
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if !defaults.is_empty() && matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) {
        help.push_str(&format!(" [默认：{}]", defaults.join(" ")));
    }
    arg.help_heading(heading).help(help).hide_default_value(true).hide_env(true)
}

fn translated(text: Option<&StyledStr>) -> StyledStr {
    let text = text.map(ToString::to_string).unwrap_or_default();
    StyledStr::from(Language::Chinese.of(&text).into_owned())
}
