//! Crash states, enumerated: a workload is recorded step by step on a disk in memory; after any number of its steps the disk may be
//! in any state that `sim` allows; each is recovered and compared with what had been acknowledged by then.
//!
//! A workload has several runs of the program, each ended by a kill, after which the next finds what the page cache shows.

use crate::archive::Archive;
use crate::attachments::Attachments;
use crate::clock::{Clock, Reading};
use crate::codec::{Entry, StoredReport};
use crate::core::{Core, Outcome, Request, Started};
use crate::log::CommitError;
use crate::memory::Memory;
use crate::overlay::Change;
use crate::recovery::Recovery;
use crate::sim::{Choices, Fault, SimDisk};
use model::{Attributes, NewAttachment, NewReport, ProjectId, ReportId, Stamp, Tx, Value};
use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

/// Workloads, and crash states of each.
const SEEDS: u64 = 200;
const STATES_PER_SEED: u64 = 100;
/// So small that segments rotate within a workload and frames straddle sectors.
const SEGMENT_BYTES: u64 = 1_500;

/// Moves on by a second at each reading; the next run's wall may be behind the last one's stamps.
#[derive(Default)]
struct SimClock(AtomicU64);

impl Clock for SimClock {
    fn read(&self) -> Reading {
        let at = self.0.fetch_add(1, Ordering::Relaxed);
        Reading { wall: Stamp::from_secs(1_800_000_000 + at % 7), boot_micros: at * 1_000_000 }
    }
}

/// Everything that was ever handed to the log, by a number that is in the report.
#[derive(Clone, Default)]
struct Oracle {
    submitted: Vec<Submitted>,
    /// The durable stamp as it was published, and after which step.
    durable: Vec<(usize, Stamp)>,
}

#[derive(Clone)]
struct Submitted {
    project: ProjectId,
    id: ReportId,
    attributes: Attributes,
    file: Option<Vec<u8>>,
    /// After which step it was acknowledged, or found by a restart, with number and stamp.
    known: Option<(usize, Tx, Stamp)>,
    /// After which step its late attachment was acknowledged.
    late: Option<usize>,
    /// After which step its attribute was changed.
    changed: Option<usize>,
    /// Whether somebody has begun to delete it, and after which step that was acknowledged.
    deleting: bool,
    deleted: Option<usize>,
}

/// What was asked of a submission.
enum Asked {
    Report(usize),
    Late(usize),
    Set(usize),
    Delete(usize),
    Nothing,
}

/// One run of the program.
struct Run {
    disk: SimDisk,
    core: Core,
    memory: RwLock<Memory>,
    archive: Archive,
    files: Attachments,
    recovery: Recovery,
}

fn folder() -> PathBuf {
    PathBuf::from("/data/reports")
}

fn open(disk: &SimDisk) -> Result<Run, crate::OpenError> {
    let bounds = (SEGMENT_BYTES, 3_000);
    let started = Core::open(&folder(), Arc::new(disk.clone()), Arc::new(SimClock::default()), Stamp::ZERO, bounds)?;
    let files = Path::new("/data/reports/attachments");
    let files = Attachments::open(Arc::new(disk.clone()), files).map_err(crate::recovery::failed("open", files))?;
    let Started { mut core, memory, archive, recovery, .. } = started;
    core.leaves_indexes = true;
    Ok(Run { disk: disk.clone(), core, memory: RwLock::new(memory), archive, files, recovery })
}

impl Run {
    /// All reports of log and archive, oldest first: as they are there, and as people see them.
    fn reports(&self) -> (usize, Vec<StoredReport>) {
        let mut reports = Vec::new();
        for name in self.archive.shelf.ordered() {
            for file in self.archive.shelf.archive(name).iter().flat_map(|manifest| &manifest.files) {
                let file = self.archive.open(name, file).expect("the archive is readable");
                reports.extend(file.reports().map(|stored| stored.expect("the archive is readable")));
            }
        }
        let visit = &mut |entry| {
            if let Entry::Report(stored) = entry {
                reports.push(*stored);
            }
        };
        self.archive.shelf.read(|_| true, visit).expect("the log is readable");
        let overlay = &self.memory.read().expect("no panic while held").overlay;
        (reports.len(), reports.into_iter().filter_map(|stored| overlay.apply(stored)).collect())
    }

