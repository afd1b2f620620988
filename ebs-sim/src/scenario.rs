//! What to simulate: the scenario file and the `--volume` arguments.
//!
//! In: TOML and text from the user. Out: a [`Scenario`] whose every value makes sense together. An
//! unknown key must never be ignored, and nothing is touched on the host before this has passed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

mod account;
mod bin;
mod bucket;
mod endpoint;
mod instance;
mod key;
mod limits;
mod snapshots;
mod volume;

pub use account::{Account, is_account};
pub use bin::{MAX_DAYS as MAX_BIN_DAYS, MAX_EXCLUDED, MAX_TAGS as MAX_BIN_TAGS, RecycleBin};
pub use bucket::Bucket;
pub use endpoint::{Endpoint, Log};
pub use instance::{Imds, Instance, LINUX};
pub use key::{KeySpec, KeyState};
pub use limits::Limits;
pub use snapshots::Snapshots;
pub use volume::{VolumeKind, VolumeSpec, Volumes};

use serde::{Deserialize, Serialize};

use crate::faults::Fault;
use crate::ids::ImageId;
use crate::policy::Policy;
use crate::units::MIB;

/// A scenario that cannot be simulated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the scenario {}", path.display())]
    Read {
        /// The scenario file.
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}", path.display())]
    Parse {
        /// The scenario file and the line in it.
        path: PathBuf,
        #[source]
        source: Boxed,
    },
    #[error("{0}")]
    Fault(String),
    #[error("{0}")]
    Policy(String),
    #[error("{0}")]
    Wrong(String),
}

/// A TOML error, kept behind a pointer because it is large. It prints as nothing more than its cause.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message())]
pub struct Boxed(Box<toml::de::Error>);

impl Error {
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Read { .. } => None,
            Error::Fault(_) => Some("kinds and keys of faults are listed in ebs-sim's README".into()),
            Error::Policy(_) => Some("what is understood of policies is listed in ebs-sim's README".into()),
            Error::Parse { .. } => Some("the keys are listed in ebs-sim's README".into()),
            Error::Wrong(_) => Some(
                "a volume is \
                 name=data,size=1GiB[,device=/dev/sdf][,type=gp3][,kind=nvme|xen|instance-store][,boot]"
                    .into(),
            ),
        }
    }
}

/// Everything that can be chosen about a simulated instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// Regions that answer besides the instance's: to copy to.
    pub other_regions: Vec<String>,
    pub instance: Instance,
    /// How its metadata service behaves.
    pub imds: Imds,
    /// What its role may not do.
    pub iam: Iam,
    /// How snapshots progress.
    pub snapshots: Snapshots,
    /// What is kept of those that are deleted.
    pub recycle_bin: RecycleBin,
    /// EC2's limits.
    pub limits: Limits,
    /// Other accounts.
    #[serde(rename = "account")]
    pub accounts: Vec<Account>,
    /// KMS keys besides every Region's default one.
    #[serde(rename = "kms_key")]
    pub kms_keys: Vec<KeySpec>,
    /// How long what happens to volumes takes.
    #[serde(rename = "volumes")]
    pub volume_times: Volumes,
    /// How EC2 is reached.
    pub endpoint: Endpoint,
    /// How much of what was asked is remembered.
    pub log: Log,
    /// Its volumes, in the order of attachment.
    #[serde(rename = "volume")]
    pub volumes: Vec<VolumeSpec>,
    /// What goes wrong.
    #[serde(rename = "fault")]
    pub faults: Vec<Fault>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            other_regions: vec!["us-west-2".into(), "eu-central-1".into()],
            instance: Instance::default(),
            imds: Imds::default(),
            iam: Iam::default(),
            snapshots: Snapshots::default(),
            recycle_bin: RecycleBin::default(),
            limits: Limits::default(),
            accounts: Vec::new(),
            kms_keys: Vec::new(),
            volume_times: Volumes::default(),
            endpoint: Endpoint::default(),
            log: Log::default(),
            volumes: Vec::new(),
            faults: Vec::new(),
        }
    }
}

