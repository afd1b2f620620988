//! How AWS is reached: by a real proxy, over real TLS, by the SDK's variables and files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::http::Server;
use rig::program::{Ended, Run, put_executable};
use rig::{Fs, Rig, stillpoint};

/// A Region whose names no resolver knows.
const REGION: &str = "eu-nowhere-9";
const NAME: &str = "ec2.eu-nowhere-9.amazonaws.com";

fn host() -> Rig {
    let rig = Rig::with(&[("a", Fs::Ext4)], &format!("[instance]\nregion = '{REGION}'\n"));
    fs::create_dir(rig.path("home")).unwrap();
    rig
}

/// The program in the view, without what ebs-sim says about EC2, and with these variables.
fn command(rig: &Rig, vars: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = rig.exec(Path::new("/usr/bin/env"));
    let ours = rig.ready["env"].as_object().unwrap().keys().map(String::as_str);
    let others = [
        "AWS_ENDPOINT_URL_EC2",
        "AWS_ENDPOINT_URL",
        "AWS_CA_BUNDLE",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "NO_PROXY",
        "no_proxy",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_EC2_METADATA_DISABLED",
    ];
    for name in ours.filter(|n| !n.contains("METADATA")).chain(others) {
        command.arg("-u").arg(name);
    }
    command.arg(format!("HOME={}", rig.path("home").display()));
    command.args(vars.iter().map(|(name, value)| format!("{name}={value}")));
    rig.tail(
        {
            command.arg(stillpoint());
            command
        },
        arguments,
    )
}

fn run(rig: &Rig, vars: &[(&str, &str)], arguments: &[&str]) -> Ended {
    Run::start(command(rig, vars, arguments)).end()
}

fn plan(rig: &Rig, vars: &[(&str, &str)]) -> Ended {
    run(rig, vars, &["plan"])
}

/// Writes one of the SDK's files below HOME.
fn put(rig: &Rig, name: &str, text: &str) -> PathBuf {
    let path = rig.path("home").join(".aws").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn text<'a>(rig: &'a Rig, key: &str) -> &'a str {
    rig.ready[key].as_str().unwrap()
}

/// A proxy to the TLS port of ebs-sim.
fn proxy(rig: &Rig) -> Server {
    Server::proxy(text(rig, "tls_endpoint").trim_start_matches("https://"))
}

/// The simulator's key, as a program prints it.
fn key(rig: &Rig) -> String {
    let key = |name: &str| rig.ready["credentials"][name].as_str().unwrap();
    format!(
        r#"{{"Version":1,"AccessKeyId":"{}","SecretAccessKey":"{}"}}"#,
        key("access_key_id"),
        key("secret_access_key")
    )
}

#[test]
fn ec2_is_reached_by_a_name_that_only_the_proxy_knows() {
    let rig = host();
    let proxy = proxy(&rig);
    let with_password = format!("http://me:p%40ss@{}", proxy.address());
    let vars = [("HTTPS_PROXY", with_password.as_str()), ("AWS_CA_BUNDLE", text(&rig, "ca_bundle"))];
    plan(&rig, &vars).exits(0);
    let heads = proxy.heads();
    assert!(!heads.is_empty());
    for head in &heads {
        assert!(head.starts_with(&format!("CONNECT {NAME}:443 ")), "{head}");
        // me:p@ss
        assert!(head.to_lowercase().contains("proxy-authorization: basic bwu6cebzcw=="), "{head}");
    }
    // A whole run with its window, over connections through the proxy that are there before it.
    run(&rig, &vars, &["snapshot"]).exits(0);
    assert_eq!(rig.creates().len(), 1);
    let shown = run(&rig, &vars, &["config", "show", "--region", REGION]);
    shown.exits(0);
    assert!(shown.out.contains(&format!("# endpoint: https://{NAME}")), "{}", shown.out);
    assert!(shown.out.contains(&format!("# proxy: http://me:***@{}", proxy.address())), "{}", shown.out);
    assert!(!shown.out.contains("p%40ss") && !shown.out.contains("p@ss"), "{}", shown.out);
    // Past the proxy, nobody knows the name; nor does anybody know the proxy's own.
    let past = [vars[0], vars[1], ("NO_PROXY", ".amazonaws.com")];
    plan(&rig, &past).exits(23).says(&format!("cannot resolve {NAME}"));
    let unknown = plan(&rig, &[("https_proxy", "http://me:p%40ss@proxy.invalid:3128"), vars[1]]);
    unknown
        .exits(23)
        .says("the proxy http://me:***@proxy.invalid:3128 (environment https_proxy): cannot resolve");
    plan(&rig, &[("https_proxy", "socks5://127.0.0.1:1"), vars[1]]).exits(78).says("socks5");
}

