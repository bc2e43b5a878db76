//! The scan that answers many queries at once: what they have in common (columns, conditions, filters, keys) is worked out once a
//! block, whatever their number.
//!
//! A few queries are answered block by block, all at one time; threads take the parts in turn. Many, and those of which something is kept
//! apart from all else, are answered one by one over a batch of blocks that are held for so long; threads take the queries in turn. So the
//! states of many queries are in memory together only when there is more than one batch, and then without what can be made anew.

use crate::batch::{Batch, Room};
use crate::block::Block;
use crate::outcome::Gathered;
use crate::plan::{Grouping, Plan};
use crate::prepared::Prepared;
use model::oracle::MAX_GROUPS;
use model::{Keep, Key, Most, Parted, ProjectId, Query, Stamp, Table, TableRow, Top};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
    /// Up to this many pairs of two attributes' values each have a number, whatever the rows.
    pub(crate) few_pairs: usize,
}

impl Bounds {
    const USUAL: Bounds = Bounds { few_jobs: 4, batch_rows: 2_000_000, jobs_at_a_time: 16, few_filters: 16, few_pairs: 1 << 16 };
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

/// The same, and beside it the reports of all groups that `keep` does not keep of an answer, as one.
pub fn evaluate_parted<E: Send>(
    source: &Source<'_, E>,
    queries: &[(&Query, Most<'_>)],
    keep: &Keep<'_>,
) -> Result<Vec<Result<Parted, Failure>>, E> {
    let (queries, most): (Vec<&Query>, Vec<Most<'_>>) = queries.iter().copied().unzip();
    parted_within(Bounds::USUAL, source, &queries, &most, keep)
}

pub(crate) fn evaluate_within<E: Send>(
    bounds: Bounds,
    source: &Source<'_, E>,
    queries: &[&Query],
    most: &[Most<'_>],
) -> Result<Vec<Result<Top, Failure>>, E> {
    let mut plan = Plan::new(source.project, queries, &[]);
    plan.most = most.to_vec();
    let (answers, _) = answer(bounds, source, plan, queries.len())?;
    Ok(answers.into_iter().map(|answer| answer.map(|parted| parted.top)).collect())
}

pub(crate) fn parted_within<E: Send>(
    bounds: Bounds,
    source: &Source<'_, E>,
    queries: &[&Query],
    most: &[Most<'_>],
    keep: &Keep<'_>,
) -> Result<Vec<Result<Parted, Failure>>, E> {
    let mut plan = Plan::new(source.project, queries, &[]);
    (plan.most, plan.keep) = (most.to_vec(), Some(keep));
    let (mut answers, are_parted) = answer(bounds, source, plan, queries.len())?;
    if are_parted {
        return Ok(answers);
    }
    // They were not all in memory together when it was told what is kept: they are looked at once more.
    let mut kept: Vec<(usize, BTreeSet<Key>)> = Vec::new();
    for (query, answer) in answers.iter().enumerate() {
        let Ok(Parted { top, .. }) = answer else { continue };
        let keys = |rows: Vec<usize>| rows.into_iter().map(|row| top.table.rows[row].key.clone()).collect();
        kept.extend(keep(query, top).map(|rows| (query, keys(rows))));
    }
    let asked: Vec<(&Query, &BTreeSet<Key>)> = kept.iter().map(|(query, keys)| (queries[*query], keys)).collect();
    for ((query, _), rest) in kept.iter().zip(rests_within(bounds, source, &asked)?) {
        match (rest, &mut answers[*query]) {
            (Ok(rest), Ok(parted)) => parted.rest = Some(rest),
            (rest, answer) => *answer = Err(rest.err().unwrap_or(Failure::Cancelled)),
        }
    }
    Ok(answers)
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
    let (answers, _) = answer(bounds, source, Plan::new(source.project, &queries, &kept), queries.len())?;
    Ok(answers.into_iter().map(|answer| Ok(answer?.top.table.rows.pop().expect("one group has one row"))).collect())
}

/// Carries out a plan: what each of its queries comes to, and whether what is not kept was evaluated as well.
fn answer<E: Send>(
    bounds: Bounds,
    source: &Source<'_, E>,
    plan: Plan<'_>,
    queries: usize,
) -> Result<(Vec<Result<Parted, Failure>>, bool), E> {
    let scan = Scan::new(bounds, source, &plan);
    let (answers, are_parted) = if plan.jobs.len() <= bounds.few_jobs && plan.keep.is_none() {
        let gathered = scan.gather().into_iter().enumerate();
        (gathered.flat_map(|(job, mut gathered)| scan.tables(job, &mut gathered, source.threads)).collect(), false)
    } else {
        scan.in_batches()
    };
    let mut all: Vec<_> = (0..queries).map(|_| Err(Failure::Cancelled)).collect();
    if scan.has_come_to_its_end()? {
        answers.into_iter().for_each(|(query, answer)| all[query] = answer);
    }
    Ok((all, are_parted))
}

/// A query, and its answer.
type Answered = (usize, Result<Parted, Failure>);

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
        Prepared::new(self.plan, self.bounds.few_filters, block, &self.source.span)
    }

    /// The answers to the queries of a job, with nothing beside them.
    fn tables(&self, job: usize, gathered: &mut Gathered, threads: usize) -> Vec<Answered> {
        match self.plan.tables(job, gathered, threads) {
            Ok(answers) => answers.into_iter().map(|answer| (answer.query, Ok(Parted { top: answer.top, rest: None }))).collect(),
            Err(failure) => self.failed(job, failure),
        }
    }

    fn failed(&self, job: usize, failure: Failure) -> Vec<Answered> {
        self.plan.jobs[job].queries.iter().map(|query| (*query, Err(failure))).collect()
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
                        let groups = block.groups(grouping, &live, expected, &mut Vec::new());
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

    /// All jobs one by one, batch by batch of blocks; their answers, and whether what is not kept was evaluated as well.
    fn in_batches(&self) -> (Vec<Answered>, bool) {
        let mut items: Vec<(&Grouping, &[usize])> = Vec::new();
        for grouping in &self.plan.groupings {
            items.extend(grouping.jobs.chunks(self.bounds.jobs_at_a_time).map(|jobs| (grouping, jobs)));
        }
        // The longest first, so that threads end together.
        items.sort_by_key(|(grouping, jobs)| std::cmp::Reverse((grouping.attributes.len(), jobs.len())));
        let first = self.batch();
        if self.next.load(Ordering::Relaxed) >= self.source.parts && self.plan.kept.is_empty() {
            return (self.in_one_batch(&items, &first), true);
        }
        (self.in_many_batches(&items, first), false)
    }

    /// Threads take items in turn.
    fn each_item<'i, R: Default>(&self, items: &[(&'i Grouping, &'i [usize])], work: impl Fn(&'i Grouping, &'i [usize], &mut R) + Sync) {
        let left: Vec<AtomicUsize> = self.plan.groupings.iter().map(|grouping| AtomicUsize::new(grouping.jobs.len())).collect();
        let next = AtomicUsize::new(0);
        self.on_threads(items.len(), || {
            let mut room = R::default();
            while let Some((grouping, jobs)) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                if !self.goes_on() {
                    return;
                }
                work(grouping, jobs, &mut room);
                let grouping_left = &left[self.plan.jobs[jobs[0]].grouping];
                if grouping_left.fetch_sub(jobs.len(), Ordering::Relaxed) == jobs.len()
                    && self.next.load(Ordering::Relaxed) >= self.source.parts
                {
                    grouping.pairs.iter().for_each(|pairs| pairs.clear());
                }
            }
        });
    }

    /// All jobs over all rows.
    fn in_one_batch(&self, items: &[(&Grouping, &[usize])], blocks: &[Prepared<'s, 'q>]) -> Vec<Answered> {
        let answers = Mutex::new(Vec::new());
        let batch = Batch::new(self.plan, blocks, self.bounds.few_pairs);
        self.each_item(items, |grouping, jobs, room: &mut Room| {
            let groups = batch.groups(grouping, jobs, room);
            for &job in jobs {
                if !self.goes_on() {
                    return;
                }
                let of_job = match batch.job(job, &groups, room) {
                    Ok(parted) => parted.into_iter().map(|(query, parted)| (query, Ok(parted))).collect(),
                    Err(failure) => self.failed(job, failure),
                };
                answers.lock().unwrap_or_else(PoisonError::into_inner).extend(of_job);
            }
            room.take_back(groups);
        });
        answers.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// All jobs over one batch after another, their states in between without what can be made anew.
    fn in_many_batches(&self, items: &[(&Grouping, &[usize])], mut batch: Vec<Prepared<'s, 'q>>) -> Vec<Answered> {
        let gathered: Vec<Mutex<Option<Gathered>>> = self.plan.jobs.iter().map(|_| Mutex::default()).collect();
        let answers = Mutex::new(Vec::new());
        loop {
            let parts_loaded = self.next.load(Ordering::Relaxed);
            let is_last = parts_loaded >= self.source.parts;
            let rows: usize = batch.iter().map(|block| block.block.rows()).sum();
            let expected = if is_last { rows } else { rows.saturating_mul(self.source.parts) / parts_loaded.max(1) };
            self.each_item(items, |grouping, jobs, (): &mut ()| {
                let groups: Vec<_> = batch.iter().map(|block| block.groups(grouping, jobs, expected, &mut Vec::new())).collect();
                for &job in jobs {
                    if !self.goes_on() {
                        return;
                    }
                    let place = &gathered[job];
                    let before = place.lock().unwrap_or_else(PoisonError::into_inner).take();
                    let mut state = before.unwrap_or_else(|| self.plan.start(job));
                    for (block, groups) in batch.iter().zip(&groups) {
                        block.gather(job, groups.as_ref(), expected, &mut state);
                    }
                    if is_last {
                        let tables = self.tables(job, &mut state, 1);
                        answers.lock().unwrap_or_else(PoisonError::into_inner).extend(tables);
                    } else {
                        state.states.iter_mut().for_each(|state| state.shrink());
                        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
                    }
                }
            });
            if is_last || !self.goes_on() {
                return answers.into_inner().unwrap_or_else(PoisonError::into_inner);
            }
            batch = self.batch();
        }
    }

    /// The next blocks, with the numbers of all values that any job needs.
    fn batch(&self) -> Vec<Prepared<'s, 'q>> {
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