/// `[iam]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Iam {
    /// Actions that are refused; `*` and `?` are wildcards.
    pub deny: Vec<String>,
    /// What is allowed, as an identity-based policy says it; everything when absent. JSON, or in the file the
    /// path of a file with it, seen from the scenario's: `load` reads that.
    pub policy: Option<String>,
}

impl Iam {
    /// The policy. One that cannot be read, which `load` has refused, would allow nothing.
    pub fn policy(&self) -> Option<Policy> {
        self.policy.as_deref().map(|text| Policy::parse(text).unwrap_or_default())
    }
}

impl Scenario {
    /// Reads the file, adds the volumes of the command line, and checks the whole.
    pub fn load(file: Option<&Path>, volumes: &[VolumeSpec]) -> Result<Self, Error> {
        let mut scenario = match file {
            None => Scenario::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| Error::Read { path: path.to_owned(), source })?;
                Self::parse(&text).map_err(|error| located(path, &text, error))?
            }
        };
        scenario.volumes.extend_from_slice(volumes);
        if let Some(named) = &scenario.iam.policy {
            let policy = Policy::load(named, file.and_then(Path::parent)).map_err(Error::Policy)?;
            scenario.iam.policy = Some(policy.into());
        }
        scenario.check()?;
        Ok(scenario)
    }

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |text: String| Err(Error::Wrong(text));
        if self.volumes.is_empty() {
            return wrong("there is no volume to simulate".into());
        }
        let mut names = BTreeSet::new();
        let mut ids = BTreeSet::new();
        let mut devices = BTreeSet::new();
        for volume in &self.volumes {
            let name = &volume.name;
            if name.is_empty() || !names.insert(name) {
                return wrong(format!("two volumes are named {name:?}, or the name is empty"));
            }
            if volume.id.as_ref().is_some_and(|id| !ids.insert(id)) {
                return wrong(format!("volume {name}: its id is used twice"));
            }
            if volume.device.as_ref().is_some_and(|device| !devices.insert(device)) {
                return wrong(format!("volume {name}: its device name is used twice"));
            }
            if volume.size.0 == 0 || volume.size.0 % MIB != 0 {
                return wrong(format!("volume {name}: its size is not a multiple of 1 MiB"));
            }
            if volume.boot && volume.detached {
                return wrong(format!("volume {name}: the root volume cannot be detached"));
            }
            if volume.boot && volume.kind == VolumeKind::InstanceStore {
                return wrong(format!("volume {name}: an instance-store disk cannot be the root volume"));
            }
        }
        if self.volumes.iter().filter(|v| v.boot).count() > 1 {
            return wrong("two volumes are marked boot".into());
        }
        let seconds = self.snapshots.seconds_to_complete;
        if !(0.0..=1e6).contains(&seconds) {
            return wrong(format!("snapshots.seconds_to_complete = {seconds} makes no sense"));
        }
        for (key, seconds) in self.volume_times.all_seconds() {
            if !(0.0..=1e6).contains(&seconds) {
                return wrong(format!("volumes.seconds_to_{key} = {seconds} makes no sense"));
            }
        }
        if self.other_regions.contains(&self.instance.region) {
            return wrong(format!(
                "other_regions holds {}, which is the instance's own",
                self.instance.region
            ));
        }
        let known =
            |region: &&String| **region == self.instance.region || self.other_regions.contains(*region);
        if let Some(region) = self.volume_times.encrypted_by_default.iter().find(|region| !known(region)) {
            return wrong(format!(
                "volumes.encrypted_by_default holds {region}, which is neither the instance's Region nor in other_regions"
            ));
        }
        if ImageId::parse(&self.instance.image_id).is_none() {
            return wrong(format!(
                "instance.image_id = {:?} is not an id such as ami-0abcdef1234567890",
                self.instance.image_id
            ));
        }
        let boots = |mode: &str| ["legacy-bios", "uefi", "uefi-preferred"].contains(&mode);
        let of_image = self.instance.boot_mode.as_deref().unwrap_or("uefi");
        if !boots(of_image) || !boots(&self.instance.current_boot_mode) {
            return wrong(
                "instance.boot_mode and current_boot_mode are legacy-bios, uefi or uefi-preferred".into(),
            );
        }
        let regions: Vec<&str> =
            std::iter::once(&self.instance.region).chain(&self.other_regions).map(String::as_str).collect();
        if let Some(problem) = self.recycle_bin.problem(&regions) {
            return wrong(problem);
        }
        let mut accounts = BTreeSet::from([self.instance.account_id.as_str()]);
        for account in &self.accounts {
            if !is_account(&account.id) || !accounts.insert(&account.id) {
                return wrong(format!(
                    "account {:?}: its id is not 12 digits, or is there twice",
                    account.id
                ));
            }
        }
        if let Some(problem) = self.kms_keys.iter().find_map(|key| key.problem(&regions)) {
            return wrong(problem);
        }
        let mut buckets = self.limits.bucket.iter();
        if let Some((action, _)) = buckets.find(|(_, bucket)| !bucket.makes_sense()) {
            return wrong(format!("limits.bucket.{action}: size is at least 1, refill at least 0"));
        }
        if !(1..=64).contains(&self.imds.hop_limit) {
            return wrong(format!("imds.hop_limit = {} is not between 1 and 64", self.imds.hop_limit));
        }
        if self.log.keep == 0 {
            return wrong("log.keep = 0 would forget requests while they are handled".into());
        }
        for fault in &self.faults {
            fault.check().map_err(Error::Fault)?;
        }
        if self.limits.page_size == 0 {
            return wrong("limits.page_size = 0 would never end".into());
        }
        Ok(())
    }
}

