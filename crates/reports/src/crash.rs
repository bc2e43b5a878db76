//! Crash states of the log, enumerated in memory: a workload is recorded operation by operation; after every prefix the disk may
//! hold any state that the operating system is allowed to leave; each is recovered and compared with what was acknowledged.
//!
//! Allowed are: appended bytes that were not synced are lost, kept, cut anywhere, replaced by zeros, or damaged in the middle
//! with later ones kept; names that were not synced are old or new, each on its own.

use crate::attachments::Attachments;
use crate::clock::{Clock, Reading};
use crate::codec::{Entry, StoredReport};
use crate::core::{Core, Outcome, Request};
use crate::disk::{Appender, Disk};
use model::{Attributes, NewAttachment, NewReport, ProjectId, ReportId, Stamp, Tx, Value};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// One workload each, with many crash states of each.
const SEEDS: u64 = 160;
const STATES_PER_SEED: u64 = 130;
/// Small, so that segments rotate within a workload.
const SEGMENT_BYTES: u64 = 900;

#[derive(Clone, Debug)]
enum Op {
    Create(PathBuf, usize),
    Append(usize, Vec<u8>),
    Sync(usize),
    SyncFolder(PathBuf),
    Rename(PathBuf, PathBuf, usize),
    Remove(PathBuf),
}

#[derive(Clone, Default)]
struct State {
    names: BTreeMap<PathBuf, usize>,
    files: Vec<Vec<u8>>,
}

#[derive(Default)]
struct World {
    /// Durable when the recording began.
    base: State,
    now: State,
    ops: Vec<Op>,
    /// Fails the operation of this number and all after it.
    fail_at: Option<usize>,
}

#[derive(Clone, Default)]
struct SimDisk(Arc<Mutex<World>>);

impl SimDisk {
    fn over(base: State) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(World { now: base.clone(), base, ..World::default() })))
    }

    fn ops(&self) -> usize {
        self.0.lock().expect("no panic while held").ops.len()
    }

    fn state(&self) -> State {
        self.0.lock().expect("no panic while held").now.clone()
    }

    fn record(&self, op: Op) -> io::Result<()> {
        let mut world = self.0.lock().expect("no panic while held");
        if world.fail_at.is_some_and(|at| world.ops.len() >= at) {
            return Err(io::Error::other("injected"));
        }
        apply(&mut world.now, &op);
        world.ops.push(op);
        Ok(())
    }

    /// A state in which a crash after the first `prefix` operations may leave the disk.
    fn crashed(&self, prefix: usize, random: &mut Random) -> State {
        let world = self.0.lock().expect("no panic while held");
        let ops = &world.ops[..prefix];
        let mut state = world.base.clone();
        for (at, op) in ops.iter().enumerate() {
            match op {
                // A rename is durable with the folder of the new name.
                Op::Create(path, _) | Op::Remove(path) | Op::Rename(_, path, _) => {
                    let folder = path.parent().expect("a file is in a folder");
                    let synced = ops[at..].iter().any(|later| matches!(later, Op::SyncFolder(synced) if synced == folder));
                    if synced || random.below(2) == 0 {
                        apply(&mut state, op);
                    } else if let Op::Create(_, file) = op {
                        // The file is there, only its name is not.
                        state.files.resize(state.files.len().max(file + 1), Vec::new());
                    }
                }
                Op::Append(file, bytes) => {
                    let synced = ops[at..].iter().any(|later| matches!(later, Op::Sync(synced) if synced == file));
                    let kept = if synced { bytes.clone() } else { damaged(bytes, random) };
                    state.files[*file].extend(kept);
                }
                Op::Sync(_) | Op::SyncFolder(_) => {}
            }
        }
        state
    }
}

