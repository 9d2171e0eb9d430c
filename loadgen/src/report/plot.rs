//! Draws the plots of a report as SVG.

use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

use super::{Moment, Percentiles, Report, Second};
use crate::Outcome;

const SIZE: (u32, u32) = (860, 360);
const COLORS: [RGBColor; 3] = [RGBColor(31, 111, 235), RGBColor(192, 57, 43), RGBColor(46, 125, 50)];
const FAINT: RGBColor = RGBColor(240, 240, 240);

/// A line of a plot: its name and its points.
type Line = (&'static str, Vec<(f64, f64)>);

/// The texts around a plot.
struct Words<'a> {
    title: &'a str,
    x: &'a str,
    x_label: fn(&f64) -> String,
    y_label: fn(&f64) -> String,
    x_labels: usize,
}

/// Draws times against percentiles. The axis is stretched towards 100 %: 90 to 99 % is as wide as 99 to
/// 99.9 %.
pub fn percentiles(report: &Report) -> Outcome<String> {
    let nines = |times: &Percentiles| {
        let points = times.curve.iter().filter(|(quantile, _)| *quantile < 1.0);
        points.map(|(quantile, us)| (-(1.0 - quantile).log10(), *us / 1_000.0)).collect::<Vec<_>>()
    };
    let kinds = [("due to delivered", &report.latency), ("due to answered", &report.ack_latency)];
    let lines: Vec<Line> =
        kinds.into_iter().filter_map(|(name, times)| Some((name, nines(times.as_ref()?)))).collect();
    let (_, right) = bounds(&lines, |point| point.0);
    let right = right.max(1.0);
    let words = Words {
        title: "Latency by percentile (ms)",
        x: "percentile",
        x_label: |nines| format!("{}", ((100.0 - 100.0 * 10f64.powf(-nines)) * 1e6).round() / 1e6),
        y_label: |ms| format!("{ms}"),
        x_labels: right.ceil() as usize + 1,
    };
    draw(&lines, 0.0..right, logarithmic(&lines), &words)
}

/// Draws the messages that were published per second over the time of the run, beside what the schedule asked for, if it
/// asked for a rate.
pub fn published(report: &Report) -> Outcome<String> {
    let mut lines = vec![("published/s", moments(report, |moment| moment.published_per_s))];
    if let Some(offered) = report.throughput.offered_per_s {
        let (left, right) = bounds(&lines, |point| point.0);
        lines.push(("offered/s", vec![(left, offered), (right, offered)]));
    }
    draw_rates("Messages published a second", &lines)
}

/// Draws the messages that subscribers were delivered per second over the time of the run. There may be many times more
/// of them than were published, so they have a scale of their own.
pub fn delivered(report: &Report) -> Outcome<String> {
    let lines = [("delivered/s", moments(report, |moment| moment.delivered_per_s))];
    draw_rates("Messages delivered a second", &lines)
}

fn moments(report: &Report, value: fn(&Moment) -> f64) -> Vec<(f64, f64)> {
    report.timeline.iter().map(|moment| (moment.at_s, value(moment))).collect()
}

/// Draws rates on a scale from 0.
fn draw_rates(title: &str, lines: &[Line]) -> Outcome<String> {
    let (_, high) = bounds(lines, |point| point.1);
    let words = over_time(title, |rate| format!("{rate:.0}"));
    draw(lines, time(lines), 0.0..high.max(1.0) * 1.1, &words)
}

/// Draws latencies over the time of the run.
pub fn latency(report: &Report) -> Outcome<String> {
    let of = |value: fn(&Second) -> f64| {
        let points = report.latency_by_second.iter();
        points.map(|second| (second.second as f64, value(second) / 1_000.0)).collect::<Vec<_>>()
    };
    let lines = [
        ("p50", of(|second| second.p50_us)),
        ("p99", of(|second| second.p99_us)),
        ("max", of(|second| second.max_us)),
    ];
    let words = over_time("Latency by second of arrival (ms)", |ms| format!("{ms}"));
    draw(&lines, time(&lines), logarithmic(&lines), &words)
}

fn over_time(title: &str, y_label: fn(&f64) -> String) -> Words<'_> {
    Words {
        title,
        x: "seconds from the first message",
        x_label: |at| format!("{at:.1}"),
        y_label,
        x_labels: 10,
    }
}

/// Returns the least and the greatest value of all points; 0 and 0 if there are none.
fn bounds(lines: &[Line], of: fn(&(f64, f64)) -> f64) -> (f64, f64) {
    let all = || lines.iter().flat_map(|(_, points)| points).map(of);
    let low = all().fold(f64::INFINITY, f64::min);
    if low.is_finite() { (low, all().fold(low, f64::max)) } else { (0.0, 0.0) }
}

fn time(lines: &[Line]) -> std::ops::Range<f64> {
    let (left, right) = bounds(lines, |point| point.0);
    left..right.max(left + 0.1)
}

/// Makes a logarithmic axis for the lines. It needs a beginning above zero and an end above that.
fn logarithmic(lines: &[Line]) -> LogCoord {
    let (low, high) = bounds(lines, |point| point.1);
    let low = low.max(0.000_1);
    (low * 0.8..high.max(low * 2.0) * 1.2).log_scale().into()
}

type LogCoord = plotters::coord::combinators::LogCoord<f64>;

fn draw<Y>(lines: &[Line], x: std::ops::Range<f64>, y: Y, words: &Words<'_>) -> Outcome<String>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(words.title, ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(34)
            .y_label_area_size(84)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .x_desc(words.x)
            .x_labels(words.x_labels)
            .x_label_formatter(&words.x_label)
            .y_label_formatter(&words.y_label)
            .light_line_style(FAINT)
            .draw()?;
        for ((name, points), color) in lines.iter().zip(COLORS) {
            chart
                .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        }
        let labels = SeriesLabelPosition::UpperLeft;
        chart.configure_series_labels().position(labels).background_style(WHITE).draw()?;
        root.present()?;
    }
    Ok(svg)
}
