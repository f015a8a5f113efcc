//! The gateway's own right to read a registry.
//!
//! Each registry has one pulling identity: a user, or nobody in particular. Registries that speak Basic
//! get it as it is; those with a token service get a token for each repository, which is kept until
//! shortly before it ends. What is sent lives in memory only, is not shown by `Debug`, and is dropped as
//! soon as the registry refuses it.
//!
//! A kept credential may simply have ended, so its refusal is worth another login. A refused login, or
//! the refusal of what a login has just brought, is not: repeated, it would lock the account. It is
//! remembered for a while instead, for its repository only, since registries refuse those one by one.

mod login;
mod token;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use lru::LruCache;
use shoal_oci::Repository;
use shoal_ops::settings::Secret;
use tokio::time::Instant;

use crate::single_flight::SingleFlight;
use login::Granted;
pub(crate) use login::{Login, LoginError};

/// How many repositories' credentials and refusals are kept.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// How long no login is tried after one was refused.
const REFUSED: Duration = Duration::from_secs(30);

/// Who the gateway is to a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Nobody in particular.
    Anonymous,
    /// A user, usually a robot account.
    User {
        /// Its name.
        name: String,
        /// Its password.
        password: Secret,
    },
}

/// The `Authorization` for one repository; `None` where the registry wants none. The value is marked
/// sensitive, so `Debug` does not show it.
type Authorization = Option<HeaderValue>;

/// What the registry is to be shown.
pub(crate) struct Shown {
    pub(crate) authorization: Authorization,
    /// Whether it was kept from an earlier login, and may have ended.
    pub(crate) is_kept: bool,
}

/// The gateway's credential at one registry.
pub(crate) struct Credentials {
    login: Arc<Login>,
    logins: SingleFlight<Repository, Result<Granted, LoginError>>,
    kept: Mutex<LruCache<Repository, Kept>>,
}

struct Kept {
    outcome: Result<Authorization, LoginError>,
    until: Instant,
}

impl Credentials {
    pub(crate) fn new(login: Login) -> Self {
        Self {
            login: Arc::new(login),
            logins: SingleFlight::new(),
            kept: Mutex::new(LruCache::new(REMEMBERED)),
        }
    }

    /// What to show the registry for reading `repository`; logs in where nothing usable is kept.
    pub(crate) async fn authorization(&self, repository: &Repository) -> Result<Shown, LoginError> {
        let kept =
            self.kept().get(repository).filter(|it| Instant::now() < it.until).map(|it| it.outcome.clone());
        if let Some(outcome) = kept {
            return outcome.map(|authorization| Shown { authorization, is_kept: true });
        }
        let (login, asked) = (self.login.clone(), repository.clone());
        let granted =
            self.logins.run(repository.clone(), async move { login.authorization(&asked).await }).await;
        match granted {
            Ok(Granted { authorization, usable }) => {
                self.keep(repository, Ok(authorization.clone()), usable);
                Ok(Shown { authorization, is_kept: false })
            }
            Err(error) => {
                if error.is_refusal() {
                    self.keep(repository, Err(error.clone()), REFUSED);
                }
                Err(error)
            }
        }
    }

    /// The registry has refused what it was `shown` for `repository`. Returns the error where another login
    /// would not help.
    pub(crate) fn refused(&self, repository: &Repository, shown: &Shown) -> Result<(), LoginError> {
        if !shown.is_kept {
            let error = self.login.refused(repository);
            self.keep(repository, Err(error.clone()), REFUSED);
            return Err(error);
        }
        let mut kept = self.kept();
        // Another request may have replaced it already.
        if kept.peek(repository).is_some_and(|it| it.outcome.as_ref() == Ok(&shown.authorization)) {
            kept.pop(repository);
        }
        Ok(())
    }

    fn keep(&self, repository: &Repository, outcome: Result<Authorization, LoginError>, lives: Duration) {
        self.kept().put(repository.clone(), Kept { outcome, until: Instant::now() + lives });
    }

    fn kept(&self) -> MutexGuard<'_, LruCache<Repository, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
