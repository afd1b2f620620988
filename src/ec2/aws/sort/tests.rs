//! The create call against sockets that fail in every way: was it sent?

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::config::{BehaviorVersion, Region};
use aws_sdk_ec2::operation::create_snapshot::CreateSnapshotError;
use aws_smithy_http_client::pool::{self, Builder, ConnectionPool};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};

use super::*;

/// What a made server does with a connection.
#[derive(Clone, Copy)]
enum Does {
    /// Closes it at once.
    Close,
    /// Neither reads nor answers.
    Nothing,
    /// Reads some, and closes it.
    ReadAndClose,
    /// Reads some, and answers this.
    Answer(&'static [u8]),
    AnswerAndClose(&'static [u8]),
}

/// Its address. The thread ends with the test's process.
fn server(does: Does) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            match does {
                Does::Close => continue,
                Does::Nothing => {}
                Does::ReadAndClose | Does::Answer(_) | Does::AnswerAndClose(_) => {
                    let _ = stream.read(&mut [0; 65536]);
                }
            }
            if let Does::Answer(text) | Does::AnswerAndClose(text) = does {
                let _ = stream.write_all(text);
            }
            if !matches!(does, Does::ReadAndClose | Does::AnswerAndClose(_)) {
                open.push(stream);
            }
        }
    });
    address
}

/// An address that nothing listens at.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn pool() -> Builder {
    ConnectionPool::builder()
}

fn https(builder: Builder) -> ConnectionPool {
    builder.tls_provider(tls::Provider::Rustls(CryptoMode::Ring)).build_https().unwrap()
}

/// What comes of a create call to this endpoint.
async fn create(url: &str, pool: ConnectionPool, connect_timeout: Duration) -> Ec2Error {
    let config = aws_sdk_ec2::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(url)
        .credentials_provider(Credentials::new("AKIDEXAMPLE", "made", None, None, "made"))
        .http_client(pool::Client::new(&pool).unwrap())
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(connect_timeout).build())
        .build();
    let call = aws_sdk_ec2::Client::from_conf(config).create_snapshot().volume_id("vol-0123456789abcdef0");
    sort("CreateSnapshot", &call.send().await.unwrap_err(), "aws")
}

const LONG: Duration = Duration::from_secs(120);

async fn over_http(does: Does) -> Ec2Error {
    create(&format!("http://{}", server(does)), pool().build_http().unwrap(), LONG).await
}

async fn over_tls(does: Does) -> Ec2Error {
    create(&format!("https://{}", server(does)), https(pool()), LONG).await
}

async fn through_proxy(address: String) -> Ec2Error {
    let proxy = ProxyConfig::all(format!("http://{address}")).unwrap();
    create("https://ec2.us-east-1.amazonaws.com", https(pool().proxy_config(proxy)), LONG).await
}

#[track_caller]
fn assert_unreached(case: &str, error: &Ec2Error, expected: Unreached) {
    match error {
        Ec2Error::Unreached { how, .. } => assert_eq!(*how, expected, "{case}: {error}"),
        other => panic!("{case}: nothing was sent, and it is called {other:?}"),
    }
    assert!(!error.outcome_unknown() && error.hint().is_some(), "{case}");
}

#[track_caller]
fn assert_unknown(case: &str, error: &Ec2Error) {
    assert!(error.outcome_unknown(), "{case}: EC2 may have read it, and it is called {error:?}");
    assert!(error.passes(), "{case}");
}

#[tokio::test]
async fn what_fails_before_the_request_is_sent_is_not_called_unknown() {
    use Unreached::{Closed, Proxy, ProxyPassword, Refused, TimedOut, Tls};
    for url in [format!("http://{}", nobody()), format!("https://{}", nobody())] {
        let pool = if url.starts_with("https") { https(pool()) } else { pool().build_http().unwrap() };
        assert_unreached(&url, &create(&url, pool, LONG).await, Refused);
    }
    assert_unreached("closed before TLS", &over_tls(Does::Close).await, Closed);
    assert_unreached("closed in TLS", &over_tls(Does::ReadAndClose).await, Closed);
    let plain = Does::Answer(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    assert_unreached("no TLS there", &over_tls(plain).await, Tls);
    let url = format!("https://{}", server(Does::Nothing));
    assert_unreached("TLS stalls", &create(&url, https(pool()), Duration::from_millis(300)).await, TimedOut);
    for (answer, expected) in [
        (&b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"[..], Proxy),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", Proxy),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", ProxyPassword),
        (b"what?\r\n\r\n", Proxy),
    ] {
        let said = String::from_utf8_lossy(answer).into_owned();
        assert_unreached(&said, &through_proxy(server(Does::Answer(answer))).await, expected);
    }
    let opened = Does::AnswerAndClose(b"HTTP/1.1 200 OK\r\n\r\n");
    assert_unreached("nothing behind the proxy", &through_proxy(server(opened)).await, Closed);
    assert_unreached("the proxy closes", &through_proxy(server(Does::ReadAndClose)).await, Proxy);
    assert_unreached("no proxy there", &through_proxy(nobody()).await, Refused);
}

/// Fails as a resolver does that has no answer.
#[derive(Debug, Clone)]
struct NoNames;

impl ResolveDns for NoNames {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::ready(Err::<Vec<IpAddr>, _>(ResolveDnsError::new(format!("{name} is not known"))))
    }
}

