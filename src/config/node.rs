//! One value in a TOML document, with its key and its position, and the readers for each type.
//!
//! In: a parsed document with spans. Out: typed values, or an error at the value's own line and column.
//! Must never: accept one type for another (a number for a time above all).

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::{self, Fault};
use super::error::{ConfigError, Origin, Place, Sourced, choices};
use super::settings::Expedite;
use crate::sets::retention::{Age, Count};

/// The text of a file, for positions.
pub(super) struct Document<'a> {
    pub file: Arc<Path>,
    pub text: &'a str,
}

impl Document<'_> {
    pub(super) fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        Place {
            file: Arc::clone(&self.file),
            line: before.bytes().filter(|b| *b == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// A value under its key.
pub(super) struct Node<'a> {
    pub(crate) doc: &'a Document<'a>,
    /// The last part of the key, as it is written.
    pub name: &'a str,
    /// The whole key, for messages.
    pub key: String,
    key_at: Range<usize>,
    value_at: Range<usize>,
    value: &'a DeValue<'a>,
}

/// A table's keys, in the order of the file.
pub(super) struct Table<'a> {
    doc: &'a Document<'a>,
    /// Its name in messages.
    shown: String,
    key: String,
    entries: &'a DeTable<'a>,
}

impl<'a> Table<'a> {
    pub(super) fn top(doc: &'a Document<'a>, entries: &'a DeTable<'a>) -> Self {
        Self { doc, shown: "the top level".to_owned(), key: String::new(), entries }
    }

    /// Calls `set` with each key in the order of the file; an error when `set` does not know one.
    pub(super) fn each(
        &self,
        known: &[&str],
        mut set: impl FnMut(&Node<'a>) -> Result<bool, ConfigError>,
    ) -> Result<(), ConfigError> {
        for node in self.nodes() {
            if !set(&node)? {
                return Err(ConfigError::UnknownKey {
                    place: self.doc.place(node.key_at.start),
                    key: node.name.to_owned(),
                    table: self.shown.clone(),
                    hint: choices(node.name, "known keys here", known.iter().copied()),
                });
            }
        }
        Ok(())
    }

    /// The entries of a table whose keys the user chooses.
    pub(super) fn nodes(&self) -> Vec<Node<'a>> {
        let mut nodes: Vec<_> = self.entries.iter().map(|(key, value)| self.node(key, value)).collect();
        // The map is sorted by key, but errors are reported in the order of the file.
        nodes.sort_by_key(|n| n.key_at.start);
        nodes
    }

    fn node(&self, key: &'a Spanned<toml::de::DeString<'a>>, value: &'a Spanned<DeValue<'a>>) -> Node<'a> {
        let name: &str = key.get_ref();
        let whole = match self.key.as_str() {
            "" => name.to_owned(),
            parent => format!("{parent}.{name}"),
        };
        let (key_at, value_at) = (key.span(), value.span());
        Node { doc: self.doc, name, key: whole, key_at, value_at, value: value.get_ref() }
    }
}

impl<'a> Node<'a> {
    /// Where the key is.
    pub(super) fn origin(&self) -> Origin {
        Origin::File(self.doc.place(self.key_at.start))
    }

