//! One publisher without its socket: the message that it sends next, and whether it may send.

use crate::plan::{Feed, Plan};
use crate::window::Window;

/// Most messages of a publisher that may be unanswered: MQTT has identifiers for few more.
pub const WINDOW_MAX: usize = 32_768;

/// The state of a publisher.
pub struct Publisher {
    feed: Feed,
    /// Time at which the next message is due, in nanoseconds from the start, and the source of the message.
    next: Option<(u64, u32)>,
    /// The next sequence number of each source of this publisher.
    seqs: Vec<u32>,
    index: u32,
    publishers: u32,
    window: Option<Window>,
    /// Whether the target, not the generator, has kept the publisher from sending in time, and the publisher
    /// has not caught up.
    pub is_held: bool,
    /// Whether the publisher is in the queue of due publishers, or waits for deliveries.
    pub is_queued: bool,
}

/// A message that is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// Index of the source.
    pub source: u32,
    /// Number of the message among those of its source, from 0.
    pub seq: u32,
}

impl Publisher {
    /// Makes publisher `index` of the plan.
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

    /// Returns when the next message is due, in nanoseconds from the start; `None`: all are sent.
    pub fn due_ns(&self) -> Option<u64> {
        self.next.map(|(due_ns, _)| due_ns)
    }

    /// Returns whether the publisher may not send because too many messages are unanswered.
    pub fn is_blocked(&self) -> bool {
        self.window.as_ref().is_some_and(Window::is_full)
    }

    /// Returns whether everything is sent and answered.
    pub fn is_done(&self) -> bool {
        self.next.is_none() && self.window.as_ref().is_none_or(Window::is_empty)
    }

    /// Returns the number of messages without an answer.
    pub fn unanswered(&self) -> u64 {
        self.window.as_ref().map_or(0, Window::open)
    }

    /// Takes the next message. Call it only while one is due and the publisher is not blocked.
    pub fn take(&mut self) -> Option<Due> {
        let (_, source) = self.next?;
        self.next = self.feed.next();
        let slot = self.seqs.get_mut((source / self.publishers) as usize)?;
        let seq = *slot;
        *slot += 1;
        Some(Due { source, seq })
    }

    /// Notes that the message that was due at `due_ns` (absolute) is being sent. Returns the id that its
    /// answer will have; `None` if no answer is wanted.
    pub fn send(&mut self, due_ns: u64) -> Option<u64> {
        self.window.as_mut().map(|window| window.send(due_ns))
    }

    /// Notes an answer. Returns when its message was due (absolute), if it was open.
    pub fn answer(&mut self, id: u64) -> Option<u64> {
        self.window.as_mut()?.answer(id)
    }

    /// Stops sending. Returns how many messages are left unsent if `is_counting`, else 0.
    pub fn end(&mut self, is_counting: bool) -> u64 {
        let left =
            self.next.take().map_or(0, |_| if is_counting { 1 + self.feed.by_ref().count() } else { 0 });
        left as u64
    }

    /// Adds the number of messages that this publisher has sent of each source to the counts in `of`.
    pub fn count(&self, of: &mut [u32]) {
        for (own, count) in self.seqs.iter().enumerate() {
            if let Some(sum) = of.get_mut(own * self.publishers as usize + self.index as usize) {
                *sum += count;
            }
        }
    }
}
