//! Which Redis and how to get in: the keys that a `[[sink]]` and `[state]` have in common.
//!
//! A password never leaves its [`SecretSource`], and an address never has one: people put passwords there, so no
//! fault quotes it.

use std::path::{Path, PathBuf};

use url::Url;

use super::apps::Reader;
use super::authorizers::Wanted;
use super::fault::Problem;
use super::file::{Document, RawTable};
use super::trusted_hosts::trusted_hosts;
use super::value::{Reading, Value, integer, text};
use super::{RedisOptions, access, credentials, upstream};
use crate::redis_client::options::{RedisAt, TlsFiles, TrustedHost};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

const PASSWORD: Wanted = Wanted {
    key: "password",
    keys: ["password", "password_file", "password_env", "password_credential"],
    noun: "password",
    one: "a Redis",
    the: "the Redis",
    whose: "the password of that Redis",
    of_app: false,
};

/// What a URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub at: RedisAt,
    tls: bool,
    db: Option<u32>,
}

/// The keys of a Redis, each judged by itself.
pub(super) struct Fields {
    address: Option<Address>,
    db: Option<u64>,
    user: Option<String>,
    ca_file: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    trusted_hosts: Option<Vec<TrustedHost>>,
    timeout_ms: Option<u64>,
}

impl Reader<'_> {
    /// Each key by itself; relative paths count from `base`.
    pub(super) fn redis_fields(&mut self, raw: &RawTable, base: &Path) -> Fields {
        Fields {
            address: self.field(raw, "url", address),
            db: self.field(raw, "db", |value| integer(value, 0..=65_535)),
            user: self.field(raw, "user", |value| text(value).map(str::to_owned)),
            ca_file: self.field(raw, "ca_file", |value| upstream::ca_file(value, base)),
            cert: self.field(raw, "cert_file", |value| upstream::ca_file(value, base)),
            key: self.redis_key(raw, base),
            trusted_hosts: self.field(raw, "trusted_hosts", trusted_hosts),
            timeout_ms: self.field(raw, "timeout_ms", |value| integer(value, 100..=60_000)),
        }
    }

    /// Our private key for TLS, by its path or as a credential.
    fn redis_key(&mut self, raw: &RawTable, base: &Path) -> Option<PathBuf> {
        let environment = self.environment;
        let by_path = self.field(raw, "key_file", |value| access::pem(value, base));
        let by_name = self.field(raw, "key_credential", |value| credentials::file(environment, value, "key_file"));
        if let (Some(given), true) = (raw.fields.get("key_credential"), raw.fields.contains_key("key_file")) {
            let problem = Problem::new("key_file is given as well", "Keep one of the two.");
            self.fault("key_credential", problem, &given.place);
        }
        by_path.or(by_name)
    }

    /// The whole, and what its keys have to do with each other. None if there is no address that could be read.
    pub(super) fn redis_server(
        &mut self,
        raw: &mut RawTable,
        document: &Document,
        fields: Fields,
        timeout_ms: u64,
    ) -> Option<RedisOptions> {
        if let (Some(given), false) = (raw.fields.get("user"), has_password(raw)) {
            let problem = Problem::new("a user without a password", "Add password_file = \"/path\".");
            self.fault("user", problem, &given.place);
        }
        let address = fields.address.as_ref();
        if let Some(address) = address {
            self.tls_or_not(raw, address);
        }
        let db = self.one_db(raw, fields.db, address);
        let password = if has_password(raw) { self.secret(raw, document, None, &PASSWORD) } else { None };
        let (password, password_origin) = password.unzip();
        let Address { at, tls, .. } = fields.address?;
        let identity = fields.cert.zip(fields.key);
        let tls = tls.then_some(TlsFiles { ca_file: fields.ca_file, identity });
        let timeout_ms = fields.timeout_ms.unwrap_or(timeout_ms);
        let trusted_hosts = fields.trusted_hosts.unwrap_or_default();
        Some(RedisOptions { at, tls, db, user: fields.user, password, password_origin, trusted_hosts, timeout_ms })
    }

    fn one_db(&mut self, raw: &RawTable, db: Option<u64>, address: Option<&Address>) -> u32 {
        let in_url = address.and_then(|address| address.db);
        let db = db.and_then(|db| u32::try_from(db).ok());
        if let (Some(db), Some(other), Some(given)) = (db, in_url, raw.fields.get("url"))
            && db != other
        {
            let problem = Problem::new(format!("the url says {other}, and db {db}"), "Keep one of the two.");
            self.fault("url", problem, &given.place);
        }
        db.or(in_url).unwrap_or(0)
    }

    fn tls_or_not(&mut self, raw: &RawTable, address: &Address) {
        let has_key = ["key_file", "key_credential"].iter().any(|key| raw.fields.contains_key(key));
        let one_of_two = raw.fields.contains_key("cert_file") != has_key;
        let files = ["ca_file", "cert_file", "key_file", "key_credential"]
            .iter()
            .find_map(|name| Some((*name, raw.fields.get(name)?)));
        let far = match &address.at {
            RedisAt::Tcp { host, .. } if !is_this_machine(host) => Some(host),
            // Where the master will be is not known yet.
            RedisAt::Sentinel { sentinels, .. } => {
                sentinels.iter().map(|(host, _)| host).find(|host| !is_this_machine(host))
            }
            _ => None,
        };
        match (address.tls, files, raw.fields.get("url")) {
            (true, Some((name, given)), _) if one_of_two => {
                let problem = Problem::new("cert_file and key_file belong together", "Give both, or neither.");
                self.fault(name, problem, &given.place);
            }
            (false, Some((name, given)), _) => {
                let problem = Problem::new("the url does not speak TLS", "Write url = \"rediss://...\".");
                self.fault(name, problem, &given.place);
            }
            (false, None, Some(given)) => self.warnings.extend(far.map(|host| {
                let place = &given.place;
                format!("{place}: tokens pass the network in the clear on their way to {host}; rediss:// hides them")
            })),
            _ => {}
        }
    }
}

