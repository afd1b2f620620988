//! What all Describe actions have in common.
//!
//! In: ids, filters and paging. Out: the resources that were meant, in pages. An id that does not exist must
//! never be passed over in silence.

use super::error::Ec2Error;
use super::filter::{self, Filter};
use super::page::Paging;
use super::params::Params;
use crate::world::Tags;

/// Ids, filters and paging of a request.
#[derive(Debug)]
pub struct Query {
    /// Ids, when some are named.
    pub ids: Vec<String>,
    filters: Vec<Filter>,
    paging: Paging,
}

impl Query {
    /// Reads them. `ids` is the name of the list of ids, `known` the action's filters.
    pub fn parse(
        params: &mut Params,
        action: &str,
        ids: Option<&str>,
        known: &[&str],
    ) -> Result<Self, Ec2Error> {
        let paging = Paging::parse(params, action)?;
        let ids = ids.map(|name| params.list(name)).unwrap_or_default();
        // Seen on EC2 for these; those of the lock and of the Recycle Bin are documented to take both.
        let set = match action {
            "DescribeImages" => Some("imagesSet"),
            "DescribeInstances" => Some("instancesSet"),
            "DescribeReplaceRootVolumeTasks" => Some("replaceRootVolumeTaskIdsSet"),
            "DescribeSnapshots" => Some("snapshotSet"),
            "DescribeVolumeStatus" => Some("volumeIdsSet"),
            "DescribeVolumes" => Some("volumeSet"),
            _ => None,
        };
        if let Some(set) = set.filter(|_| !ids.is_empty() && paging.is_limited()) {
            return Err(Ec2Error::new(
                "InvalidParameterCombination",
                format!("The parameter {set} cannot be used with the parameter maxResults"),
            ));
        }
        let filters = params.filters()?;
        filter::check(&filters, known)?;
        Ok(Self { ids, filters, paging })
    }

    /// Fails on an id that is malformed or that `exists` does not know. `kind` is as in
    /// `InvalidVolume.NotFound`.
    pub fn check_ids(
        &self,
        prefix: &str,
        malformed: &str,
        missing: impl Fn(&str) -> Ec2Error,
        exists: impl Fn(&str) -> bool,
    ) -> Result<(), Ec2Error> {
        for id in &self.ids {
            if !id.starts_with(prefix) {
                return Err(Ec2Error::new(
                    malformed,
                    format!("Invalid id: \"{id}\" (expecting \"{prefix}...\")"),
                ));
            }
            if !exists(id) {
                return Err(missing(id));
            }
        }
        Ok(())
    }

    /// Whether a resource is meant.
    pub fn wants(&self, id: &str, tags: &Tags, field: impl Fn(&str) -> Vec<String>) -> bool {
        (self.ids.is_empty() || self.ids.iter().any(|wanted| wanted == id))
            && filter::passes(&self.filters, tags, field)
    }

    /// The values that a filter names, when it is there and names them without wildcards.
    pub fn exact(&self, name: &str) -> Option<&[String]> {
        let filter = self.filters.iter().find(|filter| filter.name == name)?;
        let is_pattern = |value: &String| value.contains(['*', '?', '\\']);
        (!filter.values.iter().any(is_pattern)).then_some(&filter.values)
    }

    /// What it says about pages.
    pub fn paging(&self) -> &Paging {
        &self.paging
    }

    pub fn page<T>(
        &self,
        items: Vec<T>,
        limit: usize,
        key: impl Fn(&T) -> String,
    ) -> (Vec<T>, Option<String>) {
        self.paging.cut(items, limit, key)
    }
}