/// What may be left of bytes that were not synced.
fn damaged(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut left = bytes.to_vec();
    match random.below(7) {
        0 => left.clear(),
        1 => {}
        2 => left.truncate(random.below(bytes.len() as u64 + 1) as usize),
        3 => left.truncate(bytes.len() / 512 * 512),
        4 => left.iter_mut().for_each(|byte| *byte = 0),
        5 => {
            let cut = random.below(bytes.len() as u64 + 1) as usize;
            left[cut..].iter_mut().for_each(|byte| *byte = 0);
        }
        _ => {
            // An earlier sector is lost, a later one is not.
            let from = random.below(bytes.len() as u64) as usize;
            let to = (from + 1 + random.below(512) as usize).min(bytes.len());
            left[from..to].iter_mut().for_each(|byte| *byte = 0);
        }
    }
    left
}

fn apply(state: &mut State, op: &Op) {
    match op {
        Op::Create(path, file) => {
            state.files.resize(state.files.len().max(file + 1), Vec::new());
            state.names.insert(path.clone(), *file);
        }
        Op::Append(file, bytes) => state.files[*file].extend(bytes),
        Op::Rename(from, to, file) => {
            state.names.remove(from);
            state.names.insert(to.clone(), *file);
        }
        Op::Remove(path) => {
            state.names.remove(path);
        }
        Op::Sync(_) | Op::SyncFolder(_) => {}
    }
}

