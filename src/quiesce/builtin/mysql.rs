//! MySQL and MariaDB.
//!
//! In: its settings, the set. Out: facts, and a hold. Must never: hold beyond the end of the process.

use super::{Quiescer, Refusal, Start};

/// A connected server.
pub(super) struct Server;

impl Quiescer for Server {
    async fn open(_start: &Start) -> Result<Self, Refusal> {
        Err(Refusal::new("not built yet"))
    }

    async fn hold(&mut self) -> Result<(), Refusal> {
        Err(Refusal::new("not built yet"))
    }

    async fn release(&mut self) -> Result<(), Refusal> {
        Err(Refusal::new("not built yet"))
    }

    async fn rescue(_start: &Start) -> Result<(), Refusal> {
        Err(Refusal::new("not built yet"))
    }
}
