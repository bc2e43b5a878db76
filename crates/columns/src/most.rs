//! Which groups a query shows when it does not show all: those with most reports, and those that are named. Groups may be many more than
//! are shown, so each of them is only looked at, and nothing is listed that is not needed.

use crate::outcome::{Shown, in_order};
use crate::plan::{Grouping, Job, Plan};
use crate::space::Ranks;
use model::Beyond;
use std::cell::LazyCell;

/// Groups whose keys are looked up together: as many as leave room for everything else that is at hand.
const TOGETHER: usize = 4_096;
/// Groups with fewer reports are counted by these.
const FEW_REPORTS: usize = 256;
/// Groups that are counted at one time, so that one does not wait until the one before it with as many reports is counted.
const LANES: usize = 4;

impl Plan<'_> {
    /// What each query of a job shows, by the reports of each group.
    pub(crate) fn shown(&self, job: usize, reports: &[u64]) -> Vec<Shown> {
        let Job { grouping, queries, .. } = &self.jobs[job];
        let grouping = &self.groupings[*grouping];
        let groups = reports.iter().filter(|reports| **reports > 0).count();
        let all = || match grouping.attributes[..] {
            [] => vec![0],
            _ => reports.iter().zip(0..).filter(|(reports, _)| **reports > 0).map(|(_, group)| group).collect(),
        };
        let mut of_values: Option<OfValues> = None;
        // Mostly the next query shows the same: what the last one asked for, and what that came to.
        let mut last: Option<(&[usize], usize, Vec<u32>, Shown)> = None;
        let mut all_shown = Vec::with_capacity(queries.len());
        for query in queries {
            let most = self.most.get(*query).filter(|most| groups > most.groups && !grouping.attributes.is_empty());
            let Some(most) = most else {
                all_shown.push(Shown::only(all()));
                continue;
            };
            let order = &self.queries[*query].order[..];
            let mut named = self.found_groups(grouping, order, most.also);
            named.retain(|group| reports.get(*group as usize).is_some_and(|reports| *reports > 0));
            named.sort_unstable();
            let shown = match &last {
                Some((as_before, groups, have, shown)) if (*as_before, *groups, have) == (order, most.groups, &named) => shown.clone(),
                _ if groups - named.len() <= most.groups => Shown::only(all()),
                _ => {
                    let shown = self.largest(grouping, order, reports, &named, most.groups);
                    let of_values = of_values.get_or_insert_with(|| OfValues::new(self, grouping, reports));
                    let beyond = Beyond {
                        groups: (groups - shown.len()) as u64,
                        matched: of_values.reports - shown.iter().map(|group| reports[*group as usize]).sum::<u64>(),
                        values: in_order(order, of_values.without(self, grouping, &shown)),
                    };
                    Shown { groups: shown, beyond }
                }
            };
            all_shown.push(shown.clone());
            last = Some((order, most.groups, named, shown));
        }
        all_shown
    }

    /// Groups that are named, and so many of the others, of which there are more, ascending.
    fn largest(&self, grouping: &Grouping, order: &[usize], reports: &[u64], named: &[u32], most: usize) -> Vec<u32> {
        let bound = Bound::new(reports, named, most);
        // Those at the bound have all the same number of reports, and not all of them have room beside those with more.
        let (mut shown, mut at_bound) = (named.to_vec(), Vec::new());
        let mut left = named.iter().peekable();
        for (group, reports) in (0..).zip(reports).filter(|(_, reports)| **reports >= bound.reports) {
            while left.next_if(|named| **named < group).is_some() {}
            match left.next_if_eq(&&group) {
                Some(_) => {}
                None if *reports > bound.reports => shown.push(group),
                None => at_bound.push(group),
            }
        }
        shown.extend(self.first_by_key(grouping, order, at_bound, most - bound.above));
        shown.sort_unstable();
        shown
    }

    /// So many groups whose keys come first, a missing value last.
    fn first_by_key(&self, grouping: &Grouping, order: &[usize], mut groups: Vec<u32>, most: usize) -> Vec<u32> {
        if groups.len() <= most || most == 0 {
            groups.truncate(most);
            return groups;
        }
        let values = LazyCell::new(|| in_order(order, self.values(grouping, &groups)));
        let spaces = order.iter().map(|place| &self.attributes[grouping.attributes[*place]].space);
        let ranks: Vec<Ranks> = spaces.enumerate().map(|(at, space)| space.ranks(groups.len(), || values[at].clone())).collect();
        if order.len() <= 2 {
            return self.first_by_rank(grouping, order, &groups, most, &ranks);
        }
        let of_groups = |(ranks, numbers): (&Ranks, &Vec<u32>)| numbers.iter().map(|number| ranks.of_present(*number)).collect();
        let ranks: Vec<Vec<u32>> = ranks.iter().zip(values.iter()).map(of_groups).collect();
        let mut places: Vec<usize> = (0..groups.len()).collect();
        places.select_nth_unstable_by(most - 1, |a, b| ranks.iter().map(|ranks| ranks[*a]).cmp(ranks.iter().map(|ranks| ranks[*b])));
        places.into_iter().take(most).map(|at| groups[at]).collect()
    }

    /// The same by one or two attributes, whose ranks fit into one number.
    fn first_by_rank(&self, grouping: &Grouping, order: &[usize], groups: &[u32], most: usize, ranks: &[Ranks]) -> Vec<u32> {
        // Twice as many as are wanted: now and then the lesser half of them stays, and then only groups before its last one are of use.
        let (mut first, mut bound): (Vec<(u64, u32)>, u64) = (Vec::with_capacity(most * 2), u64::MAX);
        let halve = |first: &mut Vec<(u64, u32)>| {
            let (_, last, _) = first.select_nth_unstable(most - 1);
            let bound = last.0;
            first.truncate(most);
            bound
        };
        for groups in groups.chunks(TOGETHER) {
            let mut keys = vec![0; groups.len()];
            for (ranks, numbers) in ranks.iter().zip(in_order(order, self.values(grouping, groups))) {
                for (key, number) in keys.iter_mut().zip(numbers) {
                    *key = *key << 32 | u64::from(ranks.of_present(number));
                }
            }
            for (key, group) in keys.into_iter().zip(groups) {
                if key > bound {
                    continue;
                }
                first.push((key, *group));
                if first.len() == most * 2 {
                    bound = halve(&mut first);
                }
            }
        }
        halve(&mut first);
        first.into_iter().map(|(_, group)| group).collect()
    }
}

