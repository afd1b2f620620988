//! What the agent knows of PostgreSQL by itself.
//!
//! In: a section's settings. Out: what differs from other databases before anybody connects. Must never:
//! connect.

use super::super::agent::DatabaseHook;
use crate::config::settings::Postgresql;

impl DatabaseHook for Postgresql {}
