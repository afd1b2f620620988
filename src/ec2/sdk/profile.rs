//! The profile that is in force, and where each of its values stands.
//!
//! In: the text of the SDK's files, and the variables that name a profile. Out: values with their origins.
//! Must never: open a file, or take another profile than the one that is named.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use aws_config::profile::{self, ProfileSet};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_runtime::env_config::property::PropertiesKey;
use aws_types::os_shim_internal::{Env, Fs};

use super::SdkError;
use super::environment::Environment;
use super::files::{Files, SdkFile};
use crate::config::{Origin, Sourced};
use crate::path_encoding::shown;

/// The profile without a name of its own.
const DEFAULT: &str = "default";

/// Both files, parsed by the SDK, and the name of the profile that is in force.
#[derive(Debug)]
pub(crate) struct Profile {
    pub name: Sourced<String>,
    /// Both files together.
    all: ProfileSet,
    config: One,
    credentials: One,
}

/// One file alone, to tell which of the two a value stands in.
#[derive(Debug)]
struct One {
    file: Option<Arc<Path>>,
    parsed: ProfileSet,
}

impl Profile {
    /// # Errors
    /// When a file cannot be parsed, or the profile that a variable names is in neither.
    pub async fn read(env: &Environment, files: &Files) -> Result<Self, SdkError> {
        // In this order by the aws CLI (botocore, `BOTOCORE_DEFAUT_SESSION_VARIABLES`).
        let named = ["AWS_DEFAULT_PROFILE", "AWS_PROFILE"].into_iter().find_map(|variable| {
            let value = env.get(variable)?.to_owned();
            Some(Sourced { value, origin: Origin::Environment(variable) })
        });
        let name = named.clone().unwrap_or(Sourced { value: DEFAULT.to_owned(), origin: Origin::Default });
        let config = One::parse(&files.config, EnvConfigFileKind::Config, &name.value).await?;
        let credentials = One::parse(&files.credentials, EnvConfigFileKind::Credentials, &name.value).await?;
        let all = parse(files.for_sdk(), &name.value).await.map_err(|why| unreadable(None, &why))?;
        let profile = Self { all, config, credentials, name };
        match named {
            Some(named) if profile.all.get_profile(&named.value).is_none() => Err(profile.not_there(files)),
            _ => Ok(profile),
        }
    }

    fn not_there(&self, files: &Files) -> SdkError {
        let paths = [&files.config, &files.credentials].into_iter().filter_map(|f| f.path.as_deref());
        let paths: Vec<String> = paths.map(|p| shown(p).to_string()).collect();
        let looked = match paths.as_slice() {
            [] => "there is no HOME to look for it in".to_owned(),
            paths => format!("it is not in {}", paths.join(" or ")),
        };
        let mut known: Vec<&str> = self.all.profiles().collect();
        known.sort_unstable();
        let mut hint = files.left_out.join("; ");
        if !hint.is_empty() {
            hint.push_str("; ");
        }
        let Sourced { value, origin } = &self.name;
        match known.as_slice() {
            [] => hint.push_str("unset the variable to use the instance's own role"),
            known => hint.push_str(&format!("profiles: {}", known.join(", "))),
        }
        SdkError::new(format!("the AWS profile `{value}` ({origin}) does not exist: {looked}"), hint)
    }

    /// A value of the profile that is in force.
    pub fn get(&self, key: &str) -> Option<Sourced<String>> {
        self.of(&self.name.value, key)
    }

    /// A value of any profile.
    pub fn of(&self, profile: &str, key: &str) -> Option<Sourced<String>> {
        let value = self.all.get_profile(profile)?.get(key).filter(|v| !v.is_empty())?;
        // What stands in both is taken from the credentials.
        let one = if self.in_credentials(profile, key) { &self.credentials } else { &self.config };
        Some(Sourced { value: value.to_owned(), origin: one.origin(&format!("profile {profile}")) })
    }

    /// Does this value stand in the file for credentials?
    pub fn in_credentials(&self, profile: &str, key: &str) -> bool {
        self.credentials.parsed.get_profile(profile).and_then(|p| p.get(key)).is_some()
    }

    /// Is there a profile of this name?
    pub fn has(&self, profile: &str) -> bool {
        self.all.get_profile(profile).is_some()
    }

    /// A value that the `services` section of the profile in force has for one service alone, such as `ec2`.
    pub fn service(&self, service: &str, key: &str) -> Option<Sourced<String>> {
        let section = self.get("services")?.value;
        let place = PropertiesKey::builder()
            .section_key("services")
            .section_name(&section)
            .property_name(service)
            .sub_property_name(key)
            .build()
            .ok()?;
        let value = self.all.other_sections().get(&place).filter(|v| !v.is_empty())?.clone();
        Some(Sourced { value, origin: self.config.origin(&format!("services {section}")) })
    }
}

