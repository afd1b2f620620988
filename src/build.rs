//! Which build this is.
//!
//! In: the version, and a hash of the sources (the build script makes it); of packaging/build, the commit and the
//! oldest C library. Out: [`ID`], and what `--version` says. Must never: have the same [`ID`] for two builds whose
//! processes may not understand each other.

use std::sync::LazyLock;

/// The version and the sources of this build. Processes that belong together tell it to each other first: a
/// package may be upgraded while a run goes on.
pub const ID: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("STILLPOINT_SOURCES"));

/// What `--version` says after the name: where this build comes from, and what it runs on.
#[must_use]
pub fn long_version() -> &'static str {
    static SAID: LazyLock<String> =
        LazyLock::new(|| told(env!("STILLPOINT_COMMIT"), env!("STILLPOINT_FLOOR")));
    &SAID
}

/// The same of this commit, and of this oldest C library, such as `glibc 2.17`; both may be empty.
fn told(commit: &str, floor: &str) -> String {
    let commit = if commit.is_empty() { "not known; not built by packaging/build" } else { commit };
    let runs_on = if floor.is_empty() {
        "what it was built on".to_owned()
    } else {
        format!("{} Linux, {floor} or newer", std::env::consts::ARCH)
    };
    format!(
        "{}\ncommit:  {commit}\nsources: {}\nruns on: {runs_on}",
        env!("CARGO_PKG_VERSION"),
        env!("STILLPOINT_SOURCES")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_says_where_a_build_comes_from_and_what_it_runs_on() {
        let said = told("0123abcd", "glibc 2.17");
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..2], [env!("CARGO_PKG_VERSION"), "commit:  0123abcd"]);
        assert!(lines[2].ends_with(ID.rsplit('+').next().unwrap()), "{said}");
        assert!(lines[3].ends_with("Linux, glibc 2.17 or newer"), "{said}");
        let plain = told("", "");
        assert!(
            plain.contains("not built by packaging/build") && plain.ends_with("what it was built on"),
            "{plain}"
        );
    }
}
