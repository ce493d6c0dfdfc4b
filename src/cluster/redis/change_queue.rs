//! What a watcher has yet to read and to hand on, so that nothing is lost however slow it is and however fast changes
//! come, in bounded memory.
//!
//! Pure. Each record is handed on in the order of its changes; one that cannot be kept is read again later.

use std::collections::{BTreeSet, VecDeque};

use super::script::StoredRecord;
use crate::cluster::{Moment, Record};

/// More than so many records are not kept, but read again when there is room.
const READY_MAX: usize = 512;

/// Of the records that are watched, by their indices.
pub(super) struct ChangeQueue {
    /// The change that was handed on last, or is about to be.
    seqs: Vec<u64>,
    ready: VecDeque<(usize, Record, Moment)>,
    dirty: BTreeSet<usize>,
    /// This one and all after it are to be read.
    next: usize,
    /// The sequence that is followed, and how far.
    born: Option<String>,
    last: u64,
}

impl ChangeQueue {
    pub fn new(records: usize) -> ChangeQueue {
        ChangeQueue {
            seqs: vec![0; records],
            ready: VecDeque::new(),
            dirty: BTreeSet::new(),
            next: 0,
            born: None,
            last: 0,
        }
    }

    /// Everything is to be read again: what was known may be of another time.
    pub fn read_all(&mut self) {
        self.seqs.fill(0);
        self.ready.clear();
        self.dirty.clear();
        self.next = 0;
    }

    /// How far changes have been followed.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The sequence is at that now; false if it is not the one that was followed, so that all is to be read.
    pub fn follow(&mut self, born: Option<String>, last: u64) -> bool {
        // One that was born since the last look has all changes since then.
        let same = (self.born.is_none() || self.born == born) && last >= self.last;
        (self.born, self.last) = (born, last);
        // No change can have had such a number; somebody has written it. Later ones must not seem older.
        for (index, known) in self.seqs.iter_mut().enumerate().filter(|(_, known)| **known > last) {
            *known = 0;
            self.dirty.insert(index);
        }
        same
    }

    /// That is the last change of a record.
    pub fn note_change(&mut self, index: usize, seq: u64) {
        if index < self.next && self.seqs.get(index).is_some_and(|known| seq > *known) {
            self.dirty.insert(index);
        }
    }

    /// What has come of a record is not believed: it is read.
    pub fn read_again(&mut self, index: usize) {
        if index < self.next && index < self.seqs.len() {
            self.dirty.insert(index);
        }
    }

    /// A changed record has come by itself. False if it belongs to another sequence than is followed.
    pub fn push(&mut self, index: usize, born: &str, stored: StoredRecord, moment: Moment) -> bool {
        if self.born.as_deref().is_some_and(|known| known != born) {
            return false;
        }
        self.born.get_or_insert_with(|| born.to_owned());
        let Some(known) = self.seqs.get_mut(index) else { return true };
        // One that is still to be read is not older then.
        if index >= self.next || stored.seq <= *known {
            return true;
        }
        if self.ready.len() >= READY_MAX || self.dirty.contains(&index) {
            self.dirty.insert(index);
        } else {
            *known = stored.seq;
            self.ready.push_back((index, stored.record, moment));
        }
        true
    }

    /// Which are to be read now, at most so many. None as long as others are to be handed on.
    pub fn batch(&mut self, most: usize) -> Vec<usize> {
        if !self.ready.is_empty() {
            return Vec::new();
        }
        let mut batch = Vec::new();
        while batch.len() < most
            && let Some(index) = self.dirty.pop_first()
        {
            batch.push(index);
        }
        let end = self.seqs.len().min(self.next + most - batch.len());
        batch.extend(self.next..end);
        self.next = end;
        batch
    }

    /// One of them has been read.
    pub fn read(&mut self, index: usize, stored: StoredRecord, moment: Moment) {
        if let Some(known) = self.seqs.get_mut(index) {
            *known = stored.seq;
            self.ready.push_back((index, stored.record, moment));
        }
    }

    /// The next to be handed on.
    pub fn pop(&mut self) -> Option<(usize, Record, Moment)> {
        self.ready.pop_front()
    }

    /// There is something to be handed on.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// A batch would have something.
    pub fn wants_reading(&self) -> bool {
        self.ready.is_empty() && !self.is_empty()
    }

