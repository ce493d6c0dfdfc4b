//! Which Redis and how to get in: the keys that a `[[sink]]` and `[state]` have in common.

use std::path::PathBuf;

use super::RedisOptions;
use super::reader::{RawTable, Reader, toml_text, toml_texts};
use super::report::some_texts;
use super::secrets::SecretSpec;
use super::value::{RawValue, ReadResult, text};
use crate::redis_client::address::{self, RedisAddress};
use crate::redis_client::options::{TlsFiles, TrustedHost};
use crate::tls::pem_file;

const PASSWORD: SecretSpec = SecretSpec {
    key: "password",
    noun: "password",
    owner: "a Redis",
    content: "the password of that Redis",
    of_app: false,
};

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
            db: table.has("db").then(|| self.number(table, "db")),
            user: self.any_text(table, "user"),
            ca_file: self.path_that(table, "ca_file", pem_file::certificates),
            cert: self.path_that(table, "cert_file", pem_file::certificates),
            key: self.file(table, "key_file", "key_credential", pem_file::pem).map(|(path, _)| path),
            trusted_hosts: self.read(table, "trusted_hosts", trusted_hosts).unwrap_or_default(),
            timeout_ms: self.number(table, "timeout_ms"),
        }
    }

    /// The whole, and what its keys have to do with each other. None if there is no address that could be read.
    pub(super) fn redis(&mut self, table: &RawTable, fields: RedisFields) -> Option<RedisOptions> {
        let RedisFields { address, db, user, ca_file, cert, key, trusted_hosts, timeout_ms } = fields;
        if user.is_some() && !PASSWORD.is_given(table) {
            self.refuse(table, "user", "a user without a password", "Add password_file = \"/path\".");
        }
        if let Some(address) = &address {
            self.judged(table, address.judge(db, |key| table.has(key)));
        }
        let db = db.or(address.as_ref().and_then(|address| address.db)).unwrap_or(0);
        table.print("db", db.to_string());
        let (password, password_origin) = self.secret(table, None, &PASSWORD).unzip();
        let RedisAddress { at, tls, .. } = address?;
        let tls = tls.then_some(TlsFiles { ca_file, identity: cert.zip(key) });
        if !trusted_hosts.is_empty() {
            table.print("trusted_hosts", toml_texts(trusted_hosts.iter().map(TrustedHost::text)));
        }
        let redis = RedisOptions { at, tls, db, user, password, password_origin, trusted_hosts, timeout_ms };
        table.print("url", toml_text(&redis.url()));
        Some(redis)
    }
}

fn trusted_hosts(value: &RawValue) -> ReadResult<Vec<TrustedHost>> {
    some_texts(value, ["a", "host"], TrustedHost::REMEDY, TrustedHost::parse)
}
