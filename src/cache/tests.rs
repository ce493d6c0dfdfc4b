//! What a caller can count on, at the boundaries.

use super::*;

fn cache(budget_bytes: u64) -> Cache {
    Cache::new(&Options { budget_bytes, item_size_max_bytes: 1 << 20, evict: true, shards: 1 })
}

fn text(cache: &Cache, key: &[u8], now: Seconds) -> Option<String> {
    cache.get(key, now, |item| String::from_utf8_lossy(item.value).into_owned())
}

/// Looks without leaving a trace: no use, no statistics.
fn peek<R>(cache: &Cache, key: &[u8], now: Seconds, visit: impl FnOnce(ItemView<'_>) -> R) -> Option<R> {
    cache.with_key(key, now, |slot| slot.view().map(visit))
}

fn arithmetic(cache: &Cache, key: &[u8], delta: u64, increase: bool, now: Seconds) -> ArithmeticOutcome {
    cache.with_key(key, now, |slot| slot.arithmetic(delta, increase, None))
}

fn touch(cache: &Cache, key: &[u8], expiry: Seconds, now: Seconds) -> bool {
    cache.with_key(key, now, |slot| slot.touch(expiry))
}

fn set(cache: &Cache, key: &[u8], value: &[u8], expiry: Seconds, now: Seconds) {
    assert_eq!(cache.store(Mode::Set, key, 0, expiry, value, now), Stored::Stored);
    cache.validate().unwrap();
}

#[test]
fn largest_item_to_the_byte() {
    for (max, key, flags, largest) in
        [(1 << 20, "k", 0, 1_048_516), (1 << 20, "k", 5, 1_048_512), (2048, "kkkkkkkk", 0, 1981)]
    {
        let cache = Cache::new(&Options { budget_bytes: 8 << 20, item_size_max_bytes: max, evict: true, shards: 1 });
        let value = vec![b'x'; largest + 1];
        let key = key.as_bytes();
        assert_eq!(cache.store(Mode::Set, key, flags, 0, &value[..largest], 1), Stored::Stored);
        assert_eq!(cache.store(Mode::Add, key, flags, 0, &value, 1), Stored::TooLarge);
        assert_eq!(cache.store(Mode::Append, key, flags, 0, b"x", 1), Stored::NotStored);
        assert!(cache.get(key, 1, |item| assert_eq!(item.value.len(), largest)).is_some(), "the old value stays");
        assert_eq!(cache.store(Mode::Set, key, flags, 0, &value, 1), Stored::TooLarge);
        assert_eq!(text(&cache, key, 1), None, "a failed set drops the old value");
        cache.validate().unwrap();
    }
}

#[test]
fn expiry_to_the_second() {
    let cache = cache(8 << 20);
    set(&cache, b"k", b"v", 10, 5);
    assert!(text(&cache, b"k", 9).is_some());
    assert_eq!(text(&cache, b"k", 10), None);
    set(&cache, b"k", b"v", 10, 5);
    assert!(touch(&cache, b"k", 20, 9));
    assert!(text(&cache, b"k", 19).is_some());
    assert_eq!(cache.get_and_touch(b"k", 30, 19, |item| item.exptime), Some(30));
    assert!(!cache.delete(b"k", 30));
    set(&cache, b"gone", b"v", 1, 30);
    assert_eq!(text(&cache, b"gone", 30), None, "stored already expired");
}

#[test]
fn a_cas_id_for_every_change_and_none_for_a_touch() {
    let cache = cache(8 << 20);
    let cas = || peek(&cache, b"k", 1, |item| item.cas);
    set(&cache, b"k", b"7", 0, 1);
    assert_eq!(cas(), Some(1));
    touch(&cache, b"k", 50, 1);
    assert_eq!(cas(), Some(1));
    assert_eq!(arithmetic(&cache, b"k", 1, true, 1), ArithmeticOutcome::Value(8));
    assert_eq!(cas(), Some(2));
    assert_eq!(cache.store(Mode::Cas(1), b"k", 0, 0, b"x", 1), Stored::Exists);
    assert_eq!(cache.store(Mode::Cas(2), b"k", 0, 2, b"x", 1), Stored::Stored);
    assert_eq!(cas(), Some(3));
    assert_eq!(cache.store(Mode::Cas(3), b"k", 0, 0, b"x", 2), Stored::NotFound, "expired");
}

#[test]
fn arithmetic_keeps_the_length_flags_and_expiry() {
    let cache = cache(8 << 20);
    cache.store(Mode::Set, b"n", 7, 99, b"10", 1);
    assert_eq!(arithmetic(&cache, b"n", 3, false, 1), ArithmeticOutcome::Value(7));
    assert_eq!(text(&cache, b"n", 1).as_deref(), Some("7 "));
    assert_eq!(arithmetic(&cache, b"n", 100, false, 1), ArithmeticOutcome::Value(0));
    assert_eq!(arithmetic(&cache, b"n", u64::MAX, true, 1), ArithmeticOutcome::Value(u64::MAX));
    assert_eq!(peek(&cache, b"n", 1, |item| (item.flags, item.exptime)), Some((7, 99)));
    assert_eq!(arithmetic(&cache, b"n", 2, true, 1), ArithmeticOutcome::Value(1));
    assert_eq!(text(&cache, b"n", 1).map(|text| text.len()), Some(20));
    assert_eq!(arithmetic(&cache, b"absent", 1, true, 1), ArithmeticOutcome::NotFound);
    set(&cache, b"t", b"text", 0, 1);
    assert_eq!(arithmetic(&cache, b"t", 1, true, 1), ArithmeticOutcome::NonNumeric);
    cache.validate().unwrap();
}

#[test]
fn flush_now_later_and_replaced() {
    let cache = cache(8 << 20);
    set(&cache, b"old", b"v", 0, 1);
    cache.flush(1, 1);
    assert_eq!(text(&cache, b"old", 1), None);
    set(&cache, b"same second", b"v", 0, 1);
    assert!(text(&cache, b"same second", 1).is_some());
    cache.flush(10, 1);
    set(&cache, b"between", b"v", 0, 9);
    assert!(text(&cache, b"between", 9).is_some());
    set(&cache, b"at", b"v", 0, 10);
    assert_eq!((text(&cache, b"between", 10), text(&cache, b"same second", 10)), (None, None));
    assert!(text(&cache, b"at", 10).is_some());
    cache.flush(20, 10);
    cache.flush(30, 11);
    assert!(text(&cache, b"at", 29).is_some(), "the later call replaced the earlier");
    assert_eq!(text(&cache, b"at", 30), None);
    cache.validate().unwrap();
}

#[test]
fn flushed_memory_comes_back_and_counts_until_then() {
    let cache = cache(8 << 20);
    for n in 0..2000 {
        set_fast(&cache, n, 100);
    }
    let before = cache.totals().used_bytes;
    cache.flush(1, 1);
    let totals = cache.totals();
    assert_eq!((totals.curr_items, totals.bytes), (0, 0));
    assert!(totals.used_bytes > before / 2, "not given back yet, so still counted");
    for _ in 0..20 {
        cache.get(b"x", 1, |_| ());
    }
    assert!(cache.totals().used_bytes < 64 * 1024, "{}", cache.totals().used_bytes);
}

fn set_fast(cache: &Cache, n: u32, len: usize) {
    let key = format!("key{n}");
    assert_eq!(cache.store(Mode::Set, key.as_bytes(), 0, 0, &vec![b'x'; len], 1), Stored::Stored);
}

#[test]
fn many_small_items_make_way_for_a_large_one() {
    // The record slots, the hash table and the ghost table of 20,000 tiny items must go too.
    let cache = Cache::new(&Options { budget_bytes: 2 << 20, item_size_max_bytes: 1 << 20, evict: true, shards: 8 });
    assert_eq!(cache.totals().shards, 1);
    for n in 0..40_000 {
        set_fast(&cache, n, 1);
    }
    assert!(cache.totals().classes.evicted > 0);
    cache.validate().unwrap();
    for n in 0..4 {
        set_fast(&cache, n, 1_048_500);
        cache.validate().unwrap();
    }
    let value_len = |n: u32| peek(&cache, format!("key{n}").as_bytes(), 1, |item| item.value.len());
    assert_eq!(value_len(3), Some(1_048_500));
    for n in 0..40_000 {
        set_fast(&cache, n, 1);
    }
    cache.validate().unwrap();
}

#[test]
fn the_budget_shrinks_at_once() {
    let cache = cache(8 << 20);
    for n in 0..5000 {
        set_fast(&cache, n, 1000);
    }
    cache.set_budget(1 << 20);
    let totals = cache.totals();
    assert!(totals.used_bytes <= 1 << 20 && totals.curr_items > 500, "{totals:?}");
    cache.validate().unwrap();
    cache.set_budget(8 << 20);
    set_fast(&cache, 1, 1000);
}

#[test]
fn expired_items_leave_before_live_ones() {
    let cache = cache(1 << 20);
    for n in 0..400_u32 {
        set(&cache, format!("live{n}").as_bytes(), &[b'x'; 1000], 0, 1);
        assert_eq!(cache.store(Mode::Set, format!("dead{n}").as_bytes(), 0, 100 + n, &[b'x'; 500], 1), Stored::Stored);
    }
    assert_eq!(cache.totals().classes.evicted, 0);
    for n in 0..180_u32 {
        set(&cache, format!("new{n}").as_bytes(), &[b'x'; 1000], 0, 1000);
    }
    let totals = cache.totals();
    assert_eq!(totals.classes.evicted, 0, "{totals:?}");
    assert_eq!(totals.classes.reclaimed + totals.classes.crawler_reclaimed, totals.classes.expired_unfetched);
    assert!((0..400).all(|n| text(&cache, format!("live{n}").as_bytes(), 1000).is_some()));
}

#[test]
fn idle_reads_take_expired_items_back() {
    let cache = cache(8 << 20);
    for n in 0..300_u32 {
        // From the next second to the far end of the clock's range.
        let expiry = 2 + (1_u64 << (n % 31)) as u32;
        assert_eq!(cache.store(Mode::Set, format!("k{n}").as_bytes(), 0, expiry, b"v", 1), Stored::Stored);
    }
    for now in [2, 3, 10, 1000, 1 << 20, u32::MAX] {
        for _ in 0..200 {
            cache.get(b"absent", now, |_| ());
        }
        cache.validate().unwrap();
        let left = (0..300).filter(|n| 2 + (1_u64 << (n % 31)) > u64::from(now)).count() as u64;
        assert_eq!(cache.totals().curr_items, left, "at {now}");
    }
}

#[test]
fn without_eviction_a_store_is_refused() {
    let cache = Cache::new(&Options { budget_bytes: 1 << 20, item_size_max_bytes: 1 << 16, evict: false, shards: 1 });
    set(&cache, b"old", b"v", 0, 1);
    set(&cache, b"number", b"9", 0, 1);
    set(&cache, b"expires", &[b'x'; 5000], 100, 1);
    let mut stored = 0;
    while cache.store(Mode::Set, format!("k{stored}").as_bytes(), 0, 0, &[b'x'; 5000], 1) == Stored::Stored {
        stored += 1;
        cache.validate().unwrap();
    }
    assert!(stored > 150);
    assert_eq!(cache.store(Mode::Replace, b"old", 0, 0, &[b'x'; 60_000], 1), Stored::OutOfMemory);
    assert_eq!(text(&cache, b"old", 1).as_deref(), Some("v"));
    assert_eq!(cache.store(Mode::Append, b"old", 0, 0, &[b'x'; 60_000], 1), Stored::OutOfMemory);
    assert_eq!(cache.store(Mode::Set, b"old", 0, 0, &[b'x'; 60_000], 1), Stored::OutOfMemory);
    assert_eq!(text(&cache, b"old", 1), None);
    assert_eq!(cache.totals().classes.evicted, 0);
    assert_eq!(cache.store(Mode::Set, b"later", 0, 0, &[b'x'; 4000], 100), Stored::Stored, "the expired item's");
    cache.validate().unwrap();
}

#[test]
fn a_scan_does_not_wash_out_what_is_used() {
    let cache = cache(1 << 20);
    for n in 0..300 {
        set_fast(&cache, n, 1000);
    }
    for _ in 0..3 {
        (0..300).for_each(|n| assert!(text(&cache, format!("key{n}").as_bytes(), 1).is_some()));
    }
    (1000..10_000).for_each(|n| set_fast(&cache, n, 1000));
    let kept = (0..300).filter(|n| text(&cache, format!("key{n}").as_bytes(), 1).is_some()).count();
    assert!(kept >= 290, "{kept} of 300");
}

#[test]
fn views_show_the_time_before() {
    let cache = cache(8 << 20);
    set(&cache, b"k", b"v", 0, 5);
    let seen = |now| cache.get(b"k", now, |item| (item.fetched, item.last_access));
    assert_eq!((seen(7), seen(9)), (Some((false, 5)), Some((true, 7))));
    assert_eq!(peek(&cache, b"k", 20, |item| (item.fetched, item.last_access)), Some((true, 9)));
    assert_eq!(peek(&cache, b"k", 20, |item| (item.class, item.size_bytes)), Some((1, 61)));
}

#[test]
fn class_statistics() {
    let cache = cache(8 << 20);
    set(&cache, b"k", b"1", 0, 1);
    cache.get(b"k", 1, |_| ());
    arithmetic(&cache, b"k", 1, true, 1);
    arithmetic(&cache, b"k", 1, false, 1);
    cache.store(Mode::Cas(99), b"k", 0, 0, b"1", 1);
    cache.store(Mode::Cas(3), b"k", 0, 0, b"1", 1);
    touch(&cache, b"k", 0, 4);
    let classes = cache.classes();
    let (number, class) = classes[0];
    assert_eq!((classes.len(), number, class.chunk_size, class.number, class.mem_requested), (1, 1, 96, 1, 61));
    assert_eq!((class.cmd_set, class.get_hits, class.incr_hits, class.decr_hits), (3, 1, 1, 1));
    assert_eq!((class.cas_badval, class.cas_hits, class.touch_hits, class.delete_hits), (1, 1, 1, 0));
    cache.reset_stats();
    assert_eq!(cache.classes()[0].1.mem_requested, 61);
    cache.delete(b"k", 4);
    assert_eq!(cache.classes()[0].1.delete_hits, 1);
}

#[test]
fn a_walk_in_pieces_sees_everything() {
    let cache = Cache::new(&Options { budget_bytes: 8 << 20, item_size_max_bytes: 1 << 16, evict: true, shards: 4 });
    (0..1000).for_each(|n| set_fast(&cache, n, 10));
    let mut seen = std::collections::HashSet::new();
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        cursor = cache.scan(at, 7, 1, |item| {
            seen.insert(item.key.to_vec());
        });
    }
    assert_eq!(seen.len(), 1000);
}

