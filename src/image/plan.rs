//! What an image will be, decided before it is registered.
//!
//! In: a set, what its tags describe, its instance or an image that it is to be like. Out: an [`ImagePlan`], which a dry
//! run prints and [`super::make`] carries out; or a [`Refusal`]. Pure. Must never: take a device name or a type from a tag
//! that EC2 would not have given, or guess how something boots.

use std::collections::BTreeSet;

use super::name::Template;
use crate::ec2::TaggedSnapshot;
use crate::ec2::images::{
    Attributes, Billing, IMAGE_OF_TAG, ImageRequest, ImageView, MOST_UEFI_DATA, Machine, Mapping,
    WITH_SET_TAG,
};
use crate::ec2::volume_type::TYPES;
use crate::ids::RunId;
use crate::path_encoding::printable;
use crate::restore::plan::Refusal;
use crate::sets::guard::unclear;
use crate::sets::layout::Layout;
use crate::sets::lines::SetVolume;
use crate::sets::set::{SetState, SnapshotSet};
use crate::sets::tags::{INSTANCE_TAG, PLAN_TAG};

/// Types that EC2 boots from (EBS guide, "Amazon EBS volume types").
const BOOT_TYPES: [&str; 5] = ["gp2", "gp3", "io1", "io2", "standard"];

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// How it is to be named.
    pub name: Template,
    /// In place of what it says by itself.
    pub description: Option<String>,
    /// More tags.
    pub tags: Vec<(String, String)>,
    /// It goes when the rules let its set go.
    pub goes_with_set: bool,
}

/// What it is to be like.
#[derive(Debug, Clone)]
pub enum Like {
    /// The set's instance.
    Instance {
        /// It.
        machine: Box<Machine>,
        /// The image that it was launched from, where it can be seen.
        image: Option<Box<ImageView>>,
        /// The variables that it boots with.
        uefi_data: Option<String>,
    },
    /// An image that was named.
    Image(Box<ImageView>),
}

/// An image, decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePlan {
    /// The set.
    pub set: RunId,
    /// The Region of both.
    pub region: String,
    /// The call.
    pub request: ImageRequest,
    /// What it has to cost, as far as is known.
    pub billing: Billing,
    /// What is to be said of it before.
    pub notes: Vec<String>,
}

fn no<T>(what: impl Into<String>, hint: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { what: what.into(), hint: hint.into() })
}

/// Decides. `snapshots` are the set's members with all their tags.
///
/// # Errors
/// Why it cannot be done, before anything is.
pub fn plan(
    set: &SnapshotSet,
    layout: &Layout,
    snapshots: &[TaggedSnapshot],
    like: &Like,
    asked: &Asked,
) -> Result<ImagePlan, Refusal> {
    usable(set)?;
    let root = root(set, layout, like)?;
    let mut notes = Vec::new();
    let (attributes, billing, uefi_data) = attributes(like, &mut notes)?;
    let mut names = BTreeSet::new();
    let mut mappings = Vec::new();
    for volume in &layout.volumes {
        let mapping = mapping(set, volume, snapshots, like)?;
        if !names.insert(ending(&mapping.device_name).to_owned()) {
            return no(
                format!("two volumes of {} are {}", set.id, mapping.device_name),
                "its tags were changed: image another set",
            );
        }
        mappings.push(mapping);
    }
    if set.label() == crate::consistency::Consistency::Crash {
        notes.push(
            "the set is crash-consistent: instances of the image start as after a power cut".to_owned(),
        );
    }
    let name = asked.name.name(set).map_err(|what| Refusal { what, hint: "--name gives another".into() })?;
    let (time, host) = (set.time.map_or_else(String::new, |t| t.to_string()), printable(&set.host));
    let of = format!("stillpoint {} of {host}, {time}", set.id);
    let description = asked.description.clone().unwrap_or_else(|| of.chars().take(255).collect());
    let mut tags = vec![
        (IMAGE_OF_TAG.to_owned(), set.id.to_string()),
        (INSTANCE_TAG.to_owned(), set.instance.to_string()),
        (PLAN_TAG.to_owned(), set.plan.clone()),
    ];
    if asked.goes_with_set {
        tags.push((WITH_SET_TAG.to_owned(), "yes".to_owned()));
    }
    tags.extend(asked.tags.iter().cloned());
    Ok(ImagePlan {
        set: set.id.clone(),
        region: set.region.clone(),
        request: ImageRequest {
            name,
            description,
            attributes,
            uefi_data,
            root_device_name: root.device_name.clone(),
            mappings,
            tags,
        },
        billing,
        notes,
    })
}

