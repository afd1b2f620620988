//! What follows from the members' entries.

use super::*;
use crate::group::entry::PROTOCOL;

const NAMES: [&str; 3] = ["a", "b", "c"];

fn names() -> Vec<String> {
    NAMES.map(str::to_owned).to_vec()
}

struct Made {
    who: Who,
    view: View,
    revision: Version,
    runs: BTreeMap<String, RunId>,
}

impl Made {
    /// Everybody is here; seen by `a`.
    fn new() -> Self {
        let runs: BTreeMap<_, _> = names().into_iter().map(|name| (name, RunId::generate())).collect();
        let who = Who { group: "g".to_owned(), members: names(), me: "a".to_owned(), run: runs["a"].clone() };
        let mut made = Self { who, view: View::default(), revision: 0, runs };
        NAMES.iter().for_each(|name| made.says(name, Phase::Here, None));
        made
    }

    fn together(&self) -> Together {
        let epoch = Epoch::of("g", &self.runs.iter().map(|(m, r)| (m.as_str(), r)).collect());
        Together { epoch, runs: self.runs.clone() }
    }

    fn raw(&mut self, name: &str, phase: Phase, epoch: Option<Epoch>) -> Raw {
        self.revision += 1;
        let entry = Entry {
            protocol: PROTOCOL,
            member: name.to_owned(),
            members: names(),
            run: self.runs[name].clone(),
            instance: "i-0123456789abcdef0".parse().unwrap(),
            region: "eu-central-1".to_owned(),
            phase,
            epoch,
            label: None,
            reason: None,
        };
        Raw { member: name.to_owned(), version: self.revision, value: Some(entry.bytes()) }
    }

    fn says(&mut self, name: &str, phase: Phase, epoch: Option<Epoch>) {
        let raw = self.raw(name, phase, epoch);
        self.view.hear(&raw);
    }

    fn goes(&mut self, name: &str) {
        self.revision += 1;
        self.view.hear(&Raw { member: name.to_owned(), version: self.revision, value: None });
    }

    fn reached(&self, phase: Phase) -> Result<Barrier, Broken> {
        self.view.reached(&self.who, &self.together(), phase)
    }
}

#[test]
fn all_are_here_only_when_each_has_a_run_that_is_not_over() {
    let mut made = Made::new();
    assert_eq!(made.view.all_here(&made.who), Ok(Ok(made.together())));
    made.says("c", Phase::Left, None);
    assert_eq!(made.view.all_here(&made.who), Ok(Err(vec!["c".to_owned()])), "what a former run left");
    made.goes("b");
    assert_eq!(made.view.all_here(&made.who), Ok(Err(vec!["b".to_owned(), "c".to_owned()])));
    made.goes("a");
    assert_eq!(made.view.all_here(&made.who), Err(Broken::OwnGone));
}

#[test]
fn a_member_that_is_in_another_epoch_is_not_here() {
    let mut made = Made::new();
    made.says("b", Phase::Ready, Some(Epoch::none()));
    assert_eq!(made.view.all_here(&made.who), Ok(Err(vec!["b".to_owned()])));
    made.says("b", Phase::Ready, Some(made.together().epoch));
    assert_eq!(made.view.all_here(&made.who), Ok(Ok(made.together())), "it was faster");
}

#[test]
fn members_that_differ_are_a_fault_of_the_configuration() {
    let mut made = Made::new();
    made.who.members.push("d".to_owned());
    let broken = made.view.all_here(&made.who).unwrap_err();
    assert!(matches!(&broken, Broken::OtherMembers { member, .. } if member == "a"), "{broken}");
    assert_eq!(broken.exit(), Exit::Config);
}

