//! Parse, log, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before the runtime starts threads: each of these is a process of its own.
    if std::env::args_os().nth(1).is_some_and(|a| a == stillpoint::window::watchdog::ARGUMENT) {
        return stillpoint::window::watchdog::main();
    }
    if std::env::args_os().nth(1).is_some_and(|a| a == stillpoint::window::freezer::ARGUMENT) {
        return stillpoint::window::freezer::main();
    }
    if let Some(task) = std::env::args_os()
        .nth(1)
        .filter(|a| a.as_encoded_bytes().starts_with(stillpoint::run::rescue::process::ARGUMENT.as_bytes()))
    {
        return stillpoint::run::rescue::process::main(&task);
    }
    if std::env::args_os().nth(1).is_some_and(|a| a == stillpoint::window::probe::ARGUMENT) {
        return stillpoint::window::probe::main(std::env::args_os().skip(2));
    }
    if std::env::args_os().nth(1).is_some_and(|a| a == stillpoint::host::inspect::ARGUMENT) {
        return stillpoint::host::inspect::main();
    }
    if std::env::args_os().nth(1).is_some_and(|a| a == stillpoint::quiesce::user::ARGUMENT) {
        return stillpoint::quiesce::user::main(std::env::args_os().skip(2));
    }
    if std::env::args_os().nth(1).is_some_and(|a| a == stillpoint::quiesce::trial::ARGUMENT) {
        return stillpoint::quiesce::trial::main(std::env::args_os().skip(2));
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
