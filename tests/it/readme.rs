//! The documentation is true: both READMEs say the same, what they name exists, and their examples run.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Output, Stdio};

use tokencached::cli::Flags;
use tokencached::config::load;
use tokencached::config::schema::{self, SECTIONS};
use tokencached::platform::errcodes;

use crate::differential::Memcached;
use crate::support::markdown::{Block, anchors, blocks, is_elsewhere, links, root, spans, split, text};
use crate::support::{Client, Node, tokencached, wait_for};

const READMES: [&str; 2] = ["README.md", "README.zh-CN.md"];
/// The section with the table of settings and that of flags, counted from 0.
const SETTINGS_SECTION: usize = 4;

/// The pages for movers of one language, by their place in the project.
fn pages_for_movers(language: &str) -> Vec<String> {
    let folder = format!("docs/{language}/moving");
    let names = fs::read_dir(root().join(&folder)).unwrap().map(|entry| entry.unwrap().file_name());
    let mut pages: Vec<String> = names.map(|name| format!("{folder}/{}", name.to_str().unwrap())).collect();
    pages.push(format!("docs/{language}/moving-in.md"));
    pages.sort_unstable();
    pages
}

/// The sections of the second level, without what comes before the first.
fn sections(markdown: &str) -> Vec<&str> {
    markdown.split("\n## ").skip(1).collect()
}

/// The part that is run.
fn walk(markdown: &str) -> &str {
    let (_, from) = markdown.split_once("<!-- walk -->").expect("the walk begins");
    from.split_once("<!-- /walk -->").expect("the walk ends").0
}

/// A line of code without its comment.
fn code(line: &str) -> &str {
    let ends = ["  # ", "  // ", " // "].iter().filter_map(|mark| line.find(mark));
    line[..ends.min().unwrap_or(line.len())].trim()
}

#[test]
fn both_readmes_have_the_same_code() {
    let [english, chinese] = READMES.map(|name| blocks(&text(name)));
    assert_eq!(english.len(), chinese.len());
    for (ours, theirs) in english.iter().zip(&chinese) {
        let [ours, theirs] = [ours, theirs]
            .map(|block| (block.language.as_str(), block.body.lines().map(code).collect::<Vec<_>>().join("\n")));
        assert_eq!(ours, theirs);
    }
}

#[test]
fn both_readmes_name_the_same_things_section_by_section() {
    let [english, chinese] = READMES.map(text);
    let [english, chinese] = [sections(&english), sections(&chinese)];
    assert_eq!(english.len(), chinese.len());
    for (section, (ours, theirs)) in english.iter().zip(&chinese).enumerate() {
        assert_eq!(named(ours), named(theirs), "section {section}");
    }
}

/// What a section puts in backticks, and the errcodes and ports in its text.
fn named(section: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let prose = split(section).1;
    let numbers = prose.split(|c: char| !c.is_ascii_digit()).filter(|digits| digits.len() == 5);
    (spans(section).into_iter().collect(), numbers.map(str::to_owned).collect())
}

