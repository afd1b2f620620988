//! A host out of a text: `tests/fixtures/NAME.host` becomes `/proc` and `/sys` below a temporary root, and
//! what EC2 says of it.
//!
//! One line an item, `#` for comments; sizes in MiB:
//! ```text
//! ebs NAME M:m SIZE VOLUME            a Nitro disk with the model and serial of an EBS volume
//! disk NAME M:m SIZE [model=…] [serial=…] [devtype=vbd]     underscores in the model are spaces
//! part NAME M:m SIZE of=DISK
//! dm NAME M:m SIZE name=… uuid=… on=A,B
//! md NAME M:m SIZE level=… on=A,B
//! loop NAME M:m SIZE [file=PATH] [holder=M:m]     the number of what has the file; else what its path says
//! other NAME M:m SIZE
//! btrfs UUID A B …
//! bcachefs UUID A B …
//! journal NAME outside                 an ext4 there has no journal inside (as every other one has)
//! silent NAME                          the device does not answer
//! swap LINE                            a line of /proc/swaps
//! mount LINE                           a line of mountinfo, as the kernel writes it
//! root-device NAME
//! attached VOLUME DEVICE-NAME GIB TYPE [KEY=VALUE …]
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stillpoint::config::settings::{
    Automounts, Expedite, MissingMounts, OnDegraded, PlanSettings, UnmountedVolumes,
};
use stillpoint::discover::volumes::EBS_MODEL;
use stillpoint::discover::{self, AttachedVolume, Facts, HostFacts, Identity};
use stillpoint::host::block::{self, DeviceNames};
use stillpoint::host::inspect::{self, Answer, Answers, Inspect, Question, Under};
use stillpoint::host::mountinfo::{self, MountTree};
use stillpoint::ids::{DevNo, VolumeId};
use stillpoint::plan::{Plan, PlanError, plan};
use tempfile::TempDir;

/// A made host.
pub struct Host {
    root: TempDir,
    /// Folder of each device, below the root.
    folders: HashMap<String, PathBuf>,
    mountinfo: String,
    swaps: String,
    root_device_name: Option<String>,
    attached: Vec<AttachedVolume>,
    made: Made,
    /// Names by number, and the names of those whose filesystem has no journal inside.
    names: HashMap<String, String>,
    outside: Vec<String>,
    fstab: String,
}

/// Who answers for a made host.
#[derive(Debug, Clone, Default)]
pub struct Made {
    root: PathBuf,
    /// Loop devices and the number of what has their file.
    holders: HashMap<String, DevNo>,
    /// Devices that do not answer.
    silent: Vec<String>,
    /// Only root is told anything, and who asks is not root.
    closed: bool,
    /// Every question that was put.
    pub asked: Arc<Mutex<Vec<Question>>>,
}

impl Inspect for Made {
    fn ask(&self, questions: &[Question]) -> Vec<Option<Answer>> {
        self.asked.lock().unwrap().extend_from_slice(questions);
        let needs_root = |_| Answer::NeedsRoot("EACCES: Permission denied".into());
        let closed = |q: &Question| self.closed && !matches!(q, Question::Node { .. });
        let said = questions.iter().map(|q| (closed(q), self.answer(q)));
        said.map(|(closed, a)| if closed { a.map(needs_root) } else { a }).collect()
    }
}

impl Made {
    fn answer(&self, question: &Question) -> Option<Answer> {
        let lines = mountinfo::read(&self.root, "self").unwrap().lines;
        let tree = MountTree::new(&lines);
        let devices = block::devices(&self.root).unwrap();
        let names = DeviceNames::new(&self.root, &devices);
        let on = |path: &Path| Answer::On(tree.mount_of(path).map(|l| l.dev).into_iter().collect());
        Some(match question {
            Question::Identity { .. } => Answer::Identity(None),
            Question::Superblock { name, .. } | Question::Loop { name, .. } if self.silent.contains(name) => {
                return None;
            }
            Question::Superblock { dev, name, source, fstype, .. } => {
                inspect::superblock(&self.root, *dev, name, source, fstype)
            }
            Question::Node { path } => match names.at(path) {
                Some(device) if self.silent.contains(&device.name) => return None,
                Some(device) => Answer::Node { dev: device.dev, held: Some(true) },
                None => Answer::Failed("no such device".into()),
            },
            Question::Automount { .. } => Answer::Failed("made".into()),
            // It is told by its source, then.
            Question::Btrfs { .. } => Answer::Failed("made".into()),
            Question::Upper { upper, .. } => on(upper),
            Question::Swap { path, .. } => on(path),
            Question::Loop { dev, name, file, .. } => Answer::Loop(match self.holders.get(name) {
                Some(DevNo { major: 0, minor: 0 }) => Under::Unknown,
                Some(holder) => Under::File(*holder),
                None => match names.at(file) {
                    Some(device) => Under::Device(device.dev),
                    None => {
                        let holder = tree.mount_of(file).unwrap();
                        // An image mounted over the folder it lies in.
                        let below = || lines.iter().find(|l| l.id == holder.parent).unwrap();
                        Under::File(if holder.dev == *dev { below() } else { holder }.dev)
                    }
                },
            }),
        })
    }
}

