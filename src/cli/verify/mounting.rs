//! `verify --level mount`: filesystems are mounted and judged without a volume.
//!
//! In: a set that is complete. Out: findings. Must never: read a block before all that can be checked was, or end with
//! something left that is not said.

use std::path::Path;

use super::restoring::{Restored, can_check, checks, one_at_a_time, settings};
use super::{Looked, Verify};
use crate::cli::restore::error;
use crate::cli::sets::Account;
use crate::cli::start::listen;
use crate::cli::{Global, say};
use crate::clock::System;
use crate::config::settings::Check;
use crate::ec2::repeat::Repeating;
use crate::error::Error;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::path_encoding::shown;
use crate::restore::make::Stopped;
use crate::restore::verify::AT_ONCE;
use crate::restore::verify::mounted::{self, Mounting, Planned};
use crate::sets::layout::Layout;
use crate::sets::set::SnapshotSet;

/// A number of bytes with its unit, such as `512MiB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let read = units.iter().find_map(|(unit, shift)| {
        let number = text.strip_suffix(unit)?;
        let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        number.parse::<u64>().ok().filter(|n| digits && *n > 0)?.checked_mul(1 << shift)
    });
    read.ok_or_else(|| "is no size in KiB, MiB or GiB, such as 512MiB".to_owned())
}

/// Says what would be done, once it is known that it can be.
pub(super) async fn would(
    verify: &Verify,
    global: &Global,
    account: &Account,
    set: &SnapshotSet,
    layout: &Layout,
) -> Result<(), Error> {
    let planned = mounted::planned(layout);
    tell(&planned);
    limit(verify)?;
    check(&planned, &checks(settings(global, account, set)?), &mut listen()?).await
}

/// Mounts it, and judges it.
pub(super) async fn look(
    verify: &Verify,
    global: &Global,
    account: &Account,
    set: &SnapshotSet,
    layout: &Layout,
) -> Result<Restored, Error> {
    let mut interrupt = listen()?;
    let run_dir = account.loaded.settings.run_dir.as_path();
    let _alone = one_at_a_time(run_dir).await?;
    sweep(run_dir).await?;
    let planned = mounted::planned(layout);
    tell(&planned);
    let checks = checks(settings(global, account, set)?);
    let limit = limit(verify)?;
    check(&planned, &checks, &mut interrupt).await?;
    let direct = account.direct(AT_ONCE).await?;
    let direct = Repeating::for_each_call(&direct, &account.loaded.settings.ec2).until(&interrupt);
    let told = |line: &str| say(line);
    let (planned, checks) = (&planned, &checks[..]);
    let (direct, clock, tell) = (&direct, &System, &told);
    let mounting = Mounting { direct, set, layout, planned, checks, run_dir, limit, clock, tell };
    match mounting.look(&mut interrupt).await {
        Ok((report, left)) => {
            let left = left.map(|why| format!("{why}: `stillpoint verify --clean-up` takes it down"));
            Ok(Restored { looked: Looked::At(report), left })
        }
        Err(Stopped::Signal(signal)) => Ok(Restored { looked: Looked::Interrupted(signal), left: None }),
        Err(stopped) => Err(error(stopped)),
    }
}

/// What verifies have left that were killed.
pub(super) fn left(run_dir: &Path) -> Vec<String> {
    mounted::left(Path::new("/"), run_dir)
}

/// Takes it down. Whoever asks makes sure that no other one runs.
pub(super) async fn sweep(run_dir: &Path) -> Result<(), Error> {
    left(run_dir).iter().for_each(|name| say(&format!("a verify that was killed has left {name}")));
    mounted::take_down(Path::new("/"), run_dir, &System).await.map_err(|why| {
        Error::new(Exit::After, format!("what a verify has left that was killed: {why}"))
            .hint("`losetup --list` names the device; end what uses it")
    })
}

fn limit(verify: &Verify) -> Result<u64, Error> {
    mounted::limit(Path::new("/"), verify.overlay_limit)
        .map_err(|refusal| Error::new(Exit::Config, refusal.what).hint(refusal.hint))
}

fn tell(planned: &Planned) {
    for (place, why) in &planned.left_out {
        say(&format!("{} will not be looked at: {why}", shown(place)));
    }
}

/// Everything that can be known before a block is read.
async fn check(planned: &Planned, checks: &[Check], interrupt: &mut Interrupt) -> Result<(), Error> {
    if planned.filesystems.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new(Exit::Permission, "filesystems are mounted, which only root can")
            .hint("sudo, or another --level"));
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        std::fs::metadata(device).map_err(|e| {
            Error::new(Exit::Config, format!("{device}: {e}"))
                .hint("the kernel's FUSE and loop devices are needed; or another --level")
        })?;
    }
    can_check(&planned.filesystems, checks, interrupt).await
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn a_size_has_a_unit() {
        assert_eq!(
            (bytes("1KiB"), bytes("512MiB"), bytes("2GiB")),
            (Ok(1 << 10), Ok(512 << 20), Ok(2 << 30))
        );
        for bad in
            ["", "1", "GiB", "0MiB", "-1MiB", "+1MiB", "1 MiB", "1.5GiB", "1gib", "1MB", "99999999999999GiB"]
        {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
