//! The documentation is true: a page says the same in both languages, what it names exists, and its examples run. The README
//! is short, and leads to the rest.

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
use tokencached::platform::PLATFORMS;

use crate::differential::Memcached;
use crate::support::markdown::{Block, anchors, blocks, code, is_elsewhere, links, root, spans, split, text};
use crate::support::{Client, Node, tokencached, wait_for};

const READMES: [&str; 2] = ["README.md", "README.zh-CN.md"];
/// Pages whose examples are parts of a configuration, or which speak of another program's settings.
const WITH_PARTS: [&str; 8] = [
    "building.md",
    "cluster.md",
    "configuration.md",
    "differences.md",
    "http-api.md",
    "sdk.md",
    "settings.md",
    "sinks.md",
];

/// A page of the manual in both languages, by its name below `docs/en` and `docs/zh`.
fn both(name: &str) -> [String; 2] {
    ["en", "zh"].map(|language| format!("docs/{language}/{name}"))
}

/// The pages of a language, by their names below its folder.
fn pages_of(language: &str) -> BTreeSet<String> {
    let folder = format!("docs/{language}/");
    all_pages().iter().filter_map(|page| page.strip_prefix(&folder)).map(str::to_owned).collect()
}

/// What is in English and in Chinese and shows whole examples: the READMEs and most of the manual.
fn pages_with_examples() -> Vec<String> {
    let (english, chinese) = (pages_of("en"), pages_of("zh"));
    let pages = english.intersection(&chinese).filter(|name| !WITH_PARTS.contains(&name.as_str()));
    READMES.map(str::to_owned).into_iter().chain(pages.flat_map(|name| both(name))).collect()
}

/// What comes before the first heading of the second level, and then each section.
fn sections(markdown: &str) -> Vec<&str> {
    markdown.split("\n## ").collect()
}

/// The part that is run.
fn walk(markdown: &str) -> &str {
    let (_, from) = markdown.split_once("<!-- walk -->").expect("the walk begins");
    from.split_once("<!-- /walk -->").expect("the walk ends").0
}

/// `documentation::translations` holds the pages of the manual, which have the same headings; the READMEs have the same
/// sections.
#[test]
fn both_readmes_say_the_same() {
    let [english, chinese] = READMES.map(text);
    assert_eq!(codes(&english), codes(&chinese));
    let [english, chinese] = [sections(&english), sections(&chinese)];
    assert_eq!(english.len(), chinese.len());
    for (ours, theirs) in english.iter().zip(chinese) {
        assert_eq!(named(ours), named(theirs), "{}", ours.lines().next().unwrap_or_default());
    }
}

/// The blocks of code with their languages, without comments.
fn codes(markdown: &str) -> Vec<(String, String)> {
    blocks(markdown).into_iter().map(|block| (block.code(), block.language)).collect()
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
    let lines = block.body.lines().map(code).filter_map(|line| {
        let line = line.strip_prefix("sudo ").unwrap_or(line);
        let from_source = line.strip_prefix("cargo run --release -- ");
        from_source
            .or_else(|| line.split_once("tokencached ").filter(|(path, _)| !path.contains(' ')).map(|(_, rest)| rest))
    });
    lines.flat_map(str::split_whitespace).filter(|word| word.starts_with('-')).map(str::to_owned).collect()
}

