//! Who writes to the filesystems of a set.
//!
//! In: /proc, before the flush and after the thaw. Out: one [`Writer`] for each process and filesystem. Must
//! never: search while anything is frozen, because that opens files in /proc.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::host::open_files::{self, OpenFile};
use crate::host::process::{self, Process};
use crate::ids::DevNo;
use crate::path_encoding;
use crate::run::job::Job;

/// A process with files open for writing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Writer {
    /// A process that had the file open before or after the window.
    #[serde(flatten)]
    pub process: Process,
    /// One of the files that it has open for writing, as an example.
    #[serde(serialize_with = "path_encoding::path")]
    pub path: PathBuf,
    /// Bytes that the process wrote to any storage from before the flush until after the thaw; none when that
    /// cannot be read.
    pub written: Option<u64>,
}

/// The processes that have files open for writing, and how much each of them has written so far.
#[derive(Debug, Default)]
pub(super) struct Busy {
    files: Vec<OpenFile>,
    written: BTreeMap<i32, Option<u64>>,
}

impl Busy {
    pub fn now(root: &Path, job: &Job<'_>) -> Self {
        let on: Vec<DevNo> = job.plan.filesystems.iter().map(|f| f.dev).collect();
        let files = open_files::writers(root, &on).map(|w| w.found).unwrap_or_default();
        let written = files.iter().map(|f| (f.process.pid, process::written(root, f.process.pid))).collect();
        Self { files, written }
    }

    /// One entry for each process and filesystem; those that wrote most since `self` was made come first.
    pub fn since(self, root: &Path, job: &Job<'_>) -> Vec<(DevNo, Writer)> {
        let now = Self::now(root, job);
        let wrote =
            |pid| Some(now.written.get(&pid).copied()??.saturating_sub(self.written.get(&pid).copied()??));
        let mut writers: Vec<(DevNo, Writer)> = Vec::new();
        for file in self.files.iter().chain(&now.files) {
            if !writers.iter().any(|(dev, w)| *dev == file.dev && w.process == file.process) {
                let written = wrote(file.process.pid);
                writers.push((
                    file.dev,
                    Writer { process: file.process.clone(), path: file.path.clone(), written },
                ));
            }
        }
        writers.sort_by_key(|(_, w)| std::cmp::Reverse(w.written));
        writers
    }
}
