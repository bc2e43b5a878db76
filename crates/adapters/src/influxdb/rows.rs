//! Which points of a batch share a line: those of the same path and labels, each under the name of its aggregate.

use crate::names;
use crate::number;
use crate::push::Excluded;
use crate::spelt::{self, Raw};
use model::Batch;
use std::collections::{HashMap, HashSet};

/// The lines of a batch in the order of their first points, and the points that have no place in one.
pub(super) struct Rows<'a> {
    pub(super) batch: &'a Batch,
    pub(super) excluded: Vec<Excluded>,
    /// The points of all rows, one behind the other; none is empty.
    points: Vec<u32>,
    /// Where the points of each row end.
    ends: Vec<u32>,
}

impl<'a> Rows<'a> {
    /// Points that follow each other share a row. Of points far from each other, a series may so have more than one row; then these have
    /// the same text too, and [`Rows::gathered`] is what is to be written.
    pub(super) fn of_neighbours(batch: &'a Batch) -> Rows<'a> {
        let count = batch.points.len();
        let mut rows = Rows { batch, excluded: Vec::new(), points: Vec::with_capacity(count), ends: Vec::with_capacity(count) };
        for (at, point) in batch.points.iter().enumerate() {
            if !point.value.is_finite() {
                rows.excluded.push(Excluded { point: at as u32, reason: number::NOT_FINITE });
                continue;
            }
            if rows.points.last().is_some_and(|last| !same_row(spelt::raw(&batch.points[*last as usize].series), spelt::raw(&point.series)))
            {
                rows.close();
            }
            rows.points.push(at as u32);
        }
        rows.close();
        rows
    }

    /// The same points with all of a series in one row, wherever they stood.
    pub(super) fn gathered(&self) -> Rows<'a> {
        let (mut places, mut gathered) = (HashMap::<Raw<'a>, usize>::new(), Vec::<Vec<u32>>::new());
        for at in 0..self.len() {
            let place = *places.entry(self.raw(at)).or_insert(gathered.len());
            if place == gathered.len() {
                gathered.push(Vec::new());
            }
            gathered[place].extend(self.points(at));
        }
        let mut rows = Rows { batch: self.batch, excluded: self.excluded.clone(), points: Vec::new(), ends: Vec::new() };
        for points in gathered {
            rows.points.extend(points);
            rows.close();
        }
        rows
    }

    /// Ends the row of the points behind the last one, without those whose aggregate it has already.
    fn close(&mut self) {
        let start = self.start(self.ends.len());
        let (before, new) = self.points.split_at(start);
        let before = &before[self.ends.len().checked_sub(1).map_or(0, |last| self.start(last))..];
        let aggregate = |point: &u32| self.batch.points[*point as usize].series.aggregate.as_str();
        // Mostly a row has the aggregates of the one before, which were looked through.
        if new.is_empty() || before.iter().map(aggregate).eq(new.iter().map(aggregate)) && !before.is_empty() {
            self.ends.extend((!new.is_empty()).then_some(self.points.len() as u32));
            return;
        }
        let (mut known, mut kept) = (HashSet::new(), Vec::with_capacity(new.len()));
        for point in new {
            if known.insert(aggregate(point)) {
                kept.push(*point);
            } else {
                self.excluded.push(Excluded { point: *point, reason: names::TWIN });
            }
        }
        self.points.truncate(start);
        self.points.extend(kept);
        self.ends.push(self.points.len() as u32);
    }

    fn start(&self, row: usize) -> usize {
        if row == 0 { 0 } else { self.ends[row - 1] as usize }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The points of a row, by their numbers in the batch.
    pub(super) fn points(&self, row: usize) -> &[u32] {
        &self.points[self.start(row)..self.ends[row] as usize]
    }

    /// The aggregates of these points, no two alike.
    pub(super) fn aggregates(&self, row: usize) -> impl Iterator<Item = &'a str> + Clone {
        let batch = self.batch;
        self.points(row).iter().map(|point| batch.points[*point as usize].series.aggregate.as_str())
    }

    /// Path and labels of a row.
    pub(super) fn raw(&self, row: usize) -> Raw<'a> {
        row_of(spelt::raw(&self.batch.points[self.points[self.start(row)] as usize].series))
    }
}

/// What tells a row from others: the aggregate does not.
fn row_of((path, _, labels): Raw<'_>) -> Raw<'_> {
    (path, "", labels)
}

/// Values are compared first, as neighbours of one metric differ only there.
fn same_row(one: Raw<'_>, other: Raw<'_>) -> bool {
    one.2.len() == other.2.len() && one.2.iter().zip(other.2).all(|((_, one), (_, other))| one == other) && row_of(one) == row_of(other)
}
