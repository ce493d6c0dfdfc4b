//! The settings in effect, as a file that could have said so. Secrets are hidden.

use std::fmt::Write;
use std::path::Path;

use super::adopt;
use super::aliases::as_toml;
use super::load::Loaded;
use super::value::size_text;
use super::{
    ClientCertificates, HIDDEN, ListenAt, Listener, Nodes, RedisOptions, RefuseWith, SecretOrigin, Side, Sink,
    SinkCommand, SinkFile, SinkTo, SqlSink, Tls, TlsVersion, Ttl,
};
use crate::access::Rights;
use crate::platform::client::proxy_shown;
use crate::redis_client::options::TlsFiles;
use crate::sink::options::{SqlAt, SqlTls};
use crate::sink::template::TimeShown;

impl Loaded {
    /// All settings in effect as TOML. It loads again, except where a hidden secret stands.
    pub fn effective(&self) -> String {
        let mut out = String::new();
        self.server(&mut out);
        self.rest(&mut out);
        // A component's authorizers follow it in the list, and in the file stand below it.
        for (app, origin) in self.config.credentials.apps.iter().zip(&self.origins) {
            let authorizer = app.component.is_some();
            out.push_str(if authorizer { "\n[[app.authorizer]]\n" } else { "\n[[app]]\n" });
            line(&mut out, "appid", &quoted(&app.appid));
            if let Some(name) = &app.name {
                line(&mut out, "name", &quoted(name));
            }
            secret(&mut out, if authorizer { "refresh_token" } else { "secret" }, origin);
            if !authorizer {
                line(&mut out, "kind", &quoted(app.platform.name));
                let endpoint = app.platform.tokens.iter().find(|(_, kind)| *kind == app.token);
                let endpoint = endpoint.map_or("", |(word, _)| word);
                line(&mut out, "endpoint", &quoted(endpoint));
            }
            let tickets = app.platform.tickets.iter().filter(|(_, kind)| app.tickets.contains(kind));
            line(&mut out, "tickets", &list(tickets.map(|(word, _)| quoted(word))));
            if let Some(agent) = &app.agent {
                line(&mut out, "agent", &quoted(agent));
            }
            if let Some(path) = &app.verify_ticket_file {
                line(&mut out, "verify_ticket_file", &quoted_path(path));
            }
            if let Some(url) = app.base_url.as_ref().filter(|_| !authorizer) {
                line(&mut out, "base_url", &quoted(url));
            }
            line(&mut out, "aliases", &list(app.aliases.iter().map(|alias| as_toml(alias, quoted))));
            if let Some(daily_quota) = app.daily_quota {
                line(&mut out, "daily_quota", &daily_quota.to_string());
            }
            if let Some(daily_ticket_quota) = app.daily_ticket_quota {
                line(&mut out, "daily_ticket_quota", &daily_ticket_quota.to_string());
            }
            let fallback = app.platform.tokens.iter().find(|(_, kind)| Some(*kind) == app.fallback);
            if let Some((fallback, _)) = fallback {
                line(&mut out, "fallback", &quoted(fallback));
            }
            if let Some(every_ms) = app.probe_every_ms {
                line(&mut out, "probe_every_s", &(every_ms / 1000).to_string());
            }
            if let Some(from) = &app.adopt {
                line(&mut out, "adopt", &adopt::as_toml(from, quoted));
            }
            if let Some(forced_per_day) = app.forced_per_day {
                line(&mut out, "forced_per_day", &forced_per_day.to_string());
            }
        }
        self.config.sinks.iter().for_each(|of| sink(&mut out, of));
        out
    }

