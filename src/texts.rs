//! What people read, in Chinese: one table of texts, and how a text is looked up in it.
//!
//! The parts write English. What is printed by `check` and `--help`, and the `advice` of a log line, goes through here at
//! the point of output, as with gettext: a text is looked for among the rows of `texts/zh.txt`, which may have holes. What
//! is not found stays English.
//!
//! Never used while a memcached client is answered (of the HTTP API, which tells both languages, only errors come here), and
//! never for what programs read: keys, error codes, TOML.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::LazyLock;

/// The language that something is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    #[default]
    English,
    Chinese,
}

impl Language {
    /// The words for them, as in the configuration.
    pub const WORDS: [(&str, Language); 2] = [("en", Language::English), ("zh", Language::Chinese)];

    pub fn of_word(word: &str) -> Option<Language> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, language)| *language)
    }

    /// That of the locale, by the variables in their usual order; the first one that is set and not empty counts.
    pub fn of_locale(variable: impl Fn(&str) -> Option<String>) -> Language {
        let set = ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().filter_map(variable).find(|value| !value.is_empty());
        let is_chinese = set.is_some_and(|locale| {
            let rest = locale.strip_prefix("zh");
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['_', '-', '.', '@']))
        });
        if is_chinese { Language::Chinese } else { Language::English }
    }

    /// The text in this language, line by line.
    pub fn of(self, text: &str) -> Cow<'_, str> {
        match self {
            Language::English => Cow::Borrowed(text),
            Language::Chinese => Cow::Owned(text.split('\n').map(line).collect::<Vec<_>>().join("\n")),
        }
    }
}

/// The Chinese of a text of one line; `None` if it is not known as a whole.
pub fn chinese(text: &str) -> Option<String> {
    let search = Search { table: &TABLE, left: Cell::new(SEARCH_BYTES_MAX) };
    let found = search.whole(text).or_else(|| search.placed(text));
    found.filter(|_| !search.is_over())
}

/// A text of one line in Chinese, or as it is if its Chinese is not known.
pub fn in_chinese(text: &str) -> String {
    chinese(text).unwrap_or_else(|| text.to_owned())
}

/// The Chinese of a text without holes.
pub fn fixed(english: &str) -> Option<&'static str> {
    TABLE.whole.get(english).copied()
}

/// A line in Chinese, with the blanks that it begins with.
fn line(text: &str) -> String {
    let rest = text.trim_start_matches(' ');
    let blanks = &text[..text.len() - rest.len()];
    chinese(rest).map_or_else(|| text.to_owned(), |chinese| format!("{blanks}{chinese}"))
}

/// The rows of the table's own file: English and Chinese.
pub fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = include_str!("texts/zh.txt").lines().filter(|line| !line.is_empty() && !line.starts_with("## "));
    let chinese = lines.clone().skip(1).step_by(2);
    lines.step_by(2).zip(chinese)
}

/// So many bytes may be compared with the table for one text, each time with all of it: what others have written may stand
/// in a text, and be such that it can be taken apart in very many ways. No text of ours needs a quarter of it.
const SEARCH_BYTES_MAX: usize = 64 << 10;
/// What looking into the table costs at least.
const SEARCH_BYTES_MIN: usize = 64;

/// How the place of a setting that nobody gave is called.
const DEFAULT: &str = "default";

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table { whole: HashMap::new(), templates: HashMap::new() };
    for (number, (english, chinese)) in rows().enumerate() {
        table.add(number, english, chinese);
    }
    table
});

struct Table {
    whole: HashMap<String, &'static str>,
    /// By the longest word that every text of theirs has, empty if there is none: few of them are compared with a text.
    templates: HashMap<String, Vec<Template>>,
}

struct Template {
    /// In the order of the rows.
    number: usize,
    /// What stands before, between and behind the holes.
    between: Vec<String>,
    holes: Vec<Hole>,
    /// How much of it is not a hole.
    weight: usize,
    chinese: &'static str,
}

struct Hole {
    /// What the Chinese calls it: a name, or its number.
    name: String,
    /// `{#}`: takes digits only.
    is_number: bool,
}

