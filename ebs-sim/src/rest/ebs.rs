//! The EBS direct APIs, version 2019-11-02: ListSnapshotBlocks, ListChangedBlocks, GetSnapshotBlock.
//!
//! In: completed snapshots, their images, and where their data lies. Out: which blocks of 512 KiB were written,
//! which differ, and their data. A block must never be given of another snapshot than its token is for.

mod blocks;
mod token;

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Context, Done, invalid, part};
use crate::ec2::{Ec2Error, Need, can_decrypt};
use crate::host::extents::BLOCK;
use crate::http::Call;
use crate::ids::SnapshotId;
use crate::sim::Sim;
use crate::world::{Image, Snapshot, World};

/// How long block tokens and page tokens can be used. (EBS direct APIs' guide.)
const BLOCK_TOKEN: SignedDuration = SignedDuration::from_hours(7 * 24);
const PAGE_TOKEN: SignedDuration = SignedDuration::from_hours(1);

/// In a page token: that an empty page went before.
const EMPTY: char = '.';

pub enum Operation {
    List { id: SnapshotId, page: Page },
    Changed { first: Option<SnapshotId>, second: SnapshotId, page: Page },
    Block { id: SnapshotId, index: u64, token: String },
}

/// Which part of a list is wanted.
pub struct Page {
    size: usize,
    /// The first block.
    start: u64,
    token: Option<String>,
}

fn snapshot_id(text: &str) -> Result<SnapshotId, Ec2Error> {
    SnapshotId::parse(text)
        .ok_or_else(|| invalid("INVALID_SNAPSHOT_ID", format!("The snapshot id '{text}' is not valid")))
}

/// The parameters of the query string, each taken once.
struct Query(std::collections::BTreeMap<String, String>);

impl Query {
    fn read(call: &Call) -> Self {
        let query = call.uri.query().unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes()).into_owned();
        Self(pairs.filter(|(name, _)| !name.starts_with("X-Amz-")).collect())
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    fn number(&mut self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Ec2Error> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse::<u64>().ok().filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(invalid("INVALID_PARAMETER_VALUE", format!("{name}: {text} is not valid"))),
        }
    }

    fn finish(self) -> Result<(), Ec2Error> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(invalid("INVALID_PARAMETER_VALUE", format!("{name} is not known"))),
        }
    }

    fn page(&mut self) -> Result<Page, Ec2Error> {
        Ok(Page {
            size: self
                .number("maxResults", 100, 10_000)?
                .map_or(10_000, |n| usize::try_from(n).unwrap_or(10_000)),
            start: self.number("startingBlockIndex", 0, u64::MAX)?.unwrap_or(0),
            token: self.text("pageToken"),
        })
    }
}

impl Operation {
    pub fn parse(call: &Call) -> Result<Self, Ec2Error> {
        let id = snapshot_id(&part(call, 2))?;
        let mut query = Query::read(call);
        let operation = match part(call, 3).as_str() {
            "changedblocks" => {
                let first = query.text("firstSnapshotId").map(|text| snapshot_id(&text)).transpose()?;
                Self::Changed { first, second: id, page: query.page()? }
            }
            _ => match part(call, 4).as_str() {
                "" => Self::List { id, page: query.page()? },
                index => {
                    let index = index.parse().map_err(|_| {
                        invalid("INVALID_PARAMETER_VALUE", format!("BlockIndex: {index} is not valid"))
                    })?;
                    let token = query.text("blockToken");
                    let token =
                        token.ok_or_else(|| invalid("INVALID_PARAMETER_VALUE", "blockToken is required"))?;
                    Self::Block { id, index, token }
                }
            },
        };
        query.finish()?;
        Ok(operation)
    }

    pub fn needs(&self, action: &'static str, world: &World) -> Vec<Need> {
        let ids = match self {
            Self::List { id, .. } | Self::Block { id, .. } => vec![id],
            Self::Changed { first, second, .. } => first.iter().chain([second]).collect(),
        };
        ids.into_iter().map(|id| Need::on(action, world, &format!("snapshot/{id}"))).collect()
    }

