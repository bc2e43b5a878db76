//! Runs one target: replays its corpus, then tries inputs made of it, and keeps those that went a new way. Which targets run and for
//! how long is decided by the caller.

use crate::mutate::{Random, mutated};
use crate::{TARGETS, Target};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::{fs, io};

/// Most inputs in a pool.
const POOL_MAX: usize = 2_000;
/// Most attempts at making a failing input smaller.
const SHRINK_ATTEMPTS: usize = 3_000;

thread_local! {
    /// What the panic of a running attempt said.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// An input that breaks an oracle.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The input.
    pub input: Vec<u8>,
    /// What the panic said, and where.
    pub message: String,
}

/// One target with its pool of inputs.
pub struct Session {
    target: Target,
    pool: Vec<Vec<u8>>,
    ways: BTreeSet<String>,
    random: Random,
}

impl Session {
    /// Reads the corpus of the target of that name; `None` when there is no such target.
    ///
    /// # Errors
    /// When the folder of the corpus cannot be read.
    pub fn new(name: &str) -> Option<io::Result<Session>> {
        let (_, target) = TARGETS.iter().find(|(known, _)| *known == name)?;
        let session = |pool| Session { target: *target, pool, ways: BTreeSet::new(), random: Random::of(name) };
        Some(files(&corpus_folder().join(name)).map(session))
    }

    /// Inputs from which others are made.
    pub fn pool(&self) -> usize {
        self.pool.len()
    }

    /// The ways that inputs went so far.
    pub fn ways(&self) -> impl Iterator<Item = &str> {
        self.ways.iter().map(String::as_str)
    }

    /// Runs every file of the corpus.
    ///
    /// # Errors
    /// The first that breaks an oracle.
    pub fn replay(&mut self) -> Result<(), Failure> {
        for input in &self.pool {
            self.ways.insert(attempt(self.target, input)?);
        }
        Ok(())
    }

    /// Makes one input and runs it; answers it when it went a new way.
    ///
    /// # Errors
    /// The input, when it breaks an oracle.
    pub fn step(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let input = mutated(&self.pool, &mut self.random);
        if !self.ways.insert(attempt(self.target, &input)?) {
            return Ok(None);
        }
        if self.pool.len() < POOL_MAX {
            self.pool.push(input.clone());
        }
        Ok(Some(input))
    }

    /// Runs one input.
    ///
    /// # Errors
    /// The input, when it breaks an oracle.
    pub fn one(&mut self, input: &[u8]) -> Result<(), Failure> {
        self.ways.insert(attempt(self.target, input)?);
        Ok(())
    }
}

/// Where the corpus is.
pub fn corpus_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// Writes an input to a file below `folder` that has its name from the content; answers the file.
///
/// # Errors
/// When it cannot be written.
pub fn keep(folder: &Path, input: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let name = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let path = folder.join(format!("{name:016x}"));
    fs::write(&path, input)?;
    Ok(path)
}

/// A smaller input that fails at the same place, as far as taking pieces away gets.
pub fn shrink(name: &str, failure: Failure) -> Failure {
    let Some((_, target)) = TARGETS.iter().find(|(known, _)| *known == name) else { return failure };
    let place = |message: &str| message.rsplit_once(" at ").map(|(_, place)| place.to_owned());
    let (mut least, mut attempts) = (failure, 0);
    let mut length = least.input.len();
    while length > 0 && attempts < SHRINK_ATTEMPTS {
        let (mut at, mut smaller) = (0, false);
        while at < least.input.len() && attempts < SHRINK_ATTEMPTS {
            let mut input = least.input.clone();
            input.drain(at..(at + length).min(input.len()));
            attempts += 1;
            match attempt(*target, &input) {
                Err(failure) if place(&failure.message) == place(&least.message) => (least, smaller) = (failure, true),
                _ => at += length,
            }
        }
        if !smaller {
            length /= 2;
        }
    }
    least
}

fn files(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    paths.into_iter().map(fs::read).collect()
}

/// Runs a target on an input; what its panic says becomes the message of the failure.
fn attempt(target: Target, input: &[u8]) -> Result<String, Failure> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let said = info.payload_as_str().unwrap_or("a panic without words");
            let ours = SAID.with_borrow_mut(|slot| slot.as_mut().map(|slot| *slot = format!("{said} at {place}")).is_some());
            if !ours {
                usual(info);
            }
        }));
    });
    SAID.set(Some(String::new()));
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| target(input)));
    let message = SAID.take().unwrap_or_default();
    outcome.map_err(|_| Failure { input: input.to_vec(), message })
}