#[test]
fn a_phase_is_reached_by_all_or_not() {
    let mut made = Made::new();
    let epoch = Some(made.together().epoch);
    let waiting = |names: &[&str]| Ok(Barrier::Waiting(names.iter().map(|n| (*n).to_owned()).collect()));
    assert_eq!(made.reached(Phase::Ready), waiting(&["a", "b", "c"]), "nobody has an epoch yet");
    made.says("a", Phase::Frozen, epoch.clone());
    made.says("b", Phase::Answered, epoch.clone());
    made.says("c", Phase::Set, epoch.clone());
    assert_eq!(made.reached(Phase::Set), Ok(Barrier::Passed));
    assert_eq!(made.reached(Phase::Frozen), waiting(&["c"]));
    assert_eq!(made.reached(Phase::Answered), waiting(&["a", "c"]));
    made.says("c", Phase::Held, epoch);
    assert_eq!(made.reached(Phase::Frozen), Ok(Barrier::Passed));
}

#[test]
fn nothing_of_another_run_or_epoch_counts() {
    let all = |made: &mut Made| {
        let epoch = Some(made.together().epoch);
        NAMES.iter().for_each(|name| made.says(name, Phase::Frozen, epoch.clone()));
    };
    let mut made = Made::new();
    all(&mut made);
    assert_eq!(made.reached(Phase::Frozen), Ok(Barrier::Passed));

    made.says("b", Phase::Frozen, Some(Epoch::none()));
    assert_eq!(made.reached(Phase::Frozen), Err(Broken::OtherEpoch { member: "b".to_owned() }));

    let mut made = Made::new();
    all(&mut made);
    let (together, epoch) = (made.together(), made.together().epoch);
    made.runs.insert("b".to_owned(), RunId::generate());
    made.says("b", Phase::Frozen, Some(epoch.clone()));
    let seen = made.view.reached(&made.who, &together, Phase::Frozen);
    assert_eq!(seen, Err(Broken::Replaced { member: "b".to_owned() }), "though it claims the epoch");

    made.runs.insert("a".to_owned(), RunId::generate());
    made.says("a", Phase::Frozen, Some(epoch));
    assert_eq!(made.view.reached(&made.who, &together, Phase::Frozen), Err(Broken::OwnGone));
}

#[test]
fn who_leaves_or_is_gone_breaks_every_phase_also_those_that_it_had_reached() {
    let mut made = Made::new();
    let epoch = Some(made.together().epoch);
    NAMES.iter().for_each(|name| made.says(name, Phase::Answered, epoch.clone()));
    made.says("c", Phase::Left, epoch);
    assert!(matches!(made.reached(Phase::Ready), Err(Broken::Left { .. })));
    made.goes("c");
    assert_eq!(made.reached(Phase::Ready), Err(Broken::Gone { member: "c".to_owned() }));
}

#[test]
fn what_is_older_than_what_is_known_changes_nothing() {
    let mut made = Made::new();
    let epoch = Some(made.together().epoch);
    let old = made.raw("b", Phase::Frozen, epoch.clone());
    made.says("b", Phase::Left, epoch.clone());
    let known = made.view.clone();
    made.view.hear(&old);
    assert_eq!(made.view, known);
    // A read of an earlier moment, in which b has no entry and c an old one.
    made.view.take(&Read { revision: 1, entries: vec![] });
    assert_eq!(made.view, known);
    made.view.take(&Read { revision: made.revision + 1, entries: vec![] });
    assert_eq!(made.view.entry("b"), None);
    made.view.hear(&old);
    assert_eq!(made.view.entry("b"), None, "its entry is gone since");
}

#[test]
fn an_entry_that_cannot_be_read_is_no_entry_and_is_told() {
    let mut made = Made::new();
    let version = made.revision + 1;
    made.view.hear(&Raw { member: "b".to_owned(), version, value: Some(b"{}".to_vec()) });
    assert!(matches!(made.view.all_here(&made.who), Err(Broken::Unreadable { .. })));
    assert!(matches!(made.reached(Phase::Ready), Err(Broken::Unreadable { .. })));
}
