//! Which Redis and how to get in: the keys that a `[[sink]]` and `[state]` have in common.

use std::path::PathBuf;

use super::reader::{RawTable, Reader};
use super::report::some_texts;
use super::secrets::SecretSpec;
use crate::raw_value::text;
use crate::redis_client::address::{self, RedisAddress};
use crate::redis_client::options::{RedisOptions, TlsFiles, TrustedHost};

const PASSWORD: SecretSpec =
    SecretSpec { key: "password", noun: "password", owner: "a Redis", content: "the password of that Redis" };

impl Reader<'_> {
    /// Each key is judged by itself; with `has_use` also what they have to do with each other. None without a use, or an
    /// address that could be read.
    pub(super) fn redis(&mut self, table: &RawTable, has_use: bool) -> Option<RedisOptions> {
        let address = self.read(table, "url", |value| address::parse(text(value)?));
        let db = table.has("db").then(|| self.value(table, "db"));
        let user = self.get(table, "user");
        let ca_file = self.get(table, "ca_file");
        let cert: Option<PathBuf> = self.get(table, "cert_file");
        let key = self.file(table, "key_file", "key_credential").map(|(path, _)| path);
        let trusted_hosts = self.read(table, "trusted_hosts", |hosts| {
            some_texts(hosts, ["a", "host"], TrustedHost::REMEDY, TrustedHost::parse)
        });
        let timeout_ms = self.value(table, "timeout_ms");
        if !has_use {
            return None;
        }
        if user.is_some() && !PASSWORD.is_given(table) {
            self.refuse((table, "user"), "a user without a password", "Add password_file = \"/path\".");
        }
        if let Some(address) = &address {
            self.judged(table, address.judge(db, |key| table.has(key)));
        }
        let db = db.or(address.as_ref().and_then(|address| address.db)).unwrap_or(0);
        table.print("db", db);
        let password = self.secret(table, &PASSWORD);
        let RedisAddress { at, tls, .. } = address?;
        let tls = tls.then_some(TlsFiles { ca_file, identity: cert.zip(key) });
        if let Some(hosts) = &trusted_hosts {
            table.print("trusted_hosts", hosts.iter().map(TrustedHost::text).collect::<Vec<_>>());
        }
        let trusted_hosts = trusted_hosts.unwrap_or_default();
        let redis = RedisOptions { at, tls, db, user, password, trusted_hosts, timeout_ms };
        table.print("url", redis.url());
        Some(redis)
    }
}
