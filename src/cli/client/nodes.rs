//! The nodes that a command may use. All nodes of a cluster serve the same, so any of them will do.

use super::endpoint::NodeUrl;

/// At least one node, in the order in which they are tried.
#[derive(Clone, Debug)]
pub struct Nodes {
    first: NodeUrl,
    others: Vec<NodeUrl>,
}

impl Nodes {
    /// These nodes; `None` if there is none.
    pub fn new(nodes: Vec<NodeUrl>) -> Option<Nodes> {
        let mut nodes = nodes.into_iter();
        Some(Nodes { first: nodes.next()?, others: nodes.collect() })
    }

    /// The node that is tried first.
    pub fn first(&self) -> &NodeUrl {
        &self.first
    }

    /// All nodes, in the order in which they are tried.
    pub fn iter(&self) -> impl Iterator<Item = &NodeUrl> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Number of the nodes.
    pub fn len(&self) -> usize {
        1 + self.others.len()
    }

    /// Calls `attempt` with one node after the other until it succeeds, or fails in a way that another node would not
    /// mend, which `is_final` tells. Returns the last error, with the ones before it in `joined`.
    pub fn try_each<T, E>(
        &self,
        mut attempt: impl FnMut(&NodeUrl) -> Result<T, E>,
        is_final: impl Fn(&E) -> bool,
        joined: impl Fn(E, E) -> E,
    ) -> Result<T, E> {
        let mut failed = match attempt(&self.first) {
            Err(error) if !is_final(&error) => error,
            ended => return ended,
        };
        for node in &self.others {
            match attempt(node) {
                Err(error) if !is_final(&error) => failed = joined(failed, error),
                ended => return ended,
            }
        }
        Err(failed)
    }
}

impl From<NodeUrl> for Nodes {
    fn from(first: NodeUrl) -> Nodes {
        Nodes { first, others: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_node_is_tried_unless_that_is_in_vain() {
        let node = |at: &str| NodeUrl::parse(at, "--url", &Default::default()).expect("a URL");
        let nodes = Nodes::new(vec![node("a:1"), node("b:2"), node("c:3")]).expect("three");
        assert_eq!(nodes.len(), nodes.iter().count());
        let ended = |good: &str, is_final: bool| {
            let mut asked = Vec::new();
            let attempt = |node: &NodeUrl| {
                asked.push(node.to_string());
                if node.to_string() == good { Ok(()) } else { Err(node.to_string()) }
            };
            let result = nodes.try_each(attempt, |_| is_final, |one, next| format!("{one}; {next}"));
            (asked.len(), result.err())
        };
        assert_eq!(ended("b:2", false), (2, None));
        assert_eq!(ended("", false), (3, Some("a:1; b:2; c:3".into())));
        assert_eq!(ended("", true), (1, Some("a:1".into())));
        assert!(Nodes::new(Vec::new()).is_none());
    }
}
