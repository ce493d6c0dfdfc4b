//! Our node in virtual time: the real table and the real refresher, what happens to them, and their readers.
//!
//! One task, the director, makes events happen at their true time. One task per credential listens for published values
//! and keeps the records. A process is ended by its token, as a signal does, or by dropping it at any point.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokencached::clock::Clock;
use tokencached::credential::App;
use tokencached::credential::table::{Credential, KeyReading, ManagedValue, Reading};
use tokencached::credential::{Env, Table, build_in};
use tokencached::platform::ClientOptions;
use tokencached::platform::{self, CredentialType, Platform, Renewal};
use tokencached::sandbox::rules::{ApiRequest, World};
use tokencached::sandbox::{AppOptions, Options, SandboxPlatform};
use tokencached::secret::Secret;
use tokencached::secret_source::SecretSource;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::accounting::{Cause, Chain, Counts, HOLD_MS, Outages, ReadRecord, Shown};
use super::env::{Clocks, Disk, ProcessDisk};
use super::timeline::{DAY, HOUR, MINUTE, PEER, SECOND, START, Span, Timeline, exponential, log_uniform, true_now};
use super::wechat::{Network, Wechat, weather_spans};

/// How long running calls are waited for at the end of a process.
const LANDING_MS: u64 = 9 * SECOND;

/// Around the expiry of a refused WeCom token the next one is fetched each second.
const ASKED_EVERY_MS: u64 = 2 * SECOND;
/// Credentials read by each sampler.
const SAMPLED: usize = 2;

/// One line of the result.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: &'static str,
    pub credentials: u64,
    pub counts: Counts,
    /// The least number of calls, over all credentials and days.
    pub least_calls: f64,
}

/// What is planned for one app.
struct Account {
    config: App,
    kind: SandboxPlatform,
    secret: String,
    /// Another program fetches classic tokens for it, and tries to store half of them here.
    foreign_writer: bool,
    /// Its access token's.
    slot: usize,
}

struct Slot {
    kind: &'static CredentialType,
    key: Vec<u8>,
}

/// A running process.
struct Node {
    end: CancellationToken,
    running: JoinHandle<()>,
    /// The tasks that listen for what it publishes.
    listeners: JoinSet<()>,
    alive: Arc<AtomicBool>,
}

enum Event {
    Kill { account: usize, noticed: bool },
    ForeignWriter { account: usize },
    Bar { account: usize, long: u64 },
    Unbar { account: usize },
    Down { kill: bool, long: u64, reboot: bool },
    Up { reboot: bool },
    Suspend { long: u64 },
    Jump { by: i64 },
}

/// True time, the order of planning, and what happens.
struct Timed(u64, u64, Event);

impl PartialEq for Timed {
    fn eq(&self, other: &Timed) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Timed {}
impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Timed) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timed {
    fn cmp(&self, other: &Timed) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// What the samplers got: accepted, refused, no value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Samples {
    pub accepted: u64,
    pub refused: u64,
    pub missing: u64,
}

/// What all tasks of the simulation share. Locks are taken in the order of the fields.
pub struct Sim {
    pub clocks: Arc<Clocks>,
    pub line: Arc<Timeline>,
    accounts: Vec<Account>,
    slots: Vec<Slot>,
    /// Readers report what WeChat refuses.
    reports: bool,
    /// Counts the processes and the suspends.
    life: AtomicU32,
    table: Mutex<Option<Arc<Table>>>,
    pub wechat: Mutex<Wechat>,
    pub read_records: Mutex<Vec<ReadRecord>>,
    weather: Vec<Span>,
    /// The node's own faults.
    node_bad: Mutex<Vec<Span>>,
    pub samples: Mutex<Samples>,
}

