//! Draws plots of outcomes as SVG.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

use crate::sim::scenario::RunOutcome;

/// Width and height of a plot, in pixels.
const SIZE: (u32, u32) = (800, 480);
/// Colours of the curves, in their order.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xd6, 0x27, 0x28),
    RGBColor(0x2c, 0xa0, 0x2c),
    RGBColor(0x94, 0x67, 0xbd),
    RGBColor(0xff, 0x7f, 0x0e),
    RGBColor(0x17, 0xbe, 0xcf),
];

/// A plot could not be drawn, because of a bug or of numbers that are not finite.
#[derive(Debug, thiserror::Error)]
#[error("the plot cannot be drawn: {0}")]
pub struct PlotError(String);

/// A plot as SVG.
type Drawn = Result<String, PlotError>;

/// A named line in a plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// The name that is shown in the plot.
    pub name: String,
    /// The points (x, y), ascending in x.
    pub points: Vec<(f64, f64)>,
    /// Whether the line shows a bound, which is drawn in black, rather than a measurement.
    pub is_bound: bool,
}

/// The texts around the curves of a plot.
struct Labels<'a> {
    title: &'a str,
    x: &'a str,
    y: &'a str,
    /// The corner for the curves' names: one where no curve goes.
    names: SeriesLabelPosition,
}

/// Returns the least depth of a tree with the core's fanout that holds `nodes` nodes.
pub fn hops_bound(nodes: usize) -> u64 {
    let fanout = crate::sim::scenario::SCENARIO_FANOUT;
    let (mut depth, mut level, mut held) = (0, 1usize, 1usize);
    while held < nodes {
        level = level.saturating_mul(fanout);
        held = held.saturating_add(level);
        depth += 1;
    }
    depth
}

/// Draws the hops to the last node against the number of nodes.
pub fn hops_against_nodes(outcomes: &[RunOutcome]) -> Drawn {
    let bound = bound_over(outcomes, |nodes| hops_bound(nodes) as f64);
    let most = against(outcomes, |outcome| (outcome.nodes as f64, outcome.hops.max as f64));
    let middle = against(outcomes, |outcome| (outcome.nodes as f64, outcome.hops.p50 as f64));
    let curves = [curve("most hops", most), curve("median", middle), bound];
    let frame =
        Labels { title: "Hops to a node", x: "nodes", y: "hops", names: SeriesLabelPosition::UpperLeft };
    draw_against_nodes(&frame, &curves)
}

/// Draws the time to a node and to all nodes against the number of nodes. `delay_us_max` is the longest
/// one-way delay.
pub fn time_against_nodes(outcomes: &[RunOutcome], delay_us_max: u64) -> Drawn {
    let millis = |us: u64| us as f64 / 1e3;
    let bound = bound_over(outcomes, |nodes| (hops_bound(nodes) * delay_us_max + 500) as f64 / 1e3);
    let p50 = against(outcomes, |outcome| (outcome.nodes as f64, millis(outcome.time_us.p50)));
    let p99 = against(outcomes, |outcome| (outcome.nodes as f64, millis(outcome.time_us.p99)));
    let last = against(outcomes, |outcome| (outcome.nodes as f64, millis(outcome.time_us.max)));
    let curves = [curve("p50", p50), curve("p99", p99), curve("last node", last), bound];
    let frame =
        Labels { title: "Accepted to applied", x: "nodes", y: "ms", names: SeriesLabelPosition::UpperLeft };
    draw_against_nodes(&frame, &curves)
}

/// Draws the copies of a record that a node received against the part of the datagrams that was lost.
pub fn copies_against_loss(outcomes: &[RunOutcome]) -> Drawn {
    let of = |is_bursty: bool| {
        let some = outcomes.iter().filter(|outcome| outcome.is_bursty == is_bursty || outcome.loss == 0.0);
        let some: Vec<RunOutcome> = some.cloned().collect();
        against(&some, |outcome| (outcome.loss * 100.0, outcome.copies_mean))
    };
    let mut curves = vec![curve("one by one", of(false))];
    if outcomes.iter().any(|outcome| outcome.is_bursty) {
        curves.push(curve("in bursts", of(true)));
    }
    let nodes = outcomes.first().map_or(0, |outcome| outcome.nodes);
    let frame = Labels {
        title: &format!("Copies of a record a node received, N = {nodes}"),
        x: "datagrams lost, %",
        y: "copies",
        names: SeriesLabelPosition::UpperLeft,
    };
    let (x, y) = ranges(&curves, 1.0);
    draw(&frame, &curves, x.start..x.end.max(1.0), 1.0..y.end.max(1.01))
}

/// Draws the part of deliveries done against the time since acceptance, with one curve for every run.
pub fn deliveries_over_time(outcomes: &[RunOutcome]) -> Drawn {
    let curves: Vec<Curve> = outcomes
        .iter()
        .take(COLOURS.len())
        .map(|outcome| {
            let points = outcome.curve_us.iter().enumerate();
            let points = points.map(|(percent, us)| (*us as f64 / 1e3, percent as f64 + 1.0)).collect();
            let loss = match (outcome.loss > 0.0, outcome.is_bursty) {
                (false, _) => String::new(),
                (true, false) => format!(" {} % lost", outcome.loss * 100.0),
                (true, true) => format!(" {} % lost in bursts", outcome.loss * 100.0),
            };
            curve(&format!("{} N={}{loss}", outcome.scenario, outcome.nodes), points)
        })
        .collect();
    let frame = Labels {
        title: "Deliveries over time",
        x: "ms since acceptance",
        y: "% of deliveries",
        names: SeriesLabelPosition::LowerRight,
    };
    let (x, _) = ranges(&curves, 0.0);
    draw(&frame, &curves, 0.0..x.end, 0.0..100.0)
}

