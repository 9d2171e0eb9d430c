//! One life of a program, from its start to its end: its output published, its complaints in the log.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::time::timeout;

use super::ExecPull;
use super::group::ProgramGroup;
use crate::extend::pull::definition::PullDefinition;
use crate::extend::pull::document::take_document;
use crate::extend::pull::feed::Feed;
use crate::extend::pull::lines::{CutLine, LineCutter};
use crate::extend::pull::mapped::Mapped;
use crate::extend::pull::pace::RecordPace;
use crate::extend::pull::template::Facts;

/// Bytes that are read from a program at a time.
const PROGRAM_READ_BYTES: usize = 16 * 1024;
/// Longest line of a program's complaints that is logged, in bytes.
const COMPLAINT_BYTES_MAX: usize = 1_024;
/// Lines of a program's complaints that are logged in a second.
const COMPLAINTS_PER_S: u64 = 10;
/// Time that a program has to end after it has closed its output.
const ENDING: Duration = Duration::from_secs(5);

/// Time for which the complaints of a program that has ended are read.
const LAST_COMPLAINTS: Duration = Duration::from_millis(50);

/// How a life of a program ended.
pub(super) struct ProgramEnd {
    /// The reason, for people.
    pub why: String,
    /// The program ended by itself and said that all went well.
    pub is_success: bool,
}

impl ProgramEnd {
    fn failed(why: String) -> ProgramEnd {
        ProgramEnd { why, is_success: false }
    }
}

/// Runs a program once, until it ends or says nothing for too long.
pub(super) async fn run_once(
    definition: &PullDefinition,
    settings: &ExecPull,
    folder: Option<&std::path::Path>,
    feed: &Feed,
) -> ProgramEnd {
    let started = settings.resolve(folder).and_then(|program| {
        let value = |(name, secret): &(String, super::PullSecret)| Ok((name.clone(), secret.value()?));
        let variables = settings.variables.iter().map(value).collect::<Result<Vec<_>, String>>()?;
        ProgramGroup::start(&program, &settings.arguments, &variables)
    });
    let (mut group, stdout, stderr) = match started {
        Ok(started) => started,
        Err(why) => return ProgramEnd::failed(why),
    };
    let mut logged = std::pin::pin!(log_complaints(stderr, &settings.program, feed));
    let read = tokio::select! {
        read = publish_output(stdout, definition, settings, feed) => read,
        () = &mut logged => Ok(()),
    };
    if let Err(why) = read {
        return ProgramEnd::failed(why);
    }
    let ended = tokio::select! {
        ended = timeout(ENDING, group.ended()) => ended,
        () = &mut logged => return ProgramEnd::failed("the program cannot be heard".into()),
    };
    // Its last complaints, which say why it ended.
    let _ = timeout(LAST_COMPLAINTS, logged).await;
    match ended {
        Ok((why, is_success)) => ProgramEnd { why, is_success },
        Err(_) => ProgramEnd::failed("the program closed its output and did not end".into()),
    }
}

/// Publishes the lines that a program prints, until it closes its output.
async fn publish_output(
    mut stdout: ChildStdout,
    definition: &PullDefinition,
    settings: &ExecPull,
    feed: &Feed,
) -> Result<(), String> {
    let mut cutter = LineCutter::new(definition.bytes_max);
    let mut bytes = vec![0; PROGRAM_READ_BYTES];
    loop {
        let count = read_some(&mut stdout, &mut bytes, settings.silence_us_max).await?;
        let mut mapped = Mapped::default();
        let facts = Facts::at(feed.target().now().wall_us);
        let mut take = |line: CutLine<'_>| match line {
            CutLine::TooLong => {
                mapped.fail(format!("a line of more than {} bytes (max_bytes)", definition.bytes_max))
            }
            CutLine::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => {}
            CutLine::Whole(line) => {
                take_document(&definition.mapping, definition.format, line, facts, &mut mapped);
            }
        };
        match count {
            0 => cutter.finish(&mut take),
            count => cutter.push(&bytes[..count], &mut take),
        }
        if mapped != Mapped::default() {
            // A program that prints faster than that waits for its pipe to be read.
            feed.publish(mapped).await;
        }
        if count == 0 {
            return Ok(());
        }
    }
}

async fn read_some(stdout: &mut ChildStdout, bytes: &mut [u8], silence_us_max: u64) -> Result<usize, String> {
    let read = stdout.read(bytes);
    let read = match silence_us_max {
        0 => read.await,
        us => timeout(Duration::from_micros(us), read)
            .await
            .map_err(|_| format!("the program printed nothing for {} ms (max_silence)", us / 1_000))?,
    };
    read.map_err(|error| format!("the output of the program cannot be read: {error}"))
}

/// Writes what a program complains of into the log, some lines a second. It never ends, since a program that closes
/// its complaints may go on.
async fn log_complaints(mut stderr: ChildStderr, program: &std::path::Path, feed: &Feed) {
    let mut pace = RecordPace::new(COMPLAINTS_PER_S, feed.target().now().mono_us);
    let mut cutter = LineCutter::new(COMPLAINT_BYTES_MAX);
    let mut bytes = vec![0; PROGRAM_READ_BYTES];
    let mut left_out = 0u64;
    while let Some(count) = read_all(&mut stderr, &mut bytes).await {
        cutter.push(&bytes[..count], |line| {
            if pace.take_if_free(feed.target().now().mono_us) {
                let text = match line {
                    CutLine::Whole(line) => String::from_utf8_lossy(line).into_owned(),
                    CutLine::TooLong => format!("a line of more than {COMPLAINT_BYTES_MAX} bytes"),
                };
                let program = program.display();
                tracing::warn!(%program, left_out = std::mem::take(&mut left_out), text, "a pull source complains");
            } else {
                left_out += 1;
            }
        });
    }
    std::future::pending::<()>().await;
}

async fn read_all(stderr: &mut (impl AsyncRead + Unpin), bytes: &mut [u8]) -> Option<usize> {
    stderr.read(bytes).await.ok().filter(|count| *count > 0)
}