type Way = (SandboxPlatform, &'static Platform, &'static CredentialType, Vec<&'static CredentialType>);

fn account(n: usize, rng: &mut fastrand::Rng) -> Account {
    let mp = &platform::mp::PLATFORM;
    let (kind, platform, token, tickets): Way = match n % 20 {
        0..10 => (SandboxPlatform::Mp, mp, &platform::mp::STABLE, vec![]),
        10 => (SandboxPlatform::Mp, mp, &platform::mp::STABLE, vec![&platform::mp::JSAPI, &platform::mp::WX_CARD]),
        11..15 => (SandboxPlatform::Mp, mp, &platform::mp::CLASSIC, vec![]),
        15 => (SandboxPlatform::Mp, &platform::qq::PLATFORM, &platform::qq::TOKEN, vec![]),
        16..19 => (SandboxPlatform::Wecom, &platform::wecom::PLATFORM, &platform::wecom::TOKEN, vec![]),
        _ => {
            let tickets = vec![&platform::wecom::JSAPI, &platform::wecom::AGENT];
            (SandboxPlatform::Wecom, &platform::wecom::PLATFORM, &platform::wecom::TOKEN, tickets)
        }
    };
    let prefix = if kind == SandboxPlatform::Mp { "wx" } else { "ww" };
    let secret = format!("secret-{n}-{:08x}", rng.u32(..));
    let source = SecretSource::Fixed(Secret::new(secret.clone()));
    let config = App { platform, tickets, ..App::mp(&format!("{prefix}{n:016x}"), source, token) };
    Account { config, kind, secret, foreign_writer: n % 4 == 3 && kind == SandboxPlatform::Mp, slot: 0 }
}

/// How long before its end a value can be renewed.
fn lead_ms(renewal: Renewal) -> u64 {
    match renewal {
        Renewal::Window { window_ms } => window_ms - window_ms / 30,
        Renewal::Mint => 2_400 * SECOND,
        Renewal::AtEnd => 0,
        Renewal::Poll => 5_400 * SECOND,
    }
}

/// How refused tokens are found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum DeadTokenHandling {
    /// Readers report what WeChat refuses, with default probing.
    Usual,
    /// Nobody reports anything.
    NoReports,
    /// Nobody reports anything, and tokens are not probed.
    NoReportsNoProbes,
}

/// Runs the month to its end.
pub fn run(
    line: &Arc<Timeline>,
    apps: usize,
    sample_ms: u64,
    seed: u64,
    handling: DeadTokenHandling,
) -> (Vec<Row>, Samples) {
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let sim = Arc::new(Sim::new(line.clone(), apps, seed, handling));
        Director::new(sim.clone(), sample_ms, seed).direct().await;
        (sim.rows(), *sim.samples.lock())
    })
}

impl Sim {
    fn new(line: Arc<Timeline>, apps: usize, seed: u64, handling: DeadTokenHandling) -> Sim {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut accounts: Vec<Account> = (0..apps).map(|n| account(n, &mut rng)).collect();
        let (mut slots, mut read_records, mut by_name) = (Vec::new(), Vec::new(), HashMap::new());
        for account in &mut accounts {
            account.slot = slots.len();
            if handling == DeadTokenHandling::NoReportsNoProbes {
                account.config.probe_every_ms = Some(0);
            }
            let config = &account.config;
            for kind in std::iter::once(config.token).chain(config.tickets.iter().copied()) {
                by_name.insert((kind.id, config.appid.clone()), slots.len());
                let name = format!("{} {}", config.appid, kind.id);
                let at_end = kind.renewal == Renewal::AtEnd;
                let (phase, lead) = (rng.u64(0..1_000), lead_ms(kind.renewal));
                read_records.push(ReadRecord::new(name, phase, lead, at_end, !kind.needs_token, START));
                slots.push(Slot { kind, key: config.built_in_names(kind).remove(0).into_bytes() });
            }
        }
        let options = |account: &Account| AppOptions {
            appid: account.config.appid.clone(),
            secret: account.secret.clone(),
            platform: account.kind,
            ..AppOptions::default()
        };
        let options = Options { apps: accounts.iter().map(options).collect(), token_len: 32, ..Options::default() };
        Sim {
            clocks: Arc::new(Clocks::new()),
            weather: weather_spans(&line),
            line,
            accounts,
            slots,
            reports: handling == DeadTokenHandling::Usual,
            life: AtomicU32::new(0),
            table: Mutex::new(None),
            wechat: Mutex::new(Wechat::new(World::new(&options, seed), by_name, seed + 1)),
            read_records: Mutex::new(read_records),
            node_bad: Mutex::new(Vec::new()),
            samples: Mutex::default(),
        }
    }

