//! Writes a report as one HTML file that needs nothing else: tables, and plots as inline SVG.

use std::fmt::Write;

use super::text::{self, time};
use super::{Percentiles, Report, plot};
use crate::Outcome;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color:#222}table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ddd;padding:.2rem .7rem;\
text-align:right}th:first-child,td:first-child{text-align:left}pre{background:#f6f6f6;padding:.8rem;\
overflow-x:auto;white-space:pre-wrap}svg{max-width:100%;height:auto}.bad{color:#b00020;font-weight:600}\
@media(prefers-color-scheme:dark){body{background:#14161a;color:#e4e6ea}td,th{border-color:#3a3f47}pre{background:#1e2127}\
.bad{color:#ff8a8a}svg text{fill:#d5d8dd}svg [fill=\"#FFFFFF\"]{fill:#14161a}svg [stroke=\"#F0F0F0\"]{stroke:#2a2e35}\
svg [stroke=\"#000000\"]{stroke:#8b919b}svg [stroke=\"#1F6FEB\"]{stroke:#79b0ff}\
svg [stroke=\"#C0392B\"]{stroke:#ff8f82}svg [stroke=\"#2E7D32\"]{stroke:#7fd187}}";

/// Returns the whole page.
pub fn write(report: &Report) -> Outcome<String> {
    let mut out = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
        <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\">",
    );
    let title = format!("anode-loadgen: {}", report.parameters.get("target").map_or("", String::as_str));
    write!(out, "<title>{0}</title><style>{STYLE}</style></head><body><h1>{0}</h1>", escape(&title))?;
    if let Some(why) = &report.generator.is_bottleneck {
        write!(out, "<p class=\"bad\">The generator may be the bottleneck: {}</p>", escape(why))?;
    }
    if !report.correctness.is_fine() {
        write!(out, "<p class=\"bad\">There were faults.</p>")?;
    }
    write!(out, "<pre>{}</pre>", escape(&text::write(report)))?;
    write!(out, "<h2>Latency</h2>{}", plot::percentiles(report)?)?;
    times(report, &mut out)?;
    write!(out, "{}", plot::latency(report)?)?;
    write!(out, "<h2>Throughput</h2>{}{}", plot::published(report)?, plot::delivered(report)?)?;
    write!(out, "<h2>Parameters</h2><table>")?;
    for (name, value) in report.parameters.iter().chain(&report.labels) {
        write!(out, "<tr><td>{}</td><td>{}</td></tr>", escape(name), escape(value))?;
    }
    out.push_str("</table></body></html>\n");
    Ok(out)
}

fn times(report: &Report, out: &mut String) -> std::fmt::Result {
    let kinds = [
        ("due to delivered", &report.latency),
        ("due to answered", &report.ack_latency),
        ("due to written", &report.generator.send_lag),
    ];
    write!(out, "<table><tr><th></th><th>count</th><th>min</th>")?;
    let names = ["p10", "p50", "p90", "p99", "p99.9", "p99.99"];
    for name in names {
        write!(out, "<th>{name}</th>")?;
    }
    write!(out, "<th>max</th></tr>")?;
    for (kind, times) in kinds {
        let Some(times): &Option<Percentiles> = times else { continue };
        write!(out, "<tr><td>{kind}</td><td>{}</td><td>{}</td>", times.count, time(times.min_us))?;
        for name in names {
            write!(out, "<td>{}</td>", time(times.at(name)))?;
        }
        write!(out, "<td>{}</td></tr>", time(times.max_us))?;
    }
    write!(out, "</table>")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
