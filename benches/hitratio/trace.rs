//! The traces: which key is asked for when, how large its value is, how long it lives. Same seed, same trace.

use fastrand::Rng;

/// What is stored for each key number.
pub const KEY_BYTES: usize = 20;
const VALUE_BYTES: u32 = 300;

/// A look-up; a miss is followed by a store of this value.
#[derive(Clone, Copy)]
pub struct Access {
    pub key: u32,
    pub value_bytes: u32,
    /// Since the trace began.
    pub at_ms: u32,
    /// 0: it never expires.
    pub ttl_s: u32,
}

impl Access {
    /// In whole seconds from a clock that ticks with the trace, as memcached has it; 0 for never.
    pub fn expires_ms(&self) -> u32 {
        if self.ttl_s == 0 { 0 } else { (self.at_ms / 1000 + self.ttl_s) * 1000 }
    }
}

pub struct Trace {
    pub accesses: Vec<Access>,
    /// Of all key numbers, one past the largest.
    pub keys: usize,
    /// Those before are not counted: the cache fills.
    pub warm_up: usize,
    /// Real time matters: lifetimes are of the order of the trace.
    pub timed: bool,
}

pub fn key_text(key: u32, into: &mut Vec<u8>) {
    use std::io::Write;
    into.clear();
    let _ = write!(into, "item:{key:015}");
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

    fn draw(&self, rng: &mut Rng) -> u32 {
        let point = rng.f64() * self.0[self.0.len() - 1];
        (self.0.partition_point(|&sum| sum < point) as u32).min(self.0.len() as u32 - 1)
    }
}

/// The names in the order they are run; `build` makes one.
pub const NAMES: [&str; 14] = [
    "zipf 0.7",
    "zipf 0.8",
    "zipf 0.9",
    "zipf 1.0",
    "zipf 1.1",
    "zipf 1.2",
    "zipf 0.9, scans",
    "zipf 1.0, scans",
    "popularity drifts",
    "popularity jumps",
    "loop",
    "mixed sizes",
    "sizes change",
    "short lifetimes",
];

/// Makes a trace of about so many accesses. Keys and sizes suit 64 MiB: 5 to 30 % of the keys fit.
pub fn build(name: &'static str, length: usize) -> Trace {
    let mut rng = Rng::with_seed(name.bytes().map(u64::from).sum());
    let mut maker = Maker { rng: &mut rng, length, accesses: Vec::with_capacity(length * 11 / 10) };
    match name {
        "zipf 0.9, scans" => maker.scans(0.9),
        "zipf 1.0, scans" => maker.scans(1.0),
        "popularity drifts" => maker.shifting(length as u32 / 4000, 40),
        "popularity jumps" => maker.shifting(length as u32 / 8, 100_000),
        "loop" => maker.looping(),
        "mixed sizes" => maker.sizes(|_, key| log_normal(key)),
        "sizes change" => maker.sizes(|done, key| if done < 0.4 { 150 + key % 100 } else { log_normal(key) }),
        "short lifetimes" => maker.lifetimes(),
        // The steeper, the fewer keys are ever asked for: larger values, so that they do not all fit.
        "zipf 1.1" => maker.zipf(1.1, 2 * VALUE_BYTES),
        "zipf 1.2" => maker.zipf(1.2, 5 * VALUE_BYTES),
        _ => maker.zipf(name.rsplit(' ').next().and_then(|skew| skew.parse().ok()).expect("a skew"), VALUE_BYTES),
    }
    let keys = maker.accesses.iter().map(|access| access.key as usize + 1).max().unwrap_or(1);
    let accesses = maker.accesses;
    let timed = name == "short lifetimes";
    // What "sizes change" is about comes late.
    let warm_up = accesses.len() * if name == "sizes change" { 5 } else { 3 } / 10;
    Trace { keys, warm_up, timed, accesses }
}

/// 100 B to 8 KB, always the same for a key; the median is 700 B.
fn log_normal(key: u32) -> u32 {
    let mut rng = Rng::with_seed(u64::from(key));
    let normal: f64 = (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
    (700.0 * (normal * 0.9).exp()).clamp(100.0, 8192.0) as u32
}

struct Maker<'a> {
    rng: &'a mut Rng,
    length: usize,
    accesses: Vec<Access>,
}

impl Maker<'_> {
    fn push(&mut self, key: u32, value_bytes: u32) {
        self.accesses.push(Access { key, value_bytes, at_ms: 0, ttl_s: 0 });
    }

    fn zipf(&mut self, skew: f64, value_bytes: u32) {
        let zipf = Zipf::new(1_000_000, skew);
        for _ in 0..self.length {
            let key = zipf.draw(self.rng);
            self.push(key, value_bytes);
        }
    }

    /// Now and then a pass over keys that nobody else asks for, as long as the cache is large.
    fn scans(&mut self, skew: f64) {
        let zipf = Zipf::new(1_000_000, skew);
        let mut scanned = 1_000_000;
        while self.accesses.len() < self.length {
            for _ in 0..self.length / 10 {
                let key = zipf.draw(self.rng);
                self.push(key, VALUE_BYTES);
            }
            for _ in 0..170_000 {
                self.push(scanned, VALUE_BYTES);
                scanned += 1;
            }
        }
    }

    /// Every `every` accesses all ranks move on by `by` keys.
    fn shifting(&mut self, every: u32, by: u32) {
        let zipf = Zipf::new(1_000_000, 1.0);
        for n in 0..self.length as u32 {
            let key = zipf.draw(self.rng) + n / every.max(1) * by;
            self.push(key, VALUE_BYTES);
        }
    }

    /// Half goes round keys of which two thirds fit, half is Zipf.
    fn looping(&mut self) {
        let zipf = Zipf::new(1_000_000, 0.9);
        for n in 0..self.length as u32 {
            let key = if n % 2 == 0 { 1_000_000 + n / 2 % 250_000 } else { zipf.draw(self.rng) };
            self.push(key, VALUE_BYTES);
        }
    }

    /// `size` is told how much of the trace is done, and the key.
    fn sizes(&mut self, size: impl Fn(f64, u32) -> u32) {
        let zipf = Zipf::new(400_000, 0.9);
        for n in 0..self.length {
            let rank = zipf.draw(self.rng);
            let done = n as f64 / self.length as f64;
            // Other sizes are other keys.
            let key = rank + if size(0.0, rank) == size(done, rank) { 0 } else { 400_000 };
            self.push(key, size(done, rank));
        }
    }

    /// Half of the keys live 2 to 20 s, the others longer than the trace, which takes 30 s.
    fn lifetimes(&mut self) {
        const TRACE_MS: u64 = 30_000;
        let zipf = Zipf::new(1_000_000, 0.8);
        for n in 0..self.length as u64 {
            let key = zipf.draw(self.rng);
            let ttl_s = if key.is_multiple_of(2) { 2 + key.wrapping_mul(0x9E37_79B1) % 19 } else { 3600 };
            let at_ms = (n * TRACE_MS / self.length as u64) as u32;
            self.accesses.push(Access { key, value_bytes: VALUE_BYTES, at_ms, ttl_s });
        }
    }
}
