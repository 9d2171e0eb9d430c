//! A publisher's unanswered messages: which they are and when each was due.

/// Ids run from 0; answers may overtake one another. The span from the oldest unanswered id to the
/// newest is bounded, so the due times fit into a ring.
#[derive(Clone, Debug)]
pub struct Window {
    /// Due times by id modulo length; [`ANSWERED`] once answered.
    due_ns: Vec<u64>,
    oldest: u64,
    next: u64,
}

/// No due time.
const ANSWERED: u64 = u64::MAX;

impl Window {
    /// For so many unanswered messages, at least one.
    pub fn new(messages: usize) -> Window {
        Window { due_ns: vec![ANSWERED; messages.max(1)], oldest: 0, next: 0 }
    }

    /// Whether another message would be too many.
    pub fn is_full(&self) -> bool {
        self.next - self.oldest >= self.due_ns.len() as u64
    }

    /// Whether everything is answered.
    pub fn is_empty(&self) -> bool {
        self.next == self.oldest
    }

    /// How many ids are open.
    pub fn open(&self) -> u64 {
        self.next - self.oldest
    }

    /// Notes a message that is sent and gives its id. The window must not be full.
    pub fn send(&mut self, due_ns: u64) -> u64 {
        let id = self.next;
        let slot = id as usize % self.due_ns.len();
        self.due_ns[slot] = due_ns;
        self.next += 1;
        id
    }

    /// Notes an answer and says when its message was due; `None` if nothing with this id is open.
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
