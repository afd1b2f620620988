//! What a person has written of a page: Markdown, a file a page.
//!
//! In: `see: NAME…`, an empty line, the description, sections under headings. Out: the parts. Must never: be silent about
//! a name that is no page.

/// The text of a page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    /// The commands, and pages such as `mount(8)`, that a reader goes on to.
    pub see: &'a str,
    /// What is before the first heading.
    pub description: &'a str,
    rest: &'a str,
}

impl<'a> Text<'a> {
    pub(super) fn of(written: &'a str) -> Self {
        let (first, rest) = written.split_once("\n\n").unwrap_or((written, ""));
        let see = first.strip_prefix("see:").unwrap_or_default().trim();
        let (description, rest) = match rest.find("\n# ") {
            Some(at) => rest.split_at(at + 1),
            None => (rest, ""),
        };
        Self { see, description: description.trim_end(), rest }
    }

    /// Its sections: title and text, in their order.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut rest = self.rest;
        std::iter::from_fn(move || {
            let whole = rest.strip_prefix("# ")?;
            let end = whole.find("\n# ").map_or(whole.len(), |at| at + 1);
            let (section, after) = whole.split_at(end);
            rest = after;
            let (title, text) = section.split_once('\n').unwrap_or((section, ""));
            Some((title.trim(), text.trim_matches('\n')))
        })
    }

    pub(super) fn section(&self, title: &str) -> Option<&'a str> {
        self.sections().find(|(found, _)| *found == title).map(|(_, text)| text)
    }

    /// The sections that are none of these, nor the synopsis.
    pub(super) fn others(&self, known: &'static [&'static str]) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.sections().filter(|(title, _)| !known.contains(title) && *title != "Synopsis")
    }

    /// The other pages, in the order of their sections and names.
    pub(super) fn see_also(&self, cli: &clap::Command) -> String {
        let mut pages: Vec<(String, String)> = Vec::new();
        for name in self.see.split_whitespace() {
            let name = match name.split_once('(') {
                Some(_) => name.to_owned(),
                None if cli.find_subcommand(name).is_some() => format!("stillpoint-{name}(8)"),
                None => format!("{name}: no such page"),
            };
            let section = name.rsplit_once('(').map(|(_, section)| section.to_owned()).unwrap_or_default();
            pages.push((section, name));
        }
        pages.sort();
        pages.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(", ")
    }
}

/// Its first sentence, without the full stop.
pub(super) fn first_sentence(text: &str) -> String {
    let end = [". ", "? "].iter().filter_map(|end| text.find(end)).min().map_or(text.len(), |at| at + 1);
    text[..end].trim_end_matches('.').to_owned()
}

/// A whole sentence: clap takes the full stop away.
pub(super) fn ended(help: &str) -> String {
    let ends = help.is_empty() || help.trim_end_matches(')').ends_with(['.', '?', '!', ':']);
    format!("{help}{}", if ends { "" } else { "." })
}
