//! The state of everything in the model: the record, the nodes, WeChat and what is on its way between them.

use tokencached::cluster::record::NOBODY;
use tokencached::cluster::{CallEnd, NodeId, Op, OpOutcome, Record};

use super::broken_rules::BrokenRule;

/// A token, by its number among all that WeChat has made; 0: none.
pub type Mint = u8;

/// The store's clock stands still: what passes is told by events, and a lease that has run out ends at 0.
pub const NOW_MS: u64 = 1_000_000;
pub const LEASE_MS: u64 = 1_000;
/// Holds leases of processes that are no more.
pub const DEAD: NodeId = 99;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flight {
    pub epoch: u64,
    /// What its token is to be published as.
    pub generation: u64,
    /// By the node's own clock the lease is over.
    pub over: bool,
    /// The call was sent after that: the node was stopped between looking at the clock and sending.
    pub late: bool,
    /// The store has lost its memory since the call was announced.
    pub robbed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    OnItsWay,
    Made(Mint),
}

/// What a node is at. Whatever it does next it may do arbitrarily late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    Idle,
    Offers,
    Doubts {
        generation: u64,
    },
    Takes,
    Announces(Flight),
    LooksAtTheClock(Flight),
    Sends(Flight),
    Calls(Flight, Request),
    Publishes(Flight, Mint),
    /// The answer to its `Publish` has not come: it looks first.
    LooksForItsValue(Flight, Mint),
    ClosesUnsent(Flight),
    ClosesAnswered(Flight),
    /// `again`: it has been said and was refused, and is said once more when the lease would have run out.
    ClosesLost(Flight, Request, bool),
    /// The answer to that has not come.
    LooksForItsClose(Flight, Request),
}

impl Phase {
    pub fn flight(&self) -> Option<&Flight> {
        match self {
            Phase::Idle | Phase::Offers | Phase::Doubts { .. } | Phase::Takes => None,
            Phase::Announces(flight)
            | Phase::LooksAtTheClock(flight)
            | Phase::Sends(flight)
            | Phase::Calls(flight, _)
            | Phase::Publishes(flight, _)
            | Phase::LooksForItsValue(flight, _)
            | Phase::ClosesUnsent(flight)
            | Phase::ClosesAnswered(flight)
            | Phase::ClosesLost(flight, _, _)
            | Phase::LooksForItsClose(flight, _) => Some(flight),
        }
    }

    pub fn flight_mut(&mut self) -> Option<&mut Flight> {
        match self {
            Phase::Idle | Phase::Offers | Phase::Doubts { .. } | Phase::Takes => None,
            Phase::Announces(flight)
            | Phase::LooksAtTheClock(flight)
            | Phase::Sends(flight)
            | Phase::Calls(flight, _)
            | Phase::Publishes(flight, _)
            | Phase::LooksForItsValue(flight, _)
            | Phase::ClosesUnsent(flight)
            | Phase::ClosesAnswered(flight)
            | Phase::ClosesLost(flight, _, _)
            | Phase::LooksForItsClose(flight, _) => Some(flight),
        }
    }

    pub fn request(&self) -> Option<Request> {
        match self {
            Phase::Calls(_, request) | Phase::ClosesLost(_, request, _) | Phase::LooksForItsClose(_, request) => {
                Some(*request)
            }
            Phase::Publishes(_, mint) | Phase::LooksForItsValue(_, mint) => Some(Request::Made(*mint)),
            _ => None,
        }
    }

    pub fn request_mut(&mut self) -> Option<&mut Request> {
        match self {
            Phase::Calls(_, request) | Phase::ClosesLost(_, request, _) | Phase::LooksForItsClose(_, request) => {
                Some(request)
            }
            _ => None,
        }
    }

    /// A call that was sent in time and that WeChat has not seen yet.
    pub fn is_on_its_way_in_time(&self) -> bool {
        self.request() == Some(Request::OnItsWay) && self.flight().is_some_and(|flight| !flight.late)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    pub up: bool,
    /// What it serves, and still knows after a restart with memory.
    pub generation: u64,
    pub value: Mint,
    pub phase: Phase,
}

/// A call of which its node knows nothing any more, on its way yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Orphan {
    pub epoch: u64,
    pub late: bool,
}

/// What goes wrong. Each is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Adverse {
    /// A node dies.
    Crash,
    /// A call's answer does not come in time.
    Lost,
    /// WeChat answers and makes no token.
    Rejected,
    /// A lease runs out under a node that is at work.
    Pause,
    /// The store's answer does not come, or nothing has reached it.
    Unheard,
    /// So too, and what was asked is done at some later time.
    Stray,
    /// The store forgets everything.
    Flush,
    /// The store is as it was before.
    Failover,
}