    pub async fn act(self, context: &Context) -> Result<Done, Ec2Error> {
        match self {
            Self::List { id, page } => {
                let gib = readable(context, &id)?.size_gib;
                let lists = blocks_of(context, &[&id]).await?;
                let all: Vec<Value> = lists[0]
                    .iter()
                    .map(|index| json!({ "BlockIndex": index, "BlockToken": block_token(context, &id, *index) }))
                    .collect();
                answer(context, "Blocks", all, &page, &id.to_string(), gib)
            }
            Self::Changed { first, second, page } => {
                let snapshot = readable(context, &second)?;
                let gib = snapshot.size_gib;
                if let Some(first) = &first {
                    let first = readable(context, first)?;
                    if first.lineage() != snapshot.lineage() {
                        return Err(invalid(
                            "UNRELATED_SNAPSHOTS",
                            "The specified snapshots do not belong to the same snapshot lineage",
                        ));
                    }
                }
                let ids: Vec<&SnapshotId> = first.iter().chain([&second]).collect();
                let changed = changed_blocks(context, &ids).await?;
                let all: Vec<Value> = changed
                    .into_iter()
                    .map(|changed| {
                        let mut shown = json!({ "BlockIndex": changed.index });
                        let token = |id| Value::from(block_token(context, id, changed.index));
                        if let Some(first) = first.as_ref().filter(|_| changed.in_first) {
                            shown["FirstBlockToken"] = token(first);
                        }
                        if changed.in_second {
                            shown["SecondBlockToken"] = token(&second);
                        }
                        shown
                    })
                    .collect();
                let of = ids.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(" ");
                answer(context, "ChangedBlocks", all, &page, &of, gib)
            }
            Self::Block { id, index, token } => {
                let snapshot = readable(context, &id)?;
                if !token::is_good(&token, &block_subject(&id, index), context.now) {
                    return Err(invalid(
                        "INVALID_BLOCK_TOKEN",
                        "The block token is not valid or has expired",
                    ));
                }
                if index >= snapshot.size_bytes.div_ceil(BLOCK) {
                    return Err(invalid("INVALID_BLOCK", format!("The snapshot has no block {index}")));
                }
                let data = match snapshot.image {
                    Some(image) => read_block(image, index).await?,
                    None => vec![0; BLOCK as usize],
                };
                // What was read of an image that is being freed would be wrong.
                readable(context, &id)?;
                let checksum = STANDARD.encode(Sha256::digest(&data));
                Ok(Done {
                    status: 200,
                    content_type: "application/octet-stream",
                    headers: vec![
                        ("x-amz-data-length", data.len().to_string()),
                        ("x-amz-checksum", checksum),
                        ("x-amz-checksum-algorithm", "SHA256".into()),
                    ],
                    body: Bytes::from(data),
                })
            }
        }
    }
}

/// A snapshot whose blocks can be read by the caller.
fn readable(context: &Context, id: &SnapshotId) -> Result<Snapshot, Ec2Error> {
    let world = context.sim.world();
    let now = context.now;
    let missing = || {
        let text = format!("The snapshot '{id}' does not exist.");
        Ec2Error::new("ResourceNotFoundException/SNAPSHOT_NOT_FOUND", text).status(404)
    };
    let snapshot = world.snapshot(context.region(), id).ok_or_else(missing)?;
    let is_shared = || snapshot.shared(now).is_some_and(|shared| shared.users.contains(&context.account));
    if snapshot.owner != context.account && !is_shared() {
        if world.can_use(snapshot, &context.account, now) {
            return Err(Ec2Error::new(
                "AccessDeniedException/UNAUTHORIZED_ACCOUNT",
                "Public snapshots cannot be read with the EBS direct APIs",
            )
            .status(403));
        }
        return Err(missing());
    }
    let wait = world.scenario.snapshots.readable_after;
    let from = snapshot.completion().checked_add(wait).unwrap_or(Timestamp::MAX);
    if snapshot.state(now) != "completed" || now < from {
        return Err(missing());
    }
    if snapshot.is_archived(now) {
        return Err(invalid("INVALID_SNAPSHOT_ID", format!("The snapshot '{id}' is archived")));
    }
    if !can_decrypt(&world, &snapshot.region, snapshot.kms_key_id.as_deref()) {
        let text = "The key of the snapshot cannot be used";
        return Err(Ec2Error::new("AccessDeniedException/DEPENDENCY_ACCESS_DENIED", text).status(403));
    }
    Ok(snapshot.clone())
}

