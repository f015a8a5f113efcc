//! From samples to figures, for people and for machines.

use std::fmt;

use serde_json::{Value, json};

/// A figure's median over the rounds, and the least and the most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// Of one value at least, as every round gives one; without any, not a number.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        Self { median: (at(last / 2) + at(last.div_ceil(2))) / 2.0, min: at(0), max: at(last) }
    }

    /// The median.
    pub(super) const fn median(&self) -> f64 {
        self.median
    }

    /// Whether there were no values.
    pub(super) const fn is_empty(&self) -> bool {
        self.median.is_nan()
    }

    /// The least, the median and the most.
    pub(super) fn json(&self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Three digits, which is more than the rounds agree on.
        let digits = match self.median {
            it if it < 10.0 => 2,
            it if it < 100.0 => 1,
            _ => 0,
        };
        let Self { median, min, max } = self;
        write!(f, "{median:.digits$} ({min:.digits$}..{max:.digits$})")
    }
}

/// The machine's load averages, since a figure of a busy machine is worth less.
pub(super) fn load() -> std::io::Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[f64], expected: &str) {
        assert_eq!(Spread::of(values.iter().copied()).to_string(), expected);
    }

    #[test]
    fn a_spread_names_the_middle_and_both_ends() {
        check(&[2.0], "2.00 (2.00..2.00)");
        check(&[3.0, 1.0, 2.5], "2.50 (1.00..3.00)");
        check(&[30.0, 10.0], "20.0 (10.0..30.0)");
        check(&[], "NaN (NaN..NaN)");
    }
}
