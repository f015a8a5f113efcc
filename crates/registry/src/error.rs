//! Why a registry gave no usable answer.
//!
//! An HTTP status is an answer, whatever it is; an error means that there is none. The text comes
//! without queries, because a redirect's query may hold a signature that opens the content.

use std::error::Error;
use std::io;

use shoal_oci::RegistryName;

use crate::redirect::Refused;

/// A request that got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("registry {registry}: {what}")]
pub struct RegistryError {
    /// The configured name of the registry that was asked.
    pub registry: RegistryName,
    /// Request and fault in plain text.
    pub what: String,
    /// What a caller may decide by.
    pub kind: ErrorKind,
}

/// The kinds of fault that callers treat differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Nobody answers there.
    Connect,
    /// An answer, or the next byte of it, did not come in time.
    Timeout,
    /// The certificate is not trusted, or the handshake failed.
    Tls,
    /// The registry sent us somewhere that we do not go.
    Redirect,
    /// The store that the registry redirects to refuses to give the content.
    Store,
    /// What came was not HTTP, or broke off.
    Protocol,
}

/// Finds the fault behind a client error, and its innermost text: the outer layers only say that
/// connecting or reading failed.
pub(crate) fn diagnose(error: &(dyn Error + 'static), otherwise: ErrorKind) -> (ErrorKind, String) {
    let mut kind = otherwise;
    let mut innermost = error.to_string();
    let mut layer = Some(error);
    while let Some(it) = layer {
        innermost = it.to_string();
        if it.is::<rustls::Error>() {
            kind = ErrorKind::Tls;
        } else if it.is::<Refused>() {
            kind = ErrorKind::Redirect;
        }
        layer = match it.downcast_ref::<io::Error>() {
            Some(io) if io.kind() == io::ErrorKind::TimedOut => return (ErrorKind::Timeout, innermost),
            // An io::Error hides the error that it wraps from `source`.
            Some(io) => io.get_ref().map(|it| it as &(dyn Error + 'static)),
            None => it.source(),
        };
    }
    (kind, innermost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: io::Error, expected: ErrorKind) {
        assert_eq!(diagnose(&error, ErrorKind::Connect).0, expected);
    }

    #[test]
    fn the_fault_is_found_below_the_layers_that_wrap_it() {
        let nested = io::Error::other(io::Error::other(rustls::Error::HandshakeNotComplete));
        check(nested, ErrorKind::Tls);
        check(io::ErrorKind::TimedOut.into(), ErrorKind::Timeout);
        check(io::ErrorKind::ConnectionRefused.into(), ErrorKind::Connect);
        check(io::Error::other(Refused::Downgrade), ErrorKind::Redirect);
    }
}
