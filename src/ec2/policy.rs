//! The least IAM policy for what is going to be done: one table of actions.
//!
//! In: commands, the partition, which create calls the configuration can lead to. Out: a [`Policy`]. Pure. Must
//! never: allow a change of a snapshot that has not the tags of a set.

use serde::Serialize;
use serde_json::{Value, json};

use crate::ec2::roots::ROOT_TAG;
use crate::ec2::volumes::{REPLACED_TAG, RESTORE_TAG};
use crate::ids::InstanceId;

/// A command that calls EC2, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs, reason = "each is the command of its name")]
pub enum Needing {
    /// `snapshot` and `before`.
    #[value(alias = "before")]
    Snapshot,
    Clone,
    Plan,
    Rehearse,
    Freeze,
    Doctor,
    List,
    Show,
    Wait,
    /// `verify` at the levels that make no volume.
    Verify,
    /// `verify --level restore`.
    VerifyRestore,
    Restore,
    /// `restore --in-place`, beside what `restore` needs: volumes that no restore has made.
    RestoreInPlace,
    /// `restore --root`, also without what `restore` needs.
    RestoreRoot,
    /// `restore` of clones, beside what `restore` needs.
    RestoreClone,
    /// `restore --warm used`, beside what `restore` needs.
    RestoreWarm,
    Image,
    /// `image delete`.
    ImageDelete,
    /// `image share` and `unshare`.
    ImageShare,
    /// `image deprecate`, `disable` and `enable`.
    ImageRetire,
    Prune,
    Keep,
    Release,
    Delete,
    Undelete,
    Copy,
    Share,
    Unshare,
    Lock,
    Unlock,
    Tier,
    /// `list --sizes`.
    Sizes,
}

/// What an action is allowed on. One statement of the policy each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    /// Anything: a Describe call has no resources that a policy could name.
    All,
    /// What a set is made of, and its new snapshots.
    New,
    /// Snapshots, in the call that makes them.
    Created,
    /// Snapshots with the tag of a set.
    OfASet,
    /// Snapshots that are copied: those with the tag of a set.
    CopySource,
    /// Their copies, which have the tag of a copied set.
    CopyMade,
    /// Snapshots, in the call that copies them.
    Copied,
    /// Snapshots. Whether EC2 shows a policy the tags of those in the Recycle Bin is not known.
    InTheBin,
    /// Snapshots: a set's, and its neighbours', which others may have made. Numbers of blocks, and no data.
    Blocks,
    /// A volume that a restore makes.
    Restored,
    /// The same, in the call that makes it.
    RestoredTags,
    /// Volumes with the tag of a restore.
    OfARestore,
    /// The instance that they are attached to.
    Attached,
    /// Volumes that others are put in the place of: any.
    Replaced,
    /// The same, and the one tag that they get.
    ReplacedTag,
    /// A task that replaces a root.
    RootTask,
    /// The same, in the call that makes it.
    RootTaskTags,
    /// The volumes of it: any.
    RootVolume,
    /// Volumes that are cloned, and their clones.
    Cloned,
    /// Clones, in the call that makes them.
    ClonedTags,
    /// Volumes with the tag of a run.
    OfARun,
    /// An image that is registered.
    Registered,
    /// The same, in the call that registers it.
    RegisteredTags,
    /// Images with the tag of a set.
    OfAnImage,
}

const STATEMENTS: [On; 24] = [
    On::All,
    On::New,
    On::Created,
    On::OfASet,
    On::CopySource,
    On::CopyMade,
    On::Copied,
    On::InTheBin,
    On::Blocks,
    On::Restored,
    On::RestoredTags,
    On::OfARestore,
    On::Attached,
    On::Replaced,
    On::ReplacedTag,
    On::RootTask,
    On::RootTaskTags,
    On::RootVolume,
    On::Cloned,
    On::ClonedTags,
    On::OfARun,
    On::Registered,
    On::RegisteredTags,
    On::OfAnImage,
];

