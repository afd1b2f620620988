//! The name of an image: a template, and what is put into it.
//!
//! In: a template of the command line, facts of a set. Out: a name that EC2 takes. Pure. Must never: let a host's name,
//! which is a tag, become anything but letters, digits and hyphens.

use std::str::FromStr;

use crate::sets::set::SnapshotSet;

/// Shortest and longest name (EC2 API reference, RegisterImage).
const LENGTH: std::ops::RangeInclusive<usize> = 3..=128;
/// So much of a host's or a plan's name is taken.
const MOST_OF_A_NAME: usize = 40;
/// What is used unless a template is given. The set's id is in it: a copy in the same Region has a name of its own.
pub const DEFAULT: &str = "{host}-{plan}-{time}-{set}";
/// What can stand in a template.
const WORDS: [&str; 6] = ["{host}", "{plan}", "{time}", "{date}", "{instance}", "{set}"];

/// A checked template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(String);

impl Default for Template {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

/// A character of a name (EC2 API reference, RegisterImage).
fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || "()[] ./-'@_".contains(c)
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut literal = text.to_owned();
        for word in WORDS {
            literal = literal.replace(word, "");
        }
        if literal.contains(['{', '}']) {
            return Err(format!("has braces that are none of {}", WORDS.join(" ")));
        }
        if let Some(bad) = literal.chars().find(|c| !is_allowed(*c)) {
            return Err(format!("has {bad:?}; EC2 takes letters, digits, spaces and ( ) [ ] . / - ' @ _"));
        }
        if text.chars().count() < *LENGTH.start() || literal.chars().count() > *LENGTH.end() {
            return Err("is not of 3 to 128 characters".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl Template {
    /// The name of this set's image.
    ///
    /// # Errors
    /// When it is too long or too short.
    pub fn name(&self, set: &SnapshotSet) -> Result<String, String> {
        let at = |format: &str| set.time.map_or_else(String::new, |t| t.strftime(format).to_string());
        let values = [
            clean(&set.host),
            clean(&set.plan),
            at("%Y-%m-%dT%H%M%SZ"),
            at("%Y-%m-%d"),
            set.instance.to_string(),
            // The time in it, to the millisecond.
            set.id.as_str().get(..13).unwrap_or_default().to_owned(),
        ];
        let mut name = self.0.clone();
        for (word, value) in WORDS.iter().zip(&values) {
            name = name.replace(word, value);
        }
        if LENGTH.contains(&name.len()) {
            Ok(name)
        } else {
            Err(format!("the name `{name}` has {} characters, and EC2 takes 3 to 128", name.len()))
        }
    }
}

/// Letters, digits and hyphens.
fn clean(text: &str) -> String {
    text.chars().take(MOST_OF_A_NAME).map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sets::set::tests_support::set;

    fn name(template: &str, change: impl FnOnce(&mut SnapshotSet)) -> Result<String, String> {
        let mut set = set(1);
        set.id = "01a22be0-3bb2-72c2-b6e9-22fcfbb758f5".parse().unwrap();
        set.time = Some("2026-11-30T03:04:05Z".parse().unwrap());
        change(&mut set);
        template.parse::<Template>().unwrap().name(&set)
    }

    #[test]
    fn what_a_tag_says_becomes_letters_digits_and_hyphens() {
        let of = |host: &str| {
            let host = host.to_owned();
            name(DEFAULT, |s| s.host = host).unwrap()
        };
        assert_eq!(of("web1.example"), "web1-example-default-2026-11-30T030405Z-01a22be0-3bb2");
        assert_eq!(of("{set}*?\u{1b}[2Jä"), "-set-----2J--default-2026-11-30T030405Z-01a22be0-3bb2");
        assert_eq!(of(&"h".repeat(500)).len(), 40 + 1 + 7 + 1 + 18 + 1 + 13);
        let longest = name(DEFAULT, |s| (s.host, s.plan) = ("h".repeat(500), "p".repeat(500))).unwrap();
        assert!(longest.len() <= 128, "{longest}");
        assert_eq!(name("a {date} of {instance}", |_| ()).unwrap(), "a 2026-11-30 of i-0123456789abcdef0");
    }

    #[test]
    fn a_malformed_template_is_refused_before_anything_is_asked() {
        let why = |text: &str| text.parse::<Template>().expect_err(text);
        assert!(why("db").contains("3 to 128") && why(&"x".repeat(129)).contains("3 to 128"));
        assert!(why("db:1").contains("':'") && why("dä").contains('ä') && why("a\nb").contains("letters"));
        assert!(why("x {name}").contains("braces") && why("{host").contains("braces"));
        assert!("(db) [1]./-'@_".parse::<Template>().is_ok());
        // What only the values make too long, or too short.
        assert!(name(&format!("{}{{instance}}", "x".repeat(120)), |_| ()).is_err());
        assert!(name("{host}", |s| s.host = "a".into()).is_err());
    }
}
