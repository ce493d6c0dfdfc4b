//! The cache beside a simple model: operation lists, a small budget, threads.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use proptest::prelude::*;
use tokencached::cache::{ArithmeticOutcome, Cache, ItemView, Mode, Options, Seconds, Stored};

#[derive(Clone, Debug)]
enum Op {
    Get(u8),
    GetAndTouch(u8, Seconds),
    Store(u8, u8, u32, Seconds, Vec<u8>),
    /// With the current cas id (true) or a wrong one.
    Cas(u8, bool, Vec<u8>),
    Arithmetic(u8, u64, bool),
    Delete(u8),
    Touch(u8, Seconds),
    Flush(Seconds),
    Budget(u8),
    Wait(Seconds),
}

fn value(len_max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => "[0-9]{1,21}".prop_map(String::into_bytes),
        1 => any::<u64>().prop_map(|n| n.to_string().into_bytes()),
        // No blanks, signs or NULs: what those mean beside digits is tested in `src/protocol/number.rs`.
        4 => (0..len_max, prop_oneof![b'a'..=b'z', 0x80..=0xff_u8]).prop_map(|(len, byte)| vec![byte; len]),
    ]
}

/// Seconds from now until something happens; zero stands for never.
fn delay() -> impl Strategy<Value = Seconds> {
    prop_oneof![3 => Just(0), 3 => 1..8_u32, 1 => 8..100_000_u32]
}

