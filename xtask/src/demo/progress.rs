//! How a pull on all nodes is shown while it runs: a bar per node on a terminal, else a line now and then.
//!
//! Both go to standard error, since standard output is for the results.

use std::convert::Infallible;
use std::future::pending;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{BinaryBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::sleep;

/// How often a line is printed where there are no bars.
const LINE_EVERY: Duration = Duration::from_secs(2);
const BAR: &str = "{prefix:9} {wide_bar} {binary_bytes:>11} of {binary_total_bytes:>11}";

/// One bar per node. The bars count even where they are not drawn, and are gone in the end.
pub(super) struct Progress {
    bars: Vec<ProgressBar>,
    is_drawn: bool,
    all: MultiProgress,
}

impl Progress {
    /// Bars under the nodes' names, drawn on a terminal unless `plain`.
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>, plain: bool) -> Self {
        let is_drawn = !plain && io::stderr().is_terminal();
        let target = if is_drawn { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let all = MultiProgress::with_draw_target(target);
        let style = ProgressStyle::with_template(BAR).expect("the template is good");
        let bar = |name: &str| ProgressBar::new(0).with_style(style.clone()).with_prefix(name.to_owned());
        let bars = names.map(|it| all.add(bar(it))).collect();
        Self { bars, is_drawn, all }
    }

    /// The bars, in the order of the names.
    pub(super) fn bars(&self) -> &[ProgressBar] {
        &self.bars
    }

    /// Prints lines where there are no bars, for as long as it is polled.
    pub(super) async fn print(&self) -> Infallible {
        if self.is_drawn {
            return pending().await;
        }
        loop {
            sleep(LINE_EVERY).await;
            let n_bytes = self.bars.iter().map(ProgressBar::position).sum();
            let n_total = self.bars.iter().filter_map(ProgressBar::length).sum();
            eprintln!("pulled {} of {}", BinaryBytes(n_bytes), BinaryBytes(n_total));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // Bars that cannot be wiped off the terminal do no harm there.
        let _left = self.all.clear();
    }
}
