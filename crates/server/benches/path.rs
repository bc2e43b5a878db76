//! The path of a report to a store, part by part, each beside a peer in the same run: reading beside `serde_json::Value`, durable appends
//! beside writing and syncing the same bytes with nothing around it, pages beside the `prometheus-client` crate, bodies for stores.
//! Prints ratios (our cost / the peer's). With a word it is a tool that `bench/path.py` uses on a running server:
//!
//!     path discard                        a server that reads what it is sent and throws it away; prints its port
//!     path load HOST:PORT PATH RATE SECS  sends reports at this pace, whatever the answers take; prints each wait
//!     path backlog FOLDER                 makes a catalog in which ten stores have waited for 72 hours
//!     path guard WORK TIMES               does one work so often, for `bench/guard.py` to count its instructions
//!     path wires [WORD]                   measures only what stores get; with a word only the rows that have it in their names

#![allow(clippy::print_stdout)]

use adapters::{Accept, Adapter};
use catalog::{Catalog, MetricDraft, SealedCell, SealedMetric, SealedSeries, SealedWindow, StoreDraft, StoreSettings, WindowFacts};
use influxdb_line_protocol::LineProtocolBuilder;
use ingest::{Format, Limits, Submission, parse};
use model::{
    Aggregate, AggregateOp, Batch, Label, NewReport, Page, PageSeries, PathTemplate, Period, Point, ProjectId, Query, ReportId, Series,
    Shape, Stamp, Window,
};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use reports::{RealDisk, Reports, Settings, SystemClock};
use serde_json::json;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// That of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs of each row; the median counts, the spread is shown.
const RUNS: usize = 5;
/// Writers that append at one time.
const WRITERS: u64 = 64;
const REPORTS: u64 = 20_000;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["discard"] => return discard(),
        ["load", address, path, rate, secs] => return load(address, path, rate.parse().expect("a rate"), secs.parse().expect("seconds")),
        ["backlog", folder] => return backlog(folder.as_ref()),
        ["guard", work, times] => return guard(work, times.parse().expect("how often")),
        ["wires"] => return wires(""),
        ["wires", word] => return wires(word),
        [] => {}
        other => panic!("unknown words: {other:?}"),
    }
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
    wires("");
}

/// Series of a page, and points of a batch.
const SERIES: usize = 100_000;
const POINTS: usize = 1_000_000;
/// Points of a body for InfluxDB.
const BODY_POINTS: usize = 5_000;

/// What stores get: a page of 100,000 series beside `prometheus-client`, a million points for each push store; of these rows those with
/// the word in their names.
fn wires(word: &str) {
    if PAGE.contains(word) {
        rendering();
    }
    let pushed: Vec<_> = PUSHED.iter().map(|(name, fields)| (name, fields, format!("encode 1,000,000 points for {name}"))).collect();
    if pushed.iter().any(|(_, _, what)| what.contains(word)) {
        let page = page(POINTS);
        let batch = Batch { window: page.window, points: page.series.into_iter().map(point).collect() };
        pushed.iter().filter(|(_, _, what)| what.contains(word)).for_each(|(name, fields, what)| encoding(name, fields, what, &batch));
    }
}

const PAGE: &str = "render a page of 100,000 series";

fn rendering() {
    let page = page(SERIES);
    let pull = adapter("prometheus", json!({}));
    let registry = registry(SERIES);
    let rendered = |text: &[u8]| text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"crash_")).count();
    let accept = Accept::read(Some("application/openmetrics-text;version=1.0.0"));
    let ours = || pull.as_pull().expect("it is read").render(&page, &accept).body;
    let theirs = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text takes all");
        text
    };
    assert_eq!((rendered(&ours()), rendered(theirs().as_bytes())), (SERIES, SERIES), "both show every series");
    row(PAGE, "prometheus-client crate", "ms", |_| millis(|| drop(ours())), |_| millis(|| drop(theirs())));
}

