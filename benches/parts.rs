//! The parts that a request goes through, each by itself: parsing, the table, the cache, the answer.
//!
//! `cargo bench --bench parts`; `cargo bench --bench parts -- --test` runs each once; `-- beside` shows what two cores
//! that meet cost each other. What a whole request costs is
//! counted by `benches/cycles`; the cache under eviction, and what an item costs in memory, are in `benches/cache.rs`.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokencached::cache::{Cache, Mode, Options, Stored};
use tokencached::clock::Now;
use tokencached::credential::table::{KeyConfig, KeyReading, Published, Table, TableConfig};
use tokencached::encoding::{Fact, Field, Form, Times, View};
use tokencached::protocol::parse::step;
use tokencached::protocol::response::{TextValue, ValueForm};
use tokencached::protocol::{RequestStep, binary, scan};

const ITEM_BYTES_MAX: usize = 1 << 20;
const TOKEN_BYTES: usize = 512;
const KEYS: usize = 1000;

fn key(n: usize) -> String {
    format!("small:{n:06}")
}

/// A binary get: the header of 24 bytes, then the key.
fn packet(key: &str) -> Vec<u8> {
    let mut packet = vec![0; 24];
    packet[0] = 0x80;
    packet[2..4].copy_from_slice(&(key.len() as u16).to_be_bytes());
    packet[8..12].copy_from_slice(&(key.len() as u32).to_be_bytes());
    packet.extend_from_slice(key.as_bytes());
    packet
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    let fifty: String = (0..50).map(|n| format!(" {}", key(n))).collect();
    for (name, request) in [
        ("get", format!("get {}\r\n", key(1))),
        ("get of 50 keys", format!("get{fifty}\r\n")),
        ("set, 100 bytes", format!("set {} 0 0 100\r\n{}\r\n", key(1), "v".repeat(100))),
        ("set, 10 KB", format!("set {} 0 0 10240\r\n{}\r\n", key(1), "v".repeat(10_240))),
        ("mg with five flags", format!("mg {} v t f c s\r\n", key(1))),
        ("incr", format!("incr {} 1\r\n", key(1))),
    ] {
        group.throughput(Throughput::Bytes(request.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                assert!(matches!(step(black_box(request.as_bytes()), ITEM_BYTES_MAX), RequestStep::Request { .. }))
            })
        });
    }
    let packet = packet(&key(1));
    group.throughput(Throughput::Bytes(packet.len() as u64));
    group.bench_function("binary get", |b| {
        b.iter(|| black_box(binary::step(black_box(&packet), ITEM_BYTES_MAX, false)))
    });
    group.finish();
}

fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("find the end of a line");
    for length in [8, 20, 45, 200] {
        let mut line = vec![b'k'; length];
        *line.last_mut().unwrap() = b'\n';
        group.bench_function(format!("{length} bytes, scan"), |b| b.iter(|| scan::find(b'\n', black_box(&line))));
        group.bench_function(format!("{length} bytes, memchr"), |b| b.iter(|| memchr::memchr(b'\n', black_box(&line))));
    }
    group.finish();
}

fn respond(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("respond");
    let mut out = Vec::with_capacity(16 * 1024);
    for length in [100, TOKEN_BYTES, 10_240] {
        let value = vec![b'v'; length];
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(format!("value of {length} bytes"), |b| {
            b.iter(|| {
                out.clear();
                let form = TextValue { with_cas: true };
                form.head(&mut out, black_box(b"small:000001"), 0, black_box(&value).len(), 7);
                out.extend_from_slice(&value);
                form.end(&mut out);
            })
        });
    }
    group.finish();
}

