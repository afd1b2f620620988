//! `stillpoint doctor`: what would go wrong, and what to do about it.
//!
//! In: the choice. Out: findings on stdout. Must never: freeze, change anything, or stop at the first check
//! that is not possible: without root, IMDS or EC2 it says what could not be checked.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::start::OWN_PROGRAM;
use super::{Choice, Global, Output, print, print_json};
use crate::config::settings::{Notify, Settings};
use crate::config::{self, Loaded};
use crate::discover::{self, Facts, HostFacts, Identity};
use crate::doctor::{
    self, Finding, Set, Severity, applications, busy, cloud, doubled, group, hooks, others, processes,
    storage, system, unit,
};
use crate::ec2::Describe;
use crate::ec2::aws::Aws;
use crate::ec2::repeat::Repeating;
use crate::ec2::tagging::{Tagging, tagging};
use crate::error::{Error, chain};
use crate::exit::Exit;
use crate::host::busy::look;
use crate::host::device_users;
use crate::host::inspect::{Answers, Helper};
use crate::ids::RunId;
use crate::path_encoding::shown;
use crate::plan::{self as planning, Plan};
use crate::quiesce::{self, systemctl::Systemctl};
use crate::restore::record;
use crate::run::busy::subjects;
use crate::run::planned;
use crate::sets::find::of_volumes;
use crate::window::Extras;
use crate::window::guard::StartGuard as _;
use crate::window::guard::process::Program;
use crate::{report, run};

/// Connections to EC2: a few calls at once.
const CONNECTIONS: usize = 4;
/// Width of text where stdout is no terminal.
const WIDTH: usize = 80;

#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    choice: Choice,
}

impl Doctor {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let mut found = Vec::new();
        let loaded = match self.choice.load(global) {
            Ok(loaded) => {
                let closed: Vec<_> = loaded.not_read().map(shown).collect();
                found.push(if closed.is_empty() {
                    Finding::ok("configuration", "the configuration can be read")
                } else {
                    Finding::not_checked("configuration", "only root may read a part of it").at(closed)
                });
                loaded
            }
            Err(e) => {
                // The other checks go on with the built-in defaults.
                found.push(Finding::refusal("configuration", &e));
                config::load(Path::new("/"), Some(Path::new("/dev/null")), None, &self.choice.overrides())
                    .map_err(|e| Error::new(Exit::Config, e))?
            }
        };
        let name = loaded.settings.plan.name.clone();
        self.examine(&loaded, &mut found).await;
        match self.choice.output {
            Output::Text => print(&report::findings::human(&name, &found, WIDTH)),
            Output::Json => {
                print_json(&report::findings::json(&name, &found).map_err(|e| Error::new(Exit::Bug, e))?);
            }
        }
        Ok(doctor::exit(&found))
    }

    async fn examine(&self, loaded: &Loaded, found: &mut Vec<Finding>) {
        let settings = &loaded.settings;
        let root = Path::new("/");
        found.extend(system::privileges(root));
        found.extend(system::program(std::env::current_exe().as_deref().map_err(|e| e.kind().into())));
        found.extend(system::pid_namespace(root, settings.plan.allow_pid_namespace));
        found.extend(system::namespace(root));
        found.extend(system::unmount(root, &settings.plan.methods));
        found.extend(watchdog());
        found.extend(system::hung_task_panic(root, settings.plan.window));
        found.extend(installed_unit(&settings.plan.name).await);
        found.extend(hooks::runnable(&settings.plan.hooks, Path::new(OWN_PROGRAM)));
        found.extend(hooks::writable(&settings.plan.hooks));
        if let Some(settings) = &settings.plan.group {
            found.extend(group::group(settings).await);
        }
        found.extend(told(settings));
        found.extend(storage::own_folder("run_dir", &settings.run_dir));
        found.extend(storage::own_folder("state_dir", &settings.state_dir));
        found.extend(storage::records(&settings.state_dir));
        found.extend(settings.textfile.as_deref().map(storage::textfile));
        found.extend(processes::freezers(root));

        let host = match discover::host(root, &Helper::own(), Answers::default()) {
            Ok(host) => host,
            Err(e) => {
                found.push(Finding::not_checked("host", chain(&e)));
                return;
            }
        };
        let unchecked: std::collections::BTreeSet<_> = host.unchecked.values().flatten().collect();
        found.extend(
            unchecked.into_iter().map(|what| Finding::not_checked("host", format!("needs root: {what}"))),
        );
        let mut ask = Ask { loaded, found, host: &host, tags: None };
        let planned = ask.ec2().await;
        let tags = ask.tags.take();
        found.extend(tags);
        let set = match &planned {
            Some((facts, plan)) => Set::planned(facts, plan),
            None => {
                found.push(Finding::not_checked(
                    "plan",
                    "without a plan, what follows is about every filesystem on a block device",
                ));
                Set::possible(&host.filesystems)
            }
        };
        if let Some((facts, plan)) = &planned {
            let env = run::applications::env(&RunId::generate(), facts, plan, &settings.plan);
            found.extend(applications::databases(&settings.plan.hooks, &env).await);
        }
        if let Some((_, plan)) = &planned {
            found.extend(busy::busy(&look(root, &subjects(plan)), settings.plan.busy_timeout));
        } else {
            found.push(Finding::not_checked(busy::ID, "what is frozen is known only by the plan"));
        }
        found.extend(processes::fanotify(root, &set));
        found.extend(processes::still(root, &set).await);
        found.extend(storage::run_dir(root, &settings.run_dir, &set));
        found.extend(planned.iter().flat_map(|(_, plan)| storage::names(plan)));
        found.extend(planned.iter().flat_map(|(_, plan)| storage::missing(plan)));
        if let Some((facts, plan)) = &planned {
            found.extend(elsewhere(root, facts, plan));
        }
        found.extend(doubled(&host, &settings.state_dir));
        found.extend(storage::images(&host.devices, &set));
        found.extend(storage::swap(&host.swap_files, &set));
        found.extend(storage::others(root, &settings.state_dir, &set));
    }
}

