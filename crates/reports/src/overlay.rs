//! What was done to reports after they were accepted: deletions, changed attributes, late attachments. Kept beside the reports and
//! laid over them when people read; compaction works it into the files. Windows are sealed from reports as they were accepted.
//!
//! Every amendment is an entry of the log first. When its segment leaves the log, the whole overlay is written to a file of its
//! own, as one frame whose sequence is that of the last commit given up by retention, and whose stamp is that of its last report.

use crate::codec::{self, Entry, StoredReport};
use crate::disk::{Disk, UNFINISHED, write_whole};
use crate::frame;
use model::{Attachment, ProjectId, Stamp, Tx, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What people do to accepted reports.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// They are gone for readers, and from the files at the next compaction. Numbers already sealed stay as they are.
    Delete,
    /// An attribute gets another value, or none.
    Set {
        /// Which attribute.
        attribute: String,
        /// Its value; `None`: it is missing from now on.
        value: Option<Value>,
    },
}

/// First and last number of a run of reports.
pub(crate) type Run = (Tx, Tx);

/// Everything not yet worked into files.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Overlay {
    projects: HashMap<ProjectId, Arc<Amended>>,
}

/// One project's share.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Amended {
    pub(crate) deleted: BTreeSet<Tx>,
    /// By attribute.
    pub(crate) values: BTreeMap<String, BTreeMap<Tx, Option<Value>>>,
    pub(crate) late: BTreeMap<Tx, Vec<Attachment>>,
    /// Attributes that were ever set, each with one of its values: they are known although no report came with them.
    pub(crate) names: BTreeMap<String, Value>,
}

impl Overlay {
    /// Takes in an entry of the log; what is no amendment is passed over. Taking one in again changes nothing, as long as those
    /// after it are taken in again too.
    pub(crate) fn note(&mut self, entry: &Entry) {
        match entry {
            Entry::Report(_) | Entry::Checkpoint(_) => {}
            Entry::Attachment { project, tx, attachment } => {
                let files = self.amended(*project).late.entry(*tx).or_default();
                if files.iter().all(|file| file.id != attachment.id) {
                    files.push(attachment.clone());
                }
            }
            Entry::Change { project, runs, change } => {
                let amended = self.amended(*project);
                let txs = runs.iter().flat_map(|(first, last)| (first.0..=last.0).map(Tx));
                match change {
                    Change::Delete => amended.deleted.extend(txs),
                    Change::Set { attribute, value } => {
                        if let Some(value) = value {
                            amended.names.insert(attribute.clone(), value.clone());
                        }
                        if !runs.is_empty() {
                            let values = amended.values.entry(attribute.clone()).or_default();
                            values.extend(txs.map(|tx| (tx, value.clone())));
                        }
                    }
                }
            }
        }
    }

    /// One project's share, which readers keep while it goes on to change.
    pub(crate) fn of(&self, project: ProjectId) -> Option<Arc<Amended>> {
        self.projects.get(&project).cloned()
    }

    fn amended(&mut self, project: ProjectId) -> &mut Amended {
        Arc::make_mut(self.projects.entry(project).or_default())
    }

    /// The report as people see it; `None` when it was deleted.
    pub(crate) fn apply(&self, mut stored: StoredReport) -> Option<StoredReport> {
        let Some(amended) = self.projects.get(&stored.report.project) else { return Some(stored) };
        let tx = stored.report.tx;
        if amended.deleted.contains(&tx) {
            return None;
        }
        for (attribute, values) in &amended.values {
            match values.get(&tx) {
                Some(Some(value)) => stored.report.attributes.set(attribute, value.clone()),
                Some(None) => stored.report.attributes.remove(attribute),
                None => {}
            }
        }
        for file in amended.late.get(&tx).into_iter().flatten() {
            if stored.attachments.iter().all(|have| have.id != file.id) {
                stored.attachments.push(file.clone());
            }
        }
        Some(stored)
    }

