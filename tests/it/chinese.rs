//! What people read in Chinese: no text of `check` and `--help` without a row in the table, and no English where the locale
//! is Chinese.
#![allow(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

mod literals;

use std::net::IpAddr;
use std::path::Path;

use tokencached::cli;
use tokencached::sandbox::{AppOptions, Options};
use tokencached::texts::{self, Language};

use self::literals::{Literal, literals};
use crate::support::chinese::english_in;
use crate::support::{APPID, Node, SECRET, Wechat, rust_sources, tokencached, write};

const BARRED: &str = "wx2222222222222222";

/// What `check` says of a file, in that locale; its exit code too.
fn check_in(locale: &str, file: &Path, flags: &[&str]) -> (Option<i32>, String) {
    let mut command = tokencached();
    let out = command.env("LANG", locale).arg("check").arg("--config").arg(file).args(flags).output().unwrap();
    let text = [out.stdout, out.stderr].concat();
    (out.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn check_speaks_the_language_of_the_locale_and_ends_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let bad = "[server]\nmemroy = 1\nthreads = \"many\"\n[nonsense]\n[[app]]\nappid = \"wx1\"\nsecret = \"\"\n";
    let bad = write(folder.path(), "bad.toml", bad);
    let (code, said) = check_in("zh_CN.UTF-8", &bad, &[]);
    assert_eq!((code, check_in("en_GB.UTF-8", &bad, &[]).0), (Some(78), Some(78)));
    assert!(said.starts_with("tokencached: 配置有 4 处错误：\n  1. "), "{said}");
    assert!(said.contains("[server] 中没有 \"memroy\" 这一项\n     是否想写 \"memory\"？"), "{said}");
    assert!(said.ends_with("配置被拒绝：4 处错误\n") && english_in(&said).is_none(), "{said}");
    assert_eq!(check_in("en_GB.UTF-8", &bad, &["--language", "zh"]), (code, said));

    let good = format!("[state]\npath = \"none\"\n[[app]]\nappid = \"{APPID}\"\nsecret = \"{SECRET}\"\n");
    let good = write(folder.path(), "good.toml", &good);
    let (code, said) = check_in("zh", &good, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("警告: ") && said.ends_with("配置正确：1 个应用；1 个警告\n"), "{said}");
    assert!(english_in(&said).is_none() && !said.contains(SECRET), "{said}");
    let (_, english) = check_in("zh", &good, &["--language=en"]);
    assert_eq!(english, check_in("C", &good, &[]).1);
    assert!(english.ends_with("configuration good: 1 app; 1 warning\n"), "{english}");
}

#[test]
fn what_a_unit_of_systemds_prints_does_not_depend_on_the_locale() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "c.toml", "");
    let check = |stream: &[(&str, &str)]| {
        let mut command = tokencached();
        command.env("LANG", "zh_CN.UTF-8").envs(stream.iter().copied()).args(["check", "--config"]).arg(&file);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert!(check(&[]).ends_with("配置正确：没有应用；1 个警告\n"));
    assert!(check(&[("JOURNAL_STREAM", "8:12345")]).ends_with("configuration good: no apps; 1 warning\n"));
}