fn has_password(raw: &RawTable) -> bool {
    PASSWORD.keys.iter().any(|key| raw.fields.contains_key(key))
}

/// `redis://host[:port][/db]`, `rediss://` likewise, `unix:/path`, `redis+sentinel://host[:port],.../master[/db]`.
/// Never quotes it: people put passwords there.
fn address(value: &Value) -> Reading<Address> {
    let remedy = "Write \"redis://127.0.0.1:6379\", \"rediss://redis.internal:6379\", \"unix:/run/redis/redis.sock\" or \
                  \"redis+sentinel://host1:26379,host2:26379/mymaster\".";
    let given = text(value)?;
    if let Some((scheme @ ("redis+sentinel" | "rediss+sentinel"), rest)) = given.split_once("://") {
        return sentinels(rest, scheme.starts_with("rediss"));
    }
    let url = Url::parse(given).map_err(|error| Problem::new(format!("this is not a URL: {error}"), remedy))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(has_user());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Problem::new("the URL has a query or a fragment", "Remove it; the database goes into db = N."));
    }
    if matches!(url.scheme(), "unix" | "redis+unix") {
        return match socket_path(&url) {
            Some(path) => Ok(Address { at: RedisAt::Unix(path), tls: false, db: None }),
            None => Err(Problem::new("the path of the socket is not an absolute one", remedy)),
        };
    }
    let tls = match url.scheme() {
        "redis" => false,
        "rediss" => true,
        _ => return Err(Problem::new("the URL is none of redis, rediss, unix and redis+sentinel", remedy)),
    };
    let (host, port) = host_and_port(&url, PORT).ok_or_else(|| Problem::new("the URL has no host", remedy))?;
    let db = database(url.path().trim_start_matches('/'), remedy)?;
    Ok(Address { at: RedisAt::Tcp { host, port }, tls, db })
}

/// What follows `redis+sentinel://`; no URL, because it names several hosts.
fn sentinels(rest: &str, tls: bool) -> Reading<Address> {
    let remedy = "Write \"redis+sentinel://host1:26379,host2:26379/mymaster\", with the name that `sentinel monitor` \
                  gives the master.";
    if rest.contains('@') {
        return Err(has_user());
    }
    if rest.contains(['?', '#']) {
        return Err(Problem::new("the URL has a query or a fragment", "Remove it; the database goes into db = N."));
    }
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (master, db) = path.trim_end_matches('/').split_once('/').unwrap_or((path.trim_end_matches('/'), ""));
    let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if master.is_empty() || !master.chars().all(known) {
        return Err(Problem::new("the URL does not name the master", remedy));
    }
    let read = |host: &str| {
        let url = Url::parse(&format!("redis://{}", host.trim())).ok();
        let found = url.and_then(|url| host_and_port(&url, SENTINEL_PORT));
        found.ok_or_else(|| Problem::new("a sentinel's address is not a host and a port", remedy))
    };
    let sentinels = hosts.split(',').map(read).collect::<Reading<Vec<_>>>()?;
    let at = RedisAt::Sentinel { sentinels, master: master.to_owned() };
    Ok(Address { at, tls, db: database(db, remedy)? })
}

