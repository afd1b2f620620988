//! EC2 in memory: what a run asks of it, answered at once; each answer can be made to fail or to get lost.
//!
//! It knows volumes, snapshots and tags, and nothing of limits, permissions or time: those are ebs-sim's, and
//! moto's. A clock whose pauses cost nothing comes with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use stillpoint::clock::{Clock, Pause};
use stillpoint::discover::{AttachedVolume, Facts};
use stillpoint::ec2::tagging::Said;
use stillpoint::ec2::{
    CreateFailed, CreateRequest, Describe, Ec2, Ec2Error, InstanceView, RUN_TAG, SnapshotView, TaggedSnapshot,
};
use stillpoint::ids::{InstanceId, RunId, SnapshotId, VolumeId};
use stillpoint::plan::PointInTimeCall;

/// How a call of EC2 goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is refused, and nothing is done.
    Refused,
    /// The role may not make it, and nothing is done.
    Denied,
    /// It is carried out, and its answer gets lost.
    AnswerLost,
    /// It gets lost itself, and nobody can tell.
    RequestLost,
    /// It is carried out, and the answer never comes. Of `create` only.
    NoAnswer,
    /// The last volume is missing in the answer. Of `create` only.
    Partial,
}

/// The snapshot as EC2 has it, with its tags.
#[derive(Debug, Clone)]
pub struct Made {
    pub view: SnapshotView,
    pub tags: BTreeMap<String, String>,
}

/// EC2 in memory.
#[derive(Debug)]
pub struct MadeEc2 {
    boot: Option<VolumeId>,
    volumes: Vec<VolumeId>,
    snapshots: Mutex<Vec<Made>>,
    calls: Mutex<Vec<&'static str>>,
    faults: Mutex<HashMap<&'static str, Fault>>,
    passing: Mutex<HashMap<&'static str, Vec<Ec2Error>>>,
    needs: Mutex<Vec<Duration>>,
}

impl MadeEc2 {
    /// With the volumes of these facts, and no snapshots.
    pub fn of(facts: &Facts) -> Self {
        Self {
            boot: facts.volumes.iter().find(|v| v.boot).map(|v| v.id.clone()),
            volumes: facts.volumes.iter().map(|v| v.id.clone()).collect(),
            snapshots: Mutex::default(),
            calls: Mutex::default(),
            faults: Mutex::default(),
            passing: Mutex::default(),
            needs: Mutex::default(),
        }
    }

    /// From now on this call goes wrong: `pending`, `started`, `states`, `dry-run`, `create`, `find` or `tag`.
    pub fn fail(&self, call: &'static str, fault: Fault) {
        self.faults.lock().unwrap().insert(call, fault);
    }

    /// The next calls of this name are answered by these errors, and do nothing.
    pub fn fail_for_a_time(&self, call: &'static str, errors: impl IntoIterator<Item = Ec2Error>) {
        let mut errors: Vec<_> = errors.into_iter().collect();
        errors.reverse();
        self.passing.lock().unwrap().insert(call, errors);
    }

    /// From now on this call goes well again.
    pub fn mend(&self, call: &'static str) {
        self.faults.lock().unwrap().remove(call);
    }

    /// A snapshot of this volume is there already.
    pub fn has(&self, volume: &VolumeId, state: &str, started: Timestamp) {
        self.add(volume, state, Some(started), BTreeMap::new());
    }

    /// Every snapshot is in this state now.
    pub fn become_all(&self, state: &str) {
        self.snapshots.lock().unwrap().iter_mut().for_each(|s| s.view.state = state.to_owned().into());
    }

    /// A run of stillpoint's has made a snapshot of this volume.
    pub fn made_before(&self, volume: &VolumeId, started: Timestamp) {
        let run = (RUN_TAG.to_owned(), RunId::generate().as_str().to_owned());
        self.add(volume, "completed", Some(started), BTreeMap::from([run]));
    }

