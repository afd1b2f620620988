//! The calls about images (AMIs) of sets.
//!
//! In: plain values. Out: plain values or an [`Ec2Error`]. Must never: register one image twice (RegisterImage has no
//! client token: [`crate::image::make`] looks for its name), or deregister anything but one image by its id.

use std::collections::BTreeMap;
use std::future::Future;

use jiff::Timestamp;
use serde::Serialize;

use super::Ec2Error;
use super::keep::Permission;
use crate::ids::{ImageId, InstanceId, RunId, SnapshotId, VolumeId};

/// The tag of an image: the set that it is of.
pub const IMAGE_OF_TAG: &str = "stillpoint:image-of";
/// The tag of an image that goes when the rules let its set go.
pub const WITH_SET_TAG: &str = "stillpoint:goes-with-set";
/// The tag of an image that was compared with its instance, and is as it should be. Its value is the time.
pub const COMPARED_TAG: &str = "stillpoint:compared";

/// RegisterImage takes so many characters of UEFI data (EC2 API reference).
pub const MOST_UEFI_DATA: usize = 64_000;

/// How instances of an image boot. What is none is EC2's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Attributes {
    /// Such as `x86_64`.
    pub architecture: String,
    /// `hvm` or `paravirtual`.
    pub virtualization: String,
    /// `legacy-bios`, `uefi` or `uefi-preferred`.
    pub boot_mode: Option<String>,
    /// `v2.0`: there is a NitroTPM.
    pub tpm: Option<String>,
    /// Enhanced networking by ENA.
    pub ena: bool,
    /// `simple`: enhanced networking by the Intel 82599 VF.
    pub sriov: Option<String>,
    /// `v2.0`: instances need tokens for IMDS.
    pub imds: Option<String>,
    /// Of paravirtual ones.
    pub kernel: Option<String>,
    /// Of paravirtual ones.
    pub ramdisk: Option<String>,
}

/// What its instances cost beside their size. None of this can be asked for: EC2 takes it from the snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Billing {
    /// Such as `Linux/UNIX` or `Red Hat Enterprise Linux`.
    pub platform_details: Option<String>,
    /// The same as a code, such as `RunInstances:0010`.
    pub usage_operation: Option<String>,
    /// Codes of the Marketplace.
    pub product_codes: Vec<String>,
}

/// What DescribeInstances says of an instance that an image is to be like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// `imds` is none: DescribeInstances does not have it.
    pub attributes: Attributes,
    /// The boot mode that it runs in: `legacy-bios` or `uefi`.
    pub current_boot_mode: Option<String>,
    /// What it costs.
    pub billing: Billing,
    /// The image that it was launched from.
    pub image: Option<ImageId>,
    /// The device name of its root.
    pub root_device_name: Option<String>,
    /// It answers IMDS requests only with a token.
    pub needs_tokens: bool,
    /// Which of its volumes go when it is terminated.
    pub delete_on_termination: BTreeMap<VolumeId, bool>,
}

/// A volume of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mapping {
    /// The device name.
    pub device_name: String,
    /// What it is made of; none of an empty one.
    pub snapshot: Option<SnapshotId>,
    /// Size in GiB.
    pub size_gib: i32,
    /// Such as `gp3`. EC2 takes gp2 where none is named.
    pub volume_type: String,
    /// Provisioned IOPS, of the types that have them.
    pub iops: Option<i32>,
    /// Provisioned throughput in MiB/s, of gp3.
    pub throughput: Option<i32>,
    /// It goes when the instance is terminated.
    pub delete_on_termination: bool,
    /// As its snapshot is. RegisterImage must not say it.
    pub encrypted: bool,
}

/// An image that is to be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRequest {
    /// Its name, which no other image of the account in the Region has.
    pub name: String,
    /// At most 255 characters.
    pub description: String,
    /// How it boots.
    pub attributes: Attributes,
    /// Variables that it boots with: what GetInstanceUefiData answered.
    pub uefi_data: Option<String>,
    /// The device name of its root.
    pub root_device_name: String,
    /// Its volumes.
    pub mappings: Vec<Mapping>,
    /// Its tags.
    pub tags: Vec<(String, String)>,
}

