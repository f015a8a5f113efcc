//! Forgetting a repository, and removing its blobs from the region.
//!
//! This gateway knows a blob as a repository's once it has opened it for that repository, and forgets that when it
//! restarts or has seen many others since. So a blob that it knows under no other repository may be in one all the same:
//! then whoever pulls that gets it anew. And a blob of the repository that this gateway has never opened stays.
//!
//! A blob is forgotten once it is gone everywhere. One call sees to so many of them, and says what the next goes on after,
//! as pages do: those that are not gone everywhere stay known, and hold up nothing that comes after them.

use serde::Serialize;
use shoal_model::BlobKey;
use shoal_oci::{RegistryName, Repository};
use shoal_proto::RemoveRequest;
use utoipa::ToSchema;

use super::Fleet;
use super::removal::RemovalView;
use crate::fields::{Fields, Mistakes, object};
use crate::ledger::Known;

const FIELDS: [&str; 3] = ["after", "registry", "repository"];

/// What is to be forgotten.
#[derive(ToSchema)]
#[schema(as = PurgeRequest, example = json!({ "registry": "harbor.example.com", "repository": "production/app" }))]
#[expect(dead_code, reason = "it describes what `Purge::read` reads")]
pub(super) struct Body {
    /// The name of a registry of the gateway's settings, or one of its hosts.
    registry: String,
    /// One of its repositories.
    repository: String,
    /// The last call's `next`, for what that has left.
    after: Option<String>,
}

/// A repository that is to be forgotten.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Purge {
    registry: RegistryName,
    repository: Repository,
    after: Option<BlobKey>,
}

/// What was done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Purged)]
pub(super) struct PurgeView {
    registry: String,
    repository: String,
    /// Blobs that were to be removed, that stay for another repository, and that the next call goes on with.
    blobs: Sums,
    /// Where that was done; null where there was nothing to do.
    removal: Option<RemovalView>,
    /// What the next call goes on after; null where nothing is left.
    next: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PurgedBlobs)]
struct Sums {
    own: usize,
    shared: usize,
    left: usize,
}

impl Purge {
    /// `named` says which registry a name means.
    pub(super) fn read(body: &[u8], named: impl Fn(&str) -> Option<RegistryName>) -> Result<Self, Mistakes> {
        let map = object(body)?;
        let (fields, mut mistakes) = (Fields::of(&map), Mistakes::default());
        fields.refuse_others(&FIELDS, &mut mistakes);
        let registry = fields.needed_text("registry", &mut mistakes).and_then(|it| {
            let found = named(it);
            if found.is_none() {
                mistakes.add("registry is none that this gateway serves");
            }
            found
        });
        let repository = fields.needed_text("repository", &mut mistakes);
        let repository = repository.and_then(|it| {
            let parsed = it.parse::<Repository>();
            parsed.map_err(|it| mistakes.add(it.message)).ok()
        });
        let after = fields.text("after", &mut mistakes).and_then(|it| {
            let parsed = it.parse::<BlobKey>();
            parsed.map_err(|_| mistakes.add("after is no next of another call")).ok()
        });
        let named = registry.zip(repository).and_then(|(registry, repository)| {
            let repository = repository.within(&registry).map_err(|it| mistakes.add(it.message)).ok()?;
            Some(Self { registry, repository, after })
        });
        match named {
            Some(it) => mistakes.or(it),
            None => Err(mistakes),
        }
    }

    /// As the audit log shows it.
    pub(super) fn subject(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl PurgeView {
    /// Whether nothing is left of what is known.
    pub(super) fn is_whole(&self) -> bool {
        self.blobs.left == 0 && self.removal.as_ref().is_none_or(RemovalView::is_whole)
    }
}

impl Fleet {
    /// Forgets a repository and removes the blobs that are known as its alone.
    pub(super) async fn purge(&self, Purge { registry, repository, after }: Purge) -> PurgeView {
        self.0.gate.forget(&registry, &repository);
        self.0.mirror.forget(&registry, &repository);
        let Known { own, shared, n_left, next } =
            self.0.ledger.known_of(&registry, &repository, after.as_ref(), RemoveRequest::MAX);
        let blobs = Sums { own: own.len(), shared: shared.len(), left: n_left };
        self.0.ledger.disown(&shared, &registry, &repository);
        let removal = if own.is_empty() {
            None
        } else {
            let (removal, gone) = self.remove(own).await;
            self.0.ledger.disown(&gone, &registry, &repository);
            Some(removal)
        };
        PurgeView {
            registry: registry.to_string(),
            repository: repository.to_string(),
            blobs,
            removal,
            next: next.map(|it| it.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::management::described;
    use serde_json::{Value, json};

    fn read(body: &Value) -> Result<Purge, Mistakes> {
        let known = |it: &str| ["a.example", "docker.io"].contains(&it).then(|| it.parse().unwrap());
        Purge::read(body.to_string().as_bytes(), known)
    }

    #[test]
    fn a_body_is_described_as_it_is_read() {
        described::check::<Body, _>(|it| Purge::read(it, |name| name.parse().ok()));
        assert_eq!(described::names::<Body>(), FIELDS);
    }

    #[test]
    fn a_body_names_one_repository() {
        let purge = |registry: &str, repository: &str| Purge {
            registry: registry.parse().unwrap(),
            repository: repository.parse().unwrap(),
            after: None,
        };
        let body = json!({ "registry": "a.example", "repository": "team/app" });
        assert_eq!(read(&body), Ok(purge("a.example", "team/app")));
        let official = read(&json!({ "registry": "docker.io", "repository": "alpine" })).unwrap();
        assert_eq!(official.subject(), "docker.io/library/alpine");
        let key = format!("public@sha256:{}", "07".repeat(32));
        let body = json!({ "registry": "a.example", "repository": "team/app", "after": key });
        assert_eq!(read(&body).unwrap().after, key.parse().ok());
    }

    #[test]
    fn all_that_is_wrong_with_a_body_is_said() {
        let check = |body: Value, expected: &[&str]| {
            assert_eq!(read(&body).unwrap_err().0, expected, "{body}");
        };
        check(json!({}), &["registry is missing", "repository is missing"]);
        check(json!([]), &["the body is not a JSON object"]);
        let unknown = json!({ "registry": "b.example", "repository": "a", "tag": "v1" });
        check(unknown, &["\"tag\" is not a field", "registry is none that this gateway serves"]);
        let elsewhere = json!({ "registry": "a.example", "repository": "a", "after": "team/app" });
        check(elsewhere, &["after is no next of another call"]);
        let bad = read(&json!({ "registry": "a.example", "repository": "Team" })).unwrap_err();
        assert!(bad.0[0].starts_with("repository \"Team\": "), "{bad:?}");
    }
}
