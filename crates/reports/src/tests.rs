//! The report store as its users see it: many at a time, over restarts, over memory and log alike.

use crate::archiver::Work;
use crate::clock::{Clock, Reading};
use crate::disk::Disk;
use crate::reader::{Extent, Reads};
use crate::sim::{Call, Fault, SimDisk};
use crate::{AppendError, Cancel, Change, RealDisk, Reports, Retention, Settings, SystemClock, View};
use columns::Block;
use model::{
    Aggregate, AggregateOp, Attributes, Condition, Direction, Key, Most, NewAttachment, NewReport, Operator, ProjectId, Query, Report,
    ReportId, Selection, Stamp, Tx, Value, oracle,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const PROJECT: ProjectId = ProjectId(1);
const START: u64 = 1_800_000_000;

/// A wall clock that tests move.
#[derive(Default)]
pub(crate) struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn read(&self) -> Reading {
        let micros = self.0.load(Ordering::Relaxed);
        Reading { wall: Stamp::from_secs(START).plus_micros(micros), boot_micros: micros }
    }
}

impl HandClock {
    pub(crate) fn advance(&self, secs: u64) {
        self.0.fetch_add(secs * 1_000_000, Ordering::Relaxed);
    }
}

/// Segments and memory so small that most reports are in closed segments only.
const SMALL: Settings = Settings { segment_bytes: 4_000, memory_bytes: 6_000, retention: Retention { secs: None, bytes: None } };

fn open(disk: &SimDisk, clock: &Arc<HandClock>, settings: Settings) -> Arc<Reports> {
    let (reports, _) = Reports::open(Path::new("/data"), Arc::new(disk.clone()), clock.clone(), Stamp::ZERO, settings).expect("opens");
    Arc::new(reports)
}

