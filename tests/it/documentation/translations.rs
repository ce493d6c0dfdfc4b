//! A page of the manual that is in English and in Chinese says the same in both: part by part the same code, the same tables,
//! the same names, the same links. A setting, a metric or a route that is added to one of them only makes this red.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::support::markdown::{Part, anchors, is_elsewhere, links, parts, root, spans, text};

/// The pages of a language, by their place in its folder.
fn pages(language: &str) -> BTreeSet<String> {
    let folder = root().join("docs").join(language);
    let mut found = BTreeSet::new();
    for within in ["", "moving/"] {
        let entries = fs::read_dir(folder.join(within)).unwrap().map(|entry| entry.unwrap().file_name());
        let names = entries.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(".md"));
        found.extend(names.map(|name| format!("{within}{name}")));
    }
    found
}

/// A page in both languages.
struct Pair {
    name: String,
    english: Vec<Part>,
    chinese: Vec<Part>,
}

/// Without the settings, because both languages of those are written from one table, by `config_reference`.
fn pairs() -> impl Iterator<Item = Pair> {
    pages("zh").into_iter().filter(|name| name != "settings.md").map(|name| {
        let [english, chinese] = ["en", "zh"].map(|language| parts(&text(&format!("docs/{language}/{name}"))));
        Pair { name, english, chinese }
    })
}

impl Pair {
    /// Both languages of each part, with words that say which part it is.
    fn parts(&self) -> impl Iterator<Item = (String, &Part, &Part)> {
        let place = |ours: &Part| format!("{}, {:?}", self.name, ours.prose.lines().next().unwrap_or_default());
        self.english.iter().zip(&self.chinese).map(move |(ours, theirs)| (place(ours), ours, theirs))
    }
}

/// What only one of the two has, in words.
fn difference<T: Ord + Debug>(place: &str, english: &BTreeSet<T>, chinese: &BTreeSet<T>) -> Option<String> {
    let only = |ours: &BTreeSet<T>, theirs: &BTreeSet<T>| format!("{:?}", ours.difference(theirs).collect::<Vec<_>>());
    let words =
        || format!("{place}: in English only {}, in Chinese only {}", only(english, chinese), only(chinese, english));
    (english != chinese).then(words)
}

