//! Progress over time as a picture: how much of the blobs the median node has, the slowest hundredth, and
//! the slowest node, each from its own join on, beside the least time that it could take.

use std::fmt::Write as _;

use crate::bound::Bound;
use crate::outcome::percentile;
use crate::simulation::Finished;

const WIDTH: u64 = 900;
const HEIGHT: u64 = 500;
const MARGIN: u64 = 60;
/// Points of a curve.
const POINTS: u64 = 200;
/// Of all nodes, ordered by progress, the hundredth that a curve follows.
const CURVES: [(&str, &str, usize); 3] =
    [("median", "#1b6ca8", 50), ("slowest hundredth", "#d97706", 1), ("slowest", "#b91c1c", 0)];

/// Draws a finished run as SVG.
pub fn svg(run: &Finished) -> String {
    let world = run.world();
    let nodes = world.joins.iter().map(|(_, it)| *it).filter(|it| run.is_alive(*it));
    let arrivals: Vec<_> = nodes.map(|it| run.arrivals(it)).collect();
    let end = arrivals.iter().filter_map(|it| it.last()).max().copied().unwrap_or(0).max(1);
    let n_pieces = world.blobs.iter().map(|it| u64::from(it.n_pieces())).sum::<u64>().max(1);
    let x = |at: u64| MARGIN + at * (WIDTH - 2 * MARGIN) / end;
    let y = |n: u64| HEIGHT - MARGIN - n * (HEIGHT - 2 * MARGIN) / n_pieces;
    let mut curves = CURVES.map(|_| String::new());
    for at in (0..=POINTS).map(|it| end * it / POINTS) {
        let mut progress: Vec<_> =
            arrivals.iter().map(|it| it.partition_point(|came| *came <= at) as u64).collect();
        progress.sort_unstable();
        for (curve, (_, _, hundredths)) in curves.iter_mut().zip(CURVES) {
            let _ = write!(curve, "{},{} ", x(at), y(percentile(&progress, hundredths)));
        }
    }
    let bound = Bound::of(world).median();
    let mut svg = frame(&world.name, arrivals.len(), end);
    let mark = x(bound.min(end));
    let _ = writeln!(
        svg,
        r##"<path d="M{mark},{} V{}" stroke="#777" stroke-dasharray="4"/><text x="{}" y="{}">bound {} ms</text>"##,
        MARGIN,
        HEIGHT - MARGIN,
        mark - 90,
        MARGIN + 14,
        bound / 1000
    );
    for (at, (curve, (name, colour, _))) in curves.iter().zip(CURVES).enumerate() {
        let _ =
            writeln!(svg, r#"<polyline fill="none" stroke="{colour}" stroke-width="2" points="{curve}"/>"#);
        let at = MARGIN + 40 + at as u64 * 18;
        let _ = writeln!(svg, r#"<text x="{}" y="{at}" fill="{colour}">{name}</text>"#, MARGIN + 12);
    }
    svg.push_str("</svg>\n");
    svg
}

/// The picture's beginning: title and axes.
fn frame(name: &str, n_nodes: usize, end: u64) -> String {
    let (right, bottom) = (WIDTH - MARGIN, HEIGHT - MARGIN);
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>
<text x="{MARGIN}" y="30" font-size="16">{name}: {n_nodes} nodes, share of the pieces held since each node's join</text>
<path d="M{MARGIN},{MARGIN} V{bottom} H{right}" stroke="#000" fill="none"/>
<text x="20" y="{MARGIN}">100 %</text><text x="30" y="{bottom}">0 %</text>
<text x="{}" y="{}">{} ms</text>
"##,
        right - 30,
        bottom + 20,
        end / 1000
    )
}
