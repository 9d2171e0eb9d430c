//! Many subscribers to which nothing is delivered, to measure how much memory each costs the node.

use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};

use crate::Outcome;
use crate::args::RunArgs;
use crate::engine::{Running, Sample, Watcher};

/// Open connections of subscribers. A thread answers pings on them until this is dropped.
pub struct Idle {
    running: Option<Running>,
    count: usize,
}

impl Idle {
    /// Opens `count` subscribers of sources that nobody publishes.
    pub fn open(http: &str, count: usize) -> Outcome<Idle> {
        Idle::open_with(RunArgs::parse(&["--to", http])?, count)
    }

    /// Opens `count` subscribers at the target and from the local addresses that `args` names.
    pub fn open_with(mut args: RunArgs, count: usize) -> Outcome<Idle> {
        crate::raise_open_files();
        args.publishers = 0;
        args.subscribers = u32::try_from(count)?;
        // With a single source, subscribers would ask for it by name instead of by a pattern.
        args.sources = Some(2);
        args.prefix = Some("idle".to_owned());
        let running = Running::start(&Arc::new(args.plan(None)?))?;
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} connections")?;
        let mut opening = Opening(ProgressBar::new(count as u64).with_style(style));
        running.wait_open(&mut opening)?;
        opening.0.finish();
        Ok(Idle { running: Some(running), count })
    }

    /// Returns how many connections were opened.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether no connection was opened.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Fails if a connection was lost.
    pub fn check(&self) -> Outcome<()> {
        match self.running.as_ref().and_then(Running::failure) {
            Some(reason) => Err(reason.into()),
            None => Ok(()),
        }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            // How the connections end does not matter.
            let _ = running.stop();
        }
    }
}

struct Opening(ProgressBar);

impl Watcher for Opening {
    fn opening(&mut self, ready: u64, _: u64) {
        self.0.set_position(ready);
    }
    fn running(&mut self, _: Sample, _: Sample) {}
    fn draining(&mut self) {}
}
