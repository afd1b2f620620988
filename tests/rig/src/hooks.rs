//! Hooks that write down what is done to them.

use crate::Rig;
use crate::program::{Run, await_some};

/// A hook whose commands are these shell scripts.
pub fn hook(name: &str, pre: &str, post: &str, more: &str) -> String {
    let script = |text: &str| format!("[\"/bin/sh\", \"-c\", '''{text}''']");
    let (pre, post) = (script(pre), script(post));
    format!("[[hook]]\nname = \"{name}\"\npre = {pre}\npost = {post}\ntimeout = \"10s\"\n{more}\n")
}

/// A script that notes this.
pub fn note(rig: &Rig, text: &str) -> String {
    format!("echo {text} >> {}", rig.path("log").display())
}

/// A hook that notes `pre-NAME` and `post-NAME RESULT`.
pub fn noting(rig: &Rig, name: &str) -> String {
    let post = note(rig, &format!("post-{name} $STILLPOINT_RESULT"));
    hook(name, &note(rig, &format!("pre-{name}")), &post, "")
}

/// What was noted so far.
pub fn log(rig: &Rig) -> Vec<String> {
    let text = std::fs::read_to_string(rig.path("log")).unwrap_or_default();
    text.lines().map(|l| l.trim().to_owned()).collect()
}

/// A run that is in its window: everything is frozen, the create call has come in and is not answered.
pub fn in_the_window(rig: &Rig, kind: &str, delay: &str, arguments: &[&str]) -> Run {
    in_the_window_of(rig, kind, delay, rig.command(arguments))
}

/// The same of this command.
pub fn in_the_window_of(rig: &Rig, kind: &str, delay: &str, command: std::process::Command) -> Run {
    let before = rig.creates().len();
    let action = if rig.mounts().len() == 1 { "CreateSnapshot" } else { "CreateSnapshots" };
    rig.fault(action, kind, delay);
    let run = Run::start(command);
    await_some("the create call", std::time::Duration::from_secs(20), || {
        rig.creates().into_iter().nth(before)
    });
    run
}
