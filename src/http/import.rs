//! `POST /v1/import`: the lines of an export on their way back.
//!
//! The body is read as it arrives and published in batches, so it may have any length. While much waits in the node, and
//! while lines are refused for reasons that pass, nothing more is read of it: an import takes as long as it takes, and
//! leaves room for others.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{RawQuery, Request, State};
use axum::response::Response;
use tokio::time::sleep;

use super::Reply;
use super::app::{App, HandlerResult};
use super::body::BodyPieces;
use super::entry::Sender;
use super::leased::{leased_json, resize};
use super::lines::{BodyLine, BodyLines, LineBuffer};
use super::params::Query;
use super::places::Seat;
use super::problem::Problem;
use super::publish::reply;
use super::tally::Tally;
use crate::auth::{Access, PublishRights};
use crate::limits::TTL_MS_MAX;
use crate::memory::{Lease, MemoryUse};
use crate::protocol::AckLevel;
use crate::protocol::draft::{Draft, Item, Items, PublishFrame, RequestId};
use crate::protocol::json::publish_frame;
use crate::protocol::refusal::{Code, Refusal};
use crate::protocol::reply::{FrameReply, ItemReply};
use crate::record::Now;

/// Bytes of lines that are collected before they are published.
const BATCH_BYTES: usize = 256 * 1024;
/// Most lines that are published at a time.
const BATCH_LINES_MAX: usize = 1_000;
/// Memory that a line needs while it is published, besides its text, in bytes: its draft and its answer.
const LINE_BYTES: usize = 512;
/// Time between two attempts to publish lines that were refused for a reason that passes, in milliseconds, unless the
/// refusal says more.
const RETRY_MS: u64 = 200;
/// Longest time between two attempts, in milliseconds.
const RETRY_MS_MAX: u64 = 2_000;
/// Time after which lines count as refused if not one more of them was taken, in milliseconds.
const VAIN_MS_MAX: u64 = 10_000;
/// Time between two looks whether the node has room again, in milliseconds.
const ROOM_LOOK_MS: u64 = 10;

/// An import that is under way.
struct Import {
    app: App,
    level: AckLevel,
    access: Option<Access>,
    tally: Tally,
    /// Number of the line that comes next, from 1.
    line: u64,
    /// Whether lines were refused for long for a reason that passes: further ones are not waited for.
    has_given_up: bool,
}

/// Publishes the lines of the body, and answers with what became of them.
pub(super) async fn import(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    Extension(seat): Extension<Arc<Seat>>,
    Extension(Sender(access)): Extension<Sender>,
    request: Request,
) -> HandlerResult {
    let level = Query::parse(query.as_deref(), &["ack"])?.ack()?;
    let tally = Tally::default();
    let mut import = Import { app, level, access, tally, line: 1, has_given_up: false };
    let read = read_all(&mut import, &seat, BodyPieces::new(request.into_body())).await;
    import.answer(read)
}

/// Reads the body to its end and publishes its lines.
async fn read_all(import: &mut Import, seat: &Arc<Seat>, mut pieces: BodyPieces) -> Result<(), Problem> {
    let app = import.app.clone();
    let mut lease = app.node.memory().lease();
    let mut buffer = LineBuffer::new(app.body_bytes_max);
    let mut is_whole = false;
    while !is_whole {
        match pieces.next(&app, seat).await? {
            Some(piece) => buffer.push(&piece),
            None => is_whole = true,
        }
        if is_whole {
            buffer.end();
        }
        if is_whole || buffer.line_bytes() >= BATCH_BYTES {
            // The client is not waited for meanwhile.
            seat.end_waiting();
            let lines = buffer.take();
            import.publish_all(&lines, &mut lease, buffer.held_bytes() + lines.held_bytes()).await?;
            buffer.give_back(lines);
            if !is_whole {
                seat.begin_waiting();
                pieces.handle_pause();
            }
        }
        resize(&app, MemoryUse::Frames, &mut lease, buffer.held_bytes())?;
    }
    Ok(())
}