fn op(keys: u8, len_max: usize) -> impl Strategy<Value = Op> {
    let key = move || 0..keys;
    prop_oneof![
        8 => key().prop_map(Op::Get),
        1 => (key(), delay()).prop_map(|(k, d)| Op::GetAndTouch(k, d)),
        12 => (key(), 0..5_u8, prop_oneof![Just(0), any::<u32>()], delay(), value(len_max))
            .prop_map(|(k, m, f, d, v)| Op::Store(k, m, f, d, v)),
        2 => (key(), any::<bool>(), value(len_max)).prop_map(|(k, right, v)| Op::Cas(k, right, v)),
        3 => (key(), prop_oneof![0..20_u64, any::<u64>()], any::<bool>()).prop_map(|(k, d, up)| Op::Arithmetic(k, d, up)),
        2 => key().prop_map(Op::Delete),
        1 => (key(), delay()).prop_map(|(k, d)| Op::Touch(k, d)),
        1 => (0..6_u32).prop_map(Op::Flush),
        1 => (2..8_u8).prop_map(Op::Budget),
        2 => prop_oneof![4 => 1..4_u32, 1 => 4..70_000_u32].prop_map(Op::Wait),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Item {
    value: Vec<u8>,
    flags: u32,
    expiry: Seconds,
    cas: u64,
}

/// What memcached promises, without a memory limit.
struct Model {
    items: HashMap<u8, Item>,
    flush_at: Option<Seconds>,
    now: Seconds,
    item_size_max: usize,
    /// Of the cache, before it is cut down.
    budget: u64,
}

impl Model {
    fn new(item_size_max: usize, budget: u64) -> Model {
        Model { items: HashMap::new(), flush_at: None, now: 1, item_size_max, budget }
    }

    fn wait(&mut self, seconds: Seconds) {
        self.now += seconds;
        if self.flush_at.is_some_and(|at| at <= self.now) {
            self.flush_at = None;
            self.items.clear();
        }
        let now = self.now;
        self.items.retain(|_, item| item.expiry == 0 || item.expiry > now);
    }

    fn flush(&mut self, delay: Seconds) {
        self.flush_at = (delay > 0).then_some(self.now + delay);
        if delay == 0 {
            self.items.clear();
        }
    }

    fn size(&self, key: &[u8], flags: u32, len: usize) -> usize {
        48 + 8 + key.len() + 1 + if flags == 0 { 0 } else { 4 } + len + 2
    }

    /// The outcome if there is memory, and what the key holds then; the cas id is the caller's to fill in.
    fn store(&self, mode: Mode, key: u8, flags: u32, expiry: Seconds, value: &[u8]) -> (Stored, Option<Item>) {
        let old = self.items.get(&key).cloned();
        if self.size(&key_bytes(key), flags, value.len()) > self.item_size_max {
            return (Stored::TooLarge, if mode == Mode::Set { None } else { old });
        }
        let new = Some(Item { value: value.to_vec(), flags, expiry, cas: 0 });
        match (mode, old) {
            (Mode::Set, _) | (Mode::Add, None) | (Mode::Replace, Some(_)) => (Stored::Stored, new),
            (Mode::Cas(_), None) => (Stored::NotFound, None),
            (Mode::Cas(id), Some(old)) if id == old.cas => (Stored::Stored, new),
            (Mode::Cas(_), old) => (Stored::Exists, old),
            (Mode::Append | Mode::Prepend, Some(old)) => {
                let joined =
                    if mode == Mode::Append { [&old.value, value].concat() } else { [value, &old.value].concat() };
                if self.size(&key_bytes(key), old.flags, joined.len()) > self.item_size_max {
                    (Stored::NotStored, Some(old))
                } else {
                    (Stored::Stored, Some(Item { value: joined, ..old }))
                }
            }
            (_, old) => (Stored::NotStored, old),
        }
    }

    fn arithmetic(&mut self, key: u8, delta: u64, increase: bool) -> ArithmeticOutcome {
        let Some(item) = self.items.get_mut(&key) else { return ArithmeticOutcome::NotFound };
        let text = String::from_utf8_lossy(&item.value).into_owned();
        // Up to the first blank of the padding; something may have been appended behind it.
        let Ok(old) = text.split(' ').next().unwrap_or_default().parse::<u64>() else {
            return ArithmeticOutcome::NonNumeric;
        };
        let new = if increase { old.wrapping_add(delta) } else { old.saturating_sub(delta) };
        item.value = format!("{new:<width$}", width = item.value.len()).into_bytes();
        ArithmeticOutcome::Value(new)
    }
}

fn key_bytes(key: u8) -> Vec<u8> {
    format!("key:{key:03}").into_bytes()
}

fn arithmetic(cache: &Cache, key: &[u8], delta: u64, increase: bool, now: Seconds) -> ArithmeticOutcome {
    cache.with_key(key, now, |slot| slot.arithmetic(delta, increase, None))
}

fn touch(cache: &Cache, key: &[u8], expiry: Seconds, now: Seconds) -> bool {
    cache.with_key(key, now, |slot| slot.touch(expiry))
}

/// Looks without leaving a trace: no use, no statistics.
fn peek<R>(cache: &Cache, key: &[u8], now: Seconds, visit: impl FnOnce(ItemView<'_>) -> R) -> Option<R> {
    cache.with_key(key, now, |slot| slot.view().map(visit))
}

const MODES: [Mode; 5] = [Mode::Set, Mode::Add, Mode::Replace, Mode::Append, Mode::Prepend];

/// Runs the list against both. With `exact`, the cache must answer as the model does; without, it may have
/// evicted any item at any time, and every answer must be right for either case.
fn run(cache: &Cache, model: &mut Model, ops: Vec<Op>, exact: bool) -> Result<(), TestCaseError> {
    let mut cas_seen = 0;
    for op in ops {
        if !exact {
            // Whatever has been evicted is gone from the model too; what is there must be right.
            let now = model.now;
            model.items.retain(|key, _| peek(cache, &key_bytes(*key), now, |_| ()).is_some());
        }
        step(cache, model, &op, exact, &mut cas_seen)?;
        cache.validate().map_err(|fault| TestCaseError::fail(format!("{fault} after {op:?}")))?;
        let now = model.now;
        for key in 0..=u8::MAX {
            let seen = peek(cache, &key_bytes(key), now, |item| Item {
                value: item.value.to_vec(),
                flags: item.flags,
                expiry: item.exptime,
                cas: item.cas,
            });
            match (&seen, model.items.get(&key)) {
                (None, Some(_)) if !exact => {}
                (seen, expected) => prop_assert_eq!(seen.as_ref(), expected, "key {} after {:?}", key, &op),
            }
        }
        let totals = cache.totals();
        prop_assert!(totals.used_bytes <= totals.budget_bytes, "{:?} after {:?}", totals, op);
    }
    Ok(())
}

fn step(cache: &Cache, model: &mut Model, op: &Op, exact: bool, cas_seen: &mut u64) -> Result<(), TestCaseError> {
    let now = model.now;
    let at = |delay: Seconds| if delay == 0 { 0 } else { now + delay };
    let mut store = |model: &mut Model, mode: Mode, key: u8, flags: u32, expiry: Seconds, value: &[u8]| {
        let (expected, after) = model.store(mode, key, flags, expiry, value);
        let outcome = cache.store(mode, &key_bytes(key), flags, expiry, value, now);
        prop_assert_eq!(outcome, expected);
        match after {
            None => {
                model.items.remove(&key);
            }
            Some(mut item) => {
                if outcome == Stored::Stored {
                    let cas = peek(cache, &key_bytes(key), now, |item| item.cas);
                    prop_assert!(cas.is_some(), "just stored, must be there");
                    item.cas = cas.unwrap_or(0);
                    prop_assert!(item.cas > *cas_seen);
                    *cas_seen = item.cas;
                }
                model.items.insert(key, item);
            }
        }
        Ok(())
    };
    match op {
        Op::Get(key) => {
            let seen = cache.get(&key_bytes(*key), now, |item| item.value.to_vec());
            prop_assert_eq!(seen.as_ref(), model.items.get(key).map(|item| &item.value));
        }
        Op::GetAndTouch(key, delay) => {
            let seen = cache.get_and_touch(&key_bytes(*key), at(*delay), now, |item| item.exptime);
            prop_assert_eq!(seen, model.items.get(key).map(|_| at(*delay)));
            model.items.entry(*key).and_modify(|item| item.expiry = at(*delay));
        }
        Op::Store(key, mode, flags, delay, value) => {
            store(model, MODES[usize::from(*mode)], *key, *flags, at(*delay), value)?;
        }
        Op::Cas(key, right, value) => {
            let id = model.items.get(key).map_or(0, |item| item.cas) + u64::from(!right);
            store(model, Mode::Cas(id), *key, 0, 0, value)?;
        }
        Op::Arithmetic(key, delta, increase) => {
            let expected = model.arithmetic(*key, *delta, *increase);
            prop_assert_eq!(arithmetic(cache, &key_bytes(*key), *delta, *increase, now), expected);
            if let (ArithmeticOutcome::Value(_), Some(item)) = (expected, model.items.get_mut(key)) {
                item.cas = peek(cache, &key_bytes(*key), now, |item| item.cas).unwrap_or(0);
                prop_assert!(item.cas > *cas_seen);
                *cas_seen = item.cas;
            }
        }
        Op::Delete(key) => {
            prop_assert_eq!(cache.delete(&key_bytes(*key), now), model.items.remove(key).is_some());
        }
        Op::Touch(key, delay) => {
            prop_assert_eq!(touch(cache, &key_bytes(*key), at(*delay), now), model.items.contains_key(key));
            model.items.entry(*key).and_modify(|item| item.expiry = at(*delay));
        }
        Op::Flush(delay) => {
            cache.flush(now + delay, now);
            model.flush(*delay);
        }
        Op::Budget(eighths) if !exact => cache.set_budget(u64::from(*eighths) * model.budget / 8),
        Op::Budget(_) => {}
        Op::Wait(seconds) => model.wait(*seconds),
    }
    Ok(())
}

const SMALL_BUDGET: u64 = 384 * 1024;
/// What four shards share after being cut down.
const SHARED_BUDGET: u64 = 1200 * 1024;

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn answers_as_the_model_does(ops in prop::collection::vec(op(24, 3000), 1..160)) {
        let options = Options { budget_bytes: 64 << 20, item_size_max_bytes: 2048, evict: true, shards: 4 };
        run(&Cache::new(&options), &mut Model::new(2048, 64 << 20), ops, true)?;
    }

    #[test]
    fn keeps_the_budget_and_never_lies(ops in prop::collection::vec(op(200, 3500), 1..300)) {
        let options = Options { budget_bytes: SMALL_BUDGET, item_size_max_bytes: 4096, evict: true, shards: 1 };
        run(&Cache::new(&options), &mut Model::new(4096, SMALL_BUDGET), ops, false)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    /// A budget that was cut down to a fraction: every shard holds less than its administration would like, and most
    /// stores need another shard to make room.
    #[test]
    fn shards_keep_their_one_budget_and_never_lie(ops in prop::collection::vec(op(200, 3500), 1..300)) {
        let options = Options { budget_bytes: 64 << 20, item_size_max_bytes: 4096, evict: true, shards: 4 };
        let cache = Cache::new(&options);
        assert_eq!(cache.totals().shards, 4);
        cache.set_budget(SHARED_BUDGET);
        run(&cache, &mut Model::new(4096, SHARED_BUDGET), ops, false)?;
    }
}

#[test]
fn a_cas_storm_has_one_winner_a_round() {
    const ROUNDS: u64 = 200;
    let cache = Cache::new(&Options { budget_bytes: 4 << 20, item_size_max_bytes: 1024, evict: true, shards: 4 });
    cache.store(Mode::Set, b"k", 0, 0, b"0", 1);
    let (wins, losses) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // Each thread wins its own rounds; every win must have seen the value before it.
                let mut won = 0;
                while won < ROUNDS {
                    let (cas, number) = cache
                        .get(b"k", 1, |item| (item.cas, String::from_utf8_lossy(item.value).parse::<u64>().unwrap()))
                        .unwrap();
                    match cache.store(Mode::Cas(cas), b"k", 0, 0, (number + 1).to_string().as_bytes(), 1) {
                        Stored::Stored => won += 1,
                        Stored::Exists => {
                            losses.fetch_add(1, Ordering::Relaxed);
                        }
                        other => panic!("{other:?}"),
                    }
                }
                wins.fetch_add(won, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(cache.get(b"k", 1, |item| item.value.to_vec()).unwrap(), b"800");
    assert_eq!(wins.into_inner(), 800);
    let class = cache.classes()[0].1;
    assert_eq!((class.cas_hits, class.cas_badval), (800, losses.into_inner()));
}

#[test]
fn a_round_of_equal_cas_ids_has_one_winner() {
    let cache = Cache::new(&Options { budget_bytes: 4 << 20, item_size_max_bytes: 1024, evict: true, shards: 4 });
    for _ in 0..100 {
        cache.store(Mode::Set, b"k", 0, 0, b"0", 1);
        let cas = peek(&cache, b"k", 1, |item| item.cas).unwrap();
        let won: usize = thread::scope(|scope| {
            let tries: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| cache.store(Mode::Cas(cas), b"k", 0, 0, b"1", 1) == Stored::Stored))
                .collect();
            tries.into_iter().map(|handle| usize::from(handle.join().unwrap())).sum()
        });
        assert_eq!(won, 1);
    }
}

#[test]
fn counters_are_exact_under_threads_and_eviction() {
    let cache = Cache::new(&Options { budget_bytes: 2 << 20, item_size_max_bytes: 8192, evict: true, shards: 4 });
    cache.store(Mode::Set, b"n", 0, 0, b"0", 1);
    thread::scope(|scope| {
        for t in 0..4 {
            let cache = &cache;
            scope.spawn(move || {
                for n in 0..3000_u32 {
                    // Read often enough to stay, beside writers that fill the budget several times over.
                    assert!(matches!(arithmetic(cache, b"n", 1, true, 1), ArithmeticOutcome::Value(_)));
                    let key = format!("fill:{t}:{n}");
                    assert_eq!(cache.store(Mode::Set, key.as_bytes(), 0, 0, &[b'x'; 700], 1), Stored::Stored);
                }
            });
        }
    });
    assert_eq!(arithmetic(&cache, b"n", 0, true, 1), ArithmeticOutcome::Value(12_000));
    cache.validate().unwrap();
    let totals = cache.totals();
    assert!(totals.classes.evicted > 0 && totals.used_bytes <= totals.budget_bytes);
    assert_eq!(totals.classes.evicted + totals.curr_items, 12_001);
}
