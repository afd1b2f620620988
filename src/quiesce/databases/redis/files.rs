//! Where a server keeps its data, and whether that is in the set.
//!
//! In: the server's own settings and process id. Out: nothing, or a refusal. Must never: look at a path of
//! this host which the server means on another host or in a container.

use std::fs;
use std::path::{Path, PathBuf};

use super::Refusal;
use super::connection::Connection;
use super::info::Info;
use crate::host::process;
use crate::quiesce::databases::containment;
use crate::quiesce::environment::SetMount;

/// The append-only file has to be in the set, whole: since 7.0 it is a folder of files.
pub(super) async fn append_only(
    connection: &mut Connection,
    info: &Info,
    set: &[SetMount],
) -> Result<(), Refusal> {
    let dir = directory(connection, info).await?;
    let (setting, what) = match info.compatible()? {
        (7.., _) => ("appenddirname", "the append-only folder"),
        _ => ("appendfilename", "the append-only file"),
    };
    let name = connection.config(setting).await?;
    containment::check(set, "the server's directory", &dir)?;
    containment::check(set, what, &dir.join(name))
}

/// The dump has to be in the set. Where it goes.
pub(super) async fn dump(
    connection: &mut Connection,
    info: &Info,
    set: &[SetMount],
) -> Result<PathBuf, Refusal> {
    let dir = directory(connection, info).await?;
    containment::check(set, "the server's directory", &dir)?;
    Ok(dir.join(connection.config("dbfilename").await?))
}

/// The server's `dir`, which is its working directory too: that is how its process is told from one
/// elsewhere.
async fn directory(connection: &mut Connection, info: &Info) -> Result<PathBuf, Refusal> {
    let dir = PathBuf::from(connection.config("dir").await?);
    let pid = info.number("process_id")?;
    let works_there = |folder| process::works_in(Path::new("/"), i32::try_from(pid).ok()?, &folder).ok();
    if fs::metadata(&dir).ok().and_then(works_there) == Some(true) {
        return Ok(dir);
    }
    Err(Refusal::new(format!(
        "{} says that it is process {pid} in {}, and no such process of this host is there",
        connection.at,
        dir.display()
    ))
    .hint("a server on another host or in a container cannot be quiesced by [[redis]]; for a container use a [[session]]"))
}
