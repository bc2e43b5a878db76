//! What queries have in common, each thing once: attributes, conditions, filters, group-by lists, and jobs, which are pairs of a filter
//! and a list with all aggregates that any query asks of them. And the tables that jobs come to.

use crate::bits::Bits;
use crate::filter::Verdicts;
use crate::gather::{Matched, Readings, State};
use crate::resolve::{Resolver, counts_all};
use crate::scan::Failure;
use crate::space::{NONE, Pairs, Space};
use hashbrown::HashMap;
use model::oracle::MAX_GROUPS;
use model::{Aggregate, AggregateOp, Beyond, Cell, Condition, Derived, Key, Most, ProjectId, Query, Table, TableRow, Top, Value};
use std::collections::BTreeSet;

pub(crate) struct Plan<'q> {
    pub(crate) project: ProjectId,
    pub(crate) resolver: Resolver,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) conditions: Vec<Asks<'q>>,
    /// Alternatives of conditions.
    pub(crate) filters: Vec<Vec<Vec<usize>>>,
    pub(crate) groupings: Vec<Grouping>,
    pub(crate) jobs: Vec<Job>,
    queries: Vec<Asked>,
    /// Of each query the groups that are left out, the others being taken for one; empty: none of any query.
    pub(crate) kept: Vec<&'q BTreeSet<Key>>,
    /// Of each query the groups that are wanted; empty: all of every query.
    pub(crate) most: Vec<Most<'q>>,
}

/// An attribute as queries name it.
pub(crate) struct Attribute {
    pub(crate) name: Name,
    pub(crate) space: Space,
    pub(crate) readings: Readings,
    /// Filters of the jobs that need the numbers of its values, ascending; empty: none does.
    pub(crate) numbered_for: BTreeSet<usize>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Name {
    Sent(String),
    Derived(Derived),
}

/// A condition on an attribute.
pub(crate) struct Asks<'q> {
    pub(crate) attribute: usize,
    pub(crate) condition: &'q Condition,
    pub(crate) verdicts: Verdicts,
}

/// A list of group-by attributes.
pub(crate) struct Grouping {
    pub(crate) attributes: Vec<usize>,
    /// One for each attribute after the first.
    pub(crate) pairs: Vec<Pairs>,
    pub(crate) jobs: Vec<usize>,
}

/// One filter and grouping, with every aggregate that is asked of it.
pub(crate) struct Job {
    pub(crate) filter: usize,
    pub(crate) grouping: usize,
    pub(crate) aggregates: Vec<(AggregateOp, usize)>,
    /// Queries that it answers.
    queries: Vec<usize>,
}

/// One query: where its cells are found in its job.
struct Asked {
    job: usize,
    cells: Vec<Found>,
}

enum Found {
    /// The reports of the group.
    Matched,
    State(usize),
}

/// What a job has come to.
pub(crate) struct Gathered {
    pub(crate) matched: Matched,
    pub(crate) states: Vec<State>,
    pub(crate) failure: Option<Failure>,
    /// Of the groups of the only grouping, when some are left out: whether this is one of them.
    pub(crate) kept: Bits,
    /// That is known of groups below this.
    kept_length: usize,
    /// Where the states of groups are: one more than the place by group, 0 for one without; empty: at the group itself.
    pub(crate) places: Vec<u32>,
    /// How many places there are.
    pub(crate) places_length: usize,
    /// What each query of the job shows, once that is known.
    shown: Vec<Shown>,
}

/// The groups of which a query has rows, ascending, and what there is to say of the others.
struct Shown {
    groups: Vec<u32>,
    beyond: Beyond,
}

/// Groups in the order of their keys, and these keys attribute by attribute.
type Ordered = (Vec<u32>, Vec<Vec<Option<String>>>);

/// Things by what they are made of.
#[derive(Default)]
struct Known {
    attributes: HashMap<Name, usize>,
    conditions: HashMap<(usize, String), usize>,
    filters: HashMap<Vec<Vec<usize>>, usize>,
    groupings: HashMap<Vec<usize>, usize>,
    /// By filter, grouping and, where each leaves out groups of its own, query.
    jobs: HashMap<(usize, usize, usize), usize>,
}

