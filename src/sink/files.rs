//! The files of a sink: which there are for its apps, and what stands in each.
//!
//! No path is built from anything but the configuration and names that are letters, digits, `_` and `-`. Opens nothing.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::file_presets::{FilePreset, Layout};
use super::keys::{Keys, Scope};
use super::options::{SinkContent, SinkEntry};
use super::template::{Escape, Template};
use crate::credential::App;
use crate::encoding::View;
use crate::encoding::key_words::{fill_type, has_type};
use crate::invalid_value::{InvalidValue, quoted};
use crate::platform::CredentialName;

/// A file's longest name, less what stands around it while it is written.
const FILE_NAME_BYTES_MAX: usize = 200;

/// What is written, before it is known of whom.
pub enum FileContent {
    Template(Arc<Template>),
    NamedArray,
    Views(Vec<(CredentialName, View)>),
}

impl FileContent {
    pub fn of_preset(preset: &FilePreset) -> Option<FileContent> {
        match preset.layout {
            Layout::Text(text, escape) => {
                Template::parse(text, escape).ok().map(|template| FileContent::Template(template.into()))
            }
            Layout::NamedArray => Some(FileContent::NamedArray),
        }
    }

    fn of(&self, app: &App, of: CredentialName) -> Option<SinkContent> {
        Some(match self {
            FileContent::Template(template) => SinkContent::Template(template.clone()),
            FileContent::NamedArray => SinkContent::Template(named_array(&self.file_name(app, of)?).into()),
            FileContent::Views(views) => SinkContent::View(views.iter().find(|(only, _)| *only == of)?.1.clone()),
        })
    }

    /// What `{name}` stands for.
    fn file_name(&self, app: &App, of: CredentialName) -> Option<String> {
        let FileContent::NamedArray = self else { return Some(of.word().to_owned()) };
        let end = match of {
            CredentialName::AccessToken => "access_token",
            CredentialName::JsapiTicket => "ticket_jsapi",
            CredentialName::WxCardTicket => "ticket_wx_card",
            _ => return None,
        };
        Some(format!("{}_{end}", app.appid))
    }
}

fn named_array(name: &str) -> Template {
    let begin = format!("a:3:{{s:4:\"name\";s:{}:\"{name}\";s:5:\"value\";", name.len());
    Template { text: begin + "{value}s:7:\"expired\";i:{expires_at};}", escape: Escape::Serialized }
}

/// A file for each credential, up to the first that cannot be one.
pub fn entries(path: &str, content: &FileContent, scope: &Scope<'_>) -> (Vec<SinkEntry>, Option<InvalidValue>) {
    let mut files = Keys::default();
    let of_each_type = has_type(path) || path.contains("{name}");
    for app in &scope.apps {
        let mut kept = scope.kept(app);
        kept.truncate(if of_each_type { usize::MAX } else { 1 });
        for of in kept {
            let (Some(name), Some(content)) = (content.file_name(app, of), content.of(app, of)) else { continue };
            let entry = file_entry(path, &name, app, of, content);
            if let Err(fault) = entry.and_then(|entry| files.claim(entry, 0, false)) {
                return (files.entries, Some(fault));
            }
        }
    }
    (files.entries, None)
}

/// A token that anybody could ask the web server for.
pub fn exposure(path: &str, entries: &[SinkEntry]) -> Option<String> {
    let root = document_root(Path::new(path))?;
    let root = root.display();
    let begins_as_php = |entry: &SinkEntry| match &entry.content {
        SinkContent::Template(template) => template.text.starts_with("<?php"),
        _ => false,
    };
    if !path.ends_with(".php") {
        Some(format!(
            "{path} lies below {root}, which web servers hand out, and does not end in .php: whoever knows the address reads \
             the token; write it elsewhere, or have the web server refuse it"
        ))
    } else if !entries.iter().all(begins_as_php) {
        Some(format!(
            "{path} lies below {root}, which web servers hand out, and does not begin with <?php: whoever knows the address \
             reads the token; write it elsewhere, or use a preset or template that begins so"
        ))
    } else {
        None
    }
}

fn file_entry(
    path: &str,
    name: &str,
    app: &App,
    of: CredentialName,
    content: SinkContent,
) -> Result<SinkEntry, InvalidValue> {
    let plain = |text: &str, more: &str| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-') || more.contains(c))
    };
    if !plain(&app.appid, "") || !plain(&app.id(), ":") {
        let what = format!("the app {} cannot stand in a path", quoted(&app.id()));
        return Err(InvalidValue::new(what, "Letters, digits, _ and - can. Name the apps of this sink."));
    }
    let file = fill_type(path, of.word()).replace("{name}", name);
    let file = file.replace("{appid}", &app.appid).replace("{id}", &app.id());
    let last = Path::new(&file).components().next_back();
    match last {
        Some(Component::Normal(last)) if last.len() <= FILE_NAME_BYTES_MAX => {
            Ok(SinkEntry { app: app.id(), of, name: file, redacted_name: None, content })
        }
        _ => {
            let what = format!("{} does not end in a file's name of up to {FILE_NAME_BYTES_MAX} bytes", quoted(&file));
            Err(InvalidValue::new(what, "Write a path such as \"/var/www/site/cache/{type}.php\"."))
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
