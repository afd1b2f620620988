//! Denials: which action is not allowed, what denies it, and what would allow it.
//!
//! In: EC2's code and message, and the partition of the Region. Out: a hint. Must never: advise an Allow where
//! something else denies, print a name out of a message that is no name, or trust the message's words where they
//! are part of a name.

use super::policy;

/// Codes of a missing permission. EC2 says the first; proxies of AWS's own and VPC endpoints say the others.
const DENIALS: [&str; 4] =
    ["UnauthorizedOperation", "Client.UnauthorizedOperation", "AccessDenied", "AccessDeniedException"];

/// Is this the code of a missing permission?
pub(super) fn is_denial(code: &str) -> bool {
    DENIALS.contains(&code)
}

/// What denies, by the words of "Troubleshoot access denied error messages" (IAM user guide).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Identity,
    Boundary,
    Session,
    Resource,
    ServiceControl,
    ResourceControl,
    Endpoint,
}

impl Policy {
    /// Each by its name in a message. The longer ones are first, since "control policy" is in two.
    const NAMES: [(&str, Self); 7] = [
        ("identity-based policy", Self::Identity),
        ("permissions boundary", Self::Boundary),
        ("session policy", Self::Session),
        ("resource-based policy", Self::Resource),
        ("service control policy", Self::ServiceControl),
        ("resource control policy", Self::ResourceControl),
        ("vpc endpoint policy", Self::Endpoint),
    ];

    /// The one that is named at the beginning of this text, after an article.
    fn named(text: &str) -> Option<Self> {
        let text = text.trim_start();
        let text = ["a ", "an ", "the "].iter().find_map(|a| text.strip_prefix(a)).unwrap_or(text);
        Self::NAMES.iter().find(|(name, _)| text.starts_with(name)).map(|(_, policy)| *policy)
    }
}

/// What a message says of a denial.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said<'a> {
    /// The service's prefix and the action: `ec2`, `CreateTags`.
    action: Option<(&'a str, &'a str)>,
    /// The role or user, where the message names one by an ARN.
    caller: Option<&'a str>,
    partition: Option<&'a str>,
    /// An explicit Deny; else nothing allows it.
    explicit: bool,
    policy: Option<Policy>,
    /// The Deny's policy, by its ARN.
    by: Option<&'a str>,
    encoded: bool,
}

fn is_name(text: &str) -> bool {
    // IAM's own characters for names of roles and users, and no more of them than it allows.
    !text.is_empty()
        && text.len() <= 128
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c))
}

fn is_partition(text: &str) -> bool {
    (text == "aws" || text.starts_with("aws-")) && text.len() <= 20 && is_name(text)
}

/// An ARN of which every character is one that ARNs have.
fn is_arn(text: &str) -> bool {
    text.starts_with("arn:")
        && text.len() <= 2048
        && text.chars().all(|c| c.is_ascii_graphic() && !"\"'`<>\\".contains(c))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().map(|w| w.trim_end_matches([',', '.', ';']))
}

impl<'a> Said<'a> {
    fn read(message: &'a str) -> Self {
        let mut said = Self::default();
        // Names are before this, and words after it: a session that is called like a policy decides nothing.
        let (before, after) = match message.split_once(" is not authorized to perform: ") {
            Some(parts) => parts,
            None => match message.split_once("perform: ") {
                Some(parts) => parts,
                None => ("", message),
            },
        };
        said.encoded = message.contains("Encoded authorization failure message");
        said.caller = words(before).filter(|w| is_arn(w)).find_map(role_or_user);
        said.partition = words(message)
            .filter(|w| is_arn(w))
            .filter_map(|arn| arn.split(':').nth(1))
            .find(|p| is_partition(p));
        if !before.is_empty() || message.contains("perform: ") {
            said.action = words(after)
                .next()
                .and_then(|w| w.split_once(':'))
                .filter(|(service, action)| is_name(service) && is_name(action));
        }
        let denied = "with an explicit deny";
        let none = "because no ";
        if let Some(at) = after.find(denied) {
            said.explicit = true;
            let rest = &after[at + denied.len()..];
            let rest = rest.strip_prefix(" in").unwrap_or(rest);
            said.policy = named(rest);
            said.by =
                words(rest).map(|w| w.trim_start_matches(':')).find(|w| is_arn(w) && w.contains(":policy/"));
        } else if let Some(at) = after.find(none) {
            said.policy = named(&after[at + none.len()..]);
        }
        said
    }
}

