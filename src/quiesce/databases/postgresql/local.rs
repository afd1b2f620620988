//! What the agent knows of PostgreSQL by itself.
//!
//! In: a section's settings. Out: what differs from other databases before anybody connects. Must never:
//! connect.

use super::super::agent::Database;
use crate::config::settings::Postgresql;

impl Database for Postgresql {}
