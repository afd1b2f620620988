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
        let filters = params.filters()?;
        filter::check(&filters, known)?;
        Ok(Self { ids, filters, paging })
    }

    /// Whether the request asks for pages of a size.
    pub fn is_paged(&self) -> bool {
        self.paging.is_limited()
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

    pub fn page<T>(
        &self,
        items: Vec<T>,
        limit: usize,
        key: impl Fn(&T) -> String,
    ) -> (Vec<T>, Option<String>) {
        self.paging.cut(items, limit, key)
    }
}
