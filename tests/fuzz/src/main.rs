//! The fuzzer: looks for inputs that break the target that `FUZZ_TARGET` names.

#![no_main]

use std::process::exit;
use std::sync::LazyLock;

use shoal_fuzz::{Check, TARGETS};

static CHECK: LazyLock<Check> = LazyLock::new(|| {
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted).map(|(_, check)| *check);
    found.unwrap_or_else(|| {
        eprintln!("FUZZ_TARGET={wanted:?} names no target");
        exit(64)
    })
});

libfuzzer_sys::fuzz_target!(init: LazyLock::force(&CHECK), |data: &[u8]| CHECK(data));
