//! The keys that well-known clients read, by the client's name: how the table of them is read, `preset/presets.toml`,
//! and what the shapes in it are.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::encoding::{ANY, ClientLibrary, Constant, Fact, Field, Form, NOMINAL_LIFE_S, View};
use crate::platform::CredentialName;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PresetTable {
    presets: Vec<Preset>,
    lists: HashMap<String, Vec<KeyRow>>,
}

#[expect(clippy::expect_used, reason = "the table is part of the program, and tests read it")]
static TABLE: LazyLock<PresetTable> = LazyLock::new(|| {
    toml::from_str(include_str!("preset/presets.toml")).expect("the table of presets is as it has to be")
});

/// All presets.
pub fn presets() -> &'static [Preset] {
    &TABLE.presets
}

/// The keys of one client.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    pub name: String,
    #[serde(default)]
    store: Store,
    lists: Vec<PresetList>,
}

/// What lies between the client and memcached.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Store {
    /// Nothing that matters here.
    #[default]
    Plain,
    /// A framework's cache, under keys of the site's own choosing.
    Framework,
    /// A framework's cache that replaces the key by its digest, unless the key is short and plain.
    Digesting,
    /// Laravel's cache, which puts its prefix before every key, and up to version 10 a colon between the two. What it
    /// keeps in a Redis is serialized.
    Laravel,
}

impl Preset {
    /// Every key with the view that it shows, for clients that use this library. With `agents` the keys for WeCom,
    /// where an id has many secrets.
    pub fn keys_for(
        &self,
        agents: bool,
        client: ClientLibrary,
    ) -> impl Iterator<Item = (CredentialName, String, View)> {
        let of_list = |name: &str| TABLE.lists.get(name).into_iter().flatten();
        let rows = self.lists.iter().flat_map(move |listed| of_list(&listed.list).map(move |row| (listed, row)));
        let rows = rows.filter(move |(_, row)| row.agents == agents);
        let keys = rows.flat_map(|(listed, row)| row.keys.split(' ').map(move |key| (listed, row, key)));
        keys.map(move |(listed, row, key)| {
            let template = match self.store {
                Store::Digesting if key != SHORT => format!("{{md5:{key}}}"),
                _ => format!("{}{key}", listed.before),
            };
            (row.of, template, listed.shape.as_ref().unwrap_or(&row.shape).view(row.of, client))
        })
    }

    /// Every key with what is under it in a Redis, where nothing has flags and no version is put before keys.
    pub fn keys(&self, agents: bool) -> impl Iterator<Item = (CredentialName, String, View)> {
        self.keys_for(agents, ClientLibrary::default()).map(|(of, template, view)| {
            let template = match template.strip_prefix(ANY) {
                Some(end) => end.trim_start_matches(':').to_owned(),
                None => template,
            };
            let form = match view.form {
                Form::Raw(Fact::Value) if self.store == Store::Laravel => Form::PHP_STRING,
                form => form,
            };
            (of, template, View { form, ..view })
        })
    }

    /// What may stand before the keys, given what the site has configured there. With and without Laravel's colon:
    /// whichever version reads, it finds its key.
    pub fn prefixes(&self, prefix: &str) -> Vec<String> {
        let with_colon = (self.store == Store::Laravel && !prefix.is_empty()).then(|| format!("{prefix}:"));
        std::iter::once(prefix.to_owned()).chain(with_colon).collect()
    }

    /// Whether the preset only guesses that the site has this key: it does not say whose it is, and sites with several
    /// apps have others.
    pub fn guesses(&self, template: &str) -> bool {
        self.store != Store::Plain && !["{appid}", "{secret", "{agent}"].iter().any(|word| template.contains(word))
    }
}

/// A list of keys, as one preset has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PresetList {
    list: String,
    /// What stands before each key.
    #[serde(default)]
    before: String,
    /// The form of all values, in place of the rows' own.
    shape: Option<Shape>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyRow {
    of: CredentialName,
    /// For WeCom, where an id has many secrets.
    #[serde(default)]
    agents: bool,
    /// Separated by blanks.
    keys: String,
    #[serde(default)]
    shape: Shape,
}

/// A place in an array: its name, and what is there.
type NamedFact = (String, Fact);

/// How a key is stored.
#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Shape {
    #[default]
    Raw,
    JsonString,
    /// An object of JSON whose times are always a whole lifetime away.
    FreshJson(Vec<NamedFact>),
    /// `serialize($value)`, handed to the library as a string: for it there is nothing special about that.
    PhpString,
    /// The same of an array.
    PhpStringOf(Vec<NamedFact>),
    /// The same of `[$value, null]`.
    PhpStringWithNull,
    /// The same of `[[...], null]`.
    PhpStringOfWithNull(Vec<NamedFact>),
    /// An array, handed to the library, which serializes and marks it.
    PhpArray(Vec<NamedFact>),
    /// The same, its times always a whole lifetime away.
    FreshPhpArray(Vec<NamedFact>),
    /// The value, when it was fetched, and for how long it was good then.
    PhpValueTimeLife,
    /// A time as it is.
    Time(Fact),
    /// A time that is always a whole lifetime away, flags 0: what the reader looks at on each page view.
    AlwaysFresh(Fact),
    Nothing,
    Constant(u64),
}

