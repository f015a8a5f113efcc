//! Counting what test runs report, from the `test result:` line that each test binary ends with, and from nextest's
//! `Summary`.

use std::fmt;
use std::io::{self, BufRead, Write};
use std::ops::AddAssign;

/// Numbers of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) ignored: u32,
}

impl Tally {
    /// What a run reports. Its output is shown as it comes, with a sign in place of what is no UTF-8: tests
    /// may print anything.
    pub(crate) fn of_output(output: impl BufRead, mut shown: impl Write) -> io::Result<Self> {
        let mut tally = Self::default();
        for line in output.split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            writeln!(shown, "{line}")?;
            tally += Self::of_line(&line).unwrap_or_default();
        }
        Ok(tally)
    }

    /// What a line of output reports; `None` for lines that are no result.
    fn of_line(line: &str) -> Option<Self> {
        Self::of_binary(line).or_else(|| Self::of_summary(line))
    }

    fn of_summary(line: &str) -> Option<Self> {
        // Summary [  95.195s] 9 tests run: 7 passed (1 slow), 1 failed, 1 timed out, 0 skipped
        let (_, counts) = line.trim_start().strip_prefix("Summary [")?.split_once(" run: ")?;
        let mut tally = Self::default();
        for part in counts.split(", ") {
            let (count, what) = part.split_once(' ')?;
            let count: u32 = count.parse().ok()?;
            match what.split(' ').next()? {
                "passed" => tally.passed += count,
                "skipped" => tally.ignored += count,
                _ => tally.failed += count,
            }
        }
        Some(tally)
    }

    fn of_binary(line: &str) -> Option<Self> {
        // test result: ok. 9 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |what| {
            let part = counts.split("; ").find_map(|it| it.strip_suffix(what))?;
            part.trim_end().parse().ok()
        };
        Some(Self { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored")? })
    }

    /// Whether this may be called a success: something ran, nothing failed, nothing was left out.
    pub(crate) fn is_clean(self) -> bool {
        self.passed > 0 && self.failed == 0 && self.ignored == 0
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.ignored > 0 {
            write!(f, ", {} ignored, which is not allowed", self.ignored)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Option<[u32; 3]>) {
        let expected = expected.map(|[passed, failed, ignored]| Tally { passed, failed, ignored });
        assert_eq!(Tally::of_line(line), expected, "{line}");
    }

    #[test]
    fn only_result_lines_count() {
        check(
            "test result: ok. 9 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            Some([9, 0, 2]),
        );
        check(
            "test result: FAILED. 10 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out",
            Some([10, 1, 0]),
        );
        check(
            "     Summary [  95.195s] 9 tests run: 7 passed (1 slow), 1 failed, 1 timed out, 3 skipped",
            Some([7, 2, 3]),
        );
        check("     Summary [   0.011s] 1 test run: 1 passed, 0 skipped", Some([1, 0, 0]));
        check("Summary of what was seen", None);
        check("test a_result ... ok", None);
        check("running 9 tests", None);
        check("test result: ok. nine passed; 0 failed; 0 ignored", None);
    }

    #[test]
    fn a_byte_that_is_no_text_ends_nothing() {
        let output = b"a test printed \xff\ntest result: ok. 1 passed; 0 failed; 0 ignored\n";
        let mut shown = Vec::new();
        let tally = Tally::of_output(&output[..], &mut shown).unwrap();
        assert_eq!(tally, Tally { passed: 1, failed: 0, ignored: 0 });
        assert!(shown.starts_with("a test printed \u{fffd}\ntest result".as_bytes()));
    }

    #[test]
    fn only_a_full_run_without_failures_is_clean() {
        let tally = |passed, failed, ignored| Tally { passed, failed, ignored };
        assert!(tally(1, 0, 0).is_clean());
        for bad in [tally(0, 0, 0), tally(1, 1, 0), tally(1, 0, 1)] {
            assert!(!bad.is_clean(), "{bad}");
        }
    }
}
