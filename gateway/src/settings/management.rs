//! The settings of the management API and of the audit log.
//!
//! Tokens travel in every request, so without TLS the API is for this machine alone, unless the operator
//! says that somebody else sees to it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use shoal_model::ByteSize;
use shoal_ops::settings::{Reader, Setting};

use super::registry::mistake;
use crate::audit::AuditSettings;
use crate::management::{ManagementSettings, TlsFiles, Token, TokenHash, TokenName};

/// The commented template of an entry of `management.tokens`.
const TOKEN: &str = include_str!("../../config/management-token.yaml");
/// The name of the audit log in the storage directory.
const AUDIT: &str = "audit.jsonl";

pub(super) fn read(reader: &Reader) -> ManagementSettings {
    let tls = tls(reader);
    ManagementSettings {
        listen: listen(reader, tls.is_some()),
        tls,
        requests_per_second: reader.parse("management.requestsPerSecond", |text| {
            match text.parse::<NonZeroU32>() {
                Ok(it) if it.get() <= 10_000 => Ok(it),
                _ => Err("is not from 1 to 10000".to_owned()),
            }
        }),
        tokens: tokens(reader),
    }
}

pub(super) fn audit(reader: &Reader, dir: &Path) -> AuditSettings {
    let target: String = reader.get("audit.file");
    // Read in any case, so that a mistake shows before it matters.
    let max_size = reader.get_in("audit.maxSize", ByteSize(1 << 20)..=ByteSize(1 << 40));
    let n_kept = reader.get_in("audit.keep", 1..=1000);
    match target.as_str() {
        "off" => AuditSettings::Off,
        "-" => AuditSettings::Output,
        "" => AuditSettings::File { path: dir.join(AUDIT), max_size, n_kept },
        path => AuditSettings::File { path: path.into(), max_size, n_kept },
    }
}

fn listen(reader: &Reader, has_tls: bool) -> SocketAddr {
    let is_insecure: bool = reader.get("management.insecure");
    reader.parse("management.listen", |text| {
        let listen = SocketAddr::read(text)?;
        if has_tls || is_insecure || listen.ip().to_canonical().is_loopback() {
            return Ok(listen);
        }
        Err("can be reached by others, and tokens would travel in the clear: set management.tls, or \
             management.insecure where something else encrypts"
            .to_owned())
    })
}

fn tls(reader: &Reader) -> Option<TlsFiles> {
    let certificate: Option<PathBuf> = reader.optional("management.tls.certFile");
    let key: Option<PathBuf> = reader.optional("management.tls.keyFile");
    match (certificate, key) {
        (Some(certificate), Some(key)) => return Some(TlsFiles { certificate, key }),
        (None, None) => {}
        (Some(_), None) => {
            reader.required::<String>("management.tls.keyFile");
        }
        (None, Some(_)) => {
            reader.required::<String>("management.tls.certFile");
        }
    }
    None
}

fn tokens(reader: &Reader) -> Vec<Token> {
    let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
    let mut tokens = Vec::new();
    for item in reader.list("management.tokens", TOKEN) {
        let name = must::<TokenName>(&item, "name");
        let hash = must::<TokenHash>(&item, "hash");
        let (scopes, expires) = (item.values("scopes").into_iter().collect(), item.optional("expires"));
        let (Some(name), Some(hash)) = (name, hash) else { continue };
        for (key, is_new) in [("name", names.insert(name.clone())), ("hash", ids.insert(hash.id()))] {
            if !is_new {
                mistake(&item, key, "is declared twice");
            }
        }
        tokens.push(Token { name, hash, scopes, created: None, expires, last_used: None });
    }
    tokens
}

