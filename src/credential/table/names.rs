//! The names of the managed keys: which credential each key shows, and how.
//!
//! Readers look keys up in a [`Names`], which never changes. A change makes a new one; it shares all unchanged parts
//! with the old one, so a change costs little even with ten thousand apps. A key that was taken away is a miss and
//! still refuses clients' writes, until it is dropped.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache, Guard};
use bytes::Bytes;
use hashbrown::HashTable;
use parking_lot::Mutex;

use super::{Credential, Reading, Times};
use crate::clock::Now;
use crate::credential::wildcards::{Wildcards, has_wildcard};
use crate::encoding::{Form, Rendered, View};

/// A managed key as configured.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyConfig {
    pub name: String,
    /// What people read in place of the name, if the name contains a secret.
    pub redacted_name: Option<String>,
    pub view: View,
}

/// A managed key: which credential it shows, and how.
pub struct ManagedKey {
    name: Box<[u8]>,
    pub credential: Arc<Credential>,
    redacted_name: Option<Box<str>>,
    /// The index in the credential's views.
    view: usize,
    /// The view's flags, so that a hit need not look them up.
    flags: u32,
    at_least_s: u32,
    content: KeyContent,
}

enum KeyContent {
    /// It contains the value.
    Value,
    /// It contains only the value's times.
    TimesOnly,
    /// It is always the same, with or without a value.
    Constant(Rendered),
    /// It is always empty.
    Nothing,
    /// It was taken away and is about to be dropped.
    Ended,
}

/// A value as a key shows it.
pub struct ManagedValue<'n> {
    pub rendered: &'n Rendered,
    pub times: Times,
    pub flags: u32,
    /// The generation.
    pub cas: u64,
}

/// What a reader gets for a key.
pub enum KeyReading<'n> {
    Bytes(ManagedValue<'n>),
    /// No value yet, but the first fetch is running.
    FirstFetch,
    /// There is no live value.
    Absent,
    /// This key never has a value.
    Nothing,
}

impl ManagedKey {
    /// A key that shows a view of the credential: the one with the index `view`.
    pub(super) fn new(key: &KeyConfig, view: usize, credential: &Arc<Credential>) -> ManagedKey {
        let content = match key.view.form {
            Form::Constant(_) => KeyContent::Constant(key.view.render(&Bytes::new())),
            Form::Nothing => KeyContent::Nothing,
            _ if key.view.holds_value() => KeyContent::Value,
            _ => KeyContent::TimesOnly,
        };
        let View { flags, at_least_s, .. } = key.view;
        let (name, redacted_name) = (key.name.as_bytes().into(), key.redacted_name.as_deref().map(Box::from));
        ManagedKey { name, credential: credential.clone(), redacted_name, view, flags, at_least_s, content }
    }

    /// The key that takes its place when it is taken away, until that is dropped.
    fn ended(&self) -> ManagedKey {
        ManagedKey {
            name: self.name.clone(),
            credential: self.credential.clone(),
            redacted_name: self.redacted_name.clone(),
            content: KeyContent::Ended,
            ..*self
        }
    }