/// Puts the line into the message: TOML's own text spreads over several lines.
fn located(path: &Path, text: &str, error: toml::de::Error) -> Error {
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let shown = match line {
        Some(line) => PathBuf::from(format!("{}:{line}", path.display())),
        None => path.to_owned(),
    };
    Error::Parse { path: shown, source: Boxed(Box::new(error)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_name_file_and_line() {
        let text = "[instance]\nregion = 'eu-west-1'\ncolour = 'red'\n";
        let error = Scenario::parse(text).expect_err("an unknown key");
        let Error::Parse { path, source } = located(Path::new("s.toml"), text, error) else {
            panic!("another error");
        };
        assert_eq!(path, Path::new("s.toml:3"));
        assert!(source.to_string().starts_with("unknown field `colour`"), "{source}");
    }

    /// The README shows every key with its default.
    #[test]
    fn the_scenario_in_the_readme_is_the_default_one() {
        let readme = include_str!("../README.md");
        let text = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("TOML");
        let id = "i-0123456789abcdef0";
        let mut shown = Scenario::parse(&text.replace("i-…", id)).expect("a scenario");
        shown.check().expect("it makes sense");
        let mut default = Scenario::default();
        default.instance.id = shown.instance.id.clone();
        default.instance.availability_zone = Some(default.instance.zone());
        default.instance.root_device_name = Some("/dev/xvda".into());
        default.instance.boot_mode = Some(default.instance.boot_mode());
        shown.volumes.clear();
        shown.faults.clear();
        shown.kms_keys.clear();
        shown.accounts.clear();
        shown.recycle_bin.rules.clear();
        shown.limits.bucket.clear();
        assert_eq!(format!("{shown:?}"), format!("{default:?}"));
    }

    #[test]
    fn scenarios_that_make_no_sense_are_refused() {
        let load = |text: &str| Scenario::parse(text).map(|s| s.check().is_ok());
        let volume = |extra: &str| format!("[[volume]]\nname='a'\nsize='1MiB'\n{extra}\n");
        assert_eq!(load(""), Ok(false));
        assert_eq!(load(&volume("")), Ok(true));
        assert_eq!(load(&format!("{}{}", volume(""), volume(""))), Ok(false));
        assert_eq!(load(&format!("{}[[fault]]\naction='*'\nkind='hang'", volume(""))), Ok(true));
        assert_eq!(load(&format!("{}[[fault]]\naction='*'\nkind='clock-skew'", volume(""))), Ok(false));
        assert_eq!(load(&format!("{}[imds]\nhop_limit=0", volume(""))), Ok(false));
        assert_eq!(load(&volume("boot=true\nkind='instance-store'")), Ok(false));
        assert_eq!(load(&format!("{}[instance]\nboot_mode='bios'", volume(""))), Ok(false));
        assert!(load(&volume("kind='tape'")).is_err());
    }
}
