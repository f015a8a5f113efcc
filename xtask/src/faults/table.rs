//! What came of it.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::cell::{Course, Kind, MOMENTS, Moment};

/// What came of one cell.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// Every pull brought the right bytes, the slowest after this time.
    Pulled(Duration),
    /// A pull failed, or brought other bytes.
    Failed(String),
    /// There is nothing to be expected of it, and why.
    NotTried(&'static str),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pulled(took) => write!(f, "{:.1} s", took.as_secs_f64()),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
            Self::NotTried(why) => f.write_str(why),
        }
    }
}

/// All outcomes in one region.
pub(super) struct Table {
    kind: Kind,
    /// One node's time without Shoal.
    direct: Duration,
    /// The slowest node's time with nothing harmed: of all together, and of one that comes later.
    undisturbed: [Duration; 2],
    cells: Vec<(&'static str, Course, Moment, Outcome)>,
}

impl Table {
    pub(super) const fn new(kind: Kind, direct: Duration, undisturbed: [Duration; 2]) -> Self {
        Self { kind, direct, undisturbed, cells: Vec::new() }
    }

    pub(super) fn add(&mut self, row: &'static str, course: Course, moment: Moment, outcome: Outcome) {
        self.cells.push((row, course, moment, outcome));
    }

    pub(super) fn is_clean(&self) -> bool {
        !self.cells.iter().any(|it| matches!(it.3, Outcome::Failed(_)))
    }

    pub(super) fn json(&self) -> Value {
        let cell = |(row, course, moment, outcome): &(&str, Course, Moment, Outcome)| {
            let mut cell = json!({
                "victim": row, "fault": course.to_string(), "moment": moment.to_string(),
            });
            match outcome {
                Outcome::Pulled(took) => cell["seconds"] = json!(took.as_secs_f64()),
                Outcome::Failed(why) => cell["failed"] = json!(why),
                Outcome::NotTried(why) => cell["notTried"] = json!(why),
            }
            cell
        };
        json!({
            "region": self.kind.to_string(),
            "directSeconds": self.direct.as_secs_f64(),
            "undisturbedSeconds": self.undisturbed.map(|it| it.as_secs_f64()),
            "cells": self.cells.iter().map(cell).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [together, later] = self.undisturbed.map(|it| it.as_secs_f64());
        writeln!(f, "With {}:\n", self.kind)?;
        writeln!(f, "| who | what | before | during | after |\n| --- | --- | --- | --- | --- |")?;
        writeln!(f, "| nobody | | {together:.1} s | {together:.1} s | {later:.1} s |")?;
        for moments in self.cells.chunks(MOMENTS.len()) {
            let Some((row, course, ..)) = moments.first() else { continue };
            write!(f, "| {row} | {course} |")?;
            for (_, _, _, outcome) in moments {
                write!(f, " {outcome} |")?;
            }
            writeln!(f)?;
        }
        writeln!(f, "\nOne node without Shoal: {:.1} s.\n", self.direct.as_secs_f64())
    }
}
