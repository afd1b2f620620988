//! The program that a profile names to print credentials (`credential_process`).
//!
//! It is started as the aws CLI starts it: by its words, without a shell. Its standard error is not kept,
//! because it may have secrets in it.
//!
//! In: the words. Out: credentials. Must never: start a program that somebody else could change or that the
//! PATH of whoever started stillpoint names, wait for it without a limit, or log what it prints.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::host::kernel::begin_own_session;
use crate::host::process::{oom_score, set_oom_score};
use crate::host::trust::{self, Trusted};
use crate::path_encoding::shown;
use crate::quiesce::{PATH, query};

/// How long it may take. It may have to ask another service.
const LIMIT: Duration = Duration::from_secs(60);
/// More than credentials need, bytes.
const MOST: u64 = 64 << 10;

/// Runs the program each time it is asked.
pub(super) struct ProcessProvider {
    profile: String,
    command: String,
    limit: Duration,
}

impl ProcessProvider {
    pub fn new(profile: &str, command: &str) -> Self {
        Self { profile: profile.to_owned(), command: command.to_owned(), limit: LIMIT }
    }

    async fn credentials(&self) -> provider::Result {
        let told = self.run().await;
        told.map_err(|why| {
            CredentialsError::provider_error(format!("credential_process of profile {}: {why}", self.profile))
        })
    }

    async fn run(&self) -> Result<Credentials, String> {
        let words = shlex::split(&self.command).ok_or("its quotes are not closed")?;
        let (program, arguments) = words.split_first().ok_or("it names no program")?;
        let program = find(program)?;
        let printed = self.print(&program, arguments).await?;
        parse(&printed)
    }

    async fn print(&self, program: &Path, arguments: &[String]) -> Result<Vec<u8>, String> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("PATH", PATH)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        begin_own_session(command.as_std_mut(), Mode::from_bits_truncate(0o022));
        let mut child = command.spawn().map_err(|e| format!("cannot start {}: {e}", shown(program)))?;
        // The program and what it starts: dropped early, all of it is killed.
        let group = Group(child.id().and_then(|id| i32::try_from(id).ok()));
        if let (Some(id), true) = (group.0, oom_score("self").unwrap_or_default() < 0) {
            let _ = set_oom_score(&id.to_string(), 0);
        }
        let output = child.stdout.take();
        let read = async {
            let mut printed = Vec::new();
            if let Some(output) = output {
                output.take(MOST).read_to_end(&mut printed).await.map_err(|e| e.to_string())?;
            }
            let ended = child.wait().await.map_err(|e| e.to_string())?;
            Ok::<_, String>((printed, ended))
        };
        let limit = humantime::format_duration(self.limit);
        let read = tokio::time::timeout(self.limit, read).await;
        let (printed, ended) =
            read.map_err(|_| format!("{} does not end within {limit}, and was killed", shown(program)))??;
        group.release();
        if !ended.success() {
            let program = shown(program);
            return Err(format!("{program}: {ended}; what it says is not logged, since it may be secret"));
        }
        Ok(printed)
    }
}

/// A process group that is killed when this is dropped.
struct Group(Option<i32>);

impl Group {
    fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

/// The program, by its path, or by its name in the PATH of hooks.
fn find(program: &str) -> Result<PathBuf, String> {
    if !program.contains('/') {
        return query::program(program);
    }
    let path = PathBuf::from(OsString::from(program));
    if !path.is_absolute() {
        return Err(format!("{program} is not an absolute path"));
    }
    trust::check(&path, Trusted::own())
        .map_err(|loose| format!("{} is not started: {loose} ({})", shown(&path), loose.remedy))?;
    Ok(path)
}

/// What it prints (SDK reference guide, "process credential provider").
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<jiff::Timestamp>,
}

fn parse(printed: &[u8]) -> Result<Credentials, String> {
    // serde's own message would quote what was printed.
    let printed: Printed = serde_json::from_slice(printed)
        .map_err(|e| format!("what it prints is not the JSON of credentials (at column {})", e.column()))?;
    if printed.version != 1 {
        return Err(format!("it prints version {}, and only 1 is known", printed.version));
    }
    Ok(Credentials::new(
        printed.access_key_id,
        printed.secret_access_key,
        printed.session_token.filter(|token| !token.is_empty()),
        printed.expiration.map(SystemTime::from),
        "CredentialProcess",
    ))
}

