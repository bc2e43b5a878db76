//! Issues: the rows of the table `issues`, and `POST /api/issue`, which changes them.

use super::query::EVER;
use super::{Asker, Denied, json_body};
use crate::app::App;
use crate::ask::ask;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use catalog::{Issue, IssueEdit, OPEN, Project, Scope};
use model::backtrace::Fault;
use model::{Aggregate, AggregateOp, Attributes, Query, Report, Stamp, Tx, Value};
use reports::{Cancel, View};
use serde_json::{Value as Json_, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most issues changed by one request.
const MAX_ISSUES: usize = 10_000;
/// Longest fingerprint and longest field of an issue, in bytes.
const MAX_TEXT: usize = 16 << 10;

/// One row a fingerprint that some report has or somebody has said something about, in the order of fingerprints, numbered from 1.
/// A group that nobody has touched is open. Blocks.
pub(super) fn rows(app: &App, project: &Project, cancel: &Cancel) -> Result<Vec<Report>, Fault> {
    let aggregates = vec![Aggregate { op: AggregateOp::Min, attribute: "_tx".to_owned() }];
    let query = Query { group: vec!["fingerprint".to_owned()], aggregates, ..Query::default() };
    let tables = app.reports.evaluate(project.id, EVER, View::Current, &[&query], cancel);
    let table = super::query::read(tables.map(|tables| tables.into_iter().next().expect("one table a query")))?;
    let touched = app.catalog.issues(project.id).map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "issues cannot be read");
        Fault::invalid("the server could not read its issues; its log says why")
    })?;
    let mut rows: BTreeMap<String, Vec<(String, Value)>> = BTreeMap::new();
    for row in table.rows {
        if let Some(fingerprint) = row.key.into_iter().next().flatten() {
            let id = row.cells[0].scalar().map(|first| ("id".to_owned(), first.clone()));
            rows.insert(fingerprint, id.into_iter().chain([("state".to_owned(), Value::from(OPEN))]).collect());
        }
    }
    for Issue { fingerprint, state, tags, ticket, assignee, modified, modified_by: _ } in touched {
        let said = rows.entry(fingerprint).or_default();
        said.push(("state".to_owned(), Value::Text(state)));
        said.push(("last_modified".to_owned(), Value::from(modified.secs())));
        for (name, value) in [("tags", tags), ("ticket", ticket), ("assignee", assignee)] {
            said.extend(value.map(|value| (name.to_owned(), Value::Text(value))));
        }
    }
    let row = |(at, (fingerprint, mut said)): (usize, (String, Vec<(String, Value)>))| {
        said.push(("fingerprint".to_owned(), Value::Text(fingerprint)));
        Report { project: project.id, tx: Tx(at as u64 + 1), stamp: Stamp::ZERO, attributes: Attributes::from_pairs(said) }
    };
    Ok(rows.into_iter().enumerate().map(row).collect())
}

/// The fingerprint of one of those rows.
pub(super) fn fingerprint(row: &Report) -> String {
    row.attributes.get("fingerprint").map(|value| value.written().into_owned()).unwrap_or_default()
}

/// Changes issues.
pub(super) async fn save(app: &Arc<App>, project: &Project, fingerprints: Vec<String>, edit: IssueEdit, actor: &str) -> Result<(), Denied> {
    if fingerprints.len() > MAX_ISSUES {
        return Err(Denied::new(format!("{} issues are too many for one change; {MAX_ISSUES} are allowed", fingerprints.len())));
    }
    let texts = [&edit.state, &edit.tags, &edit.ticket, &edit.assignee].into_iter().flatten().flatten();
    if let Some(long) = texts.chain(&fingerprints).find(|text| text.len() > MAX_TEXT) {
        return Err(Denied::new(format!("a text of {} bytes is too long; {MAX_TEXT} are allowed", long.len())));
    }
    if fingerprints.is_empty() {
        return Ok(());
    }
    let (id, actor) = (project.id, actor.to_owned());
    Ok(app.catalog(move |app, now| app.catalog.edit_issues(id, &fingerprints, &edit, &actor, now)).await?)
}

