//! Which Redis and how to get in: the keys that a `[[sink]]` and `[state]` have in common.

use std::path::PathBuf;

use super::RedisOptions;
use super::reader::{RawTable, Reader};
use super::report::some_texts;
use super::secrets::SecretSpec;
use super::value::text;
use crate::redis_client::address::{self, RedisAddress};
use crate::redis_client::options::{TlsFiles, TrustedHost};

const PASSWORD: SecretSpec =
    SecretSpec { key: "password", noun: "password", owner: "a Redis", content: "the password of that Redis" };

/// The keys of a Redis, each judged by itself.
pub(super) struct RedisFields {
    address: Option<RedisAddress>,
    db: Option<u32>,
    user: Option<String>,
    ca_file: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    trusted_hosts: Vec<TrustedHost>,
    pub timeout_ms: u64,
}

impl Reader<'_> {
    pub(super) fn redis_fields(&mut self, table: &RawTable) -> RedisFields {
        RedisFields {
            address: self.read(table, "url", |value| address::parse(text(value)?)),
            db: table.has("db").then(|| self.value(table, "db")),
            user: self.get(table, "user"),
            ca_file: self.get(table, "ca_file"),
            cert: self.get(table, "cert_file"),
            key: self.file(table, "key_file", "key_credential").map(|(path, _)| path),
            trusted_hosts: self
                .read(table, "trusted_hosts", |hosts| {
                    some_texts(hosts, ["a", "host"], TrustedHost::REMEDY, TrustedHost::parse)
                })
                .unwrap_or_default(),
            timeout_ms: self.value(table, "timeout_ms"),
        }
    }

    /// The whole, and what its keys have to do with each other. None if there is no address that could be read.
    pub(super) fn redis(&mut self, table: &RawTable, fields: RedisFields) -> Option<RedisOptions> {
        let RedisFields { address, db, user, ca_file, cert, key, trusted_hosts, timeout_ms } = fields;
        if user.is_some() && !PASSWORD.is_given(table) {
            self.refuse((table, "user"), "a user without a password", "Add password_file = \"/path\".");
        }
        if let Some(address) = &address {
            self.judged(table, address.judge(db, |key| table.has(key)));
        }
        let db = db.or(address.as_ref().and_then(|address| address.db)).unwrap_or(0);
        table.print("db", db);
        let (password, password_origin) = self.secret(table, &PASSWORD).unzip();
        let RedisAddress { at, tls, .. } = address?;
        let tls = tls.then_some(TlsFiles { ca_file, identity: cert.zip(key) });
        if !trusted_hosts.is_empty() {
            table.print("trusted_hosts", trusted_hosts.iter().map(TrustedHost::text).collect::<Vec<_>>());
        }
        let redis = RedisOptions { at, tls, db, user, password, password_origin, trusted_hosts, timeout_ms };
        table.print("url", redis.url());
        Some(redis)
    }
}
