//! Reads a scenario from TOML: fields are named like the command line's flags, and faults are a list.
//!
//! Every value is checked here; an error names the field, its value and what is allowed. An unknown field is
//! refused: with a misspelt fault, the run would otherwise lack that fault.

use serde::Deserialize;

use super::faults::{FaultKind, Portion, ScheduledFault};
use super::{Beginning, LinkConditions, NODES_MAX, Publishing, Scenario, ScenarioError};

/// Longest time that a file may ask for, in seconds: a week.
const SECONDS_MAX: f64 = 7.0 * 24.0 * 3600.0;

/// A scenario as it is written in a file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    nodes: Option<usize>,
    fanout: Option<usize>,
    zones: Option<usize>,
    begin: Option<String>,
    unknown: Option<f64>,
    warm_up_s: Option<f64>,
    settle_s: Option<f64>,
    random_faults: bool,
    strict: bool,
    network: RawNetwork,
    publish: RawPublish,
    faults: Vec<RawFault>,
}

/// The table `network` of a file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawNetwork {
    delay_ms: Option<[f64; 2]>,
    zone_delay_ms: Option<[f64; 2]>,
    loss: Option<f64>,
    burst: bool,
    duplicates: Option<f64>,
    reordered: Option<f64>,
    bytes_per_s: Option<u64>,
    cpu_us: Option<u64>,
}

/// The table `publish` of a file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawPublish {
    records: Option<usize>,
    rate: Option<f64>,
    publishers: Option<usize>,
    sources: Option<usize>,
    bytes: Option<usize>,
    deletions: Option<f64>,
}

/// One entry of the list `faults` of a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFault {
    kind: String,
    #[serde(default)]
    at_s: f64,
    #[serde(default)]
    for_s: f64,
    nodes: Option<RawShare>,
    rate: Option<f64>,
    by_s: Option<f64>,
    loss: Option<f64>,
    keep: Option<bool>,
}

/// A whole number of nodes, or a part of all nodes, as it stands in a file.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum RawShare {
    Count(usize),
    Part(f64),
}

/// Reads a scenario and gives it a name.
pub fn parse(name: &str, text: &str) -> Result<Scenario, ScenarioError> {
    let raw: Raw = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
        let message = error.message().replace('\n', " ");
        ScenarioError::new(format!("line {at}"), message, "see docs/simulator.md for the fields")
    })?;
    if raw.fanout.is_some_and(|fanout| fanout != super::SCENARIO_FANOUT) {
        return Err(ScenarioError::new("fanout", raw.fanout.unwrap_or(0), "8: it is part of the protocol"));
    }
    let plain = Scenario::default();
    let faults: Result<Vec<ScheduledFault>, ScenarioError> =
        raw.faults.iter().enumerate().map(|(index, fault)| fault_of(index, fault)).collect();
    Ok(Scenario {
        name: name.into(),
        nodes: whole("nodes", raw.nodes, plain.nodes, 1, NODES_MAX)?,
        zones: whole("zones", raw.zones, plain.zones, 1, 255)?,
        beginning: match raw.begin.as_deref() {
            None | Some("known") => Beginning::Known,
            Some("joining") => Beginning::Joining,
            Some(other) => return Err(ScenarioError::new("begin", other, "\"known\" or \"joining\"")),
        },
        unknown_per_million: part("unknown", raw.unknown)?,
        warm_up_us: seconds("warm_up_s", raw.warm_up_s.unwrap_or(2.0))?,
        links: links_of(&raw.network)?,
        publishing: publishing_of(&raw.publish)?,
        faults: faults?,
        random_faults: raw.random_faults,
        settle_us: seconds("settle_s", raw.settle_s.unwrap_or(60.0))?,
        is_strict: raw.strict,
    })
}

fn links_of(raw: &RawNetwork) -> Result<LinkConditions, ScenarioError> {
    let plain = LinkConditions::default();
    Ok(LinkConditions {
        delay_us: delays("network.delay_ms", raw.delay_ms, plain.delay_us)?,
        zone_delay_us: delays("network.zone_delay_ms", raw.zone_delay_ms, plain.zone_delay_us)?,
        loss_per_million: part("network.loss", raw.loss)?,
        is_bursty: raw.burst,
        duplicates_per_million: part("network.duplicates", raw.duplicates)?,
        reordered_per_million: part("network.reordered", raw.reordered)?,
        rate_bytes_per_s: raw.bytes_per_s.unwrap_or(plain.rate_bytes_per_s),
        cpu_us: raw.cpu_us.unwrap_or(plain.cpu_us),
    })
}

