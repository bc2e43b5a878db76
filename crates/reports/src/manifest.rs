//! The manifest of an archived segment: which Parquet files hold its reports. Once it has its name the log segment is superfluous;
//! replacing it switches from old files to new ones at one stroke. Files that no manifest names are leftovers.
//!
//! It is one frame, salted like the segment's, with the sequence and stamp of the segment's last commit.

use crate::codec::{Reader, put};
use crate::disk::{Disk, write_whole};
use crate::frame;
use crate::segment::Name;
use model::{ProjectId, Stamp, Tx};
use std::io;
use std::path::{Path, PathBuf};

/// Ending of a manifest.
pub(crate) const MANIFEST: &str = ".arc";
/// Ending of the files with reports.
pub(crate) const PARQUET: &str = ".parquet";

/// What is known of an archived segment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Manifest {
    /// The sequence after which its commits come.
    pub(crate) base: u64,
    /// That of its last commit.
    pub(crate) last: u64,
    /// Of its last commit.
    pub(crate) stamp: Stamp,
    /// Commits between that could not be read.
    pub(crate) missing: u64,
    /// One a project; none once retention has taken them.
    pub(crate) files: Vec<Archived>,
}

/// A file with one project's reports of one segment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Archived {
    pub(crate) project: ProjectId,
    /// Counts how often compaction has written it anew.
    pub(crate) generation: u64,
    pub(crate) reports: u64,
    pub(crate) bytes: u64,
    /// Least and greatest number.
    pub(crate) txs: (Tx, Tx),
    /// First and last stamp.
    pub(crate) stamps: (Stamp, Stamp),
}

impl Archived {
    /// The file, in the folder of all archives.
    pub(crate) fn path(&self, folder: &Path, name: Name) -> PathBuf {
        folder.join(self.project.0.to_string()).join(file_name(name, self.generation))
    }
}

/// A file's name in its project's folder.
pub(crate) fn file_name(name: Name, generation: u64) -> String {
    format!("{}-{generation}{PARQUET}", name.with(""))
}

impl Manifest {
    /// Reports in its files.
    pub(crate) fn reports(&self) -> u64 {
        self.files.iter().map(|file| file.reports).sum()
    }

    /// Writes it in place of an earlier one; durable when it returns.
    pub(crate) fn write(&self, disk: &dyn Disk, folder: &Path, name: Name) -> io::Result<()> {
        let mut body = Vec::new();
        put(&mut body, self.base);
        put(&mut body, self.missing);
        put(&mut body, self.files.len() as u64);
        for Archived { project, generation, reports, bytes, txs, stamps } in &self.files {
            let numbers = [u64::from(project.0), *generation, *reports, *bytes, txs.0.0, txs.1.0, stamps.0.micros(), stamps.1.micros()];
            numbers.into_iter().for_each(|number| put(&mut body, number));
        }
        write_whole(disk, &name.manifest(folder), &frame::encode(name.salt, self.last, self.stamp, &body))?;
        disk.sync_folder(folder)
    }

    /// Reads it; `None` when it is damaged.
    pub(crate) fn read(disk: &dyn Disk, folder: &Path, name: Name) -> io::Result<Option<Manifest>> {
        let content = disk.read(&name.manifest(folder))?;
        let Some(frame) = frame::read(name.salt, &content) else { return Ok(None) };
        Ok(frame.body().and_then(|body| {
            let mut reader = Reader(&body);
            let (base, missing) = (reader.number()?, reader.number()?);
            let files = reader.many(|reader| {
                Some(Archived {
                    project: reader.project()?,
                    generation: reader.number()?,
                    reports: reader.number()?,
                    bytes: reader.number()?,
                    txs: (Tx(reader.number()?), Tx(reader.number()?)),
                    stamps: (Stamp::from_micros(reader.number()?), Stamp::from_micros(reader.number()?)),
                })
            })?;
            reader.is_at_end().then_some(Manifest { base, last: frame.sequence, stamp: frame.stamp, missing, files })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    #[test]
    fn it_is_read_as_it_was_written_and_damage_is_seen() {
        let (disk, folder, name) = (SimDisk::default(), Path::new("/log"), Name { number: 3, salt: 7 });
        disk.create_folder(folder).expect("made");
        let file = Archived {
            project: ProjectId(2),
            generation: 1,
            reports: 3,
            bytes: 400,
            txs: (Tx(5), Tx(9)),
            stamps: (Stamp::from_micros(7), Stamp::from_micros(8)),
        };
        let manifest = Manifest { base: 4, last: 9, stamp: Stamp::from_secs(5), missing: 1, files: vec![file.clone(), file] };
        manifest.write(&disk, folder, name).expect("written");
        assert_eq!(Manifest::read(&disk, folder, name).expect("reads"), Some(manifest));
        let path = name.manifest(folder);
        for at in 0..disk.files()[&path].len() {
            let whole = disk.files()[&path].clone();
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            disk.overwrite(&path, damaged);
            assert_eq!(Manifest::read(&disk, folder, name).expect("reads"), None, "byte {at}");
            disk.overwrite(&path, whole);
        }
    }
}
