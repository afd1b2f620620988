//! One volume: a `[[volume]]` table or a `--volume` argument, which say the same.
//!
//! In: TOML, or `name=data,size=1GiB,…`. Out: a [`VolumeSpec`]. The two forms must never differ in what
//! they accept.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use crate::ids::VolumeId;
use crate::units::Bytes;

/// How a volume looks to the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeKind {
    /// An EBS volume on a Nitro instance.
    #[default]
    Nvme,
    /// An EBS volume on a Xen instance.
    Xen,
    /// An NVMe disk of the host, which EC2 does not know as a volume.
    InstanceStore,
}

/// `[volumes]`: how long what happens to volumes takes, and what the account does with each.
#[derive(Debug, Clone, serde::Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Volumes {
    /// How long a new volume is `creating`, at least.
    pub seconds_to_create: f64,
    /// How long an attachment is `attaching`, at least.
    pub seconds_to_attach: f64,
    /// Regions in which the account encrypts every new volume and copy.
    pub encrypted_by_default: Vec<String>,
    /// How long a volume that was made from a snapshot is initialised, unless its request names a rate.
    pub seconds_to_initialize: f64,
    /// How long a copy of a volume is.
    pub seconds_to_initialize_copy: f64,
    /// Bytes a second of what there is to initialise, which overrides both.
    pub initialization_rate: Option<Bytes>,
    /// How long the root volume's replacement takes once the new volume is there.
    pub seconds_to_replace_root: f64,
}

impl Default for Volumes {
    fn default() -> Self {
        Self {
            seconds_to_create: 1.0,
            seconds_to_attach: 0.5,
            seconds_to_initialize: 2.0,
            seconds_to_initialize_copy: 5.0,
            initialization_rate: None,
            seconds_to_replace_root: 0.5,
            encrypted_by_default: Vec::new(),
        }
    }
}

impl Volumes {
    /// The end of each key's name, with its seconds.
    pub fn all_seconds(&self) -> [(&'static str, f64); 5] {
        [
            ("create", self.seconds_to_create),
            ("attach", self.seconds_to_attach),
            ("initialize", self.seconds_to_initialize),
            ("initialize_copy", self.seconds_to_initialize_copy),
            ("replace_root", self.seconds_to_replace_root),
        ]
    }

    /// How long so many bytes of a snapshot take without a rate of their own.
    pub fn time_to_initialize(&self, bytes: u64) -> Duration {
        self.time(bytes, self.seconds_to_initialize)
    }

    /// How long so many bytes of a volume take.
    pub fn time_to_copy(&self, bytes: u64) -> Duration {
        self.time(bytes, self.seconds_to_initialize_copy)
    }

    fn time(&self, bytes: u64, seconds: f64) -> Duration {
        let seconds = match self.initialization_rate {
            Some(Bytes(rate)) if rate > 0 => bytes as f64 / rate as f64,
            _ => seconds,
        };
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }
}

/// `[[volume]]`, or one `--volume`.
#[derive(Debug, Clone, serde::Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeSpec {
    /// How scripts and `ebs-sim.json` call it.
    pub name: String,
    /// Its size, a multiple of 1 MiB.
    pub size: Bytes,
    /// Its id; random when absent.
    pub id: Option<VolumeId>,
    /// The attachment's device name; the next free one when absent.
    pub device: Option<String>,
    /// `gp3`, `io2` …
    #[serde(rename = "type", default = "gp3")]
    pub volume_type: String,
    /// How it looks to the instance.
    #[serde(default)]
    pub kind: VolumeKind,
    /// Whether it is the root volume.
    #[serde(default)]
    pub boot: bool,
    /// Whether EC2 reports it as encrypted; nothing is.
    #[serde(default)]
    pub encrypted: bool,
    /// Whether it starts out detached: it has no device until it is attached.
    #[serde(default)]
    pub detached: bool,
    /// Provisioned IOPS.
    pub iops: Option<u32>,
    /// Provisioned throughput in MiB/s.
    pub throughput: Option<u32>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

fn gp3() -> String {
    "gp3".into()
}

impl FromStr for VolumeSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut table = toml::Table::new();
        let mut tags = toml::Table::new();
        for part in text.split(',').map(str::trim) {
            let (key, value) = part.split_once('=').unwrap_or((part, "true"));
            let value = toml::Value::String(value.to_owned());
            let previous = if let Some(tag) = key.strip_prefix("tag:") {
                tags.insert(tag.to_owned(), value)
            } else {
                let value = match key {
                    "boot" | "encrypted" | "detached" => toml::Value::Boolean(value.as_str() == Some("true")),
                    "iops" | "throughput" => value
                        .as_str()
                        .and_then(|v| v.parse().ok())
                        .map(toml::Value::Integer)
                        .ok_or_else(|| format!("{part:?} is not a number"))?,
                    _ => value,
                };
                table.insert(key.to_owned(), value)
            };
            if previous.is_some() {
                return Err(format!("{key:?} is given twice"));
            }
        }
        table.insert("tags".into(), toml::Value::Table(tags));
        toml::Value::Table(table).try_into().map_err(|error: toml::de::Error| error.message().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_argument_reads_like_the_table() {
        let spec: VolumeSpec = "name=db,size=1GiB,device=/dev/sdf,type=io2,iops=3000,boot,tag:Name=db 1"
            .parse()
            .expect("a good spec");
        assert_eq!((spec.name.as_str(), spec.size.0), ("db", 1 << 30));
        assert_eq!(spec.device.as_deref(), Some("/dev/sdf"));
        assert_eq!((spec.iops, spec.boot), (Some(3000), true));
        assert_eq!(spec.tags["Name"], "db 1");
        for bad in ["", "name=a", "name=a,size=1", "name=a,size=1GiB,colour=red", "name=a,name=b,size=1GiB"] {
            assert!(bad.parse::<VolumeSpec>().is_err(), "{bad}");
        }
    }
}