fn named(text: &str) -> Option<Policy> {
    let start: String = text.chars().take(60).collect();
    Policy::named(&start.to_ascii_lowercase())
}

/// The name in `arn:…:sts::…:assumed-role/NAME/session` or `arn:…:iam::…:user/path/NAME`.
fn role_or_user(arn: &str) -> Option<&str> {
    let resource = arn.splitn(6, ':').nth(5)?;
    let mut parts = resource.split('/');
    let name = match parts.next()? {
        "assumed-role" => parts.next()?,
        "role" | "user" => parts.next_back()?,
        _ => return None,
    };
    is_name(name).then_some(name)
}

/// The action that EC2's message names as not allowed, without `ec2:`.
pub(super) fn action_in(message: &str) -> Option<&str> {
    Said::read(message).action.map(|(_, action)| action)
}

/// What would allow it.
pub(super) fn hint(action: &str, message: &str, partition: &str) -> String {
    let said = Said::read(message);
    let (service, action) = said.action.unwrap_or(("ec2", action));
    // A Region outside of `aws` has one partition; else the ARNs of EC2 know best.
    let partition = if partition == "aws" { said.partition.unwrap_or(partition) } else { partition };
    let who =
        said.caller.map_or_else(|| "the instance role".to_owned(), |name| format!("role or user {name}"));
    let organisation = "only whoever administers the organization (AWS Organizations) can change that";
    let no_use = "an Allow in the role's own policy does not help";
    let what = format!("{service}:{action}");
    let hint = match (said.explicit, said.policy) {
        (false, None | Some(Policy::Identity)) => {
            let lacks = match said.caller {
                None => "the instance role's policy".to_owned(),
                Some(name) => format!("the policies of {name}"),
            };
            format!("{what} is missing in {lacks}; add\n  {}", statement(partition, service, action))
        }
        (true, None) => format!(
            "a policy denies {what} explicitly, and {no_use}: look for \"Effect\": \"Deny\" in the policies of {who}, in \
             its permissions boundary, in the service control policies of the organization, and in the policy of the \
             VPC endpoint"
        ),
        (true, Some(Policy::Identity)) => format!(
            "a policy of {who} denies {what} explicitly{}; adding an Allow does not help: take that Deny out, or except \
             {what} from it",
            said.by.map_or_else(String::new, |arn| format!(" ({arn})"))
        ),
        (explicit, Some(Policy::Boundary)) => format!(
            "the permissions boundary of {who} {} {what}, and {no_use}: change the boundary (aws iam get-role shows which \
             policy it is)",
            verb(explicit)
        ),
        (explicit, Some(Policy::Session)) => format!(
            "the session policy of these credentials {} {what}, and {no_use}: whoever has the role assumed (AssumeRole, \
             with Policy or PolicyArns) has to pass one that allows it",
            verb(explicit)
        ),
        (explicit, Some(Policy::ServiceControl)) => {
            format!("a service control policy {} {what}, and {no_use}: {organisation}", verb(explicit))
        }
        (explicit, Some(Policy::ResourceControl)) => {
            format!("a resource control policy {} {what}, and {no_use}: {organisation}", verb(explicit))
        }
        (explicit, Some(Policy::Endpoint)) => format!(
            "the policy of the VPC endpoint that the call goes through {} {what}, and {no_use}: change the endpoint's policy \
             (aws ec2 describe-vpc-endpoints)",
            verb(explicit)
        ),
        (explicit, Some(Policy::Resource)) => format!(
            "a policy of the resource itself (a key's, say) {} {what}: change it, where the message names the resource",
            verb(explicit)
        ),
    };
    let decode = "the encoded message says why: aws sts decode-authorization-message --encoded-message MESSAGE, by \
                  somebody who may do that";
    if said.encoded { format!("{hint}\n{decode}") } else { hint }
}

fn verb(explicit: bool) -> &'static str {
    if explicit { "denies" } else { "does not allow" }
}

/// Every partition of AWS that is known here.
pub const PARTITIONS: [&str; 8] =
    ["aws", "aws-cn", "aws-us-gov", "aws-iso", "aws-iso-b", "aws-iso-e", "aws-iso-f", "aws-eusc"];

