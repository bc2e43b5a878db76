//! What queries have in common, each thing once: attributes, conditions, filters, sets of group-by attributes, and jobs, which are pairs
//! of a filter and a set with all aggregates that any query asks of them.

use crate::filter::Verdicts;
use crate::gather::Readings;
use crate::pairs::Pairs;
use crate::resolve::{Resolver, counts_all};
use crate::space::Space;
use hashbrown::HashMap;
use model::{Aggregate, AggregateOp, Condition, Derived, Keep, Key, Most, ProjectId, Query};
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
    pub(crate) queries: Vec<Asked>,
    /// Of each query the groups that are left out, the others being taken for one; empty: none of any query.
    pub(crate) kept: Vec<&'q BTreeSet<Key>>,
    /// Of each query the groups that are wanted; empty: all of every query.
    pub(crate) most: Vec<Most<'q>>,
    /// What is evaluated as one beside its answer; `None`: nothing of any query.
    pub(crate) keep: Option<&'q Keep<'q>>,
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

/// Group-by attributes, in whatever order queries name them.
pub(crate) struct Grouping {
    /// Ascending.
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
    pub(crate) queries: Vec<usize>,
}

/// One query: where its cells are found in its job.
pub(crate) struct Asked {
    pub(crate) job: usize,
    /// The places of the parts of its keys among the attributes of the grouping.
    pub(crate) order: Vec<usize>,
    pub(crate) cells: Vec<Found>,
}

pub(crate) enum Found {
    /// The reports of the group.
    Matched,
    State(usize),
}

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
            keep: None,
        };
        let mut known = Known::default();
        queries.iter().for_each(|query| plan.add(&mut known, query));
        plan
    }

    fn add(&mut self, known: &mut Known, query: &'q Query) {
        let filter = self.filter(known, query);
        let attributes: Vec<usize> = query.group.iter().map(|name| self.attribute(known, name, &query.derived)).collect();
        attributes.iter().for_each(|attribute| _ = self.attributes[*attribute].numbered_for.insert(filter));
        let mut by_attribute: Vec<usize> = (0..attributes.len()).collect();
        by_attribute.sort_by_key(|at| attributes[*at]);
        let mut order = vec![0; attributes.len()];
        by_attribute.iter().zip(0..).for_each(|(at, place)| order[*at] = place);
        let attributes: Vec<usize> = by_attribute.into_iter().map(|at| attributes[at]).collect();
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
        self.queries.push(Asked { job, order, cells });
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
}
