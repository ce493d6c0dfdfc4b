//! The records that a watcher has still to read, and those it has still to send. Loses no change, however slow the receiver
//! is and however fast changes come, in bounded memory.
//!
//! Pure. Changes of one record are sent in order. A record that finds no room is read again later.

use std::collections::{BTreeSet, VecDeque};

use super::script::StoredRecord;
use crate::cluster::{Moment, Record};

/// The most records that wait to be sent. Further ones are read again when there is room.
const READY_MAX: usize = 512;

/// The queue. Records go by their index among those watched.
pub(super) struct ChangeQueue {
    /// For each record, the number of the last change that was sent or waits to be.
    seqs: Vec<u64>,
    /// They wait to be sent.
    ready: VecDeque<(usize, Record, Moment)>,
    /// They have to be read again.
    dirty: BTreeSet<usize>,
    /// This record and all after it have not been read yet.
    next: usize,
    /// Identifies the sequence of changes that is followed, and the last change known of it.
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

    /// All records have to be read again.
    pub fn read_all(&mut self) {
        self.seqs.fill(0);
        self.ready.clear();
        self.dirty.clear();
        self.next = 0;
    }

    /// The number of the last known change.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Follows the sequence up to that change. False if it is another sequence than before: then all has to be read.
    pub fn follow(&mut self, born: Option<String>, last: u64) -> bool {
        // A sequence that did not exist at the last poll has all changes since.
        let same = (self.born.is_none() || self.born == born) && last >= self.last;
        (self.born, self.last) = (born, last);
        // A higher number than the last change's is forged. It must not make later changes seem older.
        for (index, known) in self.seqs.iter_mut().enumerate().filter(|(_, known)| **known > last) {
            *known = 0;
            self.dirty.insert(index);
        }
        same
    }

    /// Notes the last change of a record.
    pub fn note_change(&mut self, index: usize, seq: u64) {
        if index < self.next && self.seqs.get(index).is_some_and(|known| seq > *known) {
            self.dirty.insert(index);
        }
    }

    /// Has a record read again, because a message about it was not credible.
    pub fn read_again(&mut self, index: usize) {
        if index < self.next && index < self.seqs.len() {
            self.dirty.insert(index);
        }
    }

    /// Adds a record that came in a message. False if it belongs to another sequence.
    pub fn push(&mut self, index: usize, born: &str, stored: StoredRecord, moment: Moment) -> bool {
        if self.born.as_deref().is_some_and(|known| known != born) {
            return false;
        }
        self.born.get_or_insert_with(|| born.to_owned());
        let Some(known) = self.seqs.get_mut(index) else { return true };
        // A record that is still to be read will not be older than this one.
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

    /// The records to read now, at most so many; none while others wait to be sent.
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

    /// Adds a record of the batch.
    pub fn read(&mut self, index: usize, stored: StoredRecord, moment: Moment) {
        if let Some(known) = self.seqs.get_mut(index) {
            *known = stored.seq;
            self.ready.push_back((index, stored.record, moment));
        }
    }

    /// The next record to send.
    pub fn pop(&mut self) -> Option<(usize, Record, Moment)> {
        self.ready.pop_front()
    }

    /// True if a record waits to be sent.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// True if a batch would not be empty.
    pub fn needs_reading(&self) -> bool {
        self.ready.is_empty() && !self.is_empty()
    }

    /// True if nothing is left to read or to send.
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