fn publishing_of(raw: &RawPublish) -> Result<Publishing, ScenarioError> {
    let plain = Publishing::default();
    let rate = raw.rate.unwrap_or(plain.rate);
    if !(0.001..=1e6).contains(&rate) {
        return Err(ScenarioError::new("publish.rate", rate, "0.001 to 1000000 records a second"));
    }
    Ok(Publishing {
        records: whole("publish.records", raw.records, plain.records, 0, 10_000_000)?,
        rate,
        publishers: whole("publish.publishers", raw.publishers, 0, 0, NODES_MAX)?,
        sources: whole("publish.sources", raw.sources, 0, 0, 10_000_000)?,
        bytes: whole("publish.bytes", raw.bytes, plain.bytes, 1, 64 * 1024)?,
        deletions_per_million: part("publish.deletions", raw.deletions)?,
    })
}

fn fault_of(index: usize, raw: &RawFault) -> Result<ScheduledFault, ScenarioError> {
    let field = |name: &str| format!("faults[{index}].{name}");
    let share = match raw.nodes {
        None => Portion::Count(1),
        Some(RawShare::Count(count)) => Portion::Count(count),
        Some(RawShare::Part(part)) if (0.0..=1.0).contains(&part) => Portion::Part(part),
        Some(RawShare::Part(part)) => {
            return Err(ScenarioError::new(
                field("nodes"),
                part,
                "a whole number, or a part from 0.0 to 1.0",
            ));
        }
    };
    let count = match share {
        Portion::Count(count) => count,
        Portion::Part(part) => {
            return match raw.kind.as_str() {
                "cut" | "join" => Err(ScenarioError::new(field("nodes"), part, "a whole number here")),
                _ => kind_of(&field, raw, share, 0),
            };
        }
    };
    kind_of(&field, raw, share, count)
}

fn kind_of(
    field: &dyn Fn(&str) -> String,
    raw: &RawFault,
    share: Portion,
    count: usize,
) -> Result<ScheduledFault, ScenarioError> {
    let by_us = raw.by_s.filter(|by| by.abs() <= SECONDS_MAX).map_or(0, |by| (by * 1e6) as i64);
    let kind = match raw.kind.as_str() {
        "partition" => FaultKind::Partition(share),
        "deaf" => FaultKind::Deaf(share),
        "cut" => FaultKind::Cut(count),
        "pause" => FaultKind::Pause(share),
        "pause-in-turns" => FaultKind::PauseInTurns(share),
        "kill" => FaultKind::Kill(share),
        "leave" => FaultKind::Leave(share),
        "restart" => FaultKind::Restart(share, raw.keep.unwrap_or(true)),
        "churn" => FaultKind::Churn(f64::from(part(&field("rate"), raw.rate)?) / 1e6),
        "join" => FaultKind::Join(count),
        "clock" if by_us != 0 => FaultKind::Clock(share, by_us),
        "clock" => {
            return Err(ScenarioError::new(field("by_s"), raw.by_s.unwrap_or(0.0), "seconds, not 0"));
        }
        "loss" => FaultKind::Loss(part(&field("loss"), raw.loss)?),
        other => {
            let kinds =
                "partition, deaf, cut, pause, pause-in-turns, kill, leave, restart, churn, join, clock, loss";
            return Err(ScenarioError::new(field("kind"), other, kinds));
        }
    };
    Ok(ScheduledFault {
        at_us: seconds(&field("at_s"), raw.at_s)?,
        for_us: seconds(&field("for_s"), raw.for_s)?,
        kind,
    })
}

fn whole(
    field: &str,
    value: Option<usize>,
    plain: usize,
    least: usize,
    most: usize,
) -> Result<usize, ScenarioError> {
    let value = value.unwrap_or(plain);
    match (least..=most).contains(&value) {
        true => Ok(value),
        false => Err(ScenarioError::new(field, value, format!("whole numbers from {least} to {most}"))),
    }
}

