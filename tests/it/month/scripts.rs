//! The classic scripts, each as small as it is usually written, with the same outages, revocations and foreign writer.

use tokencached::sandbox::rules::{ApiRequest, World};
use tokencached::sandbox::{AppOptions, Options, Verdict};

use super::accounting::REACHABLE_MS;
use super::timeline::{CallOutcome, DAY, HOUR, MINUTE, PEER, Reply, SECOND, START, Timeline, exponential, true_now};

/// How the script keeps its token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Script {
    /// A file on each of two web hosts, fetched again 60 s before the end.
    File60,
    /// One memcached for both hosts, this TTL in seconds.
    Memcache(u64),
    /// One server that looks every 20 s and fetches with less than 5 minutes left.
    Tick20,
}

pub const SCRIPTS: [(Script, &str); 4] = [
    (Script::File60, "file on each of 2 hosts, 60 s ahead"),
    (Script::Memcache(7200), "memcache, TTL 7200, 8 workers"),
    (Script::Memcache(3600), "memcache, TTL 3600, 8 workers"),
    (Script::Tick20, "central server, tick 20 s"),
];

const WORKERS: usize = 8;
const TIMEOUT_MS: u64 = 8_000;

#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub reads: u64,
    pub accepted: u64,
    pub refused: u64,
    pub missing: u64,
    pub calls: u64,
    /// Days on which the quota ran out, summed over the apps.
    pub days_over: u64,
    /// Reads that ended without an accepted token, although WeChat could be reached in the 5 minutes before;
    pub lost: u64,
    /// and those where it could not.
    pub excused: u64,
}

#[derive(Clone, Debug, Default)]
struct Cache {
    token: Option<String>,
    until: u64,
    /// When WeChat stops accepting it, as things stand.
    dies: u64,
}

struct Fetch {
    cache: usize,
    fate: CallOutcome,
    reply: Option<Reply>,
}

struct App<'a> {
    script: Script,
    line: &'a Timeline,
    world: World,
    rng: fastrand::Rng,
    caches: Vec<Cache>,
    fetches: Vec<Fetch>,
    tally: Tally,
    day_over: u64,
    t: u64,
}

/// Thirty days of some apps.
pub fn run(script: Script, line: &Timeline, apps: u64, seed: u64) -> Tally {
    let mut sum = Tally::default();
    for n in 0..apps {
        let tally = one(script, line, n, seed + n);
        sum.reads += tally.reads;
        sum.accepted += tally.accepted;
        sum.refused += tally.refused;
        sum.missing += tally.missing;
        sum.calls += tally.calls;
        sum.days_over += tally.days_over;
        sum.lost += tally.lost;
        sum.excused += tally.excused;
    }
    sum
}

fn one(script: Script, line: &Timeline, n: u64, seed: u64) -> Tally {
    let options = Options {
        apps: vec![AppOptions { appid: "wx".into(), secret: "s".into(), ..AppOptions::default() }],
        token_len: 32,
        ..Options::default()
    };
    let hosts = if script == Script::File60 { 2 } else { 1 };
    let mut app = App {
        script,
        line,
        world: World::new(&options, seed),
        rng: fastrand::Rng::with_seed(seed),
        caches: vec![Cache::default(); hosts],
        fetches: Vec::new(),
        tally: Tally::default(),
        day_over: u64::MAX,
        t: START,
    };
    let mut kill = START + exponential(&mut app.rng, 10 * DAY);
    let mut foreign_fetch_at = if n % 4 == 1 { START + app.rng.u64(DAY..2 * DAY) } else { u64::MAX };
    let mut flush = START + app.rng.u64(DAY..6 * DAY);
    let mut tick = START;
    while app.t < line.end {
        if app.t >= kill {
            app.world.kill_tokens("wx");
            app.caches.iter_mut().for_each(|cache| cache.dies = cache.dies.min(app.t));
            kill = app.t + exponential(&mut app.rng, 10 * DAY);
        }
        if app.t >= foreign_fetch_at {
            app.world.ask(&ask(), PEER, true_now(app.t));
            app.look_again();
            foreign_fetch_at = app.t + app.rng.u64(HOUR..10 * HOUR);
        }
        if app.t >= flush && matches!(script, Script::Memcache(_)) {
            // Somebody restarts memcached, or it evicts the key.
            app.caches[0].token = None;
            flush = app.t + app.rng.u64(DAY..11 * DAY);
        }
        let before = (app.tally.reads, app.tally.accepted);
        app.land();
        if script == Script::Tick20 && app.t >= tick {
            tick = app.t + 20 * SECOND;
            if app.t + 5 * MINUTE >= app.caches[0].until && app.fetches.is_empty() {
                app.fetch(0);
            }
        }
        app.read();
        let bad = (app.tally.reads - before.0) - (app.tally.accepted - before.1);
        if bad > 0 {
            let reachable = line.was_reachable(app.t, 5 * MINUTE, REACHABLE_MS);
            *(if reachable { &mut app.tally.lost } else { &mut app.tally.excused }) += bad;
        }
        app.t += SECOND;
    }
    app.tally
}

