//! Who asks: bearer tokens of our own API. A token bound to a project sees nothing of the others, not even that they exist.

use crate::app::App;
use crate::reply::Refusal;
use axum::extract::FromRequestParts;
use axum::http::{StatusCode, header, request::Parts};
use catalog::{Access, Project, Scope, Snapshot, token_hash};
use std::sync::Arc;

/// A caller with a valid token.
pub(crate) struct Caller {
    access: Access,
    snapshot: Arc<Snapshot>,
}

impl Caller {
    /// Refuses a caller whose token may do less than `scope`.
    pub(crate) fn needs(&self, scope: Scope) -> Result<(), Refusal> {
        // A submission token ships inside applications: it opens nothing here.
        if self.access.scope == Scope::Submit || self.access.scope < scope {
            let detail = format!("this needs a token of scope {scope}; yours is of scope {}", self.access.scope);
            return Err(Refusal::new(StatusCode::FORBIDDEN, "Authorization", detail));
        }
        Ok(())
    }

    /// The project of that name, if the caller may see it with `scope`; the same answer for a hidden and a missing one.
    pub(crate) fn project(&self, name: &str, scope: Scope) -> Result<Project, Refusal> {
        self.needs(scope)?;
        self.projects().find(|project| project.name == name).cloned().ok_or_else(|| Refusal::missing(&format!("project {name:?}")))
    }

    /// The projects the caller may see.
    pub(crate) fn projects(&self) -> impl Iterator<Item = &Project> {
        self.snapshot.projects.iter().filter(|project| self.access.project.is_none_or(|bound| bound == project.id))
    }

    /// Refuses a token bound to one project where something of the whole server is asked for.
    pub(crate) fn unbound(&self) -> Result<(), Refusal> {
        if self.access.project.is_some() {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "Authorization", "this needs a token that is not bound to one project"));
        }
        Ok(())
    }

    /// The configuration the request is judged by.
    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// How the audit log names the caller.
    pub(crate) fn name(&self) -> String {
        format!("token {}", self.access.id)
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Caller, Refusal> {
        let refusal = |detail: &str| Refusal::new(StatusCode::UNAUTHORIZED, "Authorization", detail);
        let header = parts.headers.get(header::AUTHORIZATION).ok_or_else(|| {
            refusal("send a token: Authorization: Bearer <token>; the first start wrote one into admin.token in the data folder")
        })?;
        let token = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).ok_or_else(|| refusal("must be Bearer <token>"))?;
        let snapshot = app.catalog.published();
        // Looked up by hash: how long it takes says nothing about how much of a guess was right.
        let access = *snapshot.tokens.get(&token_hash(token.trim())).ok_or_else(|| refusal("this token is unknown or was revoked"))?;
        Ok(Caller { access, snapshot })
    }
}
