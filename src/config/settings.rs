//! The names of all settings: the one list that the file, the environment and the manual are held against.

/// A setting outside `[[app]]`: `section.key` and memcached's flag for it, if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub key: &'static str,
    pub flag: Option<&'static str>,
}

impl Setting {
    /// `server.listen` is `TOKENCACHED_SERVER_LISTEN` in the environment.
    pub fn environment_name(&self) -> String {
        format!("TOKENCACHED_{}", self.key.replace('.', "_").to_uppercase())
    }
}

const fn with(key: &'static str, flag: &'static str) -> Setting {
    Setting { key, flag: Some(flag) }
}

const fn plain(key: &'static str) -> Setting {
    Setting { key, flag: None }
}

/// Every setting that has one value.
pub const SETTINGS: &[Setting] = &[
    with("server.listen", "-l"),
    with("server.unix_socket", "-s"),
    with("server.unix_mode", "-a"),
    plain("server.unix_group"),
    plain("server.rights"),
    with("server.auth_file", "-Y"),
    plain("server.auth_credential"),
    with("server.tls.cert", "-o ssl_chain_cert"),
    plain("server.tls.cert_credential"),
    with("server.tls.key", "-o ssl_key"),
    plain("server.tls.key_credential"),
    with("server.tls.client_ca", "-o ssl_ca_cert"),
    with("server.tls.client_certificates", "-o ssl_verify_mode"),
    with("server.tls.min_version", "-o ssl_min_version"),
    with("server.allow_unauthenticated", "--allow-unauthenticated"),
    with("server.memory", "-m"),
    with("server.item_size_max", "-I"),
    with("server.evict", "-M"),
    with("server.max_connections", "-c"),
    with("server.threads", "-t"),
    with("server.backlog", "-b"),
    with("server.requests_per_turn", "-R"),
    with("server.idle_timeout_s", "-o idle_timeout"),
    plain("server.first_get_wait_ms"),
    plain("server.refuse_with"),
    with("server.protocol", "-B"),
    with("server.shutdown_command", "-A"),
    with("server.user", "-u"),
    with("server.pid_file", "-P"),
    with("server.daemonize", "-d"),
    with("server.lock_memory", "-k"),
    plain("state.path"),
    plain("state.url"),
    plain("state.db"),
    plain("state.user"),
    plain("state.password"),
    plain("state.password_file"),
    plain("state.password_env"),
    plain("state.password_credential"),
    plain("state.ca_file"),
    plain("state.cert_file"),
    plain("state.key_file"),
    plain("state.key_credential"),
    plain("state.trusted_hosts"),
    plain("state.timeout_ms"),
    plain("state.secret"),
    plain("state.secret_file"),
    plain("state.secret_env"),
    plain("state.secret_credential"),
    plain("state.prefix"),
    plain("state.poll_every_ms"),
    plain("state.node"),
    plain("state.upstream"),
    plain("state.upstream_key"),
    plain("state.upstream_key_file"),
    plain("state.upstream_key_env"),
    plain("state.upstream_key_credential"),
    plain("state.upstream_ca_file"),
    plain("upstream.base_url"),
    plain("upstream.hosts"),
    plain("upstream.ca_file"),
    plain("upstream.connect_timeout_ms"),
    plain("upstream.total_timeout_ms"),
    plain("upstream.concurrency"),
    plain("upstream.proxy"),
    plain("side.listen"),
    plain("side.keys_file"),
    plain("side.keys_credential"),
    plain("side.allowed_hosts"),
    plain("side.trusted_proxies"),
    plain("side.tls.cert"),
    plain("side.tls.cert_credential"),
    plain("side.tls.key"),
    plain("side.tls.key_credential"),
    plain("side.tls.min_version"),
    plain("side.max_connections"),
    plain("side.max_connections_per_peer"),
    plain("side.requests_per_s"),
    plain("side.metrics_per_credential"),
    plain("side.wechat_expires_in_min_s"),
    plain("log.json"),
    with("log.verbosity", "-v"),
];

/// The keys of an `[[app]]` table.
pub const APP_KEYS: &[&str] = &[
    "appid",
    "name",
    "secret",
    "secret_file",
    "secret_env",
    "secret_credential",
    "kind",
    "endpoint",
    "agent",
    "base_url",
    "aliases",
    "client",
    "daily_quota",
    "daily_ticket_quota",
    "fallback",
    "forced_per_day",
    "probe_every_s",
    "adopt",
    "presets",
    "prefix",
    "tickets",
    "verify_ticket_file",
    "authorizer",
];

/// The keys of an `[[app.authorizer]]` table.
pub const AUTHORIZER_KEYS: &[&str] = &[
    "appid",
    "name",
    "refresh_token",
    "refresh_token_file",
    "refresh_token_env",
    "refresh_token_credential",
    "aliases",
    "client",
    "daily_quota",
    "daily_ticket_quota",
    "presets",
    "prefix",
    "tickets",
];

/// The keys of a `[[server.listener]]` table.
pub const LISTENER_KEYS: &[&str] = &["address", "rights", "auth", "tls", "mode", "group"];

/// The keys of a `[[user]]` and of a `[[certificate]]` table.
pub const NAMED_KEYS: &[&str] = &["name", "rights"];

/// The sections of the file.
pub(super) const SECTIONS: &[&str] =
    &["server", "state", "upstream", "side", "log", "app", "user", "certificate", "sink"];

/// The setting of that name, as the list spells it.
pub(super) fn find(section: &str, key: &str) -> Option<&'static str> {
    let found = |setting: &&Setting| setting.key.split_once('.') == Some((section, key));
    SETTINGS.iter().find(found).map(|setting| setting.key)
}

/// The keys of a section, without the section's name.
pub(super) fn keys_of(section: &str) -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().filter_map(move |setting| {
        let (of, key) = setting.key.split_once('.')?;
        (of == section).then_some(key)
    })
}

/// The candidate that `word` is probably a misspelling of.
pub(super) fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 2.max(candidate.len() / 4) && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
