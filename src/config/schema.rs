//! The table of all settings, `schema.toml`: what a row may have, and how the table is read.
//!
//! The file, the environment and the flags are read by that table; `check --print`, the reference in docs and the JSON
//! schema for editors are made from it. Plain data; reads nothing else.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer};

/// All tables of the file, in the order in which they are printed.
pub static SECTIONS: LazyLock<&[Section]> = LazyLock::new(|| read(include_str!("schema.toml")));

/// A table of the file: `[server]`, or one of a list such as `[[app]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    pub name: &'static str,
    /// Its former name, which is still read.
    #[serde(default)]
    pub old_name: &'static str,
    /// One table of several: it has no variables and no flags.
    #[serde(default)]
    pub is_list: bool,
    #[serde(deserialize_with = "kept")]
    settings: &'static [Setting],
    /// Keys that `[[app]]` has too, with the same rows.
    #[serde(default, deserialize_with = "kept")]
    as_in_app: &'static [&'static str],
    /// All of them, found once: a file may have ten thousand tables of a section.
    #[serde(skip)]
    all: &'static [&'static Setting],
    /// What it is about, in English and Chinese.
    pub says: [&'static str; 2],
}

/// A key of a table, with its value's type, range and default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// The name in the file: `memory`, `tls.cert`.
    pub key: &'static str,
    pub takes: Takes,
    /// The default in words, English and Chinese, where it is not a constant.
    #[serde(default, rename = "without_it")]
    pub default_words: [&'static str; 2],
    /// memcached's flag for it; empty: none.
    #[serde(default)]
    pub flag: &'static str,
    #[serde(default)]
    pub change: Change,
    /// Its former key, which is still read; empty: none.
    #[serde(default)]
    pub old_key: &'static str,
    /// Of a sink: the types that have it, in words; empty: all.
    #[serde(default)]
    pub types: &'static str,
    /// What it does, in English and Chinese.
    pub says: [&'static str; 2],
}

/// When a changed setting takes effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// At the next start.
    #[default]
    Restart,
    /// After SIGHUP or a reload.
    Reload,
    /// The setting names a file: a change of what is in it is noticed. Another file needs a restart.
    Followed,
}

/// The type of a value, with range and default.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Takes {
    Switch {
        default: Option<bool>,
    },
    Number {
        low: u64,
        high: u64,
        default: Option<u64>,
        #[serde(default)]
        unit: &'static str,
    },
    /// A number of bytes.
    Size {
        low: u64,
        high: u64,
        default: u64,
    },
    /// An access mask in octal.
    Mode {
        default: Option<u32>,
    },
    Word {
        #[serde(deserialize_with = "kept")]
        of: &'static [&'static str],
        #[serde(default)]
        default: &'static str,
    },
    Text {
        #[serde(default)]
        form: TextForm,
        #[serde(default)]
        default: &'static str,
    },
    /// A list of texts; one text with commas too. The default is TOML; empty: none.
    List {
        #[serde(default)]
        form: TextForm,
        #[serde(default)]
        default: &'static str,
    },
    /// A list of these words.
    Words {
        #[serde(deserialize_with = "kept")]
        of: &'static [&'static str],
    },
    /// Something of its own: what, in English and Chinese, and as a JSON schema. The default is TOML; empty: none.
    Other {
        what: [&'static str; 2],
        json: &'static str,
        #[serde(default)]
        default: &'static str,
    },
}

/// What kind of text it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextForm {
    #[default]
    Text,
    Path,
    /// The path of a PEM file with certificates.
    Pem,
    /// The path of a PEM file with a private key.
    PemKey,
    Url,
    Address,
    Host,
    /// Never shown.
    Secret,
    /// The name of a variable that has a secret.
    Variable,
    /// The name of a credential of systemd's.
    Credential,
}

#[expect(clippy::expect_used, reason = "the table is part of the program, and every start and test reads it")]
fn read(table: &'static str) -> &'static [Section] {
    let mut tables: BTreeMap<&str, Vec<Section>> = toml::from_str(table).expect("a table of settings");
    let mut sections = tables.remove("sections").unwrap_or_default();
    let of_app = sections.iter().find(|section| section.name == "app").map_or(&[][..], |app| app.settings);
    for section in &mut sections {
        let shared = section.as_in_app.iter().filter_map(|key| of_app.iter().find(|setting| setting.key == *key));
        section.all = section.settings.iter().chain(shared).collect::<Vec<_>>().leak();
    }
    sections.leak()
}

/// A list that is there for as long as the program is.
fn kept<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<&'static [T], D::Error> {
    Vec::deserialize(from).map(|all| &*all.leak())
}

impl Section {
    /// Its settings, in the order of the table.
    pub fn settings(&self) -> impl Iterator<Item = &'static Setting> + use<> {
        self.all.iter().copied()
    }

    /// Their keys.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.settings().map(|setting| setting.key)
    }

    /// The setting with that key.
    pub fn find(&self, key: &str) -> Option<&'static Setting> {
        self.settings().find(|setting| setting.key == key)
    }

    /// The setting that had that key before.
    pub fn find_old(&self, key: &str) -> Option<&'static Setting> {
        self.settings().find(|setting| setting.old_key == key && !key.is_empty())
    }

    /// The environment variable of one of its settings; none for a list of tables.
    pub fn variable(&self, setting: &Setting) -> Option<String> {
        (!self.is_list).then(|| variable(self.name, setting.key))
    }

    /// The same under the names that the section or the setting had before.
    pub fn old_variable(&self, setting: &Setting) -> Option<String> {
        match (self.is_list, self.old_name, setting.old_key) {
            (true, ..) | (false, "", "") => None,
            (false, "", key) => Some(variable(self.name, key)),
            (false, name, _) => Some(variable(name, setting.key)),
        }
    }
}

fn variable(section: &str, key: &str) -> String {
    format!("TOKENCACHED_{section}_{}", key.replace('.', "_")).to_uppercase()
}

/// The line that a table of it begins with.
pub fn header(section: &Section) -> String {
    if section.is_list { format!("[[{}]]", section.name) } else { format!("[{}]", section.name) }
}

/// The section of that name, if there is one.
pub fn find_section(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.name == name)
}

/// The section of a name that the table has.
pub fn section(name: &str) -> &'static Section {
    find_section(name).unwrap_or(&SECTIONS[0])
}

/// The section and the setting that a flag is for. An empty one is none.
pub fn of_flag(flag: &str) -> Option<(&'static Section, &'static Setting)> {
    let mut all = SECTIONS.iter().flat_map(|section| section.settings().map(move |setting| (section, setting)));
    all.find(|(_, setting)| !flag.is_empty() && setting.flag == flag)
}
