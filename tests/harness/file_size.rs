//! A limit on the size of files, by which the writes of a running node fail as they do on a full disk. It needs neither rights
//! nor a disk of its own.

use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

/// Returns a command that ignores the signal which a write beyond the limit causes, and which would end the process. The
/// write fails all the same.
pub fn without_signal(command: &Command) -> Command {
    let mut wrapped = Command::new("sh");
    wrapped.args(["-c", "trap '' XFSZ && exec \"$0\" \"$@\""]);
    wrapped.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

/// Lets every write of a process to a file fail from now on, or work again.
pub fn set_writable(pid: u32, is_writable: bool) {
    let most = getrlimit(Resource::Fsize).maximum;
    let limit = Rlimit { current: if is_writable { most } else { Some(0) }, maximum: most };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let set = pid.map(|pid| prlimit(Some(pid), Resource::Fsize, limit));
    assert!(matches!(set, Some(Ok(_))), "the limit of {pid:?} cannot be set: {set:?}");
}
