//! Whose credentials are used: the first of the SDK's sources that is configured.
//!
//! ```text
//! environment → role of the profile → web identity → profile → container → instance profile
//! ```
//!
//! The order is that of the aws CLI. The SDK's own provider for profiles is not used: it would
//! run a `credential_process` by a shell and without a limit, stop at a profile whose kind of credentials is
//! not compiled in, and not say what it is about to do.
//!
//! In: variables and the profile. Out: the source, by name, and what was passed over. Must never: fetch
//! anything, or hold a secret that it would show.

use std::fmt;
use std::time::Duration;

use super::SdkError;
use super::environment::Environment;
use super::profile::Profile;
use crate::config::{Origin, Sourced};

/// A role that is assumed by STS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Role {
    pub arn: String,
    pub external_id: Option<String>,
    pub session_name: Option<String>,
    /// How long its credentials are to live; none means an hour.
    pub duration: Option<Duration>,
}

/// Where credentials come from, before any role is assumed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Base {
    /// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    Environment,
    /// The keys of a profile.
    Keys { profile: String, access_key_id: String, secret_access_key: String, session_token: Option<String> },
    /// The program that a profile names.
    Process { profile: String, command: String },
    /// A role by the token in a file, as variables or a profile name both.
    WebIdentity { token_file: String, role: Role },
    /// The agent of ECS or EKS, as variables name it.
    Container { https: bool },
    /// The role of the instance, from IMDS.
    InstanceProfile,
}

/// The source that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub base: Base,
    /// Roles to assume one after the other.
    pub roles: Vec<Role>,
}

impl Source {
    /// Does it need HTTPS, and with it CA certificates?
    pub fn needs_https(&self) -> bool {
        let base = matches!(self.base, Base::WebIdentity { .. } | Base::Container { https: true });
        base || !self.roles.is_empty()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for role in self.roles.iter().rev() {
            write!(f, "role {} with ", role.arn)?;
        }
        match &self.base {
            Base::Environment => f.write_str("access key of AWS_ACCESS_KEY_ID"),
            Base::Keys { profile, .. } => write!(f, "access key of profile {profile}"),
            Base::Process { profile, .. } => write!(f, "credential_process of profile {profile}"),
            Base::WebIdentity { token_file, role } => {
                write!(f, "role {} with the token in {token_file}", role.arn)
            }
            Base::Container { .. } => f.write_str("container's role (AWS_CONTAINER_CREDENTIALS_…)"),
            Base::InstanceProfile => f.write_str("instance profile (IMDS)"),
        }
    }
}

/// Without secrets. A command may have one in its arguments.
impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Source { base: self.clone(), roles: Vec::new() })
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// None when IMDS is turned off and nothing else is configured.
    pub source: Option<Sourced<Source>>,
    /// What was passed over, and why.
    pub passed_over: Vec<String>,
}

/// Finds the first source that is configured.
///
/// # Errors
/// When the profile contradicts itself, or names a profile that does not exist.
pub(super) fn find(env: &Environment, profile: &Profile) -> Result<Found, SdkError> {
    let mut passed_over = Vec::new();
    let sourced = |base, origin| {
        Some(Sourced { value: Source { base, roles: Vec::new() }, origin: Origin::Environment(origin) })
    };
    if env.get("AWS_ACCESS_KEY_ID").is_some() && !has_key(env) {
        passed_over.push("AWS_ACCESS_KEY_ID does not count: AWS_SECRET_ACCESS_KEY is not set".to_owned());
    }
    let assumes = profile.get("role_arn").is_some() && profile.get("web_identity_token_file").is_none();
    let token_file = env.get("AWS_WEB_IDENTITY_TOKEN_FILE").filter(|_| !assumes);
    // A source that is configured and fails is an error: the next one may be somebody else's.
    let source = if has_key(env) {
        sourced(Base::Environment, "AWS_ACCESS_KEY_ID")
    } else if let Some(token_file) = token_file {
        sourced(web_identity(token_file, env)?, "AWS_WEB_IDENTITY_TOKEN_FILE")
    } else if let Some(found) = of_profile(profile, env, &mut passed_over)? {
        Some(found)
    } else if let Some((base, variable)) = container(env) {
        sourced(base, variable)
    } else if env.get("AWS_EC2_METADATA_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
        None
    } else {
        let value = Source { base: Base::InstanceProfile, roles: Vec::new() };
        Some(Sourced { value, origin: Origin::Default })
    };
    Ok(Found { source, passed_over })
}

