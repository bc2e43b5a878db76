//! The path of a report, part by part, each beside a peer in the same run: reading beside `serde_json::Value`, durable appends
//! beside writing and syncing the same bytes with nothing around it. `make bench` prints ratios (our cost / the peer's).

use ingest::{Format, Limits, Submission, parse};
use model::{NewReport, ProjectId, ReportId, Stamp};
use reports::{RealDisk, Reports, Settings, SystemClock};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Runs of each row; the median counts, the spread is shown.
const RUNS: usize = 5;
/// Writers that append at one time.
const WRITERS: u64 = 64;
const REPORTS: u64 = 20_000;

fn main() {
    let body = sample(1);
    row(
        "read one report",
        "serde_json::Value",
        "us",
        |_| per_report(|| drop(read(&body))),
        |_| per_report(|| drop(serde_json::from_slice::<serde_json::Value>(&body))),
    );
    let folder = tempfile::tempdir().expect("a folder");
    row(
        "append durably, 64 writers",
        "write and fdatasync of as many bytes a commit",
        "us a report",
        |run| append(&folder.path().join(format!("ours{run}"))),
        |run| bare(&folder.path().join(format!("bare{run}"))),
    );
}

/// A report of the size that SDKs send (2.5 KB).
fn sample(number: u64) -> Vec<u8> {
    let frames: Vec<String> = (0..18)
        .map(|n| format!(r#"{{"funcName":"module.function{n}","library":"/srv/game/bin/file{n}.js","line":{n},"column":7}}"#))
        .collect();
    format!(
        r#"{{"uuid":"{number:032x}","timestamp":1764000000,"lang":"nodejs","langVersion":"v20","agent":"bench","mainThread":"main",
"threads":{{"main":{{"fault":true,"stack":[{}]}}}},"classifiers":["TypeError"],"attributes":{{"application":"shooter","application.version":"1.2.{}",
"guid":"{:032x}","error.type":"Exception","error.message":"no such level","hostname":"pc-{}","process.age":{},"vm.rss.size":{},"uname.sysname":"Linux","cpu.count":8,"beta":false}},
"annotations":{{"Environment Variables":{{"LANG":"C.UTF-8","HOME":"/srv/game"}}}}}}"#,
        frames.join(","),
        number % 9,
        number % 5_000,
        number % 700,
        number % 9_999,
        number * 4_096,
    )
    .into_bytes()
}

fn read(body: &[u8]) -> NewReport {
    let submission = Submission { format: Format::Json, content_type: None, query: &[], body };
    parse(&submission, &Limits::DEFAULT).expect("a good report").report
}

fn per_report(mut work: impl FnMut()) -> f64 {
    let began = Instant::now();
    for _ in 0..REPORTS {
        work();
    }
    began.elapsed().as_secs_f64() * 1e6 / REPORTS as f64
}

/// The commits that the last run of `append` needed, so that the peer syncs as often.
static COMMITS: AtomicU64 = AtomicU64::new(1);
static BYTES: AtomicU64 = AtomicU64::new(1);

fn append(folder: &std::path::Path) -> f64 {
    let (reports, _) = Reports::open(folder, Arc::new(RealDisk), Arc::new(SystemClock), Stamp::ZERO, Settings::default()).expect("opens");
    let reports = Arc::new(reports);
    let prepared: Vec<NewReport> = (0..REPORTS)
        .map(|number| {
            let mut report = read(&sample(number));
            report.id = Some(ReportId(u128::from(number).to_be_bytes()));
            report
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let queue = Arc::new(std::sync::Mutex::new(prepared));
    let began = Instant::now();
    runtime.block_on(async {
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let (reports, queue) = (reports.clone(), queue.clone());
                tokio::spawn(async move {
                    loop {
                        let Some(next) = queue.lock().expect("no panic while held").pop() else { return };
                        reports.append(ProjectId(1), next).await.expect("kept");
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.expect("no panic");
        }
    });
    let elapsed = began.elapsed();
    let figures = reports.figures();
    COMMITS.store(figures.commits, Ordering::Relaxed);
    BYTES.store(figures.bytes, Ordering::Relaxed);
    elapsed.as_secs_f64() * 1e6 / REPORTS as f64
}

fn bare(path: &std::path::Path) -> f64 {
    let (commits, bytes) = (COMMITS.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed));
    let block = vec![7; (bytes / commits) as usize];
    let mut file = File::create(path).expect("a file");
    let began = Instant::now();
    for _ in 0..commits {
        file.write_all(&block).and_then(|()| file.sync_data()).expect("written");
    }
    began.elapsed().as_secs_f64() * 1e6 / REPORTS as f64
}

/// Runs ours and the peer in turn and prints one line for people and one of JSON.
fn row(name: &str, peer: &str, unit: &str, mut ours: impl FnMut(usize) -> f64, mut theirs: impl FnMut(usize) -> f64) {
    let (mut our_runs, mut peer_runs) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        our_runs.push(ours(run));
        peer_runs.push(theirs(run));
        std::thread::sleep(Duration::from_millis(50));
    }
    our_runs.sort_by(f64::total_cmp);
    peer_runs.sort_by(f64::total_cmp);
    let (our, other) = (our_runs[RUNS / 2], peer_runs[RUNS / 2]);
    let line = format!(
        "{name}: {our:.2} {unit} ({:.2}-{:.2}); {peer}: {other:.2} ({:.2}-{:.2}); ratio {:.2}\n{}\n",
        our_runs[0],
        our_runs[RUNS - 1],
        peer_runs[0],
        peer_runs[RUNS - 1],
        our / other,
        serde_json::json!({"name": name, "ours": our, "peer": other, "unit": unit, "ratio": our / other, "runs": RUNS}),
    );
    std::io::stdout().write_all(line.as_bytes()).expect("printed");
}