#[test]
fn the_settings_that_check_prints_are_the_same_in_both_languages() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("[state]\npath = \"none\"\n[[app]]\nappid = \"{APPID}\"\nsecret = \"{SECRET}\"\n");
    let file = write(folder.path(), "c.toml", &text);
    let settings = |locale| {
        let (code, said) = check_in(locale, &file, &["--print"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.parse::<toml::Table>().is_ok(), "{said}");
        said.lines().filter(|line| !line.starts_with("# ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(settings("zh_CN.UTF-8"), settings("C"));
}

#[test]
fn live_results_and_what_to_do_about_them_are_in_chinese() {
    let wechat = Wechat::start();
    let folder = tempfile::tempdir().unwrap();
    let text = wechat.config("", "").replace("{folder}", &folder.path().display().to_string());
    let file = write(folder.path(), "c.toml", &text);
    let (code, said) = check_in("zh_CN.UTF-8", &file, &["--live"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("正常: {APPID}: 微信返回了 token：")), "{said}");
    assert!(said.ends_with("1 个应用中 1 个正常；1 个警告\n") && english_in(&said).is_none(), "{said}");
    wechat.set_allowlist(APPID, Some(vec![IpAddr::from([192, 0, 2, 1])]));
    let (code, said) = check_in("zh_CN.UTF-8", &file, &["--live"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("错误: wx0123456789abcdef: 没有得到 token：errcode 40164（本机 IP 不在白名单中）"), "{said}");
    assert!(said.contains("处理办法：微信看到的 IP 是 127.0.0.1"), "{said}");
    assert!(said.ends_with("1 个应用中 0 个正常，1 个不正常；1 个警告\n"), "{said}");
}

/// The help of every command, as a terminal has it.
fn help_in(language: Language) -> Vec<(String, String)> {
    let all = cli::command_in(language);
    let commands: Vec<_> = all.get_subcommands().filter(|one| !one.is_hide_set() && one.get_name() != "help").collect();
    let shown = commands.iter().map(|command| command.get_name());
    let words = std::iter::once(vec![]).chain(shown.map(|name| vec![name]));
    words
        .map(|words| {
            let line = ["tokencached"].into_iter().chain(words.iter().copied()).chain(["--help"]);
            let help = cli::parse_in(language, line).unwrap_err();
            assert_eq!(help.exit_code(), 0);
            (words.concat(), help.to_string())
        })
        .collect()
}

#[test]
fn the_help_of_every_command_is_chinese_and_names_the_same_flags() {
    for ((command, chinese), (_, english)) in help_in(Language::Chinese).iter().zip(help_in(Language::English)) {
        let flags = |text: &str| {
            let lines = text.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
            lines.map(|line| line.split("  ").next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(flags(chinese), flags(&english), "{command}");
        assert!(chinese.contains("用法：tokencached") && chinese.contains("选项:"), "{command}: {chinese}");
        for line in chinese.lines().filter(|line| !line.is_empty()) {
            let is_example = line.trim_start().starts_with("WECHAT_APPID=") || line.ends_with("tokencached.toml");
            assert!(is_example || line.contains(is_chinese), "{command}: {line}");
            assert!(english_in(line).is_none(), "{command}: {line}");
        }
        assert!(english.is_ascii(), "{command}: {english}");
    }
}

#[test]
fn the_help_is_chinese_by_the_locale_or_by_a_flag() {
    let help = |variables: &[(&str, &str)], words: &[&str]| {
        let out = tokencached().args(words).envs(variables.iter().copied()).output().unwrap();
        assert!(out.status.success());
        String::from_utf8(out.stdout).unwrap()
    };
    let chinese = help(&[("LANG", "zh_CN.UTF-8")], &["--help"]);
    assert!(chinese.contains("退出码："), "{chinese}");
    assert_eq!(help(&[("LC_ALL", "zh_CN.UTF-8"), ("LANG", "en")], &["help"]), chinese);
    assert_eq!(help(&[], &["--language", "zh", "--help"]), chinese);
    let english = help(&[], &["--help"]);
    assert_eq!(help(&[("LC_ALL", "C"), ("LANG", "zh_CN.UTF-8")], &["--help"]), english);
    assert_eq!(help(&[("LANG", "zh_CN.UTF-8")], &["--help", "--lang=en"]), english);
}

#[test]
fn wrong_usage_is_told_in_chinese() {
    let out = tokencached().env("LANG", "zh_CN.UTF-8").args(["check", "--nonsense"]).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.starts_with("错误：没有参数 '--nonsense'\n") && english_in(&said).is_none(), "{said}");
}

/// The values of that field in a log of text lines.
fn fields<'l>(log: &'l str, name: &str) -> Vec<&'l str> {
    let start = format!(" {name}=\"");
    log.lines().filter_map(|line| line.split_once(&start)?.1.split('"').next()).collect()
}

#[test]
fn the_advice_of_log_lines_is_chinese_if_the_configuration_says_so() {
    for (language, locale) in [("zh", "C"), ("en", "zh_CN.UTF-8")] {
        let barred = AppOptions { appid: BARRED.into(), secret: SECRET.into(), ..AppOptions::default() };
        let wechat = Wechat::with(Options { apps: vec![barred], ..Options::default() });
        wechat.set_allowlist(BARRED, Some(vec![IpAddr::from([192, 0, 2, 1])]));
        let app = format!(
            "[[app]]\nappid = \"{BARRED}\"\nsecret = \"{SECRET}\"\n\
             [[sink]]\nfile = \"/proc/none/{{type}}.php\"\napps = [\"{APPID}\"]\ntemplate = \"{{value}}\"\n\
             [log]\nadvice_language = \"{language}\"\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start_with(folder, &wechat.config("", &app), &[], &[("LANG", locale)]);
        node.await_log("40164");
        node.await_log("writing to the sink failed");
        let log = node.log();
        let advice = fields(&log, "advice");
        assert!(advice.len() >= 2, "{log}");
        for text in advice {
            assert_eq!(text.contains(is_chinese), language == "zh", "{text}");
            assert!(language == "en" || english_in(text).is_none(), "{text}");
        }
        let failed = log.lines().find(|line| line.contains("renewal failed: ")).unwrap();
        assert!(
            failed.contains("errcode=40164") && failed.contains("renewal failed: errcode 40164 (our IP"),
            "{failed}"
        );
    }
}

/// Files all of whose sentences people may read: in what `check` prints, or as advice.
const WHOLE_FILES: &[&str] = &[
    "access/",
    "app/options.rs",
    "check.rs",
    "check/",
    "cli.rs",
    "cli/",
    "cluster/http.rs",
    "cluster/http/",
    "cluster/memory.rs",
    "cluster/options.rs",
    "cluster/record_handle.rs",
    "cluster/redis/connection.rs",
    "config/",
    "credential/alias_templates.rs",
    "credential/app.rs",
    "credential/app_name.rs",
    "credential/collisions.rs",
    "credential/mod.rs",
    "credential/options.rs",
    "credential/refresher/",
    "descriptors.rs",
    "encoding/",
    "files.rs",
    "files/trusted.rs",
    "http_api/options.rs",
    "invalid_value.rs",
    "platform/client/address.rs",
    "platform/client/options.rs",
    "platform/client/surroundings.rs",
    "platform/failure.rs",
    "platform/plausible.rs",
    "raw_value.rs",
    "redis_client/address.rs",
    "redis_client/fault.rs",
    "redis_client/options.rs",
    "secret_source.rs",
    "server/listen_address.rs",
    "server/options.rs",
    "sink/adopt_source.rs",
    "sink/command.rs",
    "sink/file.rs",
    "sink/files.rs",
    "sink/keys.rs",
    "sink/options.rs",
    "sink/sql/fault.rs",
    "sink/sql_address.rs",
    "sink/sql_statement.rs",
    "sink/template.rs",
    "sink/validate.rs",
    "tls/",
    "unit.rs",
    "unit/",
];
/// Its texts are in both languages already.
const OTHER_FILES: &[&str] = &["texts.rs"];
/// What is said there is a log line, or a mistake of the program itself.
const UNSEEN: &[&str] = &[
    "trace!",
    "debug!",
    "info!",
    "warn!",
    "error!",
    "log_credential!",
    "expect",
    "panic!",
    "unreachable!",
    "reason",
    "has",
    "other",
];
/// Calls that hand a text to somebody who set the server up.
const TELLING: &[&str] = &["InvalidValue::new(", "wrong(", ".refuse(", ".fault_if("];

fn is_below(file: &str, names: &[&str]) -> bool {
    names.iter().any(|name| file == *name || name.ends_with('/') && file.starts_with(name))
}

/// A text with its holes filled, by a path or by a number.
fn example(literal: &Literal, value: &str) -> String {
    let is_template = literal.inside.iter().any(|name| ["format!", "write!", "writeln!", "error"].contains(&&**name));
    if !is_template {
        return literal.text.clone();
    }
    let mut text = String::new();
    let mut chars = literal.text.chars().peekable();
    while let Some(c) = chars.next() {
        let is_doubled = matches!(c, '{' | '}') && chars.next_if_eq(&c).is_some();
        if c == '{' && !is_doubled {
            chars.by_ref().find(|c| *c == '}');
            text.push_str(value);
        } else {
            text.push(c);
        }
    }
    text
}

fn is_chinese(c: char) -> bool {
    ('\u{4e00}'..='\u{9fff}').contains(&c)
}

/// Two words in a row at least, and no Chinese.
fn is_sentence(line: &str) -> bool {
    let is_word = |word: &str| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'\'');
    let unquoted: String = line.split('"').step_by(2).collect::<Vec<_>>().join(" \" ");
    let words: Vec<&str> = unquoted.split(' ').collect();
    let is_english = !line.contains(is_chinese);
    is_english
        && words.windows(2).any(|pair| pair.iter().all(|word| is_word(word.trim_end_matches([',', '.', ';', ':']))))
}

/// By itself, or as the end of a sentence such as `is empty`.
fn has_chinese(line: &str) -> bool {
    let ways = [line, &format!(" {line}")].map(texts::chinese);
    ways.into_iter().flatten().any(|chinese| english_in(&chinese).is_none())
}

#[test]
fn every_text_that_people_read_has_its_chinese() {
    let mut missing = Vec::new();
    for (file, source) in rust_sources("src") {
        let file = &file["src/".len()..];
        let is_whole = is_below(file, WHOLE_FILES) && !is_below(file, OTHER_FILES);
        if file.ends_with("tests.rs") {
            continue;
        }
        for literal in literals(&source) {
            let is_advice = literal.inside.last().is_some_and(|name| name == "advice");
            let is_unseen = literal.inside.iter().any(|name| UNSEEN.contains(&&**name));
            if !(is_advice || is_whole && !is_unseen) {
                continue;
            }
            let lines = ["/x/y", "7"].map(|value| example(&literal, value));
            for (path, number) in lines[0].split('\n').zip(lines[1].split('\n')) {
                let (path, number) = (path.trim(), number.trim());
                if is_sentence(path) && !(has_chinese(path) || has_chinese(number)) {
                    missing.push(format!("src/{file}:{}: {path}", literal.line));
                }
            }
        }
    }
    missing.retain(|text| !NOT_SHOWN.iter().any(|known| text.ends_with(known)));
    assert!(missing.is_empty(), "add rows to src/texts/zh.txt for:\n{}", missing.join("\n"));
}

#[test]
fn whoever_tells_a_fault_is_among_the_files_that_are_looked_at() {
    for (file, source) in rust_sources("src") {
        let name = &file["src/".len()..];
        let source = source.split("#[cfg(test)]\nmod ").next().unwrap();
        let tells = TELLING.iter().find(|call| source.contains(*call));
        let is_looked_at = is_below(name, WHOLE_FILES) || name.ends_with("tests.rs");
        assert!(tells.is_none() || is_looked_at, "{file} has {tells:?}");
    }
}

/// Parts that are put together with others, and what only programs read.
const NOT_SHOWN: &[&str] = &[
    "the same in line/x/y /x/y/x/y",
    "its thread is gone",
    "tls = \"verify\" hides",
    ": to that database",
    "/x/y: the appid /x/y",
    ": refresh token",
    ": verify ticket",
    ": duplicate key",
    ": Known for files are",
    "others can read the /x/y in /x/y (chmod 600)",
    ": no statement",
    ": Set it to",
    "/x/y # written in the file",
    "is not /x/y /x/y",
    "/x/y (set state.path)",
    ": neither a table nor a list",
    "A text that stands there as it is: { constant = \"...\" }.",
    "the /x/y /x/y has no /x/y",
    "the /x/y has no /x/y",
    "/x/y has no /x/y",
    "no /x/y is given",
    // Messages of log lines.
    "cannot adopt the site's own token",
    ": refresh request",
    ": too long",
    "renewed at the same time; one more fetch follows",
    "renewed at the same time; its token is served, and one more fetch follows",
];