/// The credentials of the profile in force, and no others.
///
/// # Errors
/// When it has none, or contradicts itself.
pub(super) fn of_profile_alone(env: &Environment, profile: &Profile) -> Result<Found, SdkError> {
    let mut passed_over = Vec::new();
    match of_profile(profile, env, &mut passed_over)? {
        Some(source) => Ok(Found { source: Some(source), passed_over }),
        None => Err(contradiction(&profile.name.value, "it has no credentials of its own")),
    }
}

/// As the SDK's provider sees it.
fn has_key(env: &Environment) -> bool {
    let has = |name| env.get(name).is_some_and(|v| !v.trim().is_empty());
    has("AWS_ACCESS_KEY_ID") && (has("AWS_SECRET_ACCESS_KEY") || has("SECRET_ACCESS_KEY"))
}

fn web_identity(token_file: &str, env: &Environment) -> Result<Base, SdkError> {
    let arn = env.get("AWS_ROLE_ARN").ok_or_else(|| {
        SdkError::new(
            "AWS_WEB_IDENTITY_TOKEN_FILE is set, and AWS_ROLE_ARN is not".to_owned(),
            "set both or neither".to_owned(),
        )
    })?;
    let role = Role {
        arn: arn.to_owned(),
        external_id: None,
        session_name: env.get("AWS_ROLE_SESSION_NAME").map(str::to_owned),
        duration: None,
    };
    Ok(Base::WebIdentity { token_file: token_file.to_owned(), role })
}

fn container(env: &Environment) -> Option<(Base, &'static str)> {
    const RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
    const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    if env.get(RELATIVE).is_some() {
        return Some((Base::Container { https: false }, RELATIVE));
    }
    let https = env.get(FULL)?.get(..6).is_some_and(|s| s.eq_ignore_ascii_case("https:"));
    Some((Base::Container { https }, FULL))
}

/// Follows the profile in force by `source_profile` to what its first credentials are.
fn of_profile(
    profile: &Profile,
    env: &Environment,
    passed_over: &mut Vec<String>,
) -> Result<Option<Sourced<Source>>, SdkError> {
    let mut name = profile.name.value.clone();
    let mut seen: Vec<String> = Vec::new();
    let mut roles = Vec::new();
    let mut first = None;
    let base = loop {
        let again = seen.contains(&name);
        if again {
            let names = seen.join(", ");
            return Err(contradiction(&name, &format!("source_profile leads in a circle: {names}")));
        }
        seen.push(name.clone());
        let get = |key: &str| profile.of(&name, key);
        let text = |key: &str| get(key).map(|v| v.value);
        // The keys of a profile that another one names come first, whatever else it has: so it is in the SDK.
        if seen.len() > 1
            && let Some(keys) = keys(profile, &name)?
        {
            break Some(keys);
        }
        let Some(arn) = get("role_arn").filter(|_| get("web_identity_token_file").is_none()) else {
            let before = passed_over.len();
            let found = base(profile, &name, passed_over)?;
            if found.is_none() && seen.len() > 1 && passed_over.len() == before {
                return Err(contradiction(&name, "a source_profile names it, and it has no credentials"));
            }
            break found;
        };
        first.get_or_insert(arn.origin);
        roles.push(Role {
            arn: arn.value,
            external_id: text("external_id"),
            session_name: text("role_session_name"),
            duration: match text("duration_seconds") {
                Some(seconds) => Some(Duration::from_secs(seconds.parse().map_err(|_| {
                    contradiction(&name, &format!("duration_seconds is `{seconds}`, which is no number"))
                })?)),
                None => None,
            },
        });
        match (text("source_profile"), text("credential_source")) {
            (Some(_), Some(_)) => {
                return Err(contradiction(&name, "it has both source_profile and credential_source"));
            }
            (None, None) => {
                return Err(contradiction(
                    &name,
                    "it has role_arn, and neither source_profile nor credential_source to assume it with",
                ));
            }
            (None, Some(source)) => break Some(named_source(&name, &source, env)?),
            (Some(source), None) if source == name => {
                let before = passed_over.len();
                let found = base(profile, &name, passed_over)?;
                if found.is_none() && passed_over.len() == before {
                    return Err(contradiction(&name, "it names itself, and has no credentials"));
                }
                break found;
            }
            (Some(source), None) if !profile.has(&source) => {
                let what = format!("its source_profile `{source}` does not exist");
                return Err(contradiction(&name, &what));
            }
            (Some(source), None) => name = source,
        }
    };
    let Some((base, origin)) = base.map(|base| (base, first)) else { return Ok(None) };
    roles.reverse();
    let origin = origin.or_else(|| origin_of(profile, &base)).unwrap_or(Origin::Default);
    Ok(Some(Sourced { value: Source { base, roles }, origin }))
}

