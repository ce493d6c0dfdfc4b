//! A histogram of times: sixty-four steps to each power of two, so every figure is right within 1.6 %.
//!
//! Fixed in size; recording allocates nothing.

const STEPS_LOG2: u32 = 6;
const STEPS: usize = 1 << STEPS_LOG2;
/// Up to about nine minutes.
const POWERS: usize = 34;

pub struct Latencies {
    counts: Box<[u64; STEPS * POWERS]>,
    total: u64,
}

impl Latencies {
    pub fn new() -> Latencies {
        Latencies { counts: Box::new([0; STEPS * POWERS]), total: 0 }
    }

    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
    }

    pub fn record(&mut self, nanoseconds: u64) {
        let place = place(nanoseconds).min(self.counts.len() - 1);
        self.counts[place] += 1;
        self.total += 1;
    }

    /// The time that this share of all stays below, in microseconds.
    pub fn at(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        lowest(found.unwrap_or(0)) as f64 / 1e3
    }
}

fn place(nanoseconds: u64) -> usize {
    let power = 63 - (nanoseconds | 1).leading_zeros();
    if power < STEPS_LOG2 {
        return nanoseconds as usize;
    }
    let step = (nanoseconds >> (power - STEPS_LOG2)) as usize & (STEPS - 1);
    ((power - STEPS_LOG2 + 1) as usize) * STEPS + step
}

/// The least time that goes to this place.
fn lowest(place: usize) -> u64 {
    let (power, step) = (place / STEPS, (place % STEPS) as u64);
    if power == 0 { step } else { (STEPS as u64 + step) << (power - 1) }
}
