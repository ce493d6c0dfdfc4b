//! A simulation of one credential on many nodes, in virtual time. The store follows the record's rules, nodes decide by the
//! renewal schedule, and WeChat follows the sandbox's rules. Messages and commands take a random time.
//!
//! What the refresher does besides (the steps of a fetch, a timer for each credential) are events here. Credentials do not
//! depend on each other, so one is simulated at a time; the time that the store spends on the others is random.

mod flight;
mod hearing;
mod store;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use tokencached::clock::Now;
use tokencached::cluster::node_rules::{FetchEffect, StoreClockReading};
use tokencached::cluster::record::{Op, OpOutcome, Record};
use tokencached::credential::schedule::RenewalState;
use tokencached::credential::schedule::cluster::WithoutStore;
use tokencached::platform::{CredentialType, mp};
use tokencached::sandbox::rules::World;
use tokencached::sandbox::{self, AppOptions, Options, Quotas};

pub const SECOND_US: u64 = 1_000_000;
pub const HOUR_US: u64 = 3_600 * SECOND_US;
/// The instant 0 of the simulation on every clock.
const EPOCH_MS: u64 = 1_800_000_000_000;
/// The configuration's defaults.
const TOTAL_TIMEOUT_MS: u64 = 8_000;
const POLL_EVERY_MS: u64 = 2_000;

/// What is played.
#[derive(Clone)]
pub struct Setup {
    pub nodes: usize,
    pub credential_type: &'static CredentialType,
    /// Polls find out what no message brings.
    pub pushes: bool,
    /// The part of the messages that is lost.
    pub lost: f64,
    /// First tries are spread over this.
    pub start_us: u64,
    /// The Redis' time for a script, a record's read, and a message to one node.
    pub script_us: f64,
    pub read_us: f64,
    pub message_us: f64,
    /// The part of its time that other credentials take.
    pub busy: f64,
    /// Readers come to each node so often, and say which tokens were refused; 0: nobody reads.
    pub read_every_us: u64,
    pub seed: u64,
}

/// A value as it is published.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Sealed {
    token: u32,
    generation: u64,
    expires_ms: u64,
    life_ms: u64,
    longest_ms: u64,
    learned_ms: Option<u64>,
    node: u64,
    /// Each seal is another.
    nonce: u64,
}

type Rec = Record<Sealed>;

/// What the store has said.
struct Said {
    outcome: OpOutcome,
    record: Rec,
    store_ms: u64,
    sent_ms: u64,
}

#[derive(Clone)]
enum Event {
    Due(u32, u32),
    AtStore(u32, u32, Rc<Op<Sealed>>, u64),
    Told(u32, u32, Rc<Said>),
    AtWechat(u32, u32, u64),
    Answered(u32, u32, u32, u64),
    Lost(u32, u32),
    Unheard(u32, u32),
    Heard(u32, Rc<Said>),
    PollRead(u32),
    Offer(u32, u32),
    Probed(u32, u32, bool),
    Rejoin(u32),
    Read,
    Act(u32),
}

struct Entry(u64, u64, Event);
impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Taking,
    Announcing,
    Calling,
    Telling,
    Probing,
}

struct Flight {
    step: Step,
    alone: WithoutStore,
    lease_ms: u64,
    spacing_ms: u64,
    keep_ms: u64,
    /// The record as it was granted, and when.
    lease: Option<(Rec, StoreClockReading)>,
    sent_ms: u64,
    /// What came, until the store knows.
    came: Option<Came>,
}

#[derive(Clone, Copy)]
struct Came {
    token: u32,
    expires_in_s: u64,
    same: bool,
    received_ms: u64,
    generation: u64,
    /// The store has it.
    published: bool,
}

