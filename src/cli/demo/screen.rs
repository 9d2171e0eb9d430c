//! Draws the state of the demo: on a terminal as a picture several times a second, elsewhere as one line a
//! second.

use std::io::{self, IsTerminal, Write};

use super::watch::{Seen, Summary};
use crate::cli::format::may_colour;
use crate::cli::members::Member;

/// Size of the picture: every terminal has this number of lines and columns.
const LINES: usize = 24;
const COLUMNS: usize = 80;
/// Most members that are shown. The remaining lines are used for sources.
const MEMBERS_MAX: usize = 6;

/// The state of the cluster, which is drawn together with the received records.
pub struct Told {
    /// How long the demo has run, in microseconds.
    pub up_us: u64,
    /// Number of nodes.
    pub nodes: usize,
    /// URL of the page that the first node serves.
    pub page: String,
    /// URLs of the first and of the last node, for commands.
    pub urls: [String; 2],
    /// A line that tells what is happening in the demo.
    pub story: String,
    /// A line that tells that a port was taken, if one was.
    pub notice: Option<String>,
    /// The members as the first node sees them.
    pub members: Vec<Member>,
}

/// Draws on stdout. It remembers whether that is a terminal, and whether something has been drawn.
pub struct Screen {
    is_terminal: bool,
    has_colour: bool,
    is_first: bool,
}

impl Screen {
    /// Makes a screen that draws on stdout.
    pub fn new() -> Screen {
        let stdout = io::stdout();
        Screen { is_terminal: stdout.is_terminal(), has_colour: may_colour(&stdout), is_first: true }
    }

    /// Returns whether stdout is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Draws the current state: a new picture on a terminal, elsewhere one more line.
    pub fn draw(&mut self, told: &Told, seen: &Seen) -> io::Result<()> {
        let summary = seen.summary();
        let mut out = String::new();
        if self.is_terminal {
            // The picture is drawn over the last one from the top left, and the rest of every line is
            // cleared. Clearing the whole screen would make it flicker.
            out.push_str(if self.is_first { "\x1b[2J\x1b[H" } else { "\x1b[H" });
            for line in picture(told, &summary, self.has_colour) {
                out.push_str(&line);
                out.push_str("\x1b[K\n");
            }
            out.push_str("\x1b[J");
        } else {
            if self.is_first {
                for line in advice(told) {
                    out.push_str(&format!("{line}\n"));
                }
            }
            out.push_str(&line(told, &summary));
            out.push('\n');
        }
        self.is_first = false;
        let mut stdout = io::stdout().lock();
        stdout.write_all(out.as_bytes())?;
        stdout.flush()
    }
}

/// Formats the line that is printed every second if stdout is not a terminal.
fn line(told: &Told, summary: &Summary) -> String {
    let counts = ["alive", "joining", "suspect", "dead", "left"].map(|state| {
        let count = told.members.iter().filter(|member| member.state == state).count();
        (count > 0).then(|| format!("{count} {state}"))
    });
    let members = counts.into_iter().flatten().collect::<Vec<String>>().join(", ");
    format!(
        "{:>4} s  members: {members}  records: {}  missing: {}  repeated: {}  travel: {}  {}",
        told.up_us / 1_000_000,
        summary.count,
        summary.missing,
        summary.repeated,
        travel(summary),
        told.story
    )
}

fn travel(summary: &Summary) -> String {
    let ms = |us: u64| format!("{}.{:02} ms", us / 1000, us % 1000 / 10);
    match summary.p50_p99_us {
        Some((p50_us, p99_us)) => format!("p50 {} p99 {}", ms(p50_us), ms(p99_us)),
        None => "-".into(),
    }
}

/// Returns what the user can open and try while the demo runs.
fn advice(told: &Told) -> Vec<String> {
    let [first, last] = &told.urls;
    let mut lines: Vec<String> = told.notice.iter().cloned().collect();
    lines.extend([
        format!("Open {}", told.page),
        format!("Try  anode sub 'host/**' --url {last}"),
        format!("     anode pub hello world --url {first}"),
        format!("     anode top --url {first}"),
    ]);
    lines
}

