//! Instances that were launched here, beside the scenario's.
//!
//! In: what RunInstances was asked for. Out: facts for the answers. It must never read the clock: `now` comes in.

use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Ami, Stage, Volume, World};
use crate::ids::InstanceId;

/// How long one that was terminated is still shown, as EC2 does.
const SHOWN: Duration = Duration::from_secs(3600);

/// An instance that was launched from an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launch {
    pub id: InstanceId,
    /// The image, as it was then.
    pub image: Ami,
    /// `m6i.large`
    pub kind: String,
    /// The Availability Zone.
    pub zone: String,
    pub at: Timestamp,
    /// `r-…`, which those of one request have in common.
    pub reservation: String,
    /// Which of its request's it is.
    pub index: usize,
    /// Which of all launches it is, from 1: its addresses go by it.
    pub number: u8,
    pub state: InstanceState,
    /// Why it ended: a code and a text.
    pub reason: Option<(String, String)>,
    pub ended: Option<Timestamp>,
    /// The client token that made it, and what else was asked for.
    pub token: Option<(String, String)>,
}

/// How far an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstanceState {
    /// Its volumes are being made.
    Pending,
    /// All of them are attached.
    Running,
    /// They go, or are detached.
    ShuttingDown,
    Terminated,
}

impl InstanceState {
    /// As EC2 writes it.
    pub fn code(self) -> u16 {
        match self {
            InstanceState::Pending => 0,
            InstanceState::Running => 16,
            InstanceState::ShuttingDown => 32,
            InstanceState::Terminated => 48,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            InstanceState::Pending => "pending",
            InstanceState::Running => "running",
            InstanceState::ShuttingDown => "shutting-down",
            InstanceState::Terminated => "terminated",
        }
    }

    /// Whether it has volumes.
    pub fn is_there(self) -> bool {
        matches!(self, InstanceState::Pending | InstanceState::Running)
    }
}

impl Launch {
    /// Where it is.
    pub fn region(&self) -> &str {
        &self.image.region
    }

    /// Its address, beside that of the scenario's instance.
    pub fn private_ip(&self, of_instance: Ipv4Addr) -> Ipv4Addr {
        let [a, b, c, d] = of_instance.octets();
        Ipv4Addr::new(a, b, c, d.wrapping_add(self.number))
    }

    /// Whether EC2 still shows it.
    pub fn is_shown(&self, now: Timestamp) -> bool {
        let until = self.ended.map(|ended| ended.checked_add(SHOWN).unwrap_or(Timestamp::MAX));
        until.is_none_or(|until| now < until)
    }

    /// The firmware that it was started by. None: its type's default.
    pub fn current_boot_mode(&self) -> &'static str {
        let arm = self.image.architecture == "arm64";
        match self.image.boot_mode.as_deref() {
            Some("uefi" | "uefi-preferred") => "uefi",
            None if arm => "uefi",
            _ => "legacy-bios",
        }
    }
}

/// How far the volumes of a launch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    NotYet,
    Ready,
    /// One could not be made.
    Failed,
}

impl World {
    /// An instance that was launched here, in this Region.
    pub fn launch(&self, region: &str, id: &InstanceId) -> Option<&Launch> {
        self.launches.iter().find(|launch| launch.id == *id && launch.region() == region)
    }

    pub fn launch_mut(&mut self, id: &InstanceId) -> Option<&mut Launch> {
        self.launches.iter_mut().find(|launch| launch.id == *id)
    }

    /// The instance that a volume is attached to.
    pub fn instance_of<'a>(&'a self, volume: &'a Volume) -> &'a InstanceId {
        volume
            .attachment
            .as_ref()
            .and_then(|attachment| attachment.instance.as_ref())
            .unwrap_or(self.instance_id())
    }

    /// The volumes that are attached to an instance.
    pub fn attached_to<'a>(&'a self, id: &'a InstanceId) -> impl Iterator<Item = &'a Volume> {
        self.ebs().filter(move |volume| volume.attachment.is_some() && self.instance_of(volume) == id)
    }

    /// Whether a volume is the root of the instance that it is attached to.
    pub fn is_root(&self, volume: &Volume) -> bool {
        let launched = volume.attachment.as_ref().and_then(|attachment| attachment.instance.as_ref());
        match launched.and_then(|id| self.launches.iter().find(|launch| launch.id == *id)) {
            Some(launch) => launch.image.root_device_name == volume.device_name,
            None => volume.boot,
        }
    }

    /// Whether the volumes of a launch can be attached.
    pub fn readiness(&self, id: &InstanceId) -> Readiness {
        let mut readiness = Readiness::Ready;
        for volume in self.attached_to(id) {
            match volume.stage {
                Stage::Ready => {}
                Stage::Creating => readiness = Readiness::NotYet,
                Stage::Deleting | Stage::Error => return Readiness::Failed,
            }
        }
        readiness
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    fn launch(image: Ami) -> Launch {
        Launch {
            id: InstanceId::random(),
            image,
            kind: "m6i.large".into(),
            zone: "us-east-1a".into(),
            at: Timestamp::UNIX_EPOCH,
            reservation: "r-0123456789abcdef0".into(),
            index: 0,
            number: 3,
            state: InstanceState::Pending,
            reason: None,
            ended: None,
            token: None,
        }
    }

    #[test]
    fn what_has_ended_is_shown_for_an_hour() {
        let mut launch = launch(Ami::of_instance(&Scenario::default(), Timestamp::UNIX_EPOCH));
        let at = |seconds| Timestamp::from_second(seconds).expect("in range");
        assert!(launch.is_shown(at(1_000_000)));
        launch.ended = Some(at(10));
        assert_eq!((launch.is_shown(at(3609)), launch.is_shown(at(3610))), (true, false));
        assert_eq!(launch.private_ip(Ipv4Addr::new(10, 0, 0, 10)), Ipv4Addr::new(10, 0, 0, 13));
    }

    #[test]
    fn an_image_without_a_boot_mode_boots_as_its_architecture_does() {
        let mut image = Ami::of_instance(&Scenario::default(), Timestamp::UNIX_EPOCH);
        let mut mode = |boot_mode: Option<&str>, architecture: &str| {
            (image.boot_mode, image.architecture) = (boot_mode.map(Into::into), architecture.into());
            launch(image.clone()).current_boot_mode()
        };
        assert_eq!(mode(None, "x86_64"), "legacy-bios");
        assert_eq!(mode(None, "arm64"), "uefi");
        assert_eq!(mode(Some("uefi-preferred"), "x86_64"), "uefi");
        assert_eq!(mode(Some("legacy-bios"), "x86_64"), "legacy-bios");
    }
}