    fn server(&self, out: &mut String) {
        let server = &self.config.server;
        let refuse_with = match server.refuse_with {
            RefuseWith::NotStored => "not_stored",
            RefuseWith::ClientError => "client_error",
        };
        out.push_str("[server]\n");
        line(out, "listen", &list(server.listen.iter().map(|address| quoted(&address.to_string()))));
        if let Some(path) = &server.unix_socket {
            line(out, "unix_socket", &quoted_path(path));
        }
        line(out, "unix_mode", &quoted(&format!("{:04o}", server.unix_mode)));
        if let Some(group) = &server.unix_group {
            line(out, "unix_group", &quoted(group));
        }
        line(out, "rights", &rights(&server.rights));
        if let Some(path) = &self.config.access.auth_file {
            self.file(out, "auth_file", "auth_credential", path);
        }
        if let Some(tls) = &self.config.access.tls {
            self.tls_identity(out, tls);
            tls_keys(out, tls);
        }
        line(out, "allow_unauthenticated", &self.allow_unauthenticated.to_string());
        line(out, "memory", &quoted(&size_text(server.memory_bytes)));
        line(out, "item_size_max", &quoted(&size_text(server.item_size_max_bytes as u64)));
        line(out, "evict", &server.evict.to_string());
        line(out, "max_connections", &server.max_connections.to_string());
        line(out, "threads", &server.threads.to_string());
        line(out, "backlog", &server.backlog.to_string());
        line(out, "requests_per_turn", &server.requests_per_turn.to_string());
        line(out, "idle_timeout_s", &server.idle_timeout_s.to_string());
        line(out, "first_get_wait_ms", &server.first_get_wait_ms.to_string());
        line(out, "refuse_with", &quoted(refuse_with));
        line(out, "protocol", &quoted(server.protocol.word()));
        line(out, "shutdown_command", &server.shutdown_command.to_string());
        if let Some(user) = &server.user {
            line(out, "user", &quoted(user));
        }
        if let Some(path) = &server.pid_file {
            line(out, "pid_file", &quoted_path(path));
        }
        line(out, "daemonize", &server.daemonize.to_string());
        line(out, "lock_memory", &server.lock_memory.to_string());
        server.listeners.iter().for_each(|of| listener(out, of));
    }

    /// By its path, or by its name if systemd has put it there.
    fn file(&self, out: &mut String, key: &str, credential: &str, path: &Path) {
        match path.file_name().and_then(|name| name.to_str()) {
            Some(name) if self.credentials_folder.is_some() && path.parent() == self.credentials_folder.as_deref() => {
                line(out, credential, &quoted(name));
            }
            _ => line(out, key, &quoted_path(path)),
        }
    }

    fn tls_identity(&self, out: &mut String, tls: &Tls) {
        self.file(out, "tls.cert", "tls.cert_credential", &tls.cert);
        self.file(out, "tls.key", "tls.key_credential", &tls.key);
    }

    fn rest(&self, out: &mut String) {
        let (upstream, log) = (&self.config.credentials.upstream, &self.config.log);
        out.push_str("\n[state]\n");
        line(out, "path", &self.config.credentials.state_path.as_deref().map_or_else(|| quoted("none"), quoted_path));
        if let Some(of) = &self.config.credentials.cluster {
            nodes(out, of);
        }
        out.push_str("\n[upstream]\n");
        line(out, "base_url", &quoted(&upstream.base_url));
        line(out, "hosts", &list(upstream.hosts.iter().map(|url| quoted(url))));
        if let Some(path) = &upstream.ca_file {
            line(out, "ca_file", &quoted_path(path));
        }
        line(out, "connect_timeout_ms", &upstream.connect_timeout_ms.to_string());
        line(out, "total_timeout_ms", &upstream.total_timeout_ms.to_string());
        line(out, "concurrency", &upstream.concurrency.to_string());
        if let Some(proxy) = &upstream.proxy {
            line(out, "proxy", &quoted(&proxy_shown(proxy)));
        }
        if let Some(of) = &self.config.http {
            side(self, out, of);
        }
        out.push_str("\n[log]\n");
        line(out, "json", &log.json.to_string());
        line(out, "verbosity", &log.verbosity.to_string());
        for (name, of) in &self.config.access.users {
            out.push_str("\n[[user]]\n");
            line(out, "name", &quoted(name));
            line(out, "rights", &rights(of));
        }
        for (whose, of) in &self.config.access.certificates {
            out.push_str("\n[[certificate]]\n");
            line(out, "name", &quoted(&whose.to_string()));
            line(out, "rights", &rights(of));
        }
    }
}

fn sink(out: &mut String, sink: &Sink) {
    out.push_str("\n[[sink]]\n");
    match &sink.to {
        SinkTo::Redis { server, ttl } => {
            redis(out, server);
            line(out, "keys", &list(sink.entries.iter().map(|key| key.as_toml(quoted))));
            match ttl {
                Ttl::None => line(out, "ttl", &quoted("none")),
                Ttl::Left { margin_s } => {
                    line(out, "ttl", &quoted("left"));
                    line(out, "ttl_margin_s", &margin_s.to_string());
                }
            }
        }
        SinkTo::Sql(to) => sql(out, sink, to),
        SinkTo::File(file) => {
            sink_file(out, file);
            scope(out, sink);
        }
        SinkTo::Command(of) => command(out, sink, of),
    }
    if !matches!(sink.to, SinkTo::Command(_)) {
        line(out, "check_every_s", &(sink.check_every_ms / 1000).to_string());
    }
    line(out, "rewrite_every_s", &(sink.rewrite_every_ms / 1000).to_string());
}

