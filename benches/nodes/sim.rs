//! One credential of many nodes in virtual time: the record's rules as the store, the policy for whatever a node decides,
//! the sandbox's rules for WeChat. Messages and commands take the time that is drawn for them.
//!
//! What a driver does beside deciding (a flight's steps, a timer a credential) is done here as events. Credentials do
//! not touch each other, so one at a time is played; what they share is the store's time, which is drawn as well.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use tokencached::clock::Now;
use tokencached::credential::policy::together::{Alone, Beside, Means, OFFER_SPREAD_MS, others_wait_ms, told_ms};
use tokencached::credential::policy::{Answer, BACKOFF_FLOOR_MS, Standing};
use tokencached::kind::{Kind, mp};
use tokencached::nodes::record::{Ended, Op, Record, Verdict};
use tokencached::nodes::turn::{self, Asking, Moment, Next};
use tokencached::sandbox::rules::{self, World};
use tokencached::sandbox::{self, AppOptions, Options, Quotas};
use tokencached::upstream::{Class, Sent, Told};

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
    pub kind: &'static Kind,
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
#[derive(Clone, Copy, PartialEq, Eq)]
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
    verdict: Verdict,
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
    alone: Alone,
    lease_ms: u64,
    spacing_ms: u64,
    keep_ms: u64,
    /// The record as it was granted, and when.
    lease: Option<(Rec, Moment)>,
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
    standing: Standing,
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
            standing: Standing::new(setup.kind.renewal),
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
        let same = up().all(|node| node.token == first && node.standing.left_ms(self.now_ms()) > 0);
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

    // The store.

    fn ask(&mut self, node: usize, op: Op<Sealed>) {
        let flight = self.nodes[node].flights;
        let (way_us, sent_ms) = (self.way_us(), self.now_ms());
        self.after(way_us, Event::AtStore(node as u32, flight, Rc::new(op), sent_ms));
    }

    fn at_store(&mut self, node: u32, flight: u32, op: &Op<Sealed>, sent_ms: u64) {
        if self.nodes[node as usize].cut {
            return self.after(SECOND_US, Event::Unheard(node, flight));
        }
        let before = (self.record.open, self.record.value);
        let store_ms = self.now_ms();
        let verdict = self.record.apply(op, store_ms);
        self.books.scripts += 1;
        self.books.takes += u64::from(matches!(op, Op::Take { .. }));
        self.books.offers += u64::from(matches!(op, Op::Offer { .. }));
        let changed = before != (self.record.open, self.record.value);
        if let (Op::Publish { .. }, Verdict::Done, Some(killed_us)) = (op, verdict, self.killed_us) {
            self.renewed_us.get_or_insert(self.now_us - killed_us);
        }
        let served_us = self.serve_us(self.setup.script_us);
        let said = Rc::new(Said { verdict, record: self.record.clone(), store_ms, sent_ms });
        let heard = if changed { self.publish(served_us, &said) } else { 0 };
        self.note_busy(1, heard, 0);
        let back_us = self.way_us();
        if !matches!(op, Op::Offer { .. } | Op::Doubt { .. }) {
            let at_us = self.free_us + back_us;
            self.push(at_us, Event::Told(node, flight, said));
        }
    }

    /// When the store is done with something that takes it so long.
    fn serve_us(&mut self, cost_us: f64) -> u64 {
        let others_us = match self.rng.f64() < self.setup.busy {
            true => self.rng.f64() * (self.setup.script_us + self.setup.message_us * self.setup.nodes as f64),
            false => 0.0,
        };
        self.free_us = self.free_us.max(self.now_us) + (cost_us + others_us) as u64;
        self.free_us
    }

    /// A message to all who listen. How many there were.
    fn publish(&mut self, from_us: u64, said: &Rc<Said>) -> u32 {
        let mut heard = 0;
        for node in 0..self.nodes.len() {
            if !self.nodes[node].up || self.nodes[node].cut {
                continue;
            }
            if !self.setup.pushes {
                self.poll_soon(node);
                continue;
            }
            heard += 1;
            if self.rng.f64() < self.setup.lost {
                self.poll_soon(node);
                continue;
            }
            let at_us = from_us + (f64::from(heard) * self.setup.message_us) as u64 + self.way_us();
            self.push(at_us, Event::Heard(node as u32, said.clone()));
        }
        self.books.messages += u64::from(heard);
        self.free_us = from_us + (f64::from(heard) * self.setup.message_us) as u64;
        heard
    }

    /// The next poll finds the change, and reads the record.
    fn poll_soon(&mut self, node: usize) {
        if std::mem::replace(&mut self.nodes[node].reading, true) {
            return;
        }
        let every_us = (POLL_EVERY_MS * 9 / 10 + self.rng.u64(0..=POLL_EVERY_MS / 5)) * 1000;
        let wait_us = self.rng.u64(0..=every_us) + 2 * self.way_us();
        self.after(wait_us, Event::PollRead(node as u32));
    }

    fn poll_read(&mut self, node: usize) {
        self.nodes[node].reading = false;
        if self.nodes[node].cut || !self.nodes[node].up {
            return;
        }
        self.books.reads += 1;
        self.note_busy(0, 0, 1);
        let done_us = self.serve_us(self.setup.read_us);
        let (store_ms, way_us) = (self.now_ms(), self.way_us());
        let said = Said { verdict: Verdict::Done, record: self.record.clone(), store_ms, sent_ms: store_ms };
        self.push(done_us + way_us, Event::Heard(node as u32, Rc::new(said)));
    }

    fn rejoin(&mut self, node: usize) {
        self.nodes[node].cut = false;
        self.poll_read(node);
        let slot = &self.nodes[node];
        if slot.flight.is_none() && (slot.standing.failures > 0 || slot.standing.left_ms(self.now_ms()) == 0) {
            let wait_ms = self.rng.u64(0..=OFFER_SPREAD_MS);
            self.arm(node, self.now_ms() + wait_ms);
        }
    }

    // What a node hears.

    fn heard(&mut self, node: usize, said: &Said) {
        if self.nodes[node].up && !self.nodes[node].cut {
            self.seen(node, said);
        }
    }

    fn seen(&mut self, node: usize, said: &Said) {
        let moment = Moment { store_ms: said.store_ms, sent_ms: said.sent_ms, received_ms: self.now_ms() };
        let now_ms = self.now_ms();
        let slot = &mut self.nodes[node];
        let live = slot.standing.left_ms(now_ms) > 0;
        let record = &said.record;
        if slot.sealed != record.value || record.value.is_none() {
            slot.sealed = record.value;
            match record.value {
                None if live => self.offer(node),
                None => {}
                Some(value) if slot.flight.is_some() && value.node == node as u64 + 1 => slot.sealed = None,
                Some(value) => self.compare(node, value, moment),
            }
        } else if record.generation < slot.generation && live {
            self.offer(node);
        } else if record.generation == slot.generation && !live {
            slot.useless = record.generation;
        }
        self.note_open(node, record, moment);
    }

    fn compare(&mut self, node: usize, value: Sealed, moment: Moment) {
        let now_ms = self.now_ms();
        let slot = &mut self.nodes[node];
        let theirs_ms = moment.to_boot_ms(value.expires_ms);
        let same = slot.token != 0 && slot.token == value.token;
        match slot.standing.compare(
            &Beside { held: slot.generation, theirs: value.generation, same, theirs_ms, withdrawn: false },
            now_ms,
        ) {
            Means::Over => {
                slot.useless = value.generation;
                if slot.standing.left_ms(now_ms) > 0 {
                    self.offer(node);
                }
            }
            Means::Offer => self.offer(node),
            Means::Nothing | Means::Withdraw => {}
            Means::Agree => {
                slot.standing.prolong(theirs_ms);
                slot.generation = value.generation;
                slot.offers += 1;
                (slot.unpublished, slot.told) = (false, 0);
                slot.adopted = slot.flight.is_some();
                if self.setup.kind == &mp::JSAPI && slot.flight.is_none() {
                    let at_ms = slot.standing.due_after_others_ms(now_ms, self.rng.f64());
                    self.arm(node, at_ms);
                }
            }
            Means::Conflict => {
                if self.asking() == Asking::Mints {
                    self.ask(node, Op::Doubt { generation: value.generation });
                }
                self.adopt(node, value, theirs_ms);
            }
            Means::Adopt => self.adopt(node, value, theirs_ms),
        }
    }

    fn adopt(&mut self, node: usize, value: Sealed, theirs_ms: u64) {
        let (now_ms, random) = (self.now_ms(), self.rng.f64());
        let slot = &mut self.nodes[node];
        slot.standing.adopt(theirs_ms, value.life_ms, value.longest_ms, value.learned_ms);
        slot.ours = value.node == node as u64 + 1;
        slot.offers += 1;
        let at_ms = slot.standing.due_after_others_ms(now_ms, random);
        let flying = slot.flight.is_some();
        (slot.adopted, slot.unpublished, slot.told) = (flying, false, 0);
        self.put(node, value.token, value.generation);
        if !flying {
            self.arm(node, at_ms);
        }
    }

    /// Serves a token from now on.
    fn put(&mut self, node: usize, token: u32, generation: u64) {
        let slot = &mut self.nodes[node];
        if token != slot.token {
            slot.reported = false;
            let born_us = self.books.born_us[token as usize - 1];
            if born_us > 0 {
                self.books.spread_us[token as usize - 1].push(self.now_us - born_us);
            }
        }
        (slot.token, slot.generation) = (token, generation);
    }

    fn note_open(&mut self, node: usize, record: &Rec, moment: Moment) {
        let now_ms = self.now_ms();
        let random = self.rng.f64();
        let slot = &mut self.nodes[node];
        let Some(open) = record.open.filter(|_| slot.flight.is_none() && self.setup.kind == &mp::CLASSIC) else {
            return;
        };
        let left_ms = record.lease_left_ms(moment.store_ms);
        if left_ms == 0 && slot.standing.left_ms(now_ms) > 0 {
            slot.standing.lost(moment.to_boot_ms(open.at_ms));
        }
        let at_ms = now_ms + slot.standing.settle_ms(left_ms, random);
        if at_ms < slot.due_ms {
            self.arm(node, at_ms);
        }
    }

    fn offer(&mut self, node: usize) {
        let slot = &mut self.nodes[node];
        if slot.flight.is_some() || slot.standing.is_withdrawn() {
            return;
        }
        slot.sealed = None;
        slot.offers += 1;
        let serial = slot.offers;
        let wait_ms = slot.standing.offer_ms(slot.ours, self.rng.f64());
        self.after(wait_ms * 1000, Event::Offer(node as u32, serial));
    }

    fn make_offer(&mut self, node: usize, serial: u32) {
        let slot = &self.nodes[node];
        if slot.cut || !slot.up || slot.offers != serial {
            return;
        }
        let generation = slot.generation;
        let value = self.seal(node, slot.token, generation, slot.standing.expires_ms.unwrap_or(0));
        self.ask(node, Op::Offer { generation, value });
    }

    fn seal(&self, node: usize, token: u32, generation: u64, expires_ms: u64) -> Sealed {
        let standing = &self.nodes[node].standing;
        Sealed {
            token,
            generation,
            expires_ms,
            life_ms: standing.life_ms,
            longest_ms: standing.longest_ms,
            learned_ms: standing.learned_so_far_ms(),
            node: node as u64 + 1,
            nonce: self.count,
        }
    }

    // A flight.

    fn due(&mut self, node: usize, serial: u32) {
        let slot = &self.nodes[node];
        if slot.up && slot.serial == serial && slot.flight.is_none() {
            self.start(node, true);
        }
    }

    fn start(&mut self, node: usize, scheduled: bool) {
        let (now_ms, asking) = (self.now_ms(), self.asking());
        let slot = &mut self.nodes[node];
        slot.flights += 1;
        slot.adopted = false;
        let standing = &slot.standing;
        let flight = Flight {
            step: Step::Taking,
            alone: standing.alone(asking, slot.ours, now_ms),
            lease_ms: standing.lease_ms(TOTAL_TIMEOUT_MS, now_ms),
            spacing_ms: standing.others_spacing_ms(scheduled, now_ms),
            keep_ms: standing.keep_ms(now_ms),
            lease: None,
            sent_ms: now_ms,
            came: None,
        };
        let (alone, lease_ms, spacing_ms) = (flight.alone, flight.lease_ms, flight.spacing_ms);
        let of_use = standing.left_ms(now_ms) > 0 || standing.is_withdrawn();
        let knows = slot.useless.max(if of_use { slot.generation } else { 0 });
        slot.flight = Some(flight);
        if alone == Alone::AtOnce {
            return self.call(node, u64::MAX);
        }
        if !slot.cut {
            return self.ask(node, Op::Take { node: node as u64 + 1, lease_ms, knows, spacing_ms });
        }
        match alone {
            Alone::Always | Alone::AtOnce => self.call(node, u64::MAX),
            Alone::IfAlive => {
                self.books.probes += 1;
                self.step(node, Step::Probing);
                let (there_us, back_us) = self.call_us();
                let token = self.nodes[node].token;
                self.after(there_us + back_us, Event::Probed(node as u32, token, true));
            }
            Alone::Never => self.out_of_reach(node),
        }
    }

    fn out_of_reach(&mut self, node: usize) {
        let (now, random) = (self.now(), self.rng.f64());
        let slot = &mut self.nodes[node];
        slot.flight = None;
        let mut next_ms = slot.standing.failed(Class::Retry, Sent::NotSent, now.boot_ms, now, random);
        if let Some(from_ms) = slot.standing.alone_from_ms(slot.ours)
            && (now.boot_ms..next_ms).contains(&from_ms)
        {
            next_ms = from_ms;
        }
        self.arm(node, next_ms);
    }

    /// The store's answer to a flight's question does not come.
    fn unheard(&mut self, node: usize) {
        let Some(flight) = &self.nodes[node].flight else { return };
        match flight.step {
            Step::Taking if flight.alone == Alone::Always => self.call(node, u64::MAX),
            Step::Taking | Step::Announcing => self.out_of_reach(node),
            Step::Telling => self.land(node),
            Step::Calling | Step::Probing => {}
        }
    }

    /// The store has answered one of a flight's questions.
    fn told(&mut self, node: usize, said: &Said) {
        if self.nodes[node].cut {
            return self.unheard(node);
        }
        let moment = Moment { store_ms: said.store_ms, sent_ms: said.sent_ms, received_ms: self.now_ms() };
        let Some(flight) = self.nodes[node].flight.as_mut() else { return };
        match flight.step {
            Step::Taking => match turn::after_take(said.verdict, &said.record) {
                Next::Call { .. } => {
                    flight.lease = Some((said.record.clone(), moment));
                    let (epoch, need_ms) = (said.record.epoch, turn::need_ms(flight.lease_ms));
                    if self.asking() == Asking::Repeats {
                        return self.call(node, u64::MAX);
                    }
                    self.step(node, Step::Announcing);
                    self.ask(node, Op::Announce { node: node as u64 + 1, epoch, need_ms });
                }
                next => self.not_our_turn(node, said, next),
            },
            Step::Announcing => {
                let left_ms = said.record.lease_left_ms(said.store_ms);
                let call_ms = turn::call_ms(left_ms).saturating_sub(moment.received_ms - moment.sent_ms);
                if said.verdict == Verdict::Done && call_ms > 0 {
                    return self.call(node, call_ms);
                }
                self.nodes[node].flight = None;
                let wait_ms = 100 + self.rng.u64(0..=1_000);
                self.arm(node, self.now_ms() + wait_ms);
            }
            Step::Telling => self.landed(node, said),
            Step::Calling | Step::Probing => {}
        }
    }

    fn not_our_turn(&mut self, node: usize, said: &Said, next: Next) {
        self.nodes[node].flight = None;
        let (before, known) = (self.nodes[node].due_ms, self.nodes[node].useless);
        self.seen(node, said);
        let (now_ms, random) = (self.now_ms(), self.rng.f64());
        let slot = &mut self.nodes[node];
        let due_ms = slot.due_ms;
        let at_ms = match next {
            _ if std::mem::take(&mut slot.adopted) => slot.standing.due_after_others_ms(now_ms, random),
            Next::Wait { ms } => {
                let live = slot.standing.left_ms(now_ms) > 0;
                slot.told += 1;
                now_ms + told_ms(ms, slot.told - 1, live, random)
            }
            Next::Adopt if slot.useless > known => now_ms + BACKOFF_FLOOR_MS,
            Next::Adopt | Next::Call { .. } if due_ms == before => now_ms + slot.standing.check_spacing_ms(),
            Next::Adopt | Next::Call { .. } => return,
        };
        if due_ms == before || at_ms < due_ms {
            self.arm(node, at_ms);
        }
    }

    // WeChat.

    fn call(&mut self, node: usize, at_most_ms: u64) {
        self.nodes[node].told = 0;
        self.step(node, Step::Calling);
        let now_ms = self.now_ms();
        self.books.calls += 1;
        let deadline_ms = self.nodes[node].standing.call_deadline_ms(now_ms, TOTAL_TIMEOUT_MS).min(at_most_ms);
        if let Some(flight) = &mut self.nodes[node].flight {
            flight.sent_ms = now_ms;
        }
        let (there_us, back_us) = self.call_us();
        let flight = self.nodes[node].flights;
        self.after(there_us, Event::AtWechat(node as u32, flight, back_us));
        self.after(deadline_ms * 1000, Event::Lost(node as u32, flight));
        if std::mem::take(&mut self.kill_caller) {
            (self.nodes[node].up, self.killed_us) = (false, Some(self.now_us));
        }
    }

    fn at_wechat(&mut self, node: u32, flight: u32, back_us: u64) {
        if !self.wechat {
            // Its system is busy, it says.
            return self.after(back_us, Event::Lost(node, flight));
        }
        let (value, expires_in_s) = match self.ask_wechat() {
            Some(answer) => answer,
            None => return,
        };
        let token = match self.tokens.iter().rposition(|known| *known == value) {
            Some(known) => known as u32,
            None => {
                self.tokens.push(value);
                self.books.tokens += 1;
                self.books.born_us.push(self.now_us);
                self.books.spread_us.push(Vec::new());
                self.books.first_token_us.get_or_insert(self.now_us);
                self.books.last_token_us = self.now_us;
                self.tokens.len() as u32 - 1
            }
        };
        self.after(back_us, Event::Answered(node, flight, token, expires_in_s));
    }

    fn ask_wechat(&mut self) -> Option<(String, u64)> {
        let given = |text: &str| Some(text.to_owned());
        let (grant_type, appid, secret) = (given("client_credential"), given("wx"), given("s"));
        let ask = if self.setup.kind == &mp::CLASSIC {
            rules::Ask::Classic { grant_type, appid, secret }
        } else if self.setup.kind == &mp::STABLE {
            rules::Ask::Stable { grant_type, appid, secret, force: false }
        } else {
            // A ticket: the same for two hours, whatever is said of its life.
            return Some((format!("ticket-{}", self.now_us / (2 * HOUR_US)), 7200));
        };
        match self.world.ask(&ask, IpAddr::V4(Ipv4Addr::LOCALHOST), self.now()) {
            rules::Answer::Token { value, expires_in_s, .. } => Some((value, expires_in_s)),
            _ => None,
        }
    }

    fn call_lost(&mut self, node: usize) {
        let (now, random, asking) = (self.now(), self.rng.f64(), self.asking());
        let Some(flight) = self.nodes[node].flight.as_ref().filter(|flight| flight.step == Step::Calling) else {
            return;
        };
        let sent = if self.wechat { Sent::Ambiguous } else { Sent::Answered };
        let (sent_ms, lease) = (flight.sent_ms, flight.lease.clone());
        let lost = sent == Sent::Ambiguous && asking == Asking::Mints;
        let ended = if lost { Ended::Lost } else { Ended::Answered };
        if let Some((record, _)) = lease {
            let live = self.nodes[node].standing.left_ms(sent_ms) > 0;
            let wait_ms = others_wait_ms(Class::Retry, asking, record.failures, live);
            let wait_ms = if lost { wait_ms.min(flight.spacing_ms.max(1)) } else { wait_ms };
            let (id, epoch) = (node as u64 + 1, record.epoch);
            self.ask(node, Op::Close { node: id, epoch, ended, failed: true, wait_ms, keep_ms: 0, calls: None });
        }
        let slot = &mut self.nodes[node];
        slot.flight = None;
        let next_ms = slot.standing.failed(Class::Retry, sent, sent_ms, now, random);
        self.arm(node, next_ms);
    }

    fn answered(&mut self, node: usize, token: u32, expires_in_s: u64) {
        let received_ms = self.now_ms();
        let polled = self.setup.kind == &mp::JSAPI;
        let slot = &mut self.nodes[node];
        let (held, same) = (slot.generation, slot.token == token);
        let Some(flight) = slot.flight.as_mut() else { return };
        flight.step = Step::Telling;
        let mut came =
            Came { token, expires_in_s, same, received_ms, generation: held + u64::from(!same), published: same };
        let Some((record, moment)) = flight.lease.clone() else {
            flight.came = Some(came);
            return self.land(node);
        };
        let (epoch, id, keep_ms, sent_ms) = (record.epoch, node as u64 + 1, flight.keep_ms, flight.sent_ms);
        if !same {
            came.generation = turn::next_generation(&record, held);
        }
        flight.came = Some(came);
        if same && !polled && record.generation == held {
            let (ended, calls) = (Ended::Answered, None);
            return self.ask(node, Op::Close { node: id, epoch, ended, failed: false, wait_ms: 0, keep_ms, calls });
        }
        let life_ms = expires_in_s * 1000;
        let expires_ms = match (same, slot.standing.expires_ms) {
            (true, Some(expires_ms)) if !polled => expires_ms,
            _ => sent_ms + life_ms,
        };
        let longest_ms = life_ms.max(slot.standing.longest_ms / 2);
        let sealed = self.seal(node, token, came.generation, moment.to_store_ms(expires_ms));
        let value = Sealed { life_ms, longest_ms, ..sealed };
        let (generation, minted) = (came.generation, self.asking() == Asking::Mints && !same);
        self.ask(node, Op::Publish { node: id, epoch, generation, value, calls: None, minted, keep_ms: 0 });
    }

    /// The store knows of the call's end.
    fn landed(&mut self, node: usize, said: &Said) {
        let minted = self.asking() == Asking::Mints;
        let flight = self.nodes[node].flight.as_ref();
        let (sent_ms, same) =
            flight.map_or((0, true), |flight| (flight.sent_ms, flight.came.is_none_or(|came| came.same)));
        if said.verdict == Verdict::Done || !minted || same {
            if let Some(came) = self.nodes[node].flight.as_mut().and_then(|flight| flight.came.as_mut()) {
                came.published |= said.verdict == Verdict::Done;
            }
            return self.land(node);
        }
        // Beaten: theirs is served.
        self.nodes[node].flight = None;
        self.seen(node, said);
        let slot = &mut self.nodes[node];
        slot.standing.lost(sent_ms);
        let at_ms = self.now_us / 1000 + EPOCH_MS + slot.standing.settle_ms(0, self.rng.f64());
        self.arm(node, at_ms);
    }

    fn land(&mut self, node: usize) {
        let random = self.rng.f64();
        let slot = &mut self.nodes[node];
        let Some(Flight { sent_ms, came: Some(came), .. }) = slot.flight.take() else { return };
        let Came { token, expires_in_s, same, received_ms, generation, published } = came;
        let answer = Answer { sent_ms, received_ms, expires_in_s, told: Told::AsGiven, same };
        let next_ms = slot.standing.answered(&answer, random);
        if !same {
            (slot.ours, slot.unpublished) = (true, !published);
        }
        self.put(node, token, generation);
        self.arm(node, next_ms);
        self.finish(node);
    }

    fn finish(&mut self, node: usize) {
        if self.nodes[node].unpublished && self.nodes[node].standing.left_ms(self.now_ms()) > 0 {
            self.offer(node);
        }
    }

    // Readers.

    fn read_all_nodes(&mut self) {
        let (now, every_us) = (self.now(), self.setup.read_every_us);
        let mut judged = (0, false);
        for node in 0..self.nodes.len() {
            let slot = &self.nodes[node];
            if !slot.up {
                continue;
            }
            let (token, side) = (slot.token, usize::from(slot.cut));
            if slot.standing.left_ms(now.boot_ms) == 0 {
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
                slot.standing.withdraw(now_ms);
                self.start(node, false);
            }
            (false, _) => {}
        }
    }

    fn accepted(&self, token: u32) -> bool {
        let now = self.now();
        token != 0
            && (self.setup.kind == &mp::JSAPI
                || self.world.judge(&self.tokens[token as usize], now) == sandbox::Verdict::Accepted)
    }

    // Time and chance.

    fn asking(&self) -> Asking {
        if self.setup.kind == &mp::CLASSIC { Asking::Mints } else { Asking::Repeats }
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
