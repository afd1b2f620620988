//! A manual page as it is written: sections, paragraphs, entries with a term.
//!
//! In: headings, Markdown, terms. Out: the source of a page for man(1): ASCII, a line of it no longer than a person
//! reads. Must never: let a text become a request of roff.

use pulldown_cmark::{Event, HeadingLevel, Parser, Tag, TagEnd};
use roff::{Inline, Roff, bold, italic, roman};

/// How wide a line of the source is at most.
const WIDTH: usize = 78;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Font {
    Roman,
    Bold,
    Italic,
}

/// A piece of text in one font.
pub(super) type Span = (Font, String);

pub(super) fn literal(text: impl Into<String>) -> Span {
    (Font::Bold, text.into())
}

pub(super) fn placeholder(text: impl Into<String>) -> Span {
    (Font::Italic, text.into())
}

pub(super) fn text(text: impl Into<String>) -> Span {
    (Font::Roman, text.into())
}

/// A page that is written.
#[derive(Default)]
pub(super) struct Page {
    roff: Roff,
    /// Nothing was written below the last heading, term or bullet.
    fresh: bool,
    /// What is written belongs to a term.
    inside: bool,
}

impl Page {
    /// Its first line: name and section, the date of its sources where one is known, and what it is of.
    pub(super) fn new(name: &str, section: &str, date: &str) -> Self {
        let mut page = Self::default();
        let manual = if section == "5" { "File formats" } else { "System administration" };
        let source = concat!("stillpoint ", env!("CARGO_PKG_VERSION"));
        let date = if date.is_empty() { "\"\"" } else { date };
        page.roff.control("TH", [&*name.to_uppercase(), section, date, source, manual]);
        // Ragged: what is spread to the margin has holes where a name is long.
        page.roff.control("ad", ["l"]);
        page.roff.control("nh", []);
        page
    }

    pub(super) fn section(&mut self, title: &str) {
        // A name that is written so stays as it is.
        let title = if title.contains('[') { title.to_owned() } else { title.to_uppercase() };
        self.roff.control("SH", [&*heading(&title)]);
        (self.fresh, self.inside) = (true, false);
    }

    pub(super) fn subsection(&mut self, title: &str) {
        self.roff.control("SS", [&*heading(title)]);
        (self.fresh, self.inside) = (true, false);
    }

    /// A term, and what it means.
    pub(super) fn entry(&mut self, term: Vec<Span>, meaning: &str) {
        self.roff.control("TP", []);
        self.roff.text(inlines(term));
        (self.fresh, self.inside) = (true, true);
        self.markdown(meaning);
        self.inside = false;
    }

    /// Entries below an entry.
    pub(super) fn entries(&mut self, all: impl IntoIterator<Item = (Vec<Span>, String)>) {
        self.roff.control("RS", []);
        for (term, meaning) in all {
            self.entry(term, &meaning);
        }
        self.roff.control("RE", []);
    }

    /// Lines that each stand alone.
    pub(super) fn lines(&mut self, all: impl IntoIterator<Item = Vec<Span>>) {
        self.paragraph();
        for (at, line) in all.into_iter().enumerate() {
            if at > 0 {
                self.roff.control("br", []);
            }
            self.roff.text(inlines(line));
        }
    }

    fn paragraph(&mut self) {
        match (std::mem::take(&mut self.fresh), self.inside) {
            (true, _) => {}
            (false, true) => _ = self.roff.control("IP", []),
            (false, false) => _ = self.roff.control("PP", []),
        }
    }

    /// Paragraphs, lists, examples and headings.
    pub(super) fn markdown(&mut self, markdown: &str) {
        let mut spans: Vec<Span> = Vec::new();
        let mut font = vec![Font::Roman];
        let mut code: Option<String> = None;
        let now = |font: &[Font]| font.last().copied().unwrap_or(Font::Roman);
        for event in Parser::new(markdown) {
            match event {
                Event::Start(Tag::Paragraph) => self.paragraph(),
                Event::Start(Tag::Item) => {
                    if !spans.is_empty() {
                        self.text(std::mem::take(&mut spans));
                    }
                    self.roff.control("IP", ["\\(bu", "2"]);
                    self.fresh = true;
                }
                Event::Start(Tag::List(_)) if self.inside => _ = self.roff.control("RS", []),
                Event::End(TagEnd::List(_)) => match self.inside {
                    true => _ = self.roff.control("RE", []),
                    false => self.fresh = false,
                },
                Event::Start(Tag::CodeBlock(_)) => code = Some(String::new()),
                Event::End(TagEnd::CodeBlock) => self.code(&code.take().unwrap_or_default()),
                Event::Start(Tag::Strong) => font.push(Font::Bold),
                Event::Start(Tag::Emphasis) => font.push(Font::Italic),
                Event::End(TagEnd::Strong | TagEnd::Emphasis) => _ = font.pop(),
                Event::Text(piece) => match (&mut code, now(&font)) {
                    (Some(code), _) => code.push_str(&piece),
                    (None, Font::Roman) => spans.extend(with_references(&piece)),
                    (None, font) => spans.push((font, piece.into_string())),
                },
                Event::Code(piece) => spans.push(literal(piece.into_string())),
                Event::InlineHtml(piece) | Event::Html(piece) => spans.push(text(piece.into_string())),
                Event::SoftBreak => spans.push(text(" ")),
                Event::HardBreak => {
                    self.text(std::mem::take(&mut spans));
                    self.roff.control("br", []);
                }
                Event::End(TagEnd::Heading(HeadingLevel::H1)) => {
                    let title: String = spans.drain(..).map(|(_, piece)| piece).collect();
                    self.section(&title);
                }
                Event::End(TagEnd::Heading(_)) => {
                    let title: String = spans.drain(..).map(|(_, piece)| piece).collect();
                    self.subsection(&title);
                }
                Event::End(TagEnd::Paragraph | TagEnd::Item) => self.text(std::mem::take(&mut spans)),
                _ => {}
            }
        }
    }

