//! The meta commands on ordinary keys, and the shape of their answers on all keys.
//!
//! Each is one step under its shard's lock. A key in base64 is decoded before anything else is asked about it, so
//! that it meets the fence around managed keys like any other. What they mean on managed keys is in `managed`.

use super::managed::ManagedRead;
use super::reads::count_read;
use super::{Context, FirstFetchWait, Output, Service};
use crate::cache::{ItemView, LockedKey};
use crate::protocol::parse::exptime;
use crate::protocol::{Meta, Reply, Status, Wire, response};

/// What flags of an answer tell about an item.
pub(super) struct ItemInfo {
    pub length: usize,
    pub flags: u32,
    pub cas: u64,
    /// Seconds; none if it never ends.
    pub left: Option<u32>,
    /// Seconds since somebody read it.
    pub idle: u32,
    pub fetched: bool,
    /// Its key is shown in base64.
    pub encoded_key: bool,
}

impl ItemInfo {
    fn of(slot: &LockedKey<'_>, now: u32) -> Option<ItemInfo> {
        slot.view().map(|item| ItemInfo::of_item(&item, now))
    }

    #[inline(always)]
    fn of_item(item: &ItemView<'_>, now: u32) -> ItemInfo {
        ItemInfo {
            length: item.value.len(),
            flags: item.flags,
            cas: item.cas,
            left: seconds_left(item.exptime, now),
            idle: now.saturating_sub(item.last_access),
            fetched: item.fetched,
            encoded_key: item.encoded_key,
        }
    }

    /// Appends what a flag asks for; nothing if it asks for nothing.
    fn show(&self, out: &mut Vec<u8>, flag: u8, word: &[u8], key: &[u8]) {
        match flag {
            b's' => response::flag(out, flag, self.length as u64),
            b't' => match self.left {
                Some(left) => response::flag(out, flag, u64::from(left)),
                None => response::word(out, b"t-1"),
            },
            b'c' => response::flag(out, flag, self.cas),
            b'f' => response::flag(out, flag, u64::from(self.flags)),
            b'l' => response::flag(out, flag, u64::from(self.idle)),
            b'h' => response::flag(out, flag, u64::from(self.fetched)),
            b'O' => response::word(out, word),
            b'k' => response::flag_key(out, key, self.encoded_key),
            _ => {}
        }
    }

    /// Appends `VA <length>` or `HD` and what the flags ask for, in their order, but no line end. Before each flag `step` may
    /// change what there is to tell; false leaves the flag out.
    #[inline(always)]
    pub fn write(
        &mut self,
        out: &mut Vec<u8>,
        meta: &Meta<'_>,
        key: &[u8],
        mut step: impl FnMut(u8, &[u8], &mut ItemInfo) -> bool,
    ) {
        if meta.has(b'v') {
            out.extend_from_slice(b"VA ");
            response::number(out, self.length as u64);
        } else {
            out.extend_from_slice(b"HD");
        }
        for (flag, word) in meta.flags() {
            if step(flag, word, self) {
                self.show(out, flag, word, key);
            }
        }
    }

    /// Gives the item an expiry that came with a flag.
    fn set_expiry(&mut self, slot: &mut LockedKey<'_>, expiry: Option<u32>, now: u32) {
        if let Some(expiry) = expiry {
            slot.set_expiry(expiry);
            self.left = seconds_left(expiry, now);
        }
    }

    /// Appends `me`'s line. memcached 1.6.18 writes the seconds left with a minus.
    pub fn debug(&self, out: &mut Vec<u8>, key: &[u8], class: u8, size: usize) {
        use std::io::Write;
        out.extend_from_slice(b"ME ");
        response::key(out, key, self.encoded_key);
        let left = self.left.map_or(-1, |left| -i64::from(left));
        let (idle, cas, fetch) = (self.idle, self.cas, if self.fetched { "yes" } else { "no" });
        // Writing to a Vec cannot fail.
        let _ = write!(out, " exp={left} la={idle} cas={cas} fetch={fetch} cls={class} size={size}\r\n");
    }
}

/// Seconds to an expiry. One in the past wraps around, as memcached's does: it is seen only by the command that set it.
fn seconds_left(expiry: u32, now: u32) -> Option<u32> {
    (expiry != 0).then(|| expiry.wrapping_sub(now))
}

/// The exptime that comes with a flag.
pub(super) fn exptime_of(word: &[u8]) -> Option<i64> {
    exptime(word.get(1..)?)
}

impl Service {
    /// `mg`.
    pub(super) fn meta_get(
        &self,
        wire: &Wire<'_>,
        key: &[u8],
        context: &mut Context<'_>,
    ) -> Result<Reply, FirstFetchWait> {
        let Wire::Meta(meta) = wire else { return Ok(Reply::Written) };
        let hit = match self.meta_get_managed(meta, key, context) {
            ManagedRead::Wait(wait) => return Err(wait),
            ManagedRead::Hit => true,
            ManagedRead::Miss => false,
            ManagedRead::Ordinary => self.meta_get_ordinary(meta, key, context),
        };
        // If nothing was touched, memcached counts it as a get.
        count_read(hit && meta.has(b'T'), hit, context.stats);
        Ok(if hit { Reply::Written } else { (&Status::MISS).into() })
    }

