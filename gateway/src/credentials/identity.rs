//! Who the gateway is to a registry, and what it proves that with at one moment.
//!
//! A user's name and password may stand in files that an operator replaces while the process runs. Each
//! replacement begins a new generation: what was logged in for with an older one is of no use any more, be it
//! a token or a refusal. Amazon's passwords are made by Amazon and end by themselves ([`amazon`](super::amazon)).

use std::io;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use shoal_ops::settings::SecretSource;
use zeroize::Zeroizing;

use super::amazon::{AmazonSettings, AmazonTokens};
use super::login::Fault;
use super::{Authorization, sensitive};

/// Who the gateway is to a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Nobody in particular.
    Anonymous,
    /// A user, usually a robot account.
    User {
        /// Its name, as the registry spells it: `robot$project+name` stays as it is.
        name: SecretSource,
        /// Its password.
        password: SecretSource,
    },
    /// Whoever Amazon takes the process for: by keys in the environment, a role, a pod's or an instance's
    /// identity.
    Amazon(AmazonSettings),
}

/// What proves the identity for now.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    /// The `Basic` credential; `None` for nobody in particular.
    pub(super) basic: Authorization,
    /// How long it may be shown.
    pub(super) usable: Duration,
    /// Whether it was got for an earlier login, and may have ended.
    pub(super) is_kept: bool,
}

/// Where proofs come from.
pub(super) enum Source {
    Told(RwLock<Told>),
    Amazon(Box<AmazonTokens>),
}

/// What the operator said.
pub(super) struct Told {
    /// Name and password; `None` for nobody in particular.
    user: Option<(SecretSource, SecretSource)>,
    generation: u64,
}

impl Source {
    pub(super) fn new(identity: Identity) -> Self {
        let user = match identity {
            Identity::Amazon(settings) => return Self::Amazon(Box::new(AmazonTokens::new(settings))),
            Identity::User { name, password } => Some((name, password)),
            Identity::Anonymous => None,
        };
        Self::Told(RwLock::new(Told { user, generation: 0 }))
    }

    /// What to show at a login that begins now.
    pub(super) async fn proof(&self) -> Result<Proof, Fault> {
        match self {
            Self::Told(told) => {
                let basic = told.read().unwrap_or_else(PoisonError::into_inner).basic()?;
                Ok(Proof { basic, usable: Duration::MAX, is_kept: false })
            }
            Self::Amazon(tokens) => tokens.proof().await,
        }
    }

    /// The registry has refused this credential. If it is one that was kept, it is not shown again.
    pub(super) async fn refused(&self, credential: &Authorization) {
        if let (Self::Amazon(tokens), Some(credential)) = (self, credential) {
            tokens.drop_if(credential).await;
        }
    }

    /// Which of the operator's identities counts.
    pub(super) fn generation(&self) -> u64 {
        match self {
            Self::Told(told) => told.read().unwrap_or_else(PoisonError::into_inner).generation,
            Self::Amazon(_) => 0,
        }
    }

    /// Reads the identity's files again; returns whether it is another now.
    pub(super) fn reload(&self) -> io::Result<bool> {
        let Self::Told(told) = self else { return Ok(false) };
        let mut found = told.read().unwrap_or_else(PoisonError::into_inner).user.clone();
        let Some((name, password)) = &mut found else { return Ok(false) };
        // Neither is taken without the other.
        let is_other = name.read_again()? | password.read_again()?;
        if is_other {
            let mut told = told.write().unwrap_or_else(PoisonError::into_inner);
            *told = Told { user: found, generation: told.generation + 1 };
        }
        Ok(is_other)
    }
}

impl Told {
    fn basic(&self) -> Result<Authorization, Fault> {
        let Some((name, password)) = &self.user else { return Ok(None) };
        let pair = Zeroizing::new(format!("{}:{}", name.secret().expose(), password.secret().expose()));
        let mut text = Zeroizing::new("Basic ".to_owned());
        STANDARD.encode_string(&*pair, &mut text);
        sensitive(&text).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use shoal_ops::settings::Setting as _;

    use super::*;

    fn told(name: &str, password: &str) -> Source {
        let [name, password] = [name, password].map(|it| SecretSource::read(it).unwrap());
        Source::new(Identity::User { name, password })
    }

    async fn shown(source: &Source) -> String {
        let basic = source.proof().await.unwrap().basic.unwrap();
        let pair = basic.to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned();
        String::from_utf8(STANDARD.decode(pair).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn names_and_passwords_are_shown_as_they_are() {
        for name in ["robot$pull", "robot$project+pull", "ann@example.com", "bot-ünï"] {
            assert_eq!(shown(&told(name, "p:a$s+s w%rd")).await, format!("{name}:p:a$s+s w%rd"));
        }
        assert_eq!(Source::new(Identity::Anonymous).proof().await.unwrap().basic, None);
    }

    #[tokio::test]
    async fn nothing_is_shown_by_debug() {
        let source = told("ann", "hunter2");
        let text = format!("{:?}", source.proof().await.unwrap());
        assert!(!text.contains("Basic"), "{text}");
    }

    #[tokio::test]
    async fn a_new_password_begins_a_generation_and_a_missing_file_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "hunter2").unwrap();
        let source = told("ann", &format!("file:{}", file.display()));
        assert!(!source.reload().unwrap());
        std::fs::remove_file(&file).unwrap();
        source.reload().unwrap_err();
        assert_eq!((shown(&source).await.as_str(), source.generation()), ("ann:hunter2", 0));
        std::fs::write(&file, "hunter3").unwrap();
        assert!(source.reload().unwrap());
        assert_eq!((shown(&source).await.as_str(), source.generation()), ("ann:hunter3", 1));
    }
}
