//! BPG, the protocol by which `morgue` reads and changes configuration: projects, tokens, attributes, saved views. Types that this
//! server has nothing for are known and empty.

use super::session::{OWNER, UNIVERSE};
use super::{Asker, Denied, json_body};
use crate::app::App;
use crate::routes::projects::check_name;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use catalog::{AttributeSetting, AttributeType, Declared, Format, Scope, TokenSummary, View, ViewDraft, token_hash};
use model::ProjectId;
use serde_json::{Map, Value as Json_, json};
use std::sync::Arc;

/// Most actions of one request.
const MAX_ACTIONS: usize = 200;
/// Longest name and longest body of a view, in bytes.
const MAX_NAME: usize = 128;
const MAX_VIEW: usize = 64 << 10;

/// A type's fields: name, what clients must give there, constraints.
type Fields = &'static [(&'static str, &'static str, &'static [&'static str])];

/// Types and their fields. Of those that are always empty only the key is told.
const SCHEMA: [(&str, Fields); 22] = [
    ("universe", &[("id", "integer", PRIMARY), ("name", "text", &["unique"]), ("deleted", "integer", &[])]),
    (
        "project",
        &[
            ("pid", "integer", PRIMARY),
            ("name", "text", &["unique"]),
            ("owner", "integer", &[]),
            ("universe", "integer", &[]),
            ("deleted", "integer", &[]),
        ],
    ),
    (
        "users",
        &[
            ("uid", "integer", PRIMARY),
            ("universe", "integer", &[]),
            ("username", "text", &["unique"]),
            ("email", "text", &[]),
            ("role", "text", &[]),
        ],
    ),
    (
        "attribute",
        &[
            ("project", "integer", &["primary"]),
            ("name", "text", &["primary"]),
            ("type", "text", &[]),
            ("format", "text", &[]),
            ("description", "text", &[]),
        ],
    ),
    ("token", &[("id", "text", &["primary"]), ("project", "integer", &[]), ("owner", "integer", &[])]),
    (
        "api_token",
        &[
            ("id", "text", &["primary"]),
            ("project", "integer", &[]),
            ("owner", "integer", &[]),
            ("capabilities", "text", &[]),
            ("metadata", "text", &[]),
        ],
    ),
    (
        "query",
        &[
            ("id", "integer", PRIMARY),
            ("name", "text", &[]),
            ("project", "integer", &[]),
            ("owner", "integer", &[]),
            ("queries", "text", &[]),
            ("payload", "text", &[]),
        ],
    ),
    ("listener", EMPTY),
    ("metric_group", EMPTY),
    ("metric", EMPTY),
    ("report", EMPTY),
    ("scrubber", EMPTY),
    ("deduplication", EMPTY),
    ("symbol_server", EMPTY),
    ("tenant", EMPTY),
    ("limits", EMPTY),
    ("license", EMPTY),
    ("session", EMPTY),
    ("signup_pending", EMPTY),
    ("password_reset", EMPTY),
    ("sampling_config", EMPTY),
    ("project_setting", EMPTY),
];
const PRIMARY: &[&str] = &["primary", "autoincrement"];
const EMPTY: Fields = &[("id", "integer", PRIMARY)];

/// Runs the actions of a request, each with its own outcome.
pub(super) async fn run(State(app): State<Arc<App>>, asker: Asker, body: Result<Bytes, BytesRejection>) -> Result<Json<Json_>, Denied> {
    let body = json_body(body)?;
    let actions =
        body.get("actions").and_then(Json_::as_array).ok_or_else(|| Denied::new("invalid parameter 'actions': must be a list"))?;
    if actions.len() > MAX_ACTIONS {
        return Err(Denied::new(format!("invalid parameter 'actions': at most {MAX_ACTIONS} at one time")));
    }
    let mut results = Vec::new();
    for action in actions {
        results.push(match act(&app, &asker, action).await {
            Ok(result) => json!({"string": "success", "text": "success", "result": result}),
            Err(denied) => json!({"string": "error", "text": denied.fault.message}),
        });
    }
    Ok(Json(json!({"actions": actions, "results": results})))
}

async fn act(app: &Arc<App>, asker: &Asker, action: &Json_) -> Result<Json_, Denied> {
    let text = |name: &str| action.get(name).and_then(Json_::as_str).unwrap_or_default();
    let word = text("action");
    if word == "schema" {
        return Ok(schema());
    }
    let kind = text("type").strip_prefix("configuration/").unwrap_or(text("type"));
    if !SCHEMA.iter().any(|(name, _)| *name == kind) {
        return Err(Denied::new(format!("unknown type '{kind}'")));
    }
    let object = |name: &str| action.get(name).and_then(Json_::as_object).cloned().unwrap_or_default();
    match word {
        "get" => get(app, asker, kind).await,
        "create" => create(app, asker, kind, object("object")).await,
        "modify" => modify(app, asker, kind, object("key"), object("fields")).await,
        "delete" => delete(app, asker, kind, object("key")).await,
        other => Err(Denied::new(format!("unknown action '{other}'"))),
    }
}

fn schema() -> Json_ {
    let fields = |fields: Fields| -> Map<String, Json_> {
        fields.iter().map(|(name, kind, constraints)| ((*name).to_owned(), json!({"type": kind, "constraints": constraints}))).collect()
    };
    SCHEMA.iter().map(|(name, of)| ((*name).to_owned(), Json_::Object(fields(of)))).collect::<Map<_, _>>().into()
}

/// Everything of a type that the caller may see; of what it may not see, nothing, because clients ask for all types at one time.
async fn get(app: &Arc<App>, asker: &Asker, kind: &str) -> Result<Json_, Denied> {
    match kind {
        "universe" => Ok(json!([{"id": UNIVERSE, "name": app.universe, "deleted": 0}])),
        "project" => Ok(asker.caller.projects().map(|project| shown_project(project.id, &project.name)).collect()),
        "users" => Ok(json!([{"uid": OWNER, "universe": UNIVERSE, "username": asker.caller.name(), "email": "", "role": "member"}])),
        "token" => Ok(tokens(app, asker)
            .await?
            .iter()
            .filter(|token| token.scope == Scope::Submit)
            .map(|token| shown_token(asker, token, false))
            .collect()),
        "api_token" => Ok(tokens(app, asker).await?.iter().map(|token| shown_token(asker, token, true)).collect()),
        "attribute" => {
            let settings = &asker.caller.snapshot().attribute_settings;
            let visible = |setting: &&AttributeSetting| asker.caller.projects().any(|project| project.id == setting.project);
            Ok(settings
                .iter()
                .filter(visible)
                .map(|setting| shown_attribute(setting.project, &setting.attribute, &setting.declared))
                .collect())
        }
        "query" => Ok(views(app, asker).await?.iter().map(|(project, view)| shown_view(*project, view)).collect()),
        _ => Ok(json!([])),
    }
}

async fn create(app: &Arc<App>, asker: &Asker, kind: &str, object: Map<String, Json_>) -> Result<Json_, Denied> {
    let actor = asker.caller.name();
    match kind {
        "project" => {
            asker.needs(Scope::Admin)?;
            asker.caller.unbound().map_err(|_| Denied::new("this needs a token that is not bound to one project"))?;
            let name = string(&object, "name").to_owned();
            check_name("name", &name).map_err(|_| Denied::new(format!("{name:?} cannot be the name of a project")))?;
            let made = name.clone();
            let (id, _) = app.catalog(move |app, now| app.catalog.create_project(&made, &actor, now)).await?;
            Ok(shown_project(id, &name))
        }
        "token" | "api_token" => {
            asker.needs(Scope::Admin)?;
            let scope = if kind == "token" { Scope::Submit } else { scope(string(&object, "capabilities"))? };
            let project = match object.get("project") {
                None | Some(Json_::Null) if scope != Scope::Submit => None,
                _ => Some(of_project(asker, &object)?),
            };
            if project.is_none() {
                asker.caller.unbound().map_err(|_| Denied::new("this needs a token that is not bound to one project"))?;
            }
            let token = app.catalog(move |app, now| app.catalog.create_token(scope, project, &actor, now)).await?;
            let mut made = object;
            made.insert("id".to_owned(), json!(token.reveal()));
            Ok(made.into())
        }
        "query" => {
            asker.needs(Scope::Edit)?;
            let (project, draft) = (of_project(asker, &object)?, view_draft(&object)?);
            let saved = draft.clone();
            let id = app.catalog(move |app, now| app.catalog.create_view(project, &saved, &actor, now)).await?;
            let ViewDraft { name, queries, payload } = draft;
            Ok(shown_view(project, &View { id, name, queries, payload }))
        }
        "attribute" => declare(app, asker, &object, object.clone()).await,
        other => Err(not_here("made", other)),
    }
}

async fn modify(app: &Arc<App>, asker: &Asker, kind: &str, key: Map<String, Json_>, fields: Map<String, Json_>) -> Result<Json_, Denied> {
    match kind {
        "query" => {
            asker.needs(Scope::Edit)?;
            let (project, view) = view(app, asker, &key).await?;
            let View { id, name, queries, payload } = view;
            let mut whole = Map::from_iter([
                ("name".to_owned(), json!(name)),
                ("queries".to_owned(), json!(queries)),
                ("payload".to_owned(), json!(payload)),
            ]);
            whole.extend(fields);
            let draft = view_draft(&whole)?;
            let (saved, actor) = (draft.clone(), asker.caller.name());
            app.catalog(move |app, now| app.catalog.put_view(project, id, &saved, &actor, now)).await?;
            let ViewDraft { name, queries, payload } = draft;
            Ok(shown_view(project, &View { id, name, queries, payload }))
        }
        "attribute" => declare(app, asker, &key, fields).await,
        other => Err(not_here("changed", other)),
    }
}

async fn delete(app: &Arc<App>, asker: &Asker, kind: &str, key: Map<String, Json_>) -> Result<Json_, Denied> {
    let actor = asker.caller.name();
    match kind {
        "token" | "api_token" => {
            asker.needs(Scope::Admin)?;
            asker.caller.unbound().map_err(|_| Denied::new("this needs a token that is not bound to one project"))?;
            let text = string(&key, "id");
            let known = asker.caller.snapshot().tokens.get(&token_hash(text)).map(|access| access.id);
            let id = known.or_else(|| text.parse().ok()).ok_or_else(|| Denied::new("no such token"))?;
            app.catalog(move |app, now| app.catalog.revoke_token(id, &actor, now)).await?;
            Ok(json!({}))
        }
        "query" => {
            asker.needs(Scope::Edit)?;
            let (project, view) = view(app, asker, &key).await?;
            app.catalog(move |app, now| app.catalog.delete_view(project, view.id, &actor, now)).await?;
            Ok(json!({}))
        }
        "attribute" => {
            asker.needs(Scope::Edit)?;
            let (project, name) = (of_project(asker, &key)?, string(&key, "name").to_owned());
            app.catalog(move |app, now| app.catalog.delete_attribute_setting(project, &name, None, &actor, now)).await?;
            Ok(json!({}))
        }
        other => Err(not_here("deleted", other)),
    }
}

/// Says what an attribute is; what the fields leave out is kept.
async fn declare(app: &Arc<App>, asker: &Asker, key: &Map<String, Json_>, fields: Map<String, Json_>) -> Result<Json_, Denied> {
    asker.needs(Scope::Edit)?;
    let (project, name) = (of_project(asker, key)?, string(key, "name").to_owned());
    let before = asker.caller.snapshot().attribute_setting(project, &name).map(|setting| setting.declared.clone());
    let mut declared =
        before.unwrap_or(Declared { kind: None, format: Format::None, description: String::new(), personal: false, non_negative: false });
    if fields.contains_key("type") {
        declared.kind = Some(string(&fields, "type").parse::<AttributeType>().map_err(Denied::new)?);
    }
    if fields.contains_key("format") {
        let word = Some(string(&fields, "format")).filter(|word| !word.is_empty()).unwrap_or("none");
        declared.format = word.parse::<Format>().map_err(Denied::new)?;
    }
    if fields.contains_key("description") {
        declared.description = string(&fields, "description").to_owned();
    }
    if let Some(problem) = declared.problems(&name).first() {
        return Err(Denied::new(problem.to_string()));
    }
    let (saved, of, actor) = (declared.clone(), name.clone(), asker.caller.name());
    app.catalog(move |app, now| app.catalog.put_attribute_setting(project, &of, &saved, None, &actor, now)).await?;
    Ok(shown_attribute(project, &name, &declared))
}

fn shown_attribute(project: ProjectId, name: &str, declared: &Declared) -> Json_ {
    let kind = declared.kind.map_or("dictionary", AttributeType::name);
    json!({"project": project.0, "name": name, "type": kind, "format": declared.format.name(), "description": declared.description})
}

fn not_here(done: &str, kind: &str) -> Denied {
    Denied::new(format!("a {kind} cannot be {done} through this interface; the server's own API under /api/v1 may have it"))
}

fn string<'a>(object: &'a Map<String, Json_>, name: &str) -> &'a str {
    object.get(name).and_then(Json_::as_str).unwrap_or_default()
}

