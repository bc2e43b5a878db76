//! What queries have in common, each thing once: attributes, conditions, filters, group-by lists, and jobs, which are pairs of a filter
//! and a list with all aggregates that any query asks of them. And the tables that jobs come to.

use crate::filter::Verdicts;
use crate::gather::{Matched, Readings, State};
use crate::resolve::Resolver;
use crate::scan::Failure;
use crate::space::{Pairs, Space};
use hashbrown::HashMap;
use model::oracle::MAX_GROUPS;
use model::{Aggregate, AggregateOp, Cell, Condition, Derived, Key, ProjectId, Query, Table, TableRow, Value};
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
    /// Groups that are left out, and the others taken for one.
    pub(crate) kept: Option<&'q BTreeSet<Key>>,
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
    pub(crate) kept: Vec<Option<bool>>,
}

/// Things by what they are made of.
#[derive(Default)]
struct Known {
    attributes: HashMap<Name, usize>,
    conditions: HashMap<(usize, String), usize>,
    filters: HashMap<Vec<Vec<usize>>, usize>,
    groupings: HashMap<Vec<usize>, usize>,
    jobs: HashMap<(usize, usize), usize>,
}

impl<'q> Plan<'q> {
    pub(crate) fn new(project: ProjectId, queries: &[&'q Query], kept: Option<&'q BTreeSet<Key>>) -> Plan<'q> {
        let mut plan = Plan {
            project,
            resolver: Resolver::new(),
            attributes: Vec::new(),
            conditions: Vec::new(),
            filters: Vec::new(),
            groupings: Vec::new(),
            jobs: Vec::new(),
            queries: Vec::new(),
            kept,
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
        let job = *known.jobs.entry((filter, grouping)).or_insert_with(|| {
            jobs.push(Job { filter, grouping, aggregates: Vec::new(), queries: Vec::new() });
            groupings[grouping].jobs.push(jobs.len() - 1);
            jobs.len() - 1
        });
        let cells = query.aggregates.iter().map(|aggregate| self.found(known, job, aggregate, &query.derived)).collect();
        self.jobs[job].queries.push(self.queries.len());
        self.queries.push(Asked { job, cells });
    }

    fn found(&mut self, known: &mut Known, job: usize, aggregate: &Aggregate, derived: &[Derived]) -> Found {
        let attribute = self.attribute(known, &aggregate.attribute, derived);
        // Every report has its own number: distinct ones are just counted.
        let op = match aggregate.op {
            AggregateOp::Unique if aggregate.attribute == "_tx" => AggregateOp::Count,
            op => op,
        };
        // What every report has.
        let is_of_all =
            matches!(&self.attributes[attribute].name, Name::Sent(name) if matches!(name.as_str(), "_tx" | "_rxid" | "timestamp.received"));
        if op == AggregateOp::Count && is_of_all {
            return Found::Matched;
        }
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
        Gathered { matched: Matched::default(), states, failure: None, kept: Vec::new() }
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

    /// The values of a group.
    pub(crate) fn key(&self, grouping: &Grouping, group: u32) -> Key {
        let values = self.values(grouping, &[group]);
        let texts =
            grouping.attributes.iter().zip(values).map(|(attribute, number)| self.attributes[*attribute].space.written(number.into_iter()));
        texts.flatten().collect()
    }

    /// Answers the queries of a job: their places, and their tables.
    pub(crate) fn tables(&self, job: usize, mut gathered: Gathered, threads: usize) -> Vec<(usize, Result<Table, Failure>)> {
        let Job { grouping, queries, .. } = &self.jobs[job];
        if let Some(failure) = gathered.failure {
            return queries.iter().map(|query| (*query, Err(failure))).collect();
        }
        gathered.states.iter_mut().for_each(|state| state.settle(threads));
        let grouping = &self.groupings[*grouping];
        let with_reports = gathered.matched.reports.iter().zip(0..).filter(|(reports, _)| **reports > 0);
        let mut groups: Vec<u32> = with_reports.map(|(_, group)| group).collect();
        if grouping.attributes.is_empty() {
            groups = vec![0];
        }
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
        let mut texts: Vec<Vec<Option<String>>> =
            spaces().zip(&values).map(|(space, numbers)| space.written(order.iter().map(|at| numbers[*at]))).collect();
        let mut answers = Vec::with_capacity(queries.len());
        for (at, query) in queries.iter().enumerate() {
            // The last one takes the texts themselves.
            let texts = if at + 1 < queries.len() { texts.clone() } else { std::mem::take(&mut texts) };
            let mut columns: Vec<_> = texts.into_iter().map(Vec::into_iter).collect();
            let row = |at: &usize| {
                let key = columns.iter_mut().map(|column| column.next().flatten()).collect();
                self.row(&self.queries[*query], &gathered, groups[*at] as usize, key)
            };
            let rows = order.iter().map(row).collect();
            answers.push((*query, Ok(Table { matched: gathered.matched.reports.iter().sum(), rows })));
        }
        answers
    }

    /// The only row of the only query, whose key is empty.
    pub(crate) fn only_row(&self, mut gathered: Gathered, threads: usize) -> Result<TableRow, Failure> {
        gathered.states.iter_mut().for_each(|state| state.settle(threads));
        match gathered.failure {
            Some(failure) => Err(failure),
            None => Ok(self.row(&self.queries[0], &gathered, 0, Vec::new())),
        }
    }

    fn row(&self, asked: &Asked, gathered: &Gathered, group: usize, key: Key) -> TableRow {
        let matched = gathered.matched.reports.get(group).copied().unwrap_or(0);
        let cell = |found: &Found| match found {
            Found::Matched => Cell::Scalar(Some(Value::from(matched))),
            Found::State(at) => {
                let (_, attribute) = self.jobs[asked.job].aggregates[*at];
                gathered.states[*at].cell(group, &|numbers| self.attributes[attribute].space.written(numbers.iter().copied()))
            }
        };
        TableRow { key, matched, cells: asked.cells.iter().map(cell).collect() }
    }
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
