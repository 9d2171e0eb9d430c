//! Notices as events of a stream of Server-Sent Events.

use crate::protocol::json::{write_refusal, write_string};
use crate::protocol::request::Notice;
use crate::server::framing::event_stream::write_event;

/// Appends the event of a notice. A stream has one subscription and gets no requests, so it is told only what it does not
/// know: that what it held is void, where its snapshot ends, and what to resume from.
pub(super) fn write_notice_event(out: &mut Vec<u8>, notice: &Notice<'_>) {
    let mut data = Vec::new();
    match notice {
        Notice::Eos { subscription, resume } => {
            data.extend_from_slice(format!("{{\"subscription\":{subscription},\"resume\":").as_bytes());
            write_string(&mut data, resume);
            data.push(b'}');
            write_event(out, "eos", Some(resume), &data);
        }
        Notice::Resume(token) => {
            data.extend_from_slice(b"{\"resume\":");
            write_string(&mut data, token);
            data.push(b'}');
            write_event(out, "resume", Some(token), &data);
        }
        Notice::Subscribed { recovered: Some(false), .. } => {
            write_event(out, "reset", None, b"{\"recovered\":false}");
        }
        Notice::Refused { refusal, .. } => {
            write_refusal(&mut data, refusal);
            write_event(out, "refused", None, &data);
        }
        Notice::Connected(_) | Notice::Subscribed { .. } | Notice::Authenticated { .. } => {}
    }
}
