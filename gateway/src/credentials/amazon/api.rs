//! `GetAuthorizationToken` of ECR and of ECR's public gallery.
//!
//! At its most talkative the SDK logs what it receives, the password included. So it logs nothing here: what
//! an operator has to know of a failure is in the fault.

use std::error::Error;
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ecr::config::http::HttpResponse;
use aws_sdk_ecr::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ecr::primitives::DateTime;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use http::HeaderValue;
use tokio::sync::OnceCell;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber as _;

use super::AmazonSettings;
use crate::credentials::login::{Fault, other};
use crate::credentials::sensitive;
use crate::kind::Kind;

/// How long a password is believed to live where Amazon does not say.
const UNKNOWN: Duration = Duration::from_secs(60 * 60);

/// What Amazon gave.
pub(super) struct Given {
    /// The credential as it is shown: Amazon encodes it already.
    pub(super) basic: HeaderValue,
    pub(super) lives: Duration,
}

/// The service that gives passwords.
pub(super) struct Api {
    settings: AmazonSettings,
    /// Made at the first use.
    client: OnceCell<Client>,
}

enum Client {
    Private(aws_sdk_ecr::Client),
    Public(aws_sdk_ecrpublic::Client),
}

impl Api {
    pub(super) const fn new(settings: AmazonSettings) -> Self {
        Self { settings, client: OnceCell::const_new() }
    }

    /// Asks for a password. Takes as long as its caller allows.
    pub(super) async fn password(&self) -> Result<Given, Fault> {
        // The SDK's futures are large, and are seldom run.
        Box::pin(self.ask()).with_subscriber(Dispatch::none()).await
    }

    async fn ask(&self) -> Result<Given, Fault> {
        let (token, ends) = match self.client.get_or_init(|| client(&self.settings)).await {
            Client::Private(ecr) => {
                let answer = ecr.get_authorization_token().send().await.map_err(|it| self.fault(&it))?;
                let first = answer.authorization_data.unwrap_or_default().into_iter().next();
                first.map(|it| (it.authorization_token, it.expires_at)).unwrap_or_default()
            }
            Client::Public(ecr) => {
                let answer = ecr.get_authorization_token().send().await.map_err(|it| self.fault(&it))?;
                answer
                    .authorization_data
                    .map(|it| (it.authorization_token, it.expires_at))
                    .unwrap_or_default()
            }
        };
        let token = token.ok_or_else(|| other(&format!("{}: no password came", self.call())))?;
        Ok(Given { basic: sensitive(&format!("Basic {token}"))?, lives: life(ends, SystemTime::now()) })
    }

    fn fault<E>(&self, error: &SdkError<E, HttpResponse>) -> Fault
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        const KEYS: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or give the gateway a role";
        let call = self.call();
        if let Some(credentials) = cause::<CredentialsError>(error) {
            return other(&match credentials {
                CredentialsError::CredentialsNotLoaded(_) => format!("no AWS credentials: {KEYS}"),
                _ => format!("AWS credentials: {credentials}"),
            });
        }
        match error {
            SdkError::ServiceError(it) => {
                let code = it.err().code().unwrap_or("unknown fault");
                // Amazon says 400 to those who ask too often, too.
                if it.raw().status().is_client_error() && !code.contains("Throttling") {
                    Fault::Refused(format!("{call}: {code}: check the AWS identity and its rights").into())
                } else {
                    other(&format!("{call}: {code}"))
                }
            }
            SdkError::ResponseError(_) => other(&format!("{call}: the answer is not understood")),
            _ => other(&format!("{call}: no answer")),
        }
    }

    /// What is asked for, as an IAM policy names it, and where.
    fn call(&self) -> String {
        let AmazonSettings { kind, region, .. } = &self.settings;
        format!("{kind}:GetAuthorizationToken in {region}")
    }
}

async fn client(settings: &AmazonSettings) -> Client {
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
    let config = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(settings.region.clone()))
        .http_client(http.build_https());
    let config: SdkConfig = config.load().await;
    // For this service only: where credentials come from has addresses of its own.
    let endpoint = settings.endpoint.as_ref().map(ToString::to_string);
    if settings.kind == Kind::EcrPublic {
        let mut config = aws_sdk_ecrpublic::config::Builder::from(&config);
        config.set_endpoint_url(endpoint);
        return Client::Public(aws_sdk_ecrpublic::Client::from_conf(config.build()));
    }
    let mut config = aws_sdk_ecr::config::Builder::from(&config);
    config.set_endpoint_url(endpoint);
    Client::Private(aws_sdk_ecr::Client::from_conf(config.build()))
}

fn life(ends: Option<DateTime>, now: SystemTime) -> Duration {
    let ends = ends.and_then(|it| SystemTime::try_from(it).ok());
    ends.map_or(UNKNOWN, |it| it.duration_since(now).unwrap_or_default())
}

/// The first error of a type among an error and its causes.
fn cause<'a, T: Error + 'static>(mut error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    loop {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        error = error.source()?;
    }
}