/// The commands of `[[notify]]`, by the checks of hooks. A run does without them.
fn told(settings: &Settings) -> Vec<Finding> {
    let all: Vec<_> = settings.plan.notify.iter().map(Notify::as_hook).collect();
    if all.is_empty() {
        return Vec::new();
    }
    let found = hooks::runnable(&all, Path::new(OWN_PROGRAM)).into_iter().chain(hooks::writable(&all));
    let why = "a run is as it would be without it, and nobody is told how it ended";
    let found = found.filter(|f| f.severity > Severity::Ok).map(|f| f.at_most_a_warning("notify").why(why));
    let found: Vec<_> = found.collect();
    if found.is_empty() { vec![Finding::ok("notify", "whoever is to be told can be")] } else { found }
}

/// The requests to IMDS and EC2, one after the other. When one fails, the findings say so and the later ones
/// are not sent.
struct Ask<'a> {
    loaded: &'a Loaded,
    found: &'a mut Vec<Finding>,
    host: &'a HostFacts,
    /// CreateTags is not allowed on a snapshot of nobody. A policy may have conditions that this instance's meet.
    tags: Option<Finding>,
}

impl Ask<'_> {
    async fn ec2(&mut self) -> Option<(Facts, Plan)> {
        let identity = self.identity().await?;
        let ec2 = match planned::connect(self.loaded, &identity, CONNECTIONS).await {
            Ok(ec2) => ec2,
            Err(e) => {
                self.found.push(Finding::refusal("ec2", &e).why("a run cannot call EC2"));
                return None;
            }
        };
        let id = &identity.instance_id;
        let asked = Repeating::of(&ec2, &self.loaded.settings.ec2);
        let (instance, attached) = tokio::join!(asked.instance(id), asked.volumes(id));
        self.found.push(cloud::call("DescribeInstances", instance.as_ref().map(drop)));
        self.found.push(cloud::call("DescribeVolumes", attached.as_ref().map(drop)));
        if let Ok(limit) = asked.call("DescribeInstances", async || ec2.hop_limit(id).await).await {
            let in_container =
                ["/.dockerenv", "/run/.containerenv"].iter().any(|marker| Path::new(marker).exists());
            self.found.extend(cloud::hop_limit(limit, in_container));
        }
        let volumes: Vec<_> = attached.iter().flatten().map(|v| v.id.clone()).collect();
        let said = tagging(&asked, &volumes).await;
        let finding = cloud::tagging(said.as_ref());
        if matches!(&said, Ok(Tagging::Denied { certain: false, .. })) {
            self.tags = Some(finding);
        } else {
            self.found.push(finding);
        }
        let (theirs, here) = ec2.dry_run_of_tags(None).await.dates;
        self.found.push(cloud::clock(here, theirs));
        let (instance, attached) = (instance.ok()?, attached.ok()?);
        let (name, root_device) = (planned::hostname(), instance.root_device_name);
        let facts = discover::facts(identity, name, root_device, attached, self.host.clone());
        let expected = match planned::expectations(Path::new("/"), self.host).await {
            Ok(expected) => expected,
            Err(e) => {
                self.found.push(Finding::not_checked("not-mounted", e));
                discover::Expectations::default()
            }
        };
        let facts = Facts { expected, ..facts };
        let (facts, plan) = match planned::make(self.loaded, facts, Path::new("/")) {
            Ok(made) => made,
            Err(e) => {
                self.found.push(Finding::refusal("plan", &e));
                return None;
            }
        };
        self.set(&ec2, &facts, &plan).await;
        Some((facts, plan))
    }

    async fn identity(&mut self) -> Option<Identity> {
        const ID: &str = "imds";
        match planned::identify(self.loaded).await {
            Ok(identity) => {
                let what = format!("this is {} in {}", identity.instance_id, identity.region);
                self.found.push(Finding::ok(ID, what).at([identity.instance_id.to_string()]));
                Some(identity)
            }
            Err(e) => {
                let why = "without its identity a run does not know whose volumes these are";
                self.found.push(Finding::refusal(ID, &e).why(why));
                self.found.push(Finding::not_checked("ec2", "the instance is not known"));
                None
            }
        }
    }

    /// The requests to EC2 that need the plan.
    async fn set(&mut self, ec2: &Aws, facts: &Facts, plan: &Plan) {
        let settings = &self.loaded.settings;
        let what = format!(
            "{} filesystems on {} volumes, {}-consistent at best",
            plan.filesystems.len(),
            plan.volumes.len(),
            plan.best
        );
        self.found.push(Finding::ok("plan", what));
        let request =
            run::create_request(&RunId::generate(), facts, plan, &settings.plan, plan.best, Timestamp::now());
        self.found.extend(cloud::tags_fit(&request));
        self.found.extend(cloud::volume_tags(facts, plan));
        let asked = Repeating::of(ec2, &self.loaded.settings.ec2);
        let said = asked.dry_run(&request).await;
        let action = match plan.call {
            planning::PointInTimeCall::CreateSnapshots { .. } => "CreateSnapshots",
            _ => "CreateSnapshot",
        };
        // The request carries tags, so the missing permission may be ec2:CreateTags. That one has a check of
        // its own, and while it is missing EC2 does not check the others.
        let other = said.as_ref().err().and_then(|e| e.denied_action()).filter(|a| *a != action);
        // With the create call it is allowed, or not.
        if other != Some("CreateTags") && self.tags.take().is_some() {
            self.found.push(Finding::not_checked(
                "iam",
                "whether ec2:CreateTags is allowed on the snapshots of this instance, for their label: there is none \
                 yet to try it on",
            ));
        }
        self.found.push(match other {
            Some(other) => {
                Finding::not_checked("iam", format!("whether ec2:{action} is allowed: ec2:{other} is not"))
            }
            None => cloud::call(action, said.as_ref().copied()),
        });
        let ids: Vec<_> = plan.volumes.iter().map(|v| v.id.clone()).collect();
        let pending = asked.pending(&ids).await;
        self.found.push(cloud::call("DescribeSnapshots", pending.as_ref().map(drop)));
        if let Ok(pending) = pending {
            self.found.extend(cloud::pending(plan, &pending));
            let calls = Repeating::for_each_call(ec2, &settings.ec2);
            match of_volumes(&calls, &ids).await {
                Ok(all) => self.found.extend(others::others(plan, &all)),
                Err(e) => self.found.push(Finding::not_checked("other-snapshots", e)),
            }
        }
        let instance = &facts.identity.instance_id;
        let states = asked.call("DescribeVolumes", async || ec2.volume_states(instance, &ids).await);
        match states.await {
            Ok(states) => self.found.extend(cloud::volumes(plan, &states)),
            Err(e) => self.found.push(Finding::not_checked("volumes", e)),
        }
    }
}

