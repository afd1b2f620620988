//! Access keys: one static pair for scripts, the role's, which expire and rotate, and one for each other account.
//!
//! In: the time. Out: keys, and for an access key id the key that it names. An expired key must never be
//! taken for a valid one; a rotated one stays valid until it expires, as on EC2.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::random_hex;

/// A key pair, with a session token when it is a role's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Key {
    /// `AKIA…` or `ASIA…`.
    pub access_key_id: String,
    pub secret_access_key: String,
    /// The role's session token.
    pub session_token: Option<String>,
    /// When a role's key was made and when it ends.
    pub life: Option<(Timestamp, Timestamp)>,
}

impl Key {
    fn random(prefix: &str, life: Option<(Timestamp, Timestamp)>) -> Self {
        let long = || format!("{}{}{}", random_hex(), random_hex(), random_hex());
        Self {
            access_key_id: format!("{prefix}{}", random_hex()[1..].to_uppercase()),
            secret_access_key: long()[..40].to_owned(),
            session_token: life.map(|_| format!("IQoJ{}{}{}", long(), long(), long())),
            life,
        }
    }

    /// Whether a role's key has ended.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.life.is_some_and(|(_, end)| now >= end)
    }
}

/// Every key that was handed out.
#[derive(Debug, Serialize, Deserialize)]
pub struct Keys {
    fixed: Key,
    /// The account's own, which no policy concerns.
    admin: Key,
    role: Vec<Key>,
    /// Those of other accounts, with their accounts.
    others: Vec<(String, Key)>,
    lifetime: Duration,
}

/// Whose key it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// The user of the instance's account.
    User,
    /// The root user of that account.
    Root,
    /// The instance's role.
    Role,
    /// Another account.
    Account(String),
}

impl Keys {
    /// Static keys, one for each other account too, and role keys that last `lifetime`.
    pub fn new<'a>(lifetime: Duration, accounts: impl IntoIterator<Item = &'a str>) -> Self {
        let fixed = || Key::random("AKIA", None);
        Self {
            fixed: fixed(),
            admin: fixed(),
            role: Vec::new(),
            others: accounts.into_iter().map(|account| (account.to_owned(), fixed())).collect(),
            lifetime,
        }
    }

    pub fn admin(&self) -> &Key {
        &self.admin
    }

    /// The keys of other accounts.
    pub fn others(&self) -> &[(String, Key)] {
        &self.others
    }

    pub fn fixed(&self) -> &Key {
        &self.fixed
    }

    /// How many keys of the role there were so far: it grows with each rotation.
    pub fn rotations(&self) -> usize {
        self.role.len()
    }

    /// The role's current key; a new one once a quarter of the life or less is left, so that whoever
    /// asks always gets one that can still be used.
    pub fn role(&mut self, now: Timestamp) -> Key {
        if let Some(key) = self.role.last()
            && let Some((_, end)) = key.life
            && end.duration_since(now).unsigned_abs() > self.lifetime / 4
            && end > now
        {
            return key.clone();
        }
        let end = now.checked_add(self.lifetime).unwrap_or(Timestamp::MAX);
        let key = Key::random("ASIA", Some((now, end)));
        self.role.push(key.clone());
        key
    }

    /// Ends a role's key, and says whether there was one to end.
    pub fn expire(&mut self, access_key_id: &str, now: Timestamp) -> bool {
        let known = self.role.iter_mut().find(|key| key.access_key_id == access_key_id);
        let Some((_, end)) = known.and_then(|key| key.life.as_mut()) else {
            return false;
        };
        *end = now.min(*end);
        true
    }

    /// The key that an access key id names, and whose it is.
    pub fn find(&self, access_key_id: &str) -> Option<(&Key, Holder)> {
        let fixed = [(&self.fixed, Holder::User), (&self.admin, Holder::Root)];
        let role = self.role.iter().map(|key| (key, Holder::Role));
        let others = self.others.iter().map(|(account, key)| (key, Holder::Account(account.clone())));
        fixed.into_iter().chain(role).chain(others).find(|(key, _)| key.access_key_id == access_key_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_keys_rotate_before_they_end_and_stay_known() {
        let mut keys = Keys::new(Duration::from_secs(100), ["111122223333"]);
        let at = |second: i64| Timestamp::from_second(second).expect("in range");
        let first = keys.role(at(0));
        assert_eq!(keys.role(at(70)).access_key_id, first.access_key_id);
        let second = keys.role(at(80));
        assert_ne!(second.access_key_id, first.access_key_id);
        let (known, holder) = keys.find(&first.access_key_id).expect("still known");
        assert!(holder == Holder::Role && !known.expired(at(99)) && known.expired(at(100)));

        assert!(keys.expire(&second.access_key_id, at(81)));
        assert!(keys.find(&second.access_key_id).is_some_and(|(key, _)| key.expired(at(81))));
        assert_ne!(keys.role(at(81)).access_key_id, second.access_key_id);
        let fixed = keys.fixed().access_key_id.clone();
        assert!(!keys.expire(&fixed, at(81)), "the static key does not end");
        let other = keys.others()[0].1.access_key_id.clone();
        let holders = [&fixed, &other].map(|id| keys.find(id).map(|(_, holder)| holder));
        assert_eq!(holders, [Some(Holder::User), Some(Holder::Account("111122223333".into()))]);
    }
}
