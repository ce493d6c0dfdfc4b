//! The status page: files in the binary. They hold no data, so anybody may read them.
//!
//! The page itself asks the API for what it shows, with the visitor's rights. Only the language is put into the files.

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use crate::secret::fingerprint;

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, content type, content.
const FILES: &[(&str, &str, &[u8])] = &[
    ("/", "text/html; charset=utf-8", include_bytes!("page/index.html")),
    ("/page/style.css", "text/css; charset=utf-8", include_bytes!("page/style.css")),
    ("/page/faults.js", SCRIPT, include_bytes!("page/faults.js")),
    ("/page/nodes.js", SCRIPT, include_bytes!("page/nodes.js")),
    ("/page/icon.svg", "image/svg+xml", include_bytes!("page/icon.svg")),
    ("/page/early.js", SCRIPT, include_bytes!("page/early.js")),
    ("/page/app.js", SCRIPT, include_bytes!("page/app.js")),
    ("/page/ask.js", SCRIPT, include_bytes!("page/ask.js")),
    ("/page/charts.js", SCRIPT, include_bytes!("page/charts.js")),
    ("/page/dom.js", SCRIPT, include_bytes!("page/dom.js")),
    ("/page/list.js", SCRIPT, include_bytes!("page/list.js")),
    ("/page/net.js", SCRIPT, include_bytes!("page/net.js")),
    ("/page/sinks.js", SCRIPT, include_bytes!("page/sinks.js")),
    ("/page/timeline.js", SCRIPT, include_bytes!("page/timeline.js")),
    ("/page/words.js", SCRIPT, include_bytes!("page/words.js")),
];

/// The file of this path. The page comes in the language that the browser prefers. A browser that has the file already
/// gets it again only if it has changed.
pub fn file(path: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let (_, content_type, content) = FILES.iter().find(|(known, ..)| *known == path).ok_or_else(Problem::not_found)?;
    let content = match path {
        "/" if prefers_chinese(headers) => in_chinese(content),
        _ => Cow::Borrowed(*content),
    };
    let tag = HeaderValue::try_from(format!("\"{}\"", fingerprint(&content))).map_err(|_| Problem::not_found())?;
    let known = headers.get(header::IF_NONE_MATCH) == Some(&tag);
    let response = if known { StatusCode::NOT_MODIFIED.into_response() } else { content.into_response() };
    let vary = (path == "/").then_some([(header::VARY, "Accept-Language")]);
    let headers = [(header::CONTENT_TYPE, *content_type), (header::CACHE_CONTROL, "no-cache")];
    Ok((headers, [(header::ETAG, tag)], vary, response).into_response())
}

/// The page marked as Chinese; the texts are in a script.
fn in_chinese(page: &'static [u8]) -> Cow<'static, [u8]> {
    let page = String::from_utf8_lossy(page);
    Cow::Owned(page.replacen("<html lang=\"en\">", "<html lang=\"zh-CN\">", 1).into_bytes())
}

/// Whether the browser prefers Chinese to English (RFC 9110, 12.5.4).
fn prefers_chinese(headers: &HeaderMap) -> bool {
    let languages = headers.get_all(header::ACCEPT_LANGUAGE).iter().filter_map(|value| value.to_str().ok());
    let (mut chinese, mut english) = (0.0_f32, 0.0_f32);
    for language in languages.flat_map(|value| value.split(',')) {
        let (tag, weight) = language.split_once(';').unwrap_or((language, ""));
        let weight = weight.trim().strip_prefix("q=").map_or(1.0, |q| q.trim().parse().unwrap_or(0.0));
        match tag.trim().split('-').next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "zh" => chinese = chinese.max(weight),
            "en" => english = english.max(weight),
            _ => {}
        }
    }
    chinese > english
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(language: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT_LANGUAGE, HeaderValue::from_str(language).unwrap())])
    }

    #[test]
    fn the_browser_says_which_language() {
        for chinese in ["zh", "zh-CN,zh;q=0.9,en;q=0.8", "ZH-tw", "en;q=0.5, zh-Hans;q=0.7", "fr, zh;q=0.2"] {
            assert!(prefers_chinese(&asked(chinese)), "{chinese}");
        }
        for other in ["", "en", "en-GB,en;q=0.9,zh;q=0.8", "fr", "zh;q=0", "zh;q=x", "zhuang"] {
            assert!(!prefers_chinese(&asked(other)), "{other}");
        }
    }

    #[test]
    fn each_language_of_the_page_has_its_own_tag() {
        let tag = |language| file("/", &asked(language)).unwrap().headers()[header::ETAG].clone();
        assert_ne!(tag("zh"), tag("en"));
        let mut again = asked("zh");
        again.insert(header::IF_NONE_MATCH, tag("zh"));
        assert_eq!(file("/", &again).unwrap().status(), StatusCode::NOT_MODIFIED);
        again.insert(header::IF_NONE_MATCH, tag("en"));
        assert_eq!(file("/", &again).unwrap().status(), StatusCode::OK);
    }

    #[test]
    fn what_a_file_refers_to_is_there() {
        for (path, _, content) in FILES {
            let text = std::str::from_utf8(content).unwrap();
            for used in text.split(['"', '\'', '`']).filter(|word| word.starts_with("/page/") || word.starts_with("./"))
            {
                let used = used.replacen("./", "/page/", 1);
                assert!(FILES.iter().any(|(known, ..)| *known == used), "{path} uses {used}");
            }
        }
    }

    #[test]
    fn markup_is_never_made_of_text() {
        for (path, content_type, content) in FILES {
            let text = std::str::from_utf8(content).unwrap();
            for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
                assert!(*content_type != SCRIPT || !text.contains(word), "{path} has {word}");
            }
            // The CSP forbids both, so neither would work.
            assert!(
                path != &"/" || !text.contains(" style=") && !text.contains("<style") && !text.contains(" onclick=")
            );
        }
    }
}
