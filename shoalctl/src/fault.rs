//! What a command ends with: an exit code, and where it was not carried out, why, through whom, and what to do.

use std::process::ExitCode;

use http::StatusCode;
use shoal_ask::{Answer, HttpError};

/// What the process ends with; `--help` documents it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for was done.
    Done = 0,
    /// It was looked at, and the answer is a failure: a job that failed, a set-up in which something is wrong.
    Failure = 1,
    /// The command or its settings are wrong.
    Usage = 2,
    /// The other side was not reached, or cannot answer.
    Unreachable = 3,
    /// The other side refuses the caller.
    Refused = 4,
    /// There is no such thing.
    NotFound = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}\n  fix: {fix}")]
pub struct Fault {
    /// What the process ends with.
    pub exit: Exit,
    /// What failed, and whose fault that is.
    pub what: String,
    /// What to do.
    pub fix: String,
}

impl Fault {
    /// Why, and what to do.
    pub fn new(exit: Exit, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { exit, what: what.into(), fix: fix.into() }
    }

    /// The command is wrong.
    pub fn usage(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what, fix)
    }
}

/// A gateway that did not answer.
pub fn unreached(error: &HttpError) -> Fault {
    let fix = "is the gateway running, is --gateway (SHOAL_GATEWAY) the address of its management.listen, and is \
               --ca-file the authority of its certificate? That listener is on the gateway's loopback unless told \
               otherwise";
    Fault::new(Exit::Unreachable, format!("gateway {error}"), fix)
}

/// What an answer of a gateway means that is no success; `asked` is the method and the path.
pub fn refusal(asked: &str, answer: &Answer) -> Fault {
    let (status, message) = (answer.status, answer.message());
    let says = format!("gateway says {} to {asked}: {message}", status.as_u16());
    match status {
        StatusCode::UNAUTHORIZED => Fault::new(
            Exit::Refused,
            says,
            "show a token that it knows: --token-file, SHOAL_TOKEN_FILE or SHOAL_TOKEN",
        ),
        StatusCode::FORBIDDEN => Fault::new(
            Exit::Refused,
            says,
            "show a token that has not ended and has the scope: `read` to look, `preheat` for jobs, `delete` to purge",
        ),
        StatusCode::NOT_FOUND if message == "Not Found" => Fault::new(
            Exit::NotFound,
            says,
            "is it a gateway's management API, and no older than this command?",
        ),
        StatusCode::NOT_FOUND => {
            Fault::new(Exit::NotFound, says, "list what there is: `shoalctl tasks`, `shoalctl preheat list`")
        }
        StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST => {
            Fault::new(Exit::Usage, says, "mend what it names")
        }
        StatusCode::TOO_MANY_REQUESTS => Fault::new(
            Exit::Failure,
            says,
            "wait for others of this token or for jobs to end, and ask again; \
             management.requestsPerSecond of the gateway is how often one token may be shown",
        ),
        _ if status.is_server_error() => {
            Fault::new(Exit::Unreachable, says, "the gateway's log says more; ask again when it is well")
        }
        _ => Fault::new(Exit::Failure, says, "is --gateway the address of a gateway's management.listen?"),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[track_caller]
    fn check(status: u16, body: &str, exit: Exit, parts: &[&str]) {
        let status = StatusCode::from_u16(status).unwrap();
        let answer = Answer { status, headers: HeaderMap::new(), body: body.to_owned().into() };
        let fault = refusal("GET /api/v1/tasks", &answer);
        assert_eq!(fault.exit, exit, "{fault}");
        for part in parts {
            assert!(fault.to_string().contains(part), "{part:?} in {fault}");
        }
    }

    #[test]
    fn an_answer_says_whose_fault_it_is() {
        check(401, r#"{"message":"Unauthorized"}"#, Exit::Refused, &["says 401", "--token-file"]);
        check(403, r#"{"message":"Token lacks the scope read"}"#, Exit::Refused, &["lacks the scope read"]);
        check(404, r#"{"message":"task \"x\" does not exist"}"#, Exit::NotFound, &["does not exist", "list"]);
        check(404, r#"{"message":"Not Found"}"#, Exit::NotFound, &["management API"]);
        check(422, r#"{"errors":["a is wrong","b is wrong"]}"#, Exit::Usage, &["a is wrong; b is wrong"]);
        check(429, r#"{"message":"rate limit exceeded"}"#, Exit::Failure, &["requestsPerSecond"]);
        check(503, r#"{"message":"no answer of a scheduler"}"#, Exit::Unreachable, &["no answer of"]);
        check(302, "moved", Exit::Failure, &["management.listen"]);
    }

    #[test]
    fn codes_are_those_of_the_help() {
        let all = [Exit::Done, Exit::Failure, Exit::Usage, Exit::Unreachable, Exit::Refused, Exit::NotFound];
        assert_eq!(all.map(|it| it as u8), [0, 1, 2, 3, 4, 5]);
    }
}