/// An image, as DescribeImages shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageView {
    /// It.
    pub id: ImageId,
    /// Its name.
    pub name: String,
    /// `pending`, `available`, `failed`, `disabled`, …
    pub state: String,
    /// Why it failed, in EC2's words.
    pub reason: Option<String>,
    /// When it was registered.
    pub created: Option<Timestamp>,
    /// From when on it is deprecated.
    pub deprecated_from: Option<Timestamp>,
    /// Anybody may launch it.
    pub public: bool,
    /// How it boots.
    pub attributes: Attributes,
    /// What it costs.
    pub billing: Billing,
    /// The device name of its root.
    pub root_device_name: Option<String>,
    /// Its volumes.
    pub mappings: Vec<Mapping>,
    /// It has other block devices beside volumes.
    pub others: bool,
    /// Its tags.
    pub tags: Vec<(String, String)>,
}

impl ImageView {
    /// The value of this tag.
    #[must_use]
    pub(crate) fn tag(&self, key: &str) -> Option<&str> {
        super::tag_of(&self.tags, key)
    }

    /// The set that its tag names. Whoever may tag can write that: [`crate::image::ours`] looks closer.
    #[must_use]
    pub fn set(&self) -> Option<RunId> {
        self.tag(IMAGE_OF_TAG)?.parse().ok()
    }
}

/// Which images of the own account are meant, disabled ones among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhichImages {
    /// The one of this name.
    Named(String),
    /// These. One that is gone is not in the answer.
    Ids(Vec<ImageId>),
    /// Those that have the tag of a set.
    OfSets,
}

/// Whether images of the account can become public in a Region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicImages {
    /// `unblocked` or `block-new-sharing`.
    pub state: String,
    /// A declarative policy of the organisation says so: the account cannot change it.
    pub by_policy: bool,
}

impl PublicImages {
    /// A state that is not known here counts as blocked.
    #[must_use]
    pub fn blocked(&self) -> bool {
        self.state != "unblocked"
    }
}

/// What became of a snapshot of an image that was deregistered with its snapshots: EC2's code, such as `success`,
/// `skipped` where another image has it, or `missing-permissions` (EC2 API reference, DeleteSnapshotReturnCode).
pub type SnapshotResult = (SnapshotId, String);

/// EC2 where images are registered. Every call may be made twice but [`Images::register`].
pub trait Images {
    /// DescribeInstances of this one; none where EC2 has it no longer.
    fn machine(&self, id: &InstanceId) -> impl Future<Output = Result<Option<Machine>, Ec2Error>>;
    /// GetInstanceUefiData; none where the instance has none.
    fn uefi_data(&self, id: &InstanceId) -> impl Future<Output = Result<Option<String>, Ec2Error>>;
    /// DescribeImages of the own account, every page.
    fn own_images(&self, which: &WhichImages) -> impl Future<Output = Result<Vec<ImageView>, Ec2Error>>;
    /// DescribeImages of one, whoever owns it; none where it is gone or cannot be seen.
    fn any_image(&self, id: &ImageId) -> impl Future<Output = Result<Option<ImageView>, Ec2Error>>;
    /// RegisterImage: one attempt.
    fn register(&self, request: &ImageRequest) -> impl Future<Output = Result<ImageId, Ec2Error>>;
    /// The same with DryRun.
    fn may_register(&self, request: &ImageRequest) -> impl Future<Output = Result<(), Ec2Error>>;
    /// DeregisterImage, with its snapshots or without. One that is gone already is no error.
    fn deregister(
        &self,
        id: &ImageId,
        with_snapshots: bool,
    ) -> impl Future<Output = Result<Vec<SnapshotResult>, Ec2Error>>;
    /// CreateTags.
    fn label_image(
        &self,
        id: &ImageId,
        tags: &[(String, String)],
    ) -> impl Future<Output = Result<(), Ec2Error>>;
    /// DescribeImageAttribute: the accounts that may launch it, `all` among them.
    fn launched_by(&self, id: &ImageId) -> impl Future<Output = Result<Vec<String>, Ec2Error>>;
    /// ModifyImageAttribute: these accounts may launch it, or no longer.
    fn permit_launch(
        &self,
        id: &ImageId,
        change: Permission,
        who: &[String],
    ) -> impl Future<Output = Result<(), Ec2Error>>;
    /// GetImageBlockPublicAccessState.
    fn public_images(&self) -> impl Future<Output = Result<PublicImages, Ec2Error>>;
    /// EnableImageDeprecation from this time on, or DisableImageDeprecation.
    fn deprecate(&self, id: &ImageId, from: Option<Timestamp>) -> impl Future<Output = Result<(), Ec2Error>>;
    /// DisableImage, or EnableImage.
    fn disable(&self, id: &ImageId, disable: bool) -> impl Future<Output = Result<(), Ec2Error>>;
}
