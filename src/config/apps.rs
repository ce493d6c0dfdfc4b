//! `[[app]]` tables, those of authorizers below them, and the quick start -> typed apps; the names they claim must not collide.

use std::path::{Path, PathBuf};

use super::aliases::PlacedTemplate;
use super::cluster::ClusterRole;
use super::environment::Environment;
use super::fault::{Fault, Place};
use super::reader::{RawTable, Reader};
use super::report::PartsResult;
use super::schema;
use super::secrets::{SecretSpec, no_use_for_a_secret};
use super::value::{Given, RawValue, Value, quoted, text, word, wrong, wrong_kind};
use super::views::Fields;
use super::{Adopt, Alias, App, CredentialName, SecretOrigin, SecretSource, Sink};
use crate::credential::alias_templates::{Owner, drop_guesses, expand};
use crate::credential::collisions::{PlacedApp, collisions};
use crate::credential::{app_name, judge_agent, judge_appid, warn_of_duplicates};
use crate::encoding::toml_text::toml_list;
use crate::invalid_value::{InvalidValue, quoted_name};
use crate::platform::client::address;
use crate::platform::{CredentialType, PLATFORMS, Platform, Renewal, component, mp, plausible};
use crate::secret::Secret;
use crate::secret_source::of_variable;

const PROBE_EVERY_S_MIN: u64 = 10;

const SECRET: SecretSpec = SecretSpec { key: "secret", noun: "secret", owner: "an app", content: "the app's secret" };

const REFRESH_TOKEN: SecretSpec = SecretSpec {
    key: "refresh_token",
    noun: "refresh token",
    owner: "an authorizer",
    content: "the authorizer's refresh token",
};

/// A checked app with what only the checks and `check` need.
pub(super) struct Entry {
    pub app: App,
    pub origin: SecretOrigin,
    pub table: RawTable,
    place: Place,
    /// What becomes of `app.aliases` once the secret is certain.
    templates: Vec<PlacedTemplate>,
    alias_places: Vec<Place>,
}

