//! What stands in files, as PHP itself reads it.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::clock::Now;
use crate::config;
use crate::credential::table::{Table, TableConfig};
use crate::sink::item::SinkItem;
use crate::sink::options::{Options, SinkTo};

const PRESETS: [&str; 6] =
    ["jssdk", "jssdk-json", "access_token.php", "access_token.json", "access_token.txt", "zoujingli"];

/// The sinks of a configuration with these `[[sink]]` lines, and one app.
fn sinks(folder: &Path, lines: &str) -> Vec<Options> {
    let app = "[[app]]\nappid = \"wx0123456789abcdef\"\nsecret = \"5ec4e75ec4e75ec4e75ec4e75ec4e700\"\n";
    let path = folder.join("tokencached.toml");
    std::fs::write(&path, format!("{app}{lines}")).unwrap();
    config::load(Some(&path), &BTreeMap::new(), &crate::cli::Flags::default()).unwrap().config.sinks
}

/// Its target, and its one entry.
fn file(sink: &Options) -> (FileBackend, Arc<[SinkEntry]>) {
    let SinkTo::File(config) = &sink.to else { panic!("{sink}") };
    let (table, ..) = Table::new(TableConfig::of([("wx", Vec::new())]));
    let item = SinkItem::new(table.credentials()[0].clone(), sink.entries.clone());
    (FileBackend::new(config), item.entries)
}

fn current(value: &[u8]) -> CurrentValue {
    let now = Now { boot_ms: 10_000, unix_ms: 1_700_000_000_000 };
    CurrentValue {
        value: Bytes::copy_from_slice(value),
        now,
        end_ms: 7_210_000,
        reliable_until_ms: 7_210_000,
        at_least_s: 900,
    }
}

/// Bytes that mean something somewhere, and others; half of them of printable characters alone.
fn hostile_values(count: usize) -> Vec<Vec<u8>> {
    let words: Vec<&[u8]> = vec![
        b"'",
        b"\"",
        b"\\",
        b"\\'",
        b"<?php ",
        b"?>",
        b"<?=",
        b"*/",
        b"//",
        b"#",
        b"$x",
        b"${a}",
        b"{$a}",
        b"`id`",
        b"</script>",
        b"'];",
        b"');system('id');//",
        b" ",
        b"token_of-ours",
        br"\u0027",
        b"&#39;",
        b"%27",
        b"<<<'A'",
        b"{value}",
        b"__halt_compiler();",
    ];
    let words = || prop::sample::select(words.clone()).prop_map(<[u8]>::to_vec);
    let printable = prop_oneof![words(), prop::collection::vec(0x20..0x7f_u8, 1..4)];
    let any_bytes = prop_oneof![words(), prop::collection::vec(any::<u8>(), 1..4)];
    let value = prop_oneof![prop::collection::vec(printable, 0..6), prop::collection::vec(any_bytes, 0..6)];
    let value = value.prop_map(|parts| parts.concat());
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| value.new_tree(&mut runner).unwrap().current()).collect()
}

/// Each is read back by PHP as the value it was, and by PHP's own parser as one string: or it is not written at all.
#[test]
fn a_hostile_value_leaves_its_quotes_in_no_preset() {
    let folder = tempfile::tempdir().unwrap();
    let template = "[[sink]]\nfile = \"/nowhere/own.php\"\ntemplate = '''<?php return ['token' => '{value}'];'''\nescape = \"php\"\n";
    let object = "[[sink]]\nfile = \"/nowhere/object.php\"\nencoding = \"json_object\"\n";
    let presets = PRESETS.map(|preset| format!("[[sink]]\nfile = \"/nowhere/{preset}\"\npresets = [\"{preset}\"]\n"));
    let sinks = sinks(folder.path(), &format!("{}{template}{object}", presets.concat()));
    let (values, mut list, mut refused) = (hostile_values(400), String::new(), 0);
    for (number, value) in values.iter().enumerate() {
        for (sink, way) in sinks.iter().zip(PRESETS.iter().chain(&["own", "object"])) {
            let (files, entries) = file(sink);
            let Ok(content) = files.content(&entries[0], &current(value)) else {
                refused += 1;
                continue;
            };
            assert!(value.iter().all(|byte| (0x20..0x7f).contains(byte)), "{}", value.escape_ascii());
            let path = folder.path().join(format!("{number}-{way}"));
            std::fs::write(&path, content).unwrap();
            let value = base64::engine::general_purpose::STANDARD.encode(value);
            list += &format!("{way} {} {value}\n", path.display());
        }
    }
    assert!(refused > 400 && list.lines().count() > 400, "{refused} {}", list.lines().count());
    let list_path = folder.path().join("list");
    std::fs::write(&list_path, list).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/php/hostile_files.php");
    let said = std::process::Command::new("php").arg(script).arg(&list_path).output().unwrap();
    assert!(said.status.success() && said.stdout == b"ok\n", "{}", String::from_utf8_lossy(&said.stdout));
}

