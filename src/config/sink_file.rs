//! `[[sink]]` tables with `file`: which files, and what stands in them.
//!
//! No path is built from anything but the configuration and names that are letters, digits, `_` and `-`. Judges paths
//! and opens nothing.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::fault::{Place, Problem};
use super::reader::{Reader, Table, toml_text, toml_texts};
use super::sinks::{Made, Scope, twice};
use super::value::{Given, Reading, Value, closest, path, quoted, text};
use super::views::Fields;
use super::{App, CredentialName, SinkContent, SinkEntry, SinkFile, SinkTo, View};
use crate::encoding::key_words::known_words;
use crate::encoding::request::form_as_toml;
use crate::encoding::{Fact, Form};
use crate::sink::file_presets::{FILE_PRESETS, FilePreset, Layout};
use crate::sink::template::{Escape, Piece, Source, Template, TemplateFault, TimeShown, time};

const VIEW_KEYS: &[&str] = &["encoding", "fields", "shows"];
const PATH_BYTES_MAX: usize = 4000;
/// A file's longest name, less what stands around it while it is written.
const FILE_NAME_BYTES_MAX: usize = 200;
/// A reader is told of at least so many rounds of writing.
const ROUNDS_TOLD: u64 = 3;

impl From<TemplateFault> for Problem {
    fn from(fault: TemplateFault) -> Problem {
        match fault {
            TemplateFault::UnknownWord(word) => {
                let times = Fact::ALL.iter().skip(1).map(|(word, _)| format!("{{{word}}}")).collect::<Vec<_>>();
                let remedy = format!(
                    "Known are {{value}}, {{kind}}, {{appid}}, {{id}}, {} and those with a number added, such as {{expires_at-7000}}.",
                    times.join(", ")
                );
                Problem::new(format!("{} is not known in a template", quoted(&word)), remedy)
            }
            TemplateFault::NoValue => {
                Problem::new("the template has no {value}", "Write {value} where the token is to stand.")
            }
            TemplateFault::OutsideOfQuotes { escape, quote, language } => {
                let what = format!("{{value}} does not stand in the quotes that escape = \"{}\" is for", escape.word());
                let remedy = format!("Write {quote}{{value}}{quote}, a string of {language}, or escape = \"none\".");
                Problem::new(what, remedy)
            }
        }
    }
}

/// What is written, before it is known of whom.
enum Content {
    Template(Source),
    NamedArray,
    Views(Vec<(CredentialName, View)>),
}

impl Content {
    fn of(&self, app: &App, of: CredentialName) -> Option<SinkContent> {
        Some(match self {
            Content::Template(source) => SinkContent::Template(source.of(of.word(), &app.appid, &app.id())),
            Content::NamedArray => SinkContent::Template(named_array(&self.file_name(app, of)?)),
            Content::Views(views) => SinkContent::View(views.iter().find(|(kind, _)| *kind == of)?.1.clone()),
        })
    }

    /// What `{name}` stands for.
    fn file_name(&self, app: &App, of: CredentialName) -> Option<String> {
        match (self, of) {
            (Content::NamedArray, CredentialName::AccessToken) => Some(format!("{}_access_token", app.appid)),
            (Content::NamedArray, CredentialName::JsapiTicket) => Some(format!("{}_ticket_jsapi", app.appid)),
            (Content::NamedArray, CredentialName::WxCardTicket) => Some(format!("{}_ticket_wx_card", app.appid)),
            (Content::NamedArray, _) => None,
            _ => Some(of.word().to_owned()),
        }
    }
}

fn named_array(name: &str) -> Template {
    let begin = format!("a:3:{{s:4:\"name\";s:{}:\"{name}\";s:5:\"value\";", name.len());
    let end = Piece::Time(TimeShown { fact: Fact::ExpiresAt, add: 0 });
    let text = |text: &str| Piece::Text(text.to_owned());
    let pieces = vec![text(&begin), Piece::SerializedValue, text("s:7:\"expired\";i:"), end, text(";}")];
    Template { pieces, escape: Escape::None }
}