impl ProvideCredentials for ProcessProvider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.credentials())
    }
}

/// Without the command, which may have a secret among its words.
impl std::fmt::Debug for ProcessProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProcessProvider({})", self.profile)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Runs a script as the program, with these arguments behind it.
    async fn run(script: &str, arguments: &str, mode: u32, limit: Duration) -> Result<Credentials, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a program");
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let command = format!("'{}' {arguments}", file.display());
        ProcessProvider { profile: "p".to_owned(), command, limit }.run().await
    }

    const LONG: Duration = Duration::from_secs(300);
    const KEYS: &str = r#"{"Version":1,"AccessKeyId":"AK","SecretAccessKey":"s3cret"}"#;

    #[tokio::test]
    async fn it_is_started_by_its_words_and_what_it_prints_are_the_credentials() {
        let script = r#"printf '{"Version":1,"AccessKeyId":"%s","SecretAccessKey":"%s","SessionToken":"%s",
                       "Expiration":"2030-01-02T03:04:05Z"}' "$1" "$2" "$3""#;
        let got = run(script, r#"one "two and" '$HOME;|'"#, 0o755, LONG).await.unwrap();
        let token = got.session_token();
        assert_eq!(
            (got.access_key_id(), got.secret_access_key(), token),
            ("one", "two and", Some("$HOME;|"))
        );
        let expiry = jiff::Timestamp::try_from(got.expiry().unwrap()).unwrap();
        assert_eq!(expiry.to_string(), "2030-01-02T03:04:05Z");
        let got = run(&format!("read x || echo '{KEYS}'"), "", 0o755, LONG).await.unwrap();
        assert_eq!((got.session_token(), got.expiry()), (None, None), "standard input is empty");
    }

    #[tokio::test]
    async fn what_it_says_is_in_no_message() {
        for script in [
            "echo s3cret; echo s3cret >&2; exit 3",
            "echo s3cret",
            r#"echo '{"Version":1,"AccessKeyId":"AK","SecretAccessKey":"s3cret","Expiration":"s3cret"}'"#,
            r#"echo '{"Version":2,"AccessKeyId":"AK","SecretAccessKey":"s3cret"}'"#,
            r#"echo '{"Version":1,"SecretAccessKey":"s3cret"}'"#,
            "",
        ] {
            let said = run(script, "s3cret", 0o755, LONG).await.unwrap_err();
            assert!(!said.contains("s3cret") && !said.is_empty(), "{script}: {said}");
        }
        let provider = ProcessProvider::new("p", "/bin/x s3cret");
        assert!(!format!("{provider:?}").contains("s3cret"));
    }

    #[tokio::test]
    async fn one_that_somebody_else_could_change_is_not_started() {
        let said = run(&format!("echo '{KEYS}'"), "", 0o757, LONG).await.unwrap_err();
        assert!(said.contains("is not started") && said.contains("can be written by everybody"), "{said}");
        let of = |command: &str| ProcessProvider::new("p", command);
        for (command, says) in [("bin/x", "not an absolute path"), ("'x", "quotes"), ("", "no program")] {
            let said = of(command).run().await.unwrap_err();
            assert!(said.contains(says), "{command}: {said}");
        }
        assert!(
            of("none-of-this-name").run().await.unwrap_err().contains("there is no none-of-this-name in")
        );
    }

    /// On a machine so slow that the limit comes before the child, there is no child to look for.
    #[tokio::test]
    async fn one_that_does_not_end_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!(
            "sleep 1000 & echo $! >{}.part; mv {}.part {}; wait",
            pid.display(),
            pid.display(),
            pid.display()
        );
        let said = run(&script, "", 0o755, Duration::from_secs(3)).await.unwrap_err();
        assert!(said.contains("does not end within 3s"), "{said}");
        if let Ok(pid) = std::fs::read_to_string(&pid) {
            let gone = || !Path::new("/proc").join(pid.trim()).join("exe").exists();
            while !gone() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
