//! Regular expressions whose size and time have a bound.

use regex::{Regex, RegexBuilder};

use super::budget::WorkBudget;
use super::error::Stop;

/// Sizes that a regular expression may take as a program, in bytes. The smallest that suffices says how much it costs
/// to search: in the worst case, every state is looked at for every byte.
const PROGRAM_BYTES: [usize; 3] = [8 * 1024, 32 * 1024, 128 * 1024];
/// Size of the table in which a search keeps what it has learnt, in bytes.
const TABLE_BYTES_MAX: usize = 64 * 1024;
/// How deep the groups of a regular expression may be nested.
const NESTING_MAX: u32 = 32;
/// Regular expressions that one expression may have.
pub(super) const REGEXES_MAX: usize = 4;

/// A regular expression, and what searching with it costs.
#[derive(Debug)]
pub(super) struct BoundedRegex {
    regex: Regex,
    /// Work for 64 bytes of text.
    weight: usize,
    pub(super) held_bytes: usize,
}

impl BoundedRegex {
    /// Compiles a regular expression. An error says what is wrong with it.
    pub(super) fn compile(pattern: &str) -> Result<BoundedRegex, String> {
        for program in PROGRAM_BYTES {
            let mut builder = RegexBuilder::new(pattern);
            builder.size_limit(program).dfa_size_limit(TABLE_BYTES_MAX).nest_limit(NESTING_MAX);
            match builder.build() {
                Ok(regex) => {
                    let weight = 4 * program / PROGRAM_BYTES[0];
                    return Ok(BoundedRegex { regex, weight, held_bytes: program + TABLE_BYTES_MAX });
                }
                Err(regex::Error::CompiledTooBig(_)) => {}
                Err(error) => {
                    let text = error.to_string();
                    let last = text.lines().next_back().unwrap_or_default();
                    return Err(last.trim_start_matches("error: ").to_owned());
                }
            }
        }
        Err("it is too large; [a-z0-9_] is much smaller than \\w, and [0-9] than \\d".to_owned())
    }

    /// Returns whether the text contains a match.
    pub(super) fn is_match<'v>(&self, text: &str, budget: &mut WorkBudget) -> Result<bool, Stop<'v>> {
        budget.charge(1 + self.weight + text.len().saturating_mul(self.weight) / 64)?;
        Ok(self.regex.is_match(text))
    }
}
