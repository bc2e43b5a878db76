//! A block while queries are asked of it, and what they have in common there: columns, conditions, filters, groups.

use crate::bits::Bits;
use crate::block::{Block, Column};
use crate::gather::{Input, Rows, State};
use crate::outcome::Gathered;
use crate::plan::{Grouping, Name, Plan};
use model::{AggregateOp, Stamp};
use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};

/// A block with some rows to be seen, and what jobs have in common in it, made when the first of them asks for it.
pub(crate) struct Prepared<'p, 'q> {
    plan: &'p Plan<'q>,
    few_filters: usize,
    pub(crate) block: Arc<Block>,
    /// Rows in the span that are not hidden; `None`: all.
    visible: Option<Bits>,
    columns: Vec<OnceLock<Option<Arc<Column>>>>,
    /// `None`: they are the codes of its column.
    numbers: Vec<OnceLock<Option<Vec<u32>>>>,
    conditions: Vec<OnceLock<Bits>>,
    /// Rows that are visible and pass a filter; `None`: all.
    chosen: Vec<OnceLock<Option<Bits>>>,
}

/// The groups of a block's rows.
pub(crate) struct Groups<'b> {
    pub(crate) of_rows: Numbers<'b>,
    /// One more than the greatest of them.
    pub(crate) length: usize,
}

/// Numbers by row of a block.
pub(crate) enum Numbers<'b> {
    OfColumn(&'b [u32]),
    Listed(Vec<u32>),
    /// A part of those of many blocks.
    Shared(Arc<[u32]>, Range<usize>),
}

impl Deref for Numbers<'_> {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match self {
            Numbers::OfColumn(numbers) => numbers,
            Numbers::Listed(numbers) => numbers,
            Numbers::Shared(numbers, range) => &numbers[range.clone()],
        }
    }
}

impl<'p, 'q> Prepared<'p, 'q> {
    /// `None`: there is nothing to be seen in it.
    pub(crate) fn new(plan: &'p Plan<'q>, few_filters: usize, block: Arc<Block>, span: &Range<Stamp>) -> Option<Prepared<'p, 'q>> {
        let visible = Visible::of(&block, span)?.0;
        Some(Prepared {
            plan,
            few_filters,
            block,
            visible,
            columns: empty(plan.attributes.len()),
            numbers: empty(plan.attributes.len()),
            conditions: empty(plan.conditions.len()),
            chosen: empty(plan.filters.len()),
        })
    }

    pub(crate) fn column(&self, attribute: usize) -> Option<&Column> {
        let Plan { project, resolver, attributes, .. } = self.plan;
        let column = self.columns[attribute].get_or_init(|| match &attributes[attribute].name {
            Name::Sent(name) => resolver.attribute(*project, &self.block, name),
            Name::Derived(derived) => resolver.derived(*project, &self.block, derived),
        });
        column.as_deref()
    }

    fn condition(&self, condition: usize) -> &Bits {
        let asks = &self.plan.conditions[condition];
        let rows = || asks.verdicts.rows(asks.condition, self.column(asks.attribute), self.block.rows());
        self.conditions[condition].get_or_init(rows)
    }

    pub(crate) fn chosen(&self, filter: usize) -> Option<&Bits> {
        let chosen = self.chosen[filter].get_or_init(|| {
            let mut passing = None;
            for all in &self.plan.filters[filter] {
                let is_only = self.plan.filters.len() == 1 && self.plan.filters[filter].len() == 1;
                let together = if is_only { self.narrowed(all) } else { self.together(all) };
                let together = together.unwrap_or_else(|| Bits::all(self.block.rows()));
                match &mut passing {
                    None => passing = Some(together),
                    Some(passing) => passing.or(&together),
                }
            }
            match (passing, &self.visible) {
                (None, visible) => visible.clone(),
                (passing, None) => passing,
                (Some(mut passing), Some(visible)) => {
                    passing.and(visible);
                    Some(passing)
                }
            }
        });
        chosen.as_ref()
    }

    /// The rows for which all of some conditions hold, each looked up for all rows, once for all filters; `None`: no condition.
    fn together(&self, conditions: &[usize]) -> Option<Bits> {
        let mut together: Option<Bits> = None;
        for condition in conditions {
            let holds = self.condition(*condition);
            match &mut together {
                None => together = Some(holds.clone()),
                Some(together) => together.and(holds),
            }
        }
        together
    }

    /// The same of visible rows, each condition looked up only where those before it hold: for the only filter.
    fn narrowed(&self, conditions: &[usize]) -> Option<Bits> {
        conditions.iter().fold(self.visible.clone(), |some, condition| {
            let asks = &self.plan.conditions[*condition];
            Some(asks.verdicts.among(some, asks.condition, self.column(asks.attribute), self.block.rows()))
        })
    }

    /// The rows that any of some filters lets through; `None`: all, or too many filters to tell.
    pub(crate) fn any(&self, filters: impl ExactSizeIterator<Item = usize>) -> Option<Bits> {
        if filters.len() > self.few_filters {
            return None;
        }
        let mut any = Bits::none(self.block.rows());
        for filter in filters {
            any.or(self.chosen(filter)?);
        }
        Some(any)
    }

