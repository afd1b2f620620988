//! The environment variables that count.
//!
//! In: nothing. Out: [`VARIABLES`], for stillpoint(8). Must never: leave out one that the program reads; a test looks
//! for their names in its sources.

/// What variables are for, and which, each with its meaning.
pub(super) const VARIABLES: &[(&str, &[(&str, &str)])] = &[
    (
        "stillpoint itself",
        &[
            (
                "STILLPOINT_LOG",
                "Which messages are logged, as filter directives such as `warn,stillpoint=debug`. The default is \
                 `stillpoint=info`, and with `--verbose` `warn,stillpoint=debug`.",
            ),
            ("PATH", "Where `before` looks for its command. No other program is looked for in it."),
            ("HOME", "Where `.aws` is; where it is not set, the home of the user database."),
            ("TERM", "Whether progress is drawn: not on a terminal that is `dumb`."),
        ],
    ),
    (
        "Set by systemd",
        &[
            (
                "INVOCATION_ID",
                "Is there in a service: IMDS is waited for longer then, since nobody sits there and waits.",
            ),
            ("JOURNAL_STREAM", "Tells whether messages go to the journal, with fields then."),
            ("CREDENTIALS_DIRECTORY", "Where the `credential` of a `[[redis]]` section is."),
        ],
    ),
    (
        "Endpoints and proxies",
        &[
            (
                "AWS_ENDPOINT_URL_EC2",
                "The endpoint of the EC2 API. `--endpoint-url` goes before it, it goes before the configuration.",
            ),
            ("AWS_ENDPOINT_URL_EBS", "The endpoint of the EBS direct APIs, by which `verify` reads."),
            ("AWS_ENDPOINT_URL_STS", "The endpoint of STS, where a role is assumed."),
            ("AWS_ENDPOINT_URL", "The endpoint of each of them that has no variable of its own."),
            (
                "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
                "With `true`, these variables and those of profiles do not count.",
            ),
            ("AWS_USE_FIPS_ENDPOINT", "With `true`, the endpoint with FIPS."),
            ("AWS_USE_DUALSTACK_ENDPOINT", "With `true`, the endpoint for IPv6 and IPv4."),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "Where IMDS is. `--imds-endpoint` goes before it."),
            (
                "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
                "`IPv4` or `IPv6`: by which of its addresses IMDS is asked.",
            ),
            ("AWS_EC2_METADATA_DISABLED", "With `true`, the instance profile is no source of credentials."),
            ("HTTPS_PROXY", "The proxy for https; `https_proxy` goes before it."),
            ("HTTP_PROXY", "The proxy for http; `http_proxy` goes before it."),
            (
                "NO_PROXY",
                "Names that no proxy is used for, with their subdomains; `no_proxy` goes before it.",
            ),
            ("AWS_CA_BUNDLE", "A file of certificates, the only ones that are trusted then."),
            ("SSL_CERT_FILE", "A file of certificates, in place of the system's."),
            ("SSL_CERT_DIR", "A folder of certificates, in place of the system's."),
        ],
    ),
    (
        "Credentials",
        &[
            ("AWS_ACCESS_KEY_ID", "With `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`: the credentials."),
            ("AWS_SECRET_ACCESS_KEY", "See `AWS_ACCESS_KEY_ID`."),
            ("AWS_SESSION_TOKEN", "See `AWS_ACCESS_KEY_ID`."),
            (
                "AWS_DEFAULT_PROFILE",
                "The profile of the files; it goes before `AWS_PROFILE`, as in the aws CLI.",
            ),
            ("AWS_PROFILE", "The profile of the files."),
            ("AWS_CONFIG_FILE", "In place of `~/.aws/config`."),
            ("AWS_SHARED_CREDENTIALS_FILE", "In place of `~/.aws/credentials`."),
            ("AWS_ROLE_ARN", "The role that is assumed by `AWS_WEB_IDENTITY_TOKEN_FILE`."),
            ("AWS_ROLE_SESSION_NAME", "The name of that session."),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "A file with the token for `AWS_ROLE_ARN`."),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "Where a container on ECS gets its credentials."),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "Where a container, as on EKS, gets its credentials."),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "The token that this is asked with."),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "A file with that token."),
        ],
    ),
    (
        "The Region",
        &[
            (
                "AWS_REGION",
                "Counts only beside an instance id of the configuration or of `--instance-id`, where no Region is \
                 configured: else the Region is that of the instance.",
            ),
            ("AWS_DEFAULT_REGION", "The same, where `AWS_REGION` is not set."),
        ],
    ),
];