/// The credentials of one profile, without regard to a role that it assumes. None when it has none, or none
/// that can be used.
fn base(profile: &Profile, name: &str, passed_over: &mut Vec<String>) -> Result<Option<Base>, SdkError> {
    let text = |key: &str| profile.of(name, key).map(|v| v.value);
    if let Some(token_file) = text("web_identity_token_file") {
        let arn = text("role_arn")
            .ok_or_else(|| contradiction(name, "it has web_identity_token_file without role_arn"))?;
        let session_name = text("role_session_name");
        let role = Role { arn, external_id: None, session_name, duration: None };
        return Ok(Some(Base::WebIdentity { token_file, role }));
    }
    for key in ["sso_session", "sso_start_url", "sso_account_id", "sso_role_name", "login_session"] {
        if let Some(found) = profile.of(name, key) {
            let what = if key == "login_session" { "`aws login`" } else { "IAM Identity Center (SSO)" };
            passed_over.push(format!(
                "the sign-in of profile {name} is passed over: `{key}` ({}) is for a person, who signs in by \
                 {what}; where it is to count, write `credential_process = aws configure \
                 export-credentials --profile {name} --format process` into another profile",
                found.origin
            ));
            break;
        }
    }
    // Keys in the file for credentials come before a program, and those in the other file after it.
    let keys = keys(profile, name)?;
    if profile.in_credentials(name, "aws_access_key_id") {
        return Ok(keys);
    }
    match text("credential_process") {
        Some(command) => Ok(Some(Base::Process { profile: name.to_owned(), command })),
        None => Ok(keys),
    }
}

fn keys(profile: &Profile, name: &str) -> Result<Option<Base>, SdkError> {
    let text = |key: &str| profile.of(name, key).map(|v| v.value);
    match (text("aws_access_key_id"), text("aws_secret_access_key")) {
        (Some(access_key_id), Some(secret_access_key)) => {
            let session_token = text("aws_session_token");
            let profile = name.to_owned();
            Ok(Some(Base::Keys { profile, access_key_id, secret_access_key, session_token }))
        }
        (None, None) => Ok(None),
        (Some(_), None) => Err(contradiction(name, "it has aws_access_key_id without aws_secret_access_key")),
        (None, Some(_)) => Err(contradiction(name, "it has aws_secret_access_key without aws_access_key_id")),
    }
}

/// What `credential_source` names.
fn named_source(profile: &str, source: &str, env: &Environment) -> Result<Base, SdkError> {
    let is = |name: &str| source.eq_ignore_ascii_case(name);
    let because =
        |what: &str| contradiction(profile, &format!("its credential_source is {source}, and {what}"));
    if is("Ec2InstanceMetadata") {
        Ok(Base::InstanceProfile)
    } else if is("Environment") {
        has_key(env).then_some(Base::Environment).ok_or_else(|| because("AWS_ACCESS_KEY_ID is not set"))
    } else if is("EcsContainer") {
        container(env)
            .map(|(base, _)| base)
            .ok_or_else(|| because("no variable AWS_CONTAINER_CREDENTIALS_… is set"))
    } else {
        Err(because("it can be Ec2InstanceMetadata, Environment or EcsContainer"))
    }
}

