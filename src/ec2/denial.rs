//! Denials: which action is not allowed, why, and what would allow it.
//!
//! In: EC2's code and message. Out: a hint. Must never: advise an Allow where something else denies.

/// Is this the code of a missing permission?
pub(super) fn is_denial(code: &str) -> bool {
    code == "UnauthorizedOperation"
}

/// The action that EC2's message names as not allowed, without `ec2:`.
pub(super) fn action_in(message: &str) -> Option<&str> {
    message.split_once("perform: ec2:").and_then(|(_, rest)| rest.split_whitespace().next())
}

/// What would allow it.
pub(super) fn hint(action: &str, message: &str) -> String {
    policy_hint(action_in(message).unwrap_or(action))
}

/// A hint with the IAM statement that allows one action and no more.
#[must_use]
pub fn policy_hint(action: &str) -> String {
    let statement = match action {
        "CreateTags" => {
            r#"{"Effect":"Allow","Action":"ec2:CreateTags","Resource":"arn:aws:ec2:*::snapshot/*"}"#
                .to_owned()
        }
        "CreateSnapshots" | "CreateSnapshot" => format!(
            r#"{{"Effect":"Allow","Action":"ec2:{action}","Resource":["arn:aws:ec2:*:*:instance/*","arn:aws:ec2:*:*:volume/*","arn:aws:ec2:*::snapshot/*"]}}"#
        ),
        _ => format!(r#"{{"Effect":"Allow","Action":"ec2:{action}","Resource":"*"}}"#),
    };
    format!("ec2:{action} is missing in the instance role's policy; add\n  {statement}")
}
