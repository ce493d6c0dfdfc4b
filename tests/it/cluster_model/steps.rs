//! What may happen next in a world, and what it leads to.
//!
//! A node's own steps are decided by `node_rules`, the store's by `record_rules`; the rest is WeChat and bad luck.

use tokencached::cluster::node_rules::{self, NextStep};
use tokencached::cluster::record::NOBODY;
use tokencached::cluster::{CallEnd, OpOutcome, Record};

use super::broken_rules::BrokenRule;
use super::world::{Adverse, Asked, Flight, Mint, Node, Orphan, Phase, Request, World, id};

/// What becomes of a question to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Heard,
    /// Done, and the answer is lost.
    AnswerLost,
    /// Never done.
    Missing,
    /// Done at any time later, if at all.
    Late,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The present value nears its end, everywhere.
    Due,
    /// A node sees the record: it has read it, or been told.
    Look(usize),
    /// It does what is next, asking the store if it has to.
    Step(usize, Way),
    /// WeChat does what a node's call asks for.
    Mint(usize),
    Reject(usize),
    Deliver(usize),
    Lose(usize),
    MintForNobody(usize),
    /// A lease is over by its node's clock and the store's.
    RunOut(usize),
    /// That of one who knows nothing of it.
    LeaseEnds,
    Crash(usize),
    Restart {
        node: usize,
        memory: bool,
    },
    Arrive,
    Copy,
    Flush,
    Failover,
}

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub nodes: usize,
    pub warm: bool,
    pub renewals: u8,
    pub adverse: u8,
    pub store_faults: u8,
    pub prompt: bool,
}

pub fn events(world: &World, bounds: Bounds, broken: BrokenRule) -> Vec<Event> {
    let more = world.adverse_events() < bounds.adverse;
    let mut events = Vec::new();
    if world.renewals < bounds.renewals && world.due < world.minted {
        events.push(Event::Due);
    }
    for index in 0..world.nodes.len() {
        node_events(world, index, (more, broken), &mut events);
    }
    events.extend((0..world.orphans.len()).map(Event::MintForNobody));
    if lease_may_end(world) {
        events.push(Event::LeaseEnds);
    }
    if world.limbo.is_some() {
        events.push(Event::Arrive);
    }
    if more && world.store_faults() < bounds.store_faults {
        events.push(Event::Flush);
        if world.copy.as_ref().is_some_and(|copy| *copy != world.record) {
            events.push(Event::Failover);
        }
        if world.copy.is_none() {
            events.push(Event::Copy);
        }
    }
    events
}

fn node_events(world: &World, index: usize, (more, broken): (bool, BrokenRule), events: &mut Vec<Event>) {
    let node = &world.nodes[index];
    if !node.up {
        events.extend([true, false].map(|memory| Event::Restart { node: index, memory }));
        return;
    }
    events.push(Event::Look(index));
    if may_step(world, node, broken) {
        events.push(Event::Step(index, Way::Heard));
        if more && asks(node) {
            events.push(Event::Step(index, Way::AnswerLost));
            events.push(Event::Step(index, Way::Missing));
            // The number of a lease from before the store lost its memory may be given out to the same node again. What
            // strays from the one into the other is left out: it takes three things at once.
            let repeats = node.phase.flight().is_some_and(|flight| flight.robbed);
            if world.limbo.is_none() && !repeats {
                events.push(Event::Step(index, Way::Late));
            }
        }
    }
    match node.phase {
        Phase::Calls(_, Request::OnItsWay) => {
            events.push(Event::Mint(index));
            if more {
                events.extend([Event::Reject(index), Event::Lose(index)]);
            }
        }
        Phase::Calls(_, Request::Made(_)) => {
            events.push(Event::Deliver(index));
            if more {
                events.push(Event::Lose(index));
            }
        }
        _ if node.phase.request() == Some(Request::OnItsWay) => events.push(Event::Mint(index)),
        _ => {}
    }
    let waits = matches!(node.phase, Phase::ClosesLost(_, _, true));
    if (more || waits) && may_run_out(world, node) {
        events.push(Event::RunOut(index));
    }
    if more {
        events.push(Event::Crash(index));
    }
}

/// What it does next is a question to the store.
fn asks(node: &Node) -> bool {
    !matches!(
        node.phase,
        Phase::Idle | Phase::LooksAtTheClock(_) | Phase::Sends(_) | Phase::Calls(..) | Phase::LooksForItsValue(..)
    )
}

