//! The instance types that are known, with what AWS documents of them.
//!
//! In: a name. Out: facts. A fact that is not documented must never be guessed: it is left out.

/// Where an instance type runs and how it sees its disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// Nitro: EBS volumes are NVMe disks.
    Nitro,
    /// Xen: EBS volumes are xvd disks.
    Xen,
}

/// A limit of attachments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachments {
    pub most: usize,
    /// Whether network interfaces and NVMe disks of the instance store count too.
    pub shared: bool,
}

impl Attachments {
    /// `shared` or `dedicated`.
    pub fn name(self) -> &'static str {
        if self.shared { "shared" } else { "dedicated" }
    }
}

/// What most Nitro types have.
const SHARED: Option<Attachments> = Some(Attachments { most: 28, shared: true });

/// An instance type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type {
    /// `m6i.large`
    pub name: &'static str,
    /// Nitro or Xen.
    pub platform: Platform,
    /// CPU architectures.
    pub architectures: &'static [&'static str],
    pub boot_modes: &'static [&'static str],
    pub vcpus: u32,
    /// Threads of a core.
    pub threads: u32,
    pub memory_mib: u64,
    /// The one NVMe SSD of its instance store, in GB.
    pub disk_gb: Option<u64>,
    /// Whether it is a T type.
    pub burstable: bool,
    /// `default`, where EBS optimisation is always on.
    pub ebs_optimized: &'static str,
    /// `required`, `supported` or `unsupported`.
    pub ena: &'static str,
    /// How many EBS volumes can be attached, the root among them, where that is known.
    pub attachments: Option<Attachments>,
    /// Whether a NitroTPM can be had, where that is known.
    pub tpm: Option<bool>,
}

const X86: &[&str] = &["x86_64"];
const BOTH_MODES: &[&str] = &["legacy-bios", "uefi"];

const fn intel(name: &'static str, vcpus: u32, memory_mib: u64) -> Type {
    Type {
        name,
        platform: Platform::Nitro,
        architectures: X86,
        boot_modes: BOTH_MODES,
        vcpus,
        threads: 2,
        memory_mib,
        disk_gb: None,
        burstable: false,
        ebs_optimized: "default",
        ena: "required",
        attachments: SHARED,
        tpm: Some(true),
    }
}

const fn t3(name: &'static str, vcpus: u32, memory_mib: u64) -> Type {
    Type { burstable: true, ..intel(name, vcpus, memory_mib) }
}

const fn graviton(name: &'static str, vcpus: u32, memory_mib: u64) -> Type {
    Type {
        architectures: &["arm64"],
        boot_modes: &["uefi"],
        threads: 1,
        tpm: None,
        ..intel(name, vcpus, memory_mib)
    }
}

const fn xen(name: &'static str, vcpus: u32, memory_mib: u64) -> Type {
    Type {
        platform: Platform::Xen,
        boot_modes: &["legacy-bios"],
        // The guide gives none, only a warning beyond 40.
        attachments: None,
        tpm: Some(false),
        ..intel(name, vcpus, memory_mib)
    }
}

/// All of them, by name.
pub const TYPES: &[Type] = &[
    graviton("c6g.large", 2, 4096),
    graviton("c7g.large", 2, 4096),
    Type { disk_gb: Some(475), ena: "supported", ..xen("i3.large", 2, 15_616) },
    Type { disk_gb: Some(468), ..intel("i4i.large", 2, 16_384) },
    intel("m5.large", 2, 8192),
    intel("m5.xlarge", 4, 16_384),
    graviton("m6g.large", 2, 8192),
    intel("m6i.large", 2, 8192),
    intel("m6i.xlarge", 4, 16_384),
    Type { attachments: Some(Attachments { most: 32, shared: false }), ..intel("m7i.large", 2, 8192) },
    intel("r6i.large", 2, 16_384),
    Type {
        architectures: &["i386", "x86_64"],
        threads: 1,
        burstable: true,
        ebs_optimized: "unsupported",
        ena: "unsupported",
        ..xen("t2.micro", 1, 1024)
    },
    t3("t3.2xlarge", 8, 32_768),
    t3("t3.large", 2, 8192),
    t3("t3.medium", 2, 4096),
    t3("t3.micro", 2, 1024),
    t3("t3.nano", 2, 512),
    t3("t3.small", 2, 2048),
    t3("t3.xlarge", 4, 16_384),
];

impl Type {
    pub fn cores(&self) -> u32 {
        self.vcpus / self.threads
    }

    /// `nitro` or `xen`.
    pub fn hypervisor(&self) -> &'static str {
        match self.platform {
            Platform::Nitro => "nitro",
            Platform::Xen => "xen",
        }
    }

    /// Whether EBS volumes are NVMe disks.
    pub fn ebs_nvme(&self) -> &'static str {
        match self.platform {
            Platform::Nitro => "required",
            Platform::Xen => "unsupported",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_consistent() {
        assert!(TYPES.is_sorted_by(|a, b| a.name < b.name));
        for known in TYPES {
            assert_eq!(known.cores() * known.threads, known.vcpus, "{}", known.name);
            let arm = known.architectures == ["arm64"];
            assert_eq!(arm, !known.boot_modes.contains(&"legacy-bios"), "{}", known.name);
        }
    }
}
