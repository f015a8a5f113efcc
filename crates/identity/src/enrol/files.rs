//! A certificate of one's own, read again whenever its files change.

use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use shoal_ops::Context;
use tokio::time::sleep;

use crate::keychain::Keychain;
use crate::material::Material;
use crate::settings::Files;
use crate::spiffe::Role;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Reads a certificate of one's own, and again whenever its files change.
///
/// # Errors
/// Where it cannot be used now. Later a bad one is told of, and the last good one stays.
pub fn follow(ctx: &Context, files: Files, role: Role) -> anyhow::Result<Keychain> {
    let keychain = Keychain::empty();
    let mut seen = stamps(&files);
    keychain.replace(own(&files, role).context("security: own certificate")?);
    let (kept, stopping) = (keychain.clone(), ctx.tasks.stopping());
    ctx.tasks.spawn_infallible("certificate", async move {
        while stopping.run_until_cancelled(sleep(LOOK)).await.is_some() {
            let now = stamps(&files);
            if now == seen {
                continue;
            }
            seen = now;
            match own(&files, role) {
                Ok(material) => {
                    tracing::info!(id = %material.id, until = ?material.validity.until, "certificate read again");
                    kept.replace(material);
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "certificate not read again; the old one stays");
                }
            }
        }
    });
    Ok(keychain)
}

fn own(files: &Files, role: Role) -> anyhow::Result<Material> {
    let material = Material::read(&files.chain, &files.key, &files.roots)?;
    let id = &material.id;
    anyhow::ensure!(id.role == role, "{id} is for a {}, not for a {role}", id.role);
    Ok(material)
}

/// What tells that a file was replaced.
fn stamps(files: &Files) -> [Option<(SystemTime, u64)>; 3] {
    [&files.chain, &files.key, &files.roots].map(|it| {
        let meta = fs::metadata(it).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::super::gateway::pem;
    use super::*;
    use crate::{Ca, Grant, Request, SpiffeId};
    use rcgen::{CertificateParams, KeyPair};
    use std::path::Path;

    fn write(dir: &Path, ca: &Ca, node: &str, role: Role) -> Files {
        let id = SpiffeId::new(ca.domain().clone(), role, node).unwrap();
        let lives = Duration::from_secs(3600);
        let grant = Grant { id, addresses: Vec::new(), hosts: Vec::new(), lives };
        let key = KeyPair::generate().unwrap();
        let der = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
        let leaf = ca.sign(SystemTime::now(), &Request::parse(&der).unwrap(), &grant).unwrap();
        let files = Files { chain: dir.join("c"), key: dir.join("k"), roots: dir.join("r") };
        fs::write(&files.roots, pem(std::slice::from_ref(ca.root()))).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        fs::write(&files.chain, pem(&[leaf])).unwrap();
        files
    }

    #[tokio::test(start_paused = true)]
    async fn new_files_are_followed_and_broken_or_foreign_ones_are_not() {
        let ca = Ca::create("a".parse().unwrap()).unwrap().0;
        let dir = tempfile::tempdir().unwrap();
        let files = write(dir.path(), &ca, "n1", Role::Sidecar);
        let ctx = Context::new("test", "0");
        let keychain = follow(&ctx, files.clone(), Role::Sidecar).unwrap();
        let name = || keychain.current().unwrap().id.node.as_str().to_owned();
        fs::write(&files.chain, "broken").unwrap();
        sleep(LOOK * 2).await;
        assert_eq!(name(), "n1");
        write(dir.path(), &ca, "gateway-with-a-long-name", Role::Gateway);
        sleep(LOOK * 2).await;
        assert_eq!(name(), "n1");
        write(dir.path(), &ca, "another", Role::Sidecar);
        sleep(LOOK * 2).await;
        assert_eq!(name(), "another");
        assert!(follow(&ctx, files, Role::Gateway).is_err());
    }
}