use Needing::{
    Delete, Doctor, Freeze, Image, ImageDelete, ImageRetire, ImageShare, Keep, List, Lock, Plan, Prune,
    Rehearse, Release, Restore, Share, Show, Sizes, Snapshot, Tier, Undelete, Unlock, Unshare, Verify,
    VerifyRestore, Wait,
};

/// Which command makes which call, and on what.
const TABLE: [(On, &str, &[Needing]); 70] = [
    (
        On::All,
        "DescribeInstances",
        &[
            Snapshot,
            Needing::Clone,
            Plan,
            Rehearse,
            Freeze,
            Doctor,
            List,
            Restore,
            Needing::RestoreRoot,
            VerifyRestore,
            Image,
            Prune,
        ],
    ),
    (
        On::All,
        "DescribeVolumes",
        &[
            Snapshot,
            Needing::Clone,
            Plan,
            Rehearse,
            Freeze,
            Doctor,
            Restore,
            Needing::RestoreRoot,
            VerifyRestore,
        ],
    ),
    (
        On::All,
        "DescribeSnapshots",
        &[
            Snapshot,
            Rehearse,
            Doctor,
            List,
            Show,
            Wait,
            Verify,
            Restore,
            Needing::RestoreRoot,
            VerifyRestore,
            Image,
            ImageDelete,
            ImageShare,
            ImageRetire,
            Prune,
            Keep,
            Release,
            Delete,
            Undelete,
            Needing::Copy,
            Share,
            Unshare,
            Lock,
            Unlock,
            Tier,
        ],
    ),
    (On::All, "DescribeImages", &[Show, Image, ImageDelete, ImageShare, ImageRetire, Prune, Delete, Tier]),
    (On::All, "DescribeLockedSnapshots", &[Show, ImageDelete, Prune, Delete, Lock, Unlock, Tier]),
    (On::All, "DescribeSnapshotAttribute", &[Show, ImageDelete, Prune, Delete, Share, Unshare, Tier]),
    (On::All, "DescribeSnapshotTierStatus", HOLDS),
    (On::All, "ListSnapshotsInRecycleBin", &[List, Undelete]),
    (On::All, "DescribeRegions", &[List, Show]),
    (On::All, "GetSnapshotBlockPublicAccessState", &[Share]),
    // Where an image is to become public.
    (On::All, "GetImageBlockPublicAccessState", &[ImageShare]),
    // Where copies are encrypted with the account's default key.
    (On::All, "GetEbsDefaultKmsKeyId", &[Needing::Copy]),
    // Where nothing is said of keys.
    (On::All, "GetEbsEncryptionByDefault", &[Needing::Copy]),
    // A DryRun, too.
    (On::New, MANY, &[Snapshot, Plan, Rehearse, Doctor]),
    (On::New, ONE, &[Snapshot, Plan, Rehearse, Doctor]),
    (On::Created, "CreateTags", &[Snapshot, Plan, Rehearse, Doctor]),
    (On::OfASet, "DeleteSnapshot", &[ImageDelete, Prune, Delete]),
    // The label; the mark of a set that is being removed; the day until which it is kept.
    // And what verify has found.
    (
        On::OfASet,
        "CreateTags",
        &[Snapshot, Rehearse, Doctor, ImageDelete, Prune, Delete, Keep, Verify, VerifyRestore],
    ),
    // The mark, where the first snapshot is refused or the set came back.
    (On::OfASet, "DeleteTags", &[ImageDelete, Prune, Delete, Release, Undelete]),
    (On::OfASet, "ModifySnapshotAttribute", &[Share, Unshare]),
    (On::OfASet, "LockSnapshot", &[Lock]),
    (On::OfASet, "UnlockSnapshot", &[Unlock]),
    (On::OfASet, "ModifySnapshotTier", &[Tier]),
    (On::OfASet, "RestoreSnapshotTier", &[Tier]),
    (On::CopySource, COPY, &[Needing::Copy]),
    (On::CopyMade, COPY, &[Needing::Copy]),
    (On::Copied, "CreateTags", &[Needing::Copy]),
    (On::OfASet, "ebs:ListSnapshotBlocks", &[Verify, VerifyRestore, Needing::RestoreWarm]),
    (On::OfASet, "ebs:GetSnapshotBlock", &[Verify, VerifyRestore]),
    (On::Blocks, "ebs:ListChangedBlocks", &[Sizes]),
    (On::Blocks, "ebs:ListSnapshotBlocks", &[Sizes]),
    (On::InTheBin, "RestoreSnapshotFromRecycleBin", &[Undelete]),
    (On::All, "DescribeInstanceTypes", &[Restore, VerifyRestore]),
    (On::OfASet, CREATE_VOLUME, &[Restore, VerifyRestore]),
    (On::Restored, CREATE_VOLUME, &[Restore, VerifyRestore]),
    (On::RestoredTags, "CreateTags", &[Restore, VerifyRestore]),
    (On::OfARestore, "AttachVolume", &[Restore, VerifyRestore]),
    (On::OfARestore, "DetachVolume", &[Restore, VerifyRestore]),
    (On::OfARestore, "DeleteVolume", &[Restore, VerifyRestore]),
    (On::Attached, "AttachVolume", &[Restore, VerifyRestore]),
    (On::Attached, "DetachVolume", &[Restore, VerifyRestore]),
    (On::Replaced, "AttachVolume", &[Needing::RestoreInPlace]),
    (On::Replaced, "DetachVolume", &[Needing::RestoreInPlace]),
    (On::ReplacedTag, "CreateTags", &[Needing::RestoreInPlace]),
    (On::ReplacedTag, "DeleteTags", &[Needing::RestoreInPlace]),
    (On::All, "DescribeReplaceRootVolumeTasks", &[Needing::RestoreRoot]),
    (On::OfASet, REPLACE_ROOT, &[Needing::RestoreRoot]),
    (On::Attached, REPLACE_ROOT, &[Needing::RestoreRoot]),
    (On::RootTask, REPLACE_ROOT, &[Needing::RestoreRoot]),
    (On::RootTaskTags, "CreateTags", &[Needing::RestoreRoot]),
    (On::RootVolume, REPLACE_ROOT, &[Needing::RestoreRoot]),
    (On::All, "DescribeVolumeStatus", &[Needing::Clone]),
    (On::Cloned, COPY_VOLUMES, &[Needing::Clone]),
    (On::ClonedTags, "CreateTags", &[Needing::Clone]),
    // The label; what an incomplete run has made.
    (On::OfARun, "CreateTags", &[Needing::Clone]),
    (On::OfARun, "DeleteVolume", &[Needing::Clone]),
    (On::OfARun, "AttachVolume", &[Needing::RestoreClone]),
    (On::OfARun, "DetachVolume", &[Needing::RestoreClone]),
    // The variables that the instance boots with.
    (On::Attached, "GetInstanceUefiData", &[Image]),
    (On::OfASet, REGISTER, &[Image]),
    (On::Registered, REGISTER, &[Image]),
    (On::RegisteredTags, "CreateTags", &[Image]),
    // That it was compared; an image whose instances would cost something else.
    (On::OfAnImage, "CreateTags", &[Image]),
    // An image that goes with its set.
    (On::OfAnImage, "DeregisterImage", &[Image, ImageDelete, Prune, Delete]),
    (On::OfAnImage, "DescribeImageAttribute", &[ImageShare]),
    (On::OfAnImage, "ModifyImageAttribute", &[ImageShare]),
    (On::OfAnImage, "EnableImageDeprecation", &[ImageRetire]),
    (On::OfAnImage, "DisableImageDeprecation", &[ImageRetire]),
    (On::OfAnImage, "DisableImage", &[ImageRetire]),
    (On::OfAnImage, "EnableImage", &[ImageRetire]),
];

