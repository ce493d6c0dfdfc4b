//! Decides which servers may get the password. Sentinels and cluster nodes name other servers, and an attacker who answers
//! in their place may name any: so the operator decides, not the answer.
//!
//! Pure: resolves no names.

use std::net::IpAddr;

use super::client::ServerAddress;
use super::options::{RedisAt, RedisOptions};

/// Whether a server that another one named may get the password.
///
/// Always those in `url` and `trusted_hosts`. Without `trusted_hosts`, also a server whose certificate is checked against
/// the operator's own authority, and one that is near: on a private network, or in the domain or the network of a host in
/// `url`.
pub(super) fn may_have_password(server: &RedisOptions, address: &ServerAddress) -> bool {
    let ServerAddress::Tcp(host, _) = address else { return true };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if hosts(&server.at).iter().any(|known| known.eq_ignore_ascii_case(&host)) {
        return true;
    }
    if !server.trusted_hosts.is_empty() {
        let is_known_form = host.parse::<IpAddr>().is_ok() || is_name(&host);
        return is_known_form && server.trusted_hosts.iter().any(|trusted| trusted.covers(&host));
    }
    let has_own_authority = server.tls.as_ref().is_some_and(|files| files.ca_file.is_some());
    server.password.is_none() || has_own_authority || is_near(&server.at, &host)
}

fn hosts(at: &RedisAt) -> Vec<&str> {
    match at {
        RedisAt::Tcp { host, .. } => vec![host],
        RedisAt::Unix(_) => Vec::new(),
        RedisAt::Sentinel { sentinels, .. } => sentinels.iter().map(|(host, _)| host.as_str()).collect(),
    }
}

fn is_near(at: &RedisAt, host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => {
            let mut known = hosts(at).into_iter().filter_map(|known| known.parse::<IpAddr>().ok());
            is_private(address) || known.any(|known| is_beside(known, address))
        }
        // The resolver also takes forms such as 3325256713 for addresses. Whether those are near is not known.
        Err(_) if !is_name(host) => false,
        // A name without a dot is in the local domain.
        Err(_) if !host.contains('.') => true,
        Err(_) => hosts(at).into_iter().filter_map(domain).any(|domain| host.ends_with(&domain)),
    }
}

/// True for a host name that the resolver does not read as an address: it takes numbers for addresses, and `%` as the
/// beginning of an interface's name.
fn is_name(host: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_number = |label: &str| match label.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    };
    host.bytes().all(plain) && !host.rsplit('.').next().is_none_or(is_number)
}

/// True for two addresses in one /16, or one /48.
fn is_beside(one: IpAddr, other: IpAddr) -> bool {
    match (one.to_canonical(), other.to_canonical()) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one.octets()[..2] == other.octets()[..2],
        (IpAddr::V6(one), IpAddr::V6(other)) => one.segments()[..3] == other.segments()[..3],
        _ => false,
    }
}

fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            // 100.64.0.0/10 is used inside the networks of providers and clouds.
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// The domain of a host name, with a dot before it; none if that is a top-level domain.
fn domain(host: &str) -> Option<String> {
    let (_, domain) = host.trim_end_matches('.').split_once('.')?;
    let plain = host.parse::<IpAddr>().is_err() && domain.contains('.');
    plain.then(|| format!(".{}", domain.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::super::options::{TlsFiles, TrustedHost};
    use super::*;
    use crate::secret::Secret;
    use crate::secret_source::SecretSource;

    fn sentinels(hosts: &[&str]) -> RedisOptions {
        let sentinels = hosts.iter().map(|host| ((*host).to_owned(), 26379)).collect();
        let password = Some(SecretSource::Fixed(Secret::new("a password".into())));
        RedisOptions { password, ..RedisOptions::at(RedisAt::Sentinel { sentinels, master: "m".into() }) }
    }

    #[track_caller]
    fn judged(server: &RedisOptions, host: &str, expected: bool) {
        assert_eq!(may_have_password(server, &ServerAddress::Tcp(host.into(), 6379)), expected, "{host}");
    }

    #[test]
    fn without_a_list_a_password_goes_to_what_is_near_and_no_further() {
        let server = sentinels(&["10.0.0.1", "one.redis.example.com", "203.0.113.7"]);
        for near in ["10.0.0.1", "10.9.0.2", "192.168.1.1", "127.0.0.1", "::1", "fd00::7", "100.64.1.1", "redis-2"] {
            judged(&server, near, true);
        }
        for near in ["two.redis.example.com", "One.Redis.Example.Com.", "203.0.44.1"] {
            judged(&server, near, true);
        }
        for far in ["198.51.100.9", "2001:db8::1", "evil.example.org", "redis.example.com.evil.org", "203.1.0.1"] {
            judged(&server, far, false);
        }
        judged(&sentinels(&["redis.com"]), "evil.com", false);
        judged(&RedisOptions { password: None, ..server }, "198.51.100.9", true);
    }

    #[test]
    fn an_address_that_only_the_resolver_knows_as_one_is_not_taken_for_a_name_nearby() {
        let server = sentinels(&["10.0.0.1", "one.redis.example.com"]);
        for far in ["3325256713", "0xc6336409", "0XC6336409", "030614662011", "2001:db8::1%1", "198.51.25609", ""] {
            judged(&server, far, false);
        }
        for far in ["198.51.100.9 .redis.example.com", "2001:db8::1%.redis.example.com", "198.51.100.9\0"] {
            judged(&server, far, false);
        }
        for near in ["2redis", "redis_2", "0xredis", "7.redis.example.com"] {
            judged(&server, near, true);
        }
    }

    #[test]
    fn with_a_list_it_goes_nowhere_else() {
        let trusted = |text: &str| TrustedHost::parse(text).unwrap();
        let trusted_hosts = vec![trusted("10.1.0.0/24"), trusted("*.db.example.com"), trusted("198.51.100.9")];
        let server = RedisOptions { trusted_hosts, ..sentinels(&["10.0.0.1"]) };
        for listed in ["10.0.0.1", "10.1.0.200", "::ffff:10.1.0.3", "a.db.example.com", "198.51.100.9"] {
            judged(&server, listed, true);
        }
        for other in ["10.0.0.2", "10.1.1.1", "127.0.0.1", "redis-2", "db.example.com", "198.51.100.10"] {
            judged(&server, other, false);
        }
        for other in ["192.0.2.1 .db.example.com", "2001:db8::1%.db.example.com"] {
            judged(&server, other, false);
        }
    }

    #[test]
    fn an_authority_of_ones_own_vouches_for_whatever_it_has_signed() {
        let own = Some(TlsFiles { ca_file: Some("/ca.pem".into()), identity: None });
        judged(&RedisOptions { tls: own, ..sentinels(&["10.0.0.1"]) }, "198.51.100.9", true);
        let public = Some(TlsFiles::default());
        judged(&RedisOptions { tls: public, ..sentinels(&["10.0.0.1"]) }, "evil.example.org", false);
    }
}
