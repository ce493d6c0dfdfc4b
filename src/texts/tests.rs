use super::*;

/// What stands for a hole: an unlikely text, or a number.
fn example(template: &str) -> String {
    let (between, holes) = parts(template);
    let values = holes.iter().enumerate().map(|(at, hole)| match hole.is_number {
        true => (7 + at).to_string(),
        false => format!("/x{at}/y"),
    });
    let mut values: Vec<String> = values.collect();
    values.push(String::new());
    between.iter().zip(values).map(|(text, value)| format!("{text}{value}")).collect()
}

#[test]
fn every_row_is_the_one_that_its_own_example_finds() {
    for (english, _) in rows() {
        let (between, holes) = parts(english);
        let text = example(english);
        let found = TABLE.best(&text).map(|(template, _)| &template.between);
        assert!(if holes.is_empty() { TABLE.whole.contains_key(&text) } else { found == Some(&between) }, "{english}");
    }
}

#[test]
fn no_two_rows_are_equally_good_for_a_text() {
    for (english, _) in rows().filter(|(english, _)| !parts(english).1.is_empty()) {
        let text = example(english);
        let matching = TABLE.templates.values().flatten().filter(|template| template.holes_in(&text).is_some());
        let mut weights: Vec<usize> = matching.map(|template| template.weight).collect();
        weights.sort_unstable_by(|a, b| b.cmp(a));
        assert!(!matches!(weights[..], [first, second, ..] if first == second), "{english}");
    }
}

#[test]
fn rows_are_well_formed() {
    let lines = include_str!("zh.txt").lines().filter(|line| !line.is_empty() && !line.starts_with("## "));
    assert_eq!(lines.count() % 2, 0);
    let is_chinese = |c: char| ('\u{4e00}'..'\u{9fff}').contains(&c);
    let mut seen = std::collections::HashSet::new();
    for (english, chinese) in rows() {
        // A platform's own word may stand in quotes or in brackets.
        let behind_bracket = |part: &'static str| part.split_once(')').map_or(part, |(_, behind)| behind);
        let mut bare = english.split('"').step_by(2).flat_map(|text| {
            let mut parts = text.split('(');
            parts.next().into_iter().chain(parts.map(behind_bracket))
        });
        assert!(!bare.any(|text| text.contains(is_chinese)), "{english}");
        let (text, holes) = parts(english);
        assert!(seen.insert(text.join("{}")), "twice: {english}");
        let used = parts(chinese).1;
        for hole in &used {
            assert!(holes.iter().any(|known| known.name == hole.name), "no hole {}: {chinese}", hole.name);
        }
        let unused = holes.iter().filter(|hole| !used.iter().any(|used| used.name == hole.name));
        // The plural's s.
        assert_eq!(unused.filter(|hole| hole.name != "s").count(), 0, "{english}");
    }
}

#[test]
fn the_locale_decides_in_the_usual_order() {
    let of = |set: &[(&str, &str)]| {
        Language::of_locale(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    };
    for chinese in ["zh_CN.UTF-8", "zh", "zh-Hans", "zh_TW", "zh.UTF-8", "zh_CN@pinyin"] {
        assert_eq!(of(&[("LANG", chinese)]), Language::Chinese, "{chinese}");
    }
    for other in ["", "C", "en_GB.UTF-8", "zha", "POSIX", "C.UTF-8"] {
        assert_eq!(of(&[("LANG", other)]), Language::English, "{other}");
    }
    assert_eq!(of(&[("LANG", "zh_CN.UTF-8"), ("LC_MESSAGES", "en_US.UTF-8")]), Language::English);
    assert_eq!(of(&[("LANG", "en_US.UTF-8"), ("LC_MESSAGES", "zh_CN.UTF-8")]), Language::Chinese);
    assert_eq!(of(&[("LC_ALL", "C"), ("LC_MESSAGES", "zh_CN.UTF-8"), ("LANG", "zh_CN.UTF-8")]), Language::English);
    assert_eq!(of(&[("LC_ALL", ""), ("LANG", "zh_CN.UTF-8")]), Language::Chinese);
}

#[test]
fn holes_are_filled_with_known_texts_lists_and_what_has_no_language() {
    let check = |english: &str, expected: &str| assert_eq!(Language::Chinese.of(english), expected);
    check("a text is not a list", "文本不是列表");
    check("Write \"a\" or \"b\" or \"c\".", "请写 \"a\"、\"b\" 或 \"c\"。");
    check("Remove it; known here are listen, rights.", "请去掉；此处可用的有 listen、rights。");
    check("the secret /run/x is empty", "AppSecret /run/x 是空的");
    check("  1. /c.toml:3 (and lines 4, 5): the value is empty", "  1. /c.toml:3（第 4、5 行相同）: 值为空");
    check("configuration good: 1 app, 2 sinks; no warnings", "配置正确：1 个应用、2 个 sink；无警告");
    check("291 of 300 apps good, 9 not; 1 warning", "300 个应用中 291 个正常，9 个不正常；1 个警告");
    check("somebody said something", "somebody said something");
}

/// The advice of a log line may have texts of others in it, and these may be such that there are very many ways to take
/// them apart. Counted, not timed: a search that is over has found nothing, and all of ours are far from it.
#[test]
fn no_text_takes_long_to_look_up() {
    let search = |text: &str| {
        let search = Search { table: &TABLE, left: Cell::new(SEARCH_BYTES_MAX) };
        let _ = search.whole(text).or_else(|| search.placed(text));
        SEARCH_BYTES_MAX - search.left.get()
    };
    for (english, _) in rows() {
        let text = format!("  1. /c.toml:3 (and lines 4, 5): {}", example(english));
        assert!(search(&text) < SEARCH_BYTES_MAX / 4, "{}: {text}", search(&text));
    }
    let known =
        ["x", "a, b", "the value is empty", "the secret /run/x is empty", "Write \"a\" or \"b\"", "7 of 7 apps good"];
    let between =
        ["; ", ": ", ", ", " or ", " and ", " is ", "; x: ", ": x; ", " (", ") ", "/c.toml:3: ", "\" ", " of "];
    for unit in known.iter().flat_map(|known| between.map(|between| format!("{known}{between}"))) {
        for times in [10, 100, 1000, 10_000] {
            let text = format!("{}x y", unit.repeat(times));
            let chinese = Language::Chinese.of(&text);
            assert!(search(&text) < SEARCH_BYTES_MAX || chinese == text, "{unit:?} {times} times");
        }
    }
}
