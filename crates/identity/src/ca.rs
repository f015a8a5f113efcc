//! The region's certificate authority.
//!
//! It signs what it is told to and nothing that a request asks for: of a signing request only the key
//! counts, and that its owner has it. A node that proved no name is called after its key, so that nobody
//! can choose to be called like somebody else.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, UnixTime};
use sha2::{Digest as _, Sha256};
use shoal_ops::private_file;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::material::{Material, MaterialError, read_certificates};
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::verify::anchored;

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
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// A certificate that somebody else issued does not go with the authority.
    #[error("certificate {id}: {reason}")]
    Foreign {
        /// Whose it is.
        id: Box<SpiffeId>,
        /// What is wrong with it.
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
        params.serial_number = Some(serial());
        (params.not_before, params.not_after) = validity(SystemTime::now(), ROOT_LIVES);
        let certificate = params.self_signed(&key)?;
        let kept = KeptCa { certificate: certificate.pem(), key: Zeroizing::new(key.serialize_pem()) };
        let root = certificate.der().clone();
        Ok((Self { domain, root, issuer: Issuer::new(params, key) }, kept))
    }

    /// Reads an authority from PEM files.
    ///
    /// # Errors
    /// Where a file cannot be used, or the key is not that of the certificate.
    pub fn read(domain: TrustDomain, certificate: &Path, key: &Path) -> Result<Self, CaError> {
        let root = read_certificates(certificate).map_err(|it| fail(certificate, it.to_string()))?;
        let root = root.into_iter().next().ok_or_else(|| fail(certificate, "holds no certificate".into()))?;
        let pem = fs::read_to_string(key).map(Zeroizing::new).map_err(|it| fail(key, it.to_string()))?;
        let pair =
            KeyPair::from_pem(&pem).map_err(|_| fail(key, "holds no usable private key in PEM".into()))?;
        let own_key = public_key(&root).map_err(|it| fail(certificate, it))?;
        if own_key != pair.der_bytes() {
            return Err(fail(key, format!("is not the key of the certificate {}", certificate.display())));
        }
        let issuer = Issuer::from_ca_cert_der(&root, pair).map_err(|it| fail(certificate, it.to_string()))?;
        Ok(Self { domain, root, issuer })
    }

    /// Reads the authority that is kept in a directory, or makes it there.
    ///
    /// # Errors
    /// Where its files cannot be used. So it is where one of them is missing: another authority in its place
    /// would shut all nodes out.
    pub fn read_or_create(domain: TrustDomain, dir: &Path) -> Result<Self, CaError> {
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        let is_there = |path: &Path| path.try_exists().map_err(|it| fail(path, it.to_string()));
        let lost = |path: &Path, other: &Path| {
            let other = other.display();
            let advice =
                "put it back, or remove that one as well for a new authority, which all nodes must join";
            Err(fail(path, format!("is missing, but {other} is there: {advice}")))
        };
        match (is_there(&certificate)?, is_there(&key)?) {
            (true, true) => Self::read(domain, &certificate, &key),
            (true, false) => lost(&key, &certificate),
            (false, true) => lost(&certificate, &key),
            (false, false) => {
                let (ca, kept) = Self::create(domain)?;
                kept.write(dir, &certificate, &key).map_err(|it| fail(dir, it.to_string()))?;
                Ok(ca)
            }
        }
    }

    /// Its trust domain.
    pub const fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The region's root.
    pub const fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// Whether a certificate of the gateway's that came from outside goes with this authority: nodes that know
    /// the region by its root must believe it, and its roots must let in those who get theirs from the authority.
    ///
    /// # Errors
    /// [`CaError::Foreign`], which says what does not fit.
    pub fn check_own(&self, now: SystemTime, own: &Material) -> Result<(), CaError> {
        let foreign = |reason| CaError::Foreign { id: Box::new(own.id.clone()), reason };
        if own.id.domain != self.domain {
            return Err(foreign(format!("is not of the trust domain {}", self.domain)));
        }
        let mut root = RootCertStore::empty();
        let added = root.add(self.root.clone());
        added.map_err(|it| foreign(format!("the authority's root cannot be trusted: {it}")))?;
        if !root.roots.iter().all(|it| own.roots.roots.contains(it)) {
            return Err(foreign("the roots that come with it lack the authority's".to_owned()));
        }
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (now, provider) = (UnixTime::since_unix_epoch(since_epoch), ring::default_provider());
        let chain = own.certified.cert.split_first();
        let (leaf, above) = chain.ok_or_else(|| foreign("there is none".to_owned()))?;
        anchored(&provider, &root, leaf, above, now)
            .map_err(|it| foreign(format!("does not lead to the authority's root: {it}")))
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

impl KeptCa {
    fn write(&self, dir: &Path, certificate: &Path, key: &Path) -> io::Result<()> {
        private_file::create_dir(dir)?;
        private_file::replace(key, self.key.as_bytes())?;
        private_file::replace(certificate, self.certificate.as_bytes())
    }
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
    let mut name = hex::encode(Sha256::digest(key.subject_public_key_info()));
    name.truncate(32);
    format!("n-{name}")
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
    params.serial_number = Some(serial());
    (params.not_before, params.not_after) = validity(now, grant.lives);
    Ok(params)
}

/// No two certificates have the same, whatever their keys.
fn serial() -> SerialNumber {
    SerialNumber::from_slice(&rand::random::<[u8; 16]>())
}

/// The public key in a certificate, as its bits.
fn public_key(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| "cannot be read".to_owned())?;
    Ok(parsed.public_key().subject_public_key.data.to_vec())
}

