//! Whether the addresses of the configuration are free, and which process has those that are not.
//!
//! An address is bound for a moment and never listened on, so that no client can connect. Never refuses: where the server
//! itself runs, its own addresses are taken.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::report::CheckReport;
use crate::config::Config;
use crate::server::{ListenAt, bound_socket};

/// The state of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// Whoever checks beside a running server, as most do, is not to take this for a fault.
const IF_OURS: &str = "a server that starts now ends with exit code 69; no fault if that is the server itself";

/// Examines all addresses and sockets that the server would listen on.
pub fn examine(config: &Config, report: &mut CheckReport) {
    let then = "a server that starts now ends with exit code 69";
    let mut tcp: Vec<SocketAddr> = config.http.iter().flat_map(|http| http.listen.iter().copied()).collect();
    for listener in config.listeners() {
        match &listener.at {
            ListenAt::Tcp(address) => tcp.push(*address),
            ListenAt::Unix { path, .. } if is_answered(path) => {
                report.note(format!("a server answers at the socket {}: {then}", path.display()));
            }
            ListenAt::Unix { .. } => {}
        }
    }
    for address in tcp {
        if bound_socket(address).is_err_and(|error| error.kind() == ErrorKind::AddrInUse) {
            let owner = owner(address).unwrap_or_else(|| "another process".to_owned());
            let then = if owner.starts_with("tokencached (") { IF_OURS } else { then };
            report.note(format!("the address {address} is in use by {owner}: {then}"));
        }
    }
}

/// Whether a server has that socket. One that is too busy to answer must not make this wait.
fn is_answered(path: &Path) -> bool {
    let connected = Socket::new(Domain::UNIX, Type::STREAM, None).and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    });
    connected.map_or_else(|error| error.kind() == ErrorKind::WouldBlock, |()| true)
}

/// The program that listens there, and its process; `None` if this process may not know.
fn owner(address: SocketAddr) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let inode = tables.iter().flat_map(|table| table.lines()).find_map(|line| inode_of_listener(line, address))?;
    let link = PathBuf::from(format!("socket:[{inode}]"));
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| has_open(*pid, &link)).find_map(|pid| {
        let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
        Some(format!("{} (process {pid})", shown_name(&name)))
    })
}

/// A process gives itself its name, and root may read this on a terminal: no name can write a line or move the cursor.
fn shown_name(name: &[u8]) -> String {
    String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(name)).replace(char::is_control, "?")
}

fn has_open(pid: u32, link: &Path) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target == *link))
}

/// The inode in a line of `/proc/net/tcp` or `tcp6`, if it is a socket that listens where `address` would.
fn inode_of_listener(line: &str, address: SocketAddr) -> Option<&str> {
    let columns: Vec<&str> = line.split_ascii_whitespace().collect();
    let (local, state, inode) = (columns.get(1)?, columns.get(3)?, columns.get(9)?);
    let (ip, port) = local.split_once(':')?;
    if *state != LISTENING || u16::from_str_radix(port, 16).ok()? != address.port() {
        return None;
    }
    let ip = parse_ip(ip)?;
    (ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified()).then_some(*inode)
}

/// The kernel prints words of 32 bits in the order of this machine's bytes; their bytes are in the network's order.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    if hex.len() == 8 {
        return word(0).map(|bytes| Ipv4Addr::from(bytes).into());
    }
    let mut bytes = [0; 16];
    for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
        part.copy_from_slice(&word(at * 8)?);
    }
    let ip = Ipv6Addr::from(bytes);
    Some(ip.to_ipv4_mapped().map_or(ip.into(), IpAddr::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTENS: &str =
        "  0: 0100007F:2BCB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 4711 1 0 100";

    #[cfg(target_endian = "little")]
    #[test]
    fn a_listener_is_found_by_address_and_port() {
        let inode = |address: &str| inode_of_listener(LISTENS, address.parse().unwrap());
        assert_eq!(inode("127.0.0.1:11211"), Some("4711"));
        assert_eq!(inode("0.0.0.0:11211"), Some("4711"), "all addresses have this one too");
        assert_eq!((inode("127.0.0.1:11212"), inode("10.0.0.1:11211")), (None, None));
        let connected = LISTENS.replace(" 0A ", " 01 ");
        assert_eq!(inode_of_listener(&connected, "127.0.0.1:11211".parse().unwrap()), None);
        let localhost = parse_ip("00000000000000000000000001000000").unwrap();
        assert_eq!(localhost, IpAddr::from(Ipv6Addr::LOCALHOST));
    }

    #[test]
    fn a_server_that_takes_no_more_clients_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        assert!(!is_answered(&path), "it does not listen yet");
        listener.listen(0).unwrap();
        let clients = [(); 3].map(|()| Socket::new(Domain::UNIX, Type::STREAM, None).unwrap());
        for client in &clients {
            client.set_nonblocking(true).unwrap();
            let _ = client.connect(&SockAddr::unix(&path).unwrap());
        }
        assert!(is_answered(&path));
    }

    #[test]
    fn a_name_with_control_characters_stays_in_its_line() {
        assert_eq!(shown_name(b"memcached\n"), "memcached");
        assert_eq!(shown_name(b"a\n\x1b[2J\xc2\x9b\xff\n"), "a??[2J?\u{fffd}");
    }

    #[test]
    fn a_line_that_the_kernel_does_not_write_is_passed_over() {
        for line in ["", "sl local_address", "0: 0100007F 0 0A 0 0 0 0 0 1", "0: \u{fc}0007F:2BCB 0 0A 0 0 0 0 0 1"] {
            assert_eq!(inode_of_listener(line, "127.0.0.1:11211".parse().unwrap()), None, "{line}");
        }
    }
}
