//! What every subscriber got, and in which order.
//!
//! Within a connection the versions of a source must strictly rise. A subscriber that resumes with a token may get
//! again what came after that token, but nothing older than what came before it. One whose token is not accepted
//! starts from nothing.

use std::collections::{BTreeMap, HashMap};

use super::observation::{Connection, Mode};
use super::pattern::matches;
use super::version::Version;

/// Time before a token within which deliveries may not be covered by it, in microseconds. A token holds what its node has
/// seen without a gap, so records that came just before it, or behind a gap, may come again after a resume.
const UNCOVERED_US: u64 = 10_000_000;

/// A subscriber's knowledge of one source.
#[derive(Clone, Copy, Debug)]
struct SourceView {
    /// Newest version that it got.
    newest: Version,
    /// Time at which that came, in microseconds.
    newest_us: u64,
    /// Last version that it got, and the number of the connection on which it came.
    last: (Version, u32),
    /// Newest version that its resume token certainly covers.
    covered: Option<Version>,
}

/// A connection of an `all` subscriber, and which offers its node answered meanwhile must have come.
#[derive(Clone, Debug)]
pub(super) struct Attendance {
    /// Number of the node.
    pub(super) node: u32,
    /// Time from which every record must come: the end of the snapshot, in microseconds.
    pub(super) from_us: u64,
    /// Time at which the connection ended; `None` while it lasts.
    pub(super) until_us: Option<u64>,
    number: u32,
}

/// A verdict on one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeliveryVerdict {
    /// It is newer than what came before.
    Rises,
    /// It repeats what came after the resume token was taken.
    Overlap,
    /// It does not rise above this version.
    Falls(Version),
    /// It is what came last of its source on this connection.
    Repeats,
}

/// One subscriber of a run.
#[derive(Debug)]
pub(super) struct Subscriber {
    /// Mode of its subscription.
    pub(super) mode: Mode,
    /// Number of the node to which it is connected, or was last.
    pub(super) node: u32,
    /// Time at which its connection was answered, in microseconds.
    pub(super) connected_us: u64,
    /// Says that it is connected.
    pub(super) is_connected: bool,
    /// Says that the snapshot of its connection has ended.
    pub(super) is_caught_up: bool,
    /// Number of deliveries that repeated what came after a token.
    pub(super) overlap: u64,
    /// Connections of an `all` subscriber.
    pub(super) attendances: Vec<Attendance>,
    patterns: Vec<String>,
    number: u32,
    /// Number of the connection with which the subscriber last started from nothing.
    fresh_number: u32,
    sources: HashMap<u32, SourceView>,
    /// What an `all` subscriber got, with the number of the connection.
    seen: HashMap<(u32, Version), u32>,
}

impl Subscriber {
    fn new(connection: &Connection, node: u32) -> Subscriber {
        Subscriber {
            mode: connection.mode,
            node,
            connected_us: 0,
            is_connected: false,
            is_caught_up: false,
            overlap: 0,
            attendances: Vec::new(),
            patterns: Vec::new(),
            number: 0,
            fresh_number: 0,
            sources: HashMap::new(),
            seen: HashMap::new(),
        }
    }

    fn connect(&mut self, at_us: u64, connection: &Connection, node: u32) {
        self.disconnect(at_us);
        self.node = node;
        self.connected_us = at_us;
        self.is_connected = true;
        self.is_caught_up = false;
        self.number = connection.number;
        self.patterns = connection.patterns.iter().map(|pattern| pattern.to_string()).collect();
        if connection.recovered != Some(true) {
            self.fresh_number = connection.number;
            self.sources.clear();
            self.seen.clear();
        }
    }

    /// Notes that the connection has ended.
    pub(super) fn disconnect(&mut self, at_us: u64) {
        self.is_connected = false;
        if let Some(attendance) = self.attendances.last_mut() {
            attendance.until_us.get_or_insert(at_us);
        }
    }

    /// Notes the end of the snapshot.
    pub(super) fn end_snapshot(&mut self, at_us: u64) {
        self.is_caught_up = true;
        if self.mode == Mode::All {
            let (node, number) = (self.node, self.number);
            self.attendances.push(Attendance { node, from_us: at_us, until_us: None, number });
        }
    }

    /// Notes that the subscriber keeps a token that covers everything it got so far, but for what came last.
    pub(super) fn take_token(&mut self, at_us: u64) {
        let is_covered = |came_us: u64| came_us.saturating_add(UNCOVERED_US) <= at_us;
        for view in self.sources.values_mut().filter(|view| is_covered(view.newest_us)) {
            view.covered = Some(view.newest);
        }
    }

    /// Judges a delivery and takes it in. Returns also whether an `all` subscriber got the same version before on this
    /// connection. After a resume it may come again: a token does not cover what its node has behind a gap, and a node
    /// that died may leave a gap for ever.
    pub(super) fn deliver(&mut self, at_us: u64, source: u32, version: Version) -> (DeliveryVerdict, bool) {
        let number = self.number;
        let verdict = match self.sources.get(&source) {
            None => DeliveryVerdict::Rises,
            Some(view) if view.last.1 == number => match version > view.last.0 {
                true => DeliveryVerdict::Rises,
                false if version == view.last.0 => DeliveryVerdict::Repeats,
                false => DeliveryVerdict::Falls(view.last.0),
            },
            Some(view) => match view.covered {
                Some(covered) if version < covered => DeliveryVerdict::Falls(covered),
                _ if version <= view.newest => DeliveryVerdict::Overlap,
                _ => DeliveryVerdict::Rises,
            },
        };
        let view = self.sources.entry(source).or_insert(SourceView {
            newest: version,
            newest_us: at_us,
            last: (version, number),
            covered: None,
        });
        view.last = (version, number);
        if version > view.newest {
            (view.newest, view.newest_us) = (version, at_us);
        }
        self.overlap += u64::from(verdict == DeliveryVerdict::Overlap);
        (verdict, self.mode == Mode::All && self.came_before(source, version))
    }

    /// Notes what an `all` subscriber got. Returns whether it came before on this connection.
    fn came_before(&mut self, source: u32, version: Version) -> bool {
        self.seen.insert((source, version), self.number) == Some(self.number)
    }

    /// The newest version of a source that the subscriber got.
    pub(super) fn newest(&self, source: u32) -> Option<Version> {
        self.sources.get(&source).map(|view| view.newest)
    }

    /// Returns whether the subscriber asked for a source.
    pub(super) fn wants(&self, source: &str) -> bool {
        self.patterns.iter().any(|pattern| matches(pattern, source))
    }

    /// Returns whether an `all` subscriber got a version since its last fresh start.
    pub(super) fn has_got(&self, source: u32, version: Version) -> bool {
        self.seen.contains_key(&(source, version))
    }

    /// Returns whether everything that came in this attendance is still known.
    pub(super) fn remembers(&self, attendance: &Attendance) -> bool {
        attendance.number >= self.fresh_number
    }
}

/// All subscribers of a run.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    all: BTreeMap<u32, Subscriber>,
}

impl Subscribers {
    /// Notes that a subscriber has a new connection.
    pub(super) fn handle_connected(&mut self, at_us: u64, id: u32, connection: &Connection, node: u32) {
        let subscriber = self.all.entry(id).or_insert_with(|| Subscriber::new(connection, node));
        subscriber.connect(at_us, connection, node);
    }

    /// The subscriber with a number.
    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Subscriber> {
        self.all.get_mut(&id)
    }

    /// The subscribers, each with its number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Subscriber)> {
        self.all.iter().map(|(id, subscriber)| (*id, subscriber))
    }
}
