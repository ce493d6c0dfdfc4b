//! Parts of the cache: what one operation costs, what one item costs, and how often S3-FIFO hits beside LRU.
//!
//! `cargo bench --bench cache`; `cargo bench --bench cache -- --test` runs each once.

use std::{collections::HashMap, hint::black_box, num::NonZeroUsize};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use tokencached::cache::{Cache, Mode, Options, Stored};

const VALUE_BYTES: usize = 200;

fn cache(budget_bytes: u64) -> Cache {
    Cache::new(&Options { budget_bytes, item_size_max_bytes: 1 << 20, evict: true, shards: 16 })
}

fn keys(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| format!("key:{n:012}").into_bytes()).collect()
}

fn set(cache: &Cache, key: &[u8], value: &[u8]) {
    assert_eq!(cache.store(Mode::Set, key, 0, 0, value, 1), Stored::Stored);
}

fn operations(criterion: &mut Criterion) {
    let value = vec![b'x'; VALUE_BYTES];
    for (name, count) in [("in the processor's cache", 1000), ("1,000,000 items", 1_000_000)] {
        let keys = keys(count);
        let cache = cache(1 << 30);
        keys.iter().for_each(|key| set(&cache, key, &value));
        let mut group = criterion.benchmark_group(name);
        let mut random = fastrand::Rng::with_seed(1);
        let mut pick = || &keys[random.usize(..keys.len())];
        let mut out = Vec::with_capacity(4096);
        group.bench_function("get hit", |b| {
            b.iter(|| {
                out.clear();
                cache.get(black_box(pick()), 1, |item| out.extend_from_slice(item.value))
            })
        });
        group.bench_function("get miss", |b| b.iter(|| cache.get(black_box(b"absent:000000001"), 1, |_| ())));
        group.bench_function("set replace", |b| b.iter(|| set(&cache, black_box(pick()), &value)));
        group.finish();
    }
    let full = cache(64 << 20);
    let mut next = 0_u64;
    let mut fresh = move || {
        next += 1;
        format!("key:{next:012}").into_bytes()
    };
    (0..400_000).for_each(|_| set(&full, &fresh(), &value));
    criterion.bench_function("set with eviction, 64 MiB", |b| {
        b.iter_batched(&mut fresh, |key| set(&full, &key, &value), BatchSize::SmallInput)
    });
}

/// Prints what an item costs besides its key and value.
fn overhead(_: &mut Criterion) {
    for value_bytes in [10, 100, 1000] {
        let cache = cache(1 << 30);
        let keys = keys(200_000);
        let value = vec![b'x'; value_bytes];
        keys.iter().for_each(|key| set(&cache, key, &value));
        let each = cache.totals().used_bytes as f64 / keys.len() as f64;
        let own = (keys[0].len() + value_bytes) as f64;
        println!("overhead: {:5.1} bytes for a key of 16 and a value of {value_bytes}", each - own);
    }
}

/// Pure LRU over as many items as the cache holds: a list of uses with the stale ones skipped.
struct Lru {
    capacity: NonZeroUsize,
    last_use: HashMap<u32, u64>,
    order: std::collections::VecDeque<(u32, u64)>,
    clock: u64,
}

impl Lru {
    fn access(&mut self, key: u32) -> bool {
        self.clock += 1;
        let hit = self.last_use.insert(key, self.clock).is_some();
        self.order.push_back((key, self.clock));
        while self.last_use.len() > self.capacity.get() {
            if let Some((key, when)) = self.order.pop_front()
                && self.last_use.get(&key) == Some(&when)
            {
                self.last_use.remove(&key);
            }
        }
        hit
    }
}

/// A Zipf draw by the inverse of the summed weights.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(count: u32, skew: f64) -> Zipf {
        let mut sum = 0.0;
        let weights = (1..=count).map(|rank| {
            sum += f64::from(rank).powf(-skew);
            sum
        });
        Zipf(weights.collect())
    }

    fn draw(&self, random: &mut fastrand::Rng) -> u32 {
        let total = self.0.last().copied().unwrap_or(1.0);
        let point = random.f64() * total;
        self.0.partition_point(|&sum| sum < point) as u32
    }
}

/// Prints hit ratios; both sides hold the same number of items of one size.
fn hit_ratio(_: &mut Criterion) {
    const ACCESSES: u32 = 1_000_000;
    for (name, skew, scan_every) in [
        ("zipf 0.8", 0.8, 0),
        ("zipf 1.0", 1.0, 0),
        ("zipf 0.8 with scans", 0.8, 100_000),
        ("zipf 1.0 with scans", 1.0, 100_000),
    ] {
        let zipf = Zipf::new(100_000, skew);
        let cache =
            Cache::new(&Options { budget_bytes: 4 << 20, item_size_max_bytes: 1 << 16, evict: true, shards: 4 });
        let value = vec![b'x'; VALUE_BYTES];
        (0..100_000).for_each(|n| set(&cache, format!("fill{n}").as_bytes(), &value));
        let capacity = cache.totals().curr_items;
        cache.flush(1, 1);
        let mut lru = Lru {
            capacity: NonZeroUsize::new(capacity as usize).unwrap_or(NonZeroUsize::MIN),
            last_use: HashMap::new(),
            order: std::collections::VecDeque::new(),
            clock: 0,
        };
        let mut random = fastrand::Rng::with_seed(7);
        let (mut hits, mut lru_hits, mut scanned) = (0_u32, 0_u32, 1_000_000);
        let mut access = |key: u32, counts: bool| {
            let bytes = format!("key:{key:08}").into_bytes();
            let hit = cache.get(&bytes, 1, |_| ()).is_some();
            if !hit {
                set(&cache, &bytes, &value);
            }
            let lru_hit = lru.access(key);
            if counts {
                hits += u32::from(hit);
                lru_hits += u32::from(lru_hit);
            }
        };
        for n in 1..=ACCESSES {
            access(zipf.draw(&mut random), true);
            if scan_every != 0 && n % scan_every == 0 {
                // A pass over keys nobody asks for again, as long as the cache is large.
                (0..capacity as u32).for_each(|_| {
                    scanned += 1;
                    access(scanned, false);
                });
            }
        }
        let percent = |hits: u32| f64::from(hits) * 100.0 / f64::from(ACCESSES);
        println!(
            "hit ratio, {name}, {capacity} of 100000 items: {:.1} %, LRU {:.1} %",
            percent(hits),
            percent(lru_hits)
        );
    }
}

criterion_group!(benches, overhead, hit_ratio, operations);
criterion_main!(benches);
