//! Whole manifests: for the gateway's own jobs, and for nodes that read with its right, once for many of them.
//!
//! A manifest that is named by its digest is the same for everybody who may read it, and with the gateway's
//! right everybody may, within the repositories that nodes may pull; that is checked for each request
//! before it comes here. So equal requests in flight are one, and a good answer serves equal ones for as long
//! as it proves the right ([`Gate::allow_for`]). Requests are equal that want the same digest of the same
//! repository and accept the same types, which are to be few enough to be remembered.
//!
//! Only what matches its digest is given to anybody. Answers other than 200 are shared by those who wait for
//! them, and not kept. A tag may name something else at any time, one request for part of a manifest or
//! on a condition is like no other, and neither is one with a caller's own right.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, RANGE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use lru::LruCache;
use sha2::{Digest as _, Sha256};
use shoal_model::Digest;
use shoal_oci::{Reference, RegistryName, Repository, manifest};
use tokio::time::{Instant, timeout};

use super::{MirrorError, ask, proves_members, target};
use crate::authority::{Holder, Right};
use crate::gate::Gate;
use crate::single_flight::SingleFlight;
use crate::upstream::Upstream;

/// How long a manifest may take, from the first request for it to its last byte.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest list of accepted types that is like others, in bytes; a runtime's takes some hundred.
const MAX_ACCEPT: usize = 1024;
/// How many manifests are kept, and how many bytes all of them together may have, with what was accepted.
const MAX_KEPT: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
const MAX_BYTES: usize = 64 << 20;

/// A manifest as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    right: Right,
    digest: Digest,
    accept: Vec<HeaderValue>,
}

/// A manifest that cannot be given to anybody.
#[derive(Clone, Debug, thiserror::Error)]
#[error("manifest {reference} of {registry}/{repository}: {fault}")]
pub(crate) struct Unproven {
    registry: RegistryName,
    repository: Repository,
    reference: Reference,
    fault: Fault,
}

impl Unproven {
    fn new(Right { registry, repository, .. }: &Right, reference: &Reference, fault: Fault) -> Self {
        let (registry, repository) = (registry.clone(), repository.clone());
        Self { registry, repository, reference: reference.clone(), fault }
    }

    /// Whether asking again would bring the same.
    pub(super) const fn is_final(&self) -> bool {
        matches!(self.fault, Fault::Other { .. })
    }
}

#[derive(Clone, Debug, thiserror::Error)]
enum Fault {
    #[error("longer than {} bytes, or broke off", manifest::MAX_LEN)]
    Body,
    #[error("did not come within {} s", PATIENCE.as_secs())]
    Late,
    #[error("the registry sent content of digest {found}")]
    Other { found: Digest },
}

type Answer = Response<Bytes>;

/// Gets manifests.
pub(crate) struct Manifests {
    gate: Arc<Gate>,
    flights: SingleFlight<Wanted, Result<Answer, MirrorError>>,
    kept: Mutex<Kept>,
}

impl Wanted {
    /// What this request wants, where others may want just the same.
    pub(super) fn of(right: &Right, reference: &Reference, request: &Parts) -> Option<Self> {
        let Reference::Digest(digest) = reference else { return None };
        if right.holder != Holder::Gateway {
            return None;
        }
        let is_own =
            |headers: &HeaderMap| headers.keys().any(|it| *it == RANGE || it.as_str().starts_with("if-"));
        if request.method != Method::GET || is_own(&request.headers) {
            return None;
        }
        let accept = request.headers.get_all(ACCEPT).iter().cloned().collect();
        let wanted = Self { right: right.clone(), digest: digest.sha256()?, accept };
        (wanted.accept_len() <= MAX_ACCEPT).then_some(wanted)
    }

    /// How many bytes the accepted types take. Many empty values are as good as long ones.
    fn accept_len(&self) -> usize {
        self.accept.iter().map(|it| it.len() + size_of::<HeaderValue>()).sum()
    }

    /// The same as it is asked of the registry, and for what reference.
    fn request(&self) -> Result<(Reference, Parts), MirrorError> {
        let mut request = Request::new(());
        *request.uri_mut() = target(&format!("/v2/{}/manifests/{}", self.right.repository, self.digest))?;
        request.headers_mut().extend(self.accept.iter().map(|it| (ACCEPT, it.clone())));
        Ok((Reference::Digest(self.digest.into()), request.into_parts().0))
    }
}

impl Manifests {
    pub(crate) fn new(gate: Arc<Gate>) -> Self {
        Self { gate, flights: SingleFlight::new(), kept: Mutex::new(Kept::new()) }
    }

