//! Pages in Markdown, as far as tests look into them: blocks of code, what stands in backticks, headings, links.

use std::fs;
use std::path::PathBuf;

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn text(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// One fenced block of code.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    pub language: String,
    pub body: String,
}

impl Block {
    /// Without comments, which are in the reader's language.
    pub fn code(&self) -> String {
        self.body.lines().map(code).collect::<Vec<_>>().join("\n")
    }
}

/// A line of code without its comment; nothing of a line that is a comment.
pub fn code(line: &str) -> &str {
    if ["# ", "// "].iter().any(|mark| line.trim_start().starts_with(mark)) {
        return "";
    }
    let ends = ["  # ", "  // ", " // "].iter().filter_map(|mark| line.find(mark));
    line[..ends.min().unwrap_or(line.len())].trim()
}

/// The blocks of code, and the text between them.
pub fn split(markdown: &str) -> (Vec<Block>, String) {
    let (mut blocks, mut prose, mut open) = (Vec::new(), String::new(), None::<Block>);
    for line in markdown.lines() {
        let bare = line.trim_start();
        match (bare.strip_prefix("```"), open.take()) {
            (Some(language), None) => open = Some(Block { language: language.to_owned(), body: String::new() }),
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some(mut block)) => {
                block.body += line;
                block.body.push('\n');
                open = Some(block);
            }
            (None, None) => {
                prose += line;
                prose.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a block of code is not closed");
    (blocks, prose)
}

pub fn blocks(markdown: &str) -> Vec<Block> {
    split(markdown).0
}

/// What stands in backticks.
pub fn spans(markdown: &str) -> Vec<String> {
    let prose = split(markdown).1;
    prose.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// The level of a heading and its text.
pub fn heading(line: &str) -> Option<(usize, &str)> {
    let text = line.trim_start_matches('#');
    let level = line.len() - text.len();
    text.strip_prefix(' ').filter(|_| level > 0).map(|text| (level, text))
}

/// A heading as links name it.
pub fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

/// The headings of a page in their order, as links name them.
pub fn anchors(markdown: &str) -> Vec<String> {
    let prose = split(markdown).1;
    prose.lines().filter_map(heading).map(|(_, text)| anchor(text)).collect()
}

/// Where the links of a text lead: a path, an address, an anchor.
pub fn links(prose: &str) -> impl Iterator<Item = &str> {
    prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link)
}

/// Whether a link leads out of the project. `http-api.md` does not.
pub fn is_elsewhere(link: &str) -> bool {
    link.contains("://")
}

/// What stands under one heading, up to the next one of whatever level. The heading is the first line of the prose.
#[derive(Debug)]
pub struct Part {
    pub level: usize,
    pub blocks: Vec<Block>,
    pub prose: String,
}

/// A page by its headings. What stands before the first one is left out.
pub fn parts(markdown: &str) -> Vec<Part> {
    let (mut parts, mut is_code) = (Vec::<(usize, String)>::new(), false);
    for line in markdown.lines() {
        is_code ^= line.trim_start().starts_with("```");
        if let Some((level, _)) = heading(line).filter(|_| !is_code) {
            parts.push((level, String::new()));
        }
        if let Some((_, text)) = parts.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    let part = |(level, text): (usize, String)| {
        let (blocks, prose) = split(&text);
        Part { level, blocks, prose }
    };
    parts.into_iter().map(part).collect()
}
