//! What the real refresher stands on in the simulated month: the machine's clocks and its disk.
//!
//! Virtual time is tokio's paused clock and what the machine has slept. Everything here is on one thread; the locks are
//! for the compiler.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tokencached::clock::{Clock, Now};
use tokencached::credential::state::{LoadedState, Snapshot, StateStore};
use tokio::time::Instant;

use super::timeline::{SECOND, START, true_now};

/// True time, and what the machine makes of it.
pub struct Clocks {
    began: Instant,
    /// Slept so far: tokio's clock stands still in a suspend, and so do its timers.
    asleep_ms: AtomicU64,
    /// True time at which the boot clock stood at 0.
    booted: AtomicU64,
    wall_off_ms: AtomicI64,
    /// How far off it was when the disk was last written.
    written_off_ms: AtomicI64,
}

impl Clocks {
    /// On a runtime whose clock is paused.
    pub fn new() -> Clocks {
        Clocks {
            began: Instant::now(),
            asleep_ms: AtomicU64::new(0),
            booted: AtomicU64::new(START - 50 * SECOND),
            wall_off_ms: AtomicI64::new(0),
            written_off_ms: AtomicI64::new(0),
        }
    }

    /// True time, milliseconds on WeChat's clock.
    pub fn t(&self) -> u64 {
        START + self.began.elapsed().as_millis() as u64 + self.asleep_ms.load(Relaxed)
    }

    /// True time of an instant on this boot's clock.
    pub fn t_of_boot(&self, boot_ms: u64) -> u64 {
        boot_ms.saturating_add(self.booted.load(Relaxed))
    }

    pub fn boot_of(&self, t: u64) -> u64 {
        t - self.booted.load(Relaxed)
    }

    pub fn reboot(&self) {
        self.booted.store(self.t() - 20 * SECOND, Relaxed);
    }

    pub fn set_wall(&self, off_ms: i64) {
        self.wall_off_ms.store(off_ms, Relaxed);
    }

    pub fn wall_off_ms(&self) -> i64 {
        self.wall_off_ms.load(Relaxed)
    }

    /// True if the wall clock has been changed since the disk was written: ages reckoned by it are wrong then.
    pub fn wall_misleads(&self) -> bool {
        self.wall_off_ms() != self.written_off_ms.load(Relaxed)
    }

    pub fn sleep_through(&self, long: u64) {
        self.asleep_ms.fetch_add(long, Relaxed);
    }

    /// Sleeps until then, if it is not past.
    pub async fn until(&self, t: u64) {
        let left = t.saturating_sub(self.t());
        if left > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(left)).await;
        }
    }
}

impl Clock for Clocks {
    fn now(&self) -> Now {
        let t = self.t();
        Now { boot_ms: self.boot_of(t), unix_ms: true_now(t).unix_ms + self.wall_off_ms.load(Relaxed) }
    }
}

/// The disk: what is on it outlives the process and the boot.
pub type Disk = Arc<Mutex<Option<Snapshot>>>;

/// One process's hand on the disk. A killed one writes no more.
pub struct ProcessDisk {
    pub disk: Disk,
    pub alive: Arc<AtomicBool>,
    pub clocks: Arc<Clocks>,
}

impl StateStore for ProcessDisk {
    fn load(&self) -> LoadedState {
        self.disk.lock().clone().map_or(LoadedState::Empty, LoadedState::Found)
    }

    fn save(&self, snapshot: &Snapshot) -> std::io::Result<()> {
        if self.alive.load(Relaxed) {
            *self.disk.lock() = Some(snapshot.clone());
            self.clocks.written_off_ms.store(self.clocks.wall_off_ms(), Relaxed);
        }
        Ok(())
    }

    fn blocks(&self) -> bool {
        false
    }
}
