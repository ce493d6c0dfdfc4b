//! What people and editors read of the table of settings: the reference in English and Chinese, and a JSON schema.
//!
//! Pure. The files in docs are these texts; a test compares them.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use tokencached::byte_size::size_text;
use tokencached::config::schema::{Change, SECTIONS, Section, Setting, Takes, TextForm};

/// The languages of the reference, by their folder in docs.
pub const LANGUAGES: [&str; 2] = ["en", "zh"];

/// The page of a language.
pub fn page(language: &str) -> String {
    let at = usize::from(language == "zh");
    let pick = |texts: [&'static str; 2]| texts[at];
    let mut out = pick([
        "# Settings\n\n[简体中文](../zh/settings.md)\n\nEvery setting. A test keeps this page and the program the same. [configuration.md](configuration.md) explains what \
         they are for.\n\nThe file is TOML. Each key of a table in single brackets, such as `[server]`, also has an environment variable: \
         `TOKENCACHED_` with table and key; a list is then one text with commas. The column `default` says **needed** where a key must be \
         given; of the four ways to give a secret, use one. The column `change`: **restart**: a change takes effect at the next start; **reload**: on SIGHUP or `systemctl reload`; \
         **followed**: what the named file contains takes effect within seconds, the name of another file at the next start. \
         Editors can use [the JSON schema](../tokencached.schema.json).\n",
        "# 设置\n\n[English](../en/settings.md)\n\n本页列出全部设置，由测试保证与程序一致。各项的用途见 [configuration.md](configuration.md)。\n\n配置文件的格式为 TOML。\
         写作单方括号的表（如 `[server]`），每个键还有对应的环境变量：`TOKENCACHED_` 加表名和键名；列表写成逗号分隔的文本。\
         “默认”一列写着 **必填** 的键不能省略；敏感文本有四种给法，任选一种。“修改”一列：**重启**：下次启动生效；**重载**：发 SIGHUP 或 `systemctl reload` 后生效；\
         **跟随**：文件内容改动后几秒内生效，换用别的文件需重启。编辑器可使用 [JSON schema](../tokencached.schema.json)。\n",
    ])
    .to_owned();
    for section in SECTIONS.iter() {
        section_page(&mut out, section, at);
    }
    out
}

fn section_page(out: &mut String, section: &Section, at: usize) {
    let has_flags = section.settings().any(|setting| !setting.flag.is_empty());
    let has_types = section.settings().any(|setting| !setting.types.is_empty());
    let mut heads = vec![["key", "键"], ["value", "值"], ["default", "默认"]];
    if has_types {
        heads.push(["of", "适用于"]);
    }
    if has_flags {
        heads.push(["flag", "参数"]);
    }
    if !section.is_list {
        heads.push(["environment", "环境变量"]);
    }
    heads.extend([["change", "修改"], ["meaning", "含义"]]);
    let _ = write!(out, "\n## `{}`\n\n{}", header(section), section.says[at]);
    if !section.old_name.is_empty() {
        let old = format!("`[{}]`", section.old_name);
        out.push_str(&[format!(" Old name, still read: {old}."), format!("旧名（仍可使用）：{old}。")][at]);
    }
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let _ = write!(out, "\n\n{}", row(heads.iter().map(|head| head[at].to_owned()).collect()));
    let _ = writeln!(out, "|{}", "---|".repeat(heads.len()));
    for setting in section.settings() {
        let mut cells = vec![format!("`{}`", setting.key), takes(&setting.takes, at), default(setting, at)];
        if has_types {
            cells.push(setting.types.to_owned());
        }
        if has_flags {
            cells.push(code(setting.flag));
        }
        if let Some(variable) = section.variable(setting) {
            cells.push(code(&variable));
        }
        let change = match setting.change {
            Change::Restart => ["restart", "重启"],
            Change::Reload => ["reload", "重载"],
            Change::Followed => ["followed", "跟随"],
        };
        let mut says = setting.says[at].to_owned();
        if !setting.old_key.is_empty() {
            let _ = write!(says, "{}`{}`", ["; old name, still read: ", "；旧名（仍可使用）："][at], setting.old_key);
        }
        cells.extend([change[at].to_owned(), says.replace('|', "\\|")]);
        out.push_str(&row(cells));
    }
}

/// `[server]`, `[[app]]`.
fn header(section: &Section) -> String {
    if section.is_list { format!("[[{}]]", section.name) } else { format!("[{}]", section.name) }
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

/// Type and range.
fn takes(takes: &Takes, at: usize) -> String {
    let words = |words: &[&str]| words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ");
    let list_of = |what: &str| {
        let space = if what.ends_with(|c: char| c.is_ascii()) { " " } else { "" };
        [format!("a list of {what}"), format!("{what}{space}的列表")][at].clone()
    };
    match takes {
        Takes::Switch { .. } => "`true`, `false`".to_owned(),
        Takes::Number { low, high, unit: "", .. } => format!("{low}–{high}"),
        Takes::Number { low, high, unit, .. } => format!("{low}–{high} {unit}"),
        Takes::Size { low, high, .. } => format!("{}–{}", size_text(*low), size_text(*high)),
        Takes::Mode { .. } => ["octal, 0–0777", "八进制，0–0777"][at].to_owned(),
        Takes::Word { of, .. } => words(of),
        Takes::Text { form, .. } => form_words(*form)[at].to_owned(),
        Takes::List { form, .. } => list_of([form_plural(*form), form_words(*form)[1]][at]),
        Takes::Words { of } => list_of(&words(of)),
        Takes::Other { what, .. } => what[at].to_owned(),
    }
}

fn form_words(form: TextForm) -> [&'static str; 2] {
    match form {
        TextForm::Text => ["a text", "文本"],
        TextForm::Path => ["a path", "路径"],
        TextForm::Pem | TextForm::PemKey => ["a PEM file", "PEM 文件"],
        TextForm::Url => ["a URL", "URL"],
        TextForm::Address => ["an address", "地址"],
        TextForm::Host => ["a host", "主机"],
        TextForm::Secret => ["a secret", "敏感文本"],
        TextForm::Variable => ["a variable's name", "变量名"],
        TextForm::Credential => ["a systemd credential's name", "systemd 凭据名"],
    }
}

fn form_plural(form: TextForm) -> &'static str {
    match form {
        TextForm::Url => "URLs",
        TextForm::Address => "addresses",
        TextForm::Host => "hosts",
        _ => "texts",
    }
}

fn default(setting: &Setting, at: usize) -> String {
    match default_toml(setting) {
        _ if !setting.default_words[at].is_empty() => setting.default_words[at].to_owned(),
        Some(toml) => code(&toml),
        None => String::new(),
    }
}

/// The JSON schema of the file.
pub fn json_schema() -> String {
    let mut root = table();
    for section in SECTIONS.iter() {
        let own = of_section(section);
        match section.name.rsplit_once('.') {
            Some((parent, name)) => {
                let parent = &mut root["properties"][parent];
                let parent = if parent["type"] == "array" { &mut parent["items"] } else { parent };
                parent["properties"][name] = own;
            }
            None => root["properties"][section.name] = own,
        }
    }
    for section in SECTIONS.iter().filter(|section| !section.old_name.is_empty()) {
        let mut old = root["properties"][section.name].clone();
        old["deprecated"] = json!(true);
        old["description"] = json!(format!("Old name of {}.", header(section)));
        root["properties"][section.old_name] = old;
    }
    let head = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "tokencached",
        "description": "The configuration of tokencached; docs/en/settings.md has the same for people.",
    });
    let mut whole = head.as_object().cloned().unwrap_or_default();
    whole.extend(root.as_object().cloned().unwrap_or_default());
    format!("{:#}\n", Value::Object(whole))
}