pub const ADVERSE: [Adverse; 8] = [
    Adverse::Crash,
    Adverse::Lost,
    Adverse::Rejected,
    Adverse::Pause,
    Adverse::Unheard,
    Adverse::Stray,
    Adverse::Flush,
    Adverse::Failover,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub record: Record<Mint>,
    /// What a replica has got so far.
    pub copy: Option<Record<Mint>>,
    pub nodes: Vec<Node>,
    /// What was sent to the store and has not arrived.
    pub limbo: Option<Asked>,
    pub orphans: Vec<Orphan>,
    pub minted: Mint,
    /// Values up to this one are near their end.
    pub due: Mint,
    /// Times that a token was wanted: the first one counts.
    pub renewals: u8,
    pub adverse: [u8; ADVERSE.len()],
    /// A call has become unknown to everybody, and no later token is known yet.
    pub blind: bool,
    /// WeChat sees a call before its node gives it up, or never. Nodes then need not be careful with lost ones.
    pub prompt: bool,
}

/// An operation that can be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    Take { node: NodeId, known_generation: u64 },
    Announce { node: NodeId, epoch: u64 },
    Publish { node: NodeId, epoch: u64, generation: u64, value: Mint },
    Close { node: NodeId, epoch: u64, ended: CallEnd },
    Offer { generation: u64, value: Mint },
    Doubt { generation: u64 },
}

impl Asked {
    pub fn op(self) -> Op<Mint> {
        match self {
            // Every order of calls that spacing allows there is without it, too.
            Asked::Take { node, known_generation } => {
                Op::Take { node, lease_ms: LEASE_MS, known_generation, spacing_ms: 0 }
            }
            Asked::Announce { node, epoch } => Op::Announce { node, epoch, need_ms: LEASE_MS / 2 },
            Asked::Publish { node, epoch, generation, value } => {
                Op::Publish { node, epoch, generation, value, calls: None, minted: true, keep_ms: 0 }
            }
            Asked::Close { node, epoch, ended } => {
                let failed = ended != CallEnd::Unsent;
                Op::Close { node, epoch, ended, failed, wait_ms: 0, keep_ms: 0, calls: None }
            }
            Asked::Offer { generation, value } => Op::Offer { generation, value },
            Asked::Doubt { generation } => Op::Doubt { generation },
        }
    }

    pub fn node_mut(&mut self) -> Option<&mut NodeId> {
        match self {
            Asked::Take { node, .. }
            | Asked::Announce { node, .. }
            | Asked::Publish { node, .. }
            | Asked::Close { node, .. } => Some(node),
            Asked::Offer { .. } | Asked::Doubt { .. } => None,
        }
    }
}

pub fn id(index: usize) -> NodeId {
    index as NodeId + 1
}

impl World {
    /// `warm`: every node has the first token, and it is published.
    pub fn new(nodes: usize, warm: bool, prompt: bool) -> World {
        let first = u8::from(warm);
        let node = Node { up: true, generation: first.into(), value: first, phase: Phase::Idle };
        let mut record = Record::default();
        if warm {
            (record.epoch, record.generation, record.value) = (1, 1, Some(1));
        }
        World {
            record,
            copy: None,
            nodes: vec![node; nodes],
            limbo: None,
            orphans: Vec::new(),
            minted: first,
            due: 0,
            renewals: 1,
            adverse: [0; ADVERSE.len()],
            blind: false,
            prompt,
        }
    }

    pub fn count(&mut self, adverse: Adverse) {
        self.adverse[adverse as usize] += 1;
    }

    pub fn counted(&self, adverse: Adverse) -> u8 {
        self.adverse[adverse as usize]
    }

    pub fn adverse_events(&self) -> u8 {
        self.adverse.iter().sum()
    }

    /// Times the store has lost its memory.
    pub fn store_faults(&self) -> u8 {
        self.counted(Adverse::Flush) + self.counted(Adverse::Failover)
    }

    pub fn is_leased(&self) -> bool {
        self.record.lease_left_ms(NOW_MS) > 0
    }

    /// One operation of the store, by the rules that are judged.
    pub fn ask(&mut self, asked: Asked, broken: BrokenRule) -> OpOutcome {
        let outcome = broken.apply(&mut self.record, &asked.op());
        let record = &mut self.record;
        (record.answered_ms, record.not_before_ms, record.failures) = (0, 0, 0);
        if let Some(open) = &mut record.unsettled {
            open.at_ms = 0;
        }
        if record.until_ms <= NOW_MS {
            record.until_ms = 0;
        }
        outcome
    }

    /// The node's next use of what it holds: anything near its end, or nothing at all.
    pub fn wants(&self, index: usize) -> bool {
        self.nodes[index].value <= self.due
    }

