//! A caller's own credential on its way to the registry.

use std::fmt;

/// The value of a caller's `Authorization` header. It is passed on, never stored; its `Debug` shows
/// nothing, so that a forgotten log line stays harmless.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorization(String);

impl Authorization {
    /// Wraps a header's value as received.
    pub const fn new(value: String) -> Self {
        Self(value)
    }

    /// The value, for the request that carries it on.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization(…)")
    }
}