    /// Commits some groups: new reports, some with files, some repeats, some late attachments, some ticks.
    fn work(&mut self, groups: u64, choices: &mut Choices, oracle: &mut Oracle) -> Result<(), CommitError> {
        for _ in 0..groups {
            let (mut requests, mut asked) = (Vec::new(), Vec::new());
            for _ in 0..choices.below(4) {
                let number = oracle.submitted.len();
                let of = choices.below(number.max(1) as u64) as usize;
                let known = oracle.submitted.get(of).and_then(|one| Some((one.project, one.known?.1)));
                match (choices.below(8), known) {
                    (0, _) if number > 0 => {
                        requests.push(self.request(&oracle.submitted[of], of)?);
                        asked.push(Asked::Report(of));
                    }
                    (1, Some((project, tx))) => {
                        let attachment = self.files.store(9, &file(b"late"), &mut self.files.hold())?;
                        requests.push(Request::Attachment { project, tx, attachment });
                        asked.push(Asked::Late(of));
                    }
                    (2, Some((project, tx))) => {
                        let change = Change::Set { attribute: "changed".into(), value: Some(Value::Bool(true)) };
                        requests.push(Request::Change { project, runs: vec![(tx, tx)], change });
                        asked.push(Asked::Set(of));
                    }
                    (3, Some((project, tx))) => {
                        oracle.submitted[of].deleting = true;
                        requests.push(Request::Change { project, runs: vec![(tx, tx)], change: Change::Delete });
                        asked.push(Asked::Delete(of));
                    }
                    _ => {
                        let one = Submitted::new(number, choices);
                        requests.push(self.request(&one, number)?);
                        asked.push(Asked::Report(number));
                        oracle.submitted.push(one);
                    }
                }
            }
            if requests.is_empty() {
                requests.push(Request::Tick);
                asked.push(Asked::Nothing);
            }
            let committed = self.core.commit(requests)?;
            let now = self.disk.steps();
            oracle.durable.push((now, committed.stamp));
            for (outcome, asked) in committed.outcomes.iter().zip(asked) {
                match (outcome, asked) {
                    (Outcome::Report(receipt), Asked::Report(at)) => match &mut oracle.submitted[at].known {
                        Some((_, tx, _)) => {
                            assert_eq!((receipt.duplicate, receipt.tx), (true, *tx), "a repeat gets the first one's number")
                        }
                        known => {
                            assert!(!receipt.duplicate, "what is not known is no repeat");
                            *known = Some((now, receipt.tx, receipt.stamp));
                        }
                    },
                    (Outcome::Attachment, Asked::Late(at)) => _ = oracle.submitted[at].late.get_or_insert(now),
                    (Outcome::Change, Asked::Set(at)) => _ = oracle.submitted[at].changed.get_or_insert(now),
                    (Outcome::Change, Asked::Delete(at)) => _ = oracle.submitted[at].deleted.get_or_insert(now),
                    (Outcome::Tick, Asked::Nothing) => {}
                    (outcome, _) => panic!("unasked for: {outcome:?}"),
                }
            }
            {
                let mut memory = self.memory.write().expect("no panic while held");
                committed.reports.iter().for_each(|report| memory.add(report));
                committed.amendments.iter().for_each(|entry| memory.amend(entry));
            }
            self.archive_some(choices);
            // The thread that writes indexes is some commits late, or has not come to it before the next one is due.
            if choices.below(3) == 0
                && let Some(index) = self.core.index_to_write()
            {
                index.write();
            }
        }
        Ok(())
    }

