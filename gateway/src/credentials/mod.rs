//! The gateway's own right to read a registry.
//!
//! Each registry has one pulling identity ([`identity`]): a user, nobody in particular, or whoever Amazon
//! takes the process for. Registries that speak Basic get it as it is; those with a token service get a token
//! for each repository, which is kept until shortly before it ends. What is sent lives in memory only, is not
//! shown by `Debug`, and is dropped as soon as the registry refuses it.
//!
//! A kept credential may simply have ended, so its refusal is worth another login. A refused login, or
//! the refusal of what a login has just brought, is not: repeated, it would lock the account. It is
//! remembered for a while instead, for its repository only, since registries refuse those one by one.
//!
//! A login goes on when all who waited for it have lost patience: a token service that is slower than a node
//! waits would otherwise never have been logged in at.

mod amazon;
mod identity;
mod login;
mod token;

use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use lru::LruCache;
use shoal_oci::Repository;
use shoal_ops::tasks::Tasks;
use shoal_registry::RegistryClient;
use tokio::time::Instant;

use crate::kind::Kind;
use crate::single_flight::SingleFlight;
pub use amazon::AmazonSettings;
pub use identity::Identity;
use login::{Fault, Granted, other};
pub(crate) use login::{Login, LoginError};

/// How many repositories' credentials and refusals are kept.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// How long no login is tried after one was refused.
const REFUSED: Duration = Duration::from_secs(30);

/// The `Authorization` for one repository; `None` where the registry wants none. The value is marked
/// sensitive, so `Debug` does not show it.
pub(crate) type Authorization = Option<HeaderValue>;

/// What the registry is to be shown.
pub(crate) struct Shown {
    pub(crate) authorization: Authorization,
    /// Whether it was kept from an earlier login, and may have ended.
    pub(crate) is_kept: bool,
    generation: u64,
}

/// The gateway's credential at one registry.
pub(crate) struct Credentials {
    login: Arc<Login>,
    logins: Arc<SingleFlight<(Repository, u64), Result<Granted, LoginError>>>,
    outcomes: Arc<Outcomes>,
    tasks: Tasks,
}

/// What a registry gives to nobody in particular for reading `repository`: a token, where it wants one to be shown.
pub(crate) async fn of_nobody(
    client: RegistryClient,
    kind: Kind,
    repository: &Repository,
) -> Result<Authorization, LoginError> {
    let granted = Login::new(client, kind, Identity::Anonymous).authorization(repository).await;
    granted.map(|it| it.authorization)
}

/// What logins of late brought.
struct Outcomes(Mutex<LruCache<Repository, Kept>>);

struct Kept {
    outcome: Result<Authorization, LoginError>,
    until: Instant,
    /// Of the identity that it is about.
    generation: u64,
}

impl Credentials {
    /// Nothing is logged in for yet. Logins are finished as `tasks`.
    pub(crate) fn new(login: Login, tasks: Tasks) -> Self {
        Self {
            login: Arc::new(login),
            logins: Arc::new(SingleFlight::new()),
            outcomes: Arc::new(Outcomes(Mutex::new(LruCache::new(REMEMBERED)))),
            tasks,
        }
    }

    /// What to show the registry for reading `repository`; logs in where nothing usable is kept.
    pub(crate) async fn authorization(&self, repository: &Repository) -> Result<Shown, LoginError> {
        let generation = self.login.generation();
        if let Some(outcome) = self.outcomes.of(repository, generation) {
            return outcome.map(|authorization| Shown { authorization, is_kept: true, generation });
        }
        let (login, outcomes, asked) = (self.login.clone(), self.outcomes.clone(), repository.clone());
        let work = async move {
            let outcome = login.authorization(&asked).await;
            outcomes.note(&asked, &outcome, generation);
            outcome
        };
        // Askers may have less patience than a login takes.
        let outcome = self.logins.run_to_end(&self.tasks, (repository.clone(), generation), work).await;
        outcome.map(|Granted { authorization, is_kept, .. }| Shown { authorization, is_kept, generation })
    }

    /// The registry has refused what it was `shown` for `repository`. Returns the error where another login
    /// would not help.
    pub(crate) async fn refused(&self, repository: &Repository, shown: &Shown) -> Result<(), LoginError> {
        if !shown.is_kept {
            let error = self.login.refused(repository);
            self.outcomes.rest(repository, &error, shown.generation);
            return Err(error);
        }
        self.login.ended(&shown.authorization).await;
        self.outcomes.forget(repository, &shown.authorization);
        Ok(())
    }

    /// Reads the identity's files again; returns whether it is another now. What was kept for the old one is
    /// not used any more.
    ///
    /// # Errors
    /// Where a file cannot be read, as it may be while it is replaced; the identity stays what it was.
    pub(crate) fn reload(&self) -> io::Result<bool> {
        self.login.reload()
    }
}

impl Outcomes {
    /// What is still good of the last login for `repository`.
    fn of(&self, repository: &Repository, generation: u64) -> Option<Result<Authorization, LoginError>> {
        let mut kept = self.kept();
        let kept = kept.get(repository).filter(|it| it.generation == generation && Instant::now() < it.until);
        kept.map(|it| it.outcome.clone())
    }

    /// Keeps what a login brought; one that failed for another reason than a refusal can be tried again at once.
    fn note(&self, repository: &Repository, outcome: &Result<Granted, LoginError>, generation: u64) {
        match outcome {
            Ok(Granted { authorization, usable, .. }) => {
                self.keep(repository, Ok(authorization.clone()), *usable, generation);
            }
            Err(error) if error.is_refusal() => self.rest(repository, error, generation),
            Err(_) => {}
        }
    }

    /// Drops what the registry has refused, unless another login has replaced it already.
    fn forget(&self, repository: &Repository, refused: &Authorization) {
        let mut kept = self.kept();
        if kept.peek(repository).is_some_and(|it| it.outcome.as_ref() == Ok(refused)) {
            kept.pop(repository);
        }
    }

    /// Tries no login for a while, and tells that once to whoever can mend it.
    fn rest(&self, repository: &Repository, error: &LoginError, generation: u64) {
        if !matches!(self.of(repository, generation), Some(Err(_))) {
            tracing::warn!(%error, rest_s = REFUSED.as_secs(), "login refused");
        }
        self.keep(repository, Err(error.clone()), REFUSED, generation);
    }

    fn keep(
        &self,
        repository: &Repository,
        outcome: Result<Authorization, LoginError>,
        lives: Duration,
        generation: u64,
    ) {
        self.kept().put(repository.clone(), Kept { outcome, until: Instant::now() + lives, generation });
    }

    fn kept(&self) -> MutexGuard<'_, LruCache<Repository, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A header's value that `Debug` does not show.
fn sensitive(text: &str) -> Result<HeaderValue, Fault> {
    let mut value =
        HeaderValue::from_str(text).map_err(|_| other("the credential cannot be sent in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}
