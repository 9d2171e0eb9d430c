//! Draws a sample on a terminal of at least 80 columns and 24 lines; on smaller ones, what fits.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table};

use super::Shown;
use super::text::{HEADS, cells, rate, summary};

/// Most lines of the list of members, of a terminal of 24 lines.
const MEMBER_LINES_MAX: u16 = 10;
/// Lines of the hottest sources that are kept free.
const HOT_LINES_MIN: u16 = 6;

/// What is drawn.
pub(super) struct TopScreen<'a> {
    pub shown: &'a Shown,
    pub has_colour: bool,
    pub is_paused: bool,
    /// The reason why no sources are counted.
    pub refusal: Option<&'a str>,
}

impl TopScreen<'_> {
    /// Draws on a frame.
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let members = u16::try_from(self.shown.cluster.nodes.len()).unwrap_or(u16::MAX);
        let most = MEMBER_LINES_MAX.max(area.height.saturating_sub(HOT_LINES_MIN + 6));
        let member_lines = members.saturating_add(1).min(most);
        let [title, gap, table, gap_2, hot, keys] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Length(1),
            Constraint::Length(member_lines),
            Constraint::Length(1),
            Constraint::Min(1),
            Constraint::Length(1),
        ])
        .areas(area);
        let _ = (gap, gap_2);
        self.draw_title(frame, title);
        self.draw_members(frame, table);
        self.draw_hot(frame, hot);
        let pause = if self.is_paused { "PAUSED  p: go on" } else { "p: pause" };
        frame.render_widget(Paragraph::new(format!("q: quit  {pause}")), keys);
    }

    fn style(&self, colour: Color) -> Style {
        if self.has_colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn draw_title(&self, frame: &mut Frame<'_>, area: Rect) {
        let cluster = &self.shown.cluster;
        let second = match &cluster.failure {
            None => Line::raw(summary(cluster)),
            Some(reason) => Line::styled(reason.clone(), self.style(Color::Red)),
        };
        let name = Span::styled("anode top", Style::new().add_modifier(Modifier::BOLD));
        let first = Line::from(vec![name, Span::raw(format!("  {}", cluster.asked))]);
        frame.render_widget(Paragraph::new(vec![first, second]), area);
    }

    fn draw_members(&self, frame: &mut Frame<'_>, area: Rect) {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let heads = ["member", "state"].into_iter().chain(HEADS);
        let mut nodes: Vec<_> = self.shown.cluster.nodes.iter().collect();
        // Members that are not well come first: they are shown even where not all fit.
        nodes.sort_by_key(|node| (node.state == "alive", node.id.clone()));
        let rows = nodes.into_iter().map(|node| {
            let colour = match node.state.as_str() {
                "alive" => Color::Green,
                "joining" | "suspect" => Color::Yellow,
                _ => Color::Red,
            };
            let state = Span::styled(node.state.clone(), self.style(colour));
            let name = [Span::raw(node.id.clone()), state].into_iter().map(Line::from);
            Row::new(name.chain(cells(node).map(|cell| Line::raw(cell).right_aligned())))
        });
        let widths = [
            Constraint::Min(6),
            Constraint::Length(8),
            Constraint::Length(8),
            Constraint::Length(10),
            Constraint::Length(8),
            Constraint::Length(9),
            Constraint::Length(8),
            Constraint::Length(6),
            Constraint::Length(10),
        ];
        let heads = heads.enumerate().map(|(at, head)| match at {
            0 | 1 => Line::raw(head),
            _ => Line::raw(head).right_aligned(),
        });
        frame.render_widget(
            Table::new(rows, widths).column_spacing(0).header(Row::new(heads).style(bold)),
            area,
        );
    }

    fn draw_hot(&self, frame: &mut Frame<'_>, area: Rect) {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let mut lines = vec![Line::styled("hottest sources, records/s", bold)];
        match self.refusal {
            Some(reason) => lines.push(Line::raw(format!("cannot be counted: {reason}"))),
            None => lines.extend(
                self.shown
                    .hot
                    .iter()
                    .map(|(source, records)| Line::raw(format!("{:>10}  {source}", rate(*records)))),
            ),
        }
        frame.render_widget(Paragraph::new(lines), area);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::cli::top::sample::{ClusterSample, NodeFigures, NodeSample, Rates};

    fn drawn(nodes: usize, has_colour: bool) -> (String, bool) {
        let node = |at: usize| NodeSample {
            id: format!("node-{at:02}"),
            state: if at == nodes - 1 { "suspect".into() } else { "alive".into() },
            zone: String::new(),
            http: String::new(),
            rtt_us: Some(5),
            figures: Some(NodeFigures {
                rates: Rates {
                    published: 123_456.0,
                    delivered: 1_234_567.0,
                    cpu_percent: 199.0,
                    ..Rates::default()
                },
                propagation_p99: Some(0.0025),
                resident_bytes: 1e9,
                queued_bytes: 1e3,
                ..NodeFigures::default()
            }),
        };
        let cluster = ClusterSample { nodes: (0..nodes).map(node).collect(), ..ClusterSample::default() };
        let hot = (0..50).map(|at| (format!("source/{at}"), 50.0 - f64::from(at))).collect();
        let shown = Shown { cluster: Arc::new(cluster), hot };
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a terminal");
        let screen = TopScreen { shown: &shown, has_colour, is_paused: false, refusal: None };
        terminal.draw(|frame| screen.draw(frame)).expect("drawn");
        let buffer = terminal.backend().buffer().clone();
        let is_coloured = buffer.content().iter().any(|cell| cell.fg != Color::Reset);
        let lines =
            buffer.content().chunks(80).map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>());
        (lines.collect::<Vec<String>>().join("\n"), is_coloured)
    }

    #[test]
    fn a_cluster_fits_an_ordinary_terminal() {
        let (screen, is_coloured) = drawn(3, true);
        for word in ["anode top", "node-02", "suspect", "123,456", "<2.5ms", "199 %", "source/0", "q: quit"] {
            assert!(screen.contains(word), "{word} in\n{screen}");
        }
        assert!(is_coloured);
        assert!(!drawn(3, false).1, "NO_COLOR");
    }

    #[test]
    fn of_many_members_those_that_are_not_well_are_shown() {
        let (screen, _) = drawn(40, false);
        assert!(screen.contains("node-39") && screen.contains("source/0"), "{screen}");
    }
}
