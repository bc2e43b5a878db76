//! Keeping reports, without HTTP and without reading them: appends by many writers at one time, and the way of segments from the log to
//! the archive. Prints what a report takes of the CPU by thread and of the time. With words it does one work so often, for
//! `bench/guard.py` to count its instructions:
//!
//!     keeping guard append TIMES     appends reports
//!     keeping guard archive TIMES    appends them and moves their segment to the archive

#![allow(clippy::print_stdout)]

use model::{Attributes, NewReport, ProjectId, ReportId, Stamp, Value};
use reports::{Clock, Reading, RealDisk, Reports, Settings};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// That of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Reports that are appended at one time.
const WRITERS: usize = 64;
const REPORTS: u64 = 200_000;
/// Reports of a guarded work.
const GUARDED: u64 = 4_096;
/// How often it is done at most.
const TIMES: u64 = 2;
/// Frames of a report's stack.
const FRAMES: usize = 18;
/// Waiting for the archive is given up after this long.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let folder = tempfile::tempdir().expect("a folder");
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["guard", work, times] => {
            // As many are made whatever the times, so that making them is in no difference.
            let prepared: Vec<NewReport> = (0..GUARDED * TIMES).map(sample).collect();
            let count = GUARDED as usize * times.parse::<usize>().expect("how often");
            append(folder.path(), prepared.into_iter().take(count), count as u64);
            match *work {
                "append" => {}
                "archive" => archive(folder.path(), count as u64),
                _ => panic!("no such work: {work}"),
            }
        }
        [] => {
            let began = Instant::now();
            append(folder.path(), (0..REPORTS).map(sample), REPORTS);
            let appended = began.elapsed();
            archive(folder.path(), REPORTS);
            let sizes = std::fs::read_dir(folder.path().join("parquet/1")).expect("there are files");
            let bytes: u64 = sizes.map(|file| file.expect("listed").metadata().expect("there").len()).sum();
            println!("append, {WRITERS} writers: {:.2} us a report", appended.as_secs_f64() * 1e6 / REPORTS as f64);
            println!("archive: {:.1} bytes a report", bytes as f64 / REPORTS as f64);
        }
        other => panic!("unknown words: {other:?}"),
    }
}

/// The system's, read by the standard library: valgrind does not know the program's way.
struct BenchClock(Instant);

impl Clock for BenchClock {
    fn read(&self) -> Reading {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        Reading { wall: Stamp::from_micros(wall.as_micros() as u64), boot_micros: self.0.elapsed().as_micros() as u64 }
    }
}

fn open(folder: &Path, segment_bytes: u64) -> Arc<Reports> {
    let settings = Settings { segment_bytes, ..Settings::default() };
    let (reports, _) =
        Reports::open(folder, Arc::new(RealDisk), Arc::new(BenchClock(Instant::now())), Stamp::ZERO, settings).expect("opens");
    Arc::new(reports)
}

/// Appends reports, many at one time.
fn append(folder: &Path, mut samples: impl Iterator<Item = NewReport>, count: u64) {
    let reports = open(folder, Settings::default().segment_bytes);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let cpu = threads();
    runtime.block_on(async {
        loop {
            let group: Vec<_> = samples.by_ref().take(WRITERS).map(|sample| tokio::spawn(one(reports.clone(), sample))).collect();
            if group.is_empty() {
                break;
            }
            for one in group {
                one.await.expect("no panic");
            }
        }
    });
    told("append", &cpu, count);
}

async fn one(reports: Arc<Reports>, sample: NewReport) {
    reports.append(ProjectId(1), sample).await.expect("kept");
}

/// Moves all that is in the log to the archive.
fn archive(folder: &Path, count: u64) {
    // A store whose segments are full at once closes the last one too.
    let reports = open(folder, 1);
    let cpu = threads();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for _ in 0..2 {
        reports.pin(runtime.block_on(reports.tick()).expect("ticks").plus_micros(1));
    }
    let began = Instant::now();
    while logs(folder) > 1 {
        assert!(began.elapsed() < PATIENCE, "the archive does not take the log");
        std::thread::sleep(Duration::from_millis(20));
    }
    told("archive", &cpu, count);
}

/// Segments that are still in the log.
fn logs(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder.join("log")).expect("listed").map(|file| file.expect("listed").path());
    names.filter(|name| name.extension().is_some_and(|extension| extension == "log")).count()
}