impl Import {
    /// Publishes these lines. `held` is the memory that the import holds, in bytes, besides what is needed for publishing.
    async fn publish_all(
        &mut self,
        lines: &BodyLines,
        lease: &mut Lease,
        held: usize,
    ) -> Result<(), Problem> {
        let mut lines = lines.iter().peekable();
        resize(&self.app, MemoryUse::Answers, lease, held + BATCH_LINES_MAX * LINE_BYTES)?;
        while lines.peek().is_some() {
            let mut items = Vec::new();
            while items.len() < BATCH_LINES_MAX
                && let Some(line) = lines.next()
            {
                let number = self.line;
                self.line += 1;
                items.extend(self.item(number, line));
            }
            self.publish(items).await?;
        }
        Ok(())
    }

    /// Reads a line; `None` if it is empty or was refused.
    fn item<'t>(&mut self, number: u64, line: BodyLine<'t>) -> Option<Item<'t>> {
        let read = match line {
            BodyLine::TooLong => Err(self.too_long()),
            BodyLine::Text(text) if text.trim_ascii().is_empty() => return None,
            BodyLine::Text(text) => read_line(text.trim_ascii(), self.app.node.now()),
        };
        match read {
            Ok(item) => {
                let id = Some(RequestId::Number(i64::try_from(number).unwrap_or(i64::MAX)));
                Some(Item { id, ..item })
            }
            Err(refusal) => {
                self.app.node.metrics().refused(refusal.code);
                self.tally.refuse(number, refusal);
                None
            }
        }
    }

    fn too_long(&self) -> Refusal {
        Refusal::new(Code::TooLarge, format!("the line has more than {} bytes", self.app.body_bytes_max))
    }

    /// Publishes items until each is taken, or is refused for good.
    async fn publish<'t>(&mut self, mut items: Vec<Item<'t>>) -> Result<(), Problem> {
        let mut vain_ms = 0;
        while !items.is_empty() {
            self.wait_for_room().await;
            let asked = items.len();
            let answers = self.publish_once(&mut items).await?;
            let (mut refused, mut retry_ms) = (Vec::new(), RETRY_MS);
            for answer in answers {
                let item = items.get(answer.index);
                match answer.answer {
                    Err(refusal) if self.is_worth_waiting(&refusal) => {
                        retry_ms = retry_ms.max(refusal.retry_after_ms.unwrap_or(0));
                        refused.extend(item.cloned().map(|item| (item, refusal)));
                    }
                    answer => self.tally.count(item.and_then(number_of).unwrap_or(0), answer),
                }
            }
            vain_ms = if refused.len() < asked { 0 } else { vain_ms };
            if refused.is_empty() {
                return Ok(());
            }
            if vain_ms >= VAIN_MS_MAX {
                self.has_given_up = true;
                for (item, refusal) in refused {
                    self.tally.refuse(number_of(&item).unwrap_or(0), refusal);
                }
                return Ok(());
            }
            items = refused.into_iter().map(|(item, _)| item).collect();
            let wait_ms = retry_ms.min(RETRY_MS_MAX);
            vain_ms += wait_ms;
            sleep(Duration::from_millis(wait_ms)).await;
        }
        Ok(())
    }

    async fn publish_once<'t>(&self, items: &mut Vec<Item<'t>>) -> Result<Vec<ItemReply>, Problem> {
        let frame = PublishFrame { items: Items::Many(std::mem::take(items)), is_batch: true };
        let (answer, receiver) = Reply::channel();
        self.hand_in(&frame, answer);
        let replied = reply(&self.app, receiver).await?;
        *items = frame.items.into();
        match replied {
            FrameReply::Batch(answers) => Ok(answers),
            FrameReply::One(answer) => answer.map(|_| Vec::new()).map_err(Problem::from),
        }
    }

    fn hand_in(&self, frame: &PublishFrame<'_>, answer: Reply) {
        let rights = self.access.clone().map(PublishRights::new);
        self.app.node.publish(frame, self.level, answer, rights.as_ref());
    }

    /// Returns whether a line that was refused for this reason is to be tried again.
    fn is_worth_waiting(&self, refusal: &Refusal) -> bool {
        let passes = match refusal.code {
            Code::RateLimited => true,
            Code::Overloaded | Code::StoreUnavailable => !self.has_given_up,
            _ => false,
        };
        passes && refusal.applied_ts.is_none() && !self.app.node.is_stopping()
    }

    /// Waits while publishers are to wait, for a bounded time.
    async fn wait_for_room(&self) {
        let mut waited_ms = 0;
        while self.app.node.is_congested() && waited_ms < VAIN_MS_MAX && !self.app.node.is_stopping() {
            sleep(Duration::from_millis(ROOM_LOOK_MS)).await;
            waited_ms += ROOM_LOOK_MS;
        }
    }

    /// The answer to the request, whose body was read to its end or not. What was published stays in any case.
    fn answer(self, read: Result<(), Problem>) -> Result<Response, Problem> {
        let mut members = Vec::new();
        self.tally.write_members(&mut members);
        match read {
            Ok(()) => leased_json(&self.app, [b"{", &*members, b"}"].concat()),
            Err(problem) => Err(problem.with_members(&members)),
        }
    }
}