/// What is on two disks: a clone that is left beside its original.
fn doubled(host: &HostFacts, state_dir: &Path) -> Vec<Finding> {
    if !nix::unistd::geteuid().is_root() {
        return vec![Finding::not_checked(doubled::ID, "only root may read disks")];
    }
    let mut restored = BTreeMap::new();
    // Without it, only the way out is less exact.
    for id in record::all(state_dir).unwrap_or_default() {
        if let Ok(Some(known)) = record::read(state_dir, &id) {
            restored.extend(known.made.into_values().map(|volume| (volume, id.clone())));
        }
    }
    doubled::doubled(&host.devices, &Helper::own(), &restored)
}

/// What is mounted in other namespaces only.
fn elsewhere(root: &Path, facts: &Facts, plan: &Plan) -> Vec<Finding> {
    let attached = facts.unmounted_devices();
    if !nix::unistd::geteuid().is_root() && !attached.is_empty() {
        return vec![Finding::not_checked("other-namespaces", "only root may look at the mounts of others")];
    }
    let mounts = match attached.is_empty() {
        true => device_users::Users::default(),
        false => device_users::mounts_anywhere(root, &attached, device_users::LIMIT),
    };
    storage::elsewhere(facts, plan, &mounts)
}

/// Starts a watchdog over nothing: what it can leave is known only by leaving it.
fn watchdog() -> Vec<Finding> {
    if !nix::unistd::geteuid().is_root() {
        return vec![Finding::not_checked("watchdog", "only root can start it as a run does")];
    }
    match Program::own().start(&[], &Extras::default()) {
        Ok(mut guard) => {
            let found = system::watchdog(Ok(guard.shares()));
            guard.dismiss();
            found
        }
        Err(e) => system::watchdog(Err(chain(&e))),
    }
}

