//! IP networks such as `10.0.0.0/8`, and hosts in URLs. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// An address, or all addresses of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    ip: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether the address is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u32| match width - u32::from(self.bits) {
            past if past >= width => true,
            past => a >> past == b >> past,
        };
        match (self.ip, ip.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = ();

    /// `10.0.0.5`, `10.0.0.0/8`, `fd00::/8`.
    fn from_str(text: &str) -> Result<Network, ()> {
        let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let ip: IpAddr = ip.parse::<IpAddr>().map_err(|_| ())?.to_canonical();
        let width = if ip.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(width), |bits| bits.parse::<u8>().map_err(|_| ()))?;
        if bits <= width { Ok(Network { ip, bits }) } else { Err(()) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

/// Whether a host, by name or address, is this machine.
pub fn is_this_machine(host: &str) -> bool {
    let ip = host.parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Where this machine finds what listens at an address, in order of preference: nobody can connect to "all addresses".
pub fn reached_locally(ip: IpAddr) -> Vec<IpAddr> {
    match ip {
        _ if !ip.is_unspecified() => vec![ip],
        IpAddr::V4(_) => vec![Ipv4Addr::LOCALHOST.into()],
        // Takes IPv4 too; and a container may have no other.
        IpAddr::V6(_) => vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()],
    }
}

/// A host as it is, without the brackets that an IPv6 address has in a URL.
pub fn without_brackets(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// `host:port`, an IPv6 address in brackets.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Those that other machines can reach, for a sentence; empty: there are none.
pub fn reachable_by_others(addresses: &[SocketAddr]) -> String {
    let open = addresses.iter().filter(|at| !at.ip().to_canonical().is_loopback());
    open.map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_what_begins_alike() {
        let holds = |network: &str, ip: &str| network.parse::<Network>().unwrap().contains(ip.parse().unwrap());
        assert!(holds("10.0.0.5", "10.0.0.5") && !holds("10.0.0.5", "10.0.0.4"));
        assert!(holds("10.0.0.0/8", "10.9.9.9") && !holds("10.0.0.0/8", "11.0.0.0"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.1.1") && holds("0.0.0.0/0", "1.2.3.4"));
        assert!(holds("fd00::/8", "fd12::1") && !holds("fd00::/8", "fe00::1") && !holds("::/0", "1.2.3.4"));
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "a", "fd00::/129"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
