//! Copies the reports of a data folder for a backup, whether a server is writing to it or not. What it makes is a folder as a crash
//! leaves one: a start makes of it every report that was durable when the copy began. It reads and links; the folder is not changed.
//!
//! Files that are never written to again (closed segments, their indices, overlays, Parquet files, files of reports) are linked where
//! both folders are on one file system, else copied. The open segment is copied as far as it is: a commit cut off at its end is what a
//! crash leaves too. A segment that leaves for the archive meanwhile is missing where it was looked for; then the copy is brought up to
//! date with the names there are now.

use crate::disk::{RealDisk, UNFINISHED};
use crate::manifest::{MANIFEST, Manifest};
use crate::segment::{LOG, Name};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// How often the copy is brought up to date before the folder is taken for one that changes too fast.
const TRIES: usize = 100;

/// How often names are read before they are taken to change too fast.
const READINGS: usize = 1_000;
const TOO_FAST: &str = "the folder changes faster than it can be copied; try again when it is less busy";

/// What a copy holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files.
    pub files: u64,
    /// Their bytes, linked or not.
    pub bytes: u64,
    /// Files that share their bytes with the data folder.
    pub linked: u64,
}

/// Copies the reports in `root` to `to`, a folder that does not exist yet; durable when it returns.
pub fn copy(root: &Path, to: &Path) -> io::Result<Copied> {
    let mut copy = Copy { log: root.join("log"), parquet: root.join("parquet"), to, done: BTreeSet::new() };
    for folder in ["log", "parquet", "attachments"] {
        make(&to.join(folder))?;
    }
    for _ in 0..TRIES {
        let names = copy.names()?;
        match copy.bring_up_to_date(&names) {
            Ok(()) => {
                remove_others(&to.join("log"), &names)?;
                // Files of reports are on the disk before the commit that names them, so now all of them are there.
                for folder in ["attachments", "log/damaged"] {
                    link_all(&root.join(folder), &to.join(folder))?;
                }
                let mut copied = Copied::default();
                settle(to, &mut copied)?;
                return Ok(copied);
            }
            // It has left for the archive, been compacted or given up since.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(TOO_FAST))
}

struct Copy<'a> {
    log: PathBuf,
    parquet: PathBuf,
    to: &'a Path,
    /// Names in the log's folder that are copied for good.
    done: BTreeSet<String>,
}

impl Copy<'_> {
    /// The names as they were at one moment. Reading a folder takes a while, and a segment that leaves for the archive meanwhile could be
    /// missed under both of its names; numbers only grow, so what two readings agree on was there in between.
    fn names(&self) -> io::Result<BTreeSet<String>> {
        let mut names = listed(&self.log)?;
        for _ in 0..READINGS {
            let again = listed(&self.log)?;
            if again == names {
                return Ok(names);
            }
            names = again;
        }
        Err(io::Error::other(TOO_FAST))
    }

    fn bring_up_to_date(&mut self, names: &BTreeSet<String>) -> io::Result<()> {
        // Names begin with the segment's number, and only the last one is written to.
        let open = names.iter().rfind(|name| name.ends_with(LOG)).cloned();
        for name in names {
            let (from, to) = (self.log.join(name), self.to.join("log").join(name));
            if let Some(segment) = Name::read(name, MANIFEST) {
                // Replaced under its name when files are compacted, so it is read once, before the files that it names.
                let Some(manifest) = Manifest::read(&RealDisk, &self.log, segment)? else { continue };
                remove(&to)?;
                manifest.write(&RealDisk, &self.to.join("log"), segment)?;
                for file in &manifest.files {
                    let to = file.path(&self.to.join("parquet"), segment);
                    make(to.parent().expect("a file is in a folder"))?;
                    link(&file.path(&self.parquet, segment), &to)?;
                }
            } else if Some(name) == open.as_ref() {
                remove(&to)?;
                fs::copy(&from, &to)?;
            } else if !self.done.contains(name) {
                // It may have been copied while it was open.
                remove(&to)?;
                link(&from, &to)?;
                self.done.insert(name.clone());
            }
        }
        Ok(())
    }
}

/// Names of the finished files in the log's folder.
fn listed(log: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(log)? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        if entry.file_type()?.is_file() && !name.ends_with(UNFINISHED) {
            names.insert(name);
        }
    }
    Ok(names)
}

/// Links a file that is never written to again, or copies it to another file system; one that is there already stays.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(error),
        Err(_) => {
            // Not under its name until it is whole: a later try takes what is there for finished.
            let unfinished = to.with_extension("copy");
            fs::copy(from, &unfinished)?;
            fs::rename(unfinished, to)
        }
        Ok(()) => Ok(()),
    }
}

/// All files of a folder and those below it; none, when there is no such folder. Files that go meanwhile are named by no report.
fn link_all(from: &Path, to: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    make(to)?;
    for entry in entries {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            link_all(&entry.path(), &to)?;
        } else if !entry.path().to_string_lossy().ends_with(UNFINISHED) {
            match link(&entry.path(), &to) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                linked => linked?,
            }
        }
    }
    Ok(())
}