struct Node {
    up: bool,
    /// Cannot reach the store.
    cut: bool,
    renewal_state: RenewalState,
    /// The token that is served and its generation; 0: none.
    token: u32,
    generation: u64,
    ours: bool,
    sealed: Option<Sealed>,
    due_ms: u64,
    serial: u32,
    flight: Option<Flight>,
    flights: u32,
    reading: bool,
    /// Counts what has made an offer needless, or was one.
    offers: u32,
    /// A later value has come during the flight.
    adopted: bool,
    /// The generation of a value in the store whose time is over.
    useless: u64,
    /// How often in a row it was not its turn.
    told: u32,
    /// The store does not have the token yet.
    unpublished: bool,
    reported: bool,
}

/// What readers got on one side.
#[derive(Clone, Copy, Default, Debug)]
pub struct Reads {
    pub served: u64,
    pub refused: u64,
    pub missed: u64,
}

/// What was counted.
#[derive(Default)]
pub struct Books {
    pub calls: u64,
    pub probes: u64,
    pub takes: u64,
    pub scripts: u64,
    pub reads: u64,
    pub messages: u64,
    pub offers: u64,
    /// A second with its scripts and its messages.
    pub busy: Vec<(u32, u32, u32, u32)>,
    /// Of each token: how long, in microseconds, until each node had it.
    pub spread_us: Vec<Vec<u64>>,
    born_us: Vec<u64>,
    /// Nodes that can be reached, and those that cannot.
    pub readers: [Reads; 2],
    /// Tokens made, and values that never reached the others.
    pub tokens: u64,
    pub first_token_us: Option<u64>,
    pub last_token_us: u64,
}

/// Done at its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Act {
    /// This part of the nodes, the last ones, loses the store.
    Cut(f64),
    /// All can reach it again.
    Heal,
    Flush,
    /// Whoever calls next dies in mid-call.
    KillCaller,
    /// WeChat answers (true), or says to all calls that it is busy.
    Wechat(bool),
}

pub struct Sim {
    pub setup: Setup,
    pub books: Books,
    now_us: u64,
    count: u64,
    heap: BinaryHeap<Reverse<Entry>>,
    rng: fastrand::Rng,
    nodes: Vec<Node>,
    record: Rec,
    free_us: u64,
    world: World,
    tokens: Vec<String>,
    acts: Vec<Act>,
    kill_caller: bool,
    pub killed_us: Option<u64>,
    /// From then to the next publication.
    pub renewed_us: Option<u64>,
    wechat: bool,
}

impl Sim {
    pub fn new(setup: Setup) -> Sim {
        let app = AppOptions { appid: "wx".into(), secret: "s".into(), ..AppOptions::default() };
        let most = u64::MAX / 4;
        let quotas =
            Quotas { classic_per_day: most, stable_per_minute: most, stable_per_day: most, ..Quotas::default() };
        let options = Options { apps: vec![app], quotas, token_len: 136, ..Options::default() };
        let mut rng = fastrand::Rng::with_seed(setup.seed);
        let node = |_| Node {
            up: true,
            cut: false,
            renewal_state: RenewalState::new(setup.credential_type.renewal),
            token: 0,
            generation: 0,
            ours: false,
            sealed: None,
            due_ms: 0,
            serial: 0,
            flight: None,
            flights: 0,
            reading: false,
            offers: 0,
            adopted: false,
            useless: 0,
            told: 0,
            unpublished: false,
            reported: false,
        };
        let mut sim = Sim {
            nodes: (0..setup.nodes).map(node).collect(),
            world: World::new(&options, rng.u64(..)),
            books: Books::default(),
            now_us: 0,
            count: 0,
            heap: BinaryHeap::new(),
            record: Rec::default(),
            free_us: 0,
            tokens: vec![String::new()],
            acts: Vec::new(),
            kill_caller: false,
            killed_us: None,
            renewed_us: None,
            wechat: true,
            rng,
            setup,
        };
        for node in 0..sim.setup.nodes {
            let at_us = sim.rng.u64(0..=sim.setup.start_us);
            sim.arm(node, EPOCH_MS + at_us / 1000);
        }
        if sim.setup.read_every_us > 0 {
            sim.after(sim.setup.read_every_us, Event::Read);
        }
        sim
    }