/// Returns the lines of the picture. There is at least one fewer than every terminal has, because the cursor stays in the
/// line below them.
fn picture(told: &Told, summary: &Summary, has_colour: bool) -> Vec<String> {
    let coloured = |code: &str, text: &str| match has_colour {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    };
    let mut lines = vec![
        format!(
            "aNode demo: {} nodes in one process, {} s   Ctrl-C ends it",
            told.nodes,
            told.up_us / 1_000_000
        ),
        coloured("1", &cut(&told.story)),
        String::new(),
    ];
    let mut members: Vec<&Member> = told.members.iter().collect();
    // Members that are not alive come first. With many nodes they would not be shown otherwise.
    members.sort_by_key(|member| (member.state == "alive", member.id.clone()));
    for member in members.iter().take(MEMBERS_MAX) {
        let colour = match member.state.as_str() {
            "alive" => "32",
            "suspect" | "joining" => "33",
            _ => "31",
        };
        let rtt = member.rtt_us.map_or(String::new(), |us| format!("rtt {us} us"));
        let Member { id, state, http, .. } = member;
        let state = coloured(colour, &format!("{state:<8}"));
        lines.push(format!("  {id:<10} {state} {http:<22} {rtt}"));
    }
    if members.len() > MEMBERS_MAX {
        lines.push(format!("  … and {} more", members.len() - MEMBERS_MAX));
    }
    let connected = if summary.is_connected { "" } else { "  (connecting)" };
    lines.extend([
        String::new(),
        format!("Received at the last node: {} records{connected}", summary.count),
        format!("Missing: {}   repeated: {}", summary.missing, summary.repeated),
        format!("Travel time, accepted at the first node → received: {}", travel(summary)),
        String::new(),
    ]);
    let advice = advice(told);
    let room = LINES.saturating_sub(lines.len() + advice.len() + 3);
    lines.extend(
        summary.latest.iter().take(room).map(|(source, data)| cut(&format!("  {source:<16} {data}"))),
    );
    if summary.latest.len() > room {
        lines.push(format!("  … and {} more sources", summary.latest.len() - room));
    }
    lines.push(String::new());
    lines.extend(advice.iter().map(|line| cut(line)));
    lines
}

/// Cuts a line to the width of the terminal.
fn cut(line: &str) -> String {
    match line.char_indices().nth(COLUMNS - 1) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or_default()),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(states: &[&str]) -> Told {
        let member = |(at, state): (usize, &&str)| Member {
            id: format!("node-{}", at + 1),
            state: (*state).into(),
            http: format!("127.0.0.1:{at}"),
            gossip: String::new(),
            zone: String::new(),
            incarnation: 0,
            version: String::new(),
            rtt_us: Some(310),
        };
        let members: Vec<Member> = states.iter().enumerate().map(member).collect();
        let urls = ["ws://127.0.0.1:7070", "ws://127.0.0.1:65535"].map(str::to_owned);
        let notice = Some("127.0.0.1:7070 is taken: node-1 is at 127.0.0.1:12345 instead".into());
        let page = "http://127.0.0.1:12345/".into();
        let (nodes, story) = (members.len(), "all nodes run".into());
        Told { up_us: 12_345_678, nodes, page, urls, story, notice, members }
    }

    fn summary(sources: usize) -> Summary {
        let latest = (0..sources).map(|at| (format!("host/{at:03}"), "x".repeat(200))).collect();
        let p50_p99_us = Some((1_234, 20_500));
        Summary { latest, count: 7, missing: 0, repeated: 0, p50_p99_us, is_connected: true }
    }

    #[test]
    fn one_line() {
        assert_eq!(
            line(&told(&["alive", "dead", "alive"]), &summary(0)),
            "  12 s  members: 2 alive, 1 dead  records: 7  missing: 0  repeated: 0  travel: p50 1.23 ms p99 20.50 ms  all nodes run"
        );
    }

    #[test]
    fn the_picture_fits_and_shows_who_is_not_well() {
        let lines = picture(&told(&[&["alive"; 63][..], &["dead"]].concat()), &summary(200), false);
        assert!(lines.len() < LINES, "{} lines, and that of the cursor", lines.len());
        for line in &lines {
            assert!(line.chars().count() <= COLUMNS && !line.contains('\x1b'), "{line}");
        }
        assert!(lines.iter().any(|line| line == "Open http://127.0.0.1:12345/"), "{lines:?}");
        assert!(lines.iter().any(|line| line == "Missing: 0   repeated: 0"), "{lines:?}");
        assert!(lines[3].contains("node-64") && lines[3].contains("dead"), "{}", lines[3]);
        assert!(lines.iter().any(|line| line.contains("… and 58 more")), "{lines:?}");
        assert!(lines.iter().any(|line| line.ends_with("more sources")), "{lines:?}");
    }
}
