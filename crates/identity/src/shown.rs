//! Certificates as people see them.

use std::io;
use std::path::Path;

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::material::{Material, Validity, read_certificates, validity};

/// What there is to see of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownCertificate {
    /// The URI or host that it names, else what it is called.
    pub subject: String,
    /// What the one is called that signed it.
    pub issuer: String,
    /// From when to when it is good.
    pub validity: Validity,
    /// Whether it has signed itself.
    pub is_root: bool,
}

impl ShownCertificate {
    /// The certificates of a PEM file, as far as they can be read.
    ///
    /// # Errors
    /// Where the file cannot be read, or is no PEM.
    pub fn in_file(path: &Path) -> io::Result<Vec<Self>> {
        Ok(read_certificates(path)?.iter().filter_map(Self::of).collect())
    }

    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let names = parsed.subject_alternative_name().ok().flatten();
        let named = names.and_then(|it| it.value.general_names.iter().find_map(name));
        Some(Self {
            subject: named.map_or_else(|| parsed.subject().to_string(), str::to_owned),
            issuer: parsed.issuer().to_string(),
            validity: validity(&parsed),
            is_root: parsed.subject() == parsed.issuer(),
        })
    }
}

impl Material {
    /// The certificate and those above it, in the order in which they are shown to others.
    pub fn shown(&self) -> Vec<ShownCertificate> {
        self.certified.cert.iter().filter_map(ShownCertificate::of).collect()
    }
}

fn name<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::URI(it) | GeneralName::DNSName(it) => Some(it),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    use crate::{Ca, Grant, Role, SpiffeId};
    use shoal_model::NodeId;

    #[test]
    fn a_chain_is_shown_with_names_and_times() {
        let ca = Ca::create("region.example".parse().unwrap()).unwrap().0;
        let id = SpiffeId::new(ca.domain().clone(), Role::Gateway, NodeId::new("gw").as_str()).unwrap();
        let lives = Duration::from_secs(3600);
        let grant = Grant { id: id.clone(), addresses: Vec::new(), hosts: Vec::new(), lives };
        let material = ca.own(SystemTime::now(), &grant).unwrap();
        let [own, root] = &material.shown()[..] else { panic!("{:?}", material.shown()) };
        assert_eq!((own.subject.as_str(), own.is_root), (id.to_string().as_str(), false));
        assert_eq!(own.validity, material.validity);
        assert!(root.is_root && root.issuer == own.issuer, "{root:?}");
    }

    #[test]
    fn what_is_no_certificate_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("certificate");
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert_eq!(ShownCertificate::in_file(&path).unwrap(), []);
        assert!(ShownCertificate::in_file(&dir.path().join("none")).is_err());
    }
}
