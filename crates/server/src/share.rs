//! How much of the server one project's submissions, and one token's, may take. Room for submissions being read is shared so that
//! whoever comes next always finds some, whatever a project sends; the pace of a token is bounded where the operator says so. Nothing
//! waits here: what finds no room is told to come back.

use model::ProjectId;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a submission takes beside its bytes: buffers of its connection, what is parsed of it.
const SUBMISSION_BYTES: usize = 64 << 10;
/// Seconds' worth of reports that a token may send at once after a pause.
const BURST_SECS: f64 = 10.0;
/// Tokens whose pace is remembered; beyond it those are forgotten that have been quiet.
const PACES: usize = 10_000;

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// The project has as much as is left for all others.
    Share,
    /// There is none at all.
    Busy,
}

/// Bytes for submissions that are being read, parsed or stored. A project may take as much as it leaves free: alone it gets half, beside
/// `n` others that take all they can a share of `1 / (n + 2)`, and as much is still free for the next one.
pub(crate) struct Room(Mutex<Taken>);

struct Taken {
    free: usize,
    /// By project: its bytes and its submissions. Those without any are not in it.
    projects: HashMap<ProjectId, (usize, usize)>,
}

impl Room {
    pub(crate) fn new(bytes: usize) -> Arc<Room> {
        Arc::new(Room(Mutex::new(Taken { free: bytes, projects: HashMap::new() })))
    }

    /// A place for one submission, until it is dropped.
    pub(crate) fn enter(self: &Arc<Room>, project: ProjectId) -> Result<Place, NoRoom> {
        let mut place = Place { room: self.clone(), project, bytes: 0 };
        self.change(|taken| taken.projects.entry(project).or_default().1 += 1);
        // When there is none, the place is left again at once.
        place.grow(0)?;
        Ok(place)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Taken) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What one submission takes of the room.
pub(crate) struct Place {
    room: Arc<Room>,
    project: ProjectId,
    bytes: usize,
}

impl Place {
    /// Takes room for `bytes` in all, beside what every submission takes. A project's only submission may take all there is, so that
    /// the largest one that is allowed can come in.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let more = (bytes + SUBMISSION_BYTES).saturating_sub(self.bytes);
        self.room.change(|taken| {
            let (held, submissions) = taken.projects.entry(self.project).or_default();
            let left = taken.free.checked_sub(more).ok_or(NoRoom::Busy)?;
            if *held + more > left && *submissions > 1 {
                return Err(NoRoom::Share);
            }
            *held += more;
            taken.free = left;
            Ok(())
        })?;
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (project, bytes) = (self.project, self.bytes);
        self.room.change(|taken| {
            taken.free += bytes;
            if let Some((held, submissions)) = taken.projects.get_mut(&project) {
                (*held, *submissions) = (*held - bytes, *submissions - 1);
                if *submissions == 0 {
                    taken.projects.remove(&project);
                }
            }
        });
    }
}

/// Reports a second that each key may send, with bursts.
pub(crate) struct Pace<K> {
    rate: Option<f64>,
    /// By key: what it may still send, as of then.
    left: Mutex<HashMap<K, (f64, Instant)>>,
}

impl<K: Hash + Eq> Pace<K> {
    /// Reports a second; `None` bounds nothing.
    pub(crate) fn new(rate: Option<u32>) -> Pace<K> {
        Pace { rate: rate.map(f64::from), left: Mutex::default() }
    }