fn number_of(item: &Item<'_>) -> Option<u64> {
    match item.id {
        Some(RequestId::Number(number)) => u64::try_from(number).ok(),
        _ => None,
    }
}

/// Reads one line. What is left of the life of a value counts from now on.
fn read_line(text: &[u8], now: Now) -> Result<Item<'_>, Refusal> {
    let bad_json = |message: String| Refusal::new(Code::BadJson, message);
    let text = std::str::from_utf8(text).map_err(|error| bad_json(error.to_string()))?;
    let frame = publish_frame(text).map_err(|error| bad_json(error.to_string()))?;
    let Items::One(Item { draft, .. }) = frame.items else {
        return Err(Refusal::new(Code::BadRequest, "a line holds one object, and not an array"));
    };
    Ok(Item { id: None, draft: draft.map(|draft| with_life_from_now(draft, now)) })
}

/// The life of a published value counts from its timestamp, that of an imported one from the import.
fn with_life_from_now(draft: Draft<'_>, now: Now) -> Draft<'_> {
    let ttl_ms = match draft.ts {
        Some(ts) if draft.ttl_ms > 0 => {
            let age_ms = now.wall_us.saturating_sub(ts) / 1_000;
            draft.ttl_ms.saturating_add(age_ms).min(TTL_MS_MAX)
        }
        _ => draft.ttl_ms,
    };
    Draft { ttl_ms, ..draft }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_life_that_is_left_counts_from_now() {
        let now = Now { mono_us: 0, wall_us: 10_000_000 };
        let ttl =
            |text: &str| read_line(text.as_bytes(), now).map(|item| item.draft.map(|draft| draft.ttl_ms));
        assert_eq!(ttl(r#"{"source":"a","ts":4000000,"data":1,"ttl_ms":500}"#), Ok(Ok(6_500)));
        assert_eq!(ttl(r#"{"source":"a","ts":11000000,"data":1,"ttl_ms":500}"#), Ok(Ok(500)));
        assert_eq!(ttl(r#"{"source":"a","data":1,"ttl_ms":500}"#), Ok(Ok(500)));
        assert_eq!(ttl(r#"{"source":"a","ts":4000000,"data":1}"#), Ok(Ok(0)));
        assert_eq!(ttl(r#"{"source":"a","ts":0,"data":1,"ttl_ms":315360000000}"#), Ok(Ok(TTL_MS_MAX)));
    }

    #[test]
    fn a_line_is_one_object() {
        let now = Now { mono_us: 0, wall_us: 0 };
        let code = |text: &[u8]| read_line(text, now).expect_err("refused").code;
        assert_eq!(code(b"{"), Code::BadJson);
        assert_eq!(code(b"\"\xff\""), Code::BadJson);
        assert_eq!(code(br#"[{"source":"a","data":1}]"#), Code::BadRequest);
        assert!(read_line(b"{}", now).is_ok_and(|item| item.draft.is_err()));
    }
}