    /// Something done at that time.
    pub fn plan(&mut self, at_us: u64, act: Act) {
        self.acts.push(act);
        let index = self.acts.len() as u32 - 1;
        self.push(at_us, Event::Act(index));
    }

    /// Plays until that time.
    pub fn run(&mut self, until_us: u64) {
        while self.heap.peek().is_some_and(|entry| entry.0.0 <= until_us) {
            let Some(Reverse(Entry(at_us, _, event))) = self.heap.pop() else { return };
            self.now_us = at_us;
            self.happen(event);
        }
        self.now_us = until_us;
    }

    /// From now on is counted anew. What was counted so far.
    pub fn begin_books(&mut self) -> Books {
        // Tokens made before are known and no longer followed.
        let tokens = self.books.born_us.len();
        let books = Books { born_us: vec![0; tokens], spread_us: vec![Vec::new(); tokens], ..Books::default() };
        std::mem::replace(&mut self.books, books)
    }

    /// True if all that are up serve the store's value, and WeChat accepts it.
    pub fn agrees(&self) -> bool {
        let up = || self.nodes.iter().filter(|node| node.up);
        let first = up().next().map_or(0, |node| node.token);
        let same = up().all(|node| node.token == first && node.renewal_state.left_ms(self.now_ms()) > 0);
        same && self.accepted(first)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Due(node, serial) => self.due(node as usize, serial),
            Event::AtStore(node, flight, op, sent_ms) => self.at_store(node, flight, &op, sent_ms),
            Event::Told(node, flight, said) if self.is_under_way(node, flight) => self.told(node as usize, &said),
            Event::AtWechat(node, flight, back_us) => self.at_wechat(node, flight, back_us),
            Event::Answered(node, flight, token, expires_in_s) if self.is_under_way(node, flight) => {
                self.answered(node as usize, token, expires_in_s);
            }
            Event::Lost(node, flight) if self.is_under_way(node, flight) => self.call_lost(node as usize),
            Event::Unheard(node, flight) if self.is_under_way(node, flight) => self.unheard(node as usize),
            Event::Told(..) | Event::Answered(..) | Event::Lost(..) | Event::Unheard(..) => {}
            Event::Heard(node, said) => self.heard(node as usize, &said),
            Event::PollRead(node) => self.poll_read(node as usize),
            Event::Offer(node, serial) => self.make_offer(node as usize, serial),
            Event::Probed(node, token, alone) => self.probed(node as usize, token, alone),
            Event::Rejoin(node) => self.rejoin(node as usize),
            Event::Read => self.read_all_nodes(),
            Event::Act(index) => self.act(self.acts[index as usize]),
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Cut(part) => {
                let first = self.nodes.len() - (self.nodes.len() as f64 * part).round() as usize;
                self.nodes[first..].iter_mut().for_each(|node| node.cut = true);
            }
            Act::Heal => {
                for node in (0..self.nodes.len()).filter(|node| self.nodes[*node].cut).collect::<Vec<_>>() {
                    // An attempt to connect every 0.2 to 5 s.
                    let wait_us = self.rng.u64(200_000..5_000_000);
                    self.after(wait_us, Event::Rejoin(node as u32));
                }
            }
            Act::Flush => {
                self.record = Rec::default();
                (0..self.nodes.len()).for_each(|node| self.poll_soon(node));
            }
            Act::KillCaller => self.kill_caller = true,
            Act::Wechat(up) => self.wechat = up,
        }
    }

    fn read_all_nodes(&mut self) {
        let (now, every_us) = (self.now(), self.setup.read_every_us);
        let mut judged = (0, false);
        for node in 0..self.nodes.len() {
            let slot = &self.nodes[node];
            if !slot.up {
                continue;
            }
            let (token, side) = (slot.token, usize::from(slot.cut));
            if slot.renewal_state.left_ms(now.boot_ms) == 0 {
                self.books.readers[side].missed += 1;
                continue;
            }
            if judged.0 != token {
                judged = (token, self.accepted(token));
            }
            if judged.1 {
                self.books.readers[side].served += 1;
                continue;
            }
            self.books.readers[side].refused += 1;
            let slot = &mut self.nodes[node];
            if slot.flight.is_none() && !std::mem::replace(&mut slot.reported, true) {
                self.books.probes += 1;
                let (there_us, back_us) = self.call_us();
                self.after(there_us + back_us, Event::Probed(node as u32, token, false));
            }
        }
        self.after(every_us, Event::Read);
    }

    fn probed(&mut self, node: usize, token: u32, alone: bool) {
        let (alive, now_ms) = (self.accepted(token), self.now_ms());
        let slot = &mut self.nodes[node];
        let probing = slot.flight.as_ref().is_some_and(|flight| flight.step == Step::Probing);
        match (alone && probing, alive) {
            (true, true) => self.call(node, u64::MAX),
            (true, false) => self.out_of_reach(node),
            (false, false) if !alone && slot.token == token && slot.flight.is_none() => {
                slot.renewal_state.withdraw(now_ms);
                self.start(node, false);
            }
            (false, _) => {}
        }
    }

    fn accepted(&self, token: u32) -> bool {
        let now = self.now();
        token != 0
            && (self.setup.credential_type == &mp::JSAPI
                || self.world.judge(&self.tokens[token as usize], now) == sandbox::Verdict::Accepted)
    }

    fn fetch_effect(&self) -> FetchEffect {
        if self.setup.credential_type == &mp::CLASSIC { FetchEffect::NewToken } else { FetchEffect::SameToken }
    }

    fn step(&mut self, node: usize, step: Step) {
        if let Some(flight) = &mut self.nodes[node].flight {
            flight.step = step;
        }
    }

    fn is_under_way(&self, node: u32, flight: u32) -> bool {
        let slot = &self.nodes[node as usize];
        slot.up && slot.flights == flight && slot.flight.is_some()
    }

    fn now_ms(&self) -> u64 {
        EPOCH_MS + self.now_us / 1000
    }

    fn now(&self) -> Now {
        Now { boot_ms: self.now_ms(), unix_ms: self.now_ms() as i64 }
    }

    fn arm(&mut self, node: usize, at_ms: u64) {
        let slot = &mut self.nodes[node];
        slot.serial += 1;
        slot.due_ms = at_ms;
        let serial = slot.serial;
        let at_us = (at_ms.saturating_sub(EPOCH_MS) * 1000).max(self.now_us);
        self.push(at_us, Event::Due(node as u32, serial));
    }

    fn after(&mut self, wait_us: u64, event: Event) {
        self.push(self.now_us + wait_us, event);
    }

    fn push(&mut self, at_us: u64, event: Event) {
        self.count += 1;
        self.heap.push(Reverse(Entry(at_us, self.count, event)));
    }

    fn note_busy(&mut self, scripts: u32, messages: u32, reads: u32) {
        let second = (self.now_us / SECOND_US) as u32;
        match self.books.busy.last_mut().filter(|last| last.0 == second) {
            Some(last) => (last.1, last.2, last.3) = (last.1 + scripts, last.2 + messages, last.3 + reads),
            None => self.books.busy.push((second, scripts, messages, reads)),
        }
    }

    /// A way between a node and the store: log-normal, 0.3 ms in the middle, one in a hundred over 1.6 ms.
    fn way_us(&mut self) -> u64 {
        let normal = (0..12).map(|_| self.rng.f64()).sum::<f64>() - 6.0;
        (300.0 * (0.72 * normal).exp()) as u64
    }

    /// To WeChat and back: 40 to 300 ms, one in two hundred 1 to 3 s.
    fn call_us(&mut self) -> (u64, u64) {
        let whole_us = match self.rng.f64() {
            slow if slow < 0.005 => self.rng.u64(1_000_000..3_000_000),
            _ => self.rng.u64(40_000..300_000),
        };
        (whole_us / 2, whole_us / 2)
    }
}
