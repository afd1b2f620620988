//! A question before what cannot be taken back.
//!
//! In: a question, `--yes`. Out: leave to go on, or an error. Must never: take silence, the end of input or a signal for
//! a yes.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use crate::error::Error;
use crate::exit::Exit;
use crate::interrupt::Interrupt;

/// Goes on where `--yes` was given, or where a person at a terminal says so.
///
/// # Errors
/// Where nobody says so.
pub(super) async fn confirm(question: &str, yes: bool, interrupt: &Interrupt) -> Result<(), Error> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Error::new(Exit::Usage, format!("{question} There is no terminal to answer at"))
            .hint("--yes says that it is meant; nothing was done"));
    }
    // Behind what the log still has to write.
    crate::gate::finish();
    let _ = write!(std::io::stderr(), "{question} [y/N] ");
    let (to, answer) = tokio::sync::oneshot::channel();
    // A thread of its own: the runtime would wait for it at the end, and nothing ends the reading.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        let _ = to.send(read.map(|_| line).unwrap_or_default());
    });
    let mut interrupt = interrupt.clone();
    let line = tokio::select! {
        biased;
        signal = interrupt.caught() => return Err(Error::interrupted(signal)),
        line = answer => line.unwrap_or_default(),
    };
    match is_yes(&line) {
        true => Ok(()),
        false => Err(Error::new(Exit::Usage, "not confirmed: nothing was done")),
    }
}

fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::is_yes;

    #[test]
    fn only_a_yes_is_one() {
        assert!(["y\n", "Y\n", "yes\n", " YES \n"].iter().all(|line| is_yes(line)));
        assert!(
            ["", "\n", "n\n", "no\n", "yesterday\n", "ye\n", "1\n", "y y\n"].iter().all(|line| !is_yes(line))
        );
    }
}