fn table() -> Value {
    json!({ "type": "object", "properties": {}, "additionalProperties": false })
}

fn of_section(section: &Section) -> Value {
    let mut own = table();
    for setting in section.settings() {
        let mut put = |key: &str, value: Value| match key.split_once('.') {
            Some((outer, inner)) => {
                let outer = &mut own["properties"][outer];
                if outer.is_null() {
                    *outer = table();
                }
                outer["properties"][inner] = value;
            }
            None => own["properties"][key] = value,
        };
        let value = of_setting(setting);
        if !setting.old_key.is_empty() {
            let mut old = value.clone();
            old["deprecated"] = json!(true);
            old["description"] = json!(format!("Old name of {}.", setting.key));
            put(setting.old_key, old);
        }
        put(setting.key, value);
    }
    match section.is_list {
        true => json!({ "type": "array", "description": section.says[0], "items": own }),
        false => {
            own["description"] = json!(section.says[0]);
            own
        }
    }
}

fn of_setting(setting: &Setting) -> Value {
    let mut schema = match &setting.takes {
        Takes::Switch { .. } => json!({ "type": "boolean" }),
        Takes::Number { low, high, .. } => json!({ "type": "integer", "minimum": low, "maximum": high }),
        Takes::Size { .. } => {
            json!({ "type": ["string", "integer"], "pattern": "^ *[0-9]+ *([kKmMgG]([iI]?[bB])?|[bB])? *$" })
        }
        Takes::Mode { .. } => json!({ "type": ["string", "integer"], "pattern": "^(0o)?[0-7]{1,4}$" }),
        Takes::Word { of: words, .. } => json!({ "enum": words }),
        Takes::Text { .. } => json!({ "type": "string" }),
        Takes::List { .. } => json!({ "type": ["array", "string"], "items": { "type": "string" } }),
        Takes::Words { of: words } => json!({ "type": "array", "items": { "enum": words } }),
        Takes::Other { json, .. } => serde_json::from_str(json).unwrap_or_else(|_| Value::Object(Map::new())),
    };
    schema["description"] = json!(setting.says[0]);
    if let Some(Ok(default)) = default_toml(setting).map(|toml| as_json(&toml)) {
        schema["default"] = default;
    }
    schema
}

/// The default of a setting; in TOML nothing is written that JSON does not have.
fn as_json(toml: &str) -> serde_json::Result<Value> {
    serde_json::from_str(toml)
}

/// Its constant default as the file has it.
fn default_toml(setting: &Setting) -> Option<String> {
    let text = |text: &str| (!text.is_empty()).then(|| format!("\"{text}\""));
    match &setting.takes {
        Takes::Switch { default } => default.map(|on| on.to_string()),
        Takes::Number { default, .. } => default.map(|number| number.to_string()),
        Takes::Size { default, .. } => text(&size_text(*default)),
        Takes::Mode { default } => default.map(|mode| format!("\"{mode:04o}\"")),
        Takes::Word { default, .. } | Takes::Text { default, .. } => text(default),
        Takes::List { default, .. } | Takes::Other { default, .. } => {
            (!default.is_empty()).then(|| (*default).to_owned())
        }
        Takes::Words { .. } => None,
    }
}