    /// The registry's whole answer to a request for a manifest with this right.
    pub(crate) async fn read(
        &self,
        upstream: &Arc<Upstream>,
        right: &Right,
        reference: &Reference,
        request: Parts,
    ) -> Result<Answer, MirrorError> {
        match Wanted::of(right, reference, &request) {
            Some(wanted) => self.get(upstream, wanted).await,
            None => fetch(&self.gate, upstream, right, (reference, request)).await,
        }
    }

    /// The registry's answer to what is wanted.
    pub(super) async fn get(&self, upstream: &Arc<Upstream>, wanted: Wanted) -> Result<Answer, MirrorError> {
        if let Some(answer) = self.kept().get(Instant::now(), &wanted) {
            return Ok(answer);
        }
        let work = {
            let (gate, upstream, wanted) = (self.gate.clone(), upstream.clone(), wanted.clone());
            async move {
                let (reference, request) = wanted.request()?;
                fetch(&gate, &upstream, &wanted.right, (&reference, request)).await
            }
        };
        let answer = self.flights.run(wanted.clone(), work).await?;
        if answer.status() == StatusCode::OK {
            let now = Instant::now();
            self.kept().put(now, now + self.gate.allow_for(), wanted, &answer);
        }
        Ok(answer)
    }

    /// Forgets those of a repository.
    pub(super) fn forget(&self, registry: &RegistryName, repository: &Repository) {
        self.kept().forget(registry, repository);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the registry, and notes what its answer proves.
async fn fetch(
    gate: &Gate,
    upstream: &Upstream,
    right: &Right,
    (reference, request): (&Reference, Parts),
) -> Result<Answer, MirrorError> {
    let late = |_| Err(Unproven::new(right, reference, Fault::Late).into());
    let answer = timeout(PATIENCE, whole(upstream, right, reference, request)).await.unwrap_or_else(late)?;
    if answer.status() == StatusCode::OK {
        gate.manifest_granted(right);
        if proves_members(upstream, answer.headers()) {
            gate.manifest_seen(right, answer.body());
        }
    }
    Ok(answer)
}

async fn whole(
    upstream: &Upstream,
    right: &Right,
    reference: &Reference,
    request: Parts,
) -> Result<Answer, MirrorError> {
    let answer = ask(upstream, &right.repository, request).await?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, manifest::MAX_LEN).collect().await;
    let body = body.map_err(|_| Unproven::new(right, reference, Fault::Body))?.to_bytes();
    let found = Digest::from_sha256(Sha256::digest(&body).into());
    if head.status == StatusCode::OK
        && let Reference::Digest(digest) = reference
        && digest.sha256() != Some(found)
    {
        return Err(Unproven::new(right, reference, Fault::Other { found }).into());
    }
    Ok(Response::from_parts(head, body))
}

/// Good answers of late.
struct Kept {
    answers: LruCache<Wanted, (Answer, Instant)>,
    n_bytes: usize,
}

impl Kept {
    fn new() -> Self {
        Self { answers: LruCache::new(MAX_KEPT), n_bytes: 0 }
    }

    fn get(&mut self, now: Instant, wanted: &Wanted) -> Option<Answer> {
        self.answers.get(wanted).filter(|it| now < it.1).map(|it| it.0.clone())
    }

    fn forget(&mut self, registry: &RegistryName, repository: &Repository) {
        let is_meant = |it: &Wanted| (&it.right.registry, &it.right.repository) == (registry, repository);
        let meant: Vec<_> =
            self.answers.iter().map(|(it, _)| it).filter(|it| is_meant(it)).cloned().collect();
        for wanted in meant {
            if let Some((old, _)) = self.answers.pop(&wanted) {
                self.n_bytes -= n_bytes(&wanted, &old);
            }
        }
    }

