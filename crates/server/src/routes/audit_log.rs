//! The audit log for administrators: who changed what and when, page by page.

use super::parameters::Parameters;
use crate::app::App;
use crate::auth::Caller;
use crate::reply::Refusal;
use axum::Json;
use axum::extract::State;
use catalog::{AuditEntry, AuditFilter, Scope};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Entries of a page, by default and at most.
const ENTRIES: u32 = 100;
const MOST_ENTRIES: u32 = 1_000;

/// Which entries.
#[derive(Deserialize, IntoParams)]
pub(crate) struct Asked {
    /// Entries before the one of this number: `next_before` of the page before.
    before: Option<u64>,
    /// Entries of a page, 1 to 1,000; by default 100.
    limit: Option<u32>,
    /// Only what was done in this project.
    project: Option<String>,
    /// Only what this actor did, as entries name them: `user ann`, `token 3`.
    actor: Option<String>,
}

/// A page of the audit log.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditLog {
    /// Newest first.
    entries: Vec<ShownEntry>,
    /// Ask for the next older page with it as `before`; null when there is none.
    next_before: Option<u64>,
}

/// Something that somebody did.
#[derive(Serialize, ToSchema)]
pub(crate) struct ShownEntry {
    /// Later entries have greater ones.
    id: u64,
    /// Unix seconds.
    at: u64,
    /// `user NAME` or `token NUMBER`; another word is a part of the server itself.
    actor: String,
    /// Null for what belongs to the whole server.
    project: Option<String>,
    /// What was done, such as `put metric`.
    action: String,
    /// What it was done to.
    subject: String,
}

impl From<AuditEntry> for ShownEntry {
    fn from(entry: AuditEntry) -> ShownEntry {
        let AuditEntry { id, at, actor, project, action, subject } = entry;
        ShownEntry { id, at: at.secs(), actor, project, action, subject }
    }
}

/// Who changed what and when, newest first. For administrators of the whole server.
#[utoipa::path(get, path = "/api/v1/audit-log", params(Asked),
    responses((status = 200, body = AuditLog), (status = 403, body = crate::reply::ProblemBody), (status = 422, body = crate::reply::ProblemBody)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Parameters(asked): Parameters<Asked>,
) -> Result<Json<AuditLog>, Refusal> {
    caller.needs(Scope::Admin)?;
    caller.unbound()?;
    let limit = asked.limit.unwrap_or(ENTRIES);
    if !(1..=MOST_ENTRIES).contains(&limit) {
        return Err(Refusal::invalid("limit", format!("must be 1 to {MOST_ENTRIES}")));
    }
    let project = match asked.project {
        Some(name) => Some(caller.project(&name, Scope::Admin)?.id),
        None => None,
    };
    let filter = AuditFilter { before: asked.before, project, actor: asked.actor };
    // One more than asked for tells whether there is another page.
    let mut entries = app.catalog(move |app, _| app.catalog.audit_log(&filter, limit + 1)).await?;
    let more = entries.len() > limit as usize;
    entries.truncate(limit as usize);
    let next_before = entries.last().filter(|_| more).map(|oldest| oldest.id);
    Ok(Json(AuditLog { entries: entries.into_iter().map(ShownEntry::from).collect(), next_before }))
}
