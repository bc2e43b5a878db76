//! Selections: the reports themselves. Only what sorts is looked at row by row; shown values are read of the rows shown.

use crate::bits::Bits;
use crate::block::{Block, Column};
use crate::filter::Verdicts;
use crate::prepared::Visible;
use crate::resolve::Resolver;
use crate::scan::{Failure, Source};
use model::query::order;
use model::{Condition, Direction, Selected, Selection, Tx, Value};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

/// Rows gathered beyond those wanted before the worst are let go.
const SLACK: usize = 4_096;

/// A row that may be shown: what it is sorted by, its number, and what of it is shown.
struct Candidate {
    sorted_by: Vec<Option<Value>>,
    tx: u64,
    shown: Shown,
}

/// What of a row is shown.
enum Shown {
    /// Of a row of the block at hand, not read yet: most such rows make room for better ones.
    Row(usize),
    Values(Vec<Option<Value>>),
}

/// Selects; the meaning is that of `model::oracle`. Parts are loaded one after the other.
pub fn select<E>(source: &Source<'_, E>, selection: &Selection) -> Result<Result<Selected, Failure>, E> {
    let resolver = Resolver::new();
    let wanted = selection.offset.saturating_add(selection.limit);
    let verdicts = unknown(&selection.filter);
    let (mut matched, mut best): (u64, Vec<Candidate>) = (0, Vec::new());
    // Once there are as many as wanted, the worst of them: what is no better need not be looked at further.
    let mut worst: Option<(Vec<Option<Value>>, u64)> = None;
    for part in 0..source.parts {
        if (source.cancelled)() {
            return Ok(Err(Failure::Cancelled));
        }
        for block in (source.load)(part)? {
            let Some(Visible(seen)) = Visible::of(&block, &source.span) else { continue };
            let column = |name: &str| match selection.derived.iter().find(|derived| derived.name == name) {
                Some(derived) => resolver.derived(source.project, &block, derived),
                None => resolver.attribute(source.project, &block, name),
            };
            let rows = passing(&block, &selection.filter, &verdicts, seen, &column);
            matched += rows.count();
            if wanted == 0 {
                continue;
            }
            let sorted: Vec<_> = selection.order.iter().map(|(name, _)| column(name)).collect();
            let values = |columns: &[Option<Arc<Column>>], row: usize| {
                columns.iter().map(|column| value(column, row).map(Cow::into_owned)).collect::<Vec<_>>()
            };
            for row in rows.iter() {
                let tx = block.tx[row];
                let is_better = worst.as_ref().is_none_or(|(keys, than)| {
                    let key = |at: usize| value(&sorted[at], row);
                    compare(selection, key, tx, |at| keys[at].as_ref().map(Cow::Borrowed), *than).is_lt()
                });
                if is_better {
                    best.push(Candidate { sorted_by: values(&sorted, row), tx, shown: Shown::Row(row) });
                    if best.len() >= wanted.saturating_add(SLACK) {
                        worst = keep(&mut best, selection, wanted);
                    }
                }
            }
            worst = keep(&mut best, selection, wanted);
            let of_block = best.iter_mut().filter(|candidate| matches!(candidate.shown, Shown::Row(_)));
            let mut shown: Option<Vec<_>> = None;
            for candidate in of_block {
                let columns = shown.get_or_insert_with(|| selection.columns.iter().map(|name| column(name)).collect());
                if let Shown::Row(row) = candidate.shown {
                    candidate.shown = Shown::Values(values(columns, row));
                }
            }
        }
    }
    let rows = best.into_iter().skip(selection.offset).map(|candidate| match candidate.shown {
        Shown::Values(values) => (Tx(candidate.tx), values),
        Shown::Row(_) => unreachable!("values are read at the end of each block"),
    });
    Ok(Ok(Selected { matched, rows: rows.collect() }))
}

/// Keeps the first ones, sorted; when there are as many as wanted, what the last of them is sorted by.
fn keep(best: &mut Vec<Candidate>, selection: &Selection, wanted: usize) -> Option<(Vec<Option<Value>>, u64)> {
    best.sort_unstable_by(|a, b| {
        let key = |candidate: &'_ Candidate, at: usize| candidate.sorted_by[at].clone().map(Cow::Owned);
        compare(selection, |at| key(a, at), a.tx, |at| key(b, at), b.tx)
    });
    best.truncate(wanted);
    best.last().filter(|_| best.len() == wanted).map(|last| (last.sorted_by.clone(), last.tx))
}

fn compare<'v>(
    selection: &Selection,
    a: impl Fn(usize) -> Option<Cow<'v, Value>>,
    a_tx: u64,
    b: impl Fn(usize) -> Option<Cow<'v, Value>>,
    b_tx: u64,
) -> Ordering {
    let mut terms = selection.order.iter().enumerate().map(|(at, (_, direction))| {
        let order = order(a(at).as_deref(), b(at).as_deref());
        if *direction == Direction::Descending { order.reverse() } else { order }
    });
    terms.find(|order| order.is_ne()).unwrap_or(Ordering::Equal).then(a_tx.cmp(&b_tx))
}

fn value(column: &Option<Arc<Column>>, row: usize) -> Option<Cow<'_, Value>> {
    column.as_ref()?.value(row)
}

/// Nothing known yet of the conditions of a filter.
pub(crate) fn unknown(filter: &[Vec<Condition>]) -> Vec<Vec<Verdicts>> {
    filter.iter().map(|all| all.iter().map(|_| Verdicts::default()).collect()).collect()
}

/// The rows of a block that are seen and pass.
pub(crate) fn passing(
    block: &Block,
    filter: &[Vec<Condition>],
    verdicts: &[Vec<Verdicts>],
    seen: Option<Bits>,
    column: &dyn Fn(&str) -> Option<Arc<Column>>,
) -> Bits {
    let mut passes = if filter.is_empty() { Bits::all(block.rows()) } else { Bits::none(block.rows()) };
    for (all, verdicts) in filter.iter().zip(verdicts) {
        let mut both = seen.clone();
        for (condition, verdicts) in all.iter().zip(verdicts) {
            both = Some(verdicts.among(both, condition, column(&condition.attribute).as_deref(), block.rows()));
        }
        both.iter().for_each(|both| passes.or(both));
        if both.is_none() {
            return Bits::all(block.rows());
        }
    }
    if let Some(seen) = seen {
        passes.and(&seen);
    }
    passes
}
