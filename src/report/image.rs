//! What an image will be, for people.
//!
//! In: a plan. Out: text within 80 columns where its words allow. Must never: print what a tag or EC2 says without making
//! it printable.

use std::fmt::Write;

use crate::image::compare::text;
use crate::image::plan::{ImagePlan, fields};
use jiff::Timestamp;

use crate::ec2::images::ImageView;
use crate::path_encoding::printable;

/// Images with the Regions that they are in, as a table.
#[must_use]
pub(crate) fn table(images: &[(&ImageView, &str)]) -> String {
    let mut rows =
        vec![["IMAGE", "REGION", "STATE", "REGISTERED", "SET", "NAME"].map(str::to_owned).to_vec()];
    for (image, region) in images {
        let deprecated = image.deprecated_from.is_some_and(|from| from <= Timestamp::now());
        let state = if deprecated && image.state == "available" { "deprecated" } else { &image.state };
        let state = if image.public { &format!("{state}, PUBLIC") } else { state };
        rows.push(vec![
            image.id.to_string(),
            printable(region).into_owned(),
            printable(state).into_owned(),
            image.created.map_or_else(|| "?".to_owned(), super::sets::local),
            image
                .set()
                .map_or_else(|| "?".to_owned(), |set| set.as_str().get(..13).unwrap_or_default().to_owned()),
            printable(&image.name).into_owned(),
        ]);
    }
    super::sets::columns(rows)
}

/// The plan.
#[must_use]
pub(crate) fn plan(plan: &ImagePlan) -> String {
    let request = &plan.request;
    let mut out = format!("image of {} in {}\n  name: {}", plan.set, plan.region, printable(&request.name));
    let fields = fields(&request.attributes);
    let known: Vec<String> = fields
        .iter()
        .filter_map(|(name, value)| Some(format!("{name} {}", printable(value.as_deref()?))))
        .collect();
    for some in known.chunks(4) {
        let _ = write!(out, "\n  {}", some.join(", "));
    }
    if let Some(data) = &request.uefi_data {
        let _ = write!(out, "\n  {} characters of UEFI data of the instance", data.len());
    }
    let or_none = |text: &Option<String>| printable(text.as_deref().unwrap_or("not known")).into_owned();
    let billing = &plan.billing;
    let _ = write!(
        out,
        "\n  billed as {} ({})",
        or_none(&billing.platform_details),
        or_none(&billing.usage_operation)
    );
    for mapping in &request.mappings {
        let root = if mapping.device_name == request.root_device_name { " (root)" } else { "" };
        let _ = write!(out, "\n  {}{root}\n    {}", mapping.device_name, printable(&text(mapping)));
    }
    for note in &plan.notes {
        let _ = write!(out, "\n  note: {}", printable(note));
    }
    out
}
