//! Connections to Redis, of whatever kind that is: one, whoever is the master by the word of Sentinels, or a Cluster.
//!
//! A connection is to whoever is there now. What becomes of that later shows when an answer fails to come, or says that it
//! is the wrong one's; then another is made, for which Sentinels are asked anew. A connection to a Cluster finds the member
//! that has the keys by itself.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, FromRedisValue, IntoConnectionInfo, RedisResult,
    TlsCertificates, TlsMode,
};
use shoal_ops::settings::SecretSource;
use tokio::time::timeout;

use super::redis::RedisError;
use crate::settings::{RedisServers, RedisSettings, SentinelSettings};

/// How long each step of making a connection may take, and then each answer.
const DEADLINE: Duration = Duration::from_millis(500);
/// How long all steps may take together.
const DIALLING: Duration = Duration::from_secs(1);

/// A connection; clones are of the same.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Asks, and waits for the answer until the deadline.
    pub(super) async fn ask<T: FromRedisValue>(&mut self, question: &Cmd) -> RedisResult<T> {
        match self {
            Self::Single(it) => question.query_async(it).await,
            Self::Cluster(it) => question.query_async(it).await,
        }
    }
}

/// Whoever makes connections, with what was last read of secrets and certificates.
pub(super) enum Dialler {
    Single(Client),
    Sentinels(Box<SentinelClient>),
    Cluster(Box<ClusterClient>),
}

impl Dialler {
    /// Reads files, connects nowhere.
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, RedisError> {
        let certificates = settings.ca.as_ref().map(|file| {
            let named = |error| RedisError::Ca { file: file.display().to_string(), error };
            let root_cert = Some(std::fs::read(file).map_err(named)?);
            Ok::<_, RedisError>(TlsCertificates { client_tls: None, root_cert })
        });
        let certificates = certificates.transpose()?;
        Ok(match &settings.servers {
            RedisServers::One(url) => Self::Single(match certificates {
                None => Client::open(login(settings, url)?)?,
                Some(it) => Client::build_with_tls(login(settings, url)?, it)?,
            }),
            RedisServers::Sentinels(sentinels) => {
                Self::Sentinels(Box::new(by_sentinels(settings, sentinels, certificates)?))
            }
            RedisServers::Cluster(urls) => {
                let members = urls.iter().map(|url| login(settings, url)).collect::<RedisResult<Vec<_>>>()?;
                let builder = ClusterClientBuilder::new(members)
                    .connection_timeout(DEADLINE)
                    .response_timeout(DEADLINE);
                let builder = certificates.into_iter().fold(builder, ClusterClientBuilder::certs);
                Self::Cluster(Box::new(builder.build()?))
            }
        })
    }

    pub(super) async fn dial(self) -> Result<Connection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        let dialling = async {
            Ok(match self {
                Self::Single(it) => {
                    Connection::Single(it.get_multiplexed_async_connection_with_config(&config).await?)
                }
                Self::Sentinels(mut it) => {
                    Connection::Single(it.get_async_connection_with_config(&config).await?)
                }
                Self::Cluster(it) => Connection::Cluster(it.get_async_connection().await?),
            })
        };
        timeout(DIALLING, dialling).await.map_err(|_| RedisError::Silent)?
    }
}

fn by_sentinels(
    settings: &RedisSettings,
    sentinels: &SentinelSettings,
    certificates: Option<TlsCertificates>,
) -> RedisResult<SentinelClient> {
    let infos = sentinels.urls.iter().map(|it| it.as_str().into_connection_info());
    let infos = infos.collect::<RedisResult<Vec<_>>>()?;
    let database = infos.first().map_or(0, |it| it.redis_settings().db());
    let addresses = infos.into_iter().map(|it| it.addr().clone());
    let mut builder =
        SentinelClientBuilder::new(addresses, sentinels.master.as_str(), SentinelServerType::Master)?
            .set_client_to_redis_db(database);
    if let Some(it) = &settings.username {
        builder = builder.set_client_to_redis_username(it.secret().expose());
    }
    if let Some(it) = &settings.password {
        builder = builder.set_client_to_redis_password(it.secret().expose());
    }
    if let Some(it) = &sentinels.username {
        builder = builder.set_client_to_sentinel_username(it.secret().expose());
    }
    if let Some(it) = &sentinels.password {
        builder = builder.set_client_to_sentinel_password(it.secret().expose());
    }
    if settings.servers.has_tls() {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
    }
    if let Some(it) = certificates {
        builder =
            builder.set_client_to_redis_certificates(it.clone()).set_client_to_sentinel_certificates(it);
    }
    builder.build()
}

/// An address with who the gateway is there.
fn login(settings: &RedisSettings, url: &str) -> RedisResult<ConnectionInfo> {
    let info = url.into_connection_info()?;
    let mut redis = info.redis_settings().clone();
    if let Some(username) = &settings.username {
        redis = redis.set_username(username.secret().expose());
    }
    if let Some(password) = &settings.password {
        redis = redis.set_password(password.secret().expose());
    }
    Ok(info.set_redis_settings(redis))
}

/// All secrets of the settings.
pub(super) fn secrets(settings: &mut RedisSettings) -> impl Iterator<Item = &mut SecretSource> {
    let sentinel = match &mut settings.servers {
        RedisServers::Sentinels(it) => [it.username.as_mut(), it.password.as_mut()],
        RedisServers::One(_) | RedisServers::Cluster(_) => [None, None],
    };
    [settings.username.as_mut(), settings.password.as_mut()].into_iter().chain(sentinel).flatten()
}
