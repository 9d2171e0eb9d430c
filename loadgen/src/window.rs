//! The unanswered messages of a publisher, and when each was due.

/// A window of unanswered messages. Ids count from 0, and answers may come in any order. The span from the
/// oldest unanswered id to the newest is bounded, so the due times fit into a ring.
#[derive(Clone, Debug)]
pub struct Window {
    /// Due times, by id modulo length; [`ANSWERED`] once the message is answered.
    due_ns: Vec<u64>,
    oldest: u64,
    next: u64,
}

/// Stands in the place of a due time once the message is answered.
const ANSWERED: u64 = u64::MAX;

impl Window {
    /// Makes a window for so many unanswered messages, at least one.
    pub fn new(messages: usize) -> Window {
        Window { due_ns: vec![ANSWERED; messages.max(1)], oldest: 0, next: 0 }
    }

    /// Returns whether another message would be too many.
    pub fn is_full(&self) -> bool {
        self.next - self.oldest >= self.due_ns.len() as u64
    }

    /// Returns whether all messages are answered.
    pub fn is_empty(&self) -> bool {
        self.next == self.oldest
    }

    /// Returns the span of open ids: the number of unanswered messages, or more if answers overtook others.
    pub fn open(&self) -> u64 {
        self.next - self.oldest
    }

    /// Notes a message that is sent, and returns its id. The window must not be full.
    pub fn send(&mut self, due_ns: u64) -> u64 {
        debug_assert!(!self.is_full(), "the oldest due time would be lost");
        let id = self.next;
        let slot = id as usize % self.due_ns.len();
        self.due_ns[slot] = due_ns;
        self.next += 1;
        id
    }

    /// Notes an answer, and returns when its message was due; `None` if no message with this id is open.
    pub fn answer(&mut self, id: u64) -> Option<u64> {
        if !(self.oldest..self.next).contains(&id) {
            return None;
        }
        let length = self.due_ns.len();
        let due_ns = std::mem::replace(&mut self.due_ns[id as usize % length], ANSWERED);
        while self.oldest < self.next && self.due_ns[self.oldest as usize % length] == ANSWERED {
            self.oldest += 1;
        }
        (due_ns != ANSWERED).then_some(due_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn answers_in_any_order_give_the_due_times(
            size in 1usize..20,
            picks in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
        ) {
            let mut window = Window::new(size);
            let mut open = Vec::new();
            let mut sent = 0;
            for pick in picks {
                while !window.is_full() {
                    open.push(window.send(sent * 7));
                    sent += 1;
                }
                prop_assert!(open.len() <= size);
                let id = open.swap_remove(pick.index(open.len()));
                prop_assert_eq!(window.answer(id), Some(id * 7));
                prop_assert_eq!(window.answer(id), None);
            }
            for id in open {
                prop_assert_eq!(window.answer(id), Some(id * 7));
            }
            prop_assert!(window.is_empty());
            prop_assert_eq!(window.answer(sent), None);
        }
    }
}