fn may_step(world: &World, node: &Node, broken: BrokenRule) -> bool {
    match node.phase {
        Phase::Idle => node.value <= world.due,
        Phase::Calls(..) => false,
        // A call that is lost is reported at once while its lease lasts, and else when it cannot be on its way any more.
        Phase::ClosesLost(flight, request, again) => {
            request != Request::OnItsWay || !(flight.over || again) || broken == BrokenRule::LateLostIsReportedAtOnce
        }
        _ => true,
    }
}

/// The deadline of a call that was sent in time is before the end of its lease, and WeChat has seen it by then.
fn may_run_out(world: &World, node: &Node) -> bool {
    let elder =
        |other: &Node| other.phase.is_on_its_way_in_time() && other.phase.flight().is_some_and(|flight| flight.robbed);
    node.phase.flight().is_some_and(|flight| !flight.over)
        && !node.phase.is_on_its_way_in_time()
        && !world.nodes.iter().any(elder)
        && world.orphans.iter().all(|orphan| orphan.late)
}

fn lease_may_end(world: &World) -> bool {
    let record = &world.record;
    // One that it knows of is over at the same time, an older one before.
    let flies = |index: usize, node: &Node| {
        let flight = node.phase.flight();
        id(index) == record.holder && flight.is_some_and(|flight| flight.epoch == record.epoch || !flight.over)
    };
    world.is_leased()
        && !world.nodes.iter().enumerate().any(|(index, node)| flies(index, node))
        && !world.nodes.iter().any(|node| node.up && node.phase.is_on_its_way_in_time())
        && world.orphans.iter().all(|orphan| orphan.late)
}

pub fn after(world: &World, event: Event, broken: BrokenRule) -> World {
    let mut world = world.clone();
    match event {
        Event::Due => {
            world.due = world.minted;
            world.renewals += 1;
        }
        Event::Look(index) => look(&mut world, index, broken),
        Event::Step(index, way) => step(&mut world, index, way, broken),
        Event::Mint(index) => {
            world.minted += 1;
            let made = Request::Made(world.minted);
            *world.nodes[index].phase.request_mut().expect("a call") = made;
        }
        Event::MintForNobody(orphan) => {
            world.minted += 1;
            world.orphans.remove(orphan);
        }
        Event::Reject(index) => {
            world.count(Adverse::Rejected);
            let flight = *world.nodes[index].phase.flight().expect("a call");
            world.nodes[index].phase = Phase::ClosesAnswered(flight);
        }
        Event::Deliver(index) => {
            if let Phase::Calls(flight, Request::Made(mint)) = world.nodes[index].phase {
                world.nodes[index].phase = Phase::Publishes(flight, mint);
            }
        }
        Event::Lose(index) => {
            world.count(Adverse::Lost);
            if let Phase::Calls(flight, request) = world.nodes[index].phase {
                let never = world.prompt && request == Request::OnItsWay;
                let request = if never { Request::Made(0) } else { request };
                world.nodes[index].phase = Phase::ClosesLost(flight, request, false);
            }
        }
        Event::RunOut(index) => {
            if !matches!(world.nodes[index].phase, Phase::ClosesLost(_, _, true)) {
                world.count(Adverse::Pause);
            }
            let flight = world.nodes[index].phase.flight_mut().expect("a lease");
            flight.over = true;
            let epoch = flight.epoch;
            world.run_out(id(index), epoch);
        }
        Event::LeaseEnds => world.run_out(world.record.holder, world.record.epoch),
        Event::Arrive => {
            if let Some(asked) = world.limbo.take() {
                world.ask(asked, broken);
            }
        }
        _ => misfortune(&mut world, event),
    }
    world.blind = !world.is_accounted_for();
    world
}

/// Nodes that die, a store that forgets.
fn misfortune(world: &mut World, event: Event) {
    match event {
        Event::Crash(index) => {
            world.count(Adverse::Crash);
            let Node { phase, value, .. } = world.nodes[index];
            let marked = phase.flight().is_none_or(|flight| !flight.late && !flight.robbed);
            // No mark of now is for its call, or for a token of which the store had forgotten.
            world.blind |= !marked || (world.store_faults() > 0 && value == world.minted);
            orphan(world, &phase);
            let node = &mut world.nodes[index];
            (node.up, node.phase) = (false, Phase::Idle);
            world.bury(index);
        }
        Event::Restart { node, memory } => {
            let node = &mut world.nodes[node];
            node.up = true;
            if !memory {
                (node.generation, node.value) = (0, 0);
            }
        }
        Event::Copy => world.copy = Some(world.record.clone()),
        Event::Flush => {
            world.count(Adverse::Flush);
            (world.record, world.copy, world.limbo) = (Record::default(), None, None);
            rob(world);
        }
        Event::Failover => {
            world.count(Adverse::Failover);
            (world.record, world.limbo) = (world.copy.take().unwrap_or_default(), None);
            rob(world);
        }
        _ => {}
    }
}

