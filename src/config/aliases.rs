//! `aliases`, `presets` and `prefix` of an `[[app]]` -> the keys that show its credentials.
//!
//! A key may hold the app's secret, because some clients put it into theirs. Such a key is never spoken: wherever
//! people read it, `{secret}` stands in its place, even if the file has it in full.

use std::fmt;

use super::apps::{Reader, shown};
use super::fault::{Place, Problem};
use super::file::RawTable;
use super::presets::PRESETS;
use super::settings::closest;
use super::value::{Given, Reading, Value, integer, kind, quoted, text, word};
use super::{SecretSource, View};
use crate::credential::encoding::{Fact, Form};
use crate::kind::{Kind, Platform, component};

/// memcached's longest key.
const NAME_BYTES_MAX: usize = 250;
/// A shorter text is no secret of WeChat's; leaving it out of sight would only make names unreadable.
const SECRET_BYTES_MIN: usize = 16;
/// As much of WeCom's secret is in wechatpy's key, because a corporation has many secrets.
const SECRET_BEGINNING: usize = 10;
/// Longest life a time may be stretched to: WeChat's own is 7200.
const AT_LEAST_S_MAX: u64 = 86_400;

const TABLE_KEYS: &[&str] = &["key", "of", "shows", "encoding", "fields", "constant", "flags", "at_least"];
/// Which of an app's credentials a key shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AliasOf {
    AccessToken,
    JsapiTicket,
    WxCardTicket,
    /// WeCom's, for `wx.agentConfig`.
    AgentTicket,
    /// A component's own.
    ComponentToken,
}

impl AliasOf {
    pub(super) const ALL: [AliasOf; 5] = [
        AliasOf::AccessToken,
        AliasOf::JsapiTicket,
        AliasOf::WxCardTicket,
        AliasOf::AgentTicket,
        AliasOf::ComponentToken,
    ];

    /// What a kind of credential is to an alias.
    pub(super) fn of(kind: &Kind) -> Option<AliasOf> {
        AliasOf::ALL.into_iter().find(|of| of.is(kind))
    }

    /// Whether it is about credentials of that kind.
    pub fn is(self, kind: &Kind) -> bool {
        self.word() == kind.key
    }

    /// The word in the configuration; a kind's `key` too.
    pub fn word(self) -> &'static str {
        match self {
            AliasOf::AccessToken => "access_token",
            AliasOf::JsapiTicket => "jsapi_ticket",
            AliasOf::WxCardTicket => "wx_card_ticket",
            AliasOf::AgentTicket => "agent_ticket",
            AliasOf::ComponentToken => "component_access_token",
        }
    }
}

/// Another key for a credential. `Debug` never shows a secret in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Alias {
    pub name: String,
    /// What stands for the name wherever people read it, if the name holds the secret.
    pub spoken: Option<String>,
    pub of: AliasOf,
    pub view: View,
}

impl Alias {
    /// A key that answers with the access token itself.
    pub fn raw(name: impl Into<String>) -> Alias {
        Alias { name: name.into(), spoken: None, of: AliasOf::AccessToken, view: View::RAW }
    }

    /// The name as people may read it.
    pub fn spoken(&self) -> &str {
        self.spoken.as_deref().unwrap_or(&self.name)
    }
}

impl fmt::Debug for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alias").field("name", &self.spoken()).field("of", &self.of).field("view", &self.view).finish()
    }
}

/// An alias before the secret is known.
pub(super) struct Template {
    key: String,
    of: AliasOf,
    view: View,
    preset: bool,
    place: Place,
}

impl Template {
    pub fn raw(key: impl Into<String>, place: Place) -> Template {
        Template { key: key.into(), of: AliasOf::AccessToken, view: View::RAW, preset: false, place }
    }
}

