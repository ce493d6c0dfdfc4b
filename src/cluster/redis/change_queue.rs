//! The records that a watcher has still to read, and those it has still to send. Loses no change, however slow the receiver
//! is and however fast changes come, in bounded memory.
//!
//! Pure. Changes of one record are sent in order. A record that finds no room is read again later.

use std::collections::{BTreeSet, VecDeque};

use super::script::StoredRecord;
use crate::cluster::{Record, StoreClockReading};

/// The most records that wait to be sent. Further ones are read again when there is room.
const READY_MAX: usize = 512;

/// The queue. Records go by their index among those watched.
pub(super) struct ChangeQueue {
    /// For each record, the number of the last change that was sent or waits to be.
    last_seqs: Vec<u64>,
    ready: VecDeque<(usize, Record, StoreClockReading)>,
    dirty: BTreeSet<usize>,
    /// This record and all after it have not been read yet.
    first_unread: usize,
    /// Identifies the sequence of changes that is followed (the Redis calls it `born`), and its last known change.
    sequence_id: Option<String>,
    last: u64,
}

impl ChangeQueue {
    pub fn new(records: usize) -> ChangeQueue {
        ChangeQueue {
            last_seqs: vec![0; records],
            ready: VecDeque::new(),
            dirty: BTreeSet::new(),
            first_unread: 0,
            sequence_id: None,
            last: 0,
        }
    }

    pub fn read_all(&mut self) {
        self.last_seqs.fill(0);
        self.ready.clear();
        self.dirty.clear();
        self.first_unread = 0;
    }

    pub fn last(&self) -> u64 {
        self.last
    }

    /// Follows the sequence up to that change. False if it is another sequence than before: then all has to be read.
    pub fn follow(&mut self, sequence_id: Option<String>, last: u64) -> bool {
        // A sequence that did not exist at the last poll has all changes since.
        let same = (self.sequence_id.is_none() || self.sequence_id == sequence_id) && last >= self.last;
        (self.sequence_id, self.last) = (sequence_id, last);
        // A higher number than the last change's is forged. It must not make later changes seem older.
        for (index, known) in self.last_seqs.iter_mut().enumerate().filter(|(_, known)| **known > last) {
            *known = 0;
            self.dirty.insert(index);
        }
        same
    }

    /// Has a record read again if that change, by its number, is a later one.
    pub fn note_change(&mut self, index: usize, seq: u64) {
        if index < self.first_unread && self.last_seqs.get(index).is_some_and(|known| seq > *known) {
            self.dirty.insert(index);
        }
    }

    /// Adds a record that came in a message. False if it belongs to another sequence.
    pub fn push(
        &mut self,
        index: usize,
        sequence_id: &str,
        stored: StoredRecord,
        clock_reading: StoreClockReading,
    ) -> bool {
        if self.sequence_id.as_deref().is_some_and(|known| known != sequence_id) {
            return false;
        }
        self.sequence_id.get_or_insert_with(|| sequence_id.to_owned());
        let Some(known) = self.last_seqs.get_mut(index) else { return true };
        // A record that is still to be read will not be older than this one.
        if index >= self.first_unread || stored.seq <= *known {
            return true;
        }
        if self.ready.len() >= READY_MAX || self.dirty.contains(&index) {
            self.dirty.insert(index);
        } else {
            *known = stored.seq;
            self.ready.push_back((index, stored.record, clock_reading));
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
        let end = self.last_seqs.len().min(self.first_unread + most - batch.len());
        batch.extend(self.first_unread..end);
        self.first_unread = end;
        batch
    }

    pub fn read(&mut self, index: usize, stored: StoredRecord, clock_reading: StoreClockReading) {
        if let Some(known) = self.last_seqs.get_mut(index) {
            *known = stored.seq;
            self.ready.push_back((index, stored.record, clock_reading));
        }
    }

    pub fn pop(&mut self) -> Option<(usize, Record, StoreClockReading)> {
        self.ready.pop_front()
    }

    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// True if a batch would not be empty.
    pub fn needs_reading(&self) -> bool {
        self.ready.is_empty() && !self.is_empty()
    }

    /// True if nothing is left to read or to send.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.dirty.is_empty() && self.first_unread == self.last_seqs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK_READING: StoreClockReading = StoreClockReading { store_ms: 1, sent_ms: 1, received_ms: 1 };

    fn stored(seq: u64) -> StoredRecord {
        StoredRecord { record: Record { generation: seq, ..Record::default() }, seq, bad: None }
    }

    /// Reads a batch as Redis would give it.
    fn read(change_queue: &mut ChangeQueue, now: &[u64]) -> Vec<(usize, u64)> {
        for index in change_queue.batch(2) {
            change_queue.read(index, stored(now[index]), CLOCK_READING);
        }
        std::iter::from_fn(|| change_queue.pop()).map(|(index, record, _)| (index, record.generation)).collect()
    }

    #[test]
    fn all_are_read_once_and_then_what_changes() {
        let mut change_queue = ChangeQueue::new(3);
        assert!(change_queue.follow(Some("a".into()), 7));
        assert!(change_queue.push(2, "a", stored(8), CLOCK_READING), "one that is still to be read needs no more");
        assert_eq!(read(&mut change_queue, &[0, 7, 8]), [(0, 0), (1, 7)]);
        assert_eq!(read(&mut change_queue, &[0, 7, 8]), [(2, 8)]);
        assert!(change_queue.is_empty());
        change_queue.push(1, "a", stored(9), CLOCK_READING);
        change_queue.push(1, "a", stored(9), CLOCK_READING);
        change_queue.note_change(1, 9);
        change_queue.note_change(0, 10);
        assert_eq!(change_queue.pop().map(|(index, record, _)| (index, record.generation)), Some((1, 9)));
        assert_eq!(read(&mut change_queue, &[11, 9, 8]), [(0, 11)], "whose message was lost");
        change_queue.push(0, "a", stored(10), CLOCK_READING);
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
            change_queue.push(index, "a", stored(now[index]), CLOCK_READING);
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
        change_queue.push(0, "a", stored(4), CLOCK_READING);
        assert!(change_queue.follow(Some("a".into()), 4));
        assert_eq!(read(&mut change_queue, &[4]), [(0, 4)]);
        change_queue.push(0, "a", stored(5), CLOCK_READING);
        assert_eq!(change_queue.pop().map(|(_, record, _)| record.generation), Some(5));
    }

    #[test]
    fn another_sequence_is_noticed() {
        let mut change_queue = ChangeQueue::new(1);
        assert!(change_queue.follow(None, 0) && change_queue.follow(Some("a".into()), 3));
        assert!(!change_queue.push(0, "b", stored(9), CLOCK_READING));
        assert!(change_queue.follow(Some("a".into()), 3));
        assert!(!change_queue.follow(Some("a".into()), 2), "an older copy");
        assert!(!change_queue.follow(None, 0), "emptied");
        assert!(change_queue.follow(Some("b".into()), 5));
        assert!(!change_queue.follow(Some("c".into()), 9), "emptied, and already ahead");
    }
}
