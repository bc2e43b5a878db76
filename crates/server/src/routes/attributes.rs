//! Attribute settings: what people declare of a project's attributes. Declared or not, an attribute keeps what was sent.

use super::metric_sets::expected_revision;
use super::projects::Body;
use crate::app::App;
use crate::auth::Caller;
use crate::reply::Refusal;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::{AttributeSetting, AttributeType, Declared, Format, Scope};
use model::{Aggregate, AggregateOp, Problem, Query};
use reports::AttributeSummary;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// What to declare of an attribute; what is left out is not declared.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSetting {
    /// `dictionary` (text), `uint8` to `uint128`, `bitmap` (true or false), `uuid`, `int64` or `float64`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// How values are shown: `none`, `bytes`, `seconds`, `unix_timestamp`, `memory_address`, `ipv4`, `semver` and others. It has to
    /// suit the type.
    format: Option<String>,
    /// For people.
    #[serde(default)]
    description: String,
    /// It may be counted with `unique` but never becomes a label: no metric may group by it.
    #[serde(default)]
    personal: bool,
    /// It is a number and never negative, so a `sum` of it adds up over windows.
    #[serde(default)]
    non_negative: bool,
}

/// What is declared of an attribute.
#[derive(Serialize, ToSchema)]
pub(crate) struct ShownSetting {
    /// Of several names of one attribute the first: `application.version` for `app.version` and `release`.
    attribute: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    format: String,
    description: String,
    personal: bool,
    non_negative: bool,
    /// Counts the edits.
    revision: u32,
}

impl From<&AttributeSetting> for ShownSetting {
    fn from(setting: &AttributeSetting) -> ShownSetting {
        let declared = &setting.declared;
        ShownSetting {
            attribute: setting.attribute.clone(),
            kind: declared.kind.map(|kind| kind.to_string()),
            format: declared.format.to_string(),
            description: declared.description.clone(),
            personal: declared.personal,
            non_negative: declared.non_negative,
            revision: setting.revision,
        }
    }
}

/// Every declared attribute of the project, by name.
#[utoipa::path(get, path = "/api/v1/projects/{project}/attribute-settings", params(("project" = String, Path)),
    responses((status = 200, body = [ShownSetting])))]
pub(crate) async fn list(caller: Caller, Path(project): Path<String>) -> Result<Json<Vec<ShownSetting>>, Refusal> {
    let project = caller.project(&project, Scope::Query)?.id;
    let settings = caller.snapshot().attribute_settings.iter().filter(|setting| setting.project == project);
    Ok(Json(settings.map(ShownSetting::from).collect()))
}

/// Declares an attribute. It counts at once. An attribute that some metric groups by cannot be declared personal.
#[utoipa::path(put, path = "/api/v1/projects/{project}/attribute-settings/{attribute}", request_body = NewSetting,
    params(("project" = String, Path), ("attribute" = String, Path), ("If-Match" = Option<String>, Header, description = "the revision you edit, 0 for none")),
    responses((status = 200, body = ShownSetting), (status = 409, body = crate::reply::ProblemBody),
        (status = 412, body = crate::reply::ProblemBody), (status = 422, body = crate::reply::ProblemBody)))]
pub(crate) async fn put(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((project, attribute)): Path<(String, String)>,
    headers: HeaderMap,
    Body(new): Body<NewSetting>,
) -> Result<Response, Refusal> {
    let project = caller.project(&project, Scope::Edit)?.id;
    let expected = expected_revision(&headers)?;
    let declared = check(new, &attribute)?;
    let (actor, name) = (caller.name(), attribute.clone());
    app.catalog(move |app, now| app.catalog.put_attribute_setting(project, &name, &declared, expected, &actor, now)).await?;
    let snapshot = app.catalog.published();
    let saved = snapshot.attribute_setting(project, &attribute);
    let shown = saved.map(ShownSetting::from).ok_or_else(|| Refusal::missing("setting any more: it was deleted meanwhile"))?;
    Ok(([(header::ETAG, format!("\"{}\"", shown.revision))], Json(shown)).into_response())
}

