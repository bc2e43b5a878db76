//! Every target over its corpus and a few thousand inputs made of it, always the same ones. Longer runs are `make fuzz`.

use fuzz::{Failure, Session, TARGETS, corpus_folder, keep, shrink};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::{fs, thread};

/// Inputs made for each target.
const RUNS: usize = 2_000;
/// Largest file of the corpus, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 10;

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let mut folders = BTreeSet::new();
    for entry in fs::read_dir(corpus_folder()).expect("the corpus") {
        let folder = entry.expect("an entry").path();
        folders.insert(folder.file_name().expect("a name").to_string_lossy().into_owned());
        let mut files = 0;
        for entry in fs::read_dir(&folder).expect("only folders are in the corpus") {
            let entry = entry.expect("an entry");
            let bytes = entry.metadata().expect("a file").len();
            assert!(bytes <= FILE_BYTES_MAX, "{} has {bytes} bytes; a seed is small", entry.path().display());
            files += 1;
        }
        assert!(files > 0, "{} is empty", folder.display());
    }
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(folders, targets, "folders of the corpus, and targets");
}

#[test]
fn no_oracle_breaks_on_the_corpus_nor_on_what_is_made_of_it() {
    let queue = Mutex::new(TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    let broken = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // The queue is locked only while a name is taken.
                while let Some(name) = { queue.lock().expect("no panic while locked").pop() } {
                    if let Err(failure) = try_all(name) {
                        broken.lock().expect("no panic while locked").push(told(name, failure));
                    }
                }
            });
        }
    });
    let broken = broken.into_inner().expect("no panic while locked");
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

fn try_all(name: &str) -> Result<(), Failure> {
    let mut session = Session::new(name).expect("a target").expect("its corpus");
    session.replay()?;
    for _ in 0..RUNS {
        session.step()?;
    }
    Ok(())
}

/// The failing input as a file, and how to run it again.
fn told(name: &str, failure: Failure) -> String {
    let failure = shrink(name, failure);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz").join(name);
    let path = keep(&folder, &failure.input).expect("the folder for temporary files");
    format!("{name}: {}\n  cargo run --release -p fuzz -- --replay {name} {}", failure.message, path.display())
}
