//! `make fuzz`: runs targets for a time, or one target over given files. It is not what `cargo test` runs; that is `tests/replay.rs`.

#![forbid(unsafe_code)]

use fuzz::{Failure, Session, TARGETS, keep, shrink};
use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str = "fuzz --seconds N [TARGET|all]: each target for N seconds\nfuzz --replay TARGET FILE...: the target over the files";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&error.to_string());
            ExitCode::from(2)
        }
    }
}

/// Whether no oracle was broken.
fn run(arguments: &[&str]) -> Result<bool, Box<dyn Error>> {
    match arguments {
        ["--seconds", seconds, rest @ ..] if rest.len() <= 1 => {
            let time = Duration::from_secs(seconds.parse()?);
            let wanted = rest.first().copied().unwrap_or("all");
            let mut names = TARGETS.iter().map(|(name, _)| *name).filter(|name| wanted == "all" || *name == wanted).peekable();
            if names.peek().is_none() {
                return Err(no_target(wanted));
            }
            let mut sound = true;
            for name in names {
                sound &= fuzz(name, time)?;
            }
            Ok(sound)
        }
        ["--replay", name, files @ ..] if !files.is_empty() => {
            let mut session = Session::new(name).ok_or_else(|| no_target(name))??;
            let mut sound = true;
            for file in files {
                match session.one(&std::fs::read(file)?) {
                    Ok(()) => say(&format!("{file}: sound")),
                    Err(failure) => {
                        say(&format!("{file}: {}", failure.message));
                        sound = false;
                    }
                }
            }
            Ok(sound)
        }
        _ => Err(USAGE.into()),
    }
}

/// Runs one target for a time, or until an oracle breaks.
fn fuzz(name: &str, time: Duration) -> Result<bool, Box<dyn Error>> {
    let mut session = Session::new(name).ok_or_else(|| no_target(name))??;
    let begin = Instant::now();
    let (mut runs, mut slowest) = (0u64, (Duration::ZERO, 0u64));
    let mut failure = session.replay().err();
    let given = session.ways().count();
    while failure.is_none() && begin.elapsed() < time {
        let before = Instant::now();
        match session.step() {
            Ok(Some(input)) => drop(keep(&folder()?.join(name).join("kept"), &input)?),
            Ok(None) => {}
            Err(found) => failure = Some(found),
        }
        runs += 1;
        slowest = slowest.max((before.elapsed(), runs));
    }
    let rate = runs as f64 / begin.elapsed().as_secs_f64().max(1e-9);
    let new = session.ways().count() - given;
    say(&format!("{name}: {runs} runs, {rate:.0}/s, slowest {:.1} ms, {given} ways known, {new} new", slowest.0.as_secs_f64() * 1e3));
    match failure {
        None => Ok(true),
        Some(failure) => {
            report(name, shrink(name, failure))?;
            Ok(false)
        }
    }
}

fn report(name: &str, failure: Failure) -> Result<(), Box<dyn Error>> {
    let path = keep(&folder()?.join(name), &failure.input)?;
    say(&format!("{name}: {}\n  cargo run --release -p fuzz -- --replay {name} {}", failure.message, path.display()));
    Ok(())
}

/// Where inputs are written: `tmp/fuzz` of the target folder, as the replay test does.
fn folder() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).unwrap_or(&program);
    Ok(target.join("tmp/fuzz"))
}

fn no_target(name: &str) -> Box<dyn Error> {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    format!("there is no target {name}; there are {}", names.join(", ")).into()
}

fn say(text: &str) {
    // Whoever has stopped listening misses nothing that is not also in the exit code.
    let _said = writeln!(io::stdout(), "{text}");
}
