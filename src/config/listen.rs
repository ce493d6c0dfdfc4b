//! Where to listen: addresses, ports and the Unix socket, from all layers together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::environment::Environment;
use super::fault::{Fault, Place, Problem};
use super::flags::Flags;
use super::value::{Reading, Value, kind, quoted};

pub(super) const PORT: u16 = 11211;

/// A host and perhaps a port, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    host: String,
    port: Option<u16>,
}

/// What the layers say about listening.
pub(super) struct Asked {
    /// Of the file or the environment.
    pub listen: Option<(Vec<Spot>, Place)>,
    pub unix_socket: Option<(PathBuf, Place)>,
    /// What the layers say about who may connect.
    pub guarded: Guarded,
    /// There are listeners with terms of their own.
    pub others: bool,
}

/// What keeps strangers from an address.
#[derive(Clone, Copy, Default)]
pub(super) struct Guarded {
    /// Clients log in.
    pub passwords: bool,
    pub tls: bool,
    /// Clients show certificates.
    pub certificates: bool,
    /// Nothing here does, and that is meant.
    pub allowed: bool,
}

/// The addresses to listen on; faults and warnings are appended.
pub(super) fn addresses(
    asked: &Asked,
    flags: &Flags,
    environment: &dyn Environment,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<String>,
) -> Vec<SocketAddr> {
    let before = faults.len();
    let port = port_of(flags, faults);
    let flagged = spots_of(flags, faults);
    if let Some((_, Place::Flag("-s"))) = &asked.unix_socket {
        if flags.port.as_deref().is_some_and(|port| port.trim() != "0") || !flags.listen.is_empty() {
            warnings.push("flag -s switches TCP off, so -p and -l have no effect (as with memcached)".into());
        }
        return Vec::new();
    }
    let (spots, place) = match (flagged, &asked.listen) {
        (Some(spots), _) => (spots, Place::Flag("-l")),
        // A port alone moves every address of the lower layers there: the flag wins.
        (None, Some((spots, place))) => {
            let moved = |spot: &Spot| Spot { port: port.map_or(spot.port, |_| None), ..spot.clone() };
            (spots.iter().map(moved).collect(), place.clone())
        }
        (None, None) if (asked.unix_socket.is_some() || asked.others) && flags.port.is_none() => return Vec::new(),
        (None, None) => {
            let place = flags.port.as_ref().map_or(Place::Default, |_| Place::Flag("-p"));
            (vec![Spot { host: Ipv4Addr::LOCALHOST.to_string(), port: None }], place)
        }
    };
    let addresses = match port {
        Some(Port::Off) => Vec::new(),
        Some(Port::Fixed(port)) => resolve(&spots, port, &place, environment, faults),
        None => resolve(&spots, PORT, &place, environment, faults),
    };
    if addresses.is_empty() && asked.unix_socket.is_none() && !asked.others && faults.len() == before {
        let place = if let Some(Port::Off) = port { Place::Flag("-p") } else { place.clone() };
        let remedy = "Give an address (-l, listen) or a Unix socket (-s, unix_socket).";
        faults.push(Problem::new("there is nothing to listen on", remedy).at(&place));
    }
    judge(&addresses, asked.guarded, &place, faults, warnings);
    addresses
}

/// Addresses that other machines can reach need something that keeps strangers out.
pub(super) fn judge(
    addresses: &[SocketAddr],
    guarded: Guarded,
    place: &Place,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<String>,
) {
    let open: Vec<String> = addresses.iter().filter(|at| !is_loopback(at.ip())).map(SocketAddr::to_string).collect();
    let open = open.join(", ");
    if open.is_empty() || guarded.certificates {
        return;
    }
    match guarded {
        Guarded { passwords: true, tls: true, .. } => {}
        Guarded { passwords: true, .. } => warnings.push(format!(
            "passwords and tokens pass {open} in plain text; [server.tls] (-Z) would hide them from the network"
        )),
        Guarded { allowed: true, .. } => warnings.push(format!(
            "allow_unauthenticated is in effect: whoever reaches {open} can read every token and every item"
        )),
        Guarded { tls, .. } => {
            let alone = if tls { "; TLS alone hides what is said, but asks nobody who they are" } else { "" };
            let what = format!("{open} can be reached from other machines, and nothing keeps strangers out{alone}");
            faults.push(Problem::new(what, HOW_TO_GUARD).at(place));
        }
    }
}

const HOW_TO_GUARD: &str = "Let clients log in (auth_file = \"...\" in [server], -Y FILE), or ask for their certificates \
    (cert, key and client_ca under [server.tls]), or listen on 127.0.0.1 or on a Unix socket; or, if a firewall or a \
    private network keeps others out, set allow_unauthenticated = true in [server] \
    (TOKENCACHED_SERVER_ALLOW_UNAUTHENTICATED=true, --allow-unauthenticated).";

