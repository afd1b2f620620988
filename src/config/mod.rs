//! Files and drop-ins → merged → validated settings; every value knows the file it came from.
//!
//! In: TOML files and command-line overrides. Out: [`settings::Settings`], where everything is checked.
//! Must never: guess a unit, ignore a key it does not know, or read anything but its files.

pub mod settings;