/// The project that an object names by its number.
fn of_project(asker: &Asker, object: &Map<String, Json_>) -> Result<ProjectId, Denied> {
    let number = object.get("project").and_then(Json_::as_u64);
    let project = asker.caller.projects().find(|project| Some(u64::from(project.id.0)) == number);
    project.map(|project| project.id).ok_or_else(|| Denied::new(format!("no such project '{}'", number.unwrap_or(0))))
}

fn shown_project(id: ProjectId, name: &str) -> Json_ {
    json!({"pid": id.0, "name": name, "owner": OWNER, "universe": UNIVERSE, "deleted": 0})
}

/// Tokens are for those to see who may make them.
async fn tokens(app: &Arc<App>, asker: &Asker) -> Result<Vec<TokenSummary>, Denied> {
    if asker.needs(Scope::Admin).is_err() || asker.caller.unbound().is_err() {
        return Ok(Vec::new());
    }
    Ok(app.catalog(|app, _| app.catalog.tokens(None)).await?)
}

/// A submission token is shown itself, another by its number: its text was shown once.
fn shown_token(asker: &Asker, token: &TokenSummary, capabilities: bool) -> Json_ {
    let project = asker.caller.projects().find(|project| Some(&project.name) == token.project.as_ref()).map(|project| project.id.0);
    let id = token.token.clone().unwrap_or_else(|| token.id.to_string());
    let mut shown = json!({"id": id, "project": project, "owner": OWNER});
    if capabilities {
        let allowed = match token.scope {
            Scope::Submit => "error:post sync:post",
            Scope::Query => "query:post object:get",
            Scope::Edit | Scope::Admin => "error:post query:post object:get",
        };
        shown["capabilities"] = json!(allowed);
        shown["metadata"] = json!(json!({"name": format!("{} token {}", token.scope, token.id)}).to_string());
    }
    shown
}