/// A lifetime, seconds: longer than any client's lead.
const FRESH_S: u32 = 7200;
/// The one key that is short and plain.
const SHORT: &str = "{appid}";

impl Shape {
    fn view(&self, of: CredentialName, client: ClientLibrary) -> View {
        let named = |facts: &[NamedFact]| {
            let name = |name: &str| if name.is_empty() { of.value_name().to_owned() } else { name.to_owned() };
            let mut facts: Vec<NamedFact> = facts.iter().map(|(known, fact)| (name(known), *fact)).collect();
            // As the fields of a TOML table come.
            facts.sort_unstable();
            Field::named(facts)
        };
        let with_null = |field| Form::Php(Field::Listed(vec![field, Field::Constant(Constant::Null)]));
        let (form, flags, at_least_s) = match self {
            Shape::Raw => (Form::Raw(Fact::Value), 0, 0),
            Shape::JsonString => (Form::JSON_STRING, 0, 0),
            Shape::FreshJson(facts) => (Form::Json(named(facts)), client.object_flags(), FRESH_S),
            Shape::PhpString => (Form::PHP_STRING, 0, 0),
            Shape::PhpStringOf(facts) => (Form::Php(named(facts)), 0, 0),
            Shape::PhpStringWithNull => (with_null(Field::Fact(Fact::Value)), 0, 0),
            Shape::PhpStringOfWithNull(facts) => (with_null(named(facts)), 0, 0),
            Shape::PhpArray(facts) => (Form::Php(named(facts)), client.serialized_flags(), 0),
            Shape::FreshPhpArray(facts) => (Form::Php(named(facts)), client.serialized_flags(), FRESH_S),
            Shape::PhpValueTimeLife => {
                let life = Field::Constant(Constant::Number(NOMINAL_LIFE_S));
                let fields = vec![Field::Fact(Fact::Value), Field::Fact(Fact::FetchedAt), life];
                (Form::Php(Field::Listed(fields)), client.serialized_flags(), 0)
            }
            Shape::Time(fact) => (Form::Raw(*fact), 0, 0),
            Shape::AlwaysFresh(fact) => (Form::Raw(*fact), 0, FRESH_S),
            Shape::Nothing => (Form::Nothing, 0, 0),
            Shape::Constant(number) => (Form::Constant(number.to_string()), 0, 0),
        };
        View { form, flags, at_least_s }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// What is under each key of a preset.
    fn keys(preset: &Preset) -> HashMap<(bool, String), (CredentialName, View)> {
        let mut keys = HashMap::new();
        for agents in [false, true] {
            for (of, template, view) in preset.keys_for(agents, ClientLibrary::default()) {
                let first = keys.insert((agents, template.clone()), (of, view));
                assert!(first.is_none(), "{}: {template} is there twice", preset.name);
            }
        }
        keys
    }

    #[test]
    fn every_list_is_there_and_used() {
        let used: std::collections::BTreeSet<_> =
            presets().iter().flat_map(|preset| preset.lists.iter().map(|listed| &listed.list)).collect();
        assert_eq!(used, TABLE.lists.keys().collect());
    }

    #[test]
    fn presets_that_agree_on_a_key_agree_on_whose_it_is() {
        let mut seen = HashMap::new();
        for preset in presets() {
            for (key, (of, _)) in keys(preset) {
                assert_eq!(*seen.entry(key.clone()).or_insert(of), of, "{}: {}", preset.name, key.1);
            }
        }
    }

    #[test]
    fn names_are_given_once() {
        let names: std::collections::HashSet<_> = presets().iter().map(|preset| &preset.name).collect();
        assert_eq!(names.len(), presets().len());
    }

    #[test]
    fn laravel_finds_its_key_with_its_colon_and_without() {
        let preset = |name| presets().iter().find(|preset| preset.name == name).unwrap();
        assert_eq!(preset("laravel").prefixes("laravel_cache"), ["laravel_cache", "laravel_cache:"]);
        assert_eq!(preset("laravel").prefixes(""), [""]);
        assert_eq!(preset("tutorial").prefixes("shop_"), ["shop_"]);
    }

    #[test]
    fn a_redis_gets_no_wildcard_and_what_laravel_reads_there() {
        for preset in presets() {
            for (_, template, view) in preset.keys(false).chain(preset.keys(true)) {
                assert!(!template.contains(ANY), "{}: {template}", preset.name);
                assert!(preset.store != Store::Laravel || view.form != Form::Raw(Fact::Value), "{template}");
            }
        }
    }
}