#[test]
fn a_place_in_hand_is_one_step() {
    let cache = cache(8 << 20);
    cache.with_key(b"k", 1, |slot| {
        assert!(slot.view().is_none());
        assert_eq!(slot.store_prepared(Mode::Add, 3, 0, b"v", PreparedItem::FILL_UNDER_LOCK, Some(77)), Stored::Stored);
        slot.set_stale(true);
        slot.set_token_sent(true);
        slot.set_expiry(9);
    });
    let view = |item: ItemView<'_>| (item.cas, item.flags, item.exptime, item.stale, item.token_sent);
    assert_eq!(peek(&cache, b"k", 1, view), Some((77, 3, 9, true, true)));
    set(&cache, b"k", b"v", 0, 1);
    assert_eq!(peek(&cache, b"k", 1, view), Some((1, 0, 0, false, false)), "a new store is fresh");
}

#[test]
fn shards_leave_room_for_two_of_the_largest() {
    for (mib, wish, expected) in [(64, 16, 4), (1024, 100, 64), (8, 16, 1), (1, 16, 1), (64, 3, 2), (64, 0, 1)] {
        let cache =
            Cache::new(&Options { budget_bytes: mib << 20, item_size_max_bytes: 1 << 20, evict: true, shards: wish });
        assert_eq!(cache.totals().shards, expected, "{mib} MiB, {wish} wished for");
    }
}