    /// Calls `then` with what a reader gets now. Takes no lock and allocates nothing.
    pub fn read<R>(&self, now: Now, then: impl FnOnce(KeyReading<'_>) -> R) -> R {
        let flags = self.flags;
        match &self.content {
            KeyContent::Constant(rendered) => {
                return then(KeyReading::Bytes(ManagedValue { rendered, times: Times::endless(now), flags, cas: 1 }));
            }
            KeyContent::Nothing | KeyContent::Ended => return then(KeyReading::Nothing),
            KeyContent::Value | KeyContent::TimesOnly => {}
        }
        let guard = match self.credential.read(now.boot_ms) {
            Reading::Live(guard) => guard,
            Reading::FirstFetch => return then(KeyReading::FirstFetch),
            Reading::Absent => return then(KeyReading::Absent),
        };
        match guard.as_ref().and_then(|shown| Some((shown, shown.rendered.get(self.view)?))) {
            Some((shown, rendered)) => {
                shown.record_read();
                let times = Times::new(now, shown.reliable_until(now.boot_ms), self.at_least_s);
                then(KeyReading::Bytes(ManagedValue { rendered, times, flags, cas: shown.generation }))
            }
            None => then(KeyReading::Absent),
        }
    }

    /// The cas of the last value, expired or not; none if there was no value.
    pub fn generation(&self) -> Option<u64> {
        match self.content {
            KeyContent::Constant(_) => Some(1),
            KeyContent::Nothing | KeyContent::Ended => None,
            KeyContent::Value | KeyContent::TimesOnly => self.credential.published().map(|shown| shown.generation),
        }
    }

    /// True if a `delete` of this key is a report about the value.
    pub fn holds_value(&self) -> bool {
        matches!(self.content, KeyContent::Value)
    }

    /// The key for a log, without a secret that it may contain.
    pub fn redacted_name<'n>(&'n self, key: &'n [u8]) -> &'n [u8] {
        self.redacted_name.as_deref().map_or(key, str::as_bytes)
    }

    fn has_wildcard(&self) -> bool {
        std::str::from_utf8(&self.name).is_ok_and(has_wildcard)
    }

    fn is_ended(&self) -> bool {
        matches!(self.content, KeyContent::Ended)
    }
}

/// The keys with the same bits of their hash: see `Names::shard_of`.
type KeyShard = HashTable<Arc<ManagedKey>>;

/// All managed keys at one time.
#[derive(Clone)]
pub struct Names {
    /// Bit n is set if a key of n bytes may be managed; with wildcards, all bits are. So most ordinary keys need no
    /// look-up.
    candidates: [u64; 4],
    /// The same for the keys without wildcards.
    exact_lengths: [u64; 4],
    hasher: foldhash::fast::RandomState,
    /// Their number is a power of two.
    shards: Box<[Arc<KeyShard>]>,
    /// Keys with `{any}` in them; none in most servers.
    wildcards: Option<Arc<WildcardKeys>>,
    count: usize,
    /// By length in bytes: how many keys have it.
    lengths: [u32; 256],
}

struct WildcardKeys {
    /// Of two with the same name the first counts.
    all: Vec<Arc<ManagedKey>>,
    by_end: Option<Wildcards<Arc<ManagedKey>>>,
}

impl Names {
    fn new() -> Names {
        Names {
            candidates: [0; 4],
            exact_lengths: [0; 4],
            hasher: foldhash::fast::RandomState::default(),
            shards: Box::new([Arc::default()]),
            wildcards: None,
            count: 0,
            lengths: [0; 256],
        }
    }

    /// The managed key of this name, if there is one.
    #[inline]
    pub fn find(&self, key: &[u8]) -> Option<&ManagedKey> {
        if has_length(&self.candidates, key.len()) { self.look_up(key) } else { None }
    }

    /// True if clients may not write this key.
    #[inline]
    pub fn is_managed(&self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }

    /// Looks up a key of a possible length. Not inlined, because most keys have another length.
    #[inline(never)]
    fn look_up(&self, key: &[u8]) -> Option<&ManagedKey> {
        if has_length(&self.exact_lengths, key.len())
            && let Some(known) = self.look_up_exact(key)
        {
            return Some(known);
        }
        self.wildcards.as_ref()?.by_end.as_ref()?.find(key).map(Arc::as_ref)
    }

    /// Looks among the keys without wildcards. Not inlined, because with wildcards most keys are none of these.
    #[inline(never)]
    fn look_up_exact(&self, key: &[u8]) -> Option<&Arc<ManagedKey>> {
        let hash = hash_of(&self.hasher, key);
        self.shards.get(self.shard_of(hash))?.find(hash, |known| *known.name == *key)
    }

    #[inline]
    fn shard_of(&self, hash: u64) -> usize {
        // Inside a shard the hash table uses the other bits.
        (hash >> 32) as usize & (self.shards.len() - 1)
    }

    /// Adds a key. Returns the one of the same name that it replaces.
    fn insert(&mut self, key: Arc<ManagedKey>) -> Option<Arc<ManagedKey>> {
        let hash = hash_of(&self.hasher, &key.name);
        let shard = Arc::make_mut(self.shards.get_mut(self.shard_of(hash))?);
        if let Some(known) = shard.find_mut(hash, |known| known.name == key.name) {
            return Some(std::mem::replace(known, key));
        }
        // No client can send a key that is longer.
        *self.lengths.get_mut(key.name.len())? += 1;
        shard.insert_unique(hash, key, |known| hash_of(&self.hasher, &known.name));
        self.count += 1;
        if self.count > self.shards.len() * self.shards.len() * SHARD_KEYS {
            self.split_shards();
        }
        None
    }