    /// The value and where it was set.
    pub(super) fn sourced<T>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, ConfigError>,
    ) -> Result<Sourced<T>, ConfigError> {
        Ok(Sourced { value: read(self)?, origin: self.origin() })
    }

    pub(super) fn fault(&self, fault: Fault) -> ConfigError {
        // Tables made by dotted keys have no span of their own.
        let at = if self.value_at.is_empty() { self.key_at.start } else { self.value_at.start };
        fault.at(Origin::File(self.doc.place(at)), &self.key)
    }

    fn wrong_type(&self, wanted: &str) -> ConfigError {
        let found = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time of day",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.fault(Fault::new(format!("must be {wanted}, and is {found}")))
    }

    pub(super) fn text(&self) -> Result<&'a str, ConfigError> {
        self.value.as_str().ok_or_else(|| self.wrong_type("a string"))
    }

    /// A string that `check` accepts.
    pub(super) fn checked<T>(&self, check: impl FnOnce(&str) -> Result<T, Fault>) -> Result<T, ConfigError> {
        check(self.text()?).map_err(|f| self.fault(f))
    }

    pub(super) fn flag(&self) -> Result<bool, ConfigError> {
        self.value.as_bool().ok_or_else(|| self.wrong_type("true or false"))
    }

    /// True, false, or `"auto"`.
    pub(super) fn expedite(&self) -> Result<Expedite, ConfigError> {
        match self.value {
            DeValue::Boolean(true) => Ok(Expedite::Always),
            DeValue::Boolean(false) => Ok(Expedite::Never),
            DeValue::String(text) if text == "auto" => Ok(Expedite::Auto),
            _ => Err(self.wrong_type("true, false or \"auto\"")),
        }
    }

    pub(super) fn duration(&self, limits: (Duration, Duration)) -> Result<Duration, ConfigError> {
        let value = match self.value {
            DeValue::Integer(n) => Err(check::bare_number(&n.to_string())),
            DeValue::Float(n) => Err(check::bare_number(&n.to_string())),
            DeValue::String(text) => check::duration(text),
            _ => return Err(self.wrong_type("a time, as in \"10s\"")),
        };
        value.and_then(|v| check::within(v, limits)).map_err(|f| self.fault(f))
    }

    /// A whole number within limits.
    pub(super) fn number(&self, min: u32, max: u32) -> Result<u32, ConfigError> {
        let DeValue::Integer(number) = self.value else { return Err(self.wrong_type("a whole number")) };
        let value = number.to_string().parse::<u32>().ok().filter(|n| (min..=max).contains(n));
        value.ok_or_else(|| self.fault(Fault::new(format!("is {number}, outside {min} to {max}"))))
    }

    /// How many periods: a whole number, or `"all"`.
    pub(super) fn count(&self) -> Result<Count, ConfigError> {
        match self.value {
            DeValue::String(text) => check::count(text).map_err(|f| self.fault(f)),
            DeValue::Integer(number) if number.to_string().starts_with('-') => {
                Err(self.fault(Fault::new(format!("is {number}")).hint(check::COUNTS)))
            }
            DeValue::Integer(_) => self.number(0, check::MAX_COUNT).map(Count::Of),
            _ => Err(self.wrong_type("a whole number or \"all\"")),
        }
    }

    /// An age: nothing, or at least `least`.
    pub(super) fn age(&self, least: Age) -> Result<Age, ConfigError> {
        let value = match self.value {
            DeValue::Integer(n) => check::age(&n.to_string(), least),
            DeValue::Float(n) => check::age(&n.to_string(), least),
            DeValue::String(text) => check::age(text, least),
            _ => return Err(self.wrong_type("an age, as in \"14d\"")),
        };
        value.map_err(|f| self.fault(f))
    }

    /// A TCP port.
    pub(super) fn port(&self) -> Result<u16, ConfigError> {
        self.number(1, 65_535).map(|n| u16::try_from(n).unwrap_or_default())
    }

    pub(super) fn path(&self) -> Result<PathBuf, ConfigError> {
        self.checked(|text| check::absolute(Path::new(text)))
    }

    /// An id that parses as its type.
    pub(super) fn id<T: FromStr<Err = crate::ids::InvalidId>>(&self) -> Result<T, ConfigError> {
        self.checked(|text| text.parse().map_err(|e: T::Err| Fault::new(format!("is wrong: {e}"))))
    }

    /// The elements of a list, each a node under the same key.
    pub(super) fn elements(&self) -> Result<Vec<Node<'a>>, ConfigError> {
        let list = self.value.as_array().ok_or_else(|| self.wrong_type("a list"))?;
        let nodes = list.iter().map(|item| Node {
            doc: self.doc,
            name: self.name,
            key: self.key.clone(),
            // An element has no key; for a `[[hook]]` its own position is used.
            key_at: if item.span().is_empty() { self.key_at.clone() } else { item.span() },
            value_at: item.span(),
            value: item.get_ref(),
        });
        Ok(nodes.collect())
    }

    pub(super) fn list<T>(
        &self,
        read: impl Fn(&Node<'a>) -> Result<T, ConfigError>,
    ) -> Result<Vec<T>, ConfigError> {
        self.elements()?.iter().map(read).collect()
    }

    pub(super) fn paths(&self) -> Result<Vec<PathBuf>, ConfigError> {
        self.list(Node::path)
    }

    pub(super) fn ids<T: FromStr<Err = crate::ids::InvalidId>>(&self) -> Result<Vec<T>, ConfigError> {
        self.list(Node::id)
    }

    pub(super) fn argv(&self) -> Result<Vec<String>, ConfigError> {
        let words = match self.value {
            DeValue::Array(_) => self.list(|n| n.text().map(str::to_owned))?,
            DeValue::String(_) => {
                let fault = Fault::new("must be a list of words, not one string")
                    .hint("write [\"/path/to/program\", \"argument\"]");
                return Err(self.fault(fault));
            }
            _ => return Err(self.wrong_type("a list of words")),
        };
        check::argv(words).map_err(|f| self.fault(f))
    }

    /// The value as a table, called `[key]` in messages.
    pub(super) fn table(&self) -> Result<Table<'a>, ConfigError> {
        self.table_as(format!("[{}]", self.key))
    }

    /// The value as a table that messages call `shown`.
    pub(super) fn table_as(&self, shown: String) -> Result<Table<'a>, ConfigError> {
        let entries = self.value.as_table().ok_or_else(|| self.wrong_type("a table"))?;
        Ok(Table { doc: self.doc, shown, key: self.key.clone(), entries })
    }

    /// A table of tags, each of which `check` accepts.
    pub(super) fn tags(
        &self,
        check: fn(&str, &str) -> Result<(), Fault>,
    ) -> Result<BTreeMap<String, Sourced<String>>, ConfigError> {
        let table = self.table()?;
        let one = |node: Node<'_>| {
            let value = node.sourced(|n| n.text().map(str::to_owned))?;
            check(node.name, &value.value).map_err(|f| self_key(f, &node))?;
            Ok((node.name.to_owned(), value))
        };
        table.nodes().into_iter().map(one).collect()
    }

    /// A table from mount points to one of a few words.
    pub(super) fn by_mount<T: Copy>(
        &self,
        known: &[(&str, T)],
    ) -> Result<BTreeMap<PathBuf, Sourced<T>>, ConfigError> {
        let one = |node: Node<'_>| {
            let mount = check::absolute(Path::new(node.name)).map_err(|f| self_key(f, &node))?;
            Ok((mount, node.sourced(|n| n.checked(|text| check::choice(text, known)))?))
        };
        self.table()?.nodes().into_iter().map(one).collect()
    }
}

/// A fault of the key itself, at the key.
fn self_key(fault: Fault, node: &Node<'_>) -> ConfigError {
    fault.at(node.origin(), &node.key)
}
