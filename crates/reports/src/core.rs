//! What the single writer does, without its thread: recognise repeats, number, stamp, commit. Deterministic given disk and clock,
//! so that tests can crash it at every step.

use crate::clock::{Clock, ClockStatus, ServiceClock};
use crate::codec::{Entry, StoredReport};
use crate::disk::Disk;
use crate::log::{Log, OpenError, Recovery};
use model::{Attachment, NewReport, ProjectId, Report, ReportId, Stamp, Tx, Value};
use sha2::{Digest, Sha256};
use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A repeat is recognised for 7 days or 20 million reports, whichever ends first (design.md 2).
const REPEATS_KEPT_MICROS: u64 = 7 * 86_400 * 1_000_000;
const REPEATS_KEPT: usize = 20_000_000;
/// Fingerprints remembered to tell the first of its kind; beyond it nothing is called first any more.
const FINGERPRINTS_KEPT: usize = 5_000_000;

/// What was done with a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its number in the project; of a repeat, the first one's.
    pub tx: Tx,
    /// Its stamp; of a repeat, the moment at which it was recognised.
    pub stamp: Stamp,
    /// Whether the report was there already.
    pub duplicate: bool,
    /// 64 hex digits.
    pub fingerprint: String,
    /// Whether it is the first with its fingerprint.
    pub first_of_fingerprint: bool,
}

/// Something to commit.
pub(crate) enum Request {
    Report { project: ProjectId, report: NewReport, attachments: Vec<Attachment> },
    Attachment { project: ProjectId, tx: Tx, attachment: Attachment },
    Tick,
}

/// What came of a request, once the commit it is in is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Report(Receipt),
    Attachment,
    Tick,
}

/// A commit that has become durable.
pub(crate) struct Committed {
    pub(crate) stamp: Stamp,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) reports: Vec<Arc<Report>>,
    pub(crate) attachments: Vec<((ProjectId, Tx), Attachment)>,
    pub(crate) bytes: u64,
}

pub(crate) struct Core {
    pub(crate) log: Log,
    clock: Arc<SharedClock>,
    last_tx: HashMap<ProjectId, Tx>,
    repeats: Repeats,
    fingerprints: HashSet<u64>,
    last_stamp: Stamp,
}

/// The service clock, read by the writer for stamps and by others for the time.
pub(crate) struct SharedClock {
    source: Arc<dyn Clock>,
    clock: Mutex<ServiceClock>,
}

impl SharedClock {
    pub(crate) fn now(&self) -> Stamp {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        // Read inside the lock: a reading taken before another thread's later one would not move the clock.
        let reading = self.source.read();
        clock.read(reading)
    }

    pub(crate) fn status(&self) -> ClockStatus {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).status()
    }
}

impl Core {
    pub(crate) fn open(
        folder: &Path,
        disk: Arc<dyn Disk>,
        source: Arc<dyn Clock>,
        floor: Stamp,
        segment_bytes: u64,
        visit: &mut dyn FnMut(&Entry),
    ) -> Result<(Core, Arc<SharedClock>, Recovery), OpenError> {
        let (mut repeats, mut fingerprints, mut last_tx) = (Repeats::default(), HashSet::new(), HashMap::new());
        let (log, mut recovery) = Log::open(disk, folder, segment_bytes, &mut |entry| {
            if let Entry::Report(stored) = &entry {
                let report = &stored.report;
                repeats.add(report.project, stored.id, report.tx, report.stamp);
                note_fingerprint(&mut fingerprints, report.project, &fingerprint(&report.attributes));
            }
            visit(&entry);
        })?;
        for (project, tx) in log.last_numbers() {
            last_tx.insert(*project, *tx);
        }
        let clock = ServiceClock::start(source.read(), floor.max(recovery.last_durable.plus_micros(1)));
        let clock = Arc::new(SharedClock { source, clock: Mutex::new(clock) });
        recovery.started = clock.now();
        repeats.forget(recovery.started);
        let core = Core { log, clock: clock.clone(), last_tx, repeats, fingerprints, last_stamp: recovery.last_durable };
        Ok((core, clock, recovery))
    }