impl One {
    async fn parse(file: &SdkFile, kind: EnvConfigFileKind, name: &str) -> Result<Self, SdkError> {
        let alone = EnvConfigFiles::builder().with_contents(kind, &file.text).build();
        let parsed = parse(alone, name).await.map_err(|why| unreadable(file.path.as_deref(), &why))?;
        Ok(Self { file: file.path.as_deref().map(Arc::from), parsed })
    }

    fn origin(&self, section: &str) -> Origin {
        let file = self.file.clone().unwrap_or_else(|| Arc::from(Path::new("")));
        Origin::Aws { file, section: section.to_owned() }
    }
}

async fn parse(files: EnvConfigFiles, name: &str) -> Result<ProfileSet, String> {
    // Neither is looked at: the contents are given, and so is the name.
    let (fs, env) = (Fs::from_slice(&[]), Env::from_slice(&[]));
    profile::load(&fs, &env, &files, Some(Cow::Owned(name.to_owned())))
        .await
        .map_err(|e| crate::error::chain(&e))
}

fn unreadable(file: Option<&Path>, why: &str) -> SdkError {
    // The SDK does not know the file, and writes `error parsing  on line 3:` and the reason below it.
    let why = why.split_once("error parsing  on ").map_or(why, |(_, why)| why);
    let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
    let file = file.map_or_else(|| "the AWS configuration".to_owned(), |file| shown(file).to_string());
    SdkError::new(
        format!("{file} cannot be parsed: {why}"),
        "correct the line, or have AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE name another file"
            .to_owned(),
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub async fn profile(env: Environment, config: &str, credentials: &str) -> Result<Profile, SdkError> {
        let file = |path: &str, text: &str| SdkFile { path: Some(path.into()), text: text.to_owned() };
        let files =
            Files { config: file("/c", config), credentials: file("/k", credentials), left_out: Vec::new() };
        Profile::read(&env, &files).await
    }

    fn told(value: Option<Sourced<String>>) -> String {
        value.map_or_else(|| "none".to_owned(), |v| format!("{} ({})", v.value, v.origin))
    }

    #[tokio::test]
    async fn values_have_the_file_and_the_section_that_they_stand_in() {
        let config = "[default]\nservices = s\nregion = r\na = config\n[profile dev]\na = dev\nempty =\n\
                      [services s]\nec2 =\n  endpoint_url = http://vpce\n[services t]\nec2 =\n  endpoint_url = no\n";
        let default = profile(Environment::default(), config, "[default]\na = credentials\n").await.unwrap();
        assert_eq!(told(default.get("a")), "credentials (/k [profile default])");
        assert_eq!(told(default.get("region")), "r (/c [profile default])");
        assert_eq!(told(default.service("ec2", "endpoint_url")), "http://vpce (/c [services s])");
        assert_eq!(told(default.get("none")), "none");
        let dev = profile(Environment::from([("AWS_PROFILE", "dev")]), config, "").await.unwrap();
        assert_eq!(
            (told(dev.get("a")), told(dev.get("empty"))),
            ("dev (/c [profile dev])".into(), "none".into())
        );
        assert_eq!(told(dev.service("ec2", "endpoint_url")), "none");
        assert_eq!(told(dev.of("default", "region")), "r (/c [profile default])");
    }

    #[tokio::test]
    async fn a_profile_that_is_named_has_to_exist() {
        let config = "[default]\n[profile dev]\na = 1\n[profile prod]\na = 2\n";
        let name = |vars| async { profile(vars, config, "").await.map(|p| p.name.value) };
        assert_eq!(name(Environment::default()).await.unwrap(), "default");
        assert_eq!(name(Environment::from([("AWS_PROFILE", "dev")])).await.unwrap(), "dev");
        assert_eq!(name(Environment::from([("AWS_PROFILE", "")])).await.unwrap(), "default");
        let both = Environment::from([("AWS_PROFILE", "dev"), ("AWS_DEFAULT_PROFILE", "prod")]);
        assert_eq!(name(both).await.unwrap(), "prod", "as the aws CLI has it");
        let e = name(Environment::from([("AWS_PROFILE", "devel")])).await.unwrap_err();
        let text = "the AWS profile `devel` (environment AWS_PROFILE) does not exist: it is not in /c or /k";
        assert_eq!((e.to_string().as_str(), e.hint.as_str()), (text, "profiles: default, dev, prod"));
        let none = Environment::from([("AWS_PROFILE", "default")]);
        assert!(profile(none, "", "").await.unwrap_err().to_string().contains("does not exist"));
        assert!(profile(Environment::default(), "", "").await.is_ok());
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_parsed_is_an_error() {
        let e = profile(Environment::default(), "[default\n", "").await.unwrap_err();
        assert_eq!(e.to_string(), "/c cannot be parsed: line 1: Profile definition must end with ']'");
        let e = profile(Environment::default(), "[default]\n", "[x]\n= y\n").await.unwrap_err();
        assert!(e.to_string().starts_with("/k cannot be parsed: line 2: "), "{e}");
    }
}
