//! The disk as the log needs it: append, sync, rename, list. The seam at which tests put a disk that crashes (`sim`).

use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, pread};
use std::fs;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// A disk. Nothing written is durable before `sync`, no new, renamed or removed name before `sync_folder`.
pub trait Disk: Send + Sync {
    /// Makes a folder and those above it, durably; one that exists is fine.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// Names of the files and folders in a folder, in no order.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Makes a new empty file; one that exists is an error.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Appender>>;
    /// The whole content.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// `length` bytes from `offset`; an early end is an error.
    fn read_at(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    /// Says that parts of a file will be read soon, so that they come meanwhile.
    fn will_read(&self, _path: &Path, _parts: &[Range<u64>]) {}
    /// A file's length in bytes; `None` when there is no such file.
    fn length(&self, path: &Path) -> io::Result<Option<u64>>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// A file open for appending.
pub trait Appender: Send {
    /// Adds bytes at the end; on an error any part of them may be there.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Shortens the file.
    fn cut(&mut self, length: u64) -> io::Result<()>;
    /// Makes what was appended durable (fdatasync). After an error nothing may be assumed of the file.
    fn sync(&mut self) -> io::Result<()>;
}

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// Reports may hold personal data: nobody else on the machine needs to read them.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

impl Disk for RealDisk {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        match fs::DirBuilder::new().mode(FOLDER_MODE).create(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && parent.is_some() => {
                self.create_folder(parent.expect("just looked at"))?;
                return self.create_folder(folder);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            made => made?,
        }
        // Also when it was there: an earlier start may have died between making and syncing it.
        self.sync_folder(parent.unwrap_or(Path::new(".")))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Appender>> {
        let file = fs::OpenOptions::new().append(true).create_new(true).mode(FILE_MODE).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn read_at(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let file = fs::File::open(path)?;
        // Not cleared before it is filled, which would take about as long.
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = offset + bytes.len() as u64;
            match pread(&file, spare_capacity(&mut bytes), at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    fn will_read(&self, path: &Path, parts: &[Range<u64>]) {
        let Ok(file) = fs::File::open(path) else { return };
        for part in parts {
            let length = NonZeroU64::new(part.end.saturating_sub(part.start));
            // Where it does not work the bytes are read when they are asked for.
            let _ = length.map(|length| fadvise(&file, part.start, Some(length), Advice::WillNeed));
        }
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        fs::File::open(folder)?.sync_all()
    }
}

struct RealFile(fs::File);

impl Appender for RealFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Whether an error says that there is no room; all others are failures of the disk itself.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Writes a whole file so that it has its name only once it has its content. The name is not durable yet.
pub(crate) fn write_whole(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<Box<dyn Appender>> {
    write_piecewise(disk, path, |file| file.append(content)).map(|(file, ())| file)
}

/// The same for content that comes piece by piece.
pub(crate) fn write_piecewise<T>(
    disk: &dyn Disk,
    path: &Path,
    write: impl FnOnce(&mut dyn Appender) -> io::Result<T>,
) -> io::Result<(Box<dyn Appender>, T)> {
    let unfinished = unfinished(path);
    if disk.length(&unfinished)?.is_some() {
        // A crash has left it.
        disk.remove(&unfinished)?;
    }
    let write = || -> io::Result<(Box<dyn Appender>, T)> {
        let mut file = disk.create(&unfinished)?;
        let made = write(file.as_mut())?;
        file.sync()?;
        disk.rename(&unfinished, path)?;
        Ok((file, made))
    };
    write().inspect_err(|_| {
        // What was begun only takes room. Where even this fails, the next start removes it.
        let _ = disk.remove(&unfinished);
    })
}

/// Ends the names of files that do not have their content yet.
pub(crate) const UNFINISHED: &str = ".new";

fn unfinished(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_disk_does_what_the_seam_says() {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let (disk, folder) = (RealDisk, temporary.path().join("a/b"));
        disk.create_folder(&folder).expect("made");
        disk.create_folder(&folder).expect("made again");
        let path = folder.join("file");
        let mut file = write_whole(&disk, &path, b"hello").expect("written");
        file.append(b" world").expect("appended");
        file.cut(7).expect("cut");
        file.append(b"!").expect("appended at the new end");
        file.sync().expect("synced");
        assert_eq!(disk.read(&path).expect("readable"), b"hello w!");
        assert_eq!(disk.read_at(&path, 6, 2).expect("readable"), b"w!");
        assert!(disk.read_at(&path, 6, 3).is_err());
        assert_eq!((disk.length(&path).ok(), disk.length(&folder.join("none")).ok()), (Some(Some(8)), Some(None)));
        assert!(disk.create(&path).is_err());
        assert_eq!(disk.list(&folder).expect("listed"), ["file"]);
        disk.remove(&path).expect("removed");
        assert!(disk.list(&folder).expect("listed").is_empty());
    }
}
