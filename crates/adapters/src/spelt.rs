//! Series as a store tells them apart, each written once, no two alike.

use crate::names::{SERIES_LABEL, TWIN, mark};
use crate::room;
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use model::{Label, Series};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;

/// What tells one series of a batch from another: path, aggregate (empty where it is kept apart) and labels.
pub(crate) type Raw<'a> = (&'a [String], &'a str, &'a [(String, Label)]);

/// The series as the text [`Spelt`] tells apart.
pub(crate) fn raw(series: &Series) -> Raw<'_> {
    (&series.path, &series.aggregate, &series.labels)
}

/// Series as they are written, no two alike.
pub(crate) struct Spelt {
    text: Vec<u8>,
    ends: Vec<usize>,
    /// What became of those that are not written as they first were.
    otherwise: BTreeMap<usize, Result<Vec<u8>, &'static str>>,
}

impl Spelt {
    /// Writes so many series; `raw` gives the one at a place. `write` appends the text that identifies it for the store, given its
    /// labels, or says why it cannot. Different series that are written alike get one more label; the same series twice is left out.
    pub(crate) fn new<'a>(
        count: usize,
        raw: impl Fn(usize) -> Raw<'a>,
        mut write: impl FnMut(usize, &[(String, Label)], &mut Vec<u8>) -> Result<(), &'static str>,
    ) -> Spelt {
        let mut spelt = Spelt { text: Vec::new(), ends: Vec::with_capacity(count), otherwise: BTreeMap::new() };
        let text = &mut spelt.text;
        for at in 0..count {
            let start = text.len();
            if let Err(reason) = write(at, raw(at).2, text) {
                text.truncate(start);
                spelt.otherwise.insert(at, Err(reason));
            }
            spelt.ends.push(text.len());
            if at == count / 16 {
                text.reserve(room::expected(text.len(), at + 1, count, |at| raw(at).2).map(|(_, bytes)| bytes).sum());
            }
        }
        spelt.part_twins(raw, write);
        spelt
    }

    fn part_twins<'a>(
        &mut self,
        raw: impl Fn(usize) -> Raw<'a>,
        mut write: impl FnMut(usize, &[(String, Label)], &mut Vec<u8>) -> Result<(), &'static str>,
    ) {
        // Only places are in the table, so that it stays small beside the texts.
        let hasher = DefaultHashBuilder::default();
        let mut first: HashTable<u32> = HashTable::with_capacity(self.ends.len());
        let mut together: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for at in 0..self.ends.len() {
            if !self.otherwise.is_empty() && self.otherwise.contains_key(&at) {
                continue;
            }
            let text = self.first_text(at);
            let same = |before: &u32| self.first_text(*before as usize) == text;
            match first.entry(hasher.hash_one(text), same, |before| hasher.hash_one(self.first_text(*before as usize))) {
                Entry::Vacant(place) => _ = place.insert(at as u32),
                Entry::Occupied(before) => {
                    let before = *before.get() as usize;
                    together.entry(before).or_insert_with(|| vec![before]).push(at);
                }
            }
        }
        let mut parted: BTreeMap<usize, Result<Vec<u8>, &'static str>> = BTreeMap::new();
        for group in together.values() {
            let mut kept: BTreeSet<Vec<u8>> = BTreeSet::new();
            let same = group.iter().all(|at| raw(*at) == raw(group[0]));
            for &at in group {
                let (path, aggregate, labels) = raw(at);
                let mut text = Vec::new();
                let written = if same {
                    text.extend_from_slice(self.first_text(at));
                    Ok(())
                } else {
                    let raw = format!("{path:?}{aggregate:?}{labels:?}");
                    let own = (SERIES_LABEL.to_owned(), Label::Text(mark(raw.as_bytes()).trim_start_matches('_').to_owned()));
                    write(at, &labels.iter().cloned().chain([own]).collect::<Vec<_>>(), &mut text)
                };
                let is_text = |before: &u32| self.first_text(*before as usize) == text;
                let taken = !same && first.find(hasher.hash_one(text.as_slice()), is_text).is_some();
                let fate = written.and_then(|()| if !taken && kept.insert(text.clone()) { Ok(text) } else { Err(TWIN) });
                parted.insert(at, fate);
            }
        }
        self.otherwise.extend(parted);
    }

    fn first_text(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.text[start..self.ends[at]]
    }

    /// The text of the series at a place, or why it is left out.
    pub(crate) fn of(&self, at: usize) -> Result<&[u8], &'static str> {
        match self.otherwise.get(&at) {
            None => Ok(self.first_text(at)),
            Some(Ok(text)) => Ok(text),
            Some(Err(reason)) => Err(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_once_for_series_alike_and_not_for_more_than_there_is_to_write() {
        for (first, others, most) in [(40, 40, 1.2), (10_000, 4, 2.1)] {
            let value = |at: usize| Label::Text(format!("{at:0width$}", width = if at < 100 { first } else { others }));
            let all: Vec<Vec<(String, Label)>> = (0..1_600).map(|at| vec![("label".to_owned(), value(at))]).collect();
            let write = |at: usize, _: &[(String, Label)], out: &mut Vec<u8>| {
                let Label::Text(text) = &all[at][0].1 else { unreachable!("all are texts") };
                out.extend_from_slice(text.as_bytes());
                Ok(())
            };
            let spelt = Spelt::new(all.len(), |at| (&[], "", &all[at]), write);
            let (length, capacity) = (spelt.text.len() as f64, spelt.text.capacity() as f64);
            assert!(capacity <= length * most, "{capacity} for {length}");
        }
    }
}
