//! Managed keys: what each command means on them (the table in the README, "What clients see").
//!
//! Reads never wait but for a credential's very first fetch, and a delete for its check.

use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;

use super::meta::{Facts, answer};
use super::{Context, Outcome, Service, Wait};
use crate::clock::Now;
use crate::config::RefuseWith;
use crate::credential::table::{Credential, Event, Found, Times, host_of};
use crate::protocol::{Meta, MetaKey, StoreMode, keys, response};

/// A refused write is logged at most so often per credential, milliseconds.
const REFUSAL_LOG_SPACING_MS: u64 = 60_000;
/// For those who want the text.
const REFUSAL: &str = "CLIENT_ERROR managed key";

/// What a client's word that a token is dead comes to.
pub(super) enum Doubt {
    /// It speaks of another value than the present one.
    Overtaken,
    /// It is being checked, if there is anything to check; this tells when that is over.
    Checked(Option<oneshot::Receiver<()>>),
}

impl Service {
    /// Answers a `get` of a managed key: `Some(true)` a hit, `Some(false)` a miss, `None` not a managed key.
    /// Never an error line: pecl memcache would take the whole server for broken.
    pub(super) fn get_managed(&self, key: &[u8], with_cas: bool, context: &mut Context<'_>) -> Option<bool> {
        let (out, now) = (&mut *context.out, context.now);
        let (hit, counted) = self.table.with(key, |name| {
            name.read(now, |found| match found {
                Found::Bytes { rendered, times, flags, cas } => {
                    let length = rendered.len(&times);
                    response::value_head(out, key, flags, length, with_cas.then_some(cas));
                    rendered.write(out, &times);
                    out.extend_from_slice(b"\r\n");
                    (true, true)
                }
                // A key that is kept empty is not one that lacks a token.
                Found::Nothing => (false, false),
                Found::FirstFetch | Found::Absent => (false, true),
            })
        })?;
        let counter = if hit { &context.stats.managed_hits } else { &context.stats.managed_misses };
        counter.add(u64::from(counted));
        Some(hit)
    }

    /// If one of the keys has its very first fetch under way: what to wait for.
    pub(super) fn must_wait(&self, list: &[u8], context: &Context<'_>) -> Option<Wait> {
        let mut seen = keys(list).filter(|key| self.sees(key, context.rights));
        seen.find_map(|key| self.first_fetch(key, context.now))
    }

    /// The same for one key.
    pub(super) fn first_fetch(&self, key: &[u8], now: Now) -> Option<Wait> {
        self.table.with(key, |name| {
            let first_fetch = || name.read(now, |found| matches!(found, Found::FirstFetch));
            // Subscribe first: a value published in between must not be slept through.
            if !first_fetch() {
                return None;
            }
            let wait = Wait(name.credential.subscribe());
            first_fetch().then_some(wait)
        })?
    }

