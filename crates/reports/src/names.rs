//! Which attributes a project's reports have had, and as what types.

use model::{ProjectId, Report, Value};
use std::collections::{BTreeMap, HashMap};

/// Attribute names remembered of one project; those beyond it are only counted.
const MAX_NAMES: usize = 10_000;

/// How often an attribute was seen, by type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttributeSummary {
    /// Its name.
    pub name: String,
    /// Reports in which it was text.
    pub texts: u64,
    /// Reports in which it was a number.
    pub numbers: u64,
    /// Reports in which it was true or false.
    pub booleans: u64,
}

/// Counts by project and name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Names {
    pub(crate) projects: HashMap<ProjectId, BTreeMap<String, [u64; 3]>>,
    /// Values under names beyond the bound.
    pub(crate) beyond: u64,
}

impl Names {
    pub(crate) fn note(&mut self, report: &Report) {
        let names = self.projects.entry(report.project).or_default();
        for (name, value) in report.attributes.iter() {
            self.beyond += add(names, name, kind(value));
        }
    }

    pub(crate) fn merge(&mut self, other: &Names) {
        self.beyond += other.beyond;
        for (project, theirs) in &other.projects {
            let names = self.projects.entry(*project).or_default();
            self.beyond += theirs.iter().map(|(name, counts)| add(names, name, *counts)).sum::<u64>();
        }
    }

    /// Takes a name for known that no report came with.
    pub(crate) fn know(summaries: &mut Vec<AttributeSummary>, name: &str, value: &Value) {
        if let Err(at) = summaries.binary_search_by(|one| one.name.as_str().cmp(name)) {
            let [texts, numbers, booleans] = kind(value);
            summaries.insert(at, AttributeSummary { name: name.to_owned(), texts, numbers, booleans });
        }
    }

    /// A project's attributes in name order.
    pub(crate) fn of(&self, project: ProjectId) -> Vec<AttributeSummary> {
        let shown = |(name, [texts, numbers, booleans]): (&String, &[u64; 3])| AttributeSummary {
            name: name.clone(),
            texts: *texts,
            numbers: *numbers,
            booleans: *booleans,
        };
        self.projects.get(&project).into_iter().flatten().map(shown).collect()
    }
}

/// One value, counted by its type.
fn kind(value: &Value) -> [u64; 3] {
    match value {
        Value::Text(_) => [1, 0, 0],
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => [0, 1, 0],
        Value::Bool(_) => [0, 0, 1],
    }
}

/// Adds to a name's counts; returns how many values found no place.
fn add(names: &mut BTreeMap<String, [u64; 3]>, name: &str, counts: [u64; 3]) -> u64 {
    if let Some(sums) = names.get_mut(name) {
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        0
    } else if names.len() < MAX_NAMES {
        names.insert(name.to_owned(), counts);
        0
    } else {
        counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Attributes, Stamp, Tx};

    fn report(pairs: Vec<(String, Value)>) -> Report {
        Report { project: ProjectId(1), tx: Tx(1), stamp: Stamp::ZERO, attributes: Attributes::from_pairs(pairs) }
    }

    #[test]
    fn types_are_counted_side_by_side() {
        let mut names = Names::default();
        for value in [Value::from("x"), Value::Int(1), Value::Float(0.5), Value::Bool(true)] {
            names.note(&report(vec![("a".into(), value)]));
        }
        let mut twice = names.clone();
        twice.merge(&names);
        assert_eq!(twice.of(ProjectId(1)), [AttributeSummary { name: "a".into(), texts: 2, numbers: 4, booleans: 2 }]);
        assert!(twice.of(ProjectId(2)).is_empty());
    }

    #[test]
    fn names_beyond_the_bound_are_only_counted() {
        let mut names = Names::default();
        names.note(&report((0..MAX_NAMES + 3).map(|n| (format!("{n:06}"), Value::Int(1))).collect()));
        assert_eq!((names.of(ProjectId(1)).len(), names.beyond), (MAX_NAMES, 3));
    }
}
