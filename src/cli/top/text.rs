//! One sample as text for people, or as JSON for programs.

use serde_json::json;

use super::Shown;
use super::sample::{ClusterSample, NodeFigures, NodeSample};
use crate::cli::format;

/// Number of sources that are listed in the text.
const LISTED_MAX: usize = 10;

/// Formats a rate.
pub(super) fn rate(rate: f64) -> String {
    match rate {
        ..10.0 if rate > 0.0 => format!("{rate:.1}"),
        _ => format::grouped(rate.round() as u64),
    }
}

/// Formats a duration in seconds that is the upper bound of a bucket.
pub(super) fn seconds(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".into(),
        Some(bound) if bound.is_infinite() => ">60s".into(),
        Some(bound) if bound < 0.001 => format!("<{}µs", (bound * 1e6).round()),
        Some(bound) if bound < 1.0 => format!("<{}ms", (bound * 1e5).round() / 100.0),
        Some(bound) => format!("<{bound}s"),
    }
}

/// The cells of a member's row, without its name and state.
pub(super) fn cells(node: &NodeSample) -> [String; 7] {
    let Some(figures) = &node.figures else { return std::array::from_fn(|_| "-".into()) };
    let NodeFigures { rates, connections, resident_bytes, propagation_p99, stored_p99, .. } = figures;
    [
        rate(rates.published),
        rate(rates.delivered),
        format::grouped(*connections as u64),
        seconds(*propagation_p99),
        seconds(*stored_p99),
        format!("{:.0} %", rates.cpu_percent),
        format::bytes(*resident_bytes as u64),
    ]
}

/// Heads of these cells.
pub(super) const HEADS: [&str; 7] = ["pub/s", "deliv/s", "conns", "prop p99", "ack p99", "cpu", "memory"];

/// One line about the whole cluster.
pub(super) fn summary(cluster: &ClusterSample) -> String {
    let alive = cluster.nodes.iter().filter(|node| node.state == "alive").count();
    let total = &cluster.total;
    format!(
        "{} members, {alive} alive; {} sources; published {}/s, delivered {}/s, refused {}/s",
        cluster.nodes.len(),
        format::grouped(cluster.sources as u64),
        rate(total.published),
        rate(total.delivered),
        rate(total.refused)
    )
}

/// The sample as text.
pub(super) fn plain(shown: &Shown) -> String {
    let head = ["member", "state"].into_iter().chain(HEADS).map(str::to_owned);
    let row = |cells: Vec<String>| -> [String; 9] {
        let mut cells = cells.into_iter();
        std::array::from_fn(|_| cells.next().unwrap_or_default())
    };
    let mut rows = vec![row(head.collect())];
    for node in &shown.cluster.nodes {
        rows.push(row([node.id.clone(), node.state.clone()].into_iter().chain(cells(node)).collect()));
    }
    let mut text = format!("{}\n\n{}", summary(&shown.cluster), format::table(&rows));
    if !shown.hot.is_empty() {
        text.push_str("\nhottest sources, records/s\n");
        for (source, records) in shown.hot.iter().take(LISTED_MAX) {
            text.push_str(&format!("{:>10}  {source}\n", rate(*records)));
        }
    }
    text
}

/// The sample as a line of JSON.
pub(super) fn json(shown: &Shown) -> String {
    let hot: Vec<_> = shown
        .hot
        .iter()
        .map(|(source, rate)| json!({ "source": source, "records_per_second": rate }))
        .collect();
    let ClusterSample { asked, nodes, total, sources, .. } = &*shown.cluster;
    let told =
        json!({ "asked": asked, "members": nodes, "total": total, "sources": sources, "hottest": hot });
    format!("{told}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_as_people_read_them() {
        assert_eq!([0.0, 0.25, 9.96, 12_345.6].map(rate), ["0", "0.2", "10.0", "12,346"]);
        let of = [None, Some(0.00025), Some(0.01), Some(f64::INFINITY)].map(seconds);
        assert_eq!(of, ["-", "<250µs", "<10ms", ">60s"]);
    }
}