    /// The answer to a write on a managed key, or `None` if the key is not managed.
    /// `value` is the data block; empty if it was too large to be kept.
    pub(super) fn refuse_write(
        &self,
        mode: StoreMode,
        key: &[u8],
        value: &[u8],
        context: &Context<'_>,
    ) -> Option<&'static str> {
        self.refused(key, value, context).then_some(match (self.settings.refuse_with, mode) {
            (RefuseWith::ClientError, _) => REFUSAL,
            (RefuseWith::NotStored, StoreMode::Cas(_)) => "EXISTS",
            (RefuseWith::NotStored, _) => "NOT_STORED",
        })
    }

    /// Refuses and counts a write if the key is managed.
    pub(super) fn refused(&self, key: &[u8], value: &[u8], context: &Context<'_>) -> bool {
        let refused = self.table.with(key, |name| {
            let rival = name.holds_value() && is_anothers(&name.credential, value);
            if rival {
                self.table.report_rival(&name.credential);
            }
            self.count_refusal(&name.credential, name.spoken(key), rival, context);
        });
        refused.is_some()
    }

    /// `key` is as it may be shown.
    fn count_refusal(&self, credential: &Credential, key: &[u8], rival: bool, context: &Context<'_>) {
        let refused = credential.refused_writes.fetch_add(1, Relaxed) + 1;
        self.stats.refused_writes.fetch_add(1, Relaxed);
        credential.note_writer(context.peer, rival, context.now);
        // Shifted by one, so that 0 means never.
        let (now, logged) = (context.now.boot_ms + 1, credential.refusal_logged_boot_ms.load(Relaxed));
        let due = logged == 0 || now.saturating_sub(logged) >= REFUSAL_LOG_SPACING_MS;
        if due && credential.refusal_logged_boot_ms.compare_exchange(logged, now, Relaxed, Relaxed).is_ok() {
            let event = Event::RefusedWrite { peer: host_of(context.peer), rival };
            credential.note(&self.table.journal, context.now, event);
            tracing::warn!(
                appid = %credential.appid,
                key = %key.escape_ascii(),
                peer = %context.peer,
                refused,
                rival,
                "refused a client's write to a managed key: that host still fetches tokens by itself; \
                 make it only read, or its fetches may kill this server's token"
            );
        }
    }

    /// `delete` on a managed key is the word of a client that the token is dead. The value is served on while
    /// the refresher checks; the answer waits for the check. On a companion, which holds no token, it means nothing.
    pub(super) fn delete_managed(&self, key: &[u8], noreply: bool, context: &mut Context<'_>) -> Option<Outcome> {
        let check = self.table.with(key, |name| match name.holds_value() {
            true => self.table.report_dead(&name.credential, None),
            false => None,
        })?;
        context.stats.delete_hits.add(1);
        Some(match check {
            Some(check) if !noreply => Outcome::WaitThenReply(check, b"DELETED\r\n".to_vec()),
            _ => {
                response::reply(context.out, "DELETED", noreply);
                Outcome::Done
            }
        })
    }

    /// Passes the word on that this key's token is dead; `None` if the key is not managed. With a cas id it is about
    /// that value only.
    pub(super) fn doubt(&self, key: &[u8], expected: Option<u64>) -> Option<Doubt> {
        self.table.with(key, |name| {
            let current = name.generation();
            if expected.is_some() && expected != current {
                return Doubt::Overtaken;
            }
            let check = if name.holds_value() { self.table.report_dead(&name.credential, current) } else { None };
            Doubt::Checked(check)
        })
    }

    /// Answers a `mg` of a managed key, as [`Service::get_managed`] does a `get`. Whatever asks for a change, or
    /// tells about recaching, means nothing here: the refresher recaches.
    pub(super) fn meta_get_managed(&self, meta: &Meta<'_>, key: &[u8], context: &mut Context<'_>) -> Option<bool> {
        let (out, now) = (&mut *context.out, context.now);
        let (hit, counted) = self.table.with(key, |name| {
            name.read(now, |found| match found {
                Found::Bytes { rendered, times, flags, cas } => {
                    let facts = facts(rendered.len(&times), flags, cas, &times, meta.key.is_encoded());
                    Facts::head(out, meta.has(b'v'), facts.length);
                    for (flag, word) in meta.flags() {
                        facts.show(out, flag, word, key);
                    }
                    out.extend_from_slice(b"\r\n");
                    if meta.has(b'v') {
                        rendered.write(out, &times);
                        out.extend_from_slice(b"\r\n");
                    }
                    (true, true)
                }
                Found::Nothing => (false, false),
                Found::FirstFetch | Found::Absent => (false, true),
            })
        })?;
        let counter = if hit { &context.stats.managed_hits } else { &context.stats.managed_misses };
        counter.add(u64::from(counted));
        Some(hit)
    }

    /// Answers a `me` of a managed key: what is known about the value, and never the value.
    pub(super) fn meta_debug_managed(&self, key: MetaKey<'_>, text: &[u8], context: &mut Context<'_>) -> Option<bool> {
        let (out, now) = (&mut *context.out, context.now);
        self.table.with(text, |name| {
            name.read(now, |found| match found {
                Found::Bytes { rendered, times, flags, cas } => {
                    let facts = facts(rendered.len(&times), flags, cas, &times, key.is_encoded());
                    // It is in none of memcached's slab classes.
                    facts.debug(out, text, 0, facts.length);
                    true
                }
                Found::Nothing | Found::FirstFetch | Found::Absent => false,
            })
        })
    }

    /// Refuses a `ms` of a managed key, and answers it unless it is a quiet one. False if the key is not managed.
    pub(super) fn meta_refuse_write(
        &self,
        meta: &Meta<'_>,
        key: &[u8],
        value: &[u8],
        context: &mut Context<'_>,
    ) -> bool {
        if !self.refused(key, value, context) {
            return false;
        }
        match self.settings.refuse_with {
            _ if meta.has(b'q') => {}
            RefuseWith::ClientError => response::line(context.out, REFUSAL),
            RefuseWith::NotStored => {
                let code = if meta.has(b'C') { b"EX" } else { b"NS" };
                answer(context.out, code, meta, key, Some(0));
            }
        }
        true
    }

    /// `md` on a managed key: as [`Service::delete_managed`]. With a cas it speaks of that value only: if the
    /// refresher has another one by now there is nothing to check.
    pub(super) fn meta_delete_managed(
        &self,
        meta: &Meta<'_>,
        key: &[u8],
        context: &mut Context<'_>,
    ) -> Option<Outcome> {
        let Doubt::Checked(check) = self.doubt(key, meta.unsigned(b'C'))? else {
            context.stats.delete_misses.add(1);
            answer(context.out, b"EX", meta, key, None);
            return Some(Outcome::Done);
        };
        context.stats.delete_hits.add(1);
        if meta.has(b'q') {
            return Some(Outcome::Done);
        }
        let Some(check) = check else {
            answer(context.out, b"HD", meta, key, None);
            return Some(Outcome::Done);
        };
        let mut reply = Vec::new();
        answer(&mut reply, b"HD", meta, key, None);
        Some(Outcome::WaitThenReply(check, reply))
    }
}

/// A managed value is as good as just read: somebody always sees to it.
fn facts(length: usize, flags: u32, cas: u64, times: &Times, encoded_key: bool) -> Facts {
    Facts { length, flags, cas, left: times.left_s(), idle: 0, fetched: true, encoded_key }
}

/// True if a client brings another value than ours, in whatever encoding: it has fetched one by itself.
fn is_anothers(credential: &Credential, value: &[u8]) -> bool {
    // What is shorter is no token.
    const TOKEN_BYTES_MIN: usize = 16;
    let ours = credential.published();
    value.len() >= TOKEN_BYTES_MIN && ours.is_some_and(|ours| memchr::memmem::find(value, &ours.value).is_none())
}
