//! Files of reports, named by their content. On the disk before the commit that names them, and until some time after the last
//! report that names them has gone. Does not know reports: who sweeps says which files are named.

use crate::disk::{Disk, UNFINISHED};
use model::{Attachment, NewAttachment};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What names a file: the SHA-256 of its content.
pub(crate) type Hash = [u8; 32];

pub(crate) struct Attachments {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// Tells unfinished files of one run apart.
    unfinished: AtomicU64,
    /// Folders whose own names this run has made durable.
    shards: Mutex<HashSet<u8>>,
    taken: Arc<Mutex<Taken>>,
    /// The first shard of the next sweep.
    next: Mutex<usize>,
}

/// Files that a commit to come may name.
#[derive(Default)]
struct Taken {
    /// How often each is held.
    held: HashMap<Hash, u32>,
    /// While a sweep runs: those held since it began.
    since: Option<HashSet<Hash>>,
}

/// Keeps files from being swept until the commit that names them is visible.
pub(crate) struct Hold {
    taken: Arc<Mutex<Taken>>,
    files: Vec<Hash>,
}

/// What a sweep has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) removed: u64,
    /// Whether it has come to the last shard: the next one begins with the first again.
    pub(crate) to_the_end: bool,
}

/// Folders that files lie in, by the first byte of their hashes.
const SHARDS: usize = 256;

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hold {
    fn add(&mut self, file: Hash) {
        let mut taken = lock(&self.taken);
        *taken.held.entry(file).or_default() += 1;
        taken.since.iter_mut().for_each(|since| _ = since.insert(file));
        self.files.push(file);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        for file in &self.files {
            let held = taken.held.get_mut(file).expect("this holds it");
            *held -= 1;
            if *held == 0 {
                taken.held.remove(file);
            }
        }
    }
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
        Ok(Attachments {
            disk,
            folder: folder.to_owned(),
            unfinished: AtomicU64::new(0),
            shards: Mutex::default(),
            taken: Arc::default(),
            next: Mutex::default(),
        })
    }

    /// What keeps files that are stored now.
    pub(crate) fn hold(&self) -> Hold {
        Hold { taken: self.taken.clone(), files: Vec::new() }
    }

    /// Makes a file durable. One with the same content is stored once.
    pub(crate) fn store(&self, id: u32, new: &NewAttachment, hold: &mut Hold) -> io::Result<Attachment> {
        let sha256: Hash = Sha256::digest(&new.bytes).into();
        let attachment =
            Attachment { id, name: new.name.clone(), content_type: new.content_type.clone(), size: new.bytes.len() as u64, sha256 };
        // Before it is looked for: from now on no sweep removes it.
        hold.add(sha256);
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

    /// Removes files that nothing names and nobody holds, of about `most` files: the next sweep goes on behind them. Of those it is
    /// given, `named` takes out the ones that are named; where it fails nothing is removed.
    pub(crate) fn sweep(&self, most: usize, named: impl FnOnce(&mut HashSet<Hash>) -> io::Result<()>) -> io::Result<Swept> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        {
            // A report that is committed behind the back of `named` has held its files since now.
            let mut taken = lock(&self.taken);
            taken.since = Some(taken.held.keys().copied().collect());
        }
        let swept = self.sweep_from(*next, most, named);
        lock(&self.taken).since = None;
        let (removed, end) = swept?;
        *next = end % SHARDS;
        Ok(Swept { removed, to_the_end: end == SHARDS })
    }

    fn sweep_from(&self, from: usize, most: usize, named: impl FnOnce(&mut HashSet<Hash>) -> io::Result<()>) -> io::Result<(u64, usize)> {
        let shards: HashSet<String> = self.disk.list(&self.folder)?.into_iter().collect();
        let (mut files, mut end) = (HashSet::new(), from);
        while end < SHARDS && files.len() < most {
            let shard = format!("{end:02x}");
            if shards.contains(&shard) {
                for name in self.disk.list(&self.folder.join(&shard))? {
                    let (mut hash, digits) = ([0; 32], format!("{shard}{name}"));
                    // What somebody else has put here stays.
                    if hex::decode_to_slice(&digits, &mut hash).is_ok() && hex::encode(hash) == digits {
                        files.insert(hash);
                    }
                }
            }
            end += 1;
        }
        if !files.is_empty() {
            named(&mut files)?;
        }
        let mut removed = 0;
        for file in files {
            // Held while it goes, so that nobody finds it there who then counts on it.
            let taken = lock(&self.taken);
            if taken.since.as_ref().is_some_and(|since| !since.contains(&file)) {
                self.disk.remove(&self.place(&file))?;
                removed += 1;
            }
        }
        Ok((removed, end))
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
    fn place(&self, sha256: &Hash) -> PathBuf {
        let digits = hex::encode(sha256);
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
        let first = attachments.store(1, &file(b"abc"), &mut attachments.hold()).expect("stored");
        let second = attachments.store(2, &file(b"abc"), &mut attachments.hold()).expect("stored");
        assert_eq!((first.sha256, second.id), (second.sha256, 2));
        let paths: Vec<PathBuf> = disk.files().into_keys().collect();
        assert_eq!(paths, [Path::new("/files/ba/7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")]);
        assert_eq!(attachments.load(&first).expect("readable"), b"abc");
    }

    #[test]
    fn a_damaged_file_is_not_handed_out() {
        let disk = SimDisk::default();
        let attachments = Attachments::open(Arc::new(disk.clone()), Path::new("/files")).expect("opens");
        let stored = attachments.store(1, &file(b"abc"), &mut attachments.hold()).expect("stored");
        let path = disk.files().into_keys().next().expect("one file");
        disk.overwrite(&path, b"abd".to_vec());
        assert_eq!(attachments.load(&stored).expect_err("damaged").kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_sweep_spares_what_is_named_and_what_is_held_or_was_while_it_ran() {
        let disk = SimDisk::default();
        let attachments = Attachments::open(Arc::new(disk.clone()), Path::new("/files")).expect("opens");
        let mut hold = attachments.hold();
        let store = |name: &str, hold: &mut Hold| attachments.store(1, &file(name.as_bytes()), hold).expect("stored").sha256;
        let held = store("held", &mut hold);
        let hashes: Vec<Hash> = ["named", "left"].iter().map(|name| store(name, &mut attachments.hold())).collect();
        disk.overwrite(Path::new("/files/ba/note"), b"by a person".to_vec());
        let there = |hash: &Hash| disk.files().contains_key(&attachments.place(hash));
        assert!(attachments.sweep(usize::MAX, |_| Err(io::ErrorKind::InvalidData.into())).is_err());
        assert_eq!(disk.files().len(), 4, "where it cannot be told what is named, all stays");
        let named = |files: &mut HashSet<Hash>| {
            files.remove(&hashes[0]);
            // As a report that is committed after its file was found by nobody's name, and whose file was there before.
            store("left", &mut attachments.hold());
            Ok(())
        };
        assert_eq!(attachments.sweep(usize::MAX, named).expect("swept"), Swept { removed: 0, to_the_end: true });
        let mut passes = 0;
        loop {
            passes += 1;
            let swept = attachments.sweep(1, |files| {
                files.remove(&hashes[0]);
                Ok(())
            });
            if swept.expect("swept").to_the_end {
                break;
            }
        }
        assert_eq!((there(&held), there(&hashes[0]), there(&hashes[1])), (true, true, false), "in {passes} passes");
        assert!(passes > 1);
        drop(hold);
        attachments.sweep(usize::MAX, |_| Ok(())).expect("swept");
        assert_eq!(disk.files().into_keys().collect::<Vec<_>>(), [Path::new("/files/ba/note")]);
    }
}