/// Shows all that is wrong at once, because a page is mended as a whole.
#[track_caller]
fn assert_none(faults: impl IntoIterator<Item = String>) {
    let faults: Vec<String> = faults.into_iter().collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// What is wrong with any part of any page.
fn faults_of_parts(judge: impl Fn(&Pair, &str, &Part, &Part) -> Vec<String>) -> Vec<String> {
    let of_pair =
        |pair: Pair| pair.parts().flat_map(|(place, ours, theirs)| judge(&pair, &place, ours, theirs)).collect();
    pairs().flat_map::<Vec<String>, _>(of_pair).collect()
}

#[test]
fn every_page_is_in_both_languages() {
    assert_none(difference("the pages", &pages("en"), &pages("zh")));
}

#[test]
fn both_languages_have_the_same_headings() {
    for pair in pairs() {
        let levels = |parts: &[Part]| parts.iter().map(|part| part.level).collect::<Vec<_>>();
        assert!(!pair.english.is_empty(), "{}", pair.name);
        assert_eq!(levels(&pair.english), levels(&pair.chinese), "{}: the levels of the headings", pair.name);
    }
    assert_none(faults_of_parts(|_, place, ours, theirs| {
        let named = |part: &Part| set(spans(part.prose.lines().next().unwrap_or_default()));
        difference(place, &named(ours), &named(theirs)).into_iter().collect()
    }));
}

#[test]
fn both_languages_have_the_same_code() {
    for pair in pairs() {
        for (place, ours, theirs) in pair.parts() {
            let codes = |part: &Part| {
                part.blocks.iter().map(|block| (block.language.clone(), block.code())).collect::<Vec<_>>()
            };
            assert_eq!(codes(ours), codes(theirs), "{place}");
        }
    }
}

/// The cells of each row of the tables. A bar behind a backslash is text.
fn rows(part: &Part) -> Vec<Vec<String>> {
    let rows = part.prose.lines().map(str::trim).filter(|line| line.starts_with('|'));
    let cells = |row: &str| row.replace("\\|", "\0").split('|').map(str::to_owned).collect();
    rows.map(cells).collect()
}

/// Row by row and cell by cell: the rows stand in the same order.
#[test]
fn both_languages_have_the_same_tables() {
    assert_none(faults_of_parts(|_, place, ours, theirs| {
        let [ours, theirs] = [rows(ours), rows(theirs)];
        let mut faults = Vec::new();
        for (our, their) in ours.iter().zip(&theirs) {
            let place = format!("{place}: {}", our.join("|"));
            if our.len() != their.len() {
                faults.push(format!("{place}: {} and {} cells", our.len(), their.len()));
            }
            let cells = our.iter().zip(their);
            faults.extend(cells.filter_map(|(our, their)| difference(&place, &set(spans(our)), &set(spans(their)))));
        }
        if ours.len() != theirs.len() {
            faults.push(format!("{place}: {} rows in English, {} in Chinese", ours.len(), theirs.len()));
        }
        faults
    }));
}

fn set<T: Ord>(all: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    all.into_iter().collect()
}

/// The paragraphs of a part: a list's items and a table's rows each by themselves.
fn paragraphs(part: &Part) -> Vec<String> {
    let (mut paragraphs, mut is_open) = (Vec::<String>::new(), false);
    for line in part.prose.lines() {
        let begins = line.trim_start();
        let digits = begins.trim_start_matches(|c: char| c.is_ascii_digit());
        let is_item =
            begins.starts_with("- ") || begins.starts_with('|') || begins != digits && digits.starts_with(". ");
        match paragraphs.last_mut().filter(|_| is_open && !is_item) {
            Some(paragraph) => paragraph.extend(["\n", line]),
            None if !begins.is_empty() => paragraphs.push(line.to_owned()),
            None => {}
        }
        is_open = !begins.is_empty();
    }
    paragraphs
}

/// What is wrong with any paragraph of any page.
fn faults_of_paragraphs(judge: impl Fn(&str, &str, &str) -> Vec<String>) -> Vec<String> {
    faults_of_parts(|_, place, ours, theirs| {
        let [ours, theirs] = [paragraphs(ours), paragraphs(theirs)];
        if ours.len() != theirs.len() {
            return vec![format!("{place}: {} paragraphs in English, {} in Chinese", ours.len(), theirs.len())];
        }
        let begins = |paragraph: &str| paragraph.chars().take(60).collect::<String>();
        let pairs = ours.iter().zip(&theirs);
        pairs.flat_map(|(ours, theirs)| judge(&format!("{place}: {:?}", begins(ours)), ours, theirs)).collect()
    })
}

#[test]
fn both_languages_name_the_same_in_every_paragraph() {
    assert_none(faults_of_paragraphs(|place, ours, theirs| {
        difference(place, &set(spans(ours)), &set(spans(theirs))).into_iter().collect()
    }));
}

/// The text without what stands in backticks and without the addresses of links.
fn words(prose: &str) -> String {
    let outside_of_code: String = prose.lines().flat_map(|line| line.split('`').step_by(2).chain(["\n"])).collect();
    let mut pieces = outside_of_code.split("](");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |words, piece| words + piece.split_once(')').map_or(piece, |(_, rest)| rest))
}

/// The numbers in a text, as often as they stand there. 10,000 is one number; one of a single digit may as well be a word.
fn numbers(prose: &str) -> Vec<String> {
    let words = words(prose);
    let characters: Vec<char> = words.chars().collect();
    let is_digit = |at: usize| characters.get(at).is_some_and(char::is_ascii_digit);
    let is_within = |at: usize| characters[at] == ',' && at > 0 && is_digit(at - 1) && is_digit(at + 1);
    let joined: String = (0..characters.len()).filter(|at| !is_within(*at)).map(|at| characters[at]).collect();
    let numbers = joined.split(|c: char| !c.is_ascii_digit()).filter(|number| number.len() > 1);
    numbers.map(str::to_owned).collect()
}

