//! The address of a Redis, as a text. Pure; never quotes it: people put passwords there.

use std::path::PathBuf;

use url::Url;

use super::options::RedisAt;
use crate::invalid_value::{InvalidValue, Judgement};
use crate::network::{is_this_machine, without_brackets};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisAddress {
    pub at: RedisAt,
    pub tls: bool,
    pub db: Option<u32>,
}

impl RedisAddress {
    /// Whether what is given beside the URL fits it. `db` is the number given there.
    pub fn judge(&self, db: Option<u32>, is_given: impl Fn(&str) -> bool) -> Judgement {
        let mut judgement = Judgement::default();
        let far = match &self.at {
            RedisAt::Tcp { host, .. } if !is_this_machine(host) => Some(host),
            // Where the master will be is not known yet.
            RedisAt::Sentinel { sentinels, .. } => {
                sentinels.iter().map(|(host, _)| host).find(|host| !is_this_machine(host))
            }
            _ => None,
        };
        let has_key = is_given("key_file") || is_given("key_credential");
        match ["ca_file", "cert_file", "key_file", "key_credential"].into_iter().find(|key| is_given(key)) {
            Some(key) if self.tls => {
                let is_half = is_given("cert_file") != has_key;
                judgement.fault_if(is_half, key, "cert_file and key_file belong together", "Give both, or neither.");
            }
            Some(key) => {
                judgement.fault_if(true, key, "the url does not speak TLS", "Write url = \"rediss://...\".");
            }
            None => far.filter(|_| !self.tls).into_iter().for_each(|host| {
                let what = format!("tokens pass the network in the clear on their way to {host}; rediss:// hides them");
                judgement.warn("url", what);
            }),
        }
        if let (Some(db), Some(other)) = (db, self.db) {
            let what = format!("the url says {other}, and db {db}");
            judgement.fault_if(db != other, "url", what, "Keep one of the two.");
        }
        judgement
    }
}

/// `redis://host[:port][/db]`, `rediss://` likewise, `unix:/path`, `redis+sentinel://host[:port],.../master[/db]`.
pub fn parse(given: &str) -> Result<RedisAddress, InvalidValue> {
    let remedy = "Write \"redis://127.0.0.1:6379\", \"rediss://redis.internal:6379\", \"unix:/run/redis/redis.sock\" or \
                  \"redis+sentinel://host1:26379,host2:26379/mymaster\".";
    if let Some((scheme @ ("redis+sentinel" | "rediss+sentinel"), rest)) = given.split_once("://") {
        return sentinels(rest, scheme.starts_with("rediss"));
    }
    let url = Url::parse(given).map_err(|error| InvalidValue::new(format!("this is not a URL: {error}"), remedy))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(has_user());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(has_query());
    }
    if matches!(url.scheme(), "unix" | "redis+unix") {
        return match socket_path(&url) {
            Some(path) => Ok(RedisAddress { at: RedisAt::Unix(path), tls: false, db: None }),
            None => Err(InvalidValue::new("the path of the socket is not an absolute one", remedy)),
        };
    }
    let tls = match url.scheme() {
        "redis" => false,
        "rediss" => true,
        _ => return Err(InvalidValue::new("the URL is none of redis, rediss, unix and redis+sentinel", remedy)),
    };
    let (host, port) = host_and_port(&url, PORT).ok_or_else(|| InvalidValue::new("the URL has no host", remedy))?;
    let db = database(url.path().trim_start_matches('/'), remedy)?;
    Ok(RedisAddress { at: RedisAt::Tcp { host, port }, tls, db })
}

/// What follows `redis+sentinel://`; no URL, because it names several hosts.
fn sentinels(rest: &str, tls: bool) -> Result<RedisAddress, InvalidValue> {
    let remedy = "Write \"redis+sentinel://host1:26379,host2:26379/mymaster\", with the name that `sentinel monitor` \
                  gives the master.";
    if rest.contains('@') {
        return Err(has_user());
    }
    if rest.contains(['?', '#']) {
        return Err(has_query());
    }
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (master, db) = path.trim_end_matches('/').split_once('/').unwrap_or((path.trim_end_matches('/'), ""));
    let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if master.is_empty() || !master.chars().all(known) {
        return Err(InvalidValue::new("the URL does not name the master", remedy));
    }
    let read = |host: &str| {
        let url = Url::parse(&format!("redis://{}", host.trim())).ok();
        let found = url.and_then(|url| host_and_port(&url, SENTINEL_PORT));
        found.ok_or_else(|| InvalidValue::new("a sentinel's address is not a host and a port", remedy))
    };
    let sentinels = hosts.split(',').map(read).collect::<Result<Vec<_>, InvalidValue>>()?;
    let at = RedisAt::Sentinel { sentinels, master: master.to_owned() };
    Ok(RedisAddress { at, tls, db: database(db, remedy)? })
}

fn has_user() -> InvalidValue {
    let remedy = "Write user = \"...\" and password_file = \"/path\" in lines of their own.";
    InvalidValue::new("the URL has a user or a password, and URLs get into logs", remedy)
}

fn has_query() -> InvalidValue {
    InvalidValue::new("the URL has a query or a fragment", "Remove it; the database goes into db = N.")
}

fn database(text: &str, remedy: &str) -> Result<Option<u32>, InvalidValue> {
    match text {
        "" => Ok(None),
        db => Ok(Some(db.parse().map_err(|_| InvalidValue::new("the database in the URL is not a number", remedy))?)),
    }
}

fn host_and_port(url: &Url, port: u16) -> Option<(String, u16)> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    Some((without_brackets(host).to_owned(), url.port().unwrap_or(port)))
}

/// `unix:/path` and `unix:///path` are one.
fn socket_path(url: &Url) -> Option<PathBuf> {
    let (path, no_host) = (url.path(), url.host_str().is_none_or(str::is_empty));
    // Percent signs stand for something else; nobody needs them in the path of a socket.
    (no_host && path.starts_with('/') && path.len() > 1 && !path.contains('%')).then(|| PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Option<RedisAddress> {
        parse(url).ok()
    }

    #[test]
    fn addresses_read_as_people_write_them() {
        let at = |at, tls, db| Some(RedisAddress { at, tls, db });
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
            Some(RedisAddress { at: RedisAt::Sentinel { sentinels, master: master.into() }, tls, db })
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
            let problem = parse(url).unwrap_err();
            assert!(!problem.what.contains("hunter22") && !problem.remedy.contains("hunter22"), "{problem:?}");
        }
    }
}
