//! The SDK's two files: `~/.aws/config` and `~/.aws/credentials`, or those that the environment names.
//!
//! They say whose credentials are used, where requests go, and may name a program that prints credentials
//! (`credential_process`). With `sudo` the caller's HOME may still be set: then they are another user's.
//!
//! In: the environment. Out: the text of both files, as the SDK takes it. Must never: let the SDK open them
//! by their paths, or use one that somebody else than root (or this process's user) could change.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

// Another crate has them now; to depend on that one for two names would bind its version to the SDK's.
#[allow(deprecated, reason = "the same types")]
use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};

use crate::host::trust::{self, Loose, OpenError, Trusted};

/// More than any such file needs.
const MAX_SIZE: u64 = 1 << 20;

/// A file that the environment names and that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{variable}={} cannot be used: {why}", path.display())]
pub(super) struct Unusable {
    variable: &'static str,
    path: PathBuf,
    why: OpenError,
}

impl Unusable {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match &self.why {
            OpenError::Loose(loose) => format!("{}, or unset {}", loose.remedy, self.variable),
            OpenError::Io(_) => format!("correct {}, or unset it", self.variable),
        }
    }
}

/// Text of the SDK's files.
#[derive(Debug, Default, PartialEq, Eq)]
struct Texts {
    config: String,
    credentials: String,
    /// Files below HOME that are left out, and why.
    left_out: Vec<(PathBuf, Loose)>,
}

/// Reads both. What is below a HOME of somebody else is left out, with a warning: nobody has asked for it. A
/// file that a variable names is meant to be used, so there it is an error.
///
/// # Errors
/// When a variable names a file that cannot be read, or that somebody else could change.
#[allow(deprecated, reason = "see the imports")]
pub(super) fn read() -> Result<ProfileFiles, Unusable> {
    let texts = read_with(&|name| std::env::var_os(name))?;
    for (path, loose) in &texts.left_out {
        tracing::warn!("{} is not used: {loose}; `sudo -H` uses root's own", path.display());
    }
    Ok(ProfileFiles::builder()
        .with_contents(ProfileFileKind::Config, texts.config)
        .with_contents(ProfileFileKind::Credentials, texts.credentials)
        .build())
}

fn read_with(env: &dyn Fn(&str) -> Option<OsString>) -> Result<Texts, Unusable> {
    let env = |name: &str| env(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = env("HOME");
    let mut texts = Texts::default();
    let files = [("AWS_CONFIG_FILE", ".aws/config"), ("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")];
    let mut found = Vec::new();
    for (variable, below_home) in files {
        let named = env(variable);
        let path = match (&named, &home) {
            (Some(path), Some(home)) => match path.strip_prefix("~") {
                Ok(rest) => home.join(rest),
                Err(_) => path.clone(),
            },
            (Some(path), None) => path.clone(),
            (None, Some(home)) => home.join(below_home),
            (None, None) => {
                found.push(String::new());
                continue;
            }
        };
        found.push(match (text_of(&path), named) {
            (Ok(text), _) => text,
            (Err(OpenError::Io(e)), None) => {
                if e.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!("cannot read {}: {e}", path.display());
                }
                String::new()
            }
            (Err(OpenError::Loose(loose)), None) => {
                texts.left_out.push((path, loose));
                String::new()
            }
            (Err(why), Some(_)) => return Err(Unusable { variable, path, why }),
        });
    }
    texts.credentials = found.pop().unwrap_or_default();
    texts.config = found.pop().unwrap_or_default();
    Ok(texts)
}

fn text_of(path: &Path) -> Result<String, OpenError> {
    let mut text = String::new();
    trust::open(path, Trusted::own())?.take(MAX_SIZE).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A HOME with both files.
    fn home() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(".aws");
        std::fs::create_dir(&folder).unwrap();
        mode(&folder, 0o755);
        for name in ["config", "credentials", "named"] {
            std::fs::write(folder.join(name), name).unwrap();
            mode(&folder.join(name), 0o644);
        }
        dir
    }

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn read_in(home: &tempfile::TempDir, named: Option<&str>) -> Result<Texts, Unusable> {
        read_with(&|name| match name {
            "HOME" => Some(home.path().into()),
            "AWS_CONFIG_FILE" => named.map(Into::into),
            _ => None,
        })
    }

    #[test]
    fn both_are_read_from_home_or_where_a_variable_says() {
        let home = home();
        let texts = read_in(&home, None).unwrap();
        assert_eq!((texts.config.as_str(), texts.credentials.as_str()), ("config", "credentials"));
        let path = home.path().join(".aws/named");
        for named in [path.to_str().unwrap(), "~/.aws/named"] {
            assert_eq!(read_in(&home, Some(named)).unwrap().config, "named", "{named}");
        }
        assert_eq!(read_with(&|_| None).unwrap(), Texts::default());
        assert!(read_in(&home, Some("/nowhere/at/all")).unwrap_err().to_string().contains("AWS_CONFIG_FILE"));
    }

    #[test]
    fn what_somebody_else_could_change_is_left_out_below_home_and_refused_where_it_is_named() {
        let home = home();
        let file = home.path().join(".aws/config");
        mode(&file, 0o646);
        let texts = read_in(&home, None).unwrap();
        assert_eq!((texts.config.as_str(), texts.credentials.as_str()), ("", "credentials"));
        assert_eq!((&texts.left_out[0].0, &texts.left_out[0].1.place), (&file, &file));
        let refused = read_in(&home, file.to_str()).unwrap_err();
        assert!(refused.to_string().contains("can be written by everybody"), "{refused}");
        assert!(refused.hint().contains("chmod go-w") && refused.hint().contains("AWS_CONFIG_FILE"));
        mode(&file, 0o644);
        mode(home.path(), 0o707);
        let texts = read_in(&home, None).unwrap();
        assert_eq!(
            (texts.config, texts.credentials, texts.left_out.len()),
            (String::new(), String::new(), 2)
        );
    }
}