    pub fn is_fine(&self, slot: usize, t: u64) -> bool {
        let node = self.node_bad.lock();
        self.read_records.lock()[slot].is_fine(t, &Outages { weather: &self.weather, node: &node })
    }

    /// The table, while the process runs.
    fn table(&self) -> Option<Arc<Table>> {
        self.table.lock().clone()
    }

    /// Records what the credential shows now.
    fn turn(self: &Arc<Self>, slot: usize, credential: Option<&Credential>) {
        let t = self.clocks.t();
        let next = credential.map_or(Shown::Down, |credential| self.shown(credential));
        let node = self.node_bad.lock();
        let wechat = self.wechat.lock();
        let record = &mut self.read_records.lock()[slot];
        let dies = match &next {
            Shown::Value { value, ends, .. } if record.judged => wechat.dies(value, t, *ends),
            _ => u64::MAX,
        };
        let is_new = matches!(&next, Shown::Value { value, .. } if record.last_value.as_ref() != Some(value));
        if is_new {
            record.new_value();
        }
        let chain = record.turn(t, next, dies, &Outages { weather: &self.weather, node: &node });
        self.start_readers(slot, chain);
    }

    fn shown(&self, credential: &Credential) -> Shown {
        match credential.read(self.clocks.boot_ms()) {
            Reading::FirstFetch => Shown::Waiting,
            Reading::Absent => Shown::Nothing,
            Reading::Live(guard) => match guard.as_ref() {
                Some(shown) => Shown::Value {
                    value: String::from_utf8_lossy(&shown.value).into_owned(),
                    ends: self.clocks.t_of_boot(shown.expires_boot_ms),
                    then_waits: matches!(credential.read(shown.expires_boot_ms), Reading::FirstFetch),
                },
                None => Shown::Nothing,
            },
        }
    }

    /// Something has happened at WeChat at `t` that may end the present value, now or later.
    pub fn befall(self: &Arc<Self>, slot: usize, cause: Option<Cause>, t: u64) {
        let wechat = self.wechat.lock();
        let record = &mut self.read_records.lock()[slot];
        if let Some(cause) = cause {
            record.blame(cause, t);
        }
        let Shown::Value { value, ends, .. } = &record.shown else { return };
        if *ends <= t {
            return;
        }
        let dies = wechat.dies(value, t, *ends);
        if dies != record.dies && !(record.dies <= t && dies <= t) {
            record.dies = dies;
            let chain = record.start_chain(t);
            self.start_readers(slot, chain);
        }
    }

    /// One reader a second, as long as the present value is refused.
    fn start_readers(self: &Arc<Self>, slot: usize, chain: Option<Chain>) {
        let Some((chain, first)) = chain else { return };
        let sim = self.clone();
        tokio::spawn(async move {
            let mut next = Some(first);
            while let Some(at) = next {
                sim.clocks.until(at).await;
                let t = sim.clocks.t();
                next = {
                    let node = sim.node_bad.lock();
                    sim.read_records.lock()[slot].look(chain, t, &Outages { weather: &sim.weather, node: &node })
                };
                if next.is_some() {
                    tokio::spawn(sim.clone().refused_reader(slot));
                }
            }
        });
    }

