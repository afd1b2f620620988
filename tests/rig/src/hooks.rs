//! Hooks that write down what is done to them.

use crate::Rig;

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