    /// Does what the archiver does at times of its own. What fails it would try again.
    fn archive_some(&self, choices: &mut Choices) {
        if choices.below(2) == 0
            && let Some(name) = self.archive.due(Stamp::from_secs(u64::MAX)).first()
        {
            let _ = self.archive.move_in(*name, &self.memory);
        }
        if choices.below(4) == 0
            && let Some(name) = self.archive.compactable(&self.memory, true, &std::collections::BTreeSet::new())
        {
            let _ = self.archive.compact(name, &self.memory);
        }
        if choices.below(4) == 0 {
            let _ = self.files.sweep(20, |files| self.archive.spare_named(&self.memory, files));
        }
    }

    /// Makes a submission, its file stored.
    fn request(&self, one: &Submitted, number: usize) -> io::Result<Request> {
        let attachments =
            one.file.iter().map(|bytes| self.files.store(1, &file(bytes), &mut self.files.hold())).collect::<io::Result<_>>()?;
        let report = NewReport { id: Some(one.id), attributes: one.attributes.clone(), raw: raw(number), attachments: Vec::new() };
        Ok(Request::Report { project: one.project, report, attachments })
    }

    /// Compares what is there with what is known to be, and takes what is there beyond that for known.
    fn check(&self, oracle: &mut Oracle) {
        let (accepted, reports) = self.reports();
        let mut by_number: HashMap<usize, &StoredReport> = HashMap::new();
        for stored in &reports {
            let Some(Value::Int(number)) = stored.report.attributes.get("number") else { panic!("nothing is invented") };
            let one = &oracle.submitted[*number as usize];
            let mut attributes = stored.report.attributes.clone();
            attributes.remove("changed");
            assert_eq!((&attributes, stored.report.project), (&one.attributes, one.project), "nothing is half");
            assert_eq!((stored.id, &stored.raw), (Some(one.id), &raw(*number as usize)), "nothing is half");
            assert!(by_number.insert(*number as usize, stored).is_none(), "report {number} is there once");
            for attachment in &stored.attachments {
                let content = if attachment.id == 9 { &b"late"[..] } else { one.file.as_ref().expect("it had one") };
                assert_eq!(self.files.load(attachment).expect("a committed file is there"), content);
            }
            let own = stored.attachments.iter().filter(|attachment| attachment.id == 1).count();
            assert_eq!(own, usize::from(one.file.is_some()), "with its file");
        }
        assert_eq!(self.recovery.reports, accepted as u64);
        assert!(oracle.durable.iter().all(|(_, stamp)| self.recovery.last_durable >= *stamp), "the durable stamp does not go back");
        assert_eq!((&self.recovery.damaged, self.recovery.missing_commits, &self.recovery.set_aside), (&vec![], 0, &vec![]));
        let now = self.disk.steps();
        for (number, one) in oracle.submitted.iter_mut().enumerate() {
            let stored = by_number.get(&number);
            let found = stored.map(|stored| (stored.report.tx, stored.report.stamp));
            if one.deleted.is_some() {
                assert_eq!(found, None, "deleted report {number} is gone");
                continue;
            }
            if found.is_none() && one.deleting {
                one.deleted = Some(now);
                continue;
            }
            if let Some((_, tx, stamp)) = one.known {
                assert_eq!(found, Some((tx, stamp)), "acknowledged report {number} is there with its number and stamp");
            }
            let has_late = stored.is_some_and(|stored| stored.attachments.iter().any(|attachment| attachment.id == 9));
            assert!(has_late || one.late.is_none(), "the late attachment of {number} is there");
            let is_changed = stored.is_some_and(|stored| stored.report.attributes.get("changed").is_some());
            assert!(is_changed || one.changed.is_none(), "the change of {number} is there");
            // From here on it is counted in windows: it must not be lost any more.
            one.known = one.known.or(found.map(|(tx, stamp)| (now, tx, stamp)));
            one.late = one.late.or(has_late.then_some(now));
            one.changed = one.changed.or(is_changed.then_some(now));
        }
        oracle.durable.push((now, self.recovery.last_durable));
    }