fn remove_others(folder: &Path, names: &BTreeSet<String>) -> io::Result<()> {
    listed(folder)?.difference(names).try_for_each(|name| remove(&folder.join(name)))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn make(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Makes everything in a folder durable, and counts it.
fn settle(folder: &Path, copied: &mut Copied) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            settle(&entry.path(), copied)?;
            continue;
        }
        let facts = entry.metadata()?;
        copied.files += 1;
        copied.bytes += facts.len();
        if facts.nlink() > 1 {
            copied.linked += 1;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, Reports, Settings, SystemClock};
    use model::{Attributes, NewAttachment, NewReport, ProjectId, ReportId, Stamp, Tx, Value};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    const PROJECT: ProjectId = ProjectId(1);
    /// Segments so small that some are closed, archived and compacted while they are copied.
    const SMALL: Settings =
        Settings { segment_bytes: 20_000, memory_bytes: 60_000, retention: crate::Retention { secs: None, bytes: None } };

    fn open(root: &Path) -> (Arc<Reports>, crate::Recovery) {
        let (reports, recovery) = Reports::open(root, Arc::new(RealDisk), Arc::new(SystemClock), Stamp::ZERO, SMALL).expect("opens");
        (Arc::new(reports), recovery)
    }

    fn report(n: u64) -> NewReport {
        let attributes = Attributes::from_pairs([("n".to_owned(), Value::Int(n as i64))]);
        let attachments =
            vec![NewAttachment { name: "log".into(), content_type: "text/plain".into(), bytes: format!("file {n}").into_bytes() }];
        NewReport { id: Some(ReportId(u128::from(n).to_be_bytes())), attributes, raw: b"{}".to_vec(), attachments }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
    }

    type Told = (Option<Value>, Option<Value>, Vec<u8>);

    /// What is told of the reports up to a number, the changes of people and the files included.
    fn told(reports: &Reports, last: u64) -> Vec<Told> {
        let one = |tx: u64| {
            let found = reports.report(PROJECT, Tx(tx)).expect("readable").unwrap_or_else(|| panic!("report {tx} is missing"));
            let value = |name: &str| found.report.attributes.get(name).cloned();
            let file = found.attachments.first().expect("each has a file").id;
            let (_, bytes) = reports.attachment(PROJECT, Tx(tx), file).expect("readable").expect("its file is there");
            (value("n"), value("seen"), bytes)
        };
        (1..=last).map(one).collect()
    }

    #[test]
    fn a_copy_made_under_load_has_all_that_was_acknowledged_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let (reports, _) = open(&folder.path().join("reports"));
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writer = {
            let (reports, stop, acknowledged) = (reports.clone(), stop.clone(), acknowledged.clone());
            std::thread::spawn(move || {
                run(async {
                    while !stop.load(Ordering::Relaxed) {
                        let n = acknowledged.load(Ordering::Relaxed) + 1;
                        let receipt = reports.append(PROJECT, report(n)).await.expect("taken");
                        if n % 7 == 0 {
                            let seen = Change::Set { attribute: "seen".into(), value: Some(Value::Int(n as i64)) };
                            reports.amend(PROJECT, &[receipt.tx], &[seen]).await.expect("changed");
                        }
                        if n % 20 == 0 {
                            reports.pin(reports.now());
                        }
                        acknowledged.store(n, Ordering::Relaxed);
                    }
                })
            })
        };
        let archived = || std::fs::read_dir(folder.path().join("reports/parquet/1")).map_or(0, Iterator::count);
        for round in 1..=3 {
            // Some have left the log since the last round.
            let (moved, until) = (archived(), Instant::now() + Duration::from_secs(60));
            while archived() <= moved + 1 || acknowledged.load(Ordering::Relaxed) < 100 * round {
                assert!(Instant::now() < until && !writer.is_finished(), "nothing is written or archived");
                std::thread::yield_now();
            }
            let last = acknowledged.load(Ordering::Relaxed);
            let before = told(&reports, last);
            let to = folder.path().join(format!("copy-{round}"));
            let copied = copy(&folder.path().join("reports"), &to).expect("copied");
            assert!(copied.linked > 0 && copied.files > copied.linked && copied.bytes > 0, "{copied:?}");
            let (restored, recovery) = open(&to);
            assert_eq!(told(&restored, last), before, "{recovery:?}");
            assert_eq!((recovery.missing_commits, recovery.damaged.len(), recovery.set_aside.len()), (0, 0, 0), "{recovery:?}");
            // Numbers and ids go on where they were.
            let again = run(restored.append(PROJECT, report(1))).expect("taken");
            assert_eq!((again.tx, again.duplicate), (Tx(1), true));
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer does not panic");
        assert_eq!(told(&reports, 100).len(), 100, "a copy changes nothing");
    }
}