#[test]
fn large_items_use_the_whole_budget_before_any_leaves() {
    // Cut into a share for each shard, it would be full for some while a third is free.
    let cache = Cache::new(&Options { budget_bytes: 256 << 20, item_size_max_bytes: 1 << 20, evict: true, shards: 64 });
    assert_eq!(cache.totals().shards, 16);
    let mut stored = 0;
    while cache.totals().classes.evicted == 0 {
        set_fast(&cache, stored, 100_000);
        stored += 1;
    }
    let held = u64::from(stored) * 100_000;
    assert!(held > (256 << 20) * 9 / 10, "the first left when {held} bytes were stored");
    for n in stored..stored * 3 {
        set_fast(&cache, n, 100_000);
        assert!(text(&cache, format!("key{n}").as_bytes(), 1).is_some(), "what was just stored stays");
        let totals = cache.totals();
        assert!(totals.used_bytes <= totals.budget_bytes && totals.bytes > (256 << 20) * 9 / 10, "{totals:?}");
    }
    cache.validate().unwrap();
}

#[test]
fn one_size_gives_its_memory_to_another() {
    let cache = cache(4 << 20);
    for (round, len) in [(0, 40), (1, 7000), (2, 300), (3, 100_000), (4, 1000), (5, 40)] {
        for n in 0..(8 << 20) / (len as u32 + 100) {
            let key = format!("{round}:{n}");
            assert_eq!(cache.store(Mode::Set, key.as_bytes(), 0, 0, &vec![b'x'; len], 1), Stored::Stored);
        }
        cache.validate().unwrap();
        let totals = cache.totals();
        let count = cache.classes().iter().map(|(_, class)| class.number).max().unwrap();
        assert!(count * 10 >= totals.curr_items * 9, "{len}: others have kept their memory: {totals:?}");
        assert!(len < 100 || totals.bytes > (4 << 20) * 3 / 4, "{len}: {totals:?}");
    }
}

