//! The programs of this workspace, as they were built, and commands of this machine.

use std::process::Command;
use std::sync::LazyLock;

/// Runs a command that must succeed, and gives its stdout.
pub fn sh(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("{program} is needed by this test: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{said}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The program under test.
pub fn stillpoint() -> &'static str {
    static PATH: LazyLock<String> = LazyLock::new(|| built("stillpoint"));
    &PATH
}

/// The program that talks to databases for it.
pub fn stillpoint_databases() -> &'static str {
    static PATH: LazyLock<String> = LazyLock::new(|| built(stillpoint::quiesce::databases::program::NAME));
    &PATH
}

/// The stand-in for EC2.
pub fn ebs_sim() -> &'static str {
    static PATH: LazyLock<String> = LazyLock::new(|| built("ebs-sim"));
    &PATH
}

/// A program of this workspace. A test binary is in `deps/`, and they are beside that.
fn built(name: &str) -> String {
    let own = std::env::current_exe().unwrap();
    let path = own.ancestors().nth(2).unwrap().join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first", path.display());
    path.into_os_string().into_string().unwrap()
}