impl Reader<'_> {
    /// The aliases as written, then those of the presets. `kept` is what the app keeps current.
    pub(super) fn templates(
        &mut self,
        raw: &RawTable,
        appid: &str,
        platform: &Platform,
        kept: &[AliasOf],
    ) -> Vec<Template> {
        let mut templates = Vec::new();
        for item in self.list(raw, "aliases", "aliases = [\"access_token\"]") {
            match template(item, kept) {
                Ok(template) => templates.push(template),
                Err((problem, place)) => self.fault("aliases", problem, &place),
            }
        }
        let prefix = match raw.fields.get("prefix") {
            Some(given) if !raw.fields.contains_key("presets") => {
                let problem = Problem::new(
                    "there are no presets for it to stand before",
                    "Add presets = [...], or write the prefix into each alias.",
                );
                self.fault("prefix", problem, &given.place);
                ""
            }
            Some(given) => {
                text(&given.value).map_err(|problem| self.fault("prefix", problem, &given.place)).unwrap_or_default()
            }
            None => "",
        };
        for item in self.list(raw, "presets", "presets = [\"tutorial\"]") {
            match preset(&item.value) {
                Ok(preset) => {
                    let keys = preset.keys(platform.has_agents).filter(|(of, ..)| kept.contains(of));
                    // An authorizer has no secret, so nobody looks under such a key.
                    let has_secret = platform.name != component::AUTHORIZERS.name;
                    let keys = keys.filter(|(_, key, _)| has_secret || !key.contains("{secret"));
                    templates.extend(keys.map(|(of, key, view)| {
                        let key = format!("{prefix}{key}");
                        Template { key, of, view, preset: true, place: item.place.clone() }
                    }));
                }
                Err(problem) => self.fault("presets", problem, &item.place),
            }
        }
        templates.retain_mut(|template| match placeholders(&template.key, platform) {
            Ok(()) => {
                template.key = template.key.replace("{appid}", appid);
                true
            }
            Err(problem) => {
                self.fault(if template.preset { "presets" } else { "aliases" }, problem, &template.place);
                false
            }
        });
        templates
    }

    pub(super) fn list<'g>(&mut self, raw: &'g RawTable, key: &'static str, example: &str) -> &'g [Given] {
        let Some(given) = raw.fields.get(key) else { return &[] };
        if let Value::List(items) = &given.value {
            return items;
        }
        let what = format!("{} is not a list", kind(&given.value));
        self.fault(key, Problem::new(what, format!("Write {example}, in brackets.")), &given.place);
        &[]
    }

    /// The keys themselves, with their places. What is written out wins over a preset.
    pub(super) fn expand(&mut self, templates: Vec<Template>, secret: &SecretSource) -> (Vec<Alias>, Vec<Place>) {
        let absent = secret.is_absent();
        let secret = secret.read().ok();
        let secret = secret.as_ref().map_or("", |secret| secret.expose());
        let (mut aliases, mut places): (Vec<Alias>, Vec<Place>) = Default::default();
        for template in templates {
            let Template { key, of, view, preset, place } = template;
            let list = if preset { "presets" } else { "aliases" };
            if absent && key.contains("{secret") {
                // Under a preset's key nobody is answered, as without the preset.
                if !preset {
                    let what = format!("{} wants the secret, and the app has none here", quoted(&key));
                    self.fault(list, Problem::new(what, "Remove the alias, or give the app its secret."), &place);
                }
                continue;
            }
            let (name, spoken) = spell(key, secret);
            if let Err(problem) = fit(&name, &spoken) {
                self.fault(list, problem, &place);
                continue;
            }
            let spoken = (spoken != name).then_some(spoken);
            let alias = Alias { name, spoken, of, view };
            match aliases.iter().find(|known| known.name == alias.name) {
                None => {
                    aliases.push(alias);
                    places.push(place);
                }
                Some(known) if preset || *known == alias => {}
                Some(_) => {
                    let what = format!("the alias {} is given twice, with different contents", quoted(alias.spoken()));
                    self.fault(list, Problem::new(what, "Keep one of the two."), &place);
                }
            }
        }
        (aliases, places)
    }
}

/// The key itself, and what may be shown of it.
pub(super) fn spell(key: String, secret: &str) -> (String, String) {
    let beginning = secret.get(..SECRET_BEGINNING).unwrap_or(secret);
    let spoken = if secret.len() >= SECRET_BYTES_MIN { key.replace(secret, "{secret}") } else { key };
    (spoken.replace("{secret}", secret).replace("{secret10}", beginning), spoken)
}

pub(super) fn preset(value: &Value) -> Reading<&'static super::presets::Preset> {
    let name = text(value)?;
    PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
        let names = || PRESETS.iter().map(|preset| preset.name);
        let remedy = match closest(name, names()) {
            Some(close) => format!("Did you mean {close:?}?"),
            None => format!("Known are {}.", names().collect::<Vec<_>>().join(", ")),
        };
        Problem::new(format!("{} is not known", quoted(name)), remedy)
    })
}