    /// All that is known of has been handed on.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.dirty.is_empty() && self.next == self.seqs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Moment = Moment { store_ms: 1, sent_ms: 1, received_ms: 1 };

    fn stored(seq: u64) -> StoredRecord {
        StoredRecord { record: Record { generation: seq, ..Record::default() }, seq, bad: None }
    }

    /// Reads a batch as Redis would give it.
    fn read(change_queue: &mut ChangeQueue, now: &[u64]) -> Vec<(usize, u64)> {
        for index in change_queue.batch(2) {
            change_queue.read(index, stored(now[index]), MOMENT);
        }
        std::iter::from_fn(|| change_queue.pop()).map(|(index, record, _)| (index, record.generation)).collect()
    }

    #[test]
    fn all_are_read_once_and_then_what_changes() {
        let mut change_queue = ChangeQueue::new(3);
        assert!(change_queue.follow(Some("a".into()), 7));
        assert!(change_queue.push(2, "a", stored(8), MOMENT), "one that is still to be read needs no more");
        assert_eq!(read(&mut change_queue, &[0, 7, 8]), [(0, 0), (1, 7)]);
        assert_eq!(read(&mut change_queue, &[0, 7, 8]), [(2, 8)]);
        assert!(change_queue.is_empty());
        change_queue.push(1, "a", stored(9), MOMENT);
        change_queue.push(1, "a", stored(9), MOMENT);
        change_queue.note_change(1, 9);
        change_queue.note_change(0, 10);
        assert_eq!(change_queue.pop().map(|(index, record, _)| (index, record.generation)), Some((1, 9)));
        assert_eq!(read(&mut change_queue, &[11, 9, 8]), [(0, 11)], "whose message was lost");
        change_queue.push(0, "a", stored(10), MOMENT);
        assert!(change_queue.is_empty(), "a message that comes after a later state was read");
    }

    #[test]
    fn a_slow_reader_costs_no_memory_and_misses_nothing() {
        let mut change_queue = ChangeQueue::new(2 * READY_MAX);
        assert!(change_queue.follow(Some("a".into()), 0));
        while !change_queue.is_empty() {
            read(&mut change_queue, &vec![0; 2 * READY_MAX]);
        }
        let mut now = vec![0; 2 * READY_MAX];
        for (seq, index) in (0..4 * READY_MAX).map(|at| at % (2 * READY_MAX)).enumerate() {
            now[index] = seq as u64 + 1;
            change_queue.push(index, "a", stored(now[index]), MOMENT);
        }
        assert!(change_queue.ready.len() <= READY_MAX);
        let mut seen = vec![0; now.len()];
        while !change_queue.is_empty() {
            for (index, generation) in
                std::iter::from_fn(|| change_queue.pop()).map(|(at, record, _)| (at, record.generation))
            {
                assert!(generation > seen[index], "in order");
                seen[index] = generation;
            }
            for (index, generation) in read(&mut change_queue, &now) {
                assert!(generation >= seen[index]);
                seen[index] = generation;
            }
        }
        assert_eq!(seen, now);
    }

    #[test]
    fn a_number_that_no_change_can_have_had_hides_none() {
        let mut change_queue = ChangeQueue::new(1);
        assert!(change_queue.follow(Some("a".into()), 3));
        assert_eq!(read(&mut change_queue, &[999]), [(0, 999)]);
        change_queue.push(0, "a", stored(4), MOMENT);
        assert!(change_queue.follow(Some("a".into()), 4));
        assert_eq!(read(&mut change_queue, &[4]), [(0, 4)]);
        change_queue.push(0, "a", stored(5), MOMENT);
        assert_eq!(change_queue.pop().map(|(_, record, _)| record.generation), Some(5));
    }

    #[test]
    fn another_sequence_is_noticed() {
        let mut change_queue = ChangeQueue::new(1);
        assert!(change_queue.follow(None, 0) && change_queue.follow(Some("a".into()), 3));
        assert!(!change_queue.push(0, "b", stored(9), MOMENT));
        assert!(change_queue.follow(Some("a".into()), 3));
        assert!(!change_queue.follow(Some("a".into()), 2), "an older copy");
        assert!(!change_queue.follow(None, 0), "emptied");
        assert!(change_queue.follow(Some("b".into()), 5));
        assert!(!change_queue.follow(Some("c".into()), 9), "emptied, and already ahead");
    }
}