/// Those that ask who holds a set.
const HOLDS: &[Needing] = &[Show, ImageDelete, Prune, Delete, Tier];
const MANY: &str = "CreateSnapshots";
const ONE: &str = "CreateSnapshot";
const COPY: &str = "CopySnapshot";
const CREATE_VOLUME: &str = "CreateVolume";
const REPLACE_ROOT: &str = "CreateReplaceRootVolumeTask";
const COPY_VOLUMES: &str = "CopyVolumes";
const REGISTER: &str = "RegisterImage";

/// For whom a policy is.
#[derive(Debug, Clone)]
pub struct For<'a> {
    /// The commands that it has to allow.
    pub commands: &'a [Needing],
    /// Such as `aws-cn`.
    pub partition: &'a str,
    /// The one instance whose volumes and sets are meant; none for any.
    pub instance: Option<&'a InstanceId>,
    /// Every plan is one volume, for which CreateSnapshots is never called.
    pub one_volume: bool,
}

/// An IAM policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Policy {
    version: &'static str,
    statement: Vec<Statement>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    effect: &'static str,
    action: Value,
    resource: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<Value>,
}

/// The least policy for these commands.
#[must_use]
pub fn least(of: &For<'_>) -> Policy {
    let statements = STATEMENTS.iter().filter_map(|on| {
        let needed = |needing: &[Needing]| needing.iter().any(|n| of.commands.contains(n));
        let actions: Vec<String> = TABLE
            .iter()
            .filter(|(of_row, action, needing)| {
                of_row == on && needed(needing) && !(of.one_volume && *action == MANY)
            })
            .map(
                |(_, action, _)| {
                    if action.contains(':') { (*action).to_owned() } else { format!("ec2:{action}") }
                },
            )
            .collect();
        (!actions.is_empty()).then(|| statement(*on, actions, of))
    });
    Policy { version: "2012-10-17", statement: statements.collect() }
}

