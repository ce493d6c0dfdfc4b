//! Names that settings had before. They are still read; the start and `check` say once for each what to write.

use super::reader::RawTable;
use crate::raw_value::Place;

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

    /// Whoever turned the HTTP API on under the old name of its section has dashboards that know the old metrics.
    pub fn of_metrics(&self, http: &RawTable) -> Option<String> {
        let listen = http.section.find("listen")?;
        let (header, variable) = (format!("[{}]", http.section.old_name), http.section.old_variable(listen));
        let is_used = |name: &String| self.0.iter().any(|(old, ..)| old == name);
        let (here, remedy) = http.all().filter(|(key, _)| *key == listen.key).find_map(|(_, given)| {
            let remedy = match &given.place {
                Place::Line { .. } if is_used(&header) => "old_metric_names = true beside listen",
                Place::Environment(name) if variable.as_ref() == Some(name) => "TOKENCACHED_HTTP_OLD_METRIC_NAMES=true",
                _ => return None,
            };
            Some((&given.place, remedy))
        })?;
        let is_chosen = http.has("old_metric_names");
        (!is_chosen).then(|| format!("{here}: metrics have new names; {remedy} gives those of before"))
    }

    /// A sentence for each.
    pub fn notices(self) -> Vec<String> {
        let notice = |(old, new, place)| format!("{place}: {old} is an old name, still read: write {new}");
        self.0.into_iter().map(notice).collect()
    }
}