/// Whatever mark there is now is for other calls.
fn rob(world: &mut World) {
    world.blind = true;
    for flight in world.nodes.iter_mut().filter_map(|node| node.phase.flight_mut()) {
        flight.robbed = true;
    }
}

/// Its node forgets the call.
fn orphan(world: &mut World, phase: &Phase) {
    if let (Some(Request::OnItsWay), Some(flight)) = (phase.request(), phase.flight()) {
        world.orphans.push(Orphan { epoch: flight.epoch, late: flight.late });
    }
}

fn look(world: &mut World, index: usize, broken: BrokenRule) {
    world.adopt(index, broken);
    let (record, node) = (&world.record, &world.nodes[index]);
    if node.phase != Phase::Idle {
        return;
    }
    let differs = record.value.is_some_and(|value| value != node.value);
    world.nodes[index].phase = if node.value > 0 && node.generation == record.generation && differs {
        Phase::Doubts { generation: node.generation }
    } else if world.is_leased() {
        Phase::Idle
    } else if node.value > 0 && (node.generation > record.generation || record.value.is_none()) {
        Phase::Offers
    } else if record.unsettled.is_some() && broken != BrokenRule::OpenIsNotSettled {
        Phase::Takes
    } else {
        Phase::Idle
    };
}

/// Asks the store; nothing if no answer comes.
fn ask(world: &mut World, asked: Asked, way: Way, broken: BrokenRule) -> Option<OpOutcome> {
    match way {
        Way::Heard => {}
        Way::AnswerLost | Way::Missing => world.count(Adverse::Unheard),
        Way::Late => world.count(Adverse::Stray),
    }
    match way {
        Way::Heard => Some(world.ask(asked, broken)),
        Way::AnswerLost => {
            world.ask(asked, broken);
            None
        }
        Way::Missing => None,
        Way::Late => {
            world.limbo = Some(asked);
            None
        }
    }
}

fn step(world: &mut World, index: usize, way: Way, broken: BrokenRule) {
    let node = world.nodes[index];
    let next = match node.phase {
        Phase::Idle => Phase::Takes,
        Phase::Offers => {
            ask(world, Asked::Offer { generation: node.generation, value: node.value }, way, broken);
            Phase::Idle
        }
        Phase::Doubts { generation } => {
            if ask(world, Asked::Doubt { generation }, way, broken) == Some(OpOutcome::Done) {
                // The answer has the record as it is now: that is taken, not what had been seen.
                world.nodes[index].value = world.record.value.unwrap_or(node.value);
            }
            Phase::Idle
        }
        Phase::Takes => takes(world, index, way, broken),
        Phase::Announces(flight) => {
            match ask(world, Asked::Announce { node: id(index), epoch: flight.epoch }, way, broken) {
                Some(OpOutcome::Done) => Phase::LooksAtTheClock(flight),
                Some(_) => Phase::ClosesUnsent(flight),
                None => node.phase,
            }
        }
        Phase::LooksAtTheClock(flight) if flight.over && broken != BrokenRule::ClockIsNotLookedAt => {
            Phase::ClosesUnsent(flight)
        }
        Phase::LooksAtTheClock(flight) => Phase::Sends(flight),
        Phase::Sends(flight) => Phase::Calls(Flight { late: flight.over, ..flight }, Request::OnItsWay),
        Phase::Calls(..) => node.phase,
        Phase::Publishes(flight, mint) => publishes(world, index, flight, mint, way, broken),
        Phase::LooksForItsValue(flight, mint) => {
            if broken != BrokenRule::PublishedAgainWithoutLooking
                && (world.record.generation, world.record.value) == (flight.generation, Some(mint))
            {
                world.adopt(index, broken);
                Phase::Idle
            } else {
                Phase::Publishes(flight, mint)
            }
        }
        Phase::ClosesUnsent(flight) => closes(world, index, flight, CallEnd::Unsent, way, broken),
        Phase::ClosesAnswered(flight) => closes(world, index, flight, CallEnd::Answered, way, broken),
        Phase::ClosesLost(flight, request, again) => lost(world, index, (flight, request, again), way, broken),
        Phase::LooksForItsClose(flight, request) => {
            let noted = (world.record.holder, world.record.epoch) == (NOBODY, flight.epoch);
            // Whoever has taken the lease since its end settles a call that was sent in time.
            let passed_on = world.record.epoch > flight.epoch && flight.over && !flight.late;
            if noted || passed_on {
                orphan(world, &node.phase);
                Phase::Idle
            } else {
                Phase::ClosesLost(flight, request, false)
            }
        }
    };
    world.nodes[index].phase = next;
}

