//! `[server]` and who may connect: addresses, limits, TLS, users, certificates, and listeners with terms of their own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::file::Document;
use super::reader::{RawTable, Reader};
use super::value::{self, Value};
use crate::access::{CertificateMatcher, HOW_TO_WRITE_RIGHTS, Rights};
use crate::cli::Flags;
use crate::files;
use crate::invalid_value::{quoted, wrong};
use crate::raw_value::{Place, RawValue, ReadResult, kind, text, texts};
use crate::server::listen_address::{self, ListenAddress, PORT, TcpPort};
use crate::server::options::{Access, ListenAt, Listener, Options as Server, Protection, Protocol, judge_item_size};
use crate::service::RefuseWith;
use crate::tls::{AskedFor, ClientCertificates, TlsOptions, TlsVersion};
use crate::unit::credentials;

/// What stands before the path of a Unix socket.
const UNIX: &str = "unix:";

impl Reader<'_> {
    /// Everything about memcached's clients.
    pub(super) fn server(&mut self, document: &Document, flags: &Flags) -> (Server, Access) {
        let table = document.one("server");
        let auth_file = self.file(table, "auth_file", "auth_credential");
        let auth_place = auth_file.as_ref().map_or(Place::Default, |(_, place)| place.clone());
        let access = Access {
            auth_file: auth_file.map(|(path, _)| path),
            tls: self.server_tls(table, flags),
            users: self.users(document.list("user")),
            certificates: self.certificates(document.list("certificate")),
        };
        self.faults.extend(flags.sasl_fault(access.auth_file.is_some()).map(super::flags::fault));
        let unix_socket = self.get_placed(table, "unix_socket");
        let unix_group: Option<String> = self.get(table, "unix_group");
        let protection = Protection {
            passwords: access.auth_file.is_some(),
            tls: access.tls.is_some(),
            certificates: access.requires_certificates(),
            allowed: self.value(table, "allow_unauthenticated"),
        };
        let (memory_bytes, item_size_max_bytes) = self.sizes(table);
        let cores = std::thread::available_parallelism().map_or(4, usize::from).clamp(1, 1024);
        let threads = self.get(table, "threads").unwrap_or(cores);
        table.print("threads", threads);
        let server = Server {
            listen: self.listen(table, flags, &unix_socket, protection),
            unix_mode: self.socket_mode(table, "unix_mode", unix_group.as_deref()),
            unix_socket: unix_socket.map(|(path, _)| path),
            unix_group,
            rights: self.rights(table).unwrap_or(Rights::ALL),
            listeners: table
                .tables
                .iter()
                .flat_map(|table| self.listener(table, &access, protection.allowed))
                .collect(),
            memory_bytes,
            item_size_max_bytes,
            evict: self.value(table, "evict"),
            max_connections: self.value(table, "max_connections"),
            threads,
            backlog: self.value(table, "backlog"),
            requests_per_turn: self.value(table, "requests_per_turn"),
            idle_timeout_s: self.value(table, "idle_timeout_s"),
            first_get_wait_ms: self.value(table, "first_get_wait_ms"),
            refuse_with: self.word(table, "refuse_with", RefuseWith::WORDS).unwrap_or_default(),
            protocol: self.word(table, "protocol", Protocol::WORDS).unwrap_or_default(),
            shutdown_command: self.value(table, "shutdown_command"),
            user: self.get(table, "user"),
            pid_file: self.get(table, "pid_file"),
            daemonize: self.value(table, "daemonize"),
            lock_memory: self.value(table, "lock_memory"),
        };
        table.print("listen", server.listen.iter().map(SocketAddr::to_string).collect::<Vec<_>>());
        self.judge_access(&access, &auth_place);
        (server, access)
    }

    fn sizes(&mut self, table: &RawTable) -> (u64, usize) {
        let memory = self.value(table, "memory");
        let (item, place) = self.get_placed(table, "item_size_max").unwrap_or((0, Place::Default));
        if let (false, Err(invalid)) = (place == Place::Default, judge_item_size(item, memory)) {
            self.fault((table, "item_size_max", &place), invalid);
        }
        let item = item.min(memory / 2);
        table.print("item_size_max", item);
        (memory, usize::try_from(item).unwrap_or(usize::MAX))
    }

    /// With a group a socket is for the group, too.
    fn socket_mode(&mut self, table: &RawTable, key: &str, group: Option<&str>) -> u32 {
        let mode = self.get(table, key).unwrap_or(if group.is_some() { 0o770 } else { 0o700 });
        table.print(key, mode);
        mode
    }

    fn server_tls(&mut self, table: &RawTable, flags: &Flags) -> Option<TlsOptions> {
        let client_ca = self.get(table, "tls.client_ca");
        let asked = self.word(table, "tls.client_certificates", AskedFor::WORDS);
        let clients = self.accept((table, "tls.client_certificates"), ClientCertificates::new(asked, client_ca));
        let clients = clients.unwrap_or(ClientCertificates::Ignored);
        match self.tls(table, clients) {
            Ok(tls) => {
                table.print("tls.client_certificates", tls.clients.word());
                Some(tls)
            }
            Err(_) => {
                self.no_certificate(table, flags);
                table.forget("tls.client_certificates");
                None
            }
        }
    }

    fn no_certificate(&mut self, table: &RawTable, flags: &Flags) {
        if table.has("tls.cert") || table.has("tls.cert_credential") {
            return;
        }
        let given = table.all().rfind(|(of, _)| of.starts_with("tls.")).map(|(_, given)| given.place.clone());
        // A word without its value is a fault already.
        let whole = flags.words().all(|(word, value)| !word.starts_with("ssl_") || value.is_some());
        let by_flag = (flags.enable_ssl && whole).then_some(Place::Flag("-Z"));
        let place = match given {
            Some(place @ Place::Flag(_)) => Some(place),
            given => by_flag.or(given),
        };
        if let Some(place) = place {
            let remedy = "Give cert under [server.tls] (-Z with -o ssl_chain_cert), a PEM file.";
            self.refuse(&place, "TLS has no certificate of the server", remedy);
        }
    }

    /// A port's TLS, which is on once there is a certificate; else where a key is given, if there is one.
    pub(super) fn tls(&mut self, table: &RawTable, clients: ClientCertificates) -> Result<TlsOptions, Option<Place>> {
        let cert = self.file(table, "tls.cert", "tls.cert_credential");
        let key = self.file(table, "tls.key", "tls.key_credential");
        let min_version = self.word(table, "tls.min_version", TlsVersion::WORDS).unwrap_or(TlsVersion::Tls12);
        let Some((cert, _)) = cert else {
            table.forget("tls.min_version");
            return Err(key.map(|(_, place)| place));
        };
        // A certificate's file may have the key, too.
        let key = key.map_or_else(|| cert.clone(), |(key, _)| key);
        self.print_file(table, "tls.key", "tls.key_credential", &key);
        Ok(TlsOptions { cert, key, clients, min_version })
    }

    /// Rights as one word or a list of words.
    fn rights(&mut self, table: &RawTable) -> Option<Rights> {
        let rights = self.read(table, "rights", |value| {
            let words = texts(value, "stands where rights belong", HOW_TO_WRITE_RIGHTS, |word| Ok(word.to_owned()))?;
            Rights::of_words(words.iter().map(String::as_str))
        });
        let words = rights.as_ref().unwrap_or(&Rights::ALL).words();
        let shown = if let [word] = &words[..] { Value::Text(word.clone()) } else { Value::List(words) };
        table.print("rights", shown);
        rights
    }

    /// The `[[user]]` tables.
    fn users(&mut self, tables: &[RawTable]) -> BTreeMap<String, Rights> {
        let mut users = BTreeMap::new();
        for table in tables {
            let Some((name, rights)) = self.named(table, |name| Ok(name.to_owned())) else { continue };
            if users.insert(name.clone(), rights).is_some() {
                let what = format!("the user {} has a table already", quoted(&name));
                self.refuse(table, what, "Write one [[user]] for each name.");
            }
        }
        users
    }

    /// The `[[certificate]]` tables, in their order.
    fn certificates(&mut self, tables: &[RawTable]) -> Vec<(CertificateMatcher, Rights)> {
        tables.iter().filter_map(|table| self.named(table, str::parse::<CertificateMatcher>)).collect()
    }

    fn named<T: ToString>(&mut self, table: &RawTable, read: impl Fn(&str) -> ReadResult<T>) -> Option<(T, Rights)> {
        let name = self.read(table, "name", |value| read(text(value)?));
        let rights = self.rights(table);
        let what = table.section.name;
        for key in ["name", "rights"].into_iter().filter(|key| !table.has(key)) {
            let remedy = format!("Add a line {key} = ... to the [[{what}]].");
            self.refuse(table, format!("the {what} has no {key}"), remedy);
        }
        name.iter().for_each(|name| table.print("name", name.to_string()));
        Some((name?, rights?))
    }

    /// What the operator should know of the users' file and the private key; both were read.
    fn judge_access(&mut self, access: &Access, place: &Place) {
        if let Some(path) = &access.auth_file {
            let usual =
                "Write a line user:password for each user, as for memcached -Y, into a file this process can read.";
            let users =
                self.judge_access_file(path, access.read_users(), ["passwords", "auth_credential", usual], place);
            if users.is_some_and(|(users, _)| users.count() == 0) {
                self.warnings.push(format!("nobody in {} may log in: see [[user]]", path.display()));
            }
        }
        // A group may well be there to read keys.
        if let Some(tls) = access.tls.as_ref().filter(|tls| files::access_mask(&tls.key) & 0o007 != 0) {
            self.warnings.push(format!("anybody can read the private key in {} (chmod 600)", tls.key.display()));
        }
    }

    /// What the operator should know of a file that says who may come in, which was read. `usual` is what to do about it
    /// where systemd cannot help.
    pub(super) fn judge_access_file<T>(
        &mut self,
        path: &Path,
        read: Result<Option<T>, String>,
        [noun, credential, usual]: [&str; 3],
        place: &Place,
    ) -> Option<T> {
        if let Err(what) = &read {
            let by_unit = credentials::remedy_if_denied(self.environment, path, credential, None);
            self.refuse(place, what, by_unit.unwrap_or_else(|| usual.into()));
        } else if files::is_open_to_others(path) {
            self.warnings.push(format!("others can read the {noun} in {} (chmod 600)", path.display()));
        }
        read.ok().flatten()
    }

    /// The addresses to listen on, from all layers together.
    fn listen(
        &mut self,
        table: &RawTable,
        flags: &Flags,
        unix_socket: &Option<(PathBuf, Place)>,
        protection: Protection,
    ) -> Vec<SocketAddr> {
        let given = self.placed(table, "listen", |value, _| addresses(value));
        let before = self.faults.len();
        let port = flags.port.as_deref().map(listen_address::parse_port);
        let port = port.and_then(|port| self.accept(&Place::Flag("-p"), port));
        let flagged = self.flagged_addresses(flags);
        if let Some((_, Place::Flag("-s"))) = unix_socket {
            if flags.port.as_deref().is_some_and(|port| port.trim() != "0") || !flags.listen.is_empty() {
                self.warnings.push("flag -s switches TCP off, so -p and -l have no effect (as with memcached)".into());
            }
            return Vec::new();
        }
        let is_elsewhere = unix_socket.is_some() || !table.tables.is_empty();
        let (written, place) = match (flagged, given) {
            (Some(written), _) => (written, Place::Flag("-l")),
            (None, Some((written, place))) => (listen_address::moved_to(port, written), place),
            (None, None) if is_elsewhere && flags.port.is_none() => return Vec::new(),
            (None, None) => {
                let place = flags.port.as_ref().map_or(Place::Default, |_| Place::Flag("-p"));
                (vec![ListenAddress::of_this_machine()], place)
            }
        };
        let addresses = match port {
            Some(TcpPort::Off) => Vec::new(),
            Some(TcpPort::Fixed(port)) => self.socket_addresses(&written, port, &place),
            None => self.socket_addresses(&written, PORT, &place),
        };
        if addresses.is_empty() && !is_elsewhere && self.faults.len() == before {
            let place = if let Some(TcpPort::Off) = port { &Place::Flag("-p") } else { &place };
            let remedy = "Give an address (-l, listen) or a Unix socket (-s, unix_socket).";
            self.refuse(place, "there is nothing to listen on", remedy);
        }
        self.judge_addresses(&addresses, protection, &place);
        addresses
    }

    fn judge_addresses(&mut self, addresses: &[SocketAddr], protection: Protection, place: &Place) {
        let warning = self.accept(place, protection.judge(addresses));
        self.warnings.extend(warning.flatten());
    }

    fn flagged_addresses(&mut self, flags: &Flags) -> Option<Vec<ListenAddress>> {
        let lists = flags.listen.iter().map(|text| addresses(&RawValue::Text(text.clone())));
        let all: Vec<_> = lists.filter_map(|list| self.accept(&Place::Flag("-l"), list)).flatten().collect();
        (!flags.listen.is_empty()).then_some(all)
    }

    /// Looks up names.
    pub(super) fn socket_addresses(&mut self, written: &[ListenAddress], port: u16, place: &Place) -> Vec<SocketAddr> {
        let (addresses, unknown) = listen_address::resolve(written, port, self.environment);
        unknown.into_iter().for_each(|invalid| self.fault(place, invalid));
        addresses
    }

    /// A `[[server.listener]]`; a host name may be several addresses.
    fn listener(&mut self, table: &RawTable, access: &Access, allowed: bool) -> Vec<Listener> {
        let Some(address) = table.get("address") else {
            let remedy = "Add a line address = \"127.0.0.1:11212\" or address = \"unix:/run/x.sock\".";
            self.refuse(table, "the listener has no address", remedy);
            return Vec::new();
        };
        let rights = self.rights(table).unwrap_or(Rights::ALL);
        let no_auth = ["there are no users who could log in", "Give their file: auth_file in [server], or -Y."];
        let auth = self.switch_for(table, "auth", access.auth_file.is_some(), no_auth);
        if let Some(path) = text(&address.value).ok().and_then(|text| text.strip_prefix(UNIX)) {
            let path = self.folder.join(path);
            let group: Option<String> = self.get(table, "group");
            let what = "TLS is for TCP; a Unix socket has its access mask";
            self.refuse_unless_off(table, "tls", what, "Remove the key.");
            let mode = self.socket_mode(table, "mode", group.as_deref());
            table.print("address", format!("{UNIX}{}", path.display()));
            return vec![Listener { at: ListenAt::Unix { path, mode, group }, rights, auth, tls: false }];
        }
        let remedy = "Remove the key, or give an address like \"unix:/run/x.sock\".";
        self.refuse_unless_off(table, "mode", "an access mask is for a Unix socket", remedy);
        self.refuse_unless_off(table, "group", "a group is for a Unix socket", remedy);
        let no_tls = ["there is no certificate for TLS", "Give cert and key under [server.tls]."];
        let tls = self.switch_for(table, "tls", access.tls.is_some(), no_tls);
        let Some(written) = self.read(table, "address", addresses) else { return Vec::new() };
        let addresses = self.socket_addresses(&written, PORT, &address.place);
        let certificates = tls && access.requires_certificates();
        self.judge_addresses(&addresses, Protection { passwords: auth, tls, certificates, allowed }, &address.place);
        table.print("address", addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(","));
        let listener = |at| Listener { at: ListenAt::Tcp(at), rights: rights.clone(), auth, tls };
        addresses.into_iter().map(listener).collect()
    }

    /// A switch that is on where there is something to switch on, and a fault where there is not.
    fn switch_for(&mut self, table: &RawTable, key: &str, is_there: bool, [what, remedy]: [&str; 2]) -> bool {
        let on = self.get(table, key).unwrap_or(is_there);
        table.print(key, on);
        if on && !is_there {
            self.refuse((table, key), what, remedy);
        }
        on
    }

    /// A fault of a key that means nothing here, unless it says `false`.
    fn refuse_unless_off(&mut self, table: &RawTable, key: &str, what: &str, remedy: &str) {
        if table.get(key).is_some_and(|given| !matches!(value::switch(&given.value), Ok(false))) {
            self.refuse((table, key), what, remedy);
        }
    }
}

/// The addresses of a setting: a list, or one text with commas.
pub(super) fn addresses(value: &RawValue) -> ReadResult<Vec<ListenAddress>> {
    let remedy = "Write listen = [\"127.0.0.1:11211\"].";
    match value {
        RawValue::List(items) => {
            let lists = items.iter().map(|item| match &item.value {
                RawValue::Text(_) => addresses(&item.value),
                other => wrong(format!("{} is not an address", kind(other)), remedy),
            });
            lists.collect::<ReadResult<Vec<_>>>().map(|lists| lists.concat())
        }
        _ => texts(value, "is not a list of addresses", remedy, listen_address::parse),
    }
}