    /// What a PHP client does with a token that WeChat refuses: `delete`, `get`, and once more to WeChat.
    async fn refused_reader(self: Arc<Self>, slot: usize) {
        let Some(table) = self.table() else { return };
        let life = self.life.load(Relaxed);
        let Some(first) = self.get(&table, slot) else {
            return self.read_records.lock()[slot]
                .fault("the read_records have a value that the table has not", self.clocks.t());
        };
        self.judge(slot, &first);
        let credential = table.credential(slot).unwrap();
        if self.reports
            && let Some(check) = table.report_refused(&credential, None)
        {
            // As the connection does: with or without a result, the client gets `DELETED`.
            let _ = timeout(Duration::from_millis(HOLD_MS), check).await;
        }
        let second = self.held_get(&table, &credential, slot).await;
        let good = second.map(|value| self.judge(slot, &value));
        let t = self.clocks.t();
        let gone = self.life.load(Relaxed) != life;
        let outcome = if gone && good != Some(true) { None } else { Some(good.unwrap_or(false)) };
        self.read_records.lock()[slot].second(t, outcome);
    }

    /// A read through the table, by name.
    fn get(&self, table: &Table, slot: usize) -> Option<String> {
        let now = self.clocks.now();
        table.names().find(&self.slots[slot].key).map(|name| {
            name.read(now, |found| match found {
                KeyReading::Bytes(ManagedValue { rendered, times, .. }) => {
                    let mut out = Vec::new();
                    rendered.write(&mut out, &times);
                    String::from_utf8(out).ok()
                }
                _ => None,
            })
        })?
    }

    /// The same, waiting a moment if a value will come soon.
    async fn held_get(&self, table: &Table, credential: &Credential, slot: usize) -> Option<String> {
        let wait = async {
            let mut changes = credential.subscribe();
            while matches!(credential.read(self.clocks.boot_ms()), Reading::FirstFetch) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = timeout(Duration::from_millis(HOLD_MS), wait).await;
        self.get(table, slot)
    }

    /// True if WeChat accepts it now. Records one that was known to be refused.
    fn judge(&self, slot: usize, value: &str) -> bool {
        let t = self.clocks.t();
        let accepted = self.wechat.lock().accepts(value, t);
        if self.read_records.lock()[slot].was_known_dead(value, t) && std::env::var_os("MONTH_SHOW").is_some() {
            println!("{}: {t}: served a token known dead", self.read_records.lock()[slot].name);
        }
        accepted
    }

    /// A real read through the table must find what the records say.
    fn sample(&self, rng: &mut fastrand::Rng) {
        let Some(table) = self.table() else { return };
        for _ in 0..SAMPLED {
            self.sample_one(&table, rng.usize(0..self.slots.len()));
        }
    }

    fn sample_one(&self, table: &Table, slot: usize) {
        let (t, got) = (self.clocks.t(), self.get(table, slot));
        let wechat = self.wechat.lock();
        let record = &mut self.read_records.lock()[slot];
        let accepted = got.as_ref().is_some_and(|value| !record.judged || wechat.accepts(value, t));
        let expected = match &record.shown {
            Shown::Value { value, ends, .. } if t < *ends => Some((value.clone(), t < record.dies)),
            _ => None,
        };
        if expected != got.clone().map(|value| (value, accepted)) {
            record.fault("a sampled read differs from the read_records", t);
        }
        let mut samples = self.samples.lock();
        *match (got, accepted) {
            (None, _) => &mut samples.missing,
            (_, true) => &mut samples.accepted,
            _ => &mut samples.refused,
        } += 1;
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        let read_records = self.read_records.lock();
        for (slot, record) in self.slots.iter().zip(read_records.iter()) {
            let name = match slot.kind.id {
                "stable_token" => "stable_token",
                "token" => "classic token",
                "qq_token" => "QQ token",
                "wecom_token" => "WeCom token",
                _ => "tickets",
            };
            let life_s = if name == "stable_token" { 6_900 } else { 7_200 };
            let at = rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
                rows.push(Row { name, credentials: 0, counts: Counts::default(), least_calls: 0.0 });
                rows.len() - 1
            });
            let row = &mut rows[at];
            row.credentials += 1;
            row.least_calls += (self.line.end - START) as f64 / SECOND as f64 / f64::from(life_s);
            row.counts.add(&record.counts);
        }
        rows
    }
}

