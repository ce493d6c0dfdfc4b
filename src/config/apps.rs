//! `[[app]]` tables, those of authorizers below them, and the quick start -> typed apps; the names they claim must not collide.

use super::cluster::ClusterRole;
use super::environment::Environment;
use super::reader::{RawTable, Reader};
use super::schema;
use super::secrets::{SecretSpec, no_use_for_a_secret};
use super::value::Value;
use crate::credential::alias_templates::{AliasTemplate, Owner, drop_guesses, expand};
use crate::credential::collisions::{PlacedApp, collisions};
use crate::credential::{
    Adopt, Alias, App, app_name, judge_agent, judge_appid, judge_fallback, judge_keys, judge_probe_every,
    warn_of_duplicates,
};
use crate::encoding::toml_text::toml_list;
use crate::invalid_value::{InvalidValue, quoted};
use crate::platform::client::address;
use crate::platform::{CredentialName, CredentialType, PLATFORMS, Platform, component, mp, plausible};
use crate::raw_value::{Place, RawValue, word, wrong_kind};
use crate::secret::Secret;
use crate::secret_source::{SecretSource, of_variable};

const SECRET: SecretSpec = SecretSpec { key: "secret", noun: "secret", owner: "an app", content: "the app's secret" };

const REFRESH_TOKEN: SecretSpec = SecretSpec {
    key: "refresh_token",
    noun: "refresh token",
    owner: "an authorizer",
    content: "the authorizer's refresh token",
};

/// Where the quick start's secret is.
const OF_QUICK_START: &str = "environment \"WECHAT_SECRET\"";

/// A checked app with what only the checks need.
pub(super) struct Entry {
    pub app: App,
    pub table: RawTable,
    place: Place,
    /// What becomes of `app.aliases` once the secret is certain.
    templates: Vec<AliasTemplate>,
    alias_places: Vec<Place>,
}

