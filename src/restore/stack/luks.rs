//! LUKS is opened under a name of its own.
//!
//! In: a device with LUKS, keys. Out: the device that is in it. Must never: take a key from anywhere but where the user says,
//! or try without an end.

use std::process::Stdio;

use super::keys::Key;
use super::tool::{Failed, Tool};
use super::up::{Piece, Up};
use crate::host::block::{BlockDevice, DeviceKind};
use crate::host::device;

/// How often whoever sits at the terminal may try.
const TRIES: &str = "3";
/// How long is waited for a key that is typed, in seconds.
const TYPED: &str = "120";
/// cryptsetup's exit code where no key slot takes a key (cryptsetup(8), "RETURN CODES").
const NO_KEY: i32 = 2;

/// What is open of it already.
fn standing(up: &Up<'_, '_>, piece: &Piece) -> Result<Option<BlockDevice>, String> {
    let is = |d: &BlockDevice| matches!(&d.kind, DeviceKind::Dm { uuid, .. } if uuid.starts_with("CRYPT-"));
    Ok(up.standing_on(piece)?.into_iter().find(is))
}

/// Gives it a new UUID, opens it where it is not open, and returns what is in it.
pub(super) async fn up(up: &mut Up<'_, '_>, piece: &Piece) -> Result<Piece, String> {
    let made =
        |device| Piece { device, place: format!("luks:{}", piece.place), volumes: piece.volumes.clone() };
    if let Some(device) = standing(up, piece)? {
        return Ok(made(device));
    }
    let disk = &piece.device;
    let node = device::node(disk.dev, &[]).ok_or_else(|| format!("/dev has no node of {}", disk.name))?;
    let node = node.to_str().ok_or_else(|| format!("{} has a strange node", disk.name))?;
    if !up.record.plan.read_only {
        // Noted before, and the same each time: it can be done again.
        let fresh = || uuid::Uuid::new_v4().to_string();
        let uuid = up.record.stack.luks.entry(piece.place.clone()).or_insert_with(fresh).clone();
        up.note()?;
        Tool::new("cryptsetup", ["luksUUID", "--batch-mode", "--uuid", &uuid, node]).run().await?;
    }
    let name = up.plan().luks_name(&short(piece));
    let mut arguments = vec!["open", "--type", "luks"];
    if up.record.plan.read_only {
        arguments.push("--readonly");
    }
    let mut whys = Vec::new();
    let mut open = false;
    for key in up.keys.each() {
        let (tool, whose) = match key {
            Key::File(path, Err(e)) => {
                whys.push(format!("{path}: {e}"));
                continue;
            }
            Key::File(path, Ok(file)) => {
                let key = ["--key-file", "-", node, &name];
                let tool = Tool::new("cryptsetup", arguments.iter().copied().chain(key));
                (tool.input(Stdio::from(file)), format!("the key in {path}"))
            }
            Key::Terminal => {
                let asked = ["--tries", TRIES, "--timeout", TYPED, node, &name];
                let tool = Tool::new("cryptsetup", arguments.iter().copied().chain(asked));
                (tool.asking(), "what was typed".to_owned())
            }
        };
        match tool.ended().await {
            Ok(()) => {
                open = true;
                break;
            }
            Err(Failed { code: Some(NO_KEY), .. }) => whys.push(format!("{whose} does not fit")),
            Err(Failed { said, .. }) => whys.push(said),
        }
    }
    let why = if whys.is_empty() { "there is no key".to_owned() } else { whys.join("; ") };
    match standing(up, piece)? {
        Some(device) if open => {
            (up.tell)(&format!("LUKS on {} is open as {name} ({})", disk.name, device.name));
            Ok(made(device))
        }
        _ => Err(format!("LUKS on {} was not opened: {why}", disk.name)),
    }
}

/// A word for where it is, in a name.
fn short(piece: &Piece) -> String {
    piece
        .place
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect::<String>()
        .chars()
        .rev()
        .take(12)
        .collect()
}