/// Makes the planned events happen.
struct Director {
    sim: Arc<Sim>,
    rng: fastrand::Rng,
    events: BinaryHeap<Reverse<Timed>>,
    planned: u64,
    node: Option<Node>,
    disk: Disk,
    boots: u32,
    sample_ms: u64,
}

impl Director {
    fn new(sim: Arc<Sim>, sample_ms: u64, seed: u64) -> Director {
        let mut director = Director {
            sim,
            rng: fastrand::Rng::with_seed(seed + 2),
            events: BinaryHeap::new(),
            planned: 0,
            node: None,
            disk: Disk::default(),
            boots: 1,
            sample_ms,
        };
        director.plan();
        director
    }

    fn at(&mut self, t: u64, event: Event) {
        self.planned += 1;
        self.events.push(Reverse(Timed(t, self.planned, event)));
    }

    fn plan(&mut self) {
        let end = self.sim.line.end;
        let days = (end - START) / DAY;
        self.at(START, Event::Up { reboot: false });
        for account in 0..self.sim.accounts.len() {
            // Three revocations a month, one of eight not noticed by WeChat's own token service.
            let mut t = START + HOUR + exponential(&mut self.rng, 10 * DAY);
            while t < end {
                let noticed = self.rng.u8(0..8) > 0;
                self.at(t, Event::Kill { account, noticed });
                t += exponential(&mut self.rng, 10 * DAY);
            }
            if self.sim.accounts[account].foreign_writer {
                let t = START + self.rng.u64(DAY..2 * DAY);
                self.at(t, Event::ForeignWriter { account });
            }
            if self.rng.u8(0..4) == 0 {
                let t = START + self.rng.u64(DAY..days.max(2) * DAY);
                let long = log_uniform(&mut self.rng, 10 * MINUTE, 6 * HOUR);
                self.at(t, Event::Bar { account, long });
            }
        }
        (0..days).for_each(|day| self.plan_mishaps(day));
    }

    /// The node's own.
    fn plan_mishaps(&mut self, day: u64) {
        let t = START + day * DAY + self.rng.u64(HOUR..20 * HOUR);
        let rng = &mut self.rng;
        let event = match day % 6 {
            0 => Event::Down { kill: false, long: rng.u64(SECOND..5 * SECOND), reboot: false },
            1 => Event::Down { kill: true, long: rng.u64(SECOND..3 * SECOND), reboot: false },
            2 => Event::Jump { by: if rng.bool() { 3_600_000 } else { -3_600_000 } },
            // In whole seconds, so that the readers' times stay the same.
            3 => Event::Suspend { long: log_uniform(rng, 5 * MINUTE, 4 * HOUR) / SECOND * SECOND },
            4 => Event::Down { kill: rng.bool(), long: rng.u64(30 * SECOND..3 * MINUTE), reboot: true },
            _ => Event::Jump { by: 0 },
        };
        self.at(t, event);
        // Kills at any time of the day, some while calls are running.
        let again = START + day * DAY + self.rng.u64(21 * HOUR..23 * HOUR);
        self.at(again, Event::Down { kill: true, long: 800, reboot: false });
    }

    async fn direct(mut self) {
        let sampling = tokio::spawn(keep_sampling(self.sim.clone(), self.sample_ms, self.rng.u64(..)));
        while let Some(Reverse(Timed(t, _, event))) = self.events.pop() {
            if t >= self.sim.line.end {
                break;
            }
            self.sim.clocks.until(t).await;
            self.happen(event, t).await;
        }
        self.sim.clocks.until(self.sim.line.end).await;
        self.freeze();
        sampling.abort();
    }