fn command(out: &mut String, sink: &Sink, command: &SinkCommand) {
    let program = std::iter::once(quoted_path(&command.program));
    line(out, "command", &list(program.chain(command.arguments.iter().map(|word| quoted(word)))));
    scope(out, sink);
    line(out, "timeout_s", &(command.timeout_ms / 1000).to_string());
}

fn sink_file(out: &mut String, file: &SinkFile) {
    line(out, "file", &quoted(&file.path));
    file.lines.iter().for_each(|of| {
        let _ = writeln!(out, "{of}");
    });
    line(out, "at_least", &file.at_least_s.to_string());
    line(out, "mode", &quoted(&format!("{:04o}", file.mode)));
    if let Some(TimeShown { fact, add }) = file.mtime {
        let add = if add == 0 { String::new() } else { format!("{add:+}") };
        line(out, "mtime", &quoted(&format!("{{{}{add}}}", fact.word())));
    }
}

/// A database, and what is run there.
fn sql(out: &mut String, sink: &Sink, SqlSink { server, plans, preset }: &SqlSink) {
    line(out, "url", &quoted(&server.url()));
    if let SqlAt::Unix { path, .. } = &server.at {
        line(out, "socket", &quoted_path(path));
    }
    if let Some(user) = &server.user {
        line(out, "user", &quoted(user));
    }
    if let Some(origin) = &server.password_origin {
        secret(out, "password", origin);
    }
    match &server.tls {
        SqlTls::Verified { ca_file } => {
            line(out, "tls", &quoted("verify"));
            ca_file.iter().for_each(|path| line(out, "ca_file", &quoted_path(path)));
        }
        SqlTls::Unverified => line(out, "tls", &quoted("encrypt")),
        SqlTls::Off => line(out, "tls", &quoted("off")),
        SqlTls::IfOffered => {}
    }
    line(out, "timeout_ms", &server.timeout_ms.to_string());
    if let Some((name, prefix)) = preset {
        line(out, "presets", &list([quoted(name)].into_iter()));
        if !prefix.is_empty() {
            line(out, "prefix", &quoted(prefix));
        }
    }
    for plan in plans.iter().filter(|_| preset.is_none()) {
        line(out, "statement", &list(plan.write.iter().map(|statement| quoted(&statement.written))));
        for (key, statement) in [("insert", &plan.insert), ("read", &plan.read), ("retract", &plan.retract)] {
            statement.iter().for_each(|statement| line(out, key, &quoted(&statement.written)));
        }
    }
    scope(out, sink);
}

/// Whose credentials a sink is about, and which.
fn scope(out: &mut String, sink: &Sink) {
    let (mut apps, mut kinds): (Vec<&str>, Vec<&str>) = Default::default();
    for entry in &sink.entries {
        // An app's entries stand together.
        if apps.last() != Some(&entry.app.as_str()) {
            apps.push(&entry.app);
        }
        if !kinds.contains(&entry.of.word()) {
            kinds.push(entry.of.word());
        }
    }
    line(out, "apps", &list(apps.into_iter().map(quoted)));
    line(out, "kinds", &list(kinds.into_iter().map(quoted)));
}

/// Which Redis, of a sink and of the state.
fn redis(out: &mut String, server: &RedisOptions) {
    line(out, "url", &quoted(&server.url()));
    if let Some(TlsFiles { ca_file, identity }) = &server.tls {
        if let Some(path) = ca_file {
            line(out, "ca_file", &quoted_path(path));
        }
        if let Some((cert, key)) = identity {
            line(out, "cert_file", &quoted_path(cert));
            line(out, "key_file", &quoted_path(key));
        }
    }
    line(out, "db", &server.db.to_string());
    if let Some(user) = &server.user {
        line(out, "user", &quoted(user));
    }
    if let Some(origin) = &server.password_origin {
        secret(out, "password", origin);
    }
    if !server.trusted_hosts.is_empty() {
        line(out, "trusted_hosts", &list(server.trusted_hosts.iter().map(|host| quoted(&host.text()))));
    }
    line(out, "timeout_ms", &server.timeout_ms.to_string());
}