/// One page of a list whose entries are in the order of their blocks.
fn answer(
    context: &Context,
    name: &str,
    all: Vec<Value>,
    page: &Page,
    of: &str,
    gib: u64,
) -> Result<Done, Ec2Error> {
    let subject = format!("page {name} {of}");
    let said = page.token.as_ref().map(|token| token::open(token, &subject, context.now).unwrap_or_default());
    let (after_empty, said) = match said {
        None => (false, None),
        Some(said) => (said.starts_with(EMPTY), Some(said.trim_start_matches(EMPTY).to_owned())),
    };
    let start = match said {
        None => page.start,
        Some(text) => text
            .parse()
            .ok()
            .ok_or_else(|| invalid("INVALID_PAGE_TOKEN", "The page token is not valid or has expired"))?,
    };
    let end = context.now.checked_add(PAGE_TOKEN).unwrap_or(Timestamp::MAX);
    let expiry = context.now.checked_add(BLOCK_TOKEN).unwrap_or(Timestamp::MAX);
    let mut body = json!({
        "ExpiryTime": expiry.as_second(),
        "VolumeSize": gib,
        "BlockSize": BLOCK,
    });
    if context.sim.world().scenario.limits.empty_pages && !after_empty {
        body[name] = json!([]);
        body["NextToken"] = token::seal(&subject, &format!("{EMPTY}{start}"), end).into();
        return Ok(Done::json(200, &body));
    }
    let index = |entry: &Value| entry["BlockIndex"].as_u64().unwrap_or_default();
    let mut rest = all.into_iter().skip_while(|entry| index(entry) < start);
    let shown: Vec<Value> = rest.by_ref().take(page.size).collect();
    body[name] = shown.into();
    if let Some(following) = rest.next() {
        body["NextToken"] = token::seal(&subject, &index(&following).to_string(), end).into();
    }
    Ok(Done::json(200, &body))
}

fn block_subject(id: &SnapshotId, index: u64) -> String {
    format!("block {id} {index}")
}

fn block_token(context: &Context, id: &SnapshotId, index: u64) -> String {
    let end = context.now.checked_add(BLOCK_TOKEN).unwrap_or(Timestamp::MAX);
    token::seal(&block_subject(id, index), "", end)
}

fn images(sim: &Sim, ids: &[&SnapshotId]) -> Vec<Option<Image>> {
    let world = sim.world();
    ids.iter().map(|id| world.snapshots.get(id).and_then(|snapshot| snapshot.image.clone())).collect()
}

async fn blocks_of(context: &Context, ids: &[&SnapshotId]) -> Result<Vec<Vec<u64>>, Ec2Error> {
    let images = images(&context.sim, ids);
    blocking(move || images.iter().map(|image| blocks::written(image.as_ref())).collect()).await
}

async fn changed_blocks(context: &Context, ids: &[&SnapshotId]) -> Result<Vec<blocks::Changed>, Ec2Error> {
    let images = images(&context.sim, ids);
    blocking(move || match images.as_slice() {
        [first, second] => blocks::changed(first.as_ref(), second.as_ref()),
        _ => blocks::changed(None, images.first().and_then(Option::as_ref)),
    })
    .await
}

async fn read_block(image: Image, index: u64) -> Result<Vec<u8>, Ec2Error> {
    blocking(move || blocks::read(&image, index)).await
}

/// Disk work beside the servers.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crate::host::Error> + Send + 'static,
) -> Result<T, Ec2Error> {
    let done = tokio::task::spawn_blocking(work).await;
    match done {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            tracing::error!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
            Err(Ec2Error::internal())
        }
        Err(error) => {
            tracing::error!("{error}");
            Err(Ec2Error::internal())
        }
    }
}
