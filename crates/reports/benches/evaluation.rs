//! Our side of `make bench`: makes the reports that everyone is measured on, and answers queries over them. It reads a command a line
//! and answers each with a line of JSON; `bench/run.py` gives the commands, to the peers likewise, and compares answers and times.
//!
//!     evaluation make FOLDER REPORTS SECS     makes a store whose reports are all in the archive
//!     evaluation stored FOLDER                answers from that store
//!     evaluation live FOLDER REPORTS SECS     takes the same reports anew and answers from memory, as windows are sealed

use model::{Attributes, Key, Most, NewReport, Parted, ProjectId, Query, ReportId, Stamp, Table, TableRow, Top, Value};
use reports::{Cancel, Clock, Reading, RealDisk, Reports, Settings, View};
use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use serde_json::{Map, json};
use sha2::{Digest, Sha256};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::error::Error;
use std::io::{self, BufRead, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// As the server has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PROJECT: ProjectId = ProjectId(1);
/// The first stamp in seconds: midnight of 2027-01-16, UTC.
const START: u64 = 1_800_057_600;
/// Reports that wait for a commit at one time.
const WAVE: u64 = 1_000;
/// Bytes of columns that may be kept: a quarter of a machine of 24 GiB, as the server takes by default.
const MEMORY_BYTES: usize = 6 << 30;
/// Waiting for the archive is given up after this long.
const PATIENCE: Duration = Duration::from_secs(1_800);

type Fallible<T> = Result<T, Box<dyn Error>>;

fn main() -> Fallible<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["make", folder, reports, secs] => make(Path::new(folder), reports.parse()?, secs.parse()?),
        ["stored", folder] => {
            let began = Instant::now();
            let (reports, recovery) = open(Path::new(folder), &Arc::default(), Settings::default().segment_bytes)?;
            let opened = began.elapsed().as_secs_f64();
            say(&json!({"opened": opened, "resident": resident()?, "reports": recovery.reports}))?;
            answer_all(&reports)
        }
        ["live", folder, reports, secs] => {
            let clock = Arc::<BenchClock>::default();
            let (store, _) = open(Path::new(folder), &clock, Settings::default().segment_bytes)?;
            fill(&store, &clock, reports.parse()?, secs.parse()?, |_| {})?;
            until_idle();
            say(&json!({"reports": store.figures().appended}))?;
            answer_all(&store)
        }
        _ => Err("which command? see the beginning of evaluation.rs".into()),
    }
}

