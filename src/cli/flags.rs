//! The flags of a server: memcached's letters and long names, as texts. What they mean is judged with the file and the
//! environment, so that one start shows every fault.

use clap::{ArgAction, Args};

use super::words::{self, Word};
use crate::invalid_value::{InvalidValue, closest, quoted};

const MEMCACHED: &str = "memcached's flags";
const IGNORED: &str = "Taken and ignored (a warning says so)";
const REFUSED: &str = "memcached's flags this version cannot honour (the start stops)";

/// The flags of a server, with memcached's letters and long names.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = MEMCACHED)]
pub struct Flags {
    /// TCP port; 0 switches TCP off (then -s is needed), -1 takes any free port [default: 11211]
    #[arg(short = 'p', long, value_name = "NUM", allow_hyphen_values = true)]
    pub port: Option<String>,
    /// Addresses to listen on, separated by commas or repeated, each with or without a port [default: 127.0.0.1]
    #[arg(short = 'l', long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Listen on this Unix socket in place of TCP
    #[arg(short = 's', long, value_name = "FILE")]
    pub unix_socket: Option<String>,
    /// Access mask of the Unix socket, in octal [default: 0700]
    #[arg(short = 'a', long, value_name = "MASK")]
    pub unix_mask: Option<String>,
    /// Memory for ordinary items, in mebibytes [default: 64]
    #[arg(short = 'm', long, value_name = "MIB")]
    pub memory_limit: Option<String>,
    /// Connections at once [default: 1024]
    #[arg(short = 'c', long, value_name = "NUM")]
    pub conn_limit: Option<String>,
    /// Worker threads [default: one per core]
    #[arg(short = 't', long, value_name = "NUM")]
    pub threads: Option<String>,
    /// Largest item, in bytes or with k or m, 1k to 1024m and at most half of -m [default: 1m]
    #[arg(short = 'I', long, value_name = "SIZE")]
    pub max_item_size: Option<String>,
    /// Backlog of connections not yet accepted [default: 1024]
    #[arg(short = 'b', long, value_name = "NUM")]
    pub listen_backlog: Option<String>,
    /// Requests of one connection in a row before the others get a turn [default: 256]
    #[arg(short = 'R', long, value_name = "NUM")]
    pub max_reqs_per_event: Option<String>,
    /// Answer with an error when memory is full instead of evicting
    #[arg(short = 'M', long)]
    pub disable_evictions: bool,
    /// The protocols spoken: ascii, binary, or auto for both [default: auto]
    #[arg(short = 'B', long, value_name = "NAME")]
    pub protocol: Option<String>,
    /// Obey the "shutdown" command
    #[arg(short = 'A', long)]
    pub enable_shutdown: bool,
    /// Run as this user (only when started as root)
    #[arg(short = 'u', long, value_name = "USER")]
    pub user: Option<String>,
    /// Run in the background
    #[arg(short = 'd', long)]
    pub daemon: bool,
    /// Write the process id to this file
    #[arg(short = 'P', long, value_name = "FILE")]
    pub pidfile: Option<String>,
    /// Keep all memory resident
    #[arg(short = 'k', long)]
    pub lock_memory: bool,
    /// Allow core dumps; they hold every token and secret
    #[arg(short = 'r', long)]
    pub enable_coredumps: bool,
    /// Say more: -v, -vv (also what each connection does), -vvv
    #[arg(short = 'v', long, action = ArgAction::Count)]
    pub verbose: u8,
    /// Words separated by commas: idle_timeout=SECONDS, ssl_... (see -Z), maxconns_fast (always on); others tune what is not here and are ignored
    #[arg(short = 'o', long, value_name = "WORDS")]
    pub extended: Vec<String>,

    /// Listen on other addresses than this machine's own although clients are not authenticated
    #[arg(long, help_heading = "Safety")]
    pub allow_unauthenticated: bool,