/// `{word}` must be one that is known; other braces are part of the key.
fn placeholders(key: &str, platform: &Platform) -> Reading<()> {
    if platform.name == component::AUTHORIZERS.name && key.contains("{secret") {
        let what = format!("{} wants a secret, and an authorizer has none", quoted(key));
        return Err(Problem::new(what, "Known here is {appid}."));
    }
    known_words(key, &["appid", "secret", "secret10"])
}

/// The same, for any words.
pub(super) fn known_words(key: &str, known: &[&str]) -> Reading<()> {
    for rest in key.split('{').skip(1) {
        let Some((inner, _)) = rest.split_once('}') else { continue };
        let is_word = !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_word && !known.contains(&inner) {
            let what = format!("{{{}}} is not known in a key", shown(inner).trim_matches('"'));
            let words: Vec<String> = known.iter().map(|word| format!("{{{word}}}")).collect();
            let (last, others) = words.split_last().map_or(("", &[][..]), |(last, others)| (last, others));
            return Err(Problem::new(what, format!("Known are {} and {last}.", others.join(", "))));
        }
    }
    Ok(())
}

/// Whether memcached takes that key. `spoken` is what may be shown of it.
fn fit(name: &str, spoken: &str) -> Reading<()> {
    let remedy = "An alias is a memcached key: 1 to 250 bytes without blanks and control characters.";
    match name {
        "" => Err(Problem::new("an alias is empty", remedy)),
        _ if name.len() > NAME_BYTES_MAX => {
            Err(Problem::new(format!("the alias {} has {} bytes", quoted(spoken), name.len()), remedy))
        }
        _ if !fits_in_a_key(name) => {
            Err(Problem::new(format!("the alias {} has a blank or a control character", quoted(spoken)), remedy))
        }
        _ => Ok(()),
    }
}

/// Whether a text may be part of a key.
pub(super) fn fits_in_a_key(text: &str) -> bool {
    !text.bytes().any(|byte| byte <= b' ' || byte == 0x7f)
}

fn template(item: &Given, kept: &[AliasOf]) -> Result<Template, (Problem, Place)> {
    match &item.value {
        Value::Text(key) => Ok(Template { of: usual(kept), ..Template::raw(key, item.place.clone()) }),
        Value::Table(fields) => table(fields, &item.place, kept),
        other => {
            let remedy = "Write a key in quotes, or a table such as { key = \"...\", encoding = \"json_string\" }.";
            Err((Problem::new(format!("{} is not an alias", kind(other)), remedy), item.place.clone()))
        }
    }
}

/// The fields of a table, by name.
pub(super) struct Fields<'g>(&'g [(String, Given)]);