fn has_user() -> Problem {
    let remedy = "Write user = \"...\" and password_file = \"/path\" in lines of their own.";
    Problem::new("the URL has a user or a password, and URLs get into logs", remedy)
}

fn database(text: &str, remedy: &str) -> Reading<Option<u32>> {
    match text {
        "" => Ok(None),
        db => Ok(Some(db.parse().map_err(|_| Problem::new("the database in the URL is not a number", remedy))?)),
    }
}

fn host_and_port(url: &Url, port: u16) -> Option<(String, u16)> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    Some((host.trim_start_matches('[').trim_end_matches(']').to_owned(), url.port().unwrap_or(port)))
}

/// `unix:/path` and `unix:///path` are one.
fn socket_path(url: &Url) -> Option<PathBuf> {
    let (path, no_host) = (url.path(), url.host_str().is_none_or(str::is_empty));
    // Percent signs stand for something else; nobody needs them in the path of a socket.
    (no_host && path.starts_with('/') && path.len() > 1 && !path.contains('%')).then(|| PathBuf::from(path))
}

pub(super) fn is_this_machine(host: &str) -> bool {
    let ip = host.parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Option<Address> {
        address(&Value::Text(url.into())).ok()
    }

    #[test]
    fn addresses_read_as_people_write_them() {
        let at = |at, tls, db| Some(Address { at, tls, db });
        let tcp = |host: &str, port| RedisAt::Tcp { host: host.into(), port };
        assert_eq!(read("redis://127.0.0.1"), at(tcp("127.0.0.1", 6379), false, None));
        assert_eq!(read("redis://redis.internal:6380/2"), at(tcp("redis.internal", 6380), false, Some(2)));
        assert_eq!(read("redis://[::1]:6380/"), at(tcp("::1", 6380), false, None));
        for unix in ["unix:/run/r.sock", "unix:///run/r.sock", "redis+unix:///run/r.sock"] {
            assert_eq!(read(unix), at(RedisAt::Unix("/run/r.sock".into()), false, None), "{unix}");
        }
        assert_eq!(read("rediss://r.internal"), at(tcp("r.internal", 6379), true, None));
        for wrong in
            ["redis://", "http://a", "redis://a/x", "redis://a?db=1", "unix:r.sock", "unix://", "127.0.0.1:6379"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sentinels_read_as_people_write_them() {
        let of = |sentinels: &[(&str, u16)], master: &str, tls, db| {
            let sentinels = sentinels.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect();
            Some(Address { at: RedisAt::Sentinel { sentinels, master: master.into() }, tls, db })
        };
        let two = [("one", 26379), ("::1", 5000)];
        assert_eq!(read("redis+sentinel://one,[::1]:5000/mymaster"), of(&two, "mymaster", false, None));
        assert_eq!(read("rediss+sentinel://one:1/my-master_2.a/3"), of(&[("one", 1)], "my-master_2.a", true, Some(3)));
        assert_eq!(read("redis+sentinel://one/m/"), of(&[("one", 26379)], "m", false, None));
        for wrong in ["one", "one/", "/m", "one,,two/m", "one/m/x", "one:port/m", "one/m?db=1", "me:word@one/m"] {
            assert_eq!(read(&format!("redis+sentinel://{wrong}")), None, "{wrong}");
        }
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_quoted() {
        for url in [
            "redis://:hunter22@a",
            "redis://me:hunter22@a",
            "unix://:hunter22@/run/r.sock",
            "redis+sentinel://:hunter22@a/m",
        ] {
            let problem = address(&Value::Text(url.into())).unwrap_err();
            assert!(!problem.what.contains("hunter22") && !problem.remedy.contains("hunter22"), "{problem:?}");
        }
    }
}
