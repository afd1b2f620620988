//! Parse, log, run, exit code.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use stillpoint::{cli, host, quiesce, restore, run, window};

fn main() -> ExitCode {
    // Before the runtime starts threads: each of these is a process of its own.
    let mut arguments = std::env::args_os().skip(1);
    if let Some(first) = arguments.next()
        && let Some(ended) = hidden(&first, arguments)
    {
        return ended;
    }
    stillpoint::host::kernel::one_malloc_arena();
    stillpoint::gate::install_panic_hook();
    let ended = std::panic::catch_unwind(stillpoint::cli::main).unwrap_or_else(|_| {
        use stillpoint::exit::Exit;
        let is = |left: &std::sync::atomic::AtomicBool| left.load(std::sync::atomic::Ordering::SeqCst);
        let exit = if is(&stillpoint::window::LEFT_FROZEN) {
            Exit::StillFrozen
        } else if is(&stillpoint::run::unmounted::STILL_UNMOUNTED) {
            Exit::NotMounted
        } else {
            Exit::Bug
        };
        ExitCode::from(exit.code())
    });
    stillpoint::gate::finish();
    ended
}

/// What a hidden first argument makes this program; none when it is not one.
fn hidden(first: &OsStr, rest: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if first.as_encoded_bytes().starts_with(run::rescue::process::ARGUMENT.as_bytes()) {
        return Some(run::rescue::process::main(first));
    }
    Some(match first.to_str()? {
        window::watchdog::ARGUMENT => window::watchdog::main(),
        window::freezer::ARGUMENT => window::freezer::main(),
        window::probe::ARGUMENT => window::probe::main(rest),
        cli::complete::ARGUMENT => cli::complete::main(rest),
        cli::complete::NOW => cli::complete::now(rest),
        host::inspect::ARGUMENT => host::inspect::main(),
        quiesce::user::ARGUMENT => quiesce::user::main(rest),
        restore::stack::apart::ARGUMENT => restore::stack::apart::main(rest),
        restore::verify::contained::ARGUMENT => restore::verify::contained::main(rest),
        restore::verify::mounted::ARGUMENT => restore::verify::mounted::main(),
        quiesce::trial::ARGUMENT => quiesce::trial::main(rest),
        _ => return None,
    })
}
