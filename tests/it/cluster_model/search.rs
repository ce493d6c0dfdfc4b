//! Every world that can be reached, breadth first, and what must hold in each.

use std::collections::HashSet;
use std::fmt::Write;
use std::hash::{BuildHasher, Hash};

use super::broken_rules::BrokenRule;
use super::steps::{Bounds, Event, after, events, round};
use super::world::{ADVERSE, Adverse, Node, Phase, World};

/// Calls more than renewals, at most, for each thing that goes wrong.
pub const EXTRA: [(Adverse, u8); ADVERSE.len()] = [
    (Adverse::Crash, 1),
    (Adverse::Lost, 1),
    (Adverse::Rejected, 0),
    (Adverse::Pause, 2),
    (Adverse::Unheard, 1),
    (Adverse::Stray, 1),
    (Adverse::Flush, 3),
    (Adverse::Failover, 3),
];

/// What has been seen on the way.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub worlds: usize,
    pub steps: usize,
    /// The most calls above the renewals, where nothing but this has gone wrong, once.
    pub extra: [u8; ADVERSE.len()],
    /// How far the record's value was behind WeChat, by the number of things gone wrong; no lost memory.
    pub behind: Vec<u8>,
    /// Calls that became unknown to everybody; see [`World::is_accounted_for`].
    pub unaccounted: usize,
}

/// The shortest way to a world in which something does not hold.
pub struct Found {
    pub what: &'static str,
    pub story: String,
}

struct Search {
    bounds: Bounds,
    broken: BrokenRule,
    hasher: foldhash::fast::FixedState,
    known: HashSet<u64>,
    /// Worlds that come to rest.
    rests: HashSet<u64>,
    /// From which world, by its place here, and by what.
    from: Vec<(u32, Event)>,
    seen: Seen,
}

/// Everything within these bounds.
pub fn search(bounds: Bounds, broken: BrokenRule) -> Result<Seen, Found> {
    let mut search = Search {
        bounds,
        broken,
        hasher: foldhash::fast::FixedState::default(),
        known: HashSet::new(),
        rests: HashSet::new(),
        from: Vec::new(),
        seen: Seen::default(),
    };
    let first = World::new(bounds.nodes, bounds.warm, bounds.prompt).canonical();
    search.known.insert(search.hash(&first));
    search.from.push((0, Event::Copy));
    let mut layer = vec![(0, first)];
    while !layer.is_empty() {
        let mut next = Vec::new();
        for (place, world) in &layer {
            search.go_on(*place, world, &mut next)?;
        }
        layer = next;
    }
    search.seen.worlds = search.known.len();
    Ok(search.seen)
}

impl Search {
    fn hash(&self, world: &impl Hash) -> u64 {
        self.hasher.hash_one(world)
    }

    fn go_on(&mut self, place: u32, world: &World, next: &mut Vec<(u32, World)>) -> Result<(), Found> {
        for event in events(world, self.bounds, self.broken) {
            let then = after(world, event, self.broken);
            self.seen.steps += 1;
            if let Some(what) = judge_step(world, event, &then) {
                return Err(self.tell(what, place, Some(event)));
            }
            let then = then.canonical();
            let hash = self.hash(&then);
            if !self.known.insert(hash) {
                continue;
            }
            let here = self.from.len() as u32;
            self.from.push((place, event));
            if let Some(what) = self.judge(&then) {
                return Err(self.tell(what, here, None));
            }
            next.push((here, then));
        }
        Ok(())
    }

