//! Gives this build a name of its own, so that two programs which talk to each other can tell whether they
//! were built from the same sources: the version alone says nothing of a package that was built again.
//!
//! In: the sources and Cargo.lock; of packaging/build, the commit and the oldest glibc that it builds for. Out:
//! `STILLPOINT_SOURCES`, a hash of the sources, `STILLPOINT_COMMIT` and `STILLPOINT_FLOOR`, empty where nobody said.
//! Must never: depend on the time, the machine or the folder: the same sources have the same name.

use std::path::{Path, PathBuf};

fn main() {
    let mut files = Vec::new();
    collect(Path::new("src"), &mut files);
    files.extend(["Cargo.toml", "Cargo.lock"].map(PathBuf::from));
    files.sort();
    // FNV-1a: it has to notice a change, not an attack.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes.iter().chain(&[0]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for file in files {
        // Not packaged with the sources, it is the same for every program of the build.
        let Ok(content) = std::fs::read(&file) else { continue };
        add(file.to_string_lossy().as_bytes());
        add(&content);
    }
    println!("cargo::rustc-env=STILLPOINT_SOURCES={hash:016x}");
    origin();
    for watched in ["src", "Cargo.toml", "Cargo.lock", "build.rs"] {
        println!("cargo::rerun-if-changed={watched}");
    }
}

/// What packaging/build says of the build. Git is not asked: what it says changes without a change of the sources.
fn origin() {
    for (into, from) in
        [("STILLPOINT_COMMIT", "STILLPOINT_BUILD_COMMIT"), ("STILLPOINT_FLOOR", "STILLPOINT_BUILD_FLOOR")]
    {
        println!("cargo::rerun-if-env-changed={from}");
        let said = std::env::var(from).unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || " .-+".contains(c);
        assert!(said.chars().all(plain), "{from} is no plain word: {said:?}");
        println!("cargo::rustc-env={into}={said}");
    }
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|e| e.path()) {
        if path.is_dir() {
            collect(&path, into);
        } else {
            into.push(path);
        }
    }
}
