//! Files of reports, named by their content. On the disk before the commit that names them.

use crate::disk::{Disk, UNFINISHED};
use model::{Attachment, NewAttachment};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) struct Attachments {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// Tells unfinished files of one run apart.
    unfinished: AtomicU64,
    /// Folders whose own names this run has made durable.
    shards: Mutex<HashSet<u8>>,
}

impl Attachments {
    pub(crate) fn open(disk: Arc<dyn Disk>, folder: &Path) -> io::Result<Attachments> {
        disk.create_folder(folder)?;
        for name in disk.list(folder)? {
            // What a crash left unfinished was never named by a commit.
            if name.ends_with(UNFINISHED) {
                disk.remove(&folder.join(name))?;
            }
        }
        Ok(Attachments { disk, folder: folder.to_owned(), unfinished: AtomicU64::new(0), shards: Mutex::default() })
    }

    /// Makes a file durable. One with the same content is stored once.
    pub(crate) fn store(&self, id: u32, new: &NewAttachment) -> io::Result<Attachment> {
        let sha256: [u8; 32] = Sha256::digest(&new.bytes).into();
        let attachment =
            Attachment { id, name: new.name.clone(), content_type: new.content_type.clone(), size: new.bytes.len() as u64, sha256 };
        let path = self.place(&sha256);
        let shard = path.parent().expect("a place is in a folder");
        self.make_shard(sha256[0], shard)?;
        if self.disk.length(&path)? != Some(attachment.size) {
            let unfinished = self.folder.join(format!("{}{UNFINISHED}", self.unfinished.fetch_add(1, Ordering::Relaxed)));
            self.write(&new.bytes, &unfinished, &path).inspect_err(|_| {
                // What was begun only takes room. Where even this fails, the next start removes it.
                let _ = self.disk.remove(&unfinished);
            })?;
        }
        // Also for a file that was there: the one who wrote it may not have come to this yet.
        self.disk.sync_folder(shard)?;
        Ok(attachment)
    }

    fn make_shard(&self, first_byte: u8, shard: &Path) -> io::Result<()> {
        // Held while the folder is made, so that nobody takes one for durable that is not.
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        if !shards.contains(&first_byte) {
            self.disk.create_folder(shard)?;
            shards.insert(first_byte);
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8], unfinished: &Path, path: &Path) -> io::Result<()> {
        let mut file = self.disk.create(unfinished)?;
        file.append(bytes)?;
        file.sync()?;
        self.disk.rename(unfinished, path)
    }

    pub(crate) fn load(&self, attachment: &Attachment) -> io::Result<Vec<u8>> {
        let bytes = self.disk.read(&self.place(&attachment.sha256))?;
        if Sha256::digest(&bytes)[..] != attachment.sha256[..] {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the stored file is damaged"));
        }
        Ok(bytes)
    }

    /// Two hex digits of folder, the rest as name.
    fn place(&self, sha256: &[u8; 32]) -> PathBuf {
        let digits: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(&digits[..2]).join(&digits[2..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    fn file(bytes: &[u8]) -> NewAttachment {
        NewAttachment { name: "../../etc/passwd".into(), content_type: "text/plain".into(), bytes: bytes.to_vec() }
    }

    #[test]
    fn files_are_named_by_content_only_and_stored_once() {
        let disk = SimDisk::default();
        let attachments = Attachments::open(Arc::new(disk.clone()), Path::new("/files")).expect("opens");
        let first = attachments.store(1, &file(b"abc")).expect("stored");
        let second = attachments.store(2, &file(b"abc")).expect("stored");
        assert_eq!((first.sha256, second.id), (second.sha256, 2));
        let paths: Vec<PathBuf> = disk.files().into_keys().collect();
        assert_eq!(paths, [Path::new("/files/ba/7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")]);
        assert_eq!(attachments.load(&first).expect("readable"), b"abc");
    }

    #[test]
    fn a_damaged_file_is_not_handed_out() {
        let disk = SimDisk::default();
        let attachments = Attachments::open(Arc::new(disk.clone()), Path::new("/files")).expect("opens");
        let stored = attachments.store(1, &file(b"abc")).expect("stored");
        let path = disk.files().into_keys().next().expect("one file");
        disk.overwrite(&path, b"abd".to_vec());
        assert_eq!(attachments.load(&stored).expect_err("damaged").kind(), io::ErrorKind::InvalidData);
    }
}
