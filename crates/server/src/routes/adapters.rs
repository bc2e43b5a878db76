//! The adapters' own descriptions: what forms, validation and docs are made from.

use crate::auth::Caller;
use crate::reply::Refusal;
use axum::Json;
use catalog::Scope;

/// Every adapter with its fields.
#[utoipa::path(get, path = "/api/v1/adapters", responses((status = 200, body = serde_json::Value)))]
pub(crate) async fn list(caller: Caller) -> Result<Json<&'static [&'static adapters::Description]>, Refusal> {
    caller.needs(Scope::Query)?;
    Ok(Json(adapters::descriptions()))
}