#[test]
fn every_flag_named_exists() {
    let help = help();
    let others = both("walk.md").into_iter().chain(both("systemd.md")).chain(both("many-apps.md"));
    let rich = both("running.md")
        .into_iter()
        .chain(["differences.md", "configuration.md"].map(|page| format!("docs/en/{page}")));
    let rich: Vec<String> = rich.collect();
    for name in READMES.map(str::to_owned).into_iter().chain(others).chain(rich.clone()) {
        let markdown = text(&name);
        let own = |span: &String| span.split_once("tokencached ").map_or(span.clone(), |(_, rest)| rest.to_owned());
        let mut flags: Vec<String> = spans(&markdown)
            .iter()
            .map(own)
            .filter(|span| span.starts_with('-') || span.starts_with("check ") || span.starts_with("demo "))
            .flat_map(|span| span.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .filter(|word| word.starts_with('-') && word.chars().nth(1).is_some_and(|c| !c.is_ascii_digit()))
            .collect();
        flags.extend(blocks(&markdown).iter().filter(|block| block.language == "sh").flat_map(flags_in));
        assert!(flags.len() > 10 || !rich.contains(&name), "{name}: {flags:?}");
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
    for name in both("running.md") {
        let markdown = text(&name);
        let rows = markdown.lines().filter(|line| line.starts_with('|') && line.contains("`-"));
        let rows: Vec<Vec<String>> = rows.map(spans).collect();
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
    for name in pages_with_examples().into_iter().filter(|name| !name.contains("moving")) {
        for span in spans(&text(&name)) {
            if let Some((key, _)) = span.split_once(" = ") {
                assert!(known.contains(key), "{name} names the setting {key}");
            }
        }
    }
    for name in both("running.md") {
        let markdown = text(&name);
        let rows = markdown.lines().filter(|line| line.starts_with("| `") && !line.contains("`-"));
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
    for name in both("troubleshooting.md") {
        let markdown = text(&name);
        let rows: Vec<&str> = markdown.lines().filter(|line| line.starts_with("| errcode")).collect();
        assert!(rows.len() > 5, "{name}");
        let known: Vec<i64> =
            PLATFORMS.iter().flat_map(|platform| &platform.errcodes.rows).flat_map(|row| row.codes.clone()).collect();
        for row in rows {
            let symptom = row.split('|').nth(1).unwrap_or_default();
            let codes = symptom.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<i64>().ok());
            for code in codes {
                assert!(known.contains(&code), "{name}: errcode {code}");
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
    let troubles = both("troubleshooting.md");
    let manual = all_pages().into_iter().filter(|page| page.starts_with("docs/en") || page.starts_with("docs/zh"));
    for name in READMES.map(str::to_owned).into_iter().chain(manual) {
        // What stands in backticks is code, not a log line.
        let markdown: String = text(&name).split('`').step_by(2).collect();
        let lines = markdown.lines().filter(|line| name.starts_with("docs") || line.starts_with("| "));
        let messages: Vec<&str> = lines.flat_map(quoted_messages).collect();
        assert!(messages.len() > 10 || !troubles.contains(&name), "{name}: {messages:?}");
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
    for name in pages_with_examples() {
        let markdown = text(&name);
        let shown: Vec<Block> = blocks(&markdown).into_iter().filter(|block| block.language == "toml").collect();
        assert!(!shown.is_empty() || !name.contains("/moving/"), "{name}");
        for block in shown {
            let body = block
                .body
                .replace("/etc/tokencached/secrets", &home)
                .replace("/etc/tokencached", &home)
                .replace("/usr/local/sbin", &home);
            for line in body.lines().filter(|line| line.contains("_file = ")) {
                let path = line.split('"').nth(1).unwrap();
                let user = if line.starts_with("auth_file") { "shop:" } else { "" };
                fs::write(path, format!("{user}0123456789abcdef0123456789abcdef")).unwrap();
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
    for block in pages_with_examples().into_iter().flat_map(|name| blocks(&text(&name))) {
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

/// The page has the same code in both languages, which another test holds; so one is enough.
#[test]
#[ignore = "needs bash"]
fn the_walk_goes_as_told() {
    let markdown = text("docs/en/walk.md");
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

/// What the README shows first of all.
#[test]
#[ignore = "needs php"]
fn the_proof_in_php_prints_what_its_comments_say() {
    let proof = blocks(&text(READMES[0])).into_iter().find(|block| block.language == "php").expect("the proof in PHP");
    let said = |line: &str| Some(line.split_once("// ")?.1.split(':').next()?.to_owned());
    let expected: Vec<String> = proof.body.lines().filter_map(said).collect();
    assert_eq!(expected.len(), 4, "{expected:?}");
    assert_eq!(Demo::start().run(&proof).lines().collect::<Vec<_>>(), expected);
}

/// Whoever has a fresh machine needs two commands before the one that runs the demo and the one that runs the tests.
#[test]
fn the_readmes_are_short_and_two_commands_do_the_set_up() {
    for name in READMES {
        let markdown = text(name);
        assert!(markdown.lines().count() <= 220, "{name} has {} lines", markdown.lines().count());
        let blocks = blocks(&markdown);
        let [set_up, run, ..] = &blocks[..] else { panic!("{name} has {} blocks", blocks.len()) };
        let lines: Vec<&str> = set_up.body.lines().collect();
        assert!(lines.len() == 2 && lines[0].contains("apt-get install") && lines[1].contains("rustup"), "{lines:?}");
        assert_eq!(run.body.lines().collect::<Vec<_>>(), ["cargo run --release -- demo", "cargo test"]);
    }
}

/// The first lines of the unit, which `it/systemd.rs` follows, and those of the page are the same.
#[test]
fn the_page_about_systemd_installs_the_unit_as_its_first_lines_do() {
    let unit = text("deploy/tokencached.service");
    let head = unit.split("\n[Unit]").next().unwrap_or_default();
    let typed: Vec<&str> = head.lines().filter_map(|line| line.strip_prefix("#   ")).map(code).collect();
    assert!(typed.len() > 5, "{typed:?}");
    for name in both("systemd.md") {
        let blocks = blocks(&text(&name));
        let shown = blocks.iter().find(|block| block.body.starts_with("APPID=")).expect("the installation");
        assert_eq!(shown.body.lines().map(code).collect::<Vec<_>>(), typed, "{name}");
    }
}

#[test]
#[ignore = "needs systemd-analyze"]
fn systemd_takes_the_drop_ins_shown() {
    let shipped = text("deploy/tokencached.service");
    let page = text("docs/en/systemd.md");
    let shown: Vec<Block> = blocks(&page).into_iter().filter(|block| block.language == "ini").collect();
    assert!(shown.len() > 2, "{shown:?}");
    for block in shown {
        let folder = tempfile::tempdir().unwrap();
        let unit = folder.path().join("tokencached.service");
        fs::write(&unit, shipped.replace("/usr/local/bin/tokencached", "/bin/true")).unwrap();
        fs::create_dir(folder.path().join("tokencached.service.d")).unwrap();
        fs::write(folder.path().join("tokencached.service.d/override.conf"), &block.body).unwrap();
        let output = output("systemd-analyze", &["verify", &unit.display().to_string()]);
        let said = String::from_utf8_lossy(&output.stderr);
        // Of other units of this machine nothing is to be said here.
        assert!(!said.contains("tokencached"), "{block:?}: {said}");
    }
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
fn every_page_is_in_the_list_of_pages() {
    let list = text("docs/README.md");
    let pages = all_pages();
    let listed = |page: &str| list.contains(&format!("]({page})"));
    let pages = pages.iter().filter_map(|page| page.strip_prefix("docs/"));
    let missing: Vec<&str> =
        pages.filter(|page| page.contains('/') && !page.contains("/moving/") && !listed(page)).collect();
    assert!(missing.is_empty(), "docs/README.md does not list {missing:?}");
}

#[test]
fn every_link_of_the_documentation_leads_somewhere() {
    let dead: Vec<String> = all_pages().iter().flat_map(|page| dead_links(page)).collect();
    assert!(dead.is_empty(), "\n{}", dead.join("\n"));
}

/// What of a page leads to no file or no heading.
fn dead_links(page: &str) -> Vec<String> {
    let prose = split(&text(page)).1;
    let leads_nowhere = |link: &&str| {
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let to = if path.is_empty() { root().join(page) } else { root().join(page).parent().unwrap().join(path) };
        let is_page = to.extension().is_some_and(|extension| extension == "md");
        let has =
            |anchor: &str| fs::read_to_string(&to).is_ok_and(|text| anchors(&text).iter().any(|known| known == anchor));
        !to.exists() || (is_page && !anchor.is_empty() && !has(anchor))
    };
    let dead = links(&prose).filter(|link| !is_elsewhere(link)).filter(leads_nowhere);
    dead.map(|link| format!("{page}: {link}")).collect()
}
