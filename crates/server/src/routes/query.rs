//! The query API of our own: one aggregate query over a time frame, as a table. What Explore and `crashmeter query` ask.

use super::projects::Body;
use crate::app::App;
use crate::auth::Caller;
use crate::reply::Refusal;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use catalog::Scope;
use model::{Stamp, grammar};
use reports::Cancel;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json_, json};
use std::sync::Arc;
use utoipa::ToSchema;

/// Rows returned unless the query says otherwise, and at most.
const ROWS: usize = 1_000;

/// A query and its time frame.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewQuery {
    /// `{"filter": [...], "group": [...], "fold": {...}}` in the Backtrace grammar.
    #[schema(value_type = Object)]
    query: Json_,
    /// First second of the time frame; by default one hour before its end.
    from: Option<u64>,
    /// First second after it; by default now.
    to: Option<u64>,
    /// Most rows; at most 1,000.
    limit: Option<usize>,
}

/// A table.
#[derive(Serialize, ToSchema)]
pub(crate) struct Answer {
    /// Group-by attributes, then aggregates.
    columns: Vec<String>,
    /// Rows with most reports first: group values (null where missing), then one value an aggregate.
    #[schema(value_type = Vec<Vec<Object>>)]
    rows: Vec<Vec<Json_>>,
    /// Reports that passed the filter.
    matched: u64,
    /// Groups there are, those beyond the limit included.
    groups: usize,
    /// Whether rows were left out.
    truncated: bool,
    /// The time frame, Unix seconds.
    from: u64,
    to: u64,
}

/// Runs a query over a time frame.
#[utoipa::path(post, path = "/api/v1/projects/{project}/query", request_body = NewQuery, params(("project" = String, Path)),
    responses((status = 200, body = Answer), (status = 422, body = crate::reply::ProblemBody)))]
pub(crate) async fn run(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(project): Path<String>,
    Body(new): Body<NewQuery>,
) -> Result<Json<Answer>, Refusal> {
    let project = caller.project(&project, Scope::Query)?;
    let parsed = grammar::parse(&new.query)?;
    let now = app.reports.now();
    let to = new.to.map_or(now, Stamp::from_secs);
    let from = Stamp::from_secs(new.from.unwrap_or_else(|| to.secs().saturating_sub(3_600)));
    if from > to {
        return Err(Refusal::invalid("from", "must not be after to"));
    }
    let limit = new.limit.unwrap_or(ROWS);
    if limit == 0 || limit > ROWS {
        return Err(Refusal::invalid("limit", format!("must be 1 to {ROWS}")));
    }
    let slot = app
        .queries
        .clone()
        .try_acquire_owned()
        .map_err(|_| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "", "other queries are running; try again soon"))?;
    let (reports, query) = (app.reports.clone(), parsed.query.clone());
    let table = tokio::task::spawn_blocking(move || {
        // Whoever asked may hang up; the scan goes on, and counts until it has ended.
        let _slot = slot;
        reports.evaluate(project.id, from..to, &[&query], &Cancel::default())
    })
    .await
    .expect("a panic in a query stops the request");
    let mut table = match table.map(|mut tables| tables.pop()) {
        Ok(Some(Ok(table))) => table,
        Ok(Some(Err(error))) => return Err(Refusal::invalid("query", error.to_string())),
        Ok(None) => unreachable!("one query has one answer"),
        Err(error) => return Err(Refusal::internal(&error)),
    };
    table.rows.sort_by(|a, b| b.matched.cmp(&a.matched).then_with(|| a.key.cmp(&b.key)));
    let groups = table.rows.len();
    let rows = table.rows.iter().take(limit).map(|row| {
        let key = row.key.iter().map(|value| json!(value));
        key.chain(row.cells.iter().map(|cell| json!(cell.scalar()))).collect()
    });
    Ok(Json(Answer {
        columns: parsed.query.group.iter().cloned().chain(parsed.query.aggregates.iter().map(model::Aggregate::name)).collect(),
        rows: rows.collect(),
        matched: table.matched,
        groups,
        truncated: groups > limit,
        from: from.secs(),
        to: to.secs(),
    }))
}
