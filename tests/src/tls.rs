//! A certificate authority of the lab's own, and what programs need of it: PEM files and server settings.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

/// The authority. Its certificate is in a file that runtimes can be told to believe.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    /// Makes an authority and writes its certificate to `file`.
    pub fn create(file: PathBuf) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "lab authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        std::fs::write(&file, issuer.pem())?;
        Ok(Self { issuer, file })
    }

    /// The PEM file of the authority's certificate.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Certificate and key of a server that answers to `names` and `address`.
    fn certify(&self, names: &[String], address: IpAddr) -> Result<(Certificate, KeyPair)> {
        let names = names.iter().cloned().chain([address.to_string()]);
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names.collect::<Vec<_>>())?.signed_by(&key, &self.issuer)?;
        Ok((certificate, key))
    }

    /// The same as PEM files in a directory, `tls.crt` and `tls.key`.
    pub fn certify_in(&self, dir: &Path, names: &[String], address: IpAddr) -> Result<[PathBuf; 2]> {
        let (certificate, key) = self.certify(names, address)?;
        let files = ["tls.crt", "tls.key"].map(|it| dir.join(it));
        std::fs::write(&files[0], certificate.pem())?;
        std::fs::write(&files[1], key.serialize_pem())?;
        Ok(files)
    }

    /// Settings of a server that answers to `names` and `address`.
    pub fn server(&self, names: &[String], address: IpAddr) -> Result<Arc<ServerConfig>> {
        let (certificate, key) = self.certify(names, address)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        Ok(Arc::new(config))
    }
}