/// Threads of this process with the nanoseconds of CPU that each has taken; none where the system does not tell.
fn threads() -> Vec<(String, u64)> {
    let all = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let one = |folder: std::path::PathBuf| {
        let name = std::fs::read_to_string(folder.join("comm")).ok()?;
        let took = std::fs::read_to_string(folder.join("schedstat")).ok()?;
        Some((name.trim().to_owned(), took.split(' ').next()?.parse().ok()?))
    };
    all.filter_map(|thread| one(thread.path())).collect()
}

/// Prints what threads have taken since.
fn told(what: &str, before: &[(String, u64)], count: u64) {
    for (name, took) in threads() {
        let had = before.iter().find(|(other, _)| *other == name).map_or(0, |(_, took)| *took);
        println!("{what}: {:.2} us of CPU a report in {name}", (took - had) as f64 / 1e3 / count as f64);
    }
}

/// A report as `ingest` makes it of what an SDK sends (2.5 KB): one of a few stacks, a user, a host, numbers.
fn sample(number: u64) -> NewReport {
    let stack = number % 7;
    let frames = |frame: &dyn Fn(usize) -> String| (0..FRAMES).map(frame).collect::<Vec<_>>().join(",");
    let sent =
        frames(&|n| format!(r#"{{"funcName":"module.function{n}","library":"/srv/game/bin/file{n}.js","line":{stack},"column":7}}"#));
    let names = frames(&|n| format!(r#""module.function{n}:{stack}""#));
    let functions = frames(&|n| format!(r#""module.function{n}""#));
    let files = frames(&|n| format!(r#""/srv/game/bin/file{n}.js""#));
    let (version, host, guid) = (format!("1.2.{}", number % 9), format!("pc-{}", number % 700), format!("{:032x}", mixed(number) % 50_000));
    let id = u128::from(mixed(number)) << 64 | u128::from(number);
    let (age, size) = (mixed(number) % 9_999, number * 4_096);
    let raw = format!(
        r#"{{"uuid":"{id:032x}","timestamp":1764000000,"lang":"nodejs","langVersion":"v20","agent":"bench","mainThread":"main",
"threads":{{"main":{{"fault":true,"stack":[{sent}]}}}},"classifiers":["TypeError"],"attributes":{{"application":"shooter",
"application.version":"{version}","guid":"{guid}","error.type":"Exception","error.message":"no such level","hostname":"{host}",
"process.age":{age},"vm.rss.size":{size},"uname.sysname":"Linux","cpu.count":8,"beta":false}},
"annotations":{{"Environment Variables":{{"LANG":"C.UTF-8","HOME":"/srv/game"}}}}}}"#,
    );
    let text = |text: &str| Value::Text(text.to_owned());
    let attributes = [
        ("application", text("shooter")),
        ("application.version", Value::Text(version)),
        ("backtrace.agent", text("bench")),
        ("beta", Value::Bool(false)),
        ("callstack", Value::Text(format!(r#"{{"frame":[{names}]}}"#))),
        ("callstack.files", Value::Text(format!(r#"{{"frame":[{files}]}}"#))),
        ("callstack.functions", Value::Text(format!(r#"{{"frame":[{functions}]}}"#))),
        ("classifiers", text("TypeError")),
        ("cpu.count", Value::Int(8)),
        ("error.message", text("no such level")),
        ("error.type", text("Exception")),
        ("fingerprint", Value::Text(format!("{stack:064x}"))),
        ("guid", Value::Text(guid)),
        ("hostname", Value::Text(host)),
        ("lang.name", text("nodejs")),
        ("lang.version", text("v20")),
        ("object.size", Value::Int(raw.len() as i64)),
        ("process.age", Value::Int(age as i64)),
        ("timestamp", Value::Int(1_764_000_000)),
        ("uname.sysname", text("Linux")),
        ("vm.rss.size", Value::Int(size as i64)),
    ];
    NewReport {
        id: Some(ReportId(id.to_be_bytes())),
        attributes: Attributes::from_pairs(attributes.map(|(name, value)| (name.to_owned(), value))),
        raw: raw.into_bytes(),
        attachments: Vec::new(),
    }
}

/// The n-th of numbers that look drawn by chance.
fn mixed(n: u64) -> u64 {
    let mixed = (n ^ n >> 30).wrapping_add(1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) >> 8
}