/// What a token with these capabilities may do here. One that submits is public, so it can do nothing else.
fn scope(capabilities: &str) -> Result<Scope, Denied> {
    let words: Vec<&str> = capabilities.split_whitespace().collect();
    let all = |known: &[&str]| !words.is_empty() && words.iter().all(|word| known.contains(word));
    match () {
        () if all(&["error:post", "sync:post"]) => Ok(Scope::Submit),
        () if all(&["query:post", "object:get"]) => Ok(Scope::Query),
        () => Err(Denied::new(format!(
            "capabilities {capabilities:?}: a token either submits (error:post sync:post) or reads (query:post object:get); make one for each"
        ))),
    }
}

/// The views of every project that the caller may see.
async fn views(app: &Arc<App>, asker: &Asker) -> Result<Vec<(ProjectId, View)>, Denied> {
    let projects: Vec<ProjectId> = asker.caller.projects().map(|project| project.id).collect();
    let views = app.catalog(move |app, _| {
        let mut views = Vec::new();
        for project in projects {
            views.extend(app.catalog.views(project)?.into_iter().map(|view| (project, view)));
        }
        Ok(views)
    });
    Ok(views.await?)
}

async fn view(app: &Arc<App>, asker: &Asker, key: &Map<String, Json_>) -> Result<(ProjectId, View), Denied> {
    let id = key.get("id").and_then(Json_::as_i64);
    let found = views(app, asker).await?.into_iter().find(|(_, view)| Some(view.id) == id);
    found.ok_or_else(|| Denied::new("no such query"))
}

