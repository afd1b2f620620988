//! An image is registered, waited for, and compared with what it should be.
//!
//! ```text
//! look for the name ─┬ another image's ──▶ refused, nothing is made
//!                    ├ this set's ────────────────────────────────────────────────┐
//!                    └ nobody's ─▶ RegisterImage ─┬ an id ────────────────────────┤
//!                           ▲                     ├ the name is taken ─▶ whose?   ├▶ wait ─▶ compare ─┬ good: tagged
//!                           └ not shown for 30 s ─┴ no answer ─▶ look for the name┘                   ├ differs: told
//!                                                                                   another price ────┴▶ deregistered
//! ```
//!
//! RegisterImage has no client token. EC2 gives a name only once in an account and a Region, so a second call makes no
//! second image; and what an unanswered call has made is found by its name and its tags.
//!
//! In: a plan, EC2. Out: [`Made`]. Must never: give another image for the set's own, or leave one registered whose
//! instances cost something else.

use std::time::Duration;

use super::compare::{Difference, compare};
use super::ours::stranger;
use super::plan::ImagePlan;
use crate::clock::Clock;
use crate::ec2::Ec2Error;
use crate::ec2::images::{COMPARED_TAG, ImageView, Images, WhichImages};
use crate::ec2::repeat::Repeating;
use crate::ids::ImageId;
use crate::interrupt::Interrupt;
use crate::path_encoding::printable;
use crate::restore::make::Stopped;

/// The first pause between two looks, and the longest.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(10);
/// For so long an unanswered call's image is looked for by its name.
const UNSURE: Duration = Duration::from_secs(30);
/// For so long EC2 may not show what it has made (EC2 guide, "eventual consistency").
const UNSEEN: Duration = Duration::from_secs(120);
/// An image of completed snapshots has nothing to copy: EC2 has it available in seconds.
const LIMIT: Duration = Duration::from_secs(1800);

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The image, as it was seen last.
    pub image: ImageView,
    /// It was there already.
    pub there: bool,
    /// What is not as it should be.
    pub differences: Vec<Difference>,
    /// It was taken back, because its instances would cost something else.
    pub discarded: bool,
}

/// Whoever makes one: EC2, the time, signals.
pub struct Making<'a, E> {
    /// EC2 in the Region of the set.
    pub ec2: &'a Repeating<'a, E>,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Signals.
    pub interrupt: &'a Interrupt,
    /// Until it can be launched; else until it is registered.
    pub wait: bool,
    /// Told each change, in one line.
    pub tell: &'a dyn Fn(&str),
}

/// What a RegisterImage came to that EC2 has not simply refused.
enum Said {
    Made(ImageId),
    Taken(Ec2Error),
    Unknown(Ec2Error),
}

