//! Writes a report for people to read on a terminal.

use std::fmt::{self, Write};

use super::{Percentiles, Report};

/// Returns the report as lines of text.
pub fn write(report: &Report) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = lines(report, &mut out);
    out
}

fn lines(report: &Report, out: &mut String) -> fmt::Result {
    let machine = &report.machine;
    writeln!(
        out,
        "anode-loadgen {} ({}), {} cores {}, Linux {}, load {} before",
        report.version,
        report.commit.as_deref().unwrap_or("no commit"),
        machine.cores,
        machine.cpu,
        machine.kernel,
        machine.load_average
    )?;
    let parameters: Vec<String> = report
        .parameters
        .iter()
        .chain(&report.labels)
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    writeln!(out, "{}", parameters.join(" "))?;
    let rates = &report.throughput;
    let offered = rates.offered_per_s.map(|rate| format!(" (offered {rate:.0}/s)")).unwrap_or_default();
    writeln!(
        out,
        "in {:.2} s: published {} = {:.0}/s{offered}, delivered {} = {:.0}/s, {:.1} MiB/s received",
        rates.seconds,
        rates.published,
        rates.published_per_s,
        rates.delivered,
        rates.delivered_per_s,
        rates.received_mib_per_s
    )?;
    let times = [
        ("due → delivered", &report.latency),
        ("due → answered", &report.ack_latency),
        ("due → written", &report.generator.send_lag),
    ];
    for (name, times) in times {
        if let Some(times) = times {
            writeln!(out, "{name}: {}", in_line(times))?;
        }
    }
    if let Some(server) = &report.server {
        writeln!(
            out,
            "server: {:.2} CPU s ({:.2} cores), {:.0} deliveries and {:.0} messages per CPU second, {} KiB resident",
            server.cpu_s,
            server.cores,
            server.delivered_per_cpu_s,
            server.published_per_cpu_s,
            server.resident_bytes / 1_024
        )?;
    }
    faults(report, out)?;
    let busy: Vec<String> =
        report.generator.busy.iter().map(|busy| format!("{:.0} %", busy * 100.0)).collect();
    writeln!(out, "generator: {:.2} CPU s, threads busy {}", report.generator.cpu_s, busy.join(", "))?;
    if let Some(why) = &report.generator.is_bottleneck {
        writeln!(out, "WARNING: the generator may be the bottleneck: {why}")?;
    }
    Ok(())
}

fn faults(report: &Report, out: &mut String) -> fmt::Result {
    let it = &report.correctness;
    let how = if it.is_verified { "every payload verified" } else { "counted, not verified" };
    let word = if it.may_conflate { "conflated" } else { "lost" };
    writeln!(
        out,
        "{}: {} published, {} of {} expected deliveries {word}, {} newest missing, {} duplicates, \
         {} out of order, {} wrong, {} unanswered, {} unsent ({how})",
        if it.is_fine() { "fine" } else { "FAULTS" },
        it.published,
        it.missing,
        it.expected,
        it.newest_missing,
        it.faults.duplicates,
        it.faults.out_of_order,
        it.faults.wrong,
        it.unanswered,
        it.faults.unsent
    )?;
    it.faults.reasons().try_for_each(|reason| writeln!(out, "{reason}"))
}

fn in_line(times: &Percentiles) -> String {
    let names = ["p50", "p90", "p99", "p99.9", "p99.99"];
    let listed: Vec<String> = names.iter().map(|name| format!("{name} {}", time(times.at(name)))).collect();
    format!("{}, max {}, mean {}", listed.join(", "), time(times.max_us), time(times.mean_us))
}

/// Writes a time, given in microseconds, in a unit that suits it.
pub fn time(us: f64) -> String {
    match us {
        us if us < 1_000.0 => format!("{us:.1} µs"),
        us if us < 1_000_000.0 => format!("{:.3} ms", us / 1_000.0),
        us => format!("{:.3} s", us / 1_000_000.0),
    }
}