/// The statements that allow one action on what any command needs it on, each as JSON on one line; none of an action
/// that no command needs.
#[must_use]
pub(crate) fn of_action(partition: &str, service: &str, action: &str) -> Vec<String> {
    let name = if service == "ec2" { action.to_owned() } else { format!("{service}:{action}") };
    let of = For { commands: &[], partition, instance: None, one_volume: false };
    let rows =
        STATEMENTS.iter().filter(|on| TABLE.iter().any(|(row, known, _)| row == *on && *known == name));
    let mut on: Vec<On> = rows.copied().collect();
    // Who is told what is missing for a restore is not told to allow it for any volume.
    on.retain(|on| !matches!(on, On::Replaced | On::ReplacedTag));
    // What is allowed on anything needs no more.
    if on.contains(&On::All) {
        on = vec![On::All];
    }
    let mut all = Vec::new();
    if on.iter().filter(|on| on.makes()).count() > 1 {
        // Tags in the call that makes something: one statement for all such calls.
        on.retain(|on| !on.makes());
        all.push(Statement {
            effect: "Allow",
            action: json!(format!("{service}:{action}")),
            resource: json!([
                format!("arn:{partition}:ec2:*::snapshot/*"),
                format!("arn:{partition}:ec2:*::image/*"),
                format!("arn:{partition}:ec2:*:*:volume/*"),
                format!("arn:{partition}:ec2:*:*:replace-root-volume-task/*")
            ]),
            condition: Some(json!({
                "StringEquals": {"ec2:CreateAction": [MANY, ONE, COPY, CREATE_VOLUME, REPLACE_ROOT, COPY_VOLUMES, REGISTER]}
            })),
        });
    }
    all.extend(on.into_iter().map(|on| statement(on, vec![format!("{service}:{action}")], &of)));
    all.iter().filter_map(|statement| serde_json::to_string(statement).ok()).collect()
}

impl On {
    /// Is it about tags in a call that makes something?
    fn makes(self) -> bool {
        matches!(
            self,
            Self::Created
                | Self::Copied
                | Self::RestoredTags
                | Self::RootTaskTags
                | Self::ClonedTags
                | Self::RegisteredTags
        )
    }
}

