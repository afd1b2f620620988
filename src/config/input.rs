//! Tables of keys: the struct, the list of its keys, its reader and its merge out of one list.
//!
//! In: a list of keys with their types and readers. Out: a struct that implements [`Input`]. Must never: let
//! a key be missing from one of the four.

use super::error::ConfigError;
use super::node::{Node, Table};

/// A table of keys that may each be set.
pub(super) trait Input: Default {
    /// Every key, in documented order.
    const KEYS: &'static [&'static str];

    fn set(&mut self, node: &Node<'_>) -> Result<bool, ConfigError>;

    /// The values of `later` win; tables merge entry by entry.
    fn overlay(&mut self, later: Self);

    fn read(table: &Table<'_>) -> Result<Self, ConfigError> {
        let mut input = Self::default();
        table.each(Self::KEYS, |node| input.set(node))?;
        Ok(input)
    }
}

/// Makes the struct of a table. `$read` is how a value is read, `per_entry` the tables that merge entry by
/// entry.
macro_rules! input {
    (
        $(#[$doc:meta])* $name:ident
        { $($key:ident: $type:ty = $read:expr;)* }
        per_entry { $($table:ident: $k:ty, $v:ty = $read_table:expr;)* }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub(super) struct $name {
            $(pub $key: Option<$crate::config::error::Sourced<$type>>,)*
            $(pub $table: std::collections::BTreeMap<$k, $crate::config::error::Sourced<$v>>,)*
        }

        impl $crate::config::input::Input for $name {
            const KEYS: &'static [&'static str] = &[$(stringify!($key),)* $(stringify!($table),)*];

            fn set(
                &mut self,
                node: &$crate::config::node::Node<'_>,
            ) -> Result<bool, $crate::config::error::ConfigError> {
                match node.name {
                    $(stringify!($key) => self.$key = Some(node.sourced($read)?),)*
                    $(stringify!($table) => self.$table = $read_table(node)?,)*
                    _ => return Ok(false),
                }
                Ok(true)
            }

            fn overlay(&mut self, later: Self) {
                $(if later.$key.is_some() { self.$key = later.$key; })*
                $(self.$table.extend(later.$table);)*
            }
        }
    };
}
pub(super) use input;
