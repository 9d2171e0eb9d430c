//! One publisher: what it sends next, and whether it may. It knows no socket.

use crate::plan::{Feed, Plan};
use crate::window::Window;

/// The most messages whose answers may be outstanding; MQTT has no more names for them.
pub const WINDOW_MAX: usize = 32_768;

/// A publisher's state.
pub struct Publisher {
    feed: Feed,
    /// When the next message is due, from the start, and its source.
    next: Option<(u64, u32)>,
    /// The next sequence number of each of its own sources.
    seqs: Vec<u32>,
    index: u32,
    publishers: u32,
    window: Option<Window>,
    /// The target, not the generator, kept it from sending in time; until it has caught up.
    pub is_held: bool,
    /// It waits in the queue of due publishers, or for credit.
    pub is_queued: bool,
}

/// A message to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// Its source.
    pub source: u32,
    /// Its number among its source's.
    pub seq: u32,
}

impl Publisher {
    /// Publisher `index` of the plan.
    pub fn new(plan: &Plan, index: u32) -> Publisher {
        let mut feed = plan.feed(index);
        let own = plan.sources / plan.publishers + u32::from(index < plan.sources % plan.publishers);
        let has_answers = plan.common.ack != crate::wire::Ack::None;
        Publisher {
            next: feed.next(),
            feed,
            seqs: vec![0; own as usize],
            index,
            publishers: plan.publishers,
            window: has_answers.then(|| Window::new(plan.window.min(WINDOW_MAX))),
            is_held: false,
            is_queued: false,
        }
    }

    /// When the next message is due, from the start; `None`: there is none.
    pub fn due_ns(&self) -> Option<u64> {
        self.next.map(|(due_ns, _)| due_ns)
    }

    /// Whether too many are unanswered.
    pub fn is_blocked(&self) -> bool {
        self.window.as_ref().is_some_and(Window::is_full)
    }

    /// Whether everything is sent and answered.
    pub fn is_done(&self) -> bool {
        self.next.is_none() && self.window.as_ref().is_none_or(Window::is_empty)
    }

    /// Messages without an answer.
    pub fn unanswered(&self) -> u64 {
        self.window.as_ref().map_or(0, Window::open)
    }

    /// Takes the next message; call only while one is due and the window has room.
    pub fn take(&mut self) -> Option<Due> {
        let (_, source) = self.next?;
        self.next = self.feed.next();
        let slot = self.seqs.get_mut((source / self.publishers) as usize)?;
        let seq = *slot;
        *slot += 1;
        Some(Due { source, seq })
    }

    /// Notes what is being sent at `due_ns` (absolute), and gives the id that its answer will have.
    pub fn send(&mut self, due_ns: u64) -> Option<u64> {
        self.window.as_mut().map(|window| window.send(due_ns))
    }

    /// Notes an answer; gives when its message was due (absolute).
    pub fn answer(&mut self, id: u64) -> Option<u64> {
        self.window.as_mut()?.answer(id)
    }

    /// Sends nothing more. If `is_counting`, says how many messages it would have had to send.
    pub fn end(&mut self, is_counting: bool) -> u64 {
        let left =
            self.next.take().map_or(0, |_| if is_counting { 1 + self.feed.by_ref().count() } else { 0 });
        left as u64
    }

    /// Adds what it published of each source.
    pub fn count(&self, of: &mut [u32]) {
        for (own, count) in self.seqs.iter().enumerate() {
            if let Some(sum) = of.get_mut(own * self.publishers as usize + self.index as usize) {
                *sum += count;
            }
        }
    }
}
