//! [`Ec2`] by the AWS SDK.
//!
//! In: a warm [`Connection`]. Out: plain values. Must never: return a type of the SDK, or call a failed
//! create call "refused" when EC2 may have carried it out.

mod blocks;
mod clones;
mod copies;
pub mod direct;
mod images;
mod keep;
pub mod probe;
mod roots;
mod sort;
mod volumes;

use std::borrow::Cow;
use std::time::Duration;

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{
    Filter, Instance, InstanceSpecification, ResourceType, Snapshot, SnapshotInfo, Tag, TagSpecification,
};
use futures_util::future::join_all;
use jiff::Timestamp;

use super::connect::{ConnectError, Connection, without_call_timeout};
use super::denial;
use super::tagging::Said;
use super::{
    CreateFailed, CreateRequest, Describe, Ec2, Ec2Error, InstanceView, RUN_TAG, SnapshotDetail,
    SnapshotView, TaggedSnapshot,
};
use crate::discover::volumes::AttachedVolume;
use crate::ids::{InstanceId, RunId, SnapshotId, VolumeId};
use crate::plan::PointInTimeCall;

/// What credentials have to last for one call. IMDS has new ones five minutes before the old ones end.
const A_CALL: Duration = Duration::from_secs(60);

/// EC2 through the AWS SDK.
#[derive(Debug, Clone)]
pub struct Aws {
    connection: Connection,
}

impl Aws {
    /// Makes every call over this connection's client; nothing is sent yet.
    #[must_use]
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Before any call but the create call: hooks or a wait may have outlived the credentials at hand.
    async fn ready(&self, action: &'static str) -> Result<(), Ec2Error> {
        self.connection.renew_if_possible(A_CALL).await.map_err(|e| no_credentials(action, &e))
    }

    fn sort<E: ProvideErrorMetadata + std::error::Error + 'static>(
        &self,
        action: &'static str,
        error: &SdkError<E, HttpResponse>,
    ) -> Ec2Error {
        let region = self.connection.client.config().region().map_or("", |r| r.as_ref());
        sort::sort(action, error, denial::partition(region))
    }

    async fn create_one(
        &self,
        volume: &VolumeId,
        request: &CreateRequest,
        dry_run: bool,
    ) -> Result<SnapshotView, Ec2Error> {
        const ACTION: &str = "CreateSnapshot";
        let call = self
            .connection
            .client
            .create_snapshot()
            .volume_id(volume.as_str())
            .description(&request.description)
            .tag_specifications(tags_on_create(request, request.of_volume(volume)))
            .dry_run(dry_run)
            .customize();
        let call = if dry_run { call } else { call.config_override(without_call_timeout()) };
        let made = call.send().await.map_err(|e| self.sort(ACTION, &e))?;
        let state = made.state().map_or("pending", |s| s.as_str());
        view(ACTION, made.snapshot_id(), made.volume_id(), state, made.start_time(), made.progress())
    }

    async fn create_set(
        &self,
        request: &CreateRequest,
        exclude_boot_volume: bool,
        exclude: &[VolumeId],
        dry_run: bool,
    ) -> Result<Vec<SnapshotView>, Ec2Error> {
        const ACTION: &str = "CreateSnapshots";
        let exclude: Vec<String> = exclude.iter().map(|v| v.as_str().to_owned()).collect();
        let specification = InstanceSpecification::builder()
            .instance_id(request.instance.as_str())
            .exclude_boot_volume(exclude_boot_volume)
            .set_exclude_data_volume_ids((!exclude.is_empty()).then_some(exclude))
            .build();
        let call = self
            .connection
            .client
            .create_snapshots()
            .instance_specification(specification)
            .description(&request.description)
            .tag_specifications(tags_on_create(request, std::iter::empty()))
            .dry_run(dry_run);
        let call = call.customize();
        let call = if dry_run { call } else { call.config_override(without_call_timeout()) };
        let answer = call.send().await.map_err(|e| self.sort(ACTION, &e))?;
        answer.snapshots().iter().map(|s| info(ACTION, s)).collect()
    }

    async fn describe(&self, filters: Vec<Filter>) -> Result<Vec<SnapshotView>, Ec2Error> {
        Ok(self.describe_tagged(filters).await?.into_iter().map(|s| s.view).collect())
    }

    async fn describe_tagged(&self, filters: Vec<Filter>) -> Result<Vec<TaggedSnapshot>, Ec2Error> {
        const ACTION: &str = "DescribeSnapshots";
        self.ready(ACTION).await?;
        let mut pages = self
            .connection
            .client
            .describe_snapshots()
            .owner_ids("self")
            .set_filters(Some(filters))
            .max_results(1000) // paginated calls have a larger throttle bucket (EC2 guide, "throttling")
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            for snapshot in page.map_err(|e| self.sort(ACTION, &e))?.snapshots() {
                let view = described(ACTION, snapshot)?;
                found.push(tagged(view, snapshot));
            }
        }
        Ok(found)
    }
}

