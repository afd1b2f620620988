//! Who else may use the snapshots of a set.
//!
//! ```text
//! look ─▶ add to each member, encrypted ones first ─▶ Shared
//!  │ cannot be shared   │ default key
//!  ▼                    ▼
//! nothing changed   what was added is taken back
//! ```
//!
//! In: a set, accounts. Out: what became of each member. Must never: share a snapshot whose tags do not say clearly
//! that it is of this set, or take away a permission that it has not added.

use super::guard::{Refusal, unclear};
use super::set::SnapshotSet;
use crate::ec2::keep::{EVERYBODY, Keep, MOST_CHANGES, Permission};
use crate::ec2::repeat::Repeating;
use crate::ec2::{Ec2Error, TaggedSnapshot};
use crate::ids::SnapshotId;

/// One member, and whom its permissions are changed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The snapshot.
    pub id: SnapshotId,
    /// Accounts, or [`EVERYBODY`]; empty when nothing has to be changed.
    pub who: Vec<String>,
}

/// What became of one member.
pub type Outcome = (Step, Result<(), Ec2Error>);

/// What became of the members.
#[derive(Debug)]
pub enum Shared {
    /// Each was tried.
    Tried(Vec<Outcome>),
    /// This one has the account's default key. What was added to others before is taken back, as far as it went.
    DefaultKey(SnapshotId, Vec<Outcome>),
}

/// What cannot be shared with these, before anything is changed. `blocked`: the state of block public access, if it
/// was asked.
#[must_use]
pub fn refusal(
    set: &SnapshotSet,
    members: &[TaggedSnapshot],
    with: &[String],
    blocked: Option<&str>,
) -> Option<Refusal> {
    let no = |what: String, hint| Some(Refusal::new(what, hint));
    let public = with.iter().any(|w| w == EVERYBODY);
    if let Some(refusal) = unclear(set) {
        return Some(refusal);
    }
    let id = |s: &TaggedSnapshot| s.view.id.clone();
    if let Some(s) = members.iter().find(|s| s.detail.archived) {
        return no(
            format!("{} is in the archive, from which nothing can be shared", id(s)),
            "restore it to the standard tier first (stillpoint tier --restore)",
        );
    }
    if let Some(s) = members.iter().find(|s| s.detail.owner.as_ref().is_some_and(|o| with.contains(o))) {
        let owner = s.detail.owner.clone().unwrap_or_default();
        return no(format!("{owner} owns {}", id(s)), "leave it out: the owner needs no permission");
    }
    if public && let Some(s) = members.iter().find(|s| s.detail.encrypted) {
        return no(
            format!("{} is encrypted, and EC2 makes nothing public that is", id(s)),
            "share it with accounts (--account)",
        );
    }
    // A state that is not known here counts as blocked.
    match blocked.filter(|b| public && *b != "unblocked") {
        Some(state) => no(
            format!("the account blocks public access to snapshots in {} ({state})", set.region),
            "share it with accounts (--account); or whoever administers the account ends the block",
        ),
        None => None,
    }
}

/// EC2's refusal of what the account's default key (`alias/aws/ebs`) has encrypted. It has the code of other refusals
/// too, so its words decide. No other call of EC2 says which key that is: GetEbsDefaultKmsKeyId gives the key that
/// new volumes get, which may be a customer's, and which can be shared.
fn is_default_key(error: &Ec2Error) -> bool {
    matches!(error, Ec2Error::Refused { code, message, .. }
        if code == "OperationNotPermitted" && message.to_ascii_lowercase().contains("default key"))
}

/// Who has to be added to each member: those that it is not shared with. Encrypted ones are first: if one of them
/// cannot be shared, the others are still as they were.
///
/// # Errors
/// When EC2 does not say who may use one of them.
pub async fn to_add<E: Keep>(
    ec2: &Repeating<'_, E>,
    members: &[TaggedSnapshot],
    with: &[String],
) -> Result<Vec<Step>, Ec2Error> {
    let (encrypted, plain): (Vec<_>, Vec<_>) = members.iter().partition(|s| s.detail.encrypted);
    let mut steps = Vec::new();
    for id in encrypted.into_iter().chain(plain).map(|s| &s.view.id) {
        let has = shared_with(ec2, id).await?;
        let who = with.iter().filter(|w| !has.contains(w)).cloned().collect();
        steps.push(Step { id: id.clone(), who });
    }
    Ok(steps)
}

/// Who has to be removed of each member: those of `from` that may use it, or all that may.
///
/// # Errors
/// When EC2 does not say who may use one of them.
pub async fn to_remove<E: Keep>(
    ec2: &Repeating<'_, E>,
    set: &SnapshotSet,
    from: Option<&[String]>,
) -> Result<Vec<Step>, Ec2Error> {
    let mut steps = Vec::new();
    for id in set.snapshots() {
        let mut who = shared_with(ec2, id).await?;
        who.retain(|w| from.is_none_or(|from| from.contains(w)));
        steps.push(Step { id: id.clone(), who });
    }
    Ok(steps)
}

async fn shared_with<E: Keep>(ec2: &Repeating<'_, E>, id: &SnapshotId) -> Result<Vec<String>, Ec2Error> {
    ec2.call("DescribeSnapshotAttribute", async || ec2.inner().shared_with(id).await).await
}

/// Changes the permissions of one member. Twice is as once.
async fn change<E: Keep>(ec2: &Repeating<'_, E>, step: &Step, how: Permission) -> Result<(), Ec2Error> {
    for some in step.who.chunks(MOST_CHANGES) {
        let permit = async || ec2.inner().permit(&step.id, how, some).await;
        ec2.call("ModifySnapshotAttribute", permit).await?;
    }
    Ok(())
}

/// Adds.
pub async fn share<E: Keep>(ec2: &Repeating<'_, E>, steps: Vec<Step>) -> Shared {
    let mut done: Vec<Outcome> = Vec::new();
    for step in steps {
        match change(ec2, &step, Permission::Add).await {
            Err(e) if is_default_key(&e) => {
                let added: Vec<Step> =
                    done.into_iter().filter(|d| !d.0.who.is_empty()).map(|d| d.0).collect();
                return Shared::DefaultKey(step.id, unshare(ec2, added).await);
            }
            said => done.push((step, said)),
        }
    }
    Shared::Tried(done)
}

/// Removes.
pub async fn unshare<E: Keep>(ec2: &Repeating<'_, E>, steps: Vec<Step>) -> Vec<Outcome> {
    let mut done = Vec::new();
    for step in steps {
        let said = change(ec2, &step, Permission::Remove).await;
        done.push((step, said));
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_key_is_known_by_ec2s_words_and_no_other_refusal_is_taken_for_it() {
        let refused = |code: &str, message: &str| Ec2Error::refused("ModifySnapshotAttribute", code, message);
        let words = "Encrypted snapshots with EBS default key cannot be shared";
        assert!(is_default_key(&refused("OperationNotPermitted", words)));
        assert!(!is_default_key(&refused("OperationNotPermitted", "Archived snapshots cannot be shared")));
        assert!(!is_default_key(&refused("UnauthorizedOperation", words)));
        assert!(!is_default_key(&Ec2Error::unknown("ModifySnapshotAttribute", words)));
    }
}
