//! Managed keys: what each command means on them (the table in the README, "What clients see").
//!
//! Reads never wait but for a credential's very first fetch, and a delete for its check.

use std::sync::atomic::Ordering::Relaxed;

use super::{Context, Outcome, Service, Wait};
use crate::config::RefuseWith;
use crate::credential::table::{Credential, Found};
use crate::protocol::{StoreMode, keys, response};

/// A refused write is logged at most so often per credential, milliseconds.
const REFUSAL_LOG_SPACING_MS: u64 = 60_000;

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
        keys(list).filter(|key| self.sees(key, context.rights)).find_map(|key| {
            self.table.with(key, |name| {
                let first_fetch = || name.read(context.now, |found| matches!(found, Found::FirstFetch));
                // Subscribe first: a value published in between must not be slept through.
                if !first_fetch() {
                    return None;
                }
                let wait = Wait(name.credential.subscribe());
                first_fetch().then_some(wait)
            })?
        })
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
        self.table.with(key, |name| {
            let rival = name.holds_value() && is_anothers(&name.credential, value);
            if rival {
                self.table.report_rival(&name.credential);
            }
            self.count_refusal(&name.credential, name.spoken(key), rival, context);
        })?;
        Some(match (self.settings.refuse_with, mode) {
            (RefuseWith::ClientError, _) => "CLIENT_ERROR managed key",
            (RefuseWith::NotStored, StoreMode::Cas(_)) => "EXISTS",
            (RefuseWith::NotStored, _) => "NOT_STORED",
        })
    }

    /// `key` is as it may be shown.
    fn count_refusal(&self, credential: &Credential, key: &[u8], rival: bool, context: &Context<'_>) {
        let refused = credential.refused_writes.fetch_add(1, Relaxed) + 1;
        self.stats.refused_writes.fetch_add(1, Relaxed);
        // Shifted by one, so that 0 means never.
        let (now, logged) = (context.now.boot_ms + 1, credential.refusal_logged_boot_ms.load(Relaxed));
        let due = logged == 0 || now.saturating_sub(logged) >= REFUSAL_LOG_SPACING_MS;
        if due && credential.refusal_logged_boot_ms.compare_exchange(logged, now, Relaxed, Relaxed).is_ok() {
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
            Some(check) if !noreply => Outcome::WaitThenReply(check, "DELETED"),
            _ => {
                response::reply(context.out, "DELETED", noreply);
                Outcome::Done
            }
        })
    }
}

/// True if a client brings another value than ours, in whatever encoding: it has fetched one by itself.
fn is_anothers(credential: &Credential, value: &[u8]) -> bool {
    // What is shorter is no token.
    const TOKEN_BYTES_MIN: usize = 16;
    let ours = credential.published();
    value.len() >= TOKEN_BYTES_MIN && ours.is_some_and(|ours| memchr::memmem::find(value, &ours.value).is_none())
}