#[test]
fn the_order_of_eviction_follows_moving_popularity() {
    // Each key is asked for a few times and then never again: what matters is to let the old ones go.
    let cache = cache(1 << 20);
    let mut hits = 0;
    let mut rng = fastrand::Rng::with_seed(3);
    for n in 0..100_000_u32 {
        let key = n / 10 + rng.u32(..1000);
        if text(&cache, format!("key{key}").as_bytes(), 1).is_some() {
            hits += 1;
        } else {
            set_fast(&cache, key, 700);
        }
    }
    assert!(hits > 85_000, "{hits} of 100000");
}

#[test]
fn stored_already_expired_into_a_full_cache() {
    let cache = cache(1 << 20);
    (0..2000).for_each(|n| set_fast(&cache, n, 1000));
    for n in 0..20_u32 {
        let key = format!("dead{n}");
        cache.with_key(key.as_bytes(), 9, |slot| {
            assert_eq!(
                slot.store_prepared(Mode::Set, 0, 5, &[b'x'; 1000], PreparedItem::FILL_UNDER_LOCK, None),
                Stored::Stored
            );
        });
        cache.validate().unwrap();
        assert_eq!(text(&cache, key.as_bytes(), 9), None);
    }
    assert_eq!(cache.totals().classes.crawler_reclaimed, 20, "the wheel still had each of them");
}