fn report(id: Option<u8>, pairs: &[(&str, Value)]) -> NewReport {
    let attributes = Attributes::from_pairs(pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    NewReport { id: id.map(|id| ReportId([id; 16])), attributes, raw: b"{}".to_vec(), attachments: Vec::new() }
}

fn file(name: &str) -> NewAttachment {
    NewAttachment { name: name.into(), content_type: "text/plain".into(), bytes: name.as_bytes().to_vec() }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime").block_on(future)
}

fn always() -> Range<Stamp> {
    Stamp::ZERO..Stamp::from_secs(u64::MAX)
}

#[test]
fn one_id_sent_a_thousand_times_at_once_is_one_report() {
    block_on(async {
        let (disk, clock) = (SimDisk::default(), Arc::default());
        let reports = open(&disk, &clock, SMALL);
        let sends: Vec<_> = (0..1_000)
            .map(|_| {
                let reports = reports.clone();
                tokio::spawn(async move { reports.append(PROJECT, report(Some(7), &[])).await.expect("taken") })
            })
            .collect();
        let mut firsts = 0;
        for send in sends {
            let receipt = send.await.expect("no panic");
            assert_eq!(receipt.tx, Tx(1));
            firsts += usize::from(!receipt.duplicate);
        }
        assert_eq!((firsts, reports.accepted(PROJECT, always()).expect("readable")), (1, 1));
        assert_eq!((reports.figures().appended, reports.figures().duplicates), (1, 999));
        // Another project's report with that id is another report.
        assert!(!reports.append(ProjectId(2), report(Some(7), &[])).await.expect("taken").duplicate);
        drop(reports);
        let reports = open(&disk, &clock, SMALL);
        assert!(reports.append(PROJECT, report(Some(7), &[])).await.expect("taken").duplicate, "also after a restart");
    });
}

#[test]
fn repeats_are_forgotten_after_seven_days() {
    block_on(async {
        let (disk, clock) = (SimDisk::default(), Arc::new(HandClock::default()));
        let mut reports = open(&disk, &clock, SMALL);
        // Some ids end up in closed segments, the last ones in the open one.
        for id in 0..100 {
            reports.append(PROJECT, report(Some(id), &[("text", Value::from("x".repeat(90)))])).await.expect("taken");
        }
        for (secs, duplicate, tx) in [(7 * 86_400, true, 1), (1, false, 101), (86_400, true, 101), (6 * 86_400 + 1, false, 102)] {
            clock.advance(secs);
            drop(reports);
            reports = open(&disk, &clock, SMALL);
            let receipt = reports.append(PROJECT, report(Some(0), &[])).await.expect("taken");
            assert_eq!((receipt.duplicate, receipt.tx), (duplicate, Tx(tx)));
        }
        let receipt = reports.append(PROJECT, report(Some(99), &[])).await.expect("taken");
        assert!(!receipt.duplicate);
    });
}

#[test]
fn everything_below_the_durable_stamp_is_visible_and_ticks_move_it() {
    block_on(async {
        let (disk, clock) = (SimDisk::default(), Arc::new(HandClock::default()));
        let reports = open(&disk, &clock, SMALL);
        let durable = reports.durable_stamp();
        let receipt = reports.append(PROJECT, report(None, &[])).await.expect("taken");
        assert!(*durable.borrow() >= receipt.stamp);
        assert_eq!(reports.accepted(PROJECT, receipt.stamp..receipt.stamp.plus_micros(1)).expect("readable"), 1);
        clock.advance(60);
        let ticked = reports.tick().await.expect("taken");
        assert!(ticked.since(receipt.stamp) >= 60_000_000 && *durable.borrow() == ticked);
        drop(reports);
        let reports = open(&disk, &clock, SMALL);
        assert_eq!(*reports.durable_stamp().borrow(), ticked, "a tick is durable");
        assert!(reports.now() > ticked);
    });
}

#[test]
fn commits_have_stamps_of_their_own_although_the_clock_stands_still() {
    block_on(async {
        let reports = open(&SimDisk::default(), &Arc::default(), SMALL);
        let mut last = Stamp::ZERO;
        for _ in 0..3 {
            let receipt = reports.append(PROJECT, report(None, &[])).await.expect("taken");
            assert!(receipt.stamp > last, "what was durable at the last stamp is complete");
            last = receipt.stamp;
        }
    });
}

#[test]
fn a_dropped_store_has_let_go_of_the_disk() {
    block_on(async {
        let disk: Arc<dyn crate::Disk> = Arc::new(SimDisk::default());
        for _ in 0..50 {
            let (reports, _) =
                Reports::open(Path::new("/data"), disk.clone(), Arc::new(HandClock::default()), Stamp::ZERO, SMALL).expect("opens");
            Arc::new(reports).append(PROJECT, report(None, &[])).await.expect("taken");
            assert_eq!(Arc::strong_count(&disk), 1, "the writer has ended");
        }
    });
}

#[test]
fn late_attachments_have_their_own_numbers_and_survive() {
    block_on(async {
        let (disk, clock) = (SimDisk::default(), Arc::default());
        let mut reports = open(&disk, &clock, SMALL);
        let first = NewReport { attachments: vec![file("a"), file("b")], ..report(None, &[]) };
        let tx = reports.append(PROJECT, first).await.expect("taken").tx;
        for _ in 0..60 {
            reports.append(PROJECT, report(None, &[("text", Value::from("y".repeat(90)))])).await.expect("taken");
        }
        let (one, two) = tokio::join!(reports.attach(PROJECT, tx, file("c")), reports.attach(PROJECT, tx, file("d")));
        assert_eq!(BTreeSet::from([one.expect("taken").id, two.expect("taken").id]), BTreeSet::from([3, 4]));
        assert!(matches!(reports.attach(PROJECT, Tx(900), file("e")).await, Err(AppendError::NoSuchReport)));
        assert!(matches!(reports.attach(ProjectId(2), tx, file("e")).await, Err(AppendError::NoSuchReport)));
        for _ in 0..2 {
            let stored = reports.report(PROJECT, tx).expect("readable").expect("there");
            assert_eq!(stored.attachments.iter().map(|one| one.id).collect::<Vec<_>>(), [1, 2, 3, 4]);
            for one in &stored.attachments {
                let (attachment, bytes) = reports.attachment(PROJECT, tx, one.id).expect("readable").expect("there");
                assert_eq!((&attachment, bytes), (one, one.name.as_bytes().to_vec()));
            }
            drop(reports);
            reports = open(&disk, &clock, SMALL);
        }
        assert!(reports.attachment(PROJECT, tx, 5).expect("readable").is_none());
        assert!(reports.report(PROJECT, Tx(900)).expect("readable").is_none());
    });
}

#[test]
fn a_late_attachment_is_not_lost_to_one_whose_sender_hangs_up() {
    block_on(async {
        let (disk, clock) = (SimDisk::default(), Arc::default());
        let reports = open(&disk, &clock, SMALL);
        let tx = reports.append(PROJECT, report(None, &[])).await.expect("taken").tx;
        let mut taken = BTreeSet::new();
        for n in 0..300 {
            let hasty = tokio::spawn({
                let reports = reports.clone();
                async move { reports.attach(PROJECT, tx, file("hasty")).await }
            });
            // At whatever point it is by then.
            let begun = std::time::Instant::now();
            while begun.elapsed() < std::time::Duration::from_micros(n) {
                tokio::task::yield_now().await;
            }
            hasty.abort();
            let name = format!("{n}");
            let id = reports.attach(PROJECT, tx, file(&name)).await.expect("taken").id;
            taken.insert((id, name));
        }
        let stored = reports.report(PROJECT, tx).expect("readable").expect("there").attachments;
        let there: BTreeSet<(u32, String)> = stored.into_iter().map(|one| (one.id, one.name)).filter(|(_, name)| name != "hasty").collect();
        assert_eq!(there, taken);
    });
}

#[test]
fn a_failed_sync_stops_the_log_for_good() {
    block_on(async {
        let (disk, clock) = (SimDisk::default(), Arc::default());
        let reports = open(&disk, &clock, SMALL);
        reports.append(PROJECT, report(Some(1), &[])).await.expect("taken");
        // The append works, its sync does not.
        disk.arm(1, Fault::Once(io::ErrorKind::Other));
        assert!(matches!(reports.append(PROJECT, report(Some(2), &[])).await, Err(AppendError::Stopped)));
        reports.stopped().await;
        assert!(!reports.is_open());
        assert!(matches!(reports.append(PROJECT, report(Some(3), &[])).await, Err(AppendError::Stopped)));
        assert!(matches!(reports.tick().await, Err(AppendError::Stopped)));
    });
}

#[test]
fn a_full_disk_refuses_reports_and_takes_them_again_once_there_is_room() {
    block_on(async {
        let (disk, clock) = (SimDisk::default(), Arc::default());
        let reports = open(&disk, &clock, SMALL);
        let stamp = reports.append(PROJECT, report(Some(1), &[])).await.expect("taken").stamp;
        disk.arm(0, Fault::Once(io::ErrorKind::StorageFull));
        assert!(matches!(reports.append(PROJECT, report(Some(2), &[])).await, Err(AppendError::Full)));
        assert_eq!((reports.is_open(), *reports.durable_stamp().borrow()), (true, stamp));
        let receipt = reports.append(PROJECT, report(Some(2), &[])).await.expect("taken");
        assert_eq!((receipt.duplicate, receipt.tx), (false, Tx(2)), "what was refused was never seen");
        drop(reports);
        assert_eq!(open(&disk, &clock, SMALL).accepted(PROJECT, always()).expect("readable"), 2);
    });
}

#[test]
fn the_first_of_a_fingerprint_is_told_once_also_after_a_restart() {
    block_on(async {
        let (disk, clock) = (SimDisk::default(), Arc::default());
        let kind = |text: &str| report(None, &[("fingerprint", Value::from(text))]);
        let reports = open(&disk, &clock, SMALL);
        for (text, first) in [("aa", true), ("aa", false), ("bb", true)] {
            let receipt = reports.append(PROJECT, kind(text)).await.expect("taken");
            assert_eq!((receipt.fingerprint.as_str(), receipt.first_of_fingerprint), (text, first));
        }
        assert!(reports.append(ProjectId(2), kind("aa")).await.expect("taken").first_of_fingerprint, "projects are apart");
        for _ in 0..60 {
            reports.append(PROJECT, report(None, &[("text", Value::from("z".repeat(90)))])).await.expect("taken");
        }
        drop(reports);
        let reports = open(&disk, &clock, SMALL);
        assert!(!reports.append(PROJECT, kind("aa")).await.expect("taken").first_of_fingerprint);
        assert!(reports.append(PROJECT, kind("cc")).await.expect("taken").first_of_fingerprint);
    });
}

#[test]
fn attributes_are_known_over_restarts() {
    block_on(async {
        let (disk, clock) = (SimDisk::default(), Arc::default());
        let mut reports = open(&disk, &clock, SMALL);
        for n in 0..50 {
            let value = if n % 2 == 0 { Value::Int(n) } else { Value::from("x".repeat(90)) };
            reports.append(PROJECT, report(None, &[("mixed", value)])).await.expect("taken");
        }
        for _ in 0..3 {
            let known = reports.attributes(PROJECT);
            assert_eq!((known.len(), known[0].texts, known[0].numbers), (1, 25, 25));
            drop(reports);
            reports = open(&disk, &clock, SMALL);
        }
    });
}

#[test]
fn the_real_disk_and_clock_serve_too() {
    block_on(async {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        for tx in 1..4 {
            let (reports, recovery) =
                Reports::open(temporary.path(), Arc::new(RealDisk), Arc::new(SystemClock), Stamp::ZERO, Settings::default())
                    .expect("opens");
            assert_eq!(recovery.reports, tx - 1);
            let reports = Arc::new(reports);
            let receipt = reports.append(PROJECT, NewReport { attachments: vec![file("a")], ..report(None, &[]) }).await.expect("taken");
            assert_eq!(receipt.tx, Tx(tx));
            assert_eq!(reports.report(PROJECT, receipt.tx).expect("readable").expect("there").report.stamp, receipt.stamp);
        }
    });
}

/// What the archiver does at times of its own.
fn archive_all(reports: &Reports, compact: bool) {
    let (archive, memory) = (&reports.archive, &reports.shared.memory);
    wait_for_indexes(archive);
    while let Some(name) = archive.due(Stamp::from_secs(u64::MAX)).first() {
        archive.move_in(*name, memory).expect("the disk works");
    }
    while compact && let Some(name) = archive.compactable(memory, true, &BTreeSet::new()) {
        archive.compact(name, memory).expect("the disk works");
    }
}

/// Waits until closed segments of the log may leave it: their indexes are written beside the commits.
fn wait_for_indexes(archive: &crate::archive::Archive) {
    let names = archive.shelf.ordered();
    let (_open, closed) = names.split_last().expect("one is always open");
    for name in closed.iter().filter(|name| !archive.shelf.is_archived(**name)) {
        let began = std::time::Instant::now();
        while archive.disk.length(&name.index(&archive.log)).expect("the disk works").is_none() {
            assert!(began.elapsed().as_secs() < 30, "the index of {name:?} is not written");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_report_is_told_alike_from_log_and_archive() {
    block_on(async {
        let (disk, clock) = (SimDisk::default(), Arc::default());
        let mut reports = open(&disk, &clock, SMALL);
        let text = |n: i64| Value::from(format!("{n}").repeat(60));
        for n in 0..60 {
            let new = NewReport { attachments: vec![file("a")], ..report(Some(n as u8), &[("text", text(n)), ("n", Value::Int(n))]) };
            reports.append(ProjectId(1 + n as u32 % 2), new).await.expect("taken");
        }
        reports.attach(PROJECT, Tx(3), file("late")).await.expect("taken");
        let set = |value| Change::Set { attribute: "n".into(), value };
        reports.amend(PROJECT, &[Tx(5), Tx(4), Tx(5)], &[set(Some(Value::from("x")))]).await.expect("taken");
        reports.amend(PROJECT, &[Tx(4)], &[set(None)]).await.expect("taken");
        reports.amend(PROJECT, &[Tx(7), Tx(8)], &[Change::Delete]).await.expect("taken");
        for round in 0..4 {
            let told = |tx: u64| reports.report(PROJECT, Tx(tx)).expect("readable");
            let n = |tx: u64| told(tx).expect("there").report.attributes.get("n").cloned();
            assert_eq!((n(3), n(4), n(5), n(9)), (Some(Value::Int(4)), None, Some(Value::from("x")), Some(Value::Int(16))), "{round}");
            assert_eq!((told(7), told(8), told(31)), (None, None, None));
            let names: Vec<String> = told(3).expect("there").attachments.into_iter().map(|one| one.name).collect();
            assert_eq!(names, ["a", "late"]);
            assert_eq!(reports.attachment(PROJECT, Tx(3), 2).expect("readable").expect("there").1, b"late");
            assert!(reports.append(PROJECT, report(Some(12), &[])).await.expect("taken").duplicate, "also of a deleted report");
            match round {
                0 => archive_all(&reports, false),
                1 => archive_all(&reports, true),
                _ => {
                    drop(reports);
                    reports = open(&disk, &clock, SMALL);
                }
            }
        }
        let archived = disk.files().keys().filter(|path| path.to_string_lossy().ends_with(".parquet")).count();
        assert!(archived >= 4, "{archived} files in the archive");
    });
}

/// A store with reports in several closed segments, hours apart.
async fn hourly(disk: &SimDisk, clock: &Arc<HandClock>) -> Arc<Reports> {
    let reports = open(disk, clock, SMALL);
    for n in 0..60u64 {
        let text = Value::from(format!("{n} ").repeat(90));
        reports.append(PROJECT, report(Some(n as u8), &[("text", text)])).await.expect("taken");
        clock.advance(3_600);
    }
    reports
}

/// The archiver's work, done by hand.
fn work(reports: &Reports, retention: Retention) -> Work {
    let Reports { archive, shared, attachments, clock, .. } = reports;
    let work = Work::new(archive.clone(), shared.clone(), attachments.clone(), clock.clone(), retention);
    *work.pinned.lock().expect("no panic while held") = Stamp::from_secs(u64::MAX);
    work
}

#[test]
fn a_query_misses_nothing_of_a_segment_that_leaves_the_log_meanwhile() {
    block_on(async {
        let (disk, clock) = (SimDisk::default(), Arc::default());
        let reports = hourly(&disk, &clock).await;
        for step in 0..2 {
            let (query, span) = (Query { group: vec!["text".to_owned()], ..Query::default() }, always());
            let reads = Reads::queries(PROJECT, &[&query]);
            let extent = Extent::new(&reports.shared.memory, &reports.archive, &reports.cache, PROJECT, &span, View::Current, &reads);
            // First from log to archive, then from one file to another.
            reports.amend(PROJECT, &[Tx(1)], &[Change::Set { attribute: "text".into(), value: None }]).await.expect("taken");
            archive_all(&reports, step == 1);
            let rows = |part| {
                let blocks = extent.load(part).expect("readable");
                let hidden = |block: &Block| block.hidden.as_ref().map_or(0, |hidden| hidden.count() as usize);
                blocks.iter().map(|block| block.rows() - hidden(block)).sum::<usize>()
            };
            assert_eq!((0..extent.parts()).map(rows).sum::<usize>(), 60);
        }
    });
}

#[test]
fn what_a_question_reads_of_the_archive_is_told_to_the_disk_before_and_read_once() {
    block_on(async {
        let (disk, clock) = (SimDisk::default(), Arc::default());
        // A segment for each report.
        let each = |memory_bytes| Settings { segment_bytes: 1, memory_bytes, ..SMALL };
        let reports = open(&disk, &clock, each(SMALL.memory_bytes));
        for n in 0..30u64 {
            reports.append(PROJECT, report(None, &[("text", format!("text {n}").into())])).await.expect("taken");
            clock.advance(3_600);
        }
        archive_all(&reports, false);
        drop(reports);
        // Parts of the archive's files: those that are read, and those of which it is told that they will be.
        let parts_of_files = || Arc::new(Mutex::new(Vec::<(PathBuf, Range<u64>)>::new()));
        let (read, told_before) = (parts_of_files(), parts_of_files());
        let noted = (read.clone(), told_before.clone());
        let watched = Arc::new(disk.guarded(move |call| {
            let note = |list: &Mutex<Vec<_>>, path: &Path, part: Range<u64>| {
                list.lock().expect("no panic while held").push((path.to_owned(), part));
            };
            match call {
                Call::ReadAt(path, part) if path.extension().is_some_and(|extension| extension == "parquet") => note(&noted.0, path, part),
                Call::WillRead(path, parts) => parts.iter().for_each(|part| note(&noted.1, path, part.clone())),
                Call::ReadAt(..) | Call::Create(_) => {}
            }
            Ok(())
        }));
        let opened = Reports::open(Path::new("/data"), watched.clone(), clock, Stamp::ZERO, each(SMALL.memory_bytes));
        let (reports, _) = opened.expect("opens");
        let taken = |noted: &Mutex<Vec<(PathBuf, Range<u64>)>>| std::mem::take(&mut *noted.lock().expect("no panic while held"));
        taken(&read);
        let query = Query { group: vec!["text".to_owned()], ..Query::default() };
        let reads = Reads::queries(PROJECT, &[&query]);
        let (span, view) = (always(), View::Current);
        let extent = Extent::new(&reports.shared.memory, &reports.archive, &reports.cache, PROJECT, &span, view, &reads);
        assert!(extent.parts() > 20, "more parts than are read ahead: {}", extent.parts());
        let (mut told, mut ends) = (Vec::new(), BTreeSet::new());
        for part in 0..extent.parts() {
            extent.load(part).expect("readable");
            told.extend(taken(&told_before));
            for (path, part) in taken(&read) {
                let length = watched.length(&path).expect("readable").expect("there");
                if part.end == length {
                    assert!(ends.insert(path), "opened once");
                    continue;
                }
                let is_within = |told: &Range<u64>| part.start <= told.start && told.end <= part.end;
                assert!(told.iter().any(|(of, told)| *of == path && is_within(told)), "{path:?} {part:?} of {length}");
            }
        }
        assert!(ends.iter().all(|path| told.iter().any(|(of, _)| of == path)));
        assert!(ends.len() > 20);
        // What is in memory by now is not read ahead again.
        drop(reports);
        let (reports, _) =
            Reports::open(Path::new("/data"), watched.clone(), Arc::<HandClock>::default(), Stamp::ZERO, each(1 << 20)).expect("opens");
        for round in 0..2 {
            taken(&read);
            taken(&told_before);
            reports.evaluate(PROJECT, always(), View::Current, &[&query], &Cancel::default()).expect("read").remove(0).expect("answered");
            assert_eq!((taken(&read).is_empty(), taken(&told_before).is_empty()), (round == 1, round == 1));
        }
    });
}

#[test]
fn of_what_few_reports_pass_only_these_are_read_until_somebody_asks_again() {
    block_on(async {
        let (disk, clock) = (SimDisk::default(), Arc::default());
        let reports = open(&disk, &clock, Settings::default());
        for n in 0..200u64 {
            let kind = if n % 20 == 7 { "rare" } else { "frequent" };
            reports.append(PROJECT, report(None, &[("kind", kind.into()), ("text", format!("text {n}").into())])).await.expect("taken");
        }
        drop(reports);
        // The next start closes the segment.
        let reports = open(&disk, &clock, Settings { segment_bytes: 1, ..Settings::default() });
        reports.append(PROJECT, report(None, &[])).await.expect("taken");
        archive_all(&reports, false);
        reports.shared.memory.write().expect("no panic while held").let_go(reports.now());
        let rare = Condition::new("kind", Operator::Equal, "rare".into(), false).expect("legal");
        let query = Query { filter: vec![vec![rare]], group: vec!["text".to_owned()], ..Query::default() };
        let (reads, span) = (Reads::queries(PROJECT, &[&query]), always());
        for texts in [10, 200] {
            let extent = Extent::new(&reports.shared.memory, &reports.archive, &reports.cache, PROJECT, &span, View::Current, &reads);
            let blocks = (0..extent.parts()).flat_map(|part| extent.load(part).expect("readable"));
            let read =
                |block: Arc<Block>| block.columns.get("text").map_or(0, |column| (0..block.rows()).filter(|row| column.has(*row)).count());
            assert_eq!(blocks.map(read).sum::<usize>(), texts);
            let tables = reports.evaluate(PROJECT, always(), View::Current, &[&query], &Cancel::default()).expect("read");
            let keys: BTreeSet<_> = tables[0].as_ref().expect("answered").rows.iter().map(|row| row.key.clone()).collect();
            assert_eq!(keys, (0..200).filter(|n| n % 20 == 7).map(|n| vec![Some(format!("text {n}"))]).collect());
        }
        // A report that passes only as it was changed is not missed.
        reports.amend(PROJECT, &[Tx(1)], &[Change::Set { attribute: "kind".into(), value: Some("rare".into()) }]).await.expect("taken");
        let tables = reports.evaluate(PROJECT, always(), View::Current, &[&query], &Cancel::default()).expect("read");
        assert_eq!(tables[0].as_ref().map(|table| table.matched), Ok(11));
    });
}

/// Folders as the versions left them that wrote each form of file: `evaluation make FOLDER 40 60` of `make bench`.
#[test]
fn a_folder_of_every_form_that_was_ever_written_opens_and_is_written_anew_without_loss() {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).expect("made");
        for entry in std::fs::read_dir(from).expect("listed") {
            let (path, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).expect("an entry");
            if path.is_dir() { copy(&path, &to) } else { _ = std::fs::copy(&path, &to).expect("copied") }
        }
    }
    for form in ["form-1", "form-2", "form-3"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(form), folder.path());
        block_on(async {
            let clock: Arc<HandClock> = Arc::default();
            let opened =
                Reports::open(folder.path(), Arc::new(RealDisk), clock, Stamp::ZERO, Settings { segment_bytes: 1, ..Settings::default() });
            let (reports, recovery) = opened.expect("opens");
            assert_eq!((recovery.reports, recovery.missing_commits, recovery.damaged.len()), (40, 0, 0), "{form}");
            let reports = Arc::new(reports);
            let bodies = |reports: &Reports| -> Vec<Vec<u8>> {
                let report = |tx| reports.report(PROJECT, Tx(tx)).expect("read").expect("there");
                (1..=40).map(|tx| report(tx).raw).collect()
            };
            let before = bodies(&reports);
            for (tx, body) in (1..).zip(&before) {
                let sent: serde_json::Value = serde_json::from_slice(body).expect("JSON");
                let kept = reports.report(PROJECT, Tx(tx)).expect("read").expect("there").report.attributes;
                assert!(kept.iter().all(|(name, value)| sent["attributes"][name] == serde_json::json!(value)), "{form}, report {tx}");
            }
            let unique = Aggregate { op: AggregateOp::Unique, attribute: "guid".into() };
            let query = Query { aggregates: vec![unique], ..Query::default() };
            let ask = || reports.evaluate(PROJECT, always(), View::Current, &[&query], &Cancel::default()).expect("read").remove(0);
            let answer = ask();
            assert_eq!(
                answer.as_ref().map(|table| (table.matched, table.rows[0].cells[0].scalar().cloned())),
                Ok((40, Some(Value::Int(40))))
            );
            // Changed, so that its file is written anew, in the form of today.
            reports
                .amend(PROJECT, &[Tx(7)], &[Change::Set { attribute: "seen".into(), value: Some(Value::Bool(true)) }])
                .await
                .expect("taken");
            archive_all(&reports, true);
            let files: Vec<_> =
                std::fs::read_dir(folder.path().join("parquet/1")).expect("listed").map(|file| file.expect("one").file_name()).collect();
            assert!(files.iter().all(|file| file.to_string_lossy().ends_with("-1.parquet")), "{files:?}");
            assert_eq!((bodies(&reports), ask()), (before, answer), "{form}");
        });
    }
}

#[test]
fn a_damaged_file_does_not_hold_up_the_compaction_of_others() {
    block_on(async {
        let (disk, clock) = (SimDisk::default(), Arc::default());
        let reports = hourly(&disk, &clock).await;
        archive_all(&reports, false);
        let first = disk.files().into_keys().find(|path| path.to_string_lossy().ends_with(".parquet")).expect("there are some");
        disk.overwrite(&first, b"rubbish".repeat(100));
        let (_, file) = reports.archive.file_of(PROJECT, Tx(1)).expect("archived");
        let beyond = Tx(file.txs.1.0 + 1);
        // Most amendments are of the damaged one, so it comes first.
        reports.amend(PROJECT, &[Tx(1), Tx(2), beyond], &[Change::Delete]).await.expect("taken");
        let mut work = work(&reports, Retention::default());
        while work.step().expect("goes on") {}
        let left = reports.memory().overlay.of(PROJECT).expect("the damaged file's").deleted.clone();
        assert_eq!(left, BTreeSet::from([Tx(1), Tx(2)]));
    });
}

#[test]
fn retention_goes_on_although_a_segment_cannot_be_moved() {
    block_on(async {
        let (disk, clock) = (SimDisk::default(), Arc::default());
        let reports = hourly(&disk, &clock).await;
        wait_for_indexes(&reports.archive);
        let closed = reports.archive.due(Stamp::from_secs(u64::MAX));
        reports.archive.move_in(closed[0], &reports.shared.memory).expect("the disk works");
        disk.lose(&closed[1].log(Path::new("/data/log")));
        let files = || disk.files().keys().filter(|path| path.to_string_lossy().ends_with(".parquet")).count();
        assert_eq!(files(), 1);
        assert!(work(&reports, Retention { secs: Some(1), bytes: None }).step().is_err(), "it says so");
        assert_eq!(files(), 0, "and makes room all the same");
    });
}

#[test]
fn files_go_with_the_last_report_that_names_them() {
    block_on(async {
        let (disk, clock) = (SimDisk::default(), Arc::<HandClock>::default());
        let mut reports = open(&disk, &clock, SMALL);
        for n in 0..60u64 {
            let text = Value::from(format!("{n} ").repeat(90));
            let attachments = vec![file("shared"), file(&format!("own {n}"))];
            let new = NewReport { attachments, ..report(Some(n as u8), &[("text", text)]) };
            let tx = reports.append(PROJECT, new).await.expect("taken").tx;
            if [2, 59, 60].contains(&tx.0) {
                reports.attach(PROJECT, tx, file(&format!("late {}", tx.0))).await.expect("taken");
            }
            clock.advance(3_600);
        }
        // Sent again: its file is nobody's.
        let again = NewReport { attachments: vec![file("again")], ..report(Some(30), &[]) };
        assert!(reports.append(PROJECT, again).await.expect("taken").duplicate);
        reports.amend(PROJECT, &[Tx(31), Tx(60)], &[Change::Delete]).await.expect("taken");
        let contents = || {
            let files = disk.files().into_iter().filter(|(path, _)| path.starts_with("/data/attachments"));
            files.map(|(_, content)| String::from_utf8(content).expect("text")).collect::<BTreeSet<_>>()
        };
        let all = contents();
        assert_eq!(all.len(), 1 + 60 + 3 + 1);
        let mut expected = BTreeSet::from(["shared".to_owned(), "late 59".to_owned()]);
        for round in 0..2 {
            // The first one moves all in, the next one finds what is old.
            for _ in 0..2 {
                let mut worker = work(&reports, Retention { secs: Some(30 * 3_600), bytes: None });
                while worker.step().expect("the disk works") {}
            }
            let there = (1..=60).filter(|tx| reports.report(PROJECT, Tx(*tx)).expect("readable").is_some()).collect::<Vec<u64>>();
            assert!(there.len() > 20 && there.len() < 50, "{there:?}");
            expected.extend(there.iter().map(|tx| format!("own {}", tx - 1)));
            // The last reports are in the open segment, which tells of them as they came.
            let mut found = contents();
            found.retain(|name| !(name == "own 59" || name == "late 60"));
            assert_eq!(found, expected, "round {round}");
            for tx in there {
                assert_eq!(reports.attachment(PROJECT, Tx(tx), 1).expect("readable").expect("there").1, b"shared");
            }
            drop(reports);
            reports = open(&disk, &clock, SMALL);
        }
    });
}

#[test]
fn no_file_goes_while_something_that_may_name_it_cannot_be_read() {
    block_on(async {
        let (disk, clock) = (SimDisk::default(), Arc::<HandClock>::default());
        let mut reports = open(&disk, &clock, SMALL);
        for n in 0..20u64 {
            let new = NewReport { attachments: vec![file(&format!("{n}"))], ..report(None, &[("text", Value::from("x".repeat(180)))]) };
            reports.append(PROJECT, new).await.expect("taken");
        }
        archive_all(&reports, false);
        let files = |ending: &str| disk.files().into_keys().filter(|path| path.to_string_lossy().ends_with(ending)).collect::<Vec<_>>();
        let stored = || disk.files().keys().filter(|path| path.starts_with("/data/attachments")).count();
        let parquet = files(".parquet")[0].clone();
        let whole = disk.files()[&parquet].clone();
        disk.overwrite(&parquet, b"rubbish".repeat(100));
        assert!(work(&reports, Retention::default()).step().is_err());
        assert_eq!(stored(), 20);
        disk.overwrite(&parquet, whole);
        drop(reports);
        // A manifest that no start can read: its reports are not there, and may come back.
        let manifest = files(".arc")[0].clone();
        let whole = disk.files()[&manifest].clone();
        disk.overwrite(&manifest, b"rubbish".to_vec());
        reports = open(&disk, &clock, SMALL);
        assert!(reports.report(PROJECT, Tx(1)).expect("readable").is_none());
        work(&reports, Retention::default()).step().expect("the disk works");
        assert_eq!(stored(), 20);
        drop(reports);
        disk.overwrite(&manifest, whole);
        reports = open(&disk, &clock, SMALL);
        work(&reports, Retention::default()).step().expect("the disk works");
        assert_eq!(reports.attachment(PROJECT, Tx(1), 1).expect("readable").expect("there").1, b"0");
    });
}

#[test]
fn only_sealed_segments_leave_the_log_and_leftovers_are_removed() {
    block_on(async {
        let (disk, clock) = (SimDisk::default(), Arc::new(HandClock::default()));
        let mut reports = open(&disk, &clock, SMALL);
        let mut stamps = Vec::new();
        for n in 0..60 {
            clock.advance(60);
            let text = Value::from(format!("{n} ").repeat(90));
            stamps.push(reports.append(PROJECT, report(None, &[("text", text)])).await.expect("taken").stamp);
        }
        let ends = |reports: &Reports| {
            let closed = reports.archive.shelf.ordered();
            closed.iter().map(|name| reports.archive.shelf.with(*name, |segment| segment.stamp)).collect::<Vec<_>>()
        };
        let all = ends(&reports);
        assert!(all.len() >= 4, "{} segments", all.len());
        let due = |reports: &Reports, pin| {
            wait_for_indexes(&reports.archive);
            reports.archive.due(pin).len()
        };
        assert_eq!((due(&reports, Stamp::ZERO), due(&reports, all[1]), due(&reports, all[1].plus_micros(1))), (0, 1, 2));
        assert_eq!(due(&reports, Stamp::from_secs(u64::MAX)), all.len() - 1, "the open segment stays");
        archive_all(&reports, false);
        let files = || disk.files().into_keys().filter(|path| path.to_string_lossy().contains("/parquet/")).collect::<BTreeSet<_>>();
        let archived = files();
        let one = archived.first().expect("there are some").to_string_lossy().into_owned();
        for leftover in
            [one.replace("-0.parquet", "-1.parquet"), one.replace("-0.parquet", "-1.parquet.new"), one.replace("00000001-", "00000099-")]
        {
            disk.overwrite(Path::new(&leftover), b"half".to_vec());
        }
        assert_eq!(files().len(), archived.len() + 3);
        drop(reports);
        reports = open(&disk, &clock, SMALL);
        assert_eq!(files(), archived, "what no manifest names is removed, and nothing else");
        assert_eq!(reports.accepted(PROJECT, always()).expect("readable"), 60);
        // The log lost as a whole: the archive alone tells which numbers were given.
        drop(reports);
        disk.files().into_keys().filter(|path| path.to_string_lossy().ends_with(".log")).for_each(|path| disk.lose(&path));
        let reports = open(&disk, &clock, SMALL);
        let kept = reports.accepted(PROJECT, always()).expect("readable");
        assert!((1..60).contains(&kept), "{kept} reports in the archive");
        assert_eq!(reports.append(PROJECT, report(None, &[])).await.expect("taken").tx, Tx(kept + 1));
    });
}

#[test]
fn retention_gives_up_the_oldest_that_are_sealed_and_nothing_else() {
    block_on(async {
        let (disk, clock) = (SimDisk::default(), Arc::new(HandClock::default()));
        let mut reports = open(&disk, &clock, SMALL);
        let text = |n: u64| Value::from(format!("{n} ").repeat(90));
        let begin = reports.now();
        for n in 0..120 {
            reports.append(PROJECT, report(Some(n as u8), &[("text", text(n))])).await.expect("taken");
            clock.advance(3_600);
        }
        assert_eq!(reports.given_up_until(), Stamp::ZERO);
        let retain = |reports: &Reports, secs, bytes| {
            reports.archive.retain(reports.now(), Retention { secs, bytes }, &reports.shared.memory).expect("the disk works")
        };
        assert_eq!(retain(&reports, Some(0), None), 0, "what is in the log stays");
        archive_all(&reports, false);
        let there = |reports: &Reports| reports.accepted(PROJECT, always()).expect("readable");
        assert_eq!(there(&reports), 120);
        let gone = retain(&reports, Some(90 * 3_600), None);
        assert!((10..=30).contains(&gone), "{gone} reports were older than 90 hours");
        let last_gone = begin.plus_micros((gone - 1) * 3_600_000_000);
        for _ in 0..2 {
            assert!((last_gone..last_gone.plus_micros(3_600_000_000)).contains(&reports.given_up_until()));
            assert_eq!(there(&reports), 120 - gone);
            assert_eq!(reports.report(PROJECT, Tx(1)).expect("readable"), None);
            assert!(reports.append(PROJECT, report(Some(0), &[])).await.expect("taken").duplicate, "its id is remembered for a week");
            drop(reports);
            reports = open(&disk, &clock, SMALL);
        }
        clock.advance(9 * 86_400);
        archive_all(&reports, false);
        let more = retain(&reports, None, Some(1));
        assert_eq!((there(&reports), reports.accepted(PROJECT, always()).ok()), (120 - gone - more, Some(120 - gone - more)));
        let files = |ending: &str| disk.files().keys().filter(|path| path.to_string_lossy().ends_with(ending)).count();
        assert_eq!((files(".parquet"), files(".arc")), (0, 0), "nothing of them is left");
        drop(reports);
        let settings = SMALL;
        let (reports, recovery) =
            Reports::open(Path::new("/data"), Arc::new(disk.clone()), clock.clone(), Stamp::ZERO, settings).expect("opens");
        assert_eq!((recovery.missing_commits, recovery.reports), (0, 120 - gone - more), "what was given up is not missing");
        let receipt = Arc::new(reports).append(PROJECT, report(None, &[])).await.expect("taken");
        assert_eq!(receipt.tx, Tx(121), "numbers go on");
    });
}

fn query() -> impl Strategy<Value = Query> {
    let attribute = || prop::sample::select(vec!["a", "b", "_tx", "none", "timestamp.received"]).prop_map(str::to_owned);
    let condition =
        (attribute(), prop::sample::select(vec![Operator::Equal, Operator::NotEqual, Operator::AtLeast, Operator::IsSet]), 0..4i64);
    let condition =
        condition.prop_map(|(attribute, operator, n)| Condition::new(&attribute, operator, Value::Int(n), false).expect("legal"));
    let aggregate = (attribute(), prop::sample::select(AggregateOp::ALL.to_vec())).prop_map(|(attribute, op)| Aggregate { op, attribute });
    let filter = prop::collection::vec(prop::collection::vec(condition, 0..2), 0..2);
    let parts = (filter, prop::collection::vec(attribute(), 0..2), prop::collection::vec(aggregate, 1..4));
    parts.prop_map(|(filter, group, aggregates)| Query { filter, group, aggregates, derived: Vec::new() })
}

fn change() -> impl Strategy<Value = Change> {
    let value = prop_oneof![Just(None), (0..4i64).prop_map(|n| Some(Value::Int(n))), Just(Some(Value::from("set")))];
    let set = (prop::sample::select(vec!["a", "b"]), value).prop_map(|(name, value)| Change::Set { attribute: name.to_owned(), value });
    prop_oneof![2 => set, 1 => Just(Change::Delete)]
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let value =
        prop_oneof![(0..4i64).prop_map(Value::Int), Just(Value::Bool(true)), "[0-3]?".prop_map(Value::Text), Just(Value::Float(0.5))];
    prop::collection::vec((prop::sample::select(vec!["a", "b"]), value), 0..3)
        .prop_map(|pairs| Attributes::from_pairs(pairs.into_iter().map(|(name, value)| (name.to_owned(), value))))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn memory_log_archive_and_oracle_agree(
        all in prop::collection::vec((attributes(), 1..3u32, 0..3u64), 1..40),
        amendments in prop::collection::vec((0..40usize, prop::collection::vec(1..40u64, 1..4), change()), 0..5),
        queries in prop::collection::vec(query(), 1..5),
        (from, until) in (0..60u64, 0..60u64),
        (moved_after, compacted, restart) in (0..40usize, any::<bool>(), any::<bool>()),
    ) {
        block_on(async {
            let big = Settings { segment_bytes: 600, ..Settings::default() };
            let small = Settings { memory_bytes: 1_600, ..big.clone() };
            // In memory, in the log, in the archive and the log, in the archive with amendments worked in.
            let settings = [&big, &small, &small, &big];
            let disks: [SimDisk; 4] = Default::default();
            let clocks: [Arc<HandClock>; 4] = Default::default();
            let open_all = || (0..4).map(|at| open(&disks[at], &clocks[at], settings[at].clone())).collect::<Vec<_>>();
            let mut stores = open_all();
            let mut accepted: Vec<Report> = Vec::new();
            let mut current: Vec<Option<Report>> = Vec::new();
            for (number, (attributes, project, secs)) in all.into_iter().enumerate() {
                for (at, store) in stores.iter().enumerate() {
                    clocks[at].advance(secs);
                    let new = NewReport { id: None, attributes: attributes.clone(), raw: vec![1; 100], attachments: Vec::new() };
                    let receipt = store.append(ProjectId(project), new).await.expect("taken");
                    let row = Report { project: ProjectId(project), tx: receipt.tx, stamp: receipt.stamp, attributes: attributes.clone() };
                    if at == 0 {
                        accepted.push(row.clone());
                        current.push(Some(row));
                    } else {
                        assert_eq!(Some(&row), accepted.last(), "all stamp alike");
                    }
                }
                for (_, txs, change) in amendments.iter().filter(|(when, ..)| *when == number) {
                    let txs: Vec<Tx> = txs.iter().map(|tx| Tx(*tx)).collect();
                    let known: Vec<Tx> = accepted.iter().filter(|row| row.project == PROJECT && txs.contains(&row.tx)).map(|row| row.tx).collect();
                    for store in &stores {
                        store.amend(PROJECT, &known, std::slice::from_ref(change)).await.expect("taken");
                    }
                    for row in current.iter_mut().filter(|row| row.as_ref().is_some_and(|row| row.project == PROJECT && known.contains(&row.tx))) {
                        match change {
                            Change::Delete => *row = None,
                            Change::Set { attribute, value: Some(value) } => row.as_mut().expect("there").attributes.set(attribute, value.clone()),
                            Change::Set { attribute, value: None } => row.as_mut().expect("there").attributes.remove(attribute),
                        }
                    }
                }
                if number == moved_after {
                    archive_all(&stores[2], false);
                    archive_all(&stores[3], true);
                }
            }
            if compacted {
                archive_all(&stores[3], true);
            }
            if restart {
                drop(stores);
                stores = open_all();
            }
            let span = Stamp::from_secs(START + from)..Stamp::from_secs(START + until);
            let within = |row: &&Report| row.project == PROJECT && span.contains(&row.stamp);
            let as_accepted: Vec<&Report> = accepted.iter().filter(within).collect();
            let as_left: Vec<&Report> = current.iter().flatten().filter(within).collect();
            let queries: Vec<&Query> = queries.iter().collect();
            for (at, store) in stores.iter().enumerate() {
                // Compaction works amendments into what was accepted: only sealed windows are ever compacted.
                for (view, rows) in [(View::Accepted, &as_accepted), (View::Current, &as_left)].into_iter().skip(usize::from(at == 3)) {
                    let tables = store.evaluate(PROJECT, span.clone(), view, &queries, &Cancel::default()).expect("readable");
                    for (table, query) in tables.into_iter().zip(&queries) {
                        let told = table.expect("few groups");
                        assert_eq!(told, oracle::evaluate(rows.iter().copied(), query), "store {at}, {view:?}, {query:?}");
                        let most = Most { groups: 2, also: &told.rows.iter().map(|row| row.key.clone()).step_by(3).collect() };
                        let tops = store.evaluate_most(PROJECT, span.clone(), view, &[(query, most)], &Cancel::default()).expect("readable");
                        assert_eq!(tops, [Ok(told.clone().into_most(most))], "store {at}, {view:?}, {query:?}");
                        let kept: BTreeSet<Key> = told.rows.iter().map(|row| row.key.clone()).step_by(2).collect();
                        let rests = store.rests(PROJECT, span.clone(), view, &[(query, &kept)], &Cancel::default()).expect("readable");
                        let rest = rests.into_iter().next().expect("one query has one answer").expect("few groups");
                        assert_eq!(rest, oracle::rest(rows.iter().copied(), query, &kept), "store {at}, {view:?}, {query:?}");
                    }
                    let selection = Selection {
                        filter: queries[0].filter.clone(),
                        columns: vec!["a".into(), "_tx".into(), "none".into()],
                        order: queries[0].group.iter().map(|name| (name.clone(), Direction::Descending)).collect(),
                        offset: 1,
                        limit: 5,
                        derived: Vec::new(),
                    };
                    let selected = store.select(PROJECT, span.clone(), view, &selection, &Cancel::default()).expect("readable").expect("few");
                    assert_eq!(selected, oracle::select(rows.iter().copied(), &selection), "store {at}, {view:?}");
                }
                if at < 3 {
                    assert_eq!(store.accepted(PROJECT, span.clone()).expect("readable"), as_accepted.len() as u64);
                }
                for (row, left) in accepted.iter().zip(&current) {
                    let told = store.report(row.project, row.tx).expect("readable").map(|stored| stored.report);
                    assert_eq!(&told, left, "store {at}");
                }
            }
        });
    }
}