impl Table {
    fn add(&mut self, number: usize, english: &'static str, chinese: &'static str) {
        let (between, holes) = parts(english);
        if holes.is_empty() {
            self.whole.insert(between.concat(), chinese);
            return;
        }
        let weight = between.iter().map(|text| text.len()).sum();
        // What touches a hole may be a part of a word.
        let words = between.join("{}");
        let longest = words.split(' ').filter(|word| !word.contains("{}")).max_by_key(|word| word.len());
        let of_word = self.templates.entry(longest.unwrap_or_default().to_owned()).or_default();
        of_word.push(Template { number, between, holes, weight, chinese });
    }

    /// The template with the most text of its own among those that match; the later of two with as much.
    fn best<'t>(&self, text: &'t str) -> Option<(&Template, Vec<&'t str>)> {
        let words = text.split(' ').filter(|word| !word.is_empty()).chain([""]);
        let with_word = words.filter_map(|word| self.templates.get(word)).flatten();
        let matching = with_word.filter_map(|template| Some((template, template.holes_in(text)?)));
        matching.max_by_key(|(template, _)| (template.weight, template.number))
    }
}

struct Search<'s> {
    table: &'s Table,
    /// How many bytes may still be compared; once there are none left, nothing is found any more.
    left: Cell<usize>,
}

impl Search<'_> {
    fn is_over(&self) -> bool {
        self.left.get() == 0
    }

    /// The Chinese of a text that a row has, or of several of them behind each other.
    fn whole(&self, text: &str) -> Option<String> {
        if self.is_over() {
            return None;
        }
        if let Some(chinese) = self.one(text) {
            return Some(chinese);
        }
        let known = |part| self.one(part).or_else(|| self.listed(part));
        let rest_of = |text| self.whole(text).or_else(|| self.placed(text)).or_else(|| self.listed(text));
        let parts = |(at, between): (usize, &str)| Some((known(&text[..at])?, rest_of(&text[at + between.len()..])?));
        text.match_indices("; ").find_map(parts).map(|(first, rest)| format!("{first}；{rest}"))
    }

    /// The Chinese of a text that one row has.
    fn one(&self, text: &str) -> Option<String> {
        self.left.set(self.left.get().saturating_sub(text.len() + SEARCH_BYTES_MIN));
        if self.is_over() {
            return None;
        }
        if let Some(chinese) = self.table.whole.get(text) {
            return Some(fill(chinese, &[], &[]));
        }
        let (template, found) = self.table.best(text)?;
        let found: Vec<Cow<'_, str>> = found.into_iter().map(|part| self.hole(part)).collect();
        Some(fill(template.chinese, &template.holes, &found))
    }

    /// A text behind a place, such as `FILE:LINE: text`.
    fn placed(&self, text: &str) -> Option<String> {
        if self.is_over() {
            return None;
        }
        text.match_indices(": ").find_map(|(at, colon)| {
            let chinese = self.whole(&text[at + colon.len()..])?;
            let known = |place: &str| if place.contains(' ') || place == DEFAULT { self.whole(place) } else { None };
            let places = text[..at].split(": ").map(|place| known(place).map_or(Cow::Borrowed(place), Cow::Owned));
            Some(format!("{}: {chinese}", places.collect::<Vec<_>>().join(": ")))
        })
    }

    /// What stands in a hole: a known text, the end of one such as `is empty`, a list, or something that has no language.
    fn hole<'t>(&self, text: &'t str) -> Cow<'t, str> {
        // A word by itself is a key or a name.
        if !text.contains(' ') {
            return Cow::Borrowed(text);
        }
        let end = || self.one(&format!(" {text}")).map(|chinese| chinese.trim_start().to_owned());
        let bare = || self.whole(text.trim_start());
        let known =
            self.whole(text).or_else(end).or_else(bare).or_else(|| self.placed(text)).or_else(|| self.listed(text));
        known.map_or(Cow::Borrowed(text), Cow::Owned)
    }

    /// `a, b and c`, `a or b`, of known texts and of words.
    fn listed(&self, text: &str) -> Option<String> {
        if self.is_over() {
            return None;
        }
        let word = if text.contains(" or ") { Some((" or ", " 或 ")) } else { None };
        let word = word.or_else(|| text.contains(" and ").then_some((" and ", " 和 ")));
        let items = text.split(", ").flat_map(|part| part.split(word.map_or(", ", |(english, _)| english)));
        let one = |item: &str| if item.contains(' ') { self.one(item) } else { Some(item.to_owned()) };
        let items: Vec<String> = items.map(one).collect::<Option<_>>()?;
        match (&items[..], word) {
            ([_], _) => None,
            ([others @ .., last], Some((_, chinese))) => Some(format!("{}{chinese}{last}", others.join("、"))),
            _ => Some(items.join("、")),
        }
    }
}

