//! Every input of the corpus passes, and every target has some.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use shoal_fuzz::TARGETS;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries.map(|it| it.expect("an entry").path()).collect()
}

#[test]
fn every_input_of_the_corpus_passes() {
    for (target, check) in TARGETS {
        let inputs = entries(&root().join("corpus").join(target));
        assert!(inputs.len() > 2, "{target} has {} examples", inputs.len());
        for input in inputs {
            // Shown where the input fails.
            println!("{}", input.display());
            check(&fs::read(&input).unwrap());
        }
    }
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
    assert_eq!(targets.len(), TARGETS.len());
    let corpora = entries(&root().join("corpus"));
    let corpora = corpora.iter().filter_map(|it| it.file_name()).map(|it| it.to_string_lossy().into_owned());
    assert_eq!(corpora.collect::<BTreeSet<_>>(), targets);
}

#[test]
fn inputs_are_short_enough_to_be_read_whole() {
    for (target, _) in TARGETS {
        for input in entries(&root().join("corpus").join(target)) {
            let len = fs::metadata(&input).unwrap().len();
            assert!(len <= 4096, "{}: {len} bytes, of which the fuzzers read 4096", input.display());
        }
    }
}
