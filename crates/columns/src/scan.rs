//! The scan that answers many queries at once: what they have in common (columns, conditions, filters, keys) is worked out once a
//! block, whatever their number.
//!
//! A few queries are answered block by block, all at one time; threads take the parts in turn. Many are answered one by one over a
//! batch of blocks that are held for so long; threads take the queries in turn. So the states of many queries are in memory together
//! only when there is more than one batch, and then without what can be made anew.

use crate::bits::Bits;
use crate::block::{Block, Column};
use crate::gather::{Input, Rows};
use crate::plan::{Gathered, Grouping, Name, Plan};
use model::oracle::MAX_GROUPS;
use model::{AggregateOp, Key, Most, ProjectId, Query, Stamp, Table, TableRow, Top};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// When a scan does what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Jobs up to this many are done block by block.
    pub(crate) few_jobs: usize,
    /// Rows of a batch; its last part may go beyond that.
    pub(crate) batch_rows: usize,
    /// Jobs that a thread takes at a time; for these it works out the groups of rows once.
    pub(crate) jobs_at_a_time: usize,
    /// More filters than this are not put together: it would take longer than to look up what none of them lets through.
    pub(crate) few_filters: usize,
}

impl Bounds {
    const USUAL: Bounds = Bounds { few_jobs: 4, batch_rows: 2_000_000, jobs_at_a_time: 16, few_filters: 16 };
}

/// Why a query has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// More groups than fit.
    #[error("the query has more than {MAX_GROUPS} groups; group by something with fewer values")]
    TooManyGroups,
    /// Whoever asked has gone.
    #[error("the query was cancelled")]
    Cancelled,
}

/// The blocks of one project in some order, in parts that are loaded one at a time by any thread.
pub struct Source<'a, E> {
    /// Whose they are.
    pub project: ProjectId,
    /// How many parts there are.
    pub parts: usize,
    /// Loads a part.
    pub load: &'a (dyn Fn(usize) -> Result<Vec<Arc<Block>>, E> + Sync),
    /// Rows outside of it are left out.
    pub span: Range<Stamp>,
    /// Threads that work at it, this one included.
    pub threads: usize,
    /// Whether to stop.
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// Evaluates queries; the meaning is that of `model::oracle`.
pub fn evaluate<E: Send>(source: &Source<'_, E>, queries: &[&Query]) -> Result<Vec<Result<Table, Failure>>, E> {
    let tops = evaluate_within(Bounds::USUAL, source, queries, &[])?;
    Ok(tops.into_iter().map(|top| top.map(|top| top.table)).collect())
}

