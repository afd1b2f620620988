//! How long tests wait, all in one place.
//!
//! A wait is for a condition, and its bound is only there so that a broken program fails a test instead of
//! hanging it: no bound is reached on a machine that is merely slow. Where a test has to tell which of two
//! things ended something (a command, or the deadline), the bound lies well before the later one: deadlines
//! that must not be met are a minute away.

use std::time::Duration;

/// For a condition that should hold soon.
pub const CONDITION: Duration = Duration::from_secs(30);
/// For a run of the program to end.
pub const RUN: Duration = Duration::from_secs(60);
/// For a server to answer after its start.
pub const SERVER: Duration = Duration::from_secs(60);
/// The window of a run that the test holds in it.
pub const WINDOW: &str = "30s";

/// For a run whose window has to end, one after the other: the next is taken where a busy machine does not
/// get to the call within one.
pub const SHORT_WINDOWS: &[&str] = &["1s", "2s", "4s", "8s", "16s"];

/// Lets time pass, where nothing else shows what a test is about: `what` says what has to be over, or must
/// not happen, by then.
pub fn let_pass(what: &str, time: Duration) {
    println!("{time:?} for {what}");
    std::thread::sleep(time);
}
