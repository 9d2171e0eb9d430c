//! How definitions tell how they are doing.
//!
//! The state of a definition is a JSON object in the record `$KIND/NAME/state`. It has `runner`, the name of the member
//! that runs the definition, `since`, the time from which on it does so, in microseconds since the Unix epoch, and `error`, which is
//! `null` while there is none; the other fields are of the kind. A state that changes is told once a second at most, and
//! soon if its error changes.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::{Map, Value, json};

use super::definition::Definition;
use super::host::ExtendHost;
use super::system_record::tell_system;
use crate::protocol::draft::DraftPayload;
use crate::protocol::refusal::Refusal;

/// Least time between two records of one state, in microseconds.
const STATE_US_MIN: u64 = 1_000_000;
/// Longest text of an error that is told, in bytes.
const ERROR_BYTES_MAX: usize = 1_024;

/// The state of one definition that runs. Clones write the same state.
#[derive(Clone)]
pub struct StateWriter(Rc<RefCell<Written>>);

struct Written {
    source: String,
    fields: Map<String, Value>,
    /// There is something that was not told.
    is_changed: bool,
    /// The error has changed since the state was told.
    is_urgent: bool,
    told_us: Option<u64>,
}

impl StateWriter {
    /// The state of a definition that begins to run at this node.
    pub fn new(definition: &Definition, host: &dyn ExtendHost) -> StateWriter {
        let since = host.now().wall_us;
        let Value::Object(fields) = json!({"runner": host.name(), "since": since, "error": null}) else {
            return StateWriter::of(definition, Map::new());
        };
        StateWriter::of(definition, fields)
    }

    fn of(definition: &Definition, fields: Map<String, Value>) -> StateWriter {
        let source = definition.kind.state_name(&definition.name);
        let written = Written { source, fields, is_changed: true, is_urgent: true, told_us: None };
        StateWriter(Rc::new(RefCell::new(written)))
    }

    /// Sets a field. Returns whether it had another value.
    pub fn set(&self, field: &str, value: impl Into<Value>) -> bool {
        let (mut written, value) = (self.0.borrow_mut(), value.into());
        let is_new = written.fields.get(field) != Some(&value);
        if is_new {
            written.fields.insert(field.to_owned(), value);
            written.is_changed = true;
        }
        is_new
    }

    /// Sets the error, or says that there is none.
    pub fn set_error(&self, error: Option<&str>) {
        let shortened = error.map(|error| &error[..error.floor_char_boundary(ERROR_BYTES_MAX)]);
        if self.set("error", shortened) {
            self.0.borrow_mut().is_urgent = true;
        }
    }

    /// Tells the state if that is due.
    pub fn tell_if_due(&self, host: &dyn ExtendHost) {
        let now_us = host.now().mono_us;
        let written = self.0.borrow();
        let is_early = written.told_us.is_some_and(|told_us| now_us < told_us + STATE_US_MIN);
        if !written.is_changed || (is_early && !written.is_urgent) {
            return;
        }
        drop(written);
        self.tell_or_log(host);
    }

    /// Tells what was not told so far, before the definition is run by another member or not at all.
    pub fn tell_last(&self, host: &dyn ExtendHost) {
        if self.0.borrow().is_changed {
            self.tell_or_log(host);
        }
    }

    fn tell_or_log(&self, host: &dyn ExtendHost) {
        if let Err(refusal) = self.tell_now(host) {
            tracing::debug!(source = self.0.borrow().source, %refusal, "a state cannot be told now");
        }
    }

    /// Tells the state at once, for what must be told before something else happens.
    pub fn tell_now(&self, host: &dyn ExtendHost) -> Result<(), Refusal> {
        let mut written = self.0.borrow_mut();
        let text = Value::Object(written.fields.clone()).to_string();
        tell_system(host, &written.source, DraftPayload::Json(text.as_bytes()))?;
        (written.is_changed, written.is_urgent, written.told_us) = (false, false, Some(host.now().mono_us));
        Ok(())
    }
}
