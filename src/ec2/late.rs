//! What may come late at boot is waited for: IMDS, the role's credentials, names.
//!
//! In: an attempt, and for how long to make it again. Out: its last result, and one line in the log when there
//! was something to wait for. Must never: wait for what is off by a setting, or without a limit.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use nix::unistd::isatty;

use crate::clock::Clock;
use crate::error::chain;
use crate::host::cgroup::Cgroups;

/// The longest pause between two attempts. IMDS is there a moment after the link is up.
const LONGEST: Duration = Duration::from_secs(2);
const FIRST: Duration = Duration::from_millis(100);

/// How long IMDS is waited for in a service, which may be started before the network is up.
const SERVICE: Duration = Duration::from_secs(60);
/// The same where a person waits for the answer, which may be that this is not EC2.
const BY_HAND: Duration = Duration::from_secs(5);

/// Attempts until one does not fail, or fails for good, or the time is over. `waits` says for how long an error is
/// waited out; zero for one that lasts.
///
/// # Errors
/// The last one.
pub(crate) async fn attempts<T, E: Display>(
    clock: &dyn Clock,
    waits: impl Fn(&E) -> Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, E> {
    let begun = clock.elapsed();
    let mut pause = FIRST;
    let mut told = false;
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let limit = waits(&error);
        let left = (begun + limit).saturating_sub(clock.elapsed());
        if left.is_zero() {
            return Err(error);
        }
        if !told {
            let limit = humantime::format_duration(limit);
            tracing::warn!("waiting for up to {limit}, since it may only be late: {error}");
            told = true;
        }
        clock.pause(pause.min(left)).await;
        pause = (pause * 2).min(LONGEST);
    }
}

/// How long IMDS, and what it has, is waited for.
pub(crate) fn patience(set: Option<Duration>) -> Duration {
    set.unwrap_or_else(|| if is_service(Path::new("/")) { SERVICE } else { BY_HAND })
}

/// Does this process belong to a service of systemd's, with nobody who watches it? A terminal means a person, also
/// in a session that a service has started (the Systems Manager agent's). The control group is systemd's own word
/// for it, on every version; `INVOCATION_ID` (systemd.exec(5)) is there in a container that does not see the
/// groups.
fn is_service(root: &Path) -> bool {
    let watched = isatty(std::io::stdin()).unwrap_or_default()
        || isatty(std::io::stdout()).unwrap_or_default()
        || isatty(std::io::stderr()).unwrap_or_default();
    let of_a_service = || {
        Cgroups::read(root, "self").is_ok_and(|groups| groups.unit().is_some_and(|u| u.ends_with(".service")))
    };
    !watched && (std::env::var_os("INVOCATION_ID").is_some() || of_a_service())
}

/// IMDS answers 403 to the request for a token when it is off. The SDK has the status in its text only.
pub(super) fn is_forbidden(error: &(dyn std::error::Error + 'static)) -> bool {
    chain(error).contains("request forbidden: IMDS is disabled")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use jiff::Timestamp;

    use super::*;
    use crate::clock::Pause;

    #[derive(Debug, Default)]
    struct Stopped(Mutex<Vec<Duration>>);

    impl Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn pause(&self, time: Duration) -> Pause<'_> {
            self.0.lock().unwrap().push(time);
            Box::pin(std::future::ready(()))
        }

        fn elapsed(&self) -> Duration {
            self.0.lock().unwrap().iter().sum()
        }
    }

    #[tokio::test]
    async fn what_comes_late_is_waited_for_and_what_does_not_come_ends_with_the_time() {
        let clock = Stopped::default();
        let mut n = 0;
        let minute = |_: &String| Duration::from_secs(60);
        let third = async || {
            n += 1;
            if n == 3 { Ok(n) } else { Err(format!("no {n}")) }
        };
        assert_eq!(attempts(&clock, minute, third).await, Ok(3));
        assert_eq!(clock.0.lock().unwrap().len(), 2);
        let clock = Stopped::default();
        let never = async || Err::<(), _>("no".to_owned());
        assert_eq!(attempts(&clock, minute, never).await, Err("no".to_owned()));
        assert_eq!(clock.elapsed(), Duration::from_secs(60));
        assert!(clock.0.lock().unwrap().iter().all(|p| *p <= LONGEST));
    }

    #[tokio::test]
    async fn what_is_off_is_told_at_once_also_after_a_wait() {
        let clock = Stopped::default();
        let mut n = 0;
        let waits = |e: &String| if e == "late" { Duration::from_secs(60) } else { Duration::ZERO };
        let off = async || {
            n += 1;
            Err::<(), _>(if n < 3 { "late" } else { "off" }.to_owned())
        };
        assert_eq!(attempts(&clock, waits, off).await, Err("off".to_owned()));
        assert_eq!(clock.0.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_setting_decides_how_long() {
        assert_eq!(patience(Some(Duration::ZERO)), Duration::ZERO);
        assert!([SERVICE, BY_HAND].contains(&patience(None)));
    }
}
