//! `[instance]` and `[imds]`: who the instance is, and how it learns it.
//!
//! In: TOML. Out: settings with their defaults. A default must never be what no instance could have.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::InstanceId;

/// How Linux without a price is billed: PlatformDetails and UsageOperation.
pub const LINUX: (&str, &str) = ("Linux/UNIX", "RunInstances");

/// `[instance]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Instance {
    pub id: InstanceId,
    /// Its type, such as `m6i.large`.
    #[serde(rename = "type")]
    pub instance_type: String,
    /// The AMI it was launched from.
    pub image_id: String,
    pub region: String,
    /// Its Availability Zone; the Region's first when absent.
    pub availability_zone: Option<String>,
    /// The account that owns everything.
    pub account_id: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// Its address in the VPC.
    pub private_ip: std::net::Ipv4Addr,
    /// The device name of the root volume.
    pub root_device_name: Option<String>,
    /// The role of its instance profile; an empty name means that it has none.
    pub role: String,
    /// What GetInstanceUefiData answers; absent: that it is not supported.
    pub uefi_data: Option<String>,
    /// The boot mode of its AMI; absent: what AMIs of its architecture have.
    pub boot_mode: Option<String>,
    /// The boot mode that it runs in.
    pub current_boot_mode: String,
    /// `v2.0`, of it and its AMI.
    pub tpm: Option<String>,
    /// `simple`, of it and its AMI.
    pub sriov: Option<String>,
    /// How it and its AMI are billed, in words. An image that is registered is billed as Linux.
    pub platform_details: String,
    /// The same as a code.
    pub usage_operation: String,
    pub tags: BTreeMap<String, String>,
}

impl Default for Instance {
    fn default() -> Self {
        Self {
            id: InstanceId::random(),
            instance_type: "m6i.large".into(),
            image_id: "ami-0abcdef1234567890".into(),
            region: "us-east-1".into(),
            availability_zone: None,
            account_id: "123456789012".into(),
            architecture: "x86_64".into(),
            private_ip: std::net::Ipv4Addr::new(10, 0, 0, 10),
            root_device_name: None,
            role: "ebs-sim-role".into(),
            uefi_data: None,
            boot_mode: None,
            current_boot_mode: "uefi".into(),
            tpm: None,
            sriov: Some("simple".into()),
            platform_details: LINUX.0.into(),
            usage_operation: LINUX.1.into(),
            tags: BTreeMap::new(),
        }
    }
}

impl Instance {
    /// The boot mode of its AMI.
    pub fn boot_mode(&self) -> String {
        let of_architecture = if self.architecture == "arm64" { "uefi" } else { "uefi-preferred" };
        self.boot_mode.clone().unwrap_or_else(|| of_architecture.into())
    }

    /// The Availability Zone, chosen or derived.
    pub fn zone(&self) -> String {
        self.availability_zone.clone().unwrap_or_else(|| format!("{}a", self.region))
    }
}

/// `[imds]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Imds {
    /// Off means that every request is answered with 403.
    pub enabled: bool,
    /// How many hops a token may travel: the IP TTL of its packets.
    pub hop_limit: u8,
    /// Whether tags/instance is there.
    pub instance_tags: bool,
    /// How long the role's credentials last.
    #[serde(with = "crate::units::duration")]
    pub credentials_lifetime: Duration,
}

impl Default for Imds {
    fn default() -> Self {
        Self {
            enabled: true,
            hop_limit: 2,
            instance_tags: false,
            credentials_lifetime: Duration::from_secs(6 * 3600),
        }
    }
}
