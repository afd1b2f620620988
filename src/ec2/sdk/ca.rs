//! The certificate authorities that HTTPS trusts.
//!
//! In: variables and the profile. Out: certificates that the TLS library takes. Must never: trust what
//! somebody else than root could change, or go on with fewer than a bundle for AWS names without saying so.

use std::path::{Path, PathBuf};

use aws_smithy_http_client::tls::TrustStore;
use aws_smithy_types::base64;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::environment::Environment;
use super::profile::Profile;
use super::{SdkError, value};
use crate::config::{Origin, Sourced};
use crate::host::trust::{self, Trusted};
use crate::path_encoding::shown;

/// More than any bundle needs, bytes.
const MAX_SIZE: u64 = 16 << 20;

/// Where distributions keep the authorities that they trust, as one file (the list of Go's crypto/x509,
/// root_linux.go).
const SYSTEM: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Which authorities are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Authorities {
    /// Those in this file alone: AWS_CA_BUNDLE, or the profile's `ca_bundle`.
    Bundle(PathBuf),
    /// Those in a file and in folders, as OpenSSL's variables name them. The aws CLI knows nothing of these:
    /// what cannot be used is passed over.
    OpenSsl { file: Option<PathBuf>, folders: Vec<PathBuf> },
    /// The system's.
    System,
}

impl Authorities {
    /// The first of: AWS_CA_BUNDLE, the profile's `ca_bundle`, SSL_CERT_FILE with SSL_CERT_DIR, the system's.
    pub fn find(env: &Environment, profile: &Profile) -> Sourced<Self> {
        if let Some(bundle) = value(env, profile, "AWS_CA_BUNDLE", "ca_bundle") {
            return Sourced { value: Self::Bundle(bundle.value.into()), origin: bundle.origin };
        }
        let file = env.os("SSL_CERT_FILE").map(PathBuf::from);
        let folders: Vec<PathBuf> = env.os("SSL_CERT_DIR").map_or_else(Vec::new, |dirs| {
            std::env::split_paths(dirs).filter(|d| !d.as_os_str().is_empty()).collect()
        });
        let origin = match (&file, folders.as_slice()) {
            (Some(_), _) => Origin::Environment("SSL_CERT_FILE"),
            (None, [_, ..]) => Origin::Environment("SSL_CERT_DIR"),
            (None, []) => return Sourced { value: Self::System, origin: Origin::Default },
        };
        Sourced { value: Self::OpenSsl { file, folders }, origin }
    }

    /// The certificates, for the HTTP client.
    ///
    /// # Errors
    /// When a bundle cannot be used, and when there is no certificate at all.
    pub fn trust_store(wanted: &Sourced<Self>) -> Result<TrustStore, SdkError> {
        let found = match &wanted.value {
            Self::Bundle(path) => bundle(path).map_err(|why| {
                let name = match &wanted.origin {
                    Origin::Environment(name) => *name,
                    _ => "ca_bundle",
                };
                SdkError::new(
                    format!("the CA bundle {} ({}) cannot be used: {why}", shown(path), wanted.origin),
                    format!("correct it, or unset {name} to trust the system's certificates"),
                )
            })?,
            Self::OpenSsl { file, folders } => {
                let found = open_ssl(file.as_deref(), folders);
                if found.is_empty() {
                    tracing::warn!(
                        "{} names no certificate that can be used: the system's are used instead",
                        wanted.origin
                    );
                    system_files()
                } else {
                    found
                }
            }
            Self::System => rustls_native_certs::load_native_certs().certs,
        };
        let found = usable(found);
        if found.is_empty() {
            return Err(SdkError::new(
                "no CA certificates: HTTPS cannot be checked".to_owned(),
                "install the package ca-certificates, or have AWS_CA_BUNDLE name a file with them".to_owned(),
            ));
        }
        Ok(found.iter().fold(TrustStore::empty(), |store, cert| store.with_pem_certificate(pem(cert))))
    }
}

fn bundle(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = text_of(path)?;
    let found = usable(certificates(&text));
    if found.is_empty() { Err("it has no certificate in PEM that can be used".to_owned()) } else { Ok(found) }
}

fn text_of(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let mut text = Vec::new();
    let file = trust::open(path, Trusted::own()).map_err(|e| e.to_string())?;
    file.take(MAX_SIZE).read_to_end(&mut text).map_err(|e| e.to_string())?;
    Ok(text)
}

/// The certificates of a file, which may have other blocks and prose between them.
fn certificates(text: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(text).filter_map(Result::ok).collect()
}

/// Those that the TLS library takes: it would panic over the others.
fn usable(certificates: Vec<CertificateDer<'static>>) -> Vec<CertificateDer<'static>> {
    certificates.into_iter().filter(|c| RootCertStore::empty().add(c.clone()).is_ok()).collect()
}

fn open_ssl(file: Option<&Path>, folders: &[PathBuf]) -> Vec<CertificateDer<'static>> {
    let mut paths: Vec<PathBuf> = file.into_iter().map(Path::to_path_buf).collect();
    for folder in folders {
        match std::fs::read_dir(folder) {
            Ok(entries) => paths.extend(entries.flatten().map(|e| e.path()).filter(|p| p.is_file())),
            Err(e) => tracing::warn!("cannot read SSL_CERT_DIR={}: {e}", shown(folder)),
        }
    }
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        match text_of(&path) {
            Ok(text) => found.extend(certificates(&text)),
            Err(why) => tracing::warn!("the CA certificates in {} are not used: {why}", shown(&path)),
        }
    }
    found.sort_by(|a: &CertificateDer<'_>, b| a.as_ref().cmp(b.as_ref()));
    found.dedup();
    usable(found)
}

fn system_files() -> Vec<CertificateDer<'static>> {
    let file = SYSTEM.iter().find_map(|path| text_of(Path::new(path)).ok());
    file.map_or_else(Vec::new, |text| certificates(&text))
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = base64::encode(certificate.as_ref());
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}
