//! What a sink has to do next: changes first, then what is written again, then looks. Pure.

use std::collections::BTreeSet;

/// Items by their index. An item that is under way is not handed out a second time before it is done.
#[derive(Default)]
pub(super) struct Queue {
    /// Written at once.
    changed: BTreeSet<usize>,
    /// Written when nothing has changed.
    stale: BTreeSet<usize>,
    /// Looked at when nothing is to be written.
    looks: BTreeSet<usize>,
    under_way: BTreeSet<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Write,
    Look,
}

impl Queue {
    pub fn changed(&mut self, index: usize) {
        self.stale.remove(&index);
        self.changed.insert(index);
    }

    pub fn stale(&mut self, index: usize) {
        if !self.changed.contains(&index) {
            self.stale.insert(index);
        }
    }

    pub fn all_stale(&mut self, count: usize) {
        (0..count).for_each(|index| self.stale(index));
    }

    pub fn look(&mut self, index: usize) {
        self.looks.insert(index);
    }

    pub fn forget_looks(&mut self) {
        self.looks.clear();
    }

    /// The next, under way from now on. The value is read after this: a change from now on makes it changed again.
    pub fn take(&mut self) -> Option<(usize, Task)> {
        let Queue { changed, stale, looks, under_way } = self;
        let free = |of: &BTreeSet<usize>| of.iter().copied().find(|index| !under_way.contains(index));
        let (index, task) = match (free(changed).or_else(|| free(stale)), free(looks)) {
            (Some(index), _) => (index, Task::Write),
            (None, Some(index)) => (index, Task::Look),
            (None, None) => return None,
        };
        if task == Task::Write {
            changed.remove(&index);
            stale.remove(&index);
        }
        // Whoever writes looks.
        looks.remove(&index);
        under_way.insert(index);
        Some((index, task))
    }

    /// Whether there is one to be handed out.
    pub fn has_next(&self) -> bool {
        let Queue { changed, stale, looks, under_way } = self;
        changed.iter().chain(stale).chain(looks).any(|index| !under_way.contains(index))
    }

    /// How many wait to be written.
    pub fn waiting(&self) -> usize {
        self.changed.len() + self.stale.len()
    }

    /// What was under way has been given up: it is still to be done.
    pub fn give_up(&mut self) {
        for index in std::mem::take(&mut self.under_way) {
            self.changed(index);
        }
    }

    pub fn done(&mut self, index: usize) {
        self.under_way.remove(&index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_comes_before_what_is_written_again_and_that_before_a_look() {
        let mut queue = Queue::default();
        queue.look(9);
        queue.all_stale(2);
        queue.changed(1);
        queue.changed(7);
        let all: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(all, [(1, Task::Write), (7, Task::Write), (0, Task::Write), (9, Task::Look)]);
    }

    #[test]
    fn what_changes_while_it_is_written_is_written_again_afterwards() {
        let mut queue = Queue::default();
        queue.changed(1);
        assert_eq!(queue.take(), Some((1, Task::Write)));
        queue.changed(1);
        queue.look(1);
        assert_eq!(queue.take(), None);
        queue.done(1);
        assert_eq!(queue.take(), Some((1, Task::Write)));
    }
}
