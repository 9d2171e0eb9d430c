//! A node that runs: its health, its clock, its store, its limits, and what its members say of each other.

use serde::Deserialize;

use super::machine::{judge_disk, judge_files};
use super::{Findings, Verdict};
use crate::cli::client::{NodeUrl, Nodes, fetch_from};
use crate::cli::exposition::MetricsText;
use crate::cli::{format, members::is_of_one};

/// Offset of the clock beyond which publishes are refused, and beyond which it is worth a look, in seconds.
const CLOCK_S: (f64, f64) = (5.0, 0.5);
/// Part of a bound, in percent, from which on its use may become a problem.
const NEAR_PERCENT: f64 = 90.0;
/// Most members that are asked for their view of the others.
const ASKED_MAX: usize = 32;

/// A member as a node sees it.
#[derive(Clone, Debug, Deserialize)]
struct SeenMember {
    id: String,
    state: String,
    http: String,
    gossip: String,
    /// Whether the last connection over TCP from the asked node succeeded; `None` if there was none.
    tcp: Option<bool>,
    /// Whether the member reaches the asked node; `None` if nothing is known against it.
    reaches: Option<bool>,
}

#[derive(Deserialize)]
struct SeenMembers {
    members: Vec<SeenMember>,
}

/// Checks the first node that answers. Returns whether one does. `is_chosen` tells that the user named a node.
pub(super) fn check(nodes: &Nodes, is_chosen: bool, findings: &mut Findings) -> bool {
    let mut reasons = Vec::new();
    for node in nodes.iter() {
        match fetch_from(node, "/healthz") {
            Ok(answer) if answer.status == 200 => {
                findings.ok("node", format!("{node} runs"));
                check_ready(node, findings);
                check_metrics(node, findings);
                check_members(node, findings);
                return true;
            }
            Ok(answer) => {
                let said =
                    format!("{node} answers /healthz with status {}: {}", answer.status, answer.body.trim());
                let advice =
                    "an event loop hangs, or something else than a node is there: see the log of the node";
                findings.add("node", Verdict::Wrong, said, advice);
                return true;
            }
            Err(error) => reasons.push(error.to_string()),
        }
    }
    let said = reasons.join("; ");
    match is_chosen {
        true => {
            let advice =
                "start the node, correct --url, or open its port; with TLS the URL is https:// or wss://";
            findings.add("node", Verdict::Wrong, said, advice);
        }
        false => findings.ok("node", format!("none runs here ({said}): this machine is checked for a start")),
    }
    false
}

fn check_ready(node: &NodeUrl, findings: &mut Findings) {
    match fetch_from(node, "/readyz") {
        Ok(answer) if answer.status == 200 => findings.ok("ready", "the node is ready for clients"),
        Ok(answer) => {
            let reason = answer.ok().err().map(|error| error.to_string()).unwrap_or_default();
            findings.add("ready", Verdict::Wrong, format!("not ready: {reason}"), advice_for(&reason));
        }
        Err(error) => findings.add("ready", Verdict::Wrong, error.to_string(), "see the log of the node"),
    }
}

/// Returns what to do about a reason for which a node is not ready.
fn advice_for(reason: &str) -> &'static str {
    match reason {
        _ if reason.contains("clock") => {
            "correct the clock of this machine (chronyc tracking, timedatectl), and let it be kept by NTP"
        }
        _ if reason.contains("store") || reason.contains("stored") => {
            "see the log of the node: the disk, or Cassandra, takes no records"
        }
        _ if reason.contains("reconciliation") => {
            "wait while the node takes the records of the others; if it lasts, see the peers below"
        }
        _ if reason.contains("draining") => "the node is being stopped",
        _ => "see the log of the node",
    }
}