    /// Large memory pages
    #[arg(short = 'L', long, help_heading = IGNORED)]
    pub enable_largepages: bool,
    /// Slab growth factor
    #[arg(short = 'f', long, value_name = "NUM", help_heading = IGNORED)]
    pub slab_growth_factor: Option<String>,
    /// Smallest slab
    #[arg(short = 'n', long, value_name = "BYTES", help_heading = IGNORED)]
    pub slab_min_size: Option<String>,
    /// Memory in a file
    #[arg(short = 'e', long, value_name = "FILE", help_heading = IGNORED)]
    pub memory_file: Option<String>,
    /// Delimiter of key prefixes in statistics
    #[arg(short = 'D', value_name = "CHAR", help_heading = IGNORED)]
    pub prefix_delimiter: Option<String>,
    /// No cas
    #[arg(short = 'C', long, help_heading = IGNORED)]
    pub disable_cas: bool,
    /// No flush_all
    #[arg(short = 'F', long, help_heading = IGNORED)]
    pub disable_flush_all: bool,
    /// No dumping of keys
    #[arg(short = 'X', long, help_heading = IGNORED)]
    pub disable_dumping: bool,
    /// No watch
    #[arg(short = 'W', long, help_heading = IGNORED)]
    pub disable_watch: bool,
    /// UDP port; only 0 (off) is taken
    #[arg(short = 'U', long, value_name = "NUM", help_heading = REFUSED)]
    pub udp_port: Option<String>,
    /// The binary protocol only, and clients log in by SASL with the users of -Y
    #[arg(short = 'S', long)]
    pub enable_sasl: bool,
    /// Clients must log in; users and passwords are in this file, a line USER:PASSWORD each
    #[arg(short = 'Y', long, value_name = "FILE")]
    pub auth_file: Option<String>,
    /// TLS; -o has ssl_chain_cert=FILE, ssl_key=FILE, ssl_ca_cert=FILE, ssl_verify_mode=0..3, ssl_min_version=2..3
    #[arg(short = 'Z', long)]
    pub enable_ssl: bool,
}

const FILE_ENDINGS: [&str; 6] = [".toml", ".conf", ".cfg", ".ini", ".yaml", ".yml"];

/// Whether that is the name of a configuration file.
fn is_file_name(text: &str) -> bool {
    text.contains('/') || FILE_ENDINGS.iter().any(|ending| text.ends_with(ending))
}

/// memcached has other uses for letters that elsewhere stand for a configuration file: what to write instead.
pub fn file_after_flag(flag: &str, text: &str) -> Option<String> {
    is_file_name(text).then(|| format!("{flag} is memcached's flag; a configuration file is given by --config {text}"))
}

impl Flags {
    /// Flags with a value or an effect of their own, each as the text that its setting takes. Of `-o`, `-p` and `-l` others
    /// take care.
    pub fn given(&self) -> Vec<(&'static str, String)> {
        let switch = |given: bool, value: &str| given.then(|| value.to_owned());
        let all = [
            ("-s", self.unix_socket.clone()),
            ("-a", self.unix_mask.clone()),
            ("-Y", self.auth_file.clone()),
            ("-m", self.memory_limit.clone()),
            ("-I", self.max_item_size.clone()),
            ("-c", self.conn_limit.clone()),
            ("-t", self.threads.clone()),
            ("-b", self.listen_backlog.clone()),
            ("-R", self.max_reqs_per_event.clone()),
            ("-u", self.user.clone()),
            ("-P", self.pidfile.clone()),
            ("-M", switch(self.disable_evictions, "false")),
            ("-B", self.protocol.clone().filter(|_| !self.enable_sasl)),
            ("-A", switch(self.enable_shutdown, "true")),
            ("-d", switch(self.daemon, "true")),
            ("-k", switch(self.lock_memory, "true")),
            ("--allow-unauthenticated", switch(self.allow_unauthenticated, "true")),
            ("-v", (self.verbose > 0).then(|| self.verbose.min(3).to_string())),
        ];
        all.into_iter().filter_map(|(flag, text)| Some((flag, text?))).collect()
    }

