//! How often passwords may be guessed: per name and overall. Kept in memory, bounded, and forgotten by a restart.
//!
//! A guess is counted before the password is looked at and given back when it was right: many at one time are no way around the
//! bound. Names that no user has are counted like others, so that being refused says nothing about who exists. Whoever guesses at
//! a name can so keep its owner from logging in anew; sessions and API tokens go on.

use crate::token::token_hash;
use crate::{Catalog, LoginError};
use model::Stamp;
use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

/// Ten wrong passwords for one name, then one a minute: 1,440 a day, against passwords of 10 bytes and more.
const PER_NAME: Rate = Rate { at_once: 10, every: 60_000_000 };
/// Sixty wrong passwords for all names together, then one a second.
const OVERALL: Rate = Rate { at_once: 60, every: 1_000_000 };
/// Most names remembered. `OVERALL` lets no more than 660 be busy: 60 at once and 600 in the ten minutes after which a name is free.
const NAMES: usize = 1_024;

/// So many at once, then one every so many microseconds.
#[derive(Clone, Copy)]
struct Rate {
    at_once: u64,
    every: u64,
}

/// How much of a rate is used up: the time in microseconds at which nothing of it is any more.
#[derive(Clone, Copy, Default)]
struct Used {
    free_at: u64,
}

impl Used {
    /// Takes one, or says for how many microseconds none is left.
    fn take(&mut self, rate: Rate, now: u64) -> Result<(), u64> {
        let taken = self.free_at.max(now) + rate.every;
        let latest = now + rate.at_once * rate.every;
        if taken > latest {
            return Err(taken - latest);
        }
        self.free_at = taken;
        Ok(())
    }

    fn give_back(&mut self, rate: Rate) {
        self.free_at = self.free_at.saturating_sub(rate.every);
    }
}

/// The guesses of late, by the hash of the name: a name may be any text.
#[derive(Default)]
pub(crate) struct Guesses {
    overall: Used,
    names: HashMap<[u8; 32], Used>,
}

impl Guesses {
    fn take(&mut self, name: [u8; 32], now: u64) -> Result<(), u64> {
        if self.names.len() >= NAMES {
            self.names.retain(|_, used| used.free_at > now);
            if self.names.len() >= NAMES {
                return Err(OVERALL.every);
            }
        }
        self.names.entry(name).or_default().take(PER_NAME, now)?;
        if let Err(wait) = self.overall.take(OVERALL, now) {
            self.names.entry(name).or_default().give_back(PER_NAME);
            return Err(wait);
        }
        Ok(())
    }

    fn give_back(&mut self, name: [u8; 32]) {
        self.overall.give_back(OVERALL);
        if let Some(used) = self.names.get_mut(&name) {
            used.give_back(PER_NAME);
        }
    }
}

/// Leave to try one password for one name. Dropped, it counts as a wrong one.
#[derive(Debug)]
pub struct Guess {
    pub(crate) name: String,
}

/// Too many wrong passwords of late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many wrong passwords; try again in {wait_secs} s")]
pub struct TooManyGuesses {
    /// When the next one is allowed, in seconds from now, at least 1.
    pub wait_secs: u64,
}

impl Catalog {
    /// Asks for leave to try a password. It blocks on nothing, so it comes before the work of hashing is queued for. Names are
    /// compared without regard to the case of ASCII letters.
    pub fn admit(&self, name: &str, now: Stamp) -> Result<Guess, TooManyGuesses> {
        let name = name.to_ascii_lowercase();
        let taken = self.guesses().take(token_hash(&name), now.micros());
        taken.map(|()| Guess { name }).map_err(|wait| TooManyGuesses { wait_secs: wait.div_ceil(1_000_000).max(1) })
    }

    /// The password was right: the guess is not counted.
    pub(crate) fn was_right(&self, guess: &Guess) {
        self.guesses().give_back(token_hash(&guess.name));
    }

    fn guesses(&self) -> MutexGuard<'_, Guesses> {
        self.guesses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<TooManyGuesses> for LoginError {
    fn from(error: TooManyGuesses) -> LoginError {
        LoginError::TooMany(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// How many of `tries` guesses at one name pass at `now`.
    fn pass(guesses: &mut Guesses, name: u8, tries: u32, now: u64) -> u32 {
        (0..tries).map(|_| u32::from(guesses.take([name; 32], now).is_ok())).sum()
    }

    #[test]
    fn a_name_has_ten_at_once_and_one_a_minute() {
        let mut guesses = Guesses::default();
        assert_eq!(pass(&mut guesses, 1, 20, 0), 10);
        assert_eq!(guesses.take([1; 32], SECOND), Err(59 * SECOND), "it is told how long");
        assert_eq!(pass(&mut guesses, 2, 20, SECOND), 10, "another name has its own");
        assert_eq!([59, 60, 61, 179, 180].map(|at| pass(&mut guesses, 1, 5, at * SECOND)), [0, 1, 0, 1, 1]);
        assert_eq!(pass(&mut guesses, 1, 20, 100_000 * SECOND), 10, "never more at once, however long nothing was tried");
    }

    #[test]
    fn all_names_together_have_sixty_at_once_and_one_a_second() {
        let mut guesses = Guesses::default();
        let passed: u32 = (0..100).map(|name| pass(&mut guesses, name, 1, 0)).sum();
        assert_eq!(passed, 60);
        assert_eq!(guesses.take([200; 32], 0), Err(SECOND));
        assert_eq!((0..20).map(|name| pass(&mut guesses, name, 1, 5 * SECOND)).sum::<u32>(), 5);
        // What is refused for all is not counted for the name.
        let mut guesses = Guesses::default();
        (0..60).for_each(|name| assert!(guesses.take([name; 32], 0).is_ok()));
        assert_eq!(pass(&mut guesses, 100, 50, 0), 0);
        assert_eq!(pass(&mut guesses, 100, 50, 30 * SECOND), 10);
    }

    #[test]
    fn a_right_password_is_not_counted() {
        let mut guesses = Guesses::default();
        for _ in 0..1_000 {
            guesses.take([1; 32], 0).expect("those before it were given back");
            guesses.give_back([1; 32]);
        }
        assert_eq!(pass(&mut guesses, 1, 20, 0), 10);
    }

    #[test]
    fn names_are_forgotten_and_never_more_than_the_bound() {
        let mut guesses = Guesses::default();
        let mut most = 0;
        // As fast as it lets one, a new name each time.
        for number in 0..5_000_u32 {
            let mut name = [0; 32];
            name[..4].copy_from_slice(&number.to_le_bytes());
            assert!(guesses.take(name, u64::from(number) * SECOND).is_ok(), "strangers' names never use up the table");
            most = most.max(guesses.names.len());
        }
        assert!(most <= NAMES, "{most}");
        let busy = guesses.names.values().filter(|used| used.free_at > 4_999 * SECOND).count();
        assert!(busy <= 660, "{busy}");
    }
}
