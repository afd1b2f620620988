//! The SDK's two files: `~/.aws/config` and `~/.aws/credentials`, or those that the environment names.
//!
//! They say whose credentials are used, where requests go, and may name a program that prints credentials
//! (`credential_process`). With `sudo` the caller's HOME may still be set: then they are another user's.
//!
//! In: the environment. Out: the text of both files, as the SDK takes it. Must never: let the SDK open them
//! by their paths, or use one that somebody else than root (or this process's user) could change.

use std::io::Read;
use std::path::{Path, PathBuf};

use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};

use super::SdkError;
use super::environment::Environment;
use crate::host::trust::{self, OpenError, Trusted};
use crate::path_encoding::shown;

/// More than any such file needs.
const MAX_SIZE: u64 = 1 << 20;

/// One of the two.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct SdkFile {
    /// None without HOME, and where nothing names it.
    pub path: Option<PathBuf>,
    /// Empty when there is none.
    pub text: String,
}

/// Both.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    pub config: SdkFile,
    pub credentials: SdkFile,
    /// Those that are left out, and why.
    pub left_out: Vec<String>,
}

impl Files {
    /// Reads both. What is below a HOME of somebody else is left out: nobody has asked for it. A file that a
    /// variable names is meant to be used, so there it is an error. One that does not exist is left out, as
    /// by the aws CLI.
    ///
    /// # Errors
    /// When a variable names a file that cannot be read, or that somebody else could change.
    pub fn read(env: &Environment) -> Result<Self, SdkError> {
        let mut left_out = Vec::new();
        let mut one = |variable, below_home| read(env, variable, below_home, &mut left_out);
        let config = one("AWS_CONFIG_FILE", ".aws/config")?;
        let credentials = one("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")?;
        Ok(Self { config, credentials, left_out })
    }

    /// As the SDK takes them.
    pub fn for_sdk(&self) -> EnvConfigFiles {
        EnvConfigFiles::builder()
            .with_contents(EnvConfigFileKind::Config, &self.config.text)
            .with_contents(EnvConfigFileKind::Credentials, &self.credentials.text)
            .build()
    }
}

fn read(
    env: &Environment,
    variable: &'static str,
    below_home: &str,
    left_out: &mut Vec<String>,
) -> Result<SdkFile, SdkError> {
    let home = env.os("HOME").map(PathBuf::from);
    let named = env.os(variable).map(PathBuf::from);
    let path = match (&named, &home) {
        (Some(path), Some(home)) => match path.strip_prefix("~") {
            Ok(rest) => home.join(rest),
            Err(_) => path.clone(),
        },
        (Some(path), None) => path.clone(),
        (None, Some(home)) => home.join(below_home),
        (None, None) => return Ok(SdkFile::default()),
    };
    let found = |text| SdkFile { path: Some(path.clone()), text };
    let absent = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
    match (text_of(&path), named) {
        (Ok(text), _) => return Ok(found(text)),
        (Err(OpenError::Io(e)), None) if absent(&e) => {}
        (Err(OpenError::Io(e)), None) => left_out.push(format!("cannot read {}: {e}", shown(&path))),
        (Err(OpenError::Loose(loose)), None) => {
            left_out.push(format!("{} is not used: {loose}; `sudo -H` uses root's own", shown(&path)));
        }
        (Err(OpenError::Io(e)), Some(_)) if absent(&e) => {
            left_out.push(format!("{variable}={} does not exist, and is left out", shown(&path)));
        }
        (Err(why), Some(_)) => {
            let hint = match &why {
                OpenError::Loose(loose) => format!("{}, or unset {variable}", loose.remedy),
                OpenError::Io(_) => format!("correct {}, or unset it", variable),
            };
            return Err(SdkError::new(format!("{variable}={} cannot be used: {why}", shown(&path)), hint));
        }
    }
    Ok(found(String::new()))
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

    fn read_in(home: &tempfile::TempDir, named: Option<&str>) -> Result<Files, SdkError> {
        let home = home.path().to_str().unwrap();
        Files::read(&Environment::from([("HOME", home), ("AWS_CONFIG_FILE", named.unwrap_or_default())]))
    }

    #[test]
    fn both_are_read_from_home_or_where_a_variable_says() {
        let home = home();
        let files = read_in(&home, None).unwrap();
        assert_eq!((files.config.text.as_str(), files.credentials.text.as_str()), ("config", "credentials"));
        let path = home.path().join(".aws/named");
        for named in [path.to_str().unwrap(), "~/.aws/named"] {
            let config = read_in(&home, Some(named)).unwrap().config;
            assert_eq!((config.text.as_str(), config.path.as_ref()), ("named", Some(&path)), "{named}");
        }
        assert_eq!(Files::read(&Environment::default()).unwrap(), Files::default());
    }

    #[test]
    fn one_that_is_named_and_does_not_exist_is_left_out_and_told() {
        let files = read_in(&home(), Some("/nowhere/at/all")).unwrap();
        assert_eq!((files.config.text.as_str(), files.credentials.text.as_str()), ("", "credentials"));
        assert_eq!(files.left_out, ["AWS_CONFIG_FILE=/nowhere/at/all does not exist, and is left out"]);
    }

    #[test]
    fn what_somebody_else_could_change_is_left_out_below_home_and_refused_where_it_is_named() {
        let home = home();
        let file = home.path().join(".aws/config");
        mode(&file, 0o646);
        let files = read_in(&home, None).unwrap();
        assert_eq!((files.config.text.as_str(), files.credentials.text.as_str()), ("", "credentials"));
        assert!(files.left_out[0].starts_with(&format!("{} is not used", file.display())), "{files:?}");
        let refused = read_in(&home, file.to_str()).unwrap_err();
        assert!(refused.to_string().contains("can be written by everybody"), "{refused}");
        assert!(refused.hint.contains("chmod go-w") && refused.hint.contains("AWS_CONFIG_FILE"));
        mode(&file, 0o644);
        mode(home.path(), 0o707);
        let files = read_in(&home, None).unwrap();
        assert_eq!((files.config.text, files.credentials.text), (String::new(), String::new()));
        assert_eq!(files.left_out.len(), 2);
    }
}
