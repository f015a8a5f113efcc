//! The error codes of the distribution protocol, the HTTP status each goes with, and the JSON body
//! that carries them.
//!
//! Status and code are one table: runtimes decide by the status alone whether they go to the next
//! host, so a code must never be sent with another status. The statuses are the ones the reference
//! registry (CNCF distribution) uses where the specification leaves them open.

use std::fmt;

use serde_json::{Value, json};

/// An error code that clients of a registry know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The registry does not have the blob.
    BlobUnknown,
    /// The text is no digest, or the content does not have it.
    DigestInvalid,
    /// The manifest cannot be read.
    ManifestInvalid,
    /// The repository has no such manifest.
    ManifestUnknown,
    /// The text is no repository name.
    NameInvalid,
    /// The registry does not have the repository.
    NameUnknown,
    /// The caller has to log in.
    Unauthorized,
    /// The caller is known, and may not.
    Denied,
    /// The operation is not offered.
    Unsupported,
    /// The service cannot answer at present.
    Unavailable,
    /// The range lies outside the content.
    RangeInvalid,
}

impl ErrorCode {
    /// The code as it stands in the body, for example `BLOB_UNKNOWN`.
    pub const fn as_str(self) -> &'static str {
        self.entry().0
    }

    /// The HTTP status that goes with the code.
    pub const fn status(self) -> u16 {
        self.entry().1
    }

    /// The JSON body of an error answer: `{"errors":[{"code":..,"message":..,"detail":..}]}`, without
    /// `detail` where there is none.
    ///
    /// ```
    /// use shoal_oci::ErrorCode;
    ///
    /// let body = ErrorCode::BlobUnknown.body("blob unknown to registry", None);
    /// assert_eq!(body, br#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#);
    /// ```
    pub fn body(self, message: &str, detail: Option<Value>) -> Vec<u8> {
        let code = self.as_str();
        let error = match detail {
            Some(detail) => json!({ "code": code, "message": message, "detail": detail }),
            None => json!({ "code": code, "message": message }),
        };
        json!({ "errors": [error] }).to_string().into_bytes()
    }

    const fn entry(self) -> (&'static str, u16) {
        match self {
            Self::BlobUnknown => ("BLOB_UNKNOWN", 404),
            Self::DigestInvalid => ("DIGEST_INVALID", 400),
            Self::ManifestInvalid => ("MANIFEST_INVALID", 400),
            Self::ManifestUnknown => ("MANIFEST_UNKNOWN", 404),
            Self::NameInvalid => ("NAME_INVALID", 400),
            Self::NameUnknown => ("NAME_UNKNOWN", 404),
            Self::Unauthorized => ("UNAUTHORIZED", 401),
            Self::Denied => ("DENIED", 403),
            Self::Unsupported => ("UNSUPPORTED", 405),
            Self::Unavailable => ("UNAVAILABLE", 503),
            Self::RangeInvalid => ("RANGE_INVALID", 416),
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text was refused, ready to be answered to whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OciError {
    /// What a client is told in the protocol's terms.
    pub code: ErrorCode,
    /// What a person is told: `subject: what went wrong`.
    pub message: String,
}

impl OciError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    /// The JSON body of the answer; its status is `self.code.status()`.
    pub fn body(&self) -> Vec<u8> {
        self.code.body(&self.message, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_carries_code_message_and_detail_as_json() {
        let body = ErrorCode::Denied.body("say \"please\"\n", Some(json!({ "repository": "prod/app" })));
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap(),
            json!({"errors": [{
                "code": "DENIED",
                "message": "say \"please\"\n",
                "detail": { "repository": "prod/app" },
            }]})
        );
    }

    #[test]
    fn an_error_answers_with_its_own_code_and_message() {
        let error = OciError::new(ErrorCode::DigestInvalid, "digest \"x\": has no algorithm");
        assert_eq!(error.body(), ErrorCode::DigestInvalid.body("digest \"x\": has no algorithm", None));
        assert_eq!(error.code.status(), 400);
    }
}