    /// The amendments of one project's reports between two numbers.
    pub(crate) fn within(&self, project: ProjectId, (first, last): Run) -> Overlay {
        let Some(amended) = self.projects.get(&project) else { return Overlay::default() };
        let mut part = Amended::default();
        part.deleted.extend(amended.deleted.range(first..=last));
        part.late.extend(amended.late.range(first..=last).map(|(tx, files)| (*tx, files.clone())));
        for (attribute, values) in &amended.values {
            let values: BTreeMap<_, _> = values.range(first..=last).map(|(tx, value)| (*tx, value.clone())).collect();
            if !values.is_empty() {
                part.values.insert(attribute.clone(), values);
            }
        }
        let projects = if part == Amended::default() { HashMap::new() } else { HashMap::from([(project, Arc::new(part))]) };
        Overlay { projects }
    }

    /// Amended reports, one that is amended twice counted twice.
    pub(crate) fn len(&self) -> usize {
        let of =
            |amended: &Arc<Amended>| amended.deleted.len() + amended.late.len() + amended.values.values().map(BTreeMap::len).sum::<usize>();
        self.projects.values().map(of).sum()
    }

    /// Forgets amendments that the files say themselves now. What has come since stays.
    pub(crate) fn forget(&mut self, applied: &Overlay) {
        for (project, theirs) in &applied.projects {
            let Some(amended) = self.projects.get_mut(project) else { continue };
            let amended = Arc::make_mut(amended);
            amended.deleted.retain(|tx| !theirs.deleted.contains(tx));
            for (attribute, values) in &theirs.values {
                if let Some(ours) = amended.values.get_mut(attribute) {
                    ours.retain(|tx, value| values.get(tx) != Some(value));
                }
            }
            amended.values.retain(|_, values| !values.is_empty());
            for (tx, files) in &theirs.late {
                if let Some(ours) = amended.late.get_mut(tx) {
                    ours.retain(|file| !files.contains(file));
                }
            }
            amended.late.retain(|_, files| !files.is_empty());
        }
        self.projects.retain(|_, amended| **amended != Amended::default());
    }

    /// Files that came late.
    pub(crate) fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.projects.values().flat_map(|amended| amended.late.values().flatten())
    }

    /// The amendments as entries from which the same overlay comes.
    fn entries(&self) -> Vec<Entry> {
        let mut projects: Vec<_> = self.projects.iter().collect();
        projects.sort_unstable_by_key(|(project, _)| **project);
        let mut entries = Vec::new();
        for (&project, amended) in projects {
            for (&tx, files) in &amended.late {
                entries.extend(files.iter().map(|file| Entry::Attachment { project, tx, attachment: file.clone() }));
            }
            if !amended.deleted.is_empty() {
                entries.push(Entry::Change { project, runs: runs(amended.deleted.iter().copied()), change: Change::Delete });
            }
            for (attribute, value) in &amended.names {
                let change = Change::Set { attribute: attribute.clone(), value: Some(value.clone()) };
                entries.push(Entry::Change { project, runs: Vec::new(), change });
            }
            for (attribute, values) in &amended.values {
                let mut by_value: Vec<(&Option<Value>, Vec<Tx>)> = Vec::new();
                for (tx, value) in values {
                    // Few changes set many different values: a list serves as the map that floats do not allow.
                    match by_value.iter_mut().rev().take(64).find(|(have, _)| *have == value) {
                        Some((_, txs)) => txs.push(*tx),
                        None => by_value.push((value, vec![*tx])),
                    }
                }
                for (value, txs) in by_value {
                    let change = Change::Set { attribute: attribute.clone(), value: value.clone() };
                    entries.push(Entry::Change { project, runs: runs(txs), change });
                }
            }
        }
        entries
    }
}

/// Ascending numbers as runs.
pub(crate) fn runs(txs: impl IntoIterator<Item = Tx>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for tx in txs {
        match runs.last_mut() {
            Some((_, last)) if last.0 + 1 == tx.0 => *last = tx,
            _ => runs.push((tx, tx)),
        }
    }
    runs
}

/// Beginning of the file's name; its number follows. The highest one counts.
const FILE: &str = "overlay-";

/// How far retention has come.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct GivenUp {
    /// Nothing is left of the commits up to this one.
    pub(crate) commit: u64,
    /// Reports up to this stamp are gone; zero when none are.
    pub(crate) until: Stamp,
}

