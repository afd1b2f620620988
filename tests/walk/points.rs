//! Where a run can be hit, by what, and how it may end then.
//!
//! In: the steps of a run, and the calls at its two boundaries. Out: cases, each with a name that repeats it.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use stillpoint::run::step::Step;

use rig::Fs;
use rig::control_group::Hierarchy;

/// A place in a run: a step, a call of the kernel or of EC2, or a hook that is running; and which time it
/// comes by there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    pub name: String,
    pub nth: u32,
}

impl Point {
    fn new(name: &str, nth: u32) -> Self {
        Self { name: name.to_owned(), nth }
    }

    pub fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// Every point, in the order of a run. Two hooks, two filesystems.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for step in Step::ALL.into_iter().filter(|s| !s.of_group()) {
            // What comes by before the step of that name.
            match step {
                Step::Prepare => all.push(Self::new(PRE_RUNNING, 1)),
                Step::Frozen => all.extend([Self::new(LOOK, 1)]),
                Step::Answered => all.extend([IN_FLIGHT, COMMITTED].map(|n| Self::new(n, 1))),
                Step::Thawed => all.extend([MOVED, THAW, THAW_DONE].map(|n| Self::new(n, 1))),
                _ => {}
            }
            all.push(Self::new(step.name(), 1));
            match step {
                Step::Permission => all.push(Self::new(PERMITTED, 1)),
                Step::Attempt | Step::PreHook | Step::PostHook | Step::Released => {
                    all.push(Self::new(step.name(), 2));
                }
                Step::Prepare => {
                    all.extend([(OPEN, 1), (OPEN, 2), (SYNC, 1), (SYNC, 2)].map(|(n, i)| Self::new(n, i)));
                }
                Step::Freezing => {
                    let calls = [(FREEZE, 1), (FREEZE_DONE, 1), (FREEZE, 2), (FREEZE_DONE, 2)];
                    all.extend(calls.map(|(n, i)| Self::new(n, i)));
                }
                Step::Answered => all.extend([Self::new(THAW, 2), Self::new(THAW_DONE, 2)]),
                Step::LookUp => all.push(Self::new(LOOKED, 1)),
                Step::Label => all.push(Self::new(TAGGED, 1)),
                _ => {}
            }
        }
        all.push(Self::new(POST_RUNNING, 1));
        all
    }

    /// The fault of the API without which it is not reached.
    pub fn needs(&self) -> Option<&'static str> {
        match self.name.as_str() {
            "look-up" | LOOKED => Some("drop-after"),
            IN_FLIGHT => Some("hold-before"),
            COMMITTED => Some("hold-after"),
            _ => None,
        }
    }

    /// Is the request to be held there until the fault has done what it does?
    pub fn holds(&self) -> bool {
        self.is(IN_FLIGHT) || self.is(COMMITTED)
    }

    /// Is the answer to the create call known before it?
    fn after_answer(&self) -> bool {
        let done = [MOVED, THAW, THAW_DONE, LOOKED, TAGGED, POST_RUNNING];
        done.contains(&self.name.as_str()) || self.step().is_some_and(|s| s >= Step::Answered)
    }

    fn step(&self) -> Option<Step> {
        Step::ALL.into_iter().find(|s| s.name() == self.name)
    }

    /// May something be frozen at it?
    pub fn in_window(&self) -> bool {
        let calls = [FREEZE, FREEZE_DONE, LOOK, IN_FLIGHT, COMMITTED, MOVED, THAW, THAW_DONE];
        // The first look only shows that the counter counts; nothing is guarded yet.
        if self.is(LOOK) && self.nth == 1 {
            return false;
        }
        calls.contains(&self.name.as_str()) || self.step().is_some_and(Step::in_window)
    }

    fn guarded(&self) -> bool {
        (self.in_window() && !(self.name == THAW_DONE && self.nth == 2))
            || self.step().is_some_and(|s| (Step::Guarded..=Step::Answered).contains(&s))
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.name, self.nth)
    }
}

