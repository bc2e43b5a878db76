//! All rows of a scan at one time, where they fit into memory together. A job goes over them once to find its rows and their groups, and
//! works out everything else from that: which groups are shown, their aggregates, and what is beyond them as one.

use crate::bits::Bits;
use crate::by_value::{ByValue, Places};
use crate::distinct::Distinct;
use crate::gather::{Rows, State};
use crate::outcome::{Answer, Gathered};
use crate::pairs::Pairs;
use crate::plan::{Grouping, Plan};
use crate::prepared::{Groups, Numbers, Prepared};
use crate::scan::Failure;
use model::{AggregateOp, Parted, TableRow};
use std::ops::Range;
use std::sync::OnceLock;

/// Distinct values are counted value by value when at least one of so many rows passes.
const ROWS_FOR_ONE: usize = 4;
/// And in batches of at most so many rows: one bit of a row's number is for something else there. All pairs are numbered at once only there, too.
const ROWS_BY_VALUE: usize = 1 << 31;

pub(crate) struct Batch<'b, 'p, 'q> {
    plan: &'p Plan<'q>,
    blocks: &'b [Prepared<'p, 'q>],
    /// Rows before each block.
    starts: Vec<usize>,
    rows: usize,
    /// See `Bounds`.
    few_pairs: usize,
    /// By attribute.
    by_value: Vec<OnceLock<ByValue>>,
}

/// Room for what each job lists anew; one for each thread.
#[derive(Default)]
pub(crate) struct Room {
    rows: Vec<u32>,
    groups: Vec<u32>,
    /// Reports by group, and the places of groups: those of the last job.
    reports: Vec<u64>,
    of_groups: Vec<u32>,
    /// Those of the rows of the batch that pass.
    places: Places,
    /// Lists of groups that nobody looks at any more.
    spare: Vec<Vec<u32>>,
}

/// The rows of a block that pass a job's filter, in lists of the room.
struct Part<'g> {
    block: usize,
    /// `None`: all.
    rows: Option<Range<usize>>,
    groups: Of<'g>,
}

/// The groups of the rows of a part, or their places.
enum Of<'g> {
    One,
    /// By row of the block.
    Block(&'g [u32]),
    Listed(Range<usize>),
}

/// A job, once its own answers are known.
struct Taken<'t> {
    job: usize,
    gathered: &'t Gathered,
    parts: &'t [Part<'t>],
    room: &'t Room,
    /// Whether the room has the places of all rows.
    are_placed: bool,
}

/// What is at some places, taken as one, as far as any query has asked for it: by aggregate of the job.
struct Rest {
    places: Bits,
    states: Vec<Option<State>>,
}

impl Part<'_> {
    fn rows<'r>(&'r self, batch: &'r Batch<'_, '_, '_>, room: &'r Room, groups_length: usize) -> Rows<'r> {
        let groups = match &self.groups {
            Of::One => None,
            Of::Block(groups) => Some(*groups),
            Of::Listed(range) => Some(&room.groups[range.clone()]),
        };
        let chosen = self.rows.clone().map(|range| &room.rows[range]);
        let expected = if self.rows.is_some() { room.rows.len() } else { batch.rows };
        Rows { block: &batch.blocks[self.block].block, chosen, groups, groups_length, expected }
    }
}

