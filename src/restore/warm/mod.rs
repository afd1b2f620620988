//! The first use of a restored volume is slow: each block comes from S3 when it is read for the first time. Here somebody
//! reads them before.
//!
//! ```text
//! all       every block of the disks                       blocks.rs
//! used      those that the snapshot has (ListSnapshotBlocks)   blocks.rs
//! metadata  every file and folder is looked at, none opened    tree.rs
//! ```
//!
//! In: disks, or mounts, of a restore. Out: nothing but that they were read, and how far that is. Must never: write, leave
//! the filesystems that are meant, or be waited for by anybody who wants to stop.

pub mod blocks;
pub mod tree;

/// What is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Warm {
    /// Nothing.
    #[default]
    None,
    /// Files and folders are looked at, not what is in the files.
    Metadata,
    /// The blocks that the snapshot has. Needs ebs:ListSnapshotBlocks.
    Used,
    /// Every block of the volumes.
    All,
}

/// Reads at the same time: of what is far away, many have to be on their way (EBS guide, "Initialize Amazon EBS volumes").
const AT_ONCE: usize = 32;

/// Starts the threads that do the work; at least one.
///
/// # Errors
/// When there is none.
fn threads(name: &str, work: impl Fn() + Clone + Send + 'static) -> std::io::Result<()> {
    let mut started = 0;
    for _ in 0..AT_ONCE {
        let work = work.clone();
        match std::thread::Builder::new().name(name.to_owned()).spawn(work) {
            Ok(_) => started += 1,
            Err(e) if started == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(())
}