fn takes(world: &mut World, index: usize, way: Way, broken: BrokenRule) -> Phase {
    let node = world.nodes[index];
    let Some(outcome) = ask(world, Asked::Take { node: id(index), known_generation: node.generation }, way, broken)
    else {
        return Phase::Idle;
    };
    match node_rules::after_take(outcome) {
        NextStep::TakeOver => {
            world.adopt(index, broken);
            Phase::Idle
        }
        NextStep::Wait { .. } => Phase::Idle,
        NextStep::Call => {
            let held = if broken == BrokenRule::OwnGenerationIsNotCounted { 0 } else { node.generation };
            let generation = node_rules::next_generation(world.record.generation, held, 1);
            let flight = Flight { epoch: world.record.epoch, generation, ..Flight::default() };
            // It may have come for something that others have settled meanwhile.
            if world.record.unsettled.is_some() || world.wants(index) {
                Phase::Announces(flight)
            } else {
                Phase::ClosesUnsent(flight)
            }
        }
    }
}

fn publishes(world: &mut World, index: usize, flight: Flight, mint: Mint, way: Way, broken: BrokenRule) -> Phase {
    let Flight { epoch, generation, .. } = flight;
    let asked = Asked::Publish { node: id(index), epoch, generation, value: mint };
    let Some(outcome) = ask(world, asked, way, broken) else {
        return Phase::LooksForItsValue(flight, mint);
    };
    if outcome != OpOutcome::Done {
        world.adopt(index, broken);
        return Phase::Idle;
    }
    let node = &mut world.nodes[index];
    if node.generation > generation {
        return Phase::Idle;
    }
    // It has taken over another node's meanwhile, which the store has forgotten.
    let taken_over = node.generation == generation && node.value != mint;
    (node.generation, node.value) = (generation, mint);
    if taken_over {
        return Phase::Doubts { generation };
    }
    Phase::Idle
}

fn closes(world: &mut World, index: usize, flight: Flight, ended: CallEnd, way: Way, broken: BrokenRule) -> Phase {
    let phase = world.nodes[index].phase;
    match ask(world, Asked::Close { node: id(index), epoch: flight.epoch, ended }, way, broken) {
        None if !world.prompt => phase,
        Some(_) | None => Phase::Idle,
    }
}

fn lost(world: &mut World, index: usize, call: (Flight, Request, bool), way: Way, broken: BrokenRule) -> Phase {
    let (flight, request, again) = call;
    let phase = world.nodes[index].phase;
    let asked = Asked::Close { node: id(index), epoch: flight.epoch, ended: CallEnd::Lost };
    let repeats = !world.prompt && !flight.over && !again && broken != BrokenRule::RefusedLostIsNotRepeated;
    let repeats_unheard = !world.prompt && broken != BrokenRule::LostIsSaidOnce;
    match ask(world, asked, way, broken) {
        None if repeats_unheard => Phase::LooksForItsClose(flight, request),
        // The lease that would have kept others from calling until this call is over is gone before its time.
        Some(OpOutcome::Rejected) if repeats => Phase::ClosesLost(flight, request, true),
        Some(_) | None => {
            orphan(world, &phase);
            Phase::Idle
        }
    }
}

/// Nothing more goes wrong, and everybody goes on in turn: one thing each.
pub fn round(world: &World, broken: BrokenRule) -> World {
    let mut world = world.clone();
    if world.limbo.is_some() {
        world = after(&world, Event::Arrive, broken);
    }
    while !world.orphans.is_empty() {
        world = after(&world, Event::MintForNobody(0), broken);
    }
    for index in 0..world.nodes.len() {
        if world.nodes[index].up {
            go_on(&mut world, index, broken);
        }
    }
    if lease_may_end(&world) {
        world = after(&world, Event::LeaseEnds, broken);
    }
    world
}

fn go_on(world: &mut World, index: usize, broken: BrokenRule) {
    let event = match world.nodes[index].phase {
        Phase::Calls(_, Request::Made(_)) => Event::Deliver(index),
        phase if phase.request() == Some(Request::OnItsWay) => Event::Mint(index),
        Phase::Idle => {
            look(world, index, broken);
            if world.nodes[index].phase != Phase::Idle || !world.wants(index) {
                return;
            }
            Event::Step(index, Way::Heard)
        }
        _ => Event::Step(index, Way::Heard),
    };
    *world = after(world, event, broken);
}