/// The help of every command.
fn help() -> String {
    let help = |arguments: &[&str]| {
        let output = tokencached().args(arguments).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    [&["--help"][..], &["demo", "--help"], &["sandbox", "--help"], &["check", "--help"]].map(help).concat()
}

/// Whether a flag stands in a help text, as `-p,`, `-D <CHAR>` or `--port`.
fn has_flag(help: &str, flag: &str) -> bool {
    help.lines().any(|line| {
        let mut words = line.split_whitespace().map(|word| word.trim_end_matches([',', '.'])).take(2);
        line.trim_start().starts_with('-') && words.any(|word| word.trim_end_matches("...") == flag)
    })
}

/// Flags given to tokencached in a shell block.
fn flags_in(block: &Block) -> Vec<String> {
    let lines = block.body.lines().map(code);
    let ours = lines.filter_map(|line| {
        line.strip_prefix("cargo run --release -- ").or_else(|| line.split_once("tokencached ").map(|(_, rest)| rest))
    });
    ours.flat_map(str::split_whitespace).filter(|word| word.starts_with('-')).map(str::to_owned).collect()
}

#[test]
fn every_flag_named_exists() {
    let help = help();
    for name in READMES.iter().copied().chain(["docs/en/differences.md", "docs/en/configuration.md"]) {
        let markdown = text(name);
        let own = |span: &String| span.split_once("tokencached ").map_or(span.clone(), |(_, rest)| rest.to_owned());
        let mut flags: Vec<String> = spans(&markdown)
            .iter()
            .map(own)
            .filter(|span| span.starts_with('-') || span.starts_with("check ") || span.starts_with("demo "))
            .flat_map(|span| span.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .filter(|word| word.starts_with('-') && word.chars().nth(1).is_some_and(|c| !c.is_ascii_digit()))
            .collect();
        flags.extend(blocks(&markdown).iter().filter(|block| block.language == "sh").flat_map(flags_in));
        assert!(flags.len() > 10, "{name}: {flags:?}");
        for flag in flags {
            // -vv is -v twice.
            let flag = if flag.starts_with("-vv") { "-v" } else { &flag };
            assert!(has_flag(&help, flag), "{name} names {flag}, which no command has");
        }
    }
}

#[test]
fn the_table_of_flags_is_what_the_help_says() {
    let help = help();
    let heading = |words: &str| {
        let (_, from) = help.split_once(words).unwrap_or_else(|| panic!("no {words:?} in the help"));
        from.split_once("\n\n").unwrap_or((from, "")).0
    };
    for name in READMES {
        let markdown = text(name);
        let rows: Vec<Vec<String>> =
            sections(&markdown)[SETTINGS_SECTION].lines().filter(|line| line.contains("`-")).map(spans).collect();
        let [taken, ignored, refused] = &rows[..] else { panic!("{name}: {rows:?}") };
        for (row, lines) in [
            (taken, heading("\nmemcached's flags:\n")),
            (ignored, heading("\nTaken and ignored (a warning says so):\n")),
            (refused, heading("the start stops):\n")),
        ] {
            let named: BTreeSet<&str> = row.iter().filter_map(|span| span.split(' ').next()).collect();
            let shorts = lines.lines().filter_map(|line| line.trim_start().get(..2));
            for flag in shorts.filter(|word| word.starts_with('-')) {
                assert!(named.contains(flag), "{name} lacks {flag}");
            }
        }
    }
}

#[test]
fn every_setting_named_exists_and_has_that_default() {
    let of_apps = || schema::section("app").settings().map(|setting| setting.key);
    let one = SECTIONS.iter().filter(|section| !section.is_list);
    let known: BTreeSet<&str> =
        one.flat_map(|section| section.settings()).map(|setting| setting.key).chain(of_apps()).collect();
    let output = tokencached().args(["check", "--print"]).env("HOME", "/nonexistent").output().unwrap();
    let effective = String::from_utf8(output.stdout).unwrap();
    for name in READMES {
        let markdown = text(name);
        for span in spans(&markdown) {
            if let Some((key, _)) = span.split_once(" = ") {
                assert!(known.contains(key), "{name} names the setting {key}");
            }
        }
        let section = sections(&markdown)[SETTINGS_SECTION];
        let rows = section.lines().filter(|line| line.starts_with("| `") && !line.contains("`-"));
        let cells: Vec<Vec<&str>> = rows.map(|row| row.split('|').map(str::trim).collect()).collect();
        assert!(cells.len() > 8, "{name}");
        for row in cells {
            let key = spans(row[1])[0].clone();
            assert!(known.contains(key.as_str()), "{name} names the setting {key}");
            let default = row[2].trim_matches('`');
            let plain = default.starts_with(|c: char| c.is_ascii_digit() || "\"[ft".contains(c));
            if plain && !of_apps().any(|of| of == key) {
                assert!(effective.contains(&format!("\n{key} = {default}\n")), "{name}: {key} is not {default}");
            }
        }
    }
}

#[test]
fn every_errcode_in_the_troubleshooting_is_known() {
    for name in READMES {
        let markdown = text(name);
        let rows: Vec<&str> = markdown.lines().filter(|line| line.starts_with("| errcode")).collect();
        assert!(rows.len() > 5, "{name}");
        for row in rows {
            let symptom = row.split('|').nth(1).unwrap_or_default();
            let codes = symptom.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<i64>().ok());
            for code in codes {
                assert!(errcodes::rows().any(|(_, row)| row.code == code), "{name}: errcode {code}");
            }
        }
    }
}

fn sources(path: &Path, all: &mut String) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else {
            // A string may be broken over lines.
            let text = fs::read_to_string(&path).unwrap();
            for line in text.lines() {
                match line.trim_start().strip_suffix('\\') {
                    Some(part) => all.push_str(part),
                    None => all.push_str(&format!("{}\n", line.trim_start())),
                }
            }
        }
    }
}

