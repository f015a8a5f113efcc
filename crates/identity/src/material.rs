//! A certificate with its key and the roots that others are held to.
//!
//! What is taken from a certificate is its SPIFFE identity, its addresses and its end. Whether it can be
//! believed is a matter of its chain, which [`verify`](crate::verify) checks at every handshake; here only
//! what belongs together is put together, and what cannot work is refused at the start.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::caller::Identity;
use crate::spiffe::SpiffeId;

/// What a process shows to others and what it asks of them.
#[derive(Debug)]
pub struct Material {
    /// The SPIFFE identity that the certificate names.
    pub id: SpiffeId,
    /// The addresses that the certificate names.
    pub addresses: Vec<IpAddr>,
    /// From when to when the certificate is good.
    pub validity: Validity,
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) roots: Arc<RootCertStore>,
    /// Knows the certificates of others under the same roots.
    pub(crate) clients: Arc<dyn ClientCertVerifier>,
}

/// From when to when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its beginning.
    pub from: SystemTime,
    /// Its end.
    pub until: SystemTime,
}

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// A file cannot be read.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        reason: String,
    },
    /// The certificate is of no use here.
    #[error("certificate: {0}")]
    Certificate(String),
    /// The key does not fit.
    #[error("key: {0}")]
    Key(String),
    /// There is nobody to trust.
    #[error("roots: {0}")]
    Roots(String),
}

impl Material {
    /// Puts a certificate, its key and the region's roots together.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        root_certificates: Vec<CertificateDer<'static>>,
    ) -> Result<Self, MaterialError> {
        let leaf = chain.first().ok_or_else(|| MaterialError::Certificate("there is none".to_owned()))?;
        let Named { id, addresses, validity } = Named::read(leaf).map_err(MaterialError::Certificate)?;
        let mut roots = RootCertStore::empty();
        for root in root_certificates {
            roots.add(root).map_err(|it| MaterialError::Roots(it.to_string()))?;
        }
        if roots.is_empty() {
            return Err(MaterialError::Roots("there are none".to_owned()));
        }
        let (provider, roots) = (Arc::new(ring::default_provider()), Arc::new(roots));
        let certified =
            CertifiedKey::from_der(chain, key, &provider).map_err(|it| MaterialError::Key(it.to_string()))?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider).build();
        let clients = clients.map_err(|it| MaterialError::Roots(it.to_string()))?;
        Ok(Self { id, addresses, validity, certified: Arc::new(certified), roots, clients })
    }

    /// Reads the three from PEM files. The roots are shown along with the chain, for newcomers that know one of
    /// them by its hash only.
    pub fn read(chain: &Path, key: &Path, roots: &Path) -> Result<Self, MaterialError> {
        let fail = |path: &Path, reason: &dyn std::fmt::Display| MaterialError::File {
            path: path.to_owned(),
            reason: reason.to_string(),
        };
        // What the reader says of a file that is no PEM repeats its lines, which are a key all the same.
        let pem = std::fs::read(key).map(Zeroizing::new).map_err(|it| fail(key, &it))?;
        let key_der =
            PrivateKeyDer::from_pem_slice(&pem).map_err(|_| fail(key, &"holds no private key in PEM"))?;
        let read = |path: &Path| read_certificates(path).map_err(|it| fail(path, &it));
        let (mut chain, roots) = (read(chain)?, read(roots)?);
        let missing: Vec<_> = roots.iter().filter(|it| !chain.contains(it)).cloned().collect();
        // A file without a certificate is to be told of, and a root is none.
        if !chain.is_empty() {
            chain.extend(missing);
        }
        Self::new(chain, key_der, roots)
    }
}

/// The certificates of a PEM file.
pub(crate) fn read_certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(io::Error::other)?;
    certificates.collect::<Result<_, _>>().map_err(io::Error::other)
}

/// What a certificate says of whom it is for.
pub(crate) struct Named {
    pub(crate) id: SpiffeId,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) validity: Validity,
}

impl Named {
    /// Reads a certificate, or says why it is for nobody. Whether it can be believed is another matter.
    pub(crate) fn read(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| "cannot be read".to_owned())?;
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.map_or(&[][..], |it| it.value.general_names.as_slice());
        let mut uris = names.iter().filter_map(|it| match it {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        // A SPIFFE certificate has exactly one URI (X509-SVID, section 2).
        let (Some(uri), None) = (uris.next(), uris.next()) else {
            return Err("has not exactly one URI among its names".to_owned());
        };
        let id = uri.parse::<SpiffeId>().map_err(|it| format!("its URI {uri:?} {it}"))?;
        let addresses = names.iter().filter_map(|it| match it {
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        });
        let addresses = addresses.map(|it| it.to_canonical()).collect();
        Ok(Self { id, addresses, validity: validity(&parsed) })
    }
}

/// From when to when a certificate is good.
pub(crate) fn validity(certificate: &X509Certificate<'_>) -> Validity {
    let time = |it: x509_parser::time::ASN1Time| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(it.timestamp()).unwrap_or_default())
    };
    let validity = certificate.validity();
    Validity { from: time(validity.not_before), until: time(validity.not_after) }
}

/// Who the other end is, by a certificate whose chain has been verified.
pub(crate) fn identify(certificate: &CertificateDer<'_>) -> Result<(SpiffeId, Identity), CertificateError> {
    let Named { id, addresses, validity } =
        Named::read(certificate).map_err(|_| CertificateError::ApplicationVerificationFailure)?;
    let identity = Identity { role: id.role, node: id.node.clone(), addresses, until: validity.until };
    Ok((id, identity))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_not_read_is_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for text in ["-----BEGIN PRIVATE KEY-----hunter2", "hunter2", "-----BEGIN hunter2"] {
            std::fs::write(&path, text).unwrap();
            let error = Material::read(&path, &path, &path).unwrap_err().to_string();
            let bytes = format!("{:?}", b"hunter2");
            assert!(!error.contains("hunter2") && !error.contains(bytes.trim_matches(['[', ']'])), "{error}");
        }
    }
}
