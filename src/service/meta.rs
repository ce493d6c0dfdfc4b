//! The meta commands on ordinary keys, and the shape of their answers on all keys.
//!
//! Each is one step under its shard's lock. A key in base64 is decoded before anything else is asked about it, so
//! that it meets the fence around managed keys like any other. What they mean on managed keys is in `managed`.

use super::managed::ManagedRead;
use super::{CommandOutcome, Context, NON_NUMERIC, Output, Service, discarded_store};
use crate::cache::{ArithmeticOutcome, ItemView, LockedKey, Stored};
use crate::protocol::base64::DECODED_BYTES_MAX;
use crate::protocol::{Meta, MetaKey, StoreMode, response};

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
    pub fn show(&self, out: &mut Vec<u8>, flag: u8, word: &[u8], key: &[u8]) {
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

    /// Appends `VA <length>` or `HD`.
    pub fn head(out: &mut Vec<u8>, with_value: bool, length: usize) {
        if with_value {
            out.extend_from_slice(b"VA ");
            response::number(out, length as u64);
        } else {
            out.extend_from_slice(b"HD");
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

/// Appends a line of an answer that has no item: the code, then what `O`, `k` and, if there is one to show, `c` ask for.
pub(super) fn answer(out: &mut Vec<u8>, code: &[u8], meta: &Meta<'_>, key: &[u8], cas: Option<u64>) {
    out.extend_from_slice(code);
    for (flag, word) in meta.flags() {
        match (flag, cas) {
            (b'O', _) => response::word(out, word),
            (b'k', _) => response::flag_key(out, key, meta.key.is_encoded()),
            (b'c', Some(cas)) => response::flag(out, flag, cas),
            _ => {}
        }
    }
    out.extend_from_slice(b"\r\n");
}

impl Service {
    /// A time that comes with a flag, on the cache's clock.
    fn flag_expiry(&self, meta: &Meta<'_>, flag: u8, context: &Context<'_>) -> Option<u32> {
        meta.signed(flag).map(|exptime| self.expiry(exptime, context.now))
    }

    /// `mg`.
    pub(super) fn meta_get(&self, meta: &Meta<'_>, context: &mut Context<'_>) -> CommandOutcome {
        let mut room = [0; DECODED_BYTES_MAX];
        let key = meta.key.bytes(&mut room);
        let hit = match self.meta_get_managed(meta, key, context) {
            ManagedRead::Wait(wait) => return CommandOutcome::Wait(wait, 0),
            ManagedRead::Hit => true,
            ManagedRead::Miss => false,
            ManagedRead::Ordinary => self.meta_get_ordinary(meta, key, context),
        };
        if !hit && !meta.has(b'q') {
            answer(context.out, b"EN", meta, key, None);
        }
        let stats = context.stats;
        match (hit, meta.has(b'T')) {
            (true, true) => {
                stats.cmd_touch.add(1);
                stats.touch_hits.add(1);
            }
            (true, false) => {
                stats.cmd_get.add(1);
                stats.get_hits.add(1);
            }
            // Nothing was touched, so memcached counts it as a get.
            (false, _) => {
                stats.cmd_get.add(1);
                stats.get_misses.add(1);
            }
        }
        CommandOutcome::Done
    }

    /// True if there was something, or is now.
    fn meta_get_ordinary(&self, meta: &Meta<'_>, key: &[u8], context: &mut Context<'_>) -> bool {
        let now = self.seconds(context.now);
        let is_plain = meta.is_plain_read();
        // A plain read has no flag that brings a time.
        let time = |flag| if is_plain { None } else { self.flag_expiry(meta, flag, context) };
        let (vivify, touch, recache) = (time(b'N'), time(b'T'), time(b'R'));
        let out = &mut *context.out;
        self.cache.with_key(key, now, |slot| {
            if is_plain && read_plainly(out, slot, meta, key, now) {
                return true;
            }
            // Counts an expired item as found expired.
            let absent = slot.view().is_none() && slot.fetch().is_none();
            let created = absent && vivify.is_some() && slot.create(0, b"", None);
            let Some(facts) = ItemInfo::of(slot, now) else { return false };
            ItemInfo::head(out, meta.has(b'v'), facts.length);
            let times = FlagExpiries { touch, vivify: vivify.filter(|_| created), recache };
            let recached = show_get(out, meta, key, facts, slot, now, &times);
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
                Some(expiry) if touch.is_some() => {
                    slot.touch(expiry);
                }
                _ => {
                    slot.fetch();
                }
            }
            true
        })
    }

    /// `ms`. `value` is none if it was too large to be kept.
    pub(super) fn meta_store(&self, meta: &Meta<'_>, mode: StoreMode, value: Option<&[u8]>, context: &mut Context<'_>) {
        let mut room = [0; DECODED_BYTES_MAX];
        let key = meta.key.bytes(&mut room);
        if self.meta_reject_write(meta, key, value.unwrap_or_default(), context) {
            return;
        }
        let (stored, cas) = match value {
            Some(value) => self.meta_put(meta, mode, key, value, context),
            None => (discarded_store(context), 0),
        };
        let code: &[u8] = match stored {
            Stored::Stored => b"HD",
            Stored::NotStored => b"NS",
            Stored::Exists => b"EX",
            Stored::NotFound => b"NF",
            Stored::TooLarge | Stored::OutOfMemory => {
                // As memcached, whatever the mode: nobody reads what was meant to be replaced.
                self.cache.delete(key, self.seconds(context.now));
                b""
            }
        };
        if code.is_empty() {
            let answer = self.record_store(mode, stored, context);
            response::line(context.out, answer);
            return;
        }
        self.record_store(mode, stored, context);
        if !(stored == Stored::Stored && meta.has(b'q')) {
            answer(context.out, code, meta, key, Some(cas));
        }
    }

    /// Stores, and gives the new cas id, 0 if nothing was stored.
    fn meta_put(
        &self,
        meta: &Meta<'_>,
        mode: StoreMode,
        key: &[u8],
        value: &[u8],
        context: &Context<'_>,
    ) -> (Stored, u64) {
        let flags = meta.unsigned(b'F').and_then(|flags| u32::try_from(flags).ok()).unwrap_or(0);
        let expiry = self.flag_expiry(meta, b'T', context).unwrap_or(0);
        let expected = meta.unsigned(b'C').filter(|&cas| cas != 0);
        let ready = self.cache.prepare(mode, key, flags, value);
        self.cache.with_key(key, self.seconds(context.now), |slot| {
            let extends = matches!(mode, StoreMode::Append | StoreMode::Prepend);
            let old = slot.view().map(|item| (item.cas, item.exptime, item.token_sent));
            if extends && expected.zip(old).is_some_and(|(expected, (cas, ..))| expected != cas) {
                return (Stored::Exists, 0);
            }
            // An older cas with `I`: the value is taken, but as stale as what it replaces.
            let stale = match (mode, old) {
                (StoreMode::Cas(seen), Some((cas, expiry, sent))) if meta.has(b'I') && seen != 0 && seen < cas => {
                    Some((expiry, sent))
                }
                _ => None,
            };
            let (mode, expiry) = match stale {
                Some((expiry, _)) => (StoreMode::Set, expiry),
                None => (mode, expiry),
            };
            let stored = slot.store_prepared(mode, flags, expiry, value, ready, meta.unsigned(b'E'));
            if stored != Stored::Stored {
                return (stored, 0);
            }
            if let Some((_, sent)) = stale {
                slot.set_stale(true);
                slot.set_token_sent(sent);
            }
            slot.set_encoded_key(meta.key.is_encoded() && !extends);
            (stored, slot.view().map_or(0, |item| item.cas))
        })
    }

    /// `md`.
    pub(super) fn meta_delete(&self, meta: &Meta<'_>, context: &mut Context<'_>) -> CommandOutcome {
        let mut room = [0; DECODED_BYTES_MAX];
        let key = meta.key.bytes(&mut room);
        if let Some(outcome) = self.meta_delete_managed(meta, key, context) {
            return outcome;
        }
        let expiry = self.flag_expiry(meta, b'T', context);
        let stats = context.stats;
        let code = self.cache.with_key(key, self.seconds(context.now), |slot| {
            let Some(cas) = slot.view().map(|item| item.cas) else {
                stats.delete_misses.add(1);
                return b"NF";
            };
            if meta.unsigned(b'C').is_some_and(|expected| expected != cas) {
                stats.delete_misses.add(1);
                return b"EX";
            }
            if meta.has(b'I') {
                if let Some(expiry) = expiry {
                    slot.set_expiry(expiry);
                }
                slot.set_stale(true);
                // So that the next reader is told to recache it.
                slot.set_token_sent(false);
                slot.set_cas(meta.unsigned(b'E'));
            } else {
                slot.delete();
                stats.delete_hits.add(1);
            }
            b"HD"
        });
        if !(code == b"HD" && meta.has(b'q')) {
            answer(context.out, code, meta, key, None);
        }
        CommandOutcome::Done
    }

    /// `ma`.
    pub(super) fn meta_arithmetic(&self, meta: &Meta<'_>, increase: bool, context: &mut Context<'_>) {
        let mut room = [0; DECODED_BYTES_MAX];
        let key = meta.key.bytes(&mut room);
        if context.names.is_managed(key) {
            response::reply(context.out, NON_NUMERIC, meta.has(b'q'));
            return;
        }
        let stats = context.stats;
        let (hits, misses) =
            if increase { (&stats.incr_hits, &stats.incr_misses) } else { (&stats.decr_hits, &stats.decr_misses) };
        match self.meta_count(meta, key, increase, context) {
            MetaArithmeticOutcome::Changed => hits.add(1),
            MetaArithmeticOutcome::Created => {}
            MetaArithmeticOutcome::Absent => {
                misses.add(1);
                answer(context.out, b"NF", meta, key, None);
            }
            MetaArithmeticOutcome::CasMismatch => answer(context.out, b"EX", meta, key, None),
            MetaArithmeticOutcome::Failed(error) => response::line(context.out, error),
        }
    }

    /// Counts, and answers if that went well.
    fn meta_count(
        &self,
        meta: &Meta<'_>,
        key: &[u8],
        increase: bool,
        context: &mut Context<'_>,
    ) -> MetaArithmeticOutcome {
        let now = self.seconds(context.now);
        let vivify = self.flag_expiry(meta, b'N', context);
        let touch = self.flag_expiry(meta, b'T', context);
        let out = &mut *context.out;
        self.cache.with_key(key, now, |slot| {
            let expected = meta.unsigned(b'C').filter(|&cas| cas != 0);
            let old = slot.view().map(|item| (item.value.is_empty(), item.cas));
            let (value, sum) = match old {
                None if vivify.is_some() => {
                    let initial = meta.unsigned(b'J').unwrap_or(0);
                    let mut text = itoa::Buffer::new();
                    if !slot.create(0, text.format(initial).as_bytes(), meta.unsigned(b'E')) {
                        return MetaArithmeticOutcome::Failed("SERVER_ERROR Out of memory allocating new item");
                    }
                    (initial, MetaArithmeticOutcome::Created)
                }
                None => return MetaArithmeticOutcome::Absent,
                // memcached looks at the length first, then at the cas, then at the number.
                Some((true, _)) => return MetaArithmeticOutcome::Failed(NON_NUMERIC),
                Some((_, cas)) if expected.is_some_and(|expected| expected != cas) => {
                    return MetaArithmeticOutcome::CasMismatch;
                }
                Some(_) => {
                    let delta = meta.unsigned(b'D').unwrap_or(1);
                    match slot.arithmetic(delta, increase, meta.unsigned(b'E')) {
                        ArithmeticOutcome::Value(value) => (value, MetaArithmeticOutcome::Changed),
                        ArithmeticOutcome::NotFound => return MetaArithmeticOutcome::Absent,
                        ArithmeticOutcome::NonNumeric => return MetaArithmeticOutcome::Failed(NON_NUMERIC),
                        ArithmeticOutcome::OutOfMemory | ArithmeticOutcome::TooLarge => {
                            return MetaArithmeticOutcome::Failed("SERVER_ERROR out of memory");
                        }
                    }
                }
            };
            // memcached skips the answer to a count only.
            let quiet = meta.has(b'q') && matches!(sum, MetaArithmeticOutcome::Changed);
            let start = out.len();
            show_arithmetic(
                out,
                meta,
                key,
                value,
                slot,
                now,
                [touch, vivify.filter(|_| matches!(sum, MetaArithmeticOutcome::Created))],
            );
            if quiet {
                out.truncate(start);
            }
            sum
        })
    }

    /// `me`.
    pub(super) fn meta_debug(&self, key: MetaKey<'_>, context: &mut Context<'_>) {
        let mut room = [0; DECODED_BYTES_MAX];
        let text = key.bytes(&mut room);
        context.stats.cmd_meta.add(1);
        if let Some(found) = self.meta_debug_managed(key, text, context) {
            if !found {
                response::line(context.out, "EN");
            }
            return;
        }
        let now = self.seconds(context.now);
        let out = &mut *context.out;
        let found = self.cache.with_key(text, now, |slot| {
            let facts = ItemInfo::of(slot, now)?;
            let (class, size) = slot.view().map(|item| (item.class, item.size_bytes))?;
            facts.debug(out, text, class, size);
            Some(())
        });
        if found.is_none() {
            response::line(context.out, "EN");
        }
    }
}

/// What became of a `ma`.
enum MetaArithmeticOutcome {
    Changed,
    Created,
    Absent,
    CasMismatch,
    Failed(&'static str),
}

/// The expiries that flags of a `mg` bring, where they apply.
struct FlagExpiries {
    touch: Option<u32>,
    vivify: Option<u32>,
    recache: Option<u32>,
}

/// Answers a plain `mg` of an item about whose recaching there is nothing to tell, at one look. False if there is no such
/// item; then nothing was done.
#[inline]
fn read_plainly(out: &mut Output, slot: &mut LockedKey<'_>, meta: &Meta<'_>, key: &[u8], now: u32) -> bool {
    let Some(item) = slot.view() else { return false };
    if item.stale || item.token_sent {
        return false;
    }
    let (facts, with_value) = (ItemInfo::of_item(&item, now), meta.has(b'v'));
    if with_value && !item.is_shareable() {
        out.reserve(item.value.len());
    }
    ItemInfo::head(out, with_value, facts.length);
    for (flag, word) in meta.flags() {
        facts.show(out, flag, word, key);
    }
    out.extend_from_slice(b"\r\n");
    if with_value {
        out.push_value(&item);
        out.extend_from_slice(b"\r\n");
    }
    // Only now, so that `h` and `l` tell of the time before.
    slot.fetch();
    true
}

/// Appends the flags of a `mg` in their order, each as things are by then; true if `R` finds that little time is left.
fn show_get(
    out: &mut Vec<u8>,
    meta: &Meta<'_>,
    key: &[u8],
    mut facts: ItemInfo,
    slot: &mut LockedKey<'_>,
    now: u32,
    times: &FlagExpiries,
) -> bool {
    let mut recached = false;
    for (flag, word) in meta.flags() {
        let set = match flag {
            b'T' => times.touch,
            b'N' => times.vivify,
            b'R' => {
                let expiry = slot.view().map_or(0, |item| item.exptime);
                let early = expiry != 0 && times.recache.is_some_and(|recache| expiry < recache);
                recached |= early && times.vivify.is_none();
                None
            }
            _ => None,
        };
        if let Some(expiry) = set {
            slot.set_expiry(expiry);
            facts.left = seconds_left(expiry, now);
        }
        facts.show(out, flag, word, key);
    }
    recached
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

/// Appends the answer to a count that went well. `times` are the expiries that `T` and `N` set, where they apply.
fn show_arithmetic(
    out: &mut Vec<u8>,
    meta: &Meta<'_>,
    key: &[u8],
    value: u64,
    slot: &mut LockedKey<'_>,
    now: u32,
    times: [Option<u32>; 2],
) {
    let Some(mut facts) = ItemInfo::of(slot, now) else { return };
    facts.encoded_key = meta.key.is_encoded();
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value).as_bytes();
    ItemInfo::head(out, meta.has(b'v'), digits.len());
    for (flag, word) in meta.flags() {
        let set = match flag {
            b'T' => times[0],
            b'N' => times[1],
            _ => None,
        };
        if let Some(expiry) = set {
            slot.set_expiry(expiry);
            facts.left = seconds_left(expiry, now);
        }
        if matches!(flag, b'c' | b't' | b'O' | b'k') {
            facts.show(out, flag, word, key);
        }
    }
    out.extend_from_slice(b"\r\n");
    if meta.has(b'v') {
        out.extend_from_slice(digits);
        out.extend_from_slice(b"\r\n");
    }
}
