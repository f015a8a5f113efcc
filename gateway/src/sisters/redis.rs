//! The questions that are asked of Redis, one script each, so that Redis decides and gateways race for nothing.
//!
//! Nobody waits for it: each answer has a short deadline, and when one has not come the link counts as lost. From then
//! on questions are refused at once, until [`Redis::attend`], which is called again and again, has made another.
//! Redis counts the time of what it keeps by its own clock.

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, FromRedisValue, IntoConnectionInfo, TlsCertificates,
};
use shoal_model::{BlobKey, NodeId};

use super::claim::{Answer, LIFE};
use super::roll::MAX_SISTERS;
use crate::settings::RedisSettings;

/// How long a connection may take, and then each answer.
const DEADLINE: Duration = Duration::from_millis(500);
/// How long a gateway that does not attend counts as there.
const ATTENDANCE: Duration = Duration::from_secs(10);

/// Notes the address ARGV[1] for ARGV[2] ms and returns up to ARGV[3] that are noted.
const ATTEND: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZRANGE', KEYS[1], 0, ARGV[3] - 1)";

/// Gives the lease KEYS[1] to ARGV[1] for ARGV[4] ms, or renews it where its epoch is ARGV[2], unless another has it;
/// returns epoch and holder. An epoch is more than the last, KEYS[2], and no less than the asker's clock, ARGV[3].
/// What no gateway has written, and what would never end, is no lease; nor is a number beyond what Lua counts exactly an
/// epoch.
const HOLD: &str = r"
local held = redis.call('GET', KEYS[1])
if held and redis.call('PTTL', KEYS[1]) > 0 then
  local epoch, holder = string.match(held, '^(%d+) (.+)$')
  if holder and #epoch > 16 then holder = nil end
  if holder and holder ~= ARGV[1] then return held end
  if holder and epoch == ARGV[2] then
    redis.call('PEXPIRE', KEYS[1], ARGV[4])
    return held
  end
end
local last = tonumber(redis.call('GET', KEYS[2])) or 0
if last >= 2 ^ 53 then last = 0 end
local epoch = string.format('%.0f', math.max(tonumber(ARGV[3]), last + 1))
redis.call('SET', KEYS[2], epoch)
held = epoch .. ' ' .. ARGV[1]
redis.call('SET', KEYS[1], held, 'PX', ARGV[4])
return held";

/// Ends the lease KEYS[1] where it is as ARGV[1] says.
const RELEASE: &str = "
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0";

/// Why Redis did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RedisError {
    #[error("redis is away")]
    Away,
    #[error("redis")]
    Failed(#[from] redis::RedisError),
    #[error("redis.ca {file}: {error}")]
    Ca { file: String, error: std::io::Error },
    #[error("redis: a lease that reads {0:?}")]
    Malformed(String),
}

/// The region's Redis.
pub(super) struct Redis {
    settings: Mutex<RedisSettings>,
    link: Mutex<Link>,
}

enum Link {
    Untried,
    Up(MultiplexedConnection),
    Lost,
}

impl Redis {
    /// Without a link yet.
    pub(super) const fn new(settings: RedisSettings) -> Self {
        Self { settings: Mutex::new(settings), link: Mutex::new(Link::Untried) }
    }

    /// Whether it answered when it was last asked.
    pub(super) fn is_up(&self) -> bool {
        matches!(*self.link(), Link::Up(_))
    }

    /// Says that this gateway lives and has this address; returns those of all that do. Makes a link where there is none.
    pub(super) async fn attend(&self, address: &str) -> Result<Vec<String>, RedisError> {
        if !self.is_up() {
            let dialled = self.dial().await;
            self.note(dialled)?;
        }
        // One more than others may be: itself.
        let most = MAX_SISTERS + 1;
        let mut question = redis::cmd("EVAL");
        question.arg(ATTEND).arg(1).arg(self.key("gateways"));
        question.arg(address).arg(millis(ATTENDANCE)).arg(most);
        self.ask(&question).await
    }

