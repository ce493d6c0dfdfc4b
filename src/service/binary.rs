//! Statistics in packets.

use super::{Context, Output, Service};
use crate::protocol::{Packet, Reply, Status};

impl Service {
    /// `stat`: what `stats` says in text, a packet a line and an empty one at the end.
    pub(super) fn statistics_in_packets(
        &self,
        packet: &Packet,
        (argument, rest): (&[u8], &[u8]),
        context: &mut Context<'_>,
    ) -> Reply {
        let mut text = Output::default();
        context.keys_left = 0;
        self.statistics(argument, rest, &mut Context { out: &mut text, ..*context });
        let mut lines = text.split(|&byte| byte == b'\n').filter_map(|line| line.strip_suffix(b"\r"));
        for line in lines.by_ref() {
            let mut words = line.splitn(3, |&byte| byte == b' ');
            match (words.next(), words.next(), words.next()) {
                (Some(b"STAT"), Some(name), value) => {
                    packet.stat(context.out, name, value.unwrap_or_default());
                }
                (Some(b"END" | b"RESET" | b"OK"), None, None) => {
                    packet.stat(context.out, b"", b"");
                    return Reply::Written;
                }
                _ => break,
            }
        }
        (&Status::NOT_FOUND).into()
    }
}
