//! Reads the texts out of Rust sources, each with the calls and macros that it stands in.
//!
//! Comments and what follows `#[cfg(test)]` at the end of a file do not count.

/// A text of a source.
pub struct Literal {
    pub line: usize,
    /// As the program has it.
    pub text: String,
    /// What it stands in, from the outside: `format!`, `InvalidValue::new`; `advice` for a field of that name.
    pub inside: Vec<String>,
}

/// All texts of a source.
pub fn literals(source: &str) -> Vec<Literal> {
    let end = source.find("#[cfg(test)]\nmod ").unwrap_or(source.len());
    let mut reader =
        Reader { rest: &source[..end], line: 1, inside: Vec::new(), name: String::new(), found: Vec::new() };
    while reader.step() {}
    reader.found
}

struct Reader<'s> {
    rest: &'s str,
    line: usize,
    inside: Vec<String>,
    /// The name before the cursor.
    name: String,
    found: Vec<Literal>,
}

impl<'s> Reader<'s> {
    fn step(&mut self) -> bool {
        let Some(c) = self.rest.chars().next() else { return false };
        match c {
            '/' if self.rest.starts_with("//") => self.skip(self.rest.find('\n').unwrap_or(self.rest.len())),
            '"' => self.text(),
            'r' if self.rest.starts_with("r\"") || self.rest.starts_with("r#") => self.raw(),
            '\'' => self.character(),
            c if c.is_alphabetic() || c == '_' => self.word(),
            '(' | '[' | '{' => {
                self.inside.push(std::mem::take(&mut self.name));
                self.skip(1);
            }
            ')' | ']' | '}' => {
                self.inside.pop();
                self.skip(1);
            }
            ':' | '.' | '!' | '=' | ' ' | '\n' => self.skip(1),
            c => {
                self.name.clear();
                self.skip(c.len_utf8());
            }
        }
        true
    }

    fn skip(&mut self, bytes: usize) {
        let (skipped, rest) = self.rest.split_at(bytes);
        self.line += skipped.matches('\n').count();
        self.rest = rest;
    }

    fn word(&mut self) {
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '!').unwrap_or(self.rest.len());
        self.name = self.rest[..end].to_owned();
        self.skip(end);
    }

    /// A lifetime has no end.
    fn character(&mut self) {
        let is_escape = self.rest.starts_with("'\\");
        let length = if is_escape { self.rest[2..].find('\'').map(|at| at + 3) } else { None };
        let plain = self.rest.char_indices().nth(2).filter(|(_, c)| *c == '\'').map(|(at, _)| at + 1);
        self.skip(length.or(plain).unwrap_or(1));
    }

    fn raw(&mut self) {
        let hashes = self.rest[1..].bytes().take_while(|byte| *byte == b'#').count();
        let start = 1 + hashes + 1;
        if self.rest.as_bytes().get(start - 1) != Some(&b'"') {
            return self.word();
        }
        let end = format!("\"{}", "#".repeat(hashes));
        let length = self.rest[start..].find(&end).unwrap();
        self.add(self.rest[start..start + length].to_owned());
        self.skip(start + length + end.len());
    }

    fn text(&mut self) {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1).peekable();
        let end = loop {
            match chars.next().unwrap() {
                (at, '"') => break at + 1,
                (_, '\\') => match chars.next().unwrap().1 {
                    '\n' => while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {},
                    'n' => text.push('\n'),
                    'u' => {
                        let digits: String = chars.by_ref().map(|(_, c)| c).take_while(|c| *c != '}').skip(1).collect();
                        text.extend(u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32));
                    }
                    c => text.push(c),
                },
                (_, c) => text.push(c),
            }
        };
        self.add(text);
        self.skip(end);
    }

    fn add(&mut self, text: String) {
        let mut inside: Vec<String> = self.inside.iter().filter(|name| !name.is_empty()).cloned().collect();
        inside.push(self.name.clone());
        self.found.push(Literal { line: self.line, text, inside });
    }
}
