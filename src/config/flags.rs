//! memcached's flags, as texts: they are judged together with the file and the environment, so that one start
//! shows every fault.

use clap::{ArgAction, Args};

use super::fault::{Fault, Place, Problem};
use super::mistakes;
use super::settings::closest;
use super::value::{Given, Value, quoted};
use super::words::{self, Word};

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

/// The words of `-o` about TLS, and the settings they are.
const TLS_WORDS: &[(&str, &str, &str)] = &[
    ("ssl_chain_cert", "server.tls.cert", "-o ssl_chain_cert"),
    ("ssl_key", "server.tls.key", "-o ssl_key"),
    ("ssl_ca_cert", "server.tls.client_ca", "-o ssl_ca_cert"),
    ("ssl_verify_mode", "server.tls.client_certificates", "-o ssl_verify_mode"),
    ("ssl_min_version", "server.tls.min_version", "-o ssl_min_version"),
];

impl Flags {
    /// The settings that were given, each with its flag. `-p` and `-l` are read by [`super::listen`].
    pub(super) fn settings(&self, faults: &mut Vec<Fault>) -> Vec<(&'static str, Given)> {
        let text = |key, flag, value: &Option<String>| {
            value.clone().map(|value| (key, Given { value: Value::Text(value), place: Place::Flag(flag) }))
        };
        let switch = |key, flag, given: bool, value| {
            given.then_some((key, Given { value: Value::Bool(value), place: Place::Flag(flag) }))
        };
        let memory = self.memory_limit.clone().map(Value::Mebibytes);
        let verbosity = Value::Integer { value: self.verbose.min(3).into(), octal: false };
        [
            text("server.unix_socket", "-s", &self.unix_socket),
            text("server.unix_mode", "-a", &self.unix_mask),
            text("server.auth_file", "-Y", &self.auth_file),
            memory.map(|value| ("server.memory", Given { value, place: Place::Flag("-m") })),
            text("server.item_size_max", "-I", &self.max_item_size),
            text("server.max_connections", "-c", &self.conn_limit),
            text("server.threads", "-t", &self.threads),
            text("server.backlog", "-b", &self.listen_backlog),
            text("server.requests_per_turn", "-R", &self.max_reqs_per_event),
            text("server.user", "-u", &self.user),
            text("server.pid_file", "-P", &self.pidfile),
            switch("server.evict", "-M", self.disable_evictions, false),
            self.protocol(),
            switch("server.shutdown_command", "-A", self.enable_shutdown, true),
            switch("server.daemonize", "-d", self.daemon, true),
            switch("server.lock_memory", "-k", self.lock_memory, true),
            switch("server.allow_unauthenticated", "--allow-unauthenticated", self.allow_unauthenticated, true),
            self.idle_timeout(faults),
            (self.verbose > 0).then_some(("log.verbosity", Given { value: verbosity, place: Place::Flag("-v") })),
        ]
        .into_iter()
        .flatten()
        .chain(self.tls(faults))
        .collect()
    }

    /// The `ssl_` words, in this server's words. As with memcached they mean nothing without `-Z`.
    fn tls(&self, faults: &mut Vec<Fault>) -> Vec<(&'static str, Given)> {
        if !self.enable_ssl {
            return Vec::new();
        }
        let translated = |name: &str, value: &str| match (name, value) {
            ("ssl_verify_mode", "0") => "none".to_owned(),
            ("ssl_verify_mode", "1") => "optional".to_owned(),
            ("ssl_verify_mode", "2" | "3") => "required".to_owned(),
            // What is older than 1.2 is not spoken.
            ("ssl_min_version", "0" | "1" | "2") => "1.2".to_owned(),
            ("ssl_min_version", "3") => "1.3".to_owned(),
            _ => value.to_owned(),
        };
        // No setting of that name: it makes a certificate necessary.
        let asked = Given { value: Value::Bool(true), place: Place::Flag("-Z") };
        let mut settings = vec![("server.tls.asked", asked)];
        for (name, key, flag) in TLS_WORDS {
            match self.words().rfind(|(word, _)| word == name) {
                Some((_, Some(value))) => {
                    let value = Value::Text(translated(name, value));
                    settings.push((*key, Given { value, place: Place::Flag(flag) }));
                }
                Some((_, None)) => {
                    let problem = Problem::new("the value is missing", format!("Write {flag}=VALUE."));
                    faults.push(problem.at(&Place::Flag(flag)));
                    return Vec::new();
                }
                None => {}
            }
        }
        settings
    }

    fn word(&self, name: &str) -> Option<&str> {
        self.words().rfind(|(word, _)| *word == name)?.1
    }

