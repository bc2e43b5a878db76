//! Files of reports, named by their content. On the disk before the commit that names them.

use crate::disk::Disk;
use model::{Attachment, NewAttachment};
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) struct Attachments {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// Tells unfinished files of one run apart.
    unfinished: AtomicU64,
}

impl Attachments {
    pub(crate) fn open(disk: Arc<dyn Disk>, folder: &Path) -> io::Result<Attachments> {
        disk.create_folder(folder)?;
        for name in disk.list(folder)? {
            // What a crash left unfinished was never named by a commit.
            if name.ends_with(".new") {
                disk.remove(&folder.join(name))?;
            }
        }
        Ok(Attachments { disk, folder: folder.to_owned(), unfinished: AtomicU64::new(0) })
    }

    /// Makes a file durable. One with the same content is stored once.
    pub(crate) fn store(&self, id: u32, new: &NewAttachment) -> io::Result<Attachment> {
        let sha256: [u8; 32] = Sha256::digest(&new.bytes).into();
        let attachment =
            Attachment { id, name: new.name.clone(), content_type: new.content_type.clone(), size: new.bytes.len() as u64, sha256 };
        let (shard, name) = self.place(&sha256);
        if self.disk.list(&shard).is_ok_and(|names| names.contains(&name)) {
            // It may be there without being durable, when the one who wrote it has not come to its sync yet.
            self.disk.sync_folder(&shard)?;
            return Ok(attachment);
        }
        self.disk.create_folder(&shard)?;
        let unfinished = self.folder.join(format!("{}.new", self.unfinished.fetch_add(1, Ordering::Relaxed)));
        let mut file = self.disk.create(&unfinished)?;
        file.append(&new.bytes)?;
        file.sync()?;
        self.disk.rename(&unfinished, &shard.join(&name))?;
        self.disk.sync_folder(&shard)?;
        Ok(attachment)
    }

    pub(crate) fn load(&self, attachment: &Attachment) -> io::Result<Vec<u8>> {
        let (shard, name) = self.place(&attachment.sha256);
        let bytes = self.disk.read(&shard.join(name))?;
        if Sha256::digest(&bytes)[..] != attachment.sha256[..] {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the stored file is damaged"));
        }
        Ok(bytes)
    }

    /// Two hex digits of folder, the rest as name.
    fn place(&self, sha256: &[u8; 32]) -> (PathBuf, String) {
        let digits: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        (self.folder.join(&digits[..2]), digits[2..].to_owned())
    }
}
