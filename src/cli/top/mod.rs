//! `anode top`: members, rates, latencies and the hottest sources of a cluster, live on a terminal, or once for scripts.
//!
//! One thread asks all members for their metrics about once a second ([`sample`]). Another one subscribes to the sources
//! and counts their records ([`hot`]). The main thread draws what both have found ([`view`]), or prints it once ([`text`]).

mod hot;
mod sample;
mod text;
mod view;

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};

use self::hot::HotSources;
use self::sample::{ClusterSample, Sampler};
use super::client::{AccessArguments, Interrupt, Nodes, Subscription, WantedSources};
use super::format::{FormatArguments, is_without_colour};
use super::{CliError, Given, whole_number};
use crate::record::Pattern;
use crate::server::clock;

/// Time between two looks at the keyboard.
const KEYS: Duration = Duration::from_millis(100);

/// The arguments of `anode top`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode top\n\
    \x20 anode top --url http://10.0.0.1:7070 --pattern 'sensors/**' --interval 2\n\
    \x20 anode top --once\n\
    \x20 anode top --json | jq .total\n\n\
    Keys: q or Esc ends it, p pauses. Where the output is no terminal, it is printed once. Metrics and members need the \
    right to observe, the hottest sources the right to subscribe to the pattern.")]
pub struct Arguments {
    /// Sources that are counted for the list of the hottest
    #[arg(long, value_name = "PATTERN", default_value = "**")]
    pattern: String,
    /// Seconds between two samples
    #[arg(long, value_name = "SECONDS", default_value_t = 1, allow_negative_numbers = true, value_parser = whole_number(1..=3_600))]
    interval: u64,
    /// Print one sample as text, and end
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    format: FormatArguments,
}

/// What the threads have found, to be shown.
#[derive(Clone, Debug, Default)]
struct Shown {
    cluster: Arc<ClusterSample>,
    hot: Vec<(String, f64)>,
}

/// Shows the cluster until the user ends it, or once.
pub fn run(arguments: &Arguments, given: &Given) -> Result<(), CliError> {
    let nodes = arguments.access.nodes(given, ("--url", &[]))?;
    Pattern::parse(&arguments.pattern).map_err(|error| CliError::Usage(error.to_string()))?;
    let interrupt = Interrupt::watch()?;
    let ending = Arc::new(AtomicBool::new(false));
    let hot = Arc::new(HotSources::default());
    let mut sampler = Sampler::new(nodes.clone());
    // The first sample has no rates, and tells whether there is a cluster at all.
    let first = sampler.sample(clock::mono_us())?;
    let counter = count_sources(nodes, arguments.pattern.clone(), hot.clone(), ending.clone())?;
    let interval_us = arguments.interval * 1_000_000;
    let is_json = arguments.format.is_json(given);
    let shown = if is_json || arguments.once || !std::io::stdout().is_terminal() {
        wait(interval_us, &interrupt);
        let cluster = Arc::new(sampler.sample(clock::mono_us())?);
        let shown = Shown { cluster, hot: hot.hottest(clock::mono_us()) };
        let text = if is_json { text::json(&shown) } else { text::plain(&shown) };
        std::io::stdout().write_all(text.as_bytes()).map_err(CliError::from)
    } else {
        live(sampler, first, &hot, interval_us, &interrupt)
    };
    ending.store(true, Relaxed);
    // The thread ends within a tenth of a second, unless it is connecting; nothing depends on its end.
    drop(counter);
    shown
}

/// Waits for an interval, or until the user ends the command.
fn wait(interval_us: u64, interrupt: &Interrupt) {
    let end_us = clock::mono_us() + interval_us;
    while clock::mono_us() < end_us && !interrupt.came() {
        clock::sleep(20_000);
    }
}

/// Starts the thread that counts the records of sources.
fn count_sources(
    nodes: Nodes,
    pattern: String,
    hot: Arc<HotSources>,
    ending: Arc<AtomicBool>,
) -> Result<thread::JoinHandle<()>, CliError> {
    let wanted =
        WantedSources { sources: vec![pattern], has_snapshot: false, mode: "latest".into(), filter: None };
    let count = move || {
        let mut subscription = Subscription::new(nodes, wanted);
        while !ending.load(Relaxed) {
            match subscription.next() {
                Ok(event) => hot.handle_event(clock::mono_us(), &event),
                // Without the right to subscribe, there is no list of the hottest sources.
                Err(error) => return hot.set_refused(error.to_string()),
            }
        }
        subscription.close();
    };
    Ok(thread::Builder::new().name("sources".into()).spawn(count)?)
}

/// Draws on the terminal until the user ends it.
fn live(
    mut sampler: Sampler,
    first: ClusterSample,
    hot: &HotSources,
    interval_us: u64,
    interrupt: &Interrupt,
) -> Result<(), CliError> {
    let latest = Arc::new(Mutex::new(Arc::new(first)));
    let ending = Arc::new(AtomicBool::new(false));
    let sampling = {
        let (latest, ending) = (latest.clone(), ending.clone());
        move || {
            let mut next_us = clock::mono_us() + interval_us;
            while !ending.load(Relaxed) {
                let now_us = clock::mono_us();
                if now_us < next_us {
                    clock::sleep((next_us - now_us).min(50_000));
                    continue;
                }
                next_us = now_us + interval_us;
                // Nodes that do not answer stand in the last sample, and are tried again.
                let sampled = sampler.sample(now_us);
                let sample = sampled.unwrap_or_else(|error| ClusterSample::failed(error.to_string()));
                *latest.lock() = Arc::new(sample);
            }
        }
    };
    let sampling = thread::Builder::new().name("samples".into()).spawn(sampling)?;
    let mut terminal = ratatui::try_init()?;
    let drawn = draw_until_end(&mut terminal, &latest, hot, interrupt);
    // The terminal is left as it was in any case; a failure to do so cannot be mended here.
    let _ = ratatui::try_restore();
    ending.store(true, Relaxed);
    drop(sampling);
    drawn
}

fn draw_until_end(
    terminal: &mut ratatui::DefaultTerminal,
    latest: &Mutex<Arc<ClusterSample>>,
    hot: &HotSources,
    interrupt: &Interrupt,
) -> Result<(), CliError> {
    let mut is_paused = false;
    let mut shown = Shown::default();
    while !interrupt.came() {
        if !is_paused {
            let cluster = latest.lock().clone();
            shown = Shown { cluster, hot: hot.hottest(clock::mono_us()) };
        }
        let refusal = hot.refusal();
        terminal.draw(|frame| {
            let screen = view::TopScreen {
                shown: &shown,
                has_colour: !is_without_colour(),
                is_paused,
                refusal: refusal.as_deref(),
            };
            screen.draw(frame);
        })?;
        if !event::poll(KEYS)? {
            continue;
        }
        if let Event::Key(key) = event::read()? {
            let is_interrupt =
                key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            match key.code {
                KeyCode::Char('q') | KeyCode::Esc => break,
                KeyCode::Char('p') => is_paused = !is_paused,
                _ if is_interrupt => break,
                _ => {}
            }
        }
    }
    Ok(())
}
