//! Textbook policies with a budget in bytes: pure LRU, SIEVE, S3-FIFO. An item costs its key, its value and
//! [`OVERHEAD_BYTES`], as if there were an allocator without loss; expired items leave when they are asked for.

use crate::trace::{Access, KEY_BYTES};

/// A hash, links, an expiry, a length, and a place in a table.
pub const OVERHEAD_BYTES: u64 = 56;
const NIL: u32 = u32::MAX;

pub trait Policy {
    /// A look-up, and a store if it was a miss. True for a hit.
    fn access(&mut self, access: &Access) -> bool;
}

#[derive(Clone, Copy)]
struct Node {
    prev: u32,
    next: u32,
    bytes: u32,
    expires_ms: u32,
    /// Which list: 0 none, 1 the only or small one, 2 the main one.
    list: u8,
    uses: u8,
}

/// All keys there are, by number, and two lists through them.
struct Nodes {
    nodes: Vec<Node>,
    /// Newest, oldest and bytes of each list; the first is not used.
    lists: [(u32, u32, u64); 3],
    budget: u64,
}

impl Nodes {
    fn new(keys: usize, budget: u64) -> Nodes {
        let node = Node { prev: NIL, next: NIL, bytes: 0, expires_ms: 0, list: 0, uses: 0 };
        Nodes { nodes: vec![node; keys], lists: [(NIL, NIL, 0); 3], budget }
    }

    fn node(&mut self, key: u32) -> &mut Node {
        &mut self.nodes[key as usize]
    }

    fn oldest(&self, list: usize) -> u32 {
        self.lists[list].1
    }

    fn used(&self) -> u64 {
        self.lists[1].2 + self.lists[2].2
    }

    fn push(&mut self, list: usize, key: u32) {
        let newest = self.lists[list].0;
        let node = self.node(key);
        (node.prev, node.next, node.list) = (NIL, newest, list as u8);
        let bytes = u64::from(node.bytes);
        match newest {
            NIL => self.lists[list].1 = key,
            newest => self.node(newest).prev = key,
        }
        self.lists[list].0 = key;
        self.lists[list].2 += bytes;
    }

    fn remove(&mut self, key: u32) {
        let Node { prev, next, bytes, list, .. } = *self.node(key);
        let list = usize::from(list);
        match prev {
            NIL => self.lists[list].0 = next,
            prev => self.node(prev).next = next,
        }
        match next {
            NIL => self.lists[list].1 = prev,
            next => self.node(next).prev = prev,
        }
        self.lists[list].2 -= u64::from(bytes);
        self.node(key).list = 0;
    }

    /// Whether it is there; an expired one is taken out.
    fn find(&mut self, access: &Access) -> bool {
        let node = *self.node(access.key);
        if node.list != 0 && node.expires_ms != 0 && node.expires_ms <= access.at_ms {
            self.remove(access.key);
            return false;
        }
        node.list != 0
    }

    fn fill(&mut self, access: &Access) {
        let node = self.node(access.key);
        node.bytes = access.value_bytes + (KEY_BYTES as u64 + OVERHEAD_BYTES) as u32;
        node.expires_ms = access.expires_ms();
        node.uses = 0;
    }
}

pub struct Lru(Nodes);

impl Lru {
    pub fn new(keys: usize, budget: u64) -> Lru {
        Lru(Nodes::new(keys, budget))
    }
}

impl Policy for Lru {
    fn access(&mut self, access: &Access) -> bool {
        let hit = self.0.find(access);
        if hit {
            self.0.remove(access.key);
        } else {
            self.0.fill(access);
        }
        self.0.push(1, access.key);
        while self.0.used() > self.0.budget {
            self.0.remove(self.0.oldest(1));
        }
        hit
    }
}

pub struct Sieve {
    nodes: Nodes,
    hand: u32,
}

