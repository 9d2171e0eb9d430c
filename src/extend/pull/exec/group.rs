//! A program with all that it has started, which ends as a whole.

use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

/// Variables of the node's environment that programs are given. All others may be secrets.
const GIVEN_VARIABLES: &[&str] = &["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// A running program in a process group of its own. The whole group is killed when this is dropped.
pub(super) struct ProgramGroup {
    child: Child,
    group: Option<Pid>,
}

impl ProgramGroup {
    /// Starts a program. Returns it with its outputs.
    pub fn start(
        program: &Path,
        arguments: &[String],
        variables: &[(String, String)],
    ) -> Result<(ProgramGroup, ChildStdout, ChildStderr), String> {
        let given = GIVEN_VARIABLES.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
        let spawned = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(given)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = spawned.map_err(|error| format!("{}: {error}", program.display()))?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let outputs = child.stdout.take().zip(child.stderr.take());
        let (stdout, stderr) = outputs.ok_or("the program has no output")?;
        Ok((ProgramGroup { child, group }, stdout, stderr))
    }

    /// Waits until the program has ended, and kills what it has left behind. Returns how it ended, for people, and
    /// whether that was a success.
    pub async fn ended(&mut self) -> (String, bool) {
        let status = self.child.wait().await;
        self.kill();
        match status {
            Ok(status) => (format!("the program ended: {status}"), status.success()),
            Err(error) => (format!("the program cannot be waited for: {error}"), false),
        }
    }

    /// Kills the program and all that it has started.
    pub fn kill(&mut self) {
        if let Some(group) = self.group.take() {
            // The group may be gone already.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for ProgramGroup {
    fn drop(&mut self) {
        self.kill();
    }
}
