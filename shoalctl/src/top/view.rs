//! What `top` shows: the region in a few lines, then the blobs that are on their way and the preheat jobs under way.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table};

use crate::fleet::{self, Look, Task, Traffic};
use crate::job::Job;
use crate::table::{bytes, count, percent, plain, time};

/// How wide a bar is, in characters.
const BAR: usize = 10;
/// Below this width the least important columns are left out.
const WIDE: u16 = 90;
/// The most lines that jobs take.
const JOBS: usize = 5;
const KEYS: &str = "q quit  ↑↓ scroll";

/// What was seen, and how far down one looks.
pub(super) struct View {
    address: String,
    seen: Look,
    seen_at: Instant,
    /// What the gateway moved meanwhile, per second.
    rate: Option<Traffic>,
    /// Why the latest look came to nothing.
    trouble: Option<(String, Instant)>,
    scroll: usize,
}

impl View {
    pub(super) fn new(address: &str, seen: Look, now: Instant) -> Self {
        Self { address: address.to_owned(), seen, seen_at: now, rate: None, trouble: None, scroll: 0 }
    }

    /// The region was looked at again.
    pub(super) fn saw(&mut self, seen: Look, now: Instant) {
        let (before, after) = (self.seen.tasks.traffic(), seen.tasks.traffic());
        self.rate = after.per_second_since(before, now.saturating_duration_since(self.seen_at));
        (self.seen, self.seen_at, self.trouble) = (seen, now, None);
    }

    /// It was tried, and the gateway gave no answer.
    pub(super) fn saw_nothing(&mut self, why: &str, now: Instant) {
        self.trouble = Some((why.to_owned(), now));
    }

    /// So many lines down, or up.
    pub(super) fn scroll(&mut self, lines: isize) {
        let last = self.on_their_way().len().saturating_sub(1);
        self.scroll = self.scroll.saturating_add_signed(lines).min(last);
    }

    /// Those blobs that nodes wait for or that are being read, what most nodes wait for first.
    fn on_their_way(&self) -> Vec<&Task> {
        let mut tasks: Vec<_> = self.seen.tasks.all().filter(|it| it.is_on_its_way()).collect();
        tasks.sort_by(|one, other| {
            let order = (other.nodes.wanting, other.nodes.part).cmp(&(one.nodes.wanting, one.nodes.part));
            order.then_with(|| one.id.cmp(&other.id))
        });
        tasks
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let jobs: Vec<_> = self.seen.preheat.under_way().collect();
        let n_jobs = if jobs.is_empty() { 0 } else { jobs.len().min(JOBS) + 1 };
        let overview = self.overview();
        let heights = [
            Constraint::Length(overview.len() as u16),
            Constraint::Min(3),
            Constraint::Length(n_jobs as u16),
            Constraint::Length(1),
        ];
        let [top, tasks, below, foot] = Layout::vertical(heights).areas(frame.area());
        frame.render_widget(Paragraph::new(overview), top);
        self.draw_tasks(frame, tasks);
        draw_jobs(frame, below, &jobs);
        frame.render_widget(Paragraph::new(self.foot()), foot);
    }