    async fn happen(&mut self, event: Event, t: u64) {
        match event {
            Event::Kill { account, noticed } => self.kill(account, noticed, t),
            Event::ForeignWriter { account } => self.foreign_writer(account, t),
            Event::Bar { account, long } => {
                let app = &self.sim.accounts[account];
                self.sim.wechat.lock().world.set_allowlist(&app.config.appid, Some(vec![]));
                let slots = app.slot..=app.slot + app.config.tickets.len();
                self.sim.read_records.lock()[slots].iter_mut().for_each(|record| record.barred.push((t, t + long)));
                self.at(t + long, Event::Unbar { account });
            }
            Event::Unbar { account } => {
                self.sim.wechat.lock().world.set_allowlist(&self.sim.accounts[account].config.appid, None);
            }
            Event::Down { kill, long, reboot } => self.down(kill, long, reboot, t).await,
            Event::Up { reboot } => self.up(reboot, t).await,
            Event::Suspend { long } => self.suspend(long, t),
            Event::Jump { by } => self.sim.clocks.set_wall(by),
        }
    }

    fn kill(&self, account: usize, noticed: bool, t: u64) {
        let app = &self.sim.accounts[account];
        let mut wechat = self.sim.wechat.lock();
        let appid = &app.config.appid;
        let lasting = !noticed && app.config.token.renewal != Renewal::Mint;
        if lasting && app.config.token.renewal == Renewal::AtEnd {
            // WeCom has no forced refresh.
            let mut read_records = self.sim.read_records.lock();
            let until = read_records[app.slot].last_value.as_ref().map_or(t, |value| wechat.dies(value, t, t + DAY));
            let (until, slots) = (until + ASKED_EVERY_MS, app.slot..=app.slot + app.config.tickets.len());
            for record in &mut read_records[slots] {
                record.doomed_until = record.doomed_until.max(until);
                if !record.judged {
                    // Tickets cannot be fetched with a refused token.
                    record.barred.push((t, until));
                }
            }
        }
        let known = if noticed { wechat.world.kill_tokens(appid) } else { wechat.world.kill_tokens_unnoticed(appid) };
        assert!(known);
        drop(wechat);
        self.sim.befall(app.slot, Some(if lasting { Cause::Unnoticed } else { Cause::Revoked }), t);
    }

    /// A forgotten script that fetches its own token regularly, and sometimes tries to store it here.
    fn foreign_writer(&mut self, account: usize, t: u64) {
        let next = t + self.rng.u64(HOUR..10 * HOUR);
        self.at(next, Event::ForeignWriter { account });
        let app = &self.sim.accounts[account];
        let grant_type = Some("client_credential".to_owned());
        let (appid, secret) = (Some(app.config.appid.clone()), Some(app.secret.clone()));
        self.sim.wechat.lock().world.ask(&ApiRequest::Classic { grant_type, appid, secret }, PEER, true_now(t));
        if app.config.token.renewal == Renewal::Mint {
            self.sim.befall(app.slot, Some(Cause::ForeignWriter), t);
        }
        if self.rng.bool()
            && self.sim.reports
            && let Some(table) = self.sim.table()
        {
            table.report_foreign_writer(&table.credential(app.slot).unwrap());
        }
    }

    /// Nobody reads any more.
    fn freeze(&mut self) {
        self.sim.life.fetch_add(1, Relaxed);
        *self.sim.table.lock() = None;
        (0..self.sim.slots.len()).for_each(|slot| self.sim.turn(slot, None));
    }

    /// Readers are back.
    fn thaw(&mut self, table: &Arc<Table>) {
        self.sim.life.fetch_add(1, Relaxed);
        let t = self.sim.clocks.t();
        for (slot, credential) in table.credentials().iter().enumerate() {
            self.sim.turn(slot, Some(credential));
            let record = &mut self.sim.read_records.lock()[slot];
            if !matches!(record.shown, Shown::Value { .. }) {
                record.note_start(t);
            }
        }
        *self.sim.table.lock() = Some(table.clone());
    }

