//! Draws the timeline of a run as SVG: deliveries a second, latency and members, with the faults as bands.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::report::Report;

/// Width and height of the drawing, in pixels.
const SIZE: (u32, u32) = (900, 720);
/// Colours of the lines of a panel, in their order.
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 111, 235),
    RGBColor(192, 57, 43),
    RGBColor(46, 125, 50),
    RGBColor(148, 103, 189),
    RGBColor(230, 126, 34),
    RGBColor(23, 162, 184),
];
/// Colour of the bands.
const BAND: RGBColor = RGBColor(240, 180, 60);

/// A line of a panel: its name and its points in seconds and the panel's unit.
type Line = (String, Vec<(f64, f64)>);

/// A part of the drawing.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One of the panels, which lie above each other.
struct Panel {
    title: &'static str,
    lines: Vec<Line>,
    is_last: bool,
}

/// Draws a run. Fails with a sentence if the numbers cannot be drawn.
pub fn timeline(report: &Report) -> Result<String, String> {
    let of = |value: &dyn Fn(usize) -> f64| -> Vec<(f64, f64)> {
        (0..report.seconds.len()).map(|second| (second as f64, value(second))).collect()
    };
    let rates = vec![
        ("delivered/s".to_owned(), of(&|second| report.seconds[second].deliveries as f64)),
        ("answered/s".to_owned(), of(&|second| report.seconds[second].answers as f64)),
    ];
    let latency = |value: fn(&super::Latencies) -> u32| {
        let seconds = report.seconds.iter().enumerate();
        let some = seconds.filter(|(_, second)| second.latency.count > 0);
        some.map(|(at, second)| (at as f64, f64::from(value(&second.latency)) / 1e3)).collect::<Vec<_>>()
    };
    let latencies =
        vec![("p50".to_owned(), latency(|all| all.p50_us)), ("p99".to_owned(), latency(|all| all.p99_us))];
    let members: Vec<Line> = report
        .alive_members
        .iter()
        .map(|(node, counts)| {
            let points = counts.iter().map(|(at_us, alive)| (*at_us as f64 / 1e6, *alive as f64));
            (node.clone(), points.collect())
        })
        .collect();
    let panels = [
        Panel { title: "Records a second", lines: rates, is_last: false },
        Panel { title: "Latency of deliveries (ms)", lines: latencies, is_last: false },
        Panel { title: "Members alive, as each node sees them", lines: members, is_last: true },
    ];
    draw(report, &panels).map_err(|error| format!("the timeline cannot be drawn: {error}"))
}

fn draw(report: &Report, panels: &[Panel]) -> Result<String, String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|error| error.to_string())?;
        let titled = root.titled(&report.name, ("sans-serif", 20)).map_err(|error| error.to_string())?;
        let areas = titled.split_evenly((panels.len(), 1));
        for (area, panel) in areas.iter().zip(panels) {
            draw_panel(area, report, panel)?;
        }
        root.present().map_err(|error| error.to_string())?;
    }
    Ok(text)
}

fn draw_panel(area: &Area<'_>, report: &Report, panel: &Panel) -> Result<(), String> {
    let failed = |error: DrawingAreaErrorKind<_>| error.to_string();
    let end = (report.figures.length_us as f64 / 1e6).max(1.0);
    let points = || panel.lines.iter().flat_map(|(_, points)| points);
    let high = points().map(|point| point.1).filter(|y| y.is_finite()).fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, ("sans-serif", 14))
        .margin(6)
        .margin_right(24)
        .x_label_area_size(if panel.is_last { 36 } else { 20 })
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..end, 0.0..high)
        .map_err(failed)?;
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(WHITE).y_labels(5);
    if panel.is_last {
        mesh.x_desc("seconds since the beginning");
    }
    mesh.draw().map_err(failed)?;
    for fault in &report.faults {
        let began = fault.began_us as f64 / 1e6;
        let ended = fault.ended_us.map_or(end, |us| us as f64 / 1e6).max(began + end / 400.0);
        let band = Rectangle::new([(began, 0.0), (ended, high)], BAND.mix(0.25).filled());
        let name = Text::new(fault.name.clone(), (began, high * 0.97), ("sans-serif", 11).into_font());
        chart.draw_series(std::iter::once(band)).map_err(failed)?;
        if !panel.is_last {
            chart.draw_series(std::iter::once(name)).map_err(failed)?;
        }
    }
    for (index, (name, points)) in panel.lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
        let drawn = chart.draw_series(line).map_err(failed)?;
        drawn.label(name.clone()).legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour));
    }
    if panel.lines.is_empty() {
        return Ok(());
    }
    let mut labels = chart.configure_series_labels();
    labels.position(SeriesLabelPosition::UpperRight).background_style(WHITE.mix(0.8)).draw().map_err(failed)
}
