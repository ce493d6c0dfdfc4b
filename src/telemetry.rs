//! Logs: text for people or JSON lines, on standard error.
//!
//! Never logs a token or a secret: our own code has only fingerprints to offer, and libraries are held at
//! warnings whatever the verbosity, because at lower levels they print URLs, and WeChat's carry the secret.
//! Each event is one line, without control characters: no value can write a line of its own.
//! Writing a line never blocks its caller: [`queue`] takes the lines, and a thread of its own writes them.

mod advice;
mod queue;

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic::PanicHookInfo;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use self::advice::{ChineseFields, ChineseJson};
use self::queue::LogQueue;
use crate::texts::Language;

const OWN: &str = env!("CARGO_CRATE_NAME");
/// The process ends after this long at the latest, also if nobody reads the last lines.
const FLUSH_MAX: Duration = Duration::from_secs(1);

const ESCAPE: u8 = 0x1b;

/// Changes what is logged; there is one log in a process.
static SET_VERBOSITY: OnceLock<Box<dyn Fn(u8) + Send + Sync>> = OnceLock::new();
static QUEUE: OnceLock<Arc<LogQueue>> = OnceLock::new();
static DROPPED: LazyLock<Arc<AtomicU64>> = LazyLock::new(Arc::default);

/// The settings of the log.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// 0 warnings and what an operator must know, 1 (`-v`), 2 (`-vv`), 3.
    pub verbosity: u8,
    pub json: bool,
    /// What `advice` is written in; everything else is English.
    pub advice_language: Language,
}

/// Starts logging for the whole process; fails if it was started before.
pub fn init(log: &Options) -> Result<(), String> {
    let directives = std::env::var("RUST_LOG").unwrap_or_default();
    let style = Style::of(log);
    let queue = start_queue(style);
    let queue = queue.map_err(|error| format!("the thread that writes them cannot be started: {error}"))?;
    let (filtered, handle) = reload::Layer::new(filter(log.verbosity, &directives));
    let format = style.layer(line_writer(move |line| queue.push(&one_line(line))));
    let subscriber = tracing_subscriber::registry().with(format.with_filter(filtered));
    subscriber.try_init().map_err(|error| error.to_string())?;
    let _ = SET_VERBOSITY.set(Box::new(move |verbosity| {
        // Fails only when the log is gone.
        let _ = handle.reload(filter(verbosity, &directives));
    }));
    // The hook there is writes to standard error and waits for its reader, with the thread that panicked.
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Log lines that were dropped because they could not be written.
pub fn dropped_lines() -> Arc<AtomicU64> {
    DROPPED.clone()
}

/// Prints a sentence on standard error, before the log is set up or at the very end. Waits a second at most.
pub fn print(text: &str) {
    let queue = QUEUE.get().cloned().map_or_else(|| start_queue(Style::of(&Options::default())), Ok);
    match queue {
        Ok(queue) => queue.push(format!("tokencached: {text}\n").as_bytes()),
        // No thread to be had: rather wait than say nothing.
        Err(_) => drop(writeln!(io::stderr(), "tokencached: {text}")),
    }
    flush();
}

/// Waits until what was logged is written, a second at most: nobody may be reading it.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_MAX);
    }
}

/// The first call starts the thread.
fn start_queue(style: Style) -> io::Result<Arc<LogQueue>> {
    if let Some(queue) = QUEUE.get() {
        return Ok(queue.clone());
    }
    let out = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let queue = LogQueue::start(out, dropped_lines(), move |lines| style.dropped_line(lines))?;
    Ok(QUEUE.get_or_init(|| queue).clone())
}

/// Whether standard error is this file, by the numbers of its device and itself, as systemd names the journal's end in
/// JOURNAL_STREAM: what a service starts inherits the variable, also if it writes somewhere else.
fn is_standard_error(stream: &str) -> bool {
    let file = io::stderr().as_fd().try_clone_to_owned().and_then(|file| File::from(file).metadata());
    file.is_ok_and(|file| stream == format!("{}:{}", file.dev(), file.ino()))
}

type LogLayer = Box<dyn Layer<Registry> + Send + Sync>;

#[derive(Clone, Copy, Debug)]
struct Style {
    json: bool,
    /// The journal stamps each line itself.
    is_stamped: bool,
    ansi: bool,
    /// Of the advice.
    language: Language,
}

