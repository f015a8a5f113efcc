//! The token that a request shows.
//!
//! It comes as `Authorization: Bearer <token>`, or as the password of `Basic`, whatever the user: Harbor's
//! portal stores its two fields in a way that sends the word `password` in place of the user most of the
//! time, and the user in place of the password otherwise; the latter proves nothing and is no token. A query
//! is not looked at, because queries end in logs. Two headers are as good as none: it must not matter which
//! of them somebody in between has looked at.
//!
//! Knows nothing of: which tokens there are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use super::token::TokenHash;

/// The longest credential that is decoded, in characters.
const MAX_LEN: usize = 4096;

/// The hash of the token that comes with these headers, if one does.
pub(super) fn presented(headers: &HeaderMap) -> Option<TokenHash> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, credential) = value.to_str().ok()?.split_once(' ')?;
    let credential = credential.trim_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") {
        return TokenHash::of(credential);
    }
    if !scheme.eq_ignore_ascii_case("basic") || credential.len() > MAX_LEN {
        return None;
    }
    let decoded = Zeroizing::new(STANDARD.decode(credential).ok()?);
    let (_, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    TokenHash::of(password)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn token() -> String {
        TokenHash::fresh([7; 32]).0.expose().to_owned()
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[track_caller]
    fn check(values: &[&str], expected: bool) {
        let values = values.iter().map(|it| (AUTHORIZATION, HeaderValue::from_str(it).unwrap()));
        let found = presented(&values.collect());
        assert_eq!(found.is_some_and(|it| it.is(&TokenHash::fresh([7; 32]).1)), expected);
    }

    #[test]
    fn a_token_comes_as_bearer_or_as_a_password() {
        let token = token();
        for good in [
            format!("Bearer {token}"),
            format!("bEARER  {token} "),
            basic(&format!("password:{token}")),
            basic(&format!("harbor:{token}")),
            basic(&format!(":{token}")).replacen("Basic", "basic", 1),
        ] {
            check(&[&good], true);
        }
        for bad in [
            token.clone(),
            format!("Bearer{token}"),
            format!("Bearer {token} more"),
            format!("Token {token}"),
            basic(&token),
            basic(&format!("{token}:password")),
            basic(&format!("username:harbor:{token}")),
            format!("Basic password:{token}"),
            format!("Basic {}", STANDARD.encode([0xff; 64])),
            "Basic".to_owned(),
            String::new(),
        ] {
            check(&[&bad], false);
        }
    }

    #[test]
    fn two_headers_are_as_good_as_none() {
        let good = format!("Bearer {}", token());
        check(&[], false);
        check(&[&good, &good], false);
    }

    proptest! {
        #[test]
        fn no_header_is_too_strange(bytes: Vec<u8>, scheme in "(Basic |Bearer )?") {
            let value = [scheme.as_bytes(), &bytes].concat();
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                prop_assert!(presented(&HeaderMap::from_iter([(AUTHORIZATION, value)])).is_none());
            }
        }
    }
}