impl Reader<'_> {
    pub(super) fn file_sink(
        &mut self,
        table: &Table,
        scope: Option<&Scope<'_>>,
        rewrite_every_ms: u64,
    ) -> Option<Made> {
        let file = self.placed(table, "file", file_path).map(|(path, _)| path);
        file.iter().for_each(|path| table.print("file", toml_text(path)));
        let mode = self.mode(table, "mode").unwrap_or_default();
        let at_least = self.number_if_any(table, "at_least");
        let at_least = at_least.unwrap_or((rewrite_every_ms / 1000 * ROUNDS_TOLD).min(86_400));
        table.print("at_least", at_least.to_string());
        let mtime = self.read(table, "mtime", file_time);
        mtime.iter().for_each(|TimeShown { fact, add }| {
            let add = if *add == 0 { String::new() } else { format!("{add:+}") };
            table.print("mtime", toml_text(&format!("{{{}{add}}}", fact.word())));
        });
        let content = self.file_content(table)?;
        let (path, scope) = (file?, scope?);
        let (entries, places) = self.file_entries(table, &path, &content, scope);
        self.judge_place(table, &path, &entries);
        let at_least_s = u32::try_from(at_least).unwrap_or(u32::MAX);
        Some(Made { to: SinkTo::File(SinkFile { path, mode, at_least_s, mtime }), entries, places })
    }

    /// What is in the files.
    fn file_content(&mut self, table: &Table) -> Option<Content> {
        let escape = table.has("escape").then(|| self.word(table, "escape", &Escape::WORDS)).flatten();
        let preset = self.file_preset(table);
        let given: Vec<&str> = ["presets", "template", "encoding"].into_iter().filter(|key| table.has(key)).collect();
        if let [first, second, ..] = given[..] {
            let what = format!("{first} and {second} say both what is in the file");
            self.fault_at(table, "file", Problem::new(what, "Keep one of the two."), &table.place);
            return None;
        }
        if table.has("escape") && !table.has("template") {
            let problem = Problem::new("there is no template whose value it could escape", "Remove it.");
            self.fault(table, "escape", problem);
        }
        if table.has("presets") {
            let preset = preset?;
            table.print("presets", toml_texts([preset.name]));
            return match preset.layout {
                Layout::Text(text, escape) => Source::new(text, escape).ok().map(Content::Template),
                Layout::NamedArray => Some(Content::NamedArray),
            };
        }
        if table.has("template") {
            let escape = escape.unwrap_or(Escape::None);
            let source = self.read(table, "template", |value| Ok(Source::new(text(value)?, escape)?))?;
            table.print("template", toml_text(source.text()));
            table.print("escape", toml_text(escape.word()));
            return Some(Content::Template(source));
        }
        let views = self.file_views(table)?;
        let form = views.first().map(|(_, view)| form_as_toml(&view.form, toml_text)).unwrap_or_default();
        // Each kind has names of its own for the usual fields.
        let (form, fields) = form.split_once(", fields = ").unwrap_or((&form, ""));
        for line in form.split(", ").filter_map(|line| line.split_once(" = ")) {
            table.print(line.0, line.1);
        }
        if table.has("fields") {
            table.print("fields", fields);
        }
        Some(Content::Views(views))
    }

    /// One preset and no more: a file has one content.
    fn file_preset(&mut self, table: &Table) -> Option<&'static FilePreset> {
        match self.list(table, "presets", "presets = [\"jssdk\"]") {
            [] => None,
            [one] => {
                let preset = file_preset(&one.value);
                preset.map_err(|problem| self.fault_at(table, "presets", problem, &one.place)).ok()
            }
            [_, second, ..] => {
                let problem = Problem::new("a file has the content of one preset", "Write a [[sink]] for each.");
                self.fault_at(table, "presets", problem, &second.place);
                None
            }
        }
    }

    /// What an alias with these fields would answer with.
    fn file_views(&mut self, table: &Table) -> Option<Vec<(CredentialName, View)>> {
        let given: Vec<(&str, &Given)> = VIEW_KEYS.iter().filter_map(|key| Some((*key, table.get(key)?))).collect();
        let fields = Fields::of_these(given);
        let view = |of: CredentialName| Ok((of, fields.view(of, &table.place)?));
        let views: Result<Vec<_>, (Problem, Place)> = CredentialName::ALL.into_iter().map(view).collect();
        match views {
            Ok(views) if views.iter().any(|(_, view)| view.form == Form::Nothing) => {
                let problem = Problem::new("a file has something in it", "Remove shows.");
                self.fault_at(table, "shows", problem, &table.place);
                None
            }
            Ok(views) => Some(views),
            Err((problem, place)) => {
                self.fault_at(table, "encoding", problem, &place);
                None
            }
        }
    }

    fn file_entries(
        &mut self,
        table: &Table,
        path: &str,
        content: &Content,
        scope: &Scope<'_>,
    ) -> (Vec<SinkEntry>, Vec<Place>) {
        let place = table.place_of("file");
        let (mut entries, mut known): (Vec<SinkEntry>, HashMap<String, usize>) = Default::default();
        let of_each_kind = path.contains("{kind}") || path.contains("{name}");
        for app in &scope.apps {
            let mut kept = scope.kept(app);
            kept.truncate(if of_each_kind { usize::MAX } else { 1 });
            for of in kept {
                let (Some(name), Some(content)) = (content.file_name(app, of), content.of(app, of)) else { continue };
                match file_entry(path, &name, app, of, content) {
                    Ok(entry) => match known.get(&entry.name).and_then(|at| entries.get(*at)) {
                        None => {
                            known.insert(entry.name.clone(), entries.len());
                            entries.push(entry);
                        }
                        Some(first) => {
                            self.fault(table, "file", twice(first, &entry));
                            return (entries, Vec::new());
                        }
                    },
                    Err(problem) => {
                        self.fault(table, "file", problem);
                        return (entries, Vec::new());
                    }
                }
            }
        }
        let places = vec![place.clone(); entries.len()];
        (entries, places)
    }

    /// A token that anybody could ask the web server for.
    fn judge_place(&mut self, table: &Table, path: &str, entries: &[SinkEntry]) {
        let Some(root) = document_root(Path::new(path)) else { return };
        let place = table.place_of("file");
        let is_php = path.ends_with(".php");
        let begins_as_php = |entry: &SinkEntry| match &entry.content {
            SinkContent::Template(template) => {
                matches!(template.pieces.first(), Some(Piece::Text(text)) if text.starts_with("<?php"))
            }
            _ => false,
        };
        let root = root.display();
        if !is_php {
            self.warnings.push(format!(
                "{place}: {path} lies below {root}, which web servers hand out, and does not end in .php: whoever knows \
                 the address reads the token; write it elsewhere, or have the web server refuse it"
            ));
        } else if !entries.iter().all(begins_as_php) {
            self.warnings.push(format!(
                "{place}: {path} lies below {root}, which web servers hand out, and does not begin with <?php: whoever \
                 knows the address reads the token; write it elsewhere, or use a preset or template that begins so"
            ));
        }
    }
}

