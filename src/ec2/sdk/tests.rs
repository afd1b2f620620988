//! What is in force, by made environments and files.

use std::path::{Path, PathBuf};

use super::*;
use crate::config::Overrides;

/// A host with these files of the SDK's and of stillpoint's.
struct Host {
    dir: tempfile::TempDir,
    flags: Overrides,
}

impl Host {
    fn new(aws: &str, own: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Self { dir, flags: Overrides::default() };
        host.put(".aws/config", aws);
        host.put("etc/stillpoint/stillpoint.toml", own);
        host
    }

    fn put(&self, path: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        path
    }

    fn loaded(&self) -> Loaded {
        crate::config::load(self.dir.path(), None, None, &self.flags).unwrap()
    }

    async fn find(&self, vars: &[(&str, &str)]) -> Result<Sdk, SdkError> {
        let home = ("HOME", self.dir.path().to_str().unwrap());
        let env = Environment::made(vars.iter().copied().chain([home]));
        Sdk::find_in(&self.loaded(), &env).await
    }

    /// A value with its origin, in which this host's folder is `~`.
    fn told<T: std::fmt::Display>(&self, value: &Sourced<T>) -> String {
        let text = format!("{} ({})", value.value, value.origin);
        text.replace(self.dir.path().to_str().unwrap(), "~")
    }

    async fn endpoint(&self, vars: &[(&str, &str)]) -> String {
        match self.find(vars).await {
            Ok(sdk) => sdk.endpoint.map_or_else(|| "the Region's".to_owned(), |e| self.told(&e)),
            Err(e) => format!("error: {e} | {}", e.hint),
        }
    }

    /// What `config show` prints of it, without the heading.
    async fn shown(&self, vars: &[(&str, &str)], region: Option<&str>) -> Vec<String> {
        let text = self.find(vars).await.unwrap().show(region).await.unwrap();
        let text = text.replace(self.dir.path().to_str().unwrap(), "~");
        text.lines().filter_map(|l| l.strip_prefix("# ")).skip(1).map(without_gap).collect()
    }
}

/// A line with its origin one space behind it.
fn without_gap(line: &str) -> String {
    let (what, origin) = line.split_once("  # ").unwrap();
    format!("{} # {origin}", what.trim_end())
}

const SERVICES: &str = "[default]\nendpoint_url = http://profile\nservices = s\n\
                        [services s]\nec2 =\n  endpoint_url = http://service\nsts =\n  endpoint_url = http://sts\n";

#[tokio::test]
async fn the_endpoint_is_the_first_of_flag_variables_own_file_services_and_profile() {
    let mut host = Host::new(SERVICES, "[ec2]\nendpoint_url = \"http://file\"\n");
    let ec2 = ("AWS_ENDPOINT_URL_EC2", "http://ec2");
    let all = ("AWS_ENDPOINT_URL", "http://all");
    assert_eq!(host.endpoint(&[all, ec2]).await, "http://ec2 (environment AWS_ENDPOINT_URL_EC2)");
    assert_eq!(host.endpoint(&[all]).await, "http://all (environment AWS_ENDPOINT_URL)");
    assert_eq!(host.endpoint(&[]).await, "http://file (~/etc/stillpoint/stillpoint.toml:2)");
    host.flags.endpoint_url = Some("http://flag".to_owned());
    assert_eq!(host.endpoint(&[all, ec2]).await, "http://flag (command line --endpoint-url)");
    let host = Host::new(SERVICES, "");
    assert_eq!(host.endpoint(&[]).await, "http://service (~/.aws/config [services s])");
    assert_eq!(
        host.endpoint(&[("AWS_ENDPOINT_URL_EC2", ""), all]).await,
        "http://all (environment AWS_ENDPOINT_URL)"
    );
    let host =
        Host::new("[default]\nendpoint_url = http://profile\n[profile p]\nendpoint_url = http://p\n", "");
    assert_eq!(host.endpoint(&[]).await, "http://profile (~/.aws/config [profile default])");
    assert_eq!(host.endpoint(&[("AWS_PROFILE", "p")]).await, "http://p (~/.aws/config [profile p])");
    let host = Host::new("", "");
    assert_eq!(host.endpoint(&[]).await, "the Region's");
    let wrong = host.endpoint(&[("AWS_ENDPOINT_URL", "nonsense")]).await;
    assert!(wrong.starts_with("error: environment AWS_ENDPOINT_URL: "), "{wrong}");
    let host = Host::new("[default]\nendpoint_url = ec2.example\n", "");
    assert!(host.endpoint(&[]).await.contains("[profile default]: `endpoint_url` is `ec2.example`"));
}