impl Describe for Aws {
    async fn instance(&self, id: &InstanceId) -> Result<InstanceView, Ec2Error> {
        const ACTION: &str = "DescribeInstances";
        self.ready(ACTION).await?;
        let answer = self
            .connection
            .client
            .describe_instances()
            .instance_ids(id.as_str())
            .send()
            .await
            .map_err(|e| self.sort(ACTION, &e))?;
        let instance = answer.reservations().iter().flat_map(|r| r.instances()).next();
        let not_listed =
            || Ec2Error::refused(ACTION, "InvalidInstanceID.NotFound", format!("EC2 does not list {id}"));
        let instance = instance.ok_or_else(not_listed)?;
        Ok(InstanceView { root_device_name: instance.root_device_name().map(str::to_owned) })
    }

    async fn volumes(&self, id: &InstanceId) -> Result<Vec<AttachedVolume>, Ec2Error> {
        const ACTION: &str = "DescribeVolumes";
        let mut found = Vec::new();
        for volume in self.volumes_by(filter("attachment.instance-id", [id.as_str()])).await? {
            let here = volume.attachments().iter().find(|a| a.instance_id() == Some(id.as_str()));
            let Some(device_name) = here.and_then(|a| a.device()) else { continue };
            found.push(AttachedVolume {
                id: parse(ACTION, volume.volume_id())?,
                device_name: device_name.to_owned(),
                volume_type: volume.volume_type().map_or_else(String::new, |t| t.as_str().to_owned()),
                size_gib: volume.size().unwrap_or_default(),
                iops: volume.iops(),
                throughput: volume.throughput(),
                encrypted: volume.encrypted().unwrap_or_default(),
                tags: own_tags(volume.tags()),
            });
        }
        Ok(found)
    }

    async fn pending(&self, volumes: &[VolumeId]) -> Result<Vec<SnapshotView>, Ec2Error> {
        let mut found = Vec::new();
        // A filter takes at most 200 values (EC2 API reference, "Filter").
        for some in volumes.chunks(200) {
            let volumes = filter("volume-id", some.iter().map(VolumeId::as_str));
            found.extend(self.describe(vec![volumes, filter("status", ["pending"])]).await?);
        }
        Ok(found)
    }

    async fn started(&self, volumes: &[VolumeId], minutes: &[String]) -> Result<Vec<SnapshotView>, Ec2Error> {
        // A volume can have thousands of snapshots: the filter keeps the answer small.
        let minutes: Vec<String> = minutes.iter().map(|m| format!("{m}*")).collect();
        let mut found = Vec::new();
        for some in volumes.chunks(190) {
            let volumes = filter("volume-id", some.iter().map(VolumeId::as_str));
            let minutes = filter("start-time", minutes.iter().map(String::as_str));
            found.extend(self.describe(vec![volumes, minutes]).await?);
        }
        Ok(found)
    }

    async fn states(&self, snapshots: &[SnapshotId]) -> Result<Vec<SnapshotView>, Ec2Error> {
        let mut found = Vec::new();
        // By a filter: a parameter with the id of one that is gone is an error.
        for some in snapshots.chunks(200) {
            found.extend(
                self.describe(vec![filter("snapshot-id", some.iter().map(SnapshotId::as_str))]).await?,
            );
        }
        Ok(found)
    }

    async fn dry_run(&self, request: &CreateRequest) -> Result<(), Ec2Error> {
        self.ready("DryRun").await?;
        match &request.call {
            PointInTimeCall::CreateSnapshots { exclude_boot_volume, exclude_data_volumes } => {
                let said = self.create_set(request, *exclude_boot_volume, exclude_data_volumes, true).await;
                allowed("CreateSnapshots", said.map(drop))
            }
            PointInTimeCall::CreateSnapshot { volume } => {
                allowed("CreateSnapshot", self.create_one(volume, request, true).await.map(drop))
            }
            PointInTimeCall::CreateSnapshotEach { volumes } => {
                // All at once, so that the window finds as many warm connections as it needs.
                let said = join_all(volumes.iter().map(|v| self.create_one(v, request, true))).await;
                said.into_iter().try_for_each(|s| allowed("CreateSnapshot", s.map(drop)))
            }
        }
    }

