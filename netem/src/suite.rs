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
    /// Containers can play nothing of the profile.
    NothingLeft(String),
    /// The run could not be made, or was ended.
    Failed(String),
}

impl Ended {
    /// Returns whether nothing is wrong, as far as it was tried.
    pub fn is_good(&self) -> bool {
        match self {
            Ended::Judged(summary) => summary.is_kept(),
            Ended::Skipped(_) | Ended::NothingLeft(_) => true,
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
    if let Some((_, mapping)) = spec.mapping() {
        mapping.applied.iter().for_each(|what| println!("  applied: {what}"));
        mapping.left_out.iter().for_each(|what| println!("  not applied: {what}"));
        if mapping.is_empty() {
            let reason = "containers can play nothing of this profile".to_owned();
            println!("{name}: {reason}");
            return Ok(Ended::NothingLeft(reason));
        }
    }
    println!("  {}", spec.again());
    let begin = Instant::now();
    Ok(match run::run(&spec, is_interrupted) {
        Ok(summary) => {
            println!("{}", summary.text());
            let took = begin.elapsed().as_secs();
            println!("  {took} s in all; report and timeline in {}", spec.out().display());
            Ended::Judged(Box::new(summary))
        }
        Err(error) => {
            println!("{name}: FAILED: {error}\n  again: {}", spec.again());
            Ended::Failed(error.to_string())
        }
    })
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
    let table = table(&ended);
    println!("\n{table}");
    std::fs::write(arguments.out.join("summary.md"), &table)?;
    Ok(ended.iter().all(|(_, ended)| ended.is_good()) && ended.len() == names.len())
}

/// Makes a run of every profile.
pub fn all(arguments: &Arguments, binary: &Path, is_interrupted: &Arc<AtomicBool>) -> Outcome<bool> {
    let names: Vec<(&str, Option<u32>)> = NAMES.iter().map(|name| (*name, None)).collect();
    many(&names, arguments, binary, is_interrupted)
}

/// Returns a table in Markdown.
pub fn table(ended: &[(String, Ended)]) -> String {
    let head = run::HEAD;
    let mut lines = vec![format!("| {} |", head.join(" | ")), format!("|{}", " --- |".repeat(head.len()))];
    for (name, ended) in ended {
        let row = match ended {
            Ended::Judged(summary) => summary.row(),
            Ended::Skipped(reason) | Ended::NothingLeft(reason) => {
                other_row(name, &format!("skipped: {reason}"))
            }
            Ended::Failed(error) => other_row(name, &format!("FAILED: {error}")),
        };
        lines.push(format!("| {} |", row.join(" | ")));
    }
    lines.join("\n") + "\n"
}

fn other_row(name: &str, what: &str) -> Vec<String> {
    let mut row = vec![String::new(); run::HEAD.len()];
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
