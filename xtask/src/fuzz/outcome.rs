//! What a run came to, as libFuzzer's log tells it.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Value, json};

/// Of what a target says last before it ends, so many lines are shown.
const LAST_WORDS: usize = 30;

/// What became of one target.
pub(super) struct Outcome {
    pub(super) target: String,
    pub(super) program: PathBuf,
    pub(super) figures: Figures,
    /// The files of inputs that broke something.
    pub(super) breaking: Vec<String>,
    /// What it said at the end, where it ended badly.
    pub(super) last_words: Option<String>,
}

/// The figures of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) executions: u64,
    pub(super) per_second: u64,
    /// Edges of the program that were reached.
    pub(super) coverage: u64,
    /// Inputs that each reach something which the others do not.
    pub(super) corpus: u64,
}

impl Figures {
    /// Reads them out of a log; what it does not say is 0.
    pub(super) fn of_log(log: &str) -> Self {
        let last = |name: &str| {
            let after = log.rsplit_once(name)?.1.trim_start();
            let end = after.find(|it: char| !it.is_ascii_digit()).unwrap_or(after.len());
            after[..end].parse().ok()
        };
        let last = |name| last(name).unwrap_or(0);
        Self {
            executions: last("stat::number_of_executed_units:"),
            per_second: last("stat::average_exec_per_sec:"),
            coverage: last(" cov:"),
            corpus: last(" corp:"),
        }
    }
}

/// The files that inputs were written to because they broke something.
pub(super) fn breaking(log: &str) -> Vec<String> {
    let written = log.lines().filter_map(|it| it.split_once("Test unit written to ")).map(|(_, path)| path);
    // One that is merely slow breaks nothing.
    written.filter(|it| !it.contains("/slow-unit-")).map(str::to_owned).collect()
}

/// What a target said after the last line about its progress.
pub(super) fn last_words(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let after = lines.iter().rposition(|it| it.contains(" cov: ")).map_or(0, |at| at + 1);
    let words = lines.iter().skip(after).take(LAST_WORDS).map(|it| format!("  {it}\n"));
    words.collect()
}

impl Outcome {
    /// Whether nothing broke.
    pub(super) const fn is_clean(&self) -> bool {
        self.last_words.is_none()
    }

    /// How often something broke: a program that ends without naming an input has broken down all the same.
    fn n_crashes(&self) -> usize {
        if self.is_clean() { 0 } else { self.breaking.len().max(1) }
    }

    pub(super) fn json(&self) -> Value {
        let Figures { executions, per_second, coverage, corpus } = self.figures;
        json!({
            "target": self.target,
            "executions": executions,
            "executionsPerSecond": per_second,
            "coverage": coverage,
            "corpus": corpus,
            "crashes": self.n_crashes(),
            "breaking": self.breaking,
        })
    }
}

impl fmt::Display for Outcome {
    /// A line, and more where something broke.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { executions, coverage, corpus, .. } = self.figures;
        let target = &self.target;
        writeln!(f, "{target}: {executions} executions, {coverage} edges, {corpus} inputs in its corpus")?;
        let Some(words) = &self.last_words else { return Ok(()) };
        write!(f, "{target} broke:\n{words}")?;
        for file in &self.breaking {
            writeln!(f, "once more: FUZZ_TARGET={target} {} {file}", self.program.display())?;
        }
        Ok(())
    }
}

/// Prints all figures.
pub(super) fn print_table(outcomes: &[Outcome]) {
    println!(
        "\n{:20} {:>12} {:>12} {:>9} {:>7} {:>8}",
        "target", "executions", "per second", "coverage", "corpus", "crashes"
    );
    for it in outcomes {
        let Figures { executions, per_second, coverage, corpus } = it.figures;
        println!(
            "{:20} {executions:12} {per_second:12} {coverage:9} {corpus:7} {:8}",
            it.target,
            it.n_crashes()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
INFO: Seed: 2590986498
#2\tINITED cov: 8 ft: 8 corp: 1/1b exec/s: 0 rss: 27Mb
#11\tNEW    cov: 9 ft: 9 corp: 2/5b lim: 4 exec/s: 0 rss: 27Mb L: 4/4 MS: 4 ChangeByte-
";

    #[test]
    fn the_last_figures_of_a_log_count() {
        let ended = format!(
            "{LOG}#4000\tDONE   cov: 10 ft: 10 corp: 3/9b lim: 4096 exec/s: 2000 rss: 27Mb\n\
             stat::number_of_executed_units: 4000\nstat::average_exec_per_sec:     2000\n"
        );
        let figures = Figures { executions: 4000, per_second: 2000, coverage: 10, corpus: 3 };
        assert_eq!(Figures::of_log(&ended), figures);
        assert_eq!(breaking(&ended), [""; 0]);
        assert_eq!(Figures::of_log("killed"), Figures::default());
    }

    #[test]
    fn a_log_tells_what_broke_and_by_what() {
        let broken = format!(
            "{LOG}thread 'main' panicked at src/a.rs:1:1:\nwrong\n\
             artifact_prefix='/f/'; Test unit written to /f/slow-unit-00\n\
             artifact_prefix='/f/'; Test unit written to /f/crash-ab\n"
        );
        assert_eq!(breaking(&broken), ["/f/crash-ab"]);
        let words = last_words(&broken);
        assert!(words.starts_with("  thread 'main' panicked at src/a.rs:1:1:\n  wrong\n"), "{words}");
        assert_eq!(Figures::of_log(&broken).coverage, 9);
    }

    #[test]
    fn whoever_ends_badly_has_crashed_whatever_he_says() {
        let outcome = |last_words: Option<&str>, breaking: &[&str]| Outcome {
            target: "a".into(),
            program: "/a".into(),
            figures: Figures::default(),
            breaking: breaking.iter().map(|it| (*it).to_owned()).collect(),
            last_words: last_words.map(str::to_owned),
        };
        assert_eq!(outcome(None, &[]).n_crashes(), 0);
        assert_eq!(outcome(Some(""), &[]).n_crashes(), 1);
        assert_eq!(outcome(Some(""), &["x", "y"]).n_crashes(), 2);
    }
}
