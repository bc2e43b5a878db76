//! The lock that keeps a second process out of a data folder.

use crate::disk::{Disk, RealDisk};
use crate::recovery::{OpenError, failed};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

/// Holds a folder for this process as long as it lives.
#[derive(Debug)]
pub struct FolderLock(#[expect(dead_code, reason = "the lock lasts as long as the file is open")] File);

/// Takes a folder for this process, making it where there is none; a second process is refused.
pub fn lock_folder(folder: &Path) -> Result<FolderLock, OpenError> {
    let path = folder.join("lock");
    RealDisk.create_folder(folder).map_err(failed("make", folder))?;
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(FolderLock(file)),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: folder.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed("lock", &path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once() {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let folder = temporary.path().join("not/yet/there");
        let lock = lock_folder(&folder).expect("free");
        assert!(matches!(lock_folder(&folder), Err(OpenError::InUse { .. })));
        drop(lock);
        lock_folder(&folder).expect("free again");
    }
}