impl Sieve {
    pub fn new(keys: usize, budget: u64) -> Sieve {
        Sieve { nodes: Nodes::new(keys, budget), hand: NIL }
    }

    fn leave(&mut self, key: u32) {
        if self.hand == key {
            self.hand = self.nodes.node(key).prev;
        }
        self.nodes.remove(key);
    }
}

impl Policy for Sieve {
    fn access(&mut self, access: &Access) -> bool {
        let node = *self.nodes.node(access.key);
        if node.list != 0 && node.expires_ms != 0 && node.expires_ms <= access.at_ms {
            self.leave(access.key);
        } else if node.list != 0 {
            self.nodes.node(access.key).uses = 1;
            return true;
        }
        self.nodes.fill(access);
        let bytes = u64::from(self.nodes.node(access.key).bytes);
        while self.nodes.used() + bytes > self.nodes.budget {
            let mut key = if self.hand == NIL { self.nodes.oldest(1) } else { self.hand };
            while self.nodes.node(key).uses > 0 {
                self.nodes.node(key).uses = 0;
                let newer = self.nodes.node(key).prev;
                key = if newer == NIL { self.nodes.oldest(1) } else { newer };
            }
            self.hand = key;
            self.leave(key);
        }
        self.nodes.push(1, access.key);
        false
    }
}

/// As in the paper: a tenth for the small queue, two bits of uses, a ghost of as many keys as the main queue holds.
pub struct S3Fifo {
    nodes: Nodes,
    ghosts: std::collections::VecDeque<(u32, u32)>,
    /// The latest entry of a key in the ghost queue; 0 for none.
    ghost_of: Vec<u32>,
    ghost_clock: u32,
    in_main: usize,
}

impl S3Fifo {
    pub fn new(keys: usize, budget: u64) -> S3Fifo {
        let ghosts = std::collections::VecDeque::new();
        S3Fifo { nodes: Nodes::new(keys, budget), ghosts, ghost_of: vec![0; keys], ghost_clock: 0, in_main: 0 }
    }

    fn evict(&mut self) {
        if self.nodes.lists[1].2 * 10 > self.nodes.budget || self.in_main == 0 {
            let key = self.nodes.oldest(1);
            let uses = self.nodes.node(key).uses;
            self.nodes.remove(key);
            if uses > 1 {
                self.nodes.node(key).uses = 0;
                self.nodes.push(2, key);
                self.in_main += 1;
                return;
            }
            self.ghost_clock += 1;
            self.ghost_of[key as usize] = self.ghost_clock;
            self.ghosts.push_back((key, self.ghost_clock));
            while self.ghosts.len() > self.in_main.max(1) {
                if let Some((key, clock)) = self.ghosts.pop_front()
                    && self.ghost_of[key as usize] == clock
                {
                    self.ghost_of[key as usize] = 0;
                }
            }
            return;
        }
        let key = self.nodes.oldest(2);
        let uses = self.nodes.node(key).uses;
        self.nodes.remove(key);
        self.in_main -= 1;
        if uses > 0 {
            self.nodes.node(key).uses -= 1;
            self.nodes.push(2, key);
            self.in_main += 1;
        }
    }
}

impl Policy for S3Fifo {
    fn access(&mut self, access: &Access) -> bool {
        let in_main = self.nodes.node(access.key).list == 2;
        if self.nodes.find(access) {
            let node = self.nodes.node(access.key);
            node.uses = (node.uses + 1).min(3);
            return true;
        }
        if in_main && self.nodes.node(access.key).list == 0 {
            self.in_main -= 1;
        }
        self.nodes.fill(access);
        let bytes = u64::from(self.nodes.node(access.key).bytes);
        while self.nodes.used() + bytes > self.nodes.budget {
            self.evict();
        }
        let main = std::mem::take(&mut self.ghost_of[access.key as usize]) != 0;
        self.in_main += usize::from(main);
        self.nodes.push(if main { 2 } else { 1 }, access.key);
        false
    }
}