    fn overview(&self) -> Vec<Line<'static>> {
        let line = |name: &'static str, value: String| {
            Line::from(vec![Span::from(format!("{name:<9}")).dim(), Span::from(value)])
        };
        let rate = self.rate.map_or_else(
            || "...".to_owned(),
            |it| {
                let Traffic { registry, hub, peers, sent } = it;
                format!(
                    "{}/s from registries, {}/s from the hub, {}/s from peers, {}/s sent",
                    bytes(registry),
                    bytes(hub),
                    bytes(peers),
                    bytes(sent)
                )
            },
        );
        vec![
            line("gateway", self.address.clone()),
            line("nodes", fleet::node_line(&self.seen.fleet)),
            line("tasks", fleet::task_line(&self.seen.tasks)),
            line("held", fleet::held_line(&self.seen.tasks)),
            line("moves", rate),
            line("saved", fleet::saved_line(&self.seen.savings)),
        ]
    }

    fn draw_tasks(&self, frame: &mut Frame<'_>, area: Rect) {
        let tasks = self.on_their_way();
        let title = match tasks.len() {
            0 => " nothing is on its way ".to_owned(),
            n => format!(" {} on {} way ", count(n, "blob"), if n == 1 { "its" } else { "their" }),
        };
        let is_wide = area.width >= WIDE;
        let rows = tasks.iter().skip(self.scroll).map(|it| row(it, is_wide));
        let mut header = vec!["BLOB", "SIZE", "WAITING", "PART", "WHOLE", "READ"];
        let mut widths = vec![
            Constraint::Length(12),
            Constraint::Length(10),
            Constraint::Length(7),
            Constraint::Length(6),
            Constraint::Length(6),
            Constraint::Length(BAR as u16 + 6),
        ];
        if is_wide {
            header.push("REPOSITORY");
            widths.push(Constraint::Min(20));
        }
        let table = Table::new(rows, widths)
            .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
            .block(Block::new().borders(Borders::TOP).title(title));
        frame.render_widget(table, area);
    }

    fn foot(&self) -> Line<'static> {
        match &self.trouble {
            Some((why, at)) => {
                let old = at.saturating_duration_since(self.seen_at);
                Line::from(format!("{KEYS}  {} old: {}", time(old), plain(why))).red()
            }
            None => Line::from(KEYS).dim(),
        }
    }
}

fn row(task: &Task, is_wide: bool) -> Row<'static> {
    // The first digits tell blobs apart.
    let digest = task.id.rsplit(':').next().unwrap_or_default();
    let short: String = digest.chars().take(12).collect();
    let read = match &task.seed {
        Some(seed) => bar(seed.offset, task.content_length),
        None => String::new(),
    };
    let nodes = &task.nodes;
    let counts = [nodes.wanting, nodes.part, nodes.whole].map(|it| it.to_string());
    let mut cells = vec![plain(&short), bytes(task.content_length)];
    cells.extend(counts);
    cells.push(read);
    if is_wide {
        cells.push(plain(&fleet::sources(task, 1)));
    }
    Row::new(cells)
}

