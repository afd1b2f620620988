//! Credentials that are at hand in memory, and fetched again only when they are asked to last.
//!
//! In: the provider of the source in force. Out: the same key, secret and token without their expiry, so that the
//! SDK never fetches any by itself: it would, in the frozen window. Must never: be asked to fetch while anything is
//! frozen.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};

use super::ConnectError;
use crate::ec2::late::is_forbidden;
use crate::error::chain;

/// Credentials in memory. Clones have the same.
#[derive(Debug, Clone)]
pub(super) struct Pinned(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: SharedCredentialsProvider,
    /// Its name, before what a message says of it.
    name: String,
    /// The source is on this machine, and may not be ready at boot.
    may_be_late: bool,
    now: RwLock<Option<(Credentials, Option<SystemTime>)>>,
    fetching: tokio::sync::Mutex<()>,
}

impl Pinned {
    /// None are at hand yet. `name` begins the messages.
    pub fn new(source: SharedCredentialsProvider, name: String, may_be_late: bool) -> Self {
        let (now, fetching) = (RwLock::default(), tokio::sync::Mutex::default());
        Self(Arc::new(Inner { source, name, may_be_late, now, fetching }))
    }

    /// How long those at hand last: none without any; the longest time there is, when they do not expire.
    fn left(&self) -> Option<Duration> {
        let now = self.0.now.read().unwrap_or_else(PoisonError::into_inner);
        now.as_ref().map(|(_, expiry)| match expiry {
            Some(expiry) => expiry.duration_since(SystemTime::now()).unwrap_or_default(),
            None => Duration::MAX,
        })
    }

    /// Has credentials at hand that last for `need`: fetches new ones where those at hand do not.
    ///
    /// # Errors
    /// When there are none, or the newest do not last that long.
    pub async fn lasting(&self, need: Duration) -> Result<(), ConnectError> {
        let enough = || self.left().is_some_and(|left| left >= need);
        if enough() {
            return Ok(());
        }
        let _one = self.0.fetching.lock().await;
        if enough() {
            return Ok(());
        }
        let got = self.0.source.provide_credentials().await.map_err(|e| self.none(&e))?;
        // An empty one is none, as in the aws CLI; sent all the same, it would make the signature wrong.
        let token = got.session_token().filter(|token| !token.is_empty()).map(str::to_owned);
        let kept = Credentials::new(got.access_key_id(), got.secret_access_key(), token, None, "pinned");
        *self.0.now.write().unwrap_or_else(PoisonError::into_inner) = Some((kept, got.expiry()));
        match self.left().filter(|left| *left < need) {
            None => Ok(()),
            Some(left) => Err(ConnectError::Expiring { left: Duration::from_secs(left.as_secs()), need }),
        }
    }

    /// The same where what is at hand will do while it is valid.
    ///
    /// # Errors
    /// When what is at hand has expired, and there are no other.
    pub async fn lasting_if_possible(&self, need: Duration) -> Result<(), ConnectError> {
        let done = self.lasting(need).await;
        if self.left().is_some_and(|left| !left.is_zero()) { Ok(()) } else { done }
    }

    fn none(&self, error: &CredentialsError) -> ConnectError {
        let why = format!("{}{}", self.0.name, chain(error));
        // An instance profile that was attached a moment ago is not in IMDS yet (404); at boot, IMDS itself may not
        // be there, or answer with nothing. A wrong trust relationship lasts.
        let lasts = matches!(error, CredentialsError::InvalidConfiguration(_)) || is_forbidden(error);
        match self.0.may_be_late && !lasts {
            true => ConnectError::CredentialsLate(why),
            false => ConnectError::Credentials(why),
        }
    }
}

impl ProvideCredentials for Pinned {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let now = self.0.now.read().unwrap_or_else(PoisonError::into_inner);
        let none = || CredentialsError::not_loaded("none were fetched before the window");
        future::ProvideCredentials::ready(now.as_ref().map(|(c, _)| c.clone()).ok_or_else(none))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Each time other credentials; the first last for so many seconds, the others for an hour.
    #[derive(Debug)]
    struct Source {
        first: u64,
        times: AtomicU64,
    }

    impl ProvideCredentials for Source {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let n = self.times.fetch_add(1, Ordering::SeqCst);
            let lasts = Duration::from_secs(if n == 0 { self.first } else { 3600 });
            let key = format!("ASIA{n}");
            let expiry = Some(SystemTime::now() + lasts);
            future::ProvideCredentials::ready(Ok(Credentials::new(key, "made", None, expiry, "made")))
        }
    }

    fn pinned(first: u64) -> Pinned {
        Pinned::new(
            SharedCredentialsProvider::new(Source { first, times: AtomicU64::new(0) }),
            String::new(),
            true,
        )
    }

    async fn key(pinned: &Pinned) -> (String, Option<SystemTime>) {
        let got = pinned.provide_credentials().await.unwrap();
        (got.access_key_id().to_owned(), got.expiry())
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn what_lasts_is_kept_and_what_does_not_is_fetched_again() {
        let pinned = pinned(600);
        assert!(pinned.provide_credentials().await.is_err(), "nothing is fetched without being told to");
        pinned.lasting(MINUTE).await.unwrap();
        pinned.lasting(MINUTE * 9).await.unwrap();
        assert_eq!(key(&pinned).await, ("ASIA0".to_owned(), None), "the SDK must not see that they expire");
        pinned.lasting(MINUTE * 11).await.unwrap();
        assert_eq!(key(&pinned).await.0, "ASIA1");
        let error = pinned.lasting(MINUTE * 61).await.unwrap_err();
        assert!(matches!(error, ConnectError::Expiring { .. }), "{error}");
        assert!(error.to_string().contains("59m 59s") && error.to_string().contains("1h 1m"), "{error}");
    }

    #[tokio::test]
    async fn those_at_hand_will_do_where_no_longer_ones_can_be_had() {
        let pinned = pinned(600);
        pinned.lasting_if_possible(MINUTE * 61).await.unwrap();
        pinned.lasting_if_possible(MINUTE * 61).await.unwrap();
        let failing = SharedCredentialsProvider::new(Failing);
        let none = Pinned::new(failing.clone(), "made: ".to_owned(), true)
            .lasting_if_possible(MINUTE)
            .await
            .unwrap_err();
        assert!(matches!(none, ConnectError::CredentialsLate(_)), "{none}");
        let none =
            Pinned::new(failing, "made: ".to_owned(), false).lasting_if_possible(MINUTE).await.unwrap_err();
        assert!(matches!(none, ConnectError::Credentials(_)), "{none}");
        assert!(none.to_string().starts_with("no AWS credentials: made: "), "{none}");
    }

    #[derive(Debug)]
    struct Failing;

    impl ProvideCredentials for Failing {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("received 404 from IMDS")))
        }
    }
}
