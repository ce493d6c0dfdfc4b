//! Reads keys: `get` and its like, in the text and in the binary protocol. `mg` is in `meta`.
//!
//! A value is appended to the output under its shard's lock, without a copy in between.

use super::managed::ManagedRead;
use super::{CommandOutcome, Context, FirstFetchWait, Service};
use crate::cache::ItemView;
use crate::protocol::response::{TextValue, ValueForm};
use crate::protocol::{Reply, Status, Wire, keys};
use crate::stats::WorkerStats;

impl Service {
    pub(super) fn get_many(
        &self,
        list: &[u8],
        begin: usize,
        with_cas: bool,
        touch: Option<i64>,
        context: &mut Context<'_>,
    ) -> CommandOutcome {
        let now = self.seconds(context.now);
        let expiry = touch.map(|exptime| self.expiry(exptime, context.now));
        // Where to go on later. Needed only when the answer is interrupted; a key is a slice of the list.
        let place_of = |key: &[u8]| key.as_ptr().addr().saturating_sub(list.as_ptr().addr());
        for key in keys(list.get(begin..).unwrap_or_default()) {
            if context.keys_left == 0 || context.out.is_full() {
                return CommandOutcome::MoreKeys(place_of(key));
            }
            context.keys_left -= 1;
            if let Err(wait) = self.read(TextValue { with_cas }, key, expiry, now, context) {
                return CommandOutcome::Wait(wait, place_of(key));
            }
        }
        context.out.extend_from_slice(b"END\r\n");
        CommandOutcome::Done
    }

    /// The same for one key in a packet.
    pub(super) fn get(
        &self,
        wire: &Wire<'_>,
        key: &[u8],
        touch: Option<i64>,
        context: &mut Context<'_>,
    ) -> Result<Reply, FirstFetchWait> {
        let Wire::Binary(packet) = wire else { return Ok(Reply::Written) };
        let expiry = touch.map(|exptime| self.expiry(exptime, context.now));
        let hit = self.read(packet, key, expiry, self.seconds(context.now), context)?;
        Ok(if hit { Reply::Written } else { (&Status::MISS).into() })
    }

    /// Appends what is under a key, unless it must be waited for, and counts it; true if there was something. A
    /// function for each form, so that the one place that calls it has it whole.
    #[inline(always)]
    fn read(
        &self,
        form: impl ValueForm,
        key: &[u8],
        expiry: Option<u32>,
        now: u32,
        context: &mut Context<'_>,
    ) -> Result<bool, FirstFetchWait> {
        let read = if self.is_visible(key, context) {
            self.read_managed(key, context, |out, value| {
                form.head(out, key, value.flags, value.rendered.len(&value.times), value.cas);
                value.rendered.write(out, &value.times);
                form.end(out);
            })
        } else {
            ManagedRead::Miss
        };
        let hit = match read {
            ManagedRead::Wait(wait) => return Err(wait),
            ManagedRead::Hit => true,
            ManagedRead::Miss => false,
            ManagedRead::Ordinary => {
                let out = &mut *context.out;
                let show = |item: ItemView<'_>| {
                    form.head(out, item.key, item.flags, item.value.len(), item.cas);
                    out.push_value(&item);
                    form.end(out);
                };
                match expiry {
                    None => self.cache.get(key, now, show).is_some(),
                    Some(expiry) => self.cache.get_and_touch(key, expiry, now, show).is_some(),
                }
            }
        };
        count_read(expiry.is_some(), hit, context.stats);
        Ok(hit)
    }
}

/// As memcached counts: a get that touches is a touch.
pub(super) fn count_read(touches: bool, hit: bool, stats: &WorkerStats) {
    let (commands, hits, misses) = if touches {
        (&stats.cmd_touch, &stats.touch_hits, &stats.touch_misses)
    } else {
        (&stats.cmd_get, &stats.get_hits, &stats.get_misses)
    };
    commands.add(1);
    if hit { hits.add(1) } else { misses.add(1) }
}