    /// Counts one report, or says after how long it may be sent.
    pub(crate) fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let Some(rate) = self.rate else { return Ok(()) };
        let burst = rate * BURST_SECS;
        let since = |at: Instant| now.saturating_duration_since(at).as_secs_f64();
        let mut all = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= PACES && !all.contains_key(&key) {
            all.retain(|_, (left, at)| *left + since(*at) * rate < burst);
        }
        let (left, at) = all.entry(key).or_insert((burst, now));
        (*left, *at) = ((*left + since(*at) * rate).min(burst), now.max(*at));
        if *left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - *left) / rate));
        }
        *left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ProjectId = ProjectId(1);
    const B: ProjectId = ProjectId(2);
    const C: ProjectId = ProjectId(3);

    fn fill(room: &Arc<Room>, project: ProjectId) -> (Vec<Place>, NoRoom) {
        let mut places = Vec::new();
        loop {
            match room.enter(project) {
                Ok(place) => places.push(place),
                Err(reason) => return (places, reason),
            }
        }
    }

    #[test]
    fn who_comes_next_finds_room_whatever_the_others_take() {
        let room = Room::new(120 * SUBMISSION_BYTES);
        let (a, reason) = fill(&room, A);
        assert_eq!((a.len(), reason), (60, NoRoom::Share));
        let (b, reason) = fill(&room, B);
        assert_eq!((b.len(), reason), (30, NoRoom::Share));
        let (c, _) = fill(&room, C);
        assert_eq!(c.len(), 15);
        drop(a);
        assert_eq!(fill(&room, B).0.len() + b.len(), 52, "half of what is not the third's");
        drop((b, c));
        assert!(room.change(|taken| taken.projects.is_empty() && taken.free == 120 * SUBMISSION_BYTES), "nothing is leaked");
    }

    #[test]
    fn the_largest_submission_comes_in_when_it_is_the_only_one_of_its_project() {
        let room = Room::new(100 * SUBMISSION_BYTES);
        let mut first = room.enter(A).expect("room");
        first.grow(90 * SUBMISSION_BYTES).expect("alone it may have it all");
        assert_eq!(first.grow(100 * SUBMISSION_BYTES), Err(NoRoom::Busy));
        assert_eq!(room.enter(A).err(), Some(NoRoom::Share), "a second one may not");
        let mut other = room.enter(B).expect("room");
        assert_eq!(other.grow(9 * SUBMISSION_BYTES), Err(NoRoom::Busy));
        drop(first);
        other.grow(9 * SUBMISSION_BYTES).expect("room again");
        other.grow(4 * SUBMISSION_BYTES).expect("never shrinks");
        drop(other);
        assert!(room.change(|taken| taken.projects.is_empty() && taken.free == 100 * SUBMISSION_BYTES));
    }

    #[test]
    fn a_token_has_its_pace_and_its_bursts() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let pace = Pace::new(Some(2));
        let sent = |key: u8, now| std::iter::from_fn(|| pace.take(key, now).ok()).take(1_000).count();
        assert_eq!(sent(1, at(0)), 20);
        assert_eq!(pace.take(1, at(0)), Err(Duration::from_millis(500)));
        assert_eq!(sent(2, at(0)), 20, "another token has its own");
        assert_eq!(sent(1, at(400)), 0);
        assert_eq!(sent(1, at(500)), 1);
        assert_eq!(sent(1, at(3_500)), 6);
        assert_eq!(sent(1, at(100_000)), 20);
        assert_eq!(sent(1, at(99_000)), 0, "a clock that goes back gives nothing");
        let unbounded = Pace::new(None);
        assert!((0..100_000).all(|_| unbounded.take(1, begin).is_ok()));
    }

    #[test]
    fn paces_are_bounded_and_only_quiet_tokens_are_forgotten() {
        let begin = Instant::now();
        let pace = Pace::new(Some(1));
        (0..PACES).for_each(|key| pace.take(key, begin).expect("its first"));
        assert_eq!((0..20).filter(|_| pace.take(0, begin).is_ok()).count(), 9);
        pace.take(PACES, begin + Duration::from_secs(5)).expect("its first");
        assert_eq!(pace.left.lock().expect("not poisoned").len(), 2, "the others had as much left as a new one");
        assert_eq!((0..20).filter(|_| pace.take(0, begin + Duration::from_secs(5)).is_ok()).count(), 5);
    }
}
