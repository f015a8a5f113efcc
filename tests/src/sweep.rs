//! Removing a lab: at its end, or, for a run that was killed, at the start of the next.
//!
//! A lab's namespaces, its control groups, and its directory, below which its disks are mounted, begin with
//! `shoal-<pid>-<count>-`, so whose they are can be told from the name alone: when no process has that pid any more,
//! nobody will clean up. (A pid taken over by an unrelated process only delays that.) Several runs may sweep the same
//! leftovers at once, so a thing already gone is no error, and failures are left to the next sweep.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup;

const PREFIX: &str = "shoal-";
const NETNS_DIR: &str = "/run/netns";
/// How long killed processes may take to leave a namespace.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

/// The name of a lab's things: namespaces are named `<id>-<host>`, the directory `<id>-<name>`.
pub(crate) fn lab_id(pid: u32, count: u32) -> String {
    format!("{PREFIX}{pid}-{count}")
}

/// The directory that holds the labs' directories.
pub(crate) fn labs_dir() -> PathBuf {
    std::env::temp_dir()
}

/// Removes whatever labs of dead processes left behind.
pub fn sweep() {
    for name in names_in(&labs_dir()) {
        if is_leftover(&name) {
            unmount(&labs_dir().join(name));
        }
    }
    for namespace in names_in(Path::new(NETNS_DIR)) {
        if is_leftover(&namespace) {
            remove_namespace(&namespace);
        }
    }
    cgroup::remove(is_leftover);
    for name in names_in(&labs_dir()) {
        if is_leftover(&name) {
            remove_dir(&labs_dir().join(name));
        }
    }
}

/// Removes one lab: its disks, processes, namespaces and directory.
pub(crate) fn remove(id: &str, dir: &Path) {
    unmount(dir);
    let own = format!("{id}-");
    for namespace in names_in(Path::new(NETNS_DIR)) {
        if namespace.starts_with(&own) {
            remove_namespace(&namespace);
        }
    }
    cgroup::remove(|name| name.starts_with(&own));
    remove_dir(dir);
}

fn is_leftover(name: &str) -> bool {
    owner(name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// The pid in the name of a lab's thing.
fn owner(name: &str) -> Option<u32> {
    let (pid, rest) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let (count, _) = rest.split_once('-')?;
    count.parse::<u32>().ok()?;
    pid.parse().ok()
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|it| it.file_name().into_string().ok()).collect()
}

/// Gives up the disks that are mounted below a directory. One that does not answer is made to first: whoever waits for
/// it could not be killed.
fn unmount(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    // Those within others were mounted later.
    for place in places.filter(|it| Path::new(it).starts_with(dir)).collect::<Vec<_>>().into_iter().rev() {
        let _not_frozen = output_of("fsfreeze", &["--unfreeze", place]);
        let _already_gone = output_of("umount", &["--lazy", place]);
    }
}

fn remove_namespace(namespace: &str) {
    let deadline = Instant::now() + LEAVE_WITHIN;
    // Each look takes a few milliseconds, so that this loop needs no pause of its own.
    while Instant::now() < deadline {
        let pids = pids_in(namespace);
        if pids.is_empty() {
            break;
        }
        for pid in pids {
            let _already_gone = kill(pid, Signal::SIGKILL);
        }
    }
    let _already_gone = output_of("ip", &["netns", "del", namespace]);
}

fn pids_in(namespace: &str) -> Vec<Pid> {
    let listing = output_of("ip", &["netns", "pids", namespace]).unwrap_or_default();
    let pids = listing.lines().filter_map(|line| line.trim().parse().ok());
    pids.map(Pid::from_raw).collect()
}

fn output_of(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn remove_dir(dir: &Path) {
    let _left_to_the_next_sweep = std::fs::remove_dir_all(dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_labs_have_an_owner() {
        assert_eq!(owner(&format!("{}-node1", lab_id(17, 3))), Some(17));
        for other in ["shoal-17", "shoal-x-1-hub", "shoal-17-x-hub", "shoal-17-3", "other-17-3-hub", ""] {
            assert_eq!(owner(other), None, "{other}");
        }
    }

    #[test]
    fn a_living_owner_keeps_its_things() {
        assert!(!is_leftover(&format!("{}-hub", lab_id(std::process::id(), 0))));
        // Pids stop at 2^22 on Linux.
        assert!(is_leftover(&format!("{}-hub", lab_id(u32::MAX, 0))));
    }
}
