//! What rot, people and other programs do to the log between two starts, and the stated rule for each (see `recovery`).

use crate::clock::{Clock, Reading};
use crate::codec::Entry;
use crate::core::{Core, Outcome, Request};
use crate::disk::Disk;
use crate::frame;
use crate::recovery::{OpenError, Recovery};
use crate::segment::{INDEX, LOG, Name};
use crate::sim::{Call, Fault, SimDisk};
use crate::tests::{HandClock, block_on};
use crate::{Reports, Retention, Settings};
use model::{Attributes, NewReport, ProjectId, ReportId, Stamp, Value};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

struct StillClock;

impl Clock for StillClock {
    fn read(&self) -> Reading {
        Reading { wall: Stamp::from_secs(1_800_000_000), boot_micros: 0 }
    }
}

const FOLDER: &str = "/log";

fn open(disk: &SimDisk) -> Result<(Core, Recovery), OpenError> {
    let bounds = (700, 2_000);
    let started = Core::open(Path::new("/"), Arc::new(disk.clone()), Arc::new(StillClock), Stamp::ZERO, bounds)?;
    Ok((started.core, started.recovery))
}

fn report(number: u64) -> Request {
    let mut id = [1; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    let attributes = Attributes::from_pairs([("number".to_owned(), Value::from(number))]);
    let report = NewReport { id: Some(ReportId(id)), attributes, raw: vec![number as u8; 150], attachments: Vec::new() };
    Request::Report { project: ProjectId(1), report, attachments: Vec::new() }
}

/// A log of 20 reports, one a commit, in several segments.
fn written() -> SimDisk {
    let disk = SimDisk::default();
    let (mut core, _) = open(&disk).expect("opens");
    for number in 0..20 {
        core.commit(vec![report(number)]).expect("the disk works");
    }
    disk
}

fn numbers(core: &Core) -> Vec<u64> {
    let mut numbers = Vec::new();
    let visit = &mut |entry| {
        if let Entry::Report(stored) = entry {
            let Some(Value::Int(number)) = stored.report.attributes.get("number") else { panic!("it has a number") };
            numbers.push(*number as u64);
        }
    };
    core.shelf().read(|_| true, visit).expect("readable");
    numbers
}

fn all() -> Vec<u64> {
    (0..20).collect()
}

/// Files with this ending, by name.
fn files(disk: &SimDisk, ending: &str) -> Vec<PathBuf> {
    disk.files().into_keys().filter(|path| path.parent() == Some(Path::new(FOLDER)) && path.to_string_lossy().ends_with(ending)).collect()
}

fn name(path: &Path) -> Name {
    Name::read(&path.file_name().expect("a file").to_string_lossy(), LOG).expect("a segment")
}

/// Whether exactly the reports that are there are taken for repeats.
fn knows_its_repeats(core: &mut Core) {
    let there: BTreeSet<u64> = numbers(core).into_iter().collect();
    let committed = core.commit((0..20).map(report).collect()).expect("the disk works");
    let repeats =
        committed.outcomes.iter().zip(0..).filter(|(outcome, _)| matches!(outcome, Outcome::Report(receipt) if receipt.duplicate));
    assert_eq!(repeats.map(|(_, number)| number).collect::<BTreeSet<u64>>(), there);
}

/// A copy of the disk as it is.
fn copy(disk: &SimDisk) -> SimDisk {
    let copy = SimDisk::default();
    for (path, content) in disk.files() {
        copy.create_folder(path.parent().expect("in a folder")).expect("made");
        copy.overwrite(&path, content);
    }
    copy
}

#[test]
fn a_flipped_byte_costs_at_most_its_commit_and_is_counted() {
    let disk = written();
    let segments = files(&disk, LOG);
    assert!(segments.len() >= 4, "{segments:?}");
    for path in &segments {
        let content = disk.files()[path].clone();
        for at in 0..content.len() {
            let disk = copy(&disk);
            let mut flipped = content.clone();
            flipped[at] ^= 0x40;
            disk.overwrite(path, flipped);
            // An index vouches for its segment's length only. Without it the segment is read.
            files(&disk, INDEX).iter().for_each(|path| disk.lose(path));
            let (mut core, recovery) = open(&disk).expect("opens");
            let left = numbers(&core);
            assert!(left.len() >= 19 && left.is_sorted(), "{path:?} byte {at}: {left:?}");
            // Nothing comes behind the last commit, so it passes for one that was never finished.
            let torn = recovery.torn_bytes > 0;
            assert_eq!((torn, recovery.damaged.len()), (left.len() == 19 && left[18] == 18, usize::from(!torn)), "{path:?} byte {at}");
            assert_eq!(recovery.missing_commits, if torn { 0 } else { 20 - left.len() as u64 });
            knows_its_repeats(&mut core);
            let kept = disk.files().into_keys().any(|path| path.starts_with("/log/damaged"));
            assert!(kept, "the damaged bytes are kept");
        }
    }
}

#[test]
fn a_zeroed_page_in_a_segment_read_long_after_the_start_is_passed_over_and_counted() {
    let disk = written();
    let (core, _) = open(&disk).expect("opens");
    let path = &files(&disk, LOG)[1];
    let mut content = disk.files()[path].clone();
    let middle = content.len() / 2;
    content[middle..middle + 10].fill(0);
    disk.overwrite(path, content);
    assert_eq!(numbers(&core).len(), 19);
    assert!(core.shelf().counts().1 > 0);
}

#[test]
fn a_segment_cut_anywhere_loses_only_what_was_cut() {
    let disk = written();
    let last = files(&disk, LOG).pop().expect("the last");
    let content = disk.files()[&last].clone();
    let ends: Vec<usize> = frame::pieces(name(&last).salt, &content)
        .iter()
        .map(|piece| match piece {
            frame::Piece::Frame(offset, frame) => *offset as usize + frame.bytes.len(),
            frame::Piece::Rubbish(..) => panic!("it is whole"),
        })
        .collect();
    for at in 0..=content.len() {
        let disk = copy(&disk);
        disk.overwrite(&last, content[..at].to_vec());
        let (mut core, recovery) = open(&disk).expect("opens");
        let lost = ends.iter().skip(1).filter(|end| **end > at).count();
        assert_eq!(numbers(&core), all()[..20 - lost], "cut at {at}");
        assert_eq!(recovery.torn_bytes > 0, at > ends[0] && !ends.contains(&at));
        knows_its_repeats(&mut core);
    }
}

#[test]
fn a_missing_segment_is_a_counted_gap() {
    let disk = written();
    let segments = files(&disk, LOG);
    disk.lose(&segments[1]);
    let (mut core, recovery) = open(&disk).expect("opens");
    let left = numbers(&core);
    assert!(left.len() < 20);
    assert_eq!(recovery.missing_commits, 20 - left.len() as u64);
    knows_its_repeats(&mut core);
}

#[test]
fn numbers_go_on_even_when_all_but_the_last_segment_is_missing() {
    for only_checkpoint in [false, true] {
        let disk = written();
        let segments = files(&disk, LOG);
        let (last, before) = segments.split_last().expect("several");
        before.iter().for_each(|path| disk.lose(path));
        let content = disk.files()[last].clone();
        let pieces = frame::pieces(name(last).salt, &content);
        let mut expected = 21;
        if only_checkpoint {
            // No report is left that would show which numbers were given.
            let Some(frame::Piece::Frame(_, checkpoint)) = pieces.first() else { panic!("it is whole") };
            disk.overwrite(last, checkpoint.bytes.to_vec());
            expected -= pieces.len() as u64 - 1;
        }
        let (mut core, _) = open(&disk).expect("opens");
        let committed = core.commit(vec![report(1_000)]).expect("the disk works");
        assert!(matches!(&committed.outcomes[0], Outcome::Report(receipt) if receipt.tx.0 == expected));
    }
}

#[test]
fn a_closed_segment_that_has_been_cut_is_read_again() {
    let disk = written();
    let path = &files(&disk, LOG)[1];
    let content = disk.files()[path].clone();
    let Some(frame::Piece::Frame(offset, _)) = frame::pieces(name(path).salt, &content).pop() else { panic!("it is whole") };
    disk.overwrite(path, content[..offset as usize].to_vec());
    let (mut core, recovery) = open(&disk).expect("opens");
    assert_eq!((numbers(&core).len(), recovery.reports, recovery.missing_commits), (19, 19, 1));
    knows_its_repeats(&mut core);
}

#[test]
fn a_renamed_segment_keeps_its_place() {
    let disk = written();
    let segments = files(&disk, LOG);
    let content = disk.files()[&segments[1]].clone();
    disk.lose(&segments[1]);
    let renamed = Name { number: 900, ..name(&segments[1]) };
    disk.overwrite(&renamed.log(Path::new(FOLDER)), content);
    let (mut core, recovery) = open(&disk).expect("opens");
    assert_eq!((numbers(&core), recovery.missing_commits), (all(), 0));
    knows_its_repeats(&mut core);
    drop(core);
    let (core, _) = open(&disk).expect("opens again");
    assert_eq!(numbers(&core), all());
}

#[test]
fn a_duplicated_segment_counts_once_and_takes_no_other_with_it() {
    let disk = written();
    let segments = files(&disk, LOG);
    for path in &segments {
        let disk = copy(&disk);
        let again = Name { number: 900, ..name(path) };
        disk.overwrite(&again.log(Path::new(FOLDER)), disk.files()[path].clone());
        let (mut core, recovery) = open(&disk).expect("opens");
        assert_eq!((numbers(&core), recovery.missing_commits, recovery.set_aside), (all(), 0, vec![]), "{path:?}");
        assert_eq!(files(&disk, LOG).len(), segments.len(), "{path:?}: the superfluous one is gone");
        knows_its_repeats(&mut core);
    }
}

#[test]
fn of_two_segments_that_contradict_each_other_the_later_made_counts_and_none_is_lost() {
    let (disk, other) = (written(), written());
    let (path, rival) = (&files(&disk, LOG)[1], &files(&other, LOG)[1]);
    // The same sequences, but other commits.
    let pieces = other.files()[rival].clone();
    let rewritten: Vec<u8> = frame::pieces(name(rival).salt, &pieces)
        .iter()
        .flat_map(|piece| match piece {
            frame::Piece::Frame(_, frame) => {
                frame::encode(name(path).salt, frame.sequence, frame.stamp.plus_micros(1), &frame.body().expect("readable"))
            }
            frame::Piece::Rubbish(..) => panic!("it is whole"),
        })
        .collect();
    let later = Name { number: 900, ..name(path) };
    disk.overwrite(&later.log(Path::new(FOLDER)), rewritten);
    let before = disk.files()[path].clone();
    let (core, recovery) = open(&disk).expect("opens");
    assert_eq!((numbers(&core), recovery.set_aside), (all(), vec![name(path).number]));
    let aside = Path::new(FOLDER).join("damaged").join(path.file_name().expect("a name"));
    assert_eq!(disk.files()[&aside], before);
}

#[test]
fn indexes_are_derived() {
    let disk = written();
    let indexes = files(&disk, INDEX);
    assert!(!indexes.is_empty());
    for path in &indexes {
        let content = disk.files()[path].clone();
        for at in (0..content.len()).chain([content.len()]) {
            let disk = copy(&disk);
            let mut damaged = content.clone();
            match damaged.get_mut(at) {
                Some(byte) => *byte ^= 1,
                None => damaged.truncate(at / 2),
            }
            disk.overwrite(path, damaged);
            let (mut core, recovery) = open(&disk).expect("opens");
            assert_eq!((numbers(&core), recovery.reports), (all(), 20), "{path:?} byte {at}");
            knows_its_repeats(&mut core);
        }
    }
    let disk = copy(&disk);
    let before = disk.files();
    indexes.iter().for_each(|path| disk.lose(path));
    open(&disk).expect("opens");
    let decoded = |files: &std::collections::BTreeMap<PathBuf, Vec<u8>>, path: &PathBuf| files[path].len();
    for path in &indexes {
        assert_eq!(decoded(&disk.files(), path), decoded(&before, path), "built anew");
    }
}

#[test]
fn an_id_table_that_rots_while_the_log_is_open_is_made_anew_once() {
    let disk = written();
    let (mut core, _) = open(&disk).expect("opens");
    let indexes = files(&disk, INDEX);
    let mut whole = Vec::new();
    for path in &indexes {
        let mut content = disk.files()[path].clone();
        whole.push(content.len());
        let last = content.len() - 10;
        content[last] ^= 1;
        disk.overwrite(path, content);
    }
    knows_its_repeats(&mut core);
    let steps = disk.steps();
    knows_its_repeats(&mut core);
    assert!(disk.steps() - steps <= 4, "only the commit");
    assert_eq!(indexes.iter().map(|path| disk.files()[path].len()).collect::<Vec<_>>(), whole);
    // One whose segment is damaged too is given up, and reports go on to be taken.
    for path in indexes.iter().chain(&files(&disk, LOG)[..1]) {
        disk.overwrite(path, vec![0; disk.files()[path].len()]);
    }
    core.commit((0..20).map(report).collect()).expect("goes on");
}

#[test]
fn a_report_whose_id_cannot_be_looked_up_now_is_refused_and_others_are_taken() {
    let fails = Arc::new(AtomicBool::new(false));
    let is_failing = fails.clone();
    let disk = written().guarded(move |call| match call {
        Call::ReadAt(..) if is_failing.load(Ordering::Relaxed) => Err(io::Error::other("too many open files")),
        _ => Ok(()),
    });
    let started = Core::open(Path::new("/"), Arc::new(disk), Arc::new(StillClock), Stamp::ZERO, (700, 2_000)).expect("opens");
    let mut core = started.core;
    fails.store(true, Ordering::Relaxed);
    let without_id = match report(20) {
        Request::Report { project, report, attachments } => {
            Request::Report { project, report: NewReport { id: None, ..report }, attachments }
        }
        _ => unreachable!("it is a report"),
    };
    let committed = core.commit(vec![report(0), without_id]).expect("the log goes on");
    assert!(matches!(&committed.outcomes[..], [Outcome::Refused, Outcome::Report(receipt)] if !receipt.duplicate));
    fails.store(false, Ordering::Relaxed);
    let committed = core.commit(vec![report(0)]).expect("the log goes on");
    assert!(matches!(&committed.outcomes[..], [Outcome::Report(receipt)] if receipt.duplicate), "and knows it again");
}

#[test]
fn an_index_that_could_not_be_written_is_written_a_while_later() {
    let (disk, clock) = (SimDisk::default(), Arc::new(HandClock::default()));
    let started = Core::open(Path::new("/"), Arc::new(disk.clone()), clock.clone(), Stamp::ZERO, (700, 2_000)).expect("opens");
    let (mut core, archive) = (started.core, started.archive);
    core.leaves_indexes = true;
    let mut numbers = 0..;
    let index = loop {
        core.commit(vec![report(numbers.next().expect("there are more"))]).expect("the disk works");
        if let Some(index) = core.index_to_write() {
            break index;
        }
    };
    let due = || archive.due(Stamp::from_secs(u64::MAX));
    disk.arm(0, Fault::Once(io::ErrorKind::StorageFull));
    index.write();
    core.commit(vec![Request::Tick]).expect("the disk works");
    assert!(due().is_empty(), "its ids would be lost");
    assert!(core.index_to_write().is_none(), "not at every commit");
    clock.advance(11);
    core.commit(vec![Request::Tick]).expect("the disk works");
    // Nobody has a thread for it this time.
    drop(core.index_to_write().expect("it is time"));
    clock.advance(11);
    core.commit(vec![Request::Tick]).expect("the disk works");
    clock.advance(11);
    core.commit(vec![Request::Tick]).expect("the disk works");
    core.index_to_write().expect("it is time again").write();
    core.commit(vec![Request::Tick]).expect("the disk works");
    assert!(core.index_to_write().is_none(), "it is there");
    assert_eq!(due().len(), 1);
}

#[test]
fn a_log_that_stops_says_so_although_an_index_is_being_written() {
    let disk = SimDisk::default();
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let (began, has_begun) = std::sync::mpsc::channel();
    let gate = Mutex::new((began, wait));
    let guarded = disk.guarded(move |call| {
        if let Call::Create(path) = call
            && path.to_string_lossy().contains(INDEX)
        {
            let (began, wait) = &*gate.lock().expect("no panic while held");
            began.send(()).expect("it is waited for");
            // An error: the test is over.
            let _ = wait.recv();
        }
        Ok(())
    });
    let settings = Settings { segment_bytes: 700, memory_bytes: 2_000, retention: Retention { secs: None, bytes: None } };
    let opened = Reports::open(Path::new("/"), Arc::new(guarded), Arc::new(StillClock), Stamp::ZERO, settings);
    let reports = Arc::new(opened.expect("opens").0);
    // Dropped before them, however this ends: they wait for the thread.
    let go_on = go_on;
    block_on(async {
        let mut numbers = 0..;
        while files(&disk, LOG).len() < 2 {
            let Request::Report { project, report, .. } = report(numbers.next().expect("there are more")) else { unreachable!() };
            reports.append(project, report).await.expect("taken");
        }
        has_begun.recv_timeout(std::time::Duration::from_secs(20)).expect("the closed segment gets an index");
        disk.arm(0, Fault::ForEver(io::ErrorKind::Other));
        assert!(reports.tick().await.is_err());
        tokio::time::timeout(std::time::Duration::from_secs(20), reports.stopped()).await.expect("told at once");
        assert!(!reports.is_open());
    });
    drop(go_on);
}

#[test]
fn an_index_is_used_where_there_is_one() {
    let disk = written();
    // Nothing reads this segment at the start: it could not be opened with other content of its length otherwise.
    let path = &files(&disk, LOG)[0];
    let length = disk.files()[path].len();
    disk.overwrite(path, vec![0; length]);
    let (mut core, recovery) = open(&disk).expect("opens");
    assert_eq!(recovery.reports, 20);
    let committed = core.commit(vec![report(0)]).expect("the disk works");
    assert!(matches!(&committed.outcomes[0], Outcome::Report(receipt) if receipt.duplicate));
}

#[test]
fn a_later_programs_log_is_refused_and_left_alone() {
    let disk = written();
    let path = files(&disk, LOG).pop().expect("the last");
    let mut content = disk.files()[&path].clone();
    let mut later = frame::encode(name(&path).salt, 21, Stamp::from_secs(2_000_000_000), b"from the future");
    later[4] = 2;
    frame::seal(name(&path).salt, &mut later);
    content.extend(later);
    disk.overwrite(&path, content.clone());
    assert!(matches!(open(&disk), Err(OpenError::Newer { found: 2, .. })));
    assert_eq!(disk.files()[&path], content);
}

#[test]
fn a_commit_that_makes_no_sense_is_refused_with_its_place() {
    let disk = written();
    let path = files(&disk, LOG).pop().expect("the last");
    let mut content = disk.files()[&path].clone();
    let at = content.len() as u64;
    content.extend(frame::encode(name(&path).salt, 21, Stamp::from_secs(2_000_000_000), b"\x01\x09nonsense"));
    disk.overwrite(&path, content);
    assert!(matches!(open(&disk), Err(OpenError::Foreign { offset, .. }) if offset == at));
}
