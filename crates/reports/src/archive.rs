//! The archive: reports that have left the log for files of columns, one a segment and project. What moves them there, works
//! deletions and changes into them, and gives up the oldest. Each of its steps can be cut off anywhere: the manifest decides.

use crate::attachments::Hash;
use crate::codec::{Entry, StoredReport};
use crate::disk::{Disk, UNFINISHED};
use crate::index::{self, Digest, Index};
use crate::manifest::{Archived, MANIFEST, Manifest, PARQUET, file_name};
use crate::memory::Memory;
use crate::overlay::{GivenUp, Kept, Overlay};
use crate::parquet::{self, File};
use crate::recovery::{ASIDE, OpenError, Start, failed};
use crate::segment::{LOG, Name, Place, Segment, Shelf};
use model::{Attachment, ProjectId, Stamp, Tx};
use std::cell::OnceCell;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// What the archive keeps, beyond what is not sealed yet; `None`: everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Reports older than this many seconds go.
    pub secs: Option<u64>,
    /// When the files have more bytes, the oldest go.
    pub bytes: Option<u64>,
}

/// A file of an index goes once no repeat could be found in it (see `ids`): after 7 days, and one to be sure.
const IDS_KEPT_SECS: u64 = 8 * 86_400;
/// Amended reports of a segment from which on it is compacted at once.
const COMPACT_FROM: usize = 10_000;
/// Fewer are worked in at most this often, in seconds.
pub(crate) const COMPACT_EVERY_SECS: u64 = 3_600;

/// The archive's folder and what its steps need. Clones are the same archive.
#[derive(Clone)]
pub(crate) struct Archive {
    pub(crate) disk: Arc<dyn Disk>,
    /// Folder of the log, where manifests are.
    pub(crate) log: PathBuf,
    /// One folder a project below it.
    pub(crate) folder: PathBuf,
    pub(crate) shelf: Shelf,
    /// The overlay as it is on the disk; held while files change.
    pub(crate) kept: Arc<Mutex<Kept>>,
}

impl Archive {
    /// Removes files that no manifest names.
    pub(crate) fn tidy(&self) -> Result<(), OpenError> {
        self.disk.create_folder(&self.folder).map_err(failed("make", &self.folder))?;
        for project in self.disk.list(&self.folder).map_err(failed("list", &self.folder))? {
            let Ok(id) = project.parse().map(ProjectId) else { continue };
            let folder = self.folder.join(&project);
            for file in self.disk.list(&folder).map_err(failed("list", &folder))? {
                if file.ends_with(UNFINISHED) || self.is_leftover(id, &file).map_err(failed("look at", &folder))? {
                    self.disk.remove(&folder.join(&file)).map_err(failed("remove the unfinished", &folder))?;
                }
            }
        }
        Ok(())
    }

    /// Whether a file of ours is named by no manifest. Those of a manifest that cannot be read are not judged.
    fn is_leftover(&self, project: ProjectId, file: &str) -> io::Result<bool> {
        let Some((name, generation)) = file.strip_suffix(PARQUET).and_then(|stem| stem.rsplit_once('-')) else { return Ok(false) };
        let (Some(name), Ok(generation)) = (Name::read(name, ""), generation.parse::<u64>()) else { return Ok(false) };
        Ok(match self.shelf.archive(name) {
            Some(manifest) => manifest.files.iter().all(|one| (one.project, one.generation) != (project, generation)),
            None => self.disk.length(&name.manifest(&self.log))?.is_none(),
        })
    }

    /// Closed segments of the log whose windows are all sealed, oldest first: those that may leave it. Not before their index is there: it
    /// knows the ids of reports that will be deleted, and could not be made anew from files without them.
    pub(crate) fn due(&self, sealed_until: Stamp) -> Vec<Name> {
        let names = self.shelf.ordered();
        let Some((_open, closed)) = names.split_last() else { return Vec::new() };
        let has_index = |name: &Name| matches!(self.disk.length(&name.index(&self.log)), Ok(Some(_)));
        let is_due = |name: &Name| {
            self.shelf.look(*name, |segment| segment.archive.is_none() && segment.stamp < sealed_until) == Some(true) && has_index(name)
        };
        closed.iter().copied().take_while(|name| self.shelf.is_archived(*name) || is_due(name)).filter(is_due).collect()
    }

