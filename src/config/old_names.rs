//! Names that settings had before. They are still read; the start and `check` say once for each what to write.

use super::fault::Place;

/// The old names that are in use, each where it was seen first.
#[derive(Default)]
pub(super) struct OldNames(Vec<(String, String, Place)>);

impl OldNames {
    /// A value stands under its old name alone.
    pub fn used(&mut self, old: String, new: String, place: &Place) {
        if self.0.iter().all(|(known, ..)| *known != old) {
            self.0.push((old, new, place.clone()));
        }
    }

    /// A sentence for each.
    pub fn notices(self) -> Vec<String> {
        let notice = |(old, new, place)| format!("{place}: {old} is an old name, still read: write {new}");
        self.0.into_iter().map(notice).collect()
    }
}
