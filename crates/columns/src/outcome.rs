//! What jobs come to: which groups each query shows, the tables of these, and what is beyond them.

use crate::bits::Bits;
use crate::gather::{Matched, State};
use crate::plan::{Asked, Found, Grouping, Job, Plan};
use crate::scan::Failure;
use crate::space::Space;
use model::oracle::MAX_GROUPS;
use model::{Beyond, Cell, Key, Table, TableRow, Top, Value};
use std::collections::BTreeSet;

/// What a job has come to.
pub(crate) struct Gathered {
    pub(crate) matched: Matched,
    pub(crate) states: Vec<State>,
    pub(crate) failure: Option<Failure>,
    /// Of the groups of the only grouping, when some are left out: whether this is one of them.
    pub(crate) kept: Bits,
    /// That is known of groups below this.
    kept_length: usize,
    /// Where the states of groups are, 0 being the place of all groups that no query shows; empty: each is at its own number.
    pub(crate) places: Vec<u32>,
    /// How many places there are.
    pub(crate) places_length: usize,
    /// What each query of the job shows, once that is known.
    shown: Vec<Shown>,
}

/// The groups of which a query has rows, ascending, and what there is to say of the others.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) groups: Vec<u32>,
    pub(crate) beyond: Beyond,
}

impl Shown {
    /// These groups, all that there are.
    pub(crate) fn only(groups: Vec<u32>) -> Shown {
        Shown { groups, beyond: Beyond::default() }
    }
}

/// The answer to a query.
pub(crate) struct Answer {
    pub(crate) query: usize,
    pub(crate) top: Top,
    /// The group of each row.
    pub(crate) groups: Vec<u32>,
}

/// Groups in the order of their keys, and these keys attribute by attribute.
type Ordered = (Vec<u32>, Vec<Vec<Option<String>>>);

