//! `stats` in its forms: memcached's names and meanings (protocol.txt, "Statistics"), and `stats tokens`.
//!
//! Never shows a token, a secret or an ordinary key.

use std::fmt::Display;
use std::sync::atomic::Ordering::Relaxed;

use super::figures::{ClassSample, CredentialSample, ServerSample, SinkSample, total_malloced};
use super::{Context, Service};
use crate::access::Rights;
use crate::clock::Now;
use crate::protocol::response::stat;
use crate::protocol::{Reply, Status, Wire};
use crate::stats::{Figure, FigureValue};

/// Takes a line's name and value.
pub(super) type StatisticsWriter<'w> = &'w mut dyn FnMut(&str, &dyn Display);

impl Service {
    /// A line or a packet a figure, and one that ends them.
    pub(super) fn statistics(&self, form: (&[u8], &[u8]), wire: &Wire<'_>, context: &mut Context<'_>) -> Reply {
        // Each looks at all shards, workers or connections.
        context.keys_left = 0;
        let (now, rights, out) = (context.now, context.rights, &mut *context.out);
        let Wire::Binary(packet) = wire else {
            let write = &mut |name: &str, value: &dyn Display| stat(out, name, value);
            return Reply::Line(self.write_statistics(form, now, rights, write));
        };
        let write = &mut |name: &str, value: &dyn Display| {
            packet.stat(out, name.as_bytes(), value.to_string().as_bytes());
        };
        match self.write_statistics(form, now, rights, write) {
            "END" | "RESET" | "OK" => {
                packet.stat(out, b"", b"");
                Reply::Written
            }
            _ => (&Status::NOT_FOUND).into(),
        }
    }

    /// Writes the lines that a form of `stats` has, and returns the last one.
    pub(super) fn write_statistics(
        &self,
        (argument, rest): (&[u8], &[u8]),
        now: Now,
        rights: &Rights,
        write: StatisticsWriter<'_>,
    ) -> &'static str {
        match argument {
            b"" => self.write_general(now, rights, write),
            b"reset" => {
                self.stats.reset();
                self.cache.reset_stats();
                return "RESET";
            }
            b"settings" => self.write_settings(write),
            b"conns" => self.write_connections(now, write),
            b"items" => {
                for of in ClassSample::all(self).iter().filter(|of| of.has_items()) {
                    write_table(ClassSample::ITEMS, of, &format!("items:{}:", of.class), write);
                }
            }
            b"slabs" => self.write_slabs(write),
            b"sizes" => write("sizes_status", &"disabled"),
            b"tokens" => {
                for credential in self.visible_credentials(rights) {
                    let of = CredentialSample::of(&credential, now);
                    write_table(CredentialSample::FIGURES, &of, &format!("{}:", credential.appid), write);
                }
            }
            // Keys are not listed here; a client that asks gets an empty list and goes on.
            b"cachedump" if rest.is_empty() => return "CLIENT_ERROR bad command line",
            b"detail" => match rest {
                b"on" | b"off" => return "OK",
                b"dump" => {}
                _ => return "CLIENT_ERROR usage: stats detail on|off|dump",
            },
            // PHP's memcache takes an error to a known word for a broken server and leaves it for 15 s.
            b"cachedump" | b"malloc" | b"maps" | b"extstore" => {}
            _ => return "ERROR",
        }
        "END"
    }

    fn write_general(&self, now: Now, rights: &Rights, write: StatisticsWriter<'_>) {
        write_table(ServerSample::FIGURES, &ServerSample::of(self, rights, now), "", write);
        for (number, sink) in self.stats.sinks().iter().enumerate() {
            write_table(SinkSample::FIGURES, &SinkSample::of(sink, rights, now), &format!("sink_{number}_"), write);
        }
    }

    /// As they are now: two of them can be changed by a command.
    fn write_settings(&self, write: StatisticsWriter<'_>) {
        for (name, value) in &self.settings.shown_settings {
            match *name {
                "maxbytes" => write(name, &self.cache.totals().budget_bytes),
                "verbosity" => write(name, &self.verbosity.load(Relaxed)),
                _ => write(name, value),
            }
        }
    }

    fn write_connections(&self, now: Now, write: StatisticsWriter<'_>) {
        for (descriptor, info) in self.stats.connections.all() {
            write(&format!("{descriptor}:addr"), &info.addr);
            if let Some(listen_addr) = &info.listen_addr {
                write(&format!("{descriptor}:listen_addr"), listen_addr);
            }
            let silent_ms = now.boot_ms.saturating_sub(info.last_command_boot_ms.load(Relaxed));
            write(&format!("{descriptor}:state"), &info.state_name());
            write(&format!("{descriptor}:secs_since_last_cmd"), &(silent_ms / 1000));
        }
    }

    fn write_slabs(&self, write: StatisticsWriter<'_>) {
        let classes = ClassSample::all(self);
        for of in &classes {
            write_table(ClassSample::SLABS, of, &format!("{}:", of.class), write);
        }
        write("active_slabs", &classes.len());
        write("total_malloced", &total_malloced(&classes));
    }
}

/// Writes the figures of a table, with this before their names.
fn write_table<T>(table: &[Figure<T>], of: &T, prefix: &str, write: StatisticsWriter<'_>) {
    for figure in table.iter().filter(|figure| figure.is_in_stats()) {
        let value = (figure.read)(of);
        if !matches!(value, FigureValue::Absent) {
            write(&format!("{prefix}{}", figure.name), &value);
        }
    }
}