fn say(line: &serde_json::Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// A clock that stands until it is set, so that the same reports get the same stamps (but for a few microseconds) in every run.
#[derive(Default)]
struct BenchClock(AtomicU64);

impl BenchClock {
    fn set(&self, micros: u64) {
        self.0.store(micros, Ordering::Relaxed);
    }
}

impl Clock for BenchClock {
    fn read(&self) -> Reading {
        let micros = self.0.load(Ordering::Relaxed);
        Reading { wall: Stamp::from_micros(START * 1_000_000 + micros), boot_micros: micros }
    }
}

fn open(folder: &Path, clock: &Arc<BenchClock>, segment_bytes: u64) -> Fallible<(Arc<Reports>, reports::Recovery)> {
    let settings = Settings { segment_bytes, memory_bytes: MEMORY_BYTES, ..Settings::default() };
    let (reports, recovery) = Reports::open(folder, Arc::new(RealDisk), clock.clone(), Stamp::ZERO, settings)?;
    Ok((Arc::new(reports), recovery))
}

/// Makes a store, all through its front door: reports are appended, segments of the log are closed and leave for the archive.
fn make(folder: &Path, count: u64, secs: u64) -> Fallible<()> {
    let began = Instant::now();
    let clock = Arc::<BenchClock>::default();
    let (store, _) = open(folder, &clock, Settings::default().segment_bytes)?;
    let mut json_bytes = 0;
    fill(&store, &clock, count, secs, |report| json_bytes += report.raw.len())?;
    drop(store);
    // A store whose segments are full at once closes the last one too.
    clock.set(secs * 1_000_000);
    let (store, _) = open(folder, &clock, 1)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for _ in 0..2 {
        store.pin(runtime.block_on(store.tick())?.plus_micros(1));
    }
    until_archived(folder)?;
    drop(store);
    let archive = folder.join("parquet").join(PROJECT.0.to_string());
    let sizes = std::fs::read_dir(archive)?.map(|file| Ok(file?.metadata()?.len())).collect::<io::Result<Vec<u64>>>()?;
    say(&json!({
        "reports": count,
        "json_bytes": json_bytes, "archive_bytes": sizes.iter().sum::<u64>(), "files": sizes.len(),
        "secs": began.elapsed().as_secs_f64(),
    }))?;
    Ok(())
}

/// Waits until the threads behind a store have done their work, so that none of it is in the times that are taken.
fn until_idle() {
    loop {
        let before = cpu_secs();
        std::thread::sleep(Duration::from_millis(300));
        if cpu_secs() - before < 0.003 {
            return;
        }
    }
}

/// Waits until the archive has taken all segments but the open one.
fn until_archived(folder: &Path) -> Fallible<()> {
    let waiting = Instant::now();
    while logs(folder)? > 1 {
        if waiting.elapsed() > PATIENCE {
            return Err("the archive does not take the log".into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Segments that are still in the log.
fn logs(folder: &Path) -> io::Result<usize> {
    let names = std::fs::read_dir(folder.join("log"))?.map(|file| Ok(file?.file_name())).collect::<io::Result<Vec<_>>>()?;
    Ok(names.iter().filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "log")).count())
}

/// Appends reports spread over some seconds from the start.
fn fill(store: &Arc<Reports>, clock: &Arc<BenchClock>, count: u64, secs: u64, mut note: impl FnMut(&NewReport)) -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for first in (0..count).step_by(WAVE as usize) {
            let micros = u128::from(first) * u128::from(secs) * 1_000_000 / u128::from(count);
            clock.set(micros as u64);
            let mut wave = tokio::task::JoinSet::new();
            for number in first..count.min(first + WAVE) {
                let report = report(number);
                note(&report);
                let store = store.clone();
                wave.spawn(async move { store.append(PROJECT, report).await });
            }
            while let Some(receipt) = wave.join_next().await {
                receipt??;
            }
            store.pin(Stamp::from_micros(START * 1_000_000 + micros as u64));
        }
        // Later than all of them, so that all are visible, and all but the open segment may be archived.
        clock.set(secs * 1_000_000);
        store.pin(store.tick().await?);
        Ok(())
    })
}

/// What a command asks: queries over the reports stamped in `span`, in seconds from the start.
#[derive(Deserialize)]
struct Ask {
    queries: Vec<Query>,
    span: (u64, u64),
    /// Only so many groups, those with the greatest first cell.
    #[serde(default)]
    top: Option<usize>,
    /// As a window is sealed: the groups that had one of so many seats when such a thing was last asked, as many others, and all
    /// without a seat as one.
    #[serde(default)]
    seats: Option<usize>,
    /// Whether anything is told but times.
    told: bool,
    /// Whether the rows themselves are told, or only how many there are and their digest.
    rows: bool,
    /// Windows are sealed from reports as they were accepted; pages show them as people have left them.
    accepted: bool,
}