fn read_table(criterion: &mut Criterion) {
    let object = [("access_token", Fact::Value), ("expires_in", Fact::ExpiresIn), ("expires_at", Fact::ExpiresAt)];
    let object = Field::named(object);
    let views = [
        ("raw", View::RAW),
        ("JSON", View { form: Form::Json(object.clone()), ..View::RAW }),
        ("PHP array", View { form: Form::Php(object), ..View::RAW }),
    ];
    let keys = views.iter().map(|(name, view)| KeyConfig {
        name: (*name).to_owned(),
        redacted_name: None,
        view: view.clone(),
    });
    let (table, writers, _requests) = Table::new(TableConfig::of([("wx1", keys.collect())]));
    let value: Bytes = vec![b't'; TOKEN_BYTES].into();
    let published = |generation| Published::to_the_end(value.clone(), generation, u64::MAX);
    writers[0].publish(published(1));
    let names = table.names();
    let now = Now::read();
    let mut out = Vec::with_capacity(16 * 1024);
    let mut group = criterion.benchmark_group("table");
    for (name, _) in &views {
        group.bench_function(format!("read, {name}"), |b| {
            b.iter(|| {
                out.clear();
                names.find(black_box(name.as_bytes())).unwrap().read(now, |found| {
                    let KeyReading::Bytes(value) = found else { panic!("no value") };
                    value.rendered.write(&mut out, &value.times);
                });
            })
        });
    }
    group.bench_function("look for what is not managed", |b| b.iter(|| names.is_managed(black_box(b"Raw"))));
    group.bench_function("publish", |b| b.iter(|| writers[0].publish(published(2))));
    group.finish();
    let mut group = criterion.benchmark_group("encode");
    for (name, view) in &views {
        group.bench_function(format!("render, {name}"), |b| b.iter(|| view.render(black_box(&value))));
    }
    group.bench_function("times", |b| b.iter(|| Times::new(black_box(now), black_box(now.boot_ms + 5_000_000), 0)));
    group.finish();
}

fn cache(criterion: &mut Criterion) {
    let cache =
        Cache::new(&Options { budget_bytes: 64 << 20, item_size_max_bytes: ITEM_BYTES_MAX, evict: true, shards: 64 });
    let keys: Vec<Vec<u8>> = (0..KEYS).map(|n| key(n).into_bytes()).collect();
    let value = vec![b'v'; 100];
    let set = |key: &[u8]| assert_eq!(cache.store(Mode::Set, key, 0, 0, &value, 1), Stored::Stored);
    keys.iter().for_each(|key| set(key));
    let mut group = criterion.benchmark_group("cache");
    let mut random = fastrand::Rng::with_seed(1);
    let mut pick = || &keys[random.usize(..KEYS)];
    group.bench_function("get", |b| b.iter(|| cache.get(pick(), 1, |item| item.cas)));
    group.bench_function("set", |b| b.iter(|| set(pick())));
    group.bench_function("delete of what is not there", |b| b.iter(|| cache.delete(black_box(b"absent"), 1)));
    group.finish();
}

/// Runs `other` on a thread of its own, again and again, while `measure` runs.
fn beside(other: impl Fn() + Sync, measure: impl FnOnce()) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                other();
            }
        });
        measure();
        over.store(true, Ordering::Relaxed);
    });
}

/// What an operation costs while another core does something: what is shared shows as time.
fn share(criterion: &mut Criterion) {
    let keys: Vec<Vec<u8>> = (0..KEYS).map(|n| key(n).into_bytes()).collect();
    let cache =
        Cache::new(&Options { budget_bytes: 64 << 20, item_size_max_bytes: ITEM_BYTES_MAX, evict: true, shards: 64 });
    let value = vec![b'v'; 100];
    let set = |key: &[u8]| assert_eq!(cache.store(Mode::Set, key, 0, 0, &value, 1), Stored::Stored);
    keys.iter().for_each(|key| set(key));
    let name = KeyConfig { name: "hot".to_owned(), redacted_name: None, view: View::RAW };
    let (table, writers, _requests) = Table::new(TableConfig::of([("wx1", vec![name])]));
    let value: Bytes = vec![b't'; TOKEN_BYTES].into();
    writers[0].publish(Published::to_the_end(value, 1, u64::MAX));
    let now = Now::read();
    let names = table.names();
    let read = || names.find(b"hot").unwrap().read(now, |found| black_box(matches!(found, KeyReading::Bytes(_))));
    let pick = || keys[fastrand::usize(..KEYS)].as_slice();
    let get = |key: &[u8]| cache.get(key, 1, |item| item.cas);
    let mut group = criterion.benchmark_group("beside another core");
    let mut time = |name: &str, operation: &dyn Fn()| {
        group.bench_function(name, |b| b.iter(operation));
    };
    let token = || assert!(read());
    let one = || assert!(get(&keys[0]).is_some());
    let uniform = || assert!(get(pick()).is_some());
    let change = || set(pick());
    time("token, alone", &token);
    beside(token, || time("token, beside reads of it", &token));
    beside(change, || time("token, beside sets", &token));
    time("one ordinary key, alone", &one);
    beside(one, || time("one ordinary key, beside gets of it", &one));
    time("uniform keys, alone", &uniform);
    beside(uniform, || time("uniform keys, beside gets", &uniform));
    beside(change, || time("uniform keys, beside sets", &uniform));
    time("set, alone", &change);
    beside(change, || time("set, beside sets", &change));
    group.finish();
}

criterion_group!(benches, parse, find, respond, read_table, cache, share);
criterion_main!(benches);
