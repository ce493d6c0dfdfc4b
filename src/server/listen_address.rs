//! Addresses to listen on, as people write them: the socket addresses that are meant.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::environment::Environment;
use crate::invalid_value::{InvalidValue, quoted};

/// memcached's port.
pub const PORT: u16 = 11211;

/// A host and perhaps a port, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    pub host: String,
    pub port: Option<u16>,
}

impl ListenAddress {
    /// Where to listen unless it is said.
    pub fn of_this_machine() -> ListenAddress {
        ListenAddress { host: Ipv4Addr::LOCALHOST.to_string(), port: None }
    }
}

/// `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]`, `[::1]:80`, `name`, `name:80`.
pub fn parse(text: &str) -> Result<ListenAddress, InvalidValue> {
    let wrong = || {
        let remedy = "Write an address like 127.0.0.1:11211, [::1]:11211 or localhost.";
        InvalidValue::new(format!("{} is not an address", quoted(text)), remedy)
    };
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
        (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(wrong)?) })
    } else if text.matches(':').count() > 1 {
        (text, None)
    } else {
        text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
    };
    let host_fits = host.parse::<IpAddr>().is_ok()
        || (!host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)));
    let port = port.map(|port| port.parse::<u16>().map_err(|_| wrong())).transpose()?;
    if host_fits { Ok(ListenAddress { host: host.to_owned(), port }) } else { Err(wrong()) }
}

/// What memcached's `-p` means.
#[derive(Clone, Copy)]
pub enum TcpPort {
    Off,
    Fixed(u16),
}

/// `11211`; `0` for no TCP, `-1` for any free port.
pub fn parse_port(text: &str) -> Result<TcpPort, InvalidValue> {
    match text.trim().parse::<i64>() {
        Ok(0) => return Ok(TcpPort::Off),
        Ok(-1) => return Ok(TcpPort::Fixed(0)),
        Ok(port) => u16::try_from(port).ok().map(TcpPort::Fixed),
        Err(_) => None,
    }
    .ok_or_else(|| {
        let remedy = "Give a port from 1 to 65535, 0 for no TCP, or -1 for any free port.";
        InvalidValue::new(format!("{} is not a port", quoted(text)), remedy)
    })
}

/// A port that is given alone moves every address there: the flag wins over the ports of lower layers.
pub fn moved_to(port: Option<TcpPort>, written: Vec<ListenAddress>) -> Vec<ListenAddress> {
    let moved = |at: ListenAddress| ListenAddress { port: port.map_or(at.port, |_| None), ..at };
    written.into_iter().map(moved).collect()
}

/// The socket addresses, each once, and the names that have none. `port` is for what is written without one.
pub fn resolve(
    written: &[ListenAddress],
    port: u16,
    environment: &dyn Environment,
) -> (Vec<SocketAddr>, Vec<InvalidValue>) {
    let (mut addresses, mut unknown) = (Vec::new(), Vec::new());
    for ListenAddress { host, port: own } in written {
        let found = match host.parse::<IpAddr>() {
            Ok(ip) => Ok(vec![ip]),
            // Not left to the resolver: where it also answers `::1`, a machine without IPv6 could not start.
            Err(_) if host.eq_ignore_ascii_case("localhost") => {
                let ipv6 = environment.has_ipv6_loopback().then_some(Ipv6Addr::LOCALHOST.into());
                Ok(std::iter::once(Ipv4Addr::LOCALHOST.into()).chain(ipv6).collect())
            }
            Err(_) => environment.resolve(host),
        };
        match found {
            Ok(ips) => addresses.extend(ips.into_iter().map(|ip| SocketAddr::new(ip, own.unwrap_or(port)))),
            Err(error) => {
                let what = format!("the name {} has no address: {error}", quoted(host));
                unknown.push(InvalidValue::new(what, "Write an IP address, or a name this machine knows."));
            }
        }
    }
    let mut seen = HashSet::new();
    addresses.retain(|address| address.port() == 0 || seen.insert(*address));
    (addresses, unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_memcached_reads_them() {
        let check = |text: &str, host: &str, port: Option<u16>| {
            assert_eq!(parse(text).ok(), Some(ListenAddress { host: host.into(), port }), "{text}");
        };
        check("127.0.0.1", "127.0.0.1", None);
        check("127.0.0.1:80", "127.0.0.1", Some(80));
        check("::1", "::1", None);
        check("[::1]", "::1", None);
        check("[::1]:80", "::1", Some(80));
        check("localhost", "localhost", None);
        check("cache-1.internal:0", "cache-1.internal", Some(0));
        for text in ["", ":80", "a:b", "a:70000", "[::1", "[::1]80", "1::2::3", "a b", "*"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
