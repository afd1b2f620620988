//! The freezer: a process of its own that makes the calls which nothing can break off.
//!
//! In: a socket on fd 0 (see `companion.rs`), one fd a superblock, the shared page. Out: FIFREEZE and FITHAW as
//! the agent requests them (see `delegated.rs`); once the agent is gone, FITHAW on what it has frozen. Must
//! never: freeze or thaw anything else, or end while it has something frozen.
//!
//! A FIFREEZE can take as long as a writer inside does. A process with a thread in it cannot end, whatever
//! signal comes: so the agent, which has to report, is not the one that waits there.

use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};

use super::companion::{Begun, DONE, STACK, begin, kernel_log, ready, say, socket};
use super::delegated;
use crate::host::kernel::{Linux, touch_stack};

/// The hidden first argument that makes this binary a freezer.
pub const ARGUMENT: &str = "__freezer";

/// The whole life of the freezer process; the exit status is for people only.
#[must_use]
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // The agent sees the socket close before "ready" and stops before anything is frozen.
        Err(_) => ExitCode::FAILURE,
    }
}

fn run() -> nix::Result<()> {
    let Begun { page, filesystems, agent, shares, .. } = begin()?;
    let log = kernel_log();
    let mut threads = Vec::with_capacity(filesystems.len());
    for (index, fd) in filesystems.into_iter().enumerate() {
        let (page, log) = (Arc::clone(&page), log.clone());
        let serve = move || {
            touch_stack();
            if delegated::serve(&Linux, &page, index, fd.as_fd()) {
                let line = format_args!("freezer thawed filesystem #{index} (the agent went away)");
                say(log.as_deref(), line);
            }
        };
        let thread = std::thread::Builder::new().name(format!("freeze-{index}"));
        let thread = thread.stack_size(STACK).spawn(serve);
        threads.push(thread.map_err(|_| Errno::EAGAIN)?);
    }
    ready(shares)?;
    loop {
        let mut fds =
            [PollFd::new(agent.as_fd(), PollFlags::POLLIN), PollFd::new(socket(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::NONE);
        let mut bytes = [0_u8; 16];
        match recv(0, &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(1) if bytes[0] == DONE => return Ok(()),
            Err(Errno::EAGAIN | Errno::EINTR) if fds[0].any() != Some(true) => {}
            // The agent is gone, or has let go.
            _ => break,
        }
    }
    for index in 0..threads.len() {
        delegated::end(&page, index);
    }
    // Each ends when nothing of its superblock is frozen by this process. One may be stuck for long.
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}