fn draw_jobs(frame: &mut Frame<'_>, area: Rect, jobs: &[&Job]) {
    let line = |it: &&Job| {
        let held = it.progress();
        Line::from(format!("{} {}", bar(held.bytes_held, held.bytes), plain(&it.line())))
    };
    let title = match jobs.len() {
        n if n > JOBS => format!(" {n} preheat jobs, the first {JOBS} "),
        n => format!(" {} ", count(n, "preheat job")),
    };
    let block = Block::new().borders(Borders::TOP).title(title);
    let lines: Vec<_> = jobs.iter().take(JOBS).map(line).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// How much of a whole there is.
fn bar(part: u64, whole: u64) -> String {
    let filled = match whole {
        0 => 0,
        _ => (part.min(whole) as u128 * BAR as u128 / u128::from(whole)) as usize,
    };
    format!("{}{} {:>5}", "█".repeat(filled), "░".repeat(BAR - filled), percent(part, whole))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::{Value, json};
    use std::time::Duration;

    use super::*;
    use crate::fleet::read;

    fn task(number: u8, state: &str, wanting: u64) -> Value {
        json!({
            "id": format!("h.example@sha256:{}", format!("{number:02x}").repeat(32)),
            "state": state, "contentLength": 4_194_304, "pieceLength": 1_048_576, "pieces": 4,
            "nodes": { "whole": 2, "part": 1, "wanting": wanting },
            "sources": [{ "registry": "h.example", "repository": "team/app" }],
            "seed": (state == "FETCHING").then(|| json!({ "offset": 2_097_152, "queuePosition": 0 })),
            "traffic": { "registry": 1_048_576 * u64::from(number), "hub": 0, "peers": 0, "sent": 0 },
        })
    }

    fn seen(tasks: &[Value]) -> Look {
        let jobs = json!({ "jobs": [
            { "id": 7, "state": "PENDING", "doing": "storing", "request": { "image": "h.example/a:v1" },
              "progress": { "bytes": 100, "bytesHeld": 40 } },
        ], "total": 1 });
        let fleet =
            json!({ "nodes": { "sidecars": 1, "gateways": 1 }, "zones": [{ "zone": "a" }, { "zone": "" }] });
        let saved = json!({ "total": { "arrivedBytes": 200 << 20, "registryBytes": 10 << 20 } });
        let look = json!({ "regions": {}, "fleet": fleet, "savings": saved, "tasks": { "tasks": tasks }, "preheat": jobs });
        read(&look).unwrap()
    }

    fn drawn(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let lines = buffer.content().chunks(width.into()).map(|line| {
            let line: String = line.iter().map(|it| it.symbol()).collect();
            line.trim_end().to_owned() + "\n"
        });
        lines.collect()
    }

    #[test]
    fn a_region_at_work_is_one_screen() {
        let start = Instant::now();
        let mut view = View::new("http://gw:65023/", seen(&[]), start);
        let tasks = [task(1, "COMPLETE", 0), task(2, "FETCHING", 3), task(3, "FETCHING", 9)];
        view.saw(seen(&tasks), start + Duration::from_secs(2));
        let text = drawn(&view, 100, 16);
        let expected = "\
gateway  http://gw:65023/
nodes    1 sidecar, 1 gateway, 1 zone
tasks    3 blobs (1 COMPLETE, 2 FETCHING), 12.00 MiB
held     24.00 MiB in 6 whole copies at nodes and gateways
moves    3.00 MiB/s from registries, 0 B/s from the hub, 0 B/s from peers, 0 B/s sent
saved    95 % of the 200.00 MiB that arrived in the last 24 h; registries sent 10.00 MiB
 2 blobs on their way ──────────────────────────────────────────────────────────────────────────────
BLOB         SIZE       WAITING PART   WHOLE  READ             REPOSITORY
030303030303 4.00 MiB   9       1      2      █████░░░░░  50 % h.example/team/app
020202020202 4.00 MiB   3       1      2      █████░░░░░  50 % h.example/team/app



 1 preheat job ─────────────────────────────────────────────────────────────────────────────────────
████░░░░░░  40 % 7 h.example/a:v1: storing, 40 %
q quit  ↑↓ scroll
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_narrow_terminal_leaves_out_what_matters_least() {
        let view = View::new("http://gw:65023/", seen(&[task(2, "FETCHING", 3)]), Instant::now());
        let text = drawn(&view, 64, 12);
        assert!(text.contains("020202020202") && !text.contains("REPOSITORY"), "{text}");
    }

    #[test]
    fn one_scrolls_no_further_than_to_the_last() {
        let tasks = [task(2, "FETCHING", 3), task(3, "FETCHING", 9)];
        let mut view = View::new("http://gw:65023/", seen(&tasks), Instant::now());
        view.scroll(10);
        let text = drawn(&view, 100, 16);
        assert!(text.contains("020202020202") && !text.contains("030303030303"), "{text}");
        view.scroll(isize::MIN);
        assert!(drawn(&view, 100, 16).contains("030303030303"));
    }

    #[test]
    fn what_is_old_is_said_to_be() {
        let start = Instant::now();
        let mut view = View::new("http://gw:65023/", seen(&[]), start);
        view.saw_nothing("gateway not reached: connection refused", start + Duration::from_secs(12));
        let text = drawn(&view, 100, 12);
        assert!(text.contains("nothing is on its way"), "{text}");
        assert!(text.contains("12.0 s old: gateway not reached: connection refused"), "{text}");
    }
}