    async fn down(&mut self, kill: bool, long: u64, reboot: bool, t: u64) {
        if self.sim.table().is_none() {
            return;
        }
        self.freeze();
        let Some(node) = &mut self.node else { return };
        node.listeners.abort_all();
        let mut up = t + long;
        if kill {
            node.alive.store(false, Relaxed);
            node.running.abort();
        } else {
            node.end.cancel();
            up += LANDING_MS;
        }
        self.sim.node_bad.lock().push((t, up + 10 * SECOND));
        self.at(up, Event::Up { reboot });
    }

    async fn up(&mut self, reboot: bool, t: u64) {
        if let Some(node) = self.node.take() {
            // Ended by now, finished or cancelled.
            let _ = node.running.await;
        } else {
            self.sim.node_bad.lock().push((t, t + 30 * SECOND));
        }
        if reboot {
            self.boots += 1;
            self.sim.clocks.reboot();
            // The hardware clock may be an hour wrong until it is corrected.
            self.sim.clocks.set_wall([0, 3_600_000, -3_600_000][self.rng.usize(0..3)]);
        }
        let alive = Arc::new(AtomicBool::new(true));
        let hand = ProcessDisk { disk: self.disk.clone(), alive: alive.clone(), clocks: self.sim.clocks.clone() };
        let ground = Env {
            upstream: Arc::new(Network(self.sim.clone())),
            clock: self.sim.clocks.clone(),
            boot_id: format!("boot-{}", self.boots),
            store: Some(Arc::new(hand)),
            cluster: None,
        };
        let upstream = ClientOptions::at("https://api.weixin.qq.com".to_owned());
        let apps: Vec<App> = self.sim.accounts.iter().map(|account| account.config.clone()).collect();
        let misled = self.sim.clocks.wall_misleads();
        let (table, refresher) = build_in(ground, &upstream, &apps);
        if reboot && misled {
            self.sim.read_records.lock().iter_mut().for_each(|record| {
                if record.cause == Cause::Unknown {
                    record.blame(Cause::WrongClock, t);
                }
            });
        }
        let mut listeners = JoinSet::new();
        for (slot, credential) in table.credentials().iter().enumerate() {
            let (sim, credential, mut changes) = (self.sim.clone(), credential.clone(), credential.subscribe());
            listeners.spawn(async move {
                while changes.changed().await.is_ok() {
                    sim.turn(slot, Some(&credential));
                }
            });
        }
        self.thaw(&table);
        let end = CancellationToken::new();
        let running = tokio::spawn(refresher.run(end.clone()));
        self.node = Some(Node { end, running, listeners, alive });
    }

    /// Time goes on; the machine's timers do not.
    fn suspend(&mut self, long: u64, t: u64) {
        let Some(table) = self.sim.table() else { return };
        self.freeze();
        let wake = t + long;
        let mut later = Vec::new();
        while self.events.peek().is_some_and(|Reverse(Timed(at, ..))| *at < wake) {
            let Some(Reverse(Timed(at, n, event))) = self.events.pop() else { break };
            match event {
                Event::Kill { account, noticed } => self.kill(account, noticed, at),
                Event::ForeignWriter { account } => self.foreign_writer(account, at),
                event => later.push(Timed(at, n, event)),
            }
        }
        self.events.extend(later.into_iter().map(Reverse));
        self.sim.clocks.sleep_through(long);
        self.sim.node_bad.lock().push((t, wake + 15 * SECOND));
        self.thaw(&table);
    }
}

async fn keep_sampling(sim: Arc<Sim>, every_ms: u64, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    loop {
        tokio::time::sleep(Duration::from_millis(every_ms)).await;
        sim.sample(&mut rng);
    }
}