    /// Every call so far, in order.
    pub fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().clone()
    }

    /// How long credentials were to last, each time that was asked for.
    pub fn needs(&self) -> Vec<Duration> {
        self.needs.lock().unwrap().clone()
    }

    /// Every snapshot there is.
    pub fn snapshots(&self) -> Vec<Made> {
        self.snapshots.lock().unwrap().clone()
    }

    /// A snapshot of this volume is there already, with these tags.
    pub fn has_tagged(&self, volume: &VolumeId, tags: BTreeMap<String, String>) -> SnapshotId {
        self.add(volume, "completed", None, tags).id
    }

    fn add(
        &self,
        volume: &VolumeId,
        state: &str,
        started: Option<Timestamp>,
        tags: BTreeMap<String, String>,
    ) -> SnapshotView {
        let mut all = self.snapshots.lock().unwrap();
        let view = SnapshotView {
            id: format!("snap-{:017x}", all.len() + 1).parse().unwrap(),
            volume: volume.clone(),
            state: state.to_owned().into(),
            started,
            progress: None,
        };
        all.push(Made { view: view.clone(), tags });
        view
    }

    /// Counts the call; `work` is done unless it is refused or lost on its way.
    fn call<T>(&self, call: &'static str, work: impl FnOnce() -> T) -> Result<T, Ec2Error> {
        self.calls.lock().unwrap().push(call);
        if let Some(error) = self.passing.lock().unwrap().get_mut(call).and_then(Vec::pop) {
            return Err(error);
        }
        let fault = self.faults.lock().unwrap().get(call).copied();
        let lost = || Ec2Error::unknown(call, "made to get lost");
        match fault {
            None | Some(Fault::Partial | Fault::NoAnswer) => Ok(work()),
            Some(Fault::Refused) => Err(Ec2Error::refused(call, "InvalidParameterValue", "made to refuse")),
            Some(Fault::Denied) => Err(Ec2Error::refused(call, "UnauthorizedOperation", "made to deny")),
            Some(Fault::AnswerLost) => {
                work();
                Err(lost())
            }
            Some(Fault::RequestLost) => Err(lost()),
        }
    }

    fn wanted(&self, call: &PointInTimeCall) -> Vec<VolumeId> {
        match call {
            PointInTimeCall::CreateSnapshots { exclude_boot_volume, exclude_data_volumes } => {
                let left_out = |v: &VolumeId| {
                    exclude_data_volumes.contains(v)
                        || (*exclude_boot_volume && self.boot.as_ref() == Some(v))
                };
                self.volumes.iter().filter(|v| !left_out(v)).cloned().collect()
            }
            PointInTimeCall::CreateSnapshot { volume } => vec![volume.clone()],
            PointInTimeCall::CreateSnapshotEach { volumes } => volumes.clone(),
        }
    }

    fn views(&self, wanted: impl Fn(&Made) -> bool) -> Vec<SnapshotView> {
        self.snapshots.lock().unwrap().iter().filter(|s| wanted(s)).map(|s| s.view.clone()).collect()
    }
}

impl Describe for MadeEc2 {
    async fn instance(&self, _: &InstanceId) -> Result<InstanceView, Ec2Error> {
        Ok(InstanceView { root_device_name: None })
    }

    async fn volumes(&self, _: &InstanceId) -> Result<Vec<AttachedVolume>, Ec2Error> {
        Ok(Vec::new())
    }

    async fn pending(&self, volumes: &[VolumeId]) -> Result<Vec<SnapshotView>, Ec2Error> {
        self.call("pending", || self.views(|s| s.view.state == "pending" && volumes.contains(&s.view.volume)))
    }

    async fn started(&self, volumes: &[VolumeId], minutes: &[String]) -> Result<Vec<SnapshotView>, Ec2Error> {
        let minute = |t: Timestamp| t.strftime("%Y-%m-%dT%H:%M").to_string();
        let in_time = |s: &Made| s.view.started.is_some_and(|t| minutes.contains(&minute(t)));
        self.call("started", || self.views(|s| in_time(s) && volumes.contains(&s.view.volume)))
    }

    async fn states(&self, snapshots: &[SnapshotId]) -> Result<Vec<SnapshotView>, Ec2Error> {
        self.call("states", || self.views(|s| snapshots.contains(&s.view.id)))
    }

