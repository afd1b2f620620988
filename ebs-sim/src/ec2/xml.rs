//! Writing XML.
//!
//! In: names and values. Out: text in which every value is escaped. Names are always EC2's own and are never
//! taken from a request. Escaping is quick-xml's; its writer is not used, since it can fail on every element,
//! and names that are constants cannot.

use std::fmt::Display;

use quick_xml::escape::escape;

/// XML under construction.
#[derive(Debug, Default)]
pub struct Xml(String);

impl Xml {
    /// Begins a document.
    pub fn declaration() -> Self {
        Self("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned())
    }

    /// `<name>value</name>`
    pub fn text(&mut self, name: &str, value: impl Display) {
        let value = value.to_string();
        // Piece by piece: an answer may have tens of thousands of these.
        for piece in ["<", name, ">", &escape(value.as_str()), "</", name, ">"] {
            self.0.push_str(piece);
        }
    }

    /// The same, when there is a value.
    pub fn maybe(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// `<name>…</name>`; attributes may follow the name.
    pub fn node(&mut self, name: &str, inside: impl FnOnce(&mut Xml)) {
        for piece in ["<", name, ">"] {
            self.0.push_str(piece);
        }
        inside(self);
        let bare = name.split(' ').next().unwrap_or(name);
        for piece in ["</", bare, ">"] {
            self.0.push_str(piece);
        }
    }

    /// `<name><item>…</item>…</name>`
    pub fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Xml, T),
    ) {
        self.node(name, |xml| {
            for item in items {
                xml.node("item", |xml| each(xml, item));
            }
        });
    }

    /// Tags, as every resource shows them. EC2 leaves an empty set out.
    pub fn tags(&mut self, tags: &std::collections::BTreeMap<String, String>) {
        if !tags.is_empty() {
            self.tag_set(tags);
        }
    }

    /// Tags as the calls that create something answer them: an empty set too.
    pub fn tag_set(&mut self, tags: &std::collections::BTreeMap<String, String>) {
        self.list("tagSet", tags, |xml, (key, value)| {
            xml.text("key", key);
            xml.text("value", value);
        });
    }

    pub fn finish(self) -> String {
        self.0
    }
}

/// A time as EC2 writes it: milliseconds and a Z.
pub fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_attributes_stay_in_the_opening() {
        let mut xml = Xml::default();
        xml.node("a b=\"c\"", |xml| xml.text("v", "<&>"));
        assert_eq!(xml.finish(), "<a b=\"c\"><v>&lt;&amp;&gt;</v></a>");
    }

    #[test]
    fn times_have_milliseconds() {
        let at = jiff::Timestamp::from_millisecond(1_500).expect("in range");
        assert_eq!(time(at), "1970-01-01T00:00:01.500Z");
    }
}
