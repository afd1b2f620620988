//! Tables of keys: the struct, the list of its keys, what the documentation says of each, its reader and its
//! merge out of one list.
//!
//! In: a list of keys with their documentation, types and readers. Out: a struct that implements [`Input`].
//! Must never: let a key be missing from one of the five.

use super::error::{ConfigError, Sourced};
use super::node::{Node, Table};
use super::reference::Key;

/// A table of keys that may each be set.
pub(super) trait Input: Default {
    /// Every key, in documented order.
    const KEYS: &'static [&'static str];

    /// What the documentation says of each, in the same order: see [`Key::of`].
    const DOCS: &'static [&'static str];

    fn set(&mut self, node: &Node<'_>) -> Result<bool, ConfigError>;

    /// The values of `later` win; tables merge entry by entry.
    fn overlay(&mut self, later: Self);

    fn read(table: &Table<'_>) -> Result<Self, ConfigError> {
        let mut input = Self::default();
        table.each(Self::KEYS, |node| input.set(node))?;
        Ok(input)
    }

    /// The keys, each with what the documentation says of it.
    fn documented() -> Vec<Key> {
        Self::KEYS.iter().zip(Self::DOCS).map(|(name, doc)| Key::of(name, doc)).collect()
    }
}

/// Merges a table that has an [`Input`] of its own, key by key.
pub(super) fn overlay_table<T: Input>(table: &mut Option<Sourced<T>>, later: Option<Sourced<T>>) {
    match (table, later) {
        (Some(table), Some(later)) => {
            table.value.overlay(later.value);
            table.origin = later.origin;
        }
        (table @ None, later) => *table = later,
        (Some(_), None) => {}
    }
}

/// Makes the struct of a table. `$doc` is the key's row in the documentation, `$read` how a value is read,
/// `per_entry` the tables that merge entry by entry, `tables` those that have an [`Input`] of their own.
macro_rules! input {
    (
        $(#[$doc:meta])* $name:ident
        { $($(#[doc = $doc_key:literal])+ $key:ident: $type:ty = $read:expr;)* }
        per_entry { $($(#[doc = $doc_table:literal])+ $table:ident: $k:ty, $v:ty = $read_table:expr;)* }
        $(tables { $($(#[doc = $doc_inner:literal])+ $inner:ident: $input:ty;)* })?
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub(super) struct $name {
            $(pub $key: Option<$crate::config::error::Sourced<$type>>,)*
            $(pub $table: std::collections::BTreeMap<$k, $crate::config::error::Sourced<$v>>,)*
            $($(pub $inner: Option<$crate::config::error::Sourced<$input>>,)*)?
        }

        impl $crate::config::input::Input for $name {
            const KEYS: &'static [&'static str] =
                &[$(stringify!($key),)* $(stringify!($table),)* $($(stringify!($inner),)*)?];
            const DOCS: &'static [&'static str] = &[
                $(concat!($($doc_key),+),)*
                $(concat!($($doc_table),+),)*
                $($(concat!($($doc_inner),+),)*)?
            ];

            fn set(
                &mut self,
                node: &$crate::config::node::Node<'_>,
            ) -> Result<bool, $crate::config::error::ConfigError> {
                match node.name {
                    $(stringify!($key) => self.$key = Some(node.sourced($read)?),)*
                    $(stringify!($table) => self.$table = $read_table(node)?,)*
                    $($(stringify!($inner) => {
                        self.$inner = Some(node.sourced(|n| {
                            <$input as $crate::config::input::Input>::read(&n.table()?)
                        })?);
                    })*)?
                    _ => return Ok(false),
                }
                Ok(true)
            }

            fn overlay(&mut self, later: Self) {
                $(if later.$key.is_some() { self.$key = later.$key; })*
                $(self.$table.extend(later.$table);)*
                $($($crate::config::input::overlay_table(&mut self.$inner, later.$inner);)*)?
            }
        }
    };
}
pub(super) use input;