    /// What `-S` lacks; `users` is that there is a file of them.
    pub(super) fn sasl_fault(&self, users: bool) -> Option<Fault> {
        let (what, remedy) = match self.protocol.as_deref() {
            _ if !self.enable_sasl => return None,
            Some("ascii") => (
                "SASL is part of the binary protocol, and -B ascii excludes that",
                "Remove -B, or remove -S: -Y alone lets clients log in over the text protocol.",
            ),
            _ if !users => (
                "SASL is asked for and nobody can log in: there is no file of users",
                "Give one with -Y FILE (server.auth_file), a line USER:PASSWORD for each user.",
            ),
            _ => return None,
        };
        Some(Problem::new(what, remedy).at(&Place::Flag("-S")))
    }

    /// As with memcached `-S` leaves the binary protocol alone.
    fn protocol(&self) -> Option<(&'static str, Given)> {
        let (name, flag) = match self.protocol.as_deref() {
            _ if self.enable_sasl => ("binary", "-S"),
            Some("auto-negotiate") => ("auto", "-B"),
            Some(name) => (name, "-B"),
            None => return None,
        };
        Some(("server.protocol", Given { value: Value::Text(name.to_owned()), place: Place::Flag(flag) }))
    }

    fn idle_timeout(&self, faults: &mut Vec<Fault>) -> Option<(&'static str, Given)> {
        let word = self.words().rfind(|(name, _)| *name == "idle_timeout")?;
        let place = Place::Flag("-o idle_timeout");
        match word.1 {
            Some(value) => Some(("server.idle_timeout_s", Given { value: Value::Text(value.into()), place })),
            None => {
                let remedy = "Write -o idle_timeout=SECONDS; 0 never closes a quiet connection.";
                faults.push(Problem::new("the number of seconds is missing", remedy).at(&place));
                None
            }
        }
    }

    /// The words of `-o`, with their values.
    fn words(&self) -> impl DoubleEndedIterator<Item = (&str, Option<&str>)> {
        let words = self.extended.iter().flat_map(|list| list.split(','));
        words.map(str::trim).filter(|word| !word.is_empty()).map(|word| match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        })
    }

    /// What becomes of a word of `-o`; none if there is no such word.
    fn effect(&self, name: &str) -> Option<Word> {
        let of_tls = || name == "ssl_keyformat" || TLS_WORDS.iter().any(|(word, ..)| *word == name);
        if self.enable_ssl && of_tls() { Some(Word::Works) } else { words::word(name) }
    }

    /// What is wrong with a word of `-o` itself.
    fn refused_word(&self, name: &str) -> Option<Problem> {
        match self.effect(name) {
            Some(Word::Works | Word::Ignored(_)) => None,
            Some(Word::Refused(why, remedy)) => Some(Problem::new(format!("the word {}: {why}", quoted(name)), remedy)),
            None => {
                let remedy = match closest(name, words::names()) {
                    Some(closest) => format!("Did you mean {closest}?"),
                    None => "memcached has no such word; remove it.".to_owned(),
                };
                Some(Problem::new(format!("the word {} is unknown", quoted(name)), remedy))
            }
        }
    }

    /// What was asked for and this version does not have.
    pub(super) fn refusals(&self) -> Vec<Fault> {
        let udp = self.udp_port.as_deref().filter(|port| port.trim() != "0");
        [
            udp.map(|port| {
                ("-U", format!("UDP port {}: this version has no UDP", quoted(port)), "Remove -U or write -U 0.")
            }),
            (self.enable_ssl && self.word("ssl_keyformat").is_some_and(|format| format != "PEM")).then(|| {
                (
                    "-o ssl_keyformat",
                    "the private key must be in PEM format".into(),
                    "Convert it: openssl pkey -inform DER.",
                )
            }),
        ]
        .into_iter()
        .flatten()
        .map(|(flag, what, remedy): (_, String, _)| Problem::new(what, remedy).at(&Place::Flag(flag)))
        .chain(self.words().filter_map(|(name, _)| Some(self.refused_word(name)?.at(&Place::Flag("-o")))))
        .collect()
    }

    /// What was given and changes nothing.
    pub(super) fn ignored(&self) -> Vec<String> {
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
        let file = factor.and_then(|text| mistakes::file_after_flag("-f", text));
        flags
            .map(|(_, flag, why)| format!("flag {flag} is ignored: {why}"))
            .chain(file)
            .chain(words.map(|(name, why)| format!("flag -o: the word {} is ignored: {why}", quoted(name))))
            .collect()
    }
}