/// A set of which an image can be made.
fn usable(set: &SnapshotSet) -> Result<(), Refusal> {
    let id = &set.id;
    if let Some(refusal) = unclear(set) {
        return no(refusal.what, refusal.hint);
    }
    if let Some(missing) = set.missing.first() {
        let what = format!("{id} is not complete: there is no snapshot of {}", missing.volume_id);
        return no(what, "image another set: `stillpoint list` shows them");
    }
    if let Some(lost) = set.members.iter().find(|m| m.state == "error") {
        let why = printable(lost.error.as_deref().unwrap_or("EC2 gives no reason"));
        return no(format!("{} of {id} is in error: {why}", lost.id), "image another set");
    }
    if let Some(archived) = set.members.iter().find(|m| m.tier == "archive") {
        return no(
            format!("{} of {id} is in the archive, of which no image can be made", archived.id),
            format!("`stillpoint tier {id} --restore` first; it takes up to 72 hours"),
        );
    }
    match set.state() {
        SetState::Completed => Ok(()),
        _ => no(
            format!("{id} is not completed yet"),
            format!("`stillpoint wait {id}` first, or --wait-source"),
        ),
    }
}

/// The one root device of the set, which has to be where the instance has its own.
fn root<'l>(set: &SnapshotSet, layout: &'l Layout, like: &Like) -> Result<&'l SetVolume, Refusal> {
    let mut roots = layout.volumes.iter().filter(|v| v.boot);
    let Some(root) = roots.next() else {
        return no(
            format!("the root device is not in {}: nothing could boot from it", set.id),
            "take a set with it (without exclude_boot_volume), or `stillpoint restore` this one",
        );
    };
    let changed = "its tags were changed: image another set";
    if roots.next().is_some() {
        return no(format!("{} says that it has several root devices", set.id), changed);
    }
    let known = match like {
        Like::Instance { machine, .. } => machine.root_device_name.as_ref(),
        // Another image's root may have another name.
        Like::Image(_) => None,
    };
    if let Some(name) = known.filter(|name| **name != root.device_name) {
        let what = format!(
            "the root device of {} is {}, and {} says {}",
            set.instance,
            printable(name),
            set.id,
            printable(&root.device_name)
        );
        return no(what, changed);
    }
    if !BOOT_TYPES.contains(&root.volume_type.as_str()) {
        let kind = printable(&root.volume_type);
        return no(format!("{} was of the type {kind}, from which EC2 does not boot", root.id), changed);
    }
    Ok(root)
}

fn mapping(
    set: &SnapshotSet,
    volume: &SetVolume,
    snapshots: &[TaggedSnapshot],
    like: &Like,
) -> Result<Mapping, Refusal> {
    let Some(member) = set.members.iter().find(|m| m.volume_id == volume.id) else {
        return no(format!("there is no snapshot of {}", volume.id), "image another set");
    };
    let now = snapshots.iter().find(|s| s.view.id == member.id);
    let kind = volume.volume_type.as_str();
    if !TYPES.contains(&kind) {
        let kind = printable(kind);
        return no(format!("{} was of the type {kind}, which is not known", volume.id), "image another set");
    }
    if !is_device_name(&volume.device_name) {
        let name = printable(&volume.device_name);
        return no(
            format!("{} was attached as {name}, which is no device name", volume.id),
            "image another set",
        );
    }
    let iops = volume.iops.filter(|_| matches!(kind, "gp3" | "io1" | "io2"));
    if matches!(kind, "io1" | "io2") && iops.is_none() {
        return no(format!("{} was {kind}, and its tags say no IOPS", volume.id), "image another set");
    }
    let of_instance = match like {
        Like::Instance { machine, .. } => machine.delete_on_termination.get(&volume.id).copied(),
        Like::Image(_) => None,
    };
    Ok(Mapping {
        device_name: volume.device_name.clone(),
        snapshot: Some(member.id.clone()),
        size_gib: member.size_gib,
        volume_type: kind.to_owned(),
        iops,
        throughput: volume.throughput.filter(|_| kind == "gp3"),
        // What is not known of a data volume keeps its data.
        delete_on_termination: of_instance.unwrap_or(volume.boot),
        encrypted: now.map_or(member.encrypted, |s| s.detail.encrypted),
    })
}