fn encoding(name: &str, fields: &str, what: &str, batch: &Batch) {
    let adapter = adapter(name, serde_json::from_str(fields).expect("JSON"));
    let push = adapter.as_push().expect("it is sent to");
    let mut points = 0;
    let mut ours = || {
        let began = Instant::now();
        let encoded = push.encode(batch);
        points = encoded.payloads.iter().map(|payload| payload.points().count()).sum::<usize>() + encoded.excluded.len();
        began.elapsed().as_secs_f64()
    };
    match name {
        "influxdb" => row(what, "influxdb-line-protocol crate", "s", |_| ours(), |_| millis(|| drop(lines(batch))) / 1e3),
        _ => alone(what, "s", ours),
    }
    assert_eq!(points, POINTS, "{name} leaves none out");
}

/// The same points as InfluxData's own crate writes them, in bodies as large as ours.
fn lines(batch: &Batch) -> Vec<Vec<u8>> {
    let nanos = batch.window.start_secs() as i64 * 1_000_000_000;
    let body = |points: &[Point]| {
        points.iter().fold(LineProtocolBuilder::new(), |lines, point| {
            let line = lines.measurement("crash.game.errors.by-host");
            let tagged = point.series.labels.iter().fold(line, |line, (name, label)| match label {
                Label::Text(value) => line.tag(name, value),
                Label::Missing | Label::Other => line,
            });
            tagged.field(&point.series.aggregate, point.value).timestamp(nanos).close_line()
        })
    };
    batch.points.chunks(BODY_POINTS).map(|points| body(points).build()).collect()
}

/// Points of a guarded body.
const GUARDED: usize = 2_000;

fn guard(work: &str, times: usize) {
    let page = page(GUARDED);
    let (body, window) = (sample(1), page.window);
    let batch = Batch { window, points: page.series.iter().cloned().map(point).collect() };
    let pull = adapter("prometheus", json!({}));
    let accept = Accept::read(None);
    let push = PUSHED.iter().find(|(name, _)| work.strip_prefix("encode-") == Some(name));
    let push = push.map(|(name, fields)| adapter(name, serde_json::from_str(fields).expect("JSON")));
    let packed = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&body).expect("to memory");
        encoder.finish().expect("to memory")
    };
    for _ in 0..times {
        match (work, &push) {
            ("read-report", _) => drop(read(&body)),
            ("inflate-report", _) => drop(ingest::inflate("gzip", &packed, &Limits::DEFAULT).expect("good")),
            ("render-prometheus", _) => drop(pull.as_pull().expect("it is read").render(&page, &accept)),
            (_, Some(push)) => drop(push.as_push().expect("it is sent to").encode(&batch)),
            _ => panic!("no such work: {work}"),
        }
    }
}