impl Style {
    fn of(log: &Options) -> Style {
        let is_stamped = std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_standard_error(&stream));
        let ansi = !is_stamped && io::stderr().is_terminal();
        Style { json: log.json, is_stamped, ansi, language: log.advice_language }
    }

    fn layer<W>(self, out: W) -> LogLayer
    where
        W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
    {
        // Its own complaints would go to standard error past the queue.
        let layer = tracing_subscriber::fmt::layer().with_writer(out).log_internal_errors(false);
        match (self.json, self.language) {
            (true, Language::English) => layer.json().flatten_event(true).with_current_span(false).boxed(),
            (true, Language::Chinese) => {
                let layer = layer.json().flatten_event(true).with_current_span(false);
                layer.map_event_format(ChineseJson).boxed()
            }
            (false, Language::English) => self.text(layer),
            (false, Language::Chinese) => self.text(layer.fmt_fields(ChineseFields)),
        }
    }

    /// Lines for people, their fields written by `F`.
    fn text<F, W>(self, layer: fmt::Layer<Registry, F, fmt::format::Format, W>) -> LogLayer
    where
        F: for<'writer> FormatFields<'writer> + Send + Sync + 'static,
        W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
    {
        if self.is_stamped { layer.with_ansi(false).without_time().boxed() } else { layer.with_ansi(self.ansi).boxed() }
    }

    /// The line about lines that are missing, as it would look in the log.
    fn dropped_line(self, lines: u64) -> Vec<u8> {
        let text = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(self.layer(collector(text.clone())));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(
                lines,
                "log lines dropped here: whatever reads the log was too slow, or they could not be written"
            );
        });
        std::mem::take(&mut *text.lock())
    }
}

/// Takes each line, which the formatter hands over whole.
struct LineWriter<F>(F);

impl<F: Fn(&[u8])> Write for LineWriter<F> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        (self.0)(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn line_writer<F: Fn(&[u8]) + Clone + Send + Sync + 'static>(take: F) -> impl Fn() -> LineWriter<F> + Send + Sync {
    move || LineWriter(take.clone())
}

/// Keeps lines instead of writing them.
fn collector(text: Arc<Mutex<Vec<u8>>>) -> impl for<'w> MakeWriter<'w> + Send + Sync + 'static {
    line_writer(move |line: &[u8]| text.lock().extend_from_slice(line))
}

/// The line as it is written. What stands in it may come from outside, by ways that escape nothing: a path, an error.
fn one_line(line: &[u8]) -> Cow<'_, [u8]> {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    // On a terminal the formatter colours a line by escapes of its own, and makes those of others harmless.
    let is_fit = |byte: &u8| (0x20..0x7f).contains(byte) || *byte == ESCAPE;
    if text.iter().all(is_fit) {
        return Cow::Borrowed(line);
    }
    let mut fit = String::with_capacity(line.len());
    for c in String::from_utf8_lossy(text).chars() {
        match c {
            '\r' if fit.ends_with(' ') => {}
            '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}' => fit.push(' '),
            c if c.is_control() && c != char::from(ESCAPE) => fit.push('?'),
            c => fit.push(c),
        }
    }
    fit.push('\n');
    Cow::Owned(fit.into_bytes())
}

/// A text that was put together when the panic happened may hold a part of what was being worked on, such as a token.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let text = panic.payload().downcast_ref::<&'static str>().copied();
    let place = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = (backtrace.status() == std::backtrace::BacktraceStatus::Captured).then_some(backtrace);
    tracing::error!(
        place,
        thread = thread.name(),
        text,
        backtrace = backtrace.map(tracing::field::display),
        "panic: this is a bug"
    );
}

/// From now on logs as if started with this verbosity. Nothing happens before [`init`].
pub fn set_verbosity(verbosity: u32) {
    if let Some(set) = SET_VERBOSITY.get() {
        set(u8::try_from(verbosity).unwrap_or(u8::MAX));
    }
}