/// The overlay as it is kept on the disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Kept {
    pub(crate) overlay: Overlay,
    /// What retention took.
    pub(crate) given_up: GivenUp,
    /// The file's number.
    number: u64,
}

impl Kept {
    /// Whether a file of this name is an overlay.
    pub(crate) fn is_file(name: &str) -> bool {
        name.starts_with(FILE) && !name.ends_with(UNFINISHED)
    }

    /// Reads the newest file that can be read; removes the others.
    pub(crate) fn load(disk: &dyn Disk, folder: &Path) -> io::Result<Kept> {
        let mut files: Vec<(u64, String)> = Vec::new();
        for file in disk.list(folder)? {
            if let Some(number) = file.strip_prefix(FILE).filter(|rest| !rest.ends_with(UNFINISHED)).and_then(|rest| rest.parse().ok()) {
                files.push((number, file));
            }
        }
        files.sort_unstable();
        let mut kept: Option<Kept> = None;
        for (number, file) in files.into_iter().rev() {
            let path = folder.join(&file);
            if kept.is_some() {
                disk.remove(&path)?;
                continue;
            }
            match Kept::decode(&disk.read(&path)?, number) {
                Some(read) => kept = Some(read),
                None => tracing::error!(file, "an overlay of deletions and changes is unreadable; an older one is used if there is one"),
            }
        }
        Ok(kept.unwrap_or_default())
    }

    fn decode(content: &[u8], number: u64) -> Option<Kept> {
        let frame = frame::read(0, content)?;
        let mut overlay = Overlay::default();
        codec::decode(&frame.body()?)?.iter().for_each(|entry| overlay.note(entry));
        Some(Kept { overlay, given_up: GivenUp { commit: frame.sequence, until: frame.stamp }, number })
    }

