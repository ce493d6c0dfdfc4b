//! The program's allocator and its settings. Only the binary has them; whoever uses the library brings an own one.
//!
//! jemalloc, because resident memory follows the budget with it and did not with mimalloc (`docs/design/cache.md`, "Memory").
//! The one `unsafe` of the crate is here: jemalloc looks for its settings under a name that no language can vouch for.
//! What must hold: nothing else defines that name, the type is what jemalloc declares (`const char *`, a pointer to text
//! that ends in NUL and lives for ever), and nobody writes to it. A test reads back what the allocator made of it.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// What is freed goes back to the system at once; few arenas, because each keeps free memory of its own; no huge pages,
/// which would be given back late. `_RJEM_MALLOC_CONF` in the environment comes on top.
#[allow(unsafe_code)]
#[unsafe(export_name = "_rjem_malloc_conf")]
static SETTINGS: Option<&'static [u8; 54]> = Some(b"dirty_decay_ms:0,muzzy_decay_ms:0,narenas:4,thp:never\0");