impl Disk for SimDisk {
    fn create_folder(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let within = state.names.keys().filter(|path| path.parent() == Some(folder));
        Ok(within.filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Appender>> {
        let file = {
            let world = self.0.lock().expect("no panic while held");
            if world.now.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            world.now.files.len()
        };
        self.record(Op::Create(path.to_owned(), file))?;
        Ok(Box::new(SimFile { disk: self.clone(), file }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let world = self.0.lock().expect("no panic while held");
        let file = world.now.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(world.now.files[*file].clone())
    }

    fn read_at(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let bytes = self.read(path)?;
        let from = offset as usize;
        bytes.get(from..from + length).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let file = *self.state().names.get(from).ok_or(io::ErrorKind::NotFound)?;
        self.record(Op::Rename(from.to_owned(), to.to_owned(), file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.record(Op::Remove(path.to_owned()))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.record(Op::SyncFolder(folder.to_owned()))
    }
}

struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl Appender for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.disk.record(Op::Append(self.file, bytes.to_vec()))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.record(Op::Sync(self.file))
    }
}

/// Moves on by a second at each reading.
#[derive(Default)]
struct SimClock(AtomicU64);

impl Clock for SimClock {
    fn read(&self) -> Reading {
        let at = self.0.fetch_add(1, Ordering::Relaxed);
        Reading { wall: Stamp::from_secs(1_800_000_000 + at), boot_micros: at * 1_000_000 }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound.max(1)
    }
}

/// A report that was handed in, and since which operation it is acknowledged.
#[derive(Clone)]
struct Submitted {
    project: ProjectId,
    id: ReportId,
    attributes: Attributes,
    file: Option<Vec<u8>>,
    acknowledged: Option<(usize, Tx, Stamp)>,
}

struct Run {
    disk: SimDisk,
    clock: Arc<SimClock>,
    core: Core,
    attachments: Attachments,
    recovered: Vec<StoredReport>,
    last_durable: Stamp,
}

fn folder() -> &'static Path {
    Path::new("/data/log")
}

fn open(disk: &SimDisk, clock: &Arc<SimClock>) -> Run {
    let mut recovered = Vec::new();
    let (core, _, recovery) = Core::open(folder(), Arc::new(disk.clone()), clock.clone(), Stamp::ZERO, SEGMENT_BYTES, &mut |entry| {
        if let Entry::Report(stored) = entry {
            recovered.push((**stored).clone());
        }
    })
    .expect("a crashed log opens");
    let attachments = Attachments::open(Arc::new(disk.clone()), Path::new("/data/files")).expect("opens");
    Run { disk: disk.clone(), clock: clock.clone(), core, attachments, recovered, last_durable: recovery.last_durable }
}

/// Some commits of some reports, some with files, some repeated, some idle.
fn work(run: &mut Run, random: &mut Random, submitted: &mut Vec<Submitted>) {
    for _ in 0..3 + random.below(6) {
        let (mut requests, mut indices) = (Vec::new(), Vec::new());
        for _ in 0..random.below(4) {
            let project = ProjectId(1 + random.below(2) as u32);
            let number = submitted.len() as u64;
            let text = "x".repeat(random.below(400) as usize);
            let attributes = Attributes::from_pairs([("n".to_owned(), Value::from(number)), ("text".to_owned(), Value::Text(text))]);
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_le_bytes());
            id[8..].copy_from_slice(&random.below(u64::MAX).to_le_bytes());
            let file = (random.below(3) == 0).then(|| format!("file of {number}").into_bytes());
            let new = |bytes: &Vec<u8>| NewAttachment { name: "f".into(), content_type: "text/plain".into(), bytes: bytes.clone() };
            let attachments = file.iter().map(|bytes| run.attachments.store(1, &new(bytes)).expect("no fault yet")).collect();
            let report =
                NewReport { id: Some(ReportId(id)), attributes: attributes.clone(), raw: vec![number as u8; 20], attachments: Vec::new() };
            requests.push(Request::Report { project, report, attachments });
            indices.push(submitted.len());
            submitted.push(Submitted { project, id: ReportId(id), attributes, file, acknowledged: None });
        }
        if requests.is_empty() {
            requests.push(Request::Tick);
        }
        let committed = run.core.commit(requests).expect("no fault yet");
        let reports =
            committed.outcomes.iter().filter_map(|outcome| if let Outcome::Report(receipt) = outcome { Some(receipt) } else { None });
        for (receipt, index) in reports.zip(indices) {
            assert!(!receipt.duplicate, "a new report is no repeat");
            submitted[index].acknowledged = Some((run.disk.ops(), receipt.tx, receipt.stamp));
        }
    }
}

/// Recovers a state and compares it with what was submitted, of which everything acknowledged by `prefix` must be there.
fn check(state: State, clock: &Arc<SimClock>, submitted: &[Submitted], prefix: usize, random: &mut Random) -> Run {
    let disk = SimDisk::over(state);
    let mut run = open(&disk, clock);
    let find = |one: &Submitted| {
        run.recovered.iter().filter(|stored| stored.report.project == one.project && stored.id == Some(one.id)).collect::<Vec<_>>()
    };
    for one in submitted {
        let found = find(one);
        match one.acknowledged.filter(|(at, ..)| *at <= prefix) {
            Some((_, tx, stamp)) => {
                assert_eq!(found.len(), 1, "an acknowledged report is there once");
                assert_eq!((found[0].report.tx, found[0].report.stamp), (tx, stamp), "with its number and stamp");
                assert!(run.last_durable >= stamp, "the durable stamp does not go back");
            }
            None => assert!(found.len() <= 1, "what was not acknowledged is there once or not at all"),
        }
    }
    for stored in &run.recovered {
        let one = submitted.iter().find(|one| stored.id == Some(one.id)).expect("nothing is invented");
        assert_eq!((&stored.report.attributes, stored.report.project), (&one.attributes, one.project), "nothing is half");
        assert_eq!(stored.attachments.len(), usize::from(one.file.is_some()));
        for (attachment, bytes) in stored.attachments.iter().zip(&one.file) {
            assert_eq!(&run.attachments.load(attachment).expect("a committed file is there"), bytes);
        }
    }
    let again = open(&SimDisk::over(disk.state()), clock);
    assert_eq!(again.recovered, run.recovered, "recovering what was recovered changes nothing");

    let acknowledged: Vec<&Submitted> = submitted.iter().filter(|one| one.acknowledged.is_some_and(|(at, ..)| at <= prefix)).collect();
    if !acknowledged.is_empty() {
        let repeat = acknowledged[random.below(acknowledged.len() as u64) as usize];
        let report = NewReport { id: Some(repeat.id), attributes: Attributes::default(), raw: Vec::new(), attachments: Vec::new() };
        let request = Request::Report { project: repeat.project, report, attachments: Vec::new() };
        let committed = run.core.commit(vec![request]).expect("no fault");
        let Outcome::Report(receipt) = &committed.outcomes[0] else { unreachable!("a report was asked for") };
        assert!(receipt.duplicate, "a repeat is recognised after a restart");
        assert_eq!(Some(receipt.tx), repeat.acknowledged.map(|(_, tx, _)| tx));
        assert!(committed.stamp > run.last_durable, "stamps go on after the last");
    }
    run
}

#[test]
fn twenty_thousand_crash_states_lose_and_invent_nothing() {
    let mut states = 0;
    for seed in 1..=SEEDS {
        let describe = format!("seed {seed}");
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let clock = Arc::new(SimClock::default());
        let mut run = open(&SimDisk::default(), &clock);
        let mut submitted = Vec::new();
        work(&mut run, &mut random, &mut submitted);
        for _ in 0..STATES_PER_SEED {
            let prefix = random.below(run.disk.ops() as u64 + 1) as usize;
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let state = run.disk.crashed(prefix, &mut random);
                let mut next = check(state, &clock, &submitted, prefix, &mut random);
                // Every fourth goes on from there, and crashes a second time.
                if random.below(4) > 0 {
                    return 1;
                }
                let mut later: Vec<Submitted> = submitted.clone();
                for one in &mut later {
                    // What the first crash left is durable; what it took was never acknowledged.
                    let there = next.recovered.iter().find(|stored| stored.id == Some(one.id));
                    one.acknowledged = there.map(|stored| (0, stored.report.tx, stored.report.stamp));
                }
                work(&mut next, &mut random, &mut later);
                let prefix = random.below(next.disk.ops() as u64 + 1) as usize;
                // Recovery itself may be what is cut short: what it found counts once it has finished.
                let state = next.disk.crashed(prefix, &mut random);
                check(state, &next.clock, &later, prefix, &mut random);
                2
            }));
            match caught {
                Ok(checked) => states += checked,
                Err(panic) => {
                    tracing::error!("{describe}");
                    std::panic::resume_unwind(Box::new(format!(
                        "{describe}, after {prefix} operations: {:?}",
                        panic.downcast_ref::<String>()
                    )));
                }
            }
        }
    }
    assert!(states >= 20_000, "{states} states");
}

