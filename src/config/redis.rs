//! Which Redis and how to get in: the keys that a `[[sink]]` and `[state]` have in common.

use super::fault::SettingProblem;
use super::reader::{RawTable, Reader, toml_text, toml_texts};
use super::secrets::Wanted;
use super::value::{RawValue, ReadResult, quoted, text, texts};
use super::{RedisOptions, judge};
use crate::network::is_this_machine;
use crate::redis_client::address::{self, RedisAddress};
use crate::redis_client::options::{RedisAt, TlsFiles, TrustedHost};

const PASSWORD: Wanted = Wanted {
    key: "password",
    noun: "password",
    one: "a Redis",
    the: "the Redis",
    whose: "the password of that Redis",
    of_app: false,
};

impl Reader<'_> {
    /// The Redis of a table. None if there is no address that could be read.
    pub(super) fn redis(&mut self, table: &RawTable) -> Option<RedisOptions> {
        let address = self.read(table, "url", |value| Ok(address::parse(text(value)?)?));
        let db = table.has("db").then(|| self.number::<u32>(table, "db"));
        let user = self.any_text(table, "user");
        let ca_file = self.path_that(table, "ca_file", judge::certificates);
        let cert = self.path_that(table, "cert_file", judge::certificates);
        let key = self.file(table, "key_file", "key_credential", judge::pem).map(|(path, _)| path);
        let trusted_hosts = self.read(table, "trusted_hosts", trusted_hosts).unwrap_or_default();
        let timeout_ms = self.number(table, "timeout_ms");
        if user.is_some() && !PASSWORD.is_given(table) {
            let problem = SettingProblem::new("a user without a password", "Add password_file = \"/path\".");
            self.fault(table, "user", problem);
        }
        if let Some(address) = &address {
            self.tls_or_not(table, address);
        }
        let db = self.one_db(table, db, address.as_ref());
        let (password, password_origin) = self.secret_if_any(table, &PASSWORD).unzip();
        let RedisAddress { at, tls, .. } = address?;
        let tls = tls.then_some(TlsFiles { ca_file, identity: cert.zip(key) });
        if !trusted_hosts.is_empty() {
            table.print("trusted_hosts", toml_texts(trusted_hosts.iter().map(TrustedHost::text)));
        }
        let redis = RedisOptions { at, tls, db, user, password, password_origin, trusted_hosts, timeout_ms };
        table.print("url", toml_text(&redis.url()));
        Some(redis)
    }

    fn one_db(&mut self, table: &RawTable, db: Option<u32>, address: Option<&RedisAddress>) -> u32 {
        let in_url = address.and_then(|address| address.db);
        if let (Some(db), Some(other)) = (db, in_url)
            && db != other
        {
            let problem = SettingProblem::new(format!("the url says {other}, and db {db}"), "Keep one of the two.");
            self.fault(table, "url", problem);
        }
        let db = db.or(in_url).unwrap_or(0);
        table.print("db", db.to_string());
        db
    }

    fn tls_or_not(&mut self, table: &RawTable, address: &RedisAddress) {
        let has_key = table.has("key_file") || table.has("key_credential");
        let file = ["ca_file", "cert_file", "key_file", "key_credential"].into_iter().find(|key| table.has(key));
        let far = match &address.at {
            RedisAt::Tcp { host, .. } if !is_this_machine(host) => Some(host),
            // Where the master will be is not known yet.
            RedisAt::Sentinel { sentinels, .. } => {
                sentinels.iter().map(|(host, _)| host).find(|host| !is_this_machine(host))
            }
            _ => None,
        };
        match (address.tls, file) {
            (true, Some(key)) if table.has("cert_file") != has_key => {
                self.fault(
                    table,
                    key,
                    SettingProblem::new("cert_file and key_file belong together", "Give both, or neither."),
                );
            }
            (false, Some(key)) => {
                let problem = SettingProblem::new("the url does not speak TLS", "Write url = \"rediss://...\".");
                self.fault(table, key, problem);
            }
            (false, None) => self.warnings.extend(far.map(|host| {
                let place = table.place_of("url");
                format!("{place}: tokens pass the network in the clear on their way to {host}; rediss:// hides them")
            })),
            _ => {}
        }
    }
}

/// A list, or one text with commas.
fn trusted_hosts(value: &RawValue) -> ReadResult<Vec<TrustedHost>> {
    let remedy = "Write a list such as [\"10.0.0.0/24\", \"redis-2.example.com\", \"*.db.example.com\"].";
    let hosts = texts(
        value,
        |kind| SettingProblem::new(format!("{kind} is not a host"), remedy),
        |given| {
            let what = || SettingProblem::new(format!("{} is no address, network or host", quoted(given)), remedy);
            TrustedHost::parse(given).ok_or_else(what)
        },
    )?;
    if hosts.is_empty() {
        return Err(SettingProblem::new("no host is given", remedy));
    }
    Ok(hosts)
}
