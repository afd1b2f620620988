//! Addresses from before the freeze.
//!
//! In: names. Out: addresses, by the system's resolver within a limit of time. Must never: ask the resolver
//! while the gate is shut.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};

/// How long a look-up may take. The system's resolver asks each server twice for 5 s (resolv.conf(5)), and
/// behind a firewall none answers.
const LIMIT: Duration = Duration::from_secs(10);

/// DNS answers from before the freeze: a look-up inside the window only reads memory.
///
/// The name that EC2 is reached by is pinned when the client is made.
#[derive(Clone, Debug, Default)]
pub(super) struct PinnedDns(Arc<RwLock<HashMap<String, Vec<IpAddr>>>>);

impl PinnedDns {
    fn get(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Looks the name up and keeps the answer. An address is its own answer.
    ///
    /// # Errors
    /// When the resolver has none, or does not answer in time; as text.
    pub async fn pin(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let name = name.trim_matches(['[', ']']);
        let found = async { Ok(tokio::net::lookup_host((name, 0)).await?.map(|a| a.ip()).collect()) };
        let found: Vec<IpAddr> = within(LIMIT, name, found).await?;
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), found.clone());
        Ok(found)
    }
}

async fn within<T>(
    limit: Duration,
    name: &str,
    look_up: impl Future<Output = std::io::Result<T>>,
) -> Result<T, String> {
    let found = tokio::time::timeout(limit, look_up).await;
    let limit = humantime::format_duration(limit);
    let found = found.map_err(|_| format!("cannot resolve {name}: no answer within {limit}"))?;
    found.map_err(|e| format!("cannot resolve {name}: {e}"))
}

impl ResolveDns for PinnedDns {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        if let Some(pinned) = self.get(name) {
            return DnsFuture::ready(Ok(pinned));
        }
        if crate::gate::is_shut() {
            return DnsFuture::ready(Err(ResolveDnsError::new(format!(
                "{name} was not resolved before the window"
            ))));
        }
        DnsFuture::new(async move { self.pin(name).await.map_err(ResolveDnsError::new) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_resolver_that_does_not_answer_is_not_waited_for() {
        let never = std::future::pending::<std::io::Result<()>>();
        let said = within(Duration::from_millis(1), "ec2.example", never).await.unwrap_err();
        assert_eq!(said, "cannot resolve ec2.example: no answer within 1ms");
    }

    #[tokio::test]
    async fn while_the_gate_is_shut_only_what_is_pinned_is_known() {
        let dns = PinnedDns::default();
        let pinned = dns.pin("[127.0.0.1]").await.unwrap();
        let shut = crate::gate::shut();
        assert_eq!(dns.resolve_dns("127.0.0.1").await.unwrap(), pinned);
        let said = dns.resolve_dns("localhost").await.unwrap_err();
        assert!(crate::error::chain(&said).contains("was not resolved before the window"), "{said:?}");
        drop(shut);
        assert!(dns.resolve_dns("localhost").await.is_ok());
    }
}
