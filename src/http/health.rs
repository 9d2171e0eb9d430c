//! The paths by which others watch a node: whether it runs, whether it is ready, and its metrics.
//!
//! The event loops answer them by themselves, so that no other client, and no work of the control plane, can
//! stand between a node and those who decide whether it is restarted. The control plane answers them too,
//! where a connection is with it already.

use super::NodeService;
use super::problem::{PROBLEM_TYPE, Problem};
use crate::protocol::refusal::Code;

/// A path that is answered whatever other connections do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthPath {
    /// `/healthz`: whether the event loops turn.
    Live,
    /// `/readyz`: whether clients should be sent to this node.
    Ready,
    /// `/metrics`: the metrics in the text format of Prometheus.
    Metrics,
}

/// The answer to a request for a health path.
#[derive(Clone, Debug)]
pub struct HealthAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The media type of the body.
    pub media_type: &'static str,
    /// The text or the problem that is the content of the answer.
    pub body: Vec<u8>,
}

impl HealthPath {
    /// Returns the health path that `path` is, if it is one.
    pub fn of(path: &str) -> Option<HealthPath> {
        match path {
            "/healthz" => Some(HealthPath::Live),
            "/readyz" => Some(HealthPath::Ready),
            "/metrics" => Some(HealthPath::Metrics),
            _ => None,
        }
    }

    /// The answer of this node at the moment.
    pub fn answer(self, node: &dyn NodeService) -> HealthAnswer {
        match self {
            HealthPath::Live if node.is_turning() => text("ok\n".into()),
            HealthPath::Live => problem(Code::Stuck, "an event loop has not turned for seconds"),
            HealthPath::Ready => match node.readiness() {
                Ok(()) => text("ready\n".into()),
                Err(reason) => problem(Code::NotReady, &reason),
            },
            HealthPath::Metrics => {
                let mut body = String::with_capacity(8 * 1024);
                node.fresh_metrics().write(&mut body);
                if let Some(auth) = node.door().auth() {
                    auth.write_metrics(&mut body);
                }
                let media_type = "text/plain; version=0.0.4; charset=utf-8";
                HealthAnswer { status: 200, media_type, body: body.into() }
            }
        }
    }
}

fn text(body: String) -> HealthAnswer {
    HealthAnswer { status: 200, media_type: "text/plain; charset=utf-8", body: body.into() }
}

fn problem(code: Code, reason: &str) -> HealthAnswer {
    let problem = Problem::new(code, reason);
    HealthAnswer { status: problem.status(), media_type: PROBLEM_TYPE, body: problem.body() }
}