fn part(field: &str, value: Option<f64>) -> Result<u32, ScenarioError> {
    let value = value.unwrap_or(0.0);
    match (0.0..=1.0).contains(&value) {
        true => Ok((value * 1e6).round() as u32),
        false => Err(ScenarioError::new(field, value, "0.0 to 1.0")),
    }
}

fn seconds(field: &str, value: f64) -> Result<u64, ScenarioError> {
    match (0.0..=SECONDS_MAX).contains(&value) {
        true => Ok((value * 1e6).round() as u64),
        false => Err(ScenarioError::new(field, value, "0 to 604800 seconds")),
    }
}

fn delays(field: &str, value: Option<[f64; 2]>, plain: (u64, u64)) -> Result<(u64, u64), ScenarioError> {
    match value {
        None => Ok(plain),
        Some([least, most]) if 0.0 <= least && least <= most && most <= 60_000.0 => {
            Ok(((least * 1e3) as u64, (most * 1e3) as u64))
        }
        Some(other) => {
            Err(ScenarioError::new(field, format!("{other:?}"), "[least, most] in ms, at most 60000"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read() {
        let text = r#"
            nodes = 12
            fanout = 8
            zones = 3
            begin = "joining"
            unknown = 0.02
            warm_up_s = 0.5
            settle_s = 9
            random_faults = true
            strict = true
            [network]
            delay_ms = [0.1, 2.0]
            zone_delay_ms = [40, 41]
            loss = 0.05
            burst = true
            duplicates = 0.01
            reordered = 0.02
            bytes_per_s = 1000000
            cpu_us = 7
            [publish]
            records = 5
            rate = 2.5
            publishers = 1
            sources = 3
            bytes = 10
            deletions = 0.1
            [[faults]]
            kind = "restart"
            at_s = 1.5
            for_s = 2
            nodes = 0.25
            keep = false
            [[faults]]
            kind = "cut"
            nodes = 4
            [[faults]]
            kind = "clock"
            by_s = -2
        "#;
        let scenario = parse("mine", text).expect("a scenario");
        assert_eq!((scenario.nodes, scenario.zones, scenario.settle_us), (12, 3, 9_000_000));
        assert_eq!(scenario.links.zone_delay_us, (40_000, 41_000));
        assert_eq!((scenario.links.loss_per_million, scenario.links.is_bursty), (50_000, true));
        assert_eq!((scenario.publishing.publishers, scenario.publishing.deletions_per_million), (1, 100_000));
        let kinds: Vec<FaultKind> = scenario.faults.iter().map(|fault| fault.kind).collect();
        let wanted = [
            FaultKind::Restart(Portion::Part(0.25), false),
            FaultKind::Cut(4),
            FaultKind::Clock(Portion::Count(1), -2_000_000),
        ];
        assert_eq!(kinds, wanted);
        assert_eq!((scenario.faults[0].at_us, scenario.faults[0].end_us()), (1_500_000, 3_500_000));
    }

    #[test]
    fn examples_are_scenarios() {
        for text in [
            include_str!("../../../scenarios/three-zones.toml"),
            include_str!("../../../scenarios/rolling-restart.toml"),
            include_str!("../../../scenarios/bad-day.toml"),
        ] {
            assert!(parse("example", text).is_ok_and(|scenario| !scenario.faults.is_empty()), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, field) in [
            ("nodes = 0", "nodes"),
            ("fanout = 4", "fanout"),
            ("begin = \"later\"", "begin"),
            ("\nnodez = 3", "line 2"),
            ("[network]\nloss = 1.5", "network.loss"),
            ("[network]\ndelay_ms = [2, 1]", "network.delay_ms"),
            ("[publish]\nrate = 0", "publish.rate"),
            ("[[faults]]\nkind = \"kil\"", "faults[0].kind"),
            ("[[faults]]\nkind = \"join\"\nnodes = 0.5", "faults[0].nodes"),
            ("[[faults]]\nkind = \"kill\"\nnodes = 1.5", "faults[0].nodes"),
            ("[[faults]]\nkind = \"kill\"\nat_s = -1", "faults[0].at_s"),
            ("[[faults]]\nkind = \"clock\"", "faults[0].by_s"),
        ] {
            let error = parse("x", text).expect_err(text);
            assert_eq!(error.field, field, "{error}");
        }
    }
}