    /// Sends everything again: what is known is a repeat with its number, the rest is new and comes after.
    fn repeat_all(&mut self, oracle: &Oracle) {
        let last = self.recovery.last_durable;
        let greatest =
            |project| oracle.submitted.iter().filter(|one| one.project == project).filter_map(|one| one.known).map(|known| known.1).max();
        let before: HashMap<ProjectId, Option<Tx>> =
            [ProjectId(1), ProjectId(2)].into_iter().map(|project| (project, greatest(project))).collect();
        let requests = oracle.submitted.iter().enumerate().map(|(number, one)| self.request(one, number)).collect::<io::Result<_>>();
        let committed = self.core.commit(requests.expect("the disk works")).expect("the disk works");
        assert!(committed.stamp > last, "stamps go on after the last");
        for (outcome, one) in committed.outcomes.iter().zip(&oracle.submitted) {
            let Outcome::Report(receipt) = outcome else { panic!("a report was sent") };
            assert_eq!(receipt.duplicate, one.known.is_some(), "repeats are recognised after a restart");
            match one.known {
                Some((_, tx, _)) => assert_eq!(receipt.tx, tx),
                None => assert!(Some(receipt.tx) > before[&one.project], "numbers are not given twice"),
            }
        }
    }
}

impl Oracle {
    /// What is known to be on a disk that crashed after so many steps.
    fn at(&self, steps: usize) -> Oracle {
        let mut oracle = self.clone();
        for one in &mut oracle.submitted {
            one.known = one.known.filter(|(at, ..)| *at <= steps).map(|(_, tx, stamp)| (0, tx, stamp));
            // Only what is known can be deleted.
            one.deleting &= one.known.is_some();
            for at in [&mut one.late, &mut one.changed, &mut one.deleted] {
                *at = at.filter(|at| *at <= steps).map(|_| 0);
            }
        }
        oracle.durable.retain(|(at, _)| *at <= steps);
        oracle.durable.iter_mut().for_each(|(at, _)| *at = 0);
        oracle
    }
}

impl Submitted {
    fn new(number: usize, choices: &mut Choices) -> Submitted {
        let length = [10, 200, 900, 5_000][choices.below(4) as usize];
        // Not compressible, so that frames have the length they seem to have.
        let text: String = (0..length).map(|_| char::from(b'!' + choices.below(90) as u8)).collect();
        let attributes = [("number".to_owned(), Value::Int(number as i64)), ("text".to_owned(), Value::Text(text))];
        let mut id = [0; 16];
        id[..8].copy_from_slice(&choices.below(u64::MAX).to_be_bytes());
        Submitted {
            project: ProjectId(1 + choices.below(2) as u32),
            id: ReportId(id),
            attributes: Attributes::from_pairs(attributes),
            file: (choices.below(3) == 0).then(|| format!("file {}", choices.below(5)).into_bytes()),
            known: None,
            late: None,
            changed: None,
            deleting: false,
            deleted: None,
        }
    }
}

fn raw(number: usize) -> Vec<u8> {
    vec![b'r'; number % 90]
}

fn file(bytes: &[u8]) -> NewAttachment {
    NewAttachment { name: "name".into(), content_type: "text/plain".into(), bytes: bytes.to_vec() }
}

/// Runs a check for a seed; where it fails, the seed is in the message.
fn with_seed<T>(seed: u64, check: impl FnOnce(&mut Choices) -> T) -> T {
    let mut choices = Choices::new(seed);
    match catch_unwind(AssertUnwindSafe(|| check(&mut choices))) {
        Ok(value) => value,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            panic!("seed {seed}: {}", text.unwrap_or_default());
        }
    }
}

/// Some runs on one disk, each killed.
fn workload(choices: &mut Choices, oracle: &mut Oracle) -> SimDisk {
    let disk = SimDisk::default();
    for _ in 0..1 + choices.below(3) {
        let mut run = open(&disk).expect("opens");
        run.check(oracle);
        run.work(1 + choices.below(6), choices, oracle).expect("the disk works");
        // Killed at any step of a commit: half of it may be in the file, or all of it without having been synced.
        disk.arm(choices.below(4) as usize, Fault::ForEver(io::ErrorKind::Other));
        while run.work(1, choices, oracle).is_ok() {}
        disk.disarm();
    }
    disk
}

