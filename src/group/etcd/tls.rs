//! Whose certificate is trusted, this host's own certificate, and the password.
//!
//! In: the files that the settings name. Out: what TLS needs, in memory: no file is read once anything is frozen. Must
//! never: read what somebody else than root could change, or a secret that others may read.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::NoClient;
use crate::config::settings::GroupSettings;
use crate::host::trust::{self, Trusted};
use crate::path_encoding::shown;

/// More than any of these files needs, bytes.
const MAX_SIZE: u64 = 4 << 20;

/// What connects by TLS; none where no endpoint is `https`.
pub(super) fn config(settings: &GroupSettings) -> Result<Option<TlsConnector>, NoClient> {
    if settings.endpoints.iter().all(|e| e.starts_with("http://")) {
        return Ok(None);
    }
    let roots = match &settings.ca {
        Some(file) => certificates("ca", file)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(roots);
    if added == 0 {
        return Err(NoClient::new(
            "[group] there is no CA certificate that can be used".to_owned(),
            "name etcd's in `ca`, or install the package ca-certificates",
        ));
    }
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions();
    let wrong = |e: rustls::Error| {
        NoClient::new(format!("[group] cannot set up TLS: {e}"), "`cert` and `key` have to belong together")
    };
    let builder = versions.map_err(wrong)?.with_root_certificates(store);
    let config = match (&settings.cert, &settings.key) {
        (Some(cert), Some(key)) => {
            let own = certificates("cert", cert)?;
            let text = read("key", key, Who::RootAlone)?;
            let key = PrivateKeyDer::from_pem_slice(&text).map_err(|e| {
                let what = format!("[group] `key` {}: no private key in PEM: {e}", shown(key));
                NoClient::new(what, "name the file with the key of `cert`")
            })?;
            builder.with_client_auth_cert(own, key).map_err(wrong)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Some(TlsConnector::from(Arc::new(config))))
}

/// The password: the first line of the file.
pub(super) fn password(file: &Path) -> Result<String, NoClient> {
    let text = read("password_file", file, Who::RootAlone)?;
    let text = String::from_utf8(text).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let usable = !line.is_empty() && line.chars().all(|c| !c.is_control());
    let line = usable.then(|| line.to_owned());
    line.ok_or_else(|| {
        let what = format!("[group] `password_file` {} has no password in its first line", shown(file));
        NoClient::new(what, "write the password there, and nothing else")
    })
}

fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, NoClient> {
    let text = read(key, file, Who::Anybody)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok).collect();
    if found.is_empty() {
        let what = format!("[group] `{key}` {} has no certificate in PEM", shown(file));
        return Err(NoClient::new(what, "name a file with certificates"));
    }
    Ok(found)
}

#[derive(PartialEq, Eq)]
enum Who {
    Anybody,
    RootAlone,
}

fn read(key: &str, path: &Path, may_read: Who) -> Result<Vec<u8>, NoClient> {
    let failed = |why: String, hint: &str| {
        NoClient::new(format!("[group] `{key}` {} cannot be used: {why}", shown(path)), hint)
    };
    let name = "it has to be a file that nobody but root can change";
    let file: File = trust::open(path, Trusted::own()).map_err(|e| failed(e.to_string(), name))?;
    let mode = file.metadata().map_err(|e| failed(e.to_string(), name))?.mode();
    if may_read == Who::RootAlone && mode & 0o077 != 0 {
        return Err(failed(format!("others may read it (mode {:o})", mode & 0o777), "chmod 600"));
    }
    let mut text = Vec::new();
    file.take(MAX_SIZE).read_to_end(&mut text).map_err(|e| failed(e.to_string(), name))?;
    Ok(text)
}
