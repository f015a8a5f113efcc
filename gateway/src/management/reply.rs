//! Answers that are not the thing that was asked for, in the form that Dragonfly's clients know.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::book::Conflict;
use super::rates::TooMany;
use super::store::ChangeError;
use super::token::Refusal;
use crate::fields::Mistakes;

/// Why something was not done.
#[derive(Serialize, ToSchema)]
pub(crate) struct Message {
    message: String,
}

/// All that is wrong with a body or a query.
#[derive(Serialize, ToSchema)]
pub(crate) struct Errors {
    errors: Vec<String>,
}

/// A status and a sentence: `{"message": "Unauthorized"}`.
#[derive(Debug)]
pub(crate) struct Reply {
    status: StatusCode,
    message: String,
}

/// A caller without a good token is told how to show one.
pub(super) fn unauthorized() -> Response {
    let mut response = Reply::new(StatusCode::UNAUTHORIZED, "Unauthorized").into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

impl Reply {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The two of them.
    pub(crate) fn into_parts(self) -> (StatusCode, Message) {
        (self.status, Message { message: self.message })
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let (status, message) = self.into_parts();
        (status, Json(message)).into_response()
    }
}

/// All of them: `{"errors": ["name is missing"]}`.
impl IntoResponse for Mistakes {
    fn into_response(self) -> Response {
        (StatusCode::UNPROCESSABLE_ENTITY, Json(Errors { errors: self.0 })).into_response()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let message = match self {
            Self::Expired => "Token has expired".to_owned(),
            Self::Lacks(scope) => format!("Token lacks the scope {}", scope.as_str()),
            Self::Ends(end) => format!("Token ends at {end}, and what it makes must not outlive it"),
        };
        Reply::new(StatusCode::FORBIDDEN, message).into_response()
    }
}

impl IntoResponse for TooMany {
    fn into_response(self) -> Response {
        let mut response = Reply::new(StatusCode::TOO_MANY_REQUESTS, "rate limit exceeded").into_response();
        // Whole seconds, rounded up: who comes at that time must not be too early again.
        let wait = self.0.saturating_add(Duration::from_nanos(999_999_999)).as_secs();
        response.headers_mut().insert(RETRY_AFTER, wait.into());
        response
    }
}

impl From<BytesRejection> for Reply {
    fn from(rejection: BytesRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<Conflict> for Reply {
    fn from(conflict: Conflict) -> Self {
        let status = match conflict {
            Conflict::Unknown(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, conflict.to_string())
    }
}

impl From<ChangeError> for Reply {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Conflict(conflict) => conflict.into(),
            ChangeError::Store(error) => {
                tracing::error!(%error, "tokens cannot be changed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the tokens cannot be written down")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_told_in_whole_seconds_that_are_long_enough() {
        for (wait, expected) in [(1, "1"), (999, "1"), (1000, "1"), (1001, "2"), (0, "0")] {
            let response = TooMany(Duration::from_millis(wait)).into_response();
            assert_eq!(response.headers()[RETRY_AFTER], expected, "{wait}");
        }
    }
}