impl Entry {
    fn placed(&self) -> PlacedApp<'_, Place> {
        PlacedApp { app: &self.app, place: &self.place, alias_places: &self.alias_places }
    }
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
            let none = SecretSource::Fixed(Secret::new(String::new()));
            let secret = if entry.app.component.is_some() { &none } else { &entry.app.secret };
            let (aliases, places, faults) = expand(templates, secret);
            (entry.app.aliases, entry.alias_places) = (aliases, places);
            for (list, fault, place) in faults {
                self.fault((&entry.table, list, &place), fault);
            }
            entry.table.print("aliases", Value::Toml(toml_list(entry.app.aliases.iter().map(Alias::as_toml))));
        }
        let collisions = collisions(&entries.iter().map(Entry::placed).collect::<Vec<_>>());
        collisions.into_iter().for_each(|(fault, place)| self.fault(&place, fault));
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
        let nameless = App::mp("", SecretSource::Fixed(Secret::new(String::new())), &component::COMPONENT);
        let parent = entry.as_ref().map_or(nameless, |entry| entry.app.clone());
        let mut entries: Vec<Entry> = entry.into_iter().collect();
        for table in authorizers {
            if !is_component(platform) {
                let what = format!("apps of platform {} have no authorizers", quoted(platform.name));
                self.refuse(&table, what, "Put the table below an [[app]] with platform = \"component\".");
                continue;
            }
            entries.extend(self.app(table, &component::AUTHORIZERS, Some(&parent)));
        }
        entries
    }

    /// One app; for an authorizer with its component, whose API it shares.
    fn app(&mut self, table: RawTable, platform: &'static Platform, component: Option<&App>) -> Option<Entry> {
        let token = self.token(&table, platform);
        let name = self.text(&table, "name", app_name);
        let tickets = self.tickets(&table, platform);
        let agent = self.agent(&table, platform);
        let base_url = self.text(&table, "base_url", address::base_url);
        let verify_ticket_file = self.verify_ticket_file(&table, platform);
        let daily_quota = self.get(&table, "daily_quota");
        let daily_ticket_quota = self.get(&table, "daily_ticket_quota");
        let fallback = self.fallback(&table, platform, token);
        let probe_every_ms = self.probe_every(&table, platform, token);
        let forced_per_day = self.forced_per_day(&table, platform, token);
        let adopt = self.adopt(&table, token);
        let place = table.place_of("appid").clone();
        let appid = match table.has("appid") {
            true => self.text_that(&table, "appid", judge_appid),
            false => {
                let remedy = "Write appid = \"wx...\", as WeChat's platform shows it.";
                self.refuse(&table, "an app has no appid", remedy);
                None
            }
        };
        let kept: Vec<_> = std::iter::once(token).chain(tickets.clone()).filter_map(CredentialName::of).collect();
        let owner =
            Owner { appid: appid.as_deref().unwrap_or_default(), agent: agent.as_deref(), platform, kept: &kept };
        let templates = self.templates(&table, &owner);
        let secret = self.app_secret(&table, appid.as_deref(), component.is_some());
        let appid = appid?;
        if !(platform.usual_id)(&appid) {
            self.warnings.push(plausible::doubt_appid(&place.to_string(), &appid, platform));
        }
        if let Some((source, origin)) = secret.as_ref().filter(|_| component.is_none()) {
            self.doubt_secret(source, origin, &place, platform);
        }
        // Without a secret there is a fault and no start; the app stays in view for the checks between apps.
        let (secret, origin) =
            secret.unwrap_or_else(|| (SecretSource::Fixed(Secret::new(String::new())), SecretOrigin::Inline));
        let app = App {
            appid,
            name,
            platform,
            token,
            tickets,
            agent,
            secret,
            base_url: base_url.or(component.and_then(|app| app.base_url.clone())),
            aliases: Vec::new(),
            daily_quota,
            daily_ticket_quota,
            fallback,
            probe_every_ms,
            adopt,
            forced_per_day,
            verify_ticket_file,
            component: component.map(|app| app.appid.clone()),
        };
        Some(Entry { app, origin, table, place, templates, alias_places: Vec::new() })
    }

    /// How its access token is got.
    fn token(&mut self, table: &RawTable, platform: &'static Platform) -> &'static CredentialType {
        let first = platform.tokens.first().copied();
        let given = self.word(table, "endpoint", platform.tokens);
        let token = given.or(first.map(|(_, credential_type)| credential_type)).unwrap_or(&mp::STABLE);
        if let (None, Some((word, _))) = (given, first) {
            table.print("endpoint", (*word).to_owned());
        }
        token
    }

    /// Its secret: the table's own, the quick start's, or one that another node has.
    fn app_secret(
        &mut self,
        table: &RawTable,
        appid: Option<&str>,
        is_authorizer: bool,
    ) -> Option<(SecretSource, SecretOrigin)> {
        let (spec, owner) = if is_authorizer { (&REFRESH_TOKEN, "authorizer") } else { (&SECRET, "app") };
        if spec.is_given(table) {
            return self.secret(table, spec);
        }
        let own = appid.filter(|_| !is_authorizer);
        if let Some(secret) = own.and_then(|appid| quick_start_of(self.environment, appid)) {
            let origin = SecretOrigin::Environment("WECHAT_SECRET".into());
            spec.print(table, &origin);
            return Some((secret, origin));
        }
        if self.cluster_role != ClusterRole::Single {
            return Some((SecretSource::Absent, SecretOrigin::Nowhere));
        }
        let (key, noun, appid) = (spec.key, spec.noun, appid.map(quoted).unwrap_or_default());
        let remedy = format!(
            "Add {key}_file = \"/path\", {key}_env = \"NAME\" or {key}_credential = \"name\"; with url or leader_urls in \
             [state], nodes that have it may keep the app for this one."
        );
        self.refuse(table, format!("the {owner} {appid} has no {noun}"), remedy);
        None
    }

    /// Warns of a secret that is hardly one. The quick start's is judged by itself.
    fn doubt_secret(&mut self, source: &SecretSource, origin: &SecretOrigin, place: &Place, platform: &Platform) {
        let at = match origin {
            SecretOrigin::File(path) => path.display().to_string(),
            SecretOrigin::Credential(name) => format!("the credential {}", quoted_name(name)),
            SecretOrigin::Environment(name) if name == "WECHAT_SECRET" => return,
            SecretOrigin::Environment(name) => format!("environment {}", quoted_name(name)),
            SecretOrigin::Inline => place.to_string(),
            SecretOrigin::Nowhere => return,
        };
        // A file that is gone by now was judged already.
        let doubt = source.read().ok().and_then(|secret| plausible::doubt_secret(secret.expose(), platform));
        self.warnings.extend(doubt.map(|doubt| format!("{at}: {doubt}")));
    }

    /// Which endpoint to ask when the quota of the first is used up.
    fn fallback(
        &mut self,
        table: &RawTable,
        platform: &Platform,
        token: &'static CredentialType,
    ) -> Option<&'static CredentialType> {
        let fallback = self.read(table, "fallback", |value| {
            let given = word(value, platform.tokens)?;
            // Only one that leaves the other's tokens alone, and has a quota of its own that outlasts it.
            if given == token || given.quota.per_day <= token.quota.per_day {
                let what = "it is no way out when the quota of endpoint is used up";
                return wrong(what, "Write endpoint = \"token\" and fallback = \"stable_token\".");
            }
            Ok(given)
        })?;
        let words = platform.tokens.iter().filter(|(_, credential_type)| *credential_type == fallback);
        words.for_each(|(word, _)| table.print("fallback", (*word).to_owned()));
        Some(fallback)
    }

    /// A key for what apps of that platform do not have: a fault if it is given.
    fn has_not(&mut self, table: &RawTable, key: &str, noun: &str, platform: &Platform) {
        let what = format!("apps of platform {} have no {noun}", quoted(platform.name));
        self.refuse_keys(table, [key], &what, "Remove the key.");
    }

    fn probe_every(&mut self, table: &RawTable, platform: &Platform, token: &CredentialType) -> Option<u64> {
        if token.probe.is_none() {
            let what = format!("no read is known that tries a token of platform {}", quoted(platform.name));
            self.refuse_keys(table, ["probe_every_s"], &what, "Remove the key.");
            return None;
        }
        match self.get::<u64>(table, "probe_every_s")? {
            1..PROBE_EVERY_S_MIN => {
                let what = "the token would be tried more often than its call has a quota for";
                self.refuse((table, "probe_every_s"), what, "Write 0 for never, or 10 to 86400.");
                None
            }
            seconds => Some(seconds * 1000),
        }
    }

    fn forced_per_day(&mut self, table: &RawTable, platform: &Platform, token: &CredentialType) -> Option<u64> {
        if !(token.can_force || platform.tokens.iter().any(|(_, credential_type)| credential_type.can_force)) {
            self.has_not(table, "forced_per_day", "forced refresh", platform);
            return None;
        }
        self.get(table, "forced_per_day")
    }

    fn tickets(&mut self, table: &RawTable, platform: &Platform) -> Vec<&'static CredentialType> {
        let mut tickets: Vec<&'static CredentialType> = Vec::new();
        let count = self.read(table, "tickets", |value| match value {
            RawValue::List(items) => Ok(items.len()),
            other => Err(wrong_kind(other, "not a list", "Write tickets = [\"jsapi\"].")),
        });
        if table.has("tickets") && count.is_none() {
            return tickets;
        }
        if platform.tickets.is_empty() && count > Some(0) {
            self.has_not(table, "tickets", "tickets", platform);
            return tickets;
        }
        for (ticket, _) in self.items(table, "tickets", "", |item| word(&item.value, platform.tickets)) {
            if !tickets.contains(&ticket) {
                tickets.push(ticket);
            }
        }
        let words = platform.tickets.iter().filter(|(_, ticket)| tickets.contains(ticket));
        table.print("tickets", words.map(|(word, _)| (*word).to_owned()).collect::<Vec<_>>());
        tickets
    }

    /// Which of a corporation's apps this is; part of the keys.
    fn agent(&mut self, table: &RawTable, platform: &Platform) -> Option<String> {
        self.text_that(table, "agent", |agent| judge_agent(agent, platform))
    }

    /// Where a component's verify tickets are written. The file need not be there yet: WeChat pushes every ten minutes.
    fn verify_ticket_file(&mut self, table: &RawTable, platform: &Platform) -> Option<PathBuf> {
        if !is_component(platform) {
            self.has_not(table, "verify_ticket_file", "verify ticket", platform);
            return None;
        }
        let followed = self.cluster_role != ClusterRole::Single && !SECRET.is_given(table);
        if !followed && !table.has("verify_ticket_file") {
            let place = &table.place;
            self.warnings.push(format!(
                "{place}: a component without verify_ticket_file has no token until somebody hands in its verify ticket"
            ));
        }
        self.get(table, "verify_ticket_file")
    }

    /// Where the first token is read, instead of fetching one.
    fn adopt(&mut self, table: &RawTable, token: &CredentialType) -> Option<Adopt> {
        let given = table.get("adopt")?;
        let what = "it is of use with endpoint = \"token\" alone: no other fetch ends a token that others hold";
        let adopted = match token.renewal {
            Renewal::Mint if token.probe.is_some() => adopt(given, &self.folder),
            _ => Err(InvalidValue::new(what, "Remove the key.").into()),
        };
        let adopt = self.accept((table, "adopt"), adopted)?;
        table.print("adopt", Value::Toml(adopt.as_toml()));
        Some(adopt)
    }

    /// `WECHAT_APPID` and `WECHAT_SECRET` add an app, or bring the secret of one that the file describes.
    fn quick_start(&mut self, entries: &mut Vec<Entry>) {
        let given = |name: &str| self.environment.get(name).filter(|value| !value.is_empty());
        let place = |name: &str| Place::Environment(name.into());
        let both = "Set both, or neither.";
        let (id, secret) = match (given("WECHAT_APPID"), given("WECHAT_SECRET")) {
            (None, None) => return,
            (Some(id), Some(secret)) => (id, Some(secret)),
            (Some(id), None) if self.cluster_role != ClusterRole::Single => (id, None),
            (Some(_), None) => {
                return self.refuse(&place("WECHAT_APPID"), "WECHAT_SECRET is missing beside it", both);
            }
            (None, Some(_)) => {
                return self.refuse(&place("WECHAT_SECRET"), "WECHAT_APPID is missing beside it", both);
            }
        };
        let appid = id.to_string_lossy().into_owned();
        let judged = self.accept(&place("WECHAT_APPID"), judge_appid(&appid));
        if self.cluster_role == ClusterRole::Follower && secret.is_some() {
            self.fault(&place("WECHAT_SECRET"), no_use_for_a_secret("secret"));
        }
        let secret = secret.map(|secret| of_variable(&secret)).transpose();
        let secret = secret.map_err(|fault| {
            let remedy = "Set it to the app's secret.";
            self.refuse(&place("WECHAT_SECRET"), format!("the value {fault}"), remedy);
        });
        let (Some(()), Ok(secret)) = (judged, secret) else { return };
        let described = entries.iter_mut().find(|entry| entry.app.appid == appid && entry.app.component.is_none());
        let platform = described.as_ref().map_or(&mp::PLATFORM, |entry| entry.app.platform);
        let doubt = secret.as_ref().and_then(|secret| plausible::doubt_secret(secret.expose(), platform));
        self.warnings.extend(doubt.map(|doubt| format!("environment WECHAT_SECRET: {doubt}")));
        let origin =
            secret.as_ref().map_or(SecretOrigin::Nowhere, |_| SecretOrigin::Environment("WECHAT_SECRET".into()));
        let secret = secret.map_or(SecretSource::Absent, SecretSource::Environment);
        if let Some(entry) = described {
            if !secret.is_absent() {
                SECRET.print(&entry.table, &origin);
                entry.app.secret = secret;
                entry.origin = origin;
            }
            return;
        }
        if !(mp::PLATFORM.usual_id)(&appid) {
            self.warnings.push(plausible::doubt_appid("WECHAT_APPID", &appid, &mp::PLATFORM));
        }
        let table = RawTable::new(schema::section("app"), place("WECHAT_APPID"));
        table.print("appid", appid.clone());
        table.print("platform", mp::PLATFORM.name.to_owned());
        table.print("tickets", Vec::new());
        self.token(&table, &mp::PLATFORM);
        SECRET.print(&table, &origin);
        let names = ["access_token", appid.as_str()];
        let templates = names.map(|name| PlacedTemplate::raw(name, place("WECHAT_APPID"))).into();
        let app = App::mp(&appid, secret, &mp::STABLE);
        let place = place("WECHAT_APPID");
        entries.push(Entry { app, origin, table, place, templates, alias_places: Vec::new() });
    }
}

