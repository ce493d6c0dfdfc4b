//! Data too large for a slot: an allocation of its own. Readers may hold on to it while it is written to their peers, so
//! that it is not copied for each of them.
//!
//! What the cache has given up while readers hold it is counted until the last of them lets go ([`DetachedBytes`]). Never
//! changes while a reader holds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Values from this length on are shared with readers; a shorter one is sooner copied.
pub const SHARED_BYTES_MIN: usize = 16 * 1024;

/// What each takes beside its bytes: the two counts of an `Arc`, and what it points to.
pub(super) const HEADER_BYTES: u64 = (2 * size_of::<usize>() + size_of::<LargeDataInner>()) as u64;

/// Bytes that readers hold of items which have been replaced, deleted or evicted since.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct DetachedBytes(AtomicU64);

impl DetachedBytes {
    pub fn bytes(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// An item's key, value and flags.
#[derive(Clone)]
pub(super) struct LargeData(Arc<LargeDataInner>);

struct LargeDataInner {
    bytes: Box<[u8]>,
    detached: Arc<DetachedBytes>,
    /// Counted in `detached`.
    given_up: AtomicBool,
}

impl Drop for LargeDataInner {
    fn drop(&mut self) {
        if *self.given_up.get_mut() {
            self.detached.0.fetch_sub(self.bytes.len() as u64, Relaxed);
        }
    }
}

impl LargeData {
    pub(super) fn new(bytes: Box<[u8]>, detached: Arc<DetachedBytes>) -> LargeData {
        LargeData(Arc::new(LargeDataInner { bytes, detached, given_up: AtomicBool::new(false) }))
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// To be changed in place. What a reader holds stays as it is: the item then gets a copy.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        if Arc::strong_count(&self.0) > 1 {
            let copy = LargeData::new(self.0.bytes.clone(), self.0.detached.clone());
            std::mem::replace(self, copy).give_up();
        }
        Arc::get_mut(&mut self.0).map_or(&mut [], |inner| &mut inner.bytes)
    }

    /// The cache lets go of it, under the lock under which readers are given it.
    pub(super) fn give_up(&self) {
        if Arc::strong_count(&self.0) > 1 {
            self.0.given_up.store(true, Relaxed);
            self.0.detached.0.fetch_add(self.0.bytes.len() as u64, Relaxed);
        }
    }
}

/// A large value, held by a reader.
#[derive(Clone)]
pub struct SharedValue {
    data: LargeData,
    begin: usize,
    end: usize,
}

impl SharedValue {
    pub(super) fn new(data: &LargeData, begin: usize, end: usize) -> SharedValue {
        SharedValue { data: data.clone(), begin, end }
    }

    pub fn bytes(&self) -> &[u8] {
        self.data.bytes().get(self.begin..self.end).unwrap_or_default()
    }
}

/// The length only: values are never shown.
impl std::fmt::Debug for SharedValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SharedValue").field(&self.bytes().len()).finish()
    }
}