fn file_preset(value: &Value) -> Reading<&'static FilePreset> {
    let name = text(value)?;
    FILE_PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
        let names = || FILE_PRESETS.iter().map(|preset| preset.name);
        let remedy = match closest(name, names()) {
            Some(close) => format!("Did you mean {close:?}?"),
            None => format!("Known for files are {}.", names().collect::<Vec<_>>().join(", ")),
        };
        Problem::new(format!("{} is not known", quoted(name)), remedy)
    })
}

fn file_path(value: &Value, base: &Path) -> Reading<String> {
    let given = text(value)?;
    known_words(given, &["appid", "id", "kind", "name"])?;
    let remedy = "Write a path such as \"/var/www/site/cache/{kind}.php\".";
    if given.ends_with('/') || given.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return Err(Problem::new(format!("{} is not the path of a file", quoted(given)), remedy));
    }
    let path = path(value, base)?;
    match path.to_str() {
        Some(path) if path.len() <= PATH_BYTES_MAX => Ok(path.to_owned()),
        _ => Err(Problem::new("the path is too long, or not UTF-8", remedy)),
    }
}

fn file_time(value: &Value) -> Reading<TimeShown> {
    let remedy = "Write mtime = \"{expires_at-7200}\", with the lifetime that the script takes a file for good.";
    match time(text(value)?) {
        Some(time) if matches!(time.fact, Fact::ExpiresAt | Fact::FetchedAt) => Ok(time),
        _ => Err(Problem::new("it is not a time in seconds since 1970", remedy)),
    }
}

fn file_entry(path: &str, name: &str, app: &App, of: CredentialName, content: SinkContent) -> Reading<SinkEntry> {
    let plain = |text: &str, more: &str| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-') || more.contains(c))
    };
    if !plain(&app.appid, "") || !plain(&app.id(), ":") {
        let what = format!("the app {} cannot stand in a path", quoted(&app.id()));
        return Err(Problem::new(what, "Letters, digits, _ and - can. Name the apps of this sink."));
    }
    let file = path.replace("{kind}", of.word()).replace("{name}", name);
    let file = file.replace("{appid}", &app.appid).replace("{id}", &app.id());
    let last = Path::new(&file).components().next_back();
    match last {
        Some(Component::Normal(last)) if last.len() <= FILE_NAME_BYTES_MAX => {
            Ok(SinkEntry { app: app.id(), of, name: file, redacted_name: None, content })
        }
        _ => {
            let what = format!("{} does not end in a file's name of up to {FILE_NAME_BYTES_MAX} bytes", quoted(&file));
            Err(Problem::new(what, "Write a path such as \"/var/www/site/cache/{kind}.php\"."))
        }
    }
}

/// The folder above that web servers usually hand out, if one has such a name.
fn document_root(path: &Path) -> Option<PathBuf> {
    const NAMES: [&str; 6] = ["public_html", "htdocs", "httpdocs", "wwwroot", "webroot", "public"];
    let named = |folder: &&Path| {
        let name = |of: &Path| of.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let above = folder.parent().map(name).unwrap_or_default();
        NAMES.contains(&name(folder).as_str()) || name(folder) == "html" && ["www", "nginx"].contains(&above.as_str())
    };
    path.ancestors().skip(1).find(named).map(Path::to_owned)
}