fn answer_all(store: &Reports) -> Fallible<()> {
    // By query the groups that have a seat.
    let mut seated: Vec<BTreeSet<Key>> = Vec::new();
    for line in io::stdin().lock().lines() {
        let mut ask: Ask = serde_json::from_str(&line?)?;
        ask.queries.iter_mut().try_for_each(Query::compile)?;
        let queries: Vec<&Query> = ask.queries.iter().collect();
        let second = |secs: u64| Stamp::from_secs(START + secs);
        let view = if ask.accepted { View::Accepted } else { View::Current };
        if let Some(seats) = ask.seats {
            seated.resize(queries.len(), BTreeSet::new());
            seal(store, second(ask.span.0)..second(ask.span.1), &queries, seats, ask.told, &mut seated)?;
            continue;
        }
        let (began, cpu) = (Instant::now(), cpu_secs());
        let span = second(ask.span.0)..second(ask.span.1);
        let tables = match ask.top {
            None => store.evaluate(PROJECT, span, view, &queries, &Cancel::default())?,
            // As Explore asks when groups are sorted by their reports.
            Some(groups) => {
                let also = BTreeSet::new();
                let asked: Vec<(&Query, Most<'_>)> = queries.iter().map(|query| (*query, Most { groups, also: &also })).collect();
                let tops = store.evaluate_most(PROJECT, span, view, &asked, &Cancel::default())?;
                tops.into_iter().map(|top| top.map(|top| top.table)).collect()
            }
        };
        let (wall, cpu) = (began.elapsed().as_secs_f64(), cpu_secs() - cpu);
        let told: Vec<serde_json::Value> = tables
            .iter()
            .filter(|_| ask.told)
            .map(|table| match table {
                Ok(table) => tell(table, ask.rows),
                Err(error) => json!({"error": error.to_string()}),
            })
            .collect();
        say(&json!({"wall": wall, "cpu": cpu, "resident": resident()?, "answers": told}))?;
    }
    Ok(())
}

/// Asks what the sealing of a window asks, and tells the time of it: the groups that may have a seat, and what is beyond the seats as one.
/// When it is to tell more, it only checks that the groups are those of the whole tables, and what is beyond that of a question of its own.
fn seal(store: &Reports, span: Range<Stamp>, queries: &[&Query], seats: usize, told: bool, seated: &mut [BTreeSet<Key>]) -> Fallible<()> {
    let cancel = Cancel::default();
    let most = seated.iter().map(|also| Most { groups: seats, also });
    let asked: Vec<(&Query, Most<'_>)> = queries.iter().copied().zip(most).collect();
    // Those with most reports have the seats; nothing is left over where all groups have one.
    let keep = |_: usize, top: &Top| {
        let rows = &top.table.rows;
        let mut places: Vec<usize> = (0..rows.len()).collect();
        places.sort_by_key(|place| Reverse(rows[*place].matched));
        places.truncate(seats);
        (rows.len() > seats || top.beyond.groups > 0).then_some(places)
    };
    let (began, cpu) = (Instant::now(), cpu_secs());
    let answers = store.evaluate_parted(PROJECT, span.clone(), View::Accepted, &asked, &keep, &cancel)?;
    let (wall, cpu) = (began.elapsed().as_secs_f64(), cpu_secs() - cpu);
    let (mut rows, mut over, mut of_seats, mut rests) = (0, 0, Vec::new(), Vec::new());
    let mut different = 0;
    if told {
        let tables = store.evaluate(PROJECT, span.clone(), View::Accepted, queries, &cancel)?;
        for ((answer, table), (_, most)) in answers.iter().zip(tables).zip(&asked) {
            let top = answer.as_ref().map(|parted| &parted.top);
            different += usize::from(top != table.map(|table| table.into_most(*most)).as_ref());
        }
    }
    for (place, answer) in answers.into_iter().enumerate() {
        let Parted { top, rest } = answer?;
        rows += top.table.rows.len();
        let kept = keep(place, &top).unwrap_or_else(|| (0..top.table.rows.len()).collect());
        of_seats.push(kept.into_iter().map(|row| top.table.rows[row].key.clone()).collect());
        if let Some(rest) = rest {
            over += 1;
            rests.push((place, rest));
        }
    }
    if told {
        let beyond: Vec<(&Query, &BTreeSet<Key>)> = rests.iter().map(|(place, _)| (queries[*place], &of_seats[*place])).collect();
        for (row, (_, rest)) in store.rests(PROJECT, span, View::Accepted, &beyond, &cancel)?.into_iter().zip(&rests) {
            different += usize::from(row? != *rest);
        }
    }
    seated.clone_from_slice(&of_seats);
    say(&json!({"wall": wall, "cpu": cpu, "resident": resident()?, "groups": rows, "over": over, "different": different}))?;
    Ok(())
}

/// A table as it is compared: how many rows, and a digest that does not depend on their order, the sum of a hash of each.
fn tell(table: &Table, with_rows: bool) -> serde_json::Value {
    let digest = table.rows.iter().fold(0u64, |sum, row| {
        let hash = Sha256::digest(canonical(row));
        sum.wrapping_add(u64::from_be_bytes(hash[..8].try_into().expect("eight bytes")))
    });
    let mut told = json!({"groups": table.rows.len(), "digest": format!("{digest:016x}")});
    if with_rows {
        told["rows"] = table.rows.iter().map(canonical).collect();
    }
    told
}

/// A row's key and cells in one line. Floats that are not whole are told by their bits.
fn canonical(row: &TableRow) -> String {
    let key = row.key.iter().map(|value| value.as_ref().map_or("-".to_owned(), |value| format!("={value}")));
    let cells = row.cells.iter().map(|cell| match cell.scalar() {
        None => "-".to_owned(),
        Some(Value::Float(float)) if float.fract() != 0.0 => format!("~{:016x}", float.to_bits()),
        Some(value) => format!("={}", value.written()),
    });
    key.chain(cells).collect::<Vec<String>>().join("\t")
}

/// Processor time of this process, all threads.
fn cpu_secs() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Bytes in memory now.
fn resident() -> Fallible<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

/// A report by its number: the same in every run.
fn report(number: u64) -> NewReport {
    let mut random = Random(u64::from_be_bytes(wide(number)[..8].try_into().expect("eight bytes")));
    let (version, kind) = (random.zipf(200), random.zipf(50_000));
    let mut values: Vec<(&str, Value)> = vec![
        ("guid", ReportId(wide(random.below(2_000_000))).to_string().into()),
        ("fingerprint", hex::encode([wide(kind), wide(!kind)].concat()).into()),
        ("app.version", format!("{}.{}.{}", version / 50, version / 10 % 5, version % 10).into()),
        ("error.type", ERRORS[random.below(ERRORS.len() as u64) as usize].into()),
        ("application", format!("application-{}", random.below(20)).into()),
        ("hostname", format!("host-{:04}", random.below(5_000)).into()),
        ("uname.sysname", SYSTEMS[random.below(SYSTEMS.len() as u64) as usize].into()),
        ("device.model", format!("model {}", random.zipf(1_500)).into()),
        ("user.id", hex::encode(&wide(random.below(1_000_000) + (1 << 32))[..8]).into()),
        ("process.age", Value::from(random.zipf(100_000))),
        ("memory.rss", Value::from(random.below(4_000_000) * 4_096)),
    ];
    if random.below(20) == 0 {
        values.push(("http.status", Value::from(STATUSES[random.below(STATUSES.len() as u64) as usize])));
    }
    let id = ReportId(wide(number | 1 << 63));
    let attributes: Map<String, serde_json::Value> = values.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let raw = json!({"uuid": id.to_string(), "timestamp": START, "lang": "c", "agent": "bench", "attributes": attributes}).to_string();
    let attributes = Attributes::from_pairs(values.into_iter().map(|(name, value)| (name.to_owned(), value)));
    NewReport { id: Some(id), attributes, raw: raw.into_bytes(), attachments: Vec::new() }
}

const ERRORS: [&str; 8] =
    ["Crash", "Exception", "Hang", "OutOfMemory", "Assertion", "AccessViolation", "StackOverflow", "UnhandledRejection"];
const SYSTEMS: [&str; 6] = ["Windows NT", "Linux", "Darwin", "Android", "iOS", "FreeBSD"];
const STATUSES: [u64; 12] = [400, 401, 403, 404, 408, 409, 413, 429, 500, 502, 503, 504];

/// Sixteen bytes that look random, the same for the same number.
fn wide(number: u64) -> [u8; 16] {
    let mut random = Random(number);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&random.next().to_be_bytes());
    bytes[8..].copy_from_slice(&random.next().to_be_bytes());
    bytes
}

/// splitmix64 (<https://prng.di.unimi.it/splitmix64.c>).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Less than `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Less than `bound`; the n-th about n times as rare as the first, as words of a language are.
    fn zipf(&mut self, bound: u64) -> u64 {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        ((bound as f64).powf(unit) as u64 - 1).min(bound - 1)
    }
}
