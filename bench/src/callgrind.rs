//! Runs this program under valgrind's callgrind, which counts instructions: the number is the same in every run,
//! whatever else the machine does.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anode_bench::micro::Work;
use anode_loadgen::Outcome;

/// Instructions of a run, in all and by the source file that they were compiled from.
pub struct Counted {
    /// Number of instructions inside the function that counts, or of the whole run.
    pub all: u64,
    /// Number of instructions by source file. Those of inlined functions count for the file of the inlined
    /// function, but those of the standard library for the file of the function that they are inlined into.
    pub by_file: BTreeMap<String, u64>,
}

/// Calls a piece of work `calls` times under callgrind.
pub fn count(work: &Work, calls: u64) -> Outcome<Counted> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("callgrind.out");
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--dump-line=yes", "--compress-strings=no", "--compress-pos=no"]);
    command.arg(format!("--callgrind-out-file={}", file.display()));
    if let Some(function) = work.counted {
        command.arg(format!("--toggle-collect={function}"));
    }
    command.arg(std::env::current_exe()?).args(["work", work.name, &calls.to_string()]);
    let run = command.output().map_err(|error| format!("starting valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&run.stderr);
    let found = text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    match found {
        Some(all) if run.status.success() => Ok(Counted { all, by_file: by_file(&file)? }),
        _ => Err(format!("valgrind of {}: {}\n{text}", work.name, run.status).into()),
    }
}

/// Adds up the lines of a callgrind file. A line that begins with a number tells the instructions of one line of
/// source; the one after `calls=` tells those of the called function, which are told again where that function is.
/// `fl` names the file of a function, `fi` and `fe` that of the lines that follow, which may be inlined.
fn by_file(path: &Path) -> Outcome<BTreeMap<String, u64>> {
    let (mut by_file, mut is_call) = (BTreeMap::new(), false);
    let (mut function_file, mut file) = (String::new(), String::new());
    for line in std::fs::read_to_string(path)?.lines() {
        if let Some(name) = line.strip_prefix("fl=") {
            name.clone_into(&mut function_file);
            name.clone_into(&mut file);
        } else if let Some(name) = line.strip_prefix("fi=").or_else(|| line.strip_prefix("fe=")) {
            let is_std = name.starts_with("/rustc/");
            if is_std { &function_file } else { name }.clone_into(&mut file);
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit())
            && let Some(cost) = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok())
            && !std::mem::take(&mut is_call)
        {
            *by_file.entry(file.clone()).or_insert(0) += cost;
        }
    }
    Ok(by_file)
}