#[tokio::test]
async fn configured_endpoints_can_be_ignored_and_stillpoints_own_count_all_the_same() {
    let ignore = ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "TRUE");
    let ec2 = ("AWS_ENDPOINT_URL_EC2", "http://ec2");
    let mut host = Host::new(SERVICES, "");
    assert_eq!(host.endpoint(&[ignore, ec2]).await, "the Region's");
    host.put("etc/stillpoint/stillpoint.toml", "[ec2]\nendpoint_url = \"http://file\"\n");
    assert_eq!(host.endpoint(&[ignore, ec2]).await, "http://file (~/etc/stillpoint/stillpoint.toml:2)");
    let profile = SERVICES.replace("services = s", "services = s\nignore_configured_endpoint_urls = true");
    host.put(".aws/config", &profile);
    assert_eq!(host.endpoint(&[ec2]).await, "http://file (~/etc/stillpoint/stillpoint.toml:2)");
    let no = ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "false");
    assert_eq!(host.endpoint(&[no, ec2]).await, "http://ec2 (environment AWS_ENDPOINT_URL_EC2)");
    host.flags.endpoint_url = Some("http://flag".to_owned());
    assert_eq!(host.endpoint(&[ignore]).await, "http://flag (command line --endpoint-url)");
}

#[tokio::test]
async fn the_regions_endpoint_is_the_one_of_its_partition_with_fips_and_dual_stack() {
    let host = Host::new("[default]\nuse_fips_endpoint = true\nuse_dualstack_endpoint = nonsense\n", "");
    let fips = ("AWS_USE_FIPS_ENDPOINT", "false");
    let dual = ("AWS_USE_DUALSTACK_ENDPOINT", "True");
    let region = "us-east-1";
    for (vars, url) in [
        (&[][..], "https://ec2-fips.us-east-1.amazonaws.com"),
        (&[fips][..], "https://ec2.us-east-1.amazonaws.com"),
        (&[fips, dual][..], "https://ec2.us-east-1.api.aws"),
        (&[dual][..], "https://ec2-fips.us-east-1.api.aws"),
    ] {
        assert_eq!(host.find(vars).await.unwrap().url(region).await.unwrap(), url);
    }
    let sdk = host.find(&[]).await.unwrap();
    assert!(sdk.warnings[0].contains("`nonsense`, neither true nor false"), "{:?}", sdk.warnings);
    assert_eq!(host.told(&sdk.fips), "true (~/.aws/config [profile default])");
    assert_eq!(host.told(&sdk.dual_stack), "false (~/.aws/config [profile default])");
    let sdk = Host::new("", "").find(&[]).await.unwrap();
    assert_eq!(sdk.url("cn-north-1").await.unwrap(), "https://ec2.cn-north-1.amazonaws.com.cn");
    assert_eq!(sdk.url("us-gov-west-1").await.unwrap(), "https://ec2.us-gov-west-1.amazonaws.com");
    let own = host.find(&[("AWS_ENDPOINT_URL", "https://vpce")]).await.unwrap();
    assert_eq!(own.url(region).await.unwrap(), "https://vpce", "as by the aws CLI");
    let told = own.warnings.iter().find(|w| w.starts_with("FIPS (")).unwrap();
    assert!(told.ends_with("https://vpce (environment AWS_ENDPOINT_URL)"), "{told}");
    let shown = host.shown(&[("AWS_ENDPOINT_URL", "https://vpce")], None).await;
    assert!(
        shown.iter().any(|l| l.starts_with("FIPS: not for EC2, since its endpoint is given #")),
        "{shown:?}"
    );
    assert_eq!(own.for_sts(), (false, false), "its endpoint is given as well");
    let ec2 = host.find(&[("AWS_ENDPOINT_URL_EC2", "https://vpce")]).await.unwrap();
    assert_eq!(ec2.for_sts(), (true, false));
}