    /// The words of `-o`, with their values.
    pub fn words(&self) -> impl DoubleEndedIterator<Item = (&str, Option<&str>)> {
        let words = self.extended.iter().flat_map(|list| list.split(','));
        words.map(str::trim).filter(|word| !word.is_empty()).map(|word| match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        })
    }

    /// What becomes of a word of `-o`; none if there is no such word.
    pub fn effect(&self, name: &str) -> Option<Word> {
        const OF_TLS: [&str; 6] =
            ["ssl_chain_cert", "ssl_key", "ssl_keyformat", "ssl_ca_cert", "ssl_verify_mode", "ssl_min_version"];
        if self.enable_ssl && OF_TLS.contains(&name) { Some(Word::Works) } else { words::word(name) }
    }

    /// What was given and changes nothing.
    pub fn ignored(&self) -> Vec<String> {
        let no_slabs = "this cache has no slabs";
        let given = [
            (self.enable_largepages, "-L", "memory pages are left to the system"),
            (self.slab_growth_factor.is_some(), "-f", no_slabs),
            (self.slab_min_size.is_some(), "-n", no_slabs),
            (self.memory_file.is_some(), "-e", "items are kept in memory only"),
            (self.prefix_delimiter.is_some(), "-D", "there are no statistics per prefix"),
            (self.disable_cas, "-C", "cas stays available"),
            (self.disable_flush_all, "-F", "flush_all stays available; it never touches managed keys"),
            (self.disable_dumping, "-X", "nothing depends on it"),
            (self.disable_watch, "-W", "nothing depends on it"),
        ];
        let flags = given.into_iter().filter(|(given, ..)| *given);
        let words = self.words().filter_map(|(name, _)| match self.effect(name) {
            Some(Word::Ignored(why)) => Some((name, why)),
            _ => None,
        });
        let factor = self.slab_growth_factor.as_deref();
        let file = factor.and_then(|text| file_after_flag("-f", text));
        flags
            .map(|(_, flag, why)| format!("flag {flag} is ignored: {why}"))
            .chain(file)
            .chain(words.map(|(name, why)| format!("flag -o: the word {} is ignored: {why}", quoted(name))))
            .collect()
    }

    /// What `-S` lacks; `has_users` is that there is a file of them.
    pub fn sasl_fault(&self, has_users: bool) -> Option<(&'static str, InvalidValue)> {
        let (what, remedy) = match self.protocol.as_deref() {
            _ if !self.enable_sasl => return None,
            Some("ascii") => (
                "SASL is part of the binary protocol, and -B ascii excludes that",
                "Remove -B, or remove -S: -Y alone lets clients log in over the text protocol.",
            ),
            _ if !has_users => (
                "SASL is asked for and nobody can log in: there is no file of users",
                "Give one with -Y FILE (server.auth_file), a line USER:PASSWORD for each user.",
            ),
            _ => return None,
        };
        Some(("-S", InvalidValue::new(what, remedy)))
    }

    /// What was asked for and this version does not have.
    pub fn refusals(&self) -> Vec<(&'static str, InvalidValue)> {
        let udp = self.udp_port.as_deref().filter(|port| port.trim() != "0").map(|port| {
            let what = format!("UDP port {}: this version has no UDP", quoted(port));
            ("-U", InvalidValue::new(what, "Remove -U or write -U 0."))
        });
        let key_format = self.words().rfind(|(word, _)| *word == "ssl_keyformat").and_then(|(_, value)| value);
        let key_format = key_format.filter(|format| self.enable_ssl && *format != "PEM").map(|_| {
            let remedy = "Convert it: openssl pkey -inform DER.";
            ("-o ssl_keyformat", InvalidValue::new("the private key must be in PEM format", remedy))
        });
        let words = self.words().filter_map(|(name, _)| Some(("-o", self.refused_word(name)?)));
        udp.into_iter().chain(key_format).chain(words).collect()
    }

    /// What is wrong with a word of `-o` itself.
    fn refused_word(&self, name: &str) -> Option<InvalidValue> {
        match self.effect(name) {
            Some(Word::Works | Word::Ignored(_)) => None,
            Some(Word::Refused(why, remedy)) => {
                Some(InvalidValue::new(format!("the word {}: {why}", quoted(name)), remedy))
            }
            None => {
                let remedy = match closest(name, words::names()) {
                    Some(closest) => format!("Did you mean {closest}?"),
                    None => "memcached has no such word; remove it.".to_owned(),
                };
                Some(InvalidValue::new(format!("the word {} is unknown", quoted(name)), remedy))
            }
        }
    }
}