impl Template {
    /// What stands in the holes if this is the text.
    fn holes_in<'t>(&self, text: &'t str) -> Option<Vec<&'t str>> {
        let (first, last) = (self.between.first()?, self.between.last()?);
        let mut rest = text.strip_prefix(first.as_str())?.strip_suffix(last.as_str())?;
        let mut found = Vec::new();
        for between in &self.between[1..self.between.len() - 1] {
            let (hole, behind) = rest.split_once(between.as_str())?;
            found.push(hole);
            rest = behind;
        }
        found.push(rest);
        // A place before a text is no part of what the text is about.
        let is_placed = first.is_empty() && found[0].contains(": ") && !self.between[1].starts_with(": ");
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let fits = self.holes.iter().zip(&found).all(|(hole, text)| !hole.is_number || is_number(text));
        (fits && !is_placed).then_some(found)
    }
}

/// A template taken apart as `format!` does it: the text around its holes, and the holes.
fn parts(template: &str) -> (Vec<String>, Vec<Hole>) {
    let (mut between, mut holes, mut nameless) = (vec![String::new()], Vec::new(), 0u8..);
    let mut chars = template.chars().peekable();
    while let Some(c) = chars.next() {
        let is_doubled = matches!(c, '{' | '}') && chars.next_if_eq(&c).is_some();
        if c == '{' && !is_doubled {
            let name: String = chars.by_ref().take_while(|c| *c != '}').collect();
            let is_number = name == "#";
            let name =
                if name.is_empty() || is_number { nameless.next().unwrap_or_default().to_string() } else { name };
            holes.push(Hole { name, is_number });
            between.push(String::new());
        } else if let Some(text) = between.last_mut() {
            text.push(c);
        }
    }
    (between, holes)
}

/// The Chinese with its holes filled.
fn fill(chinese: &str, holes: &[Hole], found: &[Cow<'_, str>]) -> String {
    let (between, used) = parts(chinese);
    let mut between = between.iter();
    let mut text = between.next().cloned().unwrap_or_default();
    for (hole, behind) in used.iter().zip(between) {
        let at = holes.iter().position(|known| known.name == hole.name);
        append(&mut text, at.and_then(|at| found.get(at)).map_or("", |found| found));
        append(&mut text, behind);
    }
    text
}

/// Appends with a blank between Chinese and what is written in letters, and with none between Chinese and Chinese.
fn append(text: &mut String, more: &str) {
    let is_word = |c: char| c.is_ascii_graphic() && !",.;:)]}>!?%".contains(c);
    let is_han = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
    let is_wide = |c: char| is_han(c) || "，。；：（）、！？".contains(c);
    let ends_in = |text: &str, is: &dyn Fn(char) -> bool| text.chars().next_back().is_some_and(is);
    let more = match more.strip_prefix(' ') {
        Some(rest) if rest.starts_with(is_wide) && ends_in(text, &is_wide) => rest,
        _ => more,
    };
    if text.ends_with(' ') && more.starts_with(is_wide) && ends_in(text.trim_end(), &is_wide) {
        text.truncate(text.trim_end().len());
    }
    let ends_in_word = ends_in(text, &|c| c.is_ascii_graphic() && !"([{<".contains(c));
    if ends_in(text, &is_han) && more.starts_with(is_word) || ends_in_word && more.starts_with(is_han) {
        text.push(' ');
    }
    text.push_str(more);
}

#[cfg(test)]
mod tests;