    /// Commits a group: all its new reports get one stamp, one frame, one sync. After an error the log must not be used again.
    pub(crate) fn commit(&mut self, requests: Vec<Request>) -> io::Result<Committed> {
        // Each commit's stamp is its own, so that a stamp once published says that no report below it can come any more.
        let stamp = self.clock.now().max(self.last_stamp.plus_micros(1));
        let (mut entries, mut outcomes, mut reports, mut attachments) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for request in requests {
            outcomes.push(match request {
                Request::Tick => Outcome::Tick,
                Request::Attachment { project, tx, attachment } => {
                    attachments.push(((project, tx), attachment.clone()));
                    entries.push(Entry::Attachment { project, tx, attachment });
                    Outcome::Attachment
                }
                Request::Report { project, report, attachments } => {
                    let fingerprint = fingerprint(&report.attributes);
                    // A repeat within one group is found here too: its first is already noted, and their commit is one.
                    if let Some(tx) = report.id.and_then(|id| self.repeats.find(project, id)) {
                        Outcome::Report(Receipt { tx, stamp, duplicate: true, fingerprint, first_of_fingerprint: false })
                    } else {
                        let last = self.last_tx.entry(project).or_insert(Tx(0));
                        *last = Tx(last.0 + 1);
                        let tx = *last;
                        self.repeats.add(project, report.id, tx, stamp);
                        let first_of_fingerprint = note_fingerprint(&mut self.fingerprints, project, &fingerprint);
                        let row = Report { project, tx, stamp, attributes: report.attributes };
                        reports.push(Arc::new(row.clone()));
                        entries.push(Entry::Report(Box::new(StoredReport { report: row, id: report.id, raw: report.raw, attachments })));
                        Outcome::Report(Receipt { tx, stamp, duplicate: false, fingerprint, first_of_fingerprint })
                    }
                }
            });
        }
        let bytes = self.log.commit(stamp, &entries, &self.last_tx)?;
        self.last_stamp = stamp;
        self.repeats.forget(stamp);
        Ok(Committed { stamp, outcomes, reports, attachments, bytes })
    }

    /// Whether a report of this number was ever accepted.
    pub(crate) fn knows(&self, project: ProjectId, tx: Tx) -> bool {
        tx.0 >= 1 && self.last_tx.get(&project).is_some_and(|last| tx <= *last)
    }
}

/// Reports by their clients' ids.
#[derive(Default)]
struct Repeats {
    by_id: HashMap<(ProjectId, ReportId), Tx>,
    order: VecDeque<(Stamp, ProjectId, ReportId)>,
}

impl Repeats {
    fn find(&self, project: ProjectId, id: ReportId) -> Option<Tx> {
        self.by_id.get(&(project, id)).copied()
    }

    fn add(&mut self, project: ProjectId, id: Option<ReportId>, tx: Tx, stamp: Stamp) {
        let Some(id) = id else { return };
        if let Slot::Vacant(slot) = self.by_id.entry((project, id)) {
            slot.insert(tx);
            self.order.push_back((stamp, project, id));
        }
    }

    fn forget(&mut self, now: Stamp) {
        while self.order.len() > REPEATS_KEPT || self.order.front().is_some_and(|(stamp, ..)| now.since(*stamp) > REPEATS_KEPT_MICROS) {
            let (_, project, id) = self.order.pop_front().expect("just looked at");
            self.by_id.remove(&(project, id));
        }
    }
}

fn fingerprint(attributes: &model::Attributes) -> String {
    match attributes.get("fingerprint") {
        Some(Value::Text(text)) => text.clone(),
        _ => "0".repeat(64),
    }
}

/// Whether it is new; remembers it.
fn note_fingerprint(fingerprints: &mut HashSet<u64>, project: ProjectId, fingerprint: &str) -> bool {
    let hash = Sha256::new().chain_update(project.0.to_le_bytes()).chain_update(fingerprint.as_bytes()).finalize();
    let short = u64::from_le_bytes(hash[..8].try_into().expect("a hash has 32 bytes"));
    fingerprints.len() < FINGERPRINTS_KEPT && fingerprints.insert(short)
}
