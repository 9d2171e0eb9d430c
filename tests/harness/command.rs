//! Runs the binary as a user does: either to its end, or in the background.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::wait::{self, Deadline, PATIENCE};

/// The result of a finished command.
#[derive(Debug)]
pub struct Output {
    /// Exit code; `None` if a signal ended the process.
    pub code: Option<i32>,
    /// Everything that it wrote to standard output.
    pub stdout: String,
    /// Everything that it wrote to standard error.
    pub stderr: String,
}

/// A command for the binary, with an environment that sets none of its options.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anode"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ANODE_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG");
    command
}

/// Runs `anode` with `args` to its end.
pub fn anode(args: &[&str]) -> Output {
    run(binary().args(args), "")
}

/// Runs `command` to its end with `input` on its standard input. Fails if it takes longer than three times
/// [`PATIENCE`].
pub fn run(command: &mut Command, input: &str) -> Output {
    let mut running = Background::start(command);
    running.write(input);
    running.close_input();
    let code = running.wait(PATIENCE * 3);
    Output { code, stdout: running.stdout(), stderr: running.stderr() }
}

/// A process that runs beside the test. It is killed when this value is dropped.
pub struct Background {
    child: Child,
    lines: Mutex<Receiver<String>>,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Background {
    /// Starts a command, and keeps what it prints.
    pub fn start(command: &mut Command) -> Background {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("{command:?} does not start: {error}"),
        };
        let (sender, lines) = channel();
        let (stdout, stderr) = (Arc::<Mutex<String>>::default(), Arc::<Mutex<String>>::default());
        let mut readers = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            readers.push(collect(pipe, stdout.clone(), move |line| drop(sender.send(line))));
        }
        if let Some(pipe) = child.stderr.take() {
            readers.push(collect(pipe, stderr.clone(), |_| ()));
        }
        Background { child, lines: Mutex::new(lines), stdout, stderr, readers }
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the next line of standard output, or `None` at its end. Fails if there is none within
    /// `within`.
    pub fn line(&mut self, within: Duration) -> Option<String> {
        let lines = self.lines.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        match lines.recv_timeout(within) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line within {within:?}; stderr:\n{}", self.stderr()),
        }
    }

    /// Writes `text` to the process's standard input.
    pub fn write(&mut self, text: &str) {
        if let Some(stdin) = &mut self.child.stdin {
            // A process that has ended already does not read. Its exit code will tell the test.
            let _ = stdin.write_all(text.as_bytes());
        }
    }

    /// Closes the process's standard input.
    pub fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Sends a signal, given by name: `TERM`, `INT`, `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -{name} {} failed", self.pid());
    }

    /// Kills the process with SIGKILL and waits until it has ended.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Returns whether the process has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until the process ends. Returns its exit code, or `None` if a signal ended it.
    pub fn wait(&mut self, within: Duration) -> Option<i32> {
        let deadline = Deadline::after(within);
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                _ if deadline.left().is_none() => {
                    panic!("still running after {within:?}; stderr:\n{}", self.stderr())
                }
                _ => wait::pause(),
            }
        };
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        status.code()
    }

    /// Returns what the process has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.lock().map(|text| text.clone()).unwrap_or_default()
    }

    /// Returns what the process has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().map(|text| text.clone()).unwrap_or_default()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.kill();
    }
}

fn collect(
    pipe: impl Read + Send + 'static,
    into: Arc<Mutex<String>>,
    each: impl Fn(String) + Send + 'static,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).into_owned();
            if let Ok(mut into) = into.lock() {
                into.push_str(&text);
            }
            each(text.trim_end_matches(['\r', '\n']).to_owned());
            line.clear();
        }
    })
}