/// What several nodes have in common, in `[state]`.
fn nodes(out: &mut String, nodes: &Nodes) {
    match nodes {
        Nodes::Redis(state) => {
            redis(out, &state.server);
            secret(out, "secret", &state.sealing_origin);
            line(out, "prefix", &quoted(&state.prefix));
            line(out, "poll_every_ms", &state.poll_every_ms.to_string());
            line(out, "node", &quoted(&state.node));
        }
        Nodes::Leader(upstream) => {
            line(out, "upstream", &list(upstream.urls.iter().map(|url| quoted(url))));
            if let Some(origin) = &upstream.key_origin {
                secret(out, "upstream_key", origin);
            }
            if let Some(path) = &upstream.ca_file {
                line(out, "upstream_ca_file", &quoted_path(path));
            }
            line(out, "timeout_ms", &upstream.timeout_ms.to_string());
            line(out, "poll_every_ms", &upstream.poll_every_ms.to_string());
            line(out, "node", &quoted(&upstream.node));
        }
    }
}

/// Where a secret comes from.
fn secret(out: &mut String, key: &str, origin: &SecretOrigin) {
    match origin {
        SecretOrigin::File(path) => line(out, &format!("{key}_file"), &quoted_path(path)),
        SecretOrigin::Credential(name) => line(out, &format!("{key}_credential"), &quoted(name)),
        SecretOrigin::Environment(name) => line(out, &format!("{key}_env"), &quoted(name)),
        SecretOrigin::Inline => line(out, key, &format!("{} # written in the file", quoted(HIDDEN))),
        SecretOrigin::Nowhere => {}
    }
}

fn line(out: &mut String, key: &str, value: &str) {
    let _ = writeln!(out, "{key} = {value}");
}

fn rights(rights: &Rights) -> String {
    match &rights.words()[..] {
        [word] => quoted(word),
        words => list(words.iter().map(|word| quoted(word))),
    }
}

/// What is asked of clients.
fn tls_keys(out: &mut String, tls: &Tls) {
    let (asked, ca) = match &tls.clients {
        ClientCertificates::Ignored => ("none", None),
        ClientCertificates::Optional(ca) => ("optional", Some(ca)),
        ClientCertificates::Required(ca) => ("required", Some(ca)),
    };
    if let Some(ca) = ca {
        line(out, "tls.client_ca", &quoted_path(ca));
    }
    line(out, "tls.client_certificates", &quoted(asked));
    line(out, "tls.min_version", &quoted(min_version(tls)));
}

fn side(loaded: &Loaded, out: &mut String, side: &Side) {
    out.push_str("\n[side]\n");
    line(out, "listen", &list(side.listen.iter().map(|address| quoted(&address.to_string()))));
    if let Some(path) = &side.keys_file {
        loaded.file(out, "keys_file", "keys_credential", path);
    }
    line(out, "allowed_hosts", &list(side.allowed_hosts.iter().map(|host| quoted(host))));
    line(out, "trusted_proxies", &list(side.trusted_proxies.iter().map(|network| quoted(&network.to_string()))));
    if let Some(tls) = &side.tls {
        loaded.tls_identity(out, tls);
        line(out, "tls.min_version", &quoted(min_version(tls)));
    }
    line(out, "max_connections", &side.max_connections.to_string());
    line(out, "max_connections_per_peer", &side.max_connections_per_peer.to_string());
    line(out, "requests_per_s", &side.requests_per_s.to_string());
    line(out, "metrics_per_credential", &quoted(side.metrics_per_credential.word()));
    if let Some(seconds) = side.wechat_expires_in_min_s {
        line(out, "wechat_expires_in_min_s", &seconds.to_string());
    }
}

fn min_version(tls: &Tls) -> &'static str {
    match tls.min_version {
        TlsVersion::Tls12 => "1.2",
        TlsVersion::Tls13 => "1.3",
    }
}

fn listener(out: &mut String, listener: &Listener) {
    out.push_str("\n[[server.listener]]\n");
    match &listener.at {
        ListenAt::Tcp(address) => {
            line(out, "address", &quoted(&address.to_string()));
            line(out, "tls", &listener.tls.to_string());
        }
        ListenAt::Unix { path, mode, group } => {
            line(out, "address", &quoted(&format!("unix:{}", path.display())));
            line(out, "mode", &quoted(&format!("{mode:04o}")));
            if let Some(group) = group {
                line(out, "group", &quoted(group));
            }
        }
    }
    line(out, "rights", &rights(&listener.rights));
    line(out, "auth", &listener.auth.to_string());
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}