fn statement(on: On, actions: Vec<String>, of: &For<'_>) -> Statement {
    let snapshots = format!("arn:{}:ec2:*::snapshot/*", of.partition);
    let arn = |what: &str| format!("arn:{}:ec2:*:*:{what}", of.partition);
    let resource = match on {
        On::All => vec!["*".to_owned()],
        On::New if of.one_volume => vec![arn("volume/*"), snapshots],
        On::New => {
            let instance = of.instance.map_or("*", InstanceId::as_str);
            vec![arn(&format!("instance/{instance}")), arn("volume/*"), snapshots]
        }
        On::Restored
        | On::RestoredTags
        | On::OfARestore
        | On::Replaced
        | On::ReplacedTag
        | On::RootVolume
        | On::Cloned
        | On::ClonedTags
        | On::OfARun => {
            vec![arn("volume/*")]
        }
        On::RootTask | On::RootTaskTags => vec![arn("replace-root-volume-task/*")],
        // As the ARNs of snapshots, those of images have no account.
        On::Registered | On::RegisteredTags | On::OfAnImage => {
            vec![format!("arn:{}:ec2:*::image/*", of.partition)]
        }
        On::Attached => vec![arn(&format!("instance/{}", of.instance.map_or("*", InstanceId::as_str)))],
        On::Created | On::OfASet | On::InTheBin | On::CopySource | On::CopyMade | On::Copied | On::Blocks => {
            vec![snapshots]
        }
    };
    let condition = match on {
        On::All
        | On::New
        | On::InTheBin
        | On::Blocks
        | On::Attached
        | On::Replaced
        | On::RootVolume
        | On::Cloned => None,
        On::RootTask => Some(json!({"StringLike": {format!("aws:RequestTag/{ROOT_TAG}"): "*"}})),
        On::RootTaskTags => Some(json!({"StringEquals": {"ec2:CreateAction": REPLACE_ROOT}})),
        On::ReplacedTag => Some(json!({"ForAllValues:StringEquals": {"aws:TagKeys": [REPLACED_TAG]}})),
        On::ClonedTags => Some(json!({"StringEquals": {"ec2:CreateAction": COPY_VOLUMES}})),
        On::Restored => Some(json!({"StringLike": {format!("aws:RequestTag/{RESTORE_TAG}"): "*"}})),
        On::RestoredTags => Some(json!({"StringEquals": {"ec2:CreateAction": CREATE_VOLUME}})),
        On::OfARestore => Some(json!({"StringLike": {format!("aws:ResourceTag/{RESTORE_TAG}"): "*"}})),
        On::Created if of.one_volume => Some(json!({"StringEquals": {"ec2:CreateAction": ONE}})),
        On::Created => Some(json!({"StringEquals": {"ec2:CreateAction": [MANY, ONE]}})),
        // EC2 knows `${ec2:InstanceID}` only where an instance is the resource: the id itself is compared.
        On::Copied => Some(json!({"StringEquals": {"ec2:CreateAction": COPY}})),
        // Of what does not exist yet, only what the request gives it can be compared.
        On::RegisteredTags => Some(json!({"StringEquals": {"ec2:CreateAction": REGISTER}})),
        On::CopyMade | On::Registered => Some(match of.instance {
            Some(id) => json!({"StringEquals": {"aws:RequestTag/stillpoint:instance": id.as_str()}}),
            None => json!({"StringLike": {"aws:RequestTag/stillpoint:instance": "i-*"}}),
        }),
        On::OfASet | On::CopySource | On::OfARun | On::OfAnImage => Some(match of.instance {
            Some(id) => json!({"StringEquals": {"aws:ResourceTag/stillpoint:instance": id.as_str()}}),
            None => json!({"StringLike": {"aws:ResourceTag/stillpoint:instance": "i-*"}}),
        }),
    };
    Statement { effect: "Allow", action: one_or_all(actions), resource: one_or_all(resource), condition }
}