    fn code(&mut self, code: &str) {
        self.paragraph();
        self.roff.control("RS", ["4"]).control("nf", []);
        for line in code.lines() {
            match line.is_empty() {
                true => self.roff.control("sp", []),
                false => self.roff.text(inlines(vec![literal(line)])),
            };
        }
        self.roff.control("fi", []).control("RE", []);
    }

    /// Text, broken into lines of the source: at the end of each sentence, and where it gets too long.
    fn text(&mut self, spans: Vec<Span>) {
        let mut line: Vec<Span> = Vec::new();
        let mut width = 0;
        let mut ended = false;
        for word in words(spans) {
            let letters: usize = word.iter().map(written).sum();
            if !line.is_empty() && (ended || width + 1 + letters > WIDTH) {
                self.roff.text(inlines(std::mem::take(&mut line)));
                width = 0;
            }
            if !line.is_empty() {
                line.push(text(" "));
                width += 1;
            }
            width += letters;
            let last: String = word.iter().map(|(_, piece)| piece.as_str()).collect();
            ended = last.trim_end_matches(')').ends_with(['.', '!', '?']) && !last.ends_with("...");
            line.extend(word);
        }
        if !line.is_empty() {
            self.roff.text(inlines(line));
        }
        self.fresh = false;
    }

    /// The page.
    pub(super) fn finish(self) -> String {
        // roff knows these by their numbers; not every terminal does.
        self.roff.render().chars().map(|c| if c.is_ascii() { c.into() } else { glyph(c) }).collect()
    }
}

fn glyph(c: char) -> String {
    match c {
        '…' => "...".to_owned(),
        c => format!("\\[u{:04X}]", u32::from(c)),
    }
}

/// A heading as the argument of a request, in which roff would take a quote for its end. The writer puts quotes around
/// what has spaces.
fn heading(title: &str) -> String {
    title.replace('\\', "\\e").replace('"', "\\(dq").replace('-', "\\-")
}

/// How long a piece is in the source: with its font, and with what stands for a dash or an apostrophe.
fn written((font, piece): &Span) -> usize {
    let dashes = piece.matches(['-', '\\']).count();
    let font = if *font == Font::Roman { 0 } else { 6 };
    piece.len() + dashes + 4 * piece.matches('\'').count() + font
}

fn inlines(spans: Vec<Span>) -> Vec<Inline> {
    let mut joined: Vec<Span> = Vec::new();
    for (font, piece) in spans {
        match joined.last_mut().filter(|(last, _)| *last == font) {
            Some((_, last)) => last.push_str(&piece),
            None => joined.push((font, piece)),
        }
    }
    let inline = |(font, piece)| match font {
        Font::Roman => roman(piece),
        Font::Bold => bold(piece),
        Font::Italic => italic(piece),
    };
    joined.into_iter().map(inline).collect()
}

/// Text in pieces that are not broken: each may have several fonts.
fn words(spans: Vec<Span>) -> Vec<Vec<Span>> {
    let mut words: Vec<Vec<Span>> = vec![Vec::new()];
    for (font, piece) in spans {
        // What is to be typed stays on one line, where it is not long.
        if font == Font::Bold && piece.len() < 40 {
            words.last_mut().into_iter().for_each(|word| word.push((font, piece.clone())));
            continue;
        }
        for (at, part) in piece.split(' ').enumerate() {
            if at > 0 {
                words.push(Vec::new());
            }
            if !part.is_empty() {
                words.last_mut().into_iter().for_each(|word| word.push((font, part.to_owned())));
            }
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The same text, with the names of pages in bold.
fn with_references(piece: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut rest = piece;
    while let Some((start, name, after)) = reference(rest) {
        spans.push(text(&rest[..start]));
        spans.push(literal(name));
        spans.push(text(&rest[start + name.len()..after]));
        rest = &rest[after..];
    }
    spans.push(text(rest));
    spans
}

/// The first name of a page in this text, such as `mount(8)`: where it begins, the name, and where its number ends.
pub(super) fn reference(piece: &str) -> Option<(usize, &str, usize)> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    piece.match_indices('(').find_map(|(open, _)| {
        let number = piece[open + 1..].find(')').map(|len| &piece[open + 1..open + 1 + len])?;
        let is_section = number.len() == 1 && ('1'..='8').contains(&number.chars().next()?);
        let start = piece[..open].rfind(|c| !of_name(c)).map_or(0, |at| at + 1);
        let starts = piece[start..open].starts_with(|c: char| c.is_ascii_lowercase());
        (is_section && starts).then(|| (start, &piece[start..open], open + 3))
    })
}
