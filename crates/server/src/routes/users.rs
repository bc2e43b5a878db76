//! Users: made, listed, changed, deleted by administrators. Passwords go in and never come out.

use super::login::Private;
use crate::app::App;
use crate::auth::Caller;
use crate::reply::Refusal;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use catalog::{Role, Scope, Snapshot, User, UserEdit, check_password, check_user_name};
use model::{Problem, Secret};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// A user to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    /// 1 to 64 lower-case letters, digits and `. _ @ + -`.
    name: String,
    /// `viewer`, `editor` or `admin`.
    role: String,
    /// 10 to 1,024 bytes.
    #[schema(value_type = String)]
    password: Secret,
}

/// Changes of a user; what is left out is kept.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangedUser {
    /// `viewer`, `editor` or `admin`; counts at once.
    role: Option<String>,
    /// 10 to 1,024 bytes; a new one ends the user's sessions.
    #[schema(value_type = Option<String>)]
    password: Option<Secret>,
    /// Whether the user is kept from logging in; this ends their sessions too.
    disabled: Option<bool>,
}

/// A user.
#[derive(Serialize, ToSchema)]
pub(crate) struct ShownUser {
    name: String,
    /// `viewer`, `editor` or `admin`.
    role: String,
    /// Unix seconds.
    created: u64,
    disabled: bool,
}

impl From<&User> for ShownUser {
    fn from(user: &User) -> ShownUser {
        ShownUser { name: user.name.clone(), role: user.role.to_string(), created: user.created.secs(), disabled: user.disabled.is_some() }
    }
}

/// Users belong to the whole server: administrators that are bound to no project.
fn administrator(caller: &Caller) -> Result<(), Refusal> {
    caller.needs(Scope::Admin)?;
    caller.unbound()
}

fn shown(snapshot: &Snapshot, name: &str) -> Result<Json<ShownUser>, Refusal> {
    let user = snapshot.users.iter().find(|user| user.name == name);
    user.map(|user| Json(ShownUser::from(user))).ok_or_else(|| Refusal::missing("user any more: they were deleted meanwhile"))
}

/// All users, disabled ones included.
#[utoipa::path(get, path = "/api/v1/users", responses((status = 200, body = [ShownUser])))]
pub(crate) async fn list(caller: Caller) -> Result<Json<Vec<ShownUser>>, Refusal> {
    administrator(&caller)?;
    Ok(Json(caller.snapshot().users.iter().map(ShownUser::from).collect()))
}

/// Makes a user.
#[utoipa::path(post, path = "/api/v1/users", request_body = NewUser,
    responses((status = 201, body = ShownUser), (status = 409, body = crate::reply::ProblemBody), (status = 422, body = crate::reply::ProblemBody)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Private(new): Private<NewUser>,
) -> Result<(StatusCode, Json<ShownUser>), Refusal> {
    administrator(&caller)?;
    let role = new.role.parse::<Role>();
    let faults = [
        ("name", check_user_name(&new.name).err()),
        ("role", role.as_ref().err().cloned()),
        ("password", check_password(&new.password).err()),
    ];
    let problems: Vec<Problem> = faults.into_iter().filter_map(|(field, fault)| fault.map(|detail| Problem::new(field, detail))).collect();
    let (Ok(role), true) = (role, problems.is_empty()) else { return Err(Refusal::from(problems)) };
    let (actor, name) = (caller.name(), new.name.clone());
    app.hashing(move |app, now| app.catalog.create_user(&name, role, &new.password, &actor, now)).await?;
    Ok((StatusCode::CREATED, shown(&app.catalog.published(), &new.name)?))
}

/// Changes a user's role or password, or disables or enables them. The last administrator stays one.
#[utoipa::path(put, path = "/api/v1/users/{name}", request_body = ChangedUser, params(("name" = String, Path)),
    responses((status = 200, body = ShownUser), (status = 409, body = crate::reply::ProblemBody), (status = 422, body = crate::reply::ProblemBody)))]
pub(crate) async fn edit(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    Private(changed): Private<ChangedUser>,
) -> Result<Json<ShownUser>, Refusal> {
    administrator(&caller)?;
    let mut problems = Vec::new();
    let role = changed.role.map(|role| role.parse::<Role>()).transpose().unwrap_or_else(|detail| {
        problems.push(Problem::new("role", detail));
        None
    });
    if let Some(Err(detail)) = changed.password.as_ref().map(check_password) {
        problems.push(Problem::new("password", detail));
    }
    if !problems.is_empty() {
        return Err(Refusal::from(problems));
    }
    let edit = UserEdit { role, password: changed.password, disabled: changed.disabled };
    let (actor, of) = (caller.name(), name.clone());
    app.hashing(move |app, now| app.catalog.edit_user(&of, &edit, &actor, now)).await?;
    shown(&app.catalog.published(), &name)
}

/// Deletes a user and ends their sessions. The last administrator stays.
#[utoipa::path(delete, path = "/api/v1/users/{name}", params(("name" = String, Path)),
    responses((status = 204), (status = 409, body = crate::reply::ProblemBody)))]
pub(crate) async fn delete(State(app): State<Arc<App>>, caller: Caller, Path(name): Path<String>) -> Result<StatusCode, Refusal> {
    administrator(&caller)?;
    let actor = caller.name();
    app.catalog(move |app, now| app.catalog.delete_user(&name, &actor, now)).await?;
    Ok(StatusCode::NO_CONTENT)
}
