//! What an action knows besides its parameters.
//!
//! In: a request that passed its signature. Out: its time, its Region and its answer. What it knows must
//! never depend on the action.

use std::sync::Arc;

use jiff::Timestamp;

use super::signature::Signer;
use super::xml::Xml;
use crate::sim::Sim;

const XMLNS: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

/// What an action knows besides its parameters.
pub struct Context {
    pub sim: Arc<Sim>,
    pub number: u64,
    pub request_id: String,
    pub action: String,
    pub now: Timestamp,
    pub signer: Signer,
    /// The caller's account.
    pub account: String,
}

impl Context {
    /// The Region that the request is for.
    pub fn region(&self) -> &str {
        &self.signer.region
    }

    /// `<ActionResponse>` with the request's id and what `inside` adds.
    pub fn response(&self, inside: impl FnOnce(&mut Xml)) -> String {
        let mut xml = Xml::declaration();
        let root = format!("{}Response xmlns=\"{XMLNS}\"", self.action);
        xml.node(&root, |xml| {
            xml.text("requestId", &self.request_id);
            inside(xml);
        });
        xml.finish()
    }

    /// The answer of actions that have nothing to say.
    pub fn done(&self) -> String {
        self.response(|xml| xml.text("return", true))
    }
}
