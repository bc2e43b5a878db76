//! The room on the disk of the data folder: reports are refused before it is full, so that windows are still sealed, deliveries still
//! recorded, and people can still log in and see why. A ballast file gives that work its last room when others fill the disk.
//! It deletes nothing that anybody sent; how many reports are kept is for the operator to say (`--retain-size`).

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How often the disk is looked at.
pub(crate) const EVERY: Duration = Duration::from_secs(1);
/// Least and most that is kept free unless the operator says otherwise, and the share of the disk in between.
const RESERVE_BYTES: (u64, u64) = (1 << 30, 16 << 30);
const RESERVE_SHARE: u64 = 33;
/// Free room is enough again when it is this share of the reserve above it: the state does not flutter.
const MARGIN_SHARE: u64 = 20;
/// The ballast is a quarter of the reserve, at most this.
const BALLAST_BYTES: u64 = 256 << 20;
/// Its file in the data folder.
const BALLAST: &str = "ballast";

/// What is known of the disk.
pub(crate) struct Room {
    folder: PathBuf,
    reserve: u64,
    free: AtomicU64,
    low: AtomicBool,
}

/// The disk, as far as the rules look at it.
trait Space {
    /// Bytes that can still be written.
    fn free(&self) -> io::Result<u64>;
    /// Makes or removes the ballast.
    fn hold(&self, bytes: u64) -> io::Result<()>;
    fn release(&self) -> io::Result<()>;
    /// Bytes of the ballast.
    fn held(&self) -> u64;
}

impl Room {
    /// Looks for the first time. With a reserve of 0 nothing is refused and no ballast made.
    pub(crate) fn open(folder: &Path, reserve: Option<u64>) -> io::Result<Room> {
        let whole = statvfs(folder)?;
        let usual = (whole.f_blocks * whole.f_frsize / RESERVE_SHARE).clamp(RESERVE_BYTES.0, RESERVE_BYTES.1);
        let room =
            Room { folder: folder.to_owned(), reserve: reserve.unwrap_or(usual), free: AtomicU64::new(0), low: AtomicBool::new(false) };
        room.look();
        Ok(room)
    }

    /// Whether reports have to be refused.
    pub(crate) fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    /// Bytes free when it was last looked at.
    pub(crate) fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Bytes below which reports are refused.
    pub(crate) fn reserve(&self) -> u64 {
        self.reserve
    }

    /// Looks again. Blocks.
    pub(crate) fn look(&self) {
        if let Err(error) = self.judge(&Folder(&self.folder)) {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot look after the room on the disk");
        }
    }

    fn judge(&self, space: &impl Space) -> io::Result<()> {
        let free = space.free()?;
        self.free.store(free, Ordering::Relaxed);
        if self.reserve == 0 {
            return space.release();
        }
        let ballast = (self.reserve / 4).min(BALLAST_BYTES);
        let (was_low, margin) = (self.is_low(), self.reserve / MARGIN_SHARE);
        if free < self.reserve && !was_low {
            self.low.store(true, Ordering::Relaxed);
            tracing::error!(free, reserve = self.reserve, "the disk is nearly full: reports are refused; make room, or see --retain-size");
        }
        if free > self.reserve + margin && was_low {
            self.low.store(false, Ordering::Relaxed);
            tracing::info!(free, "the disk has room again: reports are taken");
        }
        // Others go on filling the disk: what has to be written from now on has the ballast's room.
        if free < ballast && space.held() > 0 {
            tracing::error!(free, "the disk is full: the ballast is given up");
            return space.release();
        }
        if free > self.reserve + margin + ballast && space.held() != ballast {
            return space.hold(ballast);
        }
        Ok(())
    }
}

/// The real folder.
struct Folder<'a>(&'a Path);

impl Space for Folder<'_> {
    fn free(&self) -> io::Result<u64> {
        let now = statvfs(self.0)?;
        Ok(now.f_bavail * now.f_frsize)
    }

    fn hold(&self, bytes: u64) -> io::Result<()> {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).open(self.0.join(BALLAST))?;
        match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(()),
            // A file system that cannot set room aside has no ballast; the reserve stands all the same.
            Err(error) if error == rustix::io::Errno::OPNOTSUPP => self.release(),
            Err(error) => {
                self.release()?;
                Err(error.into())
            }
        }
    }

    fn release(&self) -> io::Result<()> {
        match fs::remove_file(self.0.join(BALLAST)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn held(&self) -> u64 {
        fs::metadata(self.0.join(BALLAST)).map_or(0, |file| file.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A disk of a hundred.
    struct Small {
        others: Cell<u64>,
        ballast: Cell<u64>,
    }

    impl Space for Small {
        fn free(&self) -> io::Result<u64> {
            Ok(100 - self.others.get() - self.ballast.get())
        }

        fn hold(&self, bytes: u64) -> io::Result<()> {
            self.ballast.set(bytes);
            Ok(())
        }

        fn release(&self) -> io::Result<()> {
            self.ballast.set(0);
            Ok(())
        }

        fn held(&self) -> u64 {
            self.ballast.get()
        }
    }

    #[test]
    fn reports_are_refused_before_the_disk_is_full_and_the_ballast_goes_last() {
        let disk = Small { others: Cell::new(10), ballast: Cell::new(0) };
        let room = Room { folder: PathBuf::new(), reserve: 40, free: AtomicU64::new(0), low: AtomicBool::new(false) };
        for (others, low, ballast) in [
            (10, false, 10),
            (50, false, 10),
            (51, true, 10),
            (49, true, 10),
            (48, true, 10),
            (47, false, 10),
            (60, true, 10),
            (80, true, 10),
            // Nine are free.
            (81, true, 0),
            (100, true, 0),
            (59, true, 0),
            // There is room for reports, and not yet for the ballast.
            (57, false, 0),
            (48, false, 0),
            (47, false, 10),
        ] {
            disk.others.set(others);
            room.judge(&disk).expect("works");
            assert_eq!((room.is_low(), disk.ballast.get()), (low, ballast), "{others} taken by others");
        }
        let unbounded = Room { reserve: 0, ..room };
        disk.others.set(90);
        unbounded.low.store(false, Ordering::Relaxed);
        unbounded.judge(&disk).expect("works");
        assert_eq!((unbounded.is_low(), disk.ballast.get()), (false, 0));
    }

    #[test]
    fn a_ballast_takes_real_room_and_gives_it_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let room = Room::open(folder.path(), Some(4 << 20)).expect("opens");
        assert!(!room.is_low() && room.free() > 4 << 20);
        let ballast = folder.path().join(BALLAST);
        assert_eq!(fs::metadata(&ballast).expect("made").len(), 1 << 20);
        let room = Room::open(folder.path(), Some(u64::MAX / 2)).expect("opens");
        assert!(room.is_low(), "more than any disk has");
        assert!(!Room::open(folder.path(), Some(0)).expect("opens").is_low());
    }
}
