//! `[[app]]` tables and the quick start -> typed apps; the names they claim must not collide.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::Path;

use super::aliases::{Owner, Template, fits_in_a_key};
use super::app_name::{app_name, warn_of_duplicates};
use super::authorizers::{REFRESH_TOKEN, SECRET, Wanted};
use super::credentials;
use super::environment::Environment;
use super::fault::{Fault, Place, Problem};
use super::file::{Document, RawTable, open_to_others};
use super::nodes::Company;
use super::upstream::base_url;
use super::value::{Given, Reading, Value, integer, kind, quoted, text, word};
use super::{Alias, App, CredentialName, SecretOrigin, SecretSource, mistakes};
use crate::platform::{CredentialType, PLATFORMS, Platform, mp};
use crate::secret::Secret;
use crate::secret_source::{SecretFault, of_text};

const APPID_BYTES_MAX: usize = 128;
const AGENT_BYTES_MAX: usize = 64;
const DAILY_QUOTA: RangeInclusive<u64> = 1..=1_000_000_000;
/// Between two probes; each is a call of a business interface. 0: none.
const PROBE_EVERY_S: RangeInclusive<u64> = 0..=86_400;
const PROBE_EVERY_S_MIN: u64 = 10;
/// WeChat's own bound (page "获取稳定版接口调用凭据").
const FORCED_PER_DAY: RangeInclusive<u64> = 0..=20;

/// A checked app with what only the checks and `check` need.
pub(super) struct Entry {
    pub app: App,
    origin: SecretOrigin,
    place: Place,
    /// What becomes of `app.aliases` once the secret is certain.
    templates: Vec<Template>,
    alias_places: Vec<Place>,
}

pub(super) struct Reader<'r> {
    pub environment: &'r dyn Environment,
    pub company: Company,
    pub faults: &'r mut Vec<Fault>,
    pub warnings: &'r mut Vec<String>,
}