#[tokio::test]
async fn a_name_without_an_address_is_not_called_unknown() {
    let error = create("http://ec2.invalid", pool().dns_resolver(NoNames).build_http().unwrap(), LONG).await;
    assert_unreached("a name, without TLS", &error, Unreached::Name);
    let error = create("https://ec2.invalid", https(pool().dns_resolver(NoNames)), LONG).await;
    assert_unreached("a name", &error, Unreached::Name);
    let error = create("https://stillpoint.invalid", https(pool()), LONG).await;
    assert_unreached("the system's resolver", &error, Unreached::Name);
}

/// Errors of the kernel that a test cannot bring about everywhere.
#[test]
fn the_kernels_errors_are_told_apart() {
    let dispatch = |error: ConnectorError| {
        sort("CreateSnapshot", &SdkError::<CreateSnapshotError, HttpResponse>::dispatch_failure(error), "aws")
    };
    for (errno, expected) in [
        (nix::libc::ENETUNREACH, Unreached::NoRoute),
        (nix::libc::EHOSTUNREACH, Unreached::NoRoute),
        (nix::libc::ENETDOWN, Unreached::NoRoute),
        (nix::libc::EADDRNOTAVAIL, Unreached::NoRoute),
        (nix::libc::ECONNREFUSED, Unreached::Refused),
        (nix::libc::ECONNRESET, Unreached::Closed),
        (nix::libc::ETIMEDOUT, Unreached::TimedOut),
        (nix::libc::EACCES, Unreached::Other),
    ] {
        let io = || io::Error::from_raw_os_error(errno);
        assert_unreached(&io().to_string(), &dispatch(ConnectorError::io(io().into())), expected);
        // As TLS and others wrap it.
        let wrapped = io::Error::other(io());
        assert_unreached(&io().to_string(), &dispatch(ConnectorError::io(wrapped.into())), expected);
    }
    // A limit to reading, which may be over after the request was sent.
    let read = ConnectorError::timeout("HTTP read timeout occurred after 1s".into());
    assert!(dispatch(read).outcome_unknown());
}

#[tokio::test]
async fn what_may_have_been_read_is_called_unknown() {
    for (case, does) in [
        ("closed after the request", Does::ReadAndClose),
        ("no HTTP", Does::Answer(b"what?\r\n\r\n")),
        ("half of an answer", Does::AnswerAndClose(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n<Create")),
        // The client cannot take this answer over, and says so without its connection.
        (
            "a header that is no text",
            Does::Answer(b"HTTP/1.1 200 OK\r\nx: \xff\r\ncontent-length: 0\r\n\r\n"),
        ),
        ("no XML", Does::Answer(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")),
    ] {
        let error = over_http(does).await;
        assert_unknown(case, &error);
    }
}

fn answer(status: &str, header: &str, code: &str) -> &'static [u8] {
    let body = format!(
        "<?xml version=\"1.0\"?><Response><Errors><Error><Code>{code}</Code><Message>m</Message></Error></Errors>\
         <RequestID>r</RequestID></Response>"
    );
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\n{header}content-length: {length}\r\n\r\n{body}");
    Box::leak(text.into_bytes().into_boxed_slice())
}

/// For the create call a throttled answer is a refusal, whatever its status is; any other 5xx is not.
#[tokio::test]
async fn ec2s_answers_are_sorted_by_code_and_status() {
    let cases = [
        ("503 Service Unavailable", "", "RequestLimitExceeded", false, true),
        ("400 Bad Request", "", "Throttling", false, true),
        ("429 Too Many Requests", "", "TooManyRequestsException", false, true),
        ("503 Slow Down", "", "SlowDown", false, true),
        ("400 Bad Request", "", "InternalError", false, true),
        ("500 Internal Server Error", "", "InternalError", true, true),
        ("503 Service Unavailable", "", "Unavailable", true, true),
        ("504 Gateway Timeout", "", "", true, true),
        ("403 Forbidden", "", "UnauthorizedOperation", false, false),
        ("400 Bad Request", "", "InvalidParameterValue", false, false),
        ("401 Unauthorized", "", "AuthFailure", false, false),
    ];
    for (status, header, code, unknown, passes) in cases {
        let said = over_http(Does::Answer(answer(status, header, code))).await;
        assert_eq!((said.outcome_unknown(), said.passes()), (unknown, passes), "{status} {code}: {said:?}");
        assert_eq!(said.retry_after(), None, "{status} {code}");
    }
    for code in ["RequestLimitExceeded", "Unavailable"] {
        let said = over_http(Does::Answer(answer("503 S", "Retry-After: 7\r\n", code))).await;
        assert_eq!(said.retry_after(), Some(Duration::from_secs(7)), "{code}");
    }
    let said = over_http(Does::Answer(answer("503 S", "Retry-After: soon\r\n", "Unavailable"))).await;
    assert_eq!(said.retry_after(), None);
    // A page of somebody between here and EC2.
    let page = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno";
    let said = over_http(Does::Answer(page)).await;
    assert!(said.outcome_unknown() && !said.passes(), "{said:?}");
}
