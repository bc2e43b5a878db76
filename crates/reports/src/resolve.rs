//! Which segments count, and in what order: part of what a start does (the rules are in `recovery`).

use crate::frame::{self, Frame, Piece, VERSION};
use crate::index::{self, Index};
use crate::recovery::{ASIDE, OpenError, Recovery, Start, failed};
use crate::segment::Name;
use std::collections::HashMap;

/// The segments of a log, sorted out.
pub(crate) struct Resolved {
    /// Those that count, in the order of their commits.
    pub(crate) kept: Vec<Found>,
    /// Those whose every commit is in another one.
    pub(crate) superseded: Vec<Name>,
}

/// A segment found, with the range of its commits.
pub(crate) struct Found {
    pub(crate) name: Name,
    base: u64,
    last: u64,
    pub(crate) index: Option<Index>,
}

/// Finds out which segments count.
pub(crate) fn resolve(start: Start<'_>, names: &[Name], recovery: &mut Recovery) -> Result<Resolved, OpenError> {
    let mut found = Vec::new();
    for name in names {
        let path = name.log(start.folder);
        let bytes = start.disk.length(&path).map_err(failed("look at", &path))?.unwrap_or(0);
        if let Some(index) = index::read(start.disk, start.folder, *name, bytes).map_err(failed("read the index of", &path))? {
            found.push(Found { name: *name, base: index.segment.base, last: index.segment.last, index: Some(index) });
        } else if let Some((base, last)) = start.range(*name)? {
            found.push(Found { name: *name, base, last, index: None });
        } else if bytes > 0 {
            // It stays where it is, and no start will ever read more of it.
            recovery.damaged.push((name.number, 0, bytes));
        }
    }
    found.sort_by_key(|found| (found.base, found.name));
    let (mut kept, mut superseded): (Vec<Found>, Vec<Name>) = (Vec::new(), Vec::new());
    'found: for next in found {
        while let Some(before) = kept.last().filter(|before| next.base < before.last || next.base == before.base) {
            if start.covers(next.name, before.name)? {
                superseded.push(before.name);
                kept.pop();
            } else if start.covers(before.name, next.name)? {
                superseded.push(next.name);
                continue 'found;
            } else if before.name < next.name {
                recovery.set_aside.push(before.name.number);
                start.set_aside(before.name)?;
                kept.pop();
            } else {
                recovery.set_aside.push(next.name.number);
                start.set_aside(next.name)?;
                continue 'found;
            }
        }
        kept.push(next);
    }
    Ok(Resolved { kept, superseded })
}

impl Start<'_> {
    /// The sequence after which a segment's commits come, and that of its last; `None` when it has no readable frame.
    fn range(self, name: Name) -> Result<Option<(u64, u64)>, OpenError> {
        let content = self.content(name)?;
        let mut range: Option<(u64, u64)> = None;
        for (offset, frame) in frames(name, &content) {
            if frame.version > VERSION {
                return Err(OpenError::Newer { path: name.log(self.folder), found: frame.version });
            }
            // The checkpoint is the first frame; where it is damaged, the first commit says where the segment begins.
            let first = if offset == 0 { frame.sequence } else { frame.sequence.saturating_sub(1) };
            let (_, last) = range.get_or_insert((first, first));
            *last = (*last).max(frame.sequence);
        }
        Ok(range)
    }

    /// Whether every commit of `inner` is in `outer` too.
    fn covers(self, outer: Name, inner: Name) -> Result<bool, OpenError> {
        let (outer_content, inner_content) = (self.content(outer)?, self.content(inner)?);
        // The frame at the beginning is the checkpoint, which is every segment's own.
        let commits = |name: Name, content| frames(name, content).filter(|(at, _)| *at > 0);
        let theirs: HashMap<u64, Frame<'_>> = commits(outer, &outer_content).map(|(_, frame)| (frame.sequence, frame)).collect();
        Ok(commits(inner, &inner_content).all(|(_, frame)| theirs.get(&frame.sequence).is_some_and(|same| same.same(&frame))))
    }

    fn set_aside(self, name: Name) -> Result<(), OpenError> {
        let (from, aside) = (name.log(self.folder), self.folder.join(ASIDE));
        let work = || {
            self.disk.create_folder(&aside)?;
            self.disk.rename(&from, &name.log(&aside))?;
            self.disk.sync_folder(&aside)?;
            self.disk.sync_folder(self.folder)
        };
        work().map_err(failed("set aside", &from))
    }
}

/// The undamaged frames of a segment, with their offsets.
fn frames(name: Name, content: &[u8]) -> impl Iterator<Item = (u64, Frame<'_>)> {
    frame::pieces(name.salt, content).into_iter().filter_map(|piece| match piece {
        Piece::Frame(offset, frame) => Some((offset, frame)),
        Piece::Rubbish(..) => None,
    })
}