fn ask() -> ApiRequest {
    let text = |text: &str| Some(text.to_owned());
    ApiRequest::Classic { grant_type: text("client_credential"), appid: text("wx"), secret: text("s") }
}

impl App<'_> {
    fn read(&mut self) {
        let n = if self.caches.len() == 1 { 0 } else { self.rng.usize(0..self.caches.len()) };
        let cache = &self.caches[n];
        let held = cache.token.is_some() && (self.script == Script::Tick20 || self.t < cache.until);
        match held {
            true if self.t < cache.dies => self.tally.accepted += 1,
            true => self.tally.refused += 1,
            // The request succeeds if its fetch does.
            false if self.script != Script::Tick20 && self.fetches.len() < WORKERS => return self.fetch(n),
            false => self.tally.missing += 1,
        }
        self.tally.reads += 1;
    }

    fn fetch(&mut self, cache: usize) {
        self.tally.calls += 1;
        let fate = CallOutcome::of(self.line.weather(self.t), self.t, TIMEOUT_MS, &mut self.rng);
        self.fetches.push(Fetch { cache, fate, reply: None });
    }

    /// Calls arrive and return. Within one second, arrivals come first.
    fn land(&mut self) {
        let mut fetches = std::mem::take(&mut self.fetches);
        if fetches.is_empty() {
            return;
        }
        fetches.sort_by_key(|fetch| fetch.fate.arrives);
        let mut changed = false;
        for fetch in &mut fetches {
            if fetch.reply.is_none() && fetch.fate.arrives.is_none_or(|t| t <= self.t) {
                fetch.reply = Some(match fetch.fate.arrives {
                    Some(t) => fetch.fate.arrived(&mut self.world, &ask(), t),
                    None => fetch.fate.never_arrived(),
                });
                changed = true;
            }
        }
        fetches.sort_by_key(|fetch| fetch.fate.back);
        for fetch in fetches {
            if fetch.fate.back > self.t || fetch.reply.is_none() {
                self.fetches.push(fetch);
            } else {
                self.came_back(&fetch);
                changed = true;
            }
        }
        if changed {
            self.look_again();
        }
    }

    fn came_back(&mut self, fetch: &Fetch) {
        let token = match &fetch.reply {
            Some(Reply::Http(200, text)) => value_of(text),
            _ => None,
        };
        if let Some(Reply::Http(_, text)) = &fetch.reply
            && text.contains(r#""errcode":45009,"#)
        {
            let day = (self.t + 8 * HOUR) / DAY;
            self.tally.days_over += u64::from(self.day_over != day);
            self.day_over = day;
        }
        let a_request = self.script != Script::Tick20;
        self.tally.reads += u64::from(a_request);
        let Some(token) = token else {
            self.tally.missing += u64::from(a_request);
            return;
        };
        let accepted = self.world.judge(&token, true_now(self.t)) == Verdict::Accepted;
        self.tally.accepted += u64::from(a_request && accepted);
        self.tally.refused += u64::from(a_request && !accepted);
        let keep = match self.script {
            Script::File60 => 7_140,
            Script::Memcache(ttl) => ttl,
            Script::Tick20 => 7_200,
        };
        self.caches[fetch.cache] = Cache { token: Some(token), until: fetch.fate.back + keep * SECOND, dies: 0 };
    }

    /// When will each cached token be refused, if nothing else happens?
    fn look_again(&mut self) {
        for cache in &mut self.caches {
            let Some(token) = &cache.token else { continue };
            let accepted = |t: u64| self.world.judge(token, true_now(t)) == Verdict::Accepted;
            let (mut good, mut bad) = (self.t, self.t + 3 * HOUR);
            if !accepted(good) {
                cache.dies = good.min(if cache.dies == 0 { good } else { cache.dies });
                continue;
            }
            while bad - good > 1 {
                let middle = good.midpoint(bad);
                *(if accepted(middle) { &mut good } else { &mut bad }) = middle;
            }
            cache.dies = bad;
        }
    }
}

fn value_of(text: &str) -> Option<String> {
    let parsed: serde_json::Value = serde_json::from_str(text).ok()?;
    parsed.get("access_token")?.as_str().map(str::to_owned)
}
