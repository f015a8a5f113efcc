//! What `doctor` found, and how it is told.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use crate::fault::Exit;
use crate::table::{count, plain};

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub subject: String,
    /// How it is.
    pub state: State,
    /// What was seen.
    pub what: String,
    /// What to do, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Pulls work; something is missed or will be.
    Warn,
    /// Pulls fail, or go past Shoal.
    Fail,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

impl Finding {
    /// It is as it should be.
    pub fn ok(subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self { subject: subject.into(), state: State::Ok, what: what.into(), fix: None }
    }

    /// It is not what it should be; pulls work all the same.
    pub fn warn(subject: impl Into<String>, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { subject: subject.into(), state: State::Warn, what: what.into(), fix: Some(fix.into()) }
    }

    /// It is wrong.
    pub fn fail(subject: impl Into<String>, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { state: State::Fail, ..Self::warn(subject, what, fix) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, state, what, fix } = self;
        write!(f, "{:4}  {}: {}", state.word(), plain(subject), plain(what))?;
        let lines = fix.iter().flat_map(|it| it.lines());
        lines.enumerate().try_for_each(|(at, line)| {
            let begin = if at == 0 { "fix: " } else { "     " };
            write!(f, "\n      {begin}{}", plain(line))
        })
    }
}

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis(pub Vec<Finding>);

impl Diagnosis {
    fn n(&self, state: State) -> usize {
        self.0.iter().filter(|it| it.state == state).count()
    }

    /// What the process ends with. A warning fails nothing.
    pub fn exit(&self) -> Exit {
        if self.n(State::Fail) == 0 { Exit::Done } else { Exit::Failure }
    }

    /// The same as a document.
    pub fn document(&self) -> Value {
        json!({
            "findings": self.0,
            "ok": self.n(State::Ok),
            "warnings": self.n(State::Warn),
            "failures": self.n(State::Fail),
        })
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|it| writeln!(f, "{it}"))?;
        let (ok, warnings) = (self.n(State::Ok), count(self.n(State::Warn), "warning"));
        writeln!(f, "{}, {warnings}, {ok} ok", count(self.n(State::Fail), "failure"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_a_row_with_its_fix_below() {
        let found = Diagnosis(vec![
            Finding::ok("mirror", "answers"),
            Finding::warn("clock", "is 70 s ahead\u{1b}[2J", "set it"),
            Finding::fail("disk", "is full", "make room:\n  rm it"),
        ]);
        let expected = "ok    mirror: answers\n\
                        warn  clock: is 70 s ahead[2J\n      fix: set it\n\
                        FAIL  disk: is full\n      fix: make room:\n             rm it\n\
                        1 failure, 1 warning, 1 ok\n";
        assert_eq!(found.to_string(), expected);
        assert_eq!(found.exit(), Exit::Failure);
        let document = found.document();
        assert_eq!((&document["failures"], &document["findings"][2]["state"]), (&json!(1), &json!("fail")));
        assert_eq!(document["findings"][0], json!({ "subject": "mirror", "state": "ok", "what": "answers" }));
        assert_eq!(Diagnosis(found.0[..2].to_vec()).exit(), Exit::Done, "a warning fails nothing");
    }
}
