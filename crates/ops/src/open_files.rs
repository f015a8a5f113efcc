//! How many files and sockets the process may hold open.
//!
//! Each connection takes one, and each blob in use another. Systems commonly start a process with a soft limit
//! of 1024, for the sake of programs that call `select`, which none of ours does. What the administrator
//! allows is the hard limit.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What a busy node needs.
const ENOUGH: u64 = 4096;

/// How many of them the connections of clients may take together. The rest is for blobs, and for what the process
/// dials itself: a crowd of clients must not keep it from its work.
pub fn for_clients() -> usize {
    // Without a limit, and where the system does not say, there is nothing to go by.
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX));
    usize::try_from(soft / 4).unwrap_or(usize::MAX).saturating_mul(3)
}

/// Raises the limit to what the administrator allows, and warns where that is little.
pub(crate) fn raise_limit() {
    match raise_to_hard_limit() {
        Ok(limit) if limit < ENOUGH => {
            tracing::warn!(limit, enough = ENOUGH, "few open files allowed, connections may have to wait");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "limit of open files not raised"),
    }
}

fn raise_to_hard_limit() -> nix::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard - 1, hard).unwrap();
        assert_eq!(raise_to_hard_limit(), Ok(hard));
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok((hard, hard)));
    }
}
