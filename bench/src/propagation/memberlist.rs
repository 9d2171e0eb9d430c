//! Measures hashicorp/memberlist, driven by a Go program in `bench/peers/memberlist`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anode_loadgen::Outcome;

use super::measures::Measures;
use super::{IDLE_SECONDS, Plan};

/// The driver, built and ready to run.
pub struct Memberlist {
    binary: PathBuf,
    /// The version of memberlist.
    pub version: String,
}

impl Memberlist {
    /// Builds the driver into `target/`. Fails with the reason if it cannot be built, for example without Go.
    pub fn build() -> Result<Memberlist, String> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/memberlist");
        let binary =
            std::env::current_dir().map_err(|error| error.to_string())?.join("target/bench-memberlist");
        let go = |arguments: &[&str]| -> Result<String, String> {
            let run = Command::new("go")
                .args(arguments)
                .current_dir(&source)
                .output()
                .map_err(|error| format!("starting go: {error}"))?;
            match run.status.success() {
                true => Ok(String::from_utf8_lossy(&run.stdout).trim().to_owned()),
                false => Err(format!(
                    "go {}: {}",
                    arguments.join(" "),
                    String::from_utf8_lossy(&run.stderr).trim()
                )),
            }
        };
        go(&["build", "-o", &binary.to_string_lossy(), "."])?;
        let version = go(&["list", "-m", "-f", "{{.Version}}", "github.com/hashicorp/memberlist"])?;
        Ok(Memberlist { binary, version: format!("{version}, {}", go(&["env", "GOVERSION"])?) })
    }

    /// Makes one run. All nodes are in one process; everything else is as with aNode.
    pub fn measure(&self, plan: &Plan, nodes: usize, seed: u64) -> Outcome<Measures> {
        self.run(nodes, plan.rate_per_s, plan.seconds, plan.payload_bytes, seed)
    }

    /// Makes one run at a rate (records per second) for `seconds` seconds.
    pub fn run(
        &self,
        nodes: usize,
        per_s: u32,
        seconds: u32,
        payload: usize,
        seed: u64,
    ) -> Outcome<Measures> {
        let run = Command::new(&self.binary)
            .args(["-nodes", &nodes.to_string()])
            .args(["-rate", &per_s.to_string()])
            .args(["-seconds", &seconds.to_string()])
            .args(["-payload", &payload.to_string()])
            .args(["-seed", &seed.to_string()])
            .args(["-idle-seconds", &IDLE_SECONDS.to_string()])
            .stderr(Stdio::inherit())
            .output()?;
        let text = String::from_utf8_lossy(&run.stdout);
        match text.lines().last() {
            Some(line) if run.status.success() => Ok(serde_json::from_str(line)?),
            _ => Err(format!("the memberlist driver failed: {}", run.status).into()),
        }
    }
}
