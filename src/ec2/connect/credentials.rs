//! Credentials from the source that is in force.
//!
//! In: an [`Sdk`], and the SDK's own clients. Out: credentials. Must never: go on to another source when the
//! one that is configured fails, or send what is for this machine through a proxy.

use std::time::Duration;

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::web_identity_token::{StaticConfiguration, WebIdentityTokenCredentialsProvider};
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_smithy_http_client::tls::TrustStore;

use super::clients::{Routed, direct};
use super::dns::PinnedDns;
use super::process::ProcessProvider;
use super::{CONNECT_TIMEOUT, ConnectError};
use crate::ec2::sdk::credentials::{Base, Role, Source};
use crate::ec2::sdk::{Sdk, region as region_of};

/// How long STS may take for one answer, and for all attempts together.
const STS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(30));

/// The SDK's configuration by what was found, with the provider of the source in force.
///
/// # Errors
/// When there is no source, or its HTTP client cannot be set up.
pub(super) async fn shared(sdk: &Sdk, region: &str) -> Result<SdkConfig, ConnectError> {
    let source = sdk.credentials.source.as_ref().ok_or_else(|| {
        ConnectError::Credentials(
            "none are configured, and AWS_EC2_METADATA_DISABLED keeps the instance's own away".to_owned(),
        )
    })?;
    // Without HTTPS, no certificates are needed, and none are looked for.
    let trusted = if source.value.needs_https() { sdk.trust_store()? } else { TrustStore::empty() };
    let dns = PinnedDns::default();
    let routed = Routed::client(&dns, &sdk.proxies, trusted.clone())?;
    let name = region_of(region);
    let (fips, dual_stack) = sdk.for_sts();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(STS.0)
        .operation_timeout(STS.1)
        .build();
    // The endpoint of EC2 is not given here: STS has its own.
    let bare = aws_config::defaults(BehaviorVersion::latest())
        .region(name.clone())
        .http_client(routed.clone())
        .profile_files(sdk.profile_files())
        .profile_name(sdk.profile_name())
        .use_fips(fips)
        .use_dual_stack(dual_stack)
        .timeout_config(timeouts.clone())
        .no_credentials()
        .load()
        .await;
    let provider = ProviderConfig::default()
        .with_region(Some(name.clone()))
        .with_use_fips(Some(fips))
        .with_use_dual_stack(Some(dual_stack))
        .with_timeout_config(timeouts);
    let here = provider.clone().with_http_client(direct(&dns, trusted)?);
    let sts = provider.with_http_client(routed);
    let provider = with_roles(&source.value, base(&source.value.base, sdk, &here, &sts)?, &bare).await;
    Ok(bare.into_builder().credentials_provider(provider).build())
}

/// `here`: for what is on this machine. `sts`: for what is not.
fn base(
    base: &Base,
    sdk: &Sdk,
    here: &ProviderConfig,
    sts: &ProviderConfig,
) -> Result<SharedCredentialsProvider, ConnectError> {
    Ok(match base {
        Base::Environment => SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new()),
        Base::Keys { access_key_id, secret_access_key, session_token, .. } => {
            let token = session_token.clone();
            let keys = Credentials::new(access_key_id, secret_access_key, token, None, "ProfileFile");
            SharedCredentialsProvider::new(keys)
        }
        Base::Process { profile, command } => {
            SharedCredentialsProvider::new(ProcessProvider::new(profile, command))
        }
        Base::WebIdentity { token_file, role } => {
            let session_name = role.session_name.clone().unwrap_or_else(session_name);
            let fixed = StaticConfiguration {
                web_identity_token_file: token_file.into(),
                role_arn: role.arn.clone(),
                session_name,
            };
            let provider = WebIdentityTokenCredentialsProvider::builder().static_configuration(fixed);
            SharedCredentialsProvider::new(provider.configure(sts).build())
        }
        Base::Container { .. } => {
            SharedCredentialsProvider::new(EcsCredentialsProvider::builder().configure(here).build())
        }
        Base::InstanceProfile => {
            // With the endpoint given, the client does not read the SDK's files by their paths.
            let client = aws_config::imds::Client::builder().configure(here).endpoint(&sdk.imds.value);
            let client = client.map_err(|e| ConnectError::Credentials(e.to_string()))?.build();
            let provider = ImdsCredentialsProvider::builder().configure(here).imds_client(client);
            SharedCredentialsProvider::new(provider.build())
        }
    })
}

async fn with_roles(
    source: &Source,
    base: SharedCredentialsProvider,
    bare: &SdkConfig,
) -> SharedCredentialsProvider {
    let mut provider = base;
    for Role { arn, external_id, session_name: own_name, duration } in &source.roles {
        let mut role = AssumeRoleProvider::builder(arn)
            .configure(bare)
            .session_name(own_name.clone().unwrap_or_else(session_name));
        if let Some(id) = external_id {
            role = role.external_id(id);
        }
        if let Some(duration) = duration {
            role = role.session_length(*duration);
        }
        provider = SharedCredentialsProvider::new(role.build_from_provider(provider).await);
    }
    provider
}

/// What CloudTrail shows of a role that has no `role_session_name`.
fn session_name() -> String {
    format!("stillpoint-{}", jiff::Timestamp::now().as_second())
}