impl<'g> Fields<'g> {
    fn given(&self, name: &str) -> Option<&'g Given> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, given)| given)
    }

    pub fn read<T>(&self, name: &str, read: impl Fn(&'g Value) -> Reading<T>) -> Result<Option<T>, (Problem, Place)> {
        let Some(given) = self.given(name) else { return Ok(None) };
        read(&given.value)
            .map(Some)
            .map_err(|problem| (Problem::new(format!("{name}: {}", problem.what), problem.remedy), given.place.clone()))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Raw,
    JsonString,
    JsonNumber,
    JsonObject,
    PhpString,
    PhpArray,
}

#[derive(Clone, Copy)]
enum Shows {
    Fact(Fact),
    Nothing,
}

enum Layout {
    Named(Vec<(String, Fact)>),
    Listed(Vec<Fact>),
}

fn table(given: &[(String, Given)], place: &Place, kept: &[AliasOf]) -> Result<Template, (Problem, Place)> {
    let fields = Fields::of(given, TABLE_KEYS, "an alias")?;
    let Some(key) = fields.read("key", text)? else {
        let problem = Problem::new("an alias has no key", "Write { key = \"...\", ... }.");
        return Err((problem, place.clone()));
    };
    let of = fields.read("of", |value| of(value, kept))?.unwrap_or(usual(kept));
    let view = fields.view(of, place)?;
    Ok(Template { key: key.to_owned(), of, view, preset: false, place: place.clone() })
}

impl<'g> Fields<'g> {
    /// All of them known; `whose` is in the fault otherwise.
    pub fn of(given: &'g [(String, Given)], known: &[&str], whose: &str) -> Result<Fields<'g>, (Problem, Place)> {
        match given.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(Fields(given)),
            Some((name, given)) => {
                let remedy = match closest(name, known.iter().copied()) {
                    Some(close) => format!("Did you mean {close:?}?"),
                    None => format!("Remove it; known here are {}.", known.join(", ")),
                };
                Err((Problem::new(format!("{} is not a key of {whose}", quoted(name)), remedy), given.place.clone()))
            }
        }
    }

    /// How the key shows a credential of that kind.
    pub fn view(&self, of: AliasOf, place: &Place) -> Result<View, (Problem, Place)> {
        let encodings = [
            ("raw", Encoding::Raw),
            ("json_string", Encoding::JsonString),
            ("json_number", Encoding::JsonNumber),
            ("json_object", Encoding::JsonObject),
            ("php_string", Encoding::PhpString),
            ("php_array", Encoding::PhpArray),
        ];
        let encoding = self.read("encoding", |value| word(value, &encodings))?;
        let mut showable = Fact::ALL.map(|(name, fact)| (name, Shows::Fact(fact))).to_vec();
        showable.push(("nothing", Shows::Nothing));
        let shows = self.read("shows", |value| word(value, &showable))?;
        let layout = self.read("fields", layout)?;
        let constant = self.read("constant", |value| integer(value, 0..=u64::from(u32::MAX)))?;
        let form = form(encoding, shows, layout, constant, of).map_err(|problem| (problem, place.clone()))?;
        let usual = match form {
            // pecl memcached's mark of a serialized value.
            Form::PhpString | Form::PhpArray(_) | Form::PhpList(_) => 4,
            _ => 0,
        };
        let flags = self.read("flags", |value| integer(value, 0..=u64::from(u32::MAX)))?;
        let flags = flags.and_then(|flags| u32::try_from(flags).ok()).unwrap_or(usual);
        let at_least = self.read("at_least", |value| integer(value, 0..=AT_LEAST_S_MAX))?;
        let at_least_s = at_least.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(0);
        Ok(View { form, flags, at_least_s })
    }
}

/// What a key shows unless it says so: the app's token, which stands first.
fn usual(kept: &[AliasOf]) -> AliasOf {
    kept.first().copied().unwrap_or(AliasOf::AccessToken)
}

/// A kind of credential by its word.
pub(super) fn of_word(value: &Value) -> Reading<AliasOf> {
    word(value, &AliasOf::ALL.map(|of| (AliasOf::word(of), of)))
}

fn of(value: &Value, kept: &[AliasOf]) -> Reading<AliasOf> {
    let of = of_word(value)?;
    if kept.contains(&of) {
        return Ok(of);
    }
    let kept = kept.iter().map(|of| format!("{:?}", of.word())).collect::<Vec<_>>().join(" or ");
    Err(Problem::new(format!("{:?} is not kept for this app", of.word()), format!("Write {kept}.")))
}

fn layout(value: &Value) -> Reading<Layout> {
    let fact = |given: &Given| word(&given.value, &Fact::ALL);
    match value {
        Value::Table(fields) => {
            let named = |(name, given): &(String, Given)| Ok((name.clone(), fact(given)?));
            Ok(Layout::Named(fields.iter().map(named).collect::<Reading<_>>()?))
        }
        Value::List(items) => Ok(Layout::Listed(items.iter().map(fact).collect::<Reading<_>>()?)),
        other => Err(Problem::new(
            format!("{} is neither a table nor a list", kind(other)),
            "Write fields = { token = \"value\", expiration = \"expires_at\" }, or a list without names.",
        )),
    }
}

fn form(
    encoding: Option<Encoding>,
    shows: Option<Shows>,
    layout: Option<Layout>,
    constant: Option<u64>,
    of: AliasOf,
) -> Reading<Form> {
    let alone = encoding.is_none() && layout.is_none();
    if let Some(number) = constant {
        return match (alone, shows) {
            (true, None) => Ok(Form::Constant(number)),
            _ => Err(Problem::new("a constant has neither shows, encoding nor fields", "Remove them.")),
        };
    }
    if layout.is_some() && !matches!(encoding, Some(Encoding::JsonObject | Encoding::PhpArray)) {
        let remedy = "Add encoding = \"json_object\" or \"php_array\", or remove the fields.";
        return Err(Problem::new("fields are for an object or an array", remedy));
    }
    let fields = || match layout {
        Some(layout) => layout,
        None => {
            let value = match of {
                AliasOf::AccessToken | AliasOf::ComponentToken => of.word(),
                _ => "ticket",
            };
            let fields = [(value, Fact::Value), ("expires_at", Fact::ExpiresAt), ("expires_in", Fact::ExpiresIn)];
            let mut fields = fields.map(|(name, fact)| (name.to_owned(), fact)).to_vec();
            // As the fields of a TOML table come.
            fields.sort_unstable();
            Layout::Named(fields)
        }
    };
    match (shows.unwrap_or(Shows::Fact(Fact::Value)), encoding.unwrap_or(Encoding::Raw)) {
        (Shows::Nothing, _) if encoding.is_none() => Ok(Form::Nothing),
        (Shows::Nothing, _) => Err(Problem::new("nothing has no encoding", "Remove the encoding.")),
        (Shows::Fact(fact), Encoding::Raw) => Ok(Form::Raw(fact)),
        (Shows::Fact(Fact::Value), Encoding::JsonString) => Ok(Form::JsonString),
        (Shows::Fact(Fact::Value), Encoding::PhpString) => Ok(Form::PhpString),
        (Shows::Fact(Fact::Value), Encoding::JsonNumber) => {
            Err(Problem::new("the value is not a number", "Write encoding = \"json_string\"."))
        }
        (Shows::Fact(Fact::Value), Encoding::JsonObject) => Ok(match fields() {
            Layout::Named(fields) => Form::JsonObject(fields),
            Layout::Listed(facts) => Form::JsonList(facts),
        }),
        (Shows::Fact(Fact::Value), Encoding::PhpArray) => Ok(match fields() {
            Layout::Named(fields) => Form::PhpArray(fields),
            Layout::Listed(facts) => Form::PhpList(facts),
        }),
        (Shows::Fact(time), Encoding::JsonNumber) => Ok(Form::Raw(time)),
        (Shows::Fact(_), _) => {
            let remedy = "Write encoding = \"raw\" or \"json_number\", or remove shows.";
            Err(Problem::new("a time is a number, in no such encoding", remedy))
        }
    }
}

/// An alias as the file could have it.
pub(super) fn as_toml(alias: &Alias, quoted: impl Fn(&str) -> String) -> String {
    let key = quoted(alias.spoken());
    let usual = matches!(alias.of, AliasOf::AccessToken | AliasOf::ComponentToken);
    if usual && alias.view == View::RAW {
        return key;
    }
    let (view, form) = (&alias.view, form_as_toml(&alias.view.form, quoted));
    let mut text = format!("{{ key = {key}, {form}");
    if !usual {
        text += &format!(", of = \"{}\"", alias.of.word());
    }
    if view.flags != 0 || matches!(view.form, Form::PhpString | Form::PhpArray(_) | Form::PhpList(_)) {
        text += &format!(", flags = {}", view.flags);
    }
    if view.at_least_s != 0 {
        text += &format!(", at_least = {}", view.at_least_s);
    }
    text + " }"
}

/// The fields of a table that say so.
pub(super) fn form_as_toml(form: &Form, quoted: impl Fn(&str) -> String) -> String {
    let name = |fact: &Fact| fact.word();
    let named = |fields: &[(String, Fact)]| {
        let each = |(field, fact): &(String, Fact)| format!("{} = \"{}\"", quoted(field), name(fact));
        format!("{{ {} }}", fields.iter().map(each).collect::<Vec<_>>().join(", "))
    };
    let listed = |facts: &[Fact]| {
        format!("[{}]", facts.iter().map(|fact| format!("\"{}\"", name(fact))).collect::<Vec<_>>().join(", "))
    };
    match form {
        Form::Raw(Fact::Value) => "encoding = \"raw\"".to_owned(),
        Form::Raw(fact) => format!("shows = \"{}\"", name(fact)),
        Form::JsonString => "encoding = \"json_string\"".to_owned(),
        Form::PhpString => "encoding = \"php_string\"".to_owned(),
        Form::JsonObject(fields) => format!("encoding = \"json_object\", fields = {}", named(fields)),
        Form::JsonList(facts) => format!("encoding = \"json_object\", fields = {}", listed(facts)),
        Form::PhpArray(fields) => format!("encoding = \"php_array\", fields = {}", named(fields)),
        Form::PhpList(facts) => format!("encoding = \"php_array\", fields = {}", listed(facts)),
        Form::Constant(number) => format!("constant = {number}"),
        Form::Nothing => "shows = \"nothing\"".to_owned(),
    }
}