    fn judge(&mut self, world: &World) -> Option<&'static str> {
        self.note(world);
        if let Some(what) = judge(world) {
            return Some(what);
        }
        if !world.is_accounted_for() {
            self.seen.unaccounted += 1;
            return None;
        }
        self.comes_to_rest(world)
    }

    /// Where nothing is unknown to everybody, it is enough that everybody goes on.
    fn comes_to_rest(&mut self, world: &World) -> Option<&'static str> {
        let mut world = world.clone();
        let mut way = Vec::new();
        for _ in 0..60 {
            let hash = self.hash(&world);
            if self.rests.contains(&hash) {
                break;
            }
            way.push(hash);
            let then = round(&world, self.broken).canonical();
            if then == world {
                if !world.is_at_rest() {
                    return Some("it comes to rest, and not everybody has the latest token");
                }
                break;
            }
            world = then;
        }
        if way.len() == 60 {
            return Some("it does not come to rest");
        }
        self.rests.extend(way);
        None
    }

    fn note(&mut self, world: &World) {
        let adverse = usize::from(world.adverse_events());
        if adverse == 1 {
            let which = world.adverse.iter().position(|count| *count > 0).unwrap_or(0);
            let extra = world.minted.saturating_sub(world.renewals);
            self.seen.extra[which] = self.seen.extra[which].max(extra);
        }
        if world.store_faults() == 0 {
            let behind = world.minted - world.record.value.unwrap_or(0);
            let most = &mut self.seen.behind;
            most.resize(most.len().max(adverse + 1), 0);
            most[adverse] = most[adverse].max(behind);
        }
    }

    fn tell(&self, what: &'static str, mut place: u32, last: Option<Event>) -> Found {
        let mut way: Vec<Event> = last.into_iter().collect();
        while place > 0 {
            let (from, event) = self.from[place as usize];
            way.push(event);
            place = from;
        }
        let mut world = World::new(self.bounds.nodes, self.bounds.warm, self.bounds.prompt).canonical();
        let mut story = String::new();
        for event in way.into_iter().rev() {
            world = after(&world, event, self.broken).canonical();
            let _ = writeln!(story, "{event:?}\n    {:?}, value {:?}", world.record, world.record.value);
            for node in &world.nodes {
                let _ = writeln!(story, "    {node:?}");
            }
            let _ = writeln!(
                story,
                "    {} made, {:?}, {:?}, {:?}",
                world.minted, world.limbo, world.orphans, world.adverse
            );
        }
        Found { what, story }
    }
}

fn judge_step(world: &World, event: Event, then: &World) -> Option<&'static str> {
    let restarted = |index: usize| matches!(event, Event::Restart { node, .. } if node == index);
    for (index, (before, after)) in world.nodes.iter().zip(&then.nodes).enumerate() {
        if after.generation < before.generation && !restarted(index) {
            return Some("a node goes back to a lower generation");
        }
    }
    for (before, after) in world.nodes.iter().zip(&then.nodes) {
        if matches!((before.phase, after.phase), (Phase::LooksAtTheClock(_), Phase::Sends(flight)) if flight.over) {
            return Some("a call is sent after its lease although its node has been running");
        }
    }
    let lost_sight = world.is_accounted_for() && !then.is_accounted_for();
    if lost_sight && !may_lose_sight(world, event, then) {
        return Some("a call is unknown to everybody");
    }
    None
}

/// What no store can help against: two things at once, of which the second takes the last that knew.
fn may_lose_sight(world: &World, event: Event, then: &World) -> bool {
    if then.adverse_events() < 2 {
        return false;
    }
    match event {
        // Its call was sent when the lease was over, or the store has forgotten its mark, or its token.
        Event::Crash(index) => {
            let node = &world.nodes[index];
            node.phase.flight().is_some_and(|flight| flight.late || flight.robbed)
                || (world.store_faults() > 0 && node.value == world.minted)
        }
        Event::Flush | Event::Failover => true,
        _ => false,
    }
}

fn judge(world: &World) -> Option<&'static str> {
    let on_their_way = world.nodes.iter().filter(|node| node.phase.is_on_its_way_in_time()).count()
        + world.orphans.iter().filter(|orphan| !orphan.late).count();
    if world.store_faults() == 0 && on_their_way > 1 {
        return Some("two calls at once, both sent in time");
    }
    let allowed: u8 = EXTRA.iter().map(|(adverse, extra)| world.counted(*adverse) * extra).sum();
    if world.minted > world.renewals + allowed {
        return Some("more calls than renewals and things gone wrong account for");
    }
    (world.store_faults() == 0 && serves_a_dead_token(world)).then_some("a token that is two behind is thought good")
}

/// A node serves what two later tokens have ended, knows all that the record says, and nobody is at it.
fn serves_a_dead_token(world: &World) -> bool {
    let late = |phase: &Phase| phase.flight().is_some_and(|flight| flight.late || flight.over);
    let at_it = world.record.unsettled.is_some()
        || world.nodes.iter().any(|node| node.up && late(&node.phase) && node.phase.request().is_some());
    let settled = |node: &&Node| node.up && node.value > 0 && node.generation >= world.record.generation;
    !at_it && world.is_accounted_for() && world.nodes.iter().filter(settled).any(|node| node.value + 2 <= world.minted)
}