/// Push stores with the least they need to be told.
const PUSHED: [(&str, &str); 6] = [
    ("circonus_push", r#"{"url": "https://trap.example/module/httptrap/id/secret"}"#),
    ("datadog", r#"{"site": "datadoghq.eu", "api_key": "00000000000000000000000000000000"}"#),
    ("grafana", r#"{"url": "https://graphite.example/metrics", "api_key": "k"}"#),
    ("graphite", r#"{"host": "graphite.example"}"#),
    ("influxdb", r#"{"url": "https://influx.example/write", "db": "crashes"}"#),
    ("remote_write", r#"{"url": "https://mimir.example/api/v1/push"}"#),
];

fn adapter(name: &str, fields: serde_json::Value) -> Adapter {
    Adapter::parse(name, fields.as_object().expect("an object")).expect("legal fields")
}

fn millis(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64() * 1e3
}

/// The label values of series number `n`: a type, a version, a host.
fn labels(n: usize) -> [(&'static str, String); 3] {
    [("error_type", format!("Type{}", n % 8)), ("version", format!("1.{}.{}", n % 20, n % 7)), ("host", format!("host-{n}"))]
}

fn page(count: usize) -> Page {
    let series = |n: usize| PageSeries {
        series: Series {
            path: vec!["crash".into(), "game".into(), "errors".into(), "by-host".into()],
            aggregate: "tx_unique".into(),
            labels: labels(n).into_iter().map(|(name, value)| (name.to_owned(), Label::Text(value))).collect(),
        },
        shape: Shape::Gauge,
        value: Some((n % 1_000) as f64),
        counter: None,
    };
    let period = Period::new(60).expect("legal");
    Page { window: period.window_at(Stamp::from_secs(1_764_000_000)), series: (0..count).map(series).collect() }
}

fn point(one: PageSeries) -> Point {
    Point { series: one.series, value: one.value.expect("set above"), shape: one.shape }
}

type Told = Vec<(String, String)>;

/// The same page in the peer's registry.
fn registry(count: usize) -> Registry {
    let family = Family::<Told, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
    for n in 0..count {
        let labels: Told = labels(n).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        family.get_or_create(&labels).set((n % 1_000) as f64);
    }
    let mut registry = Registry::default();
    registry.register("crash_game_errors_by_host_tx_unique", "Reports by type, version and host", family);
    registry
}

/// A server of the same parts that reads a body and throws it away.
fn discard() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        println!("{}", listener.local_addr().expect("bound").port());
        let answer = |body: bytes::Bytes| async move {
            axum::Json(json!({"response": "ok", "_rxid": "07000000-0000-0000-0000-000000000001", "bytes": body.len()}))
        };
        axum::serve(listener, axum::Router::new().fallback(answer)).await.expect("it serves until it is killed");
    });
}

/// Connections of the paced load.
const CONNECTIONS: u64 = 64;

/// What the lanes have to get ready.
const LEAD: Duration = Duration::from_secs(2);

/// Sends reports when they are due, over many connections, and prints how long after that each was answered, in microseconds: a late
/// answer makes no later report start late unseen.
fn load(address: &str, path: &str, rate: f64, secs: f64) {
    let began = Instant::now() + LEAD;
    let lane = |lane: u64| {
        let (address, path) = (address.to_owned(), path.to_owned());
        std::thread::spawn(move || {
            let mut stream = TcpStream::connect(&address).expect("connects");
            stream.set_nodelay(true).expect("set");
            // With room for all: lanes whose lists outgrew their room at one moment took the cores for 100 ms to move them.
            let mut waits = Vec::with_capacity((rate * secs) as usize / CONNECTIONS as usize + 1);
            // Made once: only the id is another each time, so that the load takes little of the cores it shares.
            let mut body = sample(1);
            let mut send = |number: u64| {
                body[9..41].copy_from_slice(format!("{:032x}", ((lane + 1) << 40) + number).as_bytes());
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all(&[head.as_bytes(), &body].concat()).expect("sent");
                let answer = answer(&mut stream);
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            };
            // Ahead of time: the first memory that a thread takes costs more than all that follows.
            send(u64::from(u32::MAX));
            for number in 0.. {
                let due = began + Duration::from_secs_f64((number * CONNECTIONS + lane) as f64 / rate);
                if due > began + Duration::from_secs_f64(secs) {
                    break;
                }
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                send(number);
                waits.push(due.elapsed().as_micros());
            }
            waits
        })
    };
    let lanes: Vec<_> = (0..CONNECTIONS).map(lane).collect();
    let waits: Vec<u128> = lanes.into_iter().flat_map(|lane| lane.join().expect("no panic")).collect();
    println!("{}", json!(waits));
}

/// Reads one whole answer.
fn answer(stream: &mut TcpStream) -> String {
    let (mut text, mut piece) = (Vec::new(), [0; 2_048]);
    loop {
        let length = stream.read(&mut piece).expect("an answer");
        assert!(length > 0, "closed before the answer was whole");
        text.extend_from_slice(&piece[..length]);
        let Some(end) = text.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&text[..end]).to_lowercase();
        let body =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length").parse::<usize>().expect("a number");
        if text.len() >= end + 4 + body {
            return String::from_utf8_lossy(&text).into_owned();
        }
    }
}

/// Stores that wait, windows of a minute that each has not got, and points in a window.
const STORES: usize = 10;
const WAITING: u64 = 72 * 60;
const WAITING_POINTS: usize = 100;

fn backlog(folder: &std::path::Path) {
    let catalog = Catalog::open(folder).expect("opens");
    let period = Period::new(60).expect("legal");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let first = period.window_at(Stamp::from_secs(now - 60 * (WAITING + 2)));
    let made = || first.start();
    let (project, _) = catalog.create_project("game", "bench", &made).expect("made");
    catalog.put_set(project, "errors", "bench", &made).expect("made");
    let query = Query {
        filter: Vec::new(),
        group: vec!["host".into()],
        aggregates: vec![Aggregate { op: AggregateOp::Count, attribute: "_tx".into() }],
        derived: Vec::new(),
    };
    let draft = MetricDraft { query, zero_for: None, series_budget: 1_000 };
    catalog.put_metric(project, "errors", "by-host", &draft, None, "bench", &made).expect("made");
    for n in 0..STORES {
        let fields = json!({"url": "http://127.0.0.1:9/write", "db": "crashes"});
        let settings = StoreSettings {
            adapter: "influxdb".into(),
            period,
            sets: vec!["errors".into()],
            prefix: "crash".into(),
            template: PathTemplate::default(),
            label_names: Default::default(),
            labels: Default::default(),
            horizon_secs: 100 * 3_600,
            enabled: true,
            fields: fields.as_object().expect("an object").clone(),
        };
        let draft = StoreDraft { settings, secrets: Default::default(), pull: false };
        catalog.put_store(project, &format!("store-{n}"), &draft, None, "bench", &made).expect("made");
    }
    let snapshot = catalog.snapshot();
    let metric = &snapshot.metrics[0];
    let series = |n| SealedSeries {
        key: vec![Label::Text(format!("host-{n}"))],
        live: true,
        cells: vec![SealedCell { value: Some(n as f64), counter: None }],
    };
    let mut start = first.start_secs();
    for _ in 0..WAITING {
        let window = Window::new(start, period).expect("on the grid");
        let sealed = SealedMetric {
            revision: metric.newest().id,
            failure: None,
            matched: 100,
            own: 100,
            folded: 0,
            left_out: 0,
            series: (0..WAITING_POINTS).map(series).collect(),
        };
        let due = snapshot.stores.iter().map(|store| (store.id, WAITING_POINTS as u64)).collect();
        let facts = WindowFacts { coverage: 1.0, accepted: 100, refused: Vec::new() };
        let sealed = SealedWindow { project, window, facts, metrics: vec![sealed], states: Vec::new(), due };
        catalog.seal(&sealed, window.end()).expect("sealed");
        start = window.end_secs();
    }
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

/// Runs ours alone and prints one line for people and one of JSON.
fn alone(name: &str, unit: &str, mut work: impl FnMut() -> f64) {
    let mut runs: Vec<f64> = (0..RUNS).map(|_| work()).collect();
    runs.sort_by(f64::total_cmp);
    let json = json!({"name": name, "ours": runs[RUNS / 2], "peer": null, "unit": unit, "ratio": null, "runs": RUNS, "spread": {"ours": [runs[0], runs[RUNS - 1]]}});
    println!("{name}: {:.3} {unit} ({:.3}-{:.3})\n{json}", runs[RUNS / 2], runs[0], runs[RUNS - 1]);
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
        json!({"name": name, "ours": our, "peer": other, "unit": unit, "ratio": our / other, "runs": RUNS, "best": peer, "peers": {peer: other},
            "spread": {"ours": [our_runs[0], our_runs[RUNS - 1]], peer: [peer_runs[0], peer_runs[RUNS - 1]]}}),
    );
    std::io::stdout().write_all(line.as_bytes()).expect("printed");
}