    async fn may_tag(&self, snapshot: Option<&SnapshotId>) -> Result<Said, Ec2Error> {
        self.ready("CreateTags").await?;
        self.dry_run_of_tags(snapshot).await.allowed
    }

    async fn one_of_ours(&self, volumes: &[VolumeId]) -> Result<Option<SnapshotId>, Ec2Error> {
        const ACTION: &str = "DescribeSnapshots";
        self.ready(ACTION).await?;
        for some in volumes.chunks(200) {
            let of = filter("volume-id", some.iter().map(VolumeId::as_str));
            let mut pages = self
                .connection
                .client
                .describe_snapshots()
                .owner_ids("self")
                .set_filters(Some(vec![of, filter("tag-key", [RUN_TAG])]))
                .max_results(100)
                .into_paginator()
                .send();
            // Pages may be empty while there are more (EC2 API reference, "pagination").
            while let Some(page) = pages.next().await {
                if let Some(found) = page.map_err(|e| self.sort(ACTION, &e))?.snapshots().first() {
                    return parse(ACTION, found.snapshot_id()).map(Some);
                }
            }
        }
        Ok(None)
    }

    async fn renew(&self, need: Duration) -> Result<(), Ec2Error> {
        self.connection.renew(need).await.map_err(|e| no_credentials("AWS", &e))
    }

    fn warm_connections(&self) -> Option<usize> {
        Some(self.connection.idle())
    }
}

impl Ec2 for Aws {
    async fn create(&self, request: &CreateRequest) -> Result<Vec<SnapshotView>, CreateFailed> {
        let failed = |error: Ec2Error| CreateFailed {
            outcome_unknown: error.outcome_unknown(),
            error,
            made: Vec::new(),
        };
        match &request.call {
            PointInTimeCall::CreateSnapshots { exclude_boot_volume, exclude_data_volumes } => self
                .create_set(request, *exclude_boot_volume, exclude_data_volumes, false)
                .await
                .map_err(failed),
            PointInTimeCall::CreateSnapshot { volume } => {
                self.create_one(volume, request, false).await.map(|s| vec![s]).map_err(failed)
            }
            PointInTimeCall::CreateSnapshotEach { volumes } => {
                let said = join_all(volumes.iter().map(|v| self.create_one(v, request, false))).await;
                let mut made = Vec::new();
                let mut first = None;
                let mut outcome_unknown = false;
                for answer in said {
                    match answer {
                        Ok(snapshot) => made.push(snapshot),
                        Err(error) => {
                            outcome_unknown |= error.outcome_unknown();
                            first.get_or_insert(error);
                        }
                    }
                }
                match first {
                    None => Ok(made),
                    Some(error) => Err(CreateFailed { error, outcome_unknown, made }),
                }
            }
        }
    }

    async fn find_run(&self, run: &RunId) -> Result<Vec<TaggedSnapshot>, Ec2Error> {
        self.describe_tagged(vec![filter(&format!("tag:{RUN_TAG}"), [run.as_str()])]).await
    }

    async fn tag(&self, snapshots: &[SnapshotId], tags: &[(String, String)]) -> Result<(), Ec2Error> {
        const ACTION: &str = "CreateTags";
        self.ready(ACTION).await?;
        self.connection
            .client
            .create_tags()
            .set_resources(Some(snapshots.iter().map(|s| s.as_str().to_owned()).collect()))
            .set_tags(Some(sdk_tags(tags)))
            .send()
            .await
            .map(drop)
            .map_err(|e| self.sort(ACTION, &e))
    }
}

fn no_credentials(action: &'static str, error: &ConnectError) -> Ec2Error {
    Ec2Error::Credentials {
        action,
        why: error.to_string(),
        hint: error.hint().to_owned(),
        passes: matches!(error, ConnectError::CredentialsLate(_)),
    }
}

fn allowed(action: &'static str, said: Result<(), Ec2Error>) -> Result<(), Ec2Error> {
    match said {
        // A successful DryRun is answered by this error (EC2 API reference, "DryRun").
        Err(Ec2Error::Refused { code, .. }) if code == "DryRunOperation" => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            let message = "the endpoint ignored DryRun=true and may have made snapshots";
            Err(Ec2Error::refused(action, "DryRunIgnored", message))
        }
    }
}

