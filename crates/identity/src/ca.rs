//! The region's certificate authority.
//!
//! It signs what it is told to and nothing that a request asks for: of a signing request only the key
//! counts, and that its owner has it. A node that proved no name is called after its key, so that nobody
//! can choose to be called like somebody else.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use shoal_ops::private_file;
use zeroize::Zeroizing;

use crate::material::{Material, MaterialError, read_certificates};
use crate::spiffe::{SpiffeId, TrustDomain};

/// How long the region's root lives.
const ROOT_LIVES: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks may differ by so much: certificates begin that long before they are made.
pub(crate) const SKEW: Duration = Duration::from_secs(5 * 60);

/// Signs certificates of one trust domain.
pub struct Ca {
    domain: TrustDomain,
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is to say.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Whom it is for.
    pub id: SpiffeId,
    /// The addresses that were proven.
    pub addresses: Vec<IpAddr>,
    /// Host names, for a gateway that runtimes may address by them.
    pub hosts: Vec<String>,
    /// How long it is good.
    pub lives: Duration,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The authority's own files cannot be used.
    #[error("certificate authority {}: {reason}", path.display())]
    Files {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        reason: String,
    },
    /// The signing request is of no use.
    #[error("signing request: {0}")]
    Request(String),
    /// The certificate cannot be made.
    #[error("certificate: {0}")]
    Sign(#[from] rcgen::Error),
    /// What was made cannot be used here.
    #[error(transparent)]
    Material(#[from] MaterialError),
}

impl Ca {
    /// A new authority, for files that keep it or for a test.
    pub fn create(domain: TrustDomain) -> Result<(Self, KeptCa), CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, format!("Shoal region {domain}"));
        (params.not_before, params.not_after) = validity(SystemTime::now(), ROOT_LIVES);
        let certificate = params.self_signed(&key)?;
        let kept = KeptCa { certificate: certificate.pem(), key: Zeroizing::new(key.serialize_pem()) };
        let root = certificate.der().clone();
        Ok((Self { domain, root, issuer: Issuer::new(params, key) }, kept))
    }

    /// Reads an authority from PEM files.
    pub fn read(domain: TrustDomain, certificate: &Path, key: &Path) -> Result<Self, CaError> {
        let fail = |path: &Path, reason: String| CaError::Files { path: path.to_owned(), reason };
        let root = read_certificates(certificate).map_err(|it| fail(certificate, it.to_string()))?;
        let root = root.into_iter().next().ok_or_else(|| fail(certificate, "holds no certificate".into()))?;
        let pem = fs::read_to_string(key).map(Zeroizing::new).map_err(|it| fail(key, it.to_string()))?;
        let pair = KeyPair::from_pem(&pem).map_err(|it| fail(key, it.to_string()))?;
        let issuer = Issuer::from_ca_cert_der(&root, pair).map_err(|it| fail(certificate, it.to_string()))?;
        Ok(Self { domain, root, issuer })
    }

    /// Reads the authority that is kept in a directory, or makes it there.
    pub fn read_or_create(domain: TrustDomain, dir: &Path) -> Result<Self, CaError> {
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        if certificate.exists() && key.exists() {
            return Self::read(domain, &certificate, &key);
        }
        let (ca, kept) = Self::create(domain)?;
        let fail = |it: io::Error| CaError::Files { path: dir.to_owned(), reason: it.to_string() };
        fs::create_dir_all(dir).map_err(fail)?;
        // The certificate comes last: with it the authority is there.
        private_file::replace(&key, kept.key.as_bytes()).map_err(fail)?;
        fs::write(&certificate, &kept.certificate).map_err(fail)?;
        Ok(ca)
    }

    /// Its trust domain.
    pub const fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The region's root.
    pub const fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// Signs the key of a request for what is granted.
    pub fn sign(
        &self,
        now: SystemTime,
        request: &Request,
        grant: &Grant,
    ) -> Result<CertificateDer<'static>, CaError> {
        let params = params(now, grant)?;
        Ok(params.signed_by(&request.0.public_key, &self.issuer)?.der().clone())
    }

    /// A certificate with a key of its own, for the process that has the authority.
    pub fn own(&self, now: SystemTime, grant: &Grant) -> Result<Material, CaError> {
        let key = KeyPair::generate()?;
        let certificate = params(now, grant)?.signed_by(&key, &self.issuer)?;
        let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        // The root goes along, for newcomers that know its hash only.
        let chain = vec![certificate.der().clone(), self.root.clone()];
        Ok(Material::new(chain, der, vec![self.root.clone()])?)
    }
}

/// An authority in PEM.
pub struct KeptCa {
    /// The root's certificate.
    pub certificate: String,
    /// Its key.
    pub key: Zeroizing<String>,
}

/// A signing request whose sender has the key.
pub struct Request(CertificateSigningRequestParams);

impl Request {
    /// Reads PKCS #10 in DER and checks its signature.
    pub fn parse(der: &[u8]) -> Result<Self, CaError> {
        let der = CertificateSigningRequestDer::from(der);
        let parsed = CertificateSigningRequestParams::from_der(&der);
        parsed.map(Self).map_err(|it| CaError::Request(it.to_string()))
    }

    /// What a node is called that has proven nothing but to have this key.
    pub fn assigned_name(&self) -> String {
        assigned_name(&self.0.public_key)
    }
}

/// What a node is called after its key.
pub(crate) fn assigned_name(key: &impl PublicKeyData) -> String {
    let hash = Sha256::digest(key.subject_public_key_info());
    format!("n-{}", hex::encode(&hash[..16]))
}

fn params(now: SystemTime, grant: &Grant) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, grant.id.node.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(grant.id.to_string())?)];
    params.subject_alt_names.extend(grant.addresses.iter().map(|it| SanType::IpAddress(*it)));
    for host in &grant.hosts {
        params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(host.as_str())?));
    }
    (params.not_before, params.not_after) = validity(now, grant.lives);
    Ok(params)
}

fn validity(now: SystemTime, lives: Duration) -> (time::OffsetDateTime, time::OffsetDateTime) {
    ((now - SKEW).into(), (now + lives).into())
}