impl Reader<'_> {
    /// All apps: those of the file, then the quick start's.
    pub fn apps(&mut self, document: &mut Document) -> (Vec<App>, Vec<SecretOrigin>) {
        let raw = std::mem::take(&mut document.apps);
        let mut entries: Vec<Entry> = raw.into_iter().flat_map(|app| self.app_and_authorizers(app, document)).collect();
        self.quick_start(&mut entries);
        self.drop_guesses(entries.iter_mut().map(|entry| &mut entry.templates));
        for entry in &mut entries {
            let templates = std::mem::take(&mut entry.templates);
            // A refresh token is no part of any key.
            let none = SecretSource::Fixed(Secret::new(String::new()));
            let secret = if entry.app.component.is_some() { &none } else { &entry.app.secret };
            (entry.app.aliases, entry.alias_places) = self.expand(templates, secret);
        }
        self.collisions(&entries);
        self.followed(&entries);
        self.warnings.extend(warn_of_duplicates(entries.iter().map(|entry| &entry.app)));
        entries.into_iter().map(|entry| (entry.app, entry.origin)).unzip()
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

    pub(super) fn platform(&mut self, raw: &RawTable) -> &'static Platform {
        let platforms: Vec<_> = PLATFORMS.iter().map(|platform| (platform.name, *platform)).collect();
        self.field(raw, "kind", |value| word(value, &platforms)).unwrap_or(&mp::PLATFORM)
    }

    /// One app; for an authorizer with its component, whose API it shares.
    pub(super) fn app(
        &mut self,
        mut raw: RawTable,
        document: &Document,
        platform: &'static Platform,
        component: Option<&App>,
    ) -> Option<Entry> {
        let token = self.field(&raw, "endpoint", |value| word(value, platform.tokens));
        let token = token.or(platform.tokens.first().map(|(_, kind)| *kind)).unwrap_or(&mp::STABLE);
        let name = self.field(&raw, "name", app_name);
        let tickets = self.tickets(&raw, platform);
        let agent = self.agent(&raw, platform);
        let base_url = self.field(&raw, "base_url", base_url).or(component.and_then(|app| app.base_url.clone()));
        let verify_ticket_file = self.verify_ticket_file(&raw, platform, document);
        let daily_quota = self.field(&raw, "daily_quota", |value| integer(value, DAILY_QUOTA));
        let daily_ticket_quota = self.field(&raw, "daily_ticket_quota", |value| integer(value, DAILY_QUOTA));
        let fallback = self.fallback(&raw, platform, token);
        let probe_every_ms = self.probe_every(&raw, platform, token);
        let forced_per_day = self.forced_per_day(&raw, platform, token);
        let adopt = self.adopt(&raw, token, document);
        let place = raw.fields.get("appid").map_or(&raw.place, |given| &given.place).clone();
        let appid = match raw.fields.contains_key("appid") {
            true => self.field(&raw, "appid", appid),
            false => {
                let remedy = "Write appid = \"wx...\", as WeChat's platform shows it.";
                self.faults.push(Problem::new("an app has no appid", remedy).at(&place));
                None
            }
        };
        let kept: Vec<CredentialName> =
            std::iter::once(token).chain(tickets.clone()).filter_map(CredentialName::of).collect();
        let owner =
            Owner { appid: appid.as_deref().unwrap_or_default(), agent: agent.as_deref(), platform, kept: &kept };
        let templates = self.templates(&raw, &owner);
        let wanted = if component.is_some() { &REFRESH_TOKEN } else { &SECRET };
        let secret = self.secret(&mut raw, document, appid.as_deref(), wanted);
        let appid = appid?;
        if !(platform.usual_id)(&appid) {
            self.warnings.push(mistakes::doubt_appid(&place.to_string(), &appid, platform));
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
            base_url,
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
        Some(Entry { app, origin, place, templates, alias_places: Vec::new() })
    }

    /// Warns of a secret that is hardly one. The quick start's is judged by itself.
    fn doubt_secret(&mut self, source: &SecretSource, origin: &SecretOrigin, place: &Place, platform: &Platform) {
        let at = match origin {
            SecretOrigin::File(path) => path.display().to_string(),
            SecretOrigin::Credential(name) => format!("the credential {}", shown(name)),
            SecretOrigin::Environment(name) if name == "WECHAT_SECRET" => return,
            SecretOrigin::Environment(name) => format!("environment {}", shown(name)),
            SecretOrigin::Inline => place.to_string(),
            SecretOrigin::Nowhere => return,
        };
        // A file that is gone by now was judged already.
        let doubt = source.read().ok().and_then(|secret| mistakes::doubt_secret(secret.expose(), platform));
        self.warnings.extend(doubt.map(|doubt| format!("{at}: {doubt}")));
    }

    /// Which endpoint to ask when the quota of the first is used up.
    fn fallback(
        &mut self,
        raw: &RawTable,
        platform: &Platform,
        token: &'static CredentialType,
    ) -> Option<&'static CredentialType> {
        self.field(raw, "fallback", |value| {
            let given = word(value, platform.tokens)?;
            // Only one that leaves the other's tokens alone, and has a quota of its own that outlasts it.
            if given == token || given.quota.per_day <= token.quota.per_day {
                let what = "it is no way out when the quota of endpoint is used up";
                return Err(Problem::new(what, "Write endpoint = \"token\" and fallback = \"stable_token\"."));
            }
            Ok(given)
        })
    }

    fn probe_every(&mut self, raw: &RawTable, platform: &Platform, token: &CredentialType) -> Option<u64> {
        self.field(raw, "probe_every_s", |value| {
            if token.probe.is_none() {
                let what = format!("no read is known that tries a token of kind {}", quoted(platform.name));
                return Err(Problem::new(what, "Remove the key."));
            }
            match integer(value, PROBE_EVERY_S)? {
                1..PROBE_EVERY_S_MIN => {
                    let what = "the token would be tried more often than its call has a quota for".to_owned();
                    Err(Problem::new(what, "Write 0 for never, or 10 to 86400."))
                }
                seconds => Ok(seconds * 1000),
            }
        })
    }

    fn forced_per_day(&mut self, raw: &RawTable, platform: &Platform, token: &CredentialType) -> Option<u64> {
        let can_force = platform.tokens.iter().any(|(_, kind)| kind.can_force);
        self.field(raw, "forced_per_day", |value| {
            if !(token.can_force || can_force) {
                let what = format!("apps of kind {} have no forced refresh", quoted(platform.name));
                return Err(Problem::new(what, "Remove the key."));
            }
            integer(value, FORCED_PER_DAY)
        })
    }

    pub(super) fn field<T>(&mut self, raw: &RawTable, key: &str, read: impl Fn(&Value) -> Reading<T>) -> Option<T> {
        let given = raw.fields.get(key)?;
        read(&given.value).map_err(|problem| self.fault(key, problem, &given.place)).ok()
    }

    pub(super) fn fault(&mut self, key: &str, problem: Problem, place: &Place) {
        self.faults.push(problem.of_key(key).at(place));
    }

    fn tickets(&mut self, raw: &RawTable, platform: &Platform) -> Vec<&'static CredentialType> {
        let Some(given) = raw.fields.get("tickets") else { return Vec::new() };
        let Value::List(items) = &given.value else {
            let problem = Problem::new(format!("{} is not a list", kind(&given.value)), "Write tickets = [\"jsapi\"].");
            self.fault("tickets", problem, &given.place);
            return Vec::new();
        };
        if platform.tickets.is_empty() && !items.is_empty() {
            let what = format!("apps of kind {} have no tickets", quoted(platform.name));
            self.fault("tickets", Problem::new(what, "Remove the key."), &given.place);
            return Vec::new();
        }
        let mut tickets: Vec<&'static CredentialType> = Vec::new();
        for item in items {
            match word(&item.value, platform.tickets) {
                Ok(ticket) if tickets.contains(&ticket) => {}
                Ok(ticket) => tickets.push(ticket),
                Err(problem) => self.fault("tickets", problem, &item.place),
            }
        }
        tickets
    }

    /// Which of a corporation's apps this is; part of the keys.
    fn agent(&mut self, raw: &RawTable, platform: &Platform) -> Option<String> {
        self.field(raw, "agent", |value| {
            let agent = text(value)?;
            if !platform.has_agents {
                let what = format!("apps of kind {} have no agents", quoted(platform.name));
                return Err(Problem::new(what, "Remove the key."));
            }
            if agent.is_empty() || agent.len() > AGENT_BYTES_MAX || !fits_in_a_key(agent) {
                let what = format!("{} cannot be part of a key", quoted(agent));
                return Err(Problem::new(what, "Write agent = \"1000002\", as the platform shows it."));
            }
            Ok(agent.to_owned())
        })
    }

    pub(super) fn secret(
        &mut self,
        raw: &mut RawTable,
        document: &Document,
        appid: Option<&str>,
        wanted: &Wanted,
    ) -> Option<(SecretSource, SecretOrigin)> {
        let mut sources: Vec<(&str, Given)> =
            wanted.keys.iter().filter_map(|key| Some((*key, raw.fields.remove(key)?))).collect();
        if sources.len() > 1 {
            let names = sources.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(" and ");
            let problem = Problem::new(format!("{} has {names}", wanted.one), "Keep one of them.");
            self.faults.push(problem.at(&sources[1].1.place));
            return None;
        }
        let Some((key, given)) = sources.pop() else {
            // The quick start may bring the secret of an app that the file describes.
            let own = appid.filter(|_| wanted.key == SECRET.key);
            if let Some(secret) = own.and_then(|appid| quick_start_of(self.environment, appid)) {
                return Some((secret, SecretOrigin::Environment("WECHAT_SECRET".into())));
            }
            if wanted.of_app && self.company != Company::Alone {
                return Some((SecretSource::Absent, SecretOrigin::Nowhere));
            }
            let problem = Problem::new(
                format!("{} {} has no {}", wanted.the, appid.map(quoted).unwrap_or_default(), wanted.noun),
                wanted.remedy(),
            );
            self.faults.push(problem.at(&raw.place));
            return None;
        };
        let place = given.place.clone();
        if wanted.of_app && self.company == Company::Upstream {
            self.fault(key, no_use_for_a_secret(wanted.noun), &place);
        }
        match self.secret_of(key, given.value, document, wanted, appid) {
            Ok((SecretSource::Fixed(secret), SecretOrigin::Inline)) if matches!(place, Place::Environment(_)) => {
                let name = place.to_string().trim_start_matches("environment ").to_owned();
                Some((SecretSource::Environment(secret), SecretOrigin::Environment(name)))
            }
            Ok(secret) => {
                if key == wanted.key {
                    let open = if document.open_to_others { ", and others may read this file (chmod 600)" } else { "" };
                    self.warnings.push(format!(
                        "{place}: the {} is written in the configuration{open}; {}_file keeps it apart",
                        wanted.noun, wanted.key
                    ));
                }
                Some(secret)
            }
            Err(problem) => {
                self.fault(key, problem, &place);
                None
            }
        }
    }

    fn secret_of(
        &mut self,
        key: &str,
        value: Value,
        document: &Document,
        wanted: &Wanted,
        appid: Option<&str>,
    ) -> Reading<(SecretSource, SecretOrigin)> {
        let name = text(&value)?;
        match key.strip_prefix(wanted.key).unwrap_or_default() {
            "_file" => {
                let path = document.folder.join(name);
                let source = SecretSource::file(&path);
                Ok((self.secret_file(source, &path, wanted, appid)?, SecretOrigin::File(path)))
            }
            "_credential" => {
                let path = credentials::file(self.environment, &value, &format!("{}_file", wanted.key))?;
                let source = SecretSource::credential(&path);
                Ok((self.secret_file(source, &path, wanted, appid)?, SecretOrigin::Credential(name.to_owned())))
            }
            "_env" => {
                let secret = self.environment.get(name).ok_or_else(|| {
                    let what = format!("the environment has no variable {}", shown(name));
                    Problem::new(what, "Set the variable, or correct its name.")
                })?;
                let secret = secret.to_str().ok_or(SecretFault::NotUtf8).and_then(of_text);
                let secret = secret.map_err(|fault| {
                    Problem::new(
                        format!("the variable {} {fault}", shown(name)),
                        format!("Set it to {}.", wanted.whose),
                    )
                })?;
                Ok((SecretSource::Environment(secret), SecretOrigin::Environment(name.to_owned())))
            }
            _ => {
                let secret = of_text(name).map_err(|fault| {
                    Problem::new(format!("the {} {fault}", wanted.noun), format!("Write {}.", wanted.whose))
                })?;
                Ok((SecretSource::Fixed(secret), SecretOrigin::Inline))
            }
        }
    }

    fn secret_file(
        &mut self,
        source: SecretSource,
        path: &Path,
        wanted: &Wanted,
        appid: Option<&str>,
    ) -> Reading<SecretSource> {
        source.read().map_err(|fault| {
            let remedy = match fault {
                SecretFault::NoDescriptor => crate::descriptors::REMEDY.to_owned(),
                SecretFault::Surplus(_) => {
                    format!("Put {} into the file, and nothing else; save it without a BOM.", wanted.whose)
                }
                SecretFault::Unreadable(_) => {
                    let setting = format!("{}_credential", wanted.key);
                    credentials::remedy_if_denied(self.environment, path, &setting, appid)
                        .unwrap_or_else(|| "Check the name of the file and who may read it.".to_owned())
                }
                _ => format!("Put {} into the file, and nothing else.", wanted.whose),
            };
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let what = if secret_like(name) {
                format!("{} {fault}", shown(name))
            } else {
                format!("{} {fault}", path.display())
            };
            Problem::new(what, remedy)
        })?;
        if open_to_others(path) {
            self.warnings.push(format!("{}: others may read this secret (chmod 600)", path.display()));
        }
        Ok(source)
    }

    /// `WECHAT_APPID` and `WECHAT_SECRET` add an app, or bring the secret of one that the file describes.
    fn quick_start(&mut self, entries: &mut Vec<Entry>) {
        let given = |name: &str| self.environment.get(name).filter(|value| !value.is_empty());
        let (id, secret) = (given("WECHAT_APPID"), given("WECHAT_SECRET"));
        let place = |name: &str| Place::Environment(name.into());
        let (id, secret) = match (id, secret) {
            (None, None) => return,
            (Some(id), Some(secret)) => (id, Some(secret)),
            (Some(id), None) if self.company != Company::Alone => (id, None),
            (Some(_), None) => {
                let problem = Problem::new("WECHAT_SECRET is missing beside it", "Set both, or neither.");
                return self.faults.push(problem.at(&place("WECHAT_APPID")));
            }
            (None, Some(_)) => {
                let problem = Problem::new("WECHAT_APPID is missing beside it", "Set both, or neither.");
                return self.faults.push(problem.at(&place("WECHAT_SECRET")));
            }
        };
        let id = appid(&Value::Text(id.to_string_lossy().into_owned()))
            .map_err(|problem| self.faults.push(problem.at(&place("WECHAT_APPID"))));
        if self.company == Company::Upstream && secret.is_some() {
            self.faults.push(no_use_for_a_secret("secret").at(&place("WECHAT_SECRET")));
        }
        let secret = secret.map(|secret| secret.to_str().ok_or(SecretFault::NotUtf8).and_then(of_text)).transpose();
        let secret = secret.map_err(|fault| {
            let problem = Problem::new(format!("the value {fault}"), "Set it to the app's secret.");
            self.faults.push(problem.at(&place("WECHAT_SECRET")));
        });
        let (Ok(appid), Ok(secret)) = (id, secret) else { return };
        let described = entries.iter().find(|entry| entry.app.appid == appid && entry.app.component.is_none());
        let platform = described.map_or(&mp::PLATFORM, |entry| entry.app.platform);
        let doubt = secret.as_ref().and_then(|secret| mistakes::doubt_secret(secret.expose(), platform));
        self.warnings.extend(doubt.map(|doubt| format!("environment WECHAT_SECRET: {doubt}")));
        let origin =
            secret.as_ref().map_or(SecretOrigin::Nowhere, |_| SecretOrigin::Environment("WECHAT_SECRET".into()));
        let secret = secret.map_or(SecretSource::Absent, SecretSource::Environment);
        if let Some(entry) = entries.iter_mut().find(|entry| entry.app.appid == appid && entry.app.component.is_none())
        {
            if !secret.is_absent() {
                entry.app.secret = secret;
                entry.origin = origin;
            }
            return;
        }
        if !(mp::PLATFORM.usual_id)(&appid) {
            self.warnings.push(mistakes::doubt_appid("WECHAT_APPID", &appid, &mp::PLATFORM));
        }
        let names = ["access_token", appid.as_str()];
        let templates = names.map(|name| Template::raw(name, place("WECHAT_APPID"))).into();
        let app = App::mp(&appid, secret, &mp::STABLE);
        entries.push(Entry { app, origin, place: place("WECHAT_APPID"), templates, alias_places: Vec::new() });
    }

    fn collisions(&mut self, entries: &[Entry]) {
        let mut owners: HashMap<String, &Entry> = HashMap::new();
        for entry in entries {
            let id = entry.app.id();
            if let Some(first) = owners.get(&id) {
                let what = format!("appid {} is given twice, first at {}", quoted(&id), first.place);
                self.faults.push(Problem::new(what, "Keep one of the two apps.").at(&entry.place));
            } else {
                owners.insert(id, entry);
            }
        }
        let built_in: HashMap<String, (String, &CredentialType)> = owners
            .iter()
            .flat_map(|(id, entry)| {
                let of = move |kind| entry.app.built_in_names(kind).into_iter().map(move |name| (name, kind));
                entry.app.credential_types().flat_map(of).map(move |(name, kind)| (name, (id.clone(), kind)))
            })
            .collect();
        let mut claimed: HashMap<&str, (String, &Place, &Alias)> = HashMap::new();
        for entry in entries {
            let own = entry.app.id();
            for (alias, place) in entry.app.aliases.iter().zip(&entry.alias_places) {
                let name = alias.name.as_str();
                let what = match (built_in.get(name), owners.get(name), claimed.get(name)) {
                    (Some((other, _)), ..) if *other != own => {
                        format!("is the token's own name of the app {}", quoted(other))
                    }
                    (Some((_, kind)), ..) if !alias.of.is(kind) => format!("is the own name of its {}", kind.key),
                    (_, Some(other), _) if other.app.id() != own => {
                        format!("is the appid of another app, at {}", other.place)
                    }
                    // The same for every app.
                    (_, _, Some((_, _, first))) if alias.view.is_constant() && first.view == alias.view => continue,
                    (_, _, Some((other, first, _))) if *other != own => {
                        format!("is claimed by the app {} already, at {first}", quoted(other))
                    }
                    _ => {
                        claimed.insert(name, (own.clone(), place, alias));
                        continue;
                    }
                };
                let problem = Problem::new(
                    format!("the alias {} {what}", quoted(alias.redacted_name())),
                    "Give each name to one app; without an alias its token is at access_token:<appid>.",
                );
                self.faults.push(problem.at(place));
            }
        }
    }
}