impl Aws {
    /// DescribeInstances of this one; none where EC2 has none.
    async fn shown_instance(&self, id: &InstanceId) -> Result<Option<Instance>, Ec2Error> {
        const ACTION: &str = "DescribeInstances";
        self.ready(ACTION).await?;
        // By a filter: the parameter with the id of one that is gone is an error.
        let of = filter("instance-id", [id.as_str()]);
        let mut pages = self.connection.client.describe_instances().filters(of).into_paginator().send();
        while let Some(page) = pages.next().await {
            let reservations = page.map_err(|e| self.sort(ACTION, &e))?.reservations.unwrap_or_default();
            let mut all = reservations.into_iter().flat_map(|r| r.instances.unwrap_or_default());
            if let Some(instance) = all.find(|i| i.instance_id() == Some(id.as_str())) {
                return Ok(Some(instance));
            }
        }
        Ok(None)
    }
}

fn filter<'a>(name: &str, values: impl IntoIterator<Item = &'a str>) -> Filter {
    Filter::builder().name(name).set_values(Some(values.into_iter().map(str::to_owned).collect())).build()
}

fn sdk_tags(tags: &[(String, String)]) -> Vec<Tag> {
    tags.iter().map(|(k, v)| Tag::builder().key(k).value(v).build()).collect()
}

fn own_tags(tags: &[Tag]) -> Vec<(String, String)> {
    let pair = |t: &Tag| Some((t.key()?.to_owned(), t.value().unwrap_or_default().to_owned()));
    tags.iter().filter_map(pair).collect()
}

/// The request's tags, and those of the volume whose keys the request does not have.
fn tags_on_create<'a>(
    request: &'a CreateRequest,
    own: impl Iterator<Item = &'a (String, String)>,
) -> TagSpecification {
    let mut tags = request.tags.clone();
    tags.extend(own.filter(|(k, _)| !request.tags.iter().any(|(taken, _)| taken == k)).cloned());
    created_with(ResourceType::Snapshot, &tags)
}

/// Tags in the call that creates what gets them.
fn created_with(kind: ResourceType, tags: &[(String, String)]) -> TagSpecification {
    TagSpecification::builder().resource_type(kind).set_tags(Some(sdk_tags(tags))).build()
}

fn parse<T: std::str::FromStr<Err = crate::ids::InvalidId>>(
    action: &'static str,
    id: Option<&str>,
) -> Result<T, Ec2Error> {
    let unexpected = |e: crate::ids::InvalidId| Ec2Error::unknown(action, format!("unexpected answer: {e}"));
    id.unwrap_or_default().parse().map_err(unexpected)
}

fn time(t: Option<&aws_smithy_types::DateTime>) -> Option<Timestamp> {
    Timestamp::from_millisecond(t?.to_millis().ok()?).ok()
}

/// What nearly every snapshot says takes no memory of its own: an account has 100,000 of them.
fn known(text: &str) -> Cow<'static, str> {
    let usual = ["pending", "completed", "error", "0%", "100%"];
    usual.into_iter().find(|usual| *usual == text).map_or_else(|| text.to_owned().into(), Cow::Borrowed)
}

fn view(
    action: &'static str,
    id: Option<&str>,
    volume: Option<&str>,
    state: &str,
    started: Option<&aws_smithy_types::DateTime>,
    progress: Option<&str>,
) -> Result<SnapshotView, Ec2Error> {
    Ok(SnapshotView {
        id: parse::<SnapshotId>(action, id)?,
        volume: parse(action, volume)?,
        state: known(state),
        started: time(started),
        progress: progress.map(known),
    })
}

fn info(action: &'static str, s: &SnapshotInfo) -> Result<SnapshotView, Ec2Error> {
    let state = s.state().map_or("pending", |s| s.as_str());
    view(action, s.snapshot_id(), s.volume_id(), state, s.start_time(), s.progress())
}

fn tagged(view: SnapshotView, s: &Snapshot) -> TaggedSnapshot {
    let detail = SnapshotDetail {
        size_gib: s.volume_size().unwrap_or_default(),
        full_bytes: s.full_snapshot_size_in_bytes(),
        encrypted: s.encrypted().unwrap_or_default(),
        kms_key: s.kms_key_id().map(str::to_owned),
        owner: s.owner_id().map(str::to_owned),
        description: s.description().unwrap_or_default().to_owned(),
        archived: s.storage_tier().is_some_and(|t| t.as_str() == "archive"),
        restored_until: time(s.restore_expiry_time()),
        completed: time(s.completion_time()),
        message: s.state_message().filter(|m| !m.is_empty()).map(str::to_owned),
    };
    TaggedSnapshot { view, tags: own_tags(s.tags()), detail }
}

fn described(action: &'static str, s: &Snapshot) -> Result<SnapshotView, Ec2Error> {
    let state = s.state().map_or("pending", |s| s.as_str());
    view(action, s.snapshot_id(), s.volume_id(), state, s.start_time(), s.progress())
}