    /// Moves a closed segment from the log to files.
    pub(crate) fn move_in(&self, name: Name, memory: &RwLock<Memory>) -> io::Result<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let segment = self.shelf.with(name, |segment| segment.clone());
        let projects: BTreeSet<ProjectId> = segment.chunks.iter().flat_map(|chunk| &chunk.reports).map(|(project, ..)| *project).collect();
        let mut unreadable = Vec::new();
        let mut files = Vec::new();
        for project in projects {
            let places = self.shelf.places(name, |chunk| chunk.reports.iter().any(|(of, ..)| *of == project));
            let mut rows = Rows { archive: self, name, project, places: places.into(), ready: VecDeque::new(), unreadable: Vec::new() };
            files.extend(self.write(name, 0, project, &mut rows)?);
            unreadable.extend(rows.unreadable);
        }
        for (offset, bytes) in unreadable {
            let start = Start { disk: self.disk.as_ref(), folder: &self.log };
            start.keep(name, offset, &bytes)?;
        }
        if segment.chunks.iter().any(|chunk| !chunk.amended.is_empty()) {
            let (overlay, given_up) = (read(memory).overlay.clone(), kept.given_up);
            kept.replace(self.disk.as_ref(), &self.log, overlay, given_up)?;
        }
        let Segment { base, last, stamp, missing, .. } = segment;
        let manifest = Manifest { base, last, stamp, missing, files };
        manifest.write(self.disk.as_ref(), &self.log, name)?;
        self.shelf.with(name, |segment| *segment = Segment::from(manifest));
        self.disk.remove(&name.log(&self.log))
    }

    /// Writes one project's file; `None` when there are no reports for it.
    fn write(
        &self,
        name: Name,
        generation: u64,
        project: ProjectId,
        rows: &mut dyn Iterator<Item = io::Result<StoredReport>>,
    ) -> io::Result<Option<Archived>> {
        let mut rows = rows.peekable();
        if rows.peek().is_none() {
            return Ok(None);
        }
        let folder = self.folder.join(project.0.to_string());
        self.disk.create_folder(&folder)?;
        let summary = parquet::write(self.disk.as_ref(), &folder.join(file_name(name, generation)), rows)?;
        self.disk.sync_folder(&folder)?;
        Ok(Some(Archived { project, generation, reports: summary.reports, bytes: summary.bytes, txs: summary.txs, stamps: summary.stamps }))
    }

    /// The archived segment with most amendments, when it has enough of them, or any and `all` is asked for.
    pub(crate) fn compactable(&self, memory: &RwLock<Memory>, all: bool, except: &BTreeSet<Name>) -> Option<Name> {
        let least = if all { 1 } else { COMPACT_FROM };
        let memory = read(memory);
        let amended = |name: &Name| -> usize {
            let files = self.shelf.archive(*name).map(|manifest| manifest.files).unwrap_or_default();
            files.iter().map(|file| memory.overlay.within(file.project, file.txs).len()).sum()
        };
        let names = self.shelf.ordered().into_iter().filter(|name| !except.contains(name));
        let most = names.map(|name| (amended(&name), name)).max()?;
        (most.0 >= least).then_some(most.1)
    }

    /// Works deletions, changes and late attachments into a segment's files.
    pub(crate) fn compact(&self, name: Name, memory: &RwLock<Memory>) -> io::Result<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut manifest) = self.shelf.archive(name) else { return Ok(()) };
        let mut superseded = Vec::new();
        let mut applied: Vec<Overlay> = Vec::new();
        let mut files = Vec::new();
        for file in manifest.files {
            let overlay = read(memory).overlay.within(file.project, file.txs);
            if overlay.len() == 0 {
                files.push(file);
                continue;
            }
            let path = file.path(&self.folder, name);
            let old = File::open(self.disk.clone(), &path)?;
            let mut rows = old.reports().filter_map(|row| row.map(|stored| overlay.apply(stored)).transpose());
            files.extend(self.write(name, file.generation + 1, file.project, &mut rows)?);
            superseded.push(path);
            applied.push(overlay);
        }
        manifest.files = files;
        manifest.write(self.disk.as_ref(), &self.log, name)?;
        let stamp = manifest.stamp;
        self.shelf.with(name, |segment| *segment = Segment::from(manifest));
        {
            // What memory holds is as it was accepted: from now on the files alone tell.
            let mut memory = memory.write().unwrap_or_else(PoisonError::into_inner);
            applied.iter().for_each(|overlay| memory.overlay.forget(overlay));
            memory.let_go(stamp);
        }
        let (overlay, given_up) = (read(memory).overlay.clone(), kept.given_up);
        kept.replace(self.disk.as_ref(), &self.log, overlay, given_up)?;
        superseded.iter().try_for_each(|path| self.disk.remove(path))
    }

    /// Gives up the oldest segments that retention no longer covers; returns how many reports went.
    pub(crate) fn retain(&self, now: Stamp, retention: Retention, memory: &RwLock<Memory>) -> io::Result<u64> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let archived: Vec<(Name, Manifest)> =
            self.shelf.ordered().into_iter().map_while(|name| Some((name, self.shelf.archive(name)?))).collect();
        let mut bytes: u64 = archived.iter().flat_map(|(_, manifest)| &manifest.files).map(|file| file.bytes).sum();
        let mut gone = 0;
        for (name, mut manifest) in archived {
            let is_old = |secs| now.since(manifest.stamp) > secs * 1_000_000;
            if !retention.secs.is_some_and(is_old) && retention.bytes.is_none_or(|most| bytes <= most) {
                break;
            }
            let files = std::mem::take(&mut manifest.files);
            if !files.is_empty() {
                // First, so that no crash leaves a stretch that is gone and is not known to be.
                let (overlay, given_up) = (read(memory).overlay.clone(), GivenUp { until: manifest.stamp, ..kept.given_up });
                kept.replace(self.disk.as_ref(), &self.log, overlay, given_up)?;
                manifest.write(self.disk.as_ref(), &self.log, name)?;
                let stamp = manifest.stamp;
                self.shelf.with(name, |segment| *segment = Segment::from(manifest.clone()));
                let mut memory = memory.write().unwrap_or_else(PoisonError::into_inner);
                memory.let_go(stamp);
                for file in &files {
                    let amendments = memory.overlay.within(file.project, file.txs);
                    memory.overlay.forget(&amendments);
                }
            }
            for file in files {
                bytes -= file.bytes;
                gone += file.reports;
                self.disk.remove(&file.path(&self.folder, name))?;
            }
            if now.since(manifest.stamp) > IDS_KEPT_SECS * 1_000_000 {
                let (overlay, given_up) = (read(memory).overlay.clone(), GivenUp { commit: manifest.last, ..kept.given_up });
                kept.replace(self.disk.as_ref(), &self.log, overlay, given_up)?;
                self.shelf.remove(name);
                self.disk.remove(&name.manifest(&self.log))?;
                if self.disk.length(&name.index(&self.log))?.is_some() {
                    self.disk.remove(&name.index(&self.log))?;
                }
            }
        }
        Ok(gone)
    }

    /// The file that has a report, if it is in the archive.
    pub(crate) fn file_of(&self, project: ProjectId, tx: Tx) -> Option<(Name, Archived)> {
        let has = |file: &Archived| file.project == project && (file.txs.0..=file.txs.1).contains(&tx);
        let mut names = self.shelf.ordered().into_iter();
        names.find_map(|name| self.shelf.archive(name)?.files.into_iter().find(&has).map(|file| (name, file)))
    }

    /// Something in the log's folder that may name files of reports and that this run does not read.
    pub(crate) fn unread(&self) -> io::Result<Option<String>> {
        let is_segment = |file: &String| [LOG, MANIFEST].into_iter().find_map(|ending| Name::read(file, ending));
        let mut overlays = 0;
        let mut aside = false;
        for file in self.disk.list(&self.log)? {
            aside |= file == ASIDE;
            overlays += u32::from(Kept::is_file(&file));
            if overlays > 1 || is_segment(&file).is_some_and(|name| !self.shelf.has(name)) {
                return Ok(Some(file));
            }
        }
        // Copies of damaged bytes name nothing; a segment set aside could be brought back.
        let set_aside = if aside { self.disk.list(&self.log.join(ASIDE))? } else { Vec::new() };
        Ok(set_aside.into_iter().find(|file| is_segment(file).is_some()))
    }

    /// Takes out of some files those that a report names. Reports committed meanwhile may be missed.
    pub(crate) fn spare_named(&self, memory: &RwLock<Memory>, files: &mut HashSet<Hash>) -> io::Result<()> {
        let mut spare = |attachment: &Attachment| _ = files.remove(&attachment.sha256);
        read(memory).overlay.attachments().for_each(&mut spare);
        for name in self.shelf.ordered() {
            for file in self.shelf.archive(name).iter().flat_map(|manifest| &manifest.files) {
                self.open(name, file)?.attachments(&mut spare)?;
            }
            for place in self.shelf.places(name, |_| true) {
                let stretch = self.shelf.load(name, place)?;
                if !stretch.unreadable.is_empty() {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a stretch of the log is damaged"));
                }
                for entry in stretch.entries {
                    match entry {
                        Entry::Report(stored) => stored.attachments.iter().for_each(&mut spare),
                        Entry::Attachment { attachment, .. } => spare(&attachment),
                        Entry::Change { .. } | Entry::Checkpoint(_) => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// A file that is opened once somebody reads of it, unless it is already.
    pub(crate) fn opening<'a>(&'a self, name: Name, archived: &'a Archived, opened: Option<File>) -> Opening<'a> {
        Opening { archive: self, name, archived, opened: opened.map_or_else(OnceCell::new, OnceCell::from) }
    }

    /// Says that parts of a file will be read soon.
    pub(crate) fn will_read(&self, name: Name, file: &Archived, parts: &[Range<u64>]) {
        self.disk.will_read(&file.path(&self.folder, name), parts);
    }

    /// Opens a file.
    pub(crate) fn open(&self, name: Name, file: &Archived) -> io::Result<File> {
        File::open(self.disk.clone(), &file.path(&self.folder, name))
    }
}

/// A file that is opened at most once.
pub(crate) struct Opening<'a> {
    archive: &'a Archive,
    pub(crate) name: Name,
    pub(crate) archived: &'a Archived,
    opened: OnceCell<File>,
}

impl Opening<'_> {
    pub(crate) fn file(&self) -> io::Result<&File> {
        if let Some(file) = self.opened.get() {
            return Ok(file);
        }
        let file = self.archive.open(self.name, self.archived)?;
        Ok(self.opened.get_or_init(|| file))
    }
}

/// Makes the index of an archived segment anew from its files.
pub(crate) fn build_index(
    start: Start<'_>,
    folder: &Path,
    disk: &Arc<dyn Disk>,
    name: Name,
    manifest: &Manifest,
) -> Result<Index, OpenError> {
    let mut digest = Digest::default();
    for archived in &manifest.files {
        let path = archived.path(folder, name);
        let note = |digest: &mut Digest| -> io::Result<()> {
            for stored in File::open(disk.clone(), &path)?.reports() {
                let stored = stored?;
                digest.names.note(&stored.report);
                digest.note(&[Entry::Report(Box::new(stored))]);
            }
            Ok(())
        };
        note(&mut digest).map_err(failed("read", &path))?;
    }
    let segment = Segment::from(manifest.clone());
    let ids = index::write(start.disk, start.folder, name, &segment, &digest)
        .map_err(failed("write the index of", &name.manifest(start.folder)))?;
    Ok(Index { segment, fingerprints: digest.fingerprints, names: digest.names, ids })
}

fn read(memory: &RwLock<Memory>) -> std::sync::RwLockReadGuard<'_, Memory> {
    memory.read().unwrap_or_else(PoisonError::into_inner)
}

/// One project's reports of a segment of the log, a stretch at a time.
struct Rows<'a> {
    archive: &'a Archive,
    name: Name,
    project: ProjectId,
    places: VecDeque<Place>,
    ready: VecDeque<StoredReport>,
    unreadable: Vec<(u64, Vec<u8>)>,
}

impl Iterator for Rows<'_> {
    type Item = io::Result<StoredReport>;

    fn next(&mut self) -> Option<io::Result<StoredReport>> {
        while self.ready.is_empty() {
            let place = self.places.pop_front()?;
            match self.archive.shelf.load(self.name, place) {
                Err(error) => return Some(Err(error)),
                Ok(stretch) => {
                    self.unreadable.extend(stretch.unreadable);
                    let of_project = stretch.entries.into_iter().filter_map(|entry| match entry {
                        Entry::Report(stored) if stored.report.project == self.project => Some(*stored),
                        _ => None,
                    });
                    self.ready.extend(of_project);
                }
            }
        }
        self.ready.pop_front().map(Ok)
    }
}
