//! What stands where sinks write, before the first write of ours: for `adopt`. Never writes.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};

use super::Sink;
use super::item::Entry;
use super::target::Target;
use crate::credential::adopt::{Source, Stored};
use crate::credential::table::CredentialId;

/// Where the sinks write a credential, to be read before the first write of ours; none without such a sink.
pub fn source(sinks: &[Sink], id: CredentialId) -> Option<Arc<dyn Source>> {
    let place = |sink: &Sink| {
        let item = sink.items.iter().find(|item| item.credential.id == id)?;
        Some(Origin { spoken: sink.config.to_string(), target: sink.target.clone(), entries: item.entries.clone() })
    };
    let places: Vec<Origin> = sinks.iter().filter_map(place).collect();
    (!places.is_empty()).then(|| Arc::new(Origins(places)) as Arc<dyn Source>)
}

/// What one sink has of a credential.
struct Origin {
    spoken: String,
    target: Arc<dyn Target>,
    entries: Arc<[Entry]>,
}

struct Origins(Vec<Origin>);

impl Source for Origins {
    fn place(&self) -> String {
        let places: Vec<String> = self.0.iter().map(|place| format!("the sink {}", place.spoken)).collect();
        places.join(", ")
    }

    fn read(&self) -> BoxFuture<'_, Result<Vec<Stored>, String>> {
        async {
            let mut stored = Vec::new();
            for Origin { target, entries, .. } in &self.0 {
                target.open().await.map_err(|fault| fault.to_string())?;
                let found = target.read(entries).await.map_err(|fault| fault.to_string())?;
                let found = found.ok_or_else(|| "it cannot be read".to_owned())?;
                stored.extend(found.into_iter().flatten().map(|bytes| Stored { bytes, ..Stored::default() }));
            }
            Ok(stored)
        }
        .boxed()
    }
}