/// A setting that has no default.
fn must<T: Setting>(item: &Reader, key: &str) -> Option<T> {
    let value = item.optional(key);
    if value.is_none() {
        // Where it was given and is a mistake, this says nothing more.
        item.required::<String>(key);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::super::{DEFAULT, Settings};
    use super::*;
    use crate::management::Scope;

    fn read(user: &str) -> (Settings, Reader) {
        let reader = Reader::new(user, DEFAULT, |_| None);
        (Settings::read(&reader), reader)
    }

    #[track_caller]
    fn check(user: &str, mistake: Option<&str>) {
        let text = read(user).1.finish().err().map(|it| it.to_string());
        match mistake {
            Some(mistake) => assert!(text.as_ref().is_some_and(|it| it.contains(mistake)), "{text:?}"),
            None => assert_eq!(text, None),
        }
    }

    #[test]
    fn without_tls_it_is_for_this_machine_alone() {
        check("management: {listen: '[::1]:1'}", None);
        check("management: {listen: '10.0.0.1:1'}", Some("would travel in the clear"));
        check("management: {listen: '0.0.0.0:1'}", Some("would travel in the clear"));
        check("management: {listen: '0.0.0.0:1', insecure: true}", None);
        check("management: {listen: '0.0.0.0:1', tls: {certFile: /a, keyFile: /b}}", None);
        check("management: {tls: {certFile: /a}}", Some("management.tls.keyFile is missing"));
        check("management: {tls: {keyFile: /a}}", Some("management.tls.certFile is missing"));
        check("management: {requestsPerSecond: 0}", Some("is not from 1 to 10000"));
    }

    #[test]
    fn a_declared_token_is_what_its_entry_says() {
        let hash = format!("sha256:{}", "ab".repeat(32));
        let user = format!(
            "management: {{tokens: [{{name: harbor, hash: '{hash}', scopes: [preheat, read], \
             expires: 2027-01-01T00:00:00Z}}]}}"
        );
        let (settings, reader) = read(&user);
        assert_eq!(reader.finish(), Ok(()));
        let [token] = &settings.management.tokens[..] else { panic!("one token") };
        assert_eq!((token.name.to_string(), token.hash.to_string()), ("harbor".to_owned(), hash));
        assert_eq!(token.scopes, [Scope::Preheat, Scope::Read].into());
        assert_eq!(token.expires, Some("2027-01-01T00:00:00Z".parse().unwrap()));
    }

    #[test]
    fn a_declared_token_that_cannot_work_is_named() {
        let token = |fields: &str| format!("management: {{tokens: [{{{fields}}}]}}");
        let hash = format!("hash: 'sha256:{}'", "ab".repeat(32));
        check(&token(&hash), Some("management.tokens[0].name is missing"));
        check(&token("name: a"), Some("management.tokens[0].hash is missing"));
        check(&token("name: a, hash: shoal_secret"), Some("hash = \"…\" is not sha256:"));
        check(&token(&format!("name: 'a b', {hash}")), Some("name = \"a b\" is not a name"));
        check(&token(&format!("name: a, {hash}, scopes: [root]")), Some("\"root\" is not one of preheat"));
        check(&token(&format!("name: a, {hash}, expires: soon")), Some("\"soon\" is not a time in UTC"));
        let twice = format!("management: {{tokens: [{{name: a, {hash}}}, {{name: a, {hash}}}]}}");
        check(&twice, Some("tokens[1].name = \"a\" is declared twice"));
        check(&twice, Some("is declared twice"));
    }

    #[test]
    fn the_audit_log_goes_where_it_is_told() {
        let file =
            |path: &str| AuditSettings::File { path: path.into(), max_size: ByteSize(100 << 20), n_kept: 5 };
        for (user, expected) in [
            ("storage: {dir: /data}", file("/data/audit.jsonl")),
            ("audit: {file: /logs/audit}", file("/logs/audit")),
            ("audit: {file: '-'}", AuditSettings::Output),
            ("audit: {file: 'off'}", AuditSettings::Off),
        ] {
            assert_eq!(read(user).0.audit, expected, "{user}");
        }
        check("audit: {maxSize: 1Ki}", Some("is not from 1Mi to"));
        check("audit: {keep: 0}", Some("is not from 1 to 1000"));
    }
}