fn check_metrics(node: &NodeUrl, findings: &mut Findings) {
    let metrics = match fetch_from(node, "/metrics") {
        Ok(answer) if answer.status == 200 => MetricsText::parse(&answer.body),
        Ok(answer) => {
            let said = format!("/metrics is answered with status {}", answer.status);
            let advice =
                "bring a token with the right to observe (--token-file), or ask the address of --metrics";
            return findings.add("metrics", Verdict::Unknown, said, advice);
        }
        Err(error) => return findings.add("metrics", Verdict::Unknown, error.to_string(), "see the log"),
    };
    check_clock(&metrics, findings);
    if let (Some(files), Some(connections)) =
        (metrics.get("process_max_fds"), metrics.get("anode_limit{name=\"connections\"}"))
    {
        judge_files(files as u64, connections as u64, findings);
        let open = metrics.get("process_open_fds").unwrap_or(0.0);
        near(
            "files",
            "open files",
            open,
            files,
            "raise the limit of open files, or close connections",
            findings,
        );
    }
    match metrics.get("anode_store_up") {
        Some(up) if up < 1.0 => {
            let pending = metrics.get("anode_store_pending_records").unwrap_or(0.0);
            let said = format!("records do not become durable; {pending} wait");
            findings.add(
                "store",
                Verdict::Wrong,
                said,
                "see the log of the node: the disk, or Cassandra, takes none",
            );
        }
        _ => {
            let spilled = metrics.get("anode_store_spilled_records").unwrap_or(0.0);
            match spilled > 0.0 {
                false => findings.ok("store", "records become durable"),
                true => {
                    let said = format!("{spilled} records wait on the disk for Cassandra");
                    findings.add("store", Verdict::Warning, said, "see whether the number falls");
                }
            }
        }
    }
    if let Some(size) = metrics.get("anode_disk_bytes").filter(|size| *size > 0.0) {
        judge_disk(metrics.get("anode_disk_free_bytes").unwrap_or(0.0) as i64, size as i64, findings);
    }
    let advice = "raise --max-memory, or let sources expire (ttl_ms): a full map refuses new sources";
    let used = metrics.get("anode_map_bytes").unwrap_or(0.0);
    let limit = metrics.get("anode_limit{name=\"map_bytes\"}").unwrap_or(f64::INFINITY);
    near("memory", "bytes of the map", used, limit, advice, findings);
    let advice = "raise --max-client-memory, or look for clients that do not read";
    let used = metrics.get("anode_client_memory_bytes").unwrap_or(0.0);
    let limit = metrics.get("anode_client_memory_limit_bytes").unwrap_or(f64::INFINITY);
    near("memory", "bytes for clients", used, limit, advice, findings);
}

fn check_clock(metrics: &MetricsText, findings: &mut Findings) {
    let offset = metrics.get("anode_clock_offset_seconds").unwrap_or(0.0);
    let said = format!("{} off the clocks of the members", format::duration((offset.abs() * 1e6) as u64));
    let advice = "let NTP keep the clocks of all machines (chronyc tracking, timedatectl)";
    match offset.abs() {
        off if off > CLOCK_S.0 => findings.add("clock", Verdict::Wrong, said, advice),
        off if off > CLOCK_S.1 => findings.add("clock", Verdict::Warning, said, advice),
        _ => findings.ok("clock", said),
    }
}

/// Warns if a bound is nearly reached.
fn near(check: &'static str, what: &str, used: f64, limit: f64, advice: &str, findings: &mut Findings) {
    let percent = used * 100.0 / limit.max(1.0);
    if percent >= NEAR_PERCENT {
        findings.add(check, Verdict::Warning, format!("{used} of {limit} {what} are used"), advice);
    }
}

fn members_of(node: &NodeUrl) -> Result<Vec<SeenMember>, String> {
    let body = fetch_from(node, "/v1/members").map_err(|error| error.to_string())?;
    let body = body.ok().map_err(|error| error.to_string())?;
    serde_json::from_str(&body).map(|SeenMembers { members }| members).map_err(|error| error.to_string())
}

