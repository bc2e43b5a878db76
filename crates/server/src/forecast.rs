//! How many series a metric has and will have, counted from the reports there are. An estimate for people before they save;
//! nothing is sealed from it.

use crate::app::App;
use crate::ask::ask;
use crate::reply::Refusal;
use export::OverBudget;
use model::{Aggregate, AggregateOp, Cell, ProjectId, Query, Stamp, Value, Window};
use reports::View;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use utoipa::ToSchema;

/// A count to make: distinct groups of a query in a span.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) query: Query,
    pub(crate) span: Range<Stamp>,
    pub(crate) series_budget: u32,
}

/// What a query has in a span.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Counted {
    /// Distinct groups; 1 for an ungrouped query.
    pub(crate) groups: u64,
    /// Series they make: a budget's worth, and `__other__` when there are more.
    pub(crate) series: u64,
    pub(crate) over: Option<Beyond>,
}

/// Groups that a budget leaves without a series of their own.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Beyond {
    /// How many.
    pub(crate) groups: u64,
    /// Reports in them.
    pub(crate) reports: u64,
    /// The group-by attribute with most values among them.
    pub(crate) attribute: String,
    /// Some of its values, those with most reports first.
    pub(crate) samples: Vec<String>,
}

/// Makes counts over a project's reports: one scan a span, off the async threads. The reason why one cannot be made is a text.
pub(crate) async fn count(app: &Arc<App>, project: ProjectId, asked: Vec<Asked>) -> Result<Vec<Result<Counted, String>>, Refusal> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let reports = app.reports.clone();
    let counted = ask(&app.queries, move |cancel| {
        // Only groups count here, so nothing else is aggregated.
        let plain =
            |query: &Query| Query { aggregates: vec![Aggregate { op: AggregateOp::Count, attribute: "_tx".into() }], ..query.clone() };
        let queries: Vec<Query> = asked.iter().map(|one| plain(&one.query)).collect();
        let mut by_span: BTreeMap<(Stamp, Stamp), Vec<usize>> = BTreeMap::new();
        for (at, one) in asked.iter().enumerate() {
            by_span.entry((one.span.start, one.span.end)).or_default().push(at);
        }
        let mut counted: Vec<Result<Counted, String>> = vec![Err(String::new()); asked.len()];
        for ((start, end), places) in by_span {
            let of_span: Vec<&Query> = places.iter().map(|at| &queries[*at]).collect();
            // As metrics see reports: as they were accepted.
            let tables = reports.evaluate(project, start..end, View::Accepted, &of_span, cancel)?;
            for (at, table) in places.into_iter().zip(tables) {
                counted[at] = table.map(|table| Counted::of(&table, &asked[at])).map_err(|error| error.to_string());
            }
        }
        Ok::<_, reports::ReadError>(counted)
    });
    counted.await?.map_err(|error| Refusal::internal(&error))
}

impl Counted {
    /// What a query has where there are no reports.
    pub(crate) fn of_nothing(query: &Query) -> Counted {
        let series = u64::from(query.group.is_empty());
        Counted { groups: series, series, over: None }
    }

    fn of(table: &model::Table, asked: &Asked) -> Counted {
        let mut rows: Vec<_> = table.rows.iter().collect();
        rows.sort_by(|a, b| b.matched.cmp(&a.matched).then_with(|| a.key.cmp(&b.key)));
        let budget = asked.series_budget as usize;
        let over = (rows.len() > budget && !asked.query.group.is_empty()).then(|| {
            // The window only dates what is told; here nothing is.
            let window = model::Period::new(1).expect("legal").window_at(asked.span.end);
            let over = OverBudget::of(&rows[budget..], &model::Beyond::default(), &asked.query, window, false);
            Beyond { groups: over.groups, reports: over.reports, attribute: over.attribute, samples: over.samples }
        });
        let series = rows.len().min(budget) as u64 + u64::from(over.is_some());
        Counted { groups: rows.len() as u64, series, over }
    }
}

/// The newest window of a span that has closed and in which a query matched reports, for people to look at; `None` when there is none.
pub(crate) async fn newest_match(
    app: &Arc<App>,
    project: ProjectId,
    query: &Query,
    period: model::Period,
    span: Range<Stamp>,
) -> Result<Option<Window>, Refusal> {
    let newest = vec![Aggregate { op: AggregateOp::Max, attribute: "timestamp.received".into() }];
    let query = Query { aggregates: newest, group: Vec::new(), ..query.clone() };
    let reports = app.reports.clone();
    let table = ask(&app.queries, move |cancel| reports.evaluate(project, span, View::Accepted, &[&query], cancel));
    let mut tables = table.await?.map_err(|error| Refusal::internal(&error))?;
    // A query that cannot be evaluated is refused where it is asked for.
    let Some(Ok(table)) = tables.pop() else { return Ok(None) };
    let cell = table.rows.first().and_then(|row| row.cells.first());
    let Some(Cell::Scalar(Some(Value::Int(second)))) = cell else { return Ok(None) };
    Ok(u64::try_from(*second).ok().map(|second| period.window_at(Stamp::from_secs(second))))
}

/// The last window that has closed by `now`, whole.
pub(crate) fn last_window(period: model::Period, now: Stamp) -> Option<Window> {
    let start = period.window_at(now).start_secs().checked_sub(u64::from(period.secs()))?;
    Window::new(start, period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Period, Table, TableRow};

    #[test]
    fn groups_beyond_the_budget_are_one_series_and_named() {
        let row = |name: &str, matched| TableRow { key: vec![Some(name.to_owned())], matched, cells: Vec::new() };
        let table = Table { matched: 9, rows: vec![row("a", 1), row("b", 5), row("c", 1), row("d", 2)] };
        let asked = |series_budget, group: &[&str]| Asked {
            query: Query { group: group.iter().map(|&one| one.to_owned()).collect(), ..Query::default() },
            span: Stamp::ZERO..Stamp::from_secs(10),
            series_budget,
        };
        assert_eq!(Counted::of(&table, &asked(4, &["kind"])), Counted { groups: 4, series: 4, over: None });
        let over = Beyond { groups: 2, reports: 2, attribute: "kind".into(), samples: vec!["a".into(), "c".into()] };
        assert_eq!(Counted::of(&table, &asked(2, &["kind"])), Counted { groups: 4, series: 3, over: Some(over) });
    }

    #[test]
    fn the_last_window_is_the_one_before_now() {
        let window = |now| last_window(Period::new(60).expect("legal"), Stamp::from_secs(now)).map(Window::start_secs);
        assert_eq!([window(59), window(60), window(119), window(120)], [None, Some(0), Some(0), Some(60)]);
    }
}