/// What a line of the manual quotes of the log: in a table any text of several words, elsewhere a longer one.
fn quoted_messages(line: &str) -> impl Iterator<Item = &str> {
    let is_row = line.starts_with("| ");
    let is_sentence = |text: &str| text.starts_with(|c: char| c.is_ascii_lowercase()) && text.split(' ').count() > 3;
    let is_message =
        move |text: &&str| text.is_ascii() && (if is_row { text.contains(' ') } else { is_sentence(text) });
    line.split('"').skip(1).step_by(2).filter(is_message)
}

#[test]
fn every_log_line_quoted_is_in_the_source() {
    let mut source = String::new();
    sources(&root().join("src"), &mut source);
    let manual = all_pages().into_iter().filter(|page| page.starts_with("docs/en") || page.starts_with("docs/zh"));
    for name in READMES.map(str::to_owned).into_iter().chain(manual) {
        // What stands in backticks is code, not a log line.
        let markdown: String = text(&name).split('`').step_by(2).collect();
        let lines = markdown.lines().filter(|line| name.starts_with("docs") || line.starts_with("| "));
        let messages: Vec<&str> = lines.flat_map(quoted_messages).collect();
        assert!(messages.len() > 3 || name.starts_with("docs"), "{name}: {messages:?}");
        for message in messages {
            let known = source.contains(message) || markdown.contains(&format!("**{message}.**"));
            assert!(known, "{name} quotes {message:?}");
        }
    }
}

#[test]
fn the_configuration_shown_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().display().to_string();
    let program = folder.path().join("put-token");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o700)).unwrap();
    let environment: BTreeMap<String, String> = [("HOME".to_owned(), home.clone())].into();
    let pages = [pages_for_movers("en"), pages_for_movers("zh")].concat();
    for name in READMES.map(str::to_owned).into_iter().chain(pages) {
        let markdown = text(&name);
        let shown: Vec<Block> = blocks(&markdown).into_iter().filter(|block| block.language == "toml").collect();
        assert!(!shown.is_empty() || name.ends_with("moving-in.md"), "{name}");
        for block in shown {
            let body = block.body.replace("/etc/tokencached", &home).replace("/usr/local/sbin", &home);
            for line in body.lines().filter(|line| line.contains("_file = ")) {
                let path = line.split('"').nth(1).unwrap();
                fs::write(path, "0123456789abcdef0123456789abcdef").unwrap();
            }
            let file = folder.path().join("tokencached.toml");
            fs::write(&file, body).unwrap();
            if let Err(faults) = load(Some(&file), &environment, &Flags::default()) {
                panic!("{name}: {faults}");
            }
        }
    }
}