    async fn dry_run(&self, _: &CreateRequest) -> Result<(), Ec2Error> {
        self.call("dry-run", || ())
    }

    async fn may_tag(&self, snapshot: Option<&SnapshotId>) -> Result<Said, Ec2Error> {
        let known = |id| self.snapshots.lock().unwrap().iter().any(|s| s.view.id == id);
        match snapshot {
            None => self.call("may-tag", || Said::Allowed),
            Some(id) if known(id.clone()) => self.call("may-tag-own", || Said::Allowed),
            Some(_) => Ok(Said::NoSnapshot),
        }
    }

    async fn one_of_ours(&self, volumes: &[VolumeId]) -> Result<Option<SnapshotId>, Ec2Error> {
        let ours = |s: &Made| s.tags.contains_key(RUN_TAG) && volumes.contains(&s.view.volume);
        self.call("one-of-ours", || self.views(ours).first().map(|s| s.id.clone()))
    }

    async fn renew(&self, need: Duration) -> Result<(), Ec2Error> {
        self.needs.lock().unwrap().push(need);
        self.call("renew", || ())
    }

    fn warm_connections(&self) -> Option<usize> {
        None
    }
}

impl Ec2 for MadeEc2 {
    async fn create(&self, request: &CreateRequest) -> Result<Vec<SnapshotView>, CreateFailed> {
        let make = || {
            let tags: BTreeMap<_, _> = request.tags.iter().cloned().collect();
            let volumes = self.wanted(&request.call);
            volumes.iter().map(|v| self.add(v, "pending", None, tags.clone())).collect()
        };
        let made: Result<Vec<SnapshotView>, _> = self.call("create", make);
        let fault = self.faults.lock().unwrap().get("create").copied();
        match (made, fault) {
            (Ok(_), Some(Fault::NoAnswer)) => std::future::pending().await,
            (Ok(mut made), Some(Fault::Partial)) => {
                made.pop();
                Ok(made)
            }
            (Ok(made), _) => Ok(made),
            (Err(error), _) => {
                Err(CreateFailed { outcome_unknown: error.outcome_unknown(), error, made: Vec::new() })
            }
        }
    }

    async fn find_run(&self, run: &RunId) -> Result<Vec<TaggedSnapshot>, Ec2Error> {
        let tagged = |m: Made| TaggedSnapshot {
            view: m.view,
            tags: m.tags.into_iter().collect(),
            detail: Default::default(),
        };
        let of_run = |m: &Made| m.tags.get(RUN_TAG).is_some_and(|id| id == run.as_str());
        self.call("find", || self.snapshots().into_iter().filter(of_run).map(tagged).collect())
    }

    async fn tag(&self, snapshots: &[SnapshotId], tags: &[(String, String)]) -> Result<(), Ec2Error> {
        self.call("tag", || {
            for made in self.snapshots.lock().unwrap().iter_mut().filter(|m| snapshots.contains(&m.view.id)) {
                made.tags.extend(tags.iter().cloned());
            }
        })
    }
}

/// A clock that stands still but for the pauses, which cost nothing.
#[derive(Debug)]
pub struct MadeClock {
    now: Mutex<Timestamp>,
    pauses: Mutex<Vec<Duration>>,
}

impl MadeClock {
    /// That shows this time.
    pub fn at(now: Timestamp) -> Self {
        Self { now: Mutex::new(now), pauses: Mutex::default() }
    }

    /// Every pause so far, but those of no time.
    pub fn pauses(&self) -> Vec<Duration> {
        self.pauses.lock().unwrap().iter().filter(|p| !p.is_zero()).copied().collect()
    }
}

impl Clock for MadeClock {
    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }

    fn pause(&self, time: Duration) -> Pause<'_> {
        *self.now.lock().unwrap() += time;
        self.pauses.lock().unwrap().push(time);
        Box::pin(std::future::ready(()))
    }

    fn elapsed(&self) -> Duration {
        Duration::try_from(self.now().duration_since(Timestamp::UNIX_EPOCH)).unwrap()
    }
}
