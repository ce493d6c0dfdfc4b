//! What a sink does next: changes first, then items to write again, then checks.
//!
//! Pure.

use std::collections::BTreeSet;

/// Items by their index. An item that is under way is not taken again before it is finished.
#[derive(Default)]
pub(super) struct WriteQueue {
    /// To write at once.
    changed: BTreeSet<usize>,
    /// To write again when nothing has changed.
    stale: BTreeSet<usize>,
    /// To check when nothing is to be written.
    checks: BTreeSet<usize>,
    under_way: BTreeSet<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Write,
    Check,
}

impl WriteQueue {
    pub fn add_changed(&mut self, index: usize) {
        self.stale.remove(&index);
        self.changed.insert(index);
    }

    pub fn add_stale(&mut self, index: usize) {
        if !self.changed.contains(&index) {
            self.stale.insert(index);
        }
    }

    pub fn add_all_stale(&mut self, count: usize) {
        (0..count).for_each(|index| self.add_stale(index));
    }

    pub fn add_check(&mut self, index: usize) {
        self.checks.insert(index);
    }

    pub fn drop_checks(&mut self) {
        self.checks.clear();
    }

    /// Takes the next item, which is under way from now on. Its value is read after this: a later change queues it again.
    pub fn take(&mut self) -> Option<(usize, Task)> {
        let WriteQueue { changed, stale, checks, under_way } = self;
        let free = |of: &BTreeSet<usize>| of.iter().copied().find(|index| !under_way.contains(index));
        let (index, task) = match (free(changed).or_else(|| free(stale)), free(checks)) {
            (Some(index), _) => (index, Task::Write),
            (None, Some(index)) => (index, Task::Check),
            (None, None) => return None,
        };
        if task == Task::Write {
            changed.remove(&index);
            stale.remove(&index);
        }
        // A write checks too.
        checks.remove(&index);
        under_way.insert(index);
        Some((index, task))
    }

    pub fn has_next(&self) -> bool {
        let WriteQueue { changed, stale, checks, under_way } = self;
        changed.iter().chain(stale).chain(checks).any(|index| !under_way.contains(index))
    }

    pub fn waiting(&self) -> usize {
        self.changed.len() + self.stale.len()
    }

    /// Queues the items under way again, because their jobs were dropped.
    pub fn requeue_under_way(&mut self) {
        for index in std::mem::take(&mut self.under_way) {
            self.add_changed(index);
        }
    }

    pub fn finish(&mut self, index: usize) {
        self.under_way.remove(&index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_comes_before_what_is_written_again_and_that_before_a_look() {
        let mut queue = WriteQueue::default();
        queue.add_check(9);
        queue.add_all_stale(2);
        queue.add_changed(1);
        queue.add_changed(7);
        let all: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(all, [(1, Task::Write), (7, Task::Write), (0, Task::Write), (9, Task::Check)]);
    }

    #[test]
    fn what_is_given_up_is_still_to_be_done() {
        let mut queue = WriteQueue::default();
        queue.add_all_stale(2);
        assert_eq!((queue.take(), queue.waiting(), queue.has_next()), (Some((0, Task::Write)), 1, true));
        queue.add_stale(0);
        assert_eq!(queue.take(), Some((1, Task::Write)));
        assert_eq!((queue.waiting(), queue.has_next()), (1, false), "it waits until it is done");
        queue.requeue_under_way();
        assert_eq!((queue.waiting(), queue.has_next()), (2, true));
    }

    #[test]
    fn what_changes_while_it_is_written_is_written_again_afterwards() {
        let mut queue = WriteQueue::default();
        queue.add_changed(1);
        assert_eq!(queue.take(), Some((1, Task::Write)));
        queue.add_changed(1);
        queue.add_check(1);
        assert_eq!(queue.take(), None);
        queue.finish(1);
        assert_eq!(queue.take(), Some((1, Task::Write)));
    }
}
