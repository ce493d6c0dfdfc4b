//! `tokencached generate`: manual pages and the shells' completions, made from the command line itself, so that they name
//! every command and flag. For packages (deploy/build); hidden, since whoever has installed a package has them.
//!
//! Writes where it is told to and nowhere else. Judges nothing.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Command, CommandFactory, Subcommand};
use clap_complete::aot::{Generator, Shell};
use clap_mangen::Man;

use super::Cli;

/// `tokencached generate`.
#[derive(Args, Clone, Debug)]
pub struct GenerateArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Write the manual pages into a folder
    Man { folder: PathBuf },
    /// Print the completions of a shell
    Completions {
        #[arg(value_parser = PossibleValuesParser::new(["bash", "zsh", "fish"]).try_map(|shell| shell.parse::<Shell>()))]
        shell: Shell,
    },
}

impl GenerateArgs {
    /// Does what was asked for; what is printed goes to `out`.
    pub fn run(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.what {
            What::Man { folder } => write_pages(folder),
            What::Completions { shell } => print_completions(*shell, out),
        }
    }
}

/// The command line as people see it: the generators would write hidden commands too.
fn visible() -> Command {
    let whole = Cli::command();
    let shown = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let command = Command::new("tokencached")
        .args(whole.get_arguments())
        .version(env!("CARGO_PKG_VERSION"))
        .about(whole.get_about().cloned().unwrap_or_default())
        .after_help(whole.get_after_help().cloned().unwrap_or_default())
        .args_conflicts_with_subcommands(true);
    command.subcommands(shown)
}

fn print_completions(shell: Shell, out: &mut dyn Write) -> io::Result<()> {
    let mut command = visible();
    command.set_bin_name("tokencached");
    command.build();
    shell.try_generate(&command, out)
}

/// `tokencached.1`, and a page for each command.
fn write_pages(folder: &Path) -> io::Result<()> {
    let mut command = visible().disable_help_subcommand(true);
    command.build();
    for command in std::iter::once(&command).chain(command.get_subcommands()) {
        // Short as in --help; otherwise the page would open with every flag there is.
        let usage = command.clone().render_usage().to_string().replace("Usage: ", "");
        let man = Man::new(command.clone().override_usage(usage));
        let man = man.manual("tokencached").source(concat!("tokencached ", env!("CARGO_PKG_VERSION")));
        let mut page = Vec::new();
        write_page(&man, command, &mut page)?;
        std::fs::write(folder.join(man.get_filename()), page)?;
    }
    Ok(())
}

fn write_page(man: &Man, command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(page)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(page)?;
    }
    match command.get_after_help() {
        Some(text) => write_as_it_stands(&text.to_string(), page),
        None => Ok(()),
    }
}

/// The text below the help: a line that ends in a colon is a heading, everything else a table whose lines stay lines.
fn write_as_it_stands(text: &str, page: &mut Vec<u8>) -> io::Result<()> {
    for line in text.lines() {
        match line.strip_suffix(':').filter(|heading| !heading.starts_with(' ')) {
            Some(heading) => writeln!(page, ".fi\n.SH {}\n.nf", heading.to_uppercase())?,
            // "\&" keeps a dot or a quote at the start from being a command.
            None => writeln!(page, "\\&{}", line.replace('\\', "\\e").replace('-', "\\-"))?,
        }
    }
    writeln!(page, ".fi")
}
