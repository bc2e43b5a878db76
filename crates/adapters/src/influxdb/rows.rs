//! Which points of a batch share a line: those of the same path and labels, each under the name of its aggregate.

use crate::names;
use crate::number;
use crate::push::Excluded;
use crate::spelt::Raw;
use model::{Batch, Series};
use std::collections::{HashMap, HashSet};

/// The lines of a batch in the order of their first points, and the points that have no place in one.
pub(super) struct Rows<'a> {
    batch: &'a Batch,
    pub(super) excluded: Vec<Excluded>,
    /// The points of each row, by their numbers in the batch; none is empty.
    points: Vec<Vec<u32>>,
}

impl<'a> Rows<'a> {
    /// Gathers the points wherever they stand.
    pub(super) fn new(batch: &'a Batch) -> Rows<'a> {
        let mut rows = Rows { batch, excluded: Vec::new(), points: Vec::new() };
        let (mut places, mut known) = (HashMap::<Raw<'a>, usize>::new(), HashSet::<(usize, &str)>::new());
        for (at, point) in batch.points.iter().enumerate() {
            let number = at as u32;
            if !point.value.is_finite() {
                rows.excluded.push(Excluded { point: number, reason: number::NOT_FINITE });
                continue;
            }
            let place = *places.entry(row_of(&point.series)).or_insert(rows.points.len());
            if place == rows.points.len() {
                rows.points.push(Vec::new());
            }
            if known.insert((place, &point.series.aggregate)) {
                rows.points[place].push(number);
            } else {
                rows.excluded.push(Excluded { point: number, reason: names::TWIN });
            }
        }
        rows
    }

    pub(super) fn len(&self) -> usize {
        self.points.len()
    }

    /// The points of a row, by their numbers in the batch.
    pub(super) fn points(&self, row: usize) -> &[u32] {
        &self.points[row]
    }

    /// Path and labels of a row.
    pub(super) fn raw(&self, row: usize) -> Raw<'a> {
        row_of(&self.batch.points[self.points[row][0] as usize].series)
    }
}

/// What tells a row from others: the aggregate does not.
fn row_of(series: &Series) -> Raw<'_> {
    (&series.path, "", &series.labels)
}

/// Whether two series share a row. Values are compared first, as neighbours mostly differ there.
pub(super) fn are_one(one: &Series, other: &Series) -> bool {
    let values = one.labels.iter().zip(&other.labels).rev().all(|((_, one), (_, other))| one == other);
    values && row_of(one) == row_of(other)
}