    /// Writes an overlay in place of this one; durable when it returns.
    pub(crate) fn replace(&mut self, disk: &dyn Disk, folder: &Path, overlay: Overlay, given_up: GivenUp) -> io::Result<()> {
        let next = Kept { overlay, given_up, number: self.number + 1 };
        let path = |number: u64| folder.join(format!("{FILE}{number:012}"));
        let content = frame::encode(0, given_up.commit, given_up.until, &codec::encode(&next.overlay.entries()));
        write_whole(disk, &path(next.number), &content)?;
        disk.sync_folder(folder)?;
        let old = path(self.number);
        *self = next;
        if disk.length(&old)?.is_some() {
            disk.remove(&old)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;
    use model::{Attributes, Report};

    const PROJECT: ProjectId = ProjectId(3);

    fn set(runs: &[(u64, u64)], attribute: &str, value: Option<Value>) -> Entry {
        Entry::Change { project: PROJECT, runs: numbers(runs), change: Change::Set { attribute: attribute.into(), value } }
    }

    fn numbers(runs: &[(u64, u64)]) -> Vec<Run> {
        runs.iter().map(|(first, last)| (Tx(*first), Tx(*last))).collect()
    }

    fn overlay(entries: &[Entry]) -> Overlay {
        let mut overlay = Overlay::default();
        entries.iter().for_each(|entry| overlay.note(entry));
        overlay
    }

    fn stored(tx: u64) -> StoredReport {
        let attributes = Attributes::from_pairs([("a".to_owned(), Value::Int(1)), ("b".to_owned(), Value::Int(2))]);
        let report = Report { project: PROJECT, tx: Tx(tx), stamp: Stamp::from_secs(tx), attributes };
        StoredReport { report, id: None, raw: Vec::new(), attachments: Vec::new() }
    }

    fn file(id: u32) -> Attachment {
        Attachment { id, name: "log".into(), content_type: "text/plain".into(), size: 1, sha256: [id as u8; 32] }
    }

    #[test]
    fn readers_see_the_last_change_and_no_deleted_report() {
        let overlay = overlay(&[
            set(&[(1, 3)], "a", Some(Value::from("x"))),
            set(&[(2, 2)], "a", Some(Value::from("y"))),
            set(&[(3, 3)], "a", None),
            set(&[(3, 3)], "new", Some(Value::Bool(true))),
            Entry::Change { project: PROJECT, runs: numbers(&[(4, 4)]), change: Change::Delete },
            Entry::Attachment { project: PROJECT, tx: Tx(1), attachment: file(1) },
            Entry::Attachment { project: PROJECT, tx: Tx(1), attachment: file(1) },
        ]);
        let seen = |tx| overlay.apply(stored(tx));
        let value = |tx, name: &str| seen(tx).and_then(|stored| stored.report.attributes.get(name).cloned());
        assert_eq!((value(1, "a"), value(2, "a"), value(3, "a")), (Some(Value::from("x")), Some(Value::from("y")), None));
        assert_eq!((value(3, "new"), value(3, "b")), (Some(Value::Bool(true)), Some(Value::Int(2))));
        assert_eq!((seen(4), seen(5)), (None, Some(stored(5))));
        assert_eq!(seen(1).expect("there").attachments, [file(1)]);
        let other = StoredReport { report: Report { project: ProjectId(4), ..stored(4).report }, ..stored(4) };
        assert_eq!(overlay.apply(other.clone()), Some(other), "projects are apart");
    }

    #[test]
    fn it_is_read_as_it_was_written_and_only_the_newest_counts() {
        let (disk, folder) = (SimDisk::default(), Path::new("/log"));
        disk.create_folder(folder).expect("made");
        let mut kept = Kept::load(&disk, folder).expect("reads");
        assert_eq!(kept, Kept::default());
        let mut entries = vec![
            set(&[(1, 9), (20, 20)], "a", Some(Value::Float(0.5))),
            set(&[(4, 4)], "a", Some(Value::UInt(u64::MAX))),
            set(&[(5, 5)], "b", None),
            Entry::Change { project: PROJECT, runs: numbers(&[(2, 3), (7, 7)]), change: Change::Delete },
        ];
        for commit in 1..4 {
            entries.push(Entry::Attachment { project: PROJECT, tx: Tx(commit), attachment: file(1) });
            let given_up = GivenUp { commit, until: Stamp::from_secs(commit) };
            kept.replace(&disk, folder, overlay(&entries), given_up).expect("written");
            assert_eq!(disk.files().len(), 1);
            let read = Kept::load(&disk, folder).expect("reads");
            assert_eq!((&read.overlay, read.given_up), (&overlay(&entries), given_up));
        }
        // A loss of power may bring an older one back.
        let mut older = Kept::default();
        let other = SimDisk::default();
        other.create_folder(folder).expect("made");
        older.replace(&other, folder, overlay(&entries[..1]), GivenUp::default()).expect("written");
        other.files().into_iter().for_each(|(path, content)| disk.overwrite(&path, content));
        assert_eq!(disk.files().len(), 2);
        assert_eq!(Kept::load(&disk, folder).expect("reads").overlay, overlay(&entries));
        assert_eq!(disk.files().len(), 1);
    }

    #[test]
    fn what_is_in_the_files_is_forgotten_and_nothing_newer() {
        let mut overlay = overlay(&[
            set(&[(1, 9)], "a", None),
            Entry::Change { project: PROJECT, runs: numbers(&[(3, 12)]), change: Change::Delete },
            Entry::Attachment { project: PROJECT, tx: Tx(5), attachment: file(1) },
        ]);
        let applied = overlay.within(PROJECT, (Tx(1), Tx(5)));
        assert_eq!(applied.len(), 5 + 3 + 1);
        overlay.note(&set(&[(2, 2)], "a", Some(Value::Int(7))));
        overlay.note(&Entry::Attachment { project: PROJECT, tx: Tx(5), attachment: file(2) });
        overlay.forget(&applied);
        assert_eq!(overlay.within(PROJECT, (Tx(1), Tx(5))).len(), 2);
        assert_eq!(overlay.len(), 2 + 4 + 7);
        overlay.forget(&overlay.clone());
        assert_eq!(overlay.len(), 0);
        let names: Vec<(String, Value)> = overlay.of(PROJECT).expect("a name is known").names.clone().into_iter().collect();
        assert_eq!(names, [("a".to_owned(), Value::Int(7))], "the name of what was set stays known");
    }
}
