//! Several runs after each other, and the table of what they have shown.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use anode_loadgen::Outcome;

use crate::arguments::Arguments;
use crate::compose;
use crate::peer::{Comparison, HEAD};
use crate::profile::NAMES;
use crate::run::{self, Spec, Summary};
use crate::world::leftovers;

/// The profiles that tests run, with the seconds of load of each.
pub const CI: [(&str, u32); 5] =
    [("lossy-5", 12), ("split-brain", 16), ("kill-half", 16), ("corrupt", 12), ("clock-steps", 16)];

/// Records a second in the runs of tests.
pub const CI_LOAD: u32 = 500;

/// What became of a run.
pub enum Ended {
    /// The run was made.
    Judged(Box<Summary>),
    /// The run cannot be made here.
    Skipped(String),
    /// The run was made with another system in place of aNode.
    Compared(Box<Comparison>),
    /// Nothing of the profile can be played.
    NothingLeft(String),
    /// The run could not be made, or was ended.
    Failed(String),
}

impl Ended {
    /// Returns whether nothing is wrong, as far as it was tried.
    pub fn is_good(&self) -> bool {
        match self {
            Ended::Judged(summary) => summary.is_kept(),
            Ended::Compared(_) | Ended::Skipped(_) | Ended::NothingLeft(_) => true,
            Ended::Failed(_) => false,
        }
    }
}

/// Makes one run and tells about it.
pub fn one(
    name: &str,
    arguments: &Arguments,
    binary: &Path,
    is_interrupted: &Arc<AtomicBool>,
) -> Outcome<Ended> {
    let spec = Spec::new(name, arguments, binary.to_owned())?;
    println!("{name}: {}", spec.profile.about);
    if let Some(reason) = spec.reason_to_skip() {
        println!("{name}: skipped: {reason}");
        return Ok(Ended::Skipped(reason));
    }
    if let Some((_, mapping)) = spec.mapping()
        && is_nothing_left(&mapping.applied, &mapping.left_out, mapping.is_empty())
    {
        return Ok(nothing_left(name, "containers can play nothing of this profile"));
    }
    let beside = spec.beside();
    if let Some((_, mapping)) = &beside
        && is_nothing_left(&mapping.applied, &mapping.left_out, mapping.is_empty())
    {
        return Ok(nothing_left(name, "nothing of this profile is left for another system"));
    }
    println!("  {}", spec.again());
    let begin = Instant::now();
    let ended = match beside {
        None => run::run(&spec, is_interrupted)
            .map(|summary| (summary.text(), "report and timeline", Ended::Judged(Box::new(summary)))),
        Some((server, mapping)) => run::run_beside(&spec, server, &mapping, is_interrupted)
            .map(|comparison| (comparison.text(), "report", Ended::Compared(Box::new(comparison)))),
    };
    Ok(match ended {
        Ok((text, what, ended)) => {
            println!("{text}");
            let took = begin.elapsed().as_secs();
            println!("  {took} s in all; {what} in {}", spec.out().display());
            ended
        }
        Err(error) => {
            println!("{name}: FAILED: {error}\n  again: {}", spec.again());
            Ended::Failed(error.to_string())
        }
    })
}

/// Tells what is applied of a profile and what is not. Returns whether nothing is left of it.
fn is_nothing_left(applied: &[String], left_out: &[String], is_empty: bool) -> bool {
    applied.iter().for_each(|what| println!("  applied: {what}"));
    left_out.iter().for_each(|what| println!("  not applied: {what}"));
    is_empty
}

fn nothing_left(name: &str, reason: &str) -> Ended {
    println!("{name}: {reason}");
    Ended::NothingLeft(reason.to_owned())
}

/// Makes several runs, each with its seconds if they are given, and prints the table. Returns whether all were good.
pub fn many(
    names: &[(&str, Option<u32>)],
    arguments: &Arguments,
    binary: &Path,
    is_interrupted: &Arc<AtomicBool>,
) -> Outcome<bool> {
    let mut ended = Vec::new();
    for (name, seconds) in names {
        if is_interrupted.load(Relaxed) {
            break;
        }
        let mut arguments = arguments.clone();
        arguments.seconds = seconds.or(arguments.seconds);
        ended.push(((*name).to_owned(), one(name, &arguments, binary, is_interrupted)?));
    }
    let (head, file) = match arguments.peer {
        None => (&run::HEAD[..], "summary.md".to_owned()),
        Some(peer) => (&HEAD[..], format!("summary-{}.md", peer.name())),
    };
    let table = table(head, &ended);
    println!("\n{table}");
    std::fs::write(arguments.out.join(file), &table)?;
    Ok(ended.iter().all(|(_, ended)| ended.is_good()) && ended.len() == names.len())
}

/// Makes a run of every profile.
pub fn all(arguments: &Arguments, binary: &Path, is_interrupted: &Arc<AtomicBool>) -> Outcome<bool> {
    let names: Vec<(&str, Option<u32>)> = NAMES.iter().map(|name| (*name, None)).collect();
    many(&names, arguments, binary, is_interrupted)
}

/// Returns a table in Markdown.
pub fn table(head: &[&str], ended: &[(String, Ended)]) -> String {
    let mut lines = vec![format!("| {} |", head.join(" | ")), format!("|{}", " --- |".repeat(head.len()))];
    for (name, ended) in ended {
        let row = match ended {
            Ended::Judged(summary) => summary.row(),
            Ended::Compared(comparison) => comparison.row(),
            Ended::Skipped(reason) | Ended::NothingLeft(reason) => {
                other_row(head.len(), name, &format!("skipped: {reason}"))
            }
            Ended::Failed(error) => other_row(head.len(), name, &format!("FAILED: {error}")),
        };
        lines.push(format!("| {} |", row.join(" | ")));
    }
    lines.join("\n") + "\n"
}

fn other_row(columns: usize, name: &str, what: &str) -> Vec<String> {
    let mut row = vec![String::new(); columns];
    row[0] = name.to_owned();
    if let Some(last) = row.last_mut() {
        *last = what.to_owned();
    }
    row
}

/// Removes everything that runs have left behind whose program is gone, and returns the names of the runs.
pub fn clean() -> Vec<String> {
    let dead = leftovers::dead_runs();
    for run in &dead {
        compose::remove(run);
        leftovers::remove(run);
    }
    dead
}

/// Returns the anode program beside this one, if none is given.
pub fn binary(given: Option<&PathBuf>) -> Outcome<PathBuf> {
    let path = match given {
        Some(path) => path.clone(),
        None => {
            let own = std::env::current_exe()?;
            own.parent().ok_or("this program is nowhere")?.join("anode")
        }
    };
    let path = path.canonicalize().map_err(|error| format!("--binary {}: {error}", path.display()))?;
    let output = Command::new(&path).arg("--version").output();
    match output {
        Ok(output) if output.status.success() => Ok(path),
        Ok(output) => Err(format!("{} --version: {}", path.display(), output.status).into()),
        Err(error) => Err(format!("{}: {error}", path.display()).into()),
    }
}

/// Says why network namespaces cannot be made here, if they cannot.
pub fn refusal() -> Option<String> {
    let name = format!("anetem-try-{}", std::process::id());
    let tried = crate::world::command::run(&format!("ip netns add {name}"));
    // It is there only if it could be made.
    let _ = crate::world::command::run(&format!("ip netns del {name}"));
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    match (tried, device) {
        (Err(error), _) => Some(format!("network namespaces are not permitted here: {error}")),
        (_, Err(error)) => Some(format!("TUN devices are not permitted here: /dev/net/tun: {error}")),
        _ => None,
    }
}
