//! Which segments count, and in what order: part of what a start does (the rules are in `recovery`).

use crate::frame::{self, Frame, Piece, VERSION};
use crate::index::{self, Index};
use crate::manifest::Manifest;
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
    pub(crate) archive: Option<Manifest>,
}

/// Finds out which segments count, of those in the log and those in the archive.
pub(crate) fn resolve(
    start: Start<'_>,
    names: &[Name],
    archived: Vec<(Name, Manifest)>,
    recovery: &mut Recovery,
) -> Result<Resolved, OpenError> {
    let mut found = Vec::new();
    for (name, manifest) in archived {
        let index = index::read(start.disk, start.folder, name, None).map_err(failed("read the index of", &name.manifest(start.folder)))?;
        found.push(Found { name, base: manifest.base, last: manifest.last, index, archive: Some(manifest) });
    }
    for name in names {
        let path = name.log(start.folder);
        let bytes = start.disk.length(&path).map_err(failed("look at", &path))?.unwrap_or(0);
        if let Some(index) = index::read(start.disk, start.folder, *name, Some(bytes)).map_err(failed("read the index of", &path))? {
            found.push(Found { name: *name, base: index.segment.base, last: index.segment.last, index: Some(index), archive: None });
        } else if let Some((base, last)) = start.range(*name)? {
            found.push(Found { name: *name, base, last, index: None, archive: None });
        } else if bytes > 0 {
            // It stays where it is, and no start will ever read more of it.
            recovery.damaged.push((name.number, 0, bytes));
        }
    }
    found.sort_by_key(|found| (found.base, found.name));
    let (mut kept, mut superseded): (Vec<Found>, Vec<Name>) = (Vec::new(), Vec::new());
    'found: for next in found {
        while let Some(before) = kept.last().filter(|before| next.base < before.last || next.base == before.base) {
            let verdict = match (&before.archive, &next.archive) {
                // What is archived was whole when it was: a segment with the same commits was put there by somebody.
                (Some(_), _) => Verdict::SetAsideNext,
                (None, Some(_)) => Verdict::SetAsideBefore,
                (None, None) if start.covers(next.name, before.name)? => Verdict::BeforeIsSuperseded,
                (None, None) if start.covers(before.name, next.name)? => Verdict::NextIsSuperseded,
                (None, None) if before.name < next.name => Verdict::SetAsideBefore,
                (None, None) => Verdict::SetAsideNext,
            };
            match verdict {
                Verdict::BeforeIsSuperseded => superseded.push(before.name),
                Verdict::NextIsSuperseded => superseded.push(next.name),
                Verdict::SetAsideBefore => start.set_aside(before, recovery)?,
                Verdict::SetAsideNext => start.set_aside(&next, recovery)?,
            }
            if matches!(verdict, Verdict::NextIsSuperseded | Verdict::SetAsideNext) {
                continue 'found;
            }
            kept.pop();
        }
        kept.push(next);
    }
    Ok(Resolved { kept, superseded })
}

/// What becomes of two segments that overlap.
#[derive(Clone, Copy)]
enum Verdict {
    BeforeIsSuperseded,
    NextIsSuperseded,
    SetAsideBefore,
    SetAsideNext,
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

    fn set_aside(self, found: &Found, recovery: &mut Recovery) -> Result<(), OpenError> {
        let (name, aside) = (found.name, self.folder.join(ASIDE));
        recovery.set_aside.push(name.number);
        let path = |folder| if found.archive.is_some() { name.manifest(folder) } else { name.log(folder) };
        let from = path(self.folder);
        let work = || {
            self.disk.create_folder(&aside)?;
            self.disk.rename(&from, &path(&aside))?;
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
