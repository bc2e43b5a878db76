//! Series spelt in one walk over a batch, in the hope that no two are written alike: so it nearly always is, and a batch is larger than
//! the processor's caches. Whoever finds out that it was not so begins again with `Names` and `Spelt`, which part what falls together.

use crate::frame::{Frame, Frames};
use crate::names::{Name, Places};
use hashbrown::DefaultHashBuilder;
use model::Label;
use std::collections::HashMap;
use std::hash::BuildHasher;

/// What has been written so far.
pub(crate) struct Walk<'a> {
    places: Places<'a>,
    /// What the name at each place takes up, the name first.
    claims: Vec<Vec<String>>,
    frames: Frames,
    hasher: DefaultHashBuilder,
    /// A hash of each series as it is written.
    hashes: Vec<u64>,
}

impl<'a> Walk<'a> {
    /// A walk over so many series.
    pub(crate) fn new(count: usize) -> Walk<'a> {
        Walk {
            places: Places::default(),
            claims: Vec::new(),
            frames: Frames::default(),
            hasher: DefaultHashBuilder::default(),
            hashes: Vec::with_capacity(count),
        }
    }

    /// The place of the next series' name; `write` is that of `Names::new`.
    pub(crate) fn place(&mut self, name: Name<'a>, write: impl Fn(&Name<'a>, &str) -> Vec<String>) -> usize {
        let place = self.places.of(name);
        if place == self.claims.len() {
            self.claims.push(write(&name, ""));
        }
        place
    }

    /// The place of a name, if a series so far has it.
    pub(crate) fn known(&self, name: &Name<'a>) -> Option<usize> {
        self.places.known(name)
    }

    /// The name at a place.
    pub(crate) fn name(&self, place: usize) -> &str {
        &self.claims[place][0]
    }

    /// The frame of a series; `make` is given the name.
    pub(crate) fn frame(&mut self, place: usize, labels: &[(String, Label)], make: impl FnOnce(&str) -> Frame) -> &Frame {
        self.frames.of(place, labels, || make(&self.claims[place][0]))
    }

    /// Remembers how a series was written behind its name.
    pub(crate) fn wrote(&mut self, place: usize, text: &[u8]) {
        self.hashes.push(self.hasher.hash_one((place as u32, text)));
    }

    /// Whether no two names and no two series were written alike.
    pub(crate) fn all_differ(&self) -> bool {
        let mut owners = HashMap::new();
        let mut claims = self.claims.iter().enumerate().flat_map(|(at, texts)| texts.iter().map(move |text| (at, text)));
        claims.all(|(at, text)| *owners.entry(text).or_insert(at) == at) && differ(&self.hashes)
    }
}

/// Whether no number is there twice. Each sets a bit; only those whose bit was set before, and those before them, are compared.
fn differ(numbers: &[u64]) -> bool {
    let words = (numbers.len() / 4).next_power_of_two();
    let place = |number: u64| ((number >> 6) as usize & (words - 1), 1 << (number & 63));
    let (mut once, mut again) = (vec![0u64; words], Vec::new());
    for &number in numbers {
        let (word, bit) = place(number);
        if once[word] & bit != 0 {
            again.push(number);
        }
        once[word] |= bit;
    }
    if again.is_empty() {
        return true;
    }
    let mut twice = vec![0u64; words];
    for number in again {
        let (word, bit) = place(number);
        twice[word] |= bit;
    }
    let is_twice = |number: &u64| {
        let (word, bit) = place(*number);
        twice[word] & bit != 0
    };
    let mut suspects: Vec<u64> = numbers.iter().copied().filter(is_twice).collect();
    suspects.sort_unstable();
    suspects.windows(2).all(|pair| pair[0] != pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Shape;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn names_that_fall_together_are_seen() {
        let paths = [["a.b"], ["a-b"], ["c"]].map(|path| path.map(str::to_owned));
        let name = |at: usize| Name { path: &paths[at], aggregate: "", shape: Shape::Gauge };
        let claims = |name: &Name<'_>, _: &str| vec![name.path[0].replace(['.', '-'], "_"), "shared by one".to_owned() + &name.path[0]];
        for (walked, differ) in [(&[0, 2, 0, 2][..], true), (&[0, 2, 1], false), (&[], true)] {
            let mut walk = Walk::new(0);
            walked.iter().for_each(|at| _ = walk.place(name(*at), claims));
            assert_eq!(walk.all_differ(), differ, "{walked:?}");
        }
    }

    #[test]
    fn one_text_among_many_that_is_there_twice_is_found() {
        for twin in [None, Some(0), Some(5_000), Some(9_999)] {
            let mut walk = Walk::new(10_000);
            (0..10_000).chain(twin).for_each(|at: u32| walk.wrote(at as usize % 3, (at / 3).to_string().as_bytes()));
            assert_eq!(walk.all_differ(), twin.is_none(), "{twin:?}");
        }
    }

    proptest! {
        #[test]
        fn numbers_differ_when_a_set_has_room_for_all(numbers in prop::collection::vec(prop_oneof![0u64..2_000, any::<u64>()], 0..200)) {
            prop_assert_eq!(differ(&numbers), numbers.iter().collect::<HashSet<_>>().len() == numbers.len());
        }
    }
}
