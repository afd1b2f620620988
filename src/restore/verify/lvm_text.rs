//! The text in which LVM keeps its metadata: sections, names, numbers, strings and lists.
//!
//! In: a text whose checksum fits; whoever made it may have been anybody. Out: a [`Group`]. Pure. Must never: follow
//! sections deeper than LVM nests them, or hold more than it can have.
//!
//! The grammar is that of lvm2's lib/config/config.c; which names there are, lib/format_text/export.c.

use std::collections::BTreeMap;

/// `vg { logical_volumes { lv { segment1 { …` is four deep.
const DEEPEST: usize = 8;
/// Names of one section, and values of one list: LVM itself has no limit, and nobody has as many.
const MOST: usize = 65_536;
/// Bytes of a PE's beginning and of extents are counted in sectors: more would be beyond 64 bits of bytes.
const MOST_SECTORS: u64 = 1 << 54;

/// A volume group, as far as it says where volumes lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::restore) struct Group {
    pub name: String,
    pub id: String,
    pub seqno: u64,
    /// In sectors.
    pub extent_size: u64,
    /// By the names that segments have for them.
    pub pvs: BTreeMap<String, PvOfGroup>,
    pub volumes: Vec<Volume>,
}

/// A physical volume of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::restore) struct PvOfGroup {
    /// Without dashes.
    pub uuid: String,
    /// Where its first extent begins, in sectors.
    pub start: u64,
}

/// A logical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::restore) struct Volume {
    pub name: String,
    pub visible: bool,
    /// In the order of their extents.
    pub segments: Vec<Segment>,
}

/// A part of a logical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::restore) struct Segment {
    /// In extents.
    pub start: u64,
    pub count: u64,
    /// In sectors.
    pub stripe_size: u64,
    pub kind: String,
    /// PV, and first extent on it.
    pub stripes: Vec<(String, u64)>,
    /// Of thin provisioning: what it has instead.
    pub thin: Option<Thin>,
}

/// Segments of thin provisioning (lib/thin/thin.c), by the names of other logical volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::restore) enum Thin {
    Volume {
        pool: String,
        /// What was not written in it is read from a volume outside of the pool.
        external: bool,
    },
    Pool {
        data: String,
        metadata: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Number(u64),
    Text(String),
    List(Vec<Value>),
    Section(BTreeMap<String, Value>),
}

impl Value {
    fn get(&self, name: &str) -> Option<&Self> {
        if let Self::Section(all) = self { all.get(name) } else { None }
    }

    fn number(&self, name: &str) -> Option<u64> {
        if let Some(Self::Number(n)) = self.get(name) { Some(*n) } else { None }
    }

    fn text(&self, name: &str) -> Option<&str> {
        if let Some(Self::Text(text)) = self.get(name) { Some(text) } else { None }
    }

    fn sections(&self, name: &str) -> impl Iterator<Item = (&String, &Self)> {
        let all = match self.get(name) {
            Some(Self::Section(all)) => Some(all),
            _ => None,
        };
        all.into_iter().flatten().filter(|(_, value)| matches!(value, Self::Section(_)))
    }
}

