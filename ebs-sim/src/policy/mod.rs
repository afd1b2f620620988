//! An identity-based policy, as IAM evaluates it.
//!
//! In: a policy in JSON; later an action, a resource's ARN and what is known of the request. Out: allowed, not
//! allowed, or denied. What is not understood here (an element, an operator, a condition key, a variable) must be
//! an error when the policy is read: it must never be taken to match.

mod condition;
mod json;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::pattern::wildcard;
use condition::Condition;

/// What is known of a request: condition keys in small letters, with their values.
pub type Facts = BTreeMap<String, Vec<String>>;

/// What a policy says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Allowed,
    /// No statement allows it.
    NotAllowed,
    /// A statement denies it.
    Denied,
}

/// A policy, which is kept as the text that it was read from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Policy {
    text: String,
    statements: Vec<Statement>,
}

impl From<Policy> for String {
    fn from(policy: Policy) -> String {
        policy.text
    }
}

impl TryFrom<String> for Policy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

#[derive(Debug, Clone)]
struct Statement {
    allows: bool,
    /// Patterns, and whether they are what is meant or what is not.
    actions: (Vec<String>, bool),
    resources: (Vec<String>, bool),
    conditions: Vec<Condition>,
}

impl Policy {
    /// Reads what a scenario names: JSON, or a file beside the scenario's.
    pub fn load(named: &str, beside: Option<&Path>) -> Result<Self, String> {
        if named.trim_start().starts_with('{') {
            return Self::parse(named);
        }
        let path = beside.map_or_else(|| named.into(), |folder| folder.join(named));
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("cannot read the policy {}: {error}", path.display()))?;
        Self::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Reads JSON.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document: Value = json::read(text).map_err(|error| format!("the policy is no JSON: {error}"))?;
        let Value::Object(document) = document else { return Err("the policy is no JSON object".into()) };
        let mut statements = Vec::new();
        for (name, value) in document {
            match name.as_str() {
                "Version" if value == "2012-10-17" => {}
                "Version" => return Err(format!("policy: Version {value} is not \"2012-10-17\"")),
                "Id" => {}
                "Statement" => {
                    let all = match value {
                        Value::Array(all) => all,
                        one => vec![one],
                    };
                    for (number, one) in all.into_iter().enumerate() {
                        let read = Statement::read(one);
                        statements.push(
                            read.map_err(|error| format!("policy, statement {}: {error}", number + 1))?,
                        );
                    }
                }
                _ => return Err(format!("policy: the element {name} is not known")),
            }
        }
        if statements.is_empty() {
            return Err("policy: there is no Statement".into());
        }
        Ok(Self { text: text.to_owned(), statements })
    }

    /// What it says of an action on a resource: `*` where the action has none.
    pub fn decide(&self, action: &str, resource: &str, facts: &Facts) -> Decision {
        let mut decision = Decision::NotAllowed;
        for statement in self.statements.iter().filter(|one| one.matches(action, resource, facts)) {
            if !statement.allows {
                return Decision::Denied;
            }
            decision = Decision::Allowed;
        }
        decision
    }
}

impl Statement {
    fn read(value: Value) -> Result<Self, String> {
        let Value::Object(elements) = value else { return Err("it is no JSON object".into()) };
        let (mut allows, mut actions, mut resources, mut conditions) = (None, None, None, Vec::new());
        for (name, value) in elements {
            match name.as_str() {
                "Sid" => {}
                "Effect" => {
                    allows = Some(match value.as_str() {
                        Some("Allow") => true,
                        Some("Deny") => false,
                        _ => return Err(format!("Effect {value} is neither Allow nor Deny")),
                    });
                }
                "Action" | "NotAction" if actions.is_none() => {
                    let patterns = texts(&name, value)?;
                    if let Some(bad) = patterns.iter().find(|text| *text != "*" && !text.contains(':')) {
                        return Err(format!("{name} {bad:?} is not like ec2:CreateSnapshot"));
                    }
                    let small = patterns.iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
                    actions = Some((small, name == "Action"));
                }
                "Resource" | "NotResource" if resources.is_none() => {
                    let patterns = texts(&name, value)?;
                    if let Some(bad) = patterns.iter().find(|text| *text != "*" && !text.starts_with("arn:"))
                    {
                        return Err(format!("{name} {bad:?} is neither * nor an ARN"));
                    }
                    resources = Some((patterns, name == "Resource"));
                }
                "Condition" => conditions = condition::read(value)?,
                _ => return Err(format!("the element {name} is not known, or is there twice")),
            }
        }
        Ok(Self {
            allows: allows.ok_or("there is no Effect")?,
            actions: actions.ok_or("there is no Action")?,
            resources: resources.ok_or("there is no Resource")?,
            conditions,
        })
    }

    fn matches(&self, action: &str, resource: &str, facts: &Facts) -> bool {
        let action = action.to_ascii_lowercase();
        let (actions, are_meant) = &self.actions;
        let (resources, are_these) = &self.resources;
        actions.iter().any(|pattern| matches_text(pattern, &action)) == *are_meant
            && resources.iter().any(|pattern| matches_arn(pattern, resource)) == *are_these
            && self.conditions.iter().all(|condition| condition.holds(facts))
    }
}

/// One text or a list of them.
fn texts(name: &str, value: Value) -> Result<Vec<String>, String> {
    let all = match value {
        Value::Array(all) => all,
        one => vec![one],
    };
    let read = |value: Value| match value {
        Value::String(text) => plain(text),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Number(value) => Ok(value.to_string()),
        other => Err(format!("{name}: {other} is no text")),
    };
    let all: Vec<String> = all.into_iter().map(read).collect::<Result<_, _>>()?;
    if all.is_empty() { Err(format!("{name} is empty")) } else { Ok(all) }
}

/// A text without variables, whose values nobody here has.
fn plain(text: String) -> Result<String, String> {
    if text.contains("${") { Err(format!("{text:?}: policy variables are not known here")) } else { Ok(text) }
}

/// Whether a text matches a pattern in which only `*` and `?` mean anything, unlike in EC2's filters.
fn matches_text(pattern: &str, text: &str) -> bool {
    wildcard(&pattern.replace('\\', "\\\\"), text)
}

/// Whether an ARN matches a pattern. A wildcard stands for what is between two colons at most, but for the last
/// part, which may hold colons itself; parts that are missing stand for anything.
fn matches_arn(pattern: &str, arn: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let wanted: Vec<&str> = pattern.splitn(6, ':').collect();
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    parts.len() == 6 && wanted.iter().zip(&parts).all(|(wanted, part)| matches_text(wanted, part))
}

#[cfg(test)]
mod tests;