    pub fn adopt(&mut self, index: usize, broken: BrokenRule) {
        let (record, node) = (&self.record, &mut self.nodes[index]);
        let later = record.generation > node.generation || broken == BrokenRule::LowerIsAdopted;
        if let Some(value) = record.value.filter(|_| later) {
            (node.generation, node.value) = (record.generation, value);
        }
    }

    /// Whether the latest token, and every call that may yet make one, is on somebody's mind: the record's by its
    /// value or its mark, or that of a node that is up.
    pub fn is_accounted_for(&self) -> bool {
        // A mark that was set after the call has been forgotten is not for that one.
        let open = !self.blind
            && self.record.unsettled.is_some_and(|open| !self.is_about_to_be_settled_by_an_older(open.settled_by));
        let doubted = Phase::Doubts { generation: self.record.generation };
        let known = self.minted == 0
            || self.nodes.iter().any(|node| node.up && node.phase == doubted)
            || self.record.value == Some(self.minted)
            || self.nodes.iter().any(|node| {
                node.up && (node.value == self.minted || node.phase.request() == Some(Request::Made(self.minted)))
            });
        let nobodys = [DEAD, NOBODY].contains(&self.record.holder) && self.is_leased();
        let waited_for = |orphan: &Orphan| open && !orphan.late && nobodys && self.record.epoch >= orphan.epoch;
        (known || open) && self.orphans.iter().all(waited_for)
    }

    /// A token older than the latest is about to be published, and will clear the mark.
    fn is_about_to_be_settled_by_an_older(&self, settled_by: u64) -> bool {
        self.nodes.iter().enumerate().any(|(index, node)| {
            let mine = |flight: &Flight| (id(index), flight.epoch) == (self.record.holder, self.record.epoch);
            let comes_to_nothing = matches!(node.phase, Phase::ClosesLost(..) | Phase::LooksForItsClose(..));
            let older = matches!(node.phase.request(), Some(Request::Made(mint)) if mint < self.minted);
            let older = older && !comes_to_nothing;
            older && node.phase.flight().is_some_and(|flight| mine(flight) && flight.epoch >= settled_by)
        })
    }

    /// Everybody who is up has WeChat's latest token, and nothing is open.
    pub fn is_at_rest(&self) -> bool {
        let record = &self.record;
        let mut up = self.nodes.iter().filter(|node| node.up).peekable();
        up.peek().is_none()
            || (record.value == Some(self.minted)
                && record.unsettled.is_none()
                && up.all(|node| (node.generation, Some(node.value)) == (record.generation, record.value)))
    }

    /// The same world with the nodes in a fixed order: which is which makes no difference.
    pub fn canonical(mut self) -> World {
        let holders = |id: NodeId| {
            let copy = self.copy.as_ref().is_some_and(|copy| copy.holder == id);
            let limbo = self.limbo.and_then(|mut asked| asked.node_mut().copied()) == Some(id);
            (self.record.holder == id, copy, limbo)
        };
        let mut order: Vec<_> = (0..self.nodes.len()).map(|i| (self.nodes[i], holders(id(i)), i)).collect();
        order.sort();
        let renamed = |holder: NodeId| match order.iter().position(|(_, _, old)| id(*old) == holder) {
            Some(new) => id(new),
            None => holder,
        };
        self.record.holder = renamed(self.record.holder);
        if let Some(copy) = &mut self.copy {
            copy.holder = renamed(copy.holder);
        }
        if let Some(node) = self.limbo.as_mut().and_then(Asked::node_mut) {
            *node = renamed(*node);
        }
        self.nodes = order.iter().map(|(node, _, _)| *node).collect();
        self.orphans.sort();
        self
    }

    /// Whose lease it was it is no more.
    pub fn bury(&mut self, index: usize) {
        let dead = id(index);
        for record in [Some(&mut self.record), self.copy.as_mut()].into_iter().flatten() {
            if record.holder == dead {
                record.holder = DEAD;
            }
        }
        if let Some(node) = self.limbo.as_mut().and_then(Asked::node_mut).filter(|node| **node == dead) {
            *node = DEAD;
        }
    }

    /// The lease of that epoch has run out, wherever it is written.
    pub fn run_out(&mut self, holder: NodeId, epoch: u64) {
        for record in [Some(&mut self.record), self.copy.as_mut()].into_iter().flatten() {
            if record.epoch == epoch && (record.holder == holder || record.holder == NOBODY) {
                record.until_ms = 0;
            }
        }
        let same = |flight: &&mut Flight| flight.epoch == epoch && !flight.robbed;
        for flight in self.nodes.iter_mut().filter_map(|node| node.phase.flight_mut()).filter(same) {
            flight.over = true;
        }
    }
}