/// Such as `/dev/sdf`, `/dev/xvdba` or `/dev/sda1` (EC2 guide, "Device names for volumes").
fn is_device_name(name: &str) -> bool {
    let name = name.strip_prefix("/dev/").unwrap_or(name);
    let Some(rest) = name.strip_prefix("xvd").or(name.strip_prefix("sd")) else { return false };
    let letters = rest.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &rest[letters.len()..];
    (1..=2).contains(&letters.len()) && letters.bytes().all(|b| b.is_ascii_lowercase()) && digits.len() <= 2
}

/// `/dev/sdf` and `/dev/xvdf` are one name to some kernels.
fn ending(name: &str) -> &str {
    let name = name.strip_prefix("/dev/").unwrap_or(name);
    name.strip_prefix("xvd").or(name.strip_prefix("sd")).unwrap_or(name)
}

/// How it boots, what it costs, and the variables that it boots with.
fn attributes(
    like: &Like,
    notes: &mut Vec<String>,
) -> Result<(Attributes, Billing, Option<String>), Refusal> {
    let (machine, image, uefi_data) = match like {
        Like::Image(image) => {
            notes.push(format!("it boots as {} says, and without UEFI data of an instance", image.id));
            return Ok((image.attributes.clone(), image.billing.clone(), None));
        }
        Like::Instance { machine, image, uefi_data } => (machine, image, uefi_data),
    };
    let mut attributes = machine.attributes.clone();
    let uefi = machine.current_boot_mode.as_deref() == Some("uefi");
    if attributes.boot_mode.is_none() && uefi {
        // EC2's default is the architecture's, and of x86_64 that is the BIOS.
        attributes.boot_mode = Some("uefi".to_owned());
    }
    if attributes.tpm.is_some() && attributes.boot_mode.as_deref() != Some("uefi") {
        if !uefi {
            let what = "the instance has a TPM and runs in BIOS mode, which EC2 registers no image for";
            return no(what, "--like names an image that it is to be like");
        }
        notes.push("with a TPM, EC2 registers the boot mode uefi, in place of uefi-preferred".to_owned());
        attributes.boot_mode = Some("uefi".to_owned());
    }
    attributes.imds = match image.as_ref().and_then(|i| i.attributes.imds.clone()) {
        Some(imds) => Some(imds),
        None if machine.needs_tokens => Some("v2.0".to_owned()),
        None => None,
    };
    let uefi_data = uefi_data.clone().filter(|_| uefi);
    if uefi_data.as_ref().is_some_and(|data| data.len() > MOST_UEFI_DATA) {
        let what = format!("the instance's UEFI data has more than {MOST_UEFI_DATA} characters");
        return no(what, "remove keys from its UEFI variables, or --like names an image to be like");
    }
    if !machine.billing.product_codes.is_empty() {
        let codes = printable(&machine.billing.product_codes.join(", ")).into_owned();
        notes.push(format!(
            "the instance has codes of the Marketplace ({codes}): its image may not keep them"
        ));
    }
    Ok((attributes, machine.billing.clone(), uefi_data))
}

/// The fields of an image that a document or a dry run shows, with their names.
#[must_use]
pub fn fields(attributes: &Attributes) -> [(&'static str, Option<String>); 9] {
    let Attributes { architecture, virtualization, boot_mode, tpm, ena, sriov, imds, kernel, ramdisk } =
        attributes;
    [
        ("architecture", Some(architecture.clone())),
        ("virtualization", Some(virtualization.clone())),
        ("boot mode", boot_mode.clone()),
        ("TPM", tpm.clone()),
        ("ENA", ena.then(|| "yes".to_owned())),
        ("SR-IOV", sriov.clone()),
        ("IMDS", imds.clone()),
        ("kernel", kernel.clone()),
        ("RAM disk", ramdisk.clone()),
    ]
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(in crate::image) mod tests;
