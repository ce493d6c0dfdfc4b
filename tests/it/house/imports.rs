//! Reads out of the sources which module imports which.
//!
//! Follows `crate::`, `super::` and `self::` paths, groups, names that a module hands on with `use`, and paths in code
//! that begin with an imported name. What stands in comments, texts and tests does not count.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Longest chain of names that are handed on.
const HOPS_MAX: usize = 8;

/// The modules by their paths, such as `credential/table`; `lib.rs` is the empty path.
pub struct Modules(BTreeMap<String, Module>);

struct Module {
    /// Without comments, texts, tests and `use` lines.
    code: String,
    uses: Vec<Use>,
    /// What each imported name stands for.
    names: HashMap<String, Vec<String>>,
}

struct Use {
    path: Vec<String>,
    /// `pub use`: the module hands it on.
    is_public: bool,
}

/// One module uses something of another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    pub from: String,
    pub to: String,
    /// As it stands there.
    pub written: String,
}

impl Modules {
    /// Of files by their paths below `src`.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Modules {
        let module = |(file, text): (&str, &str)| (module_path(file), Module::of(text));
        Modules(files.into_iter().map(module).collect())
    }

    /// The paths of all.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Every import of another module. What a folder hands on of its own files is none.
    pub fn imports(&self) -> BTreeSet<Import> {
        let mut imports = BTreeSet::new();
        for (from, module) in &self.0 {
            let used = module.uses.iter().map(|used| (used.path.clone(), Some(used)));
            let in_code = paths(&module.code).into_iter().map(|path| (path, None));
            for (path, used) in used.chain(in_code) {
                let mut through = BTreeSet::new();
                let Some((to, is_item)) = self.resolve(from, &path, HOPS_MAX, &mut through) else { continue };
                // A module that is only named: what is used of it is seen where that happens.
                let is_named = used.is_some() && !is_item && path.last().is_none_or(|last| last != "*");
                let is_own = used.is_some_and(|used| used.is_public) && to.starts_with(&format!("{from}/"));
                if !is_named && !is_own {
                    through.insert(to);
                    let others = through.into_iter().filter(|to| to != from);
                    imports.extend(others.map(|to| Import { from: from.clone(), to, written: path.join("::") }));
                }
            }
        }
        imports
    }

    /// The module that a path leads into, and whether to something in it; none: to another crate. Modules that hand on what
    /// is not in their own folder are noted as gone `through`.
    fn resolve(
        &self,
        from: &str,
        path: &[String],
        hops: usize,
        through: &mut BTreeSet<String>,
    ) -> Option<(String, bool)> {
        let Some(absolute) = self.absolute(from, path) else {
            let named = self.0.get(from)?.names.get(&path[0]).filter(|named| **named != *path)?;
            return self.resolve(from, &[named, &path[1..]].concat(), hops.checked_sub(1)?, through);
        };
        let mut module = String::new();
        for (at, name) in absolute.iter().enumerate() {
            let child = join(&module, name);
            if self.0.contains_key(&child) {
                module = child;
                continue;
            }
            let handed_on = self.0.get(&module).and_then(|found| found.names.get(name));
            let further = handed_on.and_then(|named| {
                let path = [named, &absolute[at + 1..]].concat();
                self.resolve(&module, &path, hops.checked_sub(1)?, through)
            });
            if further.as_ref().is_some_and(|(to, _)| !to.starts_with(&format!("{module}/"))) {
                through.insert(module.clone());
            }
            return Some(further.unwrap_or((module, true)));
        }
        Some((module, false))
    }

    /// A path from the crate's root, unless it begins with an imported name or leads to another crate.
    fn absolute(&self, from: &str, path: &[String]) -> Option<Vec<String>> {
        let mut here: Vec<String> = from.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" | "tokencached" => return Some(rest.to_vec()),
            "self" => return Some([here, rest.to_vec()].concat()),
            "super" => {}
            child if self.0.contains_key(&join(from, child)) => return Some([here, path.to_vec()].concat()),
            _ => return None,
        }
        let ups = path.iter().take_while(|part| *part == "super").count();
        here.truncate(here.len().saturating_sub(ups));
        Some([here, path[ups..].to_vec()].concat())
    }
}

impl Module {
    fn of(text: &str) -> Module {
        let text = without_comments_and_texts(&without_tests(text));
        let (mut code, mut uses, mut names) = (String::new(), Vec::new(), HashMap::new());
        let mut rest = text.as_str();
        while let Some((before, used, after)) = next_use(rest) {
            let is_public = before.trim_end().ends_with("pub") || before.trim_end().ends_with("pub(crate)");
            code.push_str(before);
            tree(used, &[], &mut |path, name| {
                names.entry(name).or_insert_with(|| path.clone());
                uses.push(Use { path, is_public });
            });
            rest = after;
        }
        code.push_str(rest);
        Module { code, uses, names }
    }
}

