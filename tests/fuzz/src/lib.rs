//! What the fuzz targets do with their bytes, apart from the fuzzer: an ordinary test replays the corpus through the
//! same functions (`tests/it/fuzz.rs`), so this crate's code needs neither a nightly compiler nor libFuzzer.
//!
//! Every target panics on a fault and on nothing else. None reaches out of the process but for a folder of its own.

pub mod answer;
pub mod config;
pub mod parse;
pub mod session;
pub mod state;
pub mod stream;

/// A target's name, also of its corpus, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("parse", parse::run),
    ("stream", stream::run),
    ("session", session::run),
    ("answer", answer::run),
    ("config", config::run),
    ("state", state::run),
];

/// A managed key of the targets that have a table, and its value.
pub const MANAGED: &str = "access_token:wx1";
pub const TOKEN: &str = "61_the-token-that-no-client-ever-changes";

/// A line longer than this is taken whole but given up when it comes in pieces, as with memcached; what is shorter must
/// not care.
const STREAM_BYTES_MAX: usize = 2048;

/// The stream in pieces: the first two bytes say how many and where. `None` if there are none, or too many bytes.
fn pieces(data: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let (&[count, mut chance], stream) = data.split_first_chunk::<2>()?;
    if stream.is_empty() || stream.len() > STREAM_BYTES_MAX {
        return None;
    }
    let mut cuts: Vec<usize> = (0..count % 8)
        .map(|_| {
            chance = chance.wrapping_mul(141).wrapping_add(47);
            usize::from(chance) * stream.len() / 256
        })
        .collect();
    cuts.sort_unstable();
    let mut from = 0;
    let mut pieces = Vec::with_capacity(cuts.len() + 1);
    for cut in cuts {
        pieces.push(&stream[from..cut]);
        from = cut;
    }
    pieces.push(&stream[from..]);
    Some((stream, pieces))
}

/// A service of its own with one managed key, which nobody ever refreshes.
fn service(budget_bytes: u64) -> tokencached::service::Service {
    use tokencached::cache::{Cache, Options};
    use tokencached::credential::table::{KeyConfig, Published, Table, TableConfig};
    use tokencached::encoding::View;
    let key = KeyConfig { name: MANAGED.to_owned(), redacted_name: None, view: View::RAW };
    let (table, writers, _requests) = Table::new(TableConfig::of([("wx1", vec![key])]));
    let value = bytes::Bytes::from_static(TOKEN.as_bytes());
    writers[0].publish(Published::to_the_end(value, 7, u64::MAX));
    let cache = Cache::new(&Options { budget_bytes, item_size_max_bytes: ITEM_SIZE_MAX, evict: true, shards: 1 });
    tokencached::service::Service::new(cache, table.into(), Default::default(), Default::default())
}

/// Small, so that too large an item is short.
const ITEM_SIZE_MAX: usize = 2048;

/// A folder in memory, where there is one: thousands of files a second are written there.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    folder.unwrap_or_else(|error| panic!("no folder to work in: {error}"))
}
