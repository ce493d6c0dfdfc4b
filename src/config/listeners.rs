//! The `[[server.listener]]` tables: further addresses, each with terms of its own.

use std::path::Path;

use super::access::{reading, rights};
use super::environment::Environment;
use super::fault::{Fault, Place, Problem};
use super::file::RawTable;
use super::listen::{self, Guarded};
use super::value::{Given, mode, switch, text};
use super::{Access, ListenAt, Listener};
use crate::access::Rights;

/// What stands before the path of a Unix socket.
const UNIX: &str = "unix:";
const MODE_DEFAULT: u32 = 0o700;
/// With a group it is for the group, too.
const MODE_WITH_GROUP: u32 = 0o770;

/// The access mask of a socket, if none is given.
pub(super) fn default_mode(group: Option<&str>) -> u32 {
    if group.is_some() { MODE_WITH_GROUP } else { MODE_DEFAULT }
}

/// Reads one after the other, with all faults.
pub(super) struct Listeners<'l> {
    pub access: &'l Access,
    pub allow_unauthenticated: bool,
    /// Relative paths count from there.
    pub folder: &'l Path,
    pub environment: &'l dyn Environment,
    pub faults: &'l mut Vec<Fault>,
    pub warnings: &'l mut Vec<String>,
}

impl Listeners<'_> {
    pub fn read(&mut self, tables: Vec<RawTable>) -> Vec<Listener> {
        tables.into_iter().flat_map(|table| self.one(table)).collect()
    }

    fn one(&mut self, mut table: RawTable) -> Vec<Listener> {
        let mut take = |key: &str| table.fields.remove(key);
        let (address, mode_given, group) = (take("address"), take("mode"), take("group"));
        let (auth, tls, rights_given) = (take("auth"), take("tls"), take("rights"));
        let Some(address) = address else {
            let remedy = "Add a line address = \"127.0.0.1:11212\" or address = \"unix:/run/x.sock\".";
            self.faults.push(Problem::new("the listener has no address", remedy).at(&table.place));
            return Vec::new();
        };
        let rights = rights_given.and_then(|given| reading(&given, self.faults, rights)).unwrap_or(Rights::ALL);
        let unix =
            text(&address.value).ok().and_then(|text| text.strip_prefix(UNIX)).map(|path| self.folder.join(path));
        let auth = self.switch(auth, self.access.auth_file.is_some(), NO_AUTH);
        match unix {
            Some(path) => {
                let group =
                    group.and_then(|given| reading(&given, self.faults, |value| text(value).map(str::to_owned)));
                let mode = mode_given.and_then(|given| reading(&given, self.faults, mode));
                self.no_place(tls, "TLS is for TCP; a Unix socket has its access mask", "Remove the key.");
                let mode = mode.unwrap_or_else(|| default_mode(group.as_deref()));
                vec![Listener { at: ListenAt::Unix { path, mode, group }, rights, auth, tls: false }]
            }
            None => {
                let remedy = "Remove the key, or give an address like \"unix:/run/x.sock\".";
                self.no_place(mode_given, "an access mask is for a Unix socket", remedy);
                self.no_place(group, "a group is for a Unix socket", remedy);
                let tls = self.switch(tls, self.access.tls.is_some(), NO_TLS);
                let at = self.addresses(&address, auth, tls);
                let listener = |at| Listener { at: ListenAt::Tcp(at), rights: rights.clone(), auth, tls };
                at.into_iter().map(listener).collect()
            }
        }
    }

    fn addresses(&mut self, address: &Given, auth: bool, tls: bool) -> Vec<std::net::SocketAddr> {
        let Some(spots) = reading(address, self.faults, listen::spots) else { return Vec::new() };
        let addresses = listen::resolve(&spots, listen::PORT, &address.place, self.environment, self.faults);
        let guarded = Guarded {
            passwords: auth,
            tls,
            certificates: tls && self.access.requires_certificates(),
            allowed: self.allow_unauthenticated,
        };
        listen::judge(&addresses, guarded, &address.place, self.faults, self.warnings);
        addresses
    }

    /// A switch that is on where there is something to switch on, and a fault where there is not.
    fn switch(&mut self, given: Option<Given>, there: bool, (what, remedy): (&str, &str)) -> bool {
        let Some(given) = given else { return there };
        let on = reading(&given, self.faults, switch).unwrap_or(there);
        if on && !there {
            self.faults.push(Problem::new(what, remedy).at(&given.place));
        }
        on
    }

    fn no_place(&mut self, given: Option<Given>, what: &str, remedy: &str) {
        let off = |given: &Given| matches!(switch(&given.value), Ok(false));
        if let Some(place) = given.filter(|given| !off(given)).map(|given: Given| -> Place { given.place }) {
            self.faults.push(Problem::new(what, remedy).at(&place));
        }
    }
}

const NO_AUTH: (&str, &str) = ("there are no users who could log in", "Give their file: auth_file in [server], or -Y.");
const NO_TLS: (&str, &str) = ("there is no certificate for TLS", "Give cert and key under [server.tls].");