fn origin_of(profile: &Profile, base: &Base) -> Option<Origin> {
    let key = match base {
        Base::Keys { .. } => "aws_access_key_id",
        Base::Process { .. } => "credential_process",
        Base::WebIdentity { .. } => "web_identity_token_file",
        Base::Environment | Base::Container { .. } | Base::InstanceProfile => "credential_source",
    };
    profile.get(key).map(|v| v.origin)
}

fn contradiction(profile: &str, what: &str) -> SdkError {
    SdkError::new(
        format!("the AWS profile `{profile}` cannot be used: {what}"),
        "correct it in the SDK's files, or set AWS_PROFILE to another one".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::profile::tests::profile;
    use super::*;

    /// The source with its origin, and what was passed over.
    async fn told(env: Environment, config: &str, credentials: &str) -> String {
        let profile = profile(env.clone(), config, credentials).await.unwrap();
        match find(&env, &profile) {
            Ok(Found { source, passed_over }) => {
                let source =
                    source.map_or_else(|| "none".to_owned(), |s| format!("{} | {}", s.value, s.origin));
                passed_over.into_iter().fold(source, |all, one| format!("{all} | {one}"))
            }
            Err(e) => format!("error: {e}"),
        }
    }

    const KEYS: &str = "aws_access_key_id = AK\naws_secret_access_key = s3cret\n";

    #[tokio::test]
    async fn the_order_is_that_of_the_aws_cli() {
        let all = |left: usize| {
            let vars = [
                ("AWS_EC2_METADATA_DISABLED", "True"),
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "HTTPS://c"),
                ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/c"),
                ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"),
                ("AWS_ROLE_ARN", "arn:env"),
                ("AWS_ACCESS_KEY_ID", "AK"),
                ("AWS_SECRET_ACCESS_KEY", "s3cret"),
            ];
            let mut these = vars;
            these.iter_mut().skip(left).for_each(|v| v.1 = "");
            Environment::from(these)
        };
        let keys = format!("[default]\n{KEYS}");
        assert_eq!(
            told(all(7), "", &keys).await,
            "access key of AWS_ACCESS_KEY_ID | environment AWS_ACCESS_KEY_ID"
        );
        assert_eq!(told(all(3), "", &keys).await, "access key of profile default | /k [profile default]");
        let half = told(all(6), "", "").await;
        assert!(
            half.ends_with("AWS_ACCESS_KEY_ID does not count: AWS_SECRET_ACCESS_KEY is not set"),
            "{half}"
        );
        let role = "[default]\nrole_arn = arn:p\ncredential_source = Ec2InstanceMetadata\n";
        let assumed = "role arn:p with instance profile (IMDS) | /c [profile default]";
        assert_eq!(told(all(5), role, &keys).await, assumed);
        let token = "role arn:env with the token in /token | environment AWS_WEB_IDENTITY_TOKEN_FILE";
        assert_eq!(told(all(5), "", "").await, token);
        assert_eq!(told(all(5), "", &keys).await, token, "as in the aws CLI");
        let container =
            "container's role (AWS_CONTAINER_CREDENTIALS_…) | environment AWS_CONTAINER_CREDENTIALS_";
        assert_eq!(told(all(3), "", "").await, format!("{container}RELATIVE_URI"));
        assert_eq!(told(all(2), "", "").await, format!("{container}FULL_URI"));
        assert_eq!(told(all(1), "", "").await, "none");
        assert_eq!(told(all(0), "", "").await, "instance profile (IMDS) | built-in default");
    }

    #[tokio::test]
    async fn roles_are_followed_to_their_first_credentials() {
        let dev = || Environment::from([("AWS_PROFILE", "dev")]);
        let config = format!(
            "[profile dev]\nrole_arn = arn:b\nsource_profile = mid\nexternal_id = x\nduration_seconds = 7200\n\
             [profile mid]\nrole_arn = arn:a\nsource_profile = base\nrole_session_name = n\n[profile base]\n{KEYS}"
        );
        let shown = "role arn:b with role arn:a with access key of profile base | /c [profile dev]";
        assert_eq!(told(dev(), &config, "").await, shown);
        let parsed = profile(dev(), &config, "").await.unwrap();
        let source = find(&dev(), &parsed).unwrap().source.unwrap().value;
        let role = |arn: &str, external_id: Option<&str>, session: Option<&str>, seconds: Option<u64>| Role {
            arn: arn.to_owned(),
            external_id: external_id.map(str::to_owned),
            session_name: session.map(str::to_owned),
            duration: seconds.map(Duration::from_secs),
        };
        assert_eq!(
            source.roles,
            [role("arn:a", None, Some("n"), None), role("arn:b", Some("x"), None, Some(7200))],
            "in the order in which they are assumed"
        );
        assert!(source.needs_https() && !format!("{source:?}").contains("s3cret"), "{source:?}");
        for (rest, shown) in [
            ("credential_source = ec2instancemetadata", "role arn:b with instance profile (IMDS)"),
            (
                "source_profile = dev\ncredential_process = /bin/p",
                "role arn:b with credential_process of profile dev",
            ),
            ("web_identity_token_file = /t", "role arn:b with the token in /t"),
            (
                "credential_source = Environment",
                "error: the AWS profile `dev` cannot be used: its credential_source",
            ),
            (
                "credential_source = EcsContainer",
                "error: the AWS profile `dev` cannot be used: its credential_source",
            ),
            (
                "credential_source = Else",
                "error: the AWS profile `dev` cannot be used: its credential_source is Else",
            ),
            (
                "source_profile = none",
                "error: the AWS profile `dev` cannot be used: its source_profile `none`",
            ),
            ("source_profile = dev", "error: the AWS profile `dev` cannot be used: it names itself"),
            ("", "error: the AWS profile `dev` cannot be used: it has role_arn, and neither"),
            (
                "source_profile = a\ncredential_source = b",
                "error: the AWS profile `dev` cannot be used: it has both",
            ),
            (
                "source_profile = e\n[profile e]\na = b",
                "error: the AWS profile `e` cannot be used: a source_profile",
            ),
            (
                "source_profile = e\n[profile e]\nrole_arn = c\nsource_profile = dev",
                "error: the AWS profile `dev` cannot be used: source_profile leads in a circle: dev, e",
            ),
        ] {
            let said = told(dev(), &format!("[profile dev]\nrole_arn = arn:b\n{rest}\n"), "").await;
            assert!(said.starts_with(shown), "{rest}: {said}");
        }
    }

    #[tokio::test]
    async fn a_profile_whose_kind_is_not_known_is_passed_over_and_not_the_end() {
        for key in ["sso_session = s", "sso_start_url = u", "login_session = l"] {
            let said = told(Environment::default(), &format!("[default]\n{key}\n"), "").await;
            let name = key.split(' ').next().unwrap();
            let start = format!(
                "instance profile (IMDS) | built-in default | the sign-in of profile default is passed over: \
                 `{name}`"
            );
            assert!(said.starts_with(&start), "{said}");
            assert!(said.contains("export-credentials --profile default"), "{said}");
        }
        let role = "[default]\nrole_arn = r\nsource_profile = s\n[profile s]\nsso_session = x\n";
        let said = told(Environment::default(), role, "").await;
        assert!(
            said.starts_with(
                "instance profile (IMDS) | built-in default | the sign-in of profile s is passed"
            ),
            "{said}"
        );
        let empty = told(Environment::default(), "[default]\nregion = r\n", "").await;
        assert_eq!(empty, "instance profile (IMDS) | built-in default");
        let process =
            told(Environment::default(), "[default]\ncredential_process = /bin/p --key s3cret\n", "").await;
        assert_eq!(process, "credential_process of profile default | /c [profile default]");
        let process = "[default]\ncredential_process = /bin/p\n";
        let keys = format!("[default]\nsso_session = s\n{KEYS}");
        let said = told(Environment::default(), process, &keys).await;
        assert!(said.starts_with(
            "access key of profile default | /k [profile default] | the sign-in of profile default is passed"
        ));
        let both = told(Environment::default(), &format!("{process}{KEYS}"), "").await;
        assert!(both.starts_with("credential_process of"), "{both}");
        let half = told(Environment::default(), "", "[default]\naws_access_key_id = AK\n").await;
        assert!(
            half.starts_with("error: the AWS profile `default` cannot be used: it has aws_access_key_id"),
            "{half}"
        );
    }
}