impl<E: Images> Making<'_, E> {
    fn interrupted(&self) -> Result<(), Stopped> {
        self.interrupt.pending().map_or(Ok(()), |signal| Err(Stopped::Signal(signal)))
    }

    /// The image that has the plan's name already, if it is this set's.
    ///
    /// # Errors
    /// When another image has the name, or EC2 does not say.
    pub async fn existing(&self, plan: &ImagePlan) -> Result<Option<ImageView>, Stopped> {
        let which = WhichImages::Named(plan.request.name.clone());
        let asked = async || self.ec2.inner().own_images(&which).await;
        let found = self.ec2.call("DescribeImages", asked).await?;
        // In a filter, some characters stand for others.
        let Some(image) = found.into_iter().find(|i| i.name == plan.request.name) else { return Ok(None) };
        let snapshots = plan.request.mappings.iter().filter_map(|m| m.snapshot.as_ref());
        match stranger(&image, &plan.set, snapshots) {
            None => Ok(Some(image)),
            Some(why) => Err(Stopped::Here(format!(
                "the name `{}` is that of {}, another image ({why})",
                plan.request.name, image.id
            ))),
        }
    }

    /// Makes it, where it is not there yet.
    ///
    /// # Errors
    /// When EC2 refuses, the name is another image's, or a signal came. What was registered stays, and is found by its
    /// name the next time.
    pub async fn make(&self, plan: &ImagePlan) -> Result<Made, Stopped> {
        self.interrupted()?;
        let found = self.existing(plan).await?;
        let there = found.is_some();
        let id = match &found {
            Some(image) => image.id.clone(),
            None => self.register(plan).await?,
        };
        if let Some(image) = found.filter(|i| i.tag(COMPARED_TAG).is_some() || i.state == "disabled") {
            return Ok(Made { image, there, differences: Vec::new(), discarded: false });
        }
        if !there {
            (self.tell)(&format!("{id} is registered"));
        }
        let image = self.until_shown(&id).await?;
        if !self.wait && image.state == "pending" {
            return Ok(Made { image, there, differences: Vec::new(), discarded: false });
        }
        let image = self.until_available(image).await?;
        let differences = compare(plan, &image);
        // Somebody may use an old one by now: that is told, and nothing is taken away.
        let age = image.created.map(|t| self.clock.now().duration_since(t));
        let new = !there || age.is_some_and(|age| age < jiff::SignedDuration::from_hours(1));
        let discarded = new && differences.iter().any(|d| d.billing);
        if discarded {
            self.discard(&id).await?;
        } else if differences.is_empty() {
            let tag =
                [(COMPARED_TAG.to_owned(), self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string())];
            self.ec2.call("CreateTags", async || self.ec2.inner().label_image(&id, &tag).await).await?;
        }
        Ok(Made { image, there, differences, discarded })
    }

    async fn discard(&self, id: &ImageId) -> Result<(), Stopped> {
        let off = async || self.ec2.inner().deregister(id, false).await;
        self.ec2.call("DeregisterImage", off).await?;
        (self.tell)(&format!("{id} is deregistered: its instances would cost something else"));
        Ok(())
    }

    /// RegisterImage, and what came of it where no answer came.
    async fn register(&self, plan: &ImagePlan) -> Result<ImageId, Stopped> {
        let mut last = None;
        for _ in 0..2 {
            self.interrupted()?;
            let (error, limit) = match self.asked(plan).await? {
                Said::Made(id) => return Ok(id),
                Said::Taken(e) => (e, UNSEEN),
                Said::Unknown(e) => {
                    (self.tell)(&format!("{e}; looking for it by its name"));
                    (e, UNSURE)
                }
            };
            if let Some(image) = self.look_for(plan, limit).await? {
                return Ok(image.id);
            }
            let taken = !error.outcome_unknown();
            last = Some(error);
            if taken {
                break;
            }
        }
        Err(last.map_or_else(|| Stopped::Here("it was not registered".to_owned()), Stopped::Ec2))
    }

    /// One RegisterImage. What EC2 has not carried out is repeated, such as a throttled one.
    async fn asked(&self, plan: &ImagePlan) -> Result<Said, Stopped> {
        let call = async || match self.ec2.inner().register(&plan.request).await {
            Ok(id) => Ok(Said::Made(id)),
            Err(e) if e.outcome_unknown() => Ok(Said::Unknown(e)),
            Err(e) if is_taken(&e) => Ok(Said::Taken(e)),
            Err(e) => Err(e),
        };
        Ok(self.ec2.call("RegisterImage", call).await?)
    }

    async fn look_for(&self, plan: &ImagePlan, limit: Duration) -> Result<Option<ImageView>, Stopped> {
        let end = self.clock.elapsed() + limit;
        let mut pause = FIRST;
        loop {
            self.interrupted()?;
            if let Some(image) = self.existing(plan).await? {
                return Ok(Some(image));
            }
            if self.clock.elapsed() >= end {
                return Ok(None);
            }
            self.clock.pause(pause).await;
            pause = (pause * 2).min(LONGEST);
        }
    }

    async fn look(&self, id: &ImageId) -> Result<Option<ImageView>, Stopped> {
        self.interrupted()?;
        let which = WhichImages::Ids(vec![id.clone()]);
        let asked = async || self.ec2.inner().own_images(&which).await;
        let found = self.ec2.call("DescribeImages", asked).await?;
        Ok(found.into_iter().find(|i| i.id == *id))
    }

    async fn until_shown(&self, id: &ImageId) -> Result<ImageView, Stopped> {
        let end = self.clock.elapsed() + UNSEEN;
        let mut pause = FIRST;
        loop {
            if let Some(image) = self.look(id).await? {
                return Ok(image);
            }
            if self.clock.elapsed() >= end {
                let minutes = UNSEEN.as_secs() / 60;
                return Err(Stopped::Here(format!(
                    "{id} is registered, and EC2 does not show it for {minutes} min"
                )));
            }
            self.clock.pause(pause).await;
            pause = (pause * 2).min(LONGEST);
        }
    }

    async fn until_available(&self, mut image: ImageView) -> Result<ImageView, Stopped> {
        let end = self.clock.elapsed() + LIMIT;
        let mut pause = FIRST;
        loop {
            let why = image.reason.as_deref().map_or("EC2 gives no reason".into(), printable).into_owned();
            match image.state.as_str() {
                "available" => return Ok(image),
                "pending" if self.clock.elapsed() < end => {}
                "pending" => {
                    let minutes = LIMIT.as_secs() / 60;
                    return Err(Stopped::Here(format!("{} is still pending after {minutes} min", image.id)));
                }
                state => return Err(Stopped::Here(format!("{} is {}: {why}", image.id, printable(state)))),
            }
            self.clock.pause(pause).await;
            pause = (pause * 2).min(LONGEST);
            let gone = || Stopped::Here(format!("{} is gone: somebody has deregistered it", image.id));
            image = match self.look(&image.id).await? {
                Some(image) => image,
                None => return Err(gone()),
            };
        }
    }
}

fn is_taken(error: &Ec2Error) -> bool {
    matches!(error, Ec2Error::Refused { code, .. } if code == "InvalidAMIName.Duplicate")
}

#[cfg(test)]
#[path = "make_tests.rs"]
mod tests;
