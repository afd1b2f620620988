//! A command that is told something: it gets a document on its standard input.
//!
//! In: a hook that only informs, its variables, the document. Out: how it ended. Must never: block on a command that
//! does not read (the document is a file in memory), or start what somebody else than root could change.

use std::ffi::OsString;
use std::future::pending;

use super::environment::{PATH, home};
use super::outcome::{HookOutcome, HookStatus, Phase};
use super::process::{self, Program};
use super::{not_started, started};
use crate::config::settings::Notify;
use crate::host::kernel;
use crate::host::trust::Trusted;

/// Runs the command of this section.
pub(crate) async fn tell(notify: &Notify, told: &[(&str, String)], document: &[u8]) -> HookOutcome {
    let failed = |why: String| {
        let status = HookStatus::NotStarted(why);
        HookOutcome::new(&notify.name, Phase::Completed, status, std::time::Duration::ZERO, String::new())
    };
    let vars = vars(notify, told);
    let user = notify.user.as_deref();
    // Of another user's command its own process looks, once it has become that user.
    if user.is_none()
        && let Err(loose) = started::check(&notify.command, &vars, Trusted::own())
    {
        return HookOutcome { hint: Some(loose.remedy.clone()), ..failed(not_started(&loose)) };
    }
    let input = match kernel::memory_file_of(c"stillpoint-event", document) {
        Ok(input) => input,
        Err(e) => return failed(format!("cannot write what it is to be told: {e}")),
    };
    let program = Program { argv: &notify.command, user, vars: &vars };
    process::run(&notify.name, Phase::Completed, program, input.into(), notify.timeout, pending()).await
}

/// Its whole environment, by the rules of hooks: nothing of this process's own.
fn vars(notify: &Notify, told: &[(&str, String)]) -> Vec<(String, OsString)> {
    let mut vars: Vec<(String, OsString)> =
        vec![("PATH".into(), PATH.into()), ("LANG".into(), "C.UTF-8".into())];
    // That of another user is set once the process has become the user.
    vars.extend(notify.user.is_none().then(|| ("HOME".to_owned(), home())));
    vars.push(("STILLPOINT_HOOK".into(), notify.name.as_str().into()));
    vars.extend(told.iter().map(|(name, value)| ((*name).to_owned(), value.into())));
    vars.retain(|(name, _)| !notify.environment.contains_key(name));
    vars.extend(notify.environment.iter().map(|(name, value)| (name.clone(), value.into())));
    vars
}
