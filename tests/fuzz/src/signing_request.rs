//! Signing requests: of one that is taken the certificate has the key and nothing else.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use arbitrary::{Result, Unstructured};
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use rcgen::{CertificateParams, DnType, KeyPair, KeyUsagePurpose, SanType};
use sha2::{Digest as _, Sha256};
use shoal_identity::{Ca, Grant, Request, Role, SpiffeId};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::input::{choices, word};
use crate::jwt::KEY;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));

static CA: LazyLock<Ca> = LazyLock::new(|| {
    let domain = "shoal.local".parse().expect("a trust domain");
    Ca::create(domain).expect("an authority needs nothing but randomness").0
});
static ASKER: LazyLock<KeyPair> = LazyLock::new(|| {
    let der = KEY.to_pkcs8_der().expect("any 32 bytes are an Ed25519 secret");
    KeyPair::try_from(der.as_bytes()).expect("a private key")
});

/// Takes a request in DER, or choices for one.
pub fn check(data: &[u8]) {
    match choices(data) {
        None => requested(data),
        Some(mut u) => {
            if let Ok(request) = request(&mut u) {
                requested(&request);
            }
        }
    }
}

fn requested(der: &[u8]) {
    let request = match Request::parse(der) {
        Ok(request) => request,
        Err(error) => return assert!(error.to_string().len() < 1024, "{error}"),
    };
    let id = SpiffeId::new(CA.domain().clone(), Role::Sidecar, &request.assigned_name());
    let id = id.expect("an assigned name is one that certificates can have");
    let lives = Duration::from_secs(3600);
    let grant = Grant { id: id.clone(), addresses: vec![ADDRESS], hosts: Vec::new(), lives };
    let certificate = CA.sign(UNIX_EPOCH + lives, &request, &grant).unwrap_or_else(|it| panic!("{it}"));
    let parsed = X509Certificate::from_der(&certificate).map(|(_, it)| it);
    let parsed = parsed.unwrap_or_else(|it| panic!("what was signed cannot be read: {it}"));

    let names = parsed.subject_alternative_name().ok().flatten().map(|it| &it.value.general_names);
    let id = id.to_string();
    let expected = [GeneralName::URI(&id), GeneralName::IPAddress(&[10, 0, 0, 7])];
    assert_eq!(names.map(Vec::as_slice), Some(&expected[..]));
    assert!(!parsed.is_ca() && parsed.verify_signature(None).is_err());
    let key = Sha256::digest(parsed.public_key().raw);
    let name: String = key.iter().take(16).map(|it| format!("{it:02x}")).collect();
    assert_eq!(request.assigned_name(), format!("n-{name}"), "another key than the one that asked");
}

/// A request that asks for more than it gets.
fn request(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, word(u, &["gateway", "spiffe://shoal.local/gateway/g"])?);
    for name in ["spiffe://shoal.local/gateway/g", "gateway", ""] {
        if u.ratio(1, 2)? {
            let name = name.try_into().map_err(|_| arbitrary::Error::IncorrectFormat)?;
            params.subject_alt_names.push(if u.arbitrary()? {
                SanType::URI(name)
            } else {
                SanType::DnsName(name)
            });
        }
    }
    if u.arbitrary()? {
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    }
    let request = params.serialize_request(&*ASKER).map_err(|_| arbitrary::Error::IncorrectFormat)?;
    let mut der = request.der().to_vec();
    if u.ratio(1, 2)? {
        let at = u.choose_index(der.len())?;
        let byte = u.arbitrary()?;
        der.get_mut(at).into_iter().for_each(|it| *it = byte);
    }
    Ok(der)
}