#[test]
fn every_failing_operation_leaves_what_was_acknowledged() {
    for fail_at in 0..60 {
        let clock = Arc::new(SimClock::default());
        let disk = SimDisk::default();
        disk.0.lock().expect("no panic while held").fail_at = Some(fail_at);
        let mut submitted: Vec<Submitted> = Vec::new();
        let opened = Core::open(folder(), Arc::new(disk.clone()), clock.clone(), Stamp::ZERO, SEGMENT_BYTES, &mut |_| {});
        if let Ok((mut core, ..)) = opened {
            for number in 0..20u64 {
                let mut id = [7; 16];
                id[..8].copy_from_slice(&number.to_le_bytes());
                let attributes = Attributes::from_pairs([("n".to_owned(), Value::from(number))]);
                let report =
                    NewReport { id: Some(ReportId(id)), attributes: attributes.clone(), raw: vec![1; 200], attachments: Vec::new() };
                let mut one = Submitted { project: ProjectId(1), id: ReportId(id), attributes, file: None, acknowledged: None };
                let committed = core.commit(vec![Request::Report { project: ProjectId(1), report, attachments: Vec::new() }]);
                if let Ok(committed) = &committed {
                    let Outcome::Report(receipt) = &committed.outcomes[0] else { unreachable!("a report was asked for") };
                    one.acknowledged = Some((disk.ops(), receipt.tx, receipt.stamp));
                }
                submitted.push(one);
                // The first failure is the last thing the log does.
                if committed.is_err() {
                    break;
                }
            }
        }
        let mut random = Random(fail_at as u64 + 1);
        for _ in 0..5 {
            let state = disk.crashed(disk.ops(), &mut random);
            check(state, &clock, &submitted, disk.ops(), &mut random);
        }
    }
}
