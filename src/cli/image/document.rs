//! Images, for programs: docs/schema/image-1.json.
//!
//! In: a plan, images as EC2 shows them, what became of them. Out: a document. Must never: give an image for one that was
//! only planned, or that was taken back.

use jiff::Timestamp;
use serde::Serialize;

use crate::ec2::images::{Attributes, Billing, ImageView, Mapping, WITH_SET_TAG};
use crate::exit::Exit;
use crate::ids::{ImageId, RunId, SnapshotId};
use crate::image::compare::Difference;
use crate::image::make::Made;
use crate::image::plan::ImagePlan;

/// Version of the JSON of `image`.
const VERSION: u32 = 1;

#[derive(Debug, Serialize)]
pub(super) struct Document {
    version: u32,
    command: &'static str,
    dry_run: bool,
    images: Vec<OfImage>,
    exit_code: Exit,
}

impl Document {
    pub fn of(command: &'static str, dry_run: bool, images: Vec<OfImage>, exit_code: Exit) -> Self {
        Self { version: VERSION, command, dry_run, images, exit_code }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct OfImage {
    pub id: Option<ImageId>,
    pub name: String,
    pub region: String,
    pub set: Option<RunId>,
    /// EC2's, or `planned`, `discarded`, `deregistered`.
    pub state: String,
    pub created: Option<Timestamp>,
    pub deprecated_from: Option<Timestamp>,
    pub goes_with_set: bool,
    /// Anybody may launch it.
    pub public: bool,
    /// Something was done to it, or would be.
    pub changed: bool,
    pub error: Option<String>,
    /// Accounts that it was shared with, or no longer is.
    pub accounts: Vec<String>,
    pub attributes: Attributes,
    pub billing: Billing,
    pub volumes: Vec<Mapping>,
    pub differences: Vec<Difference>,
    /// What became of its snapshots, where they were to be deleted with it.
    pub snapshots: Vec<OfSnapshot>,
    pub notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct OfSnapshot {
    pub id: SnapshotId,
    pub deleted: bool,
    /// EC2's code, or why not.
    pub result: String,
}

impl OfImage {
    /// As EC2 shows it.
    pub fn of(image: &ImageView, region: &str) -> Self {
        Self {
            id: Some(image.id.clone()),
            name: image.name.clone(),
            region: region.to_owned(),
            set: image.set(),
            state: image.state.clone(),
            created: image.created,
            deprecated_from: image.deprecated_from,
            goes_with_set: image.tag(WITH_SET_TAG).is_some(),
            public: image.public,
            changed: false,
            error: None,
            accounts: Vec::new(),
            attributes: image.attributes.clone(),
            billing: image.billing.clone(),
            volumes: image.mappings.clone(),
            differences: Vec::new(),
            snapshots: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// What would be registered, or is there already.
    pub fn planned(plan: &ImagePlan, existing: Option<&ImageView>) -> Self {
        let notes = plan.notes.clone();
        if let Some(image) = existing {
            return Self { notes, ..Self::of(image, &plan.region) };
        }
        let request = &plan.request;
        Self {
            id: None,
            name: request.name.clone(),
            region: plan.region.clone(),
            set: Some(plan.set.clone()),
            state: "planned".to_owned(),
            created: None,
            deprecated_from: None,
            goes_with_set: request.tags.iter().any(|(k, _)| k == WITH_SET_TAG),
            public: false,
            changed: true,
            error: None,
            accounts: Vec::new(),
            attributes: request.attributes.clone(),
            billing: plan.billing.clone(),
            volumes: request.mappings.clone(),
            differences: Vec::new(),
            snapshots: Vec::new(),
            notes,
        }
    }

    /// What became of it.
    pub fn made(plan: &ImagePlan, made: &Made) -> Self {
        let state = if made.discarded { "discarded".to_owned() } else { made.image.state.clone() };
        Self {
            state,
            changed: !made.there,
            differences: made.differences.clone(),
            notes: plan.notes.clone(),
            ..Self::of(&made.image, &plan.region)
        }
    }
}
