//! What somebody may do.

use std::num::NonZeroU32;

use super::patterns::PatternSet;
use crate::record::{Pattern, Source};

/// A right that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// None: the request is answered whoever asks.
    Public,
    /// None but to be known: to have a token that is in force, or to come where there are rights for those
    /// without a token.
    Known,
    /// To see how the node and its cluster are: metrics, members.
    Observe,
    /// To read any source. Which ones is decided for each source or pattern.
    Subscribe,
    /// To read sources of the system's names, which those who may observe may do, too.
    ReadSystem,
    /// To publish to any source. Which ones is decided for each record.
    Publish,
    /// To change how the node works.
    Admin,
}

/// The rights of one token, or of those without a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Sources that may be published to. Patterns that begin with `$` have no effect here.
    pub publish: PatternSet,
    /// Sources that may be read, in whatever way.
    pub subscribe: PatternSet,
    /// Whether metrics and members may be read.
    pub observe: bool,
    /// Whether everything is allowed, the system's names and the admin requests included.
    pub admin: bool,
    /// Most records a second into one node; `None` for no bound.
    pub rate: Option<NonZeroU32>,
}

impl Rights {
    /// Returns whether these rights hold `right`.
    pub fn may(&self, right: Right) -> bool {
        self.admin
            || match right {
                Right::Public | Right::Known => true,
                Right::Observe => self.observe,
                Right::Subscribe => !self.subscribe.is_empty(),
                Right::ReadSystem => !self.subscribe.is_empty() || self.observe,
                Right::Publish => !self.publish.is_empty(),
                Right::Admin => false,
            }
    }

    /// Returns whether the source may be read. The system's sources may be read by those who may observe.
    pub fn may_read(&self, source: &str) -> bool {
        self.admin || self.subscribe.matches(source) || (self.observe && Source::is_system(source))
    }

    /// Returns whether every source that the pattern can match may be read.
    pub fn may_read_all(&self, pattern: &Pattern) -> bool {
        let is_system = || Source::is_system(pattern.as_str());
        self.admin || self.subscribe.includes(pattern) || (self.observe && is_system())
    }

    /// Returns the pattern by which to look for what `asked` matches and may be read, if one is narrower than that.
    pub fn narrowed(&self, asked: Pattern) -> Pattern {
        match self.subscribe.patterns() {
            [own] if !self.admin && !self.observe && PatternSet::new(vec![asked.clone()]).includes(own) => {
                own.clone()
            }
            _ => asked,
        }
    }

    /// Returns whether the source may be published to. The system's sources are for admins alone.
    pub fn may_publish(&self, source: &str) -> bool {
        self.admin || !Source::is_system(source) && self.publish.matches(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> PatternSet {
        PatternSet::new(vec![Pattern::parse(text).expect(text)])
    }

    #[test]
    fn rights_hold_what_was_given_and_no_more() {
        let sensors = Rights { publish: set("sensors/**"), ..Rights::default() };
        assert!(sensors.may(Right::Publish) && sensors.may(Right::Known) && sensors.may(Right::Public));
        assert!(!sensors.may(Right::Subscribe) && !sensors.may(Right::Observe) && !sensors.may(Right::Admin));
        assert!(
            sensors.may_publish("sensors/1") && !sensors.may_publish("x") && !sensors.may_read("sensors/1")
        );
        let admin = Rights { admin: true, ..Rights::default() };
        for right in [Right::Observe, Right::Subscribe, Right::Publish, Right::Admin] {
            assert!(admin.may(right), "{right:?}");
        }
        assert!(admin.may_publish("$sys/a") && admin.may_read_all(&Pattern::parse("**").expect("pattern")));
    }

    #[test]
    fn who_observes_reads_the_systems_names() {
        let observer = Rights { observe: true, ..Rights::default() };
        assert!(!observer.may(Right::Subscribe) && observer.may(Right::ReadSystem));
        assert!(observer.may_read("$pull/a") && !observer.may_read("a"));
        let reads = |text: &str| observer.may_read_all(&Pattern::parse(text).expect(text));
        assert!(reads("$pull/*") && reads("$pull/**") && !reads("**") && !reads("*/a"));
    }

    #[test]
    fn a_search_is_narrowed_to_what_may_be_read() {
        let pattern = |text: &str| Pattern::parse(text).expect(text);
        let one = Rights { subscribe: set("a/**"), ..Rights::default() };
        assert_eq!(one.narrowed(pattern("**")), pattern("a/**"));
        assert_eq!(one.narrowed(pattern("a/b/*")), pattern("a/b/*"));
        assert_eq!(one.narrowed(pattern("*/b")), pattern("*/b"));
        assert_eq!(Rights { admin: true, ..one }.narrowed(pattern("**")), pattern("**"));
    }

    #[test]
    fn the_systems_names_are_published_by_admins_alone() {
        let all = Rights { publish: set("**"), ..Rights::default() };
        let named = Rights { publish: set("$sys/**"), ..Rights::default() };
        assert!(!all.may_publish("$sys/a") && !named.may_publish("$sys/a"));
    }
}