fn fail(path: &Path, reason: String) -> CaError {
    CaError::Files { path: path.to_owned(), reason }
}

fn validity(now: SystemTime, lives: Duration) -> (time::OffsetDateTime, time::OffsetDateTime) {
    ((now - SKEW).into(), (now + lives).into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::Role;

    const LIVES: Duration = Duration::from_secs(3600);

    fn domain() -> TrustDomain {
        "shoal.local".parse().unwrap()
    }

    fn grant(domain: &str) -> Grant {
        let id = SpiffeId::new(domain.parse().unwrap(), Role::Gateway, "gateway-1").unwrap();
        Grant { id, addresses: Vec::new(), hosts: Vec::new(), lives: LIVES }
    }

    #[test]
    fn an_authority_is_made_once_and_for_this_user_only() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("ca");
        let made = Ca::read_or_create(domain(), &dir).unwrap();
        let read = Ca::read_or_create(domain(), &dir).unwrap();
        assert_eq!(made.root(), read.root());
        for path in ["", "ca.pem", "ca.key"].map(|it| dir.join(it)) {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
    }

    #[test]
    fn an_authority_that_has_lost_a_file_is_told_of_and_not_made_anew() {
        for (lost, left) in [("ca.key", "ca.pem"), ("ca.pem", "ca.key")] {
            let dir = tempfile::tempdir().unwrap();
            Ca::read_or_create(domain(), dir.path()).unwrap();
            let kept = fs::read(dir.path().join(left)).unwrap();
            fs::remove_file(dir.path().join(lost)).unwrap();
            let error = Ca::read_or_create(domain(), dir.path()).err().unwrap().to_string();
            assert!(error.contains(&format!("{lost}: is missing")) && error.contains(left), "{error}");
            assert_eq!(fs::read(dir.path().join(left)).unwrap(), kept);
            assert!(!dir.path().join(lost).exists());
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for dir in &dirs {
            Ca::read_or_create(domain(), dir.path()).unwrap();
        }
        let (certificate, key) = (dirs[0].path().join("ca.pem"), dirs[1].path().join("ca.key"));
        let error = Ca::read(domain(), &certificate, &key).err().unwrap().to_string();
        assert!(error.contains("ca.key: is not the key of the certificate"), "{error}");
    }

    #[test]
    fn each_certificate_has_a_serial_number_of_its_own() {
        let ca = Ca::create(domain()).unwrap().0;
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        let request = Request::parse(request.der()).unwrap();
        let serial = || {
            let der = ca.sign(SystemTime::now(), &request, &grant("shoal.local")).unwrap();
            X509Certificate::from_der(&der).unwrap().1.raw_serial().to_vec()
        };
        let (one, other) = (serial(), serial());
        assert_ne!(one, other);
        // At most one byte more, for the sign; a leading zero may be left out.
        assert!((12..=17).contains(&one.len()), "{one:?}");
    }

    /// Looks at a certificate that `issuer` made, with these roots, as one next to `ca`.
    #[track_caller]
    fn check_own(ca: &Ca, issuer: &Ca, domain: &str, roots: &[&Ca], expected: Result<(), &str>) {
        let key = KeyPair::generate().unwrap();
        let leaf =
            params(SystemTime::now(), &grant(domain)).unwrap().signed_by(&key, &issuer.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let roots = roots.iter().map(|it| it.root.clone()).collect();
        let own = Material::new(vec![leaf.der().clone()], key, roots).unwrap();
        match (ca.check_own(SystemTime::now(), &own), expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, _) => panic!("got {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_certificate_from_outside_must_go_with_the_authority() {
        let [ca, other] = [(); 2].map(|()| Ca::create(domain()).unwrap().0);
        check_own(&ca, &ca, "shoal.local", &[&ca], Ok(()));
        check_own(&ca, &ca, "shoal.local", &[&other, &ca], Ok(()));
        check_own(&ca, &ca, "other.example", &[&ca], Err("is not of the trust domain shoal.local"));
        check_own(&ca, &other, "shoal.local", &[&other], Err("lack the authority's"));
        check_own(&ca, &other, "shoal.local", &[&ca, &other], Err("does not lead to the authority's root"));
    }
}
