//! memcached's slab classes, kept as statistics only: `stats items` and `stats slabs` group items by them.
//!
//! Never decides where a byte lives; memory is counted by the shard.

/// Bytes memcached adds to every item: its header, the cas id, the key's terminator.
const HEADER_BYTES: usize = 48 + 8 + 1;
/// The smallest chunk, memcached's default.
const SMALLEST_CHUNK_BYTES: usize = 96;
/// A larger item is kept in chunks of this size and counted in the last class.
const LARGEST_CHUNK_BYTES: usize = 512 * 1024;

/// What memcached counts for an item: header, cas id, key, flags when there are any, value and line end.
pub(super) fn item_size(key_len: usize, flags: u32, value_len: usize) -> usize {
    let flag_bytes = if flags == 0 { 0 } else { 4 };
    HEADER_BYTES + key_len + flag_bytes + value_len + 2
}

/// The chunk sizes of memcached's classes for one `item_size_max`; class 1 is the first.
pub(super) struct Classes {
    chunk_sizes: Vec<usize>,
}

impl Classes {
    pub(super) fn new(item_size_max: usize) -> Classes {
        let last = item_size_max.clamp(SMALLEST_CHUNK_BYTES, LARGEST_CHUNK_BYTES);
        let mut chunk_sizes = Vec::new();
        let mut size = SMALLEST_CHUNK_BYTES;
        // Growth factor 1.25, rounded up to 8, until the next step would pass the last one.
        while size * 5 / 4 <= last && chunk_sizes.len() < 62 {
            chunk_sizes.push(size);
            size = (size * 5 / 4).next_multiple_of(8);
        }
        chunk_sizes.push(last);
        Classes { chunk_sizes }
    }

    pub(super) fn count(&self) -> usize {
        self.chunk_sizes.len()
    }

    /// The class number, from 1, of an item of this size.
    pub(super) fn for_item_size(&self, item_size: usize) -> u8 {
        let index = self.chunk_sizes.partition_point(|&chunk| chunk < item_size).min(self.chunk_sizes.len() - 1);
        (index + 1) as u8
    }

    pub(super) fn chunk_size(&self, class: u8) -> usize {
        self.chunk_sizes[usize::from(class) - 1]
    }
}

macro_rules! class_totals {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of one class: the fields of `stats items` and `stats slabs`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct ClassTotals {
            /// Chunk size memcached would use, in bytes.
            pub chunk_size: u64,
            /// Seconds since the last use of the item evicted last.
            pub evicted_time: u64,
            /// Seconds since the last use of the item next in line for eviction; the largest of all shards.
            pub age: u64,
            $($(#[$doc])* pub $name: u64),*
        }

        impl ClassTotals {
            pub(super) fn add(&mut self, other: &ClassTotals) {
                self.chunk_size = other.chunk_size;
                self.evicted_time = self.evicted_time.max(other.evicted_time);
                self.age = self.age.max(other.age);
                $(self.$name += other.$name;)*
            }
        }
    };
}

class_totals! {
    /// Items held now.
    number,
    /// Their size as memcached counts it.
    mem_requested,
    evicted, evicted_nonzero, evicted_unfetched,
    /// Evicted although used since it was last looked at; zero as long as the policy holds.
    evicted_active,
    outofmemory,
    /// Expired items whose memory was taken for a new item.
    reclaimed,
    /// Expired items taken back by the timing wheel, with nobody waiting for the memory.
    crawler_reclaimed,
    crawler_items_checked, expired_unfetched, direct_reclaims, moves_to_warm, moves_within_lru, get_hits, cmd_set,
    delete_hits, incr_hits, decr_hits, cas_hits, cas_badval, touch_hits,
}

impl ClassTotals {
    /// Forgets the history and keeps what describes the present.
    pub(super) fn reset(&mut self) {
        let (number, mem_requested, chunk_size) = (self.number, self.mem_requested, self.chunk_size);
        *self = ClassTotals { number, mem_requested, chunk_size, ..ClassTotals::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_memcacheds() {
        // `stats slabs` of memcached 1.6.18 with its defaults.
        let classes = Classes::new(1 << 20);
        assert_eq!(classes.count(), 39);
        let sizes: Vec<usize> = [1, 2, 3, 37, 38, 39].iter().map(|&c| classes.chunk_size(c)).collect();
        assert_eq!(sizes, [96, 120, 152, 315_872, 394_840, 524_288]);
        assert_eq!(
            (
                classes.for_item_size(1),
                classes.for_item_size(96),
                classes.for_item_size(97),
                classes.for_item_size(1 << 20)
            ),
            (1, 1, 2, 39)
        );
    }

    #[test]
    fn item_size_is_memcacheds() {
        // The largest values memcached stored with -I 1m: one byte more was refused.
        assert_eq!(item_size(1, 0, 1_048_516), 1 << 20);
        assert_eq!(item_size(1, 5, 1_048_512), 1 << 20);
        assert_eq!(item_size(8, 0, 1981), 2048);
    }
}