    /// Asks for the lease on a blob, or renews the one of the epoch `leased`. A fresh one has an epoch of at least `clock`.
    pub(super) async fn hold(
        &self,
        key: &BlobKey,
        me: &NodeId,
        leased: Option<u64>,
        clock: u64,
    ) -> Result<Answer, RedisError> {
        let mut question = redis::cmd("EVAL");
        question.arg(HOLD).arg(2).arg(self.lease(key)).arg(self.key("epoch"));
        question.arg(me.as_str()).arg(leased.unwrap_or(0)).arg(clock).arg(millis(LIFE));
        let held: String = self.ask(&question).await?;
        match held.split_once(' ').and_then(|(epoch, holder)| Some((epoch.parse().ok()?, holder))) {
            Some((epoch, holder)) if holder == me.as_str() => Ok(Answer::Yours { epoch }),
            Some((_, holder)) => Ok(Answer::Another(NodeId::new(holder))),
            None => Err(RedisError::Malformed(held)),
        }
    }

    /// Gives a lease back.
    pub(super) async fn release(&self, key: &BlobKey, me: &NodeId, leased: u64) -> Result<(), RedisError> {
        let mut question = redis::cmd("EVAL");
        question.arg(RELEASE).arg(1).arg(self.lease(key)).arg(format!("{leased} {me}"));
        self.ask::<u64>(&question).await.map(drop)
    }

    async fn ask<T: FromRedisValue>(&self, question: &Cmd) -> Result<T, RedisError> {
        let connection = match &*self.link() {
            Link::Up(connection) => Some(connection.clone()),
            Link::Untried | Link::Lost => None,
        };
        let mut connection = connection.ok_or(RedisError::Away)?;
        // The connection has a deadline for each answer.
        let answer = question.query_async(&mut connection).await;
        Ok(answer.inspect_err(|it| self.lost(it))?)
    }

    async fn dial(&self) -> Result<MultiplexedConnection, RedisError> {
        let client = self.client()?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        Ok(connecting.await?)
    }

    fn client(&self) -> Result<Client, RedisError> {
        let mut settings = self.settings();
        // A file that is just being replaced leaves what was read before.
        let RedisSettings { username, password, .. } = &mut *settings;
        for secret in [username, password].into_iter().flatten() {
            let _ = secret.read_again();
        }
        let info = connection_info(&settings)?;
        match &settings.ca {
            None => Ok(Client::open(info)?),
            Some(file) => {
                let named = |error| RedisError::Ca { file: file.display().to_string(), error };
                let root_cert = Some(std::fs::read(file).map_err(named)?);
                Ok(Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })?)
            }
        }
    }

    /// Takes a link that was made, or tells, once, that none could be.
    fn note(&self, dialled: Result<MultiplexedConnection, RedisError>) -> Result<(), RedisError> {
        let mut link = self.link();
        match dialled {
            Ok(connection) => {
                tracing::info!(redis = self.settings().url, "redis answers");
                *link = Link::Up(connection);
                Ok(())
            }
            Err(error) => {
                if matches!(*link, Link::Untried) {
                    self.warn(&error);
                }
                *link = Link::Lost;
                Err(error)
            }
        }
    }

    fn lost(&self, error: &redis::RedisError) {
        let mut link = self.link();
        if matches!(*link, Link::Up(_)) {
            self.warn(error);
        }
        *link = Link::Lost;
    }

    fn warn(&self, error: &(dyn Error + 'static)) {
        tracing::warn!(
            redis = self.settings().url,
            error,
            "redis is away: gateways that were last known share the work by their names, without leases"
        );
    }

    fn lease(&self, key: &BlobKey) -> String {
        self.key(&format!("lease:{key}"))
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.settings().prefix)
    }

    fn settings(&self) -> MutexGuard<'_, RedisSettings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connection_info(settings: &RedisSettings) -> redis::RedisResult<ConnectionInfo> {
    let info = settings.url.as_str().into_connection_info()?;
    let mut redis = info.redis_settings().clone();
    if let Some(username) = &settings.username {
        redis = redis.set_username(username.secret().expose());
    }
    if let Some(password) = &settings.password {
        redis = redis.set_password(password.secret().expose());
    }
    Ok(info.set_redis_settings(redis))
}

fn millis(it: Duration) -> u64 {
    u64::try_from(it.as_millis()).unwrap_or(u64::MAX)
}