fn check_members(node: &NodeUrl, findings: &mut Findings) {
    let members = match members_of(node) {
        Ok(members) => members,
        Err(reason) => {
            let advice = "bring a token with the right to observe (--token-file)";
            return findings.add(
                "peers",
                Verdict::Unknown,
                format!("members cannot be asked: {reason}"),
                advice,
            );
        }
    };
    let before = findings.0.len();
    let live: Vec<&SeenMember> =
        members.iter().filter(|member| !matches!(member.state.as_str(), "dead" | "left")).collect();
    let mut asked = 0;
    for member in live.iter().take(ASKED_MAX) {
        let SeenMember { id, http, .. } = member;
        if !is_of_one(live.iter().map(|other| other.http.as_str()), http) {
            let said = format!("{id} cannot be asked: other members tell clients its address {http}, too");
            let advice =
                "run the doctor at each member, or let each tell a name of its own (--advertise-http)";
            findings.add("peers", Verdict::Unknown, said, advice);
            continue;
        }
        let Some(url) = node.member(http) else { continue };
        match members_of(&url) {
            Ok(view) => {
                asked += 1;
                judge_view(id, &view, findings);
            }
            Err(reason) => findings.add(
                "peers",
                Verdict::Unknown,
                format!("{id} cannot be asked at {http}: {reason}"),
                "its clients' address may be reachable on its own network only: run the doctor there, too",
            ),
        }
    }
    if asked == 0 {
        judge_view("the node that was asked", &members, findings);
    }
    for dead in members.iter().filter(|member| member.state == "dead") {
        let said = format!("{} ({}) is dead", dead.id, dead.gossip);
        findings.add("peers", Verdict::Warning, said, "start it again, or wait until it is forgotten");
    }
    let is_fine = findings.0.iter().skip(before).all(|finding| finding.verdict == Verdict::Ok);
    if is_fine {
        let said = match live.len() {
            0 | 1 => "the node is alone".into(),
            count => format!("{count} members reach each other over UDP and TCP, as {asked} of them see it"),
        };
        findings.ok("peers", said);
    }
}

/// Judges what one member sees of the others.
fn judge_view(observer: &str, view: &[SeenMember], findings: &mut Findings) {
    let open = "open the port of --gossip for UDP and TCP between the two machines, or correct --advertise";
    for other in view.iter().filter(|other| other.id != observer) {
        let SeenMember { id, gossip, .. } = other;
        match other.state.as_str() {
            "joining" => {
                let said = format!("no datagram (UDP) of {id} ({gossip}) comes back to {observer}");
                findings.add("peers", Verdict::Wrong, said, open);
            }
            "suspect" => {
                let said = format!("{id} ({gossip}) does not answer {observer} at the moment");
                findings.add(
                    "peers",
                    Verdict::Warning,
                    said,
                    "see whether it lasts, and what the log of both says",
                );
            }
            "alive" if other.tcp == Some(false) => {
                let said = format!("{observer} cannot connect to {id} ({gossip}) over TCP");
                findings.add("peers", Verdict::Wrong, said, open);
            }
            "alive" if other.reaches == Some(false) => {
                let said =
                    format!("{id} does not reach {observer} at the address that {observer} advertises");
                findings.add("peers", Verdict::Wrong, said, open);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(id: &str, state: &str, tcp: Option<bool>, reaches: Option<bool>) -> SeenMember {
        SeenMember {
            id: id.into(),
            state: state.into(),
            http: String::new(),
            gossip: "g:1".into(),
            tcp,
            reaches,
        }
    }

    #[test]
    fn views_of_members_are_judged() {
        let worst = |view: &[SeenMember]| {
            let mut findings = Findings::default();
            judge_view("a", view, &mut findings);
            findings.worst()
        };
        assert_eq!(
            worst(&[seen("a", "joining", None, None), seen("b", "alive", Some(true), None)]),
            Verdict::Ok
        );
        assert_eq!(worst(&[seen("b", "joining", None, None)]), Verdict::Wrong);
        assert_eq!(worst(&[seen("b", "alive", Some(false), None)]), Verdict::Wrong);
        assert_eq!(worst(&[seen("b", "alive", None, Some(false))]), Verdict::Wrong);
        assert_eq!(worst(&[seen("b", "suspect", None, None)]), Verdict::Warning);
        assert_eq!(worst(&[seen("b", "dead", Some(false), None)]), Verdict::Ok, "told apart");
    }

    #[test]
    fn clocks_are_judged() {
        let of = |offset: &str| {
            let mut findings = Findings::default();
            check_clock(&MetricsText::parse(&format!("anode_clock_offset_seconds {offset}")), &mut findings);
            findings.worst()
        };
        assert_eq!([of("0.001"), of("-1.5"), of("-7")], [Verdict::Ok, Verdict::Warning, Verdict::Wrong]);
        assert!(advice_for("this node's clock is off its peers'").contains("NTP"));
    }
}