impl Reader<'_> {
    /// All apps: those of the file, then the quick start's.
    pub(super) fn apps(&mut self, tables: Vec<RawTable>) -> Vec<Entry> {
        let mut entries: Vec<Entry> = tables.into_iter().flat_map(|table| self.app_and_authorizers(table)).collect();
        self.quick_start(&mut entries);
        if let Some((count, place, key)) = drop_guesses(entries.iter_mut().map(|entry| &mut entry.templates)) {
            self.warnings.push(format!(
                "{place}: several apps have this preset, so of its keys those that do not name the app are left to clients, \
                 {count} in all, first {}; write the key that an app's clients read into its aliases",
                quoted(&key)
            ));
        }
        for entry in &mut entries {
            let templates = std::mem::take(&mut entry.templates);
            // A refresh token is no part of any key.
            let none = no_secret();
            let secret = if entry.app.component.is_some() { &none } else { &entry.app.secret };
            let (aliases, places, faults) = expand(templates, secret);
            (entry.app.aliases, entry.alias_places) = (aliases, places);
            for (list, fault, place) in faults {
                self.fault((&entry.table, list, &place), fault);
            }
            entry.table.print("aliases", Value::Toml(toml_list(entry.app.aliases.iter().map(Alias::as_toml))));
        }
        let placed =
            entries.iter().map(|Entry { app, place, alias_places, .. }| PlacedApp { app, place, alias_places });
        collisions(&placed.collect::<Vec<_>>()).into_iter().for_each(|(fault, place)| self.fault(&place, fault));
        self.followed(&entries);
        self.warnings.extend(warn_of_duplicates(entries.iter().map(|entry| &entry.app)));
        entries
    }

    /// An app that was forgotten looks like one that is followed.
    fn followed(&mut self, entries: &[Entry]) {
        let followed: Vec<&Entry> = entries.iter().filter(|entry| entry.app.secret.is_absent()).collect();
        if let (Some(first), true) = (followed.first(), followed.len() < entries.len()) {
            let (count, id) = (followed.len(), quoted(&first.app.id()));
            self.warnings.push(format!(
                "{}: of {} apps {count} have no secret here and are only followed, first {id}",
                first.place,
                entries.len()
            ));
        }
    }

    /// An app and the authorizers below it, in that order. Authorizers of an app that is at fault are judged too.
    fn app_and_authorizers(&mut self, mut table: RawTable) -> Vec<Entry> {
        let platforms: Vec<_> = PLATFORMS.iter().map(|platform| (platform.name, *platform)).collect();
        let platform = self.word(&table, "platform", &platforms).unwrap_or(&mp::PLATFORM);
        let authorizers = std::mem::take(&mut table.tables);
        let entry = self.app(table, platform, None);
        let nameless = App::mp("", no_secret(), &component::COMPONENT);
        let parent = entry.as_ref().map_or(nameless, |entry| entry.app.clone());
        let mut entries: Vec<Entry> = entry.into_iter().collect();
        for table in authorizers {
            if is_component(platform) {
                entries.extend(self.app(table, &component::AUTHORIZERS, Some(&parent)));
            } else {
                let what = format!("apps of platform {} have no authorizers", quoted(platform.name));
                self.refuse(&table, what, "Put the table below an [[app]] with platform = \"component\".");
            }
        }
        entries
    }

    /// One app; for an authorizer with its component, whose API it shares.
    fn app(&mut self, mut table: RawTable, platform: &'static Platform, component: Option<&App>) -> Option<Entry> {
        let token = self.token(&table, platform);
        let name = self.text(&table, "name", app_name);
        let tickets = self.tickets(&table, platform);
        let agent = self.text_that(&table, "agent", |agent| judge_agent(agent, platform));
        let base_url = self.text(&table, "base_url", address::base_url);
        // What the platform does not have is refused, and not read.
        let unfit = judge_keys(platform, token, &table.given_keys());
        let unfit_keys: Vec<_> = unfit.faults.iter().map(|(key, _)| *key).collect();
        self.judged(&table, unfit);
        table.remove(&unfit_keys);
        let table = table;
        let place = table.place_of("appid").clone();
        let appid = self.text_that(&table, "appid", judge_appid);
        if !table.has("appid") {
            self.refuse(&table, "an app has no appid", "Write appid = \"wx...\", as WeChat's platform shows it.");
        }
        let app = App {
            appid: appid.clone().unwrap_or_default(),
            name,
            platform,
            token,
            tickets,
            agent,
            // Without a secret there is a fault and no start; the app stays in view for the checks between apps.
            secret: no_secret(),
            base_url: base_url.or(component.and_then(|app| app.base_url.clone())),
            aliases: Vec::new(),
            daily_quota: self.get(&table, "daily_quota"),
            daily_ticket_quota: self.get(&table, "daily_ticket_quota"),
            fallback: self.fallback(&table, platform, token),
            probe_every_ms: self.probe_every(&table),
            adopt: self.adopt(&table),
            forced_per_day: self.get(&table, "forced_per_day"),
            verify_ticket_file: self.get(&table, "verify_ticket_file"),
            component: component.map(|app| app.appid.clone()),
        };
        let is_followed = self.cluster_role != ClusterRole::Single && !SECRET.is_given(&table);
        if is_component(platform) && !is_followed && !table.has("verify_ticket_file") {
            let what = "a component without verify_ticket_file has no token until somebody hands in its verify ticket";
            self.warnings.push(format!("{}: {what}", table.place));
        }
        let kept: Vec<_> = app.credential_types().filter_map(CredentialName::of).collect();
        let owner = Owner { appid: &app.appid, agent: app.agent.as_deref(), platform, kept: &kept };
        let templates = self.templates(&table, &owner);
        let secret = self.app_secret(&table, appid.as_deref(), component.is_some());
        let appid = appid?;
        if !(platform.usual_id)(&appid) {
            self.warnings.push(plausible::doubt_appid(&place.to_string(), &appid, platform));
        }
        let (secret, at) = secret.unwrap_or((app.secret, None));
        // The quick start's is judged by itself.
        if component.is_none() && at.as_deref() != Some(OF_QUICK_START) {
            self.doubt_secret(&at.unwrap_or_else(|| place.to_string()), &secret, platform);
        }
        Some(Entry { app: App { secret, ..app }, table, place, templates, alias_places: Vec::new() })
    }

    /// How its access token is got.
    fn token(&mut self, table: &RawTable, platform: &'static Platform) -> &'static CredentialType {
        let given = self.word(table, "endpoint", platform.tokens);
        given.unwrap_or_else(|| {
            let (word, first) = platform.tokens.first().copied().unwrap_or(("", &mp::STABLE));
            table.print("endpoint", word);
            first
        })
    }

    /// Its secret and where it is: the table's own, the quick start's, or one that another node has.
    fn app_secret(
        &mut self,
        table: &RawTable,
        appid: Option<&str>,
        is_authorizer: bool,
    ) -> Option<(SecretSource, Option<String>)> {
        let (spec, owner) = if is_authorizer { (&REFRESH_TOKEN, "authorizer") } else { (&SECRET, "app") };
        if spec.is_given(table) {
            return self.placed_secret(table, spec);
        }
        let own = appid.filter(|_| !is_authorizer);
        if let Some(secret) = own.and_then(|appid| quick_start_of(self.environment, appid)) {
            table.print("secret_env", "WECHAT_SECRET");
            return Some((secret, Some(OF_QUICK_START.to_owned())));
        }
        if self.cluster_role != ClusterRole::Single {
            return Some((SecretSource::Absent, None));
        }
        let (key, noun, appid) = (spec.key, spec.noun, appid.map(quoted).unwrap_or_default());
        let remedy = format!(
            "Add {key}_file = \"/path\", {key}_env = \"NAME\" or {key}_credential = \"name\"; with url or leader_urls in \
             [state], nodes that have it may keep the app for this one."
        );
        self.refuse(table, format!("the {owner} {appid} has no {noun}"), remedy);
        None
    }

    /// Warns of a secret that is hardly one. A file that is gone by now was judged already.
    fn doubt_secret(&mut self, at: &str, secret: &SecretSource, platform: &Platform) {
        let doubt = secret.read().ok().and_then(|secret| plausible::doubt_secret(secret.expose(), platform));
        self.warnings.extend(doubt.map(|doubt| format!("{at}: {doubt}")));
    }

    /// Which endpoint to ask when the quota of the first is used up.
    fn fallback(
        &mut self,
        table: &RawTable,
        platform: &Platform,
        token: &'static CredentialType,
    ) -> Option<&'static CredentialType> {
        self.word_that(table, "fallback", platform.tokens, |given| judge_fallback(given, token))
    }

    fn probe_every(&mut self, table: &RawTable) -> Option<u64> {
        let seconds = self.get(table, "probe_every_s")?;
        self.accept((table, "probe_every_s"), judge_probe_every(seconds)).map(|()| seconds * 1000)
    }

    fn tickets(&mut self, table: &RawTable, platform: &Platform) -> Vec<&'static CredentialType> {
        let mut tickets: Vec<&'static CredentialType> = Vec::new();
        match table.get("tickets").map(|given| &given.value) {
            None => {}
            Some(RawValue::List(items)) if platform.tickets.is_empty() && !items.is_empty() => {
                let what = format!("apps of platform {} have no tickets", quoted(platform.name));
                self.refuse((table, "tickets"), what, "Remove the key.");
                return tickets;
            }
            Some(RawValue::List(_)) => {}
            Some(other) => {
                let problem = wrong_kind(other, "not a list", "Write tickets = [\"jsapi\"].");
                self.fault((table, "tickets"), problem);
                return tickets;
            }
        }
        for (ticket, _) in self.items(table, "tickets", "", |item| word(&item.value, platform.tickets)) {
            if !tickets.contains(&ticket) {
                tickets.push(ticket);
            }
        }
        let words = platform.tickets.iter().filter(|(_, ticket)| tickets.contains(ticket));
        table.print("tickets", words.map(|(word, _)| *word).collect::<Vec<_>>());
        tickets
    }

    /// Where the first token is read, instead of fetching one.
    fn adopt(&mut self, table: &RawTable) -> Option<Adopt> {
        let adopted = Adopt::read(table.get("adopt")?, &self.folder);
        let adopt = self.accept((table, "adopt"), adopted)?;
        table.print("adopt", Value::Toml(adopt.as_toml()));
        Some(adopt)
    }

    /// `WECHAT_APPID` and `WECHAT_SECRET` add an app, or bring the secret of one that the file describes.
    fn quick_start(&mut self, entries: &mut Vec<Entry>) {
        let [of_id, of_secret] = ["WECHAT_APPID", "WECHAT_SECRET"].map(|name| Place::Environment(name.into()));
        let given = |name: &str| self.environment.get(name).filter(|value| !value.is_empty());
        let both = "Set both, or neither.";
        let (id, secret) = match (given("WECHAT_APPID"), given("WECHAT_SECRET")) {
            (None, None) => return,
            (Some(_), None) if self.cluster_role == ClusterRole::Single => {
                return self.refuse(&of_id, "WECHAT_SECRET is missing beside it", both);
            }
            (None, Some(_)) => return self.refuse(&of_secret, "WECHAT_APPID is missing beside it", both),
            (Some(id), secret) => (id, secret),
        };
        let appid = id.to_string_lossy().into_owned();
        let judged = self.accept(&of_id, judge_appid(&appid));
        if self.cluster_role == ClusterRole::Follower && secret.is_some() {
            self.fault(&of_secret, no_use_for_a_secret("secret"));
        }
        let secret = secret.map_or(Ok(SecretSource::Absent), |secret| {
            let wrong = |fault| InvalidValue::new(format!("the value {fault}"), "Set it to the app's secret.");
            of_variable(&secret).map(SecretSource::Environment).map_err(wrong)
        });
        let (Some(secret), Some(())) = (self.accept(&of_secret, secret), judged) else { return };
        let described = entries.iter_mut().find(|entry| entry.app.appid == appid && entry.app.component.is_none());
        let platform = described.as_ref().map_or(&mp::PLATFORM, |entry| entry.app.platform);
        self.doubt_secret("environment WECHAT_SECRET", &secret, platform);
        match described {
            Some(_) if secret.is_absent() => {}
            Some(entry) => {
                SECRET.keys().for_each(|key| entry.table.forget(&key));
                entry.table.print("secret_env", "WECHAT_SECRET");
                entry.app.secret = secret;
            }
            None => {
                let entry = self.quick_app(&appid, secret, of_id);
                entries.push(entry);
            }
        }
    }

    /// The app that the quick start adds, with short names.
    fn quick_app(&mut self, appid: &str, secret: SecretSource, place: Place) -> Entry {
        if !(mp::PLATFORM.usual_id)(appid) {
            self.warnings.push(plausible::doubt_appid("WECHAT_APPID", appid, &mp::PLATFORM));
        }
        let table = RawTable::new(schema::section("app"), place.clone());
        table.print("appid", appid);
        table.print("platform", mp::PLATFORM.name);
        table.print("tickets", Value::List(Vec::new()));
        self.token(&table, &mp::PLATFORM);
        if !secret.is_absent() {
            table.print("secret_env", "WECHAT_SECRET");
        }
        let templates = ["access_token", appid].map(|name| AliasTemplate::raw(name, place.clone())).into();
        let app = App::mp(appid, secret, &mp::STABLE);
        Entry { app, table, place, templates, alias_places: Vec::new() }
    }
}

/// Of an app that has none that could be read, and of one whose keys hold none.
fn no_secret() -> SecretSource {
    SecretSource::Fixed(Secret::new(String::new()))
}

fn is_component(platform: &Platform) -> bool {
    platform.name == component::PLATFORM.name
}

/// The secret in the environment, if the quick start is about that app.
fn quick_start_of(environment: &dyn Environment, appid: &str) -> Option<SecretSource> {
    let same = environment.get("WECHAT_APPID")?.to_str() == Some(appid);
    let secret = of_variable(&environment.get("WECHAT_SECRET")?).ok()?;
    same.then_some(SecretSource::Environment(secret))
}