fn curve(name: &str, points: Vec<(f64, f64)>) -> Curve {
    Curve { name: name.into(), points, is_bound: false }
}

/// Returns the greatest y for every x, ascending in x: of several seeds, the worst counts.
fn against(outcomes: &[RunOutcome], point: impl Fn(&RunOutcome) -> (f64, f64)) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = outcomes.iter().map(point).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
    points.dedup_by(|later, kept| later.0 == kept.0);
    points
}

fn bound_over(outcomes: &[RunOutcome], bound: impl Fn(usize) -> f64) -> Curve {
    let most = outcomes.iter().map(|outcome| outcome.nodes).max().unwrap_or(1).max(2);
    let least = outcomes.iter().map(|outcome| outcome.nodes).min().unwrap_or(1).max(1);
    let steps = 400;
    let ratio = most as f64 / least as f64;
    let points = (0..=steps).map(|step| {
        let nodes = least as f64 * ratio.powf(f64::from(step) / f64::from(steps));
        (nodes, bound(nodes.round() as usize))
    });
    Curve { name: "bound".into(), points: points.collect(), is_bound: true }
}

fn ranges(curves: &[Curve], least: f64) -> (std::ops::Range<f64>, std::ops::Range<f64>) {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let x_max = points().map(|point| point.0).fold(0.0, f64::max);
    let x_min = points().map(|point| point.0).fold(x_max, f64::min);
    let y_max = points().map(|point| point.1).fold(least, f64::max);
    (x_min..x_max.max(x_min + 1e-3), least..y_max * 1.05 + 1e-3)
}

fn draw_against_nodes(frame: &Labels<'_>, curves: &[Curve]) -> Drawn {
    let (x, y) = ranges(curves, 0.0);
    let x = x.start.max(1.0)..x.end.max(x.start.max(1.0) * 1.1);
    on_canvas(|root| {
        let mut chart = framed(root, frame)
            .build_cartesian_2d(x.log_scale(), y)
            .map_err(|error| PlotError(error.to_string()))?;
        fill(&mut chart, frame, curves)
    })
}

fn draw(frame: &Labels<'_>, curves: &[Curve], x: std::ops::Range<f64>, y: std::ops::Range<f64>) -> Drawn {
    on_canvas(|root| {
        let mut chart =
            framed(root, frame).build_cartesian_2d(x, y).map_err(|error| PlotError(error.to_string()))?;
        fill(&mut chart, frame, curves)
    })
}

/// The area that a plot is drawn on.
type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn on_canvas(paint: impl FnOnce(&Canvas<'_>) -> Result<(), PlotError>) -> Drawn {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|error| PlotError(error.to_string()))?;
        paint(&root)?;
        root.present().map_err(|error| PlotError(error.to_string()))?;
    }
    Ok(text)
}

fn framed<'a, 'b>(root: &'a Canvas<'b>, frame: &Labels<'_>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(root);
    builder.caption(frame.title, ("sans-serif", 20)).margin(12).margin_right(32);
    builder.x_label_area_size(44).y_label_area_size(60);
    builder
}

/// Draws the axes, the curves and their names.
fn fill<'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    frame: &Labels<'_>,
    curves: &[Curve],
) -> Result<(), PlotError>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64> + 'a,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64> + 'a,
{
    let failed = |error: DrawingAreaErrorKind<_>| PlotError(error.to_string());
    let label = |number: &f64| ((number * 1e6).round() / 1e6).to_string();
    let mut mesh = chart.configure_mesh();
    mesh.x_label_formatter(&label).y_label_formatter(&label).x_desc(frame.x).y_desc(frame.y);
    mesh.light_line_style(WHITE).draw().map_err(failed)?;
    for (index, curve) in curves.iter().enumerate() {
        let colour = if curve.is_bound { BLACK } else { COLOURS[index % COLOURS.len()] };
        let line = LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2));
        let drawn = chart.draw_series(line).map_err(failed)?;
        drawn.label(curve.name.clone()).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
        if !curve.is_bound && curve.points.len() < 20 {
            let dots = curve.points.iter().map(|point| Circle::new(*point, 3, colour.filled()));
            chart.draw_series(dots).map_err(failed)?;
        }
    }
    chart
        .configure_series_labels()
        .position(frame.names.clone())
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_that_of_a_full_tree() {
        let bounds = [1, 9, 10, 73, 100, 1_000, 10_000].map(hops_bound);
        assert_eq!(bounds, [0, 1, 2, 2, 3, 4, 5]);
    }

    #[test]
    fn plots_show_their_curves_and_bounds() {
        let outcomes: Vec<RunOutcome> = [10, 100, 1_000]
            .map(|nodes| RunOutcome {
                nodes,
                curve_us: (1..=100).collect(),
                hops: crate::sim::scenario::Quantiles { max: hops_bound(nodes), ..Default::default() },
                copies_mean: 1.0,
                ..RunOutcome::default()
            })
            .into();
        for (drawn, word) in [
            (hops_against_nodes(&outcomes), "bound"),
            (time_against_nodes(&outcomes, 1_500), "last node"),
            (copies_against_loss(&outcomes), "one by one"),
            (deliveries_over_time(&outcomes), "N=1000"),
        ] {
            let svg = drawn.expect("a plot");
            assert!(svg.starts_with("<svg") && svg.contains("polyline") && svg.contains(word), "{word}");
        }
        assert!(deliveries_over_time(&[]).is_ok(), "of nothing, an empty frame");
    }
}
