//! What a start reads of its surroundings besides files. Tests put a map in its place.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};

/// The surroundings of the process.
pub trait Environment {
    /// An environment variable.
    fn get(&self, name: &str) -> Option<OsString>;

    /// The names of all variables that are valid UTF-8.
    fn names(&self) -> Vec<String>;

    /// Whether the process runs as root.
    fn is_root(&self) -> bool {
        false
    }

    /// The machine's own name; empty if it has none.
    fn host_name(&self) -> String {
        String::new()
    }

    /// The addresses of a host name.
    fn resolve(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        Err(io::Error::other("no names in this environment"))
    }

    /// Whether this machine has the address `::1`.
    fn has_ipv6_loopback(&self) -> bool {
        false
    }
}

/// The real one.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }

    fn is_root(&self) -> bool {
        rustix::process::geteuid().is_root()
    }

    fn host_name(&self) -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
    }

    fn has_ipv6_loopback(&self) -> bool {
        // A line is an address, the interface's number, and more. The file is not there without IPv6.
        let addresses = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
        addresses.lines().any(|line| line.starts_with("00000000000000000000000000000001 "))
    }
}

/// Variables from a map, nobody's root, a machine without a name, no names to resolve.
impl Environment for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<OsString> {
        BTreeMap::get(self, name).map(OsString::from)
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}
