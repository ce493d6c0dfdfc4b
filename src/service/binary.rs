//! The binary protocol's packets: the same keys, rights, refusals and counters as the text commands have.
//!
//! Quiet packets are answered as memcached does: no success, no miss of a get, but errors. A refusal for the sake of a
//! managed key or of a client's rights is silent then, as with `noreply`. Logging in is the connection's business.

use super::access::may_read_statistics;
use super::managed::{ManagedRead, ReportOutcome};
use super::{CommandOutcome, Context, MEMCACHED_VERSION, Output, Service};
use crate::cache::{ArithmeticOutcome, ItemView, Stored};
use crate::clock::Now;
use crate::credential::table::KeyReading;
use crate::protocol::StoreMode;
use crate::protocol::binary::{self, Packet, PacketCommand, ResponseStatus};
use crate::service::RefuseWith;

/// What became of a count: the number and the new cas id, or an error in whose words.
type BinaryArithmeticResult = Result<(u64, u64), (ResponseStatus, Option<&'static str>)>;

impl Service {
    /// Carries a packet out. [`CommandOutcome::Wait`] is as for a text command.
    pub fn execute_binary(&self, packet: &Packet<'_>, context: &mut Context<'_>) -> CommandOutcome {
        match packet.command {
            PacketCommand::Get { key, with_key, exptime } => {
                return self.binary_get(packet, key, with_key, exptime, context);
            }
            PacketCommand::Touch { key, exptime } => self.binary_touch(packet, key, exptime, context),
            PacketCommand::Store { mode, key, flags, exptime, value } => {
                if !self.binary_reject_write(packet, key, value.unwrap_or_default(), context) {
                    self.binary_store(packet, mode, key, (flags, exptime), value, context);
                }
            }
            PacketCommand::Arithmetic { key, increase, delta, create } => {
                self.binary_arithmetic(packet, key, increase, delta, create, context);
            }
            PacketCommand::Delete { key } => return self.binary_delete(packet, key, context),
            PacketCommand::Flush { delay } => self.binary_flush(packet, delay, context),
            PacketCommand::Stats { argument } => self.binary_statistics(packet, argument, context),
            PacketCommand::NoOperation => binary::status(context.out, packet, ResponseStatus::Success),
            PacketCommand::Version => binary::value(context.out, packet, MEMCACHED_VERSION.as_bytes(), 0),
            PacketCommand::Quit => {
                answer_success(packet, context);
                return CommandOutcome::Close;
            }
            PacketCommand::Mechanisms | PacketCommand::Login { .. } | PacketCommand::Unknown => {
                binary::status(context.out, packet, ResponseStatus::Unknown);
            }
            PacketCommand::Broken(status) => {
                binary::status(context.out, packet, status);
                return CommandOutcome::Close;
            }
        }
        CommandOutcome::Done
    }

    /// An exptime of the binary protocol, on the cache's clock: never negative, so `0xffffffff` is far away.
    fn binary_expiry(&self, exptime: u32, now: Now) -> u32 {
        self.expiry_of(i64::from(exptime), now)
    }

    fn binary_get(
        &self,
        packet: &Packet<'_>,
        key: &[u8],
        with_key: bool,
        exptime: Option<u32>,
        context: &mut Context<'_>,
    ) -> CommandOutcome {
        // A touch in passing is a change; without the right to it there is nothing to see.
        let denied = exptime.is_some() && context.rights.read_only();
        let shown = if with_key { key } else { b"" };
        let sees = !denied && self.is_visible(key, context);
        let read = if sees { self.binary_read(packet, key, shown, exptime, context) } else { ManagedRead::Miss };
        if let ManagedRead::Wait(wait) = read {
            return CommandOutcome::Wait(wait, 0);
        }
        let hit = matches!(read, ManagedRead::Hit);
        if denied {
            self.record_denial(context);
        }
        if !hit && !packet.quiet {
            if with_key {
                let lengths = binary::Lengths { key: key.len(), ..Default::default() };
                binary::head(context.out, packet, ResponseStatus::NotFound, lengths, 0);
                context.out.extend_from_slice(key);
            } else {
                binary::status(context.out, packet, ResponseStatus::NotFound);
            }
        }
        if !denied {
            self.count_get(exptime.is_some(), hit, context.stats);
        }
        CommandOutcome::Done
    }

    /// Appends what is under a key, if there is something.
    fn binary_read(
        &self,
        packet: &Packet<'_>,
        key: &[u8],
        shown: &[u8],
        exptime: Option<u32>,
        context: &mut Context<'_>,
    ) -> ManagedRead {
        let managed = self.read_managed(key, context, |out, value| {
            binary::item(out, packet, shown, value.flags, value.rendered.len(&value.times), value.cas);
            value.rendered.write(out, &value.times);
        });
        if !matches!(managed, ManagedRead::Ordinary) {
            return managed;
        }
        let (now, out) = (self.seconds(context.now), &mut *context.out);
        let show = |item: ItemView<'_>| {
            binary::item(out, packet, shown, item.flags, item.value.len(), item.cas);
            out.push_value(&item);
        };
        let found = match exptime {
            None => self.cache.get(key, now, show),
            Some(exptime) => self.cache.get_and_touch(key, self.binary_expiry(exptime, context.now), now, show),
        };
        if found.is_some() { ManagedRead::Hit } else { ManagedRead::Miss }
    }

    /// `touch` shows the flags and the cas id, as memcached does. Nothing changes on a managed key.
    fn binary_touch(&self, packet: &Packet<'_>, key: &[u8], exptime: u32, context: &mut Context<'_>) {
        if !self.may_change(key, context) {
            self.record_denial(context);
            return binary::status(context.out, packet, ResponseStatus::NotFound);
        }
        let now = context.now;
        let managed = context.names.find(key).map(|name| {
            name.read(now, |found| match found {
                KeyReading::Bytes(value) => (value.flags, value.cas),
                KeyReading::Nothing | KeyReading::FirstFetch | KeyReading::Absent => (0, 0),
            })
        });
        let touched = managed.or_else(|| {
            let expiry = self.binary_expiry(exptime, now);
            self.cache.with_key(key, self.seconds(now), |slot| {
                slot.touch(expiry).then(|| slot.view().map_or((0, 0), |item| (item.flags, item.cas)))
            })
        });
        self.count_get(true, touched.is_some(), context.stats);
        match touched {
            Some((flags, cas)) => binary::item(context.out, packet, b"", flags, 0, cas),
            None => binary::status(context.out, packet, ResponseStatus::NotFound),
        }
    }

    /// Refuses a store because the client lacks the right or the key is managed; false to execute it.
    fn binary_reject_write(&self, packet: &Packet<'_>, key: &[u8], value: &[u8], context: &mut Context<'_>) -> bool {
        if !self.may_change(key, context) {
            self.record_denial(context);
        } else if !self.reject_managed_write(key, value, context) {
            return false;
        }
        let status = match (self.settings.refuse_with, packet.cas) {
            (RefuseWith::ClientError, _) => ResponseStatus::Invalid,
            (RefuseWith::NotStored, 0) => ResponseStatus::NotStored,
            (RefuseWith::NotStored, _) => ResponseStatus::Exists,
        };
        if !packet.quiet {
            binary::status(context.out, packet, status);
        }
        true
    }

    fn binary_store(
        &self,
        packet: &Packet<'_>,
        asked: StoreMode,
        key: &[u8],
        (flags, exptime): (u32, u32),
        value: Option<&[u8]>,
        context: &mut Context<'_>,
    ) {
        let Some(value) = value.filter(|value| self.cache.fits(key.len(), flags, value.len())) else {
            // As memcached: the old value of a `set` goes, so that nobody reads what was meant to be replaced.
            if asked == StoreMode::Set {
                self.cache.delete(key, self.seconds(context.now));
            }
            return binary::status(context.out, packet, ResponseStatus::TooLarge);
        };
        let extends = matches!(asked, StoreMode::Append | StoreMode::Prepend);
        let mode = if packet.cas != 0 && !extends { StoreMode::Cas(packet.cas) } else { asked };
        let expiry = self.binary_expiry(exptime, context.now);
        let ready = self.cache.prepare(mode, key, flags, value);
        let (stored, cas) = self.cache.with_key(key, self.seconds(context.now), |slot| {
            let old = slot.view().map(|item| item.cas);
            if extends && packet.cas != 0 && old.is_some_and(|old| old != packet.cas) {
                return (Stored::Exists, 0);
            }
            let stored = slot.store_prepared(mode, flags, expiry, value, ready, None);
            (stored, slot.view().map_or(0, |item| item.cas))
        });
        self.record_store(mode, stored, context);
        let status = match (stored, asked) {
            (Stored::Stored, _) if packet.quiet => return,
            (Stored::Stored, _) => return binary::value(context.out, packet, b"", cas),
            (Stored::Exists, _) | (Stored::NotStored, StoreMode::Add) => ResponseStatus::Exists,
            (Stored::NotFound, _) | (Stored::NotStored, StoreMode::Replace) => ResponseStatus::NotFound,
            (Stored::NotStored, _) => ResponseStatus::NotStored,
            (Stored::TooLarge, _) => ResponseStatus::TooLarge,
            (Stored::OutOfMemory, _) => {
                let text = "Out of memory allocating item";
                return binary::error(context.out, packet, ResponseStatus::OutOfMemory, text);
            }
        };
        binary::status(context.out, packet, status);
    }

    fn binary_arithmetic(
        &self,
        packet: &Packet<'_>,
        key: &[u8],
        increase: bool,
        delta: u64,
        create: Option<(u64, u32)>,
        context: &mut Context<'_>,
    ) {
        if !self.may_change(key, context) {
            self.record_denial(context);
            return binary::status(context.out, packet, ResponseStatus::NotFound);
        }
        if context.names.is_managed(key) {
            if !packet.quiet {
                // Not "non-numeric": libmemcached gives the whole server up for a while when it hears that.
                binary::status(context.out, packet, ResponseStatus::NotStored);
            }
            return;
        }
        match self.binary_count(packet, key, increase, delta, create, context) {
            Ok((value, cas)) if !packet.quiet => binary::value(context.out, packet, &value.to_be_bytes(), cas),
            Ok(_) => {}
            Err((status, None)) => binary::status(context.out, packet, status),
            Err((status, Some(text))) => binary::error(context.out, packet, status, text),
        }
    }

    fn binary_count(
        &self,
        packet: &Packet<'_>,
        key: &[u8],
        increase: bool,
        delta: u64,
        create: Option<(u64, u32)>,
        context: &Context<'_>,
    ) -> BinaryArithmeticResult {
        let stats = context.stats;
        let (hits, misses) =
            if increase { (&stats.incr_hits, &stats.incr_misses) } else { (&stats.decr_hits, &stats.decr_misses) };
        let create = create.map(|(initial, exptime)| (initial, self.binary_expiry(exptime, context.now)));
        self.cache.with_key(key, self.seconds(context.now), |slot| {
            let old = slot.view().map(|item| (item.value.is_empty(), item.cas));
            let value = match (old, create) {
                (None, None) => {
                    misses.add(1);
                    return Err((ResponseStatus::NotFound, None));
                }
                (None, Some((initial, expiry))) => {
                    if !slot.create(expiry, itoa::Buffer::new().format(initial).as_bytes(), None) {
                        return Err((ResponseStatus::OutOfMemory, Some("Out of memory allocating new item")));
                    }
                    initial
                }
                // memcached looks at the length first, then at the cas, then at the number.
                (Some((true, _)), _) => return Err((ResponseStatus::NonNumeric, None)),
                (Some((_, cas)), _) if packet.cas != 0 && packet.cas != cas => {
                    return Err((ResponseStatus::Exists, None));
                }
                (Some(_), _) => match slot.arithmetic(delta, increase, None) {
                    ArithmeticOutcome::Value(value) => {
                        hits.add(1);
                        value
                    }
                    ArithmeticOutcome::NotFound => return Err((ResponseStatus::NotFound, None)),
                    ArithmeticOutcome::NonNumeric => return Err((ResponseStatus::NonNumeric, None)),
                    ArithmeticOutcome::OutOfMemory | ArithmeticOutcome::TooLarge => {
                        return Err((ResponseStatus::OutOfMemory, Some("Out of memory incrementing value")));
                    }
                },
            };
            Ok((value, slot.view().map_or(0, |item| item.cas)))
        })
    }

    fn binary_delete(&self, packet: &Packet<'_>, key: &[u8], context: &mut Context<'_>) -> CommandOutcome {
        if !self.may_change(key, context) {
            self.record_denial(context);
            binary::status(context.out, packet, ResponseStatus::NotFound);
            return CommandOutcome::Done;
        }
        let stats = context.stats;
        if let Some(report) = self.report_managed_value(key, (packet.cas != 0).then_some(packet.cas), context.names) {
            return self.binary_report(packet, report, context);
        }
        let deleted =
            self.cache.with_key(key, self.seconds(context.now), |slot| match slot.view().map(|item| item.cas) {
                None => {
                    stats.delete_misses.add(1);
                    Err(ResponseStatus::NotFound)
                }
                Some(cas) if packet.cas != 0 && packet.cas != cas => Err(ResponseStatus::Exists),
                Some(_) => {
                    slot.delete();
                    stats.delete_hits.add(1);
                    Ok(())
                }
            });
        match deleted {
            Ok(()) => answer_success(packet, context),
            Err(status) => binary::status(context.out, packet, status),
        }
        CommandOutcome::Done
    }

    /// Answers a `delete` of a managed key. The answer is held while the value is verified, unless the client wants none.
    fn binary_report(&self, packet: &Packet<'_>, report: ReportOutcome, context: &mut Context<'_>) -> CommandOutcome {
        match report {
            ReportOutcome::Superseded => {
                context.stats.delete_misses.add(1);
                if !packet.quiet {
                    binary::status(context.out, packet, ResponseStatus::Exists);
                }
                CommandOutcome::Done
            }
            ReportOutcome::Verifying(check) => {
                context.stats.delete_hits.add(1);
                match check.filter(|_| !packet.quiet) {
                    Some(check) => {
                        let mut reply = Vec::new();
                        binary::status(&mut reply, packet, ResponseStatus::Success);
                        CommandOutcome::ReplyAfterVerification(check, reply)
                    }
                    None => {
                        answer_success(packet, context);
                        CommandOutcome::Done
                    }
                }
            }
        }
    }

    fn binary_flush(&self, packet: &Packet<'_>, delay: u32, context: &mut Context<'_>) {
        if !context.rights.ordinary() || context.rights.read_only() {
            self.record_denial(context);
            return binary::status(context.out, packet, ResponseStatus::AuthError);
        }
        context.stats.cmd_flush.add(1);
        let now = self.seconds(context.now);
        let at = if delay > 0 { self.binary_expiry(delay, context.now) } else { now };
        self.cache.flush(at, now);
        answer_success(packet, context);
    }

    /// `stat`: what `stats` says in text, a packet a line and an empty one at the end.
    fn binary_statistics(&self, packet: &Packet<'_>, argument: &[u8], context: &mut Context<'_>) {
        let (word, rest) = match memchr::memchr(b' ', argument) {
            Some(blank) if blank > 0 => (&argument[..blank], &argument[blank + 1..]),
            _ => (argument, &b""[..]),
        };
        // memcached looks at the beginning of these words only.
        let word = [&b"reset"[..], b"settings"].into_iter().find(|known| word.starts_with(known)).unwrap_or(word);
        if !may_read_statistics(word, context.rights) {
            self.record_denial(context);
            return binary::status(context.out, packet, ResponseStatus::AuthError);
        }
        let mut text = Output::default();
        context.keys_left = 0;
        self.statistics(word, rest, &mut Context { out: &mut text, ..*context });
        let mut lines = text.split(|&byte| byte == b'\n').filter_map(|line| line.strip_suffix(b"\r"));
        for line in lines.by_ref() {
            let mut words = line.splitn(3, |&byte| byte == b' ');
            match (words.next(), words.next(), words.next()) {
                (Some(b"STAT"), Some(name), value) => {
                    binary::stat(context.out, packet, name, value.unwrap_or_default());
                }
                (Some(b"END" | b"RESET" | b"OK"), None, None) => return binary::stat(context.out, packet, b"", b""),
                _ => break,
            }
        }
        binary::status(context.out, packet, ResponseStatus::NotFound);
    }
}

/// Answers a success, unless the packet is a quiet one.
fn answer_success(packet: &Packet<'_>, context: &mut Context<'_>) {
    if !packet.quiet {
        binary::status(context.out, packet, ResponseStatus::Success);
    }
}
