//! Filters of the Describe actions.
//!
//! In: names and values with wildcards, and a resource's fields. Out: whether it passes. A filter that the
//! action does not know must never be taken to match everything.

use super::error::Ec2Error;
pub use crate::pattern::wildcard;
use crate::world::Tags;

/// One filter: any of its values may match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// `volume-id`, `tag:Name` …
    pub name: String,
    /// Values, in which `*` and `?` are wildcards and a backslash takes their meaning away.
    pub values: Vec<String>,
}

/// Fails on a filter that is not one of `known` and not about tags.
pub fn check(filters: &[Filter], known: &[&str]) -> Result<(), Ec2Error> {
    for Filter { name, .. } in filters {
        let tag = name == "tag-key" || name.strip_prefix("tag:").is_some_and(|key| !key.is_empty());
        if !tag && !known.contains(&name.as_str()) {
            return Err(Ec2Error::invalid_value(format!("The filter '{name}' is invalid")));
        }
    }
    Ok(())
}

/// Whether a resource passes all filters. `field` gives a field's values by the filter's name.
pub fn passes(filters: &[Filter], tags: &Tags, field: impl Fn(&str) -> Vec<String>) -> bool {
    filters.iter().all(|filter| {
        let matches = |text: &String| filter.values.iter().any(|pattern| wildcard(pattern, text));
        match filter.name.strip_prefix("tag:") {
            Some(key) => tags.get(key).is_some_and(matches),
            None if filter.name == "tag-key" => tags.keys().any(matches),
            None => field(&filter.name).iter().any(matches),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_filters_and_any_value() {
        let filter = |name: &str, values: &[&str]| Filter {
            name: name.into(),
            values: values.iter().map(|v| (*v).to_owned()).collect(),
        };
        let tags = Tags::from([("Name".to_owned(), "db1".to_owned())]);
        let field = |_: &str| vec!["pending".to_owned()];
        assert!(passes(&[filter("status", &["x", "pending"]), filter("tag:Name", &["db*"])], &tags, field));
        assert!(!passes(&[filter("status", &["pending"]), filter("tag:name", &["db1"])], &tags, field));
        assert!(passes(&[filter("tag-key", &["Name"])], &tags, field));
        assert!(!passes(&[filter("status", &[])], &tags, field));
        assert!(check(&[filter("status", &[]), filter("tag:x", &[])], &["status"]).is_ok());
        let error = check(&[filter("colour", &[])], &["status"]).expect_err("unknown");
        assert_eq!(error.code, "InvalidParameterValue");
    }
}