    /// Keeps an answer until then, unless one is kept that all who waited for it share.
    fn put(&mut self, now: Instant, until: Instant, wanted: Wanted, answer: &Answer) {
        if self.get(now, &wanted).is_some() {
            return;
        }
        self.n_bytes += n_bytes(&wanted, answer);
        if let Some((wanted, (old, _))) = self.answers.push(wanted, (answer.clone(), until)) {
            self.n_bytes -= n_bytes(&wanted, &old);
        }
        while self.n_bytes > MAX_BYTES
            && let Some((wanted, (old, _))) = self.answers.pop_lru()
        {
            self.n_bytes -= n_bytes(&wanted, &old);
        }
    }
}

/// How many bytes it takes to keep an answer.
fn n_bytes(wanted: &Wanted, answer: &Answer) -> usize {
    wanted.accept_len() + answer.body().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right() -> Right {
        Right {
            registry: "a.example".parse().unwrap(),
            repository: "prod/app".parse().unwrap(),
            holder: Holder::Gateway,
        }
    }

    fn wanted(n: u8) -> Wanted {
        Wanted { right: right(), digest: Digest::from_sha256([n; 32]), accept: Vec::new() }
    }

    fn answer(len: usize) -> Answer {
        Response::new(vec![0; len].into())
    }

    #[test]
    fn what_is_kept_has_an_end_and_a_bound() {
        let (mut kept, start) = (Kept::new(), Instant::now());
        let until = start + Duration::from_secs(300);
        for n in 0..40 {
            kept.put(start, until, wanted(n), &answer(manifest::MAX_LEN));
            // Those who waited for it together keep it once.
            kept.put(start, until + PATIENCE, wanted(n), &answer(manifest::MAX_LEN));
        }
        assert_eq!(kept.n_bytes, MAX_BYTES);
        let n_kept = MAX_BYTES / manifest::MAX_LEN;
        assert_eq!(kept.answers.len(), n_kept);
        assert!(kept.get(start, &wanted(0)).is_none());
        assert!(kept.get(start, &wanted(39)).is_some());
        assert!(kept.get(until, &wanted(39)).is_none());
        kept.put(until, until + PATIENCE, wanted(39), &answer(1));
        assert_eq!(kept.get(until, &wanted(39)).unwrap().body().len(), 1);
        assert_eq!(kept.n_bytes, MAX_BYTES - manifest::MAX_LEN + 1);
    }

    #[test]
    fn the_manifests_of_one_repository_are_forgotten() {
        let (mut kept, start) = (Kept::new(), Instant::now());
        let other =
            |n| Wanted { right: Right { repository: "prod/other".parse().unwrap(), ..right() }, ..wanted(n) };
        for wanted in [wanted(0), wanted(1), other(0)] {
            kept.put(start, start + PATIENCE, wanted, &answer(3));
        }
        kept.forget(&right().registry, &right().repository);
        let is_kept = [wanted(0), wanted(1), other(0)].map(|it| kept.get(start, &it).is_some());
        assert_eq!((is_kept, kept.n_bytes), ([false, false, true], 3));
    }

    #[test]
    fn what_was_accepted_counts_among_what_is_kept() {
        let (mut kept, start) = (Kept::new(), Instant::now());
        let accept = vec![HeaderValue::from_static("application/json")];
        for n in 0..2 {
            let wanted = Wanted { accept: accept.clone(), ..wanted(n) };
            kept.put(start, start + PATIENCE, wanted.clone(), &answer(3));
            kept.put(start + PATIENCE, start + 2 * PATIENCE, wanted, &answer(3));
        }
        assert_eq!(kept.n_bytes, 2 * (3 + "application/json".len() + size_of::<HeaderValue>()));
    }

    #[test]
    fn only_whole_manifests_by_digest_and_without_conditions_are_like_others() {
        let digest = Reference::Digest(Digest::from_sha256([1; 32]).into());
        let tag: Reference = "v1".parse().unwrap();
        let check = |reference: &Reference, request: http::request::Builder, expected: bool| {
            let (request, ()) = request.body(()).unwrap().into_parts();
            let got = Wanted::of(&right(), reference, &request);
            assert_eq!(got.is_some(), expected, "{reference} {request:?}");
            got
        };
        check(&digest, Request::get("/"), true);
        check(&tag, Request::get("/"), false);
        check(&digest, Request::head("/"), false);
        let accepting = |len| Request::get("/").header("accept", "x".repeat(len));
        check(&digest, accepting(MAX_ACCEPT - size_of::<HeaderValue>()), true);
        check(&digest, accepting(MAX_ACCEPT), false);
        let empty = (0..MAX_ACCEPT).fold(Request::get("/"), |it, _| it.header("accept", ""));
        check(&digest, empty, false);
        check(&digest, Request::get("/").header("range", "bytes=0-9"), false);
        check(&digest, Request::get("/").header("if-none-match", "\"x\""), false);
        let (request, ()) = Request::get("/").body(()).unwrap().into_parts();
        let callers = Right { holder: Holder::Anonymous, ..right() };
        assert_eq!(Wanted::of(&callers, &digest, &request), None, "a caller's own right is like no other");
        let [one, other] = ["application/json", "*/*"]
            .map(|it| check(&digest, Request::get("/").header("accept", it), true));
        assert_ne!(one, other);
    }
}