/// How many groups have each value, attribute by attribute of the grouping.
struct OfValues {
    groups: Vec<Vec<u32>>,
    /// How many values have any.
    values: Vec<u64>,
    /// Those of all groups.
    reports: u64,
}

impl OfValues {
    fn new(plan: &Plan<'_>, grouping: &Grouping, reports: &[u64]) -> OfValues {
        let mut of_values: Vec<Vec<u32>> = grouping.attributes.iter().map(|at| vec![0; plan.attributes[*at].space.length()]).collect();
        let mut count = |groups: &mut Vec<u32>| {
            for (of_values, numbers) in of_values.iter_mut().zip(plan.values(grouping, groups)) {
                numbers.into_iter().for_each(|number| of_values[number as usize] += 1);
            }
            groups.clear();
        };
        let mut together = Vec::with_capacity(TOGETHER);
        for (group, _) in (0..).zip(reports).filter(|(_, reports)| **reports > 0) {
            together.push(group);
            if together.len() == TOGETHER {
                count(&mut together);
            }
        }
        count(&mut together);
        let values = of_values.iter().map(|groups| groups.iter().filter(|groups| **groups > 0).count() as u64).collect();
        OfValues { groups: of_values, values, reports: reports.iter().sum() }
    }

    /// How many values have groups other than these.
    fn without(&mut self, plan: &Plan<'_>, grouping: &Grouping, shown: &[u32]) -> Vec<u64> {
        let of_shown = plan.values(grouping, shown);
        let mut values = self.values.clone();
        for ((of_values, numbers), values) in self.groups.iter_mut().zip(&of_shown).zip(&mut values) {
            for number in numbers {
                let groups = &mut of_values[*number as usize];
                *groups -= 1;
                *values -= u64::from(*groups == 0);
            }
        }
        for (of_values, numbers) in self.groups.iter_mut().zip(of_shown) {
            numbers.into_iter().for_each(|number| of_values[number as usize] += 1);
        }
        values
    }
}

/// The number of reports of the last of some groups with most reports.
struct Bound {
    reports: u64,
    /// How many groups have more.
    above: usize,
}

impl Bound {
    /// That of so many groups among those that are not named, of which there are more.
    fn new(reports: &[u64], named: &[u32], most: usize) -> Bound {
        if most == 0 {
            return Bound { reports: u64::MAX, above: 0 };
        }
        let mut of_few = [[0u32; FEW_REPORTS]; LANES];
        let mut large: Vec<u32> = Vec::new();
        let (whole, rest) = reports.as_chunks::<LANES>();
        let mut group = 0;
        for counts in whole.iter().map(|counts| &counts[..]).chain([rest]) {
            for (lane, count) in of_few.iter_mut().zip(counts) {
                if *count < FEW_REPORTS as u64 {
                    lane[*count as usize] += 1;
                } else {
                    large.push(group);
                }
                group += 1;
            }
        }
        let mut of_few: Vec<u32> = (0..FEW_REPORTS).map(|at| of_few.iter().map(|lane| lane[at]).sum()).collect();
        for count in named.iter().map(|group| reports[*group as usize]).filter(|count| *count < FEW_REPORTS as u64) {
            of_few[count as usize] -= 1;
        }
        let mut left = named.iter().peekable();
        large.retain(|group| {
            while left.next_if(|named| *named < group).is_some() {}
            left.next_if_eq(&group).is_none()
        });
        let mut large: Vec<u64> = large.into_iter().map(|group| reports[group as usize]).collect();
        if most <= large.len() {
            let bound = *large.select_nth_unstable_by(most - 1, |a, b| b.cmp(a)).1;
            return Bound { reports: bound, above: large.iter().filter(|count| **count > bound).count() };
        }
        let mut above = large.len();
        for (count, groups) in of_few.into_iter().enumerate().skip(1).rev() {
            if above + groups as usize >= most {
                return Bound { reports: count as u64, above };
            }
            above += groups as usize;
        }
        unreachable!("there are more groups than are wanted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_bound_is_that_of_sorted_numbers(
            reports in prop::collection::vec(prop_oneof![3 => 0..4u64, 1 => 250..260u64, 1 => 1_000..1_003u64], 1..80),
            named in prop::collection::btree_set(0..80u32, 0..10),
            most in 0..80usize,
        ) {
            let named: Vec<u32> = named.into_iter().filter(|group| reports.get(*group as usize).is_some_and(|reports| *reports > 0)).collect();
            let others = reports.iter().zip(0..).filter(|(reports, group)| **reports > 0 && !named.contains(group));
            let mut others: Vec<u64> = others.map(|(reports, _)| *reports).collect();
            prop_assume!(others.len() > most);
            others.sort_unstable_by(|a, b| b.cmp(a));
            let bound = Bound::new(&reports, &named, most);
            let expected = if most == 0 { u64::MAX } else { others[most - 1] };
            prop_assert_eq!((bound.reports, bound.above), (expected, others.iter().filter(|reports| **reports > expected).count()));
        }
    }
}