#[test]
fn the_authority_is_named_by_each_variable_and_by_the_profile() {
    let rig = host();
    let proxy = proxy(&rig);
    let through = ("HTTPS_PROXY", &*proxy.url());
    let bundle = text(&rig, "ca_bundle");
    let folder = rig.path("certificates");
    fs::create_dir(&folder).unwrap();
    fs::copy(bundle, folder.join("any.pem")).unwrap();
    plan(&rig, &[through]).exits(23).says("TLS handshake failed");
    plan(&rig, &[through, ("AWS_CA_BUNDLE", bundle)]).exits(0);
    plan(&rig, &[through, ("SSL_CERT_FILE", bundle)]).exits(0);
    plan(&rig, &[through, ("SSL_CERT_DIR", folder.to_str().unwrap())]).exits(0);
    let missing = [through, ("AWS_CA_BUNDLE", "/nowhere.pem"), ("SSL_CERT_FILE", bundle)];
    plan(&rig, &missing)
        .exits(78)
        .says("the CA bundle /nowhere.pem (environment AWS_CA_BUNDLE) cannot be used");
    put(&rig, "config", &format!("[default]\nca_bundle = {bundle}\n"));
    plan(&rig, &[through, ("SSL_CERT_FILE", "/nowhere.pem")]).exits(0);
    put(&rig, "config", "[default]\nca_bundle = /nowhere.pem\n");
    plan(&rig, &[through, ("AWS_CA_BUNDLE", bundle)]).exits(0);
    // Without TLS nobody looks for certificates.
    let plain = [("AWS_ENDPOINT_URL", text(&rig, "endpoint")), ("AWS_CA_BUNDLE", "/nowhere.pem")];
    plan(&rig, &plain).exits(0);
}

#[test]
fn metadata_never_goes_through_a_proxy() {
    let rig = host();
    let proxy = Server::proxy(text(&rig, "endpoint").trim_start_matches("http://"));
    let url = proxy.url();
    // EC2 goes there, by the variable for http, which is what tells that it is in force.
    let through = [("HTTP_PROXY", &*url), ("HTTPS_PROXY", &*url)];
    let ec2 = ("AWS_ENDPOINT_URL_EC2", "http://ec2.nowhere.invalid");
    plan(&rig, &[through[0], through[1], ec2]).exits(0);
    let seen = proxy.lines();
    assert!(!seen.is_empty(), "EC2 was reached by the proxy");
    assert!(seen.iter().all(|l| l.starts_with("POST http://ec2.nowhere.invalid/ ")), "{seen:?}");
    // Whatever answers there, or nothing: it is not the proxy that is asked.
    let known = ["--instance-id", text(&rig, "instance_id"), "--region", REGION];
    for imds in ["http://169.254.169.254", "http://[fd00:ec2::254]"] {
        let arguments = ["plan", "--imds-endpoint", imds, known[0], known[1], known[2], known[3]];
        run(&rig, &[through[0], through[1], ec2], &arguments);
        run(&rig, &[through[0], through[1], ec2], &arguments[..3]);
    }
    for container in [
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/x"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://[fd00:ec2::23]/x"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://localhost:9/x"),
    ] {
        let arguments = ["plan", known[0], known[1], known[2], known[3]];
        run(&rig, &[through[0], through[1], ec2, container], &arguments).exits(77);
    }
    let metadata = |l: &String| !l.starts_with("POST http://ec2.nowhere.invalid/ ");
    assert_eq!(proxy.lines().into_iter().find(metadata), None);
}

#[test]
fn the_endpoint_is_found_where_the_aws_cli_finds_it() {
    let rig = host();
    let good = text(&rig, "endpoint");
    let dead = "http://127.0.0.1:9";
    put(
        &rig,
        "config",
        &format!(
            "[default]\nservices = s\nendpoint_url = {dead}\n[services s]\nec2 =\n  endpoint_url = {good}\n"
        ),
    );
    plan(&rig, &[]).exits(0);
    let shown = run(&rig, &[], &["config", "show"]);
    assert!(shown.out.contains(&format!("endpoint_url = \"{good}\"")), "{}", shown.out);
    assert!(shown.out.contains(".aws/config [services s]"), "{}", shown.out);
    plan(&rig, &[("AWS_ENDPOINT_URL_EC2", dead), ("AWS_ENDPOINT_URL", good)]).exits(23);
    plan(&rig, &[("AWS_ENDPOINT_URL", dead)]).exits(23);
    // Then it is the Region's own, which nobody knows.
    let ignored = [("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"), ("AWS_ENDPOINT_URL", dead)];
    plan(&rig, &ignored).exits(23).says(&format!("cannot resolve {NAME}"));
    put(&rig, "config", &format!("[profile p]\nendpoint_url = {good}\n"));
    plan(&rig, &[("AWS_PROFILE", "p")]).exits(0);
    let fips = [("AWS_PROFILE", "p"), ("AWS_USE_FIPS_ENDPOINT", "true")];
    plan(&rig, &fips).exits(0).says("FIPS (environment AWS_USE_FIPS_ENDPOINT) does not count for EC2");
    plan(&rig, &[("AWS_PROFILE", "q")]).exits(78).says("the AWS profile `q`").says("profiles: p");
}