/// The partition of a Region, by its prefix (the SDK's endpoint data; their lists of Regions are private there).
#[must_use]
pub fn partition(region: &str) -> &'static str {
    const PREFIXES: [(&str, &str); 7] = [
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("us-isob-", "aws-iso-b"),
        ("us-isof-", "aws-iso-f"),
        ("us-iso-", "aws-iso"),
        ("eu-isoe-", "aws-iso-e"),
        ("eusc-", "aws-eusc"),
    ];
    PREFIXES.iter().find(|(prefix, _)| region.starts_with(prefix)).map_or("aws", |(_, partition)| *partition)
}

/// The IAM statements that allow one action and no more, as `iam-policy` has them: nothing that somebody else made is
/// meant.
fn statement(partition: &str, service: &str, action: &str) -> String {
    let known = policy::of_action(partition, service, action);
    if known.is_empty() {
        return format!(r#"{{"Effect":"Allow","Action":"{service}:{action}","Resource":"*"}}"#);
    }
    known.join(",\n  ")
}

/// A hint with the IAM statement that allows one action of EC2 and no more.
#[must_use]
pub fn policy_hint(partition: &str, action: &str) -> String {
    let statement = statement(partition, "ec2", action);
    format!("ec2:{action} is missing in the instance role's policy; add\n  {statement}")
}

/// Codes by which EC2 says that it does not know, or no longer takes, the credentials; with advice.
const CREDENTIALS: [(&[&str], &str); 5] = [
    (
        &["AuthFailure", "SignatureDoesNotMatch", "IncompleteSignature"],
        "check the credentials and this host's clock (chronyc tracking); `stillpoint config show` says where the \
         credentials come from",
    ),
    (
        &["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"],
        "the credentials have expired: renew them where they come from (`stillpoint config show` says where); a role of \
         the instance is renewed by itself",
    ),
    (
        &[
            "InvalidClientTokenId",
            "UnrecognizedClientException",
            "InvalidAccessKeyId",
            "InvalidSecurity",
            "InvalidSecurityToken",
            "InvalidToken",
            "MissingAuthenticationToken",
        ],
        "AWS does not know this key or its session token: is it deleted, of another partition (China, GovCloud), \
         incomplete, or for a Region that the account has not enabled? `stillpoint config show` says where it comes from",
    ),
    (
        &["OptInRequired", "SubscriptionRequired"],
        "the account is not signed up for EC2, or has not enabled this Region (account settings, \"AWS Regions\")",
    ),
    (
        &["Blocked", "PendingVerification", "PendingAccountVerification"],
        "AWS has blocked the account or still verifies it: its owner has to ask AWS Support",
    ),
];

/// What to do where EC2 does not take the credentials; none for any other code.
pub(super) fn credentials_hint(code: &str) -> Option<&'static str> {
    CREDENTIALS.iter().find(|(codes, _)| codes.contains(&code)).map(|(_, hint)| *hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(end: &str) -> String {
        format!(
            "You are not authorized to perform this operation. User: \
             arn:aws-cn:sts::111122223333:assumed-role/app/i-0123456789abcdef0 is not authorized to perform: \
             ec2:CreateSnapshots on resource: arn:aws-cn:ec2:cn-north-1::snapshot/* {end}"
        )
    }

    const STATEMENT: &str = r#"{"Effect":"Allow","Action":"ec2:"#;

    /// Each ending of a message, what the hint has to say, and whether adding an Allow helps.
    #[test]
    fn each_kind_of_policy_has_advice_that_can_work() {
        let cases = [
            (
                "because no identity-based policy allows the ec2:CreateSnapshots action",
                "missing in the policies of app",
                true,
            ),
            ("", "missing in the policies of app", true),
            ("with an explicit deny in an identity-based policy", "take that Deny out", false),
            (
                "with an explicit deny in an identity-based policy: arn:aws-cn:iam::111122223333:policy/no-snapshots",
                "(arn:aws-cn:iam::111122223333:policy/no-snapshots)",
                false,
            ),
            ("with an explicit deny", "look for \"Effect\": \"Deny\"", false),
            ("with an explicit deny in a service control policy", "service control policy denies", false),
            (
                "because no service control policy allows the ec2:CreateSnapshots action",
                "service control policy does not allow",
                false,
            ),
            ("with an explicit deny in a resource control policy", "resource control policy denies", false),
            (
                "because no resource control policy allows the action",
                "resource control policy does not allow",
                false,
            ),
            (
                "with an explicit deny in a permissions boundary",
                "permissions boundary of role or user app denies",
                false,
            ),
            (
                "because no permissions boundary allows the ec2:CreateSnapshots action",
                "boundary of role or user app does not allow",
                false,
            ),
            (
                "with an explicit deny in a session policy",
                "session policy of these credentials denies",
                false,
            ),
            (
                "because no session policy allows the ec2:CreateSnapshots action",
                "session policy of these credentials does not",
                false,
            ),
            (
                "with an explicit deny in a VPC endpoint policy",
                "policy of the VPC endpoint that the call goes through denies",
                false,
            ),
            (
                "because no VPC endpoint policy allows the ec2:CreateSnapshots action",
                "describe-vpc-endpoints",
                false,
            ),
            ("with an explicit deny in a resource-based policy", "policy of the resource itself", false),
        ];
        for (end, says, helps) in cases {
            let hint = hint("CreateSnapshots", &message(end), "aws");
            assert!(hint.contains(says), "{end}: {hint}");
            assert_eq!(hint.contains(STATEMENT), helps, "{end}: {hint}");
            assert!(hint.contains("ec2:CreateSnapshots"), "{end}: {hint}");
            assert!(
                helps || hint.contains("does not help") || says.contains("resource itself"),
                "{end}: {hint}"
            );
        }
    }

    #[test]
    fn the_statement_has_the_partition_of_the_message_or_of_the_region() {
        let allow = "because no identity-based policy allows the ec2:CreateSnapshots action";
        assert!(hint("CreateSnapshots", &message(allow), "aws").contains("arn:aws-cn:ec2:*:*:instance/*"));
        for (region, expected) in [
            ("us-east-1", "aws"),
            ("eu-central-1", "aws"),
            ("cn-north-1", "aws-cn"),
            ("us-gov-west-1", "aws-us-gov"),
            ("us-iso-east-1", "aws-iso"),
            ("us-isob-east-1", "aws-iso-b"),
            ("eu-isoe-west-1", "aws-iso-e"),
            ("us-isof-south-1", "aws-iso-f"),
            ("eusc-de-east-1", "aws-eusc"),
        ] {
            assert_eq!(partition(region), expected, "{region}");
            assert!(PARTITIONS.contains(&expected), "{region}");
            let bare =
                hint("CreateTags", "You are not authorized to perform this operation.", partition(region));
            assert!(bare.contains(&format!("\"arn:{expected}:ec2:*::snapshot/*\"")), "{region}: {bare}");
            let snapshots = policy_hint(partition(region), "CreateSnapshots");
            assert_eq!(snapshots.matches(&format!("arn:{expected}:ec2:")).count(), 3, "{region}");
        }
    }

    #[test]
    fn an_encoded_message_can_be_decoded() {
        let text = "You are not authorized to perform this operation. Encoded authorization failure message: 4GIOHlTk";
        let hint = hint("CreateTags", text, "aws");
        assert!(
            hint.contains("aws sts decode-authorization-message") && hint.contains("ec2:CreateTags"),
            "{hint}"
        );
    }

    /// A session, a role and a snapshot may be called anything.
    #[test]
    fn names_in_a_message_are_not_its_words() {
        let text = "User: arn:aws:sts::1:assumed-role/app/because-no-session-policy-allows with an explicit deny in a \
                    service control policy is not authorized to perform: ec2:CreateTags because no identity-based \
                    policy allows the ec2:CreateTags action";
        let said = Said::read(text);
        assert_eq!((said.explicit, said.policy, said.caller), (false, Some(Policy::Identity), Some("app")));
        let odd = "User: arn:aws\x1b:sts::1:assumed-role/a\u{7}b/s is not authorized to perform: ec2:Create\x1b[0m on x";
        let said = Said::read(odd);
        assert_eq!((said.action, said.caller, said.partition), (None, None, None));
        let other = Said::read("User: x is not authorized to perform: kms:CreateGrant on resource: y");
        assert_eq!(other.action, Some(("kms", "CreateGrant")));
        assert_eq!(Said::read("").action, None);
    }

    #[test]
    fn a_user_is_named_by_the_last_part_of_its_path() {
        assert_eq!(role_or_user("arn:aws:iam::1:user/ops/night/backup"), Some("backup"));
        assert_eq!(role_or_user("arn:aws:iam::1:role/backup"), Some("backup"));
        assert_eq!(role_or_user("arn:aws:iam::1:root"), None);
    }
}