    /// The numbers of an attribute's values by row, those of rows that no job needs left out.
    pub(crate) fn numbers(&self, attribute: usize, expected: usize) -> &[u32] {
        let numbers = self.numbers[attribute].get_or_init(|| {
            let of = &self.plan.attributes[attribute];
            let some = self.any(of.numbered_for.iter().copied());
            of.space.numbers(self.column(attribute), self.block.rows(), some.as_ref(), expected)
        });
        match (numbers, self.column(attribute)) {
            (Some(numbers), _) => numbers,
            (None, Some(Column::Codes(codes, _))) => codes,
            (None, _) => unreachable!("only codes stand for themselves"),
        }
    }

    /// The groups of rows that some jobs need; `None` where there is only one group. They are listed where `spare` has memory.
    pub(crate) fn groups(&self, grouping: &Grouping, jobs: &[usize], expected: usize, spare: &mut Vec<Vec<u32>>) -> Option<Groups<'_>> {
        let (first, others) = grouping.attributes.split_first()?;
        let some = self.any(jobs.iter().map(|job| self.plan.jobs[*job].filter));
        if some.as_ref().is_some_and(|some| some.count() == 0) {
            return None;
        }
        let length = |attribute: usize| self.plan.attributes[attribute].space.length();
        let mut groups = Groups { of_rows: Numbers::OfColumn(self.numbers(*first, expected)), length: length(*first) };
        for (attribute, pairs) in others.iter().zip(&grouping.pairs) {
            let parts = (&groups.of_rows[..], self.numbers(*attribute, expected));
            let mut numbers = spare.pop().unwrap_or_default();
            pairs.numbers(parts, (groups.length, length(*attribute)), expected, some.as_ref(), &mut numbers);
            groups = Groups { of_rows: Numbers::Listed(numbers), length: pairs.length() };
        }
        Some(groups)
    }

    /// Takes the block's rows into a job's state.
    pub(crate) fn gather(&self, job: usize, groups: Option<&Groups<'_>>, expected: usize, gathered: &mut Gathered) {
        let mut chosen = self.chosen(self.plan.jobs[job].filter).map(Bits::list);
        if gathered.failure.is_some() || chosen.as_ref().is_some_and(Vec::is_empty) {
            return;
        }
        let of_rows = groups.map(|groups| &groups.of_rows[..]);
        let mut groups_length = groups.map_or(1, |groups| groups.length);
        let is_one_group = of_rows.is_none() || !self.plan.kept.is_empty();
        if !self.plan.kept.is_empty() {
            self.plan.find_kept(job, groups_length, gathered);
            let is_left = |row: &u32| !gathered.kept.has(of_rows.map_or(0, |groups| groups[*row as usize] as usize));
            chosen = Some(match chosen {
                None => (0..self.block.rows() as u32).filter(is_left).collect(),
                Some(chosen) => chosen.into_iter().filter(is_left).collect(),
            });
            groups_length = 1;
        }
        let of_rows = of_rows.filter(|_| !is_one_group);
        let of_chosen: Option<Vec<u32>> =
            chosen.as_ref().zip(of_rows).map(|(chosen, groups)| chosen.iter().map(|row| groups[*row as usize]).collect());
        let groups = of_chosen.as_deref().or(of_rows);
        let rows = Rows { block: &self.block, chosen: chosen.as_deref(), groups, groups_length, expected };
        gathered.matched.add(&rows);
        gathered.check();
        self.aggregate(job, &rows, gathered);
    }

    /// Takes rows into the states of a job's aggregates.
    pub(crate) fn aggregate(&self, job: usize, rows: &Rows<'_>, gathered: &mut Gathered) {
        let aggregates = &self.plan.jobs[job].aggregates;
        aggregates.iter().zip(&mut gathered.states).for_each(|(aggregate, state)| self.add(*aggregate, rows, state));
    }

    /// Takes rows into the state of an aggregate.
    pub(crate) fn add(&self, (op, attribute): (AggregateOp, usize), rows: &Rows<'_>, state: &mut State) {
        let of = &self.plan.attributes[attribute];
        let is_numbered = matches!(op, AggregateOp::Unique | AggregateOp::Histogram);
        let (numbers, numbers_length) =
            if is_numbered { (self.numbers(attribute, rows.expected), of.space.length()) } else { (&[][..], 0) };
        state.add(rows, &Input { column: self.column(attribute), readings: &of.readings, numbers, numbers_length });
    }
}

fn empty<T>(length: usize) -> Vec<OnceLock<T>> {
    (0..length).map(|_| OnceLock::new()).collect()
}

/// The rows of a block that are in the span and not hidden; none in it: all of them.
pub(crate) struct Visible(pub(crate) Option<Bits>);

impl Visible {
    /// `None`: not a single row.
    pub(crate) fn of(block: &Block, span: &Range<Stamp>) -> Option<Visible> {
        let (from, to) = if block.stamp.is_empty() {
            (0, block.rows())
        } else {
            let before = |end: Stamp| block.stamp.partition_point(|stamp| *stamp < end.micros());
            (before(span.start), before(span.end))
        };
        if from >= to {
            return None;
        }
        let is_whole = from == 0 && to == block.rows();
        let mut seen = (!is_whole || block.hidden.is_some()).then(|| Bits::from_fn(block.rows(), |row| (from..to).contains(&row)));
        if let (Some(seen), Some(hidden)) = (&mut seen, &block.hidden) {
            seen.and_not(hidden);
        }
        Some(Visible(seen))
    }
}