    /// Removes this very key. False if another one is in its place.
    fn remove(&mut self, key: &Arc<ManagedKey>) -> bool {
        let hash = hash_of(&self.hasher, &key.name);
        let at = self.shard_of(hash);
        let Some(shard) = self.shards.get_mut(at) else { return false };
        if shard.find(hash, |known| Arc::ptr_eq(known, key)).is_none() {
            return false;
        }
        if let Ok(found) = Arc::make_mut(shard).find_entry(hash, |known| Arc::ptr_eq(known, key)) {
            found.remove();
        }
        self.lengths.get_mut(key.name.len()).into_iter().for_each(|keys| *keys -= 1);
        self.count -= 1;
        true
    }

    /// Doubles the number of shards. A change copies the list of shards, and the shards whose keys change: both are
    /// kept short.
    fn split_shards(&mut self) {
        let twice = vec![Arc::<KeyShard>::default(); self.shards.len() * 2].into_boxed_slice();
        let all = std::mem::replace(&mut self.shards, twice);
        for key in all.iter().flat_map(|shard| shard.iter()) {
            let hash = hash_of(&self.hasher, &key.name);
            if let Some(shard) = self.shards.get_mut(self.shard_of(hash)) {
                Arc::make_mut(shard).insert_unique(hash, key.clone(), |known| hash_of(&self.hasher, &known.name));
            }
        }
    }

    fn change_wildcards(&mut self, change: impl FnOnce(&mut Vec<Arc<ManagedKey>>)) {
        let mut all = self.wildcards.as_ref().map(|known| known.all.clone()).unwrap_or_default();
        change(&mut all);
        let by_end = Wildcards::new(all.iter().map(|key| (key.name.clone(), key.clone())).collect());
        self.wildcards = (!all.is_empty()).then(|| Arc::new(WildcardKeys { all, by_end }));
    }

    fn set_candidates(&mut self) {
        self.exact_lengths = [0; 4];
        for (length, _) in self.lengths.iter().enumerate().filter(|(_, keys)| **keys > 0) {
            self.exact_lengths[length / 64] |= 1 << (length % 64);
        }
        self.candidates = if self.wildcards.is_some() { [u64::MAX; 4] } else { self.exact_lengths };
    }
}

/// Whether the bit of a length is set.
#[inline]
fn has_length(lengths: &[u64; 4], length: usize) -> bool {
    lengths.get(length / 64).is_some_and(|word| word & (1 << (length % 64)) != 0)
}

/// With n shards, each has on average at most n times this number of keys; with more, the number of shards is doubled.
const SHARD_KEYS: usize = 16;

#[inline]
fn hash_of(hasher: &foldhash::fast::RandomState, key: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(key);
    hasher.finish()
}

type KeysByName = HashMap<Box<[u8]>, Vec<Arc<ManagedKey>>>;

/// The present names, and the functions that change them.
pub(super) struct NameBook {
    now: Arc<ArcSwap<Names>>,
    /// Several apps may have a key of the same name that shows the same, such as a constant. One of them is in use; the
    /// others are here, by name. The lock is held during a change of names.
    spare: Mutex<KeysByName>,
}

/// The names for one reader, such as a connection.
pub struct NamesReader(Cache<Arc<ArcSwap<Names>>, Arc<Names>>);

impl NamesReader {
    /// The present names. Takes no lock, allocates nothing and writes nothing that other readers read.
    #[inline]
    pub fn now(&mut self) -> &Names {
        self.0.load()
    }
}

/// What clients have stored under ordinary keys.
pub trait OrdinaryItems: Send + Sync {
    fn forget(&self, key: &[u8]);

    /// Forgets the items with a key that is meant. Looks at some items in each call, from a cursor that is 0 at first,
    /// and returns the next cursor; `None` at the end.
    fn forget_some(&self, cursor: u64, is_meant: &dyn Fn(&[u8]) -> bool) -> Option<u64>;
}

/// Keys that were taken away and are to be dropped.
#[derive(Default)]
pub(in crate::credential) struct EndedKeys(Vec<Arc<ManagedKey>>);

impl EndedKeys {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn add(&mut self, more: EndedKeys) {
        self.0.extend(more.0);
    }