#[tokio::test]
async fn imds_is_found_without_the_sdks_own_look_at_its_files() {
    let mut host = Host::new("", "");
    let ask = async |host: &Host, vars: &[(&str, &str)]| match host.find(vars).await {
        Ok(sdk) => host.told(&sdk.imds),
        Err(e) => format!("error: {e}"),
    };
    assert_eq!(ask(&host, &[]).await, "http://169.254.169.254 (built-in default)");
    let mode = ("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv6");
    let by_mode = "http://[fd00:ec2::254] (environment AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE)";
    assert_eq!(ask(&host, &[mode]).await, by_mode);
    assert!(ask(&host, &[(mode.0, "IPv5")]).await.starts_with("error: environment AWS_EC2_METADATA"));
    host.put(".aws/config", "[default]\nec2_metadata_service_endpoint_mode = ipv6\n");
    assert_eq!(ask(&host, &[]).await, "http://[fd00:ec2::254] (~/.aws/config [profile default])");
    host.put(".aws/config", "[default]\nec2_metadata_service_endpoint = http://profile\n");
    assert_eq!(ask(&host, &[mode]).await, "http://profile (~/.aws/config [profile default])");
    host.put("etc/stillpoint/stillpoint.toml", "[identity]\nimds_endpoint = \"http://file\"\n");
    assert_eq!(ask(&host, &[mode]).await, "http://file (~/etc/stillpoint/stillpoint.toml:2)");
    let variable = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://variable");
    assert_eq!(
        ask(&host, &[variable]).await,
        "http://variable (environment AWS_EC2_METADATA_SERVICE_ENDPOINT)"
    );
    host.flags.imds_endpoint = Some("http://flag".to_owned());
    assert_eq!(ask(&host, &[variable]).await, "http://flag (command line --imds-endpoint)");
}

#[tokio::test]
async fn certificates_are_those_of_the_first_that_is_named() {
    let bundle = |text: &str| Authorities::Bundle(text.into());
    let host = Host::new("[default]\nca_bundle = /profile.pem\n", "");
    let found = async |host: &Host, vars: &[(&str, &str)]| host.find(vars).await.unwrap().authorities.value;
    let aws = ("AWS_CA_BUNDLE", "/variable.pem");
    let file = ("SSL_CERT_FILE", "/file.pem");
    let folders = ("SSL_CERT_DIR", "/one::/two");
    assert_eq!(found(&host, &[aws, file, folders]).await, bundle("/variable.pem"));
    assert_eq!(found(&host, &[file, folders]).await, bundle("/profile.pem"));
    let host = Host::new("", "");
    let both =
        Authorities::OpenSsl { file: Some("/file.pem".into()), folders: vec!["/one".into(), "/two".into()] };
    assert_eq!(found(&host, &[file, folders]).await, both);
    assert_eq!(found(&host, &[]).await, Authorities::System);
}

#[tokio::test]
async fn a_bundle_is_used_as_it_is_or_is_an_error() {
    let host = Host::new("", "");
    let good = host.put("good.pem", &format!("prose\n{CERTIFICATE}-----BEGIN X-----\n!\n-----END X-----\n"));
    let bad = host.put("bad.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let store = async |variable: &str, path: &Path| {
        let sdk = host.find(&[(variable, path.to_str().unwrap())]).await.unwrap();
        sdk.trust_store().map(|store| format!("{store:?}").matches("CertificatePEM").count())
    };
    assert_eq!(store("AWS_CA_BUNDLE", &good).await.unwrap(), 1, "that certificate alone");
    assert_eq!(store("SSL_CERT_FILE", &good).await.unwrap(), 1);
    assert_eq!(store("SSL_CERT_DIR", good.parent().unwrap()).await.unwrap(), 1);
    let e = store("AWS_CA_BUNDLE", &bad).await.unwrap_err();
    assert!(
        e.to_string().contains("(environment AWS_CA_BUNDLE) cannot be used: it has no certificate"),
        "{e}"
    );
    let e = store("AWS_CA_BUNDLE", Path::new("/nowhere")).await.unwrap_err();
    assert!(e.hint.contains("unset AWS_CA_BUNDLE"), "{}", e.hint);
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&good, std::fs::Permissions::from_mode(0o666)).unwrap();
    }
    let e = store("AWS_CA_BUNDLE", &good).await.unwrap_err();
    assert!(e.to_string().contains("can be written by everybody"), "{e}");
}

