//! The questions that are asked of Redis, one script each, so that Redis decides and gateways race for nothing.
//!
//! Nobody waits for it: each answer has a short deadline, and when one has not come the link counts as lost. From then
//! on questions are refused at once, until [`Redis::attend`], which is called again and again, has made another.
//! Redis counts the time of what it keeps by its own clock.

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Cmd, FromRedisValue};
use shoal_model::NodeId;

use super::claim::Answer;
use super::dial::{Connection, Dialler, secrets};
use super::roll::MAX_SISTERS;
use crate::budget::CREDIT;
use crate::settings::RedisSettings;

/// How long a gateway that does not attend counts as there.
const ATTENDANCE: Duration = Duration::from_secs(10);

/// The time ahead of which a budget is at least believed to have been lent.
const AHEAD: Duration = Duration::from_secs(2);

/// Notes the address ARGV[1] for ARGV[2] ms and returns up to ARGV[3] that are noted.
const ATTEND: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZRANGE', KEYS[1], 0, ARGV[3] - 1)";

/// Gives the lease KEYS[1] to ARGV[1] for ARGV[4] ms, or renews it where its epoch is ARGV[2], unless another has it; no
/// renewal makes it shorter. Returns epoch and holder. An epoch is more than the last, KEYS[2], and no less than the asker's clock, ARGV[3].
/// What no gateway has written, and what would never end, is no lease; nor is a number beyond what Lua counts exactly an
/// epoch.
const HOLD: &str = r"
local held = redis.call('GET', KEYS[1])
if held and redis.call('PTTL', KEYS[1]) > 0 then
  local epoch, holder = string.match(held, '^(%d+) (.+)$')
  if holder and #epoch > 16 then holder = nil end
  if holder and holder ~= ARGV[1] then return held end
  if holder and epoch == ARGV[2] then
    if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
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

/// Lends what costs ARGV[1] us of the budget KEYS[1], for whose next lot it is the time that KEYS[1] says; returns how many us
/// that is ahead. Of what nobody has borrowed only the last ARGV[2] us are kept. A time that is further ahead than ARGV[3] us
/// no gateway has written.
const LEND: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local from = tonumber(redis.call('GET', KEYS[1])) or 0
if not (from >= now - ARGV[2] and from <= now + ARGV[3]) then from = now - ARGV[2] end
local ahead = math.max(0, from + ARGV[1] - now)
redis.call('SET', KEYS[1], string.format('%.0f', from + ARGV[1]), 'PX', math.ceil(ahead / 1000) + 1000)
return math.floor(math.max(0, from - now))";

/// Why Redis did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RedisError {
    #[error("redis is away")]
    Away,
    #[error("redis: no connection in time")]
    Silent,
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
    Up(Connection),
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

    /// Says that this gateway lives and has this address; returns those of all that do. Makes a link where there is none:
    /// one over which this is answered.
    pub(super) async fn attend(&self, address: &str) -> Result<Vec<String>, RedisError> {
        // One more than others may be: itself.
        let most = MAX_SISTERS + 1;
        let mut question = redis::cmd("EVAL");
        question.arg(ATTEND).arg(1).arg(self.key("gateways"));
        question.arg(address).arg(millis(ATTENDANCE)).arg(most);
        if self.is_up() {
            return self.ask(&question).await;
        }
        let dialled = async {
            let mut connection = self.dialler()?.dial().await?;
            let answer = connection.ask(&question).await?;
            Ok((connection, answer))
        };
        self.note(dialled.await)
    }

    /// Asks for a lease that shall live so long, or renews the one of the epoch `leased`. A fresh one has an epoch of at
    /// least `clock`.
    pub(super) async fn hold(
        &self,
        lease: &str,
        me: &NodeId,
        life: Duration,
        (leased, clock): (Option<u64>, u64),
    ) -> Result<Answer, RedisError> {
        let mut question = redis::cmd("EVAL");
        question.arg(HOLD).arg(2).arg(self.key(lease)).arg(self.key("epoch"));
        question.arg(me.as_str()).arg(leased.unwrap_or(0)).arg(clock).arg(millis(life));
        let held: String = self.ask(&question).await?;
        match held.split_once(' ').and_then(|(epoch, holder)| Some((epoch.parse().ok()?, holder))) {
            Some((epoch, holder)) if holder == me.as_str() => Ok(Answer::Yours { epoch }),
            Some((_, holder)) => Ok(Answer::Another(NodeId::new(holder))),
            None => Err(RedisError::Malformed(held)),
        }
    }

    /// Gives a lease back.
    pub(super) async fn release(&self, lease: &str, me: &NodeId, leased: u64) -> Result<(), RedisError> {
        let mut question = redis::cmd("EVAL");
        question.arg(RELEASE).arg(1).arg(self.key(lease)).arg(format!("{leased} {me}"));
        self.ask::<u64>(&question).await.map(drop)
    }

    /// Lends what costs `price` of a budget: so long nothing else of it is lent. Returns how long until it may be spent.
    pub(super) async fn lend(&self, budget: &str, price: Duration) -> Result<Duration, RedisError> {
        let mut question = redis::cmd("EVAL");
        question.arg(LEND).arg(1).arg(self.key(&format!("budget:{budget}")));
        // Each gateway has asked for at most one lot that others wait behind.
        let most_ahead = AHEAD.max(price * (MAX_SISTERS as u32 + 1));
        question.arg(micros(price)).arg(micros(CREDIT)).arg(micros(most_ahead));
        self.ask(&question).await.map(Duration::from_micros)
    }

    async fn ask<T: FromRedisValue>(&self, question: &Cmd) -> Result<T, RedisError> {
        let connection = match &*self.link() {
            Link::Up(connection) => Some(connection.clone()),
            Link::Untried | Link::Lost => None,
        };
        let mut connection = connection.ok_or(RedisError::Away)?;
        // The connection has a deadline for each answer.
        let answer = connection.ask(question).await;
        Ok(answer.inspect_err(|it| self.lost(it))?)
    }

    fn dialler(&self) -> Result<Dialler, RedisError> {
        let mut settings = self.settings();
        // A file that is just being replaced leaves what was read before.
        secrets(&mut settings).for_each(|it| drop(it.read_again()));
        Dialler::new(&settings)
    }

    /// Takes a link that was made, or tells, once, that none could be.
    fn note<T>(&self, dialled: Result<(Connection, T), RedisError>) -> Result<T, RedisError> {
        let mut link = self.link();
        match dialled {
            Ok((connection, answer)) => {
                tracing::info!(redis = %self.settings().servers, "redis answers");
                *link = Link::Up(connection);
                Ok(answer)
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
            redis = %self.settings().servers,
            error,
            "redis is away: gateways that were last known share the work by their names and the limits by their number"
        );
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

fn micros(it: Duration) -> u64 {
    u64::try_from(it.as_micros()).unwrap_or(u64::MAX)
}

fn millis(it: Duration) -> u64 {
    u64::try_from(it.as_millis()).unwrap_or(u64::MAX)
}
