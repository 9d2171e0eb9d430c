//! The faults of a disk, and the words in which they are asked for.

use std::fmt;
use std::time::Duration;

/// What happens when a program asks that its writes survive a power cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FsyncMode {
    /// The writes survive it.
    #[default]
    Honest,
    /// The program is told that they do, and they do not.
    Lies,
    /// It gets an input/output error. A later attempt covers what was written before.
    Fails,
    /// It gets an input/output error, and what was written before is taken for clean, as Linux does: a later attempt
    /// covers only what is written again.
    FailsAndForgets,
}

/// The faults of a disk at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// Time that every operation takes more.
    pub delay: Duration,
    /// What a program's fsync does.
    pub fsync: FsyncMode,
    /// Bytes by which files may still grow; `None` for as much as there is.
    pub free_bytes: Option<u64>,
}

/// An order to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOrder {
    /// Sets the time that every operation takes more.
    Delay(Duration),
    /// Sets what an fsync does.
    Fsync(FsyncMode),
    /// Sets the bytes by which files may still grow.
    Free(Option<u64>),
    /// Cuts the power: drops what was not synced. With a seed, every sector that was not synced is kept or dropped at
    /// random, as when some of the writes had reached the disk.
    Cut(Option<u64>),
}

/// An order that could not be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadOrder(String);

impl fmt::Display for BadOrder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for BadOrder {}

impl DiskFaults {
    /// Carries out an order about the settings. A cut changes none of them.
    pub(super) fn obey(&mut self, order: DiskOrder) {
        match order {
            DiskOrder::Delay(delay) => self.delay = delay,
            DiskOrder::Fsync(mode) => self.fsync = mode,
            DiskOrder::Free(bytes) => self.free_bytes = bytes,
            DiskOrder::Cut(_) => {}
        }
    }
}

/// Reads the orders of a text, one a line: `delay_us=N`, `fsync=honest|lies|fails|fails-and-forgets`, `free=N|none`,
/// `cut` or `cut=SEED`.
pub(super) fn parse_orders(text: &str) -> Result<Vec<DiskOrder>, BadOrder> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(parse_order).collect()
}

fn parse_order(line: &str) -> Result<DiskOrder, BadOrder> {
    let (name, value) = line.split_once('=').unwrap_or((line, ""));
    let number = || {
        value
            .parse::<u64>()
            .map_err(|_| BadOrder(format!("{name}: {value:?} is not a whole number from 0 to 2^64-1")))
    };
    match name {
        "delay_us" => Ok(DiskOrder::Delay(Duration::from_micros(number()?))),
        "fsync" => match value {
            "honest" => Ok(DiskOrder::Fsync(FsyncMode::Honest)),
            "lies" => Ok(DiskOrder::Fsync(FsyncMode::Lies)),
            "fails" => Ok(DiskOrder::Fsync(FsyncMode::Fails)),
            "fails-and-forgets" => Ok(DiskOrder::Fsync(FsyncMode::FailsAndForgets)),
            _ => Err(BadOrder(format!(
                "fsync: {value:?} is not one of honest, lies, fails, fails-and-forgets"
            ))),
        },
        "free" if value == "none" => Ok(DiskOrder::Free(None)),
        "free" => Ok(DiskOrder::Free(Some(number()?))),
        "cut" if value.is_empty() => Ok(DiskOrder::Cut(None)),
        "cut" => Ok(DiskOrder::Cut(Some(number()?))),
        _ => Err(BadOrder(format!("{name:?} is not one of delay_us, fsync, free, cut"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read() {
        let orders =
            parse_orders("delay_us=50\nfsync=lies\n\nfree=4096\nfree=none\ncut\ncut=7\n").expect("orders");
        assert_eq!(
            orders,
            [
                DiskOrder::Delay(Duration::from_micros(50)),
                DiskOrder::Fsync(FsyncMode::Lies),
                DiskOrder::Free(Some(4096)),
                DiskOrder::Free(None),
                DiskOrder::Cut(None),
                DiskOrder::Cut(Some(7)),
            ]
        );
    }

    #[test]
    fn bad_orders_name_what_is_allowed() {
        for (text, word) in
            [("fsync=maybe", "honest"), ("free=-1", "whole number"), ("melt", "delay_us"), ("cut=x", "cut")]
        {
            let error = parse_orders(text).expect_err(text).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
