//! The plots of a report, as SVG.

use plotters::prelude::*;

use super::{Percentiles, Report};
use crate::Outcome;

const SIZE: (u32, u32) = (860, 360);

/// A line of a plot.
type Line = (&'static str, RGBColor, Vec<(f64, f64)>);

const BLUE_LINE: RGBColor = RGBColor(31, 111, 235);
const RED_LINE: RGBColor = RGBColor(192, 57, 43);

/// Times against percentiles. The axis is stretched towards 100 %: each nine is as wide as the last.
pub fn percentiles(report: &Report) -> Outcome<String> {
    let nines = |times: &Percentiles| {
        let points = times.curve.iter().filter(|(quantile, _)| *quantile < 1.0);
        points.map(|(quantile, us)| (-(1.0 - quantile).log10(), *us / 1_000.0)).collect::<Vec<_>>()
    };
    let mut lines: Vec<Line> = Vec::new();
    if let Some(times) = &report.latency {
        lines.push(("due to delivered", BLUE_LINE, nines(times)));
    }
    if let Some(times) = &report.ack_latency {
        lines.push(("due to answered", RED_LINE, nines(times)));
    }
    let all = || lines.iter().flat_map(|(_, _, points)| points.iter());
    let right = all().map(|point| point.0).fold(1.0, f64::max);
    let low = all().map(|point| point.1).fold(f64::INFINITY, f64::min).clamp(0.001, 1e6);
    let high = all().map(|point| point.1).fold(low * 2.0, f64::max);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption("Latency by percentile (ms)", ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(34)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..right, (low * 0.8..high * 1.2).log_scale())?;
        let percent = |nines: &f64| format!("{}", round(100.0 - 100.0 * 10f64.powf(-nines)));
        chart
            .configure_mesh()
            .x_labels(right.ceil() as usize + 1)
            .x_label_formatter(&percent)
            .y_label_formatter(&|ms| format!("{ms:.3}"))
            .x_desc("percentile")
            .light_line_style(RGBColor(240, 240, 240))
            .draw()?;
        for (name, color, points) in lines {
            chart
                .draw_series(LineSeries::new(points, color.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        }
        chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).draw()?;
        root.present()?;
    }
    Ok(svg)
}

/// Messages and deliveries a second over time.
pub fn throughput(report: &Report) -> Outcome<String> {
    let of = |value: fn(&super::Moment) -> f64| {
        report.timeline.iter().map(|moment| (moment.at_s, value(moment))).collect::<Vec<_>>()
    };
    let lines: [Line; 2] = [
        ("delivered/s", BLUE_LINE, of(|moment| moment.delivered_per_s)),
        ("published/s", RED_LINE, of(|moment| moment.published_per_s)),
    ];
    let all = || lines.iter().flat_map(|(_, _, points)| points.iter());
    let left = all().map(|point| point.0).fold(f64::INFINITY, f64::min).clamp(0.0, 1e9);
    let right = all().map(|point| point.0).fold(left + 0.1, f64::max);
    let high = all().map(|point| point.1).fold(1.0, f64::max);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption("Messages a second over time (s)", ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(34)
            .y_label_area_size(84)
            .build_cartesian_2d(left..right, 0.0..high * 1.1)?;
        chart
            .configure_mesh()
            .x_desc("seconds from the first message")
            .x_label_formatter(&|at| format!("{at:.1}"))
            .y_label_formatter(&|rate| format!("{rate:.0}"))
            .light_line_style(RGBColor(240, 240, 240))
            .draw()?;
        for (name, color, points) in lines {
            chart
                .draw_series(LineSeries::new(points, color.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        }
        chart.configure_series_labels().position(SeriesLabelPosition::LowerRight).draw()?;
        root.present()?;
    }
    Ok(svg)
}

/// Enough digits to tell 99.9 from 99.99.
fn round(percent: f64) -> f64 {
    (percent * 1e6).round() / 1e6
}