impl<'q> Plan<'q> {
    pub(crate) fn new(project: ProjectId, queries: &[&'q Query], kept: &[&'q BTreeSet<Key>]) -> Plan<'q> {
        let mut plan = Plan {
            project,
            resolver: Resolver::new(),
            attributes: Vec::new(),
            conditions: Vec::new(),
            filters: Vec::new(),
            groupings: Vec::new(),
            jobs: Vec::new(),
            queries: Vec::new(),
            kept: kept.to_vec(),
            most: Vec::new(),
        };
        let mut known = Known::default();
        queries.iter().for_each(|query| plan.add(&mut known, query));
        plan
    }

    fn add(&mut self, known: &mut Known, query: &'q Query) {
        let filter = self.filter(known, query);
        let attributes: Vec<usize> = query.group.iter().map(|name| self.attribute(known, name, &query.derived)).collect();
        attributes.iter().for_each(|attribute| _ = self.attributes[*attribute].numbered_for.insert(filter));
        let Plan { groupings, jobs, .. } = self;
        let grouping = *known.groupings.entry(attributes).or_insert_with_key(|attributes| {
            let pairs = (1..attributes.len()).map(|_| Pairs::default()).collect();
            groupings.push(Grouping { attributes: attributes.clone(), pairs, jobs: Vec::new() });
            groupings.len() - 1
        });
        let alone = if self.kept.is_empty() { 0 } else { self.queries.len() };
        let job = *known.jobs.entry((filter, grouping, alone)).or_insert_with(|| {
            jobs.push(Job { filter, grouping, aggregates: Vec::new(), queries: Vec::new() });
            groupings[grouping].jobs.push(jobs.len() - 1);
            jobs.len() - 1
        });
        let cells = query.aggregates.iter().map(|aggregate| self.found(known, job, aggregate, &query.derived)).collect();
        self.jobs[job].queries.push(self.queries.len());
        self.queries.push(Asked { job, cells });
    }

    fn found(&mut self, known: &mut Known, job: usize, aggregate: &Aggregate, derived: &[Derived]) -> Found {
        if counts_all(aggregate, derived) {
            return Found::Matched;
        }
        let (op, attribute) = (aggregate.op, self.attribute(known, &aggregate.attribute, derived));
        if matches!(op, AggregateOp::Unique | AggregateOp::Histogram) {
            self.attributes[attribute].numbered_for.insert(self.jobs[job].filter);
        }
        let asked = &mut self.jobs[job].aggregates;
        let at = asked.iter().position(|have| *have == (op, attribute)).unwrap_or_else(|| {
            asked.push((op, attribute));
            asked.len() - 1
        });
        Found::State(at)
    }

    fn attribute(&mut self, known: &mut Known, name: &str, derived: &[Derived]) -> usize {
        let name = match derived.iter().find(|derived| derived.name == name) {
            Some(derived) => Name::Derived(Derived { name: String::new(), ..derived.clone() }),
            None => Name::Sent(name.to_owned()),
        };
        let attributes = &mut self.attributes;
        *known.attributes.entry(name).or_insert_with_key(|name| {
            let (space, readings) = (Space::default(), Readings::default());
            attributes.push(Attribute { name: name.clone(), space, readings, numbered_for: BTreeSet::new() });
            attributes.len() - 1
        })
    }

    fn filter(&mut self, known: &mut Known, query: &'q Query) -> usize {
        let mut filter = Vec::with_capacity(query.filter.len());
        for all in &query.filter {
            let mut together = Vec::with_capacity(all.len());
            for condition in all {
                let attribute = self.attribute(known, &condition.attribute, &query.derived);
                let spelt = format!("{:?} {} {:?}", condition.operator, condition.case_insensitive, condition.operand);
                let conditions = &mut self.conditions;
                together.push(*known.conditions.entry((attribute, spelt)).or_insert_with(|| {
                    conditions.push(Asks { attribute, condition, verdicts: Verdicts::default() });
                    conditions.len() - 1
                }));
            }
            filter.push(together);
        }
        let filters = &mut self.filters;
        *known.filters.entry(filter).or_insert_with_key(|filter| {
            filters.push(filter.clone());
            filters.len() - 1
        })
    }

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

    /// The numbers of the values of some groups, attribute by attribute.
    fn values(&self, grouping: &Grouping, groups: &[u32]) -> Vec<Vec<u32>> {
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

    /// Settles which groups the queries of a job show, when all reports are counted and nothing else is gathered yet. Only these get
    /// places for their states.
    pub(crate) fn choose(&self, job: usize, gathered: &mut Gathered) {
        let reports = &gathered.matched.reports;
        gathered.shown = self.shown(job, reports);
        let mut places = vec![0; reports.len()];
        let mut next = 0;
        for group in gathered.shown.iter().flat_map(|shown| &shown.groups) {
            let place = &mut places[*group as usize];
            if *place == 0 {
                next += 1;
                *place = next;
            }
        }
        (gathered.places, gathered.places_length) = (places, next as usize);
    }

    /// What each query of a job shows, by the reports of each group.
    fn shown(&self, job: usize, reports: &[u64]) -> Vec<Shown> {
        let Job { grouping, queries, .. } = &self.jobs[job];
        let grouping = &self.groupings[*grouping];
        let mut all: Vec<u32> = reports.iter().zip(0..).filter(|(reports, _)| **reports > 0).map(|(_, group)| group).collect();
        if grouping.attributes.is_empty() {
            all = vec![0];
        }
        let one = |query: &usize| match self.most.get(*query) {
            Some(most) if all.len() > most.groups && !grouping.attributes.is_empty() => self.shown_of(grouping, reports, &all, most),
            _ => Shown { groups: all.clone(), beyond: Beyond::default() },
        };
        queries.iter().map(one).collect()
    }

    fn shown_of(&self, grouping: &Grouping, reports: &[u64], all: &[u32], most: &Most<'_>) -> Shown {
        let count = |group: &u32| reports[*group as usize];
        let mut shown = self.found_groups(grouping, most.also);
        shown.retain(|group| reports.get(*group as usize).is_some_and(|reports| *reports > 0));
        shown.sort_unstable();
        let mut named = shown.iter().peekable();
        let mut others: Vec<u32> = all.iter().filter(|group| named.next_if_eq(group).is_none()).copied().collect();
        if others.len() > most.groups {
            // Those at the bound have all the same number of reports, the others more.
            let mut counts: Vec<u64> = others.iter().map(count).collect();
            let bound = match most.groups {
                0 => u64::MAX,
                groups => *counts.select_nth_unstable_by(groups - 1, |a, b| b.cmp(a)).1,
            };
            let above = others.iter().filter(|group| count(group) > bound).count();
            let at_bound: Vec<u32> = others.iter().copied().filter(|group| count(group) == bound).collect();
            let mut first = self.first_by_key(grouping, at_bound, most.groups - above);
            first.sort_unstable();
            let mut first = first.into_iter().peekable();
            let is_shown = |group: &u32| count(group) > bound || first.next_if_eq(group).is_some();
            let (most, beyond): (Vec<u32>, Vec<u32>) = others.into_iter().partition(is_shown);
            shown.extend(most);
            others = beyond;
        } else {
            shown.append(&mut others);
        }
        shown.sort_unstable();
        let beyond = Beyond {
            groups: others.len() as u64,
            matched: others.iter().map(count).sum(),
            values: if others.is_empty() { Vec::new() } else { self.values(grouping, &others).into_iter().map(distinct).collect() },
        };
        Shown { groups: shown, beyond }
    }

    /// So many groups whose keys come first, a missing value last.
    fn first_by_key(&self, grouping: &Grouping, mut groups: Vec<u32>, most: usize) -> Vec<u32> {
        if groups.len() <= most || most == 0 {
            groups.truncate(most);
            return groups;
        }
        let values = self.values(grouping, &groups);
        let ranks = grouping.attributes.iter().zip(values).map(|(attribute, numbers)| {
            let mut ranks = self.attributes[*attribute].space.ranks(&numbers);
            ranks.iter_mut().zip(numbers).filter(|(_, number)| *number == NONE).for_each(|(rank, _)| *rank = u32::MAX);
            ranks
        });
        let ranks: Vec<Vec<u32>> = ranks.collect();
        match &ranks[..] {
            [first] => {
                let mut ranked: Vec<(u32, u32)> = first.iter().copied().zip(groups).collect();
                ranked.select_nth_unstable(most - 1);
                ranked.into_iter().take(most).map(|(_, group)| group).collect()
            }
            [first, second] => {
                let both = first.iter().zip(second).map(|(first, second)| u64::from(*first) << 32 | u64::from(*second));
                let mut ranked: Vec<(u64, u32)> = both.zip(groups).collect();
                ranked.select_nth_unstable(most - 1);
                ranked.into_iter().take(most).map(|(_, group)| group).collect()
            }
            ranks => {
                let mut order: Vec<usize> = (0..groups.len()).collect();
                order.select_nth_unstable_by(most - 1, |a, b| ranks.iter().map(|ranks| ranks[*a]).cmp(ranks.iter().map(|ranks| ranks[*b])));
                order.into_iter().take(most).map(|at| groups[at]).collect()
            }
        }
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
        self.found_groups(grouping, kept).into_iter().for_each(|group| _ = gathered.kept.put(group as usize));
    }

    /// The groups of those keys that were seen.
    fn found_groups(&self, grouping: &Grouping, keys: &BTreeSet<Key>) -> Vec<u32> {
        let keys: Vec<&Key> = keys.iter().filter(|key| key.len() == grouping.attributes.len()).collect();
        let mut groups: Vec<Option<u32>> = Vec::new();
        for (at, attribute) in grouping.attributes.iter().enumerate() {
            let values = self.attributes[*attribute].space.find(keys.iter().map(|key| key[at].as_deref()));
            groups = match at {
                0 => values,
                _ => groups.into_iter().zip(values).map(|(before, next)| grouping.pairs[at - 1].find(before?, next?)).collect(),
            };
        }
        groups.into_iter().flatten().collect()
    }

    /// Answers the queries of a job: their places, and their tables.
    pub(crate) fn tables(&self, job: usize, mut gathered: Gathered, threads: usize) -> Vec<(usize, Result<Top, Failure>)> {
        let Job { grouping, queries, .. } = &self.jobs[job];
        if let Some(failure) = gathered.failure {
            return queries.iter().map(|query| (*query, Err(failure))).collect();
        }
        gathered.states.iter_mut().for_each(|state| state.settle(threads));
        if !self.kept.is_empty() {
            let matched = gathered.matched.reports.iter().sum();
            let row = |query: &usize| self.row(&self.queries[*query], &gathered, 0, Vec::new());
            let top = |query| Top { table: Table { matched, rows: vec![row(query)] }, beyond: Beyond::default() };
            return queries.iter().map(|query| (*query, Ok(top(query)))).collect();
        }
        let mut shown = std::mem::take(&mut gathered.shown);
        if shown.is_empty() {
            shown = self.shown(job, &gathered.matched.reports);
        }
        let grouping = &self.groupings[*grouping];
        let matched = gathered.matched.reports.iter().sum();
        let mut answers = Vec::with_capacity(queries.len());
        // Groups in the order of keys, and these keys attribute by attribute.
        let mut ordered: Option<Ordered> = None;
        let mut left = queries.iter().zip(shown).peekable();
        while let Some((query, Shown { groups, beyond })) = left.next() {
            // Mostly the next one shows the same.
            let is_next_same = left.peek().is_some_and(|(_, next)| next.groups == groups);
            let (groups, texts) = ordered.take().unwrap_or_else(|| self.ordered(grouping, groups));
            if is_next_same {
                ordered = Some((groups.clone(), texts.clone()));
            }
            let mut columns: Vec<_> = texts.into_iter().map(Vec::into_iter).collect();
            let row = |group: u32| {
                let key = columns.iter_mut().map(|column| column.next().flatten()).collect();
                self.row(&self.queries[*query], &gathered, group as usize, key)
            };
            let rows = groups.into_iter().map(row).collect();
            answers.push((*query, Ok(Top { table: Table { matched, rows }, beyond })));
        }
        answers
    }

    /// Groups in the order of their keys, and the keys attribute by attribute.
    fn ordered(&self, grouping: &Grouping, groups: Vec<u32>) -> Ordered {
        let spaces = || grouping.attributes.iter().map(|attribute| &self.attributes[*attribute].space);
        let values = self.values(grouping, &groups);
        let ranks: Vec<Vec<u32>> = spaces().zip(&values).map(|(space, numbers)| space.ranks(numbers)).collect();
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
        // Without a place only where nothing was placed at all.
        let place = gathered.places.get(group).map_or(group, |place| (*place as usize).wrapping_sub(1));
        let cell = |found: &Found| match found {
            Found::Matched => Cell::Scalar(Some(Value::from(matched))),
            Found::State(at) => {
                let (_, attribute) = self.jobs[asked.job].aggregates[*at];
                gathered.states[*at].cell(place, &|numbers| self.attributes[attribute].space.written(numbers.iter().copied()))
            }
        };
        TableRow { key, matched, cells: asked.cells.iter().map(cell).collect() }
    }
}

/// How many different numbers there are.
fn distinct(numbers: Vec<u32>) -> u64 {
    let mut seen = Bits::default();
    numbers.into_iter().for_each(|number| _ = seen.put(number as usize));
    seen.count()
}

impl Gathered {
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
