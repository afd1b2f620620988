//! EC2's errors: a code, a message, and the HTTP status that goes with it.
//!
//! In: what is wrong with a request. Out: the XML that EC2 answers. A message must never hold anything of
//! this machine, such as a path: EC2 would not know it.

use std::fmt::Display;

use super::xml::Xml;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Ec2Error {
    /// `InvalidParameterValue` …
    pub code: String,
    /// What the user reads.
    pub message: String,
    pub status: u16,
}

impl Ec2Error {
    /// An error of the client's, with status 400.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), status: 400 }
    }

    /// The same with another status.
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// A value that is not allowed.
    pub fn invalid_value(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterValue", message)
    }

    /// A parameter that must be there.
    pub fn missing(name: impl Display) -> Self {
        Self::new("MissingParameter", format!("The request must contain the parameter {name}"))
    }

    /// Something went wrong on EC2's side.
    pub fn internal() -> Self {
        Self::new("InternalError", "An internal error has occurred").status(500)
    }

    pub fn to_xml(&self, request_id: &str) -> String {
        let mut xml = Xml::declaration();
        xml.node("Response", |xml| {
            xml.node("Errors", |xml| {
                xml.node("Error", |xml| {
                    xml.text("Code", &self.code);
                    xml.text("Message", &self.message);
                });
            });
            xml.text("RequestID", request_id);
        });
        xml.finish()
    }
}