pub const PERMITTED: &str = "ec2.permitted";
pub const OPEN: &str = "kernel.open";
pub const SYNC: &str = "kernel.syncfs";
pub const FREEZE: &str = "kernel.freeze";
pub const FREEZE_DONE: &str = "kernel.freeze-done";
pub const LOOK: &str = "kernel.look";
pub const IN_FLIGHT: &str = "ec2.in-flight";
pub const COMMITTED: &str = "ec2.committed";
pub const MOVED: &str = "kernel.moved";
pub const THAW: &str = "kernel.thaw";
pub const THAW_DONE: &str = "kernel.thaw-done";
pub const LOOKED: &str = "ec2.looked";
pub const TAGGED: &str = "ec2.tagged";
pub const PRE_RUNNING: &str = "pre-running";
pub const POST_RUNNING: &str = "post-running";

/// What happens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// What is done there fails.
    Error,
    Panic,
    Kill,
    /// SIGSTOP; SIGKILL once the deadline is over.
    Stop,
    Term,
    Int,
    /// SIGSTOP; SIGCONT once the deadline is over.
    Pause,
    /// SIGKILL for the watchdog.
    Unguard,
    /// SIGKILL for everything in the agent's control group.
    KillGroup,
    /// Everything in that group is frozen, until the deadline is over.
    FreezeGroup,
}

/// Is there a hierarchy for the two that are done to a control group?
static HAS_GROUPS: LazyLock<bool> = LazyLock::new(|| Hierarchy::Unified.is_mounted());

impl Fault {
    pub const ALL: [Self; 10] = [
        Self::Error,
        Self::Panic,
        Self::Kill,
        Self::Stop,
        Self::Term,
        Self::Int,
        Self::Pause,
        Self::Unguard,
        Self::KillGroup,
        Self::FreezeGroup,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Panic => "panic",
            Self::Kill => "sigkill",
            Self::Stop => "sigstop",
            Self::Term => "sigterm",
            Self::Int => "sigint",
            Self::Pause => "pause",
            Self::Unguard => "no-watchdog",
            Self::KillGroup => "kill-group",
            Self::FreezeGroup => "freeze-group",
        }
    }

    /// Can it happen there?
    pub fn fits(self, point: &Point) -> bool {
        let by_a_hook = point.is(PRE_RUNNING) || point.is(POST_RUNNING);
        match self {
            Self::Error | Self::Panic => !by_a_hook,
            Self::Unguard => point.guarded(),
            Self::KillGroup | Self::FreezeGroup => !by_a_hook && *HAS_GROUPS,
            _ => true,
        }
    }

    /// Does the agent die without a chance to say anything?
    pub fn kills(self) -> bool {
        matches!(self, Self::Kill | Self::Stop | Self::KillGroup)
    }

    /// Does it stop until it is let go on, or killed?
    pub fn stops(self) -> bool {
        matches!(self, Self::Stop | Self::Pause | Self::FreezeGroup)
    }
}

/// A fault of the API, for the soak.
#[derive(Debug, PartialEq, Eq)]
pub struct Api {
    pub name: &'static str,
    /// As ebs-sim's control interface takes it.
    pub body: &'static str,
    /// When a request that it holds is released.
    pub until: Until,
}

/// Until when a request is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// None is held.
    Never,
    /// EC2 has it: what comes then comes within the window.
    Seen,
    /// The agent thaws, is stopped or has ended: what comes then is too late, unless it was the agent that
    /// stood still.
    Thaw,
}

const fn api(name: &'static str, body: &'static str) -> Api {
    Api { name, body, until: Until::Never }
}

const fn held(name: &'static str, body: &'static str, until: Until) -> Api {
    Api { name, body, until }
}