    /// True if there was something, or is now.
    fn meta_get_ordinary(&self, meta: &Meta<'_>, key: &[u8], context: &mut Context<'_>) -> bool {
        let now = self.seconds(context.now);
        let is_plain = meta.is_plain_read();
        let expiry = |word: &[u8]| exptime_of(word).map(|exptime| self.expiry(exptime, context.now));
        let out = &mut *context.out;
        self.cache.with_key(key, now, |slot| {
            if is_plain && read_plainly(out, slot, meta, key, now) {
                return true;
            }
            // Counts an expired item as found expired.
            let absent = slot.view().is_none() && slot.fetch().is_none();
            let created = absent && meta.has(b'N') && slot.create(0, b"", None);
            let Some(mut facts) = ItemInfo::of(slot, now) else { return false };
            let mut recached = false;
            facts.write(out, meta, key, |flag, word, facts| {
                match flag {
                    b'T' => facts.set_expiry(slot, expiry(word), now),
                    b'N' if created => facts.set_expiry(slot, expiry(word), now),
                    // Little time is left.
                    b'R' => {
                        let left = slot.view().map_or(0, |item| item.exptime);
                        recached = !created && left != 0 && expiry(word).is_some_and(|least| left < least);
                    }
                    _ => {}
                }
                true
            });
            show_marks(out, slot, created || recached);
            if meta.has(b'v') {
                if let Some(item) = slot.view() {
                    out.push_value(&item);
                }
                out.extend_from_slice(b"\r\n");
            }
            // Only now, so that `h` and `l` tell of the time before.
            match slot.view().map(|item| item.exptime) {
                Some(_) if meta.has(b'u') => {}
                Some(expiry) if meta.has(b'T') => {
                    slot.touch(expiry);
                }
                _ => {
                    slot.fetch();
                }
            }
            true
        })
    }

    /// `me`.
    pub(super) fn meta_debug(&self, wire: &Wire<'_>, key: &[u8], context: &mut Context<'_>) -> Reply {
        let Wire::Meta(meta) = wire else { return Reply::Written };
        context.stats.cmd_meta.add(1);
        let found = match context.names.find(key) {
            Some(name) => self.meta_debug_managed(name, meta, key, context),
            None => {
                let now = self.seconds(context.now);
                self.cache.with_key(key, now, |slot| {
                    let found = slot.view().map(|item| (ItemInfo::of_item(&item, now), item.class, item.size_bytes));
                    if let Some((facts, class, size)) = &found {
                        facts.debug(context.out, key, *class, *size);
                    }
                    found.is_some()
                })
            }
        };
        if found { Reply::Written } else { (&Status::MISS).into() }
    }
}

/// Answers a plain `mg` of an item about whose recaching there is nothing to tell, at one look. False if there is no such
/// item; then nothing was done.
#[inline]
fn read_plainly(out: &mut Output, slot: &mut LockedKey<'_>, meta: &Meta<'_>, key: &[u8], now: u32) -> bool {
    let Some(item) = slot.view() else { return false };
    if item.stale || item.token_sent {
        return false;
    }
    let with_value = meta.has(b'v');
    if with_value && !item.is_shareable() {
        out.reserve(item.value.len());
    }
    ItemInfo::of_item(&item, now).write(out, meta, key, |_, _, _| true);
    out.extend_from_slice(b"\r\n");
    if with_value {
        out.push_value(&item);
        out.extend_from_slice(b"\r\n");
    }
    // Only now, so that `h` and `l` tell of the time before.
    slot.fetch();
    true
}

/// Ends the line of a `mg` with memcached's marks about recaching: `Z`, another client was told before; `X`, it is stale;
/// `W`, this client is to recache it, which only one is told.
fn show_marks(out: &mut Vec<u8>, slot: &mut LockedKey<'_>, wanted: bool) {
    let (stale, sent) = slot.view().map_or((false, false), |item| (item.stale, item.token_sent));
    let won = (wanted || stale) && !sent;
    for (shown, word) in [(sent, b" Z"), (stale, b" X"), (won, b" W")] {
        if shown {
            out.extend_from_slice(word);
        }
    }
    out.extend_from_slice(b"\r\n");
    if won {
        slot.set_token_sent(true);
    }
}

/// Appends the answer to a count that went well. `expiry` says what `T` and `N` set, where they apply.
pub(super) fn show_count(
    out: &mut Vec<u8>,
    meta: &Meta<'_>,
    key: &[u8],
    value: u64,
    slot: &mut LockedKey<'_>,
    now: u32,
    expiry: impl Fn(u8, &[u8]) -> Option<u32>,
) {
    let Some(mut facts) = ItemInfo::of(slot, now) else { return };
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value).as_bytes();
    (facts.length, facts.encoded_key) = (digits.len(), meta.has_encoded_key());
    facts.write(out, meta, key, |flag, word, facts| {
        if let b'T' | b'N' = flag {
            facts.set_expiry(slot, expiry(flag, word), now);
        }
        matches!(flag, b'c' | b't' | b'O' | b'k')
    });
    out.extend_from_slice(b"\r\n");
    if meta.has(b'v') {
        out.extend_from_slice(digits);
        out.extend_from_slice(b"\r\n");
    }
}
