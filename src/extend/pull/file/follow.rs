//! Publishes the lines of a file that is followed.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::FilePull;
use super::batch::FileBatch;
use super::follower::Follower;
use super::position::{BatchMark, FilePosition};
use crate::extend::pull::definition::PullDefinition;
use crate::extend::pull::document::take_document;
use crate::extend::pull::feed::Feed;
use crate::extend::pull::mapped::Mapped;
use crate::extend::pull::template::Facts;
use crate::extend::state::StateWriter;

/// Field of the state that keeps the position.
const POSITION: &str = "position";
/// Field of the position that names the file.
const POSITION_PATH: &str = "path";

/// Follows a file, for ever. `before` is the state that a former life told. With `is_once`, it ends with the file.
pub(in crate::extend::pull) async fn run(
    definition: &PullDefinition,
    settings: &FilePull,
    feed: &Feed,
    before: Option<&Value>,
    is_once: bool,
) {
    let resume = before.and_then(|state| position_in(state, settings));
    if let Some((state, position)) = feed.state().zip(resume.as_ref()) {
        tell_position(state, settings, position);
    }
    let mut lines = FileLines { definition, settings, last_ts: 0 };
    let mut follower = Follower::new(&settings.path, settings.from, definition.bytes_max, resume);
    loop {
        let now_us = feed.target().now().mono_us;
        // A disk that does not answer, as over a network, holds up nobody else.
        let read = move || {
            let batch = follower.read(now_us);
            (follower, batch)
        };
        let Ok((returned, batch)) = tokio::task::spawn_blocking(read).await else {
            return feed.fail("the program failed while it read the file".into());
        };
        follower = returned;
        let is_more = match batch {
            Ok(batch) => {
                let position = match batch.is_empty() {
                    true => {
                        batch.note.into_iter().for_each(|note| feed.fail(note));
                        follower.position()
                    }
                    false => {
                        lines.publish(&batch, feed).await;
                        follower.is_done()
                    }
                };
                if let Some((state, position)) = feed.state().zip(position) {
                    tell_position(state, settings, &position);
                }
                batch.is_more
            }
            Err(why) => {
                feed.fail(why);
                false
            }
        };
        if is_once && !is_more {
            return;
        }
        if !is_more {
            sleep(Duration::from_micros(settings.every_us)).await;
        }
    }
}

/// The position that a state tells, if it is about the file of the definition.
fn position_in(state: &Value, settings: &FilePull) -> Option<FilePosition> {
    let position = state.get(POSITION)?;
    let is_same = position.get(POSITION_PATH).and_then(Value::as_str) == Some(&settings.path);
    is_same.then(|| serde_json::from_value(position.clone()).ok())?
}

fn tell_position(state: &StateWriter, settings: &FilePull, position: &FilePosition) {
    let mut told = serde_json::to_value(position).unwrap_or_default();
    told[POSITION_PATH] = settings.path.as_str().into();
    state.set(POSITION, told);
}

/// Makes records of lines.
struct FileLines<'a> {
    definition: &'a PullDefinition,
    settings: &'a FilePull,
    /// The last timestamp that was given, in microseconds.
    last_ts: u64,
}

impl FileLines<'_> {
    /// Publishes the lines of a batch, after the position has said that they are about to be.
    async fn publish(&mut self, batch: &FileBatch, feed: &Feed) {
        let mut mapped = self.map(batch, feed.target().now().wall_us);
        let began = batch.start.as_ref().and_then(|start| start.batch);
        let first_ts =
            began.map_or_else(|| feed.target().now().wall_us.max(self.last_ts + 1), |mark| mark.ts);
        if let Some((state, start)) = feed.state().zip(batch.start.clone()) {
            let mark = BatchMark { end: batch.end, ts: first_ts };
            tell_position(state, self.settings, &start.with_batch(mark));
            feed.tell_surely().await;
        }
        let (mut wrong, mut why) = (mapped.failed, mapped.failure.take());
        feed.note_failed(mapped.failed);
        for (at, draft) in mapped.drafts.iter_mut().enumerate() {
            let is_stamped_here = draft.ts.is_none();
            self.last_ts = first_ts + at as u64;
            draft.ts.get_or_insert(self.last_ts);
            if let Err(refusal) = feed.publish_stamped(draft, is_stamped_here && began.is_none()).await {
                wrong += 1;
                why.get_or_insert_with(|| format!("{}: {refusal}", draft.source));
            }
            feed.take_turns(at).await;
        }
        feed.note_outcome(wrong, why);
    }

    fn map(&self, batch: &FileBatch, now_us: u64) -> Mapped {
        let name = self.settings.path.rsplit('/').next();
        let facts = Facts { file: name, ..Facts::at(now_us) };
        let mut mapped = Mapped::default();
        for line in &batch.lines {
            take_document(&self.definition.mapping, self.definition.format, line, facts, &mut mapped);
        }
        for _ in 0..batch.too_long {
            mapped.fail(format!("a line of more than {} bytes (max_bytes)", self.definition.bytes_max));
        }
        mapped
    }
}
