//! Draws charts of horizontal bars as SVG, in groups of a few bars each.

use std::fmt::Write;

/// A named group of bars.
pub struct Group {
    /// The name that stands above the bars.
    pub name: String,
    /// Name and value of each bar, in the order of drawing.
    pub bars: Vec<(String, f64)>,
}

const WIDTH: f64 = 860.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 110.0;
const BAR: f64 = 18.0;
const GAP: f64 = 30.0;
const TOP: f64 = 34.0;

const OWN: &str = "#1f6feb";
const OTHER: &str = "#b0b8c0";

/// Draws the groups below each other, each to its own scale. Bars whose name begins with "aNode" are in
/// colour; `write` makes a value readable.
pub fn bars(title: &str, groups: &[Group], write: fn(f64) -> String) -> String {
    let rows: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = TOP + rows as f64 * BAR + groups.len() as f64 * GAP + 10.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
        font-size=\"12\" fill=\"#333\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
        <text x=\"10\" y=\"22\" font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    let mut y = TOP;
    for group in groups {
        let most = group.bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
        // It cannot fail: the target is a string.
        let _ = writeln!(
            out,
            "<text x=\"10\" y=\"{:.0}\" font-weight=\"bold\">{}</text>",
            y + 20.0,
            escaped(&group.name)
        );
        y += GAP;
        for (name, value) in &group.bars {
            let width = ((WIDTH - LEFT - RIGHT) * value / most).max(1.0);
            let color = if name.starts_with("aNode") { OWN } else { OTHER };
            let _ = writeln!(
                out,
                "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
                <rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.0}\" fill=\"{color}\"/>\
                <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 6.0,
                y + 13.0,
                escaped(name),
                y + 2.0,
                BAR - 4.0,
                LEFT + width + 6.0,
                y + 13.0,
                escaped(&write(*value))
            );
            y += BAR;
        }
    }
    out + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