/// Libraries: warnings. Ourselves: what an operator should know (0 and `-v`), what each connection and renewal
/// does (`-vv`), everything (`-vvv`). Of `RUST_LOG` only what it says about this crate is heard.
fn filter(verbosity: u8, directives: &str) -> Targets {
    let own = match verbosity {
        0 | 1 => Level::INFO,
        2 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let is_own = |target: &str| target == OWN || target.strip_prefix(OWN).is_some_and(|rest| rest.starts_with("::"));
    // Each directive by itself: one that does not parse must not silence the others.
    let asked = directives.split(',').filter_map(|directive| directive.trim().parse::<Targets>().ok());
    let asked: Vec<(String, LevelFilter)> = asked.flatten().filter(|(target, _)| is_own(target)).collect();
    Targets::new().with_default(Level::WARN).with_target(OWN, own).with_targets(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_about_missing_lines_has_the_shape_of_the_log() {
        let text = Style { json: false, is_stamped: true, ansi: false, language: Language::English }.dropped_line(7);
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("WARN") && text.contains("lines=7") && text.ends_with('\n'), "{text}");
        let text = Style { json: true, is_stamped: true, ansi: false, language: Language::English }.dropped_line(7);
        let line: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((line["level"].as_str(), line["lines"].as_u64()), (Some("WARN"), Some(7)));
    }

    #[test]
    fn only_the_advice_of_a_line_is_in_chinese() {
        let written = |json, language| {
            let text = Arc::new(Mutex::new(Vec::new()));
            let style = Style { json, is_stamped: true, ansi: false, language };
            let subscriber = tracing_subscriber::registry().with(style.layer(collector(text.clone())));
            tracing::subscriber::with_default(subscriber, || {
                let advice = "make room on it, or raise the quota";
                tracing::warn!(error = advice, advice, "it is busy");
                tracing::warn!(advice = %advice, error = "\"advice\":\"x\" advice=\"it is busy\"", "no advice for that");
            });
            String::from_utf8(std::mem::take(&mut *text.lock())).unwrap()
        };
        let (english, chinese) = (written(false, Language::English), written(false, Language::Chinese));
        let advice = "请腾出空间，或调大配额";
        let in_quotes = |text: &str| format!("advice=\"{text}\"");
        let expected = english.replace(&in_quotes("make room on it, or raise the quota"), &in_quotes(advice));
        let expected = expected.replace("advice=make room on it, or raise the quota", &format!("advice={advice}"));
        assert_eq!(chinese, expected);
        let (english, chinese) = (written(true, Language::English), written(true, Language::Chinese));
        let advice_of = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["advice"].clone();
        for (english, chinese) in english.lines().zip(chinese.lines()) {
            assert_eq!(advice_of(chinese), advice);
            let mut same: serde_json::Value = serde_json::from_str(english).unwrap();
            let mut line: serde_json::Value = serde_json::from_str(chinese).unwrap();
            for value in [&mut same, &mut line] {
                let fields = value.as_object_mut().unwrap();
                fields.remove("timestamp");
                fields.remove("advice");
            }
            assert_eq!(line, same);
        }
    }

    #[test]
    fn no_value_writes_a_line_of_its_own() {
        let line = |text: &str| String::from_utf8(one_line(text.as_bytes()).into_owned()).unwrap();
        assert_eq!(line("INFO ready name=\"商城\"\n"), "INFO ready name=\"商城\"\n");
        assert_eq!(line("path=/a\n ERROR \r\n\u{2028}forged\u{7}\u{9b}\n"), "path=/a  ERROR   forged??\n");
        let written = |json| {
            let text = Arc::new(Mutex::new(Vec::new()));
            let style = Style { json, is_stamped: true, ansi: false, language: Language::English };
            let subscriber = tracing_subscriber::registry().with(style.layer(collector(text.clone())));
            tracing::subscriber::with_default(subscriber, || {
                let path = std::path::Path::new("/a\nERROR forged");
                tracing::warn!(path = %path.display(), error = "b\nERROR forged", "c\nERROR forged");
            });
            let text = std::mem::take(&mut *text.lock());
            line(std::str::from_utf8(&text).unwrap())
        };
        for json in [false, true] {
            let text = written(json);
            assert_eq!(text.lines().count(), 1, "{text}");
            assert_eq!(text.matches("ERROR forged").count(), 3, "{text}");
        }
    }

    #[test]
    fn libraries_stay_at_warnings_at_every_verbosity() {
        for verbosity in 0..=3 {
            let filter = filter(verbosity, "trace,hyper=trace,reqwest=debug");
            for library in ["hyper", "hyper::proto", "reqwest::connect", "rustls", "h2"] {
                assert!(filter.would_enable(library, &Level::WARN), "{library}");
                assert!(!filter.would_enable(library, &Level::INFO), "{library}");
            }
        }
    }

    #[test]
    fn verbosity_opens_our_own_messages() {
        assert!(filter(0, "").would_enable("tokencached::app", &Level::INFO));
        assert!(!filter(1, "").would_enable("tokencached::app", &Level::DEBUG));
        assert!(filter(2, "").would_enable("tokencached::server", &Level::DEBUG));
        assert!(!filter(2, "").would_enable("tokencached::server", &Level::TRACE));
        assert!(filter(3, "").would_enable("tokencached::server", &Level::TRACE));
    }

    #[test]
    fn rust_log_is_heard_about_this_crate_only() {
        let filter = filter(0, "tokencached::server=trace,%%%,tokencached_like=trace");
        assert!(filter.would_enable("tokencached::server::connection", &Level::TRACE));
        assert!(!filter.would_enable("tokencached::cache", &Level::DEBUG));
        assert!(!filter.would_enable("other", &Level::INFO));
    }
}
