//! The certificate of EC2's endpoint: an authority of its own, made at every start.
//!
//! In: the Regions that answer. Out: the authority's certificate for clients to trust, and what the server
//! needs. The keys must never leave memory.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// The authority's file in DIR.
pub const FILE: &str = "ca.pem";

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot set up TLS")]
    Server(#[from] rustls::Error),
}

/// A server's identity.
pub struct Identity {
    /// The authority's certificate, as PEM.
    pub authority: String,
    /// What does the handshakes.
    pub acceptor: TlsAcceptor,
}

impl Identity {
    /// Makes an authority, and with it a certificate for this machine and for EC2's names in these Regions.
    pub fn make<'a>(regions: impl Iterator<Item = &'a str>) -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "ebs-sim authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let authority = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);

        let mut names = vec!["localhost".to_owned(), "127.0.0.1".into()];
        names.extend(regions.map(|region| format!("ec2.{region}.amazonaws.com")));
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "ebs-sim");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &issuer)?;

        // The provider is named, as another crate in the program may bring a second one.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { authority, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}
