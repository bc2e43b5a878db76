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
use model::Problem;
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
