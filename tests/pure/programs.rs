//! What is in which program: the agent and the watchdog lock all that they have mapped.

use std::collections::BTreeSet;
use std::process::Command;

/// The crates that talk to databases.
const CLIENTS: [&str; 3] = ["mysql_async", "redis", "tokio_postgres"];

/// Those of them that a program has code of.
fn clients_in(program: &str) -> BTreeSet<&'static str> {
    let output = Command::new("nm").args(["--demangle", "--defined-only", program]).output();
    let output = output.unwrap_or_else(|e| panic!("nm is needed by this test (package `binutils`): {e}"));
    assert!(output.status.success(), "nm {program}: {}", String::from_utf8_lossy(&output.stderr));
    let symbols = String::from_utf8_lossy(&output.stdout);
    assert!(symbols.contains("stillpoint::"), "{program} has no symbols to judge by");
    CLIENTS.into_iter().filter(|name| symbols.lines().any(|symbol| is_of(symbol, name))).collect()
}

/// Is this symbol of that crate, or made for a type of it? A module of the same name in another crate comes
/// after `::`.
fn is_of(symbol: &str, name: &str) -> bool {
    let path = format!("{name}::");
    symbol.match_indices(&path).any(|(at, _)| {
        !symbol[..at].ends_with(|before: char| before.is_alphanumeric() || matches!(before, ':' | '_'))
    })
}

#[test]
fn clients_of_databases_are_in_the_program_that_talks_to_them_and_in_no_other() {
    assert_eq!(clients_in(rig::stillpoint_databases()), BTreeSet::from(CLIENTS));
    assert_eq!(clients_in(rig::stillpoint()), BTreeSet::new());
}

/// What the watchdog answers to this first word.
fn watchdog_of(hello: &str) -> Vec<u8> {
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
    use std::os::fd::AsRawFd as _;
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let mut watchdog = Command::new(rig::stillpoint()).arg("__watchdog").stdin(theirs).spawn().unwrap();
    send(ours.as_raw_fd(), hello.as_bytes(), MsgFlags::MSG_NOSIGNAL).unwrap();
    let mut answer = [0; 1024];
    let n = recv(ours.as_raw_fd(), &mut answer, MsgFlags::empty()).unwrap();
    drop(ours);
    assert!(!watchdog.wait().unwrap().success());
    answer[..n].to_vec()
}

/// An agent of another build learns which this is, whatever else is in its first word.
#[test]
fn a_watchdog_serves_agents_of_its_own_build_alone() {
    for hello in [r#"{"build": "0.0.9", "with": "other fields"}"#, "{}", "no word at all"] {
        let answer = String::from_utf8(watchdog_of(hello)).unwrap();
        assert!(answer.contains(stillpoint::build::ID), "{hello}: {answer}");
    }
}

#[test]
fn a_symbol_is_of_the_crate_that_it_begins_with() {
    for symbol in [
        "t redis::client::Client::open",
        "t <redis::aio::Runtime as core::fmt::Debug>::fmt",
        "t drop<&redis::X>",
    ] {
        assert!(is_of(symbol, "redis"), "{symbol}");
    }
    for symbol in ["t stillpoint::quiesce::databases::redis::settings", "t valredis::x", "t redis_x::y"] {
        assert!(!is_of(symbol, "redis"), "{symbol}");
    }
}