impl Api {
    #[rustfmt::skip]
    pub const ALL: &[Self] = &[
        api("throttled", r#"{"action": "CreateSnapshots", "call": 1, "kind": "error", "code": "RequestLimitExceeded", "status": 503}"#),
        api("denied", r#"{"action": "CreateSnapshots", "call": 1, "kind": "error", "code": "UnauthorizedOperation", "status": 403}"#),
        api("http-500", r#"{"action": "CreateSnapshots", "call": 1, "kind": "http-500"}"#),
        api("error-after", r#"{"action": "CreateSnapshots", "call": 1, "kind": "error-after"}"#),
        api("drop-before", r#"{"action": "CreateSnapshots", "call": 1, "kind": "drop-before"}"#),
        api("drop-after", r#"{"action": "CreateSnapshots", "call": 1, "kind": "drop-after"}"#),
        api("hang", r#"{"action": "CreateSnapshots", "call": 1, "kind": "hang"}"#),
        api("hang-after", r#"{"action": "CreateSnapshots", "call": 1, "kind": "hang-after"}"#),
        held("late-before", r#"{"action": "CreateSnapshots", "call": 1, "kind": "hold-before"}"#, Until::Seen),
        held("late-after", r#"{"action": "CreateSnapshots", "call": 1, "kind": "hold-after"}"#, Until::Seen),
        held("too-late-before", r#"{"action": "CreateSnapshots", "call": 1, "kind": "hold-before"}"#, Until::Thaw),
        held("too-late-after", r#"{"action": "CreateSnapshots", "call": 1, "kind": "hold-after"}"#, Until::Thaw),
        api("half-an-answer", r#"{"action": "CreateSnapshots", "call": 1, "kind": "hold-mid"}"#),
        api("malformed", r#"{"action": "CreateSnapshots", "call": 1, "kind": "malformed"}"#),
        api("extra-volume", r#"{"action": "CreateSnapshots", "call": 1, "kind": "extra-volume"}"#),
        api("snapshot-error", r#"{"action": "CreateSnapshots", "call": 1, "kind": "snapshot-error"}"#),
        api("dry-run-dropped", r#"{"action": "CreateSnapshots", "call": 2, "dry_run": true, "kind": "drop-before"}"#),
        api("no-tags", r#"{"action": "CreateTags", "kind": "http-500"}"#),
        api("tags-dropped-once", r#"{"action": "CreateTags", "call": 1, "kind": "drop-after"}"#),
        api("no-look-ups", r#"{"action": "DescribeSnapshots", "kind": "http-500"}"#),
        api("slow-api", r#"{"action": "*", "dry_run": null, "kind": "delay-after", "delay_ms": 60}"#),
    ];
}

/// How an agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Code(i32),
    Signal(i32),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// One case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    pub point: Point,
    pub fault: Fault,
    pub fs: Fs,
    /// A fault of the API on top.
    pub api: Option<&'static Api>,
}

impl Case {
    /// Every combination that there is.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for fault in Fault::ALL {
            for point in Point::all().into_iter().filter(|p| fault.fits(p)) {
                for fs in Fs::ALL {
                    all.push(Self { point: point.clone(), fault, fs, api: None });
                }
            }
        }
        all
    }

    /// Every point once, faults and filesystems in turn.
    pub fn sample() -> Vec<Self> {
        let mut faults = Fault::ALL.into_iter().cycle();
        let mut all = Vec::new();
        for (n, point) in Point::all().into_iter().enumerate() {
            let fault = faults.by_ref().find(|f| f.fits(&point)).unwrap();
            let fs = Fs::ALL[n % 3];
            all.push(Self { point, fault, fs, api: None });
        }
        all
    }

    /// Until when the create call is held.
    pub fn until(&self) -> Until {
        if self.point.holds() { Until::Thaw } else { self.api.map_or(Until::Never, |api| api.until) }
    }

    /// How the agent may end.
    pub fn ends(&self) -> Vec<End> {
        use End::{Code, Signal};
        if self.api.is_some() {
            // Two faults at once: how it ends depends on which comes first. Never with 40.
            let codes = [0, 11, 20, 21, 22, 23, 70, 77, 78].map(Code);
            return codes.into_iter().chain([2, 9, 15].map(Signal)).collect();
        }
        let point = &self.point;
        // A look-up is only reached when the answer was lost.
        let late = if point.needs() == Some("drop-after") { 23 } else { 0 };
        match self.fault {
            Fault::Error => vec![Code(self.error())],
            // The panic is in a thread; that thaws what it has frozen, and the run goes on.
            Fault::Panic if point.is(THAW) => vec![Code(0)],
            Fault::Panic if point.is(THAW_DONE) => vec![Code(22)],
            Fault::Panic if point.is(FREEZE) || point.is(FREEZE_DONE) => vec![Code(21)],
            // Each filesystem is opened and flushed by a thread of its own.
            Fault::Panic if point.is(OPEN) || point.is(SYNC) => vec![Code(21)],
            // A thread of its own looks before the window whether the counters count. Without that they are no
            // witness; the proof of a freeze is FITHAW's answer.
            Fault::Panic if point.is(LOOK) && point.nth == 1 => vec![Code(0)],
            Fault::Panic => vec![Code(70)],
            Fault::Kill | Fault::Stop | Fault::KillGroup => vec![Signal(9)],
            Fault::Term | Fault::Int if point.after_answer() => vec![Code(late)],
            Fault::Term | Fault::Int => {
                let signal = Signal(if self.fault == Fault::Term { 15 } else { 2 });
                // The answer may be there before the signal is seen: then the set is good.
                let close = [FREEZE, FREEZE_DONE, LOOK, "frozen", "request"].contains(&point.name.as_str());
                if close { vec![signal, Code(0)] } else { vec![signal] }
            }
            // The deadline has not begun, and nothing is frozen.
            Fault::Pause | Fault::FreezeGroup if point.is("freezing") => vec![Code(0)],
            Fault::Pause | Fault::FreezeGroup if point.is(THAW_DONE) => vec![Code(0), Code(22)],
            Fault::Pause | Fault::FreezeGroup if point.in_window() => vec![Code(21), Code(22)],
            Fault::Pause | Fault::FreezeGroup => vec![Code(late)],
            // The watchdog may thaw a btrfs and die before it can say so: then nobody knows whose thaw it
            // was. At the end of the first thaw it may be in the other one.
            Fault::Unguard if (point.is(THAW) || point.is(THAW_DONE)) && self.fs == Fs::Btrfs => {
                vec![Code(0), Code(22)]
            }
            Fault::Unguard if point.after_answer() => vec![Code(late)],
            Fault::Unguard => vec![Code(21), Code(22)],
        }
    }

    fn error(&self) -> i32 {
        match self.point.name.as_str() {
            "preflight" => 78,
            "journal-start" => 77,
            "permission" | "pending" | "warm" | "request" | "look-up" | IN_FLIGHT | COMMITTED | LOOKED => 23,
            "attempt" | "pre-hook" => 20,
            "prepare" | "guarded" | "unchanged" | "journal-window" | "freezing" | OPEN | SYNC | FREEZE => 21,
            "frozen" | "answered" | FREEZE_DONE | MOVED | THAW_DONE => 22,
            "post-hook" | "label" | "record" => 11,
            // Before the request the counters are looked at until two looks agree: one that failed does no
            // harm. One that goes on failing is the error at "frozen".
            // Looks only: see `sabotage`.
            "busy" | "busy-again" => 0,
            // A DryRun whose answer was lost is sent again.
            PERMITTED => 0,
            "thawed" | "made" | "judged" | "released" | "close" | THAW | TAGGED | LOOK => 0,
            other => panic!("what does an error at {other} end with?"),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.point, self.fault.name(), format!("{:?}", self.fs).to_lowercase())?;
        self.api.map_or(Ok(()), |api| write!(f, "/{}", api.name))
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("no case: {text}");
        let parts: Vec<&str> = text.split('/').collect();
        let [point, fault, fs, api @ ..] = parts.as_slice() else { return Err(wrong()) };
        let point = Point::all().into_iter().find(|p| p.to_string() == *point).ok_or_else(wrong)?;
        let fault = Fault::ALL.into_iter().find(|f| f.name() == *fault).ok_or_else(wrong)?;
        let fs = Fs::ALL.into_iter().find(|f| format!("{f:?}").to_lowercase() == *fs).ok_or_else(wrong)?;
        let api = match api {
            [] => None,
            [name, ..] => Some(Api::ALL.iter().find(|a| a.name == *name).ok_or_else(wrong)?),
        };
        Ok(Self { point, fault, fs, api })
    }
}
