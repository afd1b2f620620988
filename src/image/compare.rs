//! An image that was registered, compared field by field with what it should be.
//!
//! In: a plan, the image as EC2 shows it. Out: each [`Difference`]. Pure. Must never: pass over a field that was asked
//! for, or over what it costs.

use serde::Serialize;

use super::plan::{ImagePlan, fields};
use crate::ec2::images::{ImageView, Mapping};

/// A field that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its name, such as `boot mode`.
    pub field: String,
    /// What the instance has; none where it has nothing.
    pub expected: Option<String>,
    /// What the image has.
    pub found: Option<String>,
    /// Instances of it cost something else: it is taken back.
    pub billing: bool,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (expected, found) = (self.expected.as_deref(), self.found.as_deref());
        let (expected, found) = (expected.unwrap_or("none"), found.unwrap_or("none"));
        write!(f, "{}: {found}, and not {expected}", self.field)
    }
}

/// Everything that is not as it should be.
#[must_use]
pub fn compare(plan: &ImagePlan, image: &ImageView) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut differs = |field: &str, expected: Option<String>, found: Option<String>, billing: bool| {
        if expected != found {
            all.push(Difference { field: field.to_owned(), expected, found, billing });
        }
    };
    let request = &plan.request;
    for ((field, expected), (_, found)) in
        fields(&request.attributes).into_iter().zip(fields(&image.attributes))
    {
        differs(field, expected, found, false);
    }
    let root = image.root_device_name.clone();
    differs("root device", Some(request.root_device_name.clone()), root, false);
    for mapping in &request.mappings {
        let found = image.mappings.iter().find(|m| m.device_name == mapping.device_name);
        // IOPS and throughput that were not asked for are the type's own.
        let found = found.map(|m| Mapping {
            iops: m.iops.filter(|_| mapping.iops.is_some()),
            throughput: m.throughput.filter(|_| mapping.throughput.is_some()),
            ..m.clone()
        });
        differs(&mapping.device_name, Some(text(mapping)), found.as_ref().map(text), false);
    }
    for more in &image.mappings {
        if request.mappings.iter().all(|m| m.device_name != more.device_name) {
            differs(&more.device_name, None, Some(text(more)), false);
        }
    }
    if image.others {
        differs("other devices", None, Some("there are some".to_owned()), false);
    }
    let (expected, found) = (&plan.billing, &image.billing);
    differs("platform details", expected.platform_details.clone(), found.platform_details.clone(), true);
    differs("usage operation", expected.usage_operation.clone(), found.usage_operation.clone(), true);
    let codes = |codes: &[String]| (!codes.is_empty()).then(|| codes.join(", "));
    differs("product codes", codes(&expected.product_codes), codes(&found.product_codes), true);
    all
}

/// A volume in one line.
#[must_use]
pub fn text(m: &Mapping) -> String {
    let mut text = format!("{} GiB {}", m.size_gib, m.volume_type);
    for (what, number) in [("IOPS", m.iops), ("MiB/s", m.throughput)] {
        if let Some(number) = number {
            text.push_str(&format!(", {number} {what}"));
        }
    }
    if let Some(snapshot) = &m.snapshot {
        text.push_str(&format!(" of {snapshot}"));
    }
    if m.encrypted {
        text.push_str(", encrypted");
    }
    if m.delete_on_termination {
        text.push_str(", deleted with the instance");
    }
    text
}