/// Errcodes, ports and limits. Chinese has digits for some numbers that English has words for, but not the other way round;
/// and of those with five digits, which are errcodes above all, both have the same.
#[test]
fn both_languages_have_the_same_numbers() {
    assert_none(faults_of_paragraphs(|place, ours, theirs| {
        let [ours, theirs] = [numbers(ours), numbers(theirs)];
        let long = |numbers: &[String]| set(numbers.iter().filter(|number| number.len() > 4).cloned());
        let mut left = theirs.clone();
        let mut is_lacking =
            |number: &&String| left.iter().position(|other| other == *number).map(|at| left.remove(at)).is_none();
        let lacking: Vec<&String> = ours.iter().filter(|number| is_lacking(number)).collect();
        let lacks = (!lacking.is_empty()).then(|| format!("{place}: the Chinese page lacks {lacking:?}"));
        difference(place, &long(&ours), &long(&theirs)).into_iter().chain(lacks).collect()
    }));
}

/// Where a link leads: the file, by the same name for both languages, and which heading of it.
fn target(page: &str, link: &str) -> (String, Option<usize>) {
    if is_elsewhere(link) {
        return (link.to_owned(), None);
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let file = if path.is_empty() { PathBuf::from(page) } else { without_dots(&Path::new(page).with_file_name(path)) };
    let is_page = file.extension().is_some_and(|extension| extension == "md");
    let file = file.to_str().unwrap();
    let heading = (is_page && !anchor.is_empty()).then(|| {
        let at = anchors(&text(file)).iter().position(|known| known == anchor);
        at.unwrap_or_else(|| panic!("{page}: {link} leads to no heading"))
    });
    let file = file.replace("docs/zh/", "docs/en/").replace("README.zh-CN.md", "README.md");
    (file, heading)
}

/// `docs/zh/../en/a.md` is `docs/en/a.md`.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => assert!(plain.pop(), "{} leads out of the project", path.display()),
            other => plain.push(other),
        }
    }
    plain
}

/// A heading has its place, not its words, in common with the one of the other language.
#[test]
fn both_languages_have_the_same_links() {
    assert_none(faults_of_parts(|pair, place, ours, theirs| {
        let targets = |language: &str, part: &Part| -> BTreeSet<(String, Option<usize>)> {
            let page = format!("docs/{language}/{}", pair.name);
            links(&part.prose).map(|link| target(&page, link)).collect()
        };
        difference(place, &targets("en", ours), &targets("zh", theirs)).into_iter().collect()
    }));
}

/// Of the links of a Chinese page those that lead to an English page although there is a Chinese one.
fn english_links(page: &str, translated: &BTreeSet<String>) -> Vec<String> {
    let own_english = page.replace("docs/zh/", "docs/en/");
    let is_avoidable = |link: &str| {
        let path = link.split('#').next().unwrap_or_default();
        let file = without_dots(&Path::new(page).with_file_name(path));
        let name = file.strip_prefix("docs/en").ok().and_then(Path::to_str);
        file.to_str() != Some(&own_english) && name.is_some_and(|name| translated.contains(name))
    };
    let markdown = text(page);
    let within = links(&markdown).filter(|link| !is_elsewhere(link));
    within.filter(|link| is_avoidable(link)).map(|link| format!("{page}: {link} is there in Chinese")).collect()
}

#[test]
fn a_reader_of_chinese_is_led_to_chinese_pages() {
    let translated = pages("zh");
    let manual = translated.iter().map(|name| format!("docs/zh/{name}"));
    let all = manual.chain(["README.zh-CN.md".to_owned()]);
    assert_none(all.flat_map(|page| english_links(&page, &translated)));
}

#[test]
fn both_languages_link_to_each_other_at_the_top() {
    let languages = [("en", "zh"), ("zh", "en")];
    let lacks = |name: &str, (language, other): (&str, &str)| {
        let page = format!("docs/{language}/{name}");
        let link = format!("]({}{other}/{name})", "../".repeat(1 + name.matches('/').count()));
        let is_there = text(&page).lines().take(5).any(|line| line.contains(&link));
        (!is_there).then(|| format!("{page} has no link {link} at its top"))
    };
    let all = pages("zh");
    assert_none(all.iter().flat_map(|name| languages.into_iter().filter_map(move |pair| lacks(name, pair))));
}

#[test]
fn every_page_for_movers_is_in_the_table_of_its_language() {
    for language in ["en", "zh"] {
        let index = text(&format!("docs/{language}/moving-in.md"));
        for name in pages(language).iter().filter(|name| name.starts_with("moving/")) {
            assert!(index.contains(&format!("({name})")), "docs/{language}/{name} is in no table");
        }
    }
}
