//! The parameters of a Query request.
//!
//! In: a form. Out: values, lists and structures, each taken once. What nobody took is an error, as on EC2:
//! a misspelt parameter must never be ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use super::error::Ec2Error;
use super::filter::Filter;
use crate::world::Tags;

/// Parameters that are still to be read.
#[derive(Debug, Clone, Default)]
pub struct Params(BTreeMap<String, String>);

impl Params {
    /// Reads forms: the query string and the body.
    pub fn parse(forms: &[&[u8]]) -> Self {
        Self(
            forms
                .iter()
                .flat_map(|form| form_urlencoded::parse(form))
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    /// All that are left, for the log.
    pub fn all(&self) -> BTreeMap<String, String> {
        self.0.clone()
    }

    /// A value, without taking it.
    pub fn peek(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A value, which EC2 treats as absent when it is empty.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }

    /// A value that must be there.
    pub fn required(&mut self, name: &str) -> Result<String, Ec2Error> {
        self.text(name).ok_or_else(|| Ec2Error::missing(name))
    }

    /// `true` or `false`; absent is false.
    pub fn flag(&mut self, name: &str) -> Result<bool, Ec2Error> {
        match self.text(name).as_deref() {
            None => Ok(false),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(text) => Err(Ec2Error::invalid_value(format!(
                "Invalid value '{text}' for {name}. Value must be true or false."
            ))),
        }
    }

    pub fn number<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Ec2Error> {
        self.text(name)
            .map(|text| {
                text.parse()
                    .map_err(|_| Ec2Error::invalid_value(format!("Invalid value '{text}' for {name}.")))
            })
            .transpose()
    }

    /// One of a few words.
    pub fn choice(&mut self, name: &str, words: &[&str]) -> Result<Option<String>, Ec2Error> {
        match self.text(name) {
            Some(text) if !words.contains(&text.as_str()) => Err(Ec2Error::invalid_value(format!(
                "Value ({text}) for parameter {name} is invalid. Expected one of: {}.",
                words.join(", ")
            ))),
            found => Ok(found),
        }
    }

    /// A flag that may also be absent.
    pub fn maybe_flag(&mut self, name: &str) -> Result<Option<bool>, Ec2Error> {
        if self.0.contains_key(name) { self.flag(name).map(Some) } else { Ok(None) }
    }

    /// The first parameter that begins like this.
    pub fn first(&self, prefix: &str) -> Option<&str> {
        self.0.keys().find(|name| name.starts_with(prefix)).map(String::as_str)
    }

    /// Whether a parameter begins like this.
    pub fn any(&self, prefix: &str) -> bool {
        self.0.keys().any(|name| name.starts_with(prefix))
    }

    /// The numbers N for which `NAME.N` or `NAME.N.…` is there, ascending.
    pub fn indexes(&self, name: &str) -> Vec<u32> {
        let found: BTreeSet<u32> = self
            .0
            .keys()
            .filter_map(|key| key.strip_prefix(name)?.strip_prefix('.'))
            .filter_map(|rest| rest.split('.').next()?.parse().ok())
            .collect();
        found.into_iter().collect()
    }

    /// `NAME.1`, `NAME.2` …
    pub fn list(&mut self, name: &str) -> Vec<String> {
        self.indexes(name).into_iter().filter_map(|n| self.0.remove(&format!("{name}.{n}"))).collect()
    }

    /// `Filter.N.Name` with `Filter.N.Value.M`.
    pub fn filters(&mut self) -> Result<Vec<Filter>, Ec2Error> {
        self.indexes("Filter")
            .into_iter()
            .map(|n| {
                let name = self.required(&format!("Filter.{n}.Name"))?;
                let values = self.list(&format!("Filter.{n}.Value"));
                if values.len() > 200 {
                    return Err(Ec2Error::new(
                        "FilterLimitExceeded",
                        "The maximum number of filter values specified on a single call is 200",
                    ));
                }
                Ok(Filter { name, values })
            })
            .collect()
    }

    /// `PREFIX.N.Key` with `PREFIX.N.Value`, as given: a value may be absent.
    pub fn key_values(&mut self, prefix: &str) -> Result<Vec<(String, Option<String>)>, Ec2Error> {
        self.indexes(prefix)
            .into_iter()
            .map(|n| {
                let key = self.required(&format!("{prefix}.{n}.Key"))?;
                // An empty value is a value here, unlike everywhere else.
                Ok((key, self.0.remove(&format!("{prefix}.{n}.Value"))))
            })
            .collect()
    }

    /// Tags to set, checked.
    pub fn tags(&mut self, prefix: &str) -> Result<Tags, Ec2Error> {
        let mut tags = Tags::new();
        for (key, value) in self.key_values(prefix)? {
            let value = value.unwrap_or_default();
            check_tag(&key, &value)?;
            if tags.insert(key.clone(), value).is_some() {
                return Err(Ec2Error::invalid_value(format!("Duplicate tag key '{key}' specified.")));
            }
        }
        Ok(tags)
    }

    /// `TagSpecification.N` for one type of resource; none may name another.
    pub fn tag_specifications(&mut self, resource_type: &str) -> Result<Tags, Ec2Error> {
        Ok(self.tags_by_kind(&[resource_type])?.remove(resource_type).unwrap_or_default())
    }

    /// The same for several types.
    pub fn tags_by_kind(&mut self, kinds: &[&str]) -> Result<BTreeMap<String, Tags>, Ec2Error> {
        let mut by_kind: BTreeMap<String, Tags> = BTreeMap::new();
        for n in self.indexes("TagSpecification") {
            let prefix = format!("TagSpecification.{n}");
            let named = self.required(&format!("{prefix}.ResourceType"))?;
            if !kinds.contains(&named.as_str()) {
                return Err(Ec2Error::invalid_value(format!(
                    "'{named}' is not a valid taggable resource type for this operation."
                )));
            }
            for (key, value) in self.tags(&format!("{prefix}.Tag"))? {
                let tags = by_kind.entry(named.clone()).or_default();
                if tags.insert(key.clone(), value).is_some() {
                    return Err(Ec2Error::invalid_value(format!("Duplicate tag key '{key}' specified.")));
                }
            }
        }
        Ok(by_kind)
    }

    /// Fails when something is left that nobody took.
    pub fn finish(self) -> Result<(), Ec2Error> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => {
                Err(Ec2Error::new("UnknownParameter", format!("The parameter {name} is not recognized")))
            }
        }
    }
}

