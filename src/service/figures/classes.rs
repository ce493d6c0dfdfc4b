//! The figures of a class of items: `stats items` and `stats slabs`. There are no slabs here: pages and chunks are
//! those that memcached would need for the same items.

use crate::cache::ClassTotals;
use crate::service::Service;
use crate::stats::{Figure, figures};

/// memcached's page, bytes.
const PAGE_BYTES: u64 = 1024 * 1024;

/// A class that has been used.
pub struct ClassSample {
    pub class: u8,
    totals: ClassTotals,
}

impl ClassSample {
    pub fn all(service: &Service) -> Vec<ClassSample> {
        service.cache.classes().into_iter().map(|(class, totals)| ClassSample { class, totals }).collect()
    }

    /// Only classes that hold items are in `stats items`.
    pub fn has_items(&self) -> bool {
        self.totals.number > 0
    }

    fn chunks_per_page(&self) -> u64 {
        (PAGE_BYTES / self.totals.chunk_size.max(1)).max(1)
    }

    fn pages(&self) -> u64 {
        self.totals.number.div_ceil(self.chunks_per_page()).max(1)
    }

    fn chunks(&self) -> u64 {
        self.pages() * self.chunks_per_page()
    }

    pub const ITEM_METRICS: &'static str = "number age crawler_reclaimed evicted evicted_nonzero evicted_time
        evicted_unfetched expired_unfetched outofmemory reclaimed tailrepairs moves_to_cold moves_to_warm
        moves_within_lru number_hot number_warm number_cold memcached_slab_temporary_items age_hot age_warm";

    pub const ITEMS: &'static [Figure<ClassSample>] = figures! { |of|
        totals: number => gauge memcached_slab_current_items "Items held in the class.";
        absent: number_hot => gauge memcached_slab_hot_items "Items in the hot queue.",
            number_warm => gauge memcached_slab_warm_items "Items in the warm queue.",
            number_cold = of.totals.number => gauge memcached_slab_cold_items "Items in the cold queue.",
            memcached_slab_temporary_items
                => gauge memcached_slab_temporary_items "Items in the temporary queue; always 0 here.",
            age_hot => gauge memcached_slab_hot_age_seconds "Age of the hot queue's oldest item.",
            age_warm => gauge memcached_slab_warm_age_seconds "Age of the warm queue's oldest item.";
        totals: age => gauge memcached_slab_items_age_seconds
                "Seconds since the last use of the least recently used item.",
            mem_requested,
            evicted => counter memcached_slab_items_evicted "Items evicted to make room.",
            evicted_nonzero => counter memcached_slab_items_evicted_nonzero "Evicted items that had an expiry time.",
            evicted_time => gauge memcached_slab_items_evicted_time_seconds
                "Seconds since the last use of the item that was evicted last.",
            outofmemory => counter memcached_slab_items_outofmemory
                "Items refused because there was no memory for them.",
            tailrepairs = 0_u64
                => counter memcached_slab_items_tailrepairs "Repairs of the queue's tail; always 0 here.",
            reclaimed => counter memcached_slab_items_reclaimed "Items stored in memory of expired items.",
            expired_unfetched
                => counter memcached_slab_items_expired_unfetched "Items expired that nobody had read.",
            evicted_unfetched
                => counter memcached_slab_items_evicted_unfetched "Items evicted that nobody had read.",
            evicted_active,
            crawler_reclaimed
                => counter memcached_slab_items_crawler_reclaimed "Expired items removed in the background.",
            crawler_items_checked,
            lrutail_reflocked = 0_u64,
            moves_to_cold = 0_u64 => gauge memcached_slab_items_moves_to_cold "Items moved to the cold queue.",
            moves_to_warm => gauge memcached_slab_items_moves_to_warm "Items moved to the warm queue.",
            moves_within_lru => gauge memcached_slab_items_moves_within_lru "Items moved within a queue.",
            direct_reclaims;
        absent: hits_to_hot, hits_to_warm, hits_to_cold = of.totals.get_hits, hits_to_temp;
    };

    /// In `/metrics` by queue.
    pub const QUEUE_HITS: &'static str = "hits_to_hot hits_to_warm hits_to_cold hits_to_temp";

    pub const SLAB_METRICS: &'static str = "chunk_size chunks_per_page total_pages total_chunks used_chunks free_chunks
        free_chunks_end mem_requested";

    pub const SLABS: &'static [Figure<ClassSample>] = figures! { |of|
        totals: chunk_size => gauge memcached_slab_chunk_size_bytes "Bytes of the class's largest item.",
            chunks_per_page = of.chunks_per_page()
                => gauge memcached_slab_chunks_per_page "Items that would fit one of memcached's pages.",
            total_pages = of.pages() => gauge memcached_slab_current_pages "Pages that memcached would need.",
            total_chunks = of.chunks() => gauge memcached_slab_current_chunks "Items that would fit these pages.",
            used_chunks = of.totals.number => gauge memcached_slab_chunks_used "Items held.",
            free_chunks = of.chunks() - of.totals.number
                => gauge memcached_slab_chunks_free "Items that would still fit.",
            free_chunks_end = 0_u64 => gauge memcached_slab_chunks_free_end "Always 0 here.",
            mem_requested => gauge memcached_slab_mem_requested_bytes "Bytes in use by the items of the class.",
            get_hits, cmd_set, delete_hits, incr_hits, decr_hits, cas_hits, cas_badval, touch_hits;
    };
}

/// Bytes in the pages of all classes.
pub fn total_malloced(classes: &[ClassSample]) -> u64 {
    classes.iter().map(|class| class.pages() * PAGE_BYTES).sum()
}
