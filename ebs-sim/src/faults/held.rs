//! Requests that a fault holds until somebody releases them.
//!
//! In: a request that a fault of a `hold-…` kind hits. Out: it waits here, seen by whoever asks for it, until
//! it is released. It must never wait for ever: each fault limits it, and a forgotten fault releases what it
//! holds.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use super::{Hit, Kind};

/// A request that is being held, as the control API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeldRequest {
    /// Its number in the log.
    pub request: u64,
    pub action: String,
    pub fault: u64,
    /// At which moment.
    pub kind: Kind,
}

/// The requests that are being held, in the order in which that began. Clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct Held(watch::Sender<Vec<HeldRequest>>);

impl Held {
    /// Prepares to hold a request at the moment that the fault names.
    pub fn hold(&self, request: u64, action: &str, hit: &Hit) -> Hold {
        let at_most = hit.fault.at_most();
        let request = HeldRequest { request, action: action.to_owned(), fault: hit.id, kind: hit.fault.kind };
        Hold { held: self.clone(), request, at_most }
    }

    /// What is being held now.
    pub fn list(&self) -> Vec<HeldRequest> {
        self.0.borrow().clone()
    }

    /// What one fault holds, as soon as that is at least `count` requests; what it holds at the end of
    /// `within` in any case.
    pub async fn wait(&self, fault: u64, count: usize, within: Duration) -> Vec<HeldRequest> {
        let enough = |held: &Vec<HeldRequest>| of_fault(held, fault).count() >= count;
        // It ends without success at the end of `within` only: this list has not gone.
        let _ = tokio::time::timeout(within, self.0.subscribe().wait_for(enough)).await;
        of_fault(&self.0.borrow(), fault).cloned().collect()
    }

    /// Lets go on what one fault holds, and says how many requests that is.
    pub fn release(&self, fault: u64) -> usize {
        self.remove(|request| request.fault == fault)
    }

    /// Lets everything go on.
    pub fn release_all(&self) {
        self.remove(|_| true);
    }

    /// A request goes on when it is no longer in the list.
    fn remove(&self, goes: impl Fn(&HeldRequest) -> bool) -> usize {
        let mut gone = 0;
        self.0.send_if_modified(|held| {
            let before = held.len();
            held.retain(|request| !goes(request));
            gone = before - held.len();
            gone > 0
        });
        gone
    }
}

fn of_fault(held: &[HeldRequest], fault: u64) -> impl Iterator<Item = &HeldRequest> {
    held.iter().filter(move |request| request.fault == fault)
}

/// A request that is to be held.
#[derive(Debug)]
pub struct Hold {
    held: Held,
    request: HeldRequest,
    at_most: Duration,
}

impl Hold {
    /// Holds the request until it is released, or nobody has released it for too long.
    pub async fn until_released(self) {
        let mut changes = self.held.0.subscribe();
        self.held.0.send_modify(|held| held.push(self.request.clone()));
        let released = changes.wait_for(|held| !held.contains(&self.request));
        if tokio::time::timeout(self.at_most, released).await.is_err() {
            let HeldRequest { request, action, fault, .. } = &self.request;
            tracing::warn!(
                "nobody released request {request} ({action}), which fault {fault} held: it goes on"
            );
        }
    }
}

impl Drop for Hold {
    /// A held answer is dropped when its client hangs up: from then on nothing is held.
    fn drop(&mut self) {
        self.held.remove(|request| *request == self.request);
    }
}

#[cfg(test)]
#[path = "held_tests.rs"]
mod tests;