/// The state of the plan's systemd unit, where systemd runs.
async fn installed_unit(plan: &str) -> Vec<Finding> {
    const ID: &str = "unit";
    if !Path::new("/run/systemd/system").is_dir() {
        return vec![Finding::not_checked(ID, "systemd does not run here")];
    }
    let name = format!("stillpoint@{plan}.service");
    let Some(found) = Systemctl::find() else {
        return vec![Finding::not_checked(ID, "there is no systemctl here that only root can change")];
    };
    let mut systemctl = tokio::process::Command::new(found.path());
    systemctl
        .env_clear()
        .env("PATH", quiesce::PATH)
        .arg("show")
        .arg(format!("--property={}", unit::UNIT_PROPERTIES))
        .arg("--")
        .arg(&name)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    match tokio::time::timeout(Duration::from_secs(5), systemctl.output()).await {
        Ok(Ok(output)) if output.status.success() => {
            unit::unit(&name, &String::from_utf8_lossy(&output.stdout))
        }
        Ok(Ok(output)) => vec![Finding::not_checked(ID, String::from_utf8_lossy(&output.stderr).trim())],
        Ok(Err(e)) => vec![Finding::not_checked(ID, format!("systemctl: {e}"))],
        Err(_) => vec![Finding::not_checked(ID, "systemctl did not answer within 5 s")],
    }
}