impl<'b, 'p, 'q> Batch<'b, 'p, 'q> {
    pub(crate) fn new(plan: &'p Plan<'q>, blocks: &'b [Prepared<'p, 'q>], few_pairs: usize) -> Batch<'b, 'p, 'q> {
        let (mut starts, mut rows) = (Vec::with_capacity(blocks.len()), 0);
        for block in blocks {
            starts.push(rows);
            rows += block.block.rows();
        }
        Batch { plan, blocks, starts, rows, few_pairs, by_value: plan.attributes.iter().map(|_| OnceLock::new()).collect() }
    }

    /// The groups of all rows that some jobs need, block by block.
    pub(crate) fn groups(&self, grouping: &Grouping, jobs: &[usize], room: &mut Room) -> Vec<Option<Groups<'b>>> {
        let [before, next] = grouping.attributes[..] else {
            return self.blocks.iter().map(|block| block.groups(grouping, jobs, self.rows, &mut room.spare)).collect();
        };
        // All numbers of all values were given: these lengths will not grow.
        let lengths = [before, next].map(|attribute| self.plan.attributes[attribute].space.length()).into();
        let pairs = &grouping.pairs[0];
        let any = |block: &Prepared<'_, '_>, jobs: &[usize]| block.any(jobs.iter().map(|job| self.plan.jobs[*job].filter));
        let parts = |block: &'b Prepared<'_, '_>| (block.numbers(before, self.rows), block.numbers(next, self.rows));
        let of_all = || self.blocks.iter().map(|block| (parts(block), any(block, &grouping.jobs))).collect();
        let all = (!Pairs::are_few(lengths, self.few_pairs.max(self.rows / 2))).then(|| pairs.all_numbers(lengths, of_all));
        let mut of_block = |block: &'b Prepared<'_, '_>, start: usize| {
            if any(block, jobs).is_some_and(|some| some.count() == 0) {
                return None;
            }
            let of_rows = match &all {
                Some(all) => Numbers::Shared(all.clone(), start..start + block.block.rows()),
                None => {
                    let mut numbers = room.spare.pop().unwrap_or_default();
                    pairs.products(parts(block), lengths, &mut numbers);
                    Numbers::Listed(numbers)
                }
            };
            Some(Groups { of_rows, length: pairs.length() })
        };
        self.blocks.iter().zip(&self.starts).map(|(block, start)| of_block(block, *start)).collect()
    }

    /// Answers the queries of a job.
    pub(crate) fn job(&self, job: usize, groups: &[Option<Groups<'_>>], room: &mut Room) -> Result<Vec<(usize, Parted)>, Failure> {
        let mut gathered = self.plan.start(job);
        (gathered.matched.reports, gathered.places) = (std::mem::take(&mut room.reports), std::mem::take(&mut room.of_groups));
        let answers = self.answer(job, groups, room, &mut gathered);
        (room.reports, room.of_groups) = (gathered.matched.reports, gathered.places);
        answers
    }

    fn answer(
        &self,
        job: usize,
        groups: &[Option<Groups<'_>>],
        room: &mut Room,
        gathered: &mut Gathered,
    ) -> Result<Vec<(usize, Parted)>, Failure> {
        let mut parts = self.take(job, groups, room, gathered);
        gathered.check();
        if let Some(failure) = gathered.failure {
            return Err(failure);
        }
        self.plan.choose(job, gathered);
        self.place(&mut parts, gathered, room);
        let are_many = self.taken(&parts, room) * ROWS_FOR_ONE >= self.rows && self.rows <= ROWS_BY_VALUE;
        let is_by_value = |op: AggregateOp| op == AggregateOp::Unique && are_many;
        let aggregates = &self.plan.jobs[job].aggregates;
        let are_placed = aggregates.iter().any(|(op, _)| is_by_value(*op));
        if are_placed {
            self.place_all(&parts, gathered.places_length, room);
        }
        for ((_, attribute), state) in aggregates.iter().zip(&mut gathered.states).filter(|((op, _), _)| is_by_value(*op)) {
            *state = State::Unique(Distinct::counted(self.by_value(*attribute).count(&room.places, gathered.places_length)));
        }
        // All of a part at one time, while its rows are at hand.
        for part in &parts {
            let rows = part.rows(self, room, gathered.places_length);
            for (aggregate, state) in aggregates.iter().zip(&mut gathered.states).filter(|((op, _), _)| !is_by_value(*op)) {
                self.blocks[part.block].add(*aggregate, &rows, state);
            }
        }
        let answers = self.plan.tables(job, gathered, 1)?;
        let taken = Taken { job, gathered, parts: &parts, room, are_placed };
        let mut rests = Vec::new();
        Ok(answers.into_iter().map(|answer| (answer.query, self.parted(answer, &taken, &mut rests))).collect())
    }

    /// Lists the rows that pass, with their groups, and counts the reports of each group.
    fn take<'g>(&self, job: usize, groups: &'g [Option<Groups<'_>>], room: &mut Room, gathered: &mut Gathered) -> Vec<Part<'g>> {
        room.rows.clear();
        room.groups.clear();
        let length = groups.iter().flatten().map(|groups| groups.length).max().unwrap_or(1);
        let reports = &mut gathered.matched.reports;
        reports.clear();
        reports.resize(length, 0);
        let filter = self.plan.jobs[job].filter;
        let is_grouped = !self.plan.groupings[self.plan.jobs[job].grouping].attributes.is_empty();
        let mut parts = Vec::with_capacity(self.blocks.len());
        for ((block, prepared), groups) in self.blocks.iter().enumerate().zip(groups) {
            let groups = match groups {
                Some(groups) => Of::Block(&groups.of_rows),
                // Not a single row passes.
                None if is_grouped => continue,
                None => Of::One,
            };
            let mut part = Part { block, rows: None, groups };
            if let Some(chosen) = prepared.chosen(filter) {
                let start = room.rows.len();
                chosen.list_to(&mut room.rows);
                let rows = start..room.rows.len();
                if let Of::Block(of_rows) = part.groups {
                    let start = room.groups.len();
                    room.groups.extend(room.rows[rows.clone()].iter().map(|row| of_rows[*row as usize]));
                    part.groups = Of::Listed(start..room.groups.len());
                }
                part.rows = Some(rows);
            }
            let rows = part.rows(self, room, length);
            match rows.groups {
                None => reports[0] += rows.count() as u64,
                Some(groups) => groups.iter().for_each(|group| reports[*group as usize] += 1),
            }
            if rows.count() > 0 {
                parts.push(part);
            }
        }
        gathered.matched.groups = reports.iter().filter(|reports| **reports > 0).count();
        parts
    }

    /// Puts places in the stead of groups. Rows of groups that are not shown stay only where they are to be evaluated as one.
    fn place(&self, parts: &mut [Part<'_>], gathered: &Gathered, room: &mut Room) {
        let places = &gathered.places;
        if places.is_empty() {
            return;
        }
        let keeps_all = self.plan.keep.is_some();
        for part in parts {
            match (&mut part.groups, &mut part.rows) {
                (Of::One, _) => unreachable!("an ungrouped query shows its only group"),
                (Of::Block(groups), _) if keeps_all => {
                    let start = room.groups.len();
                    room.groups.extend(groups.iter().map(|group| places[*group as usize]));
                    part.groups = Of::Listed(start..room.groups.len());
                }
                (Of::Block(groups), rows) => {
                    let (first_row, first_group) = (room.rows.len(), room.groups.len());
                    for (row, place) in groups.iter().map(|group| places[*group as usize]).enumerate().filter(|(_, place)| *place > 0) {
                        room.rows.push(row as u32);
                        room.groups.push(place);
                    }
                    *rows = Some(first_row..room.rows.len());
                    part.groups = Of::Listed(first_group..room.groups.len());
                }
                (Of::Listed(range), _) if keeps_all => {
                    room.groups[range.clone()].iter_mut().for_each(|group| *group = places[*group as usize]);
                }
                (Of::Listed(range), rows) => {
                    let rows = rows.as_mut().expect("listed with their groups");
                    let (mut row, mut group) = (rows.start, range.start);
                    for (from, of) in rows.clone().zip(range.clone()) {
                        let place = places[room.groups[of] as usize];
                        (room.rows[row], room.groups[group]) = (room.rows[from], place);
                        let step = usize::from(place > 0);
                        (row, group) = (row + step, group + step);
                    }
                    (rows.end, range.end) = (row, group);
                }
            }
        }
    }

    /// How many rows parts have.
    fn taken(&self, parts: &[Part<'_>], room: &Room) -> usize {
        parts.iter().map(|part| part.rows(self, room, 0).count()).sum()
    }

    /// Makes the places of parts those of all rows.
    fn place_all(&self, parts: &[Part<'_>], length: usize, room: &mut Room) {
        let mut places = std::mem::take(&mut room.places);
        places.fill(self.rows, length, parts.iter().map(|part| (self.starts[part.block], part.rows(self, room, length))));
        room.places = places;
    }

    fn by_value(&self, attribute: usize) -> &ByValue {
        self.by_value[attribute].get_or_init(|| {
            let numbers: Vec<&[u32]> = self.blocks.iter().map(|block| block.numbers(attribute, self.rows)).collect();
            ByValue::new(&numbers, self.plan.attributes[attribute].space.length())
        })
    }

    /// An answer, and all that it does not keep as one.
    fn parted(&self, answer: Answer, taken: &Taken<'_>, rests: &mut Vec<Rest>) -> Parted {
        let Answer { query, top, groups } = answer;
        let Some(kept) = self.plan.keep.and_then(|keep| keep(query, &top)) else { return Parted { top, rest: None } };
        let mut kept_places = Bits::none(taken.gathered.places_length);
        kept.iter().for_each(|row| _ = kept_places.put(taken.gathered.place(groups[*row] as usize)));
        let mut places = Bits::all(taken.gathered.places_length);
        places.and_not(&kept_places);
        let matched = top.table.matched - kept.iter().map(|row| top.table.rows[*row].matched).sum::<u64>();
        // Mostly all queries of a job keep the same.
        let at = rests.iter().position(|rest| rest.places == places).unwrap_or_else(|| {
            let states = taken.gathered.states.iter().map(|_| None).collect();
            rests.push(Rest { places, states });
            rests.len() - 1
        });
        let Rest { places, states } = &mut rests[at];
        let asked = &self.plan.queries[query];
        let cells = self.plan.cells(asked, matched, |at| {
            let state = states[at].get_or_insert_with(|| self.together(taken, at, places));
            self.plan.cell(asked, at, state, 0)
        });
        Parted { top, rest: Some(TableRow { key: Vec::new(), matched, cells }) }
    }

    /// The state of an aggregate at some places, taken as one.
    fn together(&self, taken: &Taken<'_>, at: usize, places: &Bits) -> State {
        let aggregate = self.plan.jobs[taken.job].aggregates[at];
        match &taken.gathered.states[at] {
            State::Unique(_) if taken.are_placed => {
                let count = self.by_value(aggregate.1).count_within(&taken.room.places, places, taken.gathered.places_length);
                State::Unique(Distinct::counted(vec![count]))
            }
            State::Unique(_) => self.distinct(aggregate, taken, places),
            state => state.together(places),
        }
    }

    /// The distinct values of the rows at some places.
    fn distinct(&self, aggregate: (AggregateOp, usize), taken: &Taken<'_>, places: &Bits) -> State {
        let mut state = State::new(aggregate.0);
        for part in taken.parts {
            let mut chosen = Vec::new();
            part.rows(self, taken.room, taken.gathered.places_length).each(|row, place| {
                if places.has(place) {
                    chosen.push(row as u32);
                }
            });
            let block = &self.blocks[part.block];
            let rows = Rows { block: &block.block, chosen: Some(&chosen), groups: None, groups_length: 1, expected: self.rows };
            block.add(aggregate, &rows, &mut state);
        }
        state.settle(1);
        state
    }
}

impl Room {
    /// Takes back the memory of lists.
    pub(crate) fn take_back(&mut self, groups: Vec<Option<Groups<'_>>>) {
        let lists = groups.into_iter().flatten().filter_map(|groups| match groups.of_rows {
            Numbers::Listed(list) => Some(list),
            Numbers::OfColumn(_) | Numbers::Shared(..) => None,
        });
        self.spare.extend(lists);
    }
}