fn output(program: &str, arguments: &[&str]) -> Output {
    crate::support::program(program).args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
#[ignore = "needs bash"]
fn what_is_shown_is_well_formed() {
    let folder = tempfile::tempdir().unwrap();
    let pages = [pages_for_movers("en"), pages_for_movers("zh")].concat();
    for block in READMES.map(str::to_owned).into_iter().chain(pages).flat_map(|name| blocks(&text(&name))) {
        let file = folder.path().join("block");
        fs::write(&file, &block.body).unwrap();
        let path = file.display().to_string();
        let output = match block.language.as_str() {
            "sh" => output("bash", &["-n", &path]),
            "php" => output("php", &["-l", &path]),
            _ => continue,
        };
        assert!(output.status.success(), "{block:?}");
    }
}

/// A demo on a free port; ended with the test.
struct Demo {
    child: Child,
    folder: tempfile::TempDir,
    port: String,
    sandbox: String,
}

impl Demo {
    fn start() -> Demo {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let child = tokencached()
            .args(["demo", "-p", "0"])
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let welcome = wait_for("the demo's welcome", || {
            fs::read_to_string(&out).ok().filter(|text| text.contains("/sandbox/calls\n"))
        });
        let after = |mark: &str| welcome.split_once(mark).unwrap_or_else(|| panic!("no {mark:?} in {welcome}")).1;
        let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
        let port = digits(after("on 127.0.0.1:"));
        let sandbox = format!("http://127.0.0.1:{}", digits(after("http://127.0.0.1:")));
        Demo { child, folder, port, sandbox }
    }

    /// Runs a block against this demo; what it printed, without carriage returns.
    fn run(&self, block: &Block) -> String {
        let body = block.body.replace("11211", &self.port).replace("http://127.0.0.1:PORT", &self.sandbox);
        let file = self.folder.path().join("block");
        fs::write(&file, body).unwrap();
        let program: OsString = if block.language == "php" { "php" } else { "bash" }.into();
        let output = crate::support::program(program).arg(&file).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{block:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().replace('\r', "")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The token in an answer to `get access_token`.
fn token(answer: &str) -> &str {
    let (_, rest) = answer.split_once("VALUE access_token 0 ").expect("a value");
    rest.lines().nth(1).expect("a token")
}

/// Both READMEs have the same code, which another test holds; so one is enough.
#[test]
#[ignore = "needs bash"]
fn the_walk_goes_as_told() {
    let markdown = text(READMES[0]);
    let blocks = blocks(walk(&markdown));
    let [read, refuse, refused, logged, memcached, memcache, kill, stats] = &blocks[..] else {
        panic!("the walk has {} blocks", blocks.len())
    };
    let demo = Demo::start();
    let first = demo.run(read);
    assert!(first.contains("VALUE access_token:wx1111111111111111 0 ") && token(&first).len() > 100, "{first}");
    assert_eq!(demo.run(refuse), refused.body);
    assert_lines(&demo.run(memcached), &["136", "bool(false)", "NOT STORED", "bool(true)"]);
    assert_lines(&demo.run(memcache), &["136", "bool(false)", "bool(true)"]);
    let killed = demo.run(kill);
    assert!(killed.starts_with("{\"ok\":true}DELETED\n"), "{killed}");
    assert_ne!(token(&killed), token(&first));
    let shown = demo.run(stats);
    for name in ["state fresh", "seconds_left ", "generation ", "refused_writes 3"] {
        assert!(shown.contains(&format!("STAT wx1111111111111111:{name}")), "{shown}");
    }
    // All of it but the time and the client's port.
    let (_, line) = logged.body.trim_end().split_once("Z ").expect("the log line has a time");
    let (begins, ends) = line.split_once(" peer=127.0.0.1:").expect("the log line names the peer");
    let ends = ends.trim_start_matches(|c: char| c.is_ascii_digit());
    wait_for("the log line as it is shown", || {
        let log = fs::read_to_string(demo.folder.path().join("log")).unwrap();
        let same = |line: &str| line.contains(begins) && line.ends_with(ends);
        log.lines().any(same).then_some(())
    });
}

#[track_caller]
fn assert_lines(output: &str, expected: &[&str]) {
    assert_eq!(output.lines().collect::<Vec<_>>(), expected);
}

/// What `docs/en/differences.md` says of commands and statistics: what is sent, what memcached 1.6.18 answers, what we
/// answer. A newer memcached may have come closer, so its answers are compared with that version only.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("set a x 0 3\r\nabc\r\n", "CLIENT_ERROR bad command line format\r\nERROR\r\n", BAD_FORMAT),
    ("set a 0 x 3\r\nabc\r\n", "CLIENT_ERROR bad command line format\r\nERROR\r\n", BAD_FORMAT),
    ("set a 4294967297 0 1\r\nx\r\n", "STORED\r\n", BAD_FORMAT),
    ("stats malloc\r\n", "ERROR\r\n", "END\r\n"),
    ("stats maps\r\n", "ERROR\r\n", "END\r\n"),
    ("stats tokens\r\n", "ERROR\r\n", "END\r\n"),
    (
        "ms a 3 k k k k k k k k k k k k k k k k k\r\nabc\r\n",
        "CLIENT_ERROR options flags too long\r\nERROR\r\n",
        "CLIENT_ERROR options flags too long\r\n",
    ),
    ("ms a 4294967297\r\nx\r\n", "HD\r\n", "CLIENT_ERROR bad command line format\r\nERROR\r\n"),
    (
        "mg v N0 O12345678901234567890123456789012\r\nmg v\r\n",
        "CLIENT_ERROR opaque token too long\r\nHD\r\n",
        "CLIENT_ERROR opaque token too long\r\nEN\r\n",
    ),
    (
        "ms n 1\r\n1\r\nma n O12345678901234567890123456789012\r\nmg n v\r\n",
        "HD\r\nCLIENT_ERROR opaque token too long\r\nVA 1\r\n2\r\n",
        "HD\r\nCLIENT_ERROR opaque token too long\r\nVA 1\r\n1\r\n",
    ),
    // The last asks whether there is an end at all.
    ("ms n 1\r\n9\r\nma n T1000\r\nmg n R2147483647\r\n", "HD\r\nHD\r\nHD\r\n", "HD\r\nHD\r\nHD W\r\n"),
    ("ms a 1 E5 c\r\nx\r\n", "CLIENT_ERROR invalid flag\r\n", "HD c5\r\n"),
    // The key is "a", a line end, "HD": memcached's one answer reads as two.
    ("mg YQ0KSEQ= b N0 k\r\n", "HD ka\r\nHD W\r\n", "HD kYQ0KSEQ= b W\r\n"),
    ("lru_crawler mgdump all\r\n", "ERROR\r\n", "ERROR mgdump not allowed\r\n"),
    ("version\r\n", "VERSION 1.6.18\r\n", "VERSION 1.6.18\r\n"),
];
const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format\r\n";

#[test]
#[ignore = "needs memcached"]
fn the_differences_listed_are_those_there_are() {
    let node = Node::plain(&[]);
    let mut ours = node.connect();
    let memcached = Memcached::with(&[]);
    let mut theirs = Some(Client::connect(memcached.address));
    let mut theirs = theirs.take_if(|theirs| theirs.ask("version\r\n") == b"VERSION 1.6.18\r\n");
    for (send, expected_of_memcached, expected) in DIFFERENCES {
        assert_eq!(ours.ask(send).escape_ascii().to_string(), expected.as_bytes().escape_ascii().to_string(), "{send}");
        if let Some(theirs) = &mut theirs {
            let answer = theirs.ask(send).escape_ascii().to_string();
            assert_eq!(answer, expected_of_memcached.as_bytes().escape_ascii().to_string(), "memcached, {send}");
        }
    }
    let endless = format!("get {}", "abcdefgh ".repeat(130_000));
    let mut client = node.connect();
    // The server may hang up before all is sent.
    let _ = client.stream.write_all(endless.as_bytes());
    assert_eq!(client.rest(), b"");
}

/// Every page of the repository, by its place in it.
fn all_pages() -> Vec<String> {
    let folders = ["", "docs/", "docs/en/", "docs/en/moving/", "docs/zh/", "docs/zh/moving/", "docs/design/", "tests/"];
    let in_folder = |folder: &str| {
        let names = fs::read_dir(root().join(folder)).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".md")).map(|name| format!("{folder}{name}")).collect::<Vec<_>>()
    };
    folders.into_iter().flat_map(in_folder).collect()
}

/// The cells of a table's line.
fn cells(line: &str) -> usize {
    line.trim().replace("\\|", "").matches('|').count().saturating_sub(1)
}

/// A table is a head, a line of dashes, and rows with as many cells, without a gap: what follows an empty line or has a cell
/// less is shown as plain text.
#[test]
fn every_table_is_shown_as_one() {
    for page in all_pages() {
        let (markdown, mut head, mut is_code) = (text(&page), None, false);
        let lines: Vec<&str> = markdown.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            is_code ^= line.trim_start().starts_with("```");
            if is_code || !line.trim_start().starts_with('|') {
                head = None;
                continue;
            }
            let place = format!("{page}:{}: {line}", at + 1);
            let dashes = |line: &str| !line.is_empty() && line.trim().chars().all(|c| "|-: ".contains(c));
            assert!(line.trim_end().ends_with('|'), "{place}: the row has no end");
            match head {
                None => {
                    let next = lines.get(at + 1).copied().unwrap_or_default();
                    assert!(dashes(next), "{place}: a table without a head, perhaps after an empty line");
                    head = Some(cells(line));
                }
                Some(wanted) => assert_eq!(cells(line), wanted, "{place}: other cells than in the head"),
            }
        }
    }
}