pub(super) fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[derive(Clone, Copy)]
enum Port {
    Off,
    Fixed(u16),
}

fn port_of(flags: &Flags, faults: &mut Vec<Fault>) -> Option<Port> {
    let text = flags.port.as_deref()?;
    match text.trim().parse::<i64>() {
        Ok(0) => Some(Port::Off),
        Ok(-1) => Some(Port::Fixed(0)),
        Ok(port @ 1..=65535) => u16::try_from(port).ok().map(Port::Fixed),
        _ => {
            let remedy = "Give a port from 1 to 65535, 0 for no TCP, or -1 for any free port.";
            faults.push(Problem::new(format!("{} is not a port", quoted(text)), remedy).at(&Place::Flag("-p")));
            None
        }
    }
}

fn spots_of(flags: &Flags, faults: &mut Vec<Fault>) -> Option<Vec<Spot>> {
    if flags.listen.is_empty() {
        return None;
    }
    let mut all = Vec::new();
    for text in &flags.listen {
        match spots(&Value::Text(text.clone())) {
            Ok(spots) => all.extend(spots),
            Err(problem) => faults.push(problem.at(&Place::Flag("-l"))),
        }
    }
    Some(all)
}

/// The addresses of a setting: a list, or one text with commas.
pub(super) fn spots(value: &Value) -> Reading<Vec<Spot>> {
    let remedy = "Write listen = [\"127.0.0.1:11211\"].";
    match value {
        Value::Text(text) => text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(spot).collect(),
        Value::List(items) => {
            let lists = items.iter().map(|item| match &item.value {
                Value::Text(_) => spots(&item.value),
                other => Err(Problem::new(format!("{} is not an address", kind(other)), remedy)),
            });
            lists.collect::<Reading<Vec<_>>>().map(|lists| lists.concat())
        }
        other => Err(Problem::new(format!("{} is not a list of addresses", kind(other)), remedy)),
    }
}

/// `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]`, `[::1]:80`, `name`, `name:80`.
fn spot(text: &str) -> Reading<Spot> {
    let wrong = || {
        let remedy = "Write an address like 127.0.0.1:11211, [::1]:11211 or localhost.";
        Problem::new(format!("{} is not an address", quoted(text)), remedy)
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
    if host_fits { Ok(Spot { host: host.to_owned(), port }) } else { Err(wrong()) }
}

pub(super) fn resolve(
    spots: &[Spot],
    port: u16,
    place: &Place,
    environment: &dyn Environment,
    faults: &mut Vec<Fault>,
) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for spot in spots {
        let found = match spot.host.parse::<IpAddr>() {
            Ok(ip) => Ok(vec![ip]),
            Err(_) if spot.host.eq_ignore_ascii_case("localhost") => Ok(localhost(environment)),
            Err(_) => environment.resolve(&spot.host),
        };
        match found {
            Ok(ips) => addresses.extend(ips.into_iter().map(|ip| SocketAddr::new(ip, spot.port.unwrap_or(port)))),
            Err(error) => {
                let what = format!("the name {} has no address: {error}", quoted(&spot.host));
                faults.push(Problem::new(what, "Write an IP address, or a name this machine knows.").at(place));
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    addresses.retain(|address| address.port() == 0 || seen.insert(*address));
    addresses
}

/// Not left to the resolver: where it also answers `::1`, a machine without IPv6 could not start.
fn localhost(environment: &dyn Environment) -> Vec<IpAddr> {
    let ipv6 = environment.has_ipv6_loopback().then_some(Ipv6Addr::LOCALHOST.into());
    std::iter::once(Ipv4Addr::LOCALHOST.into()).chain(ipv6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_memcached_reads_them() {
        let check = |text: &str, host: &str, port: Option<u16>| {
            assert_eq!(spot(text).ok(), Some(Spot { host: host.into(), port }), "{text}");
        };
        check("127.0.0.1", "127.0.0.1", None);
        check("127.0.0.1:80", "127.0.0.1", Some(80));
        check("::1", "::1", None);
        check("[::1]", "::1", None);
        check("[::1]:80", "::1", Some(80));
        check("localhost", "localhost", None);
        check("cache-1.internal:0", "cache-1.internal", Some(0));
        for text in ["", ":80", "a:b", "a:70000", "[::1", "[::1]80", "1::2::3", "a b", "*"] {
            assert!(spot(text).is_err(), "{text}");
        }
    }
}