impl Plan<'_> {
    /// The state of a job before any report.
    pub(crate) fn start(&self, job: usize) -> Gathered {
        let states = self.jobs[job].aggregates.iter().map(|(op, _)| State::new(*op)).collect();
        Gathered {
            matched: Matched::default(),
            states,
            failure: None,
            kept: Bits::default(),
            kept_length: 0,
            places: Vec::new(),
            places_length: 0,
            shown: Vec::new(),
        }
    }

    /// The numbers of the values of some groups, attribute by attribute of the grouping.
    pub(crate) fn values(&self, grouping: &Grouping, groups: &[u32]) -> Vec<Vec<u32>> {
        if grouping.attributes.is_empty() {
            return Vec::new();
        }
        let (mut values, mut before) = (Vec::with_capacity(grouping.attributes.len()), groups.to_vec());
        for pairs in grouping.pairs.iter().rev() {
            let (rest, last) = pairs.parts(&before);
            values.push(last);
            before = rest;
        }
        values.push(before);
        values.reverse();
        values
    }

    /// Settles which groups the queries of a job show, when all reports are counted and nothing else is gathered yet. When there are
    /// others, all those shown get places of their own for their states.
    pub(crate) fn choose(&self, job: usize, gathered: &mut Gathered) {
        let reports = &gathered.matched.reports;
        gathered.shown = self.shown(job, reports);
        gathered.places.clear();
        // Ungrouped reports are one group, also when there are none.
        let is_all = |shown: &Shown| shown.groups.len() >= gathered.matched.groups;
        if gathered.shown.iter().any(is_all) {
            gathered.places_length = reports.len().max(1);
            return;
        }
        let (places, mut next) = (&mut gathered.places, 0);
        places.resize(reports.len(), 0);
        for group in gathered.shown.iter().flat_map(|shown| &shown.groups) {
            let place = &mut places[*group as usize];
            if *place == 0 {
                next += 1;
                *place = next;
            }
        }
        gathered.places_length = next as usize + 1;
    }

    /// Finds out which groups below a length are left out by a job.
    pub(crate) fn find_kept(&self, job: usize, length: usize, gathered: &mut Gathered) {
        let Job { grouping, queries, .. } = &self.jobs[job];
        let (grouping, kept) = (&self.groupings[*grouping], self.kept[queries[0]]);
        if gathered.kept_length >= length {
            return;
        }
        // Mostly other blocks have had their groups numbered already, and it need not be done again for these.
        gathered.kept_length = match (grouping.pairs.last(), grouping.attributes.last()) {
            (Some(pairs), _) => pairs.length(),
            (None, Some(attribute)) => self.attributes[*attribute].space.length(),
            (None, None) => 1,
        };
        gathered.kept = Bits::default();
        if grouping.attributes.is_empty() && kept.contains(&Vec::new()) {
            gathered.kept.put(0);
        }
        let order = &self.queries[queries[0]].order;
        self.found_groups(grouping, order, kept).into_iter().for_each(|group| _ = gathered.kept.put(group as usize));
    }

    /// The groups of those keys that were seen.
    pub(crate) fn found_groups(&self, grouping: &Grouping, order: &[usize], keys: &BTreeSet<Key>) -> Vec<u32> {
        let keys: Vec<&Key> = keys.iter().filter(|key| key.len() == order.len()).collect();
        let mut groups: Vec<Option<u32>> = Vec::new();
        for (place, attribute) in grouping.attributes.iter().enumerate() {
            let at = order.iter().position(|of_key| *of_key == place).expect("each attribute is a part of the key");
            let values = self.attributes[*attribute].space.find(keys.iter().map(|key| key[at].as_deref()));
            groups = match place {
                0 => values,
                _ => {
                    let pairs: Vec<_> = groups.into_iter().zip(values).map(|(before, next)| Some((before?, next?))).collect();
                    grouping.pairs[place - 1].find(&pairs)
                }
            };
        }
        groups.into_iter().flatten().collect()
    }

    /// Answers the queries of a job, whose states are settled here.
    pub(crate) fn tables(&self, job: usize, gathered: &mut Gathered, threads: usize) -> Result<Vec<Answer>, Failure> {
        let Job { grouping, queries, .. } = &self.jobs[job];
        if let Some(failure) = gathered.failure {
            return Err(failure);
        }
        gathered.states.iter_mut().for_each(|state| state.settle(threads));
        let matched = gathered.matched.reports.iter().sum();
        if !self.kept.is_empty() {
            let rows = |query: &usize| vec![self.row(&self.queries[*query], gathered, 0, Vec::new())];
            let top = |query| Top { table: Table { matched, rows: rows(query) }, beyond: Beyond::default() };
            return Ok(queries.iter().map(|query| Answer { query: *query, top: top(query), groups: vec![0] }).collect());
        }
        let mut shown = std::mem::take(&mut gathered.shown);
        if shown.is_empty() {
            shown = self.shown(job, &gathered.matched.reports);
        }
        let grouping = &self.groupings[*grouping];
        let mut answers = Vec::with_capacity(queries.len());
        // Groups in the order of keys, and these keys attribute by attribute.
        let mut ordered: Option<Ordered> = None;
        let mut left = queries.iter().zip(shown).peekable();
        while let Some((query, Shown { groups, beyond })) = left.next() {
            let asked = &self.queries[*query];
            // Mostly the next one shows the same.
            let is_next_same = left.peek().is_some_and(|(next, shown)| shown.groups == groups && self.queries[**next].order == asked.order);
            let (groups, texts) = ordered.take().unwrap_or_else(|| self.ordered(grouping, &asked.order, groups));
            if is_next_same {
                ordered = Some((groups.clone(), texts.clone()));
            }
            let mut columns: Vec<_> = texts.into_iter().map(Vec::into_iter).collect();
            let row = |group: &u32| {
                let key = columns.iter_mut().map(|column| column.next().flatten()).collect();
                self.row(asked, gathered, *group as usize, key)
            };
            let rows = groups.iter().map(row).collect();
            answers.push(Answer { query: *query, top: Top { table: Table { matched, rows }, beyond }, groups });
        }
        Ok(answers)
    }

    /// Groups in the order of their keys, and the keys attribute by attribute.
    fn ordered(&self, grouping: &Grouping, order: &[usize], groups: Vec<u32>) -> Ordered {
        let spaces = || order.iter().map(|place| &self.attributes[grouping.attributes[*place]].space);
        let values = in_order(order, self.values(grouping, &groups));
        let ranks_of = |(space, numbers): (&Space, &Vec<u32>)| {
            let ranks = space.ranks(numbers.len(), || numbers.clone());
            numbers.iter().map(|number| ranks.of(*number)).collect()
        };
        let ranks: Vec<Vec<u32>> = spaces().zip(&values).map(ranks_of).collect();
        let mut order: Vec<usize> = (0..groups.len()).collect();
        match &ranks[..] {
            [] => {}
            [only] => order.sort_unstable_by_key(|at| only[*at]),
            [first, second] => order.sort_unstable_by_key(|at| (first[*at], second[*at])),
            ranks => order.sort_unstable_by(|a, b| ranks.iter().map(|ranks| ranks[*a]).cmp(ranks.iter().map(|ranks| ranks[*b]))),
        }
        let texts = spaces().zip(&values).map(|(space, numbers)| space.written(order.iter().map(|at| numbers[*at]))).collect();
        (order.into_iter().map(|at| groups[at]).collect(), texts)
    }

    fn row(&self, asked: &Asked, gathered: &Gathered, group: usize, key: Key) -> TableRow {
        let matched = gathered.matched.reports.get(group).copied().unwrap_or(0);
        let place = gathered.place(group);
        TableRow { key, matched, cells: self.cells(asked, matched, |at| self.cell(asked, at, &gathered.states[at], place)) }
    }

    /// The cells of a query; those that are not the number of reports are found by the place of their state.
    pub(crate) fn cells(&self, asked: &Asked, matched: u64, mut of_state: impl FnMut(usize) -> Cell) -> Vec<Cell> {
        let cell = |found: &Found| match found {
            Found::Matched => Cell::Scalar(Some(Value::from(matched))),
            Found::State(at) => of_state(*at),
        };
        asked.cells.iter().map(cell).collect()
    }

    /// What a state, the one of a job's aggregate, has come to at a place.
    pub(crate) fn cell(&self, asked: &Asked, aggregate: usize, state: &State, place: usize) -> Cell {
        let (_, attribute) = self.jobs[asked.job].aggregates[aggregate];
        state.cell(place, &|numbers| self.attributes[attribute].space.written(numbers.iter().copied()))
    }
}

/// What is known by attribute of a grouping, in the order in which a query names these.
pub(crate) fn in_order<T: Default>(order: &[usize], mut by_attribute: Vec<T>) -> Vec<T> {
    order.iter().map(|place| std::mem::take(&mut by_attribute[*place])).collect()
}

impl Gathered {
    /// Where the states of a group are.
    pub(crate) fn place(&self, group: usize) -> usize {
        self.places.get(group).map_or(group, |place| *place as usize)
    }

    /// Takes in what another thread has found for the same job.
    pub(crate) fn merge(&mut self, other: Gathered) {
        self.failure = self.failure.or(other.failure);
        if self.failure.is_none() {
            self.matched.merge(other.matched);
            self.states.iter_mut().zip(other.states).for_each(|(ours, theirs)| ours.merge(theirs));
            self.check();
        }
    }

    /// Fails when there are too many groups, and lets go of them.
    pub(crate) fn check(&mut self) {
        if self.matched.groups > MAX_GROUPS {
            self.failure = Some(Failure::TooManyGroups);
            (self.matched, self.states) = (Matched::default(), Vec::new());
        }
    }
}
