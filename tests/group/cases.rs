//! What goes wrong, where, and with whom.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use stillpoint::run::step::Step;

/// What happens to a member, to its wire, or to etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// SIGKILL.
    Kill,
    /// SIGKILL, and the member is started again at once.
    Rerun,
    /// SIGSTOP, until the others have ended.
    Stop,
    /// SIGSTOP for longer than the watchdog waits.
    Pause,
    /// SIGSTOP for less than that.
    Blip,
    /// A panic of the program.
    Panic,
    /// SIGTERM.
    Term,
    /// Nothing passes on the member's wire any more, and nobody is told.
    Cut,
    /// The same for a moment: what was sent then arrives late.
    Late,
    /// The member's connections are closed, and none is taken.
    Close,
    /// etcd is killed.
    EtcdKill,
    /// etcd is killed, and started again at once.
    EtcdRestart,
    /// etcd is stopped.
    EtcdStop,
    /// The same for a moment.
    EtcdBlip,
}

impl Fault {
    pub const ALL: [Self; 14] = [
        Self::Kill,
        Self::Rerun,
        Self::Stop,
        Self::Pause,
        Self::Blip,
        Self::Panic,
        Self::Term,
        Self::Cut,
        Self::Late,
        Self::Close,
        Self::EtcdKill,
        Self::EtcdRestart,
        Self::EtcdStop,
        Self::EtcdBlip,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Kill => "kill",
            Self::Rerun => "rerun",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Blip => "blip",
            Self::Panic => "panic",
            Self::Term => "term",
            Self::Cut => "cut",
            Self::Late => "late",
            Self::Close => "close",
            Self::EtcdKill => "etcd-kill",
            Self::EtcdRestart => "etcd-restart",
            Self::EtcdStop => "etcd-stop",
            Self::EtcdBlip => "etcd-blip",
        }
    }

    /// Does the member do it to itself?
    pub fn by_member(self) -> bool {
        matches!(
            self,
            Self::Kill | Self::Rerun | Self::Stop | Self::Pause | Self::Blip | Self::Panic | Self::Term
        )
    }

    /// For how long, where it is over by itself.
    pub fn lasts(self) -> Option<Duration> {
        Some(Duration::from_millis(match self {
            Self::Pause => 900,
            Self::Blip => 150,
            Self::Late => 400,
            Self::EtcdBlip => 600,
            _ => return None,
        }))
    }
}

impl FromStr for Fault {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().chain([Self::None]).find(|f| f.name() == name).ok_or(())
    }
}

/// When it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// When the member reaches this step.
    At(Step),
    /// When its entry says this. Another member's EC2 is slow meanwhile.
    Said(&'static str),
}

/// What EC2 does, at the member that the case is about, or at another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Api {
    pub name: &'static str,
    pub fault: &'static str,
    /// Of another member.
    pub elsewhere: bool,
}

const SLOW: &str = r#"{"action": "CreateSnapshot", "call": 1, "kind": "delay-before", "delay_ms": 1500}"#;

fn apis() -> Vec<Api> {
    [
        (
            "refuses",
            r#"{"action": "CreateSnapshot", "call": 1, "kind": "error", "code": "SnapshotLimitExceeded"}"#,
        ),
        ("throttles", r#"{"action": "CreateSnapshot", "call": 1, "kind": "throttle"}"#),
        ("http-500", r#"{"action": "CreateSnapshot", "call": 1, "kind": "http-500"}"#),
        ("error-after", r#"{"action": "CreateSnapshot", "call": 1, "kind": "error-after"}"#),
        ("drop-before", r#"{"action": "CreateSnapshot", "call": 1, "kind": "drop-before"}"#),
        ("reset-after", r#"{"action": "CreateSnapshot", "call": 1, "kind": "reset-after"}"#),
        ("slow", SLOW),
        (
            "slow-answer",
            r#"{"action": "CreateSnapshot", "call": 1, "kind": "delay-after", "delay_ms": 1500}"#,
        ),
        ("too-slow", r#"{"action": "CreateSnapshot", "call": 1, "kind": "delay-before", "delay_ms": 9000}"#),
        (
            "answers-too-late",
            r#"{"action": "CreateSnapshot", "call": 1, "kind": "delay-after", "delay_ms": 9000}"#,
        ),
    ]
    .map(|(name, fault)| Api { name, fault, elsewhere: false })
    .to_vec()
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    pub fault: Fault,
    pub when: When,
    /// The member's number.
    pub who: usize,
    pub api: Option<Api>,
}

/// Where a member is struck.
const STEPS: [Step; 19] = [
    Step::AllHere,
    Step::JournalStart,
    Step::AllReady,
    Step::Warm,
    Step::AllSet,
    Step::JournalWindow,
    Step::Freezing,
    Step::Frozen,
    Step::AllFrozen,
    Step::Request,
    Step::AllAnswered,
    Step::Answered,
    Step::Thawed,
    Step::Made,
    Step::Judged,
    Step::AllHeld,
    Step::Label,
    Step::Record,
    Step::Close,
];

impl Case {
    /// Nothing goes wrong.
    fn none() -> Self {
        Self { fault: Fault::None, when: When::At(Step::Close), who: 0, api: None }
    }

    /// Does nothing go wrong in it?
    pub fn is_plain(&self) -> bool {
        self.fault == Fault::None && self.api.is_none()
    }

    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::none()];
        for (n, fault) in Fault::ALL.into_iter().enumerate() {
            for (m, step) in STEPS.into_iter().enumerate() {
                all.push(Self { fault, when: When::At(step), who: (n + m) % 3, api: None });
            }
        }
        all.extend(apis().into_iter().enumerate().map(|(n, api)| Self {
            who: n % 3,
            api: Some(api),
            ..Self::none()
        }));
        // A member is struck after its word, while another one's word is still to come.
        for (n, fault) in Fault::ALL.into_iter().enumerate() {
            for phase in ["frozen", "answered"] {
                let api = Api { name: "slow", fault: SLOW, elsewhere: true };
                all.push(Self { fault, when: When::Said(phase), who: n % 3, api: Some(api) });
            }
        }
        all
    }

    /// A good part of them, in half a minute.
    pub fn sample() -> Vec<Self> {
        let chosen = [
            "none/close/a",
            "stop/answered-said/",
            "pause/answered-said/",
            "kill/answered-said/",
            "cut/all-answered/",
            "late/all-frozen/",
            "kill/all-held/",
            "rerun/all-set/",
            "etcd-kill/request/",
            "etcd-restart/all-ready/",
            "close/frozen/",
            "panic/all-frozen/",
            "term/request/",
            "refuses",
            "too-slow",
        ];
        let all = Self::all();
        let found = |part: &&str| all.iter().find(|case| case.to_string().contains(part)).unwrap().clone();
        chosen.iter().map(found).collect()
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = match self.when {
            When::At(step) => step.name().to_owned(),
            When::Said(phase) => format!("{phase}-said"),
        };
        write!(f, "{}/{when}/{}", self.fault.name(), rig::hosts::NAMES[self.who])?;
        self.api.map_or(Ok(()), |api| write!(f, "/{}", api.name))
    }
}