/// Changes the issues of some fingerprints, and shows them. Without a change it only shows them.
pub(super) async fn edit(State(app): State<Arc<App>>, asker: Asker, body: Result<Bytes, BytesRejection>) -> Result<Json<Json_>, Denied> {
    let body = json_body(body)?;
    let edit = IssueEdit {
        state: field(&body, "state")?,
        tags: field(&body, "tags")?,
        ticket: field(&body, "ticket")?,
        assignee: field(&body, "assignee")?,
    };
    if body.get("invariants").is_some_and(|invariants| !invariants.is_null()) {
        return Err(Denied::new("invalid parameter 'invariants': issues are not reopened by themselves here"));
    }
    let name = body.get("project").and_then(Json_::as_str).or(asker.parameters.get("project")).unwrap_or_default();
    let scope = if edit == IssueEdit::default() { Scope::Query } else { Scope::Edit };
    let project = asker.project_named(&app, asker.parameters.get("universe"), name, scope)?;
    let fault = || Denied::new("invalid parameter 'fingerprint': must be a list of fingerprints");
    let wanted: Option<Vec<String>> = match body.get("fingerprint") {
        Some(Json_::String(one)) => Some(vec![one.clone()]),
        Some(Json_::Array(list)) => list.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    let wanted = wanted.ok_or_else(fault)?;
    let (shared, of) = (app.clone(), project.clone());
    let known = ask(&app.queries, move |cancel| rows(&shared, &of, cancel)).await??;
    let known: BTreeMap<String, Report> = known.into_iter().map(|row| (fingerprint(&row), row)).collect();
    let (there, missing): (Vec<String>, Vec<String>) = wanted.into_iter().partition(|one| known.contains_key(one));
    if edit != IssueEdit::default() {
        save(&app, &project, there.clone(), edit, &asker.caller.name()).await?;
    }
    let id = project.id;
    let touched = app.catalog(move |app, _| app.catalog.issues(id)).await?;
    let touched: BTreeMap<&str, &Issue> = touched.iter().map(|issue| (issue.fingerprint.as_str(), issue)).collect();
    let number = |fingerprint: &String| known[fingerprint].attributes.get("id").cloned();
    let shown = there.iter().map(|fingerprint| show(fingerprint, number(fingerprint), touched.get(fingerprint.as_str()).copied()));
    let missing = missing.iter().map(|fingerprint| json!({"fingerprint": fingerprint, "error": "no report has this fingerprint"}));
    Ok(Json(json!({"results": shown.chain(missing).collect::<Json_>()})))
}

fn show(fingerprint: &str, id: Option<Value>, issue: Option<&Issue>) -> Json_ {
    let text = |field: fn(&Issue) -> &Option<String>| issue.and_then(|issue| field(issue).clone()).unwrap_or_default();
    json!({
        "id": id, "fingerprint": fingerprint, "state": issue.map_or(OPEN, |issue| &issue.state), "tags": text(|issue| &issue.tags),
        "ticket": text(|issue| &issue.ticket), "assignee": text(|issue| &issue.assignee),
        "invariant_reopen_count": 0, "invariant_reopen_last_time": 0,
        "blame_last_modified": issue.map_or(0, |issue| issue.modified.secs()), "blame": issue.map_or("", |issue| &issue.modified_by),
    })
}

/// A field to change: text as it is, `null` to clear, or `{"action": "set", "value": text or a list}`, whose list is kept as JSON.
fn field(body: &Json_, name: &str) -> Result<Option<Option<String>>, Denied> {
    let fault = |detail: &str| Denied::new(format!("invalid parameter '{name}': {detail}"));
    let Some(value) = body.get(name) else { return Ok(None) };
    let value = match value.get("action").and_then(Json_::as_str) {
        None => value,
        Some("set") => value.get("value").unwrap_or(&Json_::Null),
        Some(_) => return Err(fault("the one action is set")),
    };
    match value {
        Json_::Null => Ok(Some(None)),
        Json_::String(text) => Ok(Some(Some(text.clone()).filter(|text| !text.is_empty()))),
        Json_::Array(list) => Ok(Some((!list.is_empty()).then(|| value.to_string()))),
        _ => Err(fault("must be text or {\"action\": \"set\", \"value\": ...}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_text_or_what_an_action_sets() {
        let read = |value: Json_| field(&json!({"tags": value}), "tags").map_err(|denied| denied.fault.message);
        let text = |text: &str| Ok(Some(Some(text.to_owned())));
        assert_eq!(field(&json!({}), "tags").expect("nothing"), None);
        assert_eq!(read(json!("a b")), text("a b"));
        assert_eq!(read(json!("")), Ok(Some(None)));
        assert_eq!(read(json!(null)), Ok(Some(None)));
        assert_eq!(read(json!({"action": "set", "value": "a"})), text("a"));
        assert_eq!(read(json!({"action": "set"})), Ok(Some(None)));
        assert_eq!(read(json!({"action": "set", "value": [{"url": "u"}]})), text("[{\"url\":\"u\"}]"));
        assert_eq!(read(json!({"action": "set", "value": []})), Ok(Some(None)));
        assert!(read(json!({"action": "add", "value": "a"})).is_err());
        assert!(read(json!(5)).is_err());
    }
}
