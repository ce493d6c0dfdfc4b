//! Which names the sources may not have: words that only this project would understand, and one name for many types.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::{without_comments_and_texts, without_tests};

/// So many names of types may be declared in more than one place. `Options` is one of them on purpose.
const SHARED_TYPE_NAMES_MAX: usize = 8;

/// Names that once stood for what the field has a word for; CONTRIBUTING.md lists the words to use.
const COINED: &str = "
    Aside Asker Away Bare Bearers Beside BrokenOff CheckBudget Dealer Deed Dice Door Fate Flight Gate Graveyard
    Ground Habits HangUp Held Holdable Home Hung Joined Keeper KeptLedger Landing Lane Leaves Liar Lot Means
    Misplaced News Outgoing Overtaken OwnBug Padded Patient Reliable Remembered Rival Rogue Rounds SameSecret Saver
    Scene Seen Sharing Shop Shown Sky Spacing StandIn Standing Stranger Stuck Teller Told Trash UnderWay Unread
    Unsealable Weather Whose Wish Wishes Worth

    admitted arrivals ask_for_looks asker beaten begin_stand_in broken_off build_joined bury came_home check_budget
    conclude converse count_leaving crowded dealer deed deeds dice died_early does_not_read doubt_parent
    doubt_probe_ms doubt_shared dressed each_credential end_turn engines feed_watchdog flight flights flying
    forget_looks found_alive gives_way go_on graveyard ground guessing_logged habits harden has_limits_of_its_own
    has_lost intent_over is_anothers is_mine is_overtaken is_turn keep_bound keep_ledger keeper lacks_token land_all
    landed landing lane lanes ledger listed_as look_again look_for_a_rival look_into look_there lot make_wish
    may_call may_check may_come_in may_hold may_read may_read_some may_refresh may_see may_see_status
    may_wait_for_peer meet_stranger mended meta_refuse_write mine mints_alone must_give_way note_landing note_move
    note_typing open_inbox overtaken own_bug pass_on poll_give_way poll_instead poll_replace probe_due read_aside
    refuse_early refuse_for_want_of_rights report_rival restore_ledger richest rival_logged rogue rogue_fetch rounds
    run_well saver saw_value_of say_answered say_failed serve_children settle_charge settle_client_check settle_in
    settle_refusals shake_hands show_ledger side spacing speaks_binary splits spoken spoken_names stand_in
    still_counts still_refused take_ledger take_turn take_wish takes_turns tangle tell_ready tell_stopping
    tell_waiting teller told_s trash try_in_turn turn_permits uncover undoubted_ms useless visitor wait_for_another
    waits_in warn_of_the_end withdraw_with_others
";

/// Modules that have other names now.
const COINED_MODULES: &str =
    "arrivals doubt engine families flight kind lane ledger net nodes notes rounds saver side together turn turns";

/// Words in texts that logs, metrics, the API and the configuration have others for now.
const COINED_TEXTS: &[&str] = &["\"own-bug\"", "class=\"own-bug", "row(\"kind\"", "text(\"kind\"", "{ name: \"side\""];

/// Files that say which old names are still known.
const OLD_NAMES: &[&str] = &["config/old_names.rs", "http_api/old_fields.rs", "http_api/old_metric_names.rs"];

/// The code of a file: comments, texts and tests do not count.
fn code(text: &str) -> String {
    without_comments_and_texts(&without_tests(text))
}

/// What a file has of the words above, each with the file.
fn coined_in(file: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let names: BTreeSet<&str> = code.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
    let modules: BTreeSet<&str> = file.trim_end_matches(".rs").split('/').collect();
    let words = COINED.split_whitespace().filter(|word| names.contains(word)).map(str::to_owned);
    let modules = COINED_MODULES.split_whitespace().filter(|word| modules.contains(word));
    let text = without_tests(text);
    let has_text = |line: &&str| COINED_TEXTS.iter().any(|word| line.contains(word));
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("//") && !OLD_NAMES.contains(&file));
    let all = words.chain(modules.map(|word| format!("the module {word}")));
    all.chain(lines.filter(has_text).map(str::to_owned)).map(|found| format!("{file}: {found}")).collect()
}

fn coined<'a>(files: impl Iterator<Item = &'a (String, String)>) -> Vec<String> {
    files.flat_map(|(file, text)| coined_in(file, text)).collect()
}

/// Names of types that are declared in more than one place, with the files.
fn shared_type_names<'a>(files: impl Iterator<Item = &'a (String, String)>) -> BTreeMap<String, Vec<String>> {
    let mut declared: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, text) in files {
        for line in code(text).lines() {
            let words: Vec<&str> = line.split_whitespace().filter(|word| !word.starts_with("pub")).collect();
            let name = match words[..] {
                ["struct" | "enum" | "trait" | "union", name, ..] => name,
                // Within an `impl` it is the trait's.
                ["type", name, ..] if !line.starts_with(' ') => name,
                _ => continue,
            };
            let end = name.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(name.len());
            declared.entry(name[..end].to_owned()).or_default().push(file.clone());
        }
    }
    declared.retain(|_, files| files.len() > 1);
    declared
}

#[test]
fn a_name_is_a_word_of_the_field() {
    let found = coined(super::SOURCES.iter());
    assert!(found.is_empty(), "coined words; CONTRIBUTING.md has the words to use:\n{}", found.join("\n"));
}

#[test]
fn few_types_share_a_name() {
    let shared = shared_type_names(super::SOURCES.iter());
    let lines: Vec<String> = shared.iter().map(|(name, files)| format!("{name}: {}", files.join(", "))).collect();
    println!("{} names of types are declared more than once", lines.len());
    assert!(lines.len() <= SHARED_TYPE_NAMES_MAX, "{} names:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn a_coined_word_and_a_shared_name_are_found() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let files = [
        file("cache/lane.rs", "//! A lane.\npub(crate) struct Entry<'a>(&'a str);\nlet x = \"the lane\";\n"),
        file("server/mod.rs", "//! x\nenum Entry { A }\nfn f(stranger: Stranger) {} // Door\nwarn!(\"own-bug\");\n"),
        file("app.rs", "impl X {\n    type Entry = Y;\n}\n#[cfg(test)]\nmod tests {\n    struct Lot;\n}\n"),
    ];
    let expected = ["cache/lane.rs: the module lane", "server/mod.rs: Stranger", "server/mod.rs: warn!(\"own-bug\");"];
    assert_eq!(coined(files.iter()), expected);
    let shared = shared_type_names(files.iter());
    assert_eq!(
        shared,
        BTreeMap::from([("Entry".to_owned(), vec!["cache/lane.rs".to_owned(), "server/mod.rs".to_owned()])])
    );
}
