//! Metrics of what stands between a connection and its client: TLS, the least rates of HTTP, and the filters of
//! subscriptions.

use super::exposition::Exposition;
use super::kinds::{Counter, Gauge};

/// Number of requests over HTTP that were cut because their clients were waited for too long, by reason.
#[derive(Debug, Default)]
pub struct HttpCuts {
    /// Bodies that arrived slower than the least rate.
    pub slow_body: Counter,
    /// Answers that were read slower than the least rate.
    pub slow_reader: Counter,
    /// Connections whose place or memory others needed while the client was waited for.
    pub place: Counter,
}

impl HttpCuts {
    pub(super) fn write(&self, text: &mut Exposition<'_>) {
        text.head("http_cuts_total", "counter", "HTTP connections that were cut, by reason.");
        let HttpCuts { slow_body, slow_reader, place } = self;
        for (reason, cuts) in [("slow_body", slow_body), ("slow_reader", slow_reader), ("place", place)] {
            text.line(format_args!("http_cuts_total{{reason=\"{reason}\"}} {}", cuts.get()));
        }
    }
}

/// The filters of subscriptions, and what they did since the start.
#[derive(Debug, Default)]
pub struct FilterMetrics {
    /// Filters that differ, of each worker.
    pub distinct: Gauge,
    /// Evaluations of filters.
    pub evaluations: Counter,
    /// Evaluations that had no result, which count as false.
    pub errors: Counter,
    /// Records that were not sent to a subscriber because of its filters.
    pub skipped: Counter,
}

impl FilterMetrics {
    pub(super) fn write(&self, text: &mut Exposition<'_>) {
        let FilterMetrics { distinct, evaluations, errors, skipped } = self;
        text.gauge("filters", "Filters of subscriptions that differ, of each event loop.", distinct);
        text.counter("filter_evaluations_total", "Evaluations of filters.", evaluations);
        let help = "Evaluations of filters that had no result, which count as false.";
        text.counter("filter_errors_total", help, errors);
        let help = "Records that were not sent to a subscriber because of its filters.";
        text.counter("filter_skips_total", help, skipped);
    }
}

/// The handshakes of TLS with clients since the start, by outcome, and the certificates that were read again.
#[derive(Debug, Default)]
pub struct TlsCounters {
    /// Handshakes with a certificate and a signature.
    pub full: Counter,
    /// Handshakes by the ticket of an earlier connection, which cost little.
    pub resumed: Counter,
    /// Handshakes that failed, and connections that did not speak TLS.
    pub failed: Counter,
    /// Certificates that were read again and are used.
    pub reloaded: Counter,
    /// Certificates that were read again and refused.
    pub reload_refused: Counter,
}

impl TlsCounters {
    pub(super) fn write(&self, text: &mut Exposition<'_>) {
        let TlsCounters { full, resumed, failed, reloaded, reload_refused } = self;
        text.head("tls_handshakes_total", "counter", "Handshakes of TLS with clients, by outcome.");
        for (outcome, count) in [("full", full), ("resumed", resumed), ("failed", failed)] {
            text.line(format_args!("tls_handshakes_total{{outcome=\"{outcome}\"}} {}", count.get()));
        }
        text.head("tls_reloads_total", "counter", "Certificates that were read again, by outcome.");
        for (outcome, count) in [("used", reloaded), ("refused", reload_refused)] {
            text.line(format_args!("tls_reloads_total{{outcome=\"{outcome}\"}} {}", count.get()));
        }
    }
}