/// Whoever begins at a README finds every page.
#[test]
fn every_page_of_the_manual_is_linked_from_another() {
    let pages = all_pages();
    for page in pages.iter().filter(|page| page.starts_with("docs/")) {
        let name = page.rsplit('/').next().unwrap();
        // Pages of two languages have the same names, and name each other at their tops.
        let language = page.split('/').nth(1).unwrap();
        let counts = |other: &str| !other.starts_with("docs/") || language == "design" || other.contains(language);
        let linked = pages.iter().any(|other| other != page && counts(other) && text(other).contains(name));
        assert!(linked, "{page} is linked from nowhere");
    }
}

#[test]
fn every_link_of_the_documentation_leads_somewhere() {
    for page in all_pages() {
        let prose = split(&text(&page)).1;
        for link in links(&prose).filter(|link| !is_elsewhere(link)) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let to = if path.is_empty() { root().join(&page) } else { root().join(&page).parent().unwrap().join(path) };
            assert!(to.exists(), "{page}: {link} leads to no file");
            let is_page = to.extension().is_some_and(|extension| extension == "md");
            let known = anchor.is_empty()
                || !is_page
                || anchors(&fs::read_to_string(&to).unwrap()).iter().any(|known| known == anchor);
            assert!(known, "{page}: {link} leads to no heading");
        }
    }
}