fn view_draft(object: &Map<String, Json_>) -> Result<ViewDraft, Denied> {
    let draft = ViewDraft {
        name: string(object, "name").to_owned(),
        queries: string(object, "queries").to_owned(),
        payload: string(object, "payload").to_owned(),
    };
    if draft.name.trim().is_empty() || draft.name.len() > MAX_NAME {
        return Err(Denied::new(format!("the name of a query has 1 to {MAX_NAME} bytes")));
    }
    if draft.queries.len() > MAX_VIEW || draft.payload.len() > MAX_VIEW {
        return Err(Denied::new(format!("a query has at most {MAX_VIEW} bytes")));
    }
    Ok(draft)
}

fn shown_view(project: ProjectId, view: &View) -> Json_ {
    json!({"id": view.id, "name": view.name, "project": project.0, "owner": OWNER, "queries": view.queries, "payload": view.payload})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_submits_or_reads() {
        for (capabilities, expected) in [
            ("error:post", Some(Scope::Submit)),
            ("error:post sync:post", Some(Scope::Submit)),
            ("query:post", Some(Scope::Query)),
            ("query:post object:get", Some(Scope::Query)),
            ("query:post error:post", None),
            ("symbol:post", None),
            ("", None),
        ] {
            assert_eq!(scope(capabilities).ok(), expected, "{capabilities}");
        }
    }

    #[test]
    fn every_type_has_a_key() {
        let schema = schema();
        for (name, fields) in schema.as_object().expect("an object") {
            let keys = fields
                .as_object()
                .expect("fields")
                .values()
                .filter(|field| field["constraints"].as_array().is_some_and(|all| all.contains(&json!("primary"))));
            assert!(keys.count() > 0, "{name}");
        }
        assert!(schema["listener"].is_object());
    }
}