#[tokio::test]
async fn what_is_shown_has_the_origin_of_each_value_and_no_secret() {
    let host = Host::new("[default]\ncredential_process = /bin/p --key s3cret\nregion = x\n", "");
    let vars = [("HTTPS_PROXY", "http://me:s3cret@proxy:3128"), ("NO_PROXY", "example.org")];
    let shown = host.shown(&vars, Some("us-east-1")).await;
    assert_eq!(
        shown,
        [
            "endpoint: https://ec2.us-east-1.amazonaws.com # built-in default",
            "FIPS: no # built-in default",
            "dual-stack: no # built-in default",
            "CA certificates: the system's # built-in default",
            "proxy: http://me:***@proxy:3128 (environment NO_PROXY does not have the endpoint: example.org) \
             # environment HTTPS_PROXY",
            "IMDS: http://169.254.169.254 # built-in default",
            "profile: default # built-in default",
            "credentials: credential_process of profile default # ~/.aws/config [profile default]",
        ]
    );
    let line = |lines: Vec<String>, what: &str| lines.into_iter().find(|l| l.starts_with(what)).unwrap();
    let all = [("HTTPS_PROXY", "p"), ("NO_PROXY", ".amazonaws.com")];
    let proxy = line(host.shown(&all, Some("us-east-1")).await, "proxy");
    assert_eq!(proxy, "proxy: none, since `.amazonaws.com` has the endpoint # environment NO_PROXY");
    let proxy = line(host.shown(&all, None).await, "proxy");
    assert_eq!(
        proxy,
        "proxy: http://p unless environment NO_PROXY has the endpoint: .amazonaws.com # environment HTTPS_PROXY"
    );
    let off = [("AWS_EC2_METADATA_DISABLED", "true"), ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")];
    let host = Host::new("", "");
    let shown = host.shown(&off, None).await;
    assert_eq!(
        line(shown.clone(), "credentials"),
        "credentials: none # environment AWS_EC2_METADATA_DISABLED"
    );
    assert!(
        line(shown, "configured endpoints").ends_with("# environment AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
    );
    let json = host.find(&off).await.unwrap().show_json(None).await.unwrap();
    assert_eq!(json[1]["origin"], serde_json::json!({"kind": "environment", "name": off[1].0}));
}

#[tokio::test]
async fn the_settings_that_variables_and_profiles_set_too_are_shown_as_they_are_in_force() {
    let host = Host::new(
        "[default]\nec2_metadata_service_endpoint = http://imds\n",
        "[ec2]\nendpoint_url = \"http://file\"\n",
    );
    let mut loaded = host.loaded();
    host.find(&[("AWS_ENDPOINT_URL", "http://all")]).await.unwrap().overlay(&mut loaded);
    let shown = loaded.show().replace(host.dir.path().to_str().unwrap(), "~");
    let shown: Vec<_> = shown.lines().filter(|l| l.contains("  # ")).map(without_gap).collect();
    for line in [
        "imds_endpoint = \"http://imds\" # ~/.aws/config [profile default]",
        "endpoint_url = \"http://all\" # environment AWS_ENDPOINT_URL",
    ] {
        assert!(shown.iter().any(|l| l == line), "{shown:?}");
    }
}

/// A certificate that signs itself.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBdjCCARugAwIBAgIUJBJPoaYKDKAtMYrNzSRUaJswtQUwCgYIKoZIzj0EAwIw\n\
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjkyMTQ2MThaGA8yMTI2MTEwNTIxNDYx\n\
OFowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABDRF\n\
IdXbwkwX2Fu9zPAQQZydiIN50yHfbi1C8EwDbrqlPiNAWZbaMicRFxx5hwQpPVqj\n\
2q6owtWrrVucxZDzmEujUzBRMB0GA1UdDgQWBBQW94OgftYjWrDoYBqezuggLxUq\n\
WjAfBgNVHSMEGDAWgBQW94OgftYjWrDoYBqezuggLxUqWjAPBgNVHRMBAf8EBTAD\n\
AQH/MAoGCCqGSM49BAMCA0kAMEYCIQCd7sW7O+5duKZJowr97w2IN88bzrzFDH86\n\
hskAg1lFIAIhAMZCFvRjIP9847pkIGJN2wzN+v5DcDaX4KGQN7l1gbdM\n\
-----END CERTIFICATE-----\n";