fn no_use_for_a_secret(noun: &str) -> Problem {
    let what = format!("a node with upstream in [state] never calls WeChat and has no use for a {noun}");
    Problem::new(what, "Remove it, or share a Redis by url in [state].")
}

/// The secret in the environment, if the quick start is about that app.
fn quick_start_of(environment: &dyn Environment, appid: &str) -> Option<SecretSource> {
    let same = environment.get("WECHAT_APPID")?.to_str() == Some(appid);
    let secret = of_text(environment.get("WECHAT_SECRET")?.to_str()?).ok()?;
    same.then_some(SecretSource::Environment(secret))
}

fn appid(value: &Value) -> Reading<String> {
    let remedy = "Write the appid as WeChat's platform shows it: wx and 16 digits or letters a to f.";
    let appid = text(value)?;
    if appid.len() > APPID_BYTES_MAX {
        return Err(Problem::new(format!("{} is longer than {APPID_BYTES_MAX} bytes", quoted(appid)), remedy));
    }
    if !fits_in_a_key(appid) {
        let what = mistakes::surplus(appid).unwrap_or("has a blank or a control character");
        return Err(Problem::new(format!("{} {what}", shown(appid)), remedy));
    }
    // A key with this appid in it could not be written down again: braces stand for something there.
    if appid.contains(['{', '}']) {
        return Err(Problem::new(format!("{} has a brace", quoted(appid)), remedy));
    }
    Ok(appid.to_owned())
}

/// A name for a sentence, unless it is a secret that was put in the wrong place.
pub(super) fn shown(name: &str) -> String {
    if secret_like(name) { "a text that looks like the secret itself".to_owned() } else { quoted(name) }
}

/// WeChat's secrets are 32 hex digits; the open platform's begin in their own way. Also where more is around it.
pub(super) fn secret_like(text: &str) -> bool {
    let pushed = ["refreshtoken@@@", "ticket@@@"].iter().any(|start| text.contains(start));
    pushed || text.split(|c: char| !c.is_ascii_alphanumeric()).any(mistakes::has_secret_shape)
}
