//! The commands that mount something by hand, for a person whose filesystem is not mounted.
//!
//! In: a mount of a recipe. Out: a line for a shell. Must never: leave a character unquoted that a shell
//! would take for its own.

use std::path::Path;

use super::propagation::Propagation;
use super::{Make, Mounted, Recipe};

/// The commands that make this mount by hand, on one line joined by `&&`.
#[must_use]
pub fn by_hand(recipe: &Recipe, mount: &Mounted) -> String {
    let of = &recipe.filesystems[mount.of];
    let place = quoted(&mount.mount_point.to_string_lossy());
    let mut command = match &mount.make {
        Make::New => {
            let mut options: Vec<String> = mount.options.split(',').map(str::to_owned).collect();
            if of.fstype == "btrfs" {
                options.push(format!("subvol={}", mount.root.display()));
            }
            // The superblock's `rw` is left out, because a mount of it may be read-only; its `ro` applies
            // to all mounts.
            options.extend(
                of.options
                    .iter()
                    .filter(|o| *o != "rw" && !mount.options.split(',').any(|m| m == *o))
                    .cloned(),
            );
            let source = quoted(&of.source.to_string_lossy());
            format!("mount -t {} -o {} {source} {place}", of.fstype, quoted(&options.join(",")))
        }
        Make::CopyOf(from) => {
            let from = &recipe.mounts[*from];
            let below = mount.root.strip_prefix(&from.root).unwrap_or(Path::new(""));
            let path = if below.as_os_str().is_empty() {
                from.mount_point.clone()
            } else {
                from.mount_point.join(below)
            };
            let options = quoted(&format!("remount,bind,{}", mount.options));
            format!("mount --bind {} {place} && mount -o {options} {place}", quoted(&path.to_string_lossy()))
        }
    };
    if let Some(kind) = Propagation::of_mount(mount).word() {
        command.push_str(&format!(" && mount --make-{kind} {place}"));
    }
    command
}

/// A word, for a shell.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-=,:@+".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::recipe::tests::recipe_of;
    use super::*;

    #[test]
    fn the_commands_by_hand_can_be_given_to_a_shell() {
        let recipe = recipe_of(&["7:0"]).unwrap();
        let by_hand: Vec<_> = recipe.mounts.iter().map(|m| by_hand(&recipe, m)).collect();
        assert_eq!(
            by_hand[..2],
            [
                "mount -t ext4 -o rw,nosuid,relatime,errors=remount-ro /dev/loop0 /a && mount --make-shared \
                 /a",
                "mount --bind /a/sub /b && mount -o remount,bind,ro,noatime /b && mount --make-private /b",
            ]
        );
        assert_eq!(quoted("/it's here"), r"'/it'\''s here'");
    }
}