impl Group {
    /// None where the text is not understood.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut parser = Parser { rest: text };
        let all = parser.section(0, false)?;
        let Value::Section(top) = &all else { return None };
        let (name, group) = top.iter().find(|(_, value)| matches!(value, Value::Section(_)))?;
        let mut pvs = BTreeMap::new();
        for (name, pv) in group.sections("physical_volumes") {
            let start = pv.number("pe_start").filter(|n| *n < MOST_SECTORS)?;
            pvs.insert(name.clone(), PvOfGroup { uuid: pv.text("id")?.replace('-', ""), start });
        }
        let mut volumes = Vec::new();
        for (name, volume) in group.sections("logical_volumes") {
            volumes.push(Self::volume(name, volume)?);
        }
        Some(Self {
            name: name.clone(),
            id: group.text("id")?.to_owned(),
            seqno: group.number("seqno")?,
            extent_size: group.number("extent_size").filter(|n| *n < MOST_SECTORS)?,
            pvs,
            volumes,
        })
    }

    fn volume(name: &str, volume: &Value) -> Option<Volume> {
        let visible = |v: &Value| *v == Value::Text("VISIBLE".to_owned());
        let visible = matches!(volume.get("status"), Some(Value::List(all)) if all.iter().any(visible));
        let mut segments = Vec::new();
        // segment1, segment2, …: the order of their names as text is another one.
        for n in 1..=volume.number("segment_count")?.min(MOST as u64) {
            let segment = volume.get(&format!("segment{n}"))?;
            let stripes = match segment.get("stripes") {
                Some(Value::List(all)) => all
                    .chunks(2)
                    .map(|pair| match pair {
                        [Value::Text(pv), Value::Number(first)] => Some((pv.clone(), *first)),
                        _ => None,
                    })
                    .collect::<Option<_>>()?,
                _ => Vec::new(),
            };
            let name = |of: &str| segment.text(of).map(str::to_owned);
            let thin = match (name("thin_pool"), name("pool"), name("metadata")) {
                (Some(pool), ..) => {
                    Some(Thin::Volume { pool, external: segment.get("external_origin").is_some() })
                }
                (None, Some(data), Some(metadata)) => Some(Thin::Pool { data, metadata }),
                _ => None,
            };
            segments.push(Segment {
                start: segment.number("start_extent")?,
                count: segment.number("extent_count")?,
                stripe_size: segment.number("stripe_size").unwrap_or(0).min(MOST_SECTORS),
                // A segment may have flags behind its type: `raid1+FLAG`.
                kind: segment.text("type")?.split('+').next()?.to_owned(),
                stripes,
                thin,
            });
        }
        Some(Volume { name: name.to_owned(), visible, segments })
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    /// Leaves out spaces and comments.
    fn skip(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            if !self.rest.starts_with('#') {
                return;
            }
            self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
        }
    }

    fn takes(&mut self, token: char) -> bool {
        self.skip();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn word(&mut self) -> Option<String> {
        self.skip();
        let is_word = |c: char| c.is_ascii_alphanumeric() || "_.-+/@:".contains(c);
        let end = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then(|| word.to_owned())
    }

    /// Names and values, until `}` or the end of the text.
    fn section(&mut self, depth: usize, closed: bool) -> Option<Value> {
        let mut all = BTreeMap::new();
        loop {
            self.skip();
            if self.rest.is_empty() {
                return (!closed).then_some(Value::Section(all));
            }
            if closed && self.takes('}') {
                return Some(Value::Section(all));
            }
            let name = self.word()?;
            let value = if self.takes('{') {
                if depth >= DEEPEST {
                    return None;
                }
                self.section(depth + 1, true)?
            } else if self.takes('=') {
                self.value()?
            } else {
                return None;
            };
            if all.len() >= MOST || all.insert(name, value).is_some() {
                return None;
            }
        }
    }

    fn value(&mut self) -> Option<Value> {
        if !self.takes('[') {
            return self.single();
        }
        let mut list = Vec::new();
        while !self.takes(']') {
            list.push(self.single()?);
            if list.len() > MOST || !self.takes(',') && !self.rest.trim_start().starts_with(']') {
                return None;
            }
        }
        Some(Value::List(list))
    }

    fn single(&mut self) -> Option<Value> {
        if self.takes('"') {
            let mut text = String::new();
            let mut chars = self.rest.char_indices();
            loop {
                match chars.next()? {
                    (at, '"') => {
                        self.rest = &self.rest[at + 1..];
                        return Some(Value::Text(text));
                    }
                    (_, '\\') => text.push(chars.next()?.1),
                    (_, c) => text.push(c),
                }
            }
        }
        let word = self.word()?;
        // A number that is none of these, such as a float, is nothing that is asked for.
        Some(word.parse().map_or(Value::Text(word), Value::Number))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_is_read_as_lvm_writes_it() {
        let group = Group::read(super::super::lvm::tests::TEXT).unwrap();
        assert_eq!((group.name.as_str(), group.seqno, group.extent_size), ("vg0", 7, 128));
        assert_eq!(group.pvs["pv1"].start, 2048);
        let names: Vec<_> =
            group.volumes.iter().map(|v| (v.name.as_str(), v.visible, v.segments.len())).collect();
        assert_eq!(names, [("data", true, 2), ("hidden", false, 1), ("pool", true, 1), ("wide", true, 1)]);
        assert_eq!(group.volumes[3].segments[0].stripes, [("pv0".to_owned(), 20), ("pv1".to_owned(), 20)]);
        assert_eq!(group.volumes[2].segments[0].kind, "thin-pool");
    }

    #[test]
    fn what_is_no_such_text_is_none() {
        let deep = "a {".repeat(100_000);
        for bad in [
            "",
            "}",
            "a",
            "a = ",
            "a = [",
            "a = [1 2]",
            "a = \"",
            "vg {",
            "vg { } }",
            "vg { id = \"x\" id = \"y\" }",
            &deep,
        ] {
            assert_eq!(Group::read(bad), None, "{}", &bad[..bad.len().min(30)]);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged(text in any::<String>(), tokens in proptest::collection::vec(
            prop_oneof![
                Just("{"), Just("}"), Just("["), Just("]"), Just("="), Just(","), Just("\""), Just("#"), Just("\n"), Just("\\"),
                Just("vg0"), Just("id"), Just("seqno"), Just("extent_size"), Just("18446744073709551616"), Just("1"),
                Just("logical_volumes"), Just("physical_volumes"), Just("segment1"), Just("segment_count"), Just("stripes"),
            ], 0..80)) {
            let _ = (Group::read(&text), Group::read(&tokens.join(" ")));
        }
    }
}