#[test]
fn credentials_come_from_the_profile_by_whatever_it_names() {
    let rig = host();
    let ec2 = ("AWS_ENDPOINT_URL_EC2", text(&rig, "endpoint"));
    // Without this, the instance's own role would do for all of them.
    let alone = [ec2, ("AWS_EC2_METADATA_DISABLED", "true")];
    plan(&rig, &alone).exits(77).says("AWS_EC2_METADATA_DISABLED");
    let program = rig.path("print credentials");
    put_executable(
        &program,
        format!("#!/bin/sh\ntest \"$1\" = 'of host' || exit 3\necho s3cret >&2\necho '{}'\n", key(&rig)),
    );
    let with = |argument: &str| format!("credential_process = '{}' {argument}\n", program.display());
    put(&rig, "config", &format!("[default]\n{}", with("'of host'")));
    let good = run(&rig, &alone, &["plan", "--verbose"]);
    good.exits(0);
    assert!(!good.err.contains("s3cret"), "{}", good.err);
    put(&rig, "config", &format!("[default]\n{}", with("s3cret")));
    let bad = plan(&rig, &alone);
    bad.exits(77).says("exit status: 3");
    assert!(!bad.err.contains("s3cret"), "{}", bad.err);
    // A profile of a kind that is not known is not the end.
    put(&rig, "config", "[default]\nsso_session = s\n[sso-session s]\nsso_region = x\nsso_start_url = y\n");
    plan(&rig, &[ec2]).exits(0).says("profile default is passed over");
    plan(&rig, &alone).exits(77).says("profile default is passed over");
}

/// STS, which gives the key of the simulator for every role.
fn sts(rig: &Rig, action: &str) -> Server {
    let key = |name: &str| rig.ready["credentials"][name].as_str().unwrap();
    let answer = format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
         <AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey><SessionToken></SessionToken>\
         <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></{action}Result></{action}Response>",
        key("access_key_id"),
        key("secret_access_key")
    );
    Server::answering("200 OK", &answer)
}

#[test]
fn a_role_is_assumed_by_sts_with_the_proxy_of_sts() {
    let rig = host();
    let sts = sts(&rig, "AssumeRole");
    let alone = [
        ("AWS_ENDPOINT_URL_EC2", text(&rig, "endpoint")),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_PROFILE", "p"),
    ];
    let with = |more: &[(&str, &str)]| plan(&rig, &[&alone[..], more].concat());
    put(&rig, "config", "[profile p]\nrole_arn = arn:aws:iam::123456789012:role/r\nsource_profile = b\n");
    put(&rig, "credentials", "[b]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = other\n");
    with(&[("AWS_ENDPOINT_URL_STS", &sts.url())]).exits(0);
    let heads = sts.heads();
    assert!(heads[0].contains("Credential=AKIAOTHER/"), "{heads:?}");
    assert!(heads[0].contains(&format!("/{REGION}/sts/")), "{heads:?}");
    let proxy = Server::proxy(sts.address());
    let far = ("AWS_ENDPOINT_URL_STS", "http://sts.nowhere.invalid");
    with(&[far, ("HTTP_PROXY", &proxy.url())]).exits(0);
    assert_eq!(proxy.lines(), ["POST http://sts.nowhere.invalid/ HTTP/1.1"]);
    with(&[far, ("HTTP_PROXY", &proxy.url()), ("NO_PROXY", "nowhere.invalid")]).exits(77);
    assert_eq!(proxy.lines().len(), 1);
}

#[test]
fn a_token_of_web_identity_is_exchanged() {
    let rig = host();
    let sts = sts(&rig, "AssumeRoleWithWebIdentity");
    let token = put(&rig, "token", "a-token");
    let vars = [
        ("AWS_ENDPOINT_URL_EC2", text(&rig, "endpoint")),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_ENDPOINT_URL_STS", &*sts.url()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r"),
    ];
    plan(&rig, &vars).exits(0);
    assert_eq!(sts.lines().len(), 1);
    plan(&rig, &vars[..4]).exits(78).says("AWS_ROLE_ARN is not");
}

#[test]
fn an_agent_of_containers_is_asked_with_its_token() {
    let rig = host();
    let key = |name: &str| rig.ready["credentials"][name].as_str().unwrap();
    let agent = Server::answering(
        "200 OK",
        &format!(
            r#"{{"AccessKeyId":"{}","SecretAccessKey":"{}","Token":"","Expiration":"2099-01-01T00:00:00Z"}}"#,
            key("access_key_id"),
            key("secret_access_key")
        ),
    );
    let token = put(&rig, "token", "a token");
    let vars = [
        ("AWS_ENDPOINT_URL_EC2", text(&rig, "endpoint")),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*format!("{}/creds", agent.url())),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.to_str().unwrap()),
        ("HTTP_PROXY", "http://proxy.invalid"),
    ];
    plan(&rig, &vars).exits(0);
    let head = &agent.heads()[0];
    assert!(
        head.starts_with("GET /creds ") && head.to_lowercase().contains("authorization: a token"),
        "{head}"
    );
}
