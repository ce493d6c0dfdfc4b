//! Reads values as PHP writes them: `serialize`, `var_export`, and PHP files that hold one. Reads texts, lists and
//! maps; numbers, booleans and constants become null. Never runs any code, and refuses incomplete input.

use serde_json::Value;

/// How deep lists may be nested.
const DEPTH_MAX: usize = 8;

pub(super) enum PhpContent<'t> {
    Value(Value),
    Text(&'t str),
}

/// The content of a file that begins with `<?php` and only holds a value.
pub(super) fn of_file(text: &str) -> Option<PhpContent<'_>> {
    let code = text.strip_prefix("<?php")?;
    if let Some((head, data)) = code.split_once("?>") {
        let word = after_comments(head)?.trim();
        let word = word.strip_suffix(';').unwrap_or(word);
        if matches!(word.strip_suffix("()").unwrap_or(word), "exit" | "die") {
            return Some(PhpContent::Text(data.trim()));
        }
    }
    // ThinkPHP 3 and 5.0: twelve digits of a lifetime and the value in one comment.
    if let Some(comment) = code.trim_start().strip_prefix("//")
        && let Some((_, data)) =
            comment.split_at_checked(12).filter(|(life, _)| life.bytes().all(|b| b.is_ascii_digit()))
        && is_serialized(data)
    {
        return unserialize(data.strip_suffix("?>").unwrap_or(data).trim_end()).map(PhpContent::Value);
    }
    let mut reader = PhpReader { rest: after_comments(code)?.strip_prefix("return")? };
    let value = reader.literal(DEPTH_MAX)?;
    reader.take(";")?;
    matches!(after_comments(reader.rest)?.trim(), "" | "?>").then_some(PhpContent::Value(value))
}

/// Whether it begins like a text or a list of `serialize`.
pub(super) fn is_serialized(text: &str) -> bool {
    let rest = text.strip_prefix("s:").or_else(|| text.strip_prefix("a:"));
    rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Reads the output of `serialize`, or of `igbinary_serialize` for one text (format 2, up to 127 bytes).
pub(super) fn unserialize(text: &str) -> Option<Value> {
    if let Some(rest) = text.strip_prefix("\0\0\0\u{2}\u{11}") {
        let length = usize::from(*rest.as_bytes().first()?);
        return rest.get(1..).filter(|text| text.len() == length).map(|text| Value::String(text.to_owned()));
    }
    let mut reader = PhpReader { rest: text };
    let value = reader.serialized(DEPTH_MAX)?;
    reader.rest.is_empty().then_some(value)
}

/// The code after leading blanks and comments; none if a comment has no end.
fn after_comments(code: &str) -> Option<&str> {
    let mut rest = code.trim_start();
    loop {
        let comment_end = if rest.starts_with("//") || rest.starts_with('#') && !rest.starts_with("#[") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/")? + 2
        } else {
            return Some(rest);
        };
        rest = rest[comment_end..].trim_start();
    }
}

struct PhpReader<'t> {
    rest: &'t str,
}

impl<'t> PhpReader<'t> {
    fn take(&mut self, word: &str) -> Option<()> {
        self.rest = after_comments(self.rest)?.strip_prefix(word)?;
        Some(())
    }

    fn until(&mut self, end: char) -> Option<&'t str> {
        let (before, rest) = self.rest.split_once(end)?;
        self.rest = rest;
        Some(before)
    }

    fn exactly(&mut self, word: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    fn serialized(&mut self, depth: usize) -> Option<Value> {
        let deeper = depth.checked_sub(1)?;
        if self.exactly("N;").is_some() {
            return Some(Value::Null);
        }
        match self.until(':')? {
            "s" => {
                let length: usize = self.until(':')?.parse().ok()?;
                self.exactly("\"")?;
                let (text, rest) = self.rest.split_at_checked(length)?;
                self.rest = rest;
                self.exactly("\";")?;
                Some(Value::String(text.to_owned()))
            }
            "i" | "b" | "d" => self.until(';').map(|_| Value::Null),
            "a" => {
                let count: usize = self.until(':')?.parse().ok()?;
                self.exactly("{")?;
                let mut entries = Vec::new();
                for _ in 0..count {
                    let key = self.serialized(deeper)?;
                    entries.push((Some(key), self.serialized(deeper)?));
                }
                self.exactly("}")?;
                Some(array(entries))
            }
            _ => None,
        }
    }

    fn literal(&mut self, depth: usize) -> Option<Value> {
        let deeper = depth.checked_sub(1)?;
        self.rest = after_comments(self.rest)?;
        match self.rest.chars().next()? {
            '\'' => self.single_quoted().map(Value::String),
            '"' => {
                self.exactly("\"")?;
                let text = self.until('"')?;
                // With a variable or an escape the text would be another one.
                (!text.contains(['$', '\\'])).then(|| Value::String(text.to_owned()))
            }
            '[' => self.items("[", "]", deeper),
            _ if self.rest.starts_with("array") => {
                self.take("array")?;
                self.items("(", ")", deeper)
            }
            _ => {
                let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '\\' | ':' | '.' | '-' | '+');
                let end = self.rest.find(|c| !is_word(c)).filter(|end| *end > 0)?;
                self.rest = &self.rest[end..];
                Some(Value::Null)
            }
        }
    }

    fn single_quoted(&mut self) -> Option<String> {
        self.exactly("'")?;
        let mut text = String::new();
        let mut chars = self.rest.chars();
        loop {
            match chars.next()? {
                '\'' => break,
                '\\' => {
                    let escaped = chars.clone().next().filter(|next| matches!(next, '\'' | '\\'));
                    text.push(escaped.unwrap_or('\\'));
                    escaped.and_then(|_| chars.next());
                }
                c => text.push(c),
            }
        }
        self.rest = chars.as_str();
        Some(text)
    }

    fn items(&mut self, open: &str, close: &str, depth: usize) -> Option<Value> {
        self.take(open)?;
        let mut entries = Vec::new();
        while self.take(close).is_none() {
            let first = self.literal(depth)?;
            entries.push(match self.take("=>") {
                Some(()) => (Some(first), self.literal(depth)?),
                None => (None, first),
            });
            if self.take(",").is_none() {
                self.take(close)?;
                break;
            }
        }
        Some(array(entries))
    }
}

/// A PHP array is a list and a map in one: a map if its keys are texts. With both it is not clear which one counts.
fn array(entries: Vec<(Option<Value>, Value)>) -> Value {
    let named = entries.iter().filter(|(key, _)| matches!(key, Some(Value::String(_)))).count();
    if named == 0 {
        return Value::Array(entries.into_iter().map(|(_, value)| value).collect());
    } else if named < entries.len() {
        return Value::Null;
    }
    let named = |(key, value): (Option<Value>, Value)| Some((key?.as_str()?.to_owned(), value));
    Value::Object(entries.into_iter().filter_map(named).collect())
}