/// The facts of `tests/fixtures/NAME.host`.
pub fn facts(name: &str) -> Facts {
    Host::named(name).facts()
}

impl Host {
    pub fn named(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../fixtures/{name}.host"));
        Self::of(&fs::read_to_string(path).unwrap())
    }

    pub fn of(text: &str) -> Self {
        let mut host = Self {
            root: TempDir::new().unwrap(),
            folders: HashMap::new(),
            mountinfo: String::new(),
            swaps: "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".into(),
            root_device_name: None,
            attached: vec![],
            made: Made::default(),
            names: HashMap::new(),
            outside: Vec::new(),
            fstab: String::new(),
        };
        host.made.root = host.root().to_owned();
        fs::create_dir_all(host.path("sys/dev/block")).unwrap();
        for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            host.item(line);
        }
        host.write("proc/self/mountinfo", &host.mountinfo);
        host.write("proc/swaps", &host.swaps);
        if !host.fstab.is_empty() {
            host.write("etc/fstab", &host.fstab);
        }
        host.journals();
        host
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn host(&self) -> HostFacts {
        discover::host(self.root(), &self.made, Answers::default()).unwrap()
    }

    /// Who answers what the files below the root leave open.
    pub fn made(&self) -> &Made {
        &self.made
    }

    /// As the kernel lists them: one for each mounted ext3 and ext4.
    fn journals(&self) {
        for line in self.mountinfo.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let fstype = words.iter().skip_while(|w| **w != "-").nth(1);
            let name = words.get(2).and_then(|number| self.names.get(*number));
            if let (Some(&("ext3" | "ext4")), Some(name)) = (fstype, name)
                && !self.outside.contains(name)
            {
                self.write(format!("proc/fs/jbd2/{name}-8"), "");
            }
        }
    }

    pub fn facts(&self) -> Facts {
        self.facts_with(None)
    }

    /// With what systemctl says of mount units, or why it does not.
    pub fn facts_with(&self, units: Option<Result<&str, &str>>) -> Facts {
        let identity = Identity {
            instance_id: "i-0123456789abcdef0".parse().unwrap(),
            region: "eu-west-1".into(),
            availability_zone: Some("eu-west-1a".into()),
            account_id: Some("123456789012".into()),
        };
        let root_device_name = self.root_device_name.clone();
        let host = self.host();
        let expected = discover::expected::expected(self.root(), &host, units, &self.made);
        let facts = discover::facts(identity, "db1".into(), root_device_name, self.attached.clone(), host);
        Facts { expected, ..facts }
    }

    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(below)
    }

    fn write(&self, below: impl AsRef<Path>, text: &str) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn item(&mut self, line: &str) {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        let option = |key: &str| words.iter().find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
        match kind {
            "mount" => self.mountinfo.push_str(&format!("{rest}\n")),
            "swap" => self.swaps.push_str(&format!("{rest}\n")),
            "root-device" => self.root_device_name = Some(rest.into()),
            "attached" => self.attached.push(attached(&words)),
            "silent" => self.made.silent.push(words[0].into()),
            "fstab" => self.fstab.push_str(&format!("{rest}\n")),
            "ordinary-user" => self.made.closed = true,
            "journal" => self.outside.push(words[0].into()),
            "bcachefs" => {
                for (n, member) in words[1..].iter().enumerate() {
                    let folder = self.path(format!("sys/fs/bcachefs/{}/dev-{n}", words[0]));
                    fs::create_dir_all(&folder).unwrap();
                    symlink(Path::new("../../../..").join(&self.folders[*member]), folder.join("block"))
                        .unwrap();
                }
            }
            "btrfs" => {
                for member in &words[1..] {
                    let folder = self.path(format!("sys/fs/btrfs/{}/devices", words[0]));
                    fs::create_dir_all(&folder).unwrap();
                    symlink(Path::new("../../../..").join(&self.folders[*member]), folder.join(member))
                        .unwrap();
                }
            }
            "ebs" => {
                let serial = words[3].replace('-', "");
                let folder = self.device(&words, format!("sys/devices/pci0000:00/{0}/{0}", words[0]));
                // The kernel pads these with spaces to the widths of NVMe's Identify page.
                self.write(folder.join("device/model"), &format!("{EBS_MODEL:<40}\n"));
                self.write(folder.join("device/serial"), &format!("{serial:<20}\n"));
            }
            "disk" => {
                let folder = self.device(&words, format!("sys/devices/pci0000:00/{0}/{0}", words[0]));
                fs::create_dir_all(self.path(folder.join("device"))).unwrap();
                for key in ["model", "serial", "devtype"] {
                    if let Some(value) = option(key) {
                        self.write(folder.join("device").join(key), &value.replace('_', " "));
                    }
                }
            }
            "part" => {
                let disk = self.folders[option("of").unwrap()].clone();
                let folder = self.device(&words, disk.join(words[0]));
                let digits = words[0].trim_start_matches(|c: char| !c.is_ascii_digit());
                let number = digits.rsplit('p').next().unwrap();
                self.write(folder.join("partition"), &format!("{number}\n"));
            }
            "dm" | "md" | "loop" | "other" => {
                let folder = self.device(&words, format!("sys/devices/virtual/block/{}", words[0]));
                for slave in option("on").into_iter().flat_map(|on| on.split(',')) {
                    let slaves = self.path(folder.join("slaves"));
                    fs::create_dir_all(&slaves).unwrap();
                    symlink(self.path(&self.folders[slave]), slaves.join(slave)).unwrap();
                }
                for (key, file) in [
                    ("name", "dm/name"),
                    ("uuid", "dm/uuid"),
                    ("level", "md/level"),
                    ("file", "loop/backing_file"),
                ] {
                    if let Some(holder) = option("holder") {
                        self.made.holders.insert(words[0].into(), holder.parse().unwrap());
                    }
                    if let Some(value) = option(key) {
                        self.write(folder.join(file), &format!("{}\n", value.replace("%20", " ")));
                    }
                }
            }
            _ => panic!("unknown item: {line}"),
        }
    }

    fn device(&mut self, words: &[&str], folder: impl Into<PathBuf>) -> PathBuf {
        let folder = folder.into();
        let mib: u64 = words[2].parse().unwrap();
        self.write(folder.join("size"), &format!("{}\n", mib * 2048));
        self.write(folder.join("stat"), "0 0 0 0 0 0 0 0 0 0 0\n");
        symlink(Path::new("../../..").join(&folder), self.path("sys/dev/block").join(words[1])).unwrap();
        self.folders.insert(words[0].into(), folder.clone());
        self.names.insert(words[1].into(), words[0].into());
        folder
    }
}

