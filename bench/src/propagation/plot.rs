//! Draws the time until all nodes have a record against the number of nodes, both axes logarithmic.

use std::fmt::Write;

use super::measures::Measures;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 55.0;

/// A line of the plot: the system, the figure, and how it is drawn.
type Series = (&'static str, &'static str, fn(&Measures) -> f64, &'static str);

const SERIES: [Series; 4] = [
    ("memberlist", "memberlist p99", |it| it.all_ms.p99, "stroke=\"#c0392b\" stroke-dasharray=\"5 4\""),
    ("memberlist", "memberlist p50", |it| it.all_ms.p50, "stroke=\"#c0392b\""),
    ("anode", "aNode p99", |it| it.all_ms.p99, "stroke=\"#1f6feb\" stroke-dasharray=\"5 4\""),
    ("anode", "aNode p50", |it| it.all_ms.p50, "stroke=\"#1f6feb\""),
];

/// How figures are mapped to places in the plot.
struct Axes {
    nodes_min: f64,
    nodes_max: f64,
    /// Powers of ten between which times lie, in milliseconds.
    ms_min: f64,
    ms_max: f64,
}

impl Axes {
    fn around(medians: &[Measures]) -> Axes {
        let nodes = medians.iter().map(|it| it.nodes);
        let ms = || medians.iter().flat_map(|it| [it.all_ms.p50, it.all_ms.p99]).filter(|ms| *ms > 0.0);
        Axes {
            nodes_min: nodes.clone().fold(f64::INFINITY, f64::min).max(1.0),
            nodes_max: nodes.fold(2.0, f64::max),
            ms_min: 10f64.powf(ms().fold(1.0, f64::min).log10().floor()),
            ms_max: 10f64.powf(ms().fold(10.0, f64::max).log10().ceil()),
        }
    }

    fn x(&self, nodes: f64) -> f64 {
        let whole = (self.nodes_max / self.nodes_min).ln().max(f64::EPSILON);
        LEFT + (WIDTH - LEFT - RIGHT) * (nodes / self.nodes_min).ln() / whole
    }

    fn y(&self, ms: f64) -> f64 {
        let ms = ms.clamp(self.ms_min, self.ms_max);
        let whole = (self.ms_max / self.ms_min).ln();
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (ms / self.ms_min).ln() / whole
    }
}

/// Draws the plot of these medians.
pub fn svg(medians: &[Measures]) -> String {
    let axes = Axes::around(medians);
    let mut out = String::new();
    // It cannot fail: the target is a string.
    let _ = draw(&mut out, &axes, medians);
    out
}

fn draw(out: &mut String, axes: &Axes, medians: &[Measures]) -> std::fmt::Result {
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
        font-size=\"12\" fill=\"#333\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
        <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">From published at one node until all nodes have it (ms)</text>"
    )?;
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let mut ms = axes.ms_min;
    while ms <= axes.ms_max * 1.001 {
        let y = axes.y(ms);
        writeln!(
            out,
            "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/>\
            <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{ms}</text>",
            LEFT - 8.0,
            y + 4.0
        )?;
        ms *= 10.0;
    }
    let mut counts: Vec<f64> = medians.iter().map(|it| it.nodes).collect();
    counts.dedup();
    for nodes in counts {
        let x = axes.x(nodes);
        writeln!(
            out,
            "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#eee\"/>\
            <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{nodes}</text>",
            bottom + 18.0
        )?;
    }
    let middle = f64::midpoint(LEFT, right);
    writeln!(out, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">nodes</text>", bottom + 40.0)?;
    for (system, name, figure, style) in SERIES {
        let points: Vec<(f64, f64)> = medians
            .iter()
            .filter(|it| it.system == system)
            .map(|it| (axes.x(it.nodes), axes.y(figure(it))))
            .collect();
        draw_line(out, &points, name, style)?;
    }
    writeln!(out, "</svg>")
}

fn draw_line(out: &mut String, points: &[(f64, f64)], name: &str, style: &str) -> std::fmt::Result {
    let Some(&(x, y)) = points.last() else { return Ok(()) };
    write!(out, "<polyline fill=\"none\" stroke-width=\"2\" {style} points=\"")?;
    for (x, y) in points {
        write!(out, "{x:.1},{y:.1} ")?;
    }
    writeln!(out, "\"/>\n<text x=\"{:.1}\" y=\"{:.1}\">{name}</text>", x + 10.0, y + 4.0)
}