    fn wildcards(&self) -> Option<Wildcards<()>> {
        let all = self.0.iter().filter(|key| key.has_wildcard());
        Wildcards::new(all.map(|key| (key.name.clone(), ())).collect())
    }

    /// A function that forgets what was stored under these keys before they were managed, so that it does not come back
    /// when they are dropped. Call it with cursor 0, then with the cursor that it returned, until that is `None`.
    pub fn forgetting(&self) -> impl Fn(&dyn OrdinaryItems, u64) -> Option<u64> {
        let wildcards = self.wildcards();
        move |items, cursor| {
            if cursor == 0 {
                self.0.iter().filter(|key| !key.has_wildcard()).for_each(|key| items.forget(&key.name));
            }
            let wildcards = wildcards.as_ref()?;
            items.forget_some(cursor, &|key| wildcards.find(key).is_some())
        }
    }
}

impl NameBook {
    pub fn new() -> NameBook {
        NameBook { now: Arc::new(ArcSwap::from_pointee(Names::new())), spare: Mutex::default() }
    }

    pub fn now(&self) -> Guard<Arc<Names>> {
        self.now.load()
    }

    pub fn reader(&self) -> NamesReader {
        NamesReader(Cache::new(self.now.clone()))
    }

    /// Takes keys away and adds others in one step. If another app has a key of the same name, that one is in use again
    /// when this one is taken away.
    pub fn change(&self, gone: &[Arc<ManagedKey>], added: &[Arc<ManagedKey>]) -> EndedKeys {
        let mut spare = self.spare.lock();
        let mut names = Names::clone(&self.now.load());
        let (exact, wild): (Vec<_>, Vec<_>) = gone.iter().partition(|key| !key.has_wildcard());
        let mut ended: Vec<Arc<ManagedKey>> = Vec::new();
        for key in exact {
            if let Some(others) = spare.get_mut(&key.name) {
                others.retain(|other| !Arc::ptr_eq(other, key));
            }
            if names.remove(key) {
                let next = spare.get_mut(&key.name).and_then(Vec::pop).unwrap_or_else(|| {
                    let key = Arc::new(key.ended());
                    ended.push(key.clone());
                    key
                });
                names.insert(next);
            }
        }
        for key in added.iter().filter(|key| !key.has_wildcard()) {
            if let Some(other) = names.insert(key.clone()).filter(|other| !other.is_ended()) {
                spare.entry(key.name.clone()).or_default().push(other);
            }
        }
        spare.retain(|_, others| !others.is_empty());
        // Keys that were added again are not dropped.
        ended.retain(|key| names.look_up_exact(&key.name).is_some_and(|known| known.is_ended()));
        let added_wild: Vec<_> = added.iter().filter(|key| key.has_wildcard()).cloned().collect();
        if !(wild.is_empty() && added_wild.is_empty()) {
            let is_kept = |key: &ManagedKey| added_wild.iter().any(|other| other.name == key.name);
            let ended_wild: Vec<_> = wild.iter().filter(|key| !is_kept(key)).map(|key| Arc::new(key.ended())).collect();
            names.change_wildcards(|all| {
                all.retain(|known| !wild.iter().any(|key| Arc::ptr_eq(known, key)));
                // Before those that were taken away: of two with the same name the first counts.
                let first_ended = all.iter().position(|known| known.is_ended()).unwrap_or(all.len());
                all.splice(first_ended..first_ended, added_wild);
                all.extend(ended_wild.iter().cloned());
            });
            ended.extend(ended_wild);
        }
        names.set_candidates();
        self.now.store(Arc::new(names));
        EndedKeys(ended)
    }

    /// Drops keys that were taken away, unless a credential has added them again since.
    pub fn drop_ended(&self, ended: &EndedKeys) {
        let _spare = self.spare.lock();
        let mut names = Names::clone(&self.now.load());
        for key in ended.0.iter().filter(|key| !key.has_wildcard()) {
            names.remove(key);
        }
        if ended.0.iter().any(|key| key.has_wildcard()) {
            names.change_wildcards(|all| all.retain(|known| !ended.0.iter().any(|key| Arc::ptr_eq(known, key))));
        }
        names.set_candidates();
        self.now.store(Arc::new(names));
    }
}