fn attached(words: &[&str]) -> AttachedVolume {
    AttachedVolume {
        id: words[0].parse().unwrap(),
        device_name: words[1].into(),
        volume_type: words[3].into(),
        size_gib: words[2].parse().unwrap(),
        iops: None,
        throughput: None,
        encrypted: false,
        tags: words[4..]
            .iter()
            .map(|t| t.split_once('=').unwrap())
            .map(|(k, v)| (k.into(), v.into()))
            .collect(),
    }
}

/// The settings of a host without configuration.
pub fn settings() -> PlanSettings {
    PlanSettings {
        name: "default".into(),
        mounts: vec![],
        volumes: vec![],
        volume_tags: BTreeMap::new(),
        exclude_mounts: vec![],
        exclude_volumes: vec![],
        exclude_boot_volume: false,
        allow_partial: false,
        allow_pid_namespace: false,
        unmounted_volumes: UnmountedVolumes::Exclude,
        automounts: Automounts::Mount,
        missing_mounts: MissingMounts::Degrade,
        methods: BTreeMap::new(),
        consistency: None,
        on_degraded: OnDegraded::Fail,
        window: Duration::from_secs(10),
        freeze_timeout: Duration::from_secs(5),
        busy_timeout: Duration::ZERO,
        flush_timeout: Duration::from_secs(300),
        stop_units: vec![],
        unmount_timeout: Duration::from_secs(30),
        rcu_expedited: Expedite::Never,
        copy_volume_tags: false,
        wait: false,
        tags: BTreeMap::new(),
        host_key: None,
        description: None,
        keep: None,
        lock: None,
        copy: Vec::new(),
        luks_key_files: Vec::new(),
        hooks: vec![],
        notify: vec![],
        checks: vec![],
        group: None,
    }
}

/// The plan with the settings changed.
pub fn plan_with(facts: &Facts, change: impl FnOnce(&mut PlanSettings)) -> Result<Plan, PlanError> {
    let mut settings = settings();
    change(&mut settings);
    plan(facts, &settings)
}

/// An error with its hint, as it is printed.
pub fn told(error: &PlanError) -> String {
    error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}\nhint: {hint}"))
}

/// `vol-` and a digit seventeen times.
pub fn vol(digit: char) -> VolumeId {
    format!("vol-{}", digit.to_string().repeat(17)).parse().unwrap()
}