fn check_tag(key: &str, value: &str) -> Result<(), Ec2Error> {
    if key.to_ascii_lowercase().starts_with("aws:") {
        return Err(Ec2Error::invalid_value("Tag keys starting with 'aws:' are reserved for internal use"));
    }
    if key.chars().count() > 128 {
        return Err(Ec2Error::invalid_value(format!(
            "Tag key exceeds the maximum length of 128 characters: '{key}'"
        )));
    }
    if value.chars().count() > 256 {
        return Err(Ec2Error::invalid_value(format!(
            "Tag value exceeds the maximum length of 256 characters: '{value}'"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(form: &str) -> Params {
        Params::parse(&[form.as_bytes()])
    }

    #[test]
    fn lists_are_read_by_number() {
        let mut p = params("VolumeId.10=c&VolumeId.2=b&VolumeId.1=a&Other=1");
        assert_eq!(p.list("VolumeId"), ["a", "b", "c"]);
        assert_eq!(p.finish().expect_err("Other is left").code, "UnknownParameter");
    }

    #[test]
    fn filters_have_values() {
        let mut p = params("Filter.1.Name=tag%3AName&Filter.1.Value.1=a&Filter.1.Value.2=b+c");
        let filters = p.filters().expect("good filters");
        assert_eq!(filters[0].name, "tag:Name");
        assert_eq!(filters[0].values, ["a", "b c"]);
        assert!(params("Filter.1.Value.1=a").filters().is_err());
    }

    #[test]
    fn tags_are_checked() {
        let spec = |rest: &str| {
            params(&format!("TagSpecification.1.ResourceType=snapshot&TagSpecification.1.Tag.1.Key={rest}"))
                .tag_specifications("snapshot")
        };
        assert_eq!(spec("a&TagSpecification.1.Tag.1.Value=").expect("good")["a"], "");
        assert!(spec("aws:x").is_err());
        assert!(spec(&"k".repeat(129)).is_err());
        assert!(spec("a&TagSpecification.1.Tag.2.Key=a").is_err());
        assert!(params("TagSpecification.1.ResourceType=volume").tag_specifications("snapshot").is_err());
    }

    #[test]
    fn flags_are_true_or_false() {
        assert_eq!(params("DryRun=True").flag("DryRun"), Ok(true));
        assert_eq!(params("").flag("DryRun"), Ok(false));
        assert!(params("DryRun=1").flag("DryRun").is_err());
    }
}