/// The same for only some groups of each query; the cost of the others is little more than counting them.
pub fn evaluate_most<E: Send>(source: &Source<'_, E>, queries: &[(&Query, Most<'_>)]) -> Result<Vec<Result<Top, Failure>>, E> {
    let (queries, most): (Vec<&Query>, Vec<Most<'_>>) = queries.iter().copied().unzip();
    evaluate_within(Bounds::USUAL, source, &queries, &most)
}

pub(crate) fn evaluate_within<E: Send>(
    bounds: Bounds,
    source: &Source<'_, E>,
    queries: &[&Query],
    most: &[Most<'_>],
) -> Result<Vec<Result<Top, Failure>>, E> {
    let mut plan = Plan::new(source.project, queries, &[]);
    plan.most = most.to_vec();
    answer(bounds, source, plan, queries.len())
}

/// Evaluates each query over the reports whose groups are not among those kept, as one group with an empty key.
pub fn rests<E: Send>(source: &Source<'_, E>, queries: &[(&Query, &BTreeSet<Key>)]) -> Result<Vec<Result<TableRow, Failure>>, E> {
    rests_within(Bounds::USUAL, source, queries)
}

pub(crate) fn rests_within<E: Send>(
    bounds: Bounds,
    source: &Source<'_, E>,
    queries: &[(&Query, &BTreeSet<Key>)],
) -> Result<Vec<Result<TableRow, Failure>>, E> {
    let (queries, kept): (Vec<&Query>, Vec<&BTreeSet<Key>>) = queries.iter().copied().unzip();
    let tops = answer(bounds, source, Plan::new(source.project, &queries, &kept), queries.len())?;
    Ok(tops.into_iter().map(|top| Ok(top?.table.rows.pop().expect("one group has one row"))).collect())
}

/// Carries out a plan; what each of its queries comes to.
fn answer<E: Send>(bounds: Bounds, source: &Source<'_, E>, plan: Plan<'_>, queries: usize) -> Result<Vec<Result<Top, Failure>>, E> {
    let scan = Scan::new(bounds, source, &plan);
    let answers = if plan.jobs.len() <= bounds.few_jobs {
        scan.gather().into_iter().enumerate().flat_map(|(job, gathered)| plan.tables(job, gathered, source.threads)).collect()
    } else {
        scan.in_batches()
    };
    let mut tops: Vec<_> = (0..queries).map(|_| Err(Failure::Cancelled)).collect();
    if scan.has_come_to_its_end()? {
        answers.into_iter().for_each(|(query, top)| tops[query] = top);
    }
    Ok(tops)
}

/// A scan while it runs.
struct Scan<'s, 'q, E> {
    bounds: Bounds,
    source: &'s Source<'s, E>,
    plan: &'s Plan<'q>,
    /// The part to be loaded next.
    next: AtomicUsize,
    /// Whether it ends early: it was cancelled, or there is an error.
    is_stopped: AtomicBool,
    error: Mutex<Option<E>>,
}

impl<'s, 'q, E: Send> Scan<'s, 'q, E> {
    fn new(bounds: Bounds, source: &'s Source<'s, E>, plan: &'s Plan<'q>) -> Scan<'s, 'q, E> {
        Scan { bounds, source, plan, next: AtomicUsize::new(0), is_stopped: AtomicBool::new(false), error: Mutex::new(None) }
    }

    /// `false`: it was cancelled.
    fn has_come_to_its_end(self) -> Result<bool, E> {
        match self.error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(!self.is_stopped.into_inner()),
        }
    }

    fn goes_on(&self) -> bool {
        if (self.source.cancelled)() {
            self.is_stopped.store(true, Ordering::Relaxed);
        }
        !self.is_stopped.load(Ordering::Relaxed)
    }

    /// Loads the next part.
    fn part(&self) -> Option<Vec<Arc<Block>>> {
        let part = self.goes_on().then(|| self.next.fetch_add(1, Ordering::Relaxed))?;
        if part >= self.source.parts {
            return None;
        }
        match (self.source.load)(part) {
            Ok(blocks) => Some(blocks),
            Err(error) => {
                *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                self.is_stopped.store(true, Ordering::Relaxed);
                None
            }
        }
    }

    /// Does the same work on several threads; what each comes to.
    fn on_threads<T: Send>(&self, most: usize, work: impl Fn() -> T + Sync) -> Vec<T> {
        let threads = self.source.threads.min(most).max(1);
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(&work)).collect();
            let mut all = vec![work()];
            all.extend(others.into_iter().map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))));
            all
        })
    }

    fn prepared(&self, block: Arc<Block>) -> Option<Prepared<'s, 'q>> {
        let visible = Visible::of(&block, &self.source.span)?.0;
        Some(Prepared {
            plan: self.plan,
            few_filters: self.bounds.few_filters,
            block,
            visible,
            columns: empty(self.plan.attributes.len()),
            numbers: empty(self.plan.attributes.len()),
            conditions: empty(self.plan.conditions.len()),
            chosen: empty(self.plan.filters.len()),
        })
    }

    /// All jobs block by block; by job what they have come to.
    fn gather(&self) -> Vec<Gathered> {
        let of_thread = self.on_threads(self.source.parts, || {
            let mut gathered: Vec<Gathered> = (0..self.plan.jobs.len()).map(|job| self.plan.start(job)).collect();
            while let Some(blocks) = self.part() {
                let expected = blocks.iter().map(|block| block.rows()).sum::<usize>().saturating_mul(self.source.parts);
                for block in blocks.into_iter().filter_map(|block| self.prepared(block)) {
                    for grouping in &self.plan.groupings {
                        let live: Vec<usize> = grouping.jobs.iter().copied().filter(|job| gathered[*job].failure.is_none()).collect();
                        let groups = block.groups(grouping, &live, expected);
                        live.into_iter().for_each(|job| block.gather(job, groups.as_ref(), expected, &mut gathered[job]));
                    }
                }
            }
            gathered
        });
        let mut of_thread = of_thread.into_iter();
        let mut all = of_thread.next().expect("this thread has worked");
        for others in of_thread {
            all.iter_mut().zip(others).for_each(|(ours, theirs)| ours.merge(theirs));
        }
        all
    }

    /// All jobs one by one, batch by batch of blocks; by query its table.
    fn in_batches(&self) -> Vec<(usize, Result<Top, Failure>)> {
        let gathered: Vec<Mutex<Option<Gathered>>> = self.plan.jobs.iter().map(|_| Mutex::default()).collect();
        let answers = Mutex::new(Vec::new());
        let mut items: Vec<(&Grouping, &[usize])> = Vec::new();
        for grouping in &self.plan.groupings {
            items.extend(grouping.jobs.chunks(self.bounds.jobs_at_a_time).map(|jobs| (grouping, jobs)));
        }
        // The longest first, so that threads end together.
        items.sort_by_key(|(grouping, jobs)| std::cmp::Reverse((grouping.attributes.len(), jobs.len())));
        loop {
            let batch = self.batch();
            let parts_loaded = self.next.load(Ordering::Relaxed);
            let is_last = parts_loaded >= self.source.parts;
            let rows: usize = batch.iter().map(|block| block.block.rows()).sum();
            let expected = if is_last { rows } else { rows.saturating_mul(self.source.parts) / parts_loaded.max(1) };
            let left: Vec<AtomicUsize> = self.plan.groupings.iter().map(|grouping| AtomicUsize::new(grouping.jobs.len())).collect();
            let next = AtomicUsize::new(0);
            self.on_threads(items.len(), || {
                while let Some((grouping, jobs)) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let groups: Vec<_> = batch.iter().map(|block| block.groups(grouping, jobs, expected)).collect();
                    for &job in *jobs {
                        if !self.goes_on() {
                            return;
                        }
                        let place = &gathered[job];
                        let before = place.lock().unwrap_or_else(PoisonError::into_inner).take();
                        let is_all = before.is_none() && is_last;
                        let mut state = before.unwrap_or_else(|| self.plan.start(job));
                        if is_all && !self.plan.most.is_empty() && !grouping.attributes.is_empty() {
                            self.count_first(job, &batch, &groups, expected, &mut state);
                        } else {
                            for (block, groups) in batch.iter().zip(&groups) {
                                block.gather(job, groups.as_ref(), expected, &mut state);
                            }
                        }
                        if is_last {
                            let tables = self.plan.tables(job, state, 1);
                            answers.lock().unwrap_or_else(PoisonError::into_inner).extend(tables);
                        } else {
                            state.states.iter_mut().for_each(|state| state.shrink());
                            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
                        }
                    }
                    let grouping_left = &left[self.plan.jobs[jobs[0]].grouping];
                    if grouping_left.fetch_sub(jobs.len(), Ordering::Relaxed) == jobs.len() && is_last {
                        grouping.pairs.iter().for_each(|pairs| pairs.clear());
                    }
                }
            });
            if is_last || !self.goes_on() {
                return answers.into_inner().unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Counts the reports of each group before anything else, and then looks only at the rows of groups that are shown.
    fn count_first(&self, job: usize, batch: &[Prepared<'_, 'q>], groups: &[Option<Groups<'_>>], expected: usize, gathered: &mut Gathered) {
        // Without groups not a single row passes.
        let blocks = || batch.iter().zip(groups).filter_map(|(block, groups)| Some((block, groups.as_ref()?)));
        blocks().for_each(|(block, groups)| block.count(job, groups, expected, gathered));
        if gathered.failure.is_none() && gathered.matched.groups > 0 {
            self.plan.choose(job, gathered);
            if !self.plan.jobs[job].aggregates.is_empty() {
                blocks().for_each(|(block, groups)| block.gather_shown(job, groups, expected, gathered));
            }
        }
    }

    /// The next blocks, with the numbers of all values that any job needs.
    fn batch(&self) -> Vec<Prepared<'_, 'q>> {
        let rows = AtomicUsize::new(0);
        let batches = self.on_threads(self.source.parts, || {
            let mut batch = Vec::new();
            while rows.load(Ordering::Relaxed) < self.bounds.batch_rows
                && let Some(blocks) = self.part()
            {
                let expected = blocks.iter().map(|block| block.rows()).sum::<usize>().saturating_mul(self.source.parts);
                for block in blocks.into_iter().filter_map(|block| self.prepared(block)) {
                    rows.fetch_add(block.block.rows(), Ordering::Relaxed);
                    let numbered = self.plan.attributes.iter().enumerate().filter(|(_, attribute)| !attribute.numbered_for.is_empty());
                    numbered.for_each(|(attribute, _)| _ = block.numbers(attribute, expected));
                    batch.push(block);
                }
            }
            batch
        });
        batches.into_iter().flatten().collect()
    }
}

/// A block with some rows to be seen, and what jobs have in common in it, made when the first of them asks for it.
struct Prepared<'p, 'q> {
    plan: &'p Plan<'q>,
    few_filters: usize,
    block: Arc<Block>,
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
struct Groups<'b> {
    of_rows: Cow<'b, [u32]>,
    /// One more than the greatest of them.
    length: usize,
}

impl Prepared<'_, '_> {
    fn column(&self, attribute: usize) -> Option<&Column> {
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

    fn chosen(&self, filter: usize) -> Option<&Bits> {
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
    fn any(&self, filters: impl ExactSizeIterator<Item = usize>) -> Option<Bits> {
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
    fn numbers(&self, attribute: usize, expected: usize) -> &[u32] {
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

    /// The groups of rows that some jobs need; `None` where there is only one group.
    fn groups(&self, grouping: &Grouping, jobs: &[usize], expected: usize) -> Option<Groups<'_>> {
        let (first, others) = grouping.attributes.split_first()?;
        let some = self.any(jobs.iter().map(|job| self.plan.jobs[*job].filter));
        if some.as_ref().is_some_and(|some| some.count() == 0) {
            return None;
        }
        let length = |attribute: usize| self.plan.attributes[attribute].space.length();
        let mut groups = Groups { of_rows: Cow::Borrowed(self.numbers(*first, expected)), length: length(*first) };
        for (attribute, pairs) in others.iter().zip(&grouping.pairs) {
            let parts = (&groups.of_rows[..], self.numbers(*attribute, expected));
            let numbers = pairs.numbers(parts, (groups.length, length(*attribute)), expected, some.as_ref());
            groups = Groups { of_rows: Cow::Owned(numbers), length: pairs.length() };
        }
        Some(groups)
    }

    /// Takes the block's rows into a job's state.
    fn gather(&self, job: usize, groups: Option<&Groups<'_>>, expected: usize, gathered: &mut Gathered) {
        let mut chosen = self.chosen(self.plan.jobs[job].filter).map(Bits::list);
        if gathered.failure.is_some() || chosen.as_ref().is_some_and(Vec::is_empty) {
            return;
        }
        let mut rows = Rows {
            block: &self.block,
            chosen: None,
            groups: groups.map(|groups| &groups.of_rows[..]),
            groups_length: groups.map_or(1, |groups| groups.length),
            expected,
        };
        if !self.plan.kept.is_empty() {
            self.plan.find_kept(job, rows.groups_length, gathered);
            let (kept, of_rows) = (&gathered.kept, rows.groups);
            let is_left = |row: &u32| !kept.has(of_rows.map_or(0, |groups| groups[*row as usize] as usize));
            chosen = Some(match chosen {
                None => (0..self.block.rows() as u32).filter(is_left).collect(),
                Some(chosen) => chosen.into_iter().filter(is_left).collect(),
            });
            (rows.groups, rows.groups_length) = (None, 1);
        }
        rows.chosen = chosen.as_deref();
        gathered.matched.add(&rows);
        gathered.check();
        self.aggregate(job, &rows, gathered);
    }

    /// Counts the block's rows for a job, and no more.
    fn count(&self, job: usize, groups: &Groups<'_>, expected: usize, gathered: &mut Gathered) {
        let chosen = self.chosen(self.plan.jobs[job].filter).map(Bits::list);
        if gathered.failure.is_none() && chosen.as_ref().is_none_or(|chosen| !chosen.is_empty()) {
            let (chosen, of_rows) = (chosen.as_deref(), Some(&groups.of_rows[..]));
            gathered.matched.add(&Rows { block: &self.block, chosen, groups: of_rows, groups_length: groups.length, expected });
            gathered.check();
        }
    }

    /// Takes the rows of groups that have a place into a job's state.
    fn gather_shown(&self, job: usize, groups: &Groups<'_>, expected: usize, gathered: &mut Gathered) {
        let (mut chosen, mut placed) = (Vec::new(), vec![0; self.block.rows()]);
        let take = |row: usize| {
            let place = gathered.places[groups.of_rows[row] as usize];
            if place > 0 {
                placed[row] = place - 1;
                chosen.push(row as u32);
            }
        };
        match self.chosen(self.plan.jobs[job].filter) {
            None => (0..self.block.rows()).for_each(take),
            Some(bits) => bits.iter().for_each(take),
        }
        if !chosen.is_empty() {
            let groups_length = gathered.places_length;
            let rows = Rows { block: &self.block, chosen: Some(&chosen), groups: Some(&placed), groups_length, expected };
            self.aggregate(job, &rows, gathered);
        }
    }

    /// Takes rows into the states of a job's aggregates.
    fn aggregate(&self, job: usize, rows: &Rows<'_>, gathered: &mut Gathered) {
        let aggregates = &self.plan.jobs[job].aggregates;
        for ((op, attribute), state) in aggregates.iter().zip(&mut gathered.states) {
            let of = &self.plan.attributes[*attribute];
            let is_numbered = matches!(op, AggregateOp::Unique | AggregateOp::Histogram);
            let (numbers, numbers_length) =
                if is_numbered { (self.numbers(*attribute, rows.expected), of.space.length()) } else { (&[][..], 0) };
            state.add(rows, &Input { column: self.column(*attribute), readings: &of.readings, numbers, numbers_length });
        }
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