/// Takes a declaration back.
#[utoipa::path(delete, path = "/api/v1/projects/{project}/attribute-settings/{attribute}",
    params(("project" = String, Path), ("attribute" = String, Path), ("If-Match" = Option<String>, Header, description = "the revision you delete")),
    responses((status = 204), (status = 412, body = crate::reply::ProblemBody)))]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((project, attribute)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let project = caller.project(&project, Scope::Edit)?.id;
    let expected = expected_revision(&headers)?;
    let actor = caller.name();
    app.catalog(move |app, now| app.catalog.delete_attribute_setting(project, &attribute, expected, &actor, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reads the words, then has the declaration checked as a whole.
fn check(new: NewSetting, attribute: &str) -> Result<Declared, Refusal> {
    let mut problems = Vec::new();
    let kind = new.kind.map(|word| word.parse::<AttributeType>()).transpose().unwrap_or_else(|detail| {
        problems.push(Problem::new("type", detail));
        None
    });
    let format = new.format.map_or(Ok(Format::None), |word| word.parse()).unwrap_or_else(|detail| {
        problems.push(Problem::new("format", detail));
        Format::None
    });
    let declared = Declared { kind, format, description: new.description, personal: new.personal, non_negative: new.non_negative };
    // With a word that is none, what suits what cannot be told.
    if problems.is_empty() {
        problems = declared.problems(attribute);
    }
    if problems.is_empty() { Ok(declared) } else { Err(Refusal::from(problems)) }
}

/// What in a query is probably not meant: attributes that no report has had, and arithmetic over text.
pub(super) fn advice(attributes: &[AttributeSummary], query: &Query) -> Vec<String> {
    let known = |name: &str| {
        name.starts_with('_') || name == "timestamp.received" || name == "report.delay" || attributes.is_empty() || {
            attributes.iter().any(|one| one.name == name || model::aliases(name).contains(&one.name.as_str()))
        }
    };
    let conditions = query.filter.iter().flatten().map(|condition| &condition.attribute);
    let aggregated = query.aggregates.iter().map(|aggregate| &aggregate.attribute);
    let mut advice: Vec<String> = conditions
        .chain(&query.group)
        .chain(aggregated)
        .filter(|name| !known(name))
        .map(|name| format!("no report has had the attribute {name}; is it spelt rightly?"))
        .collect();
    for Aggregate { op, attribute } in &query.aggregates {
        let is_arithmetic = matches!(op, AggregateOp::Sum | AggregateOp::Mean | AggregateOp::Min | AggregateOp::Max);
        if is_arithmetic && is_text(attributes, attribute) {
            advice.push(format!("{attribute} is text: {} takes in only those values that read as numbers", op.name()));
        }
    }
    advice.sort();
    advice.dedup();
    advice
}

/// Whether an attribute has been text in every report that had it, or is so by what it means.
pub(super) fn is_text(attributes: &[AttributeSummary], name: &str) -> bool {
    let seen = attributes.iter().find(|one| one.name == name);
    known_text(name) || seen.is_some_and(|one| one.texts > 0 && one.numbers == 0 && one.booleans == 0)
}

/// Attributes that are text in every report, whether one has come yet or not.
fn known_text(name: &str) -> bool {
    matches!(
        name,
        "_rxid"
            | "fingerprint"
            | "callstack"
            | "callstack.functions"
            | "callstack.files"
            | "callstack.modules"
            | "classifiers"
            | "lang.name"
            | "lang.version"
            | "error.type"
            | "error.message"
            | "guid"
            | "hostname"
            | "application"
            | "application.version"
            | "uname.sysname"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_probably_not_meant_is_said() {
        let seen = |name: &str, [texts, numbers, booleans]: [u64; 3]| AttributeSummary { name: name.to_owned(), texts, numbers, booleans };
        let attributes = [seen("age", [0, 4, 0]), seen("app.version", [4, 0, 0]), seen("mixed", [1, 1, 0]), seen("plan", [2, 0, 0])];
        let of = |group: &str, op: AggregateOp, attribute: &str| {
            let aggregates = vec![Aggregate { op, attribute: attribute.to_owned() }];
            advice(&attributes, &Query { group: vec![group.to_owned()], aggregates, ..Query::default() })
        };
        for (group, op, attribute, said) in [
            ("release", AggregateOp::Sum, "age", None),
            ("mixed", AggregateOp::Unique, "plan", None),
            ("plan", AggregateOp::Mean, "mixed", None),
            ("plan", AggregateOp::Mean, "plan", Some("plan is text: mean takes in only")),
            ("plans", AggregateOp::Count, "_tx", Some("no report has had the attribute plans;")),
            ("plan", AggregateOp::Sum, "agee", Some("no report has had the attribute agee;")),
        ] {
            let advice = of(group, op, attribute);
            assert_eq!(advice.len(), usize::from(said.is_some()), "{advice:?}");
            assert!(advice.iter().all(|advice| advice.starts_with(said.unwrap_or_default())), "{advice:?}");
        }
        assert_eq!(advice(&[], &Query { group: vec!["plans".to_owned()], ..Query::default() }), Vec::<String>::new(), "nothing came yet");
    }
}