/// `credential/table.rs` and `credential/table/mod.rs` are both `credential/table`.
fn module_path(file: &str) -> String {
    let path = file.trim_end_matches(".rs");
    if path == "lib" { String::new() } else { path.trim_end_matches("/mod").to_owned() }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// The file without its `mod tests { ... }`.
pub fn without_tests(text: &str) -> String {
    let Some((before, tests)) = text.split_once("#[cfg(test)]\nmod tests {") else { return text.to_owned() };
    let after = tests.split_once("\n}\n").map_or("", |(_, after)| after);
    format!("{before}{after}")
}

/// The file with nothing but code: comments are gone, texts and characters are empty.
pub fn without_comments_and_texts(text: &str) -> String {
    let (mut code, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(['"', '\'', '/']) {
        code.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with('"') {
            let prefix = code.len() - code.trim_end_matches(|c| is_of_a_name(c) || c == '#').len();
            let prefix = code.split_off(code.len() - prefix);
            let taken = text_len(&prefix, rest);
            code.push_str("\"\"");
            taken
        } else if let Some(taken) = char_len(rest) {
            code.push_str("' '");
            taken
        } else {
            code.push_str(&rest[..1]);
            1
        };
        rest = &rest[taken..];
    }
    code + rest
}

/// How long the text is that begins here, behind nothing or something like `r#` or `b`.
fn text_len(prefix: &str, rest: &str) -> usize {
    if let Some((_, hashes)) = prefix.split_once('r') {
        let end = format!("\"{hashes}");
        return rest[1..].find(&end).map_or(rest.len(), |at| 1 + at + end.len());
    }
    let mut escaped = false;
    let end = rest[1..].find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.map_or(rest.len(), |at| at + 2)
}

/// How long the character is that begins here; a lifetime is none.
fn char_len(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    if let Some(escape) = inner.strip_prefix('\\') {
        let escaped = escape.chars().next()?.len_utf8();
        return Some("'\\'".len() + escaped + escape[escaped..].find('\'')?);
    }
    let first = inner.chars().next()?;
    inner[first.len_utf8()..].starts_with('\'').then_some(2 + first.len_utf8())
}

fn is_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The next `use`: what is before it, what is used, what is behind.
fn next_use(text: &str) -> Option<(&str, &str, &str)> {
    let starts = |at: usize| !text[..at].ends_with(is_of_a_name) && text[at + 3..].starts_with(char::is_whitespace);
    let at = text.match_indices("use").map(|(at, _)| at).find(|at| starts(*at))?;
    let end = at + text[at..].find(';')?;
    Some((&text[..at], &text[at + 3..end], &text[end + 1..]))
}

fn parts(path: &str) -> impl Iterator<Item = String> {
    path.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty())
}

/// Takes a `use` apart: each path, and the name that it has from there on.
fn tree(used: &str, prefix: &[String], found: &mut dyn FnMut(Vec<String>, String)) {
    let used = used.trim();
    if let Some((path, group)) = used.split_once('{').and_then(|(path, group)| Some((path, group.rsplit_once('}')?.0)))
    {
        let prefix: Vec<String> = prefix.iter().cloned().chain(parts(path)).collect();
        let (mut depth, mut begin) = (0, 0);
        let group = format!("{group},");
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    tree(&group[begin..at], &prefix, found);
                    begin = at + 1;
                }
                _ => {}
            }
        }
    } else if !used.is_empty() {
        let (path, name) = used.split_once(" as ").map_or((used, None), |(path, name)| (path, Some(name.trim())));
        let mut path: Vec<String> = prefix.iter().cloned().chain(parts(path)).collect();
        path.pop_if(|last| last == "self" && !prefix.is_empty());
        let Some(last) = path.last().cloned() else { return };
        found(path, name.map_or(last, str::to_owned));
    }
}

/// Every path with `::` in code whose first part is a module's or a crate's name.
fn paths(code: &str) -> Vec<Vec<String>> {
    let code = without_visibility(code);
    let words = code.split(|c: char| !(is_of_a_name(c) || c == ':'));
    let is_path = |word: &&str| word.contains("::") && word.starts_with(|c: char| c.is_ascii_lowercase());
    words.filter(is_path).map(|word| parts(word).collect()).filter(|path: &Vec<String>| path.len() > 1).collect()
}

/// `pub(in crate::credential)` uses nothing.
fn without_visibility(code: &str) -> String {
    let mut parts = code.split("pub(in ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + part.split_once(')').map_or("", |(_, after)| after))
}