#[test]
fn each_preset_tells_a_time_that_its_script_does_not_pass_while_we_write() {
    let folder = tempfile::tempdir().unwrap();
    let presets = PRESETS.map(|preset| format!("[[sink]]\nfile = \"/nowhere/{preset}\"\npresets = [\"{preset}\"]\n"));
    let mut shown = Vec::new();
    for sink in sinks(folder.path(), &presets.concat()) {
        let (files, entries) = file(&sink);
        shown.push(String::from_utf8(files.content(&entries[0], &current(b"a-token")).unwrap()).unwrap());
    }
    assert_eq!(
        shown,
        [
            "<?php exit();?>{\"expire_time\":1700007200,\"access_token\":\"a-token\"}",
            "{\"expire_time\":1700007200,\"access_token\":\"a-token\"}",
            "<?php return array('access_token' => 'a-token', 'expire_time' => 1700007200);\n",
            "{\"access_token\": \"a-token\", \"expires_time\": 1700003600}",
            "{\"expire_time\":1700007200,\"access_token\":\"a-token\"}",
            "a:3:{s:4:\"name\";s:31:\"wx0123456789abcdef_access_token\";s:5:\"value\";s:7:\"a-token\";s:7:\"expired\";i:1700007200;}",
        ]
    );
}

#[test]
fn a_value_that_is_nearly_over_is_told_for_as_long_as_we_need_to_write_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "[[sink]]\nfile = \"/nowhere/file\"\nrewrite_every_s = 100\ntemplate = '{value} {expires_at} {expires_in_ms} {fetched_at+200}'\n";
    let sinks = sinks(folder.path(), lines);
    let (files, entries) = file(&sinks[0]);
    let mut current =
        CurrentValue { end_ms: 20_000, reliable_until_ms: 20_000, at_least_s: sinks[0].at_least_s(), ..current(b"tk") };
    let shown = |current: &CurrentValue| String::from_utf8(files.content(&entries[0], current).unwrap()).unwrap();
    assert_eq!(shown(&current), "tk 1700000300 300000 1699993300");
    current.end_ms = 9_000;
    assert_eq!(shown(&current), "tk 1699999999 0 1699992999", "and what is over, in the past");
}

#[test]
fn an_error_of_the_system_names_the_folder_and_what_to_paste() {
    for (errno, class, advice) in [
        (Errno::NOENT, "folder", "install -d -m 2770 -g www-data /srv/none/wechat"),
        (Errno::ACCESS, "permission", "SupplementaryGroups=www-data"),
        (Errno::ROFS, "readonly", "ReadWritePaths=/srv/none/wechat"),
        (Errno::LOOP, "link", "remove the link"),
        (Errno::NOSPC, "disk", "make room"),
        (Errno::MFILE, "descriptors", ""),
        (Errno::IO, "other", "log"),
    ] {
        let fault = fault("/srv/none/wechat/access_token.php", errno);
        assert_eq!(fault.class, class);
        assert!(fault.advice.contains(advice) && !fault.is_about_the_connection(), "{fault:?}");
    }
}
