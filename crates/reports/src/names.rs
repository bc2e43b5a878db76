//! Which attributes a project's reports have had, and as what types.

use model::{ProjectId, Report, Value};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

/// Attribute names remembered of one project; those beyond it are only counted.
const MAX_NAMES: usize = 10_000;

/// Up to so many known names for each one of a report, all are walked over instead of looking each one up.
const FEW: usize = 4;

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
        if names.len() > FEW * report.attributes.len() {
            return self.beyond += report.attributes.iter().map(|(name, value)| add(names, name, kind(value))).sum::<u64>();
        }
        // Both are in name order: what is known is met on the way.
        let mut new = Vec::new();
        let mut known = names.iter_mut().peekable();
        for (name, value) in report.attributes.iter() {
            let mut order = Ordering::Less;
            while let Some((next, _)) = known.peek() {
                order = next.as_str().cmp(name);
                if order != Ordering::Less {
                    break;
                }
                known.next();
            }
            match known.peek_mut() {
                Some((_, sums)) if order == Ordering::Equal => sums.iter_mut().zip(kind(value)).for_each(|(sum, count)| *sum += count),
                _ => new.push((name, kind(value))),
            }
        }
        self.beyond += new.into_iter().map(|(name, counts)| add(names, name, counts)).sum::<u64>();
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
    fn known_names_are_counted_alike_walked_over_or_looked_up() {
        let named = |name: &str| (name.to_owned(), Value::Int(1));
        for others in [0, 1, 3, FEW * 3, 100] {
            let mut names = Names::default();
            let others: Vec<_> = (0..others).map(|n| named(&format!("c{n}"))).collect();
            names.note(&report(others.iter().cloned().chain([named("b"), named("d")]).collect()));
            names.note(&report(["a", "b", "d", "e"].map(named).to_vec()));
            names.note(&report(["c", "e", "f"].map(named).to_vec()));
            let counted: Vec<_> = names.of(ProjectId(1)).into_iter().map(|one| (one.name, one.numbers)).collect();
            let mut expected: Vec<_> = others.into_iter().map(|(name, _)| (name, 1)).collect();
            expected.extend([("a", 1), ("b", 2), ("c", 1), ("d", 2), ("e", 2), ("f", 1)].map(|(name, n)| (name.to_owned(), n)));
            expected.sort();
            assert_eq!(counted, expected);
        }
    }

    #[test]
    fn names_beyond_the_bound_are_only_counted() {
        let mut names = Names::default();
        names.note(&report((0..MAX_NAMES + 3).map(|n| (format!("{n:06}"), Value::Int(1))).collect()));
        assert_eq!((names.of(ProjectId(1)).len(), names.beyond), (MAX_NAMES, 3));
    }
}
