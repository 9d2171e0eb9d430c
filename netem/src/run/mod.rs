//! One run of a profile: makes the world, starts the nodes and the clients, lets the faults happen, waits until the
//! cluster has settled, and judges.

mod beside;
mod cluster;
mod drive;
mod settle;
mod spec;
mod summary;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use anode_loadgen::Outcome;

use crate::checker::{Checker, Report};
use crate::compose::Services;
use crate::load::recorder::Recorder;
use crate::processor::CHECKER;
use crate::testbed::Testbed;

pub use beside::run_beside;
pub use cluster::Cluster;
pub use spec::Spec;
pub use summary::{Broken, HEAD, Summary};

/// Makes a run. `is_interrupted` is raised by signals; then the run ends early, and fails. Everything that the run has
/// made is removed, however it ends.
pub fn run(spec: &Spec, is_interrupted: &Arc<AtomicBool>) -> Outcome<Summary> {
    let out = spec.out();
    std::fs::create_dir_all(&out)?;
    let (recorder, observations) = Recorder::new();
    let settings = spec.settings();
    let checker = std::thread::Builder::new().name(CHECKER.to_owned()).spawn(move || {
        let mut checker = Checker::new(settings);
        for observation in observations {
            checker.observe(observation);
        }
        checker.judge()
    })?;
    let done = drive_and_settle(spec, recorder, is_interrupted);
    // All recorders are gone, so the checker has seen everything and judges.
    let report: Report = checker.join().map_err(|_| "the checker panicked")?;
    let (broken, measured) = done?;
    let summary = Summary::new(spec, report, broken, measured);
    summary.write(&out)?;
    Ok(summary)
}

fn drive_and_settle(
    spec: &Spec,
    recorder: Recorder,
    is_interrupted: &Arc<AtomicBool>,
) -> Outcome<(Vec<Broken>, summary::Measured)> {
    let (mut testbed, left_out): (Box<dyn Testbed>, Vec<String>) = match spec.mapping() {
        None => (Box::new(Cluster::new(spec)?), Vec::new()),
        Some((setup, mapping)) => {
            let services = Services::up(setup, &mapping, spec.seconds as f64, is_interrupted)?;
            (Box::new(services), mapping.left_out)
        }
    };
    println!("  {}", testbed.how());
    let done = drive::drive(spec, &mut *testbed, &recorder, is_interrupted)
        .and_then(|driven| settle::settle(spec, &mut *testbed, &recorder, is_interrupted, driven));
    // The logs say why, also if the run failed.
    testbed.keep_logs(&spec.out())?;
    if is_interrupted.load(Relaxed) {
        return Err("interrupted".into());
    }
    let (broken, mut measured) = done?;
    measured.notes.extend(left_out.iter().map(|what| format!("not applied: {what}")));
    Ok((broken, measured))
}
