//! How far something is, while it goes on. It goes to standard error, since standard output is for what came of it.

use std::io::{self, IsTerminal as _};

use indicatif::{ProgressBar, ProgressStyle};

use crate::table::plain;

const BAR: &str = "{wide_bar} {binary_bytes:>11} of {binary_total_bytes:>11}  {msg}";

/// How far something is: a bar on a terminal, else a line for each change.
pub struct Progress {
    bar: Option<ProgressBar>,
    told: String,
}

impl Progress {
    /// Nothing is told yet.
    #[must_use]
    pub fn new() -> Self {
        let style = ProgressStyle::with_template(BAR).ok().filter(|_| io::stderr().is_terminal());
        Self { bar: style.map(|it| ProgressBar::new(0).with_style(it)), told: String::new() }
    }

    /// So many bytes are done of so many, in these words where there is no bar.
    pub fn tell(&mut self, done: u64, all: u64, words: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(all);
                bar.set_position(done);
                bar.set_message(words.to_owned());
            }
            None if self.told != words => {
                eprintln!("{}", plain(words));
                words.clone_into(&mut self.told);
            }
            None => {}
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
