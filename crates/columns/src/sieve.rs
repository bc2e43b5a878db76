//! Which rows of a block anybody will look at, known before the block has all its columns: so that of long texts only these are read.

use crate::bits::Bits;
use crate::block::{Block, Column};
use crate::filter::Verdicts;
use crate::resolve::{Needed, Resolver};
use crate::select::{passing, unknown};
use model::{Condition, Derived, ProjectId, Query, Selection};
use std::sync::Arc;

/// The filters of a question; shared by all threads that load for it.
pub struct Sieve<'q> {
    project: ProjectId,
    resolver: Resolver,
    filters: Vec<Filter<'q>>,
    needed: Needed,
}

struct Filter<'q> {
    conditions: &'q [Vec<Condition>],
    derived: &'q [Derived],
    verdicts: Vec<Vec<Verdicts>>,
}

/// More alternatives than this let through nearly everything between them.
const MOST_ALTERNATIVES: usize = 4;

impl<'q> Sieve<'q> {
    /// `None`: all rows will be looked at, or there are too many filters to say.
    pub fn of_queries(project: ProjectId, queries: &[&'q Query]) -> Option<Sieve<'q>> {
        Sieve::new(project, queries.iter().map(|query| (&query.filter[..], &query.derived[..])))
    }

    /// The same for a selection.
    pub fn of_selection(project: ProjectId, selection: &'q Selection) -> Option<Sieve<'q>> {
        Sieve::new(project, std::iter::once((&selection.filter[..], &selection.derived[..])))
    }

    fn new(project: ProjectId, filters: impl Iterator<Item = (&'q [Vec<Condition>], &'q [Derived])>) -> Option<Sieve<'q>> {
        let mut needed = Needed::default();
        let mut all: Vec<Filter<'q>> = Vec::new();
        for (conditions, derived) in filters {
            if conditions.is_empty() {
                return None;
            }
            if !all.iter().any(|filter| filter.conditions == conditions && filter.derived == derived) {
                needed.add_filter(conditions, derived);
                all.push(Filter { conditions, derived, verdicts: unknown(conditions) });
            }
            if all.iter().map(|filter| filter.conditions.len()).sum::<usize>() > MOST_ALTERNATIVES {
                return None;
            }
        }
        Some(Sieve { project, resolver: Resolver::new(), filters: all, needed })
    }

    /// What the filters read.
    pub fn needed(&self) -> &Needed {
        &self.needed
    }

    /// The rows that any filter lets through; the block needs no other columns than those of the filters.
    pub fn rows(&self, block: &Block) -> Bits {
        let mut any = Bits::none(block.rows());
        for Filter { conditions, derived, verdicts } in &self.filters {
            let column = |name: &str| -> Option<Arc<Column>> {
                match derived.iter().find(|derived| derived.name == name) {
                    Some(derived) => self.resolver.derived(self.project, block, derived),
                    None => self.resolver.attribute(self.project, block, name),
                }
            };
            any.or(&passing(block, conditions, verdicts, None, &column));
        }
        any
    }
}
