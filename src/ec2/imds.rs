//! The identity of this instance, from IMDSv2.
//!
//! In: overrides and the metadata service. Out: an [`Identity`]. Must never: use IMDSv1, use a proxy, or wait
//! without a limit.

use std::time::Duration;

use aws_config::imds::client::error::ImdsError;
use aws_config::provider_config::ProviderConfig;

use super::late;
use crate::clock::Clock;
use crate::config::settings::IdentityOverrides;
use crate::discover::Identity;
use crate::ec2::connect::plain_http;
use crate::error::chain;
use crate::ids::InstanceId;

/// Limit of one exchange. Where IMDS is available, a token and a document take 5 ms.
const LIMIT: Duration = Duration::from_secs(3);
const DOCUMENT: &str = "/latest/dynamic/instance-identity/document";

/// Why the identity is unknown.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each variant and field is")]
pub enum IdentityError {
    /// No answer, or none that helps: it may come a moment later.
    #[error("cannot read this instance's identity from IMDS: {0}")]
    Imds(String),
    /// IMDS has answered that it does not.
    #[error("IMDS refuses to say what this instance is: {0}")]
    Off(String),
    /// The client cannot be set up.
    #[error("IMDS cannot be asked: {0}")]
    Client(String),
    #[error("IMDS answered with an identity document that cannot be read: {0}")]
    Document(String),
}

impl IdentityError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Imds(_) | Self::Off(_) => {
                "is this an EC2 instance? If it is: IMDS may be off (aws ec2 modify-instance-metadata-options \
                 --http-endpoint enabled), or in a container the hop limit may swallow the token call \
                 (--http-put-response-hop-limit 2). Elsewhere give --instance-id and --region"
            }
            Self::Client(_) => "check --imds-endpoint and AWS_EC2_METADATA_SERVICE_ENDPOINT",
            Self::Document(_) => "give --instance-id and --region",
        }
    }

    /// May it go well a moment later?
    fn passes(&self) -> bool {
        matches!(self, Self::Imds(_) | Self::Document(_))
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    instance_id: InstanceId,
    region: String,
    availability_zone: Option<String>,
    account_id: Option<String>,
}

/// The identity: from the overrides, and from IMDS for what they do not give. With instance and Region given,
/// IMDS is not asked. An IMDS that is not there yet is waited for, for [`IdentityOverrides::imds_timeout`].
///
/// # Errors
/// When IMDS does not answer in time, or its answer cannot be read.
pub async fn identity(overrides: &IdentityOverrides, clock: &dyn Clock) -> Result<Identity, IdentityError> {
    let region = overrides.region.clone().or_else(|| {
        ["AWS_REGION", "AWS_DEFAULT_REGION"]
            .iter()
            .find_map(|v| std::env::var(v).ok().filter(|r| !r.is_empty()))
    });
    if let (Some(instance_id), Some(region)) = (&overrides.instance_id, &region) {
        return Ok(Identity {
            instance_id: instance_id.clone(),
            region: region.clone(),
            availability_zone: None,
            account_id: None,
        });
    }
    let patience = late::patience(overrides.imds_timeout);
    let waits = |e: &IdentityError| if e.passes() { patience } else { Duration::ZERO };
    let ask = async || {
        let late = |_| IdentityError::Imds(format!("no answer within {}", humantime::format_duration(LIMIT)));
        tokio::time::timeout(LIMIT, document(overrides.imds_endpoint.as_deref())).await.map_err(late)?
    };
    let document = late::attempts(clock, waits, ask).await?;
    Ok(Identity {
        instance_id: overrides.instance_id.clone().unwrap_or(document.instance_id),
        region: overrides.region.clone().unwrap_or(document.region),
        availability_zone: document.availability_zone,
        account_id: document.account_id,
    })
}

async fn document(endpoint: Option<&str>) -> Result<Document, IdentityError> {
    let http = plain_http().map_err(|e| IdentityError::Client(e.to_string()))?;
    let provider = ProviderConfig::without_region().with_http_client(http);
    let mut builder = aws_config::imds::Client::builder()
        .configure(&provider)
        .token_ttl(Duration::from_secs(300))
        .max_attempts(1) // made again by `late`
        .connect_timeout(Duration::from_millis(700))
        .read_timeout(Duration::from_secs(1));
    if let Some(endpoint) = endpoint {
        builder = builder.endpoint(endpoint).map_err(|e| IdentityError::Client(e.to_string()))?;
    }
    let text = builder.build().get(DOCUMENT).await.map_err(|e| sort(&e))?;
    serde_json::from_str(text.as_ref()).map_err(|e| IdentityError::Document(e.to_string()))
}

fn sort(error: &ImdsError) -> IdentityError {
    match error {
        ImdsError::ErrorResponse(said) => {
            let status = said.response().status().as_u16();
            let what = format!("HTTP {status} for {DOCUMENT}");
            match status {
                // At boot, a token of before and a tree that is not filled yet; and what IMDS limits.
                401 | 404 | 408 | 429 => IdentityError::Imds(what),
                400..500 => IdentityError::Off(what),
                _ => IdentityError::Imds(what),
            }
        }
        error if late::is_forbidden(error) => IdentityError::Off(chain(error)),
        error => IdentityError::Imds(chain(error)),
    }
}