/// Brings the disk into a state after any number of its steps, opens and checks it.
fn crash(disk: &SimDisk, choices: &mut Choices, oracle: &Oracle) -> (Run, Oracle) {
    let steps = choices.below(disk.steps() as u64 + 1) as usize;
    let mut oracle = oracle.at(steps);
    let run = open(&disk.crash(steps, choices)).expect("a crashed log opens");
    run.check(&mut oracle);
    (run, oracle)
}

#[test]
fn twenty_thousand_crash_states_lose_and_invent_nothing() {
    let mut states = 0;
    for seed in 0..SEEDS {
        with_seed(seed, |choices| {
            let mut oracle = Oracle::default();
            let disk = workload(choices, &mut oracle);
            for _ in 0..STATES_PER_SEED {
                let (mut run, mut oracle) = crash(&disk, choices, &oracle);
                states += 1;
                match choices.below(3) {
                    0 => run.repeat_all(&oracle),
                    more => {
                        // Crashes again: during the recovery, or some commits later.
                        if more == 1 {
                            run.work(1 + choices.below(3), choices, &mut oracle).expect("the disk works");
                        }
                        crash(&run.disk, choices, &oracle);
                        states += 1;
                    }
                }
            }
        });
    }
    assert!(states >= 20_000, "{states} states");
}

/// Works on a disk that fails at its n-th step from the start, for every n until nothing fails any more.
fn fail_at_every_step(fault: Fault, mut after: impl FnMut(&SimDisk, &mut Choices, &Oracle, bool)) {
    for step in 0.. {
        let finished = with_seed(step as u64, |choices| {
            let (disk, mut oracle) = (SimDisk::default(), Oracle::default());
            disk.arm(step, fault);
            // Whether the log took reports to the end, having refused at most some.
            let mut worked = false;
            if let Ok(mut run) = open(&disk) {
                // The same work each time, whatever fails.
                let plan = &mut Choices::new(7);
                loop {
                    match run.work(1, plan, &mut oracle) {
                        Ok(()) if disk.steps() > 150 => break worked = true,
                        Ok(()) | Err(CommitError::Full) => {}
                        Err(CommitError::Broken(_)) => break,
                    }
                }
            }
            disk.disarm();
            after(&disk, choices, &oracle, worked);
            worked && step > 150
        });
        if finished {
            return;
        }
    }
}

#[test]
fn a_disk_that_fails_for_ever_from_any_step_on_loses_nothing_acknowledged() {
    fail_at_every_step(Fault::ForEver(io::ErrorKind::Other), |disk, choices, oracle, _| {
        for _ in 0..5 {
            crash(disk, choices, oracle);
        }
    });
}

#[test]
fn a_disk_that_fails_once_at_any_step_loses_nothing_acknowledged() {
    fail_at_every_step(Fault::Once(io::ErrorKind::Other), |disk, choices, oracle, _| {
        for _ in 0..5 {
            crash(disk, choices, oracle);
        }
    });
}

#[test]
fn a_disk_that_is_full_at_any_step_refuses_cleanly_and_goes_on() {
    let (mut most, mut refused) = (0, 0);
    fail_at_every_step(Fault::Once(io::ErrorKind::StorageFull), |disk, choices, oracle, worked| {
        let known = oracle.submitted.iter().filter(|one| one.known.is_some()).count();
        most = most.max(known);
        refused += usize::from(known < oracle.submitted.len());
        for _ in 0..5 {
            crash(disk, choices, oracle);
        }
        let mut whole = oracle.clone();
        open(disk).expect("opens").check(&mut whole);
        if !worked {
            return;
        }
        let before = oracle.submitted.iter().filter(|one| one.known.is_some()).count();
        assert_eq!(whole.submitted.iter().filter(|one| one.known.is_some()).count(), before, "what was refused is not there");
    });
    assert!(most > 0 && refused > 0);
}