fn is_component(platform: &Platform) -> bool {
    platform.name == component::PLATFORM.name
}

/// Refresh tokens that live in memory only are lost with the process.
pub(super) fn needs_state(entry: &Entry) -> Option<Fault> {
    Some(entry.app.judge_without_state().err()?.at(&Place::Default))
}

/// What is wrong if its first token is to be read where sinks write, and none of them can tell it.
pub(super) fn adopts_from_no_sink(app: &App, sinks: &[Sink]) -> Option<InvalidValue> {
    app.judge_adopt(sinks.iter().any(|sink| sink.keeps_token_of(&app.id()))).err()
}

fn adopt(given: &Given, folder: &Path) -> PartsResult<Adopt> {
    let fields = match &given.value {
        RawValue::Text(word) if word == "sink" => return Ok(Adopt::Sink),
        RawValue::Table(fields) => Fields::of(fields, &["memcached", "key", "file"], "adopt")?,
        RawValue::Text(word) => {
            return Err(InvalidValue::new(format!("{} is not known", quoted(word)), Adopt::REMEDY).into());
        }
        _ => return Err(InvalidValue::new("it says nothing of a place", Adopt::REMEDY).into()),
    };
    let file = fields.read("file", text)?.map(|file| folder.join(file));
    let [memcached, key] = [fields.read("memcached", text)?, fields.read("key", text)?];
    Ok(Adopt::parse(file, memcached, key)?)
}

/// The secret in the environment, if the quick start is about that app.
fn quick_start_of(environment: &dyn Environment, appid: &str) -> Option<SecretSource> {
    let same = environment.get("WECHAT_APPID")?.to_str() == Some(appid);
    let secret = of_variable(&environment.get("WECHAT_SECRET")?).ok()?;
    same.then_some(SecretSource::Environment(secret))
}
