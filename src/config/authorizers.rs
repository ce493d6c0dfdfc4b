//! What is particular to the open platform's apps: `verify_ticket_file`, and `[[app.authorizer]]` below its component,
//! with a refresh token where other apps have a secret.

use std::path::PathBuf;

use super::apps::{Entry, Reader};
use super::fault::Problem;
use super::file::{Document, RawTable};
use super::nodes::Company;
use super::value::{path, quoted};
use super::{App, SecretSource};
use crate::platform::{Platform, component};
use crate::secret::Secret;

/// The one secret thing an app has to bring, and what people call it.
pub(super) struct Wanted {
    /// The key that has it written out; the others begin with it.
    pub key: &'static str,
    pub keys: [&'static str; 4],
    pub noun: &'static str,
    pub one: &'static str,
    pub the: &'static str,
    pub whose: &'static str,
    /// An app's own, which other nodes may have in this one's place.
    pub of_app: bool,
}

pub(super) const SECRET: Wanted = Wanted {
    key: "secret",
    keys: ["secret", "secret_file", "secret_env", "secret_credential"],
    noun: "secret",
    one: "an app",
    the: "the app",
    whose: "the app's secret",
    of_app: true,
};

pub(super) const REFRESH_TOKEN: Wanted = Wanted {
    key: "refresh_token",
    keys: ["refresh_token", "refresh_token_file", "refresh_token_env", "refresh_token_credential"],
    noun: "refresh token",
    one: "an authorizer",
    the: "the authorizer",
    whose: "the authorizer's refresh token",
    of_app: true,
};

impl Wanted {
    /// How to bring it.
    pub fn remedy(&self) -> String {
        let key = self.key;
        let here = format!("Add {key}_file = \"/path\", {key}_env = \"NAME\" or {key}_credential = \"name\"");
        match self.of_app {
            true => {
                format!("{here}; with url or upstream in [state], nodes that have it may keep the app for this one.")
            }
            false => format!("{here}."),
        }
    }
}

/// Refresh tokens that live in memory only are lost with the process.
pub(super) fn needs_state(appid: &str) -> Problem {
    let what = format!(
        "the authorizer {} has a refresh token that WeChat may replace at any renewal, and there is no state file to \
         keep the new one in",
        quoted(appid)
    );
    Problem::new(what, "Set state.path in [state] to a file that survives a restart.")
}

impl Reader<'_> {
    /// An app and the authorizers below it, in that order. Authorizers of an app that is at fault are judged too.
    pub(super) fn app_and_authorizers(&mut self, mut raw: RawTable, document: &Document) -> Vec<Entry> {
        let platform = self.platform(&raw);
        let authorizers = std::mem::take(&mut raw.authorizers);
        let entry = self.app(raw, document, platform, None);
        let nameless = App::mp("", SecretSource::Fixed(Secret::new(String::new())), &component::COMPONENT);
        let parent = entry.as_ref().map_or(nameless, |entry| entry.app.clone());
        let mut entries: Vec<Entry> = entry.into_iter().collect();
        for raw in authorizers {
            if !is_component(platform) {
                let what = format!("apps of kind {} have no authorizers", quoted(platform.name));
                let problem = Problem::new(what, "Put the table below an [[app]] with kind = \"component\".");
                self.faults.push(problem.at(&raw.place));
                continue;
            }
            entries.extend(self.app(raw, document, &component::AUTHORIZERS, Some(&parent)));
        }
        entries
    }

    /// Where a component's verify tickets are written. The file need not be there yet: WeChat pushes every ten minutes.
    pub(super) fn verify_ticket_file(
        &mut self,
        raw: &RawTable,
        platform: &Platform,
        document: &Document,
    ) -> Option<PathBuf> {
        let followed = self.company != Company::Alone && !SECRET.keys.iter().any(|key| raw.fields.contains_key(key));
        if is_component(platform) && !followed && !raw.fields.contains_key("verify_ticket_file") {
            let place = &raw.place;
            self.warnings.push(format!(
                "{place}: a component without verify_ticket_file has no token until somebody hands in its verify ticket"
            ));
        }
        self.field(raw, "verify_ticket_file", |value| match is_component(platform) {
            true => path(value, &document.folder),
            false => {
                let what = format!("apps of kind {} have no verify ticket", quoted(platform.name));
                Err(Problem::new(what, "Remove the key."))
            }
        })
    }
}

fn is_component(platform: &Platform) -> bool {
    platform.name == component::PLATFORM.name
}