fn one_or_all(mut list: Vec<String>) -> Value {
    if list.len() == 1 { list.remove(0).into() } else { list.into() }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    fn policy(
        commands: &[Needing],
        partition: &str,
        instance: Option<&InstanceId>,
        one_volume: bool,
    ) -> Value {
        serde_json::to_value(least(&For { commands, partition, instance, one_volume })).expect("JSON")
    }

    fn documented(text: &str) -> Value {
        let block =
            text.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a policy");
        serde_json::from_str(block).expect("JSON")
    }

    #[test]
    fn the_documented_policies_are_what_the_command_prints() {
        assert_eq!(
            documented(include_str!("../../README.md")),
            policy(&[Snapshot, Doctor], "aws", None, false)
        );
        let life = [List, Show, Wait, Prune, Keep, Release, Delete, Undelete];
        assert_eq!(documented(include_str!("../../docs/sets.md")), policy(&life, "aws", None, false));
        assert_eq!(
            documented(include_str!("../../docs/copies.md")),
            policy(&[Needing::Copy], "aws", None, false)
        );
    }

    #[test]
    fn every_command_has_its_actions_in_every_partition() {
        let expected = [
            (
                Snapshot,
                "DescribeInstances DescribeVolumes DescribeSnapshots CreateSnapshots CreateSnapshot CreateTags CreateTags",
            ),
            (
                Needing::Clone,
                "DescribeInstances DescribeVolumes DescribeVolumeStatus CopyVolumes CreateTags CreateTags DeleteVolume",
            ),
            (Plan, "DescribeInstances DescribeVolumes CreateSnapshots CreateSnapshot CreateTags"),
            (
                Rehearse,
                "DescribeInstances DescribeVolumes DescribeSnapshots CreateSnapshots CreateSnapshot CreateTags CreateTags",
            ),
            (Freeze, "DescribeInstances DescribeVolumes"),
            (
                Doctor,
                "DescribeInstances DescribeVolumes DescribeSnapshots CreateSnapshots CreateSnapshot CreateTags CreateTags",
            ),
            (List, "DescribeInstances DescribeSnapshots ListSnapshotsInRecycleBin DescribeRegions"),
            (
                Show,
                "DescribeSnapshots DescribeImages DescribeLockedSnapshots DescribeSnapshotAttribute DescribeSnapshotTierStatus DescribeRegions",
            ),
            (Wait, "DescribeSnapshots"),
            (Verify, "DescribeSnapshots CreateTags ebs:ListSnapshotBlocks ebs:GetSnapshotBlock"),
            (
                VerifyRestore,
                "DescribeInstances DescribeVolumes DescribeSnapshots DescribeInstanceTypes CreateTags ebs:ListSnapshotBlocks ebs:GetSnapshotBlock CreateVolume CreateVolume CreateTags AttachVolume DetachVolume DeleteVolume AttachVolume DetachVolume",
            ),
            (
                Restore,
                "DescribeInstances DescribeVolumes DescribeSnapshots DescribeInstanceTypes CreateVolume CreateVolume CreateTags AttachVolume DetachVolume DeleteVolume AttachVolume DetachVolume",
            ),
            (Needing::RestoreInPlace, "AttachVolume DetachVolume CreateTags DeleteTags"),
            (
                Needing::RestoreRoot,
                "DescribeInstances DescribeVolumes DescribeSnapshots DescribeReplaceRootVolumeTasks CreateReplaceRootVolumeTask CreateReplaceRootVolumeTask CreateReplaceRootVolumeTask CreateTags CreateReplaceRootVolumeTask",
            ),
            (Needing::RestoreClone, "AttachVolume DetachVolume"),
            (Needing::RestoreWarm, "ebs:ListSnapshotBlocks"),
            (
                Image,
                "DescribeInstances DescribeSnapshots DescribeImages RegisterImage GetInstanceUefiData RegisterImage CreateTags CreateTags DeregisterImage",
            ),
            (
                ImageDelete,
                "DescribeSnapshots DescribeImages DescribeLockedSnapshots DescribeSnapshotAttribute DescribeSnapshotTierStatus DeleteSnapshot CreateTags DeleteTags DeregisterImage",
            ),
            (
                ImageShare,
                "DescribeSnapshots DescribeImages GetImageBlockPublicAccessState DescribeImageAttribute ModifyImageAttribute",
            ),
            (
                ImageRetire,
                "DescribeSnapshots DescribeImages EnableImageDeprecation DisableImageDeprecation DisableImage EnableImage",
            ),
            (
                Prune,
                "DescribeInstances DescribeSnapshots DescribeImages DescribeLockedSnapshots DescribeSnapshotAttribute DescribeSnapshotTierStatus DeleteSnapshot CreateTags DeleteTags DeregisterImage",
            ),
            (Keep, "DescribeSnapshots CreateTags"),
            (Release, "DescribeSnapshots DeleteTags"),
            (
                Delete,
                "DescribeSnapshots DescribeImages DescribeLockedSnapshots DescribeSnapshotAttribute DescribeSnapshotTierStatus DeleteSnapshot CreateTags DeleteTags DeregisterImage",
            ),
            (
                Undelete,
                "DescribeSnapshots ListSnapshotsInRecycleBin DeleteTags RestoreSnapshotFromRecycleBin",
            ),
            (
                Needing::Copy,
                "DescribeSnapshots GetEbsDefaultKmsKeyId GetEbsEncryptionByDefault CopySnapshot CopySnapshot CreateTags",
            ),
            (
                Share,
                "DescribeSnapshots DescribeSnapshotAttribute GetSnapshotBlockPublicAccessState ModifySnapshotAttribute",
            ),
            (Unshare, "DescribeSnapshots DescribeSnapshotAttribute ModifySnapshotAttribute"),
            (Lock, "DescribeSnapshots DescribeLockedSnapshots LockSnapshot"),
            (Unlock, "DescribeSnapshots DescribeLockedSnapshots UnlockSnapshot"),
            (
                Tier,
                "DescribeSnapshots DescribeImages DescribeLockedSnapshots DescribeSnapshotAttribute DescribeSnapshotTierStatus ModifySnapshotTier RestoreSnapshotTier",
            ),
            (Sizes, "ebs:ListChangedBlocks ebs:ListSnapshotBlocks"),
        ];
        assert_eq!(expected.map(|(c, _)| c).as_slice(), Needing::value_variants());
        for partition in ["aws", "aws-cn", "aws-us-gov"] {
            for (command, actions) in expected {
                let all = policy(&[command], partition, None, false);
                let list = |v: &Value| match v {
                    Value::String(one) => vec![one.clone()],
                    all => all
                        .as_array()
                        .expect("a list")
                        .iter()
                        .map(|v| v.as_str().expect("text").to_owned())
                        .collect(),
                };
                let mut found = Vec::new();
                for statement in all["Statement"].as_array().expect("statements") {
                    found.extend(list(&statement["Action"]));
                    for resource in list(&statement["Resource"]) {
                        assert!(
                            resource == "*" || resource.starts_with(&format!("arn:{partition}:ec2:*:")),
                            "{all}"
                        );
                    }
                }
                let found: Vec<_> = found.iter().map(|a| a.trim_start_matches("ec2:")).collect();
                assert_eq!(found.join(" "), actions, "{command:?}");
            }
        }
    }

    #[test]
    fn one_instance_and_one_volume_get_less() {
        let id: InstanceId = "i-0123456789abcdef0".parse().expect("an id");
        let own = policy(&[Snapshot, Prune], "aws-cn", Some(&id), false).to_string();
        assert!(
            own.contains("instance/i-0123456789abcdef0")
                && !own.contains("i-*")
                && !own.contains("instance/*"),
            "{own}"
        );
        assert!(
            own.contains(r#"{"StringEquals":{"aws:ResourceTag/stillpoint:instance":"i-0123456789abcdef0"}}"#),
            "{own}"
        );
        let one = policy(&[Snapshot], "aws", None, true).to_string();
        assert!(!one.contains("CreateSnapshots") && !one.contains("instance/"), "{one}");
    }
}
